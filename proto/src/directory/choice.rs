//! How a relay is drawn from a view: uniformly, but no address group weighs more than its cap
//! (docs/protocol.md §8.5).
//!
//! Never by what a relay says of its own bandwidth. Group-first choice would let one cheap machine
//! in each of many networks win; plain uniform choice, many machines in one. Pure functions of the
//! view and the randomness, so that simulations draw as clients do.

use std::collections::{BTreeMap, BTreeSet};

use rand::{CryptoRng, RngExt};

use super::descriptor::{RelayDescriptor, Roles};
use super::view::NetView;
use crate::ids::RelayId;
use crate::network::{CAP_LEVELS, Group, Network};
use crate::time::WallTime;

/// The weight of a relay that no cap touches.
pub const WEIGHT_ONE: u64 = 1 << 32;

/// The relays that may be drawn, with their weights. Made once a view, drawn from many times.
#[derive(Debug, Clone)]
pub struct Candidates {
    relays: Vec<Candidate>,
}

#[derive(Debug, Clone)]
struct Candidate {
    relay: RelayId,
    roles: Roles,
    groups: BTreeSet<Group>,
    weight: u64,
}

/// Relays that must not be drawn: named ones, and everything in the address groups of those already
/// on the path.
#[derive(Debug, Clone, Default)]
pub struct Exclude {
    relays: BTreeSet<RelayId>,
    groups: BTreeSet<Group>,
}

impl Exclude {
    /// Nothing.
    pub const fn nothing() -> Self {
        Self {
            relays: BTreeSet::new(),
            groups: BTreeSet::new(),
        }
    }

    /// This relay, but not others in its groups.
    pub fn relay(&mut self, relay: RelayId) {
        self.relays.insert(relay);
    }

    /// This relay and every other that shares an address group with it.
    pub fn groups_of(&mut self, descriptor: &RelayDescriptor, network: &Network) {
        self.relays.insert(descriptor.relay);
        self.groups.extend(descriptor.groups(network));
    }

    fn has(&self, candidate: &Candidate) -> bool {
        self.relays.contains(&candidate.relay) || !candidate.groups.is_disjoint(&self.groups)
    }
}

impl Candidates {
    /// The relays of a view that may be drawn for a path.
    pub fn selectable(view: &NetView, network: &Network, wall: WallTime) -> Self {
        Self::new(
            view.selectable(network, wall)
                .map(|descriptor| &**descriptor),
            network,
        )
    }

    /// These relays. Caps count over all of them, whatever is drawn later.
    pub fn new<'a>(
        descriptors: impl IntoIterator<Item = &'a RelayDescriptor>,
        network: &Network,
    ) -> Self {
        let mut relays = Vec::new();
        let mut caps = Vec::new();
        for descriptor in descriptors {
            let groups = descriptor.groups(network);
            relays.push(Candidate {
                relay: descriptor.relay,
                roles: descriptor.roles,
                groups,
                weight: WEIGHT_ONE,
            });
            caps.push(caps_of(descriptor, network));
        }
        for level in 0..CAP_LEVELS {
            let of_level: Vec<_> = caps.iter().map(|levels| levels.get(level)).collect();
            cap_level(&mut relays, &of_level);
        }
        Self { relays }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// Each relay's share of draws in which nothing is excluded, for simulations.
    pub fn weights(&self) -> impl Iterator<Item = (RelayId, u64)> {
        self.relays
            .iter()
            .map(|candidate| (candidate.relay, candidate.weight))
    }
}

