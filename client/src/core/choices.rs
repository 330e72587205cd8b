//! The relays that a client would choose over months, without links, circuits or messages: the
//! production code's choices, for simulations.
//!
//! Nothing ever fails here: every guard answers, every circuit is built, and no relay leaves.

use rand::CryptoRng;
use umbel_proto::directory::BookRow;
use umbel_proto::ids::RelayId;
use umbel_proto::network::Network;
use umbel_proto::path::Paths;
use umbel_proto::time::{Instant, Moment, WallTime};

use super::context::{Context, Shared};

/// The relays of a network, as all its clients know them.
#[expect(missing_debug_implementations, reason = "holds a view")]
pub struct KnownRelays {
    shared: Shared,
    begun_at: WallTime,
}

impl KnownRelays {
    /// These relays, looked at now. They stay, and may be drawn, whatever the time.
    pub fn new(network: Network, relays: Vec<BookRow>, wall: WallTime) -> Self {
        let now = Instant::default();
        let mut shared = Shared::restore(network, relays, None, None, Moment { now, wall });
        shared.look_at_view(wall, true);
        Self {
            shared,
            begun_at: wall,
        }
    }

    fn context<'a>(&'a mut self, wall: WallTime, rng: &'a mut dyn CryptoRng) -> Context<'a> {
        let now = Instant::default() + wall.since(self.begun_at);
        Context {
            confirmed: wall,
            is_clock_sure: true,
            ..self.shared.context(Moment { now, wall }, rng)
        }
    }
}

/// What one client has chosen.
#[expect(missing_debug_implementations, reason = "says where its owner is")]
pub struct Choices {
    paths: Paths,
    holders: Vec<RelayId>,
}

impl Choices {
    /// A client that has chosen nothing yet.
    pub fn new() -> Self {
        Self {
            paths: Paths::default(),
            holders: Vec::new(),
        }
    }

    /// It is this time: what has had its time is dropped, and what is missing is drawn. The guard
    /// that is used from now on.
    pub fn refresh(
        &mut self,
        known: &mut KnownRelays,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let cx = &mut known.context(wall, rng);
        self.paths.refresh(cx.known(), cx.rng);
        let guard = self.paths.guards.primary(cx.known()).first().copied()?;
        self.paths.guards.handle_tried(cx.known(), guard);
        self.paths.guards.handle_built(cx.known(), guard);
        Some(guard)
    }

    /// The pinned relays behind the guard.
    pub fn layer2(&self) -> impl Iterator<Item = RelayId> {
        self.paths.layer2.relays()
    }

    /// Guard, L2 and middle of another circuit that ends at this relay.
    pub fn path(
        &mut self,
        known: &mut KnownRelays,
        wall: WallTime,
        terminal: RelayId,
        rng: &mut dyn CryptoRng,
    ) -> Option<[RelayId; 3]> {
        let cx = &mut known.context(wall, rng);
        let guard = self.paths.guards.primary(cx.known()).first().copied()?;
        let hops = self
            .paths
            .choose(cx.known(), guard, false, Some(terminal), cx.rng)?;
        Some(hops.map(|hop| hop.relay))
    }

    /// The relays that hold the mailboxes of its inbox, which is made when this is first called.
    pub fn holders(
        &mut self,
        known: &mut KnownRelays,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> &[RelayId] {
        let cx = &mut known.context(wall, rng);
        while self.holders.len() < cx.network.params.mailboxes
            && let Some(relay) = self
                .paths
                .draw_holder(cx.known(), &self.holders, [], cx.rng)
        {
            self.holders.push(relay);
        }
        self.paths.avoid_holders(self.holders.iter().copied());
        &self.holders
    }
}

impl Default for Choices {
    fn default() -> Self {
        Self::new()
    }
}
