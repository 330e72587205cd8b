//! The states that a profile's rows hold, from one format to the next: bytes in, bytes out.
//!
//! The shapes here are those of the past and never change, so they share no type with the core,
//! which reads only today's format of each. A state's first byte is its format. `None` is a state
//! that is not of the format before: it stays as it is, and the core refuses what it can't read.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use umbel_proto::crypto::kdf::sha256;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::wire;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::StepContext;

/// A state as bytes: most hold secrets.
pub(super) type State = Zeroizing<Vec<u8>>;

/// An inbox of format 2. Format 3 adds until when its descriptor is published.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Inbox2 {
    format: u8,
    identity_seed: [u8; 32],
    seal_seed: [u8; 32],
    revision: u64,
    mailboxes: Vec<Mailbox2>,
}

/// An inbox of format 3. Format 4 has a revision and a time for each epoch, in place of these.
type Inbox3 = (Inbox2, u64);

/// An inbox of format 4. Format 5 adds when its owner looks it up, and what was seen.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Inbox4 {
    format: u8,
    identity_seed: [u8; 32],
    seal_seed: [u8; 32],
    mailboxes: Vec<Mailbox2>,
    is_published: bool,
    rests_until: u64,
    publications: Vec<Publication4>,
}

/// The descriptor of one epoch, in [`Inbox4`].
#[derive(Serialize, Deserialize, Zeroize)]
struct Publication4 {
    epoch: u64,
    revision: u64,
    is_outdated: bool,
    next_at: u64,
    posted: Vec<[u8; 32]>,
}

/// An inbox of format 5, with [`Mailbox2`]s: what stands before these and behind them. Format 6 has
/// other mailboxes, format 7 other publications.
type Inbox5<Mailbox, Publication = Publication4> = (Keys5, Vec<Mailbox>, Published5<Publication>);

/// The beginning of [`Inbox5`].
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Keys5 {
    format: u8,
    identity_seed: [u8; 32],
    seal_seed: [u8; 32],
}

/// The end of [`Inbox5`].
#[derive(Serialize, Deserialize)]
struct Published5<Publication> {
    is_published: bool,
    rests_until: u64,
    publications: Vec<Publication>,
    next_look_at: u64,
    missed: u32,
    missing_since: Option<u64>,
}

/// A mailbox of an inbox, in formats 2 to 5.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Mailbox2 {
    relay: [u8; 32],
    queue: [u8; 32],
    owner_seed: [u8; 32],
    sender_seed: [u8; 32],
    is_created: bool,
    replaces: Option<[u8; 32]>,
    retired_at: Option<u64>,
    failing_since: Option<u64>,
}

/// A mailbox of an inbox of format 6.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Mailbox6 {
    relay: [u8; 32],
    queue: [u8; 32],
    owner_seed: [u8; 32],
    sender_seed: [u8; 32],
    is_created: bool,
    is_companion: bool,
    retired_at: Option<u64>,
    #[zeroize(skip)]
    outage: Option<Outage6>,
}

/// An inbox of format 7. Format 8 has a seal key for each epoch, and [`Mailbox8`]s.
type Inbox7 = Inbox5<Mailbox6, (Publication4, bool)>;

/// An inbox of format 8. Format 9 adds what it asks of strangers.
type Inbox8 = (
    u8,
    [u8; 32],
    Vec<Seal8>,
    Vec<Mailbox8>,
    Published5<(Publication4, bool)>,
);

/// A mailbox of format 8: its queue has a nonce.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Mailbox8 {
    relay: [u8; 32],
    queue: [u8; 32],
    nonce: [u8; 32],
    owner_seed: [u8; 32],
    sender_seed: [u8; 32],
    is_created: bool,
    is_companion: bool,
    retired_at: Option<u64>,
    #[zeroize(skip)]
    outage: Option<Outage6>,
}

/// The seal key of an epoch, in format 8.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Seal8 {
    epoch: u64,
    seed: [u8; 32],
}

