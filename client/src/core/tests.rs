//! The core by itself, with no relay to talk to: its requests to the store and the links, and its
//! notices.
//!
//! Tests in a network stand in the package of tests, where the simulator drives this core and the
//! relays' real ones.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::directory::{Age, Belief, BookRow};
use umbel_proto::ids::{CircId, MessageId, Peer, RelayId};
use umbel_proto::inbox::address::{InboxAddress, InboxIdentity};
use umbel_proto::inbox::record::MESSAGE_LEN_MAX;
use umbel_proto::link::{Hello, LinkId, LinkOp};
use umbel_proto::network::Network;
use umbel_proto::time::{ClockGuard, Duration, Instant, WallTime};
use zeroize::Zeroizing;

use super::testing::link_up;
use super::*;

const WALL: WallTime = WallTime(1_790_000_000);
const SEED: RelayId = RelayId([9; 32]);
const LINK: LinkId = LinkId(4);

/// The first words of a relay whose clock says this.
fn hello(clock: WallTime) -> Hello {
    Hello {
        versions: vec![1],
        network: Network::local().id,
        clock,
        parameters: None,
        features: 0,
        descriptor: None,
    }
}

/// A core and the time it lives in.
struct Bench {
    core: Core,
    now: Instant,
    rng: ChaCha20Rng,
}

impl Bench {
    fn new(snapshot: Snapshot) -> Self {
        let mut bench = Self::new_at(snapshot, WALL);
        let stored = bench.core.poll_store().map(|(_, op)| op);
        assert!(
            matches!(stored, Some(StoreOp::PutClock(_))),
            "the clock of the first start"
        );
        bench
    }

    fn new_at(snapshot: Snapshot, wall: WallTime) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let seeds = vec![Peer {
            id: SEED,
            host_port: "127.0.0.1:9".to_owned(),
        }];
        let now = Instant::from_micros(0);
        let mut core = Core::new(
            Network::local(),
            seeds,
            None,
            snapshot,
            Moment { now, wall },
            &mut rng,
        )
        .expect("a good snapshot");
        assert_eq!(
            core.poll_notice(),
            Some(Notice::WaitingForView { last_known: 0 }),
            "nobody is known yet"
        );
        Self { core, now, rng }
    }

    /// Linked to relays whose clocks say this.
    fn linked_to(snapshot: Snapshot, wall: WallTime, clocks: &[WallTime]) -> Self {
        let mut bench = Self::new_at(snapshot, wall);
        for (number, &clock) in (1..).zip(clocks) {
            let hello = hello(clock);
            let (link, relay) = (LinkId(u64::from(number)), RelayId([number; 32]));
            bench.core.handle_link_up(
                Moment {
                    now: bench.now,
                    wall,
                },
                link_up(link, relay, &hello),
                &mut bench.rng,
            );
        }
        bench
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.now,
            wall: WALL,
        }
    }

    fn wish(&mut self, wish: Wish) {
        self.core.handle_wish(self.moment(), wish, &mut self.rng);
    }

    fn stored(&mut self, ticket: StoreTicket, is_stored: bool) {
        self.core
            .handle_stored(self.moment(), ticket, is_stored, &mut self.rng);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.core.handle_timeout(self.moment(), &mut self.rng);
    }

    fn link_up(&mut self, clock: WallTime) {
        let hello = hello(clock);
        self.core
            .handle_link_up(self.moment(), link_up(LINK, SEED, &hello), &mut self.rng);
    }

    fn cell(&mut self, cell: Cell) {
        self.core
            .handle_cell(self.moment(), LINK, cell, &mut self.rng);
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.core.poll_notice()).collect()
    }

    fn stores(&mut self) -> Vec<(StoreTicket, StoreOp)> {
        std::iter::from_fn(|| self.core.poll_store()).collect()
    }

    fn links(&mut self) -> Vec<LinkOp> {
        std::iter::from_fn(|| self.core.poll_link()).collect()
    }

    fn send(&mut self, number: u8, len: usize) -> MessageId {
        let id = MessageId([number; 16]);
        self.wish(Wish::Send {
            id,
            to: Recipient::OneWay(address()),
            body: vec![1; len],
            life: None,
        });
        id
    }
}

/// Each message in the outbox, how many hold it and how many are wanted.
fn outbox(core: &Core) -> Vec<(MessageId, usize, usize)> {
    core.status()
        .outbox
        .iter()
        .map(|entry| (entry.id, entry.holders, entry.wanted))
        .collect()
}

