//! Which relays leave a view that holds too many, and what is remembered of them (docs/protocol.md
//! §8.2(9)).
//!
//! Never the last to come: else those who fill a view first would keep all others out of it. Relays
//! whose issuers proved false go first. Then young relays leave before
//! old ones, but a tenth of the view is kept for the young. Then the largest AS pays, and in it the order is one that nobody
//! outside this node can know.

use core::cmp::Reverse;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rand::CryptoRng;

use super::descriptor::{VerifiedDescriptor, Version};
use super::range::IdRange;
use crate::crypto::kdf::sha256;
use crate::ids::RelayId;
use crate::limits::{CLOCK_SKEW_MAX, TURNED_AWAY_AN_ADDRESS_MAX, TURNED_AWAY_MAX, VIEW_YOUNG_MAX};
use crate::network::Group;
use crate::time::WallTime;

const DOMAIN: &[u8] = b"umbel eviction 1";

/// Makes this node's order of relays one that nobody can choose an id for.
#[derive(Debug)]
pub(super) struct Salt([u8; 16]);

impl Salt {
    pub(super) fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    fn place(&self, relay: &RelayId) -> u64 {
        let hash = sha256(&[DOMAIN, &self.0, &relay.0]);
        hash.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

/// The grounds on which a relay keeps its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It is not vouched for any more.
    Unvouched,
    /// It has not been known for as long as an issuer has to be.
    Young,
    /// It has.
    Old,
}

/// A relay that may have to leave.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) relay: RelayId,
    pub(super) standing: Standing,
    pub(super) group: Group,
}

/// As many of these as are too many.
pub(super) fn choose(
    candidates: impl Iterator<Item = Candidate>,
    too_many: usize,
    salt: &Salt,
) -> Vec<RelayId> {
    let mut crowds = BTreeMap::<Standing, Crowd>::new();
    for Candidate {
        relay,
        standing,
        group,
    } in candidates
    {
        let crowd = crowds.entry(standing).or_default();
        crowd.add(group, salt.place(&relay), relay);
    }
    let mut chosen = Vec::with_capacity(too_many);
    for (standing, crowd) in crowds {
        let spared = match standing {
            Standing::Young => VIEW_YOUNG_MAX,
            Standing::Unvouched | Standing::Old => 0,
        };
        let left = too_many - chosen.len();
        let most = crowd.len.saturating_sub(spared).min(left);
        chosen.extend(crowd.into_first_to_leave().take(most));
    }
    chosen
}

/// The newest descriptors of relays that were turned away (§8.2(9), §8.2(10)). Known by their
/// versions only: peers need not send them again.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    versions: BTreeMap<RelayId, (Version, Reason)>,
    /// Those that came to an address that another relay holds, by that address.
    at: BTreeMap<SocketAddr, BTreeSet<(Version, RelayId)>>,
}

/// Why a descriptor was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The view was full.
    Full,
    /// Another relay holds this address.
    AddressTaken(SocketAddr),
}

impl TurnedAway {
    pub(super) const fn new() -> Self {
        Self {
            versions: BTreeMap::new(),
            at: BTreeMap::new(),
        }
    }

    /// Remembers a descriptor, if there is room for that. Of those that came to one address only the
    /// newest are remembered: one address must not take the room of all.
    pub(super) fn add(&mut self, descriptor: &VerifiedDescriptor, reason: Reason) {
        let (relay, version) = (descriptor.relay, descriptor.version());
        self.remove(&relay);
        self.versions.insert(relay, (version, reason));
        if let Reason::AddressTaken(address) = reason {
            let there = self.at.entry(address).or_default();
            there.insert((version, relay));
            if there.len() > TURNED_AWAY_AN_ADDRESS_MAX
                && let Some(&(_, oldest)) = there.first()
            {
                self.remove(&oldest);
            }
        }
        if self.versions.len() > TURNED_AWAY_MAX {
            self.remove(&relay);
        }
    }

    pub(super) fn remove(&mut self, relay: &RelayId) {
        if let Some((version, Reason::AddressTaken(address))) = self.versions.remove(relay)
            && let Some(there) = self.at.get_mut(&address)
        {
            there.remove(&(version, *relay));
            if there.is_empty() {
                self.at.remove(&address);
            }
        }
    }

    /// Forgets what is dead or of the future, and all that there was no room for once the view has room
    /// for so many.
    pub(super) fn expire(&mut self, wall: WallTime, room: usize) {
        let is_dead = |version: Version| {
            version.expires_at() <= wall || version.issued_at > wall + CLOCK_SKEW_MAX
        };
        self.versions.retain(|_, (version, _)| !is_dead(*version));
        self.at.retain(|_, there| {
            there.retain(|&(version, _)| !is_dead(version));
            !there.is_empty()
        });
        if self.versions.len() <= room {
            self.versions
                .retain(|_, (_, reason)| *reason != Reason::Full);
        }
    }

    pub(super) fn version(&self, relay: &RelayId) -> Option<Version> {
        self.versions.get(relay).map(|&(version, _)| version)
    }

