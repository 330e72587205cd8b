//! A client's knowledge of relays and of time: the book, the relays drawn from it, and how far to
//! believe the calendar (docs/protocol.md §1.6, §8.2).

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::CryptoRng;
use umbel_proto::directory::choice::Candidates;
use umbel_proto::directory::guard_age;
use umbel_proto::directory::{Listing, NotLearned, Source, Unverified};
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::CLOCK_CONFIRMED_BY_ONE_MAX;
use umbel_proto::path::are_enough;
use umbel_proto::time::{Duration, Moment, WallTime};

use super::context::Shared;
use super::{HEARTBEAT, Notice, StoreOp};

/// How often the state of the clock is stored.
pub(super) const CLOCK_STORE_EVERY: Duration = Duration::from_secs(300);
/// Most descriptors that wait for those who vouch for them; one has 1920 bytes at most. Others come
/// again with a later reconciliation.
const UNVOUCHED_MAX: usize = 4096;

/// Descriptors that a source passed on before those of the relays that vouch for them.
#[derive(Default)]
pub(super) struct Unvouched {
    source: Option<RelayId>,
    descriptors: Vec<Unverified>,
    /// The last source that counts, if it passed on more such relays than the view has.
    full_of: Option<Arc<Source>>,
}

/// Who passes descriptors on.
#[derive(Debug)]
pub(super) struct Teller {
    pub(super) source: Arc<Source>,
    /// Whether it counts as one of two that list a relay (§8.2(3)).
    pub(super) counts: bool,
}

impl Teller {
    fn lister(&self) -> Option<&Source> {
        Some(&*self.source).filter(|_| self.counts)
    }
}

/// What a source passed on has a wrong signature: it broke a rule (§8.3(6)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forged;

impl Unvouched {
    fn clear(&mut self) {
        self.source = None;
        self.descriptors.clear();
    }

    fn keep(&mut self, source: &RelayId, unverified: Unverified) {
        if self.source != Some(*source) {
            self.source = Some(*source);
            self.descriptors.clear();
        }
        if self.descriptors.len() < UNVOUCHED_MAX {
            self.descriptors.push(unverified);
        }
    }
}

impl Shared {
    /// Takes a descriptor that this source passed on into the book, and stores what is news. Whether
    /// it was.
    ///
    /// # Errors
    /// [`Forged`].
    pub(super) fn learn(
        &mut self,
        wall: WallTime,
        teller: &Teller,
        unverified: Unverified,
        rng: &mut dyn CryptoRng,
    ) -> Result<bool, Forged> {
        let descriptor = unverified.clone();
        let heard = self
            .book
            .hear(&self.network, wall, teller.lister(), descriptor, rng);
        self.store_book();
        match heard {
            Ok(learned) => Ok(learned.is_news()),
            Err(NotLearned::Unvouched) => {
                self.unvouched.keep(&teller.source.relay, unverified);
                Ok(false)
            }
            Err(refusal) if refusal.is_forged() => Err(Forged),
            Err(_) => Ok(false),
        }
    }

