//! Whom a client that has a view asks next, and what that shows of its guards (docs/protocol.md
//! §8.3(9), §8.3(9b)).
//!
//! A guard that is the only source decides what its client knows: what it withholds dies within two
//! days. So guards are asked in turn, and one reconciliation in three goes over a circuit to a relay
//! drawn at random, which does not know whom it answers. What a guard lacks for hours, though others
//! have it, counts against it, if these others are guards too: strangers could show descriptors that
//! they kept to themselves, to have guards replaced.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rand::{CryptoRng, RngExt};
use umbel_proto::directory::{NetView, Receipt};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    HIDDEN_MIN, HIDDEN_PERCENT, HIDDEN_SOURCES_MIN, ISSUERS_BARRED_MIN, NEWS_SPREAD_MAX,
    SYNC_FAR_IN, SYNC_FAR_PAUSE,
};
use umbel_proto::network::Group;
use umbel_proto::time::Instant;

use super::super::context::Context;

/// Who was asked when, and what turned out to be missing there.
#[derive(Default)]
pub(super) struct Sources {
    /// Whether the next is a relay drawn at random, once that is decided.
    is_far: Option<bool>,
    /// When it may be one again.
    far_from: Instant,
    /// In which order guards are asked for the first time since the start.
    order: BTreeMap<RelayId, u64>,
    /// When it was last begun to ask each primary guard.
    begun_at: BTreeMap<RelayId, Instant>,
    /// Who is asked now.
    source: Option<RelayId>,
    /// The primary guards that were asked to the end, and what that showed.
    turns: BTreeMap<RelayId, Turn>,
}

/// What a guard showed of its view when it was last asked to the end.
#[derive(Default)]
struct Turn {
    /// Relays of which it had nothing as new, and since when: in each of its turns since then.
    lacking: BTreeMap<RelayId, Instant>,
    /// Relays of which others have brought news after that: it may have them by now.
    unsure: BTreeSet<RelayId>,
}

impl Turn {
    /// What it has kept from this client for longer than news takes to be everywhere, unless a few
    /// issuers that it may have barred explain it (§8.8).
    fn hidden<'a>(&'a self, cx: &'a Context<'_>) -> impl Iterator<Item = &'a RelayId> {
        let is_hidden = |(relay, since): &(&RelayId, &Instant)| {
            **since + NEWS_SPREAD_MAX <= cx.now && cx.book.is_listed_twice(relay)
        };
        let hidden = self.lacking.iter().filter(is_hidden);
        let hidden: Vec<&RelayId> = hidden.map(|(relay, _)| relay).collect();
        let commonest = commonest_issuers(cx, &hidden);
        hidden
            .into_iter()
            .filter(move |relay| !depends_on(cx, relay, &commonest))
    }

    fn has(&self, relay: &RelayId) -> bool {
        !self.lacking.contains_key(relay) && !self.unsure.contains(relay)
    }
}

impl Sources {
    /// Whether a relay drawn at random is to be asked next. The same until [`Self::handle_begun`].
    pub(super) fn is_far(&mut self, cx: &mut Context<'_>) -> bool {
        let may_be = self.far_from <= cx.now;
        *self
            .is_far
            .get_or_insert_with(|| may_be && cx.rng.random_range(0..SYNC_FAR_IN) == 0)
    }

    /// A reconciliation with this relay begins: one drawn at random, or a peer.
    pub(super) fn handle_begun(&mut self, now: Instant, source: RelayId, is_far: bool) {
        self.is_far = None;
        if is_far {
            self.far_from = now + SYNC_FAR_PAUSE;
        }
        self.source = Some(source);
        self.begun_at.insert(source, now);
    }

    /// In which order to ask these primary guards: first those never asked, in an order that is drawn,
    /// so that a client that runs for seconds at a time hears all; then the one asked longest ago,
    /// however that ended.
    pub(super) fn in_turn(
        &mut self,
        primary: Vec<RelayId>,
        in_use: RelayId,
        rng: &mut dyn CryptoRng,
    ) -> Vec<RelayId> {
        self.begun_at
            .retain(|relay, _| primary.contains(relay) || *relay == in_use);
        self.turns.retain(|relay, _| primary.contains(relay));
        let mut guards = primary;
        if !guards.contains(&in_use) {
            guards.insert(0, in_use);
        }
        self.order.retain(|relay, _| guards.contains(relay));
        for relay in &guards {
            self.order.entry(*relay).or_insert_with(|| rng.next_u64());
        }
        guards.sort_by_key(|relay| (self.begun_at.get(relay), self.order.get(relay)));
        guards
    }

    /// The source had a descriptor of this relay that is news.
    pub(super) fn handle_news(&mut self, relay: RelayId) {
        for (guard, turn) in &mut self.turns {
            if Some(*guard) != self.source {
                turn.unsure.insert(relay);
            }
        }
    }

