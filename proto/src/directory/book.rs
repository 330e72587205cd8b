//! A node's knowledge of relays, and its stored form: the view, since when each relay is known, and
//! last known addresses (docs/protocol.md §8.2).
//!
//! Relays and clients keep the same book. It decides what is taken and what is stored, and touches
//! no store: each change goes out as a [`BookOp`]. Last known addresses are for dialling, with the
//! identity pinned, and for vouching while seeds vouch: no path, ring position or draw ever sees
//! them, since they are not in the view.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::CryptoRng;

use super::age::{Age, Belief};
use super::descriptor::{DescriptorFault, RelayDescriptor, Unverified, VerifiedDescriptor};
use super::eviction::Salt;
use super::listing::{Doubts, Listing, Mark, Source};
use super::view::{Inserted, NetView, Trust};
use super::vouchers::Issuers;
use crate::ids::RelayId;
use crate::limits::{IN_TOUCH_DIVISOR, LAST_KNOWN_LIFE, LAST_KNOWN_MAX, VIEW_RELAYS_MAX};
use crate::network::{Group, Network};
use crate::time::{Duration, WallTime};

/// Everything a node knows of relays.
///
/// After each call drain [`Book::poll_op`].
#[derive(Debug, Default)]
pub struct Book {
    view: NetView,
    /// Relays whose descriptors are dead, or were issued in what is the future by our clock.
    past: BTreeMap<RelayId, Past>,
    /// Until when this node is in touch with the network, or was (§8.2(4)); `None` while it knows nobody
    /// to be in touch with. Worked out at a start and by [`Book::expire`]: issuers come and age meanwhile.
    in_touch_until: Option<WallTime>,
    doubts: Doubts,
    /// Drawn when the view is full for the first time.
    salt: Option<Salt>,
    /// How often the view has changed.
    changes: u64,
    ops: VecDeque<BookOp>,
}

#[derive(Debug)]
struct Past {
    descriptor: VerifiedDescriptor,
    age: Age,
}

impl Past {
    /// The age of its relay, of which this descriptor was seen now.
    fn age_with(&self, descriptor: &VerifiedDescriptor, wall: WallTime) -> Age {
        let has_moved = self.descriptor.address() != descriptor.address();
        self.age.seen_again(wall, has_moved)
    }
}

/// One relay as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookRow {
    /// Its descriptor's bytes, dead or alive.
    pub descriptor: Vec<u8>,
    /// Since when it is known.
    pub age: Age,
}

/// A change to what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BookOp {
    /// Keep this, in place of what there is of the same relay.
    Put {
        /// Which relay.
        relay: RelayId,
        /// What is known of it.
        row: BookRow,
    },
    /// Keep this of what sources say of a relay that is in doubt, in place of what there is; nothing, if
    /// it is empty. Clients' books alone have it: a restart must not make their doubts void (§8.2(11)).
    PutWords {
        /// Of which relay.
        relay: RelayId,
        /// What [`Book::believe_listed_only`] takes.
        words: Vec<u8>,
    },
    /// Forget these, and what sources say of them.
    Remove(Vec<RelayId>),
}

/// A descriptor that was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// The descriptor, which need not have been taken.
    pub descriptor: VerifiedDescriptor,
    /// The outcome.
    pub inserted: Inserted,
}

impl Learned {
    /// Whether the view has changed.
    pub const fn is_news(&self) -> bool {
        matches!(self.inserted, Inserted::New | Inserted::Newer)
    }
}

/// A descriptor that a linked relay showed of itself, and that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The descriptor, which need not have been taken.
    pub descriptor: VerifiedDescriptor,
    /// The outcome.
    pub taken: Result<Inserted, NotLearned>,
}

impl Shown {
    /// Whether the view has changed.
    pub const fn is_news(&self) -> bool {
        matches!(self.taken, Ok(Inserted::New | Inserted::Newer))
    }
}

