//! Whom a relay asks for receipts, when, and which of those it got it shows (docs/protocol.md
//! §8.7).
//!
//! One request is in flight at a time. Owns no link and no circuit: its driver makes the circuit of
//! one hop, and reports what came of it.

use std::collections::{BTreeMap, VecDeque};

use core::net::SocketAddr;

use rand::CryptoRng;

use super::{Receipt, ReceiptRefusal};
use crate::directory::book::Book;
use crate::directory::choice::{self, Candidates, Exclude};
use crate::directory::descriptor::{Roles, VerifiedDescriptor};
use crate::directory::vouchers::Vouchers;
use crate::ids::RelayId;
use crate::limits::{
    CLOCK_SKEW_MAX, RECEIPT_ASK_PAUSE, RECEIPT_ASK_PAUSE_MAX, RECEIPT_IDLE_PAUSE,
    RECEIPTS_AN_ADDRESS_MAX, RECEIPTS_MAX,
};
use crate::network::{Family, Network};
use crate::time::{Duration, Instant, WallTime};

/// Refusals that are remembered, so that an issuer that refused is not asked again at once.
const ATTEMPTS_MAX: usize = 32;

/// A request for a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// Whom to ask.
    pub issuer: RelayId,
    /// For which of one's own addresses.
    pub address: SocketAddr,
}

/// Why a request brought no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReceipt {
    /// The issuer gives none, for this reason.
    Refused(ReceiptRefusal),
    /// The issuer could not be asked, or gave no answer.
    NoAnswer,
    /// The receipt that came is dated by another clock, for another address, by another issuer, or not
    /// signed.
    Wrong,
}

/// A request that brought no receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was asked.
    pub ask: Ask,
    /// Why it brought none.
    pub fault: NoReceipt,
    /// When.
    pub at: Instant,
}

/// What the machine decides by.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its network.
    pub network: &'a Network,
    /// What it knows of relays.
    pub book: &'a Book,
    /// Its own addresses.
    pub addresses: &'a [SocketAddr],
    /// The calendar.
    pub wall: WallTime,
}

impl<'a> Known<'a> {
    /// Counts those of the view who vouch for this address.
    fn vouchers(self, address: SocketAddr) -> Vouchers<'a> {
        let view = self.book.view();
        view.vouchers(self.network, address, self.wall)
    }

    /// How many receipts each address is to have, if they can be had.
    fn wanted(&self) -> usize {
        RECEIPTS_AN_ADDRESS_MAX.min(RECEIPTS_MAX / self.addresses.len().max(1))
    }

    fn age_of(&self, receipt: &Receipt) -> Duration {
        self.wall.since(receipt.at)
    }

    /// Whether a descriptor may show this receipt: what was given while clocks were ahead, nobody believes
    /// (§8.1(4)).
    fn is_of_use(&self, receipt: &Receipt) -> bool {
        let is_of_future = receipt.at > self.wall + CLOCK_SKEW_MAX;
        self.age_of(receipt) < self.network.params.receipt_life && !is_of_future
    }

    /// Whether this is a seed that is preferred to other issuers: while this node's view is younger
    /// than issuers must be, it can't tell which of the others count elsewhere.
    fn is_preferred_seed(&self, issuer: &RelayId) -> bool {
        self.is_young() && self.network.seeds.iter().any(|seed| seed.id == *issuer)
    }

    fn is_young(&self) -> bool {
        let age = self.network.params.receipt_issuer_age;
        self.book.view().is_younger_than(age, self.wall)
    }
}

/// A relay's receipts, and its requests for more.
#[derive(Debug)]
pub struct Asker {
    own: RelayId,
    /// Each issuer's last for each address.
    receipts: BTreeMap<Ask, Receipt>,
    /// The latest last.
    attempts: VecDeque<Attempt>,
    asking: Option<Ask>,
    /// Each own address has pauses of its own: one that nobody can reach doesn't hold up another.
    schedules: BTreeMap<SocketAddr, Schedule>,
    /// When the first address is due. `None` in a network without receipts.
    look_at: Option<Instant>,
}

