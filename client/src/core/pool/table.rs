//! The table of circuits, and which of them have to be looked at.
//!
//! A circuit is looked at when one of its times comes, and once after something was done to it: what
//! a cell costs does not grow with the number of circuits.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::ids::CircId;
use umbel_proto::link::LinkId;
use umbel_proto::network::Params;
use umbel_proto::time::{Due, Instant};

use super::super::circuit::{Circuit, CircuitKey};

/// All circuits of this client.
#[derive(Default)]
pub(super) struct Table {
    by_key: BTreeMap<CircuitKey, Circuit>,
    by_circ: BTreeMap<LinkId, BTreeMap<CircId, CircuitKey>>,
    /// Clean stubs, and circuits that were stubs when these were last asked for.
    stubs: BTreeSet<CircuitKey>,
    due: Due<CircuitKey>,
    /// Something was done to these since they were last looked at.
    touched: BTreeSet<CircuitKey>,
    /// Their times may have changed since they were last worked out.
    unscheduled: BTreeSet<CircuitKey>,
}

impl Table {
    pub(super) fn get(&self, key: &CircuitKey) -> Option<&Circuit> {
        self.by_key.get(key)
    }

    /// A circuit that something is done to.
    pub(super) fn get_mut(&mut self, key: &CircuitKey) -> Option<&mut Circuit> {
        let circuit = self.by_key.get_mut(key)?;
        self.touched.insert(*key);
        self.unscheduled.insert(*key);
        Some(circuit)
    }

