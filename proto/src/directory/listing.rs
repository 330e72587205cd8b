//! Which relays several sources list, and which they lack (docs/protocol.md §8.2(3), §8.2(11)).
//!
//! A relay of the setup counts as known for any time. By one source's word alone, whoever answers a
//! newcomer first would have its relays drawn at once. So each waits until two sources without a
//! common address group have listed it. A client, who tries no receipts, waits so for all relays, and
//! doubts one again that most of its sources lack.
//!
//! A source is where it was reached. A descriptor may name the address groups of others besides, and
//! so keep these from being sources beside it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::descriptor::RelayDescriptor;
use crate::ids::RelayId;
use crate::limits::{WORDS_BEFORE, WORDS_KEPT_MAX};
use crate::network::{Group, Network};
use crate::wire;

/// A relay that lists others, and the address groups that it was reached in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// The relays that are in doubt, and what sources say of each.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    relays: BTreeMap<RelayId, Entry>,
    next: Mark,
}

#[derive(Debug)]
struct Entry {
    since: Mark,
    words: Words,
}

/// What sources last said of one relay, the latest at the end: at most [`WORDS_KEPT_MAX`], of sources
/// that are all apart. The first ones may be of no source: they stand for what was said before these
/// words were kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Words(Vec<Word>);

#[derive(Debug, Serialize, Deserialize)]
struct Word {
    /// Where the source was reached; nowhere, for a word of no source.
    groups: Vec<Group>,
    lists: bool,
}

impl Words {
    /// Of a relay that was in no doubt until now: that must not hang on the words of a few.
    fn of_believed() -> Self {
        let before = || Word {
            groups: Vec::new(),
            lists: true,
        };
        Self(core::iter::repeat_with(before).take(WORDS_BEFORE).collect())
    }

    /// A source says this now, in place of whatever was said from where it is.
    fn say(&mut self, source: &Source, lists: bool) {
        let is_elsewhere = |word: &Word| word.groups.iter().all(|it| !source.groups.contains(it));
        self.0.retain(is_elsewhere);
        if self.0.len() == WORDS_KEPT_MAX {
            self.0.remove(0);
        }
        let groups = source.groups.iter().copied().collect();
        self.0.push(Word { groups, lists });
    }

    /// Whether two sources list the relay, and more than lack it.
    fn are_for(&self) -> bool {
        let (listing, lacking) = count(self.of_sources());
        listing >= 2 && listing > lacking
    }

    fn of_sources(&self) -> impl Iterator<Item = &Word> {
        self.0.iter().filter(|word| !word.groups.is_empty())
    }

    /// Whether more lack it than list it.
    fn are_against(&self) -> bool {
        let (listing, lacking) = count(self.0.iter());
        lacking > listing
    }
}

/// How many of these words list a relay, and how many lack it.
fn count<'a>(words: impl Iterator<Item = &'a Word>) -> (usize, usize) {
    let (listing, lacking): (Vec<_>, Vec<_>) = words.partition(|word| word.lists);
    (listing.len(), lacking.len())
}

impl Doubts {
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

    /// A relay is in doubt, and nothing was said of it yet.
    pub(super) fn add(&mut self, relay: RelayId) {
        self.insert(relay, Words::default());
    }

    fn insert(&mut self, relay: RelayId, words: Words) -> &mut Entry {
        let since = self.next;
        self.next = Mark(since.0 + 1);
        let entry = Entry { since, words };
        self.relays.entry(relay).insert_entry(entry).into_mut()
    }

    /// A relay is gone, or doubted no more.
    pub(super) fn remove(&mut self, relay: &RelayId) {
        self.relays.remove(relay);
    }

    /// A source lists this relay. If it is in doubt: whether it is no more, since two that are apart
    /// list it, and more than lack it.
    pub(super) fn list(&mut self, source: &Source, relay: &RelayId) -> Option<bool> {
        let entry = self.relays.get_mut(relay)?;
        entry.words.say(source, true);
        let is_settled = entry.words.are_for();
        if is_settled {
            self.relays.remove(relay);
        }
        Some(is_settled)
    }

    /// A source lacks this relay. Whether it is not to be believed in: of the last words, most lack it.
    pub(super) fn lack(&mut self, source: &Source, relay: RelayId) -> bool {
        let entry = match self.relays.get_mut(&relay) {
            Some(entry) => entry,
            None => self.insert(relay, Words::of_believed()),
        };
        entry.words.say(source, false);
        entry.words.are_against()
    }

    /// How many sources list this relay, of those whose words are kept.
    pub(super) fn list_count(&self, relay: &RelayId) -> usize {
        let words = self.relays.get(relay).map(|entry| entry.words.of_sources());
        words.map_or(0, |words| count(words).0)
    }

    /// What was said of this relay, to be stored.
    pub(super) fn words(&self, relay: &RelayId) -> Vec<u8> {
        let entry = self.relays.get(relay);
        entry.map_or_else(Vec::new, |entry| wire::encode(&entry.words))
    }

    /// What was said of this relay before, as it was stored. What can't be read was not said.
    pub(super) fn restore(&mut self, relay: RelayId, words: &[u8]) {
        if let Ok(words) = wire::decode(words) {
            self.insert(relay, words);
        }
    }

    #[cfg(test)]
    pub(super) fn into_relays(self) -> impl Iterator<Item = RelayId> {
        self.relays.into_keys()
    }

    /// Which relays in doubt this listing names.
    pub(super) fn named_by(&self, listing: &Listing) -> Vec<RelayId> {
        let is_named = |(relay, entry): &(&RelayId, &Entry)| {
            entry.since < listing.mark && !listing.lacking.contains(*relay)
        };
        let named = self.relays.iter().filter(is_named);
        named.map(|(&relay, _)| relay).collect()
    }
}
