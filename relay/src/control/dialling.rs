//! Links that are being made, and the circuits that wait for them (docs/protocol.md §6.3).
//!
//! An address comes from a signed descriptor or from a seed, never from `Extend`. Requests to
//! extend can't make this relay dial the whole network: dials and waiters are bounded.
//!
//! Each entry is one task of the shell. It stays until that task has reported, whatever other links
//! come up meanwhile: entries are what the bound counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use umbel_proto::ids::RelayId;
use umbel_proto::limits::{EXTEND_DIALS_MAX, EXTEND_WAITERS_MAX};
use umbel_proto::link::LinkOp;
use umbel_proto::message::ExtendRefusal;
use umbel_proto::network::Family;

use super::circuits::CircuitKey;
use super::context::Context;

/// All dials in flight.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    dials: BTreeMap<RelayId, Dial>,
}

/// One dial in flight: of all addresses that are known, since any circuit may wait for its link.
#[derive(Debug, Default)]
pub(super) struct Dial {
    /// Circuits that wait for a link to the relay.
    pub(super) waiters: Vec<CircuitKey>,
    /// The address family that goes first: v4, or v6. `None`: as the relay lists them.
    pub(super) first: Option<Family>,
}

/// No address of this relay is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAddress;

impl Dialling {
    /// Dials a relay, unless that is in flight.
    pub(super) fn dial(&mut self, cx: &mut Context<'_>, relay: RelayId) -> Result<(), NoAddress> {
        let host_ports = host_ports(cx, &relay);
        self.begin(cx, relay, host_ports, None)
    }

    /// Dials a relay, first at its addresses of one family, unless a dial is in flight. The others
    /// follow: a circuit that comes to wait is refused only when none of them answers (§6.3).
    pub(super) fn dial_over(
        &mut self,
        cx: &mut Context<'_>,
        relay: RelayId,
        family: Family,
    ) -> Result<(), NoAddress> {
        let is_over = |address: &&SocketAddr| Family::from(**address) == family;
        let known = cx.view().get(&relay).ok_or(NoAddress)?;
        let of_family = known.addresses.iter().filter(is_over);
        let mut host_ports: Vec<_> = of_family.map(SocketAddr::to_string).collect();
        if host_ports.is_empty() {
            return Err(NoAddress);
        }
        let mut others = self::host_ports(cx, &relay);
        others.retain(|host_port| !host_ports.contains(host_port));
        host_ports.append(&mut others);
        self.begin(cx, relay, host_ports, Some(family))
    }

    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        relay: RelayId,
        host_ports: Vec<String>,
        first: Option<Family>,
    ) -> Result<(), NoAddress> {
        if host_ports.is_empty() {
            return Err(NoAddress);
        }
        self.dials.entry(relay).or_insert_with(|| {
            cx.out.links.push_back(LinkOp::Dial { relay, host_ports });
            Dial {
                waiters: Vec::new(),
                first,
            }
        });
        Ok(())
    }

    /// Lets a circuit wait for a link to this relay; dials it.
    pub(super) fn wait(
        &mut self,
        cx: &mut Context<'_>,
        relay: RelayId,
        circuit: CircuitKey,
    ) -> Result<(), ExtendRefusal> {
        let is_full = match self.dials.get(&relay) {
            Some(dial) => dial.waiters.len() >= EXTEND_WAITERS_MAX,
            None => self.dials.len() >= EXTEND_DIALS_MAX,
        };
        if is_full {
            return Err(ExtendRefusal::Refused);
        }
        self.dial(cx, relay)
            .map_err(|NoAddress| ExtendRefusal::Unreachable)?;
        self.dials.entry(relay).or_default().waiters.push(circuit);
        Ok(())
    }

    /// This circuit no longer waits. The dial continues: others may use the link.
    pub(super) fn forget(&mut self, relay: &RelayId, circuit: CircuitKey) {
        if let Some(dial) = self.dials.get_mut(relay) {
            dial.waiters.retain(|&other| other != circuit);
        }
    }

    /// The relay has linked to this one: those who waited for a link. The dial continues.
    pub(super) fn take_waiters(&mut self, relay: &RelayId) -> Vec<CircuitKey> {
        self.dials
            .get_mut(relay)
            .map(|dial| core::mem::take(&mut dial.waiters))
            .unwrap_or_default()
    }

    /// The dial has reported, a link or a failure.
    pub(super) fn end(&mut self, relay: &RelayId) -> Dial {
        self.dials.remove(relay).unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.dials.clear();
    }

    /// Each circuit that waits for a relay is one that is being extended to it.
    pub(super) fn check(
        &self,
        is_awaiting: impl Fn(CircuitKey, &RelayId) -> bool,
    ) -> Result<(), String> {
        for (relay, dial) in &self.dials {
            for &circuit in &dial.waiters {
                if !is_awaiting(circuit, relay) {
                    return Err(format!("{circuit:?} does not wait for {relay:?}"));
                }
            }
        }
        Ok(())
    }
}

