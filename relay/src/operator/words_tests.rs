use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::{RelayDescriptor, Roles, Unverified};
use umbel_proto::handshake::OnionSecret;
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::Group;

use umbel_proto::time::Duration;

use super::*;
use crate::config::Config;
use crate::control::io::{ControlStats, Listed};
use crate::control::standing::{Refusal, Voucher};
use crate::store::StoreState;

const SINCE: WallTime = WallTime(1_790_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn relay(number: u8) -> RelayId {
    RelayId([number; 32])
}

fn network() -> Network {
    let mut network = Network::local();
    network.params = umbel_proto::network::Params::DEFAULT;
    network
}

fn group(text: &str) -> Group {
    network().group_of(address(text))
}

/// An address that so many relays vouch for, of three.
fn vouched_by(at: &str, count: u8) -> AddressStanding {
    let voucher = |number| Voucher {
        issuer: relay(number),
        group: group("20.1.1.1:9000"),
        at: SINCE.to_hour(),
        expires_at: SINCE + HOUR,
    };
    AddressStanding {
        address: address(at),
        vouchers: (1..=count).map(voucher).collect(),
        is_vouched: count >= 3,
        refusals: Vec::new(),
        taken_by: None,
    }
}

/// An address for which these came, in this order.
fn refused(at: &str, faults: &[NoReceipt]) -> AddressStanding {
    let refusals = (1..).zip(faults).map(|(number, &fault)| Refusal {
        issuer: relay(number),
        group: Some(network().group_of(address(&format!("20.{number}.1.1:9000")))),
        fault,
        at: SINCE,
    });
    AddressStanding {
        refusals: refusals.collect(),
        ..vouched_by(at, 0)
    }
}

fn elsewhere() -> NoReceipt {
    let from = address("20.9.9.9:50000");
    NoReceipt::Refused(ReceiptRefusal::Elsewhere { from })
}

const UNREACHABLE: NoReceipt = NoReceipt::Refused(ReceiptRefusal::Unreachable);
const LIMIT: NoReceipt = NoReceipt::Refused(ReceiptRefusal::Limit);
const BUSY: NoReceipt = NoReceipt::Refused(ReceiptRefusal::Busy);

/// A relay with these addresses and nothing else that is wrong.
fn standing(addresses: Vec<AddressStanding>) -> Standing {
    let is_vouched = addresses.iter().any(|it| it.is_vouched);
    let unvouched = Obstacle::Hindrance(Hindrance::Unvouched);
    Standing {
        addresses,
        receipts_min: 3,
        is_seed: false,
        listed: Some(Listed {
            since: SINCE,
            until: SINCE + 48 * HOUR,
        }),
        obstacle: (!is_vouched).then_some(unvouched),
        has_twin: false,
        missing_seeds: Vec::new(),
        others: 12,
        relay_link_count: 8,
        known_link_count: 8,
        clock_ahead: Some(0),
        stats: ControlStats::default(),
    }
}

/// The sentence of health, whether the relay is reachable, and why.
fn said_with(standing: &Standing, relay_link_count: u64) -> (String, bool, String) {
    said_after(HOUR, &network(), standing, relay_link_count)
}

/// The same of a relay that has been up for so long.
fn said_after(
    uptime: Duration,
    network: &Network,
    standing: &Standing,
    relay_link_count: u64,
) -> (String, bool, String) {
    let peer = Peer {
        id: relay(9),
        host_port: "30.1.1.1:9000".to_owned(),
    };
    let config = Config::new("");
    let facts = facts(&peer, &config, uptime, network, relay_link_count);
    let said = Sentences::new(&facts, standing);
    (said.health(), said.is_reachable(), said.reachable())
}

fn facts<'a>(
    peer: &'a Peer,
    config: &'a Config,
    uptime: Duration,
    network: &'a Network,
    relay_link_count: u64,
) -> Facts<'a> {
    Facts {
        peer,
        listen: address("0.0.0.0:9000"),
        uptime,
        network,
        config,
        relay_link_count,
        queued_cells: 0,
        is_store_failing: false,
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_not_nothing_to_do() {
    let (network, config) = (network(), Config::new(""));
    let peer = Peer {
        id: relay(9),
        host_port: "30.1.1.1:9000".to_owned(),
    };
    let facts = Facts {
        is_store_failing: StoreState::failing().is_failing(),
        ..facts(&peer, &config, HOUR, &network, 0)
    };
    let health = Sentences::new(&facts, &standing(vec![vouched_by(HERE, 3)])).health();
    assert!(health.starts_with("in use: ") && health.contains("can't write to its disk"));
}

fn said(standing: &Standing) -> (String, bool, String) {
    said_with(standing, 0)
}

const HERE: &str = "30.1.1.1:9000";

#[test]
fn a_relay_that_is_used_is_called_so_with_by_whom_and_since_when() {
    let (health, is_reachable, _) = said(&standing(vec![vouched_by(HERE, 4)]));
    assert!(is_reachable);
    assert_eq!(
        health,
        "in use: 4 relays reached this one at 30.1.1.1:9000, the last in the hour from 2026-09-21T14:00:00Z; clients have \
         been able to draw it since 2026-09-22T14:13:20Z: nothing to do"
    );
}

#[test] // §8.2(6)
fn a_young_relay_is_told_from_when_on_it_is_used() {
    let until = SINCE + 24 * HOUR;
    let young = Standing {
        obstacle: Some(Obstacle::Hindrance(Hindrance::Young { until })),
        ..standing(vec![vouched_by(HERE, 3)])
    };
    let (health, is_reachable, _) = said(&young);
    assert!(is_reachable);
    assert!(health.starts_with("not in use yet: 3 relays reached this one"));
    assert!(health.contains(
        "from 2026-09-22T14:13:20Z on at the latest, when all others have known it for 1 day"
    ));
    assert!(health.contains("nothing to do but to keep it running"));
    assert_eq!(young_until(&young), Some(until));
}

#[test] // §8.7
fn a_closed_port_is_told_as_unreachable() {
    let closed = standing(vec![refused(
        HERE,
        &[UNREACHABLE, BUSY, UNREACHABLE, LIMIT],
    )]);
    let (health, is_reachable, why) = said(&closed);
    assert!(!is_reachable);
    assert_eq!(health, format!("not in use: {why}"));
    assert_eq!(
        why,
        "unreachable: 2 relays dialled 30.1.1.1:9000 and did not find this relay there. Open that port to the Internet in the \
         firewall and the router, or set `advertise` to an address that others can dial"
    );
    assert_eq!(state(&closed.addresses[0]), "unreachable");
}

#[test] // §8.7
fn links_from_another_address_are_told_as_elsewhere() {
    let both = refused(HERE, &[elsewhere(), elsewhere(), LIMIT]);
    let (health, is_reachable, why) = said(&standing(vec![both]));
    assert!(!is_reachable && health.starts_with("not in use: elsewhere: "));
    assert_eq!(
        why,
        "elsewhere: your link came from 20.9.9.9, you advertise 30.1.1.1:9000. Set `advertise` to an address with the IP that links \
         come from, or `listen` to the IP of 30.1.1.1:9000"
    );
}

#[test] // §8.7
fn one_relay_alone_moves_no_address() {
    let mut alone = vec![
        refused(HERE, &[elsewhere(), LIMIT]),
        refused(HERE, &[elsewhere(), elsewhere()]),
    ];
    let group = alone[1].refusals[0].group;
    alone[1].refusals[1].group = group;
    for address in alone {
        let (_, _, why) = said(&standing(vec![address]));
        assert!(
            why.contains("One relay says so, and may be wrong: "),
            "{why}"
        );
    }
}

#[test] // §8.7
fn an_address_of_another_relay_is_told_with_whose_it_is() {
    for (outcome, start) in [(elsewhere(), "elsewhere: "), (UNREACHABLE, "unreachable: ")] {
        let taken = AddressStanding {
            taken_by: Some(relay(7)),
            ..refused(HERE, &[outcome])
        };
        let (health, _, why) = said(&standing(vec![taken]));
        assert!(why.starts_with(start) && health.ends_with(&why), "{why}");
        let whose = format!(
            "which is the address of the relay {}: set `advertise`",
            relay(7)
        );
        assert!(why.contains(&whose), "{why}");
    }
}

#[test] // §8.2(4)
fn seeds_without_which_a_young_network_stands_still_are_named() {
    // One of them may have been asked for a receipt.
    for asked in [&[][..], &[NoReceipt::NoAnswer]] {
        let mut waiting = standing(vec![refused(HERE, asked)]);
        waiting.missing_seeds = [3, 4].map(seed).into();
        let (health, _, why) = said(&waiting);
        assert!(health.ends_with(&why) && !why.contains("Nothing to do"));
        for missing in [3, 4].map(seed) {
            assert!(why.contains(&missing.to_string()), "{why}");
        }
    }
}

fn seed(number: u8) -> Peer {
    Peer {
        id: relay(number),
        host_port: format!("30.{number}.1.1:9000"),
    }
}

#[test] // §8.7
fn what_needs_only_time_is_told_so() {
    for (outcomes, state_is, words) in [
        (&[][..], "asking", "asking: 0 of 3 receipts so far"),
        (
            &[LIMIT][..],
            "limit",
            "limit: 1 relay would vouch for no more",
        ),
        (&[LIMIT, BUSY][..], "busy", "busy: 1 relay could not"),
        (
            &[NoReceipt::NoAnswer, NoReceipt::NoAnswer][..],
            "silent",
            "silent: 2 relays gave no",
        ),
    ] {
        let waiting = standing(vec![refused(HERE, outcomes)]);
        let (health, is_reachable, why) = said(&waiting);
        assert!(!is_reachable && health.ends_with(&why));
        assert!(
            why.starts_with(words) && why.to_lowercase().contains("nothing to do"),
            "{why}"
        );
        assert_eq!(state(&waiting.addresses[0]), state_is);
    }
}

#[test] // §8.7(5)
fn who_waits_for_receipts_of_an_ipv6_address_is_told_who_can_give_them() {
    let at = |address: &str| {
        let waiting = standing(vec![refused(address, &[])]);
        said(&waiting).2
    };
    assert!(at("[2600::1]:7443").contains("that have an IPv6 address themselves"));
    assert!(!at(HERE).contains("IPv6"));
}

#[test]
fn what_keeps_a_relay_from_all_others_comes_before_its_addresses() {
    for (obstacle, words) in [
        (
            Obstacle::NoAddress,
            "correct `advertise`, or check the name server",
        ),
        (Obstacle::Alone, "knows no other relay"),
        (
            Obstacle::Clock { ahead: 7200 },
            "clock is 2 hours behind that of other relays",
        ),
        (
            Obstacle::Clock { ahead: -7200 },
            "clock is 2 hours ahead of that of other relays",
        ),
        (Obstacle::Hindrance(Hindrance::Expiring), "about to expire"),
    ] {
        let hindered = Standing {
            obstacle: Some(obstacle),
            ..standing(vec![refused(HERE, &[UNREACHABLE])])
        };
        let (health, ..) = said(&hindered);
        assert!(health.starts_with("not in use: "), "{health}");
        assert!(health.contains(words), "{health}");
        assert!(!health.contains("unreachable"), "{health}");
    }
}

#[test] // §8.3(9)
fn a_relay_that_has_just_started_asks_its_seeds_and_blames_none() {
    let alone = Standing {
        obstacle: Some(Obstacle::Alone),
        ..standing(vec![vouched_by(HERE, 0)])
    };
    let mut seeded = network();
    seeded.seeds.push(Peer {
        id: relay(1),
        host_port: "20.1.1.1:9000".to_owned(),
    });
    let health = |uptime, network| said_after(uptime, network, &alone, 0).0;
    let second = Duration::from_secs(1);
    let first = health(second, &seeded);
    assert!(first.starts_with("not in use: starting"), "{first}");
    for (uptime, network, words) in [
        (HOUR, &seeded, "none of its seeds answers"),
        (second, &network(), "it has no seeds"),
    ] {
        let later = health(uptime, network);
        assert!(later.contains(words), "{later}");
    }
}

#[test] // §8.2(4)
fn a_seed_is_used_without_receipts_and_reachable_by_one() {
    let seed = |addresses| Standing {
        is_seed: true,
        obstacle: None,
        ..standing(addresses)
    };
    let (health, is_reachable, _) = said(&seed(vec![vouched_by(HERE, 0)]));
    assert!(!is_reachable);
    assert!(
        health.starts_with("in use: the network file names it as a seed"),
        "{health}"
    );
    let (health, is_reachable, why) = said(&seed(vec![vouched_by(HERE, 1)]));
    assert!(is_reachable);
    assert!(health.starts_with("in use: 1 relay reached"), "{health}");
    assert!(why.starts_with("1 relay reached"), "{why}");
}

#[test]
fn where_no_receipts_are_asked_for_links_show_that_others_reach_it() {
    let free = Standing {
        receipts_min: 0,
        obstacle: None,
        ..standing(vec![AddressStanding {
            is_vouched: true,
            ..vouched_by(HERE, 0)
        }])
    };
    let (_, is_reachable, why) = said_with(&free, 0);
    assert!(!is_reachable && why.contains("look whether others can connect to its address"));
    assert!(said_with(&free, 1).1);
}

#[test]
fn a_second_address_that_fails_is_told_of_a_relay_that_is_used() {
    let second = "[2a00:1::1]:9000";
    let both = standing(vec![vouched_by(HERE, 3), refused(second, &[UNREACHABLE])]);
    let (health, is_reachable, why) = said(&both);
    assert!(
        is_reachable && health.starts_with("in use: 3 relays reached this one at 30.1.1.1:9000")
    );
    assert!(why.starts_with("3 relays"));
    let told = "But not all is well: unreachable: 1 relay dialled [2a00:1::1]:9000";
    assert!(health.contains(told), "{health}");
}

#[test]
fn a_relay_that_lost_all_its_links_is_told_so() {
    let offline = Standing {
        known_link_count: 0, // and others, that nobody vouches for
        ..standing(vec![vouched_by(HERE, 3)])
    };
    let (health, ..) = said(&offline);
    assert!(health.starts_with("in use: "), "{health}");
    assert!(
        health.contains("linked to no other relay of its view now"),
        "{health}"
    );
}

#[test]
fn a_second_process_with_the_identity_comes_first() {
    let mut twin = standing(vec![vouched_by(HERE, 3)]);
    twin.has_twin = true;
    assert!(said(&twin).0.starts_with("in danger: another process runs"));
}

/// Another relay, of which enough is known for it to be drawn.
fn known() -> KnownRelay {
    let identity = SigningKey::from_seed(&[5; 32]);
    let said = RelayDescriptor {
        network: network().id,
        relay: identity.public().into(),
        onion_keys: vec![OnionSecret::from_seed(&[5; 32]).public()],
        addresses: vec![address(HERE)],
        roles: Roles::NONE,
        version: "0.1.0".to_owned(),
        issued_at: SINCE,
        receipts: Vec::new(),
        puzzle: 0,
    };
    let descriptor = Unverified::decode(&said.sign(&identity)).unwrap();
    KnownRelay {
        descriptor: descriptor.verify(&network(), SINCE).unwrap(),
        vouchers: vec![(address(HERE), vouched_by(HERE, 4).vouchers)],
        receipts_min: 3,
        place: in_view(None),
    }
}

fn in_view(hindrance: Option<Hindrance>) -> Place {
    Place::InView {
        first_seen: SINCE,
        old_since: SINCE,
        hindrance,
    }
}

fn other_of(known: Option<KnownRelay>) -> OtherStanding {
    OtherStanding {
        is_own: false,
        is_seed: false,
        is_linked: false,
        known,
        checks: None,
    }
}

#[test] // §8.2(6)
fn another_relay_is_told_drawn_or_why_not() {
    let young = Some(Hindrance::Young {
        until: SINCE + HOUR,
    });
    let few = vec![(address(HERE), vouched_by(HERE, 1).vouchers)];
    for (known, words) in [
        (
            known(),
            "drawn: it has been known since 2026-09-21T14:13:20Z, 4 of its receipts for 30.1.1.1:9000 count, and it needs 3",
        ),
        (
            KnownRelay {
                receipts_min: 0,
                ..known()
            },
            "drawn: it has been known since 2026-09-21T14:13:20Z, it needs no receipts",
        ),
        (
            KnownRelay {
                place: in_view(young),
                ..known()
            },
            "not drawn: it has been known since 2026-09-21T14:13:20Z, and is drawn from 2026-09-21T15:13:20Z on",
        ),
        (
            KnownRelay {
                place: in_view(Some(Hindrance::Expiring)),
                ..known()
            },
            "not drawn: its descriptor expires at 2026-09-23T14:13:20Z, in less than 6 hours",
        ),
        (
            KnownRelay {
                place: in_view(Some(Hindrance::Unvouched)),
                vouchers: few,
                ..known()
            },
            "not drawn: 1 of its receipts for 30.1.1.1:9000 count, and it needs 3",
        ),
        (
            KnownRelay {
                place: Place::Gone,
                ..known()
            },
            "gone: its last descriptor expired at 2026-09-23T14:13:20Z",
        ),
    ] {
        let said = other(&other_of(Some(known)), None, &network());
        assert!(said.starts_with(words), "{said}");
    }
}

#[test]
fn a_relay_that_nothing_is_known_of_is_told_so_with_what_its_operator_can_do() {
    let stranger = other_of(None);
    let said = other(&stranger, None, &network());
    assert!(
        said.starts_with("unknown: no descriptor of it has come"),
        "{said}"
    );
    assert!(said.contains("its `umbel-relay status` says which"));
    let linked = OtherStanding {
        is_linked: true,
        ..stranger
    };
    let said = other(&linked, None, &network());
    assert!(
        said.starts_with("unknown: it is linked to this relay, but"),
        "{said}"
    );
    let own = OtherStanding {
        is_own: true,
        ..other_of(Some(known()))
    };
    assert_eq!(other(&own, None, &network()), OWN);
}

#[test]
fn what_came_of_the_last_dial_and_of_its_receipts_is_told() {
    let at = SINCE.to_hour();
    let outcome = Err(crate::shell::DialFault::Nobody);
    let barred_until = Some(SINCE + HOUR);
    let barred = OtherStanding {
        checks: Some(IssuerStanding {
            found: 2,
            missed: 3,
            barred_until,
        }),
        ..other_of(Some(known()))
    };
    let said = other(&barred, Some(LastDial { at, outcome }), &network());
    let dialled =
        "This relay dialled it in the hour from 2026-09-21T14:00:00Z: nobody answers there";
    assert!(said.contains(dialled), "{said}");
    let barred =
        "for nothing here until 2026-09-21T15:13:20Z: of 5 that this relay tried, 3 were not true";
    assert!(said.ends_with(barred), "{said}");
}
