//! Whether others' receipts are true: some are tried again, and issuers whose receipts are not are
//! believed no more (docs/protocol.md §8.8).
//!
//! A relay that is gone, or has moved, looks like a receipt that was a lie. So a miss counts only where
//! the receipt is young, or of a relay that is new here, two dials failed, and this relay was online
//! meanwhile. One miss proves nothing: an attacker can get receipts and close its port. So an issuer is
//! judged by several ASes, or by a run of misses, and few are barred at once: whoever frames honest
//! issuers can't silence most.
//!
//! Everything is bounded: checks that wait, dials in flight, addresses tried, issuers on record.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::{CryptoRng, RngExt};
use serde::{Deserialize, Serialize};

use super::probe::{Places, Probe, Probed};
use crate::crypto::kdf::sha256;
use crate::directory::descriptor::RelayDescriptor;
use crate::directory::view::{NetView, canonical};
use crate::ids::RelayId;
use crate::limits::{
    CLOCK_SKEW_MAX, ISSUER_BARRED_FOR, ISSUER_CHECKS_KEPT, ISSUER_GROUPS_JUDGED,
    ISSUER_MISSES_IN_A_ROW, ISSUER_MISSES_MAX, ISSUERS_BARRED_MIN, ISSUERS_BARRED_PERCENT,
    ISSUERS_ON_RECORD_MAX, NEWS_SPREAD_MAX, RECEIPT_ADDRESSES_MAX, RECEIPT_PAUSE, SPOT_CHECK_DIALS,
    SPOT_CHECK_FIRST, SPOT_CHECK_ONE_IN, SPOT_CHECK_SECOND, SPOT_CHECK_SETTLE, SPOT_CHECKS_MAX,
    SPOT_DIALS_MAX,
};
use crate::network::{Family, Group, Network};
use crate::time::{Duration, Instant, WallTime};
use crate::wire;

/// Records of another version are left out: they are about the last weeks, and fill again.
const STATE_VERSION: u8 = 2;

/// The facts that checks are decided by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// This relay's network.
    pub network: &'a Network,
    /// The relays it believes in.
    pub view: &'a NetView,
    /// The calendar.
    pub wall: WallTime,
    /// The calendar, as far as it is confirmed.
    pub confirmed: WallTime,
}

impl Facts<'_> {
    /// Since when all can know that another relay than this one is at this address. News takes so
    /// long to be everywhere, and of other addresses than a relay's first this node keeps no times.
    fn held_since(&self, relay: &RelayId, address: SocketAddr) -> Option<WallTime> {
        let holder = self
            .view
            .holder_of(address, relay, self.network, self.wall)?;
        let first = self.view.get(&holder)?.address();
        let is_first = canonical(first) == canonical(address);
        let since = self.view.age(&holder)?.known_there_since() + NEWS_SPREAD_MAX;
        is_first.then_some(since)
    }
}

/// The checks of one relay, and how its issuers stand.
#[derive(Debug)]
pub struct SpotChecks {
    own: RelayId,
    /// From when on what this relay had not heard of is news to all: it has run for as long as news takes
    /// to be everywhere.
    news_from: Instant,
    /// Drawn once: nobody else can tell which relays are tried.
    salt: Option<[u8; 16]>,
    next_check: u64,
    /// Addresses that were tried in the last day.
    tried: Places,
    checks: BTreeMap<u64, Check>,
    records: BTreeMap<RelayId, Record>,
    dials: VecDeque<(u64, Probe)>,
    is_changed: bool,
}

/// One address that is tried.
#[derive(Debug)]
struct Check {
    probe: Probe,
    /// Who vouched for it a short time ago, or should have.
    issuers: Vec<RelayId>,
    missed: u8,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// It is to be dialled at this time.
    Waits(Instant),
    /// It was dialled then, and there is no answer yet.
    InFlight(Instant),
    /// Nobody was there. Whether this relay was online shows when its dead links are closed.
    Missed {
        dialled_at: Instant,
        due_at: Instant,
    },
}