fn address() -> InboxAddress {
    *InboxIdentity::from_seed(&[3; 32]).address()
}

#[test] // §10.5
fn a_message_is_queued_only_once_it_is_durable() {
    let mut bench = Bench::new(Snapshot::default());
    let id = bench.send(1, 100);
    let stores = bench.stores();
    let [(ticket, StoreOp::PutOutbox { id: stored, .. })] = stores.as_slice() else {
        panic!("one thing is stored")
    };
    assert_eq!(*stored, id);
    assert_eq!(bench.notices(), []);
    bench.stored(*ticket, false);
    let unsaved = Notice::Unsaved {
        id,
        may_be_out: false,
    };
    assert_eq!(
        bench.notices(),
        [unsaved],
        "what could not be stored is not queued"
    );
    bench.pass(Duration::from_secs(3));
    let again = bench.stores();
    let [(ticket, StoreOp::PutOutbox { .. })] = again.as_slice() else {
        panic!("it is stored again")
    };
    bench.stored(*ticket, true);
    assert_eq!(bench.notices(), [Notice::Queued(id)]);
    assert_eq!(outbox(&bench.core), [(id, 0, 2)]);
}

#[test] // §10.5
fn a_message_in_the_outbox_outlives_a_restart() {
    let mut bench = Bench::new(Snapshot::default());
    let id = bench.send(1, 30_000);
    let stores = bench.stores();
    let [(_, StoreOp::PutOutbox { state, .. })] = stores.as_slice() else {
        panic!("one thing is stored")
    };
    let snapshot = Snapshot {
        outbox: vec![(id, state.clone())],
        ..Snapshot::default()
    };
    assert_eq!(outbox(&Bench::new(snapshot).core), [(id, 0, 2)]);
}

#[test] // §10.3
fn a_message_that_no_record_holds_is_refused() {
    let mut bench = Bench::new(Snapshot::default());
    bench.send(1, MESSAGE_LEN_MAX);
    assert_eq!(bench.stores().len(), 1, "the longest there may be is taken");
    let id = bench.send(2, MESSAGE_LEN_MAX + 1);
    assert_eq!(
        bench.notices(),
        [Notice::Failed {
            id,
            reason: SendFault::TooLong
        }]
    );
    assert!(bench.stores().is_empty());
}

#[test]
fn the_same_message_is_taken_once() {
    let mut bench = Bench::new(Snapshot::default());
    bench.send(1, 10);
    bench.send(1, 10);
    assert_eq!(bench.stores().len(), 1);
}

#[test] // §9.4
fn an_inbox_is_durable_before_anybody_hears_of_it() {
    let mut bench = Bench::new(Snapshot::default());
    bench.wish(Wish::CreateInbox {
        name: "help".to_owned(),
    });
    let stores = bench.stores();
    let [(ticket, StoreOp::PutInbox { name, state })] = stores.as_slice() else {
        panic!("one thing is stored")
    };
    assert_eq!(name, "help");
    bench.stored(*ticket, true);
    let address = bench.core.inbox_address("help");
    assert!(address.is_some() && bench.core.inbox_address("other").is_none());
    let snapshot = Snapshot {
        inboxes: vec![(name.clone(), state.clone())],
        ..Snapshot::default()
    };
    assert_eq!(Bench::new(snapshot).core.inbox_address("help"), address);
}

#[test]
fn a_snapshot_that_was_not_written_here_is_refused_by_name() {
    let open = |snapshot| {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let core = Core::new(
            Network::local(),
            Vec::new(),
            None,
            snapshot,
            Moment {
                now: Instant::default(),
                wall: WALL,
            },
            &mut rng,
        );
        core.err()
    };
    let junk = || Zeroizing::new(vec![0xff; 40]);
    let paths = Snapshot {
        paths: Some(vec![7]),
        ..Snapshot::default()
    };
    assert_eq!(open(paths), Some(SnapshotFault::Paths));
    let inboxes = Snapshot {
        inboxes: vec![("help".to_owned(), junk())],
        ..Snapshot::default()
    };
    assert_eq!(open(inboxes), Some(SnapshotFault::Inbox("help".to_owned())));
    let id = MessageId([1; 16]);
    let outbox = Snapshot {
        outbox: vec![(id, junk())],
        ..Snapshot::default()
    };
    assert_eq!(open(outbox), Some(SnapshotFault::Outbox(id)));
    let age = Age {
        first_seen: WALL,
        belief: Belief::Given(WALL),
        there_since: WALL,
    };
    let relays = vec![BookRow {
        descriptor: vec![1, 2, 3],
        age,
    }];
    let relays = Snapshot {
        relays,
        ..Snapshot::default()
    };
    assert_eq!(open(relays), None, "a bad descriptor is left out");
}

