//! Paths: which relays a client keeps for long, and which its circuits go through
//! (docs/protocol.md §6.4).
//!
//! Pure: what is known and the randomness come in, relays and warnings go out. Never knows a link or
//! a circuit: whoever owns these reports what came of them, and says which guard is in use. So
//! clients and simulations choose by the same code.
//!
//! [`Guards`] · [`Layer2`] and [`Layer3`], over `pinned`, what is kept for long · [`Avoided`] whom no draw finds for a while ·
//! `choose` how a path, or a holder, is drawn · [`Trail`] what circuits that failed had in common ·
//! `tally` what is too much.

mod avoided;
mod choose;
mod guards;
mod layer2;
mod layer3;
mod pinned;
mod tally;
mod trail;

#[cfg(test)]
mod testing;

pub use avoided::{Avoided, Word};
pub use choose::{are_enough, hop_target};
pub use guards::{Guards, Stage};
pub use layer2::Layer2;
pub use layer3::Layer3;
pub use trail::Trail;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::directory::NetView;
use crate::directory::choice::Candidates;
use crate::ids::RelayId;
use crate::network::Network;
use crate::time::{Instant, WallTime};
use crate::wire;
use guards::Guard;
use pinned::{Pinned, Shunned};

/// Format of the stored state. The store brings older ones to it.
const STATE_VERSION: u8 = 4;

/// What paths are chosen by, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The client's network.
    pub network: &'a Network,
    /// The relays that it believes in.
    pub view: &'a NetView,
    /// Those of them that may be drawn.
    pub candidates: &'a Candidates,
    /// Those of them that may become guards (§6.4(17)).
    pub guard_candidates: &'a Candidates,
    /// By the monotonic clock.
    pub now: Instant,
    /// By the calendar.
    pub wall: WallTime,
    /// Confirmed time (§1.6): whatever is dropped for its age is dropped by it.
    pub confirmed: WallTime,
    /// Whether the calendar is confirmed as it is.
    pub is_clock_sure: bool,
    /// Whether a source has listed its relays since the client began, or woke: before, whoever is not in
    /// the view may only not be in it yet.
    pub is_view_current: bool,
}

/// What the user is told of the relays that were kept for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// Too many circuits fail through a guard (§6.4(11)).
    GuardFails,
    /// A guard hides relays (§8.3(9b)).
    GuardHides {
        /// Whether another takes its place.
        is_replaced: bool,
    },
    /// An L2 relay refuses too many middles (§6.4(16)).
    L2Refuses,
}

/// Long-lived choices, and what was learned about relays on the way.
///
/// After each batch of `handle_*` and [`Paths::refresh`] drain [`Paths::poll_warning`], then store
/// what [`Paths::take_state`] gives.
#[expect(
    missing_debug_implementations,
    reason = "says which relays know its owner"
)]
#[derive(Default)]
pub struct Paths {
    /// The relays that see the client's address.
    pub guards: Guards,
    /// The pinned relays behind them.
    pub layer2: Layer2,
    /// Those behind L2, if the owner wants any.
    pub layer3: Layer3,
    /// The relays that are not drawn for a while.
    pub avoided: Avoided,
    /// The relays that hold own mailboxes.
    holders: Vec<RelayId>,
}

/// The stored form of the paths.
#[derive(Serialize, Deserialize)]
struct PathsState {
    version: u8,
    guards: Vec<Guard>,
    pinned: Vec<Pinned>,
    /// When guards beyond the primaries were first tried.
    new_at: Vec<WallTime>,
    /// Those in the middle's place.
    layer3: Vec<Pinned>,
}

impl Paths {
    /// As they were stored, without the user's own relay. `None`: this code did not write that.
    pub fn restore(state: &[u8], own_relay: Option<RelayId>) -> Option<Self> {
        let mut state = wire::decode::<PathsState>(state)
            .ok()
            .filter(|state| state.version == STATE_VERSION)?;
        // It may have become one before the user's client knew whose it is (§6.4(13)).
        state.guards.retain(|guard| Some(guard.relay) != own_relay);
        for pinned in [&mut state.pinned, &mut state.layer3] {
            pinned.retain(|pinned| Some(pinned.relay) != own_relay);
        }
        Some(Self {
            guards: Guards::restore(state.guards, state.new_at),
            layer2: Layer2::restore(state.pinned),
            layer3: Layer3::restore(state.layer3),
            avoided: Avoided::default(),
            holders: Vec::new(),
        })
    }

    /// Whether middles are kept for hours, too: full vanguards (§6.4(18)). They are not at first.
    pub fn turn_full_vanguards(&mut self, is_on: bool) {
        self.layer3.turn(is_on);
    }

    /// These relays hold own mailboxes: a guard or L2 beside one would see this client's address
    /// with the times of its mailbox (§6.4(14)).
    pub fn avoid_holders(&mut self, holders: impl Iterator<Item = RelayId> + Clone) {
        if !self.holders.iter().copied().eq(holders.clone()) {
            self.holders = holders.collect();
        }
    }

    /// The relays that holders are drawn apart from: the sampled guards and all pinned L2. L3 are not
    /// among them: they are gone within two days, and there are many (§6.4(18)).
    pub fn kept(&self) -> impl Iterator<Item = RelayId> {
        self.guards.relays().chain(self.layer2.relays())
    }

    /// The relays that L3 are drawn apart from: the primary guards and all pinned L2 (§6.4(18)).
    fn before_layer3(&self, known: Known<'_>) -> Vec<RelayId> {
        let primary = self.guards.primary(known).into_iter();
        primary.chain(self.layer2.relays()).collect()
    }

    /// Draws one more guard; says whether it could.
    pub fn grow_guards(&mut self, known: Known<'_>, rng: &mut dyn CryptoRng) -> bool {
        self.guards.grow(known, &self.holders, rng)
    }

    /// Keeps guards, L2 and L3 complete while the view changes and time passes.
    pub fn refresh(&mut self, known: Known<'_>, rng: &mut dyn CryptoRng) {
        self.guards.refresh(known, &self.holders, rng);
        let primary = self.guards.primary(known);
        let shunned = Shunned {
            avoided: &self.avoided,
            holders: &self.holders,
        };
        self.layer2.refresh(known, &primary, shunned, rng);
        let before = self.before_layer3(known);
        self.layer3.refresh(known, &before, shunned, rng);
    }

    /// What the user is to be told.
    pub fn poll_warning(&mut self) -> Option<Warning> {
        self.guards
            .poll_warning()
            .or_else(|| self.layer2.poll_warning())
    }

    /// What is to be stored because something changed, counts with it; now and then (`are_counts_due`)
    /// also because counts have: a commit for each circuit would be many.
    pub fn take_state(&mut self, are_counts_due: bool) -> Option<Vec<u8>> {
        let changed = [
            self.guards.take_changed(are_counts_due),
            self.layer2.take_changed(are_counts_due),
            self.layer3.take_changed(),
        ];
        if !changed.contains(&true) {
            return None;
        }
        let state = PathsState {
            version: STATE_VERSION,
            guards: self.guards.sample().to_vec(),
            pinned: self.layer2.pinned().to_vec(),
            new_at: self.guards.new_at().to_vec(),
            layer3: self.layer3.pinned().to_vec(),
        };
        Some(wire::encode(&state))
    }
}
