use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

use super::*;
use crate::directory::testing::{self, TestRelay, WALL, relay, vouched};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ISSUERS: [u32; 3] = [1, 2, 3];

/// A relay that knows three issuers, and tries what they vouch for.
struct Bench {
    checks: SpotChecks,
    network: Network,
    view: NetView,
    now: Instant,
    wall: WallTime,
    /// Since when it has a link with somebody.
    online_since: Option<Instant>,
    rng: ChaCha20Rng,
    next_relay: u32,
}

impl Bench {
    fn new() -> Self {
        let mut network = testing::public_network();
        network.params.receipts_min = 3;
        let mut view = NetView::new();
        for number in ISSUERS {
            view.insert(relay(number).verified(), WALL);
        }
        Self {
            checks: SpotChecks::restore(RelayId([0; 32]), None, Instant::default()),
            network,
            view,
            now: Instant::from_micros(1),
            wall: WALL,
            online_since: Some(Instant::from_micros(0)),
            rng: ChaCha20Rng::seed_from_u64(1),
            next_relay: 100,
        }
    }

    fn facts<'a>(network: &'a Network, view: &'a NetView, wall: WallTime) -> Facts<'a> {
        Facts {
            network,
            view,
            wall,
            confirmed: wall,
        }
    }

    fn take(&mut self, taken: &TestRelay) {
        self.view.insert(taken.verified(), self.wall);
        let facts = Self::facts(&self.network, &self.view, self.wall);
        self.checks
            .handle_taken(self.now, facts, &taken.descriptor, &mut self.rng);
    }

    /// Another relay, for which the three issuers vouched a moment ago.
    fn newcomer(&mut self) -> TestRelay {
        self.next_relay += 1;
        vouched(relay(self.next_relay), ISSUERS, WALL)
    }

    /// Takes relays until one of them is to be tried.
    fn drawn(&mut self) -> TestRelay {
        loop {
            let taken = self.newcomer();
            self.take(&taken);
            if self.checks.poll_timeout().is_some() {
                return taken;
            }
        }
    }

    fn pass(&mut self, time: Duration) -> Option<(u64, Probe)> {
        self.now = self.now + time;
        let facts = Self::facts(&self.network, &self.view, self.wall);
        let since = self.online_since;
        let is_online = |_, _, from| since.is_some_and(|since| since <= from);
        self.checks.handle_timeout(self.now, facts, is_online);
        self.checks.poll_dial()
    }

    /// Waits for the next dial, if there is one.
    fn dialled(&mut self) -> Option<(u64, Probe)> {
        while let Some(at) = self.checks.poll_timeout() {
            let dial = self.pass(at.since(self.now));
            if dial.is_some() {
                return dial;
            }
        }
        None
    }

    fn answer(&mut self, (id, _): (u64, Probe), probed: impl Into<Probed>) {
        let facts = Self::facts(&self.network, &self.view, self.wall);
        self.checks
            .handle_probed(self.now, facts, id, probed.into());
    }

    /// A check of another relay, to its end. How often it was dialled.
    fn check(&mut self, is_there: bool) -> usize {
        let _ = self.drawn();
        let mut dials = 0;
        while let Some(dial) = self.dialled() {
            dials += 1;
            self.answer(dial, is_there);
        }
        dials
    }

    fn barred(&self) -> usize {
        self.checks.barred().count()
    }

    fn standing(&self) -> Option<(usize, usize)> {
        let standing = self.checks.standing(&relay(1).descriptor.relay)?;
        Some((standing.found, standing.missed))
    }
}

#[test] // §8.8(1)
fn one_address_in_twenty_is_tried_and_once_a_day() {
    let mut bench = Bench::new();
    let taken: Vec<_> = (0..600).map(|_| bench.newcomer()).collect();
    taken.iter().for_each(|it| bench.take(it));
    let drawn = bench.checks.checks.len();
    assert!((15..=50).contains(&drawn), "{drawn} of 600");
    taken.iter().for_each(|it| bench.take(it));
    assert_eq!(bench.checks.checks.len(), drawn, "they are issued anew");
    while let Some(dial) = bench.dialled() {
        bench.answer(dial, true);
    }
    taken.iter().for_each(|it| bench.take(it));
    assert!(bench.checks.checks.is_empty());
}

