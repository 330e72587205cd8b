//! Dials that see whether a relay is where it says it is, and the addresses that have had theirs
//! (docs/protocol.md §8.7, §8.8).

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::RelayId;
use crate::limits::RECEIPT_PORTS_MAX;
use crate::network::{AddressGroups, Cap, Group, Network};
use crate::time::Instant;

/// Names a dial: no two in flight have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeId {
    /// For a relay that asks for a receipt.
    Receipt(u64),
    /// To see whether others' receipts are true.
    SpotCheck(u64),
}

/// A dial: whether this relay answers at this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Whom to expect.
    pub relay: RelayId,
    /// Where.
    pub address: SocketAddr,
}

/// The outcome of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// The relay proved its identity there.
    There,
    /// It did not.
    Nobody,
    /// Nothing was found out, for a reason on this machine.
    Unknown,
}

impl From<bool> for Probed {
    /// By whether it was there.
    fn from(is_there: bool) -> Self {
        if is_there { Self::There } else { Self::Nobody }
    }
}

/// Addresses that get nothing more for now, few of each group.
#[derive(Debug, Default)]
pub(super) struct Places {
    slots: BTreeMap<Place, Slot>,
    by_end: BTreeSet<(Instant, Place)>,
    /// The IPs of each group that have some, and how many: one that has many ports takes no more room
    /// from its neighbours than one that has one.
    ips: BTreeMap<Group, BTreeMap<IpAddr, u32>>,
}

/// How an address is taken.
#[derive(Debug, Clone, Copy)]
struct Slot {
    until: Instant,
    /// Whether it takes a place in its groups.
    counts: bool,
}

/// One address, whichever way it is written: v4-mapped v6 is v4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(SocketAddr);

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl Places {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether this address gets nothing more for now.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.slots.contains_key(&address.into())
    }

    /// Whether this address, its IP, and each group that it is in, may have one more.
    pub(super) fn has_room(&self, network: &Network, address: SocketAddr) -> bool {
        let place = Place::from(address);
        let ip = place.0.ip();
        let is_below = |limit: Cap| {
            let Some(ips) = self.ips.get(&limit.group) else {
                return true;
            };
            let room = usize::try_from(limit.most).unwrap_or(usize::MAX);
            ips.contains_key(&ip) || ips.len() < room
        };
        let mut limits = network.receipt_limits_of(place.0).into_iter().flatten();
        let ports = Place(SocketAddr::new(ip, 0))..=Place(SocketAddr::new(ip, u16::MAX));
        let has_port = network.params.danger_address_groups == AddressGroups::Port
            || self.slots.range(ports).count() < RECEIPT_PORTS_MAX;
        !self.slots.contains_key(&place) && has_port && limits.all(is_below)
    }

    /// This address gets nothing more until then.
    pub(super) fn take(&mut self, network: &Network, address: SocketAddr, until: Instant) {
        self.hold(
            network,
            address,
            Slot {
                until,
                counts: true,
            },
        );
    }

    /// The same, but it takes no place in its groups.
    pub(super) fn take_beside(&mut self, network: &Network, address: SocketAddr, until: Instant) {
        let counts = false;
        self.hold(network, address, Slot { until, counts });
    }

    fn hold(&mut self, network: &Network, address: SocketAddr, slot: Slot) {
        self.remove(network, address);
        let place = Place::from(address);
        self.slots.insert(place, slot);
        self.by_end.insert((slot.until, place));
        for group in groups_of(network, place).filter(|_| slot.counts) {
            let ips = self.ips.entry(group).or_default();
            *ips.entry(place.0.ip()).or_default() += 1;
        }
    }

    /// This address, if it is taken, stays so until then.
    pub(super) fn extend(&mut self, network: &Network, address: SocketAddr, until: Instant) {
        if let Some(&slot) = self.slots.get(&address.into()) {
            self.hold(network, address, Slot { until, ..slot });
        }
    }

    /// Forgets the addresses whose time is over.
    pub(super) fn expire(&mut self, network: &Network, now: Instant) {
        while let Some(&(until, Place(address))) = self.by_end.first()
            && until <= now
        {
            self.remove(network, address);
        }
    }

    /// Forgets this address.
    pub(super) fn remove(&mut self, network: &Network, address: SocketAddr) {
        let place = Place::from(address);
        let Some(slot) = self.slots.remove(&place) else {
            return;
        };
        self.by_end.remove(&(slot.until, place));
        for group in groups_of(network, place).filter(|_| slot.counts) {
            let Some(ips) = self.ips.get_mut(&group) else {
                continue;
            };
            if let Some(count) = ips.get_mut(&place.0.ip()) {
                *count -= 1;
            }
            ips.retain(|_, count| *count > 0);
            if ips.is_empty() {
                self.ips.remove(&group);
            }
        }
    }
}

/// The groups that a place takes part in.
fn groups_of(network: &Network, place: Place) -> impl Iterator<Item = Group> {
    let limits = network.receipt_limits_of(place.0).into_iter().flatten();
    limits.map(|limit| limit.group)
}

#[cfg(test)]
impl Places {
    /// How many groups have some.
    pub(super) fn group_count(&self) -> usize {
        self.ips.len()
    }
}
