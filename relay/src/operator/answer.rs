//! Answers as they are written: every key is for good, others may join it.
//!
//! Times are RFC 3339, cut to the hour where they are of a receipt or a dial. Sums of what users make
//! are the least of a range between two powers of two, 0 being under 16; bytes are rounded up to 16
//! MiB.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::limits::CELL_LEN;
use umbel_proto::network::Network;
use umbel_proto::time::rfc3339;

use super::VERSION;
use super::words::{self, Sentences};
use crate::coarse::{Coarse, mib};
use crate::config::Config;
use crate::control::standing::{AddressStanding, OtherStanding, Place, Standing, Voucher};
use crate::heartbeat::memory_bytes;
use crate::net::last_dials::LastDial;

/// What the shell knows, beside the control plane's [`Standing`].
pub(super) struct Facts<'a> {
    pub(super) peer: &'a Peer,
    pub(super) listen: SocketAddr,
    pub(super) uptime: Duration,
    pub(super) network: &'a Network,
    pub(super) config: &'a Config,
    /// Links that other relays have made so far.
    pub(super) relay_link_count: u64,
    /// Cells that wait for links now.
    pub(super) queued_cells: usize,
    /// The last write to the store failed.
    pub(super) is_store_failing: bool,
}

/// The answer to `status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    v: u32,
    /// One sentence: by whom the relay is reached and since when it is used, or why not, and what to
    /// do.
    health: String,
    relay: String,
    network: String,
    version: &'static str,
    uptime_s: u64,
    listening: SocketAddr,
    advertised: Vec<SocketAddr>,
    reachable: Reachable,
    receipts: Vec<Receipt>,
    selectable: Selectable,
    /// Other relays in the view.
    relays: usize,
    /// Links with relays, and with others, whose number is coarse.
    links: usize,
    circuits: usize,
    handshakes: Handshakes,
    memory: Memory,
    queues: usize,
    /// Relays that say that they run a later version than this one.
    peers_newer: usize,
    /// How far this relay's clock is ahead of others'; negative if it is behind.
    clock_off_s: Option<i64>,
}

/// Whether others reach the relay.
#[derive(Debug, Serialize)]
struct Reachable {
    is: bool,
    /// The relays that did.
    by: Vec<String>,
    /// When one last did.
    at: Option<String>,
    why: String,
    addresses: Vec<Address>,
}

/// What programs act on in the answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// In one sentence.
    pub health: String,
    /// Whether others reach the relay.
    pub reachable: Reached,
}

/// Whether others reach a relay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reached {
    /// Whether they do.
    pub is: bool,
    /// Why, or why not.
    pub why: String,
}

impl From<Status> for Health {
    fn from(status: Status) -> Self {
        Self {
            health: status.health,
            reachable: Reached {
                is: status.reachable.is,
                why: status.reachable.why,
            },
        }
    }
}

/// How one address of the relay stands.
#[derive(Debug, Serialize)]
struct Address {
    address: SocketAddr,
    /// Whether enough relays vouch for it.
    vouched: bool,
    receipts: usize,
    wanted: usize,
    /// `ok`, `unreachable`, `elsewhere`, `limit`, `busy`, `taken`, `silent`, `wrong` or
    /// `asking`.
    state: &'static str,
    why: String,
}

/// A relay's word that it reached another.
#[derive(Debug, Serialize)]
struct Receipt {
    issuer: String,
    group: String,
    address: SocketAddr,
    at: String,
    expires: String,
}

/// Whether clients draw the relay.
#[derive(Debug, Serialize)]
struct Selectable {
    is: bool,
    why: String,
    /// Since when, if they do.
    since: Option<String>,
    /// From when on they will, if that is known.
    from: Option<String>,
}

#[derive(Debug, Serialize)]
struct Handshakes {
    answered: usize,
    refused: usize,
}

#[derive(Debug, Serialize)]
struct Memory {
    /// Bytes that wait for others.
    used: u64,
    /// The most that may wait: `memory_budget_mib`.
    budget: u64,
    /// The whole process, where the system tells.
    process: Option<u64>,
}

/// The answer to `why`.
#[derive(Debug, Serialize)]
pub(super) struct Why {
    v: u32,
    /// One sentence: what is thought of that relay, why, and what to do.
    health: String,
    relay: String,
    /// Whether it is in the view.
    known: bool,
    linked: bool,
    seed: bool,
    version: Option<String>,
    advertised: Vec<SocketAddr>,
    first_seen: Option<String>,
    issued_at: Option<String>,
    expires_at: Option<String>,
    receipts: Vec<Receipt>,
    selectable: Selectable,
    /// How the receipts that it issued fared, of those that were tried.
    checked: Option<Checked>,
    dialled: Option<Dialled>,
}

/// How an issuer stands.
#[derive(Debug, Serialize)]
struct Checked {
    found: usize,
    missed: usize,
    /// Until when its receipts count for nothing here.
    barred_until: Option<String>,
}

/// The last dial to a relay.
#[derive(Debug, Serialize)]
struct Dialled {
    at: String,
    linked: bool,
    why: String,
}

