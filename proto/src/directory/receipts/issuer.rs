//! For whom a relay dials, to vouch for it (docs/protocol.md §8.7).
//!
//! It dials one address: the one from which the asker's link came, at a port that the asker names.
//! So it can't be made to scan other hosts, or to flood them. Everything is bounded: dials in
//! flight, and addresses remembered.

use std::collections::BTreeMap;

use core::net::SocketAddr;

use super::ReceiptRefusal;
use super::probe::{Places, Probe, Probed};
use crate::directory::descriptor::is_dialable;
use crate::directory::view::NetView;
use crate::ids::RelayId;
use crate::limits::{
    CLOCK_SKEW_MAX, RECEIPT_ADDRESSES_MAX, RECEIPT_ASK_TIMEOUT, RECEIPT_DIALS_A_GROUP_MAX,
    RECEIPT_DIALS_MAX, RECEIPT_PAUSE, RECEIPT_PAUSE_SHARE, RECEIPT_RESTS_A_GROUP_MAX,
    RECEIPT_RETRY_PAUSE,
};
use crate::network::{Host, Network};
use crate::time::{Duration, Instant, Moment, WallTime};

/// The dials of one issuer, and whom it has vouched for of late.
#[derive(Debug, Default)]
pub struct Issuer {
    probes: BTreeMap<u64, Probe>,
    next_probe: u64,
    taken: Places,
    /// Hosts where nobody was found a moment ago, and until when they rest.
    resting: BTreeMap<Host, Instant>,
    /// When it was last asked.
    asked_at: Option<Moment>,
}

impl Issuer {
    /// A relay asks for a receipt of `address`; its link came from `from`. Returns the dial to
    /// make, by its number, answered by [`Self::handle_probed`]. One that the view has at that
    /// address renews its receipt: it takes no place from newcomers, and they take none from it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn handle_request(
        &mut self,
        now: Instant,
        (network, view, wall): (&Network, &NetView, WallTime),
        relay: RelayId,
        from: SocketAddr,
        address: SocketAddr,
    ) -> Result<(u64, Probe), ReceiptRefusal> {
        if address.ip().to_canonical() != from.ip().to_canonical() {
            return Err(ReceiptRefusal::Elsewhere { from }); // §8.7(2)
        }
        if address.port() == 0 || !is_dialable(address, network) {
            return Err(ReceiptRefusal::Unreachable);
        }
        if view.is_taken(address, &relay, network, wall) {
            return Err(ReceiptRefusal::Taken);
        }
        if self.was_clock_set(Moment { now, wall }) {
            // What it gave by another clock may be of no use: of the future, or too old.
            self.taken = Places::default();
        }
        self.taken.expire(network, now);
        self.resting.retain(|_, until| *until > now);
        let known = view.get(&relay);
        let is_renewal = known.is_some_and(|it| it.addresses.contains(&address));
        let has_room = if is_renewal {
            !self.taken.contains(address)
        } else {
            self.taken.has_room(network, address)
        };
        if !has_room || !self.may_dial(network, address, is_renewal) {
            return Err(ReceiptRefusal::Limit);
        }
        let is_in_flight = self.probes.values().any(|probe| probe.relay == relay);
        let group = network.widest_group_of(address);
        let probes = self.probes.values();
        let beside = probes.filter(|it| network.widest_group_of(it.address) == group);
        let is_full = self.probes.len() >= RECEIPT_DIALS_MAX
            || beside.count() >= RECEIPT_DIALS_A_GROUP_MAX
            || self.resting.len() >= RECEIPT_ADDRESSES_MAX
            || self.taken.len() >= RECEIPT_ADDRESSES_MAX;
        if is_in_flight || is_full {
            return Err(ReceiptRefusal::Busy);
        }
        let id = self.next_probe;
        self.next_probe += 1;
        let probe = Probe { relay, address };
        self.probes.insert(id, probe);
        let until = now + RECEIPT_ASK_TIMEOUT;
        if is_renewal {
            self.taken.take_beside(network, address, until);
        } else {
            self.taken.take(network, address, until);
        }
        Ok((id, probe))
    }

    /// Whether the calendar was set by more than others bear, or the machine slept, since it was last
    /// asked.
    fn was_clock_set(&mut self, moment: Moment) -> bool {
        let before = self.asked_at.replace(moment);
        before.is_some_and(|before| {
            let expected = before.wall + moment.now.since(before.now);
            expected.as_secs().abs_diff(moment.wall.as_secs()) > CLOCK_SKEW_MAX.as_secs()
        })
    }

    /// Whether neither this host, nor too many of its group, were missed a moment ago. Neighbours that
    /// are missed keep nobody from a renewal.
    fn may_dial(&self, network: &Network, address: SocketAddr, is_renewal: bool) -> bool {
        if self.resting.contains_key(&address.into()) {
            return false;
        }
        let group = network.group_of(address);
        let group_of =
            |host: &Host| network.group_of(SocketAddr::new(host.bounds().0.ip(), address.port()));
        let beside = self.resting.keys().filter(|host| group_of(host) == group);
        is_renewal || beside.count() < RECEIPT_RESTS_A_GROUP_MAX
    }

    /// A dial is over. Names whom to vouch for, if it was there.
    ///
    /// # Errors
    /// Why there is no receipt.
    pub fn handle_probed(
        &mut self,
        now: Instant,
        network: &Network,
        id: u64,
        probed: Probed,
    ) -> Result<Probe, ReceiptRefusal> {
        let probe = self.probes.remove(&id).ok_or(ReceiptRefusal::Busy)?;
        if probed == Probed::There {
            let until = now + pause(network);
            self.taken.extend(network, probe.address, until);
            return Ok(probe);
        }
        // It takes no place from its neighbours.
        self.taken.remove(network, probe.address);
        if probed == Probed::Unknown {
            return Err(ReceiptRefusal::Busy);
        }
        let until = now + RECEIPT_RETRY_PAUSE;
        self.resting.insert(probe.address.into(), until);
        Err(ReceiptRefusal::Unreachable)
    }
}

