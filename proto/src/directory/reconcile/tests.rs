//! Views reconciled, and hostile answerers (docs/protocol.md §8.3).
use std::sync::OnceLock;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt, SeedableRng};
use serde_bytes::ByteBuf;

use super::*;
use crate::directory::testing::{self, WALL};
use crate::directory::{
    DirectoryRefusal, DirectoryReply, DirectoryRequest, NetView, Unverified, VerifiedDescriptor,
};
use crate::limits::{RELAY_DESCRIPTOR_LEN_MAX, SYNC_BYTES_MAX, SYNC_ROUNDS_MAX};
use crate::time::WallTime;

/// Two descriptors of each of 500 relays, the older first: signing them once is enough for all
/// tests.
fn pool() -> &'static [[VerifiedDescriptor; 2]] {
    static POOL: OnceLock<Vec<[VerifiedDescriptor; 2]>> = OnceLock::new();
    POOL.get_or_init(|| {
        let newer = |number| {
            testing::relay(number)
                .with(|descriptor| descriptor.issued_at = WallTime(WALL.as_secs() + 60))
                .verified()
        };
        (0..500)
            .map(|number| [testing::relay(number).verified(), newer(number)])
            .collect()
    })
}

fn view_of<'a>(descriptors: impl IntoIterator<Item = &'a VerifiedDescriptor>) -> NetView {
    let mut view = NetView::new();
    for descriptor in descriptors {
        view.insert(descriptor.clone(), WALL);
    }
    view
}

/// What a relay does with a request, over the wire.
fn serve(view: &mut NetView, request: &DirectoryRequest) -> DirectoryReply {
    let request = DirectoryRequest::decode(&request.encode()).unwrap();
    let reply = match request {
        DirectoryRequest::Sync(request) => DirectoryReply::Sync(answer(view, &request)),
        DirectoryRequest::Push(list) => DirectoryReply::Pushed {
            accepted: list
                .iter()
                .map(|bytes| take(view, Unverified::decode(bytes).unwrap()))
                .sum(),
        },
        DirectoryRequest::PublishInbox(_) | DirectoryRequest::LookupInbox { .. } => {
            panic!("a syncer asks no such thing")
        }
    };
    let frame = reply.encode();
    assert!(frame.len() <= SYNC_BYTES_MAX * 3 / 2);
    DirectoryReply::decode(&frame).unwrap()
}

fn take(view: &mut NetView, descriptor: Unverified) -> u32 {
    view.insert(
        descriptor.verify(&testing::public_network(), WALL).unwrap(),
        WALL,
    );
    1
}

/// Runs a reconciliation to its end and says how many requests it took.
fn reconcile(asker: &mut NetView, answerer: &mut NetView) -> usize {
    run(asker, answerer, Syncer::begin)
}

fn run(
    asker: &mut NetView,
    answerer: &mut NetView,
    begin: impl FnOnce(&NetView) -> (Syncer, DirectoryRequest),
) -> usize {
    let (mut syncer, request) = begin(asker);
    let mut next = Some(request);
    let mut rounds = 0;
    while let Some(request) = next {
        rounds += 1;
        let step = syncer.on_reply(asker, serve(answerer, &request)).unwrap();
        for descriptor in step.received {
            take(asker, descriptor);
        }
        next = step.request;
    }
    assert!(syncer.is_done());
    rounds
}

#[test] // §8.3
fn equal_views_take_one_tiny_exchange() {
    let mut view = view_of(pool().iter().take(100).map(|[old, _]| old));
    let mut same = view_of(pool().iter().take(100).map(|[old, _]| old));
    let (_, request) = Syncer::begin(&view);
    assert!(request.encode().len() < 64);
    assert!(serve(&mut same, &request).encode().len() < 64);
    assert_eq!(reconcile(&mut view, &mut same), 1);
}

#[test] // §8.3
fn any_two_views_become_one_in_few_rounds() {
    for seed in 0..12 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut random_view = || {
            let share = rng.random_range(0..=100);
            let mut held = Vec::new();
            for versions in pool() {
                if rng.random_range(0..100) < share {
                    held.push(&versions[rng.random_range(0..2)]);
                }
            }
            view_of(held)
        };
        let (mut asker, mut answerer) = (random_view(), random_view());
        let union = view_of(asker.iter().chain(answerer.iter()));
        let rounds = reconcile(&mut asker, &mut answerer);
        assert_eq!(asker.digest(), union.digest(), "seed {seed}");
        assert_eq!(answerer.digest(), union.digest(), "seed {seed}");
        assert!(rounds <= 12, "seed {seed}: {rounds} rounds");
    }
}

#[test] // §8.3
fn views_of_many_pages_become_one() {
    let relays: Vec<_> = (0..3200)
        .map(|number| testing::relay(number).verified())
        .collect();
    let mut asker = view_of(&relays[..3000]);
    let mut answerer = view_of(&relays[200..]);
    let mut newcomer = NetView::new();
    let union = view_of(&relays);
    let rounds = reconcile(&mut asker, &mut answerer);
    assert_eq!(
        (asker.digest(), answerer.digest()),
        (union.digest(), union.digest())
    );
    assert!(rounds <= 8, "{rounds} rounds for two pages each way");
    let rounds = reconcile(&mut newcomer, &mut answerer);
    assert_eq!(newcomer.digest(), union.digest());
    assert!(
        rounds <= 2 + 3200 * RELAY_DESCRIPTOR_LEN_MAX / SYNC_BYTES_MAX,
        "{rounds} rounds for everything"
    );
}

