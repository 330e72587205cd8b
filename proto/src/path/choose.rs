//! How a circuit's relays are drawn: guard, pinned L2, middle (docs/protocol.md §6.4(1)), which is
//! fresh unless L3 are kept (§6.4(18)); and the holders of own mailboxes apart from them (§6.4(14)).
//!
//! Never two of the three in one address group. The terminal is somebody else's choice: it may
//! repeat guard or L2, so that choosing it can't push this client to another guard; it is never the
//! middle, its neighbour.

use std::collections::BTreeSet;

use rand::CryptoRng;

use super::pinned::Shunned;
use super::{Known, Paths};
use crate::directory::choice::{self, Candidates, Exclude};
use crate::directory::{NetView, Roles, VerifiedDescriptor};
use crate::handshake::HopTarget;
use crate::ids::RelayId;
use crate::limits::PATH_RELAYS_MIN;
use crate::network::{Group, Network};

impl Paths {
    /// Three hops that begin with `guard`; the last is another relay than `terminal`, whose
    /// neighbour it will be. `is_alone`: no other guard can be asked for an L2 now.
    pub fn choose(
        &mut self,
        known: Known<'_>,
        guard: RelayId,
        is_alone: bool,
        terminal: Option<RelayId>,
        rng: &mut dyn CryptoRng,
    ) -> Option<[HopTarget; 3]> {
        let shunned = Shunned {
            avoided: &self.avoided,
            holders: &self.holders,
        };
        let layer2 = self.layer2.choose(known, guard, is_alone, shunned, rng)?;
        let path = [guard, layer2];
        let middle = if self.layer3.is_on() {
            let mut before = self.before_layer3(known);
            before.push(guard);
            let layer3 = &mut self.layer3;
            layer3.choose(known, path, &before, terminal, shunned, rng)?
        } else {
            self.fresh_middle(known, path, terminal, rng)?
        };
        let hop = |relay| hop_target(known.view, relay);
        Some([hop(guard)?, hop(layer2)?, hop(middle)?])
    }

    fn fresh_middle(
        &self,
        known: Known<'_>,
        before: [RelayId; 2],
        terminal: Option<RelayId>,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let mut exclude = Exclude::nothing();
        known.exclude_groups_of(&mut exclude, &before);
        terminal.into_iter().for_each(|relay| exclude.relay(relay));
        let unavoided = self.avoided.and_excluded(known.now, &exclude);
        let mut draw = |exclude| known.draw(Roles::NONE, exclude, rng);
        draw(&unavoided).or_else(|| draw(&exclude))
    }

    /// Draws a holder that is none of these: in no AS and no address group of those taken, if that
    /// can be, else in no address group, else any other. Each time first one apart from all guards
    /// and L2: a guard that is the holder, too, would know whose mailbox it is (§6.4(14)).
    pub fn draw_holder(
        &self,
        known: Known<'_>,
        taken: &[RelayId],
        refusing: impl IntoIterator<Item = RelayId>,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let mut others = Exclude::nothing();
        let unwanted = taken.iter().copied().chain(refusing);
        unwanted.for_each(|relay| others.relay(relay));
        let mut apart = others.clone();
        known.exclude_groups_of(&mut apart, taken);
        let mut near = others.clone();
        for descriptor in taken.iter().filter_map(|relay| known.view.get(relay)) {
            near.prefixes_of(descriptor, known.network);
        }
        let kept: Vec<RelayId> = self.kept().collect();
        let choices = [apart, near, others];
        let clear = choices.clone().map(|mut exclude| {
            known.exclude_groups_of(&mut exclude, &kept);
            exclude
        });
        let mut in_order = clear.iter().chain(&choices);
        in_order.find_map(|exclude| known.draw(Roles::HOLDER, exclude, rng))
    }
}

impl Known<'_> {
    /// A relay that may be selected, has these roles and is not excluded.
    pub fn draw(self, roles: Roles, exclude: &Exclude, rng: &mut dyn CryptoRng) -> Option<RelayId> {
        choice::draw(self.candidates, roles, exclude, rng)
    }

    /// Draws one of these relays apart from `holders` if there is one, else any that is not excluded
    /// (§6.4(14)).
    pub(super) fn draw_apart(
        self,
        from: &Candidates,
        exclude: &Exclude,
        holders: &[RelayId],
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let mut apart = exclude.clone();
        self.exclude_groups_of(&mut apart, holders);
        let mut draw = |exclude| choice::draw(from, Roles::NONE, exclude, rng);
        draw(&apart).or_else(|| draw(exclude))
    }

    /// Excludes these relays and all that share an address group or an AS with one of them.
    pub fn exclude_groups_of(self, exclude: &mut Exclude, relays: &[RelayId]) {
        for relay in relays {
            match self.view.get(relay) {
                Some(descriptor) => exclude.groups_of(descriptor, self.network),
                None => exclude.relay(*relay),
            }
        }
    }

    /// Whether these are two relays of the view with no address group in common.
    pub fn are_apart(self, one: RelayId, other: RelayId) -> bool {
        let Some((one, other)) = self.groups(one).zip(self.groups(other)) else {
            return false;
        };
        one.is_disjoint(&other)
    }

    fn groups(self, relay: RelayId) -> Option<BTreeSet<Group>> {
        let descriptor = self.view.get(&relay);
        descriptor.map(|descriptor| descriptor.groups(self.network))
    }
}

/// Whether circuits can be built through these relays: there are enough that share no group.
pub fn are_enough(network: &Network, view: &NetView, candidates: &Candidates) -> bool {
    let (mut apart, mut taken) = (0, BTreeSet::new());
    for (relay, _) in candidates.weights() {
        let groups = view
            .get(&relay)
            .map(|descriptor| descriptor.groups(network));
        if let Some(groups) = groups.filter(|groups| groups.is_disjoint(&taken)) {
            taken.extend(groups);
            apart += 1;
        }
        if apart >= PATH_RELAYS_MIN {
            return true;
        }
    }
    false
}

/// How to extend a circuit to this relay.
pub fn hop_target(view: &NetView, relay: RelayId) -> Option<HopTarget> {
    view.get(&relay).map(VerifiedDescriptor::hop_target)
}

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha20Rng;

    use super::super::testing::{NOW, When, id};
    use super::*;

    #[test] // §6.4(14)
    fn guards_and_l2_are_drawn_apart_from_own_holders() {
        let relays: Vec<u8> = (0..12).collect();
        let holders = [id(1), id(2), id(3), id(4)];
        let draw = |known: Known<'_>, rng: &mut ChaCha20Rng| {
            let mut paths = Paths::default();
            paths.avoid_holders(holders.into_iter());
            paths.refresh(known, rng);
            assert_eq!(paths.kept().count(), 7);
            paths.kept().any(|relay| holders.contains(&relay))
        };
        let is_any = |known: Known<'_>, rng: &mut ChaCha20Rng| (0..20).any(|_| draw(known, rng));
        assert!(!When::at(NOW).act_knowing(&relays, |known, rng| is_any(known, rng)));
    }
}
