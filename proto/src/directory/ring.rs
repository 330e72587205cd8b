//! Which relays keep an inbox's descriptor: rendezvous hashing, group first (docs/protocol.md
//! §9.4).
//!
//! Groups first, since ids can be ground out by the thousand and addresses in many networks can't.
//! Every node works the positions out alone, from its own view; a relay that comes or goes moves
//! only the positions that it takes or leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::descriptor::{Roles, VerifiedDescriptor};
use super::view::NetView;
use crate::crypto::kdf::sha256;
use crate::ids::{BlindedKey, RelayId};
use crate::limits::RING_POSITIONS;
use crate::network::{Group, Network};
use crate::time::Epoch;

const GROUP_DOMAIN: &[u8] = b"umbel ring";
const RELAY_DOMAIN: &[u8] = b"umbel ring relay";

/// The relays that keep the descriptor of this key and epoch, the first position first: of each of
/// the groups with the least scores, the directory relay with the least score. Those of one AS have
/// a second position only where there are too few ASes. Fewer positions where there are fewer
/// groups.
pub fn positions(
    view: &NetView,
    network: &Network,
    blinded: &BlindedKey,
    epoch: Epoch,
) -> Vec<RelayId> {
    let epoch = epoch.0.to_be_bytes();
    let score = |domain: &[u8], name: &[u8]| sha256(&[domain, blinded.as_bytes(), &epoch, name]);
    let mut members: BTreeMap<Group, Vec<&VerifiedDescriptor>> = BTreeMap::new();
    for descriptor in view
        .iter()
        .filter(|descriptor| descriptor.roles.contains(Roles::DIRECTORY))
    {
        members
            .entry(descriptor.group(network))
            .or_default()
            .push(descriptor);
    }
    let mut groups: Vec<_> = members
        .into_iter()
        .map(|(group, relays)| (score(GROUP_DOMAIN, group.as_bytes()), relays))
        .collect();
    groups.sort_unstable_by_key(|&(score, _)| score);
    let least = |relays: Vec<&VerifiedDescriptor>| {
        relays
            .into_iter()
            .min_by_key(|descriptor| score(RELAY_DOMAIN, descriptor.relay.as_bytes()))
            .map(|descriptor| (descriptor.relay, descriptor.widest_group(network)))
    };
    let count = network.params.ring_positions.min(RING_POSITIONS);
    let (mut apart, mut others, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (_, relays) in groups {
        let Some((relay, widest)) = least(relays) else {
            continue;
        };
        match taken.insert(widest) {
            true => apart.push(relay),
            false => others.push(relay),
        }
        if apart.len() == count {
            break;
        }
    }
    apart.extend(others);
    apart.truncate(count);
    apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::{self, WALL};
    use crate::network::AsMap;

    const EPOCH: Epoch = Epoch(2900);

    fn view(relays: u32) -> NetView {
        let mut view = NetView::new();
        for number in 0..relays {
            view.insert(testing::relay(number).verified(), WALL);
        }
        view
    }

    #[test] // §9.4
    fn positions_are_six_directory_relays_in_distinct_groups() {
        let mut view = view(40);
        for number in 40..80 {
            view.insert(
                testing::relay(number)
                    .with(|descriptor| descriptor.roles = Roles::HOLDER)
                    .verified(),
                WALL,
            );
        }
        let network = testing::public_network();
        let positions = positions(&view, &network, &BlindedKey([1; 32]), EPOCH);
        let groups: BTreeSet<_> = positions
            .iter()
            .map(|relay| view.get(relay).unwrap().group(&network))
            .collect();
        assert_eq!(
            (positions.len(), groups.len()),
            (RING_POSITIONS, RING_POSITIONS)
        );
        assert!(
            positions
                .iter()
                .all(|relay| view.get(relay).unwrap().roles.contains(Roles::DIRECTORY))
        );
    }

    #[test] // §9.4
    fn fewer_groups_are_fewer_positions() {
        let network = testing::public_network();
        assert_eq!(
            positions(&view(4), &network, &BlindedKey([1; 32]), EPOCH).len(),
            4
        );
        assert_eq!(
            positions(&NetView::new(), &network, &BlindedKey([1; 32]), EPOCH),
            []
        );
    }

    #[test] // §9.4(2)
    fn an_as_has_a_second_position_only_where_ases_are_too_few() {
        let mut network = testing::public_network();
        network.params.as_map = AsMap::NEWEST;
        let apart = [
            "1.1.1.1",
            "95.216.0.1",
            "51.15.0.1",
            "4.1.0.1",
            "23.1.0.1",
            "18.1.0.1",
        ];
        for (count, of_crowd) in [(6, 1), (5, 1), (3, 3), (0, 6)] {
            let crowd = (0..40).map(|net| format!("11.{net}.0.1"));
            let addresses = crowd.chain(apart.iter().take(count).map(|&text| text.to_owned()));
            let mut view = NetView::new();
            for (number, address) in (0..).zip(addresses) {
                let address = format!("{address}:9000").parse().unwrap();
                let relay =
                    testing::relay(number).with(|descriptor| descriptor.addresses = vec![address]);
                view.insert(relay.verified(), WALL);
            }
            for key in 0..20 {
                let positions = positions(&view, &network, &BlindedKey([key; 32]), EPOCH);
                let of = |relay: &RelayId| view.get(relay).unwrap().widest_group(&network);
                let crowd = network.widest_group_of("11.0.0.1:1".parse().unwrap());
                let in_crowd = positions.iter().filter(|relay| of(relay) == crowd).count();
                assert_eq!(positions.len(), 6);
                assert!(in_crowd <= of_crowd, "{count} others, {in_crowd}");
            }
        }
    }

    #[test] // §9.4
    fn many_relays_in_one_group_take_one_position() {
        let mut view = view(10);
        for number in 10..60 {
            let crowd = format!("20.1.7.{number}:9000");
            let relay = testing::relay(number)
                .with(|descriptor| descriptor.addresses = vec![crowd.parse().unwrap()]);
            view.insert(relay.verified(), WALL);
        }
        let network = testing::public_network();
        for key in 0..20 {
            let positions = positions(&view, &network, &BlindedKey([key; 32]), EPOCH);
            let group = network.group_of("20.1.0.0:1".parse().unwrap());
            let in_crowd = positions
                .iter()
                .filter(|relay| view.get(relay).unwrap().group(&network) == group)
                .count();
            assert!(in_crowd <= 1);
        }
    }

    #[test] // §9.4
    fn positions_move_with_key_and_epoch() {
        let (view, network) = (view(40), testing::public_network());
        let at = |key, epoch| positions(&view, &network, &BlindedKey([key; 32]), Epoch(epoch));
        assert_eq!(at(1, 2900), at(1, 2900));
        assert_ne!(at(1, 2900), at(2, 2900));
        assert_ne!(at(1, 2900), at(1, 2901));
    }

    #[test] // §9.4
    fn one_more_relay_moves_few_positions() {
        let network = testing::public_network();
        let (before, after) = (view(60), view(61));
        let mut moved = 0;
        for key in 0..100 {
            let of = |view| -> BTreeSet<_> {
                positions(view, &network, &BlindedKey([key; 32]), EPOCH)
                    .into_iter()
                    .collect()
            };
            let left = of(&before).difference(&of(&after)).count();
            assert!(left <= 1, "one relay takes at most one position");
            moved += left;
        }
        // 6 positions in 61 groups: one in ten keys.
        assert!(moved < 30, "{moved} of 600 positions moved");
    }
}