/// When an address is asked for.
#[derive(Debug)]
struct Schedule {
    /// The next time.
    at: Instant,
    /// How long it waits after the next refusal.
    pause: Duration,
}

impl Schedule {
    const fn new(now: Instant) -> Self {
        Self {
            at: now,
            pause: RECEIPT_ASK_PAUSE,
        }
    }
}

impl Asker {
    /// A relay that holds these receipts.
    pub fn new(own: RelayId, receipts: Vec<Receipt>, now: Instant) -> Self {
        let by_ask = |receipt: Receipt| (ask_of(&receipt), receipt);
        Self {
            own,
            receipts: receipts.into_iter().map(by_ask).collect(),
            attempts: VecDeque::new(),
            asking: None,
            schedules: BTreeMap::new(),
            look_at: Some(now),
        }
    }

    /// All receipts held, to be stored.
    pub fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.values()
    }

    /// Requests that brought none, the latest last.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter()
    }

    /// The receipts of this address that a descriptor issued now shows: of distinct groups, from
    /// issuers that may vouch. As many of the oldest as vouch for an address, since they say for how
    /// long it is there; then the newest. While ages are not known, seeds' first, then the newest.
    /// Where those of the view are too few, from last known relays that vouch, too (§8.2(4)).
    pub fn receipts_for(&self, known: Known<'_>, address: SocketAddr) -> Vec<Receipt> {
        let newest = self.newest_first(known, address);
        let oldest_count = if known.is_young() {
            0
        } else {
            known.network.params.receipts_min
        };
        let oldest = newest.iter().rev().take(oldest_count);
        let mixed: Vec<&Receipt> = oldest.chain(&newest).copied().collect();
        // Receipts of one group stand in each other's way.
        let [mixed, newest] = [mixed, newest].map(|it| that_count(it, known, address));
        let shown = if mixed.len() < newest.len() {
            newest
        } else {
            mixed
        };
        shown.into_iter().cloned().collect()
    }

    /// The receipts of this address that a descriptor may show: seeds' first while ages are not known,
    /// then the newest.
    fn newest_first(&self, known: Known<'_>, address: SocketAddr) -> Vec<&Receipt> {
        let all = self.receipts.values();
        let of_address = all.filter(|it| it.address == address && known.is_of_use(it));
        let mut fitting: Vec<&Receipt> = of_address.collect();
        let is_preferred = |it: &Receipt| known.is_preferred_seed(&it.issuer);
        fitting.sort_by_key(|it| core::cmp::Reverse((is_preferred(it), it.at)));
        fitting
    }

    /// Those of one's own addresses that enough relays vouch for.
    pub fn vouched(&self, known: Known<'_>) -> Vec<SocketAddr> {
        let has_enough = |address: &SocketAddr| {
            self.receipts_for(known, *address).len() >= known.network.params.receipts_min
        };
        let addresses = known.addresses.iter().copied();
        addresses.filter(has_enough).collect()
    }

    /// The own addresses may have changed: it looks at once what they lack.
    pub const fn handle_addresses(&mut self, now: Instant) {
        self.look_at = Some(now);
    }

    /// Asks for what is missing or old, if it is time: for the address that has waited longest.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        known: Known<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Option<Ask> {
        let is_due = self.look_at.is_some_and(|at| at <= now);
        if !is_due || self.asking.is_some() {
            return None;
        }
        if known.network.params.receipts_min == 0 {
            self.look_at = None;
            return None;
        }
        for address in self.due(now, known.addresses) {
            self.asking = self.pick(now, known, address, rng);
            if self.asking.is_some() {
                break;
            }
            let is_vouched = self.vouched(known).contains(&address);
            let pause = if is_vouched {
                RECEIPT_IDLE_PAUSE
            } else {
                RECEIPT_ASK_PAUSE
            };
            self.schedules
                .entry(address)
                .or_insert(Schedule::new(now))
                .at = now + pause;
        }
        self.set_look(now);
        self.asking
    }

    /// The addresses that are due, the longest waiting first.
    fn due(&mut self, now: Instant, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        self.schedules
            .retain(|address, _| addresses.contains(address));
        let all = addresses.iter().map(|&address| {
            let schedule = self.schedules.entry(address).or_insert(Schedule::new(now));
            (schedule.at, address)
        });
        let mut due: Vec<_> = all.filter(|(at, _)| *at <= now).collect();
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, address)| address).collect()
    }

    /// With nothing due it looks again in a while: addresses may change.
    fn set_look(&mut self, now: Instant) {
        let due = self.schedules.values().map(|schedule| schedule.at);
        let idle = now + RECEIPT_IDLE_PAUSE;
        self.look_at = Some(due.fold(idle, Instant::min));
    }

    /// A request is over. Whether its receipt is new, and to be stored.
    pub fn handle_outcome(
        &mut self,
        now: Instant,
        ask: Ask,
        outcome: Result<Receipt, NoReceipt>,
    ) -> bool {
        if self.asking == Some(ask) {
            self.asking = None;
        }
        self.attempts.retain(|attempt| attempt.ask != ask);
        let schedule = self
            .schedules
            .entry(ask.address)
            .or_insert(Schedule::new(now));
        let is_new = match outcome {
            Ok(receipt) => {
                *schedule = Schedule::new(now);
                self.receipts.insert(ask, receipt.clone()) != Some(receipt)
            }
            Err(fault) => {
                schedule.at = now + schedule.pause;
                schedule.pause = (schedule.pause * 2).min(RECEIPT_ASK_PAUSE_MAX);
                let at = now;
                self.attempts.push_back(Attempt { ask, fault, at });
                if self.attempts.len() > ATTEMPTS_MAX {
                    self.attempts.pop_front();
                }
                false
            }
        };
        self.set_look(now);
        is_new
    }

    /// A receipt came whose date is off by our clock, which may be wrong: one of the future counts once
    /// the clock says so. It takes the place of none that is of use. Whether it is kept.
    pub fn keep_misdated(&mut self, known: Known<'_>, receipt: Receipt) -> bool {
        let ask = ask_of(&receipt);
        let useless = self.receipts.values().filter(|it| !known.is_of_use(it));
        let has_room = useless.count() < RECEIPTS_MAX;
        let held = self.receipts.get(&ask);
        let is_kept = has_room && !held.is_some_and(|it| known.is_of_use(it));
        if is_kept {
            self.receipts.insert(ask, receipt);
        }
        is_kept
    }

    /// Forgets receipts that are too old for any descriptor by the time that is confirmed, and those of
    /// addresses that are no longer one's own. Whether there were any.
    pub fn expire(&mut self, known: Known<'_>, confirmed: WallTime) -> bool {
        let before = self.receipts.len();
        self.receipts.retain(|ask, receipt| {
            confirmed.since(receipt.at) < known.network.params.receipt_life
                && known.addresses.contains(&ask.address)
        });
        self.receipts.len() < before
    }

    /// When [`Self::handle_timeout`] is due.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.asking {
            Some(_) => None,
            None => self.look_at,
        }
    }

    /// Somebody to ask for a receipt of this address, if it needs one (§8.7(5)): while ages are not
    /// known, seeds before others.
    fn pick(
        &self,
        now: Instant,
        known: Known<'_>,
        address: SocketAddr,
        rng: &mut dyn CryptoRng,
    ) -> Option<Ask> {
        let half_life = known.network.params.receipt_life / 2;
        let mut young = self.newest_first(known, address);
        young.retain(|it| known.age_of(it) < half_life);
        let newest = young.iter().map(|it| known.age_of(it)).min();
        let spacing = half_life / u32::try_from(known.wanted()).unwrap_or(1).max(1);
        let is_one_due = newest.is_some_and(|age| age >= spacing);
        let from_seeds = if known.is_young() {
            known.network.params.receipts_min
        } else {
            0
        };
        let needs = [(Need::Seed, from_seeds), (Need::Any, known.wanted())];
        needs.into_iter().find_map(|(need, wanted)| {
            let mut vouchers = known.vouchers(address);
            let fits = |it: &&Receipt| need.is_met_by(known, &it.issuer);
            let counted = young.iter().copied().filter(fits);
            let counted = counted.filter(|it| vouchers.count(&it.issuer)).count();
            let counts = |it: &RelayId| need.is_met_by(known, it) && vouchers.would_count(it);
            let is_next = is_one_due && matches!(need, Need::Any);
            (counted < wanted || is_next)
                .then(|| self.draw(now, known, address, counts, rng))
                .flatten()
        })
    }

    /// A relay of the address's own family whose receipt would count, and that did not refuse one of
    /// late. No address group is drawn beyond its cap: whoever has many could leave with all of them,
    /// and take the receipts of many relays along.
    fn draw(
        &self,
        now: Instant,
        known: Known<'_>,
        address: SocketAddr,
        counts: impl Fn(&RelayId) -> bool,
        rng: &mut dyn CryptoRng,
    ) -> Option<Ask> {
        let is_resting = |issuer: RelayId| {
            let ask = Ask { issuer, address };
            let mut attempts = self.attempts.iter();
            attempts.any(|it| it.ask == ask && now < it.at + RECEIPT_ASK_PAUSE_MAX)
        };
        let family = Family::from(address);
        let has_family = |it: &VerifiedDescriptor| {
            let mut addresses = it.addresses.iter();
            addresses.any(|&it| Family::from(it) == family)
        };
        let is_fit = |it: &&VerifiedDescriptor| {
            it.relay != self.own && has_family(it) && !is_resting(it.relay) && counts(&it.relay)
        };
        let fit = known.book.view().iter().filter(is_fit);
        let candidates = Candidates::new(fit.map(|it| &**it), known.network);
        let issuer = choice::draw(&candidates, Roles::NONE, &Exclude::nothing(), rng)?;
        Some(Ask { issuer, address })
    }
}

