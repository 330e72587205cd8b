//! Which relays a circuit goes through: guard, pinned L2, fresh middle (docs/protocol.md §6.4(1)).
//!
//! Never two of the three in one address group. The terminal is somebody else's choice: it may
//! repeat guard or L2, so that choosing it can't push this client to another guard; it is never the
//! middle, its neighbour.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use umbel_proto::directory::choice::{self, Candidates, Exclude};
use umbel_proto::directory::{NetView, Roles, VerifiedDescriptor};
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::RelayId;
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;
use umbel_proto::wire;

use super::avoided::Avoided;
use super::guards::{Guard, Guards};
use super::io::StoreOp;
use super::layer2::{Layer2, Pinned};
use super::{Context, SnapshotFault};

/// Distinct address groups that a view must have before circuits are built: one for each hop.
const GROUPS_MIN: usize = 4;
/// Format of the stored state. The store brings older ones to it.
const STATE_VERSION: u8 = 3;

/// Long-lived choices, and what was learned about relays on the way.
pub(super) struct Paths {
    pub(super) guards: Guards,
    pub(super) layer2: Layer2,
    pub(super) avoided: Avoided,
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
}

impl PathsState {
    fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode::<Self>(bytes)
            .ok()
            .filter(|state| state.version == STATE_VERSION)
    }
}

impl Paths {
    /// Of a client that has chosen nothing yet.
    pub(super) fn empty() -> Self {
        Self {
            guards: Guards::default(),
            layer2: Layer2::default(),
            avoided: Avoided::default(),
            holders: Vec::new(),
        }
    }

    /// As they were stored, without the user's own relay.
    pub(super) fn restore(
        state: Option<&[u8]>,
        own_relay: Option<RelayId>,
    ) -> Result<Self, SnapshotFault> {
        let mut state = match state {
            Some(bytes) => PathsState::decode(bytes).ok_or(SnapshotFault::Paths)?,
            None => PathsState {
                version: STATE_VERSION,
                guards: Vec::new(),
                pinned: Vec::new(),
                new_at: Vec::new(),
            },
        };
        // It may have become one before the user's client knew whose it is (§6.4(13)).
        state.guards.retain(|guard| Some(guard.relay) != own_relay);
        state
            .pinned
            .retain(|pinned| Some(pinned.relay) != own_relay);
        Ok(Self {
            guards: Guards::restore(state.guards, state.new_at),
            layer2: Layer2::restore(state.pinned),
            avoided: Avoided::default(),
            holders: Vec::new(),
        })
    }

    /// These relays hold own mailboxes: a guard or L2 beside one would see this client's address
    /// with the times of its mailbox (§6.4(14)).
    pub(super) fn avoid_holders(&mut self, holders: impl Iterator<Item = RelayId> + Clone) {
        if !self.holders.iter().copied().eq(holders.clone()) {
            self.holders = holders.collect();
        }
    }

    /// The relays that are kept for long: the sampled guards and all pinned L2.
    pub(super) fn kept(&self) -> impl Iterator<Item = RelayId> {
        self.guards.relays().chain(self.layer2.relays())
    }

    /// Draws one more guard; says whether it could.
    pub(super) fn grow_guards(&mut self, cx: &mut Context<'_>) -> bool {
        self.guards.grow(cx, &self.holders)
    }

    /// Keeps guards and L2 complete while the view changes and time passes.
    pub(super) fn refresh(&mut self, cx: &mut Context<'_>) {
        if !cx.is_ready {
            return;
        }
        self.guards.refresh(cx, &self.holders);
        let primary = self.guards.primary(cx);
        self.layer2
            .refresh(cx, &primary, &self.holders, &self.avoided);
    }

