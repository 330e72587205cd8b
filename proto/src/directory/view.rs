//! The relays that this node knows: for each the newest descriptor it has seen
//! (docs/protocol.md §8.2).
//!
//! Every node holds all descriptors: a node that knew only some could be told apart by which. A
//! descriptor leaves only when it is dead, or is evicted from a full view (§8.2(9)), and never because
//! another node lacks it.

use core::cmp::Ordering;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::age::{Age, Belief};
use super::descriptor::{RelayDescriptor, VerifiedDescriptor, Version};
use super::eviction::{self, Candidate, Reason, Salt, Standing, TurnedAway};
use super::range::IdRange;
use super::receipts::Receipt;
use super::reconcile::RangeFingerprint;
use super::vouchers::{Issuers, Vouchers};
use crate::crypto::kdf::sha256;
use crate::ids::RelayId;
use crate::limits::{
    ADDRESS_HELD_SHARE, RELAYS_A_HOST_MAX, RENEWAL_INTERVAL, RENEWALS_AT_ONCE, SETUP_LEN,
    VIEW_RELAYS_MAX, VIEW_SLACK,
};
use crate::network::{AddressGroups, Group, Host, Network};
use crate::time::{Duration, WallTime};

const FINGERPRINT_DOMAIN: &[u8] = b"umbel view 1";

/// A hash over the hashes of descriptors, in order of their relays' ids (§8.2(2)).
pub type Fingerprint = [u8; 32];

/// All relays that this node knows.
#[derive(Debug)]
pub struct NetView {
    relays: BTreeMap<RelayId, Entry>,
    began_at: Option<WallTime>,
    trust: Trust,
    /// Issuers that vouch for nobody here: their receipts were found to be wrong (§8.8).
    barred: BTreeSet<RelayId>,
    /// Which relay is at which address: the one that was there first.
    at: BTreeSet<(SocketAddr, RelayId)>,
    turned_away: TurnedAway,
    /// This node, which needs no room.
    own: Option<RelayId>,
    /// Worked out when asked for, forgotten at every change.
    digest: OnceLock<Fingerprint>,
    /// The same for the parts of everything.
    parts: OnceLock<Option<Vec<RangeFingerprint>>>,
}

/// Whom a node takes at their word, beyond what receipts say of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// All, where receipts are not needed.
    All,
    /// A client's: those that several sources list. It draws no others (§8.2(11)).
    Listed,
    /// A relay's: those of its setup, and those that it has met. No others vouch (§8.2(12)).
    Met,
}

#[derive(Debug)]
struct Entry {
    descriptor: VerifiedDescriptor,
    age: Age,
    /// Until when the descriptors that were taken of this relay are paid for, by the times at which
    /// it issued them.
    paid_until: WallTime,
    /// It is vouched for no more, since issuers were barred: nobody is told of it (§8.8(6)).
    is_withheld: bool,
}

impl Entry {
    fn new(descriptor: VerifiedDescriptor, age: Age) -> Self {
        let paid_until = descriptor.issued_at;
        Self {
            descriptor,
            age,
            paid_until,
            is_withheld: false,
        }
    }
}

/// The outcome for a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// Its relay was not in the view and now is.
    New,
    /// It took the place of an older one.
    Newer,
    /// The view has it, or a newer one.
    Stale,
    /// The view has no room for it.
    Full,
}

/// A condition that a relay must meet to be drawn, and does not (§8.2(6)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// It has not been known for `selectable_age` yet.
    Young {
        /// From when on it will have been.
        until: WallTime,
    },
    /// Its descriptor expires within `selectable_left`.
    Expiring,
    /// Too few receipts of one of its addresses count.
    Unvouched,
}

impl Default for NetView {
    fn default() -> Self {
        Self::new()
    }
}

impl NetView {
    /// A view of nothing.
    pub const fn new() -> Self {
        Self {
            relays: BTreeMap::new(),
            began_at: None,
            trust: Trust::All,
            barred: BTreeSet::new(),
            at: BTreeSet::new(),
            turned_away: TurnedAway::new(),
            own: None,
            digest: OnceLock::new(),
            parts: OnceLock::new(),
        }
    }

    /// These issuers, and no others, vouch for nobody here (§8.8). Whether that is news.
    pub(super) fn bar(&mut self, issuers: BTreeSet<RelayId>) -> bool {
        let is_news = self.barred != issuers;
        self.barred = issuers;
        is_news
    }