/// What is known of the outage of a holder, in [`Mailbox6`].
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Outage6 {
    is_gone: bool,
    is_long: bool,
    lasted: Duration,
    failed_at: u64,
    back_since: Option<u64>,
    lot: u16,
}

/// A message of format 1. Format 2 adds whether enough holders have it, format 3 its times and why
/// the last attempt failed.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Message1 {
    format: u8,
    address: [u8; 32],
    body: Vec<u8>,
    targets: Vec<Target1>,
}

/// A mailbox of [`Message1`].
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Target1 {
    relay: [u8; 32],
    queue: [u8; 32],
    sender_seed: [u8; 32],
    effort: u32,
    record: Option<Vec<u8>>,
    is_named: bool,
}

/// What format 2 of a message adds.
#[derive(Serialize, Deserialize)]
enum Enough2 {
    No,
    Since(u64),
    LastAttempt,
}

/// Why the last attempt at a message of format 3 failed.
#[derive(Serialize, Deserialize)]
enum Obstacle3 {
    NoCircuit,
    NoDescriptor,
    Holders,
    QueueFull,
    NoDirectory,
    Broken { circuits: u32, guards: u32 },
}

/// A message of format 3. Format 4 has [`Target4`]s.
type Message3 = (Message1, Enough2, Times3, Option<Obstacle3>);

/// A mailbox of a message of format 4: it says to which key its copy is sealed.
#[derive(Serialize)]
struct Target4<'a> {
    relay: &'a [u8; 32],
    queue: &'a [u8; 32],
    sender_seed: &'a [u8; 32],
    effort: u32,
    copy: Copy4<'a>,
    is_named: bool,
}

/// A copy in [`Target4`]. Another kind follows, of which no older format knows.
#[derive(Serialize)]
enum Copy4<'a> {
    Held,
    Sealed { key: [u8; 8], record: &'a [u8] },
}

/// A message of format 4, to be read. Format 5 says whether it goes to an address or to a contact.
type Message4 = (Head4, Enough2, Times3, Option<Obstacle3>);

/// The beginning of [`Message4`].
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Head4 {
    format: u8,
    address: [u8; 32],
    body: Vec<u8>,
    targets: Vec<OwnedTarget4>,
}

/// [`Target4`], to be read.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct OwnedTarget4 {
    relay: [u8; 32],
    queue: [u8; 32],
    sender_seed: [u8; 32],
    effort: u32,
    copy: OwnedCopy4,
    is_named: bool,
}

/// [`Copy4`], to be read, with the kind that follows there.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
enum OwnedCopy4 {
    Held,
    Sealed { key: [u8; 8], record: Vec<u8> },
    Unsealed,
}

/// What format 3 of a message adds.
#[derive(Serialize, Deserialize)]
struct Times3 {
    created_at: u64,
    expires_at: u64,
    next_deposit_at: Option<u64>,
}

/// The paths of format 1. Format 2 adds what was learned of each guard, and when guards beyond the
/// primaries were first tried.
#[derive(Serialize, Deserialize)]
struct Paths1 {
    format: u8,
    guards: Vec<Guard1>,
    pinned: Vec<Pinned1>,
}

/// A guard of [`Paths1`].
#[derive(Serialize, Deserialize)]
struct Guard1 {
    relay: [u8; 32],
    sampled_at: u64,
    confirmed_at: Option<u64>,
    unlisted_since: Option<u64>,
}

/// A relay of the second layer, in formats 1 and 2.
#[derive(Serialize, Deserialize)]
struct Pinned1 {
    relay: [u8; 32],
    expires_at: u64,
}

/// The paths of format 2. Format 3 adds how many relays each of the second layer made and refused.
#[derive(Serialize, Deserialize)]
struct Paths2 {
    format: u8,
    guards: Vec<Guard2>,
    pinned: Vec<Pinned1>,
    new_at: Vec<u64>,
}

/// The paths of format 3. Format 4 adds relays pinned in the middle's place.
#[derive(Serialize, Deserialize)]
struct Paths3 {
    format: u8,
    guards: Vec<Guard2>,
    pinned: Vec<Pinned3>,
    new_at: Vec<u64>,
}

