//! Which relays a circuit goes through: guard, pinned L2, fresh middle (docs/protocol.md §6.4(1)).
//!
//! Never two of the three in one address group. The terminal is somebody else's choice: it may
//! repeat guard or L2, so that choosing it can't push this client to another guard; it is never the
//! middle, its neighbour.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use umbel_proto::directory::choice::{self, Candidates, Exclude};
use umbel_proto::directory::{NetView, Roles, VerifiedDescriptor};
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::RelayId;
use umbel_proto::network::Network;
use umbel_proto::time::{Instant, WallTime};
use umbel_proto::wire;

use super::chance::Backoff;
use super::guards::{Guard, Guards};
use super::io::StoreOp;
use super::layer2::{Layer2, Pinned};
use super::{Context, SnapshotFault};

/// Distinct address groups that a view must have before circuits are built: one for each hop.
const GROUPS_MIN: usize = 4;
/// Most relays that are remembered for having failed; beyond it those whose rest ends first are
/// forgotten.
const AVOIDED_MAX: usize = 1024;
/// Format of the stored state. The store brings older ones to it.
const STATE_VERSION: u8 = 2;

/// Long-lived choices, and what was learned about relays on the way.
pub(super) struct Paths {
    pub(super) guards: Guards,
    layer2: Layer2,
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

/// Relays that failed lately: not drawn for a while, twice as long each time.
#[derive(Default)]
pub(super) struct Avoided {
    rests: BTreeMap<RelayId, Rest>,
}

/// How long a relay is avoided, and on whose word.
struct Rest {
    backoff: Backoff,
    by: RelayId,
    /// Another said the same since.
    is_agreed: bool,
    /// It is reachable, and suspected of breaking circuits: only an answer clears it.
    is_suspect: bool,
}

impl Paths {
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

    /// Stores what changed.
    pub(super) fn save(&mut self, cx: &mut Context<'_>) {
        let guards_changed = self.guards.take_changed();
        if self.layer2.take_changed() || guards_changed {
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
    /// neighbour it will be.
    pub(super) fn choose(
        &mut self,
        cx: &mut Context<'_>,
        guard: RelayId,
        terminal: Option<RelayId>,
    ) -> Option<Vec<HopTarget>> {
        let layer2 = self
            .layer2
            .choose(cx, guard, &self.holders, &self.avoided)?;
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

impl Avoided {
    /// This relay failed, as far as the word of another shows.
    pub(super) fn on_failed(&mut self, cx: &mut Context<'_>, relay: RelayId, by: RelayId) {
        if self.rests.len() >= AVOIDED_MAX
            && !self.rests.contains_key(&relay)
            && let Some(first) = self
                .rests
                .iter()
                .min_by_key(|(_, rest)| rest.backoff.retry_at())
                .map(|(&relay, _)| relay)
        {
            self.rests.remove(&first);
        }
        let fresh = || Rest {
            backoff: Backoff::default(),
            by,
            is_agreed: false,
            is_suspect: false,
        };
        let rest = self.rests.entry(relay).or_insert_with(fresh);
        rest.is_agreed |= rest.by != by;
        rest.backoff.fail(cx);
    }

    /// Circuits that this relay had a part in break, over this guard.
    pub(super) fn on_suspected(&mut self, cx: &mut Context<'_>, relay: RelayId, guard: RelayId) {
        self.on_failed(cx, relay, guard);
        if let Some(rest) = self.rests.get_mut(&relay) {
            rest.is_suspect = true;
        }
    }

    /// This relay is reachable.
    pub(super) fn on_made(&mut self, relay: RelayId) {
        if self.rests.get(&relay).is_some_and(|rest| !rest.is_suspect) {
            self.rests.remove(&relay);
        }
    }

    /// A circuit that this relay had a part in carried an answer, or nothing speaks against it any
    /// more.
    pub(super) fn on_worked(&mut self, relay: RelayId) {
        self.rests.remove(&relay);
    }

    pub(super) fn is_avoided(&self, relay: RelayId, now: Instant) -> bool {
        self.rests
            .get(&relay)
            .is_some_and(|rest| !rest.backoff.is_due(now))
    }

    /// The excluded relays, and those that failed lately.
    pub(super) fn and_excluded(&self, now: Instant, exclude: &Exclude) -> Exclude {
        let mut exclude = exclude.clone();
        let resting = self
            .rests
            .iter()
            .filter(|(_, rest)| !rest.backoff.is_due(now));
        resting.for_each(|(&relay, _)| exclude.relay(relay));
        exclude
    }

    /// Whether it failed so often in a row, as several others say.
    pub(super) fn has_failed_for_several(&self, relay: RelayId, times: u32) -> bool {
        self.rests
            .get(&relay)
            .is_some_and(|rest| rest.is_agreed && rest.backoff.failures() >= times)
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self, relay: RelayId) -> u32 {
        self.rests
            .get(&relay)
            .map_or(0, |rest| rest.backoff.failures())
    }
}

/// A relay that may be selected, has these roles and is not excluded.
pub(super) fn draw(cx: &mut Context<'_>, roles: Roles, exclude: &Exclude) -> Option<RelayId> {
    choice::draw(cx.candidates, roles, exclude, cx.rng)
}

/// Draws a relay apart from `holders` if there is one, else any that is not excluded (§6.4(14)).
pub(super) fn draw_apart(
    cx: &mut Context<'_>,
    exclude: &Exclude,
    holders: &[RelayId],
) -> Option<RelayId> {
    let mut apart = exclude.clone();
    exclude_groups_of(cx, &mut apart, holders);
    draw(cx, Roles::NONE, &apart).or_else(|| draw(cx, Roles::NONE, exclude))
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