/// Issuers vouch at this time for another relay at the address of one that came at `WALL`.
fn turn_away_twin(bench: &mut Bench, vouched_at: WallTime) -> TestRelay {
    let (holder, other) = (bench.newcomer(), bench.newcomer());
    bench.view.insert(holder.verified(), WALL);
    let twin = other.with(|it| {
        it.addresses.clone_from(&holder.descriptor.addresses);
        it.receipts.clear();
        it.issued_at = vouched_at;
    });
    let twin = vouched(twin, ISSUERS, vouched_at);
    let facts = Bench::facts(&bench.network, &bench.view, bench.wall);
    bench
        .checks
        .handle_turned_away(bench.now, facts, &twin.descriptor, &mut bench.rng);
    twin
}

#[test] // §8.8(1)
fn who_is_vouched_for_where_another_is_known_to_be_is_tried() {
    let mut bench = Bench::new();
    bench.wall = WALL + Duration::from_secs(6 * 3600);
    for _ in 0..600 {
        turn_away_twin(&mut bench, WALL + Duration::from_secs(4 * 3600));
    }
    let drawn = bench.checks.checks.len();
    assert!((15..=50).contains(&drawn), "{drawn} of 600");
    while let Some(dial) = bench.dialled() {
        bench.answer(dial, false);
    }
    assert_eq!(bench.barred(), ISSUERS.len());
}

#[test] // §8.8(1)
fn who_vouched_before_the_holder_was_known_for_long_is_not_judged() {
    let mut bench = Bench::new();
    bench.wall = WALL + Duration::from_secs(6 * 3600);
    for _ in 0..200 {
        turn_away_twin(&mut bench, WALL + NEWS_SPREAD_MAX);
    }
    assert!(bench.checks.checks.is_empty());
}

#[test] // §8.8(3)
fn who_moves_from_a_held_address_is_tried_there_all_the_same() {
    let mut bench = Bench::new();
    bench.wall = WALL + Duration::from_secs(6 * 3600);
    let (vouched_at, mut twins) = (bench.wall, Vec::new());
    while bench.checks.checks.is_empty() {
        twins.push(turn_away_twin(&mut bench, vouched_at));
    }
    let twin = twins.pop().unwrap();
    let was_at = twin.descriptor.addresses[0];
    let moved = twin.with(|it| {
        it.addresses = relay(9).descriptor.addresses;
        it.issued_at = it.issued_at + Duration::from_secs(60);
    });
    bench.view.insert(moved.unverified().believed(), bench.wall);
    let dial = bench.dialled().unwrap();
    assert_eq!(dial.1.address, was_at);
    bench.answer(dial, false);
    let again = bench.dialled().unwrap();
    bench.answer(again, false);
    assert_eq!(bench.dialled(), None);
    assert_eq!(bench.standing(), Some((0, 1)));
}

#[test] // §8.8(1)
fn old_receipts_are_not_tried() {
    let mut bench = Bench::new();
    bench.wall = WALL + Duration::from_secs(3 * 3600);
    for _ in 0..200 {
        let taken = bench.newcomer();
        bench.take(&taken);
    }
    assert!(bench.checks.checks.is_empty());
}

#[test] // §8.8(1)
fn old_receipts_of_a_relay_that_is_new_are_tried() {
    let mut bench = Bench::new();
    bench.wall = WALL + Duration::from_secs(5 * 3600);
    bench.now = bench.now + NEWS_SPREAD_MAX;
    let taken: Vec<_> = (0..600).map(|_| bench.newcomer()).collect();
    taken.iter().for_each(|it| bench.take(it));
    let drawn = bench.checks.checks.len();
    assert!((15..=50).contains(&drawn), "{drawn} of 600");
    while let Some(dial) = bench.dialled() {
        bench.answer(dial, false);
    }
    assert_eq!(bench.barred(), 3, "they date receipts back");
    let before = bench.checks.next_check;
    bench.wall = bench.wall + DAY;
    bench.now = bench.now + DAY * 2;
    taken.iter().for_each(|it| bench.take(it));
    assert_eq!(bench.checks.next_check, before, "these are no newcomers");
}

