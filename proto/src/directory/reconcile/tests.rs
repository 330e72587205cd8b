//! Views reconciled, and hostile answerers (docs/protocol.md §8.3).
use std::sync::OnceLock;

use rand::rngs::ChaCha20Rng;
use rand::{Rng, RngExt, SeedableRng};
use serde_bytes::ByteBuf;

use super::*;
use crate::crypto::kdf::sha256;
use crate::directory::range::IdRange;
use crate::directory::testing::{self, WALL};
use crate::directory::{
    DirectoryRefusal, DirectoryReply, DirectoryRequest, NetView, Unverified, VerifiedDescriptor,
};
use crate::ids::RelayId;
use crate::limits::{
    RELAY_DESCRIPTOR_LEN_MAX, SYNC_BYTES_MAX, SYNC_FRAME_MAX, SYNC_RANGES_MAX, SYNC_ROUNDS_MAX,
};
use crate::time::WallTime;
use crate::wire;

/// The descriptor of a relay with any id, in its older or its newer version. Nobody has signed it.
fn descriptor(id: [u8; 32], is_newer: bool) -> VerifiedDescriptor {
    static VERSIONS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let versions = VERSIONS.get_or_init(|| {
        [0, 60].map(|age| {
            testing::relay(0)
                .with(|it| it.issued_at = WallTime(WALL.as_secs() + age))
                .bytes()
        })
    });
    let mut bytes = versions[usize::from(is_newer)].clone();
    bytes[33..65].copy_from_slice(&id);
    Unverified::decode(&bytes).unwrap().believed()
}

/// An id as they come.
fn id(number: u32) -> [u8; 32] {
    sha256(&[&number.to_be_bytes()])
}

/// An id that someone ground: all of these begin with the same 28 bytes.
fn ground(number: u32) -> [u8; 32] {
    let mut id = [7; 32];
    id[28..].copy_from_slice(&number.to_be_bytes());
    id
}

fn old(number: u32) -> VerifiedDescriptor {
    descriptor(id(number), false)
}

fn new(number: u32) -> VerifiedDescriptor {
    descriptor(id(number), true)
}

fn view_of(descriptors: impl IntoIterator<Item = VerifiedDescriptor>) -> NetView {
    let mut view = NetView::new();
    for descriptor in descriptors {
        view.insert(descriptor, WALL);
    }
    view
}

fn union(a: &NetView, b: &NetView) -> NetView {
    view_of(a.iter().chain(b.iter()).cloned())
}

/// What a relay does with a request, over the wire.
fn serve(view: &mut NetView, request: &DirectoryRequest) -> DirectoryReply {
    let frame = request.encode();
    assert!(frame.len() <= SYNC_FRAME_MAX);
    let reply = match DirectoryRequest::decode(&frame).unwrap() {
        DirectoryRequest::Sync(request) => DirectoryReply::Sync(answer(view, &request)),
        DirectoryRequest::Push(list) => DirectoryReply::Pushed {
            accepted: list
                .iter()
                .map(|bytes| take(view, Unverified::decode(bytes).unwrap()))
                .sum(),
        },
        DirectoryRequest::PublishInbox(_)
        | DirectoryRequest::LookupInbox { .. }
        | DirectoryRequest::NetworkFile => {
            panic!("a syncer asks no such thing")
        }
    };
    let frame = reply.encode();
    assert!(frame.len() <= SYNC_FRAME_MAX);
    DirectoryReply::decode(&frame).unwrap()
}

fn take(view: &mut NetView, descriptor: Unverified) -> u32 {
    view.insert(descriptor.believed(), WALL);
    1
}

/// The cost of a reconciliation.
#[derive(Debug, Default)]
struct Cost {
    requests: usize,
    /// Those among them that name fingerprints.
    compares: usize,
    /// Everything that was said, but descriptors.
    overhead_bytes: usize,
}

/// Runs a reconciliation to its end.
fn reconcile(asker: &mut NetView, answerer: &mut NetView) -> Cost {
    run(asker, answerer, Syncer::begin)
}

fn run(
    asker: &mut NetView,
    answerer: &mut NetView,
    begin: impl FnOnce(&NetView) -> (Syncer, DirectoryRequest),
) -> Cost {
    let (mut syncer, request) = begin(asker);
    let mut next = Some(request);
    let mut cost = Cost::default();
    while let Some(request) = next {
        let reply = serve(answerer, &request);
        let reply_len = reply.encode().len();
        let step = syncer.on_reply(asker, reply).unwrap();
        let received: usize = step.received.iter().map(|it| it.bytes().len()).sum();
        cost.requests += 1;
        cost.overhead_bytes += reply_len - received;
        match request {
            DirectoryRequest::Push(_) => {}
            DirectoryRequest::Sync(SyncRequest::Compare(_)) => {
                cost.compares += 1;
                cost.overhead_bytes += request.encode().len();
            }
            _ => cost.overhead_bytes += request.encode().len(),
        }
        for descriptor in step.received {
            take(asker, descriptor);
        }
        next = step.request;
    }
    assert!(syncer.is_done());
    cost
}

