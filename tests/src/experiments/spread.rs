//! How soon descriptors are where they should be: they are followed from the minute in which their
//! relays issue them.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::directory::NetView;
use umbel_proto::ids::RelayId;
use umbel_proto::time::{Duration, Instant, WallTime};

use crate::{RelayName, World};

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(60);

/// A descriptor that some who should know it don't.
struct Pending {
    relay: RelayName,
    issued_at: WallTime,
    since: Instant,
}

/// Descriptors on their way.
#[derive(Default)]
pub(super) struct Spread {
    newest: BTreeMap<RelayName, WallTime>,
    pending: Vec<Pending>,
    /// When it was last looked: what is new is from after that.
    looked_at: Instant,
    /// Seconds that each took until all had it, or at most a look less.
    pub(super) took: Vec<f64>,
}

impl Spread {
    /// What relays have issued so far is not followed.
    pub(super) fn ignore_all(&mut self, world: &World) {
        self.look(world, |_, _, _| true);
        self.took.clear();
    }

    /// Looks at the descriptors of all relays. `has` says whether all who should know a relay have a
    /// descriptor of it that is no older.
    pub(super) fn look(
        &mut self,
        world: &World,
        has: impl Fn(&World, RelayName, WallTime) -> bool,
    ) {
        let all = (0..world.all_relays().len()).map(RelayName).collect();
        self.look_at(world, &all, has);
    }

    /// Looks at those of these relays.
    pub(super) fn look_at(
        &mut self,
        world: &World,
        relays: &BTreeSet<RelayName>,
        has: impl Fn(&World, RelayName, WallTime) -> bool,
    ) {
        for &name in relays {
            let relay = &world.all_relays()[name.0];
            let own = relay
                .control()
                .and_then(|it| issued_at(it.view(), relay.id));
            if let Some(issued_at) = own
                && self.newest.insert(name, issued_at) != Some(issued_at)
            {
                let since = self.looked_at;
                self.pending.push(Pending {
                    relay: name,
                    issued_at,
                    since,
                });
            }
        }
        self.looked_at = world.now();
        let took = &mut self.took;
        self.pending.retain(|it| {
            let is_up = world.all_relays()[it.relay.0].is_up();
            let is_there = is_up && has(world, it.relay, it.issued_at);
            if is_there {
                took.push(world.now().since(it.since).as_secs_f64());
            }
            is_up && !is_there
        });
    }

    /// Seconds for which those have been on their way that are not there yet.
    pub(super) fn waiting(&self, now: Instant) -> Vec<f64> {
        let pending = self.pending.iter();
        pending
            .map(|it| now.since(it.since).as_secs_f64())
            .collect()
    }
}

/// The time at which a relay issued the descriptor that is in this view.
fn issued_at(view: &NetView, relay: RelayId) -> Option<WallTime> {
    view.get(&relay).map(|known| known.issued_at)
}

/// Whether a relay that is up knows another by a descriptor that is no older.
pub(super) fn knows(world: &World, one: RelayName, other: RelayName, since: WallTime) -> bool {
    let relays = world.all_relays();
    let view = relays[one.0].control().map(|control| control.view());
    let known = view.and_then(|view| issued_at(view, relays[other.0].id));
    known.is_some_and(|at| at >= since)
}

/// All relays that are up.
pub(super) fn all_up(world: &World) -> Vec<RelayName> {
    let relays = world.all_relays().iter().enumerate();
    let up = relays.filter(|(_, relay)| relay.is_up());
    up.map(|(number, _)| RelayName(number)).collect()
}
