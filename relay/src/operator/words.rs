//! Sentences for the operator: what holds, why, and what to do.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use umbel_proto::directory::Hindrance;
use umbel_proto::directory::receipts::{IssuerStanding, NoReceipt, ReceiptRefusal};
use umbel_proto::ids::Peer;
use umbel_proto::network::Network;
use umbel_proto::time::{Duration, WallTime, in_words, rfc3339};

use super::answer::Facts;
use crate::control::standing::{
    AddressStanding, KnownRelay, Obstacle, OtherStanding, Place, Refusal, Standing,
};
use crate::heartbeat::alone;
use crate::net::last_dials::LastDial;
use crate::net::news::{
    OPEN_PORT, SET_CLOCK, WHO_VOUCHES, clock_off_by, family_of_issuers, one_address,
    restore_or_move,
};
use crate::net::selfcheck::TWIN;
use crate::running::seeds;

/// How long a relay that knows no other has just begun to ask its seeds.
const STARTING_MAX: Duration = Duration::from_secs(15);
/// The end of a sentence after which an operator would ask.
const NOTHING_TO_DO: &str = ": nothing to do";
/// What to do where those asked for receipts don't answer.
const SILENT_HINT: &str = "Nothing to do at first: others are asked. If it stays so, see whether the firewall lets this relay dial others";

/// What became of this relay's requests for receipts of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Enough relays vouch for it.
    Vouched,
    /// Those asked did not find this relay there.
    Unreachable,
    /// This relay's links come from elsewhere.
    Elsewhere { from: SocketAddr },
    /// Those asked vouch for no more addresses near it for now.
    Limit,
    /// Those asked have too much to do.
    Busy,
    /// Those asked know another relay there.
    Taken,
    /// Those asked did not answer.
    Silent,
    /// A receipt came that was not for this.
    Wrong,
    /// Nobody has refused.
    Asking,
}

/// What the requests for receipts of an address came to: the last word of those who said something
/// about it, else the last word of all.
fn asked(address: &AddressStanding) -> Asked {
    if address.is_vouched {
        return Asked::Vouched;
    }
    let faults = || address.refusals.iter().rev().map(|it| of_fault(it.fault));
    let is_telling = |it: &Asked| matches!(it, Asked::Unreachable | Asked::Elsewhere { .. });
    let telling = faults().find(is_telling);
    telling.or_else(|| faults().next()).unwrap_or(Asked::Asking)
}

/// Whether relays of two groups say that this relay's links come from there: one may lie, to have it
/// moved.
fn agree_on(address: &AddressStanding, from: SocketAddr) -> bool {
    let says_so = |it: &&Refusal| match it.fault {
        NoReceipt::Refused(ReceiptRefusal::Elsewhere { from: other }) => other.ip() == from.ip(),
        NoReceipt::Refused(_) | NoReceipt::NoAnswer | NoReceipt::Wrong => false,
    };
    let groups = address.refusals.iter().filter(says_so);
    let groups: BTreeSet<_> = groups.filter_map(|it| it.group).collect();
    groups.len() > 1
}

const fn of_fault(fault: NoReceipt) -> Asked {
    match fault {
        NoReceipt::Refused(ReceiptRefusal::Unreachable) => Asked::Unreachable,
        NoReceipt::Refused(ReceiptRefusal::Elsewhere { from }) => Asked::Elsewhere { from },
        NoReceipt::Refused(ReceiptRefusal::Limit) => Asked::Limit,
        NoReceipt::Refused(ReceiptRefusal::Busy) => Asked::Busy,
        NoReceipt::Refused(ReceiptRefusal::Taken) => Asked::Taken,
        NoReceipt::NoAnswer => Asked::Silent,
        NoReceipt::Wrong => Asked::Wrong,
    }
}

/// How an address stands, in a word for programs.
pub(super) fn state(address: &AddressStanding) -> &'static str {
    match asked(address) {
        Asked::Vouched => "ok",
        Asked::Unreachable => "unreachable",
        Asked::Elsewhere { .. } => "elsewhere",
        Asked::Limit => "limit",
        Asked::Busy => "busy",
        Asked::Taken => "taken",
        Asked::Silent => "silent",
        Asked::Wrong => "wrong",
        Asked::Asking => "asking",
    }
}

/// From when on this relay is drawn, if only its age is missing.
pub(super) const fn young_until(standing: &Standing) -> Option<WallTime> {
    match standing.obstacle {
        Some(Obstacle::Hindrance(Hindrance::Young { until })) => Some(until),
        _ => None,
    }
}

/// The sentences about this relay itself.
pub(super) struct Sentences<'a> {
    facts: &'a Facts<'a>,
    standing: &'a Standing,
}

