//! Which relay may be behind circuits that break once they are built (docs/protocol.md §6.4(10)).
//!
//! Any relay on the way can break one, and the origin can't see which did. What the broken ones
//! have in common is suspected, and nothing else: a guard only once circuits broke over several L2
//! relays and to several terminals, with none in between that carried an answer; a relay behind it
//! only where the guard broke no others. A hop that says of several relays that they are
//! unreachable is suspected in their place. A suspect rests; it is not condemned.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::chance::{Backoff, make_room};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    SUSPECT_BROKEN_MIN, SUSPECT_FRAMED_MIN, SUSPECT_NAMED_MIN, SUSPECT_UNBUILT_L2_MIN,
    SUSPECT_UNBUILT_MIN,
};
use umbel_proto::path::Trail;
use umbel_proto::time::Instant;

use super::context::Context;

/// Most relays remembered of each kind.
const KEPT_MAX: usize = 16;

/// Circuits that broke in a row, and the relays behind the guard that all of them went through.
#[derive(Default)]
struct Streak {
    count: u32,
    common: BTreeSet<RelayId>,
}

impl Streak {
    fn add(&mut self, way: &[RelayId]) {
        if self.count == 0 {
            self.common.extend(way);
        }
        self.common.retain(|relay| way.contains(relay));
        self.count = self.count.saturating_add(1);
    }
}

/// Circuits that could not be built in a row.
#[derive(Default)]
struct Unbuilt {
    count: u32,
    trail: Trail,
}

/// The relays that circuits had in common which broke since one last carried an answer.
#[derive(Default)]
pub(super) struct Suspects {
    guards: BTreeMap<RelayId, Streak>,
    /// The same for those behind it, at whichever place.
    behind: BTreeMap<RelayId, Streak>,
    /// Relays behind the guard that were suspected before, and have carried no answer since: they
    /// are not trusted for long.
    on_probation: BTreeSet<RelayId>,
    /// Circuits that could not be built, since one was.
    unbuilt: BTreeMap<RelayId, Unbuilt>,
    /// The relays that each hop behind the guard calls unreachable, since it last reached one.
    named: BTreeMap<RelayId, BTreeSet<RelayId>>,
    /// The guards over which each L2 relay came under suspicion since it last carried an answer.
    over_guards: BTreeMap<RelayId, BTreeSet<RelayId>>,
    rests: BTreeMap<RelayId, Backoff>,
    /// Circuits that broke since one carried an answer, over whatever guard.
    count: u32,
    over: BTreeSet<RelayId>,
}

/// The relay that is suspected from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Suspected {
    Nobody,
    /// The guard; those that were suspected in its place are cleared.
    Guard {
        cleared: Vec<RelayId>,
    },
    /// This relay behind the guard; those that it named are cleared.
    Behind {
        relay: RelayId,
        cleared: Vec<RelayId>,
    },
}

impl Suspects {
    /// A circuit of this path carried an answer.
    pub(super) fn on_worked(&mut self, path: &[RelayId]) {
        self.count = 0;
        self.over.clear();
        let [guard, way @ ..] = path else { return };
        self.guards.remove(guard);
        self.rests.remove(guard);
        // An answer of the terminal says nothing of the circuits that it is to hand on.
        for relay in way.iter().take(2) {
            self.behind.remove(relay);
            self.on_probation.remove(relay);
            self.over_guards.remove(relay);
        }
    }

    /// A circuit was extended by the last of these relays.
    pub(super) fn on_extended(&mut self, by: &[RelayId]) {
        if let [guard, .., last] = by {
            self.named.remove(last);
            if by.len() == 2 {
                self.unbuilt.remove(guard);
            }
        }
    }

    /// A circuit over this guard could not be built, this far, and the guard may be behind it.
    pub(super) fn on_unbuilt(
        &mut self,
        cx: &mut Context<'_>,
        guard: RelayId,
        way: &[RelayId],
    ) -> Suspected {
        let streak = kept(&mut self.unbuilt, guard);
        streak.count = streak.count.saturating_add(1);
        streak.trail.add(way);
        if streak.count < SUSPECT_UNBUILT_MIN || !streak.trail.has(SUSPECT_UNBUILT_L2_MIN, 0, 0) {
            return Suspected::Nobody;
        }
        self.unbuilt.remove(&guard);
        self.rest(cx, guard);
        Suspected::Guard {
            cleared: Vec::new(),
        }
    }