#[test] // §8.8(1)
fn old_receipts_of_a_relay_that_has_moved_are_tried() {
    let mut bench = Bench::new();
    bench.now = bench.now + NEWS_SPREAD_MAX;
    let known: Vec<_> = (0..600).map(|_| bench.newcomer()).collect();
    for relay in &known {
        bench.view.insert(relay.verified(), WALL);
    }
    bench.wall = WALL + Duration::from_secs(5 * 3600);
    for (number, was) in (2000..).zip(&known) {
        let elsewhere = relay(number).descriptor.addresses;
        let moved = relay(number - 2000 + 101).with(|it| {
            assert_eq!(it.relay, was.descriptor.relay);
            it.addresses = elsewhere;
            it.issued_at = WALL + Duration::from_secs(60);
        });
        bench.take(&vouched(moved, ISSUERS, WALL));
    }
    let drawn = bench.checks.checks.len();
    assert!((15..=50).contains(&drawn), "{drawn} of 600");
}

#[test] // §8.8(2)
fn checks_that_wait_are_bounded_and_so_are_dials() {
    let mut bench = Bench::new();
    for _ in 0..2500 {
        let taken = bench.newcomer();
        bench.take(&taken);
    }
    assert_eq!(bench.checks.checks.len(), SPOT_CHECKS_MAX);
    let first = bench.pass(SPOT_CHECK_FIRST * 10).unwrap();
    let mut in_flight = vec![first];
    in_flight.extend(core::iter::from_fn(|| bench.checks.poll_dial()));
    assert_eq!(in_flight.len(), SPOT_DIALS_MAX);
    assert_eq!(
        bench.checks.poll_timeout(),
        None,
        "all wait for a dial to end"
    );
    bench.answer(in_flight[0], true);
    assert!(bench.pass(Duration::ZERO).is_some());
}

#[test] // §8.8(2)
fn a_group_has_few_checks_a_day() {
    let mut bench = Bench::new();
    for host in 1..=250_u8 {
        let taken = relay(1000 + u32::from(host))
            .with(|it| it.addresses = vec![format!("30.1.1.{host}:9000").parse().unwrap()]);
        bench.take(&vouched(taken, ISSUERS, WALL));
    }
    assert_eq!(bench.checks.checks.len(), 4);
}

#[test] // §8.8(3)
fn two_misses_in_distinct_groups_bar_the_issuers_for_thirty_days() {
    let mut bench = Bench::new();
    assert_eq!(bench.check(false), 2, "dials");
    assert_eq!((bench.standing(), bench.barred()), (Some((0, 1)), 0));
    assert_eq!(bench.check(false), 2, "dials");
    assert_eq!(bench.barred(), 3);
    let (stored, barred) = bench.checks.take_changes().unwrap();
    assert_eq!(barred.len(), 3);
    assert_eq!(bench.checks.take_changes(), None);
    let mut restored = SpotChecks::restore(RelayId([0; 32]), Some(&stored), Instant::default());
    assert_eq!(restored.records, bench.checks.records);
    restored.expire(WALL + DAY * 29);
    assert_eq!(restored.barred().count(), 3);
    restored.expire(WALL + DAY * 30);
    assert_eq!(restored.barred().count(), 0);
    let (_, barred) = restored.take_changes().unwrap();
    assert!(barred.is_empty());
    assert_eq!(restored.standing(&relay(1).descriptor.relay), None);
}

