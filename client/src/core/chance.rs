//! Waiting times: drawn at random, so that moments tell nothing, and growing with each failure.

use std::collections::BTreeMap;

use rand::{CryptoRng, RngExt};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::WAIT_CUT;
use umbel_proto::time::{Duration, Instant};

use super::context::Context;

/// A draw from the exponential distribution with this mean, cut off at [`WAIT_CUT`] times it.
pub(super) fn exponential(mean: Duration, rng: &mut dyn CryptoRng) -> Duration {
    let share: f64 = rng.random_range(0.0..1.0);
    mean.mul_f64((-(1.0 - share).ln()).clamp(0.0, f64::from(WAIT_CUT)))
}

/// A uniform draw between the two.
pub(super) fn between(least: Duration, most: Duration, rng: &mut dyn CryptoRng) -> Duration {
    let share: f64 = rng.random_range(0.0..1.0);
    least + most.saturating_sub(least).mul_f64(share)
}

/// Puts `items` into a random order.
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut dyn CryptoRng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}

/// When to try again what has failed: after `retry_base` at first, twice as long each time, up to
/// `retry_max`; of each wait a random part up to half is taken off.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff {
    failures: u32,
    retry_at: Instant,
}

impl Backoff {
    /// Nothing failed yet.
    pub(super) const fn new() -> Self {
        Self {
            failures: 0,
            retry_at: Instant::from_micros(0),
        }
    }

    /// Counts a failure; returns the wait that follows.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>) -> Duration {
        let params = &cx.network.params;
        let factor = 1_u32 << self.failures.min(20);
        let most = params
            .retry_base
            .saturating_mul(factor)
            .min(params.retry_max);
        self.failures = self.failures.saturating_add(1);
        let wait = between(most / 2, most, cx.rng);
        self.retry_at = cx.now + wait;
        wait
    }

    /// The state after `failures` failures, with the next try due at `retry_at`.
    pub(super) const fn resumed(failures: u32, retry_at: Instant) -> Self {
        Self { failures, retry_at }
    }

    /// Lets the next try be no later than this.
    pub(super) fn retry_by(&mut self, at: Instant) {
        self.retry_at = self.retry_at.min(at);
    }

    /// Forgets all failures.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Lets the next try be now, without forgetting failures.
    pub(super) fn hurry(&mut self) {
        self.retry_at = Instant::default();
    }

    /// How often it failed since it last worked.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next try is due.
    pub(super) const fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// Whether the next try is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.retry_at <= now
    }
}

/// Sees to it that a further relay may rest where `most` are remembered; one that rests already has
/// its place. The one whose rest ends first is forgotten, and returned.
pub(super) fn make_room(
    rests: &mut BTreeMap<RelayId, Backoff>,
    most: usize,
    relay: RelayId,
) -> Option<RelayId> {
    if rests.len() < most || rests.contains_key(&relay) {
        return None;
    }
    let (&first, _) = rests.iter().min_by_key(|(_, rest)| rest.retry_at())?;
    rests.remove(&first);
    Some(first)
}