    /// All of them; something is done to each.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Circuit> {
        self.touched.extend(self.by_key.keys());
        self.unscheduled.extend(self.by_key.keys());
        self.by_key.values_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&CircuitKey, &Circuit)> {
        self.by_key.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Circuit> {
        self.by_key.values()
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn insert(&mut self, key: CircuitKey, circuit: Circuit) {
        let of_link = self.by_circ.entry(circuit.link).or_default();
        of_link.insert(circuit.circ, key);
        if circuit.is_stub() {
            self.stubs.insert(key);
        }
        self.by_key.insert(key, circuit);
        self.touched.insert(key);
        self.unscheduled.insert(key);
    }

    pub(super) fn remove(&mut self, key: CircuitKey) -> Option<Circuit> {
        let circuit = self.by_key.remove(&key)?;
        if let Some(of_link) = self.by_circ.get_mut(&circuit.link) {
            of_link.remove(&circuit.circ);
            if of_link.is_empty() {
                self.by_circ.remove(&circuit.link);
            }
        }
        self.stubs.remove(&key);
        self.touched.remove(&key);
        self.unscheduled.remove(&key);
        self.due.cancel(&key);
        Some(circuit)
    }

    /// The circuit with this id on this link.
    pub(super) fn key_of(&self, link: LinkId, circ: CircId) -> Option<CircuitKey> {
        self.by_circ.get(&link)?.get(&circ).copied()
    }

    /// Whether there is any circuit on this link.
    pub(super) fn has_any_on(&self, link: LinkId) -> bool {
        self.by_circ.contains_key(&link)
    }

    /// The circuits on this link, in the order in which they began.
    pub(super) fn keys_on(&self, link: LinkId) -> BTreeSet<CircuitKey> {
        let of_link = self.by_circ.get(&link).into_iter().flatten();
        of_link.map(|(_, &key)| key).collect()
    }

    /// The clean stubs.
    pub(super) fn stubs(&mut self) -> impl Iterator<Item = (CircuitKey, &Circuit)> {
        let by_key = &self.by_key;
        self.stubs
            .retain(|key| by_key.get(key).is_some_and(Circuit::is_stub));
        let stubs = self.stubs.iter();
        stubs.filter_map(|&key| Some((key, by_key.get(&key)?)))
    }

    /// The circuits that are due, and those that something was done to since this was last asked.
    pub(super) fn take_due(&mut self, now: Instant) -> BTreeSet<CircuitKey> {
        while let Some(key) = self.due.pop_expired(now) {
            self.touched.insert(key);
            self.unscheduled.insert(key);
        }
        core::mem::take(&mut self.touched)
    }

    /// Works out when circuits are due whose times may have changed.
    pub(super) fn schedule(&mut self, now: Instant, params: &Params) {
        for key in core::mem::take(&mut self.unscheduled) {
            let Some(circuit) = self.by_key.get(&key) else {
                continue;
            };
            // What is overdue was done, or waits for something to be done to it.
            let times = circuit.timeouts(params).filter(|&at| at > now);
            self.due.set_or_cancel(key, times.min());
        }
    }

    /// When a circuit is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.due.next()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::circuit::RequestCircuit;
    use umbel_proto::handshake::{HopTarget, OnionSecret};
    use umbel_proto::ids::{NetworkId, RelayId};
    use umbel_proto::network::Network;
    use umbel_proto::time::Duration;

    use super::super::super::circuit::Isolation;
    use super::*;

    const LINK: LinkId = LinkId(1);

    fn circuit(number: u32, dirty_at: Instant, isolation: Option<Isolation>) -> Circuit {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let first = HopTarget {
            relay: RelayId([1; RelayId::LEN]),
            onion_key: OnionSecret::generate(&mut rng).public(),
        };
        Circuit {
            machine: RequestCircuit::create(&NetworkId([9; 32]), &first, &mut rng),
            link: LINK,
            circ: CircId::new(number).expect("it is not zero"),
            path: vec![first],
            made: 1,
            isolation,
            hop_due_at: None,
            dirty_at,
            is_proven: false,
            idle_since: Instant::default(),
        }
    }

    fn keys(keys: impl IntoIterator<Item = u64>) -> BTreeSet<CircuitKey> {
        keys.into_iter().map(CircuitKey).collect()
    }

    #[test]
    fn a_circuit_is_looked_at_when_it_is_due_and_after_something_was_done_to_it() {
        let params = Network::local().params;
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let mut table = Table::default();
        for number in 1..=64 {
            let dirty_at = at(100 + u64::from(number));
            let sync = Some(Isolation::Sync);
            table.insert(CircuitKey(number.into()), circuit(number, dirty_at, sync));
        }
        assert_eq!(table.take_due(at(1)).len(), 64, "they are new");
        table.schedule(at(1), &params);
        assert_eq!(table.take_due(at(50)), keys([]));
        assert_eq!(table.timeout(), Some(at(101)));
        table.get_mut(&CircuitKey(7)).unwrap().dirty_at = at(60);
        table.schedule(at(50), &params);
        assert_eq!(table.timeout(), Some(at(60)));
        assert_eq!(table.take_due(at(50)), keys([7]));
        assert_eq!(table.take_due(at(60)), keys([7]));
        assert_eq!(table.take_due(at(102)), keys([1, 2]));
        table.schedule(at(102), &params);
        assert_eq!(table.timeout(), Some(at(103)), "what is overdue waits");
    }

    #[test]
    fn a_circuit_that_is_gone_is_nowhere() {
        let mut table = Table::default();
        table.insert(CircuitKey(1), circuit(8, Instant::default(), None));
        table.insert(CircuitKey(2), circuit(9, Instant::default(), None));
        let circ = CircId::new(8).unwrap();
        assert_eq!(table.key_of(LINK, circ), Some(CircuitKey(1)));
        table.get_mut(&CircuitKey(2)).unwrap().isolation = Some(Isolation::Sync);
        let stubs: Vec<CircuitKey> = table.stubs().map(|(key, _)| key).collect();
        assert_eq!(stubs, [CircuitKey(1)], "the other is bound");
        assert_eq!(table.keys_on(LINK), keys([1, 2]));
        assert!(table.remove(CircuitKey(1)).is_some() && table.remove(CircuitKey(1)).is_none());
        assert!(table.has_any_on(LINK) && table.key_of(LINK, circ).is_none());
        table.remove(CircuitKey(2));
        assert!(!table.has_any_on(LINK) && table.stubs().count() == 0);
        assert_eq!(table.take_due(Instant::default()), keys([]));
    }
}