    /// Looks which relays nobody is to be told of, since other issuers are barred now: those that would
    /// be vouched for, had theirs not been (§8.8(6)).
    pub(super) fn withhold(&mut self, network: &Network, wall: WallTime) {
        let is_withheld = |entry: &Entry| {
            let descriptor = &entry.descriptor;
            let mut issuers = descriptor.receipts.iter().map(|receipt| receipt.issuer);
            issuers.any(|issuer| self.is_barred(&issuer))
                && !self.is_own(&descriptor.relay)
                && !self.is_vouched(descriptor, network, wall)
        };
        let of_others = self.relays.iter().map(|(&relay, entry)| {
            let has_changed = entry.is_withheld != is_withheld(entry);
            has_changed.then_some(relay)
        });
        let changed: Vec<RelayId> = of_others.flatten().collect();
        for relay in &changed {
            if let Some(entry) = self.relays.get_mut(relay) {
                entry.is_withheld = !entry.is_withheld;
            }
        }
        if !changed.is_empty() {
            self.forget_fingerprints();
        }
    }

    /// Whom this node takes at their word from now on.
    pub(super) const fn set_trust(&mut self, trust: Trust) {
        self.trust = trust;
    }

    /// Whom this node takes at their word.
    pub(super) const fn trust(&self) -> Trust {
        self.trust
    }

    /// Whether this relay is in the view, and in no doubt that would keep it from draws.
    pub fn believes(&self, relay: &RelayId) -> bool {
        self.age(relay).is_some_and(|age| self.may_be_drawn(age))
    }

    /// Whether this node, a relay, has yet to meet this one of its view, which came after its setup.
    pub fn is_unmet(&self, relay: &RelayId) -> bool {
        let is_unmet = |age: Age| age.is_in_doubt() && !self.is_of_first_hour(age);
        self.trust == Trust::Met && self.age(relay).is_some_and(is_unmet)
    }

    /// How many relays are kept from draws by doubt.
    pub fn doubted_count(&self) -> usize {
        let doubted = self.ages().filter(|age| !self.may_be_drawn(*age));
        doubted.count()
    }

    fn may_be_drawn(&self, age: Age) -> bool {
        self.trust != Trust::Listed || !age.is_in_doubt()
    }

    /// Whether a relay of this age may vouch for others, once it is old enough.
    pub(super) fn may_vouch(&self, age: Age) -> bool {
        self.trust == Trust::All || !age.is_in_doubt()
    }

    /// Whether this issuer is one of them.
    pub(super) fn is_barred(&self, issuer: &RelayId) -> bool {
        self.barred.contains(issuer)
    }

    /// Whether a descriptor may be taken: the rule for everything that a peer sends. While the view
    /// is set up, issuers are not known yet, and their number has to do (§8.2(5)).
    pub fn may_admit(
        &self,
        descriptor: &RelayDescriptor,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        let least = network.params.receipts_min;
        (self.is_setting_up(wall) && descriptor.has_receipts(least))
            || self.is_vouched(descriptor, network, wall)
    }

    /// Whether no other relay holds any of these addresses. Where receipts are not needed, an address
    /// says nothing (§8.2(10)).
    pub fn are_free(
        &self,
        descriptor: &RelayDescriptor,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        self.first_taken(descriptor, network, wall).is_none()
    }

    /// The first of these addresses that other relays keep this one from.
    fn first_taken(
        &self,
        descriptor: &RelayDescriptor,
        network: &Network,
        wall: WallTime,
    ) -> Option<SocketAddr> {
        let mut addresses = descriptor.addresses.iter().copied();
        addresses.find(|&address| self.is_taken(address, &descriptor.relay, network, wall))
    }

    /// Whether other relays keep this one from this address: one holds it, or they leave no room at its
    /// host (§8.2(10)).
    pub fn is_taken(
        &self,
        address: SocketAddr,
        relay: &RelayId,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        self.holder_of(address, relay, network, wall).is_some()
            || self.is_host_full(address, relay, network, wall)
    }

    /// The relay, other than this one, that holds this address.
    pub fn holder_of(
        &self,
        address: SocketAddr,
        relay: &RelayId,
        network: &Network,
        wall: WallTime,
    ) -> Option<RelayId> {
        let mut others = self.relays_at(address).filter(|there| there != relay);
        others.find(|there| self.holds(there, address, network, wall))
    }