/// Whom an address lacks receipts from.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// Seeds, while this view is too young to know who else counts.
    Seed,
    Any,
}

impl Need {
    fn is_met_by(self, known: Known<'_>, issuer: &RelayId) -> bool {
        match self {
            Self::Seed => known.is_preferred_seed(issuer),
            Self::Any => true,
        }
    }
}

/// The first of these receipts that count together, as many as are shown of an address.
fn that_count<'a>(
    in_turn: Vec<&'a Receipt>,
    known: Known<'_>,
    address: SocketAddr,
) -> Vec<&'a Receipt> {
    let mut vouchers = known.vouchers(address);
    let (mut counted, rest): (Vec<&Receipt>, Vec<&Receipt>) = in_turn
        .into_iter()
        .partition(|it| vouchers.count(&it.issuer));
    if counted.len() < known.network.params.receipts_min {
        let issuers = rest.iter().map(|it| it.issuer);
        let former = known
            .book
            .former_issuers(known.network, known.wall, issuers);
        let mut vouchers = vouchers.with(Some(&former));
        counted.extend(rest.into_iter().filter(|it| vouchers.count(&it.issuer)));
    }
    counted.truncate(known.wanted());
    counted
}

const fn ask_of(receipt: &Receipt) -> Ask {
    Ask {
        issuer: receipt.issuer,
        address: receipt.address,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;
    use crate::directory::testing::{self, WALL};

    const HOUR: Duration = Duration::from_secs(3600);
    const LIFE_HALF: Duration = Duration::from_secs(84 * 3600);

    /// Relay 1, which knows relays 10 to 10 + `others`, and asks until nobody is left to ask.
    struct Bench {
        network: Network,
        book: Book,
        addresses: Vec<SocketAddr>,
        asker: Asker,
        now: Instant,
        wall: WallTime,
        rng: ChaCha20Rng,
    }

    impl Bench {
        fn new(others: u32) -> Self {
            let mut network = testing::public_network();
            network.params.receipts_min = 3;
            let mut book = Book::new();
            for number in 10..10 + others {
                book.view_mut()
                    .insert(testing::relay(number).verified(), WALL);
            }
            let relay = testing::relay(1).descriptor;
            let now = Instant::default();
            Self {
                network,
                book,
                addresses: relay.addresses,
                asker: Asker::new(relay.relay, Vec::new(), now),
                now,
                wall: WALL,
                rng: ChaCha20Rng::seed_from_u64(1),
            }
        }

        fn known(&self) -> Known<'_> {
            Known {
                network: &self.network,
                book: &self.book,
                addresses: &self.addresses,
                wall: self.wall,
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now = self.now + time;
            self.wall = self.wall + time;
        }

        fn next(&mut self) -> Option<Ask> {
            let known = Known {
                network: &self.network,
                book: &self.book,
                addresses: &self.addresses,
                wall: self.wall,
            };
            self.asker.handle_timeout(self.now, known, &mut self.rng)
        }

        fn expire(&mut self) -> bool {
            self.expire_by(self.wall)
        }

        fn expire_by(&mut self, confirmed: WallTime) -> bool {
            let known = Known {
                network: &self.network,
                book: &self.book,
                addresses: &self.addresses,
                wall: self.wall,
            };
            self.asker.expire(known, confirmed)
        }

        fn keep_misdated(&mut self, receipt: Receipt) -> bool {
            let known = Known {
                network: &self.network,
                book: &self.book,
                addresses: &self.addresses,
                wall: self.wall,
            };
            self.asker.keep_misdated(known, receipt)
        }

        fn receipt(&self, ask: Ask) -> Receipt {
            let number = (10..100).find(|&it| testing::relay(it).descriptor.relay == ask.issuer);
            let key = testing::relay(number.unwrap()).key;
            let relay = testing::relay(1).descriptor.relay;
            Receipt::sign(&key, &self.network.id, &relay, ask.address, self.wall)
        }

        /// Asks until nothing is asked at once; everybody issues. How many did.
        fn collect(&mut self) -> usize {
            let mut issued = 0;
            while let Some(ask) = self.next() {
                let receipt = self.receipt(ask);
                let outcome = Ok(receipt);
                assert!(self.asker.handle_outcome(self.now, ask, outcome));
                issued += 1;
            }
            issued
        }
    }

    #[test] // §8.7(5)
    fn as_many_relays_are_asked_as_receipts_are_shown() {
        let mut bench = Bench::new(9);
        assert!(bench.asker.vouched(bench.known()).is_empty());
        assert_eq!(bench.collect(), RECEIPTS_AN_ADDRESS_MAX);
        assert_eq!(bench.asker.vouched(bench.known()), bench.addresses);
        let shown = bench.asker.receipts_for(bench.known(), bench.addresses[0]);
        assert_eq!(shown.len(), RECEIPTS_AN_ADDRESS_MAX);
    }

    #[test] // §8.7(5)
    fn receipts_are_renewed_one_by_one_while_others_are_young() {
        let mut bench = Bench::new(30);
        bench.collect();
        let mut issued = 0;
        for _ in 0..400 {
            bench.pass(HOUR);
            let of_hour = bench.collect();
            assert!(of_hour <= 1);
            issued += of_hour;
        }
        assert!((22..=26).contains(&issued), "one in 17 hours: {issued}");
    }

    #[test] // §8.7(7)
    fn the_oldest_receipts_are_shown_with_the_newest() {
        let mut bench = Bench::new(30);
        for _ in 0..400 {
            bench.collect();
            bench.pass(HOUR);
        }
        assert!(bench.expire());
        let ages = |bench: &Bench| -> Vec<u64> {
            let shown = bench.asker.receipts_for(bench.known(), bench.addresses[0]);
            let ages = shown.iter().map(|it| bench.wall.since(it.at));
            ages.map(|age| age.as_secs() / 3600).collect()
        };
        let shown = ages(&bench);
        assert!(
            shown.len() == 5 && shown[..3].iter().all(|&age| age > 84),
            "{shown:?}"
        );
        assert!(shown[3] < 18, "{shown:?}");
        bench.book = Book::new();
        for number in 10..40 {
            let relay = testing::relay(number).verified();
            bench.book.view_mut().insert(relay, bench.wall);
        }
        let shown = ages(&bench);
        assert!(
            shown.iter().all(|&age| age < 90),
            "ages are not known: {shown:?}"
        );
    }

    #[test] // §8.7(5)
    fn receipts_are_renewed_at_half_their_life() {
        let mut bench = Bench::new(5); // nobody else is there who could
        bench.collect();
        bench.pass(LIFE_HALF - HOUR);
        assert_eq!(bench.next(), None);
        bench.pass(HOUR * 2);
        assert_eq!(bench.collect(), RECEIPTS_AN_ADDRESS_MAX);
        assert!(!bench.expire());
        bench.pass(LIFE_HALF * 2);
        assert!(bench.expire());
        assert_eq!(bench.asker.receipts().count(), 0);
    }

    #[test] // §8.7(6)
    fn what_was_issued_while_all_clocks_were_ahead_is_neither_shown_nor_counted() {
        let mut bench = Bench::new(10);
        bench.collect();
        let dates = |bench: &Bench| {
            let shown = bench.asker.receipts_for(bench.known(), bench.addresses[0]);
            shown.iter().map(|it| it.at).collect::<Vec<_>>()
        };
        let before = dates(&bench);
        // All clocks are a year ahead for a moment: others vouch again, and the old ones are kept.
        bench.pass(HOUR);
        bench.wall = WALL + LIFE_HALF * 100;
        assert_eq!(bench.collect(), RECEIPTS_AN_ADDRESS_MAX);
        assert!(!bench.expire_by(WALL), "a jump deletes nothing");
        bench.pass(HOUR);
        bench.wall = WALL + HOUR;
        let shown = dates(&bench);
        assert!(shown.iter().all(|&at| at <= WALL), "{shown:?}");
        assert_eq!(
            bench.collect() + shown.len(),
            before.len(),
            "those that are gone"
        );
        assert!(dates(&bench).iter().all(|&at| at <= bench.wall));
    }

    #[test] // §8.7(6)
    fn what_came_while_the_own_clock_was_wrong_counts_once_it_is_right() {
        for behind in [false, true] {
            let mut bench = Bench::new(4);
            let right = bench.wall;
            let wrong = if behind {
                earlier(right, LIFE_HALF * 3)
            } else {
                right + LIFE_HALF * 3
            };
            for number in 10..14 {
                let issuer = testing::relay(number).descriptor.relay;
                let address = bench.addresses[0];
                bench.wall = right;
                let receipt = bench.receipt(Ask { issuer, address });
                bench.wall = wrong;
                assert!(bench.keep_misdated(receipt));
            }
            assert!(bench.asker.vouched(bench.known()).is_empty());
            bench.wall = right;
            assert_eq!(bench.asker.vouched(bench.known()), bench.addresses);
            // One of use makes no room for one that is of none.
            let issuer = testing::relay(10).descriptor.relay;
            let address = bench.addresses[0];
            bench.wall = right + LIFE_HALF * 9;
            let of_future = bench.receipt(Ask { issuer, address });
            bench.wall = right;
            assert!(!bench.keep_misdated(of_future));
        }
    }

    fn earlier(at: WallTime, by: Duration) -> WallTime {
        WallTime(at.as_secs() - by.as_secs())
    }

    #[test] // §8.7(5)
    fn who_refused_rests_and_each_pause_is_longer() {
        let mut bench = Bench::new(3);
        let mut asked = Vec::new();
        let mut pauses = Vec::new();
        for _ in 0..3 {
            let ask = bench.next().unwrap();
            let outcome = Err(NoReceipt::Refused(ReceiptRefusal::Unreachable));
            assert!(!bench.asker.handle_outcome(bench.now, ask, outcome));
            asked.push(ask.issuer);
            assert_eq!(bench.next(), None);
            let due = bench.asker.poll_timeout().unwrap();
            pauses.push(due.since(bench.now).as_secs());
            bench.now = due;
        }
        asked.sort();
        asked.dedup();
        assert_eq!((asked.len(), &pauses[..]), (3, &[2, 4, 8][..]));
        assert_eq!(bench.next(), None, "all rest");
        assert_eq!(bench.asker.attempts().count(), 3);
        bench.pass(RECEIPT_ASK_PAUSE_MAX);
        assert!(bench.next().is_some());
    }

    #[test] // §8.7(5)
    fn an_address_is_asked_for_over_its_own_family() {
        let mut bench = Bench::new(9);
        bench.addresses = vec!["[2a00::1]:9000".parse().unwrap()];
        assert_eq!(bench.next(), None, "nobody has a v6 address");
        let both = testing::relay(30).with(|it| it.addresses.push("[2a01::1]:1".parse().unwrap()));
        bench.book.view_mut().insert(both.verified(), WALL);
        bench.pass(RECEIPT_ASK_PAUSE);
        assert_eq!(bench.next().unwrap().issuer, both.descriptor.relay);
    }

    #[test] // §8.7(5)
    fn an_address_that_nobody_reaches_does_not_hold_up_another() {
        let mut bench = Bench::new(0);
        let (closed, open) = ("[2a00::1]:9000", "20.0.0.1:9000");
        bench.addresses = [closed, open].map(|it| it.parse().unwrap()).to_vec();
        for number in 10..40 {
            let v6 = format!("[2a01:{number}::1]:1").parse().unwrap();
            let both = testing::relay(number).with(|it| it.addresses.push(v6));
            bench.book.view_mut().insert(both.verified(), WALL);
        }
        let open = bench.addresses[1];
        let mut asked = 0;
        while bench.asker.vouched(bench.known()) != [open] {
            if let Some(ask) = bench.next() {
                let outcome = if ask.address == open {
                    Ok(bench.receipt(ask))
                } else {
                    Err(NoReceipt::Refused(ReceiptRefusal::Unreachable))
                };
                bench.asker.handle_outcome(bench.now, ask, outcome);
                asked += 1;
                assert!(asked <= 4, "one refusal, then three receipts");
            } else {
                let due = bench.asker.poll_timeout().unwrap();
                bench.pass(due.since(bench.now));
            }
        }
    }

    #[test] // §8.7(5)
    fn the_pauses_of_one_address_are_not_anothers() {
        let mut bench = Bench::new(9);
        let (first, second) = (bench.addresses[0], "20.0.0.1:9001".parse().unwrap());
        bench.addresses.push(second);
        let mut asked = Vec::new();
        let start = bench.now;
        while asked.len() < 6 {
            if let Some(ask) = bench.next() {
                let outcome = Err(NoReceipt::Refused(ReceiptRefusal::Unreachable));
                bench.asker.handle_outcome(bench.now, ask, outcome);
                let at = bench.now.since(start).as_secs();
                asked.push((at, ask.address));
            } else {
                let due = bench.asker.poll_timeout().unwrap();
                bench.pass(due.since(bench.now));
            }
        }
        let both = |at| [(at, first), (at, second)];
        assert_eq!(asked, [0, 2, 6].map(both).concat());
    }

    #[test] // §8.7(7), §8.2(4)
    fn after_an_absence_of_all_receipts_of_the_relays_of_before_are_shown() {
        let mut bench = Bench::new(9);
        bench.collect();
        bench.pass(LIFE_HALF - Duration::from_secs(3600));
        bench.book.expire(&bench.network, bench.wall, WALL);
        let shown = |bench: &Bench| {
            let address = bench.addresses[0];
            bench.asker.receipts_for(bench.known(), address).len()
        };
        assert!(bench.book.view().is_empty());
        assert_eq!(shown(&bench), RECEIPTS_AN_ADDRESS_MAX);
        assert_eq!(bench.asker.vouched(bench.known()), bench.addresses);
    }

    #[test] // §8.7(7)
    fn where_enough_of_the_view_vouch_no_relay_of_before_is_shown() {
        let mut bench = Bench::new(9);
        bench.collect();
        bench.pass(Duration::from_secs(24 * 3600));
        let shown = bench.asker.receipts_for(bench.known(), bench.addresses[0]);
        let renewed = shown.iter().take(3).map(|it| it.issuer);
        let renewed: Vec<RelayId> = renewed.collect();
        for number in 10..19 {
            let relay = testing::relay(number).with(|it| it.issued_at = bench.wall);
            if renewed.contains(&relay.descriptor.relay) {
                let descriptor = relay.unverified().verify(&bench.network, bench.wall);
                bench
                    .book
                    .view_mut()
                    .insert(descriptor.unwrap(), bench.wall);
            }
        }
        bench.pass(Duration::from_secs(30 * 3600));
        bench.book.expire(&bench.network, bench.wall, WALL);
        assert_eq!(bench.book.view().len(), 3);
        let shown = bench.asker.receipts_for(bench.known(), bench.addresses[0]);
        let issuers: Vec<RelayId> = shown.iter().map(|it| it.issuer).collect();
        assert_eq!(issuers.len(), 3);
        assert!(issuers.iter().all(|it| renewed.contains(it)));
    }

    #[test] // §8.7(5)
    fn a_network_without_receipts_asks_nobody() {
        let mut bench = Bench::new(9);
        bench.network.params.receipts_min = 0;
        assert_eq!(bench.next(), None);
        assert_eq!(bench.asker.poll_timeout(), None);
        assert_eq!(bench.asker.vouched(bench.known()), bench.addresses);
    }

    #[test] // §8.7(5)
    fn while_ages_are_not_known_seeds_are_asked_first_and_until_enough_vouch() {
        let mut bench = Bench::new(20);
        let seeds: Vec<RelayId> = (20..24)
            .map(|it| testing::relay(it).descriptor.relay)
            .collect();
        bench.network.seeds = seeds
            .iter()
            .map(|&id| crate::ids::Peer {
                id,
                host_port: "seed.example:1".to_owned(),
            })
            .collect();
        // All seeds refuse at first: others vouch meanwhile.
        for _ in 0..4 {
            let ask = bench.next().unwrap();
            assert!(seeds.contains(&ask.issuer));
            let busy = Err(NoReceipt::Refused(ReceiptRefusal::Busy));
            bench.asker.handle_outcome(bench.now, ask, busy);
            bench.now = bench.asker.poll_timeout().unwrap();
        }
        assert_eq!(bench.collect(), RECEIPTS_AN_ADDRESS_MAX);
        bench.pass(RECEIPT_ASK_PAUSE_MAX * 2);
        assert_eq!(bench.collect(), 3, "as many seeds as must vouch");
        let shown = bench.asker.receipts_for(bench.known(), bench.addresses[0]);
        let by_seeds = shown.iter().filter(|it| seeds.contains(&it.issuer));
        assert_eq!(by_seeds.count(), 3);
        // A view that is old enough knows ages.
        bench
            .book
            .view_mut()
            .begin(WallTime(WALL.as_secs() - 8 * 24 * 3600));
        bench.asker = Asker::new(RelayId([0; 32]), Vec::new(), bench.now);
        bench.network.params.seeds_vouch_until = 0;
        let asked: Vec<RelayId> = core::iter::from_fn(|| {
            let ask = bench.next()?;
            let receipt = bench.receipt(ask);
            bench.asker.handle_outcome(bench.now, ask, Ok(receipt));
            Some(ask.issuer)
        })
        .collect();
        assert!(asked.len() == 5 && !asked[..3].iter().all(|it| seeds.contains(it)));
    }
}