#[test] // §8.3(2)
fn equal_views_take_one_tiny_exchange() {
    let mut view = view_of((0..100).map(old));
    let mut same = view_of((0..100).map(old));
    let (_, request) = Syncer::begin(&view);
    assert!(request.encode().len() < 64);
    assert!(serve(&mut same, &request).encode().len() < 64);
    assert_eq!(reconcile(&mut view, &mut same).requests, 1);
}

#[test] // §8.3(7)
fn any_two_views_become_one_in_few_rounds() {
    for seed in 0..24 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut random_view = || {
            let share = rng.random_range(0..=100);
            let ids = (0..500).map(id).chain((0..200).map(ground));
            let held: Vec<_> = ids
                .filter_map(|id| {
                    let is_held = rng.random_range(0..100) < share;
                    is_held.then(|| descriptor(id, rng.random()))
                })
                .collect();
            view_of(held)
        };
        let (mut asker, mut answerer) = (random_view(), random_view());
        let union = union(&asker, &answerer);
        let cost = reconcile(&mut asker, &mut answerer);
        assert_eq!(asker.digest(), union.digest(), "seed {seed}");
        assert_eq!(answerer.digest(), union.digest(), "seed {seed}");
        assert!(cost.requests <= 16, "seed {seed}: {cost:?}");
    }
}

#[test] // §8.3(8)
fn the_cost_follows_the_difference() {
    let relays = 1000;
    for seed in 0..5 {
        let is_changed = |number: u32| (number + seed).is_multiple_of(relays / 10);
        let mut asker = view_of((0..relays).map(old));
        let mut answerer = view_of((0..relays).map(|it| match is_changed(it) {
            true => new(it),
            false => old(it),
        }));
        let all_bytes: usize = asker.iter().map(|it| it.bytes().len()).sum();
        let cost = reconcile(&mut asker, &mut answerer);
        assert_eq!(asker.digest(), answerer.digest());
        // Descriptors with receipts are 600 bytes and more; these are not 250.
        assert!(cost.overhead_bytes <= 10 * 1200, "{cost:?}");
        assert!(cost.overhead_bytes <= all_bytes / 10, "{cost:?}");
        assert!(cost.requests <= 4, "{cost:?}");
    }
}

#[test] // §8.3(8)
fn a_difference_is_found_in_few_rounds_in_the_largest_view() {
    let relays = 50_000;
    let all = view_of((0..relays).map(old));
    let mut answerer = view_of(all.iter().cloned());
    answerer.insert(new(7), WALL);
    answerer.insert(new(relays + 7), WALL);
    let mut asker = all;
    let cost = reconcile(&mut asker, &mut answerer);
    assert_eq!(asker.digest(), answerer.digest());
    assert!(cost.requests <= 5, "{cost:?}");
    assert!(cost.overhead_bytes <= 16_000, "{cost:?}");
}

#[test] // §8.3
fn views_of_many_pages_become_one() {
    let mut asker = view_of((0..3000).map(old));
    let mut answerer = view_of((200..3200).map(old));
    let mut newcomer = NetView::new();
    let union = view_of((0..3200).map(old));
    let cost = reconcile(&mut asker, &mut answerer);
    assert_eq!(
        (asker.digest(), answerer.digest()),
        (union.digest(), union.digest())
    );
    assert!(cost.compares <= 5, "{cost:?}");
    let cost = reconcile(&mut newcomer, &mut answerer);
    assert_eq!(newcomer.digest(), union.digest());
    assert!(
        cost.requests <= 2 + 3200 * RELAY_DESCRIPTOR_LEN_MAX / SYNC_BYTES_MAX,
        "{cost:?}"
    );
    let cost = reconcile(&mut answerer, &mut NetView::new());
    assert!(cost.compares == 1, "{cost:?}");
}

#[test] // §8.3(5)
fn who_only_takes_gives_nothing() {
    let mut asker = view_of((0..20).map(new));
    let mut answerer = view_of((10..40).map(old));
    let (answerer_before, union) = (answerer.digest(), union(&asker, &answerer));
    run(&mut asker, &mut answerer, Syncer::begin_taking);
    assert_eq!(
        (asker.digest(), answerer.digest()),
        (union.digest(), answerer_before)
    );
}

