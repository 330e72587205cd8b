//! Which relays of a view's setup a second source lists too (docs/protocol.md §8.2(3)).
//!
//! A relay of the setup counts as known for any time. By one source's word alone, whoever answers a
//! newcomer first would have its relays drawn at once. So each waits until two sources without a
//! common address group have listed it.

use std::collections::{BTreeMap, BTreeSet};

use super::view::NetView;
use crate::ids::RelayId;
use crate::network::Network;

/// The relays that a source lists, by a reconciliation with it that came to its end: all that the
/// view had when it began, but for those of which the source had nothing as new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Who lists them.
    pub source: RelayId,
    /// What the view had, by [`Book::mark`](super::Book::mark).
    pub mark: Mark,
    /// Of which the source had nothing as new.
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
    /// Who has listed it.
    source: Option<RelayId>,
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
        let (since, source) = (self.next, None);
        self.relays.insert(relay, Entry { since, source });
        self.next = Mark(self.next.0 + 1);
    }

    /// A relay is gone.
    pub(super) fn remove(&mut self, relay: &RelayId) {
        self.relays.remove(relay);
    }

    /// A source lists this relay. Whether it is the second one.
    pub(super) fn list(
        &mut self,
        (network, view): (&Network, &NetView),
        source: &RelayId,
        relay: &RelayId,
    ) -> bool {
        let (Some(entry), Some(listing)) = (self.relays.get_mut(relay), view.get(source)) else {
            return false;
        };
        if source == relay {
            return false; // what it shows of itself says nothing about others
        }
        let first = entry.source.and_then(|first| view.get(&first));
        let Some(first) = first else {
            entry.source = Some(*source);
            return false;
        };
        let is_apart = first.groups(network).is_disjoint(&listing.groups(network));
        if is_apart {
            self.relays.remove(relay);
        }
        is_apart
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
