//! The core's inputs and outputs besides cells: wishes, notices, links, storage.
//!
//! The shell executes these and reports back; so does the simulator, without sockets or files.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use umbel_proto::crypto::dh::DhPublic;
use umbel_proto::directory::{BookOp, BookRow};
use umbel_proto::ids::{MessageId, Peer, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::link::{Hello, LinkId};
use umbel_proto::path;
use umbel_proto::time::{Duration, WallTime};

use super::contacts::ContactId;
use super::inboxes::InboxId;

/// A wish of the user.
#[expect(missing_debug_implementations, reason = "holds messages")]
pub enum Wish {
    /// Send this message: `Queued` once it is durable in the outbox, `Held` as holders take it.
    Send {
        /// Chosen by the caller, at random.
        id: MessageId,
        /// To whom.
        to: Recipient,
        /// What.
        body: Vec<u8>,
        /// How long it is tried before it expires; the life of a record if this is `None`.
        life: Option<Duration>,
    },
    /// Take this message back; answered by `Cancelled`, unless it is not in the outbox.
    Cancel(MessageId),
    /// Try everything in the outbox again, now.
    Flush,
    /// Make a new inbox: `InboxReady` once its mailboxes exist and its descriptor is published.
    CreateInbox {
        /// The owner's own name for it.
        name: String,
    },
    /// Keep fetching for this inbox, and look now. `Received` for each message, `CaughtUp` when its
    /// mailboxes were seen empty.
    Listen {
        /// Which inbox.
        name: String,
        /// Hold a subscription, instead of polling.
        is_interactive: bool,
    },
    /// Keep fetching the answers of contacts that belong to no inbox of one's own, and look now: as
    /// `Listen` does for an inbox and for the contacts that belong to it.
    ListenForAnswers {
        /// Hold subscriptions, instead of polling.
        is_interactive: bool,
    },
    /// Read nothing more that this contact writes, or read it again.
    Block {
        /// Which contact.
        contact: ContactKey,
        /// Nothing more is read.
        is_blocked: bool,
    },
    /// Forget a contact, its keys and its queues, and what waits for it in the outbox.
    RemoveContact(ContactKey),
    /// Take care of a message that another process put into the outbox, durably.
    Adopt {
        /// Which.
        id: MessageId,
        /// As it is stored.
        state: zeroize::Zeroizing<Vec<u8>>,
    },
    /// These are the user's own seeds from now on.
    Seeds(Vec<Peer>),
    /// Be done with everything that is open: circuits are destroyed and links closed.
    Stop,
}

/// To whom a message goes. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recipient {
    /// Whoever owns this inbox, who can't answer.
    OneWay(InboxAddress),
    /// Whoever owns this inbox: a conversation is begun with them, unless there is one.
    Owner {
        /// The inbox.
        address: InboxAddress,
        /// The own inbox whose ownership is proved to them; without one they see a pseudonym.
        writer: Option<String>,
    },
    /// A contact.
    Contact(ContactKey),
}

/// Names a contact in one profile: random, and never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContactKey(pub [u8; 16]);

impl fmt::Display for ContactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the user sees of a contact, beside the name that they gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactCard {
    /// The own inbox that the conversation belongs to: that to which the other side wrote, or as
    /// whose owner one writes.
    pub inbox: Option<String>,
    /// The inbox that the other side owns, if that is known: proved by every message.
    pub address: Option<InboxAddress>,
    /// The pseudonym of the side that began.
    pub pseudonym: DhPublic,
    /// This side began.
    pub is_initiator: bool,
    /// The other side began, and was never answered.
    pub is_stranger: bool,
    /// Nothing that it writes is read.
    pub is_blocked: bool,
}

/// The place of a message in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter {
    /// With whom.
    pub contact: ContactKey,
    /// Its number among those that its writer wrote in this session; a new session begins at 1.
    pub number: u64,
    /// Which session, counted from 0.
    pub session: u32,
    /// When it was written, by its writer's clock.
    pub written_at: WallTime,
}