/// Why a descriptor was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLearned {
    /// The rule that it breaks.
    Fault(DescriptorFault),
    /// Too few relays vouch for it (§8.2(5)).
    Unvouched,
    /// Its relay issues too many (§8.2(8)).
    TooSoon,
    /// It was turned away before (§8.2(9), §8.2(10)).
    TurnedAway,
    /// Another relay is at one of its addresses (§8.2(10)). If it is good and vouched for, it is
    /// remembered as turned away.
    AddressTaken(Option<Box<VerifiedDescriptor>>),
}

impl NotLearned {
    /// Whether whoever passed it on broke a rule: a signature is wrong that every node checks before
    /// it passes a descriptor on (§8.3(6)).
    pub const fn is_forged(&self) -> bool {
        matches!(
            self,
            Self::Fault(DescriptorFault::Signature | DescriptorFault::ReceiptSignature)
        )
    }
}

impl Book {
    /// A book of nothing: from its first descriptor on it is being set up.
    pub const fn new() -> Self {
        Self {
            view: NetView::new(),
            past: BTreeMap::new(),
            in_touch_until: None,
            doubts: Doubts::new(),
            salt: None,
            changes: 0,
            ops: VecDeque::new(),
        }
    }

    /// A book as it was stored, without rows that are no descriptor of this network.
    pub fn restore(
        network: &Network,
        rows: impl IntoIterator<Item = BookRow>,
        wall: WallTime,
    ) -> Self {
        let mut book = Self::new();
        for row in rows {
            book.restore_row(network, &row, wall);
        }
        book.note_touch(network, wall);
        if let Some(began_at) = book.setup_began_at() {
            book.view.begin(began_at);
        }
        book
    }

    /// When the setup began, as far as the ages of relays tell.
    fn setup_began_at(&self) -> Option<WallTime> {
        let confirmed = self.ages().filter_map(Age::setup).min();
        confirmed.or_else(|| self.ages().map(|age| age.first_seen).min())
    }

    /// The ages of all relays, those that are in the view no more included.
    fn ages(&self) -> impl Iterator<Item = Age> {
        let past = self.past.values().map(|past| past.age);
        self.view.ages().chain(past)
    }

    fn restore_row(&mut self, network: &Network, row: &BookRow, wall: WallTime) {
        let Ok(unverified) = Unverified::decode(&row.descriptor) else {
            return;
        };
        let issued_at = unverified.issued_at();
        match unverified.clone().verify(network, wall) {
            Ok(descriptor) => {
                let relay = descriptor.relay;
                if self.view.insert_aged(descriptor, row.age) == Inserted::Full {
                    self.ops.push_back(BookOp::Remove(vec![relay]));
                } else {
                    self.note_doubt(relay, row.age);
                }
            }
            // By our clock, which may be wrong: it is kept, and judged again by `expire`.
            Err(DescriptorFault::Dead | DescriptorFault::Future) => {
                let Ok(descriptor) = unverified.verify(network, issued_at) else {
                    return;
                };
                self.note_doubt(descriptor.relay, row.age);
                self.keep_past(descriptor, row.age);
            }
            Err(_) => {}
        }
    }

    fn note_doubt(&mut self, relay: RelayId, age: Age) {
        if age.is_in_doubt() {
            self.doubts.add(relay);
        }
    }

    /// A relay takes the word of those alone that it has met where they say they are, but for those of its
    /// setup: whoever is invented can't be met, and vouches for nobody (§8.2(12)).
    pub fn believe_met_only(&mut self, network: &Network, wall: WallTime) {
        if network.params.receipts_min == 0 {
            return;
        }
        self.view.set_trust(Trust::Met);
        let past = self.past.iter().map(|(&relay, past)| (relay, past.age));
        let known = self.view.iter().map(|it| it.relay);
        let known = known.filter_map(|relay| Some((relay, self.view.age(&relay)?)));
        let late: Vec<RelayId> = known
            .chain(past)
            .filter(|(_, age)| !self.view.is_of_first_hour(*age))
            .map(|(relay, _)| relay)
            .collect();
        // Nobody's word but one's own settles these.
        late.iter().for_each(|relay| self.doubts.remove(relay));
        self.note_touch(network, wall);
    }