    /// Whether other relays leave no room for this one at the host of this address: so many are vouched
    /// for there. Whoever is there already stays. Clients take what relays took, and the setup what comes.
    fn is_host_full(
        &self,
        address: SocketAddr,
        relay: &RelayId,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        let params = &network.params;
        let are_counted =
            params.receipts_min > 0 && params.danger_address_groups != AddressGroups::Port;
        if !are_counted
            || self.trust == Trust::Listed
            || self.is_own(relay)
            || self.is_setting_up(wall)
        {
            return false;
        }
        let host = Host::from(address);
        let known = self.get(relay);
        let mut addresses = known.into_iter().flat_map(|known| &known.addresses);
        if addresses.any(|it| Host::from(*it) == host) {
            return false;
        }
        let (first, last) = host.bounds();
        let (least, most) = (RelayId([0; RelayId::LEN]), RelayId([0xff; RelayId::LEN]));
        let mut there = BTreeSet::new();
        self.at
            .range((first, least)..=(last, most))
            .filter(|(at, it)| self.is_known_at(it, *at, params.receipt_life, network, wall))
            .any(|(_, it)| there.insert(it) && there.len() >= RELAYS_A_HOST_MAX)
    }

    /// Whether this relay of the view holds this address: it was seen there a short time ago.
    fn holds(
        &self,
        relay: &RelayId,
        address: SocketAddr,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        let lately = network.params.receipt_life / ADDRESS_HELD_SHARE;
        self.is_known_at(relay, address, lately, network, wall)
    }

    /// Whether this relay of the view is known to be at this address: enough of those who count vouch
    /// for it, one of them within this time, or it is this node. What setup takes on anyone's word, and
    /// a seed without receipts, could name the addresses of others.
    fn is_known_at(
        &self,
        relay: &RelayId,
        address: SocketAddr,
        within: Duration,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        let least = network.params.receipts_min;
        let Some(descriptor) = self.get(relay).filter(|_| least > 0) else {
            return false;
        };
        // As its receipts spell it.
        let mut addresses = descriptor.addresses.iter();
        let spelled = addresses.find(|it| canonical(**it) == canonical(address));
        let from = wall.before(within);
        let is_vouched = |&address: &SocketAddr| {
            let counted = self.counted_receipts(descriptor, address, network, wall);
            let dates: Vec<WallTime> = counted.map(|it| it.at).collect();
            dates.len() >= least && dates.iter().any(|&at| at >= from)
        };
        self.is_own(relay) || spelled.is_some_and(is_vouched)
    }

    /// The relays of the view that name this address.
    pub fn relays_at(&self, address: SocketAddr) -> impl Iterator<Item = RelayId> {
        let address = canonical(address);
        let (first, last) = (
            (address, RelayId([0; RelayId::LEN])),
            (address, RelayId([0xff; RelayId::LEN])),
        );
        self.at.range(first..=last).map(|&(_, relay)| relay)
    }

    /// Takes a descriptor that was found worth it, of a relay first seen now. In setup it takes the
    /// word of whoever sent it for the relay's age.
    pub fn insert(&mut self, descriptor: VerifiedDescriptor, wall: WallTime) -> Inserted {
        self.begin(wall);
        let setup_at = self.began_at.unwrap_or(wall);
        self.insert_aged(
            descriptor,
            Age {
                first_seen: wall,
                belief: Belief::Given(setup_at),
                there_since: wall,
            },
        )
    }

    /// The view was begun at this time, unless it was before.
    pub(super) fn begin(&mut self, at: WallTime) {
        // A clock that was set back since must not make the setup last longer.
        self.began_at = Some(self.began_at.map_or(at, |began_at| began_at.min(at)));
    }

    /// Whether the setup has begun, however long ago.
    pub(super) const fn has_begun(&self) -> bool {
        self.began_at.is_some()
    }

    /// Whether this is the node itself.
    pub(super) fn is_own(&self, relay: &RelayId) -> bool {
        self.own.as_ref() == Some(relay)
    }

    /// Its setup is still to come: no relay but this node is of it yet. Returns those that may be.
    pub(super) fn begin_anew(&mut self) -> Vec<RelayId> {
        self.began_at = None;
        let own = self.own;
        let others = self
            .relays
            .iter_mut()
            .filter(|(relay, _)| Some(**relay) != own);
        let unconfirmed = others.map(|(&relay, entry)| {
            entry.age = entry.age.anew();
            relay
        });
        unconfirmed.collect()
    }