impl State {
    fn is_due(self, now: Instant) -> bool {
        match self {
            Self::Waits(at) => at <= now,
            Self::InFlight(_) => false,
            Self::Missed { due_at, .. } => due_at <= now,
        }
    }
}

/// What is known of an issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Its last checks, the newest last.
    checked: VecDeque<Checked>,
    barred_at: Option<WallTime>,
}

/// The end of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Checked {
    group: [u8; Group::LEN],
    /// The network that one customer of a provider has: v4 /24, v6 /48.
    site: [u8; 6],
    at: WallTime,
    was_there: bool,
}

/// How an issuer stands with this relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuerStanding {
    /// Checks in which the relay was where the issuer had reached it.
    pub found: usize,
    /// Checks in which nobody was there.
    pub missed: usize,
    /// Until when its receipts count for nothing here.
    pub barred_until: Option<WallTime>,
}

impl SpotChecks {
    /// The checks of this relay, with the records that were stored; those that can't be read are
    /// left out.
    pub fn restore(own: RelayId, stored: Option<&[u8]>, now: Instant) -> Self {
        let stored = stored.and_then(|bytes| bytes.split_first());
        let stored = stored.filter(|(version, _)| **version == STATE_VERSION);
        let records = stored.and_then(|(_, records)| wire::decode::<Records>(records).ok());
        let records = records.unwrap_or_default().into_iter();
        Self {
            own,
            news_from: now + NEWS_SPREAD_MAX,
            salt: None,
            next_check: 0,
            tried: Places::default(),
            checks: BTreeMap::new(),
            records: records.take(ISSUERS_ON_RECORD_MAX).collect(),
            dials: VecDeque::new(),
            is_changed: false,
        }
    }

    /// A descriptor was taken into the view: one in twenty of its addresses is tried, if somebody
    /// vouched for it a short time ago. Of a relay that is new to the network, or has moved, somebody did:
    /// if its receipts say otherwise, they are tried as well, or issuers who lie would date them back.
    pub fn handle_taken(
        &mut self,
        now: Instant,
        facts: Facts<'_>,
        descriptor: &RelayDescriptor,
        rng: &mut dyn CryptoRng,
    ) {
        let age = facts.view.age(&descriptor.relay);
        let age = age.filter(|_| self.news_from <= now);
        for &address in &descriptor.addresses {
            // New to this relay, or it has moved there.
            let is_new = age.is_some_and(|age| {
                let has_moved =
                    age.there_since == facts.wall && Some(&address) == descriptor.addresses.first();
                age.first_seen == facts.wall || has_moved
            });
            let is_young = |at: WallTime| is_new || facts.wall.since(at) <= CLOCK_SKEW_MAX * 2;
            self.consider(now, facts, descriptor, (address, is_young), rng);
        }
    }

    /// A descriptor was not taken, since another relay is at one of its addresses: the same, but with
    /// receipts that were given since all could know that that relay is there. Who vouches for
    /// somebody else then has seen them answer there, or lies.
    pub fn handle_turned_away(
        &mut self,
        now: Instant,
        facts: Facts<'_>,
        descriptor: &RelayDescriptor,
        rng: &mut dyn CryptoRng,
    ) {
        for &address in &descriptor.addresses {
            if let Some(since) = facts.held_since(&descriptor.relay, address) {
                self.consider(now, facts, descriptor, (address, |at| at > since), rng);
            }
        }
    }

