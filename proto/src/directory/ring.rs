//! Which relays keep an inbox's descriptor: rendezvous hashing, group first (docs/protocol.md
//! §9.4).
//!
//! Groups first, since ids can be ground out by the thousand and addresses in many networks can't.
//! Every node works the positions out alone, from its own view; a relay that comes or goes moves
//! only the positions that it takes or leaves. Anyone who has an inbox's address can
//! compute them and choose ids to match. So relays that came after the epoch began take none of the
//! first positions.

use std::collections::{BTreeMap, BTreeSet};

use super::descriptor::{Roles, VerifiedDescriptor};
use super::view::NetView;
use crate::crypto::kdf::sha256;
use crate::ids::{BlindedKey, RelayId};
use crate::limits::RING_POSITIONS;
use crate::network::{Group, Network};
use crate::time::{Epoch, WallTime};

const GROUP_DOMAIN: &[u8] = b"umbel ring";
const RELAY_DOMAIN: &[u8] = b"umbel ring relay";

/// The relays that keep a descriptor. Nodes differ in what they know of a relay's past: an owner
/// publishes at all of them, and a reader asks the first before the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    /// Drawn among relays that were there before the epoch began; among all where these are in too
    /// few groups.
    pub first: Vec<RelayId>,
    /// Drawn among all, without those that are in the first.
    pub others: Vec<RelayId>,
}

impl Positions {
    /// Every position, the first ones first.
    pub fn iter(&self) -> impl Iterator<Item = RelayId> {
        self.first.iter().chain(&self.others).copied()
    }
}

/// The relays that keep the descriptor of this key and epoch, the first position first: of each of
/// the groups with the least scores, the directory relay with the least score. Those of one AS have
/// a second position only where there are too few ASes (§9.4(2)). Fewer positions where there are
/// fewer groups.
pub fn positions(
    view: &NetView,
    network: &Network,
    wall: WallTime,
    blinded: &BlindedKey,
    epoch: Epoch,
) -> Positions {
    let ring = Ring::new(view, network, blinded, epoch);
    let is_vouched =
        |it: &VerifiedDescriptor| view.believes(&it.relay) && view.is_vouched(it, network, wall);
    let was_there = |it: &VerifiedDescriptor| {
        view.was_there(it, epoch.starts_at(), network, wall) && is_vouched(it)
    };
    let (old, mut all) = (ring.draw(was_there), ring.draw(is_vouched));
    if old.len() < ring.count {
        return Positions {
            first: all,
            others: Vec::new(),
        };
    }
    all.retain(|relay| !old.contains(relay));
    Positions {
        first: old,
        others: all,
    }
}

/// All groups with directory relays, in the order in which one key and epoch ranks them.
struct Ring<'a> {
    network: &'a Network,
    blinded: &'a BlindedKey,
    epoch: Epoch,
    groups: Vec<Vec<&'a VerifiedDescriptor>>,
    /// How many positions there are to be.
    count: usize,
}

impl<'a> Ring<'a> {
    fn new(view: &'a NetView, network: &'a Network, blinded: &'a BlindedKey, epoch: Epoch) -> Self {
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
        let mut ring = Self {
            network,
            blinded,
            epoch,
            groups: Vec::new(),
            count: network.params.ring_positions.min(RING_POSITIONS),
        };
        let mut scored: Vec<_> = members
            .into_iter()
            .map(|(group, relays)| (ring.score(GROUP_DOMAIN, group.as_bytes()), relays))
            .collect();
        scored.sort_unstable_by_key(|&(score, _)| score);
        ring.groups = scored.into_iter().map(|(_, relays)| relays).collect();
        ring
    }

    fn score(&self, domain: &[u8], name: &[u8]) -> [u8; 32] {
        let epoch = self.epoch.0.to_be_bytes();
        sha256(&[domain, self.blinded.as_bytes(), &epoch, name])
    }