#[test] // §8.3
fn a_seed_that_does_not_answer_is_redialled_and_reported() {
    let mut bench = Bench::new(Snapshot::default());
    for _ in 0..5 {
        let dials = bench.links();
        assert!(
            matches!(dials.as_slice(), [LinkOp::Dial { relay: SEED, .. }]),
            "{dials:?}"
        );
        bench
            .core
            .handle_dial_failed(bench.moment(), SEED, &mut bench.rng);
        assert_eq!(bench.notices(), [Notice::Unreachable]);
        assert!(bench.links().is_empty(), "not without a pause");
        bench.pass(Network::local().params.retry_max);
    }
}

#[test] // §2.4(7)
fn a_clock_that_is_far_off_is_reported_once() {
    let mut bench = Bench::new(Snapshot::default());
    bench.link_up(WALL + Duration::from_secs(3000));
    assert_eq!(bench.notices(), []);
    let mut bench = Bench::new(Snapshot::default());
    bench.link_up(WALL + Duration::from_secs(7200));
    assert_eq!(
        bench.notices(),
        [Notice::Warning(Warning::Clock { seconds: 7200 })]
    );
}

#[test] // §6.4(12)
fn after_a_sleep_the_clock_is_judged_by_links_that_have_outlived_it() {
    let mut bench = Bench::new(Snapshot::default());
    bench.link_up(WALL);
    bench.notices();
    let night = Duration::from_secs(8 * 3600);
    let mut told_after = |seconds: u64| {
        let passed = Duration::from_secs(seconds);
        let moment = Moment {
            now: bench.now + passed,
            wall: WALL + night + passed,
        };
        bench.core.handle_timeout(moment, &mut bench.rng);
        let notices = bench.notices();
        notices.contains(&Notice::Warning(Warning::Clock { seconds: 28_800 }))
    };
    assert!(
        !told_after(1) && !told_after(12),
        "a link may be one of before"
    );
    assert!(told_after(20), "it answers: the machine did not sleep");
}

#[test] // §1.6(4), §10.5(1)
fn a_clock_is_right_while_most_linked_relays_agree_with_it() {
    let hour = Duration::from_secs(3600);
    let is_right = |clocks: &[WallTime]| {
        let mut bench = Bench::linked_to(Snapshot::default(), WALL, clocks);
        let is_told = bench
            .notices()
            .iter()
            .any(|notice| matches!(notice, Notice::Warning(Warning::Clock { .. })));
        (
            bench.core.shared.clock.may_delete(),
            bench.core.outbox.is_clock_right,
            is_told,
        )
    };
    assert_eq!(is_right(&[]), (false, false, false));
    assert_eq!(is_right(&[WALL]), (true, true, false));
    assert_eq!(is_right(&[WALL + hour * 3]), (false, false, true));
    assert_eq!(
        is_right(&[WALL, WALL, WALL + hour * 9]),
        (true, true, false),
        "the last one alone is wrong"
    );
    assert_eq!(
        is_right(&[WALL + hour * 9, WALL + hour * 8, WALL]),
        (false, false, true),
        "the last one alone is right"
    );
}

/// Starts with this stored clock state, linked to relays whose clocks say this; the state of the
/// clock then.
fn clock_after_start(stored: Option<&[u8]>, wall: WallTime, clocks: &[WallTime]) -> ClockGuard {
    let snapshot = Snapshot {
        clock: stored.map(<[u8]>::to_vec),
        ..Snapshot::default()
    };
    let mut bench = Bench::linked_to(snapshot, wall, clocks);
    let stores = std::iter::from_fn(|| bench.core.poll_store()).filter_map(|(_, op)| match op {
        StoreOp::PutClock(state) => Some(state),
        _ => None,
    });
    let stored = stores.last().or_else(|| stored.map(<[u8]>::to_vec));
    ClockGuard::restore(stored.as_deref(), bench.now, wall).0
}

