//! How a relay is drawn from a view: uniformly, but no address group weighs more than its cap, and
//! no AS more than its share (docs/protocol.md §8.5).
//!
//! Never by what a relay says of its own bandwidth. Group-first choice would let one cheap machine
//! in each of many networks win; plain uniform choice, many machines in one. Pure functions of the
//! view and the randomness, so that simulations draw as clients do.

use std::collections::{BTreeMap, BTreeSet};

use rand::{CryptoRng, RngExt};

use super::descriptor::{RelayDescriptor, Roles};
use super::view::NetView;
use crate::ids::RelayId;
use crate::limits::{AS_SHARE_PERCENT, AS_SHARE_ROUNDS};
use crate::network::{AsMap, CAP_LEVELS, Group, Network};
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

    /// This relay and every other that shares an address group or an AS with it.
    pub fn groups_of(&mut self, descriptor: &RelayDescriptor, network: &Network) {
        self.relays.insert(descriptor.relay);
        self.groups.extend(descriptor.groups(network));
    }

    /// This relay and every other that shares an address group with it, whatever their ASes.
    pub fn prefixes_of(&mut self, descriptor: &RelayDescriptor, network: &Network) {
        self.relays.insert(descriptor.relay);
        let addresses = descriptor.addresses.iter();
        self.groups
            .extend(addresses.map(|&address| network.group_of(address)));
    }

    /// Every relay in one of these address groups or ASes.
    pub fn groups(&mut self, groups: impl IntoIterator<Item = Group>) {
        self.groups.extend(groups);
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
        let (mut caps, mut widest) = (Vec::new(), Vec::new());
        for descriptor in descriptors {
            let groups = descriptor.groups(network);
            relays.push(Candidate {
                relay: descriptor.relay,
                roles: descriptor.roles,
                groups,
                weight: WEIGHT_ONE,
            });
            caps.push(caps_of(descriptor, network));
            widest.push(descriptor.widest_groups(network));
        }
        for level in 0..CAP_LEVELS {
            let of_level: Vec<_> = caps.iter().map(|levels| levels.get(level)).collect();
            cap_level(&mut relays, &of_level);
        }
        if network.params.as_map != AsMap::None {
            cap_shares(&mut relays, &widest);
        }
        Self { relays }
    }

    /// All but this relay; nobody else's weight changes.
    pub fn without(mut self, relay: RelayId) -> Self {
        self.relays.retain(|candidate| candidate.relay != relay);
        self
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
/// it (§8.5(3)). `None` if there is no such relay: the rule of distinct groups gives way to
/// nothing.
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

/// Brings every group of one level under its cap (§8.5(2)): its relays' weights shrink by what it
/// has too much. A relay with addresses in several groups shrinks by the most that any of them
/// demands. Later, wider levels only shrink weights further, so that narrower caps keep holding.
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

/// Brings every AS under its share of the whole weight (§8.5(5)). What is taken from one makes
/// the whole less, and others' shares greater: hence the rounds.
fn cap_shares(relays: &mut [Candidate], widest: &[BTreeSet<Group>]) {
    let all: BTreeSet<Group> = widest.iter().flatten().copied().collect();
    let Some((part, whole)) = share_of_one_in(all.len() as u64) else {
        return;
    };
    let place: BTreeMap<Group, usize> = all.into_iter().zip(0..).collect();
    let of_relay = |groups: &BTreeSet<Group>| -> Vec<usize> {
        let places = groups.iter().filter_map(|group| place.get(group));
        places.copied().collect()
    };
    let places: Vec<Vec<usize>> = widest.iter().map(of_relay).collect();
    for _ in 0..AS_SHARE_ROUNDS {
        let mut totals = vec![0_u64; place.len()];
        for (candidate, places) in relays.iter().zip(&places) {
            places.iter().for_each(|&at| totals[at] += candidate.weight);
        }
        let sum: u64 = relays.iter().map(|candidate| candidate.weight).sum();
        let cap = sum / whole * part;
        if totals.iter().all(|&total| total <= cap) {
            break;
        }
        for (candidate, places) in relays.iter_mut().zip(&places) {
            let greatest = places.iter().map(|&at| totals[at]).max();
            let scaled = scale(candidate.weight, cap, greatest.unwrap_or_default());
            // Where nearly all are in one AS, the share can't be kept; some must still be drawn.
            candidate.weight = scaled.max(1);
        }
    }
}

/// The share of the whole that one of so many ASes may have, as part and whole: of a few, twice an
/// equal one.
const fn share_of_one_in(count: u64) -> Option<(u64, u64)> {
    match count {
        ..=2 => None,
        few if few * AS_SHARE_PERCENT < 200 => Some((2, few)),
        _ => Some((AS_SHARE_PERCENT, 100)),
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

    #[test] // §8.5(2), §8.5(3)
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

    #[test] // §8.5(2)
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

    #[test] // §8.5(2)
    fn relays_on_many_ports_of_one_address_weigh_as_one() {
        let network = testing::public_network();
        let ports: Vec<_> = (0..100)
            .map(|port| format!("20.1.1.1:{}", 9000 + port))
            .collect();
        let (relays, candidates) = candidates(&[ports, spread(10)].concat(), &network);
        assert!((weight_of(&candidates, &relays[..100]) - 1.0).abs() < 1e-3);
        assert!((weight_of(&candidates, &relays[100..]) - 10.0).abs() < 1e-9);
    }

    #[test] // §8.5(2)
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

    #[test] // §8.5(2)
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

    fn mapped_network() -> Network {
        let mut network = testing::public_network();
        network.params.as_map = AsMap::NEWEST;
        network
    }

    /// So many addresses, no two in one AS or group, and none in this AS.
    fn addresses_apart(network: &Network, count: usize, without: &str) -> Vec<String> {
        let as_of = |text: &str| network.as_of(text.parse().unwrap());
        let mut taken = BTreeSet::from([as_of(without)]);
        let all = (1..224).map(|net| format!("{net}.1.0.1:9000"));
        let apart = all.filter(|text| as_of(text).is_some() && taken.insert(as_of(text)));
        let apart: Vec<_> = apart.take(count).collect();
        assert_eq!(apart.len(), count);
        apart
    }

    /// Addresses of one AS, each in a group of its own.
    fn addresses_of_one_as(network: &Network, count: usize) -> Vec<String> {
        let all =
            (0..256).flat_map(|b| [11, 22, 26, 28, 29, 30].map(|a| format!("{a}.{b}.0.1:9000")));
        let as_of = |text: &str| network.as_of(text.parse().unwrap());
        let of_it = all.filter(|text| as_of(text) == as_of("11.0.0.1:9000"));
        let of_it: Vec<_> = of_it.take(count).collect();
        assert_eq!(of_it.len(), count);
        of_it
    }

    #[test] // §8.5(5)
    fn an_as_weighs_no_more_than_its_share() {
        let network = mapped_network();
        for (others, most) in [(50, 0.05), (40, 0.05), (9, 0.2), (4, 0.4), (2, 2.0 / 3.0)] {
            let crowd = addresses_of_one_as(&network, 120);
            let apart = addresses_apart(&network, others, &crowd[0]);
            let (relays, candidates) = candidates(&[crowd, apart].concat(), &network);
            let (crowd, all) = (&relays[..120], &relays[..]);
            let share = weight_of(&candidates, crowd) / weight_of(&candidates, all);
            assert!((share - most).abs() < 0.01, "{others} others: {share}");
            let alone = weight_of(&candidates, &relays[120..]);
            assert!(
                (alone - others as f64).abs() < 1e-9,
                "others keep their weight"
            );
        }
    }

    #[test] // §8.5(5)
    fn without_a_map_or_with_two_ases_no_share_is_capped() {
        let mapped = mapped_network();
        let crowd = addresses_of_one_as(&mapped, 20);
        let all = [crowd.clone(), addresses_apart(&mapped, 30, &crowd[0])].concat();
        let unmapped = testing::public_network();
        for (network, count) in [(&mapped, 21), (&unmapped, 50)] {
            let (relays, candidates) = candidates(&all[..count], network);
            let weight = weight_of(&candidates, &relays);
            assert!((weight - count as f64).abs() < 1e-9);
        }
    }

    #[test] // §8.5(5)
    fn an_address_in_another_as_brings_no_weight() {
        let network = mapped_network();
        let crowd = addresses_of_one_as(&network, 60);
        let apart = addresses_apart(&network, 50, &crowd[0]);
        let (mut relays, _) = candidates(&[crowd, apart.clone()].concat(), &network);
        for (relay, second) in relays[..50].iter_mut().zip(&apart) {
            relay.addresses.push(second.parse().unwrap());
        }
        let candidates = Candidates::new(&relays, &network);
        let share = weight_of(&candidates, &relays[..60]) / weight_of(&candidates, &relays);
        assert!((share - 0.05).abs() < 1e-3, "{share}");
    }

    #[test] // §8.5(5)
    fn where_all_are_in_one_as_somebody_is_still_drawn() {
        let network = mapped_network();
        let crowd = addresses_of_one_as(&network, 60);
        let apart = addresses_apart(&network, 50, &crowd[0]);
        let (mut relays, _) = candidates(&crowd, &network);
        for (relay, second) in relays.iter_mut().zip(&apart) {
            relay.addresses.push(second.parse().unwrap());
        }
        let candidates = Candidates::new(&relays, &network);
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let drawn = draw(&candidates, Roles::NONE, &Exclude::nothing(), &mut rng);
        assert!(drawn.is_some());
    }

    #[test] // §8.5(4)
    fn relays_of_an_as_on_the_path_are_excluded() {
        let network = mapped_network();
        let addresses = ["8.8.8.8:1", "142.250.0.1:1", "1.1.1.1:1"].map(str::to_owned);
        let (relays, candidates) = candidates(&addresses, &network);
        let (mut by_as, mut by_prefix) = (Exclude::nothing(), Exclude::nothing());
        by_as.groups_of(&relays[0], &network);
        by_prefix.prefixes_of(&relays[0], &network);
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut drawn = |exclude: &Exclude| -> BTreeSet<_> {
            let draws = (0..100).filter_map(|_| draw(&candidates, Roles::NONE, exclude, &mut rng));
            draws.collect()
        };
        assert_eq!(drawn(&by_as), BTreeSet::from([relays[2].relay]));
        assert_eq!(drawn(&by_prefix).len(), 2);
    }

    #[test] // §8.5(3)
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

    #[test] // §8.5(3)
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

    #[test] // §8.1(8), §8.5(3)
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
