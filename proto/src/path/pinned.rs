//! Relays that are pinned for a while at one place behind the guard (docs/protocol.md §6.4(2)): an
//! attacker who makes this client build many circuits learns these relays, but not the hop before
//! them, until they change.

use rand::{CryptoRng, RngExt};
use serde::{Deserialize, Serialize};

use super::Known;
use super::avoided::Avoided;
use super::tally::Tally;
use crate::chance::between;
use crate::directory::choice::Exclude;
use crate::ids::RelayId;
use crate::limits::{PINNED_SPARE_FACTOR, PINNED_WAIT};
use crate::time::{Duration, Instant, WallTime};

/// How many relays are pinned at a place, and for how long each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) count: usize,
    pub(super) life_min: Duration,
    pub(super) life_max: Duration,
}

/// Whom a draw leaves out: relays that are avoided; and beside own holders, if that can be.
#[derive(Clone, Copy)]
pub(super) struct Shunned<'a> {
    pub(super) avoided: &'a Avoided,
    pub(super) holders: &'a [RelayId],
}

/// One pinned relay, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pinned {
    pub(super) relay: RelayId,
    expires_at: WallTime,
    /// How many hops behind it it made, and how many it refused, where that is counted.
    pub(super) tally: Tally,
    pub(super) set_aside_at: Option<WallTime>,
}

impl Pinned {
    pub(super) fn until(relay: RelayId, expires_at: WallTime) -> Self {
        Self {
            relay,
            expires_at,
            tally: Tally::default(),
            set_aside_at: None,
        }
    }

    pub(super) const fn is_usable(&self) -> bool {
        self.set_aside_at.is_none()
    }
}

/// All relays that are pinned at one place, in the order in which they were drawn.
#[derive(Default)]
pub(super) struct Pins {
    pub(super) pinned: Vec<Pinned>,
    /// They have to be stored again.
    pub(super) is_changed: bool,
    /// Since when too few of them are in the view.
    few_since: Option<Instant>,
}

impl Pins {
    pub(super) const fn restore(pinned: Vec<Pinned>) -> Self {
        Self {
            pinned,
            is_changed: false,
            few_since: None,
        }
    }

    pub(super) fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.pinned.iter().map(|pinned| pinned.relay)
    }

    /// Those that are not set aside.
    pub(super) fn usable(&self) -> impl Iterator<Item = RelayId> {
        let usable = self.pinned.iter().filter(|pinned| pinned.is_usable());
        usable.map(|pinned| pinned.relay)
    }

    pub(super) fn find(&mut self, relay: RelayId) -> Option<&mut Pinned> {
        self.pinned.iter_mut().find(|pinned| pinned.relay == relay)
    }

    /// Those that can be used now.
    fn listed(&self, known: Known<'_>) -> impl Iterator<Item = RelayId> {
        // By a clock that is wrong relays leave the view that are there.
        let is_listed = move |it: &RelayId| known.view.get(it).is_some() || !known.is_clock_sure;
        self.usable().filter(is_listed)
    }

    /// Looks how many are in the view: others are pinned only once few were for long.
    pub(super) fn note_listed(&mut self, known: Known<'_>, terms: Terms) {
        if known.is_view_current && self.are_few(known, terms) {
            self.few_since.get_or_insert(known.now);
        } else {
            self.few_since = None;
        }
    }

    /// Whether less than half of as many as are wanted can be used now.
    fn are_few(&self, known: Known<'_>, terms: Terms) -> bool {
        self.listed(known).count() < terms.count.div_ceil(2)
    }

    /// Whether another is to be pinned: fewer are kept than are wanted, or few were in the view for long.
    pub(super) fn wants_another(&self, known: Known<'_>, terms: Terms) -> bool {
        let have_waited = self
            .few_since
            .is_some_and(|at| at + PINNED_WAIT <= known.now);
        let replaces = have_waited && self.are_few(known, terms) && self.has_room(known, terms);
        self.usable().count() < terms.count || replaces
    }

    /// Whether one more may be pinned where none, or few, can be used. While a view is filled anew,
    /// after a long sleep, they are not in it at first.
    pub(super) fn has_room(&self, known: Known<'_>, terms: Terms) -> bool {
        known.is_view_current
            && (self.usable().count() < terms.count * PINNED_SPARE_FACTOR
                || self.listed(known).next().is_none())
    }

    /// Drops those whose time is over, or that failed too often. One that is gone from the view stays:
    /// else whoever keeps its renewals from this client would have it draw another (§6.4(2)).
    pub(super) fn drop_old(
        &mut self,
        known: Known<'_>,
        terms: Terms,
        has_failed: impl Fn(RelayId) -> bool,
    ) {
        let before = self.pinned.len();
        self.pinned
            .retain(|pinned| pinned.expires_at > known.confirmed && !has_failed(pinned.relay));
        self.is_changed |= self.pinned.len() != before;
        if !known.is_clock_sure {
            return;
        }
        let latest = known.wall + terms.life_max;
        let pinned = self.pinned.iter_mut();
        for pinned in pinned.filter(|pinned| pinned.expires_at > latest) {
            pinned.expires_at = latest;
            self.is_changed = true;
        }
    }

    /// Pins one more relay, if it can: apart from the first of these lists that leaves anybody, and
    /// from holders, if that can be. Returns it.
    pub(super) fn pin(
        &mut self,
        known: Known<'_>,
        terms: Terms,
        apart_from: &[&[RelayId]],
        Shunned { avoided, holders }: Shunned<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let mut pinned = Exclude::nothing();
        self.relays().for_each(|relay| pinned.relay(relay));
        let pinned = avoided.and_excluded(known.now, &pinned);
        let draw = |others: &[RelayId]| {
            let mut clear = pinned.clone();
            known.exclude_groups_of(&mut clear, others);
            known.draw_apart(known.candidates, &clear, holders, rng)
        };
        let relay = apart_from.iter().copied().chain([&[][..]]).find_map(draw)?;
        let Terms {
            life_min, life_max, ..
        } = terms;
        let life = between(life_min, life_max, rng).max(between(life_min, life_max, rng));
        self.pinned.push(Pinned::until(relay, known.wall + life));
        self.is_changed = true;
        Some(relay)
    }
}

/// One of these, whichever.
pub(super) fn pick(relays: &[RelayId], rng: &mut dyn CryptoRng) -> Option<RelayId> {
    if relays.is_empty() {
        return None;
    }
    relays.get(rng.random_range(0..relays.len())).copied()
}