/// A relay of the second layer in [`Paths3`].
#[derive(Serialize, Deserialize)]
struct Pinned3 {
    relay: [u8; 32],
    expires_at: u64,
    made: u32,
    refused: u32,
    set_aside_at: Option<u64>,
}

/// A guard of [`Paths2`] and [`Paths3`].
#[derive(Serialize, Deserialize)]
struct Guard2 {
    relay: [u8; 32],
    sampled_at: u64,
    confirmed_at: Option<u64>,
    unlisted_since: Option<u64>,
    tried_at: Option<u64>,
    missed: u32,
    missed_since: Option<u64>,
    rests_until: Option<u64>,
    built: u32,
    failed: u32,
    set_aside_at: Option<u64>,
}

/// An inbox of format 2 in format 3: its descriptor is published as soon as it is used. One that
/// had a mailbox counts as published before: its owner gave its address to others.
pub(super) fn inbox_3(old: &[u8]) -> Option<State> {
    let inbox = wire::decode::<Inbox2>(old)
        .ok()
        .filter(|inbox| inbox.format == 2)?;
    let has_mailbox = inbox.mailboxes.iter().any(|mailbox| mailbox.is_created);
    let published_until = u64::from(has_mailbox);
    Some(with_added(3, old, &wire::encode(&published_until)))
}

/// An inbox of format 3 in format 4. Nothing is known of what is on the ring: each epoch's revisions
/// begin anew, above all that counted. One that had to be published at once still has to.
pub(super) fn inbox_4(old: &[u8], context: &StepContext) -> Option<State> {
    const WEEK: u64 = 7 * 24 * 3600;
    let (mut inbox, published_until) = wire::decode::<Inbox3>(old)
        .ok()
        .filter(|(inbox, _)| inbox.format == 3)?;
    let outdated = Publication4 {
        epoch: context.wall.as_secs() / WEEK,
        revision: 0,
        is_outdated: true,
        next_at: context.wall.as_secs(),
        posted: Vec::new(),
    };
    Some(wire::encode_secret(&Inbox4 {
        format: 4,
        identity_seed: inbox.identity_seed,
        seal_seed: inbox.seal_seed,
        mailboxes: core::mem::take(&mut inbox.mailboxes),
        is_published: published_until != 0,
        rests_until: 0,
        publications: (published_until == 1)
            .then_some(outdated)
            .into_iter()
            .collect(),
    }))
}

/// An inbox of format 4 in format 5: its owner's look-up is due, and none was missed.
pub(super) fn inbox_5(old: &[u8]) -> Option<State> {
    wire::decode::<Inbox4>(old)
        .ok()
        .filter(|inbox| inbox.format == 4)?;
    Some(with_added(
        5,
        old,
        &wire::encode(&(0_u64, 0_u32, None::<u64>)),
    ))
}

/// An inbox of format 5 in format 6. A mailbox that was to replace another is its companion. How long
/// a holder has been out of reach is counted anew, and one that lost a mailbox says so again.
pub(super) fn inbox_6(old: &[u8]) -> Option<State> {
    let (mut keys, mailboxes, published) = wire::decode::<Inbox5<Mailbox2>>(old)
        .ok()
        .filter(|(keys, _, _)| keys.format == 5)?;
    keys.format = 6;
    let mailbox = |old: &Mailbox2| Mailbox6 {
        relay: old.relay,
        queue: old.queue,
        owner_seed: old.owner_seed,
        sender_seed: old.sender_seed,
        is_created: old.is_created,
        is_companion: old.replaces.is_some(),
        retired_at: old.retired_at,
        outage: None,
    };
    let mailboxes: Vec<Mailbox6> = mailboxes.iter().map(mailbox).collect();
    let new: Inbox5<Mailbox6> = (keys, mailboxes, published);
    Some(wire::encode_secret(&new))
}