    /// This relay has met another where that says it is.
    pub fn meet(&mut self, relay: &RelayId) {
        if self.view.is_unmet(relay) {
            self.view.confirm(relay);
            self.put(*relay);
        }
    }

    /// This node tries no receipts, as relays do: it is to draw only relays that several sources list,
    /// and to take the word of no others (§8.2(11)). `words` is what sources have said before.
    pub fn believe_listed_only(
        &mut self,
        network: &Network,
        wall: WallTime,
        words: impl IntoIterator<Item = (RelayId, Vec<u8>)>,
    ) {
        // Where receipts are not needed, anybody can be anybody.
        if network.params.receipts_min == 0 {
            return;
        }
        self.view.set_trust(Trust::Listed);
        let buried = self
            .past
            .extract_if(.., |_, past| past.age.was_never_believed());
        let buried: Vec<RelayId> = buried.map(|(relay, _)| relay).collect();
        if !buried.is_empty() {
            buried.iter().for_each(|relay| self.doubts.remove(relay));
            self.ops.push_back(BookOp::Remove(buried));
        }
        for (relay, words) in words {
            if self.view.get(&relay).is_some() || self.past.contains_key(&relay) {
                self.doubts.restore(relay, &words);
            }
        }
        self.note_touch(network, wall);
    }

    /// All relays that this node knows.
    pub const fn view(&self) -> &NetView {
        &self.view
    }

    /// These issuers, and no others, vouch for nobody here: their receipts were found to be wrong
    /// (§8.8). Seeds are an exception while they vouch as seeds. What is in the view stays there, but
    /// others are not told of it if nobody else vouches for it.
    pub fn bar(&mut self, network: &Network, wall: WallTime, issuers: BTreeSet<RelayId>) {
        if self.view.bar(issuers) {
            self.view.withhold(network, wall);
            self.changes += 1;
        }
    }

    /// How often the view has changed since this book was opened: relays came, left, issued anew,
    /// count as known for longer, or were barred. Ages and receipts change with time alone, too: look
    /// again now and then.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes a descriptor that a peer passed on, if it is good, news and vouched for (§8.3(7)). A
    /// `source` that passes on what is good lists its relay, news or not (§8.2(3)).
    ///
    /// That it is no news, or that too few relays vouch for it, is seen before any signature is
    /// checked: there are up to fourteen.
    ///
    /// # Errors
    /// The first rule that it breaks, that too few vouch for it, or that it comes too soon.
    pub fn hear(
        &mut self,
        network: &Network,
        wall: WallTime,
        source: Option<&Source>,
        unverified: Unverified,
        rng: &mut dyn CryptoRng,
    ) -> Result<Learned, NotLearned> {
        let relay = unverified.relay();
        self.make_room(network, wall, rng);
        let learned = self.learn(network, wall, unverified)?;
        if let Some(source) = source {
            self.handle_listed(source, &relay);
        }
        Ok(learned)
    }

    pub(super) fn learn(
        &mut self,
        network: &Network,
        wall: WallTime,
        unverified: Unverified,
    ) -> Result<Learned, NotLearned> {
        if let Some(learned) = self.outdated(&unverified) {
            return Ok(learned);
        }
        match self.refusal(network, wall, &unverified) {
            Some(NotLearned::AddressTaken(_)) => {
                return Err(self.turn_away(network, wall, unverified));
            }
            Some(refusal) => return Err(refusal),
            None => {}
        }
        let descriptor = unverified.verify(network, wall);
        let descriptor = descriptor.map_err(NotLearned::Fault)?;
        Ok(self.take(network, descriptor, wall))
    }

