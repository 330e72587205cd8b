//! The relays of an experiment: where they stand, and as a client that knows them stores them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, rngs::ChaCha20Rng};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::choice::Candidates;
use umbel_proto::directory::{Age, Belief, BookRow, RelayDescriptor, Roles};
use umbel_proto::handshake::OnionSecret;
use umbel_proto::ids::RelayId;
use umbel_proto::network::{AsMap, AsNumber, Network, Params};
use umbel_proto::time::{Duration, WallTime};

use super::addresses::Announced;

/// When it takes place, or begins.
pub(super) const WALL: WallTime = WallTime(1_795_000_000);
/// What a machine with one IPv4 address costs a month, in dollars.
pub(super) const MACHINE: usize = 4;
/// How long all relays have been there by then.
const THERE_FOR: Duration = Duration::from_secs(60 * 86_400);

/// A relay, and the key that signs its descriptor.
pub(super) struct Relay {
    pub(super) key: SigningKey,
    pub(super) descriptor: RelayDescriptor,
}

impl Relay {
    pub(super) fn at(address: Ipv4Addr, rng: &mut ChaCha20Rng) -> Self {
        let key = SigningKey::generate(rng);
        let descriptor = RelayDescriptor {
            network: network(AsMap::NEWEST).id,
            relay: key.public().into(),
            onion_keys: vec![OnionSecret::generate(rng).public()],
            addresses: vec![SocketAddr::from((address, 7443))],
            roles: Roles::HOLDER | Roles::DIRECTORY,
            version: "umbel 0.1.0".to_owned(),
            issued_at: WALL,
            receipts: Vec::new(),
            puzzle: 0,
        };
        Self { key, descriptor }
    }

    /// As a client stores it that has known it for long.
    pub(super) fn row(&self) -> BookRow {
        let since = WallTime(WALL.as_secs() - THERE_FOR.as_secs());
        BookRow {
            descriptor: self.descriptor.sign(&self.key),
            age: Age {
                first_seen: since,
                belief: Belief::Given(since),
                there_since: since,
            },
        }
    }
}

/// A network whose relays are vouched for already, with the parameters that people have.
pub(super) fn network(as_map: AsMap) -> Network {
    let params = Params {
        receipts_min: 0,
        as_map,
        ..Params::DEFAULT
    };
    Network {
        params,
        ..Network::local()
    }
}

/// So many relays of honest operators in so many ASes: the n-th has in proportion to 1/n of them.
pub(super) fn honest(
    (count, ases): (usize, usize),
    announced: &[(AsNumber, Announced)],
    rng: &mut ChaCha20Rng,
) -> Vec<Relay> {
    let ranks: Vec<usize> = (0..ases.min(announced.len())).collect();
    let address = |rng: &mut ChaCha20Rng| {
        let rank = ranks
            .choose_weighted(rng, |&rank| 1.0 / (rank as f64 + 1.0))
            .ok()?;
        let prefixes: Vec<_> = announced[*rank].1.values().flatten().collect();
        let [a, b, c, _] = prefixes.choose(rng)?.octets();
        Some(Ipv4Addr::new(a, b, c, rng.random_range(1..255)))
    };
    let addresses: Vec<_> = (0..count).filter_map(|_| address(rng)).collect();
    addresses
        .into_iter()
        .map(|address| Relay::at(address, rng))
        .collect()
}

pub(super) fn ids(relays: &[Relay]) -> BTreeSet<RelayId> {
    relays.iter().map(|relay| relay.descriptor.relay).collect()
}

/// The share of draws that these relays have, if nothing is excluded.
pub(super) fn share_of(relays: &BTreeSet<RelayId>, candidates: &Candidates) -> f64 {
    let of_all: u64 = candidates.weights().map(|(_, weight)| weight).sum();
    let of_these = candidates
        .weights()
        .filter(|(relay, _)| relays.contains(relay));
    of_these.map(|(_, weight)| weight).sum::<u64>() as f64 / of_all as f64
}

/// What a client draws from that knows these relays.
pub(super) fn candidates(relays: &[Relay]) -> Candidates {
    let all = relays.iter().map(|relay| &relay.descriptor);
    Candidates::new(all, &network(AsMap::NEWEST))
}

/// Relays at random that together have this share of draws, or a little more.
pub(super) fn at_random(
    share: f64,
    candidates: &Candidates,
    rng: &mut ChaCha20Rng,
) -> BTreeSet<RelayId> {
    let mut weights: Vec<(RelayId, u64)> = candidates.weights().collect();
    weights.shuffle(rng);
    let wanted = share * weights.iter().map(|&(_, weight)| weight).sum::<u64>() as f64;
    let (mut taken, mut relays) = (0.0, BTreeSet::new());
    for (relay, weight) in weights {
        if taken >= wanted {
            break;
        }
        taken += weight as f64;
        relays.insert(relay);
    }
    relays
}