/// A link that a dial has made.
#[derive(Debug, Clone, Copy)]
pub struct LinkUp<'a> {
    /// Its name.
    pub link: LinkId,
    /// The relay at its other end, which TLS has proved.
    pub relay: RelayId,
    /// The address at its other end.
    pub remote: SocketAddr,
    /// What the relay said first.
    pub hello: &'a Hello,
}

/// A notice to the user. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The view holds enough relays to build circuits.
    Ready {
        /// Relays in the view.
        relays: usize,
    },
    /// Too few known relays have live descriptors: fresh ones are being fetched, and everything
    /// that needs circuits waits for them. `Ready` follows.
    WaitingForView {
        /// Relays whose descriptors are dead, and whose addresses are tried.
        last_known: usize,
    },
    /// No relay could be reached: no guard, none of those that may be tried in their place, no
    /// seed. Repeated at each failed attempt.
    Unreachable,
    /// A hop was added to a circuit. Only shown to the circuit's own user.
    HopBuilt {
        /// Which circuit, counted from 1.
        circuit: u64,
        /// 1 is the guard.
        hop: usize,
        /// The relay.
        relay: RelayId,
    },
    /// A message is durable in the outbox.
    Queued(MessageId),
    /// The message could not be stored. `Queued` follows if a later attempt succeeds while the
    /// client runs, `Held` if enough holders accept it.
    Unsaved {
        /// Which message.
        id: MessageId,
        /// Holders were asked to take it, so its reader may still get it.
        may_be_out: bool,
    },
    /// How many holders hold a message durably. Repeated when `holders` or `wanted` changes, and at
    /// the end of each attempt to have more holders than are wanted.
    Held {
        /// Which message.
        id: MessageId,
        /// How many hold it now.
        holders: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// A message could not be delivered in this attempt; it stays in the outbox and is tried again
    /// after this time.
    Deferred {
        /// Which message.
        id: MessageId,
        /// Why.
        reason: DeferReason,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Fewer holders than wanted hold the message. The next deposit waits for its time, which is
    /// stored, so that any client that then opens this profile continues. Reported once for each
    /// such wait.
    Scheduled {
        /// Which message.
        id: MessageId,
        /// How long until then.
        wait: Duration,
    },
    /// A message was taken back, and is out of the outbox.
    Cancelled(Cancelled),
    /// A message can never be delivered and is out of the outbox.
    Failed {
        /// Which message.
        id: MessageId,
        /// Why.
        reason: SendFault,
    },
    /// A message's life ended while fewer holders had it than wanted, or before its reader acknowledged
    /// it. It is out of the outbox: its reader gets it from those that have it.
    Expired {
        /// Which message.
        id: MessageId,
        /// Who has it.
        copies: Copies,
        /// How many holders were wanted.
        wanted: usize,
    },
    /// An inbox's mailboxes exist and its descriptor is published.
    InboxReady {
        /// Its name.
        name: String,
        /// How many mailboxes it has.
        mailboxes: usize,
        /// How many relays keep its descriptor.
        positions: usize,
    },
    /// An inbox lacks a mailbox, or one is out of reach for good: another is being made;
    /// `InboxReady` once that is done and published.
    Mending {
        /// Which inbox.
        inbox: String,
    },
    /// A message came and is durable here.
    Received {
        /// For which inbox; `None`: it is an answer of a contact that belongs to none.
        inbox: Option<String>,
        /// Which message.
        id: MessageId,
    },
    /// Every mailbox that could be reached was seen empty: of an inbox and of the contacts that belong
    /// to it. Repeated after each `Received`.
    CaughtUp {
        /// Which inbox; `None`: contacts that belong to none.
        inbox: Option<String>,
        /// How many of its mailboxes answered.
        answered: usize,
        /// How many it has.
        mailboxes: usize,
    },
    /// Something the user should know about, that the client deals with by itself.
    Warning(Warning),
    /// Relays can be reached, but no circuit can be built over any of them. Repeated while that
    /// lasts, and when it recurs.
    NoCircuits,
    /// The reader has the message, and it is out of the outbox.
    Acknowledged(MessageId),
    /// Something happened in a conversation.
    Conversation {
        /// With whom.
        contact: ContactKey,
        /// What.
        event: ConversationEvent,
    },
}

/// Something that happens in a conversation beside messages. Read by other processes
/// (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConversationEvent {
    /// It has begun: this contact is new.
    Begun,
    /// So many of the peer's messages are missing for minutes, though later ones came: they are asked
    /// for again.
    Missing(u64),
    /// Nothing is missing any more.
    Complete,
    /// So many of the peer's messages will never come: their sender gave them up.
    Lost(u64),
    /// One side had lost its keys or gone back to an earlier state of them, and both go on with new
    /// ones.
    Renewed,
    /// The peer writes with a newer program, of which this one can't read everything.
    NewerProgram,
}

