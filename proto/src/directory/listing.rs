//! Which relays of a view's setup a second source lists too (docs/protocol.md §8.2(3)).
//!
//! A relay of the setup counts as known for any time. By one source's word alone, whoever answers a
//! newcomer first would have its relays drawn at once. So each waits until two sources without a
//! common address group have listed it.
//!
//! A source is where it was reached. A descriptor may name the address groups of others besides, and
//! so keep these from being sources beside it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::descriptor::RelayDescriptor;
use super::view::NetView;
use crate::ids::RelayId;
use crate::limits::SOURCES_KEPT_MAX;
use crate::network::{Group, Network};

/// A relay that lists others, and the address groups that it was reached in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Who it is.
    pub relay: RelayId,
    /// Where it is.
    pub groups: BTreeSet<Group>,
}

impl Source {
    /// The relay at the other end of a link, which is at this IP. `None` if its descriptor doesn't
    /// say so: what it lists counts for nothing.
    pub fn linked(network: &Network, known: &RelayDescriptor, ip: IpAddr) -> Option<Self> {
        let is_there = |address: &&SocketAddr| address.ip().to_canonical() == ip.to_canonical();
        let addresses = known.addresses.iter().filter(is_there);
        let groups: BTreeSet<Group> = addresses.flat_map(|&it| network.groups_of(it)).collect();
        let relay = known.relay;
        (!groups.is_empty()).then_some(Self { relay, groups })
    }

    /// A relay that was asked through others: they dialled it where its descriptor says.
    pub fn dialled_by_others(network: &Network, known: &RelayDescriptor) -> Self {
        Self {
            relay: known.relay,
            groups: known.groups(network),
        }
    }

    /// Whether these are two relays that were reached in address groups of their own.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        self.relay != other.relay && self.groups.is_disjoint(&other.groups)
    }
}

/// The relays that a source lists, by a reconciliation with it that came to its end: all that the
/// view had when it began, but for those of which the source had nothing as new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Who lists them.
    pub source: RelayId,
    /// What the view had, by [`Book::mark`](super::Book::mark).
    pub mark: Mark,
    /// Of which the source had nothing as new, or nothing but what it has turned away.
    pub lacking: BTreeSet<RelayId>,
}

/// A moment in the life of a view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// The relays of the setup that two sources have not listed yet.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    relays: BTreeMap<RelayId, Entry>,
    next: Mark,
}

#[derive(Debug)]
struct Entry {
    since: Mark,
    /// Who has listed it. No two of them are apart.
    sources: Vec<Arc<Source>>,
}

impl Unconfirmed {
    pub(super) const fn new() -> Self {
        Self {
            relays: BTreeMap::new(),
            next: Mark(0),
        }
    }

    /// What is in the view by now.
    pub(super) const fn mark(&self) -> Mark {
        self.next
    }

    /// A relay came into the view.
    pub(super) fn add(&mut self, relay: RelayId) {
        let (since, sources) = (self.next, Vec::new());
        self.relays.insert(relay, Entry { since, sources });
        self.next = Mark(self.next.0 + 1);
    }

    /// A relay is gone.
    pub(super) fn remove(&mut self, relay: &RelayId) {
        self.relays.remove(relay);
    }

    /// A source lists this relay. Whether two that are apart have now.
    pub(super) fn list(&mut self, view: &NetView, source: &Arc<Source>, relay: &RelayId) -> bool {
        let Some(entry) = self.relays.get_mut(relay) else {
            return false;
        };
        // What it shows of itself says nothing about others.
        if source.relay == *relay || view.get(&source.relay).is_none() {
            return false;
        }
        let is_confirmed = entry.sources.iter().any(|it| it.is_apart_from(source));
        if is_confirmed {
            self.relays.remove(relay);
        } else if entry.sources.len() < SOURCES_KEPT_MAX && !entry.sources.contains(source) {
            entry.sources.push(Arc::clone(source));
        }
        is_confirmed
    }

    #[cfg(test)]
    pub(super) fn into_relays(self) -> impl Iterator<Item = RelayId> {
        self.relays.into_keys()
    }

    /// Which relays this listing names.
    pub(super) fn named_by(&self, listing: &Listing) -> Vec<RelayId> {
        let is_named = |(relay, entry): &(&RelayId, &Entry)| {
            entry.since < listing.mark && !listing.lacking.contains(*relay)
        };
        let named = self.relays.iter().filter(is_named);
        named.map(|(&relay, _)| relay).collect()
    }
}
