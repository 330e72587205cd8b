//! The surroundings that unit tests give a part of the core.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::directory::NetView;
use umbel_proto::directory::choice::Candidates;
use umbel_proto::network::Network;
use umbel_proto::time::{Instant, WallTime};

use super::io::Notice;
use super::{Context, Outgoing};

/// A moment, in the `local` network with nobody in view.
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: WallTime,
    pub(super) confirmed: WallTime,
}

impl Moment {
    /// One at which the calendar is confirmed as it is.
    pub(super) const fn at(wall: WallTime) -> Self {
        Self {
            now: Instant::from_micros(0),
            wall,
            confirmed: wall,
        }
    }

    /// Does something then; what it came to, and what the user was told.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Context<'_>) -> T) -> (T, Vec<Notice>) {
        let network = Network::local();
        let mut out = Outgoing::default();
        let mut cx = Context {
            now: self.now,
            wall: self.wall,
            confirmed: self.confirmed,
            is_clock_sure: self.wall == self.confirmed,
            network: &network,
            view: &NetView::new(),
            candidates: &Candidates::new([], &network),
            is_ready: true,
            rng: &mut ChaCha20Rng::seed_from_u64(7),
            out: &mut out,
        };
        let came = act(&mut cx);
        (came, out.notices.into())
    }
}