    /// Tries an address, if it is one in twenty, by those of its receipts whose times count.
    fn consider(
        &mut self,
        now: Instant,
        facts: Facts<'_>,
        descriptor: &RelayDescriptor,
        (address, counts): (SocketAddr, impl Fn(WallTime) -> bool),
        rng: &mut dyn CryptoRng,
    ) {
        if facts.network.params.receipts_min == 0 || descriptor.relay == self.own {
            return;
        }
        self.tried.expire(facts.network, now);
        let receipts = descriptor.receipts.iter();
        let receipts = receipts.filter(|it| it.address == address && counts(it.at));
        let Some(newest) = receipts.clone().map(|it| it.at).max() else {
            return;
        };
        let probe = Probe {
            relay: descriptor.relay,
            address,
        };
        let has_room = self.checks.len() < SPOT_CHECKS_MAX
            && self.tried.len() < RECEIPT_ADDRESSES_MAX
            && self.tried.has_room(facts.network, address);
        if let Some(delay) = self.draw(probe, newest, rng).filter(|_| has_room) {
            self.tried.take(facts.network, address, now + RECEIPT_PAUSE);
            let check = Check {
                probe,
                issuers: receipts.map(|it| it.issuer).collect(),
                missed: 0,
                state: State::Waits(now + delay),
            };
            self.checks.insert(self.next_check, check);
            self.next_check += 1;
        }
    }

    /// After which time this address is tried, if it is one in twenty (§8.8(1)): by a salted hash,
    /// so that a descriptor that is issued over and over is drawn once a day.
    fn draw(
        &mut self,
        probe: Probe,
        newest: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> Option<Duration> {
        let salt = self.salt.get_or_insert_with(|| rng.random());
        let day = newest.as_secs() / RECEIPT_PAUSE.as_secs();
        let hash = sha256(&[
            salt,
            probe.relay.as_bytes(),
            &super::address_bytes(probe.address),
            &day.to_be_bytes(),
        ]);
        let [a, b, c, d, e, f, ..] = hash;
        let is_drawn = u32::from_be_bytes([a, b, c, d]) < u32::MAX / SPOT_CHECK_ONE_IN;
        let share = f64::from(u16::from_be_bytes([e, f])) / f64::from(u16::MAX);
        is_drawn.then(|| SPOT_CHECK_FIRST + SPOT_CHECK_FIRST.mul_f64(9.0 * share))
    }

    /// Does what is due. `is_online(family, except, since)`: whether a link of this address family
    /// with another relay than that one has been up since then.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        facts: Facts<'_>,
        is_online: impl Fn(Family, RelayId, Instant) -> bool,
    ) {
        let due = self.checks.iter().filter(|(_, it)| it.state.is_due(now));
        let due: Vec<u64> = due.map(|(&number, _)| number).collect();
        for number in due {
            self.advance(now, facts, number, &is_online);
        }
    }

    /// Dials, or judges a miss (§8.8(3)). A check ends without a verdict while this relay is not
    /// online, but not because the other claims to be elsewhere by now: that is the other's choice.
    fn advance(
        &mut self,
        now: Instant,
        facts: Facts<'_>,
        number: u64,
        is_online: &impl Fn(Family, RelayId, Instant) -> bool,
    ) {
        let has_room = self.in_flight() < SPOT_DIALS_MAX;
        let Some(mut check) = self.checks.remove(&number) else {
            return;
        };
        let Probe { relay, address } = check.probe;
        let family = Family::from(address);
        match check.state {
            State::Waits(_) if !has_room => {}
            State::Waits(_) if is_online(family, relay, now) => {
                check.state = State::InFlight(now);
                self.dials.push_back((number, check.probe));
            }
            State::Missed { dialled_at, .. } if is_online(family, relay, dialled_at) => {
                if check.missed >= SPOT_CHECK_DIALS {
                    return self.record(facts, &check.issuers, address, false);
                }
                check.state = State::Waits(now + SPOT_CHECK_SECOND);
            }
            State::Waits(_) | State::Missed { .. } => return,
            State::InFlight(_) => {}
        }
        self.checks.insert(number, check);
    }