    /// The ages of its relays.
    pub(super) fn ages(&self) -> impl Iterator<Item = Age> {
        self.relays.values().map(|entry| entry.age)
    }

    /// Takes a descriptor of a relay that has been known for some time.
    pub(super) fn insert_aged(&mut self, descriptor: VerifiedDescriptor, age: Age) -> Inserted {
        let is_full = self.is_overfull();
        let known = self.get(&descriptor.relay);
        let leaves = known.is_some_and(|known| leaves_a_place(known, &descriptor));
        let current = self.age(&descriptor.relay);
        // Whoever is of the setup stays so, wherever it goes.
        let is_to_be_met = leaves && current.is_some_and(|it| self.is_to_be_met(it));
        match self.relays.get_mut(&descriptor.relay) {
            Some(entry) if descriptor.version() <= entry.descriptor.version() => {
                return Inserted::Stale;
            }
            Some(entry) => {
                entry.is_withheld = false;
                let before = core::mem::replace(&mut entry.descriptor, descriptor.clone());
                let has_moved = before.address() != descriptor.address();
                let moved = entry.age.seen_again(age.first_seen, has_moved);
                entry.age = if is_to_be_met {
                    moved.in_doubt()
                } else {
                    moved
                };
                self.leave(&before);
                self.settle(&descriptor);
                self.turned_away.remove(&descriptor.relay);
                self.forget_fingerprints();
                return Inserted::Newer;
            }
            None if is_full => {
                self.turned_away.add(&descriptor, Reason::Full);
                return Inserted::Full;
            }
            None => {}
        }
        self.turned_away.remove(&descriptor.relay);
        self.add(descriptor, age);
        Inserted::New
    }

    /// The age of a relay that comes back, and was last at the places of this descriptor.
    pub(super) fn age_of_back(
        &self,
        age: Age,
        before: &RelayDescriptor,
        descriptor: &RelayDescriptor,
    ) -> Age {
        if leaves_a_place(before, descriptor) && self.is_to_be_met(age) {
            age.in_doubt()
        } else {
            age
        }
    }

    /// Whether this node takes the word of a relay of this age only once it has met it (§8.2(12)).
    fn is_to_be_met(&self, age: Age) -> bool {
        self.trust == Trust::Met && !self.is_of_first_hour(age)
    }

    fn add(&mut self, descriptor: VerifiedDescriptor, age: Age) {
        self.settle(&descriptor);
        self.relays
            .insert(descriptor.relay, Entry::new(descriptor, age));
        self.forget_fingerprints();
    }

    /// A relay names the addresses of its descriptor from now on.
    fn settle(&mut self, descriptor: &RelayDescriptor) {
        let addresses = descriptor.addresses.iter().copied().map(canonical);
        self.at
            .extend(addresses.map(|address| (address, descriptor.relay)));
    }

    /// It names them no more.
    fn leave(&mut self, descriptor: &RelayDescriptor) {
        for address in descriptor.addresses.iter().copied().map(canonical) {
            self.at.remove(&(address, descriptor.relay));
        }
    }

    /// Whether a descriptor that this relay issued at this time may be taken: it issues few in the
    /// long run, and some more at once (§8.2(8)).
    pub(super) fn may_renew(
        &self,
        relay: &RelayId,
        issued_at: WallTime,
        network: &Network,
    ) -> bool {
        let tolerance = renewal_interval(network) * RENEWALS_AT_ONCE;
        let entry = self.relays.get(relay);
        entry.is_none_or(|entry| entry.paid_until <= issued_at + tolerance)
    }

    /// A newer descriptor of this relay was taken.
    pub(super) fn charge(&mut self, relay: &RelayId, network: &Network) {
        if let Some(entry) = self.relays.get_mut(relay) {
            let paid_until = entry.paid_until.max(entry.descriptor.issued_at);
            entry.paid_until = paid_until + renewal_interval(network);
        }
    }

    /// Takes this node's own descriptor, in place of any other of it. It needs no room: it is not
    /// stored, so at a start the view may be full before it comes.
    pub(super) fn insert_own(&mut self, descriptor: VerifiedDescriptor, age: Age) {
        self.own = Some(descriptor.relay);
        if let Some(before) = self.relays.remove(&descriptor.relay) {
            self.leave(&before.descriptor);
        }
        self.add(descriptor, age);
    }