/// An asker that holds these relays and has said its digest.
fn comparing(count: u32) -> (NetView, Syncer) {
    let view = view_of((0..count).map(new));
    let (syncer, _) = Syncer::begin(&view);
    (view, syncer)
}

fn compared(outcomes: Vec<Outcome>) -> DirectoryReply {
    DirectoryReply::Sync(SyncReply::Compared(outcomes))
}

/// An asker that holds the first ten relays and has sent its page, with the page.
fn asking() -> (NetView, Syncer, Vec<RangeItems>) {
    let (view, mut syncer) = comparing(10);
    let step = syncer
        .on_reply(&view, compared(vec![Outcome::Few]))
        .unwrap();
    let Some(DirectoryRequest::Sync(SyncRequest::Page(page))) = step.request else {
        panic!("a page is next")
    };
    (view, syncer, page)
}

fn fault_of(reply: PageReply) -> Option<SyncFault> {
    let (view, mut syncer, _) = asking();
    let reply = DirectoryReply::Sync(SyncReply::Page(reply));
    let fault = syncer.on_reply(&view, reply).err();
    assert!(fault.is_none() || syncer.is_done());
    fault
}

fn reply_with(descriptors: &[&VerifiedDescriptor]) -> PageReply {
    let descriptors = descriptors
        .iter()
        .map(|descriptor| ByteBuf::from(descriptor.bytes()))
        .collect();
    PageReply {
        covered: IdRange::ALL.until(),
        descriptors,
        wanted: Vec::new(),
        refused: Vec::new(),
    }
}

#[test] // §8.3(4)
fn what_was_not_asked_for_is_refused() {
    let (mut news, listed, older) = ([old(20), old(21)], new(3), old(3));
    news.sort_by_key(|descriptor| descriptor.relay);
    let [first, second] = &news;
    assert_eq!(fault_of(reply_with(&[first, second])), None);
    let unasked = |descriptors: &[&VerifiedDescriptor]| {
        fault_of(reply_with(descriptors)) == Some(SyncFault::Unasked)
    };
    assert!(unasked(&[second, first]), "out of order");
    assert!(unasked(&[first, first]), "twice");
    assert!(unasked(&[&listed]), "listed");
    assert!(unasked(&[&older]), "older than listed");
    let beyond = PageReply {
        covered: first.relay,
        ..reply_with(&[first, second])
    };
    assert_eq!(
        fault_of(beyond),
        Some(SyncFault::Stalled),
        "stops early with little"
    );
}

#[test] // §8.3(4)
fn garbage_is_refused() {
    let garbage = PageReply {
        descriptors: vec![ByteBuf::from(vec![1; 300])],
        ..reply_with(&[])
    };
    assert!(matches!(fault_of(garbage), Some(SyncFault::Descriptor(_))));
    let naming = |wanted: &[u16], refused: &[u16]| {
        fault_of(PageReply {
            wanted: wanted.to_vec(),
            refused: refused.to_vec(),
            ..reply_with(&[])
        })
    };
    for positions in [&[10][..], &[3, 3], &[4, 3]] {
        assert_eq!(naming(positions, &[]), Some(SyncFault::Positions));
        assert_eq!(naming(&[], positions), Some(SyncFault::Positions));
    }
    assert_eq!(naming(&[2, 4], &[3]), None);
    assert_eq!(naming(&[2, 4], &[4]), Some(SyncFault::Positions), "both");
    let (view, mut syncer, _) = asking();
    assert_eq!(
        syncer
            .on_reply(&view, DirectoryReply::Published)
            .unwrap_err(),
        SyncFault::Unexpected
    );
    let again = syncer.on_reply(
        &view,
        DirectoryReply::Sync(SyncReply::Page(reply_with(&[]))),
    );
    assert_eq!(
        again.unwrap_err(),
        SyncFault::Unexpected,
        "after a fault nothing is taken"
    );
}

/// A range with a fingerprint that no view has of it.
fn marked(range: IdRange) -> RangeFingerprint {
    RangeFingerprint {
        range,
        fingerprint: [9; 32],
    }
}

/// Parts that cover everything, each with a fingerprint that no view has.
fn parts(count: u8) -> Vec<RangeFingerprint> {
    let mut rest = IdRange::ALL;
    let mut parts = Vec::new();
    let step = 255 / count;
    for number in 1..count {
        let (low, high) = ([number * step; 32], [number * step + 1; 32]);
        let (part, behind) = rest.cut(RelayId(low), RelayId(high));
        parts.extend(part);
        rest = behind.unwrap();
    }
    parts.push(rest);
    parts.into_iter().map(marked).collect()
}