#[test] // §8.8(4)
fn an_issuer_that_is_mostly_right_can_not_be_framed() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        for _ in 0..2 {
            assert_eq!(bench.check(true), 1, "dials");
        }
        bench.check(false);
    }
    assert_eq!((bench.standing(), bench.barred()), (Some((8, 4)), 0));
    bench.check(false);
    assert_eq!((bench.standing(), bench.barred()), (Some((8, 5)), 3));
}

#[test] // §8.8(4)
fn one_group_is_one_miss_until_there_are_five_in_a_row() {
    let mut bench = Bench::new();
    let mut misses = 0;
    for host in 1..=250_u8 {
        let (third, number) = (host, 1000 + u32::from(host));
        let taken = relay(number)
            .with(|it| it.addresses = vec![format!("30.1.{third}.1:9000").parse().unwrap()]);
        bench.take(&vouched(taken, ISSUERS, WALL));
        while let Some(dial) = bench.dialled() {
            bench.answer(dial, false);
        }
        misses = bench.standing().map_or(0, |(_, missed)| missed);
        if bench.barred() > 0 {
            break;
        }
    }
    assert_eq!(misses, ISSUER_MISSES_IN_A_ROW);
}

#[test] // §8.8(4)
fn one_site_is_one_miss_however_often_its_ports_are_closed() {
    let mut bench = Bench::new();
    let (network, view) = (bench.network.clone(), &bench.view);
    let facts = Bench::facts(&network, view, WALL);
    let issuers = [relay(1).descriptor.relay];
    let mut miss = |host: String| {
        let address = format!("{host}:9000").parse().unwrap();
        bench.checks.record(facts, &issuers, address, false);
        bench.checks.barred().count()
    };
    for host in 1..=20 {
        assert_eq!(miss(format!("30.1.1.{host}")), 0);
    }
    for third in 2..=4 {
        assert_eq!(miss(format!("30.1.{third}.1")), 0);
    }
    assert_eq!(miss("30.1.5.1".to_owned()), 1);
}

#[test] // §8.8(5)
fn misses_of_a_barred_issuer_still_count() {
    let mut bench = Bench::new();
    let (network, view) = (bench.network.clone(), &bench.view);
    let facts = Bench::facts(&network, view, WALL);
    let issuer = relay(1).descriptor.relay;
    for first in 30..36 {
        let address = format!("{first}.1.1.1:9000").parse().unwrap();
        bench.checks.record(facts, &[issuer], address, false);
    }
    let standing = bench.checks.standing(&issuer).unwrap();
    assert_eq!(
        (standing.missed, standing.barred_until.is_some()),
        (6, true)
    );
}

#[test] // §8.8(4)
fn a_relay_that_was_there_outweighs_a_miss_beside_it() {
    let mut bench = Bench::new();
    let (network, view) = (bench.network.clone(), &bench.view);
    let facts = Bench::facts(&network, view, WALL);
    let issuers = [relay(1).descriptor.relay];
    let mut record = |host: &str, was_there| {
        let address = format!("{host}:9000").parse().unwrap();
        bench.checks.record(facts, &issuers, address, was_there);
        bench.checks.barred().count()
    };
    assert_eq!(record("30.1.1.1", true), 0);
    assert_eq!(record("30.1.2.1", false), 0, "beside it");
    assert_eq!(record("31.1.1.1", false), 0, "one AS of two");
    assert_eq!(record("32.1.1.1", false), 1);
}

#[test] // §8.8(5)
fn few_are_barred_at_once_and_those_with_most_misses() {
    let mut network = testing::public_network();
    network.params.receipts_min = 3;
    let mut view = NetView::new();
    (1..=49).for_each(|it| _ = view.insert(relay(it).verified(), WALL));
    let facts = Bench::facts(&network, &view, WALL);
    let mut checks = SpotChecks::restore(RelayId([0; 32]), None, Instant::default());
    let mut miss = |issuer: u32, times: u8| {
        for host in 1..=times {
            let address = format!("{}.{host}.1.1:9000", 30 + issuer).parse().unwrap();
            checks.record(facts, &[relay(issuer).descriptor.relay], address, false);
        }
        let barred: BTreeSet<_> = checks.barred().collect();
        (
            barred.len(),
            barred.contains(&relay(issuer).descriptor.relay),
        )
    };
    for framed in 1..=20 {
        assert_eq!(miss(framed, 2), (framed.min(4) as usize, framed <= 4));
    }
    assert_eq!(
        miss(30, 3),
        (4, true),
        "in place of one that was missed less"
    );
}