    /// The last relay of this path is unreachable, says the one before it, unless the guard made
    /// that up. Such failures have in common who reports them.
    pub(super) fn on_named(
        &mut self,
        cx: &mut Context<'_>,
        path: &[RelayId],
        may_be_guard: bool,
    ) -> Suspected {
        let [guard, .., by, relay] = path else {
            return Suspected::Nobody;
        };
        if by == guard {
            return Suspected::Nobody;
        }
        let named = kept(&mut self.named, *by);
        if named.len() < KEPT_MAX {
            named.insert(*relay);
        }
        // Other relays that failed over this guard meanwhile may be as innocent as this one.
        let is_alone = self
            .unbuilt
            .get(guard)
            .is_none_or(|streak| !streak.trail.has(2, 0, 0));
        let wanted = if self.on_probation.contains(by) {
            1
        } else {
            SUSPECT_NAMED_MIN
        };
        if named.len() < wanted || (may_be_guard && !is_alone) {
            return Suspected::Nobody;
        }
        let cleared = core::mem::take(named).into_iter().collect();
        self.named.remove(by);
        self.suspect_behind(cx, path, *by, cleared, may_be_guard)
    }

    /// A circuit of this path broke.
    pub(super) fn on_broken(&mut self, cx: &mut Context<'_>, path: &[RelayId]) -> Suspected {
        let [guard, way @ ..] = path else {
            return Suspected::Nobody;
        };
        self.count = self.count.saturating_add(1);
        if self.over.len() < KEPT_MAX {
            self.over.insert(*guard);
        }
        let by_guard = kept(&mut self.guards, *guard);
        by_guard.add(way);
        if by_guard.count >= SUSPECT_BROKEN_MIN && by_guard.common.is_empty() {
            self.guards.remove(guard);
            self.rest(cx, *guard);
            return Suspected::Guard {
                cleared: Vec::new(),
            };
        }
        // Only what all that broke over this guard since it last worked has in common may be behind
        // it, but for the terminal: see `breakers`.
        let common = by_guard.common.clone();
        let mut suspect = None;
        for relay in way.iter().take(2) {
            let streak = kept(&mut self.behind, *relay);
            streak.add(way);
            let is_only_one = streak.count >= SUSPECT_BROKEN_MIN && streak.common.len() == 1;
            if common.contains(relay) && (is_only_one || self.on_probation.contains(relay)) {
                suspect = Some(*relay);
            }
        }
        let Some(relay) = suspect else {
            return Suspected::Nobody;
        };
        self.behind.remove(&relay);
        self.suspect_behind(cx, path, relay, Vec::new(), true)
    }

    /// Whether this guard is left alone while there is another.
    pub(super) fn is_suspect(&self, guard: RelayId, now: Instant) -> bool {
        self.rests.get(&guard).is_some_and(|rest| !rest.is_due(now))
    }

    /// Whether a circuit over this guard broke since one carried an answer.
    pub(super) fn broke_over(&self, guard: RelayId) -> bool {
        self.over.contains(&guard)
    }

    /// Circuits that broke since one carried an answer, and over how many guards.
    pub(super) fn tally(&self) -> (u32, u32) {
        (
            self.count,
            u32::try_from(self.over.len()).unwrap_or(u32::MAX),
        )
    }

    /// When a suspect is trusted again.
    pub(super) fn timeouts(&self) -> impl Iterator<Item = Instant> {
        self.rests.values().map(Backoff::retry_at)
    }

    /// A relay behind the guard is suspected. A guard sees its L2 and could break circuits over
    /// those that it does not like: where several come under suspicion over it, and over no other,
    /// it is the guard.
    fn suspect_behind(
        &mut self,
        cx: &mut Context<'_>,
        path: &[RelayId],
        relay: RelayId,
        cleared: Vec<RelayId>,
        may_be_guard: bool,
    ) -> Suspected {
        if self.on_probation.len() < KEPT_MAX {
            self.on_probation.insert(relay);
        }
        if let [guard, layer2, ..] = path
            && *layer2 == relay
            && may_be_guard
        {
            kept(&mut self.over_guards, relay).insert(*guard);
            let is_only_here =
                |guards: &BTreeSet<RelayId>| guards.len() == 1 && guards.contains(guard);
            let here = self
                .over_guards
                .iter()
                .filter(|(_, guards)| is_only_here(guards));
            let framed: Vec<RelayId> = here.map(|(&layer2, _)| layer2).collect();
            if framed.len() >= SUSPECT_FRAMED_MIN {
                self.on_probation.retain(|relay| !framed.contains(relay));
                self.rest(cx, *guard);
                return Suspected::Guard {
                    cleared: [framed, cleared].concat(),
                };
            }
        }
        Suspected::Behind { relay, cleared }
    }

    fn rest(&mut self, cx: &mut Context<'_>, guard: RelayId) {
        make_room(&mut self.rests, KEPT_MAX, guard);
        self.rests
            .entry(guard)
            .or_default()
            .fail(&cx.network.params, cx.now, cx.rng);
    }
}

/// The facts kept of this relay. There are few; should there be too many, all are forgotten: old
/// ones are worth little.
fn kept<T: Default>(facts: &mut BTreeMap<RelayId, T>, relay: RelayId) -> &mut T {
    if facts.len() >= KEPT_MAX && !facts.contains_key(&relay) {
        facts.clear();
    }
    facts.entry(relay).or_default()
}