    /// How many relays there are beyond those for which there is room.
    fn surplus(&self) -> usize {
        let own = self.own.filter(|own| self.relays.contains_key(own));
        (self.relays.len() - usize::from(own.is_some())).saturating_sub(VIEW_RELAYS_MAX)
    }

    /// Whether so many relays are too many that they must leave before another can come (§8.2(9)).
    pub(super) fn is_overfull(&self) -> bool {
        self.surplus() >= VIEW_SLACK
    }

    /// Takes out the relays for which there is no room (§8.2(9)).
    pub(super) fn evict(&mut self, network: &Network, wall: WallTime, salt: &Salt) -> Vec<RelayId> {
        let others = self.iter().filter(|it| !self.is_own(&it.relay));
        let candidates = others.map(|descriptor| Candidate {
            relay: descriptor.relay,
            standing: self.standing(descriptor, network, wall),
            group: descriptor.widest_group(network),
        });
        let evicted = eviction::choose(candidates, self.surplus(), salt);
        for relay in &evicted {
            if let Some(entry) = self.relays.remove(relay) {
                self.leave(&entry.descriptor);
                self.turned_away.add(&entry.descriptor, Reason::Full);
            }
        }
        self.forget_fingerprints();
        evicted
    }

    fn standing(
        &self,
        descriptor: &VerifiedDescriptor,
        network: &Network,
        wall: WallTime,
    ) -> Standing {
        let age = network.params.receipt_issuer_age;
        if !self.believes(&descriptor.relay) || !self.is_vouched(descriptor, network, wall) {
            Standing::Unvouched
        } else if self.is_known_for(&descriptor.relay, age, wall) {
            Standing::Old
        } else {
            Standing::Young
        }
    }

    /// Another relay holds an address of this one, which is good and vouched for: it is remembered,
    /// so that nobody sends it again (§8.2(10)).
    pub(super) fn turn_away(
        &mut self,
        descriptor: &VerifiedDescriptor,
        network: &Network,
        wall: WallTime,
    ) {
        if let Some(held) = self.first_taken(descriptor, network, wall) {
            // Of a host without room all ports are one: few of those who came there are remembered.
            let holder = self.holder_of(held, &descriptor.relay, network, wall);
            let place = holder.map_or_else(|| Host::from(held).bounds().0, |_| canonical(held));
            let reason = Reason::AddressTaken(place);
            self.turned_away.add(descriptor, reason);
        }
    }

    /// The newest descriptor of this relay that the view has or has turned away.
    pub fn heard_of(&self, relay: &RelayId) -> Option<Version> {
        let held = self.get(relay).map(VerifiedDescriptor::version);
        held.max(self.turned_away.version(relay))
    }

    /// Whether this version, or a newer one, was turned away or is withheld, and others are told of
    /// none as new.
    pub(super) fn has_refused(&self, relay: &RelayId, version: Version) -> bool {
        let told = self.told(relay).map(VerifiedDescriptor::version);
        told < Some(version) && self.heard_of(relay) >= Some(version)
    }