    /// The reconciliation ended in order, and showed that the source lacks these. Names guards that
    /// keep much from this client, by what several other primary guards in distinct address groups
    /// have.
    pub(super) fn handle_ended(
        &mut self,
        cx: &Context<'_>,
        primary: &[RelayId],
        lacking: BTreeSet<RelayId>,
    ) -> Vec<RelayId> {
        let Some(source) = self.source.take().filter(|it| primary.contains(it)) else {
            return Vec::new();
        };
        let before = self.turns.remove(&source).unwrap_or_default().lacking;
        let since = |relay| (relay, before.get(&relay).copied().unwrap_or(cx.now));
        let turn = Turn {
            lacking: lacking.into_iter().map(since).collect(),
            unsure: BTreeSet::new(),
        };
        self.turns.insert(source, turn);
        self.turns.retain(|guard, _| primary.contains(guard));
        let guards = self.turns.keys().copied();
        guards.filter(|&guard| self.is_hiding(cx, guard)).collect()
    }

    // §8.3(9b)
    fn is_hiding(&self, cx: &Context<'_>, guard: RelayId) -> bool {
        let Some(accused) = self.turns.get(&guard) else {
            return false;
        };
        let least = groups_least(cx);
        let has_much = |witness: &Turn| {
            let hidden = accused.hidden(cx).filter(|it| witness.has(it));
            group_count(cx, hidden) >= least
        };
        let mut found_by: Vec<RelayId> = Vec::new();
        for (&other, witness) in &self.turns {
            if has_much(witness) && found_by.iter().all(|&it| cx.known().are_apart(it, other)) {
                found_by.push(other);
            }
        }
        found_by.len() >= HIDDEN_SOURCES_MIN
    }

    /// Whether all primary guards keep many relays from this client, and the same: others have shown
    /// it these.
    pub(super) fn do_all_hide(&self, cx: &Context<'_>, primary: &[RelayId]) -> bool {
        let turns: Option<Vec<&Turn>> = primary.iter().map(|it| self.turns.get(it)).collect();
        turns.as_deref().is_some_and(|turns| {
            let [first, others @ ..] = turns else {
                return false;
            };
            let hidden: Vec<BTreeSet<&RelayId>> =
                others.iter().map(|it| it.hidden(cx).collect()).collect();
            let by_all = |relay: &&RelayId| hidden.iter().all(|it| it.contains(relay));
            group_count(cx, first.hidden(cx).filter(by_all)) >= groups_least(cx)
        })
    }
}

/// The issuers of most receipts of these relays, as many as a relay bars at once without more ado.
fn commonest_issuers(cx: &Context<'_>, relays: &[&RelayId]) -> BTreeSet<RelayId> {
    let mut counts = BTreeMap::<RelayId, usize>::new();
    let known = relays.iter().filter_map(|relay| cx.view().get(relay));
    let receipts = known.flat_map(|known| &known.receipts);
    // No honest relay bars a seed that vouches (§8.8(3)).
    let may_be_barred = |it: &&Receipt| !cx.view().seed_vouches(cx.network, &it.issuer, cx.wall);
    for receipt in receipts.filter(may_be_barred) {
        *counts.entry(receipt.issuer).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(issuer, count)| (Reverse(count), issuer));
    let most = counts.into_iter().take(ISSUERS_BARRED_MIN);
    most.map(|(issuer, _)| issuer).collect()
}

/// Whether too few vouch for this relay without these issuers.
fn depends_on(cx: &Context<'_>, relay: &RelayId, issuers: &BTreeSet<RelayId>) -> bool {
    let Some(known) = cx.view().get(relay) else {
        return false;
    };
    let receipts = cx
        .view()
        .counted_receipts(known, known.address(), cx.network, cx.wall);
    let of_others = receipts.filter(|receipt| !issuers.contains(&receipt.issuer));
    of_others.count() < cx.network.params.receipts_min
}

/// In how many groups these relays are: identities are cheap.
fn group_count<'a>(cx: &Context<'_>, relays: impl Iterator<Item = &'a RelayId>) -> usize {
    let group_of = |relay| Some(cx.view().get(relay)?.widest_group(cx.network));
    relays
        .filter_map(group_of)
        .collect::<BTreeSet<Group>>()
        .len()
}

/// How many groups of this view are many.
fn groups_least(cx: &Context<'_>) -> usize {
    let all = group_count(cx, cx.view().iter().map(|it| &it.relay));
    HIDDEN_MIN.max(all * HIDDEN_PERCENT / 100)
}