#[test] // §8.8(3)
fn a_relay_that_is_there_the_second_time_is_found() {
    let mut bench = Bench::new();
    let _ = bench.drawn();
    let dial = bench.dialled().unwrap();
    bench.answer(dial, false);
    let before = bench.now;
    let dial = bench.dialled().unwrap();
    assert!(bench.now.since(before) >= SPOT_CHECK_SECOND);
    bench.answer(dial, true);
    assert_eq!(bench.standing(), Some((1, 0)));
}

#[test] // §8.8(3)
fn what_is_missed_while_one_is_offline_counts_for_nothing() {
    // Its links are found dead only after a dial failed.
    for failing in 0..2 {
        let mut bench = Bench::new();
        let _ = bench.drawn();
        for dial in 0..=failing {
            let dialled = bench.dialled().unwrap();
            bench.answer(dialled, false);
            if dial == failing {
                bench.online_since = Some(bench.now + Duration::from_secs(1));
            }
        }
        assert_eq!(bench.dialled(), None);
        assert_eq!(bench.standing(), None);
    }
}

#[test] // §8.8(3)
fn a_checkers_own_fault_is_no_miss() {
    let mut bench = Bench::new();
    for _ in 0..8 {
        let _ = bench.drawn();
        let first = bench.dialled().unwrap();
        bench.answer(first, false);
        let second = bench.dialled().unwrap();
        bench.answer(second, Probed::Unknown);
        assert_eq!(bench.dialled(), None, "the check is over");
    }
    assert_eq!((bench.standing(), bench.barred()), (None, 0));
}

#[test] // §8.8(3)
fn nobody_ends_a_check_by_moving_or_by_leaving() {
    for is_gone in [false, true] {
        let mut bench = Bench::new();
        let taken = bench.drawn();
        let dial = bench.dialled().unwrap();
        bench.answer(dial, false);
        let (relay_id, was_at) = (taken.descriptor.relay, taken.descriptor.addresses[0]);
        let moved = taken.with(|it| {
            it.addresses = vec!["40.1.1.1:9000".parse().unwrap()];
            it.receipts.clear();
            it.issued_at = WALL + Duration::from_secs(60);
        });
        bench.take(&moved);
        if is_gone {
            let _ = bench.view.take_dead(WALL + DAY * 3);
            assert!(bench.view.get(&relay_id).is_none());
            for number in ISSUERS {
                bench.view.insert(relay(number).verified(), WALL);
            }
        }
        let again = bench.dialled().unwrap();
        assert_eq!(again.1.address, was_at);
        bench.answer(again, false);
        assert_eq!(bench.dialled(), None);
        assert_eq!(bench.standing(), Some((0, 1)));
    }
}

#[test] // §8.8(4)
fn issuers_that_nobody_knows_are_not_on_record() {
    let mut bench = Bench::new();
    loop {
        bench.next_relay += 1;
        let taken = vouched(relay(bench.next_relay), [50, 51, 52], WALL);
        bench.take(&taken);
        if bench.checks.poll_timeout().is_some() {
            break;
        }
    }
    let dial = bench.dialled().unwrap();
    bench.answer(dial, true);
    assert!(bench.checks.records.is_empty());
}

#[test]
fn records_that_can_not_be_read_are_left_out() {
    for stored in [&[][..], &[0], &[STATE_VERSION, 200], &[2, 0]] {
        let checks = SpotChecks::restore(RelayId([0; 32]), Some(stored), Instant::default());
        assert!(checks.records.is_empty());
    }
}
