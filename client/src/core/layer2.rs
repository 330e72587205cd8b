//! The pinned relays behind the guard: an attacker who makes this client build many circuits learns
//! these, not its guard, until they change (docs/protocol.md §6.4(2)).

use rand::RngExt;
use serde::{Deserialize, Serialize};
use umbel_proto::directory::choice::Exclude;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::L2_FAILURES_MAX;
use umbel_proto::time::WallTime;

use super::chance::between;
use super::context::Context;
use super::path::{Avoided, are_apart, draw_apart, exclude_groups_of};

/// Pinned relays there may be for each that is wanted, when those pinned can't be used.
const SPARE_FACTOR: usize = 2;

/// One pinned relay, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pinned {
    pub(super) relay: RelayId,
    expires_at: WallTime,
}

/// All pinned relays.
#[derive(Default)]
pub(super) struct Layer2 {
    pinned: Vec<Pinned>,
    is_changed: bool,
}

impl Layer2 {
    pub(super) const fn restore(pinned: Vec<Pinned>) -> Self {
        Self {
            pinned,
            is_changed: false,
        }
    }

    pub(super) fn pinned(&self) -> &[Pinned] {
        &self.pinned
    }

    /// All pinned relays.
    pub(super) fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.pinned.iter().map(|pinned| pinned.relay)
    }

    /// Whether they have to be stored again.
    pub(super) fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.is_changed)
    }

    /// Drops those whose time is over, that are gone from the view, or that failed too often, and
    /// pins others.
    pub(super) fn refresh(
        &mut self,
        cx: &mut Context<'_>,
        primary: &[RelayId],
        holders: &[RelayId],
        avoided: &Avoided,
    ) {
        let before = self.pinned.len();
        // By a clock that is wrong relays leave the view that are there.
        self.pinned.retain(|pinned| {
            pinned.expires_at > cx.confirmed
                && (cx.view().get(&pinned.relay).is_some() || !cx.is_clock_sure)
                && !avoided.has_failed_for_several(pinned.relay, L2_FAILURES_MAX)
        });
        self.is_changed |= self.pinned.len() != before;
        if cx.is_clock_sure {
            let latest = cx.wall + cx.network.params.l2_life_max;
            for pinned in self
                .pinned
                .iter_mut()
                .filter(|pinned| pinned.expires_at > latest)
            {
                pinned.expires_at = latest;
                self.is_changed = true;
            }
        }
        while self.pinned.len() < cx.network.params.l2_count
            && self.pin(cx, primary, holders, avoided)
        {}
    }

    /// One that goes with this guard and is not avoided. Where none does, one more is pinned; where
    /// that can't be, an avoided one has to do.
    pub(super) fn choose(
        &mut self,
        cx: &mut Context<'_>,
        guard: RelayId,
        holders: &[RelayId],
        avoided: &Avoided,
    ) -> Option<RelayId> {
        let fitting: Vec<RelayId> = self
            .pinned
            .iter()
            .map(|pinned| pinned.relay)
            .filter(|&relay| are_apart(cx, relay, guard))
            .collect();
        let usable: Vec<RelayId> = fitting
            .iter()
            .copied()
            .filter(|&relay| !avoided.is_avoided(relay, cx.now))
            .collect();
        if let Some(relay) = pick(cx, &usable) {
            return Some(relay);
        }
        let is_full = self.pinned.len() >= cx.network.params.l2_count * SPARE_FACTOR;
        if !is_full && self.pin(cx, &[guard], holders, avoided) {
            let added = self.pinned.last().map(|pinned| pinned.relay);
            return added
                .filter(|&relay| are_apart(cx, relay, guard))
                .or_else(|| pick(cx, &fitting));
        }
        pick(cx, &fitting)
    }

    /// Pins one more relay: apart from `guards` if that can be, and from `holders`.
    fn pin(
        &mut self,
        cx: &mut Context<'_>,
        guards: &[RelayId],
        holders: &[RelayId],
        avoided: &Avoided,
    ) -> bool {
        let mut known = Exclude::nothing();
        self.pinned
            .iter()
            .for_each(|pinned| known.relay(pinned.relay));
        let known = avoided.and_excluded(cx.now, &known);
        let mut clear = known.clone();
        exclude_groups_of(cx, &mut clear, guards);
        let drawn = draw_apart(cx, &clear, holders).or_else(|| draw_apart(cx, &known, holders));
        let Some(relay) = drawn else { return false };
        let (least, most) = (cx.network.params.l2_life_min, cx.network.params.l2_life_max);
        let life = between(least, most, cx.rng).max(between(least, most, cx.rng));
        self.pinned.push(Pinned {
            relay,
            expires_at: cx.wall + life,
        });
        self.is_changed = true;
        true
    }
}

fn pick(cx: &mut Context<'_>, relays: &[RelayId]) -> Option<RelayId> {
    if relays.is_empty() {
        return None;
    }
    relays.get(cx.rng.random_range(0..relays.len())).copied()
}
