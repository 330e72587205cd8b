//! Relays for the tests of this module and of paths: each number gives the same keys and an address group of its own.

use super::descriptor::{RelayDescriptor, Roles, Unverified, VerifiedDescriptor};
use super::receipts::Receipt;
use crate::crypto::sign::SigningKey;
use crate::handshake::OnionSecret;
use crate::network::{Network, Params};
use crate::time::WallTime;

/// When all tests take place.
pub(crate) const WALL: WallTime = WallTime(1_795_000_000);

/// A network with the default parameters, except that it needs no receipts.
pub(crate) fn public_network() -> Network {
    Network {
        params: Params {
            receipts_min: 0,
            ..Params::DEFAULT
        },
        ..Network::local()
    }
}

/// A relay's key and what it says of itself.
pub(crate) struct TestRelay {
    pub(crate) key: SigningKey,
    pub(crate) descriptor: RelayDescriptor,
}

/// The relay with this number.
pub(crate) fn relay(number: u32) -> TestRelay {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = SigningKey::from_seed(&seed);
    seed[31] = 1;
    let [_, _, high, low] = number.to_be_bytes();
    let descriptor = RelayDescriptor {
        network: public_network().id,
        relay: key.public().into(),
        onion_keys: vec![OnionSecret::from_seed(&seed).public()],
        addresses: vec![
            format!("{}.{low}.1.1:9000", 20 + u16::from(high))
                .parse()
                .unwrap(),
        ],
        roles: Roles::HOLDER | Roles::DIRECTORY,
        version: "umbel 0.1.0".to_owned(),
        issued_at: WALL,
        receipts: Vec::new(),
        puzzle: 0,
    };
    TestRelay { key, descriptor }
}

impl TestRelay {
    /// The same relay, saying something else.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut RelayDescriptor)) -> Self {
        change(&mut self.descriptor);
        self
    }

    /// The signed descriptor.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.descriptor.sign(&self.key)
    }

    /// The signed descriptor, decoded.
    pub(crate) fn unverified(&self) -> Unverified {
        Unverified::decode(&self.bytes()).unwrap()
    }

    /// The signed descriptor, verified in [`public_network`] at [`WALL`].
    pub(crate) fn verified(&self) -> VerifiedDescriptor {
        self.unverified().verify(&public_network(), WALL).unwrap()
    }
}

/// The same relay, with receipts of its first address by these.
pub(crate) fn vouched(
    relay: TestRelay,
    issuers: impl IntoIterator<Item = u32>,
    at: WallTime,
) -> TestRelay {
    let RelayDescriptor {
        network,
        relay: id,
        ref addresses,
        ..
    } = relay.descriptor;
    let address = addresses[0];
    let sign = |issuer| Receipt::sign(&self::relay(issuer).key, &network, &id, address, at);
    let receipts: Vec<Receipt> = issuers.into_iter().map(sign).collect();
    relay.with(|it| it.receipts = receipts)
}
