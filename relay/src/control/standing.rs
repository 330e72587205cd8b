//! How this relay stands with others, and how others stand with it: facts for its operator, which
//! the shell puts into words (docs/protocol.md §8.2, §8.7).
//!
//! Only looks. Tells of relays, and of sums: no circuit, no client and no queue.

use std::net::SocketAddr;

use umbel_proto::directory::receipts::{IssuerStanding, NoReceipt, SpotChecks};
use umbel_proto::directory::{Hindrance, Receipt, VerifiedDescriptor};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::limits::CLOCK_SKEW_MAX;
use umbel_proto::network::{Group, Params};
use umbel_proto::time::{Moment, WallTime};

use super::clock;
use super::context::Shared;
use super::io::{ControlStats, Listed};
use super::own::Own;
use super::own::receipts::known;

/// How this relay stands with others, as far as it can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Each of its addresses, in the order of its descriptor.
    pub addresses: Vec<AddressStanding>,
    /// How many receipts each address needs.
    pub receipts_min: usize,
    /// It is a seed of the network file, and these need no receipts yet.
    pub is_seed: bool,
    /// Since when others list it; `None` if they never have.
    pub listed: Option<Listed>,
    /// What keeps others from drawing it; `None` if nothing does.
    pub obstacle: Option<Obstacle>,
    /// Another process runs with its identity, or did within two hours.
    pub has_twin: bool,
    /// Seeds of the network file that vouch for others while the network is young, and are out of reach.
    pub missing_seeds: Vec<Peer>,
    /// How many other relays it knows.
    pub others: usize,
    /// How many links there are with relays.
    pub relay_link_count: usize,
    /// With how many relays of its view there are links.
    pub known_link_count: usize,
    /// How far the clocks of linked relays are ahead of its own, seconds; `None` if it is linked to
    /// none.
    pub clock_ahead: Option<i64>,
    /// Sums.
    pub stats: ControlStats,
}

/// How one of this relay's addresses stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressStanding {
    /// Which.
    pub address: SocketAddr,
    /// The receipts that a descriptor issued now shows.
    pub vouchers: Vec<Voucher>,
    /// Whether they are enough.
    pub is_vouched: bool,
    /// Requests that brought no receipt, the latest last.
    pub refusals: Vec<Refusal>,
    /// Another relay that others have reached at this address.
    pub taken_by: Option<RelayId>,
}

/// A relay that vouches for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// Which.
    pub issuer: RelayId,
    /// Its address group.
    pub group: Group,
    /// When it dialled, cut to the hour.
    pub at: WallTime,
    /// Until when its receipt counts.
    pub expires_at: WallTime,
}

/// A request that brought no receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who was asked.
    pub issuer: RelayId,
    /// Its AS or address group, while it is in the view.
    pub group: Option<Group>,
    /// Why it brought none.
    pub fault: NoReceipt,
    /// When.
    pub at: WallTime,
}

/// What keeps others from drawing this relay: the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// None of the names that it advertises could be found.
    NoAddress,
    /// By its clock its descriptor is of the future or dead to others (§8.1(4)).
    Clock {
        /// How far others are ahead, seconds.
        ahead: i64,
    },
    /// It knows no other relay.
    Alone,
    /// A condition of §8.2(6).
    Hindrance(Hindrance),
}

/// How another relay stands with this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherStanding {
    /// Whether it is this relay itself.
    pub is_own: bool,
    /// Whether it is a seed, of the network file or of the operator.
    pub is_seed: bool,
    /// Whether there is a link with it.
    pub is_linked: bool,
    /// Its descriptor and our view of it; `None` without a descriptor.
    pub known: Option<KnownRelay>,
    /// How the receipts that it issued fared; `None` if none was tried.
    pub checks: Option<IssuerStanding>,
}

/// What a relay's descriptor says, and what is thought of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRelay {
    /// Its descriptor.
    pub descriptor: VerifiedDescriptor,
    /// Who vouches for each of its addresses.
    pub vouchers: Vec<(SocketAddr, Vec<Voucher>)>,
    /// How many receipts each address needs; none if it is a seed that needs none yet.
    pub receipts_min: usize,
    /// Whether it is in the view, and how it stands there.
    pub place: Place,
}

