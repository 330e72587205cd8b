//! Guards: the few relays that see this client's address (docs/protocol.md §6.4).
//!
//! Sampled: drawn once and kept for months. Confirmed: a circuit was built through it. Primary: the first few of both, in
//! that order. The one in use is the first that there is a link to. Whoever makes guards fail can make a client go down
//! its list, but not draw beyond the sample's limit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use umbel_proto::directory::Roles;
use umbel_proto::directory::choice::Exclude;
use umbel_proto::ids::RelayId;
use umbel_proto::time::WallTime;

use super::Context;
use super::io::Warning;
use super::path::draw;

/// One guard of the sample, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guard {
    relay: RelayId,
    sampled_at: WallTime,
    confirmed_at: Option<WallTime>,
    unlisted_since: Option<WallTime>,
}

/// Circuits through one guard since the client started.
#[derive(Debug, Default)]
struct Count {
    built: u32,
    failed: u32,
    is_told: bool,
}

/// The sample, in the order it was drawn.
#[derive(Default)]
pub(super) struct Guards {
    sample: Vec<Guard>,
    counts: BTreeMap<RelayId, Count>,
    is_changed: bool,
}

impl Guards {
    pub(super) fn restore(sample: Vec<Guard>) -> Self {
        Self { sample, counts: BTreeMap::new(), is_changed: false }
    }

    pub(super) fn sample(&self) -> &[Guard] {
        &self.sample
    }

    /// Whether the sample has to be stored again.
    pub(super) fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.is_changed)
    }

    /// All usable guards, best first: confirmed ones by when that was, then the others as drawn.
    pub(super) fn in_order(&self) -> Vec<RelayId> {
        let mut listed: Vec<&Guard> = self.sample.iter().filter(|guard| guard.unlisted_since.is_none()).collect();
        listed.sort_by_key(|guard| guard.confirmed_at.unwrap_or(WallTime(u64::MAX)));
        listed.into_iter().map(|guard| guard.relay).collect()
    }

    /// The first few of [`Guards::in_order`].
    pub(super) fn primary(&self, count: usize) -> Vec<RelayId> {
        let mut order = self.in_order();
        order.truncate(count);
        order
    }

    /// Drops guards whose time is over, notes which are in the view, and draws new ones up to the sample's size.
    pub(super) fn refresh(&mut self, cx: &mut Context<'_>) {
        let params = &cx.network.params;
        let wall = cx.wall;
        let before = self.sample.len();
        self.sample.retain(|guard| match (guard.confirmed_at, guard.unlisted_since) {
            (_, Some(since)) if wall.since(since) > params.guard_life_unlisted => false,
            (Some(confirmed_at), _) => wall.since(confirmed_at) <= params.guard_life_confirmed,
            (None, _) => wall.since(guard.sampled_at) <= params.guard_life,
        });
        self.is_changed |= self.sample.len() != before;
        for guard in &mut self.sample {
            let is_listed = cx.view.get(&guard.relay).is_some();
            if is_listed == guard.unlisted_since.is_some() {
                guard.unlisted_since = (!is_listed).then_some(wall);
                self.is_changed = true;
            }
        }
        let wanted = (cx.view.len() / 5).clamp(params.guards_primary, params.guards_sample_min);
        while self.in_order().len() < wanted && self.grow(cx) {}
    }

    /// Draws one more guard; says whether it could.
    pub(super) fn grow(&mut self, cx: &mut Context<'_>) -> bool {
        if self.sample.len() >= cx.network.params.guards_sample_max {
            return false;
        }
        let mut known = Exclude::nothing();
        self.sample.iter().for_each(|guard| known.relay(guard.relay));
        let Some(relay) = draw(cx, Roles::NONE, &known) else { return false };
        self.sample.push(Guard { relay, sampled_at: cx.wall, confirmed_at: None, unlisted_since: None });
        self.is_changed = true;
        true
    }

    /// A circuit was built through this guard: it is confirmed.
    pub(super) fn on_built(&mut self, cx: &Context<'_>, relay: RelayId) {
        let Some(guard) = self.sample.iter_mut().find(|guard| guard.relay == relay) else { return };
        if guard.confirmed_at.is_none() {
            guard.confirmed_at = Some(cx.wall);
            self.is_changed = true;
        }
        self.counts.entry(relay).or_default().built += 1;
    }

    /// A circuit through this guard failed while it was built.
    pub(super) fn on_failed(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        if !self.sample.iter().any(|guard| guard.relay == relay) {
            return;
        }
        let params = &cx.network.params;
        let count = self.counts.entry(relay).or_default();
        count.failed += 1;
        let all = count.built + count.failed;
        let is_much = u64::from(count.failed) * 100 > u64::from(all) * u64::from(params.guard_failures_percent);
        if all >= params.guard_circuits_min && is_much && !count.is_told {
            count.is_told = true;
            cx.warn(Warning::GuardFails);
        }
    }
}