    /// The positions among relays that are fit. Only those of the groups with the least scores are
    /// looked at.
    fn draw(&self, is_fit: impl Fn(&VerifiedDescriptor) -> bool) -> Vec<RelayId> {
        let least = |relays: &Vec<&'a VerifiedDescriptor>| {
            let fit = relays.iter().filter(|descriptor| is_fit(descriptor));
            fit.min_by_key(|descriptor| self.score(RELAY_DOMAIN, descriptor.relay.as_bytes()))
                .map(|descriptor| (descriptor.relay, descriptor.widest_group(self.network)))
        };
        let (mut apart, mut others, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (relay, widest) in self.groups.iter().filter_map(least) {
            match taken.insert(widest) {
                true => apart.push(relay),
                false => others.push(relay),
            }
            if apart.len() == self.count {
                break;
            }
        }
        apart.extend(others);
        apart.truncate(self.count);
        apart
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::{self, TestRelay, WALL};
    use crate::network::AsMap;
    use crate::time::Duration;

    const EPOCH: Epoch = Epoch(2900);
    const HOUR: Duration = Duration::from_secs(3600);

    /// The first positions.
    fn positions(
        view: &NetView,
        network: &Network,
        blinded: &BlindedKey,
        epoch: Epoch,
    ) -> Vec<RelayId> {
        super::positions(view, network, WALL, blinded, epoch).first
    }

    /// Some relays whose ids and addresses were chosen so that they take all positions of this key.
    fn ground(key: &BlindedKey, epoch: Epoch, network: &Network) -> Vec<TestRelay> {
        let mut crowd: Vec<_> = (1000..3000).map(testing::relay).collect();
        let score = |relay: &TestRelay| {
            let group = network.group_of(relay.descriptor.addresses[0]);
            let name: [&[u8]; 2] = [&epoch.0.to_be_bytes(), group.as_bytes()];
            sha256(&[GROUP_DOMAIN, key.as_bytes(), name[0], name[1]])
        };
        crowd.sort_by_key(score);
        crowd.truncate(RING_POSITIONS);
        crowd
    }

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

    #[test] // §9.4(1)
    fn who_comes_in_an_epoch_takes_none_of_its_first_positions() {
        let mut network = testing::public_network();
        network.params.receipts_min = 1;
        let epoch = WALL.epoch();
        let before = WallTime(epoch.starts_at().as_secs() - 3600);
        let key = BlindedKey([1; 32]);
        let witness = testing::relay(900);
        let mut view = NetView::new();
        view.insert(witness.verified(), before);
        for number in 0..40 {
            let relay = testing::vouched(testing::relay(number), [900], WALL);
            view.insert(relay.verified(), before);
        }
        let wall = WALL + HOUR;
        let at = |view: &NetView| super::positions(view, &network, wall, &key, epoch);
        let honest = at(&view);
        assert_eq!((honest.first.len(), honest.others.len()), (6, 0));
        let crowd = ground(&key, epoch, &network);
        let ids: BTreeSet<_> = crowd.iter().map(|it| it.descriptor.relay).collect();
        for relay in crowd {
            let relay = testing::vouched(relay, [900], WALL);
            view.insert(relay.verified(), wall);
        }
        let after = at(&view);
        assert_eq!(after.first, honest.first);
        assert_eq!(after.others.into_iter().collect::<BTreeSet<_>>(), ids);
        // The next epoch's are drawn among all until it begins.
        assert_eq!(
            super::positions(&view, &network, wall, &key, epoch.next()).others,
            []
        );
    }

    #[test] // §9.4(1)
    fn a_relay_that_moves_in_an_epoch_counts_as_one_that_came() {
        let mut network = testing::public_network();
        network.params.receipts_min = 1;
        let epoch = WALL.epoch();
        let before = WallTime(epoch.starts_at().as_secs() - 3600);
        let mut view = NetView::new();
        view.insert(testing::relay(900).verified(), before);
        let was_there = |view: &NetView, relay: &RelayId| {
            let descriptor = view.get(relay).unwrap();
            view.was_there(descriptor, epoch.starts_at(), &network, WALL)
        };
        let stays = testing::vouched(testing::relay(1), [900], WALL);
        let relay = stays.descriptor.relay;
        view.insert(stays.verified(), before);
        assert!(was_there(&view, &relay));
        let moved = testing::relay(1).with(|it| {
            it.addresses = vec!["99.1.1.1:9000".parse().unwrap()];
            it.issued_at = WALL + HOUR;
        });
        let moved = testing::vouched(moved, [900], WALL);
        view.insert(moved.unverified().verify(&network, WALL).unwrap(), WALL);
        assert!(!was_there(&view, &relay));
    }

    #[test] // §9.4(1)
    fn a_newcomer_goes_by_the_dates_of_receipts() {
        let mut network = testing::public_network();
        network.params.receipts_min = 2;
        let epoch = WALL.epoch();
        let before = WallTime(epoch.starts_at().as_secs() - 3600);
        let mut view = NetView::new();
        for issuer in [900, 901, 902] {
            view.insert(testing::relay(issuer).verified(), WALL);
        }
        let was_there = |view: &NetView, dates: &[WallTime]| {
            let relay = testing::relay(1);
            let receipts = (900..).zip(dates).flat_map(|(issuer, &at)| {
                testing::vouched(testing::relay(1), [issuer], at)
                    .descriptor
                    .receipts
            });
            let receipts = receipts.collect();
            let relay = relay.with(|it| it.receipts = receipts).verified();
            view.was_there(&relay, epoch.starts_at(), &network, WALL)
        };
        assert!(was_there(&view, &[WALL, before, before]));
        assert!(!was_there(&view, &[WALL, WALL, before]));
        assert!(!was_there(&view, &[epoch.starts_at(); 3]));
        // Who was here then knows itself who was: three liars can date what they like.
        view.begin(before);
        assert!(!was_there(&view, &[before; 3]));
    }
}
