//! Receipts: one relay's word that it reached another at an address (docs/protocol.md §8.1, §8.7).
//!
//! An address costs nothing to claim, and receipts are what makes it cost a machine that answers
//! there. [`Issuer`] decides for whom a relay dials, [`Asker`] whom a relay asks, [`SpotChecks`] whose
//! receipts it tries; all are pure.

mod asker;
mod issuer;
mod probe;
mod spot;

use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::crypto::sign::{BadSignature, PublicKey, Signature, SigningKey};
use crate::handshake::Binding;
use crate::ids::{NetworkId, RelayId};
use crate::time::WallTime;
use crate::wire::{self, Malformed};

pub use asker::{Ask, Asker, Attempt, Known, NoReceipt};
pub use issuer::Issuer;
pub use probe::{Probe, ProbeId, Probed};
pub use spot::{Facts, IssuerStanding, SpotChecks};

const RECEIPT_DOMAIN: &[u8] = b"umbel reachability receipt 1";
const REQUEST_DOMAIN: &[u8] = b"umbel receipt request 1";

/// "I dialled this relay at this address at this time, and it was there."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The issuer.
    pub issuer: RelayId,
    /// Where it dialled.
    pub address: SocketAddr,
    /// When, cut to the hour.
    pub at: WallTime,
    /// The issuer's.
    pub signature: Signature,
}

impl Receipt {
    /// Vouches for `relay`, which was reached at `address` (§8.1(2)).
    pub fn sign(
        key: &SigningKey,
        network: &NetworkId,
        relay: &RelayId,
        address: SocketAddr,
        at: WallTime,
    ) -> Self {
        let at = at.to_hour();
        let signature = key.sign(&receipt_message(network, relay, address, at));
        Self {
            issuer: key.public().into(),
            address,
            at,
            signature,
        }
    }

    /// Whether its issuer has signed it, for this relay.
    pub fn is_signed(&self, network: &NetworkId, relay: &RelayId) -> bool {
        let message = receipt_message(network, relay, self.address, self.at);
        PublicKey::from(self.issuer)
            .verify(&message, &self.signature)
            .is_ok()
    }
}

/// Domain, network, relay, address (18), time (8).
fn receipt_message(
    network: &NetworkId,
    relay: &RelayId,
    address: SocketAddr,
    at: WallTime,
) -> Vec<u8> {
    [
        RECEIPT_DOMAIN,
        network.as_bytes(),
        relay.as_bytes(),
        &address_bytes(address),
        &at.as_secs().to_be_bytes(),
    ]
    .concat()
}

/// Address as v6 (16) and port (2).
fn address_bytes(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 18];
    let (ip_bytes, port_bytes) = bytes.split_at_mut(16);
    ip_bytes.copy_from_slice(&ip.octets());
    port_bytes.copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// A relay asks another to dial it at this address and to vouch for that (§8.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRequest {
    /// Where to dial it: at the address from which its link came, any port.
    pub address: SocketAddr,
    /// The asker's, for this circuit alone. Without it, whoever extends a circuit over a relay
    /// could ask in its name.
    pub signature: Signature,
}

/// Where a request for a receipt counts: its signature covers all of this.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The relay that is asked.
    pub issuer: &'a RelayId,
    /// The circuit's last hop, as both ends know it.
    pub binding: &'a Binding,
}

impl RequestContext<'_> {
    fn message(&self, address: SocketAddr) -> Vec<u8> {
        [
            REQUEST_DOMAIN,
            self.network.as_bytes(),
            self.issuer.as_bytes(),
            &self.binding.0,
            &address_bytes(address),
        ]
        .concat()
    }
}

impl ReceiptRequest {
    /// Asks for a receipt of this address, in the name of the relay whose key this is.
    pub fn sign(key: &SigningKey, context: &RequestContext<'_>, address: SocketAddr) -> Self {
        let signature = key.sign(&context.message(address));
        Self { address, signature }
    }

    /// Checks that this relay asks.
    ///
    /// # Errors
    /// It does not, or not on this circuit.
    pub fn verify(
        &self,
        context: &RequestContext<'_>,
        asker: &RelayId,
    ) -> Result<(), BadSignature> {
        PublicKey::from(*asker).verify(&context.message(self.address), &self.signature)
    }

    /// The request as a frame.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// It is not exactly one request in its canonical form.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        wire::decode(frame)
    }
}

/// The answer to a request for a receipt. Numbers on the wire are in this order, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptReply {
    /// The relay was there.
    Issued(Receipt),
    /// No receipt.
    Refused(ReceiptRefusal),
}

/// Why there is no receipt. Numbers on the wire are in this order, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptRefusal {
    /// Nobody answers at that address, or another relay does.
    Unreachable,
    /// The asker's link came from another address than this one: only where it came from is
    /// dialled.
    Elsewhere {
        /// Where the link came from; the port says nothing.
        from: SocketAddr,
    },
    /// This address, or its address group, has had as many receipts as there are in a day.
    Limit,
    /// The issuer dials for as many others as it may.
    Busy,
    /// The issuer knows another relay at that address.
    Taken,
}

impl ReceiptReply {
    /// The reply as a frame.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// It is not exactly one reply in its canonical form.
    pub fn decode(frame: &[u8]) -> Result<Self, Malformed> {
        wire::decode(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directory::testing;

    fn binding(byte: u8) -> Binding {
        Binding([byte; 32])
    }

    #[test] // §8.7
    fn a_request_counts_for_one_asker_issuer_circuit_and_address() {
        let (asker, other) = (testing::relay(1), testing::relay(2));
        let network = testing::public_network().id;
        let here = binding(4);
        let context = RequestContext {
            network: &network,
            issuer: &other.descriptor.relay,
            binding: &here,
        };
        let address = asker.descriptor.addresses[0];
        let request = ReceiptRequest::sign(&asker.key, &context, address);
        let relay = &asker.descriptor.relay;
        assert!(request.verify(&context, relay).is_ok());
        assert!(request.verify(&context, &other.descriptor.relay).is_err());
        let elsewhere = binding(5);
        let contexts = [
            RequestContext {
                binding: &elsewhere,
                ..context
            },
            RequestContext {
                issuer: relay,
                ..context
            },
            RequestContext {
                network: &NetworkId([1; 32]),
                ..context
            },
        ];
        for context in contexts {
            assert!(request.verify(&context, relay).is_err());
        }
        let moved = ReceiptRequest {
            address: other.descriptor.addresses[0],
            ..request
        };
        assert!(moved.verify(&context, relay).is_err());
    }

    proptest! {
        #[test]
        fn what_decodes_has_one_encoding(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = ReceiptRequest::decode(&frame) {
                prop_assert_eq!(request.encode(), frame.clone());
            }
            if let Ok(reply) = ReceiptReply::decode(&frame) {
                prop_assert_eq!(reply.encode(), frame);
            }
        }
    }
}
