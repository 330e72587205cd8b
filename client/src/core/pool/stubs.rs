//! How circuits begin: stubs that are kept ready (docs/protocol.md §6.4(5)), circuits for one
//! purpose, and the room for both.

use std::collections::BTreeSet;

use umbel_proto::cell::DestroyReason;
use umbel_proto::circuit::RequestCircuit;
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::RelayId;
use umbel_proto::link::LinkId;
use umbel_proto::path::hop_target;

use super::super::circuit::{Circuit, CircuitKey, Isolation};
use super::super::context::Context;
use super::{Acquired, Loss, Pool};

/// Most circuits at once; beyond it an idle one is closed, or the request waits.
const CIRCUITS_MAX: usize = 64;
/// Most circuits being built at once; beyond it requests wait.
const BUILDING_MAX: usize = 12;

impl Pool {
    /// Begins a stub through the guard in use, if there is one, a path, and room.
    pub(super) fn begin_stub(
        &mut self,
        cx: &mut Context<'_>,
        terminal: Option<RelayId>,
    ) -> Acquired {
        let Some((guard, link)) = self.guard_in_use() else {
            return Acquired::Wait;
        };
        if !self.brake.is_due(cx.now) {
            return Acquired::Braked;
        }
        let building = self
            .circuits
            .values()
            .filter(|circuit| !circuit.is_built())
            .count();
        if building >= BUILDING_MAX {
            return Acquired::Busy;
        }
        let is_alone = !self.has_other_guard(cx, guard);
        let chosen = self
            .paths
            .choose(cx.known(), guard, is_alone, terminal, cx.rng);
        let Some([first, layer2, middle]) = chosen else {
            return Acquired::Wait;
        };
        let first = self.first_hop(cx, link, guard).unwrap_or(first);
        self.begin(cx, link, vec![first, layer2, middle], None)
    }

    /// How to begin a circuit over a link: as the view says, which takes in what the peer shows of
    /// itself and whatever is newer (a link may outlive an onion key), or else as the peer itself
    /// said.
    pub(super) fn first_hop(
        &self,
        cx: &Context<'_>,
        link: LinkId,
        relay: RelayId,
    ) -> Option<HopTarget> {
        hop_target(cx.view(), relay).or_else(|| self.links.target_of(link).cloned())
    }

    /// Begins a circuit over these hops, if the link and the pool have room for one more.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        path: Vec<HopTarget>,
        isolation: Option<Isolation>,
    ) -> Acquired {
        if let Some(next_at) = self.links.next_create_at(link).filter(|&at| at > cx.now) {
            self.paced_until = Some(self.paced_until.map_or(next_at, |until| until.min(next_at)));
            return Acquired::Busy;
        }
        if self.circuits.len() >= CIRCUITS_MAX && !self.evict_idle(cx) {
            return Acquired::Busy;
        }
        let Some(first) = path.first() else {
            return Acquired::Wait;
        };
        let is_used = |circ| self.circuits.key_of(link, circ).is_some();
        let Some(circ) = self.links.new_circ_id(link, cx.now, is_used) else {
            return Acquired::Wait;
        };
        let machine = RequestCircuit::create(&cx.network.id, first, cx.rng);
        let params = &cx.network.params;
        let life = if isolation.is_some() {
            params.circuit_dirty
        } else {
            params.circuit_idle
        };
        self.last_key += 1;
        let key = CircuitKey(self.last_key);
        let circuit = Circuit {
            machine,
            link,
            circ,
            path,
            made: 0,
            isolation,
            hop_due_at: Some(cx.now + params.hop_timeout()),
            dirty_at: cx.now + life,
            is_proven: false,
            idle_since: cx.now,
        };
        self.circuits.insert(key, circuit);
        self.flush(cx, key);
        Acquired::Circuit(key)
    }

    /// Makes room for a circuit by closing the one that has been idle for longest.
    fn evict_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self
            .circuits
            .iter()
            .filter(|(_, circuit)| circuit.is_built() && !circuit.is_asked());
        let Some(key) = idle
            .min_by_key(|(_, circuit)| circuit.idle_since)
            .map(|(&key, _)| key)
        else {
            return false;
        };
        self.lose(cx, key, Loss::Closed, Some(DestroyReason::Finished));
        true
    }

    /// Ends circuits past their time, and stubs of a guard that is no longer the one in use.
    pub(super) fn end_spent(&mut self, cx: &mut Context<'_>, due: &BTreeSet<CircuitKey>) {
        let guard_link = self.guard_in_use().map(|(_, link)| link);
        let params = &cx.network.params;
        let is_past =
            |circuit: &Circuit| circuit.hop_due_at.is_none() && circuit.timeout(params) <= cx.now;
        let past = due.iter().copied();
        let mut spent: BTreeSet<CircuitKey> = past
            .filter(|key| self.circuits.get(key).is_some_and(is_past))
            .collect();
        let stubs = self.circuits.stubs();
        let stray = stubs.filter(|(_, stub)| Some(stub.link) != guard_link);
        spent.extend(stray.map(|(key, _)| key));
        for key in spent {
            self.lose(cx, key, Loss::Closed, Some(DestroyReason::Finished));
        }
    }

    /// Keeps clean stubs ready: as many as the network has clients keep, or as are about to be
    /// needed (§6.4(5)).
    pub(super) fn keep_stubs(&mut self, cx: &mut Context<'_>, expected: usize) {
        if !self.stub_backoff.is_due(cx.now) {
            return;
        }
        let mut count = self.circuits.stubs().count();
        let wanted = expected.max(cx.network.params.circuits_ready);
        // Nothing is closed to have one ready.
        while count < wanted && self.circuits.len() < CIRCUITS_MAX {
            let Acquired::Circuit(_) = self.begin_stub(cx, None) else {
                break;
            };
            count += 1;
        }
    }
}