    /// Those of this range, in order.
    pub(super) fn in_range(&self, range: IdRange) -> impl Iterator<Item = (RelayId, Version)> {
        let versions = self.versions.range(range.bounds());
        versions.map(|(&relay, &(version, _))| (relay, version))
    }
}

/// Relays of one standing, by their ASes: each with its place, and its id.
#[derive(Debug, Default)]
struct Crowd {
    len: usize,
    groups: BTreeMap<Group, Vec<(u64, RelayId)>>,
}

impl Crowd {
    fn add(&mut self, group: Group, place: u64, relay: RelayId) {
        self.len += 1;
        self.groups.entry(group).or_default().push((place, relay));
    }

    /// All of them: each time the lowest of the group that has most by then.
    fn into_first_to_leave(self) -> impl Iterator<Item = RelayId> {
        let highest_first = |mut members: Vec<_>| {
            members.sort_unstable_by_key(|&it| Reverse(it));
            Ranked::of(members)
        };
        let groups = self.groups.into_values().filter_map(highest_first);
        let mut groups: BinaryHeap<Ranked> = groups.collect();
        core::iter::from_fn(move || {
            let Ranked { lowest, others, .. } = groups.pop()?;
            groups.extend(Ranked::of(others));
            Some(lowest.0.1)
        })
    }
}

/// A group that is not empty, ordered by size, and of two as large by who would leave.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    len: usize,
    lowest: Reverse<(u64, RelayId)>,
    /// The others, highest place first.
    others: Vec<(u64, RelayId)>,
}

impl Ranked {
    fn of(mut members: Vec<(u64, RelayId)>) -> Option<Self> {
        let len = members.len();
        let lowest = Reverse(members.pop()?);
        let others = members;
        Some(Self {
            len,
            lowest,
            others,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, Params};

    const SALT: Salt = Salt([7; 16]);

    fn relay(number: usize) -> RelayId {
        let mut id = [0; RelayId::LEN];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        RelayId(id)
    }

    fn group(number: usize) -> Group {
        let [.., high, low] = number.to_be_bytes();
        Network {
            params: Params::DEFAULT,
            ..Network::local()
        }
        .group_of(([20 + high, low, 1, 1], 9000).into())
    }

    /// Relays of one standing, from this number on: so many in each of so many groups.
    fn crowd(
        first: usize,
        standing: Standing,
        (groups, members): (usize, usize),
    ) -> impl Iterator<Item = Candidate> {
        (0..groups * members).map(move |at| Candidate {
            relay: relay(first + at),
            standing,
            group: group(at % groups),
        })
    }

    fn number(relay: &RelayId) -> usize {
        usize::from_be_bytes(relay.0[..8].try_into().unwrap())
    }

    #[test] // §8.2(9)
    fn who_is_not_vouched_for_leaves_first_then_the_young_then_the_old() {
        let young = VIEW_YOUNG_MAX + 3;
        let candidates = || {
            crowd(0, Standing::Old, (10, 10))
                .chain(crowd(1000, Standing::Unvouched, (4, 1)))
                .chain(crowd(2000, Standing::Young, (young, 1)))
        };
        let left = |too_many| {
            let chosen = choose(candidates(), too_many, &SALT);
            assert_eq!(chosen.len(), too_many);
            let thousands: Vec<_> = chosen
                .iter()
                .map(|it| number(it).min(2000) / 1000)
                .collect();
            [1, 2, 0].map(|of| thousands.iter().filter(|it| **it == of).count())
        };
        assert_eq!(left(3), [3, 0, 0]);
        assert_eq!(left(7), [4, 3, 0]);
        assert_eq!(left(9), [4, 3, 2], "a tenth of the view is for the young");
    }

    #[test] // §8.2(9)
    fn the_largest_groups_pay_and_no_small_one_does() {
        let candidates = crowd(0, Standing::Old, (2, 50))
            .chain(crowd(1000, Standing::Old, (1, 25)))
            .chain(crowd(2000, Standing::Old, (30, 1)));
        let chosen = choose(candidates, 60, &SALT);
        // The first group has 76 members, the second has 51, all others one.
        let of = |first: usize, last: usize| {
            let is_in = |it: &&RelayId| (first..=last).contains(&number(it));
            chosen.iter().filter(is_in).count()
        };
        assert_eq!(of(2002, 2029), 0);
        let first = chosen.iter().filter(|it| match number(it) {
            at @ ..1000 => at % 2 == 0,
            at => at < 2001,
        });
        let left = 76 - first.count();
        assert!((33..=34).contains(&left), "as many as the second: {left}");
    }

    #[test] // §8.2(9)
    fn of_groups_as_large_the_salt_decides_and_nobodys_number_does() {
        let left = |salt: u8| -> Vec<RelayId> {
            let candidates = crowd(0, Standing::Old, (200, 1));
            choose(candidates, 100, &Salt([salt; 16]))
        };
        let (a, b) = (left(1), left(2));
        assert_eq!(a, left(1));
        let both = a.iter().filter(|it| b.contains(it)).count();
        assert!((30..70).contains(&both), "{both}");
        let low = a.iter().filter(|it| number(it) < 100).count();
        assert!((30..70).contains(&low), "{low}");
    }
}