    /// A dial of a check is over.
    pub fn handle_probed(&mut self, now: Instant, facts: Facts<'_>, number: u64, probed: Probed) {
        match probed {
            Probed::There => {
                if let Some(check) = self.checks.remove(&number) {
                    self.record(facts, &check.issuers, check.probe.address, true);
                }
            }
            Probed::Nobody => self.miss(now, number),
            // This machine's own fault says nothing about anybody.
            Probed::Unknown => {
                self.checks.remove(&number);
            }
        }
    }

    fn miss(&mut self, now: Instant, number: u64) {
        if let Some(check) = self.checks.get_mut(&number)
            && let State::InFlight(dialled_at) = check.state
        {
            check.missed += 1;
            check.state = State::Missed {
                dialled_at,
                due_at: now + SPOT_CHECK_SETTLE,
            };
        }
    }

    /// Adds a verdict to the record of each issuer in the view (§8.8(4)).
    fn record(
        &mut self,
        facts: Facts<'_>,
        issuers: &[RelayId],
        address: SocketAddr,
        was_there: bool,
    ) {
        let checked = Checked {
            group: *facts.network.widest_group_of(address).as_bytes(),
            site: site_of(address.ip()),
            at: facts.confirmed,
            was_there,
        };
        for issuer in issuers {
            // The receipts of others count for nothing, and anyone could invent these issuers.
            if facts.view.get(issuer).is_none() {
                continue;
            }
            self.make_room(issuer);
            let record = self.records.entry(*issuer).or_default();
            record.add(checked.clone());
            let is_guilty = record.barred_at.is_none() && record.is_guilty();
            self.is_changed = true;
            if is_guilty
                && self.make_room_for_bar(facts, issuer)
                && let Some(record) = self.records.get_mut(issuer)
            {
                record.barred_at = Some(checked.at);
            }
        }
    }

    /// Whether this issuer may be barred. If issuers of as many groups are as may be, those of the group
    /// with the fewest misses are released for it, unless that has as many (§8.8(5)).
    fn make_room_for_bar(&mut self, facts: Facts<'_>, issuer: &RelayId) -> bool {
        let Facts {
            network,
            view,
            wall,
            ..
        } = facts;
        let groups = view.aged_groups(network, wall).count();
        let most = ISSUERS_BARRED_MIN.max(groups * ISSUERS_BARRED_PERCENT / 100);
        let group_of = |issuer: &RelayId| Some(view.get(issuer)?.widest_group(network));
        // Those that have left the view take no place.
        let mut barred = BTreeMap::<Group, usize>::new();
        for (it, record) in &self.records {
            if let Some(group) = group_of(it).filter(|_| record.barred_at.is_some()) {
                let misses = barred.entry(group).or_default();
                *misses = record.misses().max(*misses);
            }
        }
        if barred.len() < most || group_of(issuer).is_some_and(|it| barred.contains_key(&it)) {
            return true;
        }
        let misses = self.records.get(issuer).map_or(0, Record::misses);
        let mildest = barred.into_iter().min_by_key(|&(_, misses)| misses);
        let Some((released, _)) = mildest.filter(|&(_, of_mildest)| of_mildest < misses) else {
            return false;
        };
        let records = self.records.iter_mut();
        for (_, record) in records.filter(|(it, _)| group_of(it) == Some(released)) {
            record.barred_at = None;
        }
        true
    }

    /// The issuer that was checked longest ago, and is not barred, makes room for a new one.
    fn make_room(&mut self, issuer: &RelayId) {
        if self.records.len() < ISSUERS_ON_RECORD_MAX || self.records.contains_key(issuer) {
            return;
        }
        let checked_at = |record: &Record| record.checked.back().map(|it| it.at);
        let by_use = self.records.iter();
        let oldest = by_use.min_by_key(|(_, it)| (it.barred_at, checked_at(it)));
        if let Some(oldest) = oldest.map(|(&relay, _)| relay) {
            self.records.remove(&oldest);
        }
    }