/// Whether `holders` suffice when `wanted` are wanted.
pub const fn is_held_by_enough(holders: usize, wanted: usize) -> bool {
    holders > 0 && holders >= wanted
}

/// The fate of a message that was taken back. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Which message.
    pub id: MessageId,
    /// Who has it.
    pub copies: Copies,
}

/// Who has a message that is out of the outbox. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Copies {
    /// Nobody: no holder was asked to take it.
    None,
    /// No holder confirmed it, but one was asked: its reader may get it.
    InDoubt,
    /// So many holders, at least one: its reader gets it from them.
    Held(usize),
}

impl Copies {
    /// How many holders are known to have it.
    pub const fn holders(self) -> usize {
        match self {
            Self::None | Self::InDoubt => 0,
            Self::Held(holders) => holders,
        }
    }

    /// Whether its reader may get it.
    pub const fn may_be_out(self) -> bool {
        !matches!(self, Self::None)
    }
}

/// Why a message stays in the outbox for now. Stored by number: a new one goes last. Read by other
/// processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeferReason {
    /// No circuit could be built.
    NoCircuit,
    /// No directory relay had the inbox's descriptor.
    NoDescriptor,
    /// Too few of the inbox's holders could be reached or would take it.
    Holders,
    /// The inbox's queues are full.
    QueueFull,
    /// None of the directory relays that may have the inbox's descriptor answered.
    NoDirectory,
    /// Circuits break before a question is answered.
    Broken {
        /// How many did, in a row.
        circuits: u32,
        /// Over how many guards.
        guards: u32,
    },
}

/// Why a message can never be delivered. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendFault {
    /// It is longer than the largest record holds.
    TooLong,
    /// Too many messages wait already.
    OutboxFull,
    /// There is no such contact any more.
    NoContact,
    /// The contact is blocked.
    Blocked,
    /// The contact has not said where it reads.
    NoWayBack,
    /// There is no own inbox of the name that the message is to be sent as.
    NoInbox,
    /// It is written as the owner of the very inbox that it goes to.
    OwnInbox,
}

impl fmt::Display for SendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the message is too long",
            Self::OutboxFull => "too many messages wait in the outbox",
            Self::NoContact => "there is no such contact any more",
            Self::Blocked => "the contact is blocked",
            Self::NoWayBack => "the contact has not said where it reads",
            Self::NoInbox => "there is no inbox of the name that the message is to be sent as",
            Self::OwnInbox => "the message goes to the very inbox that it is sent as",
        })
    }
}