    /// A reconciliation with this source has ended: takes what came before those who vouch for it
    /// (§8.3(7)). Returns the relays of which that was news.
    ///
    /// # Errors
    /// [`Forged`].
    pub(super) fn learn_unvouched(
        &mut self,
        wall: WallTime,
        teller: &Teller,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<RelayId>, Forged> {
        let mut news = Vec::new();
        if self.unvouched.source != Some(teller.source.relay) {
            // They came from another source, whose reconciliation has not ended.
            self.unvouched.clear();
            self.look_whether_locked_out(wall, teller)?;
            return Ok(news);
        }
        loop {
            let news_before = news.len();
            // Those that are still not vouched for come back.
            for unverified in core::mem::take(&mut self.unvouched.descriptors) {
                let relay = unverified.relay();
                if self.learn(wall, teller, unverified, rng)? {
                    news.push(relay);
                }
            }
            if news.len() == news_before {
                self.look_whether_locked_out(wall, teller)?;
                self.unvouched.clear();
                return Ok(news);
            }
        }
    }

    /// Who was away while others joined may know too few of those who vouch by now: all that it knew is
    /// back, and most relays can't come in. If two sources that are apart show so, and it has no path to
    /// lose, its setup is still to come (§8.2(3)).
    fn look_whether_locked_out(&mut self, wall: WallTime, teller: &Teller) -> Result<(), Forged> {
        if !teller.counts {
            return Ok(());
        }
        let view = self.book.view();
        let other = self.unvouched.full_of.take();
        if view.is_setting_up(wall) {
            return Ok(());
        }
        // Not whether it is used: while sources are compared no view is.
        let candidates = Candidates::selectable(view, &self.network, wall);
        if are_enough(&self.network, view, &candidates) || view.doubted_count() * 2 > view.len() {
            return Ok(());
        }
        let mut refused = BTreeSet::new();
        for unverified in core::mem::take(&mut self.unvouched.descriptors) {
            let relay = unverified.relay();
            match unverified.verify(&self.network, wall) {
                Ok(_) => drop(refused.insert(relay)),
                // One wrong signature costs its source the link.
                Err(fault) if NotLearned::Fault(fault).is_forged() => return Err(Forged),
                Err(_) => {}
            }
        }
        if refused.len() <= view.len() {
            return Ok(());
        }
        if other.is_some_and(|other| other.is_apart_from(&teller.source)) {
            self.book.begin_anew();
            self.store_book();
        } else {
            self.unvouched.full_of = Some(Arc::clone(&teller.source));
        }
        Ok(())
    }

    /// A reconciliation showed which relays its source lists.
    pub(super) fn handle_listing(&mut self, teller: &Teller, listing: &Listing) {
        if let Some(source) = teller.lister() {
            self.book.handle_listing(source, listing);
        }
        self.is_view_current = true;
        self.store_book();
    }

    /// Takes the descriptor that a linked relay showed of itself, as [`Self::learn`] does. How to
    /// begin a circuit there, if it is good.
    pub(super) fn learn_shown(
        &mut self,
        wall: WallTime,
        unverified: Unverified,
        rng: &mut dyn CryptoRng,
    ) -> Option<HopTarget> {
        let shown = self.book.learn_shown(&self.network, wall, unverified, rng);
        self.store_book();
        shown.ok().map(|shown| shown.descriptor.hop_target())
    }

    /// Looks how far the calendar has moved. Of the linked relays, `agreeing` have clocks that agree
    /// with ours; returns whether that makes ours right, if anybody is linked: by one relay's word no
    /// long jump is.
    pub(super) fn look_at_clock(
        &mut self,
        moment: Moment,
        (agreeing, linked): (usize, usize),
    ) -> Option<bool> {
        if self.clock.look(moment.now, moment.wall).is_some() {
            // Other descriptors may be dead now.
            self.expires_at = moment.now;
            self.is_clock_jumped = true;
        }
        let is_right = (linked > 0).then_some(agreeing * 2 > linked);
        // Clients send their hour, which a lone relay may only echo: it does not count toward a
        // long jump.
        let is_short = self
            .clock
            .unconfirmed()
            .is_none_or(|jump| jump <= CLOCK_CONFIRMED_BY_ONE_MAX);
        let is_right = is_right.map(|is_right| is_right && (agreeing > 1 || is_short));
        if is_right == Some(true) && !self.clock.may_delete() {
            self.clock.confirm();
            self.clock_stored_at = moment.now;
            // After weeks away the setup begins anew.
            self.expires_at = moment.now;
        }
        if self.clock_stored_at <= moment.now {
            self.clock_stored_at = moment.now + CLOCK_STORE_EVERY;
            self.out.store(StoreOp::PutClock(self.clock.state()));
        }
        is_right
    }

    /// Takes dead descriptors out of the view, once a heartbeat; says whether it was time.
    pub(super) fn expire(&mut self, moment: Moment) -> bool {
        if self.expires_at > moment.now {
            return false;
        }
        self.expires_at = moment.now + HEARTBEAT;
        self.book
            .expire(&self.network, moment.wall, self.clock.confirmed());
        self.store_book();
        // Receipts may have expired, or relays have become old enough.
        self.candidates_of = None;
        true
    }

    fn store_book(&mut self) {
        while let Some(op) = self.book.poll_op() {
            self.out.store(StoreOp::Book(op));
        }
    }

    /// Sees which relays may be drawn, and whether circuits can be built; says whether they no
    /// longer can. A view that is being filled is not used before it `is_whole`: relays that are
    /// sent first would be drawn first.
    pub(super) fn look_at_view(&mut self, wall: WallTime, is_whole: bool) -> bool {
        let changes = self.book.changes();
        if self.candidates_of.replace(changes) != Some(changes) {
            let all = Candidates::selectable(self.book.view(), &self.network, wall);
            self.candidates = match self.own_relay {
                Some(own) => all.without(own), // §6.4(13)
                None => all,
            };
            let (view, confirmed) = (self.book.view(), self.clock.confirmed());
            self.guard_candidates =
                guard_age::old_enough(&self.candidates, view, &self.network, confirmed);
        }
        let was_ready = self.is_ready;
        self.is_ready = (was_ready || is_whole)
            && are_enough(&self.network, self.book.view(), &self.candidates);
        if self.is_ready && !was_ready {
            let relays = self.book.view().len();
            self.out.notices.push_back(Notice::Ready { relays });
        }
        let is_lost = was_ready && !self.is_ready;
        self.is_view_current &= !is_lost;
        is_lost
    }

    /// Everything waits for fresh descriptors.
    pub(super) fn tell_waiting(&mut self) {
        let last_known = self.book.last_known(&self.network).count();
        self.out
            .notices
            .push_back(Notice::WaitingForView { last_known });
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::ids::Peer;
    use umbel_proto::network::Network;
    use umbel_proto::time::Instant;

    use super::super::testing::{descriptor, id, surroundings};
    use super::*;

    const WALL: WallTime = WallTime(1_790_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn teller() -> Teller {
        let (relay, groups) = (id(1), BTreeSet::new());
        Teller {
            source: Arc::new(Source { relay, groups }),
            counts: true,
        }
    }

    #[test] // §6.4(13)
    fn the_users_own_relay_is_never_drawn() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut shared = surroundings(Network::local(), WALL);
        for number in 1..=5 {
            let shown = Unverified::decode(&descriptor(number)).unwrap();
            shared.learn(WALL, &teller(), shown, &mut rng).unwrap();
        }
        shared.own_relay = Some(id(3));
        shared.look_at_view(WALL, true);
        assert!(shared.book.view().get(&id(3)).is_some(), "it is known");
        let drawn: Vec<_> = shared
            .candidates
            .weights()
            .map(|(relay, _)| relay)
            .collect();
        assert_eq!(drawn.len(), 4);
        assert!(!drawn.contains(&id(3)));
    }

    #[test] // §6.4(17)
    fn guards_are_drawn_from_relays_that_were_there_for_long() {
        let hour = Duration::from_secs(3600);
        let mut network = Network::local();
        network.params.guard_age_min = hour;
        let mut shared = surroundings(network, WALL);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let later = WALL + hour * 2;
        for (numbers, wall) in [(1..21, WALL), (21..61, later)] {
            for number in numbers {
                let shown = Unverified::decode(&descriptor(number)).unwrap();
                shared.learn(wall, &teller(), shown, &mut rng).unwrap();
            }
        }
        let now = Instant::from_micros(0) + hour * 2;
        shared.look_at_clock(Moment { now, wall: later }, (2, 2));
        shared.look_at_view(later, true);
        assert_eq!(shared.candidates.len(), 60);
        let old: Vec<_> = shared.guard_candidates.weights().collect();
        assert_eq!(old.len(), 20);
        assert!((1..21).all(|number| old.iter().any(|(relay, _)| *relay == id(number))));
    }

    /// A client with two relays in its view, and what sources pass on that it takes from nobody.
    struct LockedOut {
        shared: Shared,
        rng: ChaCha20Rng,
    }

    impl LockedOut {
        fn new() -> Self {
            Self::knowing(2)
        }

        fn knowing(relays: u8) -> Self {
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let mut shared = surroundings(Network::local(), WALL);
            for number in 1..=relays {
                let known = Unverified::decode(&descriptor(number)).unwrap();
                shared.learn(WALL, &teller(), known, &mut rng).unwrap();
            }
            shared.network.params.receipts_min = 1;
            Self { shared, rng }
        }

        /// Whether the setup begins anew, once this source has passed on these, and nothing else.
        fn tell(&mut self, number: u8, relays: &[Vec<u8>]) -> Result<bool, Forged> {
            self.tell_as((number, number), true, relays)
        }

        /// The same of a source in this group, and that counts, or does not.
        fn tell_as(
            &mut self,
            (number, group): (u8, u8),
            counts: bool,
            relays: &[Vec<u8>],
        ) -> Result<bool, Forged> {
            let wall = WALL + Duration::from_secs(7200);
            let at = SocketAddr::from(([127, 0, 0, 1], 9000 + u16::from(group)));
            let groups = self.shared.network.groups_of(at).collect();
            let source = Arc::new(Source {
                relay: id(number),
                groups,
            });
            let teller = Teller { source, counts };
            for relay in relays {
                let refused = Unverified::decode(relay).unwrap();
                let learned = self.shared.learn(wall, &teller, refused, &mut self.rng);
                assert_eq!(learned, Ok(false));
            }
            self.shared
                .learn_unvouched(wall, &teller, &mut self.rng)
                .map(|_| self.shared.book.view().is_setting_up(wall))
        }
    }

    #[test] // §8.2(3)
    fn two_sources_show_a_client_that_it_is_locked_out() {
        let mut client = LockedOut::new();
        let three = [3, 4, 5].map(descriptor);
        assert_eq!(client.tell(1, &three), Ok(false));
        assert_eq!(client.tell(1, &three), Ok(false), "the same once more");
        let of_its_group = client.tell_as((2, 1), true, &three);
        assert_eq!(of_its_group, Ok(false), "of the same group");
        assert_eq!(
            client.tell_as((2, 2), false, &three),
            Ok(false),
            "elsewhere"
        );
        assert_eq!(client.tell(3, &three), Ok(true));
    }

    #[test] // §8.2(3)
    fn nothing_else_shows_a_client_that_it_is_locked_out() {
        let three = [3, 4, 5].map(descriptor);
        let mut unsigned = three.clone();
        *unsigned[2].last_mut().unwrap() ^= 1;
        let mut client = LockedOut::new();
        assert_eq!(client.tell(1, &three), Ok(false));
        assert_eq!(client.tell(2, &unsigned), Err(Forged));
        let between = |of_another: &[Vec<u8>]| {
            let mut client = LockedOut::new();
            assert_eq!(client.tell(1, &three), Ok(false));
            assert_eq!(client.tell(2, of_another), Ok(false));
            assert_eq!(client.tell(2, &three), Ok(false), "not one after the other");
            client.tell(1, &three)
        };
        assert_eq!(between(&[3, 4, 4].map(descriptor)), Ok(true), "as many");
        assert_eq!(between(&[]), Ok(true), "nothing");
        // The network file's seeds vouch for themselves: it has a path.
        let mut ready = LockedOut::knowing(5);
        let seeds = (1..=5).map(|number| Peer {
            id: id(number),
            host_port: "127.0.0.1:9000".to_owned(),
        });
        ready.shared.network.seeds = seeds.collect();
        let six = [6, 7, 8, 9, 10, 11].map(descriptor);
        for source in [1, 2] {
            assert_eq!(ready.tell(source, &six), Ok(false), "it has a path");
        }
        let mut lost = LockedOut::knowing(5);
        assert_eq!(lost.tell(1, &six), Ok(false));
        assert_eq!(lost.tell(2, &six), Ok(true), "of the same, without");
    }

    #[test] // §1.6(4), §10.5(1)
    fn one_relay_that_echoes_a_far_jump_makes_no_clock_right() {
        for (jump, clocks, is_right) in [
            (DAY, (1, 1), Some(true)),
            (DAY * 20, (1, 1), Some(false)),
            (DAY * 20, (2, 3), Some(true)),
            (DAY * 20, (1, 2), Some(false)),
            (DAY * 20, (0, 0), None),
        ] {
            let mut shared = surroundings(Network::local(), WALL);
            let now = Instant::from_micros(1);
            shared.look_at_clock(Moment { now, wall: WALL }, (1, 1));
            let wall = WALL + jump;
            let found = shared.look_at_clock(Moment { now, wall }, clocks);
            assert_eq!(found, is_right, "{jump:?}, {clocks:?}");
            assert_eq!(shared.clock.may_delete(), is_right == Some(true));
        }
    }
}