/// Whether a relay is in the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has left the view: its last addresses alone are kept.
    Gone,
    /// It is in the view.
    InView {
        /// Since when it is known.
        first_seen: WallTime,
        /// Since when it may be drawn as far as its age goes.
        old_since: WallTime,
        /// What keeps it from being drawn; `None` if nothing does.
        hindrance: Option<Hindrance>,
    },
}

/// How this relay stands with others. `has_failed`: the last dial to this one has.
pub(super) fn own(
    shared: &Shared,
    own: &Own,
    stats: ControlStats,
    moment: Moment,
    has_failed: impl Fn(&RelayId) -> bool,
) -> Standing {
    let (network, wall) = (&shared.config.network, moment.wall);
    let view = shared.book.view();
    let others = || view.iter().filter(|it| it.relay != shared.relay);
    let addresses = shared.config.addresses.iter();
    let addresses: Vec<_> = addresses
        .map(|&address| address_standing(shared, own, address, moment))
        .collect();
    let is_seed = view.seed_vouches(network, &shared.relay, wall);
    let others_count = others().count();
    let linked = shared.links.relays().filter(|it| view.get(it).is_some());
    let clock_ahead = clock::ahead(&shared.links, &shared.book, &shared.config, moment);
    let is_off = |ahead: &i64| ahead.unsigned_abs() > CLOCK_SKEW_MAX.as_secs();
    let obstacle = if addresses.is_empty() {
        Some(Obstacle::NoAddress)
    } else if let Some(ahead) = clock_ahead.filter(is_off) {
        Some(Obstacle::Clock { ahead })
    } else if others_count == 0 {
        Some(Obstacle::Alone)
    } else if !is_seed && !addresses.iter().any(|it| it.is_vouched) {
        Some(Obstacle::Hindrance(Hindrance::Unvouched))
    } else {
        own_hindrance(own, &network.params, wall).map(Obstacle::Hindrance)
    };
    Standing {
        addresses,
        receipts_min: network.params.receipts_min,
        is_seed,
        listed: own.listed(),
        obstacle,
        has_twin: own.has_twin(moment.now),
        missing_seeds: missing_seeds(shared, wall, has_failed),
        others: others_count,
        relay_link_count: shared.links.with_relays().count(),
        known_link_count: linked.count(),
        clock_ahead,
        stats,
    }
}

/// The seeds that vouch while the network is young, that are not linked to this relay, and of which
/// no descriptor is alive, or the last dial failed.
fn missing_seeds(
    shared: &Shared,
    wall: WallTime,
    has_failed: impl Fn(&RelayId) -> bool,
) -> Vec<Peer> {
    let (network, view) = (&shared.config.network, shared.book.view());
    let is_missing = |seed: &&Peer| {
        seed.id != shared.relay
            && view.seed_vouches(network, &seed.id, wall)
            && shared.links.relays().all(|relay| *relay != seed.id)
            && (view.get(&seed.id).is_none() || has_failed(&seed.id))
    };
    network.seeds.iter().filter(is_missing).cloned().collect()
}

/// The first obstacle for a relay that is vouched for. Others count its age from its first descriptor
/// that they took; its own view takes it for as old as can be.
fn own_hindrance(own: &Own, params: &Params, wall: WallTime) -> Option<Hindrance> {
    let listed = own.listed().filter(|listed| listed.until > wall);
    let until = listed.map_or(wall, |listed| listed.since) + params.selectable_age;
    if listed.is_none_or(|listed| listed.until <= wall + params.selectable_left) {
        Some(Hindrance::Expiring)
    } else if until > wall {
        Some(Hindrance::Young { until })
    } else {
        None
    }
}