impl<'a> Sentences<'a> {
    pub(super) const fn new(facts: &'a Facts<'a>, standing: &'a Standing) -> Self {
        Self { facts, standing }
    }

    /// All of it in one.
    pub(super) fn health(&self) -> String {
        if self.standing.has_twin {
            return format!(
                "in danger: {TWIN}. Once that one is stopped, this is said for two hours more at most"
            );
        }
        let (standing, nothing_to_do) = match self.standing.obstacle {
            None => (
                format!("in use: {}; {}", self.reached_by(), self.drawn_since()),
                NOTHING_TO_DO,
            ),
            Some(Obstacle::Hindrance(Hindrance::Young { .. })) => {
                let (reached, selectable) = (self.reached_by(), self.selectable());
                (format!("not in use yet: {reached}; {selectable}"), "")
            }
            Some(_) => (format!("not in use: {}", self.selectable()), ""),
        };
        let is_drawn = self.standing.obstacle.is_none() || young_until(self.standing).is_some();
        let failing = self
            .failing()
            .filter(|_| is_drawn && !self.standing.is_seed);
        let but = |what: String| format!("{standing}. But {what}");
        match failing {
            _ if is_drawn && self.facts.is_store_failing => but(
                "it can't write to its disk, and refuses mail: see the log, and free some space or check the disk".to_owned(),
            ),
            Some(address) => but(format!("not all is well: {}", self.address(address))),
            None if is_drawn && self.standing.known_link_count == 0 => but(
                "it is linked to no other relay of its view now: if that stays so, check this machine's network".to_owned(),
            ),
            None => format!("{standing}{nothing_to_do}"),
        }
    }

    /// Whether others reach this relay, as far as they told it. Of a seed, one has to: it needs no
    /// receipts yet. Where nobody is asked for receipts, links show it.
    pub(super) fn is_reachable(&self) -> bool {
        let mut addresses = self.standing.addresses.iter();
        if self.standing.receipts_min == 0 {
            self.facts.relay_link_count > 0
        } else if self.standing.is_seed {
            addresses.any(|it| !it.vouchers.is_empty())
        } else {
            addresses.any(|it| it.is_vouched)
        }
    }

    /// Why others reach this relay, or do not.
    pub(super) fn reachable(&self) -> String {
        match self.failing() {
            Some(address) if !self.is_reachable() => self.address(address),
            _ => self.reached_by(),
        }
    }

    /// Why clients draw this relay, or do not.
    pub(super) fn selectable(&self) -> String {
        match self.standing.obstacle {
            None => format!("{}{NOTHING_TO_DO}", self.drawn_since()),
            Some(Obstacle::NoAddress) => {
                "none of the names that it advertises was found: correct `advertise`, or check the name server".to_owned()
            }
            Some(Obstacle::Clock { ahead }) => format!(
                "this relay's clock is {} that of other relays, so its descriptor and theirs are not believed: \
                 {SET_CLOCK}",
                clock_off_by(ahead)
            ),
            Some(Obstacle::Alone) if self.is_starting() => {
                "starting: it asks its seeds, and it takes seconds until one has answered".to_owned()
            }
            Some(Obstacle::Alone) => {
                alone(self.facts.config, self.facts.network, self.facts.peer)
            }
            Some(Obstacle::Hindrance(Hindrance::Unvouched)) => self.reachable(),
            Some(Obstacle::Hindrance(Hindrance::Expiring)) => {
                "its descriptor is about to expire, and no other was issued: look at the log, and report this".to_owned()
            }
            Some(Obstacle::Hindrance(Hindrance::Young { until })) => format!(
                "clients draw it from {} on at the latest, when all others have known it for {}; those that join later, or remember it \
                 from before it was off, draw it at once: nothing to do but to keep it running",
                rfc3339(until),
                in_words(self.facts.network.params.selectable_age)
            ),
        }
    }

    /// Since when clients have been able to draw this relay.
    fn drawn_since(&self) -> String {
        let age = self.facts.network.params.selectable_age;
        let since = self.standing.listed.map(|it| rfc3339(it.since + age));
        let since = since.unwrap_or_default();
        format!("clients have been able to draw it since {since}")
    }

    /// Whether it began to ask its seeds a moment ago.
    fn is_starting(&self) -> bool {
        let Facts {
            uptime,
            config,
            network,
            peer,
            ..
        } = self.facts;
        *uptime < STARTING_MAX && !seeds(config, network, peer.id).is_empty()
    }