/// Something the client deals with by itself, that the user should know about. Read by other
/// processes (`meeting::ask`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Warning {
    /// This clock and the guards' differ by more than an hour.
    Clock {
        /// By how many seconds.
        seconds: u64,
    },
    /// More than three in ten circuits through a guard failed, over whatever other relays they
    /// went. It is no longer used where there is another.
    GuardFails,
    /// A mailbox of this inbox is gone; another takes its place.
    MailboxReplaced {
        /// Which inbox.
        inbox: String,
    },
    /// Another process has the profile's network and does not answer (said by the shell).
    Unresponsive {
        /// Its process id, if it noted that.
        pid: Option<u32>,
    },
    /// Another copy of this inbox is in use, with the same keys: each message is read by one of
    /// them and lost to the other.
    OtherCopy {
        /// Which inbox.
        inbox: String,
    },
    /// A guard said nothing of many relays that others know.
    GuardHides {
        /// It is no longer used. If not, there is no other, or others were left lately.
        is_replaced: bool,
    },
    /// The profile can't be written (reported by the shell). Messages that came stay with their
    /// holders; stored ones are safe.
    Store(StoreFault),
    /// A relay runs the network with other parameters than the profile (reported by the shell).
    OtherParameters,
    /// A second hop refused more than three in ten of the relays behind it, as no other did. It is
    /// no longer used.
    L2Refuses,
    /// At first contact, seeds disagree about which relays there are: none is drawn before most
    /// agree, when `Ready` follows, or the user accepts what there is.
    SeedsDisagree,
    /// Senders can't find this inbox, or find only what it said before: its descriptor is kept from
    /// them, or lost, though it was published anew.
    NotFound {
        /// Which inbox.
        inbox: String,
    },
    /// All guards in use said nothing of many relays that others know. None is replaced.
    AllGuardsHide,
    /// A seed was reached where its descriptor does not say that it is, so that what it lists counts
    /// for nothing (docs/protocol.md §8.2(3)).
    SeedElsewhere {
        /// Which seed.
        seed: RelayId,
        /// Where it was reached.
        ip: IpAddr,
    },
}

impl From<path::Warning> for Warning {
    fn from(warning: path::Warning) -> Self {
        match warning {
            path::Warning::GuardFails => Self::GuardFails,
            path::Warning::GuardHides { is_replaced } => Self::GuardHides { is_replaced },
            path::Warning::L2Refuses => Self::L2Refuses,
        }
    }
}

/// Why the profile can't be written. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreFault {
    /// There is no room left.
    DiskFull,
    /// It, or the disk it is on, may not be written.
    ReadOnly,
    /// Something else; the log has it.
    Failed,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "the disk that the profile is on is full",
            Self::ReadOnly => "the profile may not be written",
            Self::Failed => "the profile can't be written",
        })
    }
}

/// Goes out with a storage op and comes back when it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreTicket {
    number: u64,
    pub(super) stored: Stored,
}

/// Whose state an op stores, and so who is told what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stored {
    /// Nobody waits for it: if it is lost, it is learned or done again.
    Unawaited,
    /// A message that came for an own inbox.
    Message(InboxId, MessageId),
    /// A message of the outbox.
    Outbox(MessageId),
    /// An own inbox.
    Inbox(InboxId),
    /// A contact as it was after so many changes, and messages that came from it.
    Contact(ContactId, u64),
}

impl StoreTicket {
    /// A ticket whose return nobody waits for; the core gives each op another number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self {
            number,
            stored: Stored::Unawaited,
        }
    }

    /// The same, for someone who waits.
    #[must_use]
    pub(super) const fn of(self, stored: Stored) -> Self {
        Self { stored, ..self }
    }
}

