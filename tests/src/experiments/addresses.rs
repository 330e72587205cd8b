//! Addresses as the AS map has them: where relays of an experiment stand.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rand::rngs::ChaCha20Rng;
use rand::seq::SliceRandom;
use umbel_proto::network::{AsMap, AsNumber};

/// The /24s that an AS announces, those of one /16 together.
pub(super) type Announced = BTreeMap<u16, Vec<Ipv4Addr>>;

/// What each AS of the map announces, as far as looking at eight /24s of each /16 shows.
pub(super) fn announced() -> BTreeMap<AsNumber, Announced> {
    let mut found: BTreeMap<AsNumber, Announced> = BTreeMap::new();
    for (prefix, third) in (0..=u16::MAX)
        .flat_map(|prefix| [0, 32, 64, 96, 128, 160, 192, 224].map(|third| (prefix, third)))
    {
        let [a, b] = prefix.to_be_bytes();
        let address = Ipv4Addr::new(a, b, third, 0);
        if let Some(of_as) = AsMap::NEWEST.look_up(address.into()) {
            let of_as = found.entry(of_as).or_default();
            of_as.entry(prefix).or_default().push(address);
        }
    }
    found.retain(|_, of_as| of_as.values().map(Vec::len).sum::<usize>() >= 8);
    found
}

/// The same, in an order drawn at random.
pub(super) fn announced_at_random(rng: &mut ChaCha20Rng) -> Vec<(AsNumber, Announced)> {
    let mut announced: Vec<_> = announced().into_iter().collect();
    announced.shuffle(rng);
    announced
}