/// How long an address that got a receipt gets no other: a day, or less where receipts live so
/// short that they must be renewed earlier.
fn pause(network: &Network) -> Duration {
    RECEIPT_PAUSE.min(network.params.receipt_life / RECEIPT_PAUSE_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing;
    use crate::ids::RelayId;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn relay(number: u8) -> RelayId {
        RelayId([number; 32])
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// An issuer that has been asked for receipts at fixed times.
    #[derive(Default)]
    struct Bench {
        issuer: Issuer,
        view: NetView,
        now: Instant,
        /// How far its calendar is ahead.
        ahead: Duration,
        asked: u8,
    }

    impl Bench {
        /// A relay that no other has asked as yet asks from where it is.
        fn ask(&mut self, at: &str) -> Result<u64, ReceiptRefusal> {
            self.asked += 1;
            self.ask_as(relay(self.asked), at, at)
        }

        fn ask_as(&mut self, relay: RelayId, from: &str, at: &str) -> Result<u64, ReceiptRefusal> {
            let network = testing::public_network();
            let (from, at) = (address(from), address(at));
            let passed = self.now.since(Instant::default());
            let known = (&network, &self.view, testing::WALL + passed + self.ahead);
            let (id, probe) = self
                .issuer
                .handle_request(self.now, known, relay, from, at)?;
            assert_eq!((probe.relay, probe.address), (relay, at));
            Ok(id)
        }

        fn probed(&mut self, id: u64, probed: impl Into<Probed>) -> Option<Probe> {
            let network = testing::public_network();
            self.issuer
                .handle_probed(self.now, &network, id, probed.into())
                .ok()
        }

        fn issue(&mut self, at: &str) -> Result<(), ReceiptRefusal> {
            let id = self.ask(at)?;
            self.probed(id, true).unwrap();
            Ok(())
        }
    }

    #[test] // §8.7(2)
    fn only_where_the_link_came_from_is_dialled() {
        let mut bench = Bench::default();
        let refused = bench.ask_as(relay(1), "20.1.1.1:50000", "20.1.1.2:9000");
        let from = address("20.1.1.1:50000");
        assert_eq!(refused, Err(ReceiptRefusal::Elsewhere { from }));
        let id = bench
            .ask_as(relay(1), "[::ffff:20.1.1.1]:50000", "20.1.1.1:9000")
            .unwrap();
        let probe = bench.probed(id, true).unwrap();
        assert_eq!(probe.address, address("20.1.1.1:9000"));
        assert_eq!(bench.probed(id, true), None, "it is over");
    }

    #[test] // §8.7(2)
    fn an_address_that_no_relay_may_have_is_not_dialled() {
        let mut bench = Bench::default();
        for never in ["10.0.0.1:9000", "20.1.1.1:0"] {
            assert_eq!(bench.ask(never), Err(ReceiptRefusal::Unreachable));
        }
    }

    #[test] // §8.7(3)
    fn an_address_has_one_receipt_a_day() {
        let mut bench = Bench::default();
        bench.issue("20.1.1.1:9000").unwrap();
        bench.now = bench.now + (DAY - Duration::from_secs(1));
        assert_eq!(bench.issue("20.1.1.1:9000"), Err(ReceiptRefusal::Limit));
        bench.now = bench.now + Duration::from_secs(1);
        bench.issue("20.1.1.1:9000").unwrap();
    }

    #[test] // §8.7(3)
    fn what_was_issued_by_another_clock_takes_the_place_of_nothing() {
        let mut bench = Bench::default();
        let (right, far) = (DAY * 8, CLOCK_SKEW_MAX + Duration::from_secs(1));
        for (ahead, is_set) in [
            (right, false),
            (right + CLOCK_SKEW_MAX, false),
            (Duration::ZERO, true),
            (far, true),
        ] {
            bench.ahead = right;
            bench.issuer = Issuer::default();
            bench.issue("20.1.1.1:9000").unwrap();
            bench.ahead = ahead;
            let again = bench.issue("20.1.1.1:9000");
            assert_eq!(again.is_ok(), is_set, "{ahead:?}: {again:?}");
            assert_eq!(bench.issue("20.1.1.1:9000"), Err(ReceiptRefusal::Limit));
        }
    }

    #[test] // §8.7(3)
    fn a_v4_address_written_as_v6_is_the_same_and_is_signed_as_written() {
        let mut bench = Bench::default();
        let mapped = "[::ffff:20.1.1.1]:9000";
        let id = bench.ask(mapped).unwrap();
        let probe = bench.probed(id, true).unwrap();
        assert_eq!(probe.address, address(mapped));
        assert_eq!(bench.issue("20.1.1.1:9000"), Err(ReceiptRefusal::Limit));
    }

    #[test] // §8.7(3)
    fn an_address_where_nobody_was_is_dialled_again_in_a_while() {
        let mut bench = Bench::default();
        let id = bench.ask("20.1.1.1:9000").unwrap();
        assert_eq!(bench.probed(id, false), None);
        assert_eq!(bench.ask("20.1.1.1:9000"), Err(ReceiptRefusal::Limit));
        bench.now = bench.now + RECEIPT_RETRY_PAUSE;
        assert!(bench.ask("20.1.1.1:9000").is_ok());
    }

    #[test] // §8.7(4)
    fn an_issuers_own_fault_keeps_nobody_waiting() {
        let mut bench = Bench::default();
        let id = bench.ask("20.1.1.1:9000").unwrap();
        let network = testing::public_network();
        let outcome = bench
            .issuer
            .handle_probed(bench.now, &network, id, Probed::Unknown);
        assert_eq!(outcome, Err(ReceiptRefusal::Busy));
        bench.issue("20.1.1.1:9000").unwrap();
    }

    #[test] // §8.7(3)
    fn who_can_not_be_reached_takes_no_place_from_neighbours() {
        let mut bench = Bench::default();
        for port in 1..9 {
            let id = bench.ask(&format!("20.1.1.1:{port}"));
            if let Ok(id) = id {
                bench.probed(id, false);
            }
            assert_eq!(id.is_ok(), port == 1, "one try a host in a while");
        }
        for host in 2..=5 {
            bench.issue(&format!("20.1.1.{host}:9000")).unwrap();
        }
    }

    #[test] // §8.7(3)
    fn groups_have_a_few_a_day() {
        let mut bench = Bench::default();
        for host in 1..=4 {
            bench.issue(&format!("20.1.1.{host}:9000")).unwrap();
        }
        assert_eq!(bench.issue("20.1.1.5:9000"), Err(ReceiptRefusal::Limit));
        for net in 2..=13 {
            bench.issue(&format!("20.1.{net}.1:9000")).unwrap();
        }
        assert_eq!(bench.issue("20.1.99.1:9000"), Err(ReceiptRefusal::Limit));
        bench.issue("20.2.1.1:9000").unwrap();
        bench.issue("[2a00:1:1:1::1]:9000").unwrap();
        assert_eq!(
            bench.issue("[2a00:1:1:1::2]:9000"),
            Err(ReceiptRefusal::Limit)
        );
    }

    #[test] // §8.7(3)
    fn an_ip_with_many_ports_takes_one_place_and_has_a_few() {
        let mut bench = Bench::default();
        for port in 1..=4 {
            bench.issue(&format!("20.1.1.1:{port}")).unwrap();
        }
        assert_eq!(bench.issue("20.1.1.1:5"), Err(ReceiptRefusal::Limit));
        for host in 2..=4 {
            bench.issue(&format!("20.1.1.{host}:9000")).unwrap();
        }
        assert_eq!(bench.issue("20.1.1.5:9000"), Err(ReceiptRefusal::Limit));
        bench.now = bench.now + DAY;
        bench.issue("20.1.1.5:9000").unwrap();
        bench.issue("20.1.1.1:5").unwrap();
        assert_eq!(bench.issuer.taken.group_count(), 2, "a /24 and a /16");
    }

    #[test] // §8.7(3)
    fn dials_in_flight_are_few_and_one_a_relay() {
        let mut bench = Bench::default();
        let first = bench.ask("20.1.1.1:9000").unwrap();
        let again = bench.ask_as(relay(1), "20.1.1.1:5", "20.1.1.1:9001");
        assert_eq!(again, Err(ReceiptRefusal::Busy));
        for net in 2..=RECEIPT_DIALS_MAX {
            bench.ask(&format!("20.{net}.1.1:9000")).unwrap();
        }
        assert_eq!(bench.ask("21.1.1.1:9000"), Err(ReceiptRefusal::Busy));
        bench.probed(first, false);
        assert!(bench.ask("21.1.1.1:9000").is_ok());
    }

    #[test] // §8.7(3)
    fn one_group_has_a_quarter_of_the_dials_in_flight() {
        let mut bench = Bench::default();
        for net in 1..=4 {
            bench.ask(&format!("[2a00:1:{net}::1]:9000")).unwrap();
        }
        assert_eq!(
            bench.ask("[2a00:1:5::1]:9000"),
            Err(ReceiptRefusal::Busy),
            "they are of one /32"
        );
        bench.ask("[2a00:2:1::1]:9000").unwrap();
        bench.ask("20.1.1.1:9000").unwrap();
    }

    #[test] // §8.7(3)
    fn a_v6_64_rests_as_a_whole_and_a_group_has_few_that_rest() {
        let mut bench = Bench::default();
        let id = bench.ask("[2a00:1:1::1]:9000").unwrap();
        bench.probed(id, false);
        assert_eq!(bench.ask("[2a00:1:1::2]:9000"), Err(ReceiptRefusal::Limit));
        for net in 2..=RECEIPT_RESTS_A_GROUP_MAX {
            let id = bench.ask_as(
                relay(1),
                &format!("[2a00:1:{net:x}::1]:9000"),
                &format!("[2a00:1:{net:x}::1]:9000"),
            );
            bench.probed(id.unwrap(), false);
        }
        assert_eq!(bench.ask("[2a00:1:99::1]:9000"), Err(ReceiptRefusal::Limit));
        bench.ask("[2a00:2:1::1]:9000").unwrap();
    }

    #[test] // §8.7(3)
    fn renewals_and_newcomers_take_no_place_from_each_other() {
        let mut bench = Bench::default();
        let known = testing::relay(7).with(|it| {
            it.addresses = vec![address("20.1.1.9:9000")];
        });
        let wall = testing::WALL;
        bench.view.insert(known.verified(), wall);
        for _ in 0..2 {
            let at = "20.1.1.9:9000";
            let id = bench.ask_as(known.descriptor.relay, at, at).unwrap();
            bench.probed(id, true).unwrap();
            let again = bench.ask_as(known.descriptor.relay, at, at);
            assert_eq!(again, Err(ReceiptRefusal::Limit), "one a day");
            for host in 1..=4 {
                bench.issue(&format!("20.1.1.{host}:9000")).unwrap();
            }
            assert_eq!(bench.issue("20.1.1.5:9000"), Err(ReceiptRefusal::Limit));
            bench.now = bench.now + DAY;
        }
    }

    /// A relay asks from address number `number`; each IPv4 /16 has sixteen of these.
    fn ask_from_afar(bench: &mut Bench, number: usize) -> Result<u64, ReceiptRefusal> {
        let [.., high, low] = (number / 16).to_be_bytes();
        let [.., net] = (number % 16).to_be_bytes();
        bench.ask_as(
            relay(1),
            &format!("{}.{low}.{net}.1:50000", 20 + high),
            &format!("{}.{low}.{net}.1:9000", 20 + high),
        )
    }

    #[test] // §8.7(3)
    fn addresses_that_are_remembered_are_bounded() {
        for is_there in [true, false] {
            let mut bench = Bench::default();
            for number in 0..RECEIPT_ADDRESSES_MAX {
                let id = ask_from_afar(&mut bench, number).unwrap();
                bench.probed(id, is_there);
            }
            let (taken, resting) = (&bench.issuer.taken, &bench.issuer.resting);
            assert_eq!(taken.len() + resting.len(), RECEIPT_ADDRESSES_MAX);
            let full = ask_from_afar(&mut bench, RECEIPT_ADDRESSES_MAX);
            assert_eq!(full, Err(ReceiptRefusal::Busy));
            bench.now = bench.now + DAY;
            assert!(ask_from_afar(&mut bench, RECEIPT_ADDRESSES_MAX).is_ok());
        }
    }
}
