//! What is weak about a network, and what follows: beside the values that its file must accept
//! (docs/protocol.md §8.6(5)), seeds that don't let it begin and parameters that are far from sound.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;
use umbel_proto::directory::descriptor::is_dialable;
use umbel_proto::limits::RELAY_DESCRIPTOR_LIFE;
use umbel_proto::network::{AsMap, Network, Params};
use umbel_proto::time::Duration;

/// One weak point.
#[derive(Debug, Serialize)]
pub(super) struct Advice {
    /// The key in the file.
    key: &'static str,
    /// What follows, in words that need no more than the key before them.
    why: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

/// Everything that is weak, seeds first, each key's point once.
pub(super) fn of(network: &Network) -> Vec<Advice> {
    let params = &network.params;
    let mut advice = of_seeds(network);
    if params.as_map == AsMap::None {
        advice.push(Advice {
            key: "as_map",
            why: format!(
                "none: whoever rents prefixes in one network counts as many operators; \"{}\" is the \
                 map that this version ships",
                AsMap::NEWEST.name()
            ),
        });
    }
    advice.extend(params.weaknesses().map(|weakness| Advice {
        key: weakness.key,
        why: format!(
            "{} weakens anonymity: {}",
            weakness.values, weakness.consequence
        ),
    }));
    let unsound = UNSOUND.iter().filter(|unsound| (unsound.is_in)(params));
    advice.extend(unsound.map(|unsound| Advice {
        key: unsound.key,
        why: unsound.why.to_owned(),
    }));
    advice
}

/// With fewer seeds, a failure or a censor that stops them stops all newcomers.
const SEEDS_MIN: usize = 3;

fn of_seeds(network: &Network) -> Vec<Advice> {
    let advice = |why: String| Advice { key: "seeds", why };
    let mut all = Vec::new();
    let (mut taken, mut apart, mut relays) = (BTreeSet::new(), 0, BTreeSet::new());
    for (index, seed) in network.seeds.iter().enumerate() {
        let number = index + 1;
        if !relays.insert(seed.id) {
            all.push(advice(format!(
                "number {number} is a relay that is named before"
            )));
        }
        match seed.host_port.parse::<SocketAddr>() {
            Ok(address) if is_dialable(address, network) => {
                let groups: BTreeSet<_> = network.groups_of(address).collect();
                if groups.is_disjoint(&taken) {
                    taken.extend(groups);
                    apart += 1;
                }
            }
            Ok(_) => all.push(advice(format!(
                "number {number} has an address that is not public: nobody else reaches it"
            ))),
            Err(_) => all.push(advice(format!(
                "number {number} is a host name: its address group can't be judged here, and who \
                 controls the name decides where newcomers begin"
            ))),
        }
    }
    let wanted = network.params.receipts_min;
    match network.seeds.len() {
        0 => all.push(advice(
            "none: nobody can join without a seed from elsewhere".to_owned(),
        )),
        few @ ..SEEDS_MIN => all.push(advice(format!(
            "{few}, not {SEEDS_MIN}: nobody can join while these are down or blocked"
        ))),
        _ => {}
    }
    // If none can be judged, that is said of each.
    if apart < wanted && (apart > 0 || network.seeds.is_empty()) {
        all.push(advice(format!(
            "in {apart} of the {wanted} distinct address groups that vouch for a newcomer: newcomers \
             get too few receipts, and nobody uses them (with as_map, relays of one AS are in one \
             group)"
        )));
    }
    all
}

/// A value that needs no acceptance, and that few networks should have.
struct Unsound {
    key: &'static str,
    why: &'static str,
    is_in: fn(&Params) -> bool,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const fn hours(count: u64) -> Duration {
    minutes(count * 60)
}

const fn days(count: u64) -> Duration {
    hours(count * 24)
}

const UNSOUND: &[Unsound] = &[
    Unsound {
        key: "danger_allow_private_addresses",
        why: "a descriptor can make others dial into their own network",
        is_in: |params| params.danger_allow_private_addresses,
    },
    Unsound {
        key: "receipts_min",
        why: "under 3: so few relays that lie let addresses in that nobody reached",
        is_in: |params| (1..3).contains(&params.receipts_min),
    },
    Unsound {
        key: "receipt_issuer_age",
        why: "under a day: relays that an attacker just started vouch for more of them",
        is_in: |params| params.receipts_min > 0 && params.receipt_issuer_age < days(1),
    },
    Unsound {
        key: "seeds_vouch_until",
        why: "0: nobody vouches for the first relays, so the network can't begin",
        is_in: |params| params.receipts_min > 0 && params.seeds_vouch_until == 0,
    },
    Unsound {
        key: "seeds_vouch_until",
        why: "over 200: the founders decide for long who gets in",
        is_in: |params| params.receipts_min > 0 && params.seeds_vouch_until > 200,
    },
    Unsound {
        key: "receipt_life",
        why: "over 30 days: a receipt says little of where its relay is now",
        is_in: |params| params.receipt_life > days(30),
    },
    Unsound {
        key: "selectable_age",
        why: "under an hour: relays are used before views agree on them",
        is_in: |params| !params.selectable_age.is_zero() && params.selectable_age < hours(1),
    },
    Unsound {
        key: "selectable_age",
        why: "over 7 days: a relay is idle that long, and its operator sees no reason",
        is_in: |params| params.selectable_age > days(7),
    },
    Unsound {
        key: "republish",
        why: "with republish_jitter and selectable_left longer than a descriptor lives (48 h): \
              relays are not used at times",
        is_in: |params| {
            params.republish + params.republish_jitter + params.selectable_left
                > RELAY_DESCRIPTOR_LIFE
        },
    },
    Unsound {
        key: "onion_key_life",
        why: "over 14 days: a key seized with a relay opens that much recorded traffic",
        is_in: |params| params.onion_key_life > days(14),
    },
    Unsound {
        key: "sync_interval",
        why: "under 10 s: relays reconcile so often that a large network does little else",
        is_in: |params| params.sync_interval < Duration::from_secs(10),
    },
    Unsound {
        key: "sync_interval",
        why: "over an hour: views differ for long, and paths use relays that others don't know",
        is_in: |params| params.sync_interval > hours(1),
    },
    Unsound {
        key: "client_sync_interval",
        why: "under a minute: guards carry more directory than mail",
        is_in: |params| params.client_sync_interval < minutes(1),
    },
    Unsound {
        key: "client_sync_interval",
        why: "over 12 hours: clients don't know relays that others use, which tells them apart",
        is_in: |params| params.client_sync_interval > hours(12),
    },
    Unsound {
        key: "guards_primary",
        why: "over 5: each guard more is a chance more that one of them is hostile",
        is_in: |params| params.guards_primary > 5,
    },
    Unsound {
        key: "guard_age_min",
        why: "under 7 days: relays that an attacker just started become guards",
        is_in: |params| params.guard_age_min < days(7),
    },
    Unsound {
        key: "guard_life",
        why: "under 30 days: each change of guard is a chance more for a hostile one",
        is_in: |params| params.guard_life < days(30),
    },
    Unsound {
        key: "guard_life_confirmed",
        why: "under 30 days: each change of guard is a chance more for a hostile one",
        is_in: |params| params.guard_life_confirmed < days(30),
    },
    Unsound {
        key: "guard_failures_percent",
        why: "over 60: a guard that breaks what it can't win is kept",
        is_in: |params| params.guard_failures_percent > 60,
    },
    Unsound {
        key: "l2_count",
        why: "over 8: each pinned relay more is a chance more that one of them is hostile",
        is_in: |params| params.l2_count > 8,
    },
    Unsound {
        key: "l2_life_max",
        why: "under a day: pinned relays change so often that a hostile one comes soon",
        is_in: |params| params.l2_life_max < days(1),
    },
    Unsound {
        key: "circuits_per_attempt",
        why: "over 6: who makes circuits fail gets that many draws for each attempt",
        is_in: |params| params.circuits_per_attempt > 6,
    },
    Unsound {
        key: "circuit_dirty",
        why: "over an hour: one relay sees that many requests on one circuit",
        is_in: |params| params.circuit_dirty > hours(1),
    },
    Unsound {
        key: "retry_base",
        why: "under a second: failures turn into a flood of retries",
        is_in: |params| params.retry_base < Duration::from_secs(1),
    },
    Unsound {
        key: "retry_max",
        why: "under a minute: where something is down for long, retries are a load and a pattern",
        is_in: |params| params.retry_max < minutes(1),
    },
    Unsound {
        key: "lookups_agree",
        why: "1: one directory relay can hide an inbox's newest descriptor",
        is_in: |params| params.lookups_agree < 2,
    },
    Unsound {
        key: "mailboxes",
        why: "1: an inbox is out of reach whenever one relay is",
        is_in: |params| params.mailboxes < 2,
    },
    Unsound {
        key: "holders_wanted",
        why: "1: a message is lost with the one relay that has it",
        is_in: |params| params.holders_wanted < 2,
    },
    Unsound {
        key: "fetch_interval",
        why: "under 10 s: fetches are most of what relays carry",
        is_in: |params| params.fetch_interval < Duration::from_secs(10),
    },
    Unsound {
        key: "record_life",
        why: "under 7 days: mail is deleted before a reader returns who was away for a week",
        is_in: |params| params.record_life < days(7),
    },
    Unsound {
        key: "puzzle_effort",
        why: "0: strangers can flood an inbox at no cost",
        is_in: |params| params.puzzle_effort == 0,
    },
    Unsound {
        key: "creates_per_second",
        why: "over 20: one link can use up a relay's processors",
        is_in: |params| params.creates_per_second > 20,
    },
    Unsound {
        key: "padding_max",
        why: "over 30 s: gaps between padding cells show when a client is in use",
        is_in: |params| params.link_padding && params.padding_max > Duration::from_secs(30),
    },
    Unsound {
        key: "clock_warn",
        why: "over 3 hours: epochs go wrong before anyone is warned of a wrong clock",
        is_in: |params| params.clock_warn > hours(3),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A network whose seeds are at these addresses.
    fn with_seeds(hosts: &[&str]) -> Network {
        let seed = |(index, host): (usize, &&str)| {
            let id = ["a", "b", "c", "d"][index].repeat(51);
            format!("{id}a@{host}:7443").parse().unwrap()
        };
        Network {
            seeds: hosts.iter().enumerate().map(seed).collect(),
            params: Params::NEW,
            ..Network::local()
        }
    }

    fn said(network: &Network) -> String {
        of(network)
            .iter()
            .map(|advice| format!("{advice}\n"))
            .collect()
    }

    #[test] // §8.2(4)
    fn defaults_with_three_seeds_in_distinct_groups_are_sound() {
        assert_eq!(said(&with_seeds(&["8.1.0.1", "9.1.0.1", "11.1.0.1"])), "");
        assert_eq!(said(&with_seeds(&["8.1.0.1", "9.1.0.1", "[2600::1]"])), "");
    }

    #[test] // §8.2(4)
    fn seeds_that_cannot_vouch_for_newcomers_are_named() {
        let near = said(&with_seeds(&["8.1.0.1", "9.1.0.1", "8.1.9.9"]));
        assert!(
            near.starts_with("seeds: in 2 of the 3 distinct address groups"),
            "{near}"
        );
        assert_eq!(near.lines().count(), 1, "{near}");
        let few = said(&with_seeds(&["8.1.0.1", "9.1.0.1"]));
        assert!(
            few.starts_with("seeds: 2, not 3: ") && few.contains("in 2 of the 3"),
            "{few}"
        );
        let none = said(&with_seeds(&[]));
        assert!(
            none.contains("seeds: none: ") && none.contains("in 0 of the 3"),
            "{none}"
        );
        let odd = said(&with_seeds(&[
            "relay.example",
            "10.0.0.1",
            "8.1.0.1",
            "9.1.0.1",
        ]));
        assert!(odd.contains("number 1 is a host name"), "{odd}");
        assert!(
            odd.contains("number 2 has an address that is not public"),
            "{odd}"
        );
        let mut twice = with_seeds(&["8.1.0.1", "9.1.0.1", "11.1.0.1", "12.1.0.1"]);
        twice.seeds[3].id = twice.seeds[0].id;
        assert!(said(&twice).contains("number 4 is a relay that is named before"));
    }

    #[test] // §8.5(4)
    fn seeds_of_one_as_vouch_as_one() {
        let mut network = with_seeds(&["8.8.8.8", "142.250.0.1", "1.1.1.1"]);
        let near = said(&network);
        assert!(near.starts_with("seeds: in 2 of the 3"), "{near}");
        network.params.as_map = AsMap::None;
        let without = said(&network);
        assert!(without.starts_with("as_map: none: "), "{without}");
        assert_eq!(without.lines().count(), 1, "{without}");
    }

    #[test] // §8.6(5)
    fn the_local_network_is_weak_in_every_way_that_needs_acceptance() {
        let local = Network::local();
        let said = said(&local);
        for weakness in local.params.weaknesses() {
            assert!(said.contains(&format!("\n{}: ", weakness.key)), "{said}");
        }
        assert!(said.contains("danger_allow_private_addresses: "), "{said}");
        assert!(said.contains("puzzle_effort: 0: "), "{said}");
    }

    #[test]
    fn no_value_of_a_new_network_is_unsound() {
        for unsound in UNSOUND {
            assert!(!(unsound.is_in)(&Params::NEW), "{}", unsound.key);
        }
    }
}