    /// The same of all relays whose ids are in this range, in order.
    pub(super) fn heard_of_in(&self, range: IdRange) -> impl Iterator<Item = (RelayId, Version)> {
        let held = self.relays.range(range.bounds());
        let held = held.map(|(&relay, entry)| (relay, entry.descriptor.version()));
        let mut held = held.peekable();
        let mut turned_away = self.turned_away.in_range(range).peekable();
        core::iter::from_fn(move || {
            let order = match (held.peek(), turned_away.peek()) {
                (Some((held, _)), Some((other, _))) => held.cmp(other),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            match order {
                Ordering::Less => held.next(),
                Ordering::Greater => turned_away.next(),
                Ordering::Equal => held.next().max(turned_away.next()),
            }
        })
    }

    /// The age of a relay first seen now.
    pub(super) fn age_now(&self, wall: WallTime) -> Age {
        let is_in_doubt = self.trust != Trust::All || self.is_setting_up(wall);
        let setup_at = self.began_at.filter(|_| !is_in_doubt);
        Age {
            first_seen: wall,
            belief: setup_at.map_or(Belief::NotYet, Belief::Given),
            there_since: wall,
        }
    }

    /// Whether the view was begun a short time ago (§8.2(3)).
    pub fn is_setting_up(&self, wall: WallTime) -> bool {
        self.began_at
            .is_none_or(|began_at| wall <= began_at + SETUP_LEN)
    }

    /// Whether a relay of this age came in the hour in which the view was set up.
    pub(super) fn is_of_first_hour(&self, age: Age) -> bool {
        let began_at = self.began_at.unwrap_or_default();
        age.first_seen <= began_at + SETUP_LEN
    }

    /// Several sources list this relay, or it was met: it is in doubt no more, and of the setup if it came
    /// then.
    pub(super) fn confirm(&mut self, relay: &RelayId) {
        let Some(setup_at) = self.began_at else {
            return; // It may be of the setup that is to come.
        };
        if let Some(entry) = self.relays.get_mut(relay) {
            entry.age.belief = Belief::Given(setup_at);
        }
    }

    /// Most sources lack this relay: it is in doubt. Whether that is news.
    pub(super) fn doubt(&mut self, relay: &RelayId) -> bool {
        let entry = self.relays.get_mut(relay);
        let entry = entry.filter(|entry| !entry.age.is_in_doubt());
        if let Some(entry) = entry {
            entry.age = entry.age.in_doubt();
            return true;
        }
        false
    }

    /// Takes out the descriptors that are dead, and those from the future, which a clock that was
    /// wrong has taken: they must not keep out what is valid.
    pub(super) fn take_dead(&mut self, wall: WallTime) -> Vec<(VerifiedDescriptor, Age)> {
        let is_dead = |_: &RelayId, entry: &mut Entry| {
            entry.descriptor.expires_at() <= wall || entry.descriptor.is_future(wall)
        };
        let dead: Vec<_> = self
            .relays
            .extract_if(.., is_dead)
            .map(|(_, entry)| (entry.descriptor, entry.age))
            .collect();
        for (descriptor, _) in &dead {
            self.leave(descriptor);
            self.forget_fingerprints();
        }
        dead
    }

    /// Forgets what it turned away, as far as that is dead or there is room for it now.
    pub(super) fn forget_turned_away(&mut self, wall: WallTime) {
        let room = VIEW_RELAYS_MAX.saturating_sub(self.relays.len());
        self.turned_away.expire(wall, room);
    }

    /// This relay's descriptor.
    pub fn get(&self, relay: &RelayId) -> Option<&VerifiedDescriptor> {
        self.relays.get(relay).map(|entry| &entry.descriptor)
    }

    /// Since when this relay of the view is known.
    pub fn age(&self, relay: &RelayId) -> Option<Age> {
        self.relays.get(relay).map(|entry| entry.age)
    }

    /// When this relay of the view was first seen.
    pub fn first_seen(&self, relay: &RelayId) -> Option<WallTime> {
        self.age(relay).map(|age| age.first_seen)
    }

    /// All descriptors, in order of their relays' ids.
    pub fn iter(&self) -> impl Iterator<Item = &VerifiedDescriptor> + Clone {
        self.relays.values().map(|entry| &entry.descriptor)
    }

    /// The descriptors that others are told of, of relays whose ids are in this range, in order.
    pub fn in_range(&self, range: IdRange) -> impl Iterator<Item = &VerifiedDescriptor> {
        let told = self.relays.range(range.bounds()).map(|(_, entry)| entry);
        let told = told.filter(|entry| !entry.is_withheld);
        told.map(|entry| &entry.descriptor)
    }

    /// This relay's descriptor, if others are told of it.
    pub(super) fn told(&self, relay: &RelayId) -> Option<&VerifiedDescriptor> {
        let entry = self.relays.get(relay);
        let told = entry.filter(|entry| !entry.is_withheld);
        told.map(|entry| &entry.descriptor)
    }

    /// How many relays there are.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// The fingerprint of everything that others are told of. Two views share it exactly when they
    /// tell of the same descriptors.
    pub fn digest(&self) -> Fingerprint {
        *self
            .digest
            .get_or_init(|| fingerprint(self.in_range(IdRange::ALL)))
    }

    /// What it says to whoever holds something else of all: parts with their fingerprints, unless it
    /// holds few. Kept, since anybody may ask (§8.4(7)).
    pub(super) fn parts(&self) -> Option<&[RangeFingerprint]> {
        let parts = || RangeFingerprint::of_parts(self, IdRange::ALL);
        self.parts.get_or_init(parts).as_deref()
    }

    fn forget_fingerprints(&mut self) {
        self.digest = OnceLock::new();
        self.parts = OnceLock::new();
    }

    /// The fingerprint of the descriptors of this range that others are told of (§8.2(2)).
    pub fn fingerprint(&self, range: IdRange) -> Fingerprint {
        if range == IdRange::ALL {
            return self.digest();
        }
        fingerprint(self.in_range(range))
    }

    /// Whether enough relays vouch for each address of this descriptor (§8.2(4)).
    pub fn is_vouched(
        &self,
        descriptor: &RelayDescriptor,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        self.is_vouched_with(descriptor, network, wall, None)
    }

    /// The same if these issuers count as well, which are not in the view.
    pub(super) fn is_vouched_with(
        &self,
        descriptor: &RelayDescriptor,
        network: &Network,
        wall: WallTime,
        others: Option<&Issuers<'_>>,
    ) -> bool {
        let least = network.params.receipts_min;
        let is_enough = |&address: &SocketAddr| {
            let vouchers = self.vouchers(network, address, wall).with(others);
            let mut counted = vouchers.receipts(descriptor, address);
            least == 0 || counted.nth(least - 1).is_some()
        };
        self.seed_vouches(network, &descriptor.relay, wall)
            || descriptor.addresses.iter().all(is_enough)
    }

    /// The receipts of this address of a descriptor that count (§8.2(4)).
    pub fn counted_receipts<'a>(
        &'a self,
        descriptor: &'a RelayDescriptor,
        address: SocketAddr,
        network: &'a Network,
        wall: WallTime,
    ) -> impl Iterator<Item = &'a Receipt> {
        let vouchers = self.vouchers(network, address, wall);
        vouchers.receipts(descriptor, address)
    }

    /// Since when this relay has been at its first address, as far as anyone can tell: by this node's
    /// memory; by the network file, while its seeds vouch; or since `dated`, if this node knows nothing
    /// of that time, and as many receipts as vouch for an address are as old. A node that remembers
    /// needs no dates, and issuers can lie about them (§6.4(17), §9.4(1)).
    pub fn there_since(
        &self,
        descriptor: &VerifiedDescriptor,
        dated: WallTime,
        network: &Network,
        wall: WallTime,
    ) -> WallTime {
        let relay = &descriptor.relay;
        if self.seed_vouches(network, relay, wall) {
            return WallTime::default();
        }
        let seen = self.age(relay).map_or(wall, Age::known_there_since);
        let counted = || self.counted_receipts(descriptor, descriptor.address(), network, wall);
        let as_old = || counted().filter(|it| it.at <= dated).count();
        let least = network.params.receipts_min;
        if least > 0 && self.is_younger(dated) && as_old() >= least {
            seen.min(dated)
        } else {
            seen
        }
    }

    /// Whether this view was begun after this time.
    fn is_younger(&self, than: WallTime) -> bool {
        self.began_at.is_none_or(|began_at| began_at > than)
    }

    /// Whether this relay was at its first address before this time (§9.4(1)). Where there are no
    /// receipts, a newcomer takes all for old.
    pub fn was_there(
        &self,
        descriptor: &VerifiedDescriptor,
        before: WallTime,
        network: &Network,
        wall: WallTime,
    ) -> bool {
        let dated = before.before(Duration::from_secs(1));
        let has_no_dates = network.params.receipts_min == 0 && self.is_younger(dated);
        has_no_dates || self.there_since(descriptor, dated, network, wall) < before
    }

    /// Counts those who vouch for this address.
    pub fn vouchers<'a>(
        &'a self,
        network: &'a Network,
        address: SocketAddr,
        wall: WallTime,
    ) -> Vouchers<'a> {
        Vouchers::new(self, network, address, wall)
    }

    /// Whether this relay is a seed of the network file, and the network still so young that seeds
    /// vouch from the beginning, and are vouched for by the file (§8.2(4)).
    pub fn seed_vouches(&self, network: &Network, relay: &RelayId, wall: WallTime) -> bool {
        network.seeds.iter().any(|seed| seed.id == *relay) && self.do_seeds_vouch(network, wall)
    }

    /// Whether too few relays are known for long enough to do without the seeds (§8.2(4)).
    pub(super) fn do_seeds_vouch(&self, network: &Network, wall: WallTime) -> bool {
        let most = network.params.seeds_vouch_until.saturating_sub(1);
        self.aged_groups(network, wall).nth(most).is_none()
    }

    /// The ASes, or address groups where no AS is known, in which relays have been for as long as an
    /// issuer has to be known, each once: identities are cheap.
    pub(super) fn aged_groups(
        &self,
        network: &Network,
        wall: WallTime,
    ) -> impl Iterator<Item = Group> {
        let mut seen = BTreeSet::new();
        let age = network.params.receipt_issuer_age;
        // Any relay can say that it has moved to an AS of its own.
        let counts = move |it: Age| {
            it.is_at_least(age, wall) && it.is_there_for(age, wall) && self.may_vouch(it)
        };
        let there = self.relays.values().filter(move |entry| counts(entry.age));
        let groups = there.map(|entry| entry.descriptor.widest_group(network));
        groups.filter(move |group| seen.insert(*group))
    }

    /// The relays that may be drawn for a path: known for long enough, not about to expire, vouched
    /// for; a client's, listed by several sources. Nodes that are in touch with the network agree on
    /// them (§8.2).
    pub fn selectable(
        &self,
        network: &Network,
        wall: WallTime,
    ) -> impl Iterator<Item = &VerifiedDescriptor> {
        let is_selectable = move |entry: &&Entry| {
            self.may_be_drawn(entry.age)
                && self.hindrance(&entry.descriptor, network, wall).is_none()
        };
        let selectable = self.relays.values().filter(is_selectable);
        selectable.map(|entry| &entry.descriptor)
    }

    /// What keeps this relay of the view from being selectable, if anything does (§8.2(6)).
    pub fn hindrance(
        &self,
        descriptor: &VerifiedDescriptor,
        network: &Network,
        wall: WallTime,
    ) -> Option<Hindrance> {
        let age = network.params.selectable_age;
        if !self.is_known_for(&descriptor.relay, age, wall) {
            let first_seen = self.first_seen(&descriptor.relay).unwrap_or(wall);
            let until = first_seen + age;
            Some(Hindrance::Young { until })
        } else if descriptor.expires_at() <= wall + network.params.selectable_left {
            Some(Hindrance::Expiring)
        } else if !self.is_vouched(descriptor, network, wall) {
            Some(Hindrance::Unvouched)
        } else {
            None
        }
    }

    /// Whether the view was begun less than this ago: what it says of ages is not known yet.
    pub(super) fn is_younger_than(&self, age: Duration, wall: WallTime) -> bool {
        self.began_at.is_none_or(|began_at| wall < began_at + age)
    }

    /// Whether there is a relay other than this node of which that is true.
    pub(super) fn knows_another(&self, is_it: impl Fn(Age) -> bool) -> bool {
        let mut others = self.relays.iter().filter(|(relay, _)| !self.is_own(relay));
        others.any(|(_, entry)| is_it(entry.age))
    }

    /// Whether the relay has been known for this long, or for as long as there is a view.
    pub(super) fn is_known_for(&self, relay: &RelayId, age: Duration, wall: WallTime) -> bool {
        self.age(relay)
            .is_some_and(|known| known.is_at_least(age, wall))
    }
}