/// Draws a relay that has these roles and is not excluded, with the chance that its weight gives
/// it. `None` if there is no such relay: the rule of distinct groups gives way to nothing.
pub fn draw(
    candidates: &Candidates,
    roles: Roles,
    exclude: &Exclude,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Option<RelayId> {
    let may_be_drawn =
        |candidate: &&Candidate| candidate.roles.contains(roles) && !exclude.has(candidate);
    let total: u64 = candidates
        .relays
        .iter()
        .filter(may_be_drawn)
        .map(|candidate| candidate.weight)
        .sum();
    if total == 0 {
        return None;
    }
    let mut point = rng.random_range(0..total);
    for candidate in candidates.relays.iter().filter(may_be_drawn) {
        match point.checked_sub(candidate.weight) {
            Some(rest) => point = rest,
            None => return Some(candidate.relay),
        }
    }
    None
}

/// The caps that one relay's addresses are under, level by level, each group once.
type Caps = [BTreeMap<Group, u32>; CAP_LEVELS];

fn caps_of(descriptor: &RelayDescriptor, network: &Network) -> Caps {
    let mut levels = Caps::default();
    for &address in &descriptor.addresses {
        for (level, cap) in levels.iter_mut().zip(network.caps_of(address)) {
            level.extend(cap.map(|cap| (cap.group, cap.most)));
        }
    }
    levels
}

/// Brings every group of one level under its cap: its relays' weights shrink by what it has too
/// much. A relay with addresses in several groups shrinks by the most that any of them demands.
/// Later, wider levels only shrink weights further, so that narrower caps keep holding.
fn cap_level(relays: &mut [Candidate], caps: &[Option<&BTreeMap<Group, u32>>]) {
    let mut totals: BTreeMap<Group, u64> = BTreeMap::new();
    for (candidate, caps) in relays.iter().zip(caps) {
        for group in caps.iter().flat_map(|caps| caps.keys()) {
            *totals.entry(*group).or_default() += candidate.weight;
        }
    }
    for (candidate, caps) in relays.iter_mut().zip(caps) {
        let shrunk = caps
            .iter()
            .flat_map(|caps| caps.iter())
            .map(|(group, cap)| {
                let total = totals.get(group).copied().unwrap_or_default();
                scale(candidate.weight, u64::from(*cap) * WEIGHT_ONE, total)
            });
        candidate.weight = shrunk.min().unwrap_or(candidate.weight);
    }
}

/// `weight`, less whatever brings `total` down to `cap`.
fn scale(weight: u64, cap: u64, total: u64) -> u64 {
    if total <= cap {
        return weight;
    }
    let scaled = u128::from(weight) * u128::from(cap) / u128::from(total);
    u64::try_from(scaled).unwrap_or(weight)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;
    use crate::directory::testing;

    /// Relays number 0.. at these addresses.
    fn candidates(addresses: &[String], network: &Network) -> (Vec<RelayDescriptor>, Candidates) {
        let at = |(number, address): (u32, &String)| {
            testing::relay(number)
                .with(|descriptor| descriptor.addresses = vec![address.parse().unwrap()])
                .descriptor
        };
        let relays: Vec<_> = (0..).zip(addresses).map(at).collect();
        let candidates = Candidates::new(&relays, network);
        (relays, candidates)
    }

    fn weight_of(candidates: &Candidates, relays: &[RelayDescriptor]) -> f64 {
        let ids: BTreeSet<_> = relays.iter().map(|relay| relay.relay).collect();
        let sum: u64 = candidates
            .weights()
            .filter(|(relay, _)| ids.contains(relay))
            .map(|(_, weight)| weight)
            .sum();
        sum as f64 / WEIGHT_ONE as f64
    }

    fn spread(count: usize) -> Vec<String> {
        (0..count)
            .map(|number| format!("30.{number}.0.1:9000"))
            .collect()
    }

    #[test] // §8.5
    fn relays_far_apart_are_drawn_alike() {
        let network = testing::public_network();
        let (_, candidates) = candidates(&spread(50), &network);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut counts: BTreeMap<RelayId, u32> = BTreeMap::new();
        for _ in 0..50_000 {
            *counts
                .entry(draw(&candidates, Roles::NONE, &Exclude::nothing(), &mut rng).unwrap())
                .or_default() += 1;
        }
        let chi_square: f64 = counts
            .values()
            .map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert_eq!(counts.len(), 50);
        assert!(chi_square < 100.0, "49 degrees of freedom, {chi_square}");
    }

    #[test] // §8.5
    fn v4_groups_weigh_no_more_than_their_caps() {
        let network = testing::public_network();
        let narrow: Vec<_> = (1..=100)
            .map(|host| format!("20.1.1.{host}:9000"))
            .collect();
        let wide: Vec<_> = (0..100).map(|net| format!("20.2.{net}.1:9000")).collect();
        let pair = ["20.3.1.1:9000".to_owned(), "20.3.2.1:9000".to_owned()];
        let all = [&narrow[..], &wide[..], &pair[..]].concat();
        let (relays, candidates) = candidates(&all, &network);
        assert!(
            (weight_of(&candidates, &relays[..100]) - 4.0).abs() < 1e-3,
            "one /24 weighs 4"
        );
        assert!(
            (weight_of(&candidates, &relays[100..200]) - 8.0).abs() < 1e-3,
            "one /16 weighs 8"
        );
        assert!(
            (weight_of(&candidates, &relays[200..]) - 2.0).abs() < 1e-9,
            "groups under their caps keep their weight"
        );
    }

    #[test] // §8.5
    fn v6_groups_weigh_no_more_than_their_caps() {
        let network = testing::public_network();
        let slash_64: Vec<_> = (1..=50)
            .map(|host| format!("[2a00:1:1:1::{host}]:9000"))
            .collect();
        let slash_48: Vec<_> = (1..=50)
            .map(|net| format!("[2a00:2:1:{net}::1]:9000"))
            .collect();
        let slash_32: Vec<_> = (1..=50)
            .map(|net| format!("[2a00:3:{net}::1]:9000"))
            .collect();
        let (relays, candidates) = candidates(&[slash_64, slash_48, slash_32].concat(), &network);
        for (range, cap) in [(0..50, 1.0), (50..100, 4.0), (100..150, 8.0)] {
            assert!((weight_of(&candidates, &relays[range]) - cap).abs() < 1e-3);
        }
    }

    #[test] // §8.5
    fn a_second_address_brings_no_weight() {
        let network = testing::public_network();
        let crowd: Vec<_> = (1..=20).map(|host| format!("20.1.1.{host}:9000")).collect();
        let (mut relays, _) = candidates(&[crowd, spread(10)].concat(), &network);
        for (number, relay) in relays.iter_mut().take(20).enumerate() {
            relay
                .addresses
                .push(format!("40.{number}.0.1:9000").parse().unwrap());
        }
        let candidates = Candidates::new(&relays, &network);
        assert!((weight_of(&candidates, &relays[..20]) - 4.0).abs() < 1e-3);
    }

    #[test] // §8.5
    fn nothing_excluded_is_drawn_nor_anything_in_its_groups() {
        let network = testing::public_network();
        let addresses = ["20.1.1.1:1", "20.1.9.9:1", "20.2.1.1:1", "20.3.1.1:1"].map(str::to_owned);
        let (relays, candidates) = candidates(&addresses, &network);
        let mut exclude = Exclude::nothing();
        exclude.groups_of(&relays[0], &network);
        exclude.relay(relays[2].relay);
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        for _ in 0..100 {
            assert_eq!(
                draw(&candidates, Roles::NONE, &exclude, &mut rng),
                Some(relays[3].relay)
            );
        }
    }

    #[test] // §8.5
    fn where_distinct_groups_leave_nobody_nobody_is_drawn() {
        let network = testing::public_network();
        let addresses = ["20.1.1.1:1", "20.1.9.9:1"].map(str::to_owned);
        let (relays, candidates) = candidates(&addresses, &network);
        let mut exclude = Exclude::nothing();
        exclude.groups_of(&relays[0], &network);
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        assert_eq!(draw(&candidates, Roles::NONE, &exclude, &mut rng), None);
        let nobody = Candidates::new([], &network);
        assert_eq!(
            draw(&nobody, Roles::NONE, &Exclude::nothing(), &mut rng),
            None
        );
    }

    #[test]
    fn only_relays_with_the_roles_are_drawn() {
        let network = testing::public_network();
        let (mut relays, _) = candidates(&spread(10), &network);
        relays
            .iter_mut()
            .skip(1)
            .for_each(|relay| relay.roles = Roles::DIRECTORY);
        let candidates = Candidates::new(&relays, &network);
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        for _ in 0..50 {
            assert_eq!(
                draw(&candidates, Roles::HOLDER, &Exclude::nothing(), &mut rng),
                Some(relays[0].relay)
            );
        }
    }
}