    /// Why enough relays vouch for an address, or do not.
    pub(super) fn address(&self, it: &AddressStanding) -> String {
        let (address, asked) = (it.address, asked(it));
        let count = refused_by(it, asked);
        let taken = it.taken_by.map(|relay| {
            format!(
                ", which is the address of the relay {relay}: set `advertise` to this relay's own address"
            )
        });
        match asked {
            Asked::Vouched => self.vouched(it),
            Asked::Unreachable => format!(
                "unreachable: {count} dialled {address} and did not find this relay there{}",
                taken.unwrap_or_else(|| format!(". {OPEN_PORT}"))
            ),
            Asked::Elsewhere { from } => format!(
                "elsewhere: your link came from {}, you advertise {address}{}",
                from.ip(),
                taken.unwrap_or_else(|| {
                    let set = if agree_on(it, from) {
                        "Set"
                    } else {
                        "One relay says so, and may be wrong: once another in another address group says the same, set"
                    };
                    format!(". {set} {}", one_address(address))
                })
            ),
            Asked::Limit => format!(
                "limit: {count} would vouch for no more addresses near {address} for now; {}. Nothing to do: others are asked, and \
                 these again within a day",
                self.so_far(it)
            ),
            Asked::Busy => format!(
                "busy: {count} could not look after {address}; {}. Nothing to do: others are asked",
                self.so_far(it)
            ),
            Asked::Taken => format!(
                "taken: {count} knew another relay at {address}, or four at its IP{}; {}. {}",
                it.taken_by.map_or_else(String::new, |relay| format!(", {relay}")),
                self.so_far(it),
                restore_or_move(self.facts.network)
            ),
            Asked::Silent => format!(
                "silent: {count} gave no answer about {address}; {}. {}",
                self.so_far(it),
                self.missing().unwrap_or_else(|| SILENT_HINT.to_owned())
            ),
            Asked::Wrong => format!(
                "wrong: {count} sent a receipt for {address} that is dated by another clock than this relay's, or is none; {}. Check this relay's clock; others are asked",
                self.so_far(it)
            ),
            Asked::Asking => format!(
                "asking: {}. {}",
                self.so_far(it),
                self.missing().unwrap_or_else(|| {
                    format!(
                        "Nothing to do but to wait: it takes seconds once this relay knows enough {WHO_VOUCHES}{}",
                        family_of_issuers(address)
                    )
                })
            ),
        }
    }

    /// The seeds for which a young network waits, if it does, and what to do. One that was asked for a
    /// receipt has not answered.
    fn missing(&self) -> Option<String> {
        let missing = &self.standing.missing_seeds;
        let is_waiting = !missing.is_empty() && !self.is_starting();
        is_waiting.then(|| {
            format!(
                "While the network is young, the seeds of its file vouch for others, and these can't be reached: {}. It takes \
                 seconds once they are back: tell whoever runs them",
                listed(missing)
            )
        })
    }

    /// By whom this relay is reached.
    fn reached_by(&self) -> String {
        let addresses = &self.standing.addresses;
        match addresses.iter().find(|it| !it.vouchers.is_empty()) {
            Some(address) => self.vouched(address),
            None if self.standing.receipts_min == 0 && self.facts.relay_link_count > 0 => {
                "other relays reached this one; this network asks for no receipts".to_owned()
            }
            None if self.standing.receipts_min == 0 => {
                "no other relay has linked to this one yet, and this network asks for no receipts: look whether others can \
                 connect to its address"
                    .to_owned()
            }
            None if self.standing.is_seed => {
                "the network file names it as a seed, so it needs no receipts yet; it asks for some".to_owned()
            }
            None => "relays that reached this one before are out of its view now, and their receipts still count; it asks others"
                .to_owned(),
        }
    }

    fn vouched(&self, it: &AddressStanding) -> String {
        let last = it.vouchers.iter().map(|voucher| voucher.at).max();
        match last {
            Some(at) => format!(
                "{} reached this one at {}, the last in the hour from {}",
                relays(it.vouchers.len()),
                it.address,
                rfc3339(at)
            ),
            None => self.reached_by(),
        }
    }

    /// How many relays vouch for an address that needs more.
    fn so_far(&self, it: &AddressStanding) -> String {
        format!(
            "{} of {} receipts so far",
            it.vouchers.len(),
            self.standing.receipts_min
        )
    }

    /// The first address for which too few vouch.
    fn failing(&self) -> Option<&'a AddressStanding> {
        self.standing.addresses.iter().find(|it| !it.is_vouched)
    }
}

/// How many relays said this of an address.
fn refused_by(it: &AddressStanding, asked: Asked) -> String {
    let said = it.refusals.iter().map(|it| of_fault(it.fault));
    relays(said.filter(|it| same(it, &asked)).count())
}

fn same(one: &Asked, other: &Asked) -> bool {
    core::mem::discriminant(one) == core::mem::discriminant(other)
}