#[test] // §8.3(2)
fn outcomes_that_are_not_of_what_was_asked_are_refused() {
    let fault_of = |outcomes| {
        let (view, mut syncer) = comparing(100);
        let fault = syncer.on_reply(&view, compared(outcomes)).err();
        assert!(fault.is_none() || syncer.is_done());
        fault
    };
    assert_eq!(fault_of(vec![Outcome::Split(parts(5))]), None);
    assert_eq!(fault_of(vec![]), Some(SyncFault::Stalled));
    assert_eq!(
        fault_of(vec![Outcome::Same; 2]),
        Some(SyncFault::Unexpected)
    );
    let without = |at| {
        let mut parts = parts(5);
        parts.remove(at);
        fault_of(vec![Outcome::Split(parts)])
    };
    for at in 0..5 {
        assert_eq!(without(at), Some(SyncFault::Range), "a gap at {at}");
    }
}

#[test] // §8.3(6)
fn an_answerer_that_never_ends_is_left() {
    let (view, mut syncer, _) = asking();
    let crawling = PageReply {
        covered: IdRange::ALL.from(),
        ..reply_with(&[])
    };
    let fault = syncer
        .on_reply(&view, DirectoryReply::Sync(SyncReply::Page(crawling)))
        .unwrap_err();
    assert_eq!(fault, SyncFault::Stalled);

    let (view, mut syncer, _) = asking();
    syncer.rounds = SYNC_ROUNDS_MAX;
    let wanting = PageReply {
        wanted: (0..10).collect(),
        ..reply_with(&[])
    };
    let fault = syncer
        .on_reply(&view, DirectoryReply::Sync(SyncReply::Page(wanting)))
        .unwrap_err();
    assert_eq!(fault, SyncFault::Rounds);
}

#[test] // §8.3(6)
fn an_answerer_that_always_differs_is_left_soon() {
    for count in [2_u8, 16] {
        let (view, mut syncer) = comparing(2000);
        let mut asked = vec![IdRange::ALL];
        for round in 0.. {
            assert!(round < 40, "{count} parts: it never ends");
            // Each range has one part with nearly everything in it.
            let lie = |range: &IdRange| {
                let mut parts = Vec::new();
                let mut rest = *range;
                for _ in 1..count {
                    let low = rest.from();
                    let Some(behind) = rest.behind(low) else {
                        break;
                    };
                    parts.extend(IdRange::new(low, low));
                    rest = behind;
                }
                parts.push(rest);
                Outcome::Split(parts.into_iter().map(marked).collect())
            };
            let reply = compared(asked.iter().map(lie).collect());
            let step = syncer.on_reply(&view, reply).unwrap();
            let Some(DirectoryRequest::Sync(SyncRequest::Compare(ranges))) = step.request else {
                break;
            };
            asked = ranges.iter().map(|it| it.range).collect();
        }
    }
}

#[test] // §8.3(6)
fn refusals_are_passed_on() {
    let (view, mut syncer, _) = asking();
    let fault = syncer
        .on_reply(&view, DirectoryReply::Refused(DirectoryRefusal::Busy))
        .unwrap_err();
    assert_eq!(fault, SyncFault::Refused(DirectoryRefusal::Busy));
}

fn is_read(request: SyncRequest) -> bool {
    DirectoryRequest::decode(&DirectoryRequest::Sync(request).encode()).is_ok()
}

#[test] // §8.3(3)
fn pages_out_of_order_or_range_are_refused() {
    let (_, _, page) = asking();
    assert!(is_read(SyncRequest::Page(page.clone())));
    let is_read_with = |change: fn(&mut RangeItems)| {
        let mut page = page.clone();
        change(&mut page[0]);
        is_read(SyncRequest::Page(page))
    };
    assert!(!is_read_with(|it| it.items.swap(0, 1)), "out of order");
    assert!(!is_read_with(|it| it.items[1] = it.items[0]), "twice");
    let narrow = |it: &mut RangeItems| it.range = it.range.before(it.items[3].relay).unwrap();
    assert!(!is_read_with(narrow), "out of range");
    let twice = [page.clone(), page.clone()].concat();
    assert!(!is_read(SyncRequest::Page(twice)), "overlapping");
    assert!(!is_read(SyncRequest::Page(Vec::new())), "no range");
    let mut frame = DirectoryRequest::Sync(SyncRequest::Page(page)).encode();
    assert!(frame.pop().is_some() && DirectoryRequest::decode(&frame).is_err());
}