    /// Stores what changed, and counts with it; at the end (`is_last`) also counts alone: a commit
    /// for each circuit would be many.
    pub(super) fn save(&mut self, cx: &mut Context<'_>, is_last: bool) {
        let guards_changed = self.guards.take_changed(is_last);
        if self.layer2.take_changed(is_last) || guards_changed {
            let state = PathsState {
                version: STATE_VERSION,
                guards: self.guards.sample().to_vec(),
                pinned: self.layer2.pinned().to_vec(),
                new_at: self.guards.new_at().to_vec(),
            };
            cx.store(StoreOp::PutPaths(wire::encode(&state)));
        }
    }

    /// Three hops that begin with `guard`; the last is another relay than `terminal`, whose
    /// neighbour it will be. `is_alone`: no other guard can be asked for an L2 now.
    pub(super) fn choose(
        &mut self,
        cx: &mut Context<'_>,
        guard: RelayId,
        is_alone: bool,
        terminal: Option<RelayId>,
    ) -> Option<Vec<HopTarget>> {
        let layer2 = self
            .layer2
            .choose(cx, guard, is_alone, &self.holders, &self.avoided)?;
        let mut exclude = Exclude::nothing();
        exclude_groups_of(cx, &mut exclude, &[guard, layer2]);
        terminal.into_iter().for_each(|relay| exclude.relay(relay));
        let unavoided = self.avoided.and_excluded(cx.now, &exclude);
        let middle =
            draw(cx, Roles::NONE, &unavoided).or_else(|| draw(cx, Roles::NONE, &exclude))?;
        [guard, layer2, middle]
            .into_iter()
            .map(|relay| hop_target(cx.view(), relay))
            .collect()
    }
}

/// A relay that may be selected, has these roles and is not excluded.
pub(super) fn draw(cx: &mut Context<'_>, roles: Roles, exclude: &Exclude) -> Option<RelayId> {
    choice::draw(cx.candidates, roles, exclude, cx.rng)
}

/// Draws one of these relays apart from `holders` if there is one, else any that is not excluded
/// (§6.4(14)).
pub(super) fn draw_apart(
    cx: &mut Context<'_>,
    from: &Candidates,
    exclude: &Exclude,
    holders: &[RelayId],
) -> Option<RelayId> {
    let mut apart = exclude.clone();
    exclude_groups_of(cx, &mut apart, holders);
    let mut draw = |exclude| choice::draw(from, Roles::NONE, exclude, &mut *cx.rng);
    draw(&apart).or_else(|| draw(exclude))
}

/// Excludes these relays and all that share an address group or an AS with one of them.
pub(super) fn exclude_groups_of(cx: &Context<'_>, exclude: &mut Exclude, relays: &[RelayId]) {
    for relay in relays {
        match cx.view().get(relay) {
            Some(descriptor) => exclude.groups_of(descriptor, cx.network),
            None => exclude.relay(*relay),
        }
    }
}

/// Whether circuits can be built through these relays: there are enough that share no group.
pub(super) fn are_enough(network: &Network, view: &NetView, candidates: &Candidates) -> bool {
    let (mut apart, mut taken) = (0, BTreeSet::new());
    for (relay, _) in candidates.weights() {
        let groups = view
            .get(&relay)
            .map(|descriptor| descriptor.groups(network));
        if let Some(groups) = groups.filter(|groups| groups.is_disjoint(&taken)) {
            taken.extend(groups);
            apart += 1;
        }
        if apart >= GROUPS_MIN {
            return true;
        }
    }
    false
}

/// How to extend a circuit to this relay.
pub(super) fn hop_target(view: &NetView, relay: RelayId) -> Option<HopTarget> {
    view.get(&relay).map(VerifiedDescriptor::hop_target)
}

/// Whether these are two relays of the view with no address group in common.
pub(super) fn are_apart(cx: &Context<'_>, one: RelayId, other: RelayId) -> bool {
    let groups = |relay| {
        cx.view()
            .get(&relay)
            .map(|descriptor| descriptor.groups(cx.network))
    };
    let Some((one, other)) = groups(one).zip(groups(other)) else {
        return false;
    };
    one.is_disjoint(&other)
}