#[cfg(test)]
impl NetView {
    /// There is no room for this one.
    pub(super) fn remember(&mut self, descriptor: &VerifiedDescriptor) {
        self.turned_away.add(descriptor, Reason::Full);
    }

    /// Another relay holds the address of this one.
    pub(super) fn refuse(&mut self, descriptor: &VerifiedDescriptor) {
        let reason = Reason::AddressTaken(descriptor.address());
        self.turned_away.add(descriptor, reason);
    }
}

/// Whether this relay named an IP before that it does not name now.
fn leaves_a_place(before: &RelayDescriptor, now: &RelayDescriptor) -> bool {
    let ip = |address: &SocketAddr| address.ip().to_canonical();
    let mut places = before.addresses.iter().map(ip);
    places.any(|place| now.addresses.iter().all(|it| ip(it) != place))
}

/// A v4 address, however it is written.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Not a sum: hashes can be chosen so that sums collide.
fn fingerprint<'a>(told: impl Iterator<Item = &'a VerifiedDescriptor>) -> Fingerprint {
    let hashes: Vec<u8> = told.flat_map(|descriptor| descriptor.hash().0).collect();
    sha256(&[FINGERPRINT_DOMAIN, &hashes])
}

fn renewal_interval(network: &Network) -> Duration {
    RENEWAL_INTERVAL.min(network.params.republish / 4)
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