#[test] // §8.2(9), §8.3(3), §8.3(4c)
fn nobody_sends_what_the_other_had_no_room_for() {
    let (room_for, others) = (|it: &u32| !it.is_multiple_of(7), 200);
    for is_asking in [true, false] {
        let mut full = view_of((0..others).filter(room_for).map(old));
        for number in (0..others).filter(|it| !room_for(it)) {
            full.remember(&old(number));
        }
        let held = full.len();
        let mut larger = view_of((0..others).map(old).chain([new(300)]));
        let (asker, answerer) = if is_asking {
            (&mut full, &mut larger)
        } else {
            (&mut larger, &mut full)
        };
        reconcile(asker, answerer);
        assert_eq!(full.len(), held + 1, "the one that it had not heard of");
        assert_eq!(larger.len(), others as usize + 1);
    }
}

#[test] // §8.2(3), §8.3(4d)
fn what_a_source_has_only_turned_away_it_does_not_list() {
    let lacked_by = |mut answerer: NetView| {
        let view = view_of((0..40).map(old));
        let (mut syncer, request) = Syncer::begin_taking(&view);
        let mut next = Some(request);
        while let Some(request) = next {
            let reply = serve(&mut answerer, &request);
            next = syncer.on_reply(&view, reply).unwrap().request;
        }
        syncer.into_lacking()
    };
    let ghosts = || [0, 7, 14].map(old);
    let others = || (0..40).filter(|it| !ghosts().contains(&old(*it)));
    let mut honest = view_of(others().map(old));
    ghosts().iter().for_each(|it| honest.refuse(it));
    assert_eq!(lacked_by(honest), ghosts().map(|it| it.relay).into());
    // Older than what it has turned away since, and there.
    let mut moved = view_of((0..50).map(old));
    [0, 7, 14].iter().for_each(|it| moved.refuse(&new(*it)));
    assert!(lacked_by(moved).is_empty());
}

#[test] // §8.3(3)
fn a_relay_that_is_held_and_turned_away_is_listed_once() {
    let mut asker = view_of((0..40).map(old));
    [0, 7, 14].iter().for_each(|it| asker.refuse(&new(*it)));
    let mut answerer = view_of((0..20).map(new));
    reconcile(&mut asker, &mut answerer);
    assert_eq!(asker.get(&old(3).relay), Some(&new(3)));
    assert_eq!(asker.get(&old(7).relay), Some(&old(7)), "it is not sent");
}

#[test] // §8.3(1), §8.3(2)
fn ranges_out_of_order_or_too_many_are_refused() {
    let ranges = parts(9);
    assert!(is_read(SyncRequest::Compare(ranges.clone())));
    let mut swapped = ranges.clone();
    swapped.swap(0, 1);
    assert!(!is_read(SyncRequest::Compare(swapped)), "out of order");
    let overlapping = vec![
        ranges[0],
        RangeFingerprint {
            range: IdRange::ALL,
            ..ranges[1]
        },
    ];
    assert!(!is_read(SyncRequest::Compare(overlapping)), "overlapping");
    assert!(
        !is_read(SyncRequest::Compare(vec![ranges[0]; 2])),
        "one twice"
    );
    assert!(!is_read(SyncRequest::Compare(Vec::new())), "none");
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut many: Vec<IdRange> = (0..=SYNC_RANGES_MAX)
        .filter_map(|_| {
            let mut id = [0; 32];
            rng.fill_bytes(&mut id);
            IdRange::new(RelayId(id), RelayId(id))
        })
        .collect();
    many.sort_unstable();
    let mut many: Vec<_> = many.into_iter().map(marked).collect();
    assert!(!is_read(SyncRequest::Compare(many.clone())), "one too many");
    many.pop();
    assert!(is_read(SyncRequest::Compare(many)));
}

#[test] // §8.3(2)
fn a_split_into_one_or_too_many_parts_is_refused() {
    let is_read = |count| {
        let reply = compared(vec![Outcome::Split(parts(count))]);
        DirectoryReply::decode(&reply.encode()).is_ok()
    };
    assert!(is_read(2) && is_read(16));
    assert!(!is_read(1) && !is_read(17));
}

#[test] // §1.4(2)
fn a_count_beyond_the_frame_is_refused() {
    let counts = [u32::MAX, 0xffff, 700].map(|count| wire::encode(&count));
    for count in counts {
        for head in [vec![0, 0], vec![0, 1], vec![0, 1, 1, 0, 0]] {
            let frame = [head, count.clone()].concat();
            assert!(DirectoryRequest::decode(&frame).is_err());
            assert!(DirectoryReply::decode(&frame).is_err());
        }
    }
}
