//! Keepalive, padding and silence of one link (docs/protocol.md §2.6).
//!
//! Two timers without IO: [`Keepalive`] says when this side owes a `Padding` cell, [`Silence`] when
//! the peer has said nothing for too long. Both move on every cell and are asked when
//! `due_at` has come.

use rand::{CryptoRng, RngExt};

use crate::limits::{LINK_KEEPALIVE, LINK_LATE_MAX};
use crate::network::Params;
use crate::time::{Duration, Instant};

/// Bounds of the wait before a padding cell on a padded link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    min: Duration,
    max: Duration,
}

impl Padding {
    /// The padding of a link with a client, if the network has it. Links between relays have none:
    /// what relays say to each other covers them (§2.6(2)).
    pub fn with_client(params: &Params) -> Option<Self> {
        params.link_padding.then_some(Self {
            min: params.padding_min,
            max: params.padding_max,
        })
    }

    /// The greater of two draws: then the time since the last cell says little.
    fn draw(self, rng: &mut impl CryptoRng) -> Duration {
        let mut draw = || rng.random_range(self.min..=self.max);
        draw().max(draw())
    }
}

/// The longest wait without a cell on a link with this padding.
fn wait_max(padding: Option<Padding>) -> Duration {
    padding.map_or(LINK_KEEPALIVE, |padding| padding.max.min(LINK_KEEPALIVE))
}

/// When this side owes its peer a `Padding` cell (§2.6(1), §2.6(2)).
#[derive(Debug, Clone)]
pub struct Keepalive {
    padding: Option<Padding>,
    due_at: Instant,
}

impl Keepalive {
    /// Of a link that comes up now.
    pub fn new(padding: Option<Padding>, now: Instant, rng: &mut impl CryptoRng) -> Self {
        let mut keepalive = Self {
            padding,
            due_at: now,
        };
        keepalive.on_sent(now, rng);
        keepalive
    }

    /// A cell was sent, or a `Padding` cell was queued. The next wait is drawn anew.
    pub fn on_sent(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        let wait = self
            .padding
            .map_or(LINK_KEEPALIVE, |padding| padding.draw(rng));
        self.due_at = now + wait.min(LINK_KEEPALIVE);
    }

    /// When to send a `Padding` cell, unless another cell is sent before.
    pub const fn due_at(&self) -> Instant {
        self.due_at
    }
}

/// The consequence of a peer's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// It should have sent padding by now (§6.4(12)). Reported once, until something comes.
    Quiet,
    /// The link is dead (§2.6(3)).
    Dead,
}

/// For how long the peer has said nothing (§2.6(3)).
#[derive(Debug, Clone)]
pub struct Silence {
    /// `None`: being quiet is not reported, or was.
    quiet_at: Option<Instant>,
    dead_at: Instant,
    quiet_after: Option<Duration>,
    dead_after: Duration,
}

impl Silence {
    /// A peer that is given up after `dead_after`, on a link that comes up now.
    pub fn new(dead_after: Duration, now: Instant) -> Self {
        Self {
            quiet_at: None,
            dead_at: now + dead_after,
            quiet_after: None,
            dead_after,
        }
    }

    /// As [`Silence::new`]. The peer is also quiet once it owes a cell of this padding.
    pub fn with_quiet(padding: Option<Padding>, dead_after: Duration, now: Instant) -> Self {
        let mut silence = Self::new(dead_after, now);
        silence.quiet_after = Some(wait_max(padding) + LINK_LATE_MAX);
        silence.on_received(now);
        silence
    }

    /// A whole cell came.
    pub fn on_received(&mut self, now: Instant) {
        self.quiet_at = self.quiet_after.map(|after| now + after);
        self.dead_at = now + self.dead_after;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), unless something comes before.
    pub fn due_at(&self) -> Instant {
        self.quiet_at
            .map_or(self.dead_at, |at| at.min(self.dead_at))
    }

    /// The consequence of the silence by `now`, if it is new. Spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Silent> {
        if now >= self.dead_at {
            return Some(Silent::Dead);
        }
        self.quiet_at.take_if(|at| now >= *at)?;
        Some(Silent::Quiet)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;

    const START: Instant = Instant::from_micros(1_000_000);
    const DEAD_AFTER: Duration = Duration::from_secs(90);

    fn seconds(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    fn padded(max: Duration) -> Option<Padding> {
        Padding::with_client(&Params {
            link_padding: true,
            padding_max: max,
            ..Params::LOCAL
        })
    }

    #[test] // §2.6(1)
    fn without_padding_a_cell_is_due_after_the_keepalive() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        assert_eq!(Padding::with_client(&Params::LOCAL), None);
        let mut keepalive = Keepalive::new(None, START, &mut rng);
        assert_eq!(keepalive.due_at(), START + LINK_KEEPALIVE);
        keepalive.on_sent(seconds(7), &mut rng);
        assert_eq!(keepalive.due_at(), seconds(7) + LINK_KEEPALIVE);
    }

    #[test] // §2.6(2)
    fn padding_waits_are_drawn_anew_within_the_networks_bounds() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let max = Params::LOCAL.padding_max;
        let mut keepalive = Keepalive::new(padded(max), START, &mut rng);
        let mut waits = Vec::new();
        for _ in 0..1000 {
            keepalive.on_sent(START, &mut rng);
            waits.push(keepalive.due_at().since(START));
        }
        assert!(
            waits
                .iter()
                .all(|wait| (Params::LOCAL.padding_min..=max).contains(wait))
        );
        // The greater of two uniform draws lies in the upper half three times of four.
        let middle = (Params::LOCAL.padding_min + max) / 2;
        let upper = waits.iter().filter(|&&wait| wait > middle).count();
        assert!((700..800).contains(&upper), "{upper}");
    }

    #[test] // §2.6(1), §2.6(2)
    fn padding_never_waits_longer_than_the_keepalive() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let padding = Padding {
            min: Duration::from_secs(50),
            max: Duration::from_secs(60),
        };
        let keepalive = Keepalive::new(Some(padding), START, &mut rng);
        assert_eq!(keepalive.due_at(), START + LINK_KEEPALIVE);
    }

    #[test] // §2.6(3)
    fn a_silent_peer_is_dead_in_time_and_quiet_once_before() {
        let mut silence = Silence::with_quiet(padded(Duration::from_secs(8)), DEAD_AFTER, START);
        assert_eq!(silence.due_at(), seconds(10));
        assert_eq!(silence.handle_timeout(seconds(9)), None);
        assert_eq!(silence.handle_timeout(seconds(10)), Some(Silent::Quiet));
        assert_eq!(silence.handle_timeout(seconds(11)), None);
        assert_eq!(silence.due_at(), seconds(90));
        silence.on_received(seconds(50));
        assert_eq!(silence.due_at(), seconds(60));
        assert_eq!(silence.handle_timeout(seconds(139)), Some(Silent::Quiet));
        assert_eq!(silence.handle_timeout(seconds(140)), Some(Silent::Dead));
    }

    #[test] // §2.6(3)
    fn a_side_that_does_not_ask_hears_of_a_dead_peer_only() {
        let mut silence = Silence::new(DEAD_AFTER, START);
        assert_eq!(silence.due_at(), seconds(90));
        assert_eq!(silence.handle_timeout(seconds(89)), None);
        assert_eq!(silence.handle_timeout(seconds(90)), Some(Silent::Dead));
    }
}