/// The core's requests to the store; states are opaque to it. Ops take effect in the order asked;
/// each is answered by `handle_stored(ticket, is_stored)` once durable.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds messages and keys")]
pub enum StoreOp {
    /// Guards and L2 relays.
    PutPaths(Vec<u8>),
    /// The book of relays.
    Book(BookOp),
    /// How far to believe the clock.
    PutClock(Vec<u8>),
    /// Whether the seeds that were asked first agree.
    PutFirstContact(Vec<u8>),
    /// Keep which source alone has shown the view, since the client lost the one before; none, if it is
    /// empty (docs/protocol.md §8.3(9c)).
    PutLoneSource(Vec<u8>),
    /// An inbox: keys, mailboxes, revision.
    PutInbox {
        /// Its name.
        name: String,
        /// Its state.
        state: zeroize::Zeroizing<Vec<u8>>,
    },
    /// A message on its way out.
    PutOutbox {
        /// Which.
        id: MessageId,
        /// Its state.
        state: zeroize::Zeroizing<Vec<u8>>,
    },
    /// A message that is out of the outbox.
    RemoveOutbox {
        /// Which.
        id: MessageId,
        /// What was said of it last: the next process that drives the profile knows it, too.
        last: Notice,
    },
    /// A message that came. If one with this id is already there for this inbox, nothing changes.
    PutMessage {
        /// For which inbox; `None`: it is an answer of a contact that belongs to none.
        inbox: Option<String>,
        /// Which message.
        id: MessageId,
        /// The message's body.
        body: Vec<u8>,
        /// When it came.
        received_at: WallTime,
        /// Its place in a conversation, if it is of one.
        letter: Option<Letter>,
    },
    /// A message that one wrote in a conversation. It is kept beside those that came, as read; if one
    /// with this id is already there, nothing changes. [`Notice::Acknowledged`] as the last of
    /// [`StoreOp::RemoveOutbox`] marks it as read by its reader.
    PutWritten {
        /// To whom.
        contact: ContactKey,
        /// Which message.
        id: MessageId,
        /// The message's body.
        body: Vec<u8>,
        /// When it was written.
        written_at: WallTime,
    },
    /// A contact: keys, queues, what arrived.
    PutContact {
        /// Which.
        key: ContactKey,
        /// What its user sees of it.
        card: ContactCard,
        /// Its state.
        state: zeroize::Zeroizing<Vec<u8>>,
    },
    /// A contact that is forgotten, with all messages of its conversation.
    RemoveContact(ContactKey),
    /// A stranger whose conversation is forgotten, but not the messages.
    DropStranger(ContactKey),
    /// The contacts that were removed lately.
    PutGone(Vec<u8>),
    /// All of these, or none.
    Together(Vec<StoreOp>),
}

/// The store's contents when the client started.
#[derive(Default)]
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct Snapshot {
    /// Guards and L2 relays.
    pub paths: Option<Vec<u8>>,
    /// How far the clock was to be believed.
    pub clock: Option<Vec<u8>>,
    /// Whether the seeds that were asked first agreed.
    pub first_contact: Option<Vec<u8>>,
    /// The only source that was heard since the view was lost.
    pub lone_source: Option<Vec<u8>>,
    /// Whether the owner wants full vanguards (docs/protocol.md §6.4(18)).
    pub has_full_vanguards: bool,
    /// The book of relays, as it was stored.
    pub relays: Vec<BookRow>,
    /// The words of sources about relays that are in doubt.
    pub relay_words: Vec<(RelayId, Vec<u8>)>,
    /// Name and state of each inbox.
    pub inboxes: Vec<(String, zeroize::Zeroizing<Vec<u8>>)>,
    /// Id and state of each message in the outbox.
    pub outbox: Vec<(MessageId, zeroize::Zeroizing<Vec<u8>>)>,
    /// What was said last of messages that left the outbox while other processes waited, oldest
    /// first.
    pub left: Vec<Notice>,
    /// Ids of messages that came without a way back, by inbox, no older than the life of a record.
    pub received: Vec<(String, MessageId)>,
    /// Ids of messages that came from contacts, no older than the life of a record.
    pub received_from: Vec<(ContactKey, MessageId)>,
    /// The contacts that were removed lately.
    pub gone: Option<Vec<u8>>,
    /// Key and state of each contact.
    pub contacts: Vec<(ContactKey, zeroize::Zeroizing<Vec<u8>>)>,
}