/// The answer to `status`.
pub(super) fn status(facts: &Facts<'_>, standing: &Standing) -> Status {
    let stats = &standing.stats;
    let sentences = Sentences::new(facts, standing);
    Status {
        v: VERSION,
        health: sentences.health(),
        relay: facts.peer.id.to_string(),
        network: facts.network.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: facts.uptime.as_secs(),
        listening: facts.listen,
        advertised: standing.addresses.iter().map(|it| it.address).collect(),
        reachable: reachable(&sentences, standing),
        receipts: receipts(
            standing
                .addresses
                .iter()
                .map(|it| (it.address, &it.vouchers)),
        ),
        selectable: own_selectable(&sentences, facts, standing),
        relays: standing.others,
        links: standing.relay_link_count + coarse_clients(standing),
        circuits: Coarse(stats.circuits).least(),
        handshakes: Handshakes {
            answered: coarse(stats.created),
            refused: coarse(stats.refused),
        },
        memory: Memory {
            used: bytes((facts.queued_cells * CELL_LEN + stats.held_bytes) as u64),
            budget: facts.config.memory_budget_bytes as u64,
            process: memory_bytes().map(bytes),
        },
        queues: Coarse(stats.queues).least(),
        peers_newer: stats.newer_count,
        clock_off_s: standing.clock_ahead.map(i64::saturating_neg),
    }
}

fn reachable(sentences: &Sentences<'_>, standing: &Standing) -> Reachable {
    let vouchers = || standing.addresses.iter().flat_map(|it| &it.vouchers);
    let mut by: Vec<RelayId> = vouchers().map(|it| it.issuer).collect();
    by.sort_unstable();
    by.dedup();
    let of_address = |it: &AddressStanding| Address {
        address: it.address,
        vouched: it.is_vouched,
        receipts: it.vouchers.len(),
        wanted: standing.receipts_min,
        state: words::state(it),
        why: sentences.address(it),
    };
    Reachable {
        is: sentences.is_reachable(),
        by: by.iter().map(RelayId::to_string).collect(),
        at: vouchers().map(|it| it.at).max().map(rfc3339),
        why: sentences.reachable(),
        addresses: standing.addresses.iter().map(of_address).collect(),
    }
}

fn own_selectable(sentences: &Sentences<'_>, facts: &Facts<'_>, standing: &Standing) -> Selectable {
    let is = standing.obstacle.is_none();
    let age = facts.network.params.selectable_age;
    let since = standing.listed.map(|listed| listed.since + age);
    Selectable {
        is,
        why: sentences.selectable(),
        since: since.filter(|_| is).map(rfc3339),
        from: words::young_until(standing).map(rfc3339),
    }
}

/// The answer to `why`.
pub(super) fn why(
    relay: RelayId,
    standing: &OtherStanding,
    dial: Option<LastDial>,
    network: &Network,
) -> Why {
    let known = standing.known.as_ref();
    let descriptor = known.map(|it| &it.descriptor);
    let by_address = known.into_iter().flat_map(|it| &it.vouchers);
    let in_view = known.and_then(|it| match it.place {
        Place::Gone => None,
        Place::InView {
            first_seen,
            old_since,
            hindrance,
        } => Some((first_seen, old_since, hindrance.is_none())),
    });
    let drawn_since = in_view.and_then(|(_, since, is_drawn)| is_drawn.then_some(since));
    Why {
        v: VERSION,
        health: words::other(standing, dial, network),
        relay: relay.to_string(),
        known: in_view.is_some(),
        linked: standing.is_linked,
        seed: standing.is_seed,
        version: descriptor.map(|it| it.version.clone()),
        advertised: descriptor
            .map(|it| it.addresses.clone())
            .unwrap_or_default(),
        first_seen: in_view.map(|(first_seen, ..)| rfc3339(first_seen)),
        issued_at: descriptor.map(|it| rfc3339(it.issued_at)),
        expires_at: descriptor.map(|it| rfc3339(it.expires_at())),
        receipts: receipts(by_address.map(|(address, vouchers)| (*address, vouchers))),
        selectable: Selectable {
            is: drawn_since.is_some(),
            why: words::other_selectable(standing, network),
            since: drawn_since.map(rfc3339),
            from: words::other_young_until(standing).map(rfc3339),
        },
        checked: standing.checks.map(|it| Checked {
            found: it.found,
            missed: it.missed,
            barred_until: it.barred_until.map(rfc3339),
        }),
        dialled: dial.map(|dial| Dialled {
            at: rfc3339(dial.at),
            linked: dial.outcome.is_ok(),
            why: words::dial(dial),
        }),
    }
}

fn receipts<'a>(by_address: impl Iterator<Item = (SocketAddr, &'a Vec<Voucher>)>) -> Vec<Receipt> {
    let receipt = |address, it: &Voucher| Receipt {
        issuer: it.issuer.to_string(),
        group: it.group.to_string(),
        address,
        at: rfc3339(it.at),
        expires: rfc3339(it.expires_at),
    };
    by_address
        .flat_map(|(address, vouchers)| vouchers.iter().map(move |it| receipt(address, it)))
        .collect()
}

/// Links that are not with relays.
fn coarse_clients(standing: &Standing) -> usize {
    let clients = standing
        .stats
        .links
        .saturating_sub(standing.relay_link_count);
    Coarse(clients).least()
}

fn coarse(count: u64) -> usize {
    Coarse(usize::try_from(count).unwrap_or(usize::MAX)).least()
}

fn bytes(exact: u64) -> u64 {
    mib(exact) << 20
}