    /// Takes the descriptor that a linked relay showed of itself, if it is good, news and vouched
    /// for. If it is good, it says how to reach that relay, whoever vouches for it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn learn_shown(
        &mut self,
        network: &Network,
        wall: WallTime,
        unverified: Unverified,
        rng: &mut dyn CryptoRng,
    ) -> Result<Shown, DescriptorFault> {
        self.make_room(network, wall, rng);
        if let Some(descriptor) = self.known(&unverified) {
            return Ok(Shown {
                descriptor: descriptor.clone(),
                taken: Ok(Inserted::Stale),
            });
        }
        let is_outdated = self.outdated(&unverified).is_some();
        let refusal = self.refusal(network, wall, &unverified);
        let descriptor = unverified.verify(network, wall)?;
        let taken = match refusal {
            _ if is_outdated => Ok(Inserted::Stale),
            Some(refusal) => Err(refusal),
            None => Ok(self.take(network, descriptor.clone(), wall).inserted),
        };
        Ok(Shown { descriptor, taken })
    }

    /// Remembers a descriptor with another relay's address, unless anybody could have made it up.
    fn turn_away(
        &mut self,
        network: &Network,
        wall: WallTime,
        unverified: Unverified,
    ) -> NotLearned {
        if !self.may_admit(unverified.claims(), network, wall) {
            return NotLearned::AddressTaken(None);
        }
        match unverified.verify(network, wall) {
            Ok(descriptor) => {
                self.view.turn_away(&descriptor, network, wall);
                NotLearned::AddressTaken(Some(Box::new(descriptor)))
            }
            Err(fault) => NotLearned::Fault(fault),
        }
    }

    /// Why a descriptor that is newer than what the view has is not taken, however good it is.
    fn refusal(
        &self,
        network: &Network,
        wall: WallTime,
        unverified: &Unverified,
    ) -> Option<NotLearned> {
        let (relay, claims) = (unverified.relay(), unverified.claims());
        let heard_of = self.view.heard_of(&relay);
        if heard_of.is_some_and(|heard_of| heard_of >= unverified.version()) {
            return Some(NotLearned::TurnedAway);
        }
        if !self.view.may_renew(&relay, unverified.issued_at(), network) {
            return Some(NotLearned::TooSoon);
        }
        if !self.may_admit(claims, network, wall) {
            return Some(NotLearned::Unvouched);
        }
        let are_free = self.view.are_free(claims, network, wall);
        (!are_free).then_some(NotLearned::AddressTaken(None))
    }

    fn may_take(&self, descriptor: &VerifiedDescriptor, network: &Network, wall: WallTime) -> bool {
        self.view.are_free(descriptor, network, wall) && self.may_admit(descriptor, network, wall)
    }

    /// Whether a descriptor may be taken: by the rule of the view, or because relays vouch for it that
    /// were in the view before (§8.2(4)).
    fn may_admit(&self, descriptor: &RelayDescriptor, network: &Network, wall: WallTime) -> bool {
        if self.view.may_admit(descriptor, network, wall) {
            return true;
        }
        let issuers = descriptor.receipts.iter().map(|receipt| receipt.issuer);
        let issuers = self.former_issuers(network, wall, issuers);
        !issuers.is_empty()
            && self
                .view
                .is_vouched_with(descriptor, network, wall, Some(&issuers))
    }

    /// Those of these relays that vouch although they are not in the view: they were, and a node that
    /// comes back can't wait for them (§8.2(4)).
    pub(super) fn former_issuers(
        &self,
        network: &Network,
        wall: WallTime,
        among: impl Iterator<Item = RelayId>,
    ) -> Issuers<'_> {
        // Else relays that fall silent could vouch, and nobody would try what they say.
        let Some(in_touch_until) = self.in_touch_until.filter(|&until| until <= wall) else {
            return Issuers::new();
        };
        let age = network.params.receipt_issuer_age;
        let vouches = |past: &&Past| {
            past.descriptor.expires_at() + LAST_KNOWN_LIFE > in_touch_until
                && past.age.is_at_least(age, past.descriptor.expires_at())
                && self.view.may_vouch(past.age)
        };
        let issuers = among.filter_map(|issuer| {
            let past = self.past.get(&issuer).filter(vouches)?;
            Some((issuer, &past.descriptor))
        });
        issuers.collect()
    }

    /// Keeps a dead descriptor, unless a client has never had more than one source's word for its relay:
    /// that would be renewed between the turns of others, and never be doubted (§8.2(11)).
    fn bury(&mut self, descriptor: VerifiedDescriptor, age: Age) {
        if self.view.trust() == Trust::Listed && age.was_never_believed() {
            self.doubts.remove(&descriptor.relay);
            self.ops.push_back(BookOp::Remove(vec![descriptor.relay]));
        } else {
            self.keep_past(descriptor, age);
        }
    }

    /// Keeps a descriptor that the view does not have.
    fn keep_past(&mut self, descriptor: VerifiedDescriptor, age: Age) {
        self.past.insert(descriptor.relay, Past { descriptor, age });
    }

    /// This moment, for what is in the view when a reconciliation begins.
    pub const fn mark(&self) -> Mark {
        self.doubts.mark()
    }

    /// A source passed on a descriptor of this relay, which need not have been news. Whether it is in
    /// doubt no more: several sources list it (§8.2(3), §8.2(11)).
    pub(super) fn handle_listed(&mut self, source: &Source, relay: &RelayId) -> bool {
        // Until a setup that is to begin anew has begun, nothing can be of it.
        if !self.view.has_begun() || !self.may_speak_of(source, relay) {
            return false;
        }
        let Some(is_settled) = self.doubts.list(source, relay) else {
            return false;
        };
        if is_settled {
            self.view.confirm(relay);
            self.put(*relay);
        }
        self.put_words(*relay);
        is_settled
    }

    /// The same with all that a source lists, by a reconciliation with it; and what it lacks.
    pub fn handle_listing(&mut self, source: &Source, listing: &Listing) {
        for relay in self.doubts.named_by(listing) {
            self.handle_listed(source, &relay);
        }
        if self.view.trust() == Trust::Listed {
            let lacking = listing.lacking.iter();
            lacking.for_each(|relay| self.handle_lacked(source, *relay));
        }
    }

    /// Whether this relay of the view is in no doubt, or two sources list it, whoever lacks it: nobody
    /// has invented it alone.
    pub fn is_listed_twice(&self, relay: &RelayId) -> bool {
        let is_known = self.view.get(relay).is_some();
        is_known && (self.view.believes(relay) || self.doubts.list_count(relay) >= 2)
    }

    /// A source has no descriptor of this relay that is as new, or believes none.
    fn handle_lacked(&mut self, source: &Source, relay: RelayId) {
        if !self.may_speak_of(source, &relay) {
            return;
        }
        if self.doubts.lack(source, relay) && self.view.doubt(&relay) {
            self.put(relay);
        }
        self.put_words(relay);
    }

    /// Whether what a source says of a relay counts: both are in the view, and two.
    fn may_speak_of(&self, source: &Source, relay: &RelayId) -> bool {
        let are_known = [relay, &source.relay].map(|it| self.view.get(it).is_some());
        source.relay != *relay && are_known == [true; 2]
    }

    /// Stores what sources say of a relay.
    fn put_words(&mut self, relay: RelayId) {
        if self.view.trust() == Trust::Listed {
            let words = self.doubts.words(&relay);
            self.ops.push_back(BookOp::PutWords { relay, words });
        }
    }

    /// Most of what is passed on is in the view, byte for byte: that is seen before anything else.
    fn known(&self, unverified: &Unverified) -> Option<&VerifiedDescriptor> {
        let known = self.view.get(&unverified.relay());
        known.filter(|known| known.bytes() == unverified.bytes())
    }

    /// By its claim it is no newer than what the view has. Whoever forged it gains nothing.
    fn outdated(&self, unverified: &Unverified) -> Option<Learned> {
        let known = self.view.get(&unverified.relay())?;
        (unverified.version() <= known.version()).then(|| Learned {
            descriptor: known.clone(),
            inserted: Inserted::Stale,
        })
    }

    /// Takes a descriptor that may be taken, and stores what is news.
    fn take(
        &mut self,
        network: &Network,
        descriptor: VerifiedDescriptor,
        wall: WallTime,
    ) -> Learned {
        let inserted = self.insert(&descriptor, wall);
        if inserted == Inserted::Newer {
            self.view.charge(&descriptor.relay, network);
        }
        let learned = Learned {
            descriptor,
            inserted,
        };
        if learned.is_news() {
            self.put(learned.descriptor.relay);
        }
        learned
    }

    fn insert(&mut self, descriptor: &VerifiedDescriptor, wall: WallTime) -> Inserted {
        self.view.begin(wall);
        let age = self.past.get(&descriptor.relay).map(|past| {
            let age = past.age_with(descriptor, wall);
            self.view.age_of_back(age, &past.descriptor, descriptor)
        });
        match age {
            None => self.insert_new(descriptor, wall),
            Some(age) => {
                let inserted = self.view.insert_aged(descriptor.clone(), age);
                if inserted == Inserted::New {
                    self.past.remove(&descriptor.relay);
                }
                inserted
            }
        }
    }

    fn insert_new(&mut self, descriptor: &VerifiedDescriptor, wall: WallTime) -> Inserted {
        let age = self.view.age_now(wall);
        let inserted = self.view.insert_aged(descriptor.clone(), age);
        // What comes to a relay later is settled by nobody's word but its own (§8.2(12)).
        let is_for_others = self.view.trust() != Trust::Met || self.view.is_setting_up(wall);
        if inserted == Inserted::New && is_for_others {
            self.note_doubt(descriptor.relay, age);
        }
        inserted
    }

    /// Takes this node's own descriptor, in place of whatever there is of it: one that was issued
    /// by a wrong clock must not outlast that. It is not stored and does not start setup: for a
    /// relay that knows no other, setup is still to come (§8.2(3)). Whether it was taken: while too
    /// few relays vouch for it, it is offered to nobody.
    ///
    /// # Errors
    /// The first rule that it breaks: others will not believe it.
    pub fn own(
        &mut self,
        network: &Network,
        wall: WallTime,
        bytes: &[u8],
    ) -> Result<bool, DescriptorFault> {
        let descriptor = Unverified::decode(bytes)?.verify(network, wall)?;
        if !self.may_take(&descriptor, network, wall) {
            return Ok(false);
        }
        let new = Age {
            first_seen: wall,
            belief: Belief::Given(wall),
            there_since: wall,
        };
        let past = self.past.remove(&descriptor.relay);
        let past = past.map(|past| past.age_with(&descriptor, wall));
        let current = self
            .view
            .get(&descriptor.relay)
            .zip(self.view.age(&descriptor.relay));
        let current = current
            .map(|(former, age)| age.seen_again(wall, former.address() != descriptor.address()));
        self.view
            .insert_own(descriptor, current.or(past).unwrap_or(new));
        self.changes += 1;
        Ok(true)
    }

    /// Moves dead descriptors out of the view, and back into it those that our clock no longer
    /// calls dead or of the future. Of descriptors that have been dead by `confirmed` time for
    /// [`LAST_KNOWN_LIFE`], [`LAST_KNOWN_MAX`] are kept; of the others, as many as there is room for: the
    /// clock may be wrong, and who comes back is as old as it was.
    pub fn expire(&mut self, network: &Network, wall: WallTime, confirmed: WallTime) {
        let dead = self.view.take_dead(wall);
        self.view.forget_turned_away(wall);
        self.changes += u64::from(!dead.is_empty());
        for (descriptor, age) in dead {
            self.bury(descriptor, age);
        }
        self.revive(wall);
        self.note_touch(network, wall);
        self.begin_anew_if_unknown(network, wall, confirmed);
        let room = VIEW_RELAYS_MAX
            .saturating_sub(self.view.len())
            .max(LAST_KNOWN_MAX);
        self.forget(network, room, confirmed);
    }

    /// Whether it was away for this long, by time that is confirmed: a clock that jumps begins no setup.
    fn was_away_for(&self, time: Duration, confirmed: WallTime) -> bool {
        self.in_touch_until
            .is_some_and(|until| until + time <= confirmed)
    }

    /// A node is in touch while issuers in a quarter of their ASes are alive (§8.2(4)). Only issuers
    /// count, and an AS counts once: whoever is new, invented, or cheap, and dies in great number, says
    /// nothing of this node.
    fn note_touch(&mut self, network: &Network, wall: WallTime) {
        let age = network.params.receipt_issuer_age;
        let living = self.view.iter().filter_map(|it| {
            let known = self.view.age(&it.relay)?;
            let is_other = !self.view.is_own(&it.relay);
            is_other.then_some((it, known.is_there_for(age, wall), known))
        });
        let dead = self.past.values().filter_map(|past| {
            let until = past.descriptor.expires_at();
            let is_old = past.age.is_there_for(age, until);
            (!past.descriptor.is_future(wall)).then_some((&past.descriptor, is_old, past.age))
        });
        let issuers = living
            .chain(dead)
            .filter(|&(_, is_old, age)| is_old && self.view.may_vouch(age));
        let mut latest = BTreeMap::<Group, WallTime>::new();
        for (descriptor, ..) in issuers {
            let end = latest.entry(descriptor.widest_group(network)).or_default();
            *end = descriptor.expires_at().max(*end);
        }
        let mut ends: Vec<WallTime> = latest.into_values().collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        // Those that had been dead for long by then don't count either.
        let mut count = ends.len();
        self.in_touch_until = loop {
            let place = count.div_ceil(IN_TOUCH_DIVISOR);
            let Some(&until) = place.checked_sub(1).and_then(|place| ends.get(place)) else {
                break None;
            };
            let kept = ends.partition_point(|&end| end + LAST_KNOWN_LIFE > until);
            if kept == count {
                break Some(until);
            }
            count = kept;
        };
    }

    /// A node that was cut off while its view was set up knows nobody who could vouch for others, and one
    /// that was away for as long as an issuer is watched knows too few of those who do by now. Its setup
    /// is still to come (§8.2(3)).
    fn begin_anew_if_unknown(&mut self, network: &Network, wall: WallTime, confirmed: WallTime) {
        let age = network.params.receipt_issuer_age;
        // One that was taken at its word was known, too: nobody's word begins a setup anew.
        let is_known = |it: Age| {
            it.is_doubted_again() || (it.is_at_least(age, wall) && self.view.may_vouch(it))
        };
        // Founders, who know only each other, have nothing to catch up with.
        let is_founder = network.seeds.iter().any(|seed| self.view.is_own(&seed.id));
        if is_founder
            || self.view.is_setting_up(wall)
            || (!self.was_away_for(age, confirmed)
                && (self.view.knows_another(is_known)
                    || self.past.values().any(|past| is_known(past.age))))
        {
            return;
        }
        self.begin_anew();
    }

    /// The setup is still to come, whatever is known: as for one who knows nobody (§8.2(3)).
    pub fn begin_anew(&mut self) {
        let known = self.view.begin_anew();
        for past in self.past.values_mut() {
            past.age = past.age.anew();
        }
        let relays: Vec<RelayId> = known.into_iter().chain(self.past.keys().copied()).collect();
        for relay in relays {
            self.doubts.add(relay);
            self.put_words(relay);
            self.put(relay);
        }
    }

    fn revive(&mut self, wall: WallTime) {
        let is_alive = |_: &RelayId, past: &mut Past| {
            wall < past.descriptor.expires_at() && !past.descriptor.is_future(wall)
        };
        let alive: Vec<Past> = self
            .past
            .extract_if(.., is_alive)
            .map(|(_, past)| past)
            .collect();
        self.changes += u64::from(!alive.is_empty());
        for Past { descriptor, age } in alive {
            let relay = descriptor.relay;
            if self.view.insert_aged(descriptor, age) == Inserted::Full {
                self.doubts.remove(&relay);
                self.ops.push_back(BookOp::Remove(vec![relay]));
            }
        }
    }

    fn forget(&mut self, network: &Network, room: usize, confirmed: WallTime) {
        // As long as nothing was heard, nothing grows older.
        let touched = self
            .in_touch_until
            .map_or(confirmed, |until| until.min(confirmed));
        let is_old = |past: &Past| past.descriptor.expires_at() + LAST_KNOWN_LIFE <= touched;
        let are_many = self.past.len() > LAST_KNOWN_MAX;
        if !are_many || (self.past.len() <= room && !self.past.values().any(is_old)) {
            return;
        }
        let mut forgotten = self.ranked(network).split_off(LAST_KNOWN_MAX);
        let beyond = forgotten.split_off((room - LAST_KNOWN_MAX).min(forgotten.len()));
        forgotten.retain(|relay| self.past.get(relay).is_some_and(is_old));
        forgotten.extend(beyond);
        if !forgotten.is_empty() {
            forgotten.iter().for_each(|relay| {
                self.past.remove(relay);
                self.doubts.remove(relay);
            });
            self.ops.push_back(BookOp::Remove(forgotten));
        }
    }

    /// Relays that are not in the view, and where they were last known to be: at most
    /// [`LAST_KNOWN_MAX`]: the newest of each address group, then the second of each, and so on
    /// (§8.2(7)).
    pub fn last_known(&self, network: &Network) -> impl Iterator<Item = &VerifiedDescriptor> {
        let relays = self.ranked(network).into_iter().take(LAST_KNOWN_MAX);
        relays
            .filter_map(|relay| self.past.get(&relay))
            .map(|past| &past.descriptor)
    }

    /// Where this relay was last known to be, if it is not in the view.
    pub fn last_known_of(&self, relay: &RelayId) -> Option<&VerifiedDescriptor> {
        self.past.get(relay).map(|past| &past.descriptor)
    }

    /// The newest of each address group, then the second newest of each, and so on.
    fn ranked(&self, network: &Network) -> Vec<RelayId> {
        let mut newest_first: Vec<&VerifiedDescriptor> =
            self.past.values().map(|past| &past.descriptor).collect();
        newest_first.sort_by_key(|descriptor| core::cmp::Reverse(descriptor.issued_at));
        let mut counts = BTreeMap::<Group, usize>::new();
        let mut ranked: Vec<(usize, RelayId)> = Vec::with_capacity(newest_first.len());
        for descriptor in newest_first {
            let rank = counts.entry(descriptor.group(network)).or_default();
            ranked.push((*rank, descriptor.relay));
            *rank += 1;
        }
        ranked.sort_by_key(|&(rank, _)| rank);
        ranked.into_iter().map(|(_, relay)| relay).collect()
    }

    /// Once many more relays are in the view than there is room for, lets the surplus go (§8.2(9)).
    fn make_room(&mut self, network: &Network, wall: WallTime, rng: &mut dyn CryptoRng) {
        if !self.view.is_overfull() {
            return;
        }
        let salt = self.salt.get_or_insert_with(|| Salt::generate(rng));
        let evicted = self.view.evict(network, wall, salt);
        for relay in &evicted {
            self.doubts.remove(relay);
        }
        self.changes += 1;
        self.ops.push_back(BookOp::Remove(evicted));
    }

    /// Stores a relay of which something is new.
    fn put(&mut self, relay: RelayId) {
        self.changes += 1;
        let living = self.view.get(&relay).zip(self.view.age(&relay));
        let past = self.past.get(&relay);
        let Some((descriptor, age)) =
            living.or_else(|| past.map(|past| (&past.descriptor, past.age)))
        else {
            return;
        };
        let row = BookRow {
            descriptor: descriptor.bytes().to_vec(),
            age,
        };
        self.ops.push_back(BookOp::Put { relay, row });
    }

    /// The next change to store. Bounded by what was learned since it was last drained.
    pub fn poll_op(&mut self) -> Option<BookOp> {
        self.ops.pop_front()
    }
}

#[cfg(test)]
impl Book {
    /// The view, to be filled past all rules.
    pub(super) const fn view_mut(&mut self) -> &mut NetView {
        &mut self.view
    }

    /// Two sources list all that has come so far.
    pub(super) fn confirm_all(&mut self) {
        let confirmed = core::mem::take(&mut self.doubts).into_relays();
        for relay in confirmed {
            self.view.confirm(&relay);
            self.put(relay);
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