fn relays(count: usize) -> String {
    if count == 1 {
        "1 relay".to_owned()
    } else {
        format!("{count} relays")
    }
}

/// From when on another relay is drawn, if only its age is missing.
pub(super) fn other_young_until(standing: &OtherStanding) -> Option<WallTime> {
    match standing.known.as_ref()?.place {
        Place::InView {
            hindrance: Some(Hindrance::Young { until }),
            ..
        } => Some(until),
        Place::Gone | Place::InView { .. } => None,
    }
}

/// What is thought of another relay, in one sentence.
pub(super) fn other(standing: &OtherStanding, dial: Option<LastDial>, network: &Network) -> String {
    let verdict = match standing.known.as_ref().map(|it| it.place) {
        _ if standing.is_own => return OWN.to_owned(),
        None => "unknown",
        Some(Place::Gone) => "gone",
        Some(Place::InView {
            hindrance: Some(_), ..
        }) => "not drawn",
        Some(Place::InView {
            hindrance: None, ..
        }) => "drawn",
    };
    let dialled = dial.map_or_else(String::new, |it| format!(". {}", self::dial(it)));
    let barred = standing.checks.as_ref().and_then(barred);
    format!(
        "{verdict}: {}{dialled}{}",
        other_selectable(standing, network),
        barred.unwrap_or_default()
    )
}

/// That an issuer vouches for nobody, if it does not.
fn barred(checks: &IssuerStanding) -> Option<String> {
    let until = rfc3339(checks.barred_until?);
    Some(format!(
        ". Its receipts count for nothing here until {until}: of {} that this relay tried, {} were not true",
        checks.found + checks.missed,
        checks.missed
    ))
}

const OWN: &str = "this is the relay that you ask: see `umbel-relay status`";

/// Why another relay is drawn by those who see what this one sees, or is not.
pub(super) fn other_selectable(standing: &OtherStanding, network: &Network) -> String {
    let Some(known) = &standing.known else {
        return unknown(standing.is_linked);
    };
    let expires_at = rfc3339(known.descriptor.expires_at());
    let Place::InView {
        first_seen,
        hindrance,
        ..
    } = known.place
    else {
        return format!(
            "its last descriptor expired at {expires_at}, so nobody draws it: it is switched off, or can't reach the network; its \
             `umbel-relay status` says more. Its last addresses are kept"
        );
    };
    let first_seen = rfc3339(first_seen);
    match hindrance {
        _ if standing.is_own => OWN.to_owned(),
        None => format!(
            "it has been known since {first_seen}, {}, and its descriptor lives until {expires_at}",
            vouched_for(known)
        ),
        Some(Hindrance::Young { until }) => format!(
            "it has been known since {first_seen}, and is drawn from {} on, after {}; {}",
            rfc3339(until),
            in_words(network.params.selectable_age),
            vouched_for(known)
        ),
        Some(Hindrance::Expiring) => format!(
            "its descriptor expires at {expires_at}, in less than {}, and no newer one has come: it is switched off, or can't reach \
             the network; its `umbel-relay status` says more",
            in_words(network.params.selectable_left)
        ),
        Some(Hindrance::Unvouched) => format!(
            "{}; those who vouch must be {WHO_VOUCHES}: it asks for more by itself",
            vouched_for(known)
        ),
    }
}

fn unknown(is_linked: bool) -> String {
    let found = if is_linked {
        "it is linked to this relay, but its descriptor is not believed"
    } else {
        "no descriptor of it has come that this relay believes"
    };
    format!(
        "{found}: too few relays vouch for its addresses, its clock is wrong, or it is of another network; its `umbel-relay status` \
         says which. Or the id is mistyped"
    )
}

/// How many relays vouch for the address of another relay for which fewest do.
fn vouched_for(known: &KnownRelay) -> String {
    let fewest = known
        .vouchers
        .iter()
        .min_by_key(|(_, vouchers)| vouchers.len());
    match fewest {
        None => "it has no address".to_owned(),
        Some(_) if known.receipts_min == 0 => "it needs no receipts".to_owned(),
        Some((address, vouchers)) => format!(
            "{} of its receipts for {address} count, and it needs {}",
            vouchers.len(),
            known.receipts_min
        ),
    }
}

/// What came of the last dial.
pub(super) fn dial(dial: LastDial) -> String {
    let at = rfc3339(dial.at);
    match dial.outcome {
        Ok(()) => format!("This relay dialled it and reached it in the hour from {at}"),
        Err(fault) => format!("This relay dialled it in the hour from {at}: {fault}"),
    }
}

/// Peers, one after the other.
fn listed(peers: &[Peer]) -> String {
    let peers: Vec<String> = peers.iter().map(Peer::to_string).collect();
    peers.join(", ")
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
