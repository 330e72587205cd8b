//! What unit tests let paths be chosen by.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

use super::Known;
use super::avoided::Avoided;
use super::pinned::Shunned;
use crate::directory::NetView;
use crate::directory::choice::Candidates;
use crate::directory::testing::relay;
use crate::ids::RelayId;
use crate::network::Network;
use crate::time::{Duration, Instant, WallTime};

/// When all tests begin.
pub(super) const NOW: WallTime = WallTime(1_790_000_000);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// The id of a relay that may be in view.
pub(super) fn id(number: u8) -> RelayId {
    relay(u32::from(number)).descriptor.relay
}

/// These are avoided, and there are no holders.
pub(super) const fn shunned(avoided: &Avoided) -> Shunned<'_> {
    Shunned {
        avoided,
        holders: &[],
    }
}

/// A time at which something is done in the `local` network.
pub(super) struct When {
    pub(super) wall: WallTime,
    pub(super) confirmed: WallTime,
}

impl When {
    /// One at which the calendar is confirmed as it is.
    pub(super) const fn at(wall: WallTime) -> Self {
        Self {
            wall,
            confirmed: wall,
        }
    }

    /// Runs `act` at that time.
    pub(super) fn act<T>(&self, act: impl FnOnce(Known<'_>, &mut ChaCha20Rng) -> T) -> T {
        self.act_knowing(&[], act)
    }

    /// The same with these relays in view, all on loopback: each is a group of its own.
    pub(super) fn act_knowing<T>(
        &self,
        relays: &[u8],
        act: impl FnOnce(Known<'_>, &mut ChaCha20Rng) -> T,
    ) -> T {
        let network = Network::local();
        let mut view = NetView::new();
        for &number in relays {
            let relay = relay(u32::from(number)).with(|it| {
                it.addresses = vec![([127, 0, 0, 1], 9000 + u16::from(number)).into()];
                it.issued_at = NOW;
            });
            let descriptor = relay.unverified().verify(&network, NOW);
            view.insert(descriptor.expect("a good one"), NOW);
        }
        let candidates = Candidates::new(view.iter().map(|it| &**it), &network);
        let known = Known {
            network: &network,
            view: &view,
            candidates: &candidates,
            guard_candidates: &candidates,
            now: Instant::from_micros(0),
            wall: self.wall,
            confirmed: self.confirmed,
            is_clock_sure: self.wall == self.confirmed,
            is_view_current: true,
        };
        act(known, &mut ChaCha20Rng::seed_from_u64(7))
    }
}