fn confirmed_clock() -> Vec<u8> {
    clock_after_start(None, WALL, &[WALL, WALL]).state()
}

#[test] // §1.6(4)
fn a_long_jump_is_confirmed_by_two_relays_and_not_by_one() {
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    let known = confirmed_clock();
    let is_confirmed =
        |wall, clocks: &[WallTime]| clock_after_start(Some(&known), wall, clocks).may_delete();
    let (short, long) = (WALL + day, WALL + day * 30);
    assert!(is_confirmed(short, &[short]) && !is_confirmed(short, &[short + hour * 2]));
    assert!(!is_confirmed(long, &[long]) && is_confirmed(long, &[long, long]));
    assert!(!is_confirmed(long, &[long, WALL, WALL]));
    assert!(
        !is_confirmed(short, &[short + hour * 9, WALL]),
        "two that disagree about the direction"
    );
    assert!(
        clock_after_start(None, WALL, &[WALL]).may_delete(),
        "one that never knew the time"
    );
}

#[test] // §1.6(4)
fn a_relay_that_set_the_clock_to_1970_does_not_confirm_alone() {
    let past = clock_after_start(Some(&confirmed_clock()), WallTime(9), &[WallTime(9)]).state();
    let later = WALL + Duration::from_secs(9 * 365 * 86_400);
    assert!(!clock_after_start(Some(&past), later, &[later]).may_delete());
}

#[test] // §1.6(5)
fn a_guard_that_lies_about_its_clock_freezes_no_client_of_short_runs() {
    let hour = Duration::from_secs(3600);
    let day = hour * 24;
    for mut stored in [None, Some(confirmed_clock())] {
        let mut wall = WALL + day * 30;
        for step in [8, 8, 9] {
            let clock = clock_after_start(stored.as_deref(), wall, &[wall + hour * 2]);
            assert!(!clock.may_delete() && clock.confirmed() + day * 29 < wall);
            stored = Some(clock.state());
            wall = wall + hour * step;
        }
        let clock = clock_after_start(stored.as_deref(), wall, &[wall + hour * 2]);
        assert!(
            clock.confirmed() + day * 2 > wall,
            "{:?}",
            clock.confirmed()
        );
    }
}

#[test] // §1.6(4)
fn a_clock_that_jumps_while_relays_are_linked_is_judged_at_once() {
    let mut bench = Bench::new(Snapshot::default());
    bench.link_up(WALL);
    assert!(bench.core.outbox.is_clock_right);
    bench.core.handle_timeout(
        Moment {
            now: bench.now,
            wall: WALL + Duration::from_secs(86_400),
        },
        &mut bench.rng,
    );
    assert!(!bench.core.outbox.is_clock_right && !bench.core.shared.clock.may_delete());
    bench.core.handle_timeout(bench.moment(), &mut bench.rng);
    assert!(bench.core.outbox.is_clock_right && bench.core.shared.clock.may_delete());
}

#[test] // §4.4(3)
fn a_cell_for_a_circuit_that_never_was_is_dropped_and_counted() {
    for number in [1, 0x8000_0001, 0x8000_0002] {
        for command in [Command::Relay, Command::Created, Command::Destroy] {
            let mut bench = Bench::new(Snapshot::default());
            bench.link_up(WALL);
            bench.links();
            let stale = bench.core.stale_count();
            bench.cell(Cell::new(CircId::new(number | 0x100), command));
            assert!(bench.links().is_empty(), "{number:x}: the link stays");
            assert_eq!(bench.core.stale_count(), stale + 1);
        }
    }
}

#[test] // §4.1(1)
fn a_circuit_made_to_a_client_closes_the_link() {
    let mut bench = Bench::new(Snapshot::default());
    bench.link_up(WALL);
    bench.links();
    bench.cell(Cell::new(CircId::new(1), Command::Create));
    assert!(
        bench
            .links()
            .iter()
            .any(|op| matches!(op, LinkOp::Close(LINK)))
    );
}

#[test] // §6.4(5)
fn stubs_are_made_for_a_message_only_where_its_copies_leave_together() {
    let mut bench = Bench::new(Snapshot::default());
    assert_eq!(bench.core.expected_stubs(), 0);
    bench.send(1, 100);
    assert_eq!(bench.core.expected_stubs(), 3);
    bench.core.shared.network.params.second_deposit_delay = Duration::from_secs(30);
    assert_eq!(bench.core.expected_stubs(), 0);
}
