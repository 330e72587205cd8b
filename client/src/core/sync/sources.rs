//! Whom a client that has a view asks next, and what that shows of its guards (docs/protocol.md
//! §8.3(9), §8.3(9b)).
//!
//! A guard that is the only source decides what its client knows: what it withholds dies within two
//! days. So guards are asked in turn, and one reconciliation in three goes over a circuit to a relay
//! drawn at random, which does not know whom it answers. What a guard lacks for hours, though others
//! have it, counts against it, if these others are guards too: strangers could show descriptors that
//! they kept to themselves, to have guards replaced.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use umbel_proto::directory::NetView;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    HIDDEN_MIN, HIDDEN_PERCENT, HIDDEN_SOURCES_MIN, NEWS_SPREAD_MAX, SYNC_FAR_IN, SYNC_FAR_PAUSE,
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
    /// What it has kept from this client for longer than news takes to be everywhere.
    fn hidden<'a>(&'a self, cx: &'a Context<'_>) -> impl Iterator<Item = &'a RelayId> {
        let is_hidden = |(relay, since): &(&RelayId, &Instant)| {
            **since + NEWS_SPREAD_MAX <= cx.now && cx.view().get(relay).is_some()
        };
        self.lacking
            .iter()
            .filter(is_hidden)
            .map(|(relay, _)| relay)
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

    /// In which order to ask these primary guards: first those never asked, the one in use before
    /// the others; then the one asked longest ago, however that ended.
    pub(super) fn in_turn(&mut self, primary: Vec<RelayId>, in_use: RelayId) -> Vec<RelayId> {
        self.begun_at
            .retain(|relay, _| primary.contains(relay) || *relay == in_use);
        self.turns.retain(|relay, _| primary.contains(relay));
        let mut guards = primary;
        if !guards.contains(&in_use) {
            guards.insert(0, in_use);
        }
        guards.sort_by_key(|relay| (self.begun_at.get(relay).copied(), *relay != in_use));
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
    use umbel_proto::time::{Duration, WallTime};

    use super::super::super::testing::{When, id as relay};
    use super::*;

    const NOW: WallTime = WallTime(1_790_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test] // §8.3(9)
    fn guards_are_asked_in_turn_and_the_one_in_use_first() {
        let mut sources = Sources::default();
        let mut order = Vec::new();
        for turn in 0..5 {
            let guards = sources.in_turn(vec![relay(1), relay(2), relay(3)], relay(2));
            order.push(guards[0]);
            // Whether it ends in order, as every other does here, changes no turn.
            sources.handle_begun(Instant::default() + HOUR * turn, guards[0], false);
            if turn % 2 == 0 {
                When::at(NOW).act(|cx| sources.handle_ended(cx, &guards, BTreeSet::new()));
            }
        }
        assert_eq!(order, [2, 1, 3, 2, 1].map(relay));
        let with_other = sources.in_turn(vec![relay(1), relay(3)], relay(7));
        assert_eq!(
            with_other[0],
            relay(7),
            "it was never asked, though it is in use"
        );
        let left = sources.in_turn(vec![relay(4)], relay(4));
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