/// An inbox of format 6 in format 7. No run was cut short while it published.
pub(super) fn inbox_7(old: &[u8]) -> Option<State> {
    let (mut keys, mailboxes, published) = wire::decode::<Inbox5<Mailbox6>>(old)
        .ok()
        .filter(|(keys, _, _)| keys.format == 6)?;
    keys.format = 7;
    let not_begun = |publication| (publication, false);
    let publications = published.publications.into_iter().map(not_begun);
    let published = Published5 {
        is_published: published.is_published,
        rests_until: published.rests_until,
        publications: publications.collect(),
        next_look_at: published.next_look_at,
        missed: published.missed,
        missing_since: published.missing_since,
    };
    let new: Inbox5<Mailbox6, (Publication4, bool)> = (keys, mailboxes, published);
    Some(wire::encode_secret(&new))
}

/// An inbox of format 7 in format 8. Its one seal key becomes that of the epochs whose descriptors may
/// name it. A queue that no holder has yet is bound to its owner's key.
pub(super) fn inbox_8(old: &[u8], context: &StepContext) -> Option<State> {
    const WEEK: u64 = 7 * 24 * 3600;
    let (keys, mailboxes, published) = wire::decode::<Inbox7>(old)
        .ok()
        .filter(|(keys, _, _)| keys.format == 7)?;
    let epochs = published.publications.iter().map(|(it, _)| it.epoch);
    let last = epochs.max().unwrap_or(0);
    let last = last.max(context.wall.as_secs() / WEEK + 1);
    let seal = |epoch| Seal8 {
        epoch,
        seed: keys.seal_seed,
    };
    let seals = vec![seal(last.saturating_sub(1)), seal(last)];
    let mailboxes: Vec<Mailbox8> = mailboxes.iter().map(mailbox_8).collect();
    let new = (8_u8, keys.identity_seed, seals, mailboxes, published);
    Some(wire::encode_secret(&new))
}

/// An inbox of format 8 in format 9. It asks no more of strangers than the network does, and no holder
/// was told otherwise.
pub(super) fn inbox_9(old: &[u8]) -> Option<State> {
    let (_, mut identity_seed, ..) = wire::decode::<Inbox8>(old)
        .ok()
        .filter(|(format, ..)| *format == 8)?;
    identity_seed.zeroize();
    let (wanted, in_descriptor, at_holders, moved_at) = (0_u32, 0_u32, 0_u32, 0_u64);
    let told: [(); 0] = [];
    let effort = (wanted, in_descriptor, at_holders, moved_at, told.as_slice());
    let effort = wire::encode(&effort);
    Some(with_added(9, old, &effort))
}

fn mailbox_8(old: &Mailbox6) -> Mailbox8 {
    let owner = SigningKey::from_seed(&old.owner_seed).public();
    let bound = || sha256(&[b"umbel queue id 1", &owner.0, &old.queue]);
    Mailbox8 {
        relay: old.relay,
        queue: if old.is_created { old.queue } else { bound() },
        nonce: old.queue,
        owner_seed: old.owner_seed,
        sender_seed: old.sender_seed,
        is_created: old.is_created,
        is_companion: old.is_companion,
        retired_at: old.retired_at,
        outage: old.outage,
    }
}

/// A message of format 1 or 2 in format 3. It counts as made now, to be tried for a record's life.
///
/// The clock may be wrong, as it may when a user sends a message. The core treats both alike: if it
/// was ahead, the times are mended when the clock is right again; if it was behind, the message
/// expires early and its user hears of it. No step needs a better clock than a new message has.
pub(super) fn message_3(old: &[u8], context: &StepContext) -> Option<State> {
    let times = Times3 {
        created_at: context.wall.as_secs(),
        expires_at: (context.wall + context.record_life).as_secs(),
        next_deposit_at: None,
    };
    let obstacle = None::<()>;
    match old.first()? {
        1 => {
            wire::decode::<Message1>(old).ok()?;
            let added = wire::encode(&(Enough2::No, times, obstacle));
            Some(with_added(3, old, &added))
        }
        2 => {
            wire::decode::<(Message1, Enough2)>(old).ok()?;
            Some(with_added(3, old, &wire::encode(&(times, obstacle))))
        }
        _ => None,
    }
}