    /// Forgets what is older than a bar lasts.
    pub fn expire(&mut self, confirmed: WallTime) {
        let is_over = |at: WallTime| confirmed.since(at) >= ISSUER_BARRED_FOR;
        let before = self.size();
        self.records.retain(|_, record| {
            record.checked.retain(|it| !is_over(it.at));
            record.barred_at = record.barred_at.filter(|&at| !is_over(at));
            record.barred_at.is_some() || !record.checked.is_empty()
        });
        self.is_changed |= self.size() != before;
    }

    fn size(&self) -> (usize, usize) {
        let checked = self.records.values().map(|it| it.checked.len()).sum();
        (checked, self.barred().count())
    }

    /// Issuers that vouch for nobody here.
    pub fn barred(&self) -> impl Iterator<Item = RelayId> {
        let barred = self.records.iter().filter(|(_, it)| it.barred_at.is_some());
        barred.map(|(&relay, _)| relay)
    }

    /// How this issuer stands, if a receipt of it was tried.
    pub fn standing(&self, issuer: &RelayId) -> Option<IssuerStanding> {
        let record = self.records.get(issuer)?;
        let found = record.checked.iter().filter(|it| it.was_there).count();
        Some(IssuerStanding {
            found,
            missed: record.checked.len() - found,
            barred_until: record.barred_at.map(|at| at + ISSUER_BARRED_FOR),
        })
    }

    /// The records, to be stored, and the issuers that are barred, if either has changed.
    pub fn take_changes(&mut self) -> Option<(Vec<u8>, BTreeSet<RelayId>)> {
        if !core::mem::take(&mut self.is_changed) {
            return None;
        }
        let records: Records = self.records.clone().into_iter().collect();
        let state = [vec![STATE_VERSION], wire::encode(&records)].concat();
        Some((state, self.barred().collect()))
    }

    /// The next dial to make, by its number, answered by [`Self::handle_probed`].
    pub fn poll_dial(&mut self) -> Option<(u64, Probe)> {
        self.dials.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let may_dial = self.in_flight() < SPOT_DIALS_MAX;
        let due = self.checks.values().filter_map(|check| match check.state {
            State::Waits(at) => may_dial.then_some(at),
            State::InFlight(_) => None,
            State::Missed { due_at, .. } => Some(due_at),
        });
        due.min()
    }

    fn in_flight(&self) -> usize {
        let is_in_flight = |check: &&Check| matches!(check.state, State::InFlight(_));
        self.checks.values().filter(is_in_flight).count()
    }
}

fn site_of(ip: IpAddr) -> [u8; 6] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            [a, b, c, 0, 0, 0]
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, ..] = v6.octets();
            [a, b, c, d, e, f]
        }
    }
}

type Records = Vec<(RelayId, Record)>;

impl Record {
    fn add(&mut self, checked: Checked) {
        self.checked.push_back(checked);
        if self.checked.len() > ISSUER_CHECKS_KEPT {
            self.checked.pop_front();
        }
    }

    fn misses(&self) -> usize {
        self.checked.iter().filter(|it| !it.was_there).count()
    }

    // §8.8(4)
    fn is_guilty(&self) -> bool {
        let newest_first = || self.checked.iter().rev();
        let run = newest_first().take_while(|it| !it.was_there);
        let run = run.map(|it| it.site).collect::<BTreeSet<_>>().len();
        let mut groups: Vec<&[u8]> = Vec::new();
        for checked in newest_first() {
            if !groups.contains(&&checked.group[..]) && groups.len() < ISSUER_GROUPS_JUDGED {
                groups.push(&checked.group);
            }
        }
        let is_wrong = |group: &&&[u8]| {
            let mut there = self.checked.iter().filter(|it| it.group == **group);
            there.all(|it| !it.was_there)
        };
        let wrong = groups.iter().filter(is_wrong).count();
        run >= ISSUER_MISSES_IN_A_ROW || (wrong >= ISSUER_MISSES_MAX && wrong * 2 >= groups.len())
    }
}

#[cfg(test)]
#[path = "spot_tests.rs"]
mod tests;
