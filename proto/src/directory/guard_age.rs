//! Which relays are old enough to become guards (docs/protocol.md §6.4(17)).
//!
//! A guard is kept for months, so it should not come from a flood of relays that somebody started
//! last week. What counts is how long a relay has been at its address: an old identity that moves is
//! new there.

use super::choice::Candidates;
use super::descriptor::VerifiedDescriptor;
use super::view::NetView;
use crate::limits::GUARDS_ONE_IN;
use crate::network::Network;
use crate::time::WallTime;

/// One of the relays that may be drawn.
struct Aged<'a> {
    since: WallTime,
    weight: u64,
    descriptor: &'a VerifiedDescriptor,
}

/// Of the relays that may be drawn, those that may become guards. Caps and shares count among them,
/// as in any draw. `confirmed`: the time by which ages are judged; a clock that jumps makes nobody old.
pub fn old_enough(
    all: &Candidates,
    view: &NetView,
    network: &Network,
    confirmed: WallTime,
) -> Candidates {
    if network.params.guard_age_min.is_zero() {
        return all.clone();
    }
    let aged = |(relay, weight)| {
        let descriptor = view.get(&relay)?;
        let since = there_since(view, descriptor, network, confirmed);
        Some(Aged {
            since,
            weight,
            descriptor,
        })
    };
    let mut oldest_first: Vec<Aged<'_>> = all.weights().filter_map(aged).collect();
    oldest_first.sort_by_key(|it| it.since);
    let latest = latest(&oldest_first, network, confirmed);
    let old = oldest_first.iter().take_while(|it| it.since <= latest);
    Candidates::new(old.map(|it| &**it.descriptor), network)
}

/// Since when a guard must have been there. If too few relays have the wanted age, the oldest relays
/// that make up half of the weight are taken. Weight, not number: many ports on one address add none.
/// Never fewer than so many relays that a client's guards are few of them.
fn latest(oldest_first: &[Aged<'_>], network: &Network, confirmed: WallTime) -> WallTime {
    let count_min = network.params.guards_primary * GUARDS_ONE_IN;
    let whole: u64 = oldest_first.iter().map(|it| it.weight).sum();
    let of_age = confirmed.before(network.params.guard_age_min);
    let (mut count, mut weight) = (0, 0);
    let are_enough = |it: &&Aged<'_>| {
        (count, weight) = (count + 1, weight + it.weight);
        let is_much = weight >= whole / 2;
        let are_many_of_age = it.since <= of_age && weight >= whole / GUARDS_ONE_IN as u64;
        count >= count_min && (is_much || are_many_of_age)
    };
    let last = oldest_first.iter().find(are_enough);
    last.map_or(WallTime(u64::MAX), |last| last.since.max(of_age))
}