/// A message of format 3 in format 4. Nobody wrote down to which keys its copies are sealed: they are
/// made anew before they are deposited, and count as asked for.
pub(super) fn message_4(old: &[u8]) -> Option<State> {
    wire::decode::<Message3>(old)
        .ok()
        .filter(|(message, ..)| message.format == 3)?;
    let (message, rest) = postcard::take_from_bytes::<Message1>(old).ok()?;
    let targets: Vec<Target4<'_>> = message.targets.iter().map(Target4::of).collect();
    let head = (4_u8, &message.address, &message.body, targets);
    let head = wire::encode_secret(&head);
    Some(with_added(4, &head, rest))
}

/// A message of format 4 in format 5. It goes to an address, whose owner can't answer.
pub(super) fn message_5(old: &[u8]) -> Option<State> {
    wire::decode::<Message4>(old)
        .ok()
        .filter(|(head, ..)| head.format == 4)?;
    let to_address = 0;
    let mut new = Zeroizing::new(Vec::with_capacity(old.len() + 1));
    new.extend([5, to_address]);
    new.extend(old.iter().skip(1));
    Some(new)
}

impl<'a> Target4<'a> {
    fn of(old: &'a Target1) -> Self {
        let sealed = |record| Copy4::Sealed {
            key: [0; 8],
            record,
        };
        Self {
            relay: &old.relay,
            queue: &old.queue,
            sender_seed: &old.sender_seed,
            effort: old.effort,
            copy: old.record.as_deref().map_or(Copy4::Held, sealed),
            is_named: old.is_named,
        }
    }
}

/// Paths of format 1 in format 2. A guard through which a circuit was built was tried by then.
pub(super) fn paths_2(old: &[u8]) -> Option<State> {
    let Paths1 {
        format: 1,
        guards,
        pinned,
    } = wire::decode(old).ok()?
    else {
        return None;
    };
    let guards = guards.into_iter().map(|guard| Guard2 {
        relay: guard.relay,
        sampled_at: guard.sampled_at,
        confirmed_at: guard.confirmed_at,
        unlisted_since: guard.unlisted_since,
        tried_at: guard.confirmed_at,
        missed: 0,
        missed_since: None,
        rests_until: None,
        built: 0,
        failed: 0,
        set_aside_at: None,
    });
    Some(wire::encode_secret(&Paths2 {
        format: 2,
        guards: guards.collect(),
        pinned,
        new_at: Vec::new(),
    }))
}

/// Paths of format 2 in format 3. Nothing is held against the relays of the second layer.
pub(super) fn paths_3(old: &[u8]) -> Option<State> {
    let Paths2 {
        format: 2,
        guards,
        pinned,
        new_at,
    } = wire::decode(old).ok()?
    else {
        return None;
    };
    let pinned = pinned.into_iter().map(|pinned| Pinned3 {
        relay: pinned.relay,
        expires_at: pinned.expires_at,
        made: 0,
        refused: 0,
        set_aside_at: None,
    });
    Some(wire::encode_secret(&Paths3 {
        format: 3,
        guards,
        pinned: pinned.collect(),
        new_at,
    }))
}

/// Paths of format 3 in format 4. No middle is pinned.
pub(super) fn paths_4(old: &[u8]) -> Option<State> {
    wire::decode::<Paths3>(old)
        .ok()
        .filter(|paths| paths.format == 3)?;
    Some(with_added(4, old, &[0]))
}

/// A state that only has fields added at its end, in one allocation: no copy of its secrets is left
/// behind by growing.
fn with_added(format: u8, old: &[u8], added: &[u8]) -> State {
    let mut new = Zeroizing::new(Vec::with_capacity(old.len() + added.len()));
    new.push(format);
    new.extend(old.iter().skip(1));
    new.extend(added);
    new
}