fn host_ports(cx: &Context<'_>, relay: &RelayId) -> Vec<String> {
    let known = cx
        .view()
        .get(relay)
        .or_else(|| cx.book.last_known_of(relay));
    let known = known.into_iter().flat_map(|known| known.host_ports());
    let seeds = cx.config.seeds.iter().filter(|seed| seed.id == *relay);
    known
        .chain(seeds.map(|seed| seed.host_port.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, other};
    use super::*;

    #[test] // §6.3
    fn a_relay_is_dialled_once_for_all_who_wait() {
        let (mut bench, mut dialling) = (Bench::new(1), Dialling::default());
        for circuit in [1, 2, 3].map(CircuitKey) {
            dialling
                .wait(&mut bench.context(), other(0), circuit)
                .unwrap();
        }
        assert_eq!(bench.shared.out.links.len(), 1);
        dialling.forget(&other(0), CircuitKey(2));
        assert_eq!(
            dialling.end(&other(0)).waiters,
            [CircuitKey(1), CircuitKey(3)]
        );
        assert!(dialling.dials.is_empty(), "the dial is over");
    }

    #[test] // §6.3
    fn a_dial_continues_when_nobody_waits_any_more() {
        let (mut bench, mut dialling) = (Bench::new(1), Dialling::default());
        dialling
            .wait(&mut bench.context(), other(0), CircuitKey(1))
            .unwrap();
        dialling.forget(&other(0), CircuitKey(1));
        dialling.dial(&mut bench.context(), other(0)).unwrap();
        assert_eq!(bench.shared.out.links.len(), 1, "it is in flight");
    }

    #[test] // §6.3
    fn a_dial_continues_when_its_relay_has_linked_by_itself() {
        let (mut bench, mut dialling) = (Bench::new(1), Dialling::default());
        let mut wait = |dialling: &mut Dialling, circuit| {
            dialling
                .wait(&mut bench.context(), other(0), circuit)
                .unwrap();
            bench.shared.out.links.len()
        };
        assert_eq!(wait(&mut dialling, CircuitKey(1)), 1);
        assert_eq!(dialling.take_waiters(&other(0)), [CircuitKey(1)]);
        assert_eq!(wait(&mut dialling, CircuitKey(2)), 1, "it is in flight");
        assert_eq!(dialling.end(&other(0)).waiters, [CircuitKey(2)]);
        assert_eq!(wait(&mut dialling, CircuitKey(3)), 2);
    }

    /// Where each dial that was asked for goes.
    fn dialled(bench: &mut Bench) -> Vec<Vec<String>> {
        let ops = bench.shared.out.links.drain(..);
        let host_ports = ops.map(|op| match op {
            LinkOp::Dial { host_ports, .. } => host_ports,
            LinkOp::Close(_) => panic!("nothing is closed"),
        });
        host_ports.collect()
    }

    #[test] // §6.3
    fn a_dial_over_one_family_goes_on_to_the_other_for_circuits_that_wait() {
        let (mut bench, mut dialling) = (Bench::new(0), Dialling::default());
        let relay = bench.learn(1, &["20.1.1.1:9000", "[2a01::1]:9000"]);
        dialling
            .dial_over(&mut bench.context(), relay, Family::V6)
            .unwrap();
        dialling
            .wait(&mut bench.context(), relay, CircuitKey(1))
            .unwrap();
        assert_eq!(
            dialled(&mut bench),
            [["[2a01::1]:9000".to_owned(), "20.1.1.1:9000".to_owned()]]
        );
        let ended = dialling.end(&relay);
        assert_eq!(ended.waiters, [CircuitKey(1)]);
        assert_eq!(ended.first, Some(Family::V6));
    }

    #[test] // §8.7(5)
    fn a_relay_without_an_address_of_the_family_is_not_dialled() {
        let (mut bench, mut dialling) = (Bench::new(0), Dialling::default());
        let relay = bench.learn(1, &["20.1.1.1:9000"]);
        let dialled = dialling.dial_over(&mut bench.context(), relay, Family::V6);
        assert_eq!(dialled, Err(NoAddress));
        assert!(dialling.dials.is_empty() && bench.shared.out.links.is_empty());
    }

    #[test] // §6.2(4)
    fn a_relay_without_an_address_is_unreachable() {
        let (mut bench, mut dialling) = (Bench::new(0), Dialling::default());
        assert_eq!(
            dialling.wait(&mut bench.context(), other(0), CircuitKey(1)),
            Err(ExtendRefusal::Unreachable)
        );
        assert!(dialling.dials.is_empty() && bench.shared.out.links.is_empty());
    }

    #[test]
    fn dials_and_waiters_are_bounded() {
        let most = u16::try_from(EXTEND_DIALS_MAX).unwrap();
        let (mut bench, mut dialling) = (Bench::new(most + 1), Dialling::default());
        let mut wait = |number, circuit| {
            let circuit = CircuitKey(circuit);
            dialling.wait(&mut bench.context(), other(number), circuit)
        };
        for circuit in 0..EXTEND_WAITERS_MAX as u64 {
            wait(0, circuit).unwrap();
        }
        assert_eq!(wait(0, 5000), Err(ExtendRefusal::Refused));
        for number in 1..most {
            wait(number, 0).unwrap();
        }
        assert_eq!(wait(most, 0), Err(ExtendRefusal::Refused));
        wait(1, 1).unwrap();
    }
}