/// Since when a relay has been at its first address. Receipts say so as far back as all relays can
/// show some that were there: an older date would favour those who choose what to show.
fn there_since(
    view: &NetView,
    descriptor: &VerifiedDescriptor,
    network: &Network,
    confirmed: WallTime,
) -> WallTime {
    let dated = confirmed.before(network.params.receipt_life / 2);
    view.there_since(descriptor, dated, network, confirmed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Range;

    use super::*;
    use crate::directory::testing::{self, WALL};
    use crate::ids::{Peer, RelayId};
    use crate::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);

    fn network() -> Network {
        let mut network = testing::public_network();
        network.params.guard_age_min = DAY * 30;
        network
    }

    fn id(number: u32) -> RelayId {
        testing::relay(number).descriptor.relay
    }

    fn ids(numbers: Range<u32>) -> BTreeSet<RelayId> {
        numbers.map(id).collect()
    }

    /// These relays come into view so many days ago.
    fn come(view: &mut NetView, numbers: Range<u32>, days_ago: u32) {
        for number in numbers {
            view.insert(
                testing::relay(number).verified(),
                WALL.before(DAY * days_ago),
            );
        }
    }

    /// The relays of this view that may become guards.
    fn guards(view: &NetView, network: &Network) -> BTreeSet<RelayId> {
        let all = Candidates::new(view.iter().map(|it| &**it), network);
        let old = old_enough(&all, view, network, WALL);
        old.weights().map(|(relay, _)| relay).collect()
    }

    #[test] // §6.4(17)
    fn relays_that_came_last_month_become_no_guards() {
        let (network, mut view) = (network(), NetView::new());
        come(&mut view, 0..40, 31);
        come(&mut view, 40..190, 29);
        assert_eq!(guards(&view, &network), ids(0..40));
        let mut any_age = network;
        any_age.params.guard_age_min = Duration::ZERO;
        assert_eq!(guards(&view, &any_age), ids(0..190));
    }

    #[test] // §6.4(17)
    fn in_a_young_network_the_oldest_half_become_guards() {
        let (network, mut view) = (network(), NetView::new());
        (0..29).for_each(|day| come(&mut view, day..day + 1, 29 - day));
        assert_eq!(guards(&view, &network), ids(0..15));
        let mut small = NetView::new();
        (0..15).for_each(|day| come(&mut small, day..day + 1, 29 - day));
        assert_eq!(guards(&small, &network), ids(0..15), "too few to leave any");
    }

    #[test] // §6.4(17)
    fn a_crowd_of_few_networks_makes_no_younger_relays_guards() {
        let (network, mut view) = (network(), NetView::new());
        come(&mut view, 0..40, 31);
        for number in 1000..2000_u32 {
            let [.., high, low] = number.to_be_bytes();
            let address = format!("9.{}.{high}.{low}:9000", number % 4)
                .parse()
                .unwrap();
            let relay = testing::relay(number).with(|it| it.addresses = vec![address]);
            view.insert(relay.verified(), WALL.before(DAY));
        }
        assert_eq!(guards(&view, &network), ids(0..40));
    }

    #[test] // §6.4(17)
    fn all_relays_of_a_setup_are_as_old_and_one_that_moves_is_new() {
        let (network, mut view) = (network(), NetView::new());
        for number in 0..40 {
            let minutes = Duration::from_secs(60) * number;
            view.insert(
                testing::relay(number).verified(),
                WALL.before(DAY) + minutes,
            );
        }
        come(&mut view, 40..50, 0);
        assert_eq!(guards(&view, &network), ids(0..40));
        let moved = testing::relay(39).with(|it| {
            it.addresses = vec!["99.1.1.1:9000".parse().unwrap()];
            it.issued_at = WALL + Duration::from_secs(60);
        });
        view.insert(moved.verified(), WALL);
        assert_eq!(guards(&view, &network), ids(0..39));
    }

    #[test] // §6.4(17)
    fn a_newcomer_goes_by_receipts_as_far_as_all_have_them() {
        let mut network = network();
        network.params.receipts_min = 2;
        let mut view = NetView::new();
        come(&mut view, 900..902, 0);
        for number in 0..60 {
            // Half were there for long; of these, some show older dates than others.
            let days_ago = match number {
                0..20 => 4,
                20..40 => 6,
                _ => 1,
            };
            let at = WALL.before(DAY * days_ago);
            let relay = testing::vouched(testing::relay(number), [900, 901], at);
            view.insert(relay.verified(), WALL);
        }
        assert_eq!(guards(&view, &network), ids(0..40));
    }

    #[test] // §6.4(17)
    fn one_issuer_makes_no_relay_old_and_seeds_are_while_they_vouch() {
        let mut network = network();
        network.params.receipts_min = 2;
        network.seeds = vec![Peer {
            id: id(900),
            host_port: "20.1.1.1:1".to_owned(),
        }];
        let mut view = NetView::new();
        come(&mut view, 900..902, 0);
        let since = |view: &NetView, network: &Network, relay: testing::TestRelay| {
            there_since(view, &relay.verified(), network, WALL)
        };
        let long_ago = WALL.before(DAY * 5);
        let by_one = testing::vouched(testing::relay(1), [901], long_ago);
        assert_eq!(since(&view, &network, by_one), WALL);
        let by_both = testing::vouched(testing::relay(1), [900, 901], long_ago);
        assert!(since(&view, &network, by_both) < WALL);
        let of_seed = |network: &Network| since(&view, network, testing::relay(900));
        assert_eq!(of_seed(&network), WallTime::default());
        network.params.seeds_vouch_until = 0;
        assert_eq!(of_seed(&network), WALL);
    }
}