#[test] // §8.3
fn who_only_takes_gives_nothing() {
    let mut asker = view_of(pool().iter().take(20).map(|[_, new]| new));
    let mut answerer = view_of(pool().iter().skip(10).take(30).map(|[old, _]| old));
    let (answerer_before, union) = (
        answerer.digest(),
        view_of(asker.iter().chain(answerer.iter())),
    );
    run(&mut asker, &mut answerer, Syncer::begin_taking);
    assert_eq!(
        (asker.digest(), answerer.digest()),
        (union.digest(), answerer_before)
    );
}

/// An asker that holds the first ten relays and has sent its page, with the page.
fn asking() -> (NetView, Syncer, Page) {
    let view = view_of(pool().iter().take(10).map(|[_, new]| new));
    let (mut syncer, _) = Syncer::begin(&view);
    let step = syncer
        .on_reply(&view, DirectoryReply::Sync(SyncReply::Differs))
        .unwrap();
    let Some(DirectoryRequest::Sync(SyncRequest::Page(page))) = step.request else {
        panic!("a page is next")
    };
    (view, syncer, page)
}

fn fault_of(reply: PageReply) -> Option<SyncFault> {
    let (view, mut syncer, _) = asking();
    let fault = syncer
        .on_reply(&view, DirectoryReply::Sync(SyncReply::Page(reply)))
        .err();
    assert!(fault.is_none() || syncer.is_done());
    fault
}

fn reply_with(descriptors: &[&VerifiedDescriptor]) -> PageReply {
    let descriptors = descriptors
        .iter()
        .map(|descriptor| ByteBuf::from(descriptor.bytes()))
        .collect();
    PageReply {
        covered: IdPrefix::LAST,
        descriptors,
        wanted: ByteBuf::new(),
    }
}

#[test] // §8.3
fn what_was_not_asked_for_is_refused() {
    let mut news = [&pool()[20][0], &pool()[21][0]];
    news.sort_by_key(|descriptor| descriptor.relay);
    assert_eq!(fault_of(reply_with(&news)), None);
    assert_eq!(
        fault_of(reply_with(&[news[1], news[0]])),
        Some(SyncFault::Unasked),
        "out of order"
    );
    assert_eq!(
        fault_of(reply_with(&[news[0], news[0]])),
        Some(SyncFault::Unasked),
        "twice"
    );
    assert_eq!(
        fault_of(reply_with(&[&pool()[3][1]])),
        Some(SyncFault::Unasked),
        "listed"
    );
    assert_eq!(
        fault_of(reply_with(&[&pool()[3][0]])),
        Some(SyncFault::Unasked),
        "older than listed"
    );
    let covered = IdPrefix::of(&news[1].relay).previous();
    let beyond = PageReply {
        covered,
        ..reply_with(&news)
    };
    assert_eq!(
        fault_of(beyond),
        Some(SyncFault::Stalled),
        "stops early with little"
    );
}

#[test] // §8.3
fn garbage_is_refused() {
    let garbage = PageReply {
        descriptors: vec![ByteBuf::from(vec![1; 300])],
        ..reply_with(&[])
    };
    assert!(matches!(fault_of(garbage), Some(SyncFault::Descriptor(_))));
    let unlisted = PageReply {
        wanted: ByteBuf::from(vec![7; 8]),
        ..reply_with(&[])
    };
    assert_eq!(fault_of(unlisted), Some(SyncFault::Wanted));
    let torn = PageReply {
        wanted: ByteBuf::from(vec![7; 5]),
        ..reply_with(&[])
    };
    assert_eq!(fault_of(torn), Some(SyncFault::Wanted));
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

#[test] // §8.3
fn an_answerer_that_never_ends_is_left() {
    let (view, mut syncer, _) = asking();
    let crawling = PageReply {
        covered: IdPrefix::FIRST,
        ..reply_with(&[])
    };
    let fault = syncer
        .on_reply(&view, DirectoryReply::Sync(SyncReply::Page(crawling)))
        .unwrap_err();
    assert_eq!(fault, SyncFault::Stalled);

    let (view, mut syncer, page) = asking();
    syncer.rounds = SYNC_ROUNDS_MAX;
    let wanted: Vec<u8> = page.items.iter().flat_map(|item| item.prefix.0).collect();
    let wanting = PageReply {
        wanted: ByteBuf::from(wanted),
        ..reply_with(&[])
    };
    let fault = syncer
        .on_reply(&view, DirectoryReply::Sync(SyncReply::Page(wanting)))
        .unwrap_err();
    assert_eq!(fault, SyncFault::Rounds);
}

#[test] // §8.3
fn refusals_are_passed_on() {
    let (view, mut syncer, _) = asking();
    let fault = syncer
        .on_reply(&view, DirectoryReply::Refused(DirectoryRefusal::Busy))
        .unwrap_err();
    assert_eq!(fault, SyncFault::Refused(DirectoryRefusal::Busy));
}

#[test] // §8.3
fn pages_out_of_order_or_range_are_refused() {
    let (_, _, page) = asking();
    let is_read = |page: &Page| {
        let request = DirectoryRequest::Sync(SyncRequest::Page(page.clone()));
        DirectoryRequest::decode(&request.encode()).is_ok()
    };
    assert!(is_read(&page));
    let mut swapped = page.clone();
    swapped.items.swap(0, 1);
    assert!(!is_read(&swapped));
    let mut narrow = page;
    narrow.until = narrow.items[3].prefix;
    assert!(!is_read(&narrow));
    let crossed = Page {
        from: IdPrefix::LAST,
        until: IdPrefix::FIRST,
        items: Vec::new(),
    };
    assert!(!is_read(&crossed));
}