/// How many relays of this view are many to be out of date.
pub(super) fn hidden_least(view: &NetView) -> usize {
    HIDDEN_MIN.max(view.len() * HIDDEN_PERCENT / 100)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::directory::{Listing, Source, Unverified};
    use umbel_proto::network::Network;
    use umbel_proto::time::{Duration, Moment, WallTime};

    use super::super::super::testing::{When, descriptor_with, id as relay, key, surroundings};
    use super::*;

    const NOW: WallTime = WallTime(1_790_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test] // §8.3(9)
    fn guards_are_asked_in_turn_and_any_of_them_first() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut sources = Sources::default();
        let mut order = Vec::new();
        for turn in 0..5 {
            let guards = vec![relay(1), relay(2), relay(3)];
            let guards = sources.in_turn(guards, relay(2), &mut rng);
            order.push(guards[0]);
            // Whether it ends in order, as every other does here, changes no turn.
            sources.handle_begun(Instant::default() + HOUR * turn, guards[0], false);
            if turn % 2 == 0 {
                When::at(NOW).act(|cx| sources.handle_ended(cx, &guards, BTreeSet::new()));
            }
        }
        let all: BTreeSet<RelayId> = order[..3].iter().copied().collect();
        assert_eq!(all, [1, 2, 3].map(relay).into());
        assert_eq!(order[3..], order[..2]);
        let first = |_| {
            let guards = vec![relay(1), relay(2), relay(3)];
            Sources::default().in_turn(guards, relay(2), &mut rng)[0]
        };
        assert_eq!((0..50).map(first).collect::<BTreeSet<_>>(), all);
        let with_other = sources.in_turn(vec![relay(1), relay(3)], relay(7), &mut rng);
        assert_eq!(
            with_other[0],
            relay(7),
            "it was never asked, though it is in use"
        );
        let left = sources.in_turn(vec![relay(4)], relay(4), &mut rng);
        assert_eq!((left, sources.turns.len()), (vec![relay(4)], 0));
    }

    #[test] // §8.3(9)
    fn one_source_in_three_is_drawn_at_random() {
        let mut sources = Sources::default();
        let moment = When::at(NOW);
        let mut drawn = Vec::new();
        moment.act(|cx| {
            for turn in 0..300 {
                cx.now = cx.now + SYNC_FAR_PAUSE / 2;
                if sources.is_far(cx) {
                    drawn.push(turn);
                }
                assert_eq!(
                    sources.is_far(cx),
                    drawn.last() == Some(&turn),
                    "it is decided"
                );
                sources.handle_begun(cx.now, relay(9), drawn.last() == Some(&turn));
            }
        });
        let apart = drawn.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(apart.min() >= Some(2), "{drawn:?}");
        let count = drawn.len();
        assert!((50..100).contains(&count), "{count}");
    }

    const GUARDS: [u8; 3] = [1, 2, 3];
    const HIDDEN: [u8; 3] = [10, 11, 12];

    /// Sources of a client that knows guards 1 to 3, and 10 to 12.
    #[derive(Default)]
    struct Asked {
        sources: Sources,
        primary: Vec<RelayId>,
    }

    impl Asked {
        fn with(primary: &[u8]) -> Self {
            Self {
                sources: Sources::default(),
                primary: primary.iter().map(|&it| relay(it)).collect(),
            }
        }

        /// This source has its turn so many hours after the first, and lacks these. Who is found to
        /// hide.
        fn turn(&mut self, hours: u32, source: u8, lacking: &[u8]) -> Vec<RelayId> {
            let mut moment = When::at(NOW);
            moment.now = moment.now + HOUR * hours;
            let known = [1, 2, 3, 10, 11, 12];
            let lacking = lacking.iter().map(|&it| relay(it)).collect();
            let (hiding, _) = moment.act_knowing(&known, |cx| {
                self.sources.handle_begun(cx.now, relay(source), false);
                self.sources.handle_ended(cx, &self.primary, lacking)
            });
            hiding
        }
    }

    #[test] // §8.3(9b)
    fn a_guard_that_lacks_for_hours_what_two_others_have_is_named() {
        let mut asked = Asked::with(&GUARDS);
        assert!(asked.turn(0, 1, &HIDDEN).is_empty());
        assert!(asked.turn(1, 2, &[]).is_empty());
        assert!(asked.turn(2, 3, &[]).is_empty(), "it may hear of them yet");
        assert_eq!(asked.turn(4, 1, &HIDDEN), [relay(1)]);
    }

    /// A relay for which these vouch.
    fn vouched(number: u8, issuers: &[u8]) -> Unverified {
        let (network, id) = (Network::local().id, relay(number));
        let bytes = descriptor_with(number, |it| {
            let sign =
                |&by: &u8| Receipt::sign(&key(by), &network, &id, it.addresses[0], it.issued_at);
            it.receipts = issuers.iter().map(sign).collect();
        });
        Unverified::decode(&bytes).unwrap()
    }

    #[test] // §8.3(9b), §8.2(11)
    fn what_a_few_issuers_or_one_source_explain_is_not_hidden() {
        let mut network = Network::local();
        network.params.receipts_min = 2;
        let mut shared = surroundings(network, NOW);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (book, network) = (&mut shared.book, &shared.network);
        // Relays 10 to 19 are by friends; 30 to 39 are by others, and in doubt.
        for number in (1..7).chain(10..28).chain(30..40) {
            let known = match number {
                1..=6 => vouched(number, &[(number % 6) + 1, (number + 1) % 6 + 1]),
                10..=19 => vouched(number, &[1, 2, 3]),
                _ => vouched(number, &[2, 4, 5, 6]),
            };
            book.hear(network, NOW, None, known, &mut rng).unwrap();
        }
        for source in [1, 2, 3] {
            let listing = Listing {
                source: relay(source),
                mark: book.mark(),
                lacking: (30..40).map(relay).collect(),
            };
            let known = book.view().get(&relay(source)).unwrap();
            let source = Source::dialled_by_others(network, known);
            book.handle_listing(&source, &listing);
        }
        let turn = Turn {
            lacking: (10..40).map(|it| (relay(it), Instant::default())).collect(),
            unsure: BTreeSet::new(),
        };
        let now = Instant::default() + NEWS_SPREAD_MAX;
        let cx = shared.context(Moment { now, wall: NOW }, &mut rng);
        let hidden: BTreeSet<&RelayId> = turn.hidden(&cx).collect();
        let expected: Vec<RelayId> = (20..28).map(relay).collect();
        assert_eq!(hidden, expected.iter().collect());
    }

    #[test] // §8.3(9b)
    fn a_guard_is_not_named_for_little_for_soon_or_by_one() {
        let later = |first: &[u8], then: &[u8], others: [(u8, &[u8]); 2]| {
            let mut asked = Asked::with(&GUARDS);
            asked.turn(0, 1, first);
            for (other, lacking) in others {
                asked.turn(1, other, lacking);
            }
            asked.turn(4, 1, then)
        };
        let have_all = [(2, &[][..]), (3, &[])];
        assert!(
            later(&HIDDEN[1..], &HIDDEN[1..], have_all).is_empty(),
            "little"
        );
        assert!(
            later(&[], &HIDDEN, have_all).is_empty(),
            "since its last turn"
        );
        assert!(later(&HIDDEN, &[], have_all).is_empty(), "before");
        assert!(later(&HIDDEN, &HIDDEN, [(2, &[]), (3, &HIDDEN)]).is_empty());
        assert!(
            later(&HIDDEN, &HIDDEN, [(2, &[]), (2, &[])]).is_empty(),
            "by one"
        );
        assert!(
            later(&HIDDEN, &HIDDEN, [(2, &[]), (9, &[])]).is_empty(),
            "a stranger"
        );
        assert_eq!(later(&HIDDEN, &HIDDEN, have_all), [relay(1)]);
    }

    #[test] // §8.3(9b)
    fn that_all_guards_hide_the_same_is_noticed() {
        let all_hide = |lacking: [&[u8]; 3]| {
            let mut asked = Asked::with(&GUARDS);
            for hours in [0, 4] {
                for (guard, lacking) in GUARDS.into_iter().zip(lacking) {
                    asked.turn(hours, guard, lacking);
                }
            }
            let mut moment = When::at(NOW);
            moment.now = moment.now + HOUR * 4;
            let known = [1, 2, 3, 10, 11, 12];
            let (primary, sources) = (&asked.primary, &asked.sources);
            let hide = |cx: &mut Context<'_>| sources.do_all_hide(cx, primary);
            moment.act_knowing(&known, hide).0
        };
        assert!(all_hide([&HIDDEN; 3]));
        assert!(!all_hide([&HIDDEN, &HIDDEN, &HIDDEN[1..]]), "little");
        assert!(!all_hide([&HIDDEN, &HIDDEN, &[]]));
        let mut asked = Asked::with(&GUARDS);
        asked.turn(0, 1, &HIDDEN);
        asked.turn(4, 1, &HIDDEN);
        let hide = |cx: &mut Context<'_>| asked.sources.do_all_hide(cx, &asked.primary);
        assert!(!When::at(NOW).act(hide).0, "the others were not asked");
    }

    #[test] // §8.3(9b)
    fn what_came_after_a_guards_turn_it_is_not_taken_to_have() {
        let mut asked = Asked::with(&GUARDS);
        for guard in GUARDS {
            asked.turn(0, guard, if guard == 1 { &HIDDEN } else { &[] });
        }
        HIDDEN
            .iter()
            .for_each(|&it| asked.sources.handle_news(relay(it)));
        assert!(asked.turn(4, 1, &HIDDEN).is_empty(), "by whom is not known");
        assert!(asked.turn(4, 2, &[]).is_empty());
        assert_eq!(asked.turn(5, 3, &[]), [relay(1)]);
    }
}
