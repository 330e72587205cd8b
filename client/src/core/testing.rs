//! The surroundings that unit tests give a part of the core.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::network::Network;
use umbel_proto::time::{Instant, Moment, WallTime};

use super::context::{Context, Shared};
use super::io::Notice;

/// A network with nobody in view, where circuits may still be built.
pub(super) fn surroundings(network: Network, wall: WallTime) -> Shared {
    let now = Instant::from_micros(0);
    Shared {
        is_ready: true,
        ..Shared::restore(network, Vec::new(), None, Moment { now, wall })
    }
}

/// A time at which something is done in the `local` network.
pub(super) struct When {
    pub(super) now: Instant,
    pub(super) wall: WallTime,
    pub(super) confirmed: WallTime,
}

impl When {
    /// One at which the calendar is confirmed as it is.
    pub(super) const fn at(wall: WallTime) -> Self {
        Self {
            now: Instant::from_micros(0),
            wall,
            confirmed: wall,
        }
    }

    /// Runs `act` at that time; its result, and the notices for the user.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Context<'_>) -> T) -> (T, Vec<Notice>) {
        let &Self {
            now,
            wall,
            confirmed,
        } = self;
        let mut shared = surroundings(Network::local(), wall);
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut cx = shared.context(Moment { now, wall }, &mut rng);
        cx.confirmed = confirmed;
        cx.is_clock_sure = wall == confirmed;
        let came = act(&mut cx);
        (came, shared.out.notices.into())
    }
}
