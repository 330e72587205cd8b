//! Whom a client that has a view asks next, and what that shows of its guards (docs/protocol.md
//! §8.3(9), §8.3(9b)).
//!
//! A guard that is the only source decides what its client knows: what it withholds dies within two
//! days. So guards are asked in turn, and one reconciliation in three goes over a circuit to a relay
//! drawn at random, which does not know whom it answers. News that a guard should have had when it
//! was asked counts against it, if its client has them from another guard: strangers could show
//! descriptors that they kept to themselves, to have guards replaced.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    HIDDEN_MIN, HIDDEN_PERCENT, HIDDEN_SOURCES_MIN, NEWS_SPREAD_MAX, SYNC_FAR_IN, SYNC_FAR_PAUSE,
};
use umbel_proto::time::{Instant, WallTime};

use super::super::context::Context;
use super::super::path::are_apart;

/// Who was asked when, and what turned out to be missing there.
#[derive(Default)]
pub(super) struct Sources {
    /// Whether the next is a relay drawn at random, once that is decided.
    is_far: Option<bool>,
    /// When it may be one again.
    far_from: Instant,
    /// When it was last begun to ask each primary guard.
    begun_at: BTreeMap<RelayId, Instant>,
    /// When each was last asked to the end.
    asked_at: BTreeMap<RelayId, WallTime>,
    /// Who is asked now.
    source: Option<RelayId>,
    /// How much came in the running reconciliation that each of them should have had.
    missed: BTreeMap<RelayId, usize>,
    /// Other primary guards that had much of which a guard said nothing.
    found: BTreeMap<RelayId, BTreeSet<RelayId>>,
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
        self.missed.clear();
        self.begun_at.insert(source, now);
    }

    /// Which of these primary guards to ask: the one in use, then each of the others, the one that
    /// was asked longest ago first, however that ended.
    pub(super) fn in_turn(&mut self, primary: Vec<RelayId>, in_use: RelayId) -> Vec<RelayId> {
        self.begun_at
            .retain(|relay, _| primary.contains(relay) || *relay == in_use);
        self.asked_at.retain(|relay, _| primary.contains(relay));
        self.found.retain(|relay, _| primary.contains(relay));
        let mut guards = primary;
        if !guards.contains(&in_use) {
            guards.insert(0, in_use);
        }
        guards.sort_by_key(|relay| (self.begun_at.get(relay).copied(), *relay != in_use));
        guards
    }

    /// The source had a descriptor that is news, issued at this time.
    pub(super) fn handle_news(&mut self, issued_at: WallTime) {
        for (&guard, &at) in &self.asked_at {
            if Some(guard) != self.source && issued_at + NEWS_SPREAD_MAX < at {
                *self.missed.entry(guard).or_default() += 1;
            }
        }
    }

    /// The reconciliation ended in order. Names guards that keep much from this client, by the word
    /// of several other primary guards in distinct address groups.
    pub(super) fn handle_ended(&mut self, cx: &Context<'_>, primary: &[RelayId]) -> Vec<RelayId> {
        let Some(source) = self.source.take() else {
            return Vec::new();
        };
        let missed = core::mem::take(&mut self.missed);
        if !primary.contains(&source) {
            return Vec::new();
        }
        self.asked_at.insert(source, cx.wall);
        let least = HIDDEN_MIN.max(cx.view().len() * HIDDEN_PERCENT / 100);
        let mut hiding = Vec::new();
        // A clock that is ahead makes all news look old.
        for (guard, _) in missed.into_iter().filter(|&(_, count)| count >= least) {
            if !cx.is_clock_sure {
                continue;
            }
            let found_by = self.found.entry(guard).or_default();
            if found_by.iter().all(|other| are_apart(cx, *other, source)) {
                found_by.insert(source);
            }
            if found_by.len() >= HIDDEN_SOURCES_MIN {
                self.found.remove(&guard);
                hiding.push(guard);
            }
        }
        hiding
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::time::Duration;

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
                When::at(NOW).act(|cx| sources.handle_ended(cx, &guards));
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
        assert_eq!((left, sources.asked_at.len()), (vec![relay(4)], 0));
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

    /// Guard 1 was asked; two hours later these sources each have `count` descriptors that were
    /// issued so long before that. Who is found to hide.
    fn found_by(
        sources: &[u8],
        primary: [u8; 3],
        count: usize,
        before: Duration,
        moment: &When,
    ) -> Vec<RelayId> {
        let mut state = Sources::default();
        state.handle_begun(Instant::default(), relay(1), false);
        When::at(NOW).act(|cx| state.handle_ended(cx, &[relay(1)]));
        let mut hiding = Vec::new();
        for &source in sources {
            state.handle_begun(Instant::default(), relay(source), true);
            for _ in 0..count {
                state.handle_news(WallTime(NOW.as_secs() - before.as_secs()));
            }
            moment.act_knowing(&[2, 3], |cx| {
                hiding.extend(state.handle_ended(cx, &primary.map(relay)));
            });
        }
        hiding
    }

    #[test] // §8.3(9b)
    fn a_guard_that_two_sources_know_to_hide_much_is_named() {
        let moment = When::at(NOW + HOUR * 2);
        let old = NEWS_SPREAD_MAX + HOUR;
        let primary = [1, 2, 3];
        assert_eq!(
            found_by(&[2, 3], primary, HIDDEN_MIN, old, &moment),
            [relay(1)]
        );
        let strangers = found_by(&[2, 3], [1, 4, 5], HIDDEN_MIN, old, &moment);
        assert!(strangers.is_empty(), "no guard goes by their word");
        for (sources, count, before) in [
            (&[2][..], HIDDEN_MIN, old),
            (&[2, 2], HIDDEN_MIN, old),
            (&[2, 3], HIDDEN_MIN - 1, old),
            (&[2, 3], HIDDEN_MIN, NEWS_SPREAD_MAX),
            (&[1, 1], HIDDEN_MIN, old),
        ] {
            assert!(found_by(sources, primary, count, before, &moment).is_empty());
        }
        let ahead = When {
            wall: NOW + HOUR * 9,
            ..When::at(NOW)
        };
        assert!(found_by(&[2, 3], primary, HIDDEN_MIN, old, &ahead).is_empty());
    }
}