/// A message in the outbox. One that as many hold as are wanted stays for a while, for attempts at
/// the mailboxes still missing. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// Which message.
    pub id: MessageId,
    /// To whom.
    pub to: Recipient,
    /// Length of its body, bytes.
    pub len: usize,
    /// When it was put there.
    pub created_at: WallTime,
    /// Until when it is tried if nobody takes it.
    pub expires_at: WallTime,
    /// How many hold it now.
    pub holders: usize,
    /// How many are wanted, as far as is known: fewer if its inbox turns out to have fewer
    /// mailboxes.
    pub wanted: usize,
    /// Why the last attempt failed, unless that was overcome.
    pub obstacle: Option<DeferReason>,
    /// When it is tried next, if it waits; a client started later tries at once.
    pub next_try_at: Option<WallTime>,
    /// Enough hold it, and it stays until its reader acknowledges it.
    pub is_unacknowledged: bool,
}

impl OutboxEntry {
    /// Whether as many relays hold it as are wanted: it is sent, even while one more copy of it may
    /// go out.
    pub const fn is_held(&self) -> bool {
        is_held_by_enough(self.holders, self.wanted)
    }
}

/// A message in the outbox and what it says, for those who look at the profile without driving a
/// client.
#[expect(missing_debug_implementations, reason = "holds a message")]
pub struct OutboxMessage {
    /// Its state, as stored.
    pub entry: OutboxEntry,
    /// The message's body.
    pub body: zeroize::Zeroizing<Vec<u8>>,
}

/// One of the own inboxes. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxEntry {
    /// Its name.
    pub name: String,
    /// How many mailboxes its descriptor names, companions among them.
    pub mailboxes: usize,
    /// How many of these are out of reach.
    pub out_of_reach: usize,
    /// Whether its descriptor was published, ever: until then nobody can find it.
    pub is_published: bool,
    /// Since when its owner knows that senders don't find it, if they don't.
    pub missing_since: Option<WallTime>,
}

/// Whether the network answers. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contact {
    /// No relay was dialled.
    NotTried,
    /// A relay is being dialled.
    Trying,
    /// There is a link to this relay.
    Reached {
        /// Which; a guard in use before any other.
        relay: RelayId,
        /// Since when.
        since: WallTime,
    },
    /// Relays were dialled, and none answers.
    NoAnswer,
}

/// The status that `umbel status` shows. Read by other processes (`meeting::ask`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Relays in the view.
    pub relays: usize,
    /// How many of these are not drawn, since too few sources list them, or most lack them.
    pub in_doubt: usize,
    /// Whether the network answers.
    pub contact: Contact,
    /// The guard in use.
    pub guard: Option<RelayId>,
    /// How many relays are chosen as guards, in use or not.
    pub guards: usize,
    /// Seeds disagree about which relays there are, and the user has not accepted that.
    pub seeds_disagree: bool,
    /// How many of them are set aside, since too much failed through them or they hid relays.
    pub guards_set_aside: usize,
    /// Whether all guards in use keep many relays from this client.
    pub do_guards_hide: bool,
    /// Seeds that were reached at IPs that they don't advertise, and where.
    pub seeds_elsewhere: Vec<(RelayId, IpAddr)>,
    /// How many second hops are set aside, since they refused too much.
    pub l2_set_aside: usize,
    /// Whether the third hop of each path is kept for hours, too.
    pub has_full_vanguards: bool,
    /// Circuits that are open.
    pub circuits: usize,
    /// The outbox, in the order the messages were sent.
    pub outbox: Vec<OutboxEntry>,
    /// Inboxes, by name.
    pub inboxes: Vec<InboxEntry>,
    /// Cells of circuits sent so far, over all links.
    pub sent_cells: u64,
    /// Cells of circuits that came so far, over all links.
    pub received_cells: u64,
}