fn address_standing(
    shared: &Shared,
    own: &Own,
    address: SocketAddr,
    moment: Moment,
) -> AddressStanding {
    let known = known(&shared.config, &shared.book, moment.wall);
    let view = shared.book.view();
    let asker = own.asker();
    let receipts = asker.receipts_for(known, address);
    let attempts = asker.attempts().filter(|it| it.ask.address == address);
    let group_of = |issuer| {
        let issuer = view.get(&issuer)?;
        Some(issuer.widest_group(known.network))
    };
    let refusals = attempts.map(|it| Refusal {
        issuer: it.ask.issuer,
        group: group_of(it.ask.issuer),
        fault: it.fault,
        at: moment.wall_at(it.at),
    });
    AddressStanding {
        address,
        is_vouched: receipts.len() >= known.network.params.receipts_min,
        vouchers: vouchers(shared, receipts.iter()),
        refusals: refusals.collect(),
        taken_by: view.holder_of(address, &shared.relay, known.network, known.wall),
    }
}

/// How another relay stands with this one.
pub(super) fn other(
    shared: &Shared,
    checks: &SpotChecks,
    relay: &RelayId,
    wall: WallTime,
) -> OtherStanding {
    let network = &shared.config.network;
    let mut seeds = network.seeds.iter().chain(&shared.config.seeds);
    let (view, book) = (shared.book.view(), &shared.book);
    let descriptor = view.get(relay).or_else(|| book.last_known_of(relay));
    OtherStanding {
        is_own: *relay == shared.relay,
        is_seed: seeds.any(|seed| seed.id == *relay),
        is_linked: shared.links.toward(relay).is_some(),
        known: descriptor.map(|descriptor| known_relay(shared, descriptor, wall)),
        checks: checks.standing(relay),
    }
}

fn known_relay(shared: &Shared, descriptor: &VerifiedDescriptor, wall: WallTime) -> KnownRelay {
    let (network, view) = (&shared.config.network, shared.book.view());
    let place = view
        .age(&descriptor.relay)
        .map_or(Place::Gone, |age| Place::InView {
            first_seen: age.first_seen,
            old_since: age.reached_at(network.params.selectable_age),
            hindrance: view.hindrance(descriptor, network, wall),
        });
    let by_address = descriptor.addresses.iter().map(|&address| {
        let counted = view.counted_receipts(descriptor, address, network, wall);
        (address, vouchers(shared, counted))
    });
    let needs_none = view.seed_vouches(network, &descriptor.relay, wall);
    KnownRelay {
        vouchers: by_address.collect(),
        receipts_min: if needs_none {
            0
        } else {
            network.params.receipts_min
        },
        place,
        descriptor: descriptor.clone(),
    }
}

/// The issuers of these receipts that are in the view.
fn vouchers<'a>(shared: &Shared, receipts: impl Iterator<Item = &'a Receipt>) -> Vec<Voucher> {
    let network = &shared.config.network;
    let voucher = |receipt: &Receipt| {
        let issuer = shared.book.view().get(&receipt.issuer)?;
        Some(Voucher {
            issuer: receipt.issuer,
            group: issuer.group(network),
            at: receipt.at,
            expires_at: receipt.at + network.params.receipt_life,
        })
    };
    receipts.filter_map(voucher).collect()
}

/// Whether this is a later version than this program's: numbers with dots between them, of which
/// the first that differs decides. What follows them, or is no number, says nothing.
pub(super) fn is_newer(version: &str) -> bool {
    numbers(version).gt(numbers(env!("CARGO_PKG_VERSION")))
}

fn numbers(version: &str) -> impl Iterator<Item = u32> {
    let of_release = version.split(['-', '+']).next().unwrap_or_default();
    let numbers = of_release.split('.').map(str::parse);
    numbers.map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_is_one_with_greater_numbers() {
        for later in ["0.1.1", "0.2.0", "0.10.0", "1.0.0", "0.1.0.1", "2"] {
            assert!(is_newer(later), "{later}");
        }
        for other in [
            "0.1.0",
            "0.0.9",
            "",
            "x",
            "0.1.0-rc1",
            "0.1",
            "99999999999.0",
        ] {
            assert!(!is_newer(other), "{other}");
        }
    }
}
