//! A relay's signed statement about itself: parsed, then verified, and only then believed
//! (docs/protocol.md §8.1).
//!
//! `version 1 | postcard body | signature 64`. The bytes as received are signed, hashed and passed
//! on, never a second encoding of them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::{BitOr, Deref};
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::receipts::Receipt;
use crate::crypto::dh::{DhPublic, DhSecret};
use crate::crypto::kdf::sha256;
use crate::crypto::sign::{PublicKey, Signature, SigningKey};
use crate::handshake::{HopTarget, OnionKey};
use crate::ids::{DescriptorHash, NetworkId, RelayId};
use crate::limits::{
    ADDRESSES_MAX, CLOCK_SKEW_MAX, ONION_KEYS_MAX, RECEIPTS_AN_ADDRESS_MAX, RECEIPTS_MAX,
    RELAY_DESCRIPTOR_LEN_MAX, RELAY_DESCRIPTOR_LIFE, VERSION_LEN_MAX,
};
use crate::network::{Group, Network};
use crate::time::WallTime;
use crate::wire::{self, Malformed};

/// Number of this format, in front of everything else.
const FORMAT_VERSION: u8 = 1;
const SIGNATURE_LEN: usize = 64;
const DESCRIPTOR_DOMAIN: &[u8] = b"umbel relay descriptor 1";

/// A relay's statement about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayDescriptor {
    /// The network it belongs to.
    pub network: NetworkId,
    /// Its id, which is the key that signs this.
    pub relay: RelayId,
    /// Its onion keys, the newest first.
    #[serde(deserialize_with = "wire::list::<_, _, ONION_KEYS_MAX>")]
    pub onion_keys: Vec<OnionKey>,
    /// Where it can be dialled, to be tried in order.
    #[serde(deserialize_with = "wire::list::<_, _, ADDRESSES_MAX>")]
    pub addresses: Vec<SocketAddr>,
    /// Its roles besides forwarding cells.
    pub roles: Roles,
    /// Its software, for people; nothing is decided by it.
    pub version: String,
    /// When this was signed.
    pub issued_at: WallTime,
    /// Receipts of relays that dialled it, for each of its addresses.
    #[serde(deserialize_with = "wire::list::<_, _, RECEIPTS_MAX>")]
    pub receipts: Vec<Receipt>,
    /// Solution of the admission puzzle bound to its id.
    pub puzzle: u64,
}

/// A relay's roles besides forwarding cells (§8.1(8)): a set. Bits without a meaning yet are kept,
/// and mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roles(pub u8);

impl Roles {
    /// Nothing more.
    pub const NONE: Self = Self(0);
    /// It keeps mailboxes.
    pub const HOLDER: Self = Self(1);
    /// It keeps inbox descriptors.
    pub const DIRECTORY: Self = Self(2);

    /// Whether every role of `other` is among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Roles {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl RelayDescriptor {
    /// Signs the descriptor (§8.1(1)), giving the bytes that are passed on.
    ///
    /// # Panics
    /// `key` is not the relay's: a mistake of ours.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        assert_eq!(
            RelayId::from(key.public()),
            self.relay,
            "a relay signs for itself"
        );
        let mut bytes = vec![FORMAT_VERSION];
        bytes.extend_from_slice(&wire::encode(self));
        let signature = key.sign(&[DESCRIPTOR_DOMAIN, &bytes].concat());
        bytes.extend_from_slice(&signature.0);
        bytes
    }

    /// From when on nobody believes it.
    pub fn expires_at(&self) -> WallTime {
        self.issued_at + RELAY_DESCRIPTOR_LIFE
    }

    /// Whether each address has so many receipts, by whomever.
    pub(super) fn has_receipts(&self, least: usize) -> bool {
        self.receipt_counts().all(|count| count >= least)
    }

    /// How many receipts each address has.
    fn receipt_counts(&self) -> impl Iterator<Item = usize> {
        let of = |&address: &SocketAddr| {
            let receipts = self.receipts.iter();
            receipts.filter(|it| it.address == address).count()
        };
        self.addresses.iter().map(of)
    }

    /// The address groups and ASes it has addresses in.
    pub fn groups(&self, network: &Network) -> BTreeSet<Group> {
        let addresses = self.addresses.iter();
        addresses
            .flat_map(|&address| network.groups_of(address))
            .collect()
    }

    /// The ASes it has addresses in, as groups; the address group where none is known.
    pub fn widest_groups(&self, network: &Network) -> BTreeSet<Group> {
        let addresses = self.addresses.iter();
        addresses
            .map(|&address| network.widest_group_of(address))
            .collect()
    }
}

/// Which of two descriptors of one relay is newer (§8.2(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// When it was issued.
    pub issued_at: WallTime,
    /// The hash of its bytes.
    pub hash: DescriptorHash,
}

impl Version {
    /// When this descriptor dies (§8.2(7)).
    pub fn expires_at(&self) -> WallTime {
        self.issued_at + RELAY_DESCRIPTOR_LIFE
    }
}

/// A descriptor that has the right form; nothing it says is known to be true, not even whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    descriptor: RelayDescriptor,
    bytes: Vec<u8>,
    signature: Signature,
}

impl Unverified {
    /// Whom to make a circuit of one hop with, over a link to this relay on which it showed the
    /// descriptor, before anything else is known of its network (§8.6(10)). The link is the relay's
    /// own, so its word needs no signature.
    pub fn hop_shown_by(&self, relay: &RelayId) -> Option<HopTarget> {
        let onion_key = check_onion_keys(&self.descriptor).ok()?;
        (self.descriptor.relay == *relay).then_some(HopTarget {
            relay: *relay,
            onion_key,
        })
    }

    /// Reads a descriptor.
    ///
    /// # Errors
    /// The bytes are too long, of another version, or not exactly one descriptor in its one
    /// canonical form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorFault> {
        if bytes.len() > RELAY_DESCRIPTOR_LEN_MAX {
            return Err(DescriptorFault::Malformed(Malformed::TooLong));
        }
        let truncated = DescriptorFault::Malformed(Malformed::Truncated);
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(truncated)?;
        let (&version, body) = signed.split_first().ok_or(truncated)?;
        if version != FORMAT_VERSION {
            return Err(DescriptorFault::Version);
        }
        let descriptor = wire::decode(body).map_err(DescriptorFault::Malformed)?;
        Ok(Self {
            descriptor,
            bytes: bytes.to_vec(),
            signature: Signature(*signature),
        })
    }

    /// Reads what a relay that has proved this id shows in its `Hello`, if that is a descriptor of
    /// its own (§2.4(6)).
    pub fn shown_by(peer: &RelayId, shown: Option<&[u8]>) -> Option<Self> {
        let descriptor = Self::decode(shown?).ok()?;
        (descriptor.relay() == *peer).then_some(descriptor)
    }

    /// Whose it claims to be.
    pub const fn relay(&self) -> RelayId {
        self.descriptor.relay
    }

    /// When it claims to have been issued.
    pub const fn issued_at(&self) -> WallTime {
        self.descriptor.issued_at
    }

    /// The signed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its claim.
    pub(super) const fn claims(&self) -> &RelayDescriptor {
        &self.descriptor
    }

    /// The hash of its bytes (§8.1(3)).
    pub fn hash(&self) -> DescriptorHash {
        DescriptorHash(sha256(&[&self.bytes]))
    }

    /// Which one of its relay's it claims to be.
    pub fn version(&self) -> Version {
        Version {
            issued_at: self.issued_at(),
            hash: self.hash(),
        }
    }

    /// Checks every rule that needs no other descriptor; whether its receipts' issuers are worth
    /// anything is for [`super::NetView::is_vouched`] to say. Cheap rules come first, signatures
    /// last.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn verify(
        self,
        network: &Network,
        wall: WallTime,
    ) -> Result<VerifiedDescriptor, DescriptorFault> {
        let descriptor = &self.descriptor;
        if descriptor.network != network.id {
            return Err(DescriptorFault::Network);
        }
        check_times(descriptor, wall)?;
        let is_version_byte = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if descriptor.version.len() > VERSION_LEN_MAX
            || !descriptor.version.bytes().all(is_version_byte)
        {
            return Err(DescriptorFault::VersionText);
        }
        let address = check_addresses(descriptor, network)?;
        check_receipt_claims(descriptor, network)?;
        let onion_key = check_onion_keys(descriptor)?;
        let (signed, _) = self
            .bytes
            .split_at(self.bytes.len().saturating_sub(SIGNATURE_LEN));
        PublicKey::from(descriptor.relay)
            .verify(&[DESCRIPTOR_DOMAIN, signed].concat(), &self.signature)
            .map_err(|_| DescriptorFault::Signature)?;
        if !descriptor
            .receipts
            .iter()
            .all(|receipt| receipt.is_signed(&descriptor.network, &descriptor.relay))
        {
            return Err(DescriptorFault::ReceiptSignature);
        }
        let hash = self.hash();
        Ok(VerifiedDescriptor(Arc::new(Verified {
            descriptor: self.descriptor,
            bytes: self.bytes,
            hash,
            onion_key,
            address,
        })))
    }
}

fn check_times(descriptor: &RelayDescriptor, wall: WallTime) -> Result<(), DescriptorFault> {
    if descriptor.issued_at > wall + CLOCK_SKEW_MAX {
        return Err(DescriptorFault::Future);
    }
    if descriptor.expires_at() <= wall {
        Err(DescriptorFault::Dead)
    } else {
        Ok(())
    }
}

/// The first address (§8.1(5)).
fn check_addresses(
    descriptor: &RelayDescriptor,
    network: &Network,
) -> Result<SocketAddr, DescriptorFault> {
    let first = *descriptor
        .addresses
        .first()
        .ok_or(DescriptorFault::NoAddress)?;
    let mut seen = BTreeSet::new();
    for &address in &descriptor.addresses {
        let ip = address.ip().to_canonical();
        if !seen.insert((ip, address.port())) {
            return Err(DescriptorFault::AddressRepeated);
        }
        if address.port() == 0 || !is_unicast(ip) {
            return Err(DescriptorFault::Address);
        }
        if !is_dialable(address, network) {
            return Err(DescriptorFault::AddressPrivate);
        }
    }
    Ok(first)
}

/// The newest onion key (§8.1(7)).
fn check_onion_keys(descriptor: &RelayDescriptor) -> Result<OnionKey, DescriptorFault> {
    let newest = *descriptor
        .onion_keys
        .first()
        .ok_or(DescriptorFault::NoOnionKey)?;
    let distinct: BTreeSet<_> = descriptor.onion_keys.iter().collect();
    if distinct.len() != descriptor.onion_keys.len() {
        return Err(DescriptorFault::OnionKeyRepeated);
    }
    // Contributory or not depends on the peer's key alone, so any secret will do for the test.
    let probe = DhSecret::from_bytes(&[1; 32]);
    let is_sound = |key: &OnionKey| probe.agree(&DhPublic(key.0)).is_ok();
    if descriptor.onion_keys.iter().all(is_sound) {
        Ok(newest)
    } else {
        Err(DescriptorFault::OnionKeyWeak)
    }
}

/// All that can be said of receipts without a signature checked (§8.1(6)).
fn check_receipt_claims(
    descriptor: &RelayDescriptor,
    network: &Network,
) -> Result<(), DescriptorFault> {
    let mut issuers = BTreeSet::new();
    for receipt in &descriptor.receipts {
        if !descriptor.addresses.contains(&receipt.address) {
            return Err(DescriptorFault::ReceiptAddress);
        }
        let is_new = issuers.insert((receipt.address, receipt.issuer));
        if !is_new || receipt.issuer == descriptor.relay {
            return Err(DescriptorFault::ReceiptIssuer);
        }
        let is_early = receipt.at > descriptor.issued_at + CLOCK_SKEW_MAX;
        if is_early || descriptor.issued_at.since(receipt.at) > network.params.receipt_life {
            return Err(DescriptorFault::ReceiptTime);
        }
    }
    if descriptor
        .receipt_counts()
        .any(|count| count > RECEIPTS_AN_ADDRESS_MAX)
    {
        return Err(DescriptorFault::ReceiptsTooMany);
    }
    Ok(())
}

/// Whether an address names one host.
fn is_unicast(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether relays of this network may have this address: one of the public Internet's, or any where
/// private ones are allowed; in the local network only loopback (§8.6(7)).
pub fn is_dialable(address: SocketAddr, network: &Network) -> bool {
    let ip = address.ip().to_canonical();
    let is_allowed = network.params.danger_allow_private_addresses || is_global(ip);
    is_unicast(ip) && is_allowed && network.may_link(ip)
}

/// Whether an address is one of the public Internet's (the IANA special-purpose registries, as far
/// as they are stable).
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_special =
        a == 0 || a >= 240 || (a == 192 && b == 0 && c == 0) || (a == 198 && (b == 18 || b == 19));
    !(is_shared
        || is_special
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation())
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let is_documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    // Teredo and the like, and 6to4, which would carry a v4 address past the rules for v4.
    let is_special = (a == 0x2001 && b < 0x0200) || a == 0x2002;
    // All of the public Internet's unicast addresses are in 2000::/3.
    a & 0xe000 == 0x2000 && !is_documentation && !is_special
}

/// A descriptor that keeps every rule a descriptor can keep by itself. Cheap to clone: clones share
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDescriptor(Arc<Verified>);

#[derive(Debug, PartialEq, Eq)]
struct Verified {
    descriptor: RelayDescriptor,
    bytes: Vec<u8>,
    hash: DescriptorHash,
    onion_key: OnionKey,
    address: SocketAddr,
}

#[cfg(test)]
impl Unverified {
    /// Believed whatever its signatures: for ids that no test has the key of.
    pub(super) fn believed(self) -> VerifiedDescriptor {
        VerifiedDescriptor(Arc::new(Verified {
            hash: self.hash(),
            onion_key: check_onion_keys(&self.descriptor).unwrap(),
            address: self.descriptor.addresses[0],
            descriptor: self.descriptor,
            bytes: self.bytes,
        }))
    }
}

#[cfg(test)]
impl VerifiedDescriptor {
    /// The same as if it were another relay's, which signed nothing.
    pub(super) fn as_of(&self, relay: RelayId) -> Self {
        let Verified {
            descriptor,
            bytes,
            hash,
            onion_key,
            address,
        } = &*self.0;
        let mut descriptor = descriptor.clone();
        descriptor.relay = relay;
        Self(Arc::new(Verified {
            descriptor,
            bytes: bytes.clone(),
            hash: *hash,
            onion_key: *onion_key,
            address: *address,
        }))
    }
}

impl VerifiedDescriptor {
    /// The signed bytes, as they are passed on.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The hash of its bytes.
    pub fn hash(&self) -> DescriptorHash {
        self.0.hash
    }

    /// Whom to make a hop with: the relay, by its newest onion key (§5.3(3)).
    pub fn hop_target(&self) -> HopTarget {
        HopTarget {
            relay: self.relay,
            onion_key: self.0.onion_key,
        }
    }

    /// Its first address.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where to dial it: `host:port`, to be tried in order.
    pub fn host_ports(&self) -> Vec<String> {
        self.addresses.iter().map(SocketAddr::to_string).collect()
    }

    /// The group of its first address: its place on the ring.
    pub fn group(&self, network: &Network) -> Group {
        network.group_of(self.0.address)
    }

    /// The AS of its first address as a group; the address group where none is known.
    pub fn widest_group(&self, network: &Network) -> Group {
        network.widest_group_of(self.0.address)
    }

    /// Whether it says to be issued later than any clock may be ahead (§8.1).
    pub fn is_future(&self, wall: WallTime) -> bool {
        self.issued_at > wall + CLOCK_SKEW_MAX
    }

    /// Which one of its relay's it is: the greatest takes the place of the others.
    pub fn version(&self) -> Version {
        Version {
            issued_at: self.issued_at,
            hash: self.hash(),
        }
    }
}

impl Deref for VerifiedDescriptor {
    type Target = RelayDescriptor;

    fn deref(&self) -> &RelayDescriptor {
        &self.0.descriptor
    }
}

/// The rule that a descriptor breaks (§8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptorFault {
    /// It is too long, too short, or not in the one canonical form.
    Malformed(Malformed),
    /// Its format is of another version.
    Version,
    /// It belongs to another network.
    Network,
    /// It was issued in the future.
    Future,
    /// It is too old.
    Dead,
    /// Its version text is too long or has unprintable characters.
    VersionText,
    /// It has no address.
    NoAddress,
    /// It has an address twice.
    AddressRepeated,
    /// An address names no single host, or port 0.
    Address,
    /// An address is not one of the public Internet's, and this network allows no others.
    AddressPrivate,
    /// It has no onion key.
    NoOnionKey,
    /// It has an onion key twice.
    OnionKeyRepeated,
    /// An onion key has low order.
    OnionKeyWeak,
    /// Two receipts of one address have one issuer, or the relay vouches for itself.
    ReceiptIssuer,
    /// An address has more receipts than any needs.
    ReceiptsTooMany,
    /// A receipt is for an address that it doesn't have.
    ReceiptAddress,
    /// A receipt is too old, or from after the descriptor.
    ReceiptTime,
    /// A receipt's signature is wrong.
    ReceiptSignature,
    /// The relay's signature is wrong.
    Signature,
}

impl fmt::Display for DescriptorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(_) => "it is not in the one form that descriptors have",
            Self::Version => "its format is of another version",
            Self::Network => "it is of another network",
            Self::Future => "it was issued in the future",
            Self::Dead => "it is too old",
            Self::VersionText => "its version text is too long or unprintable",
            Self::NoAddress => "it has no address",
            Self::AddressRepeated => "it has an address twice",
            Self::Address => "an address in it names no single host, or port 0",
            Self::AddressPrivate => "an address in it is private",
            Self::NoOnionKey => "it has no onion key",
            Self::OnionKeyRepeated => "it has an onion key twice",
            Self::OnionKeyWeak => "an onion key in it is weak",
            Self::ReceiptIssuer => {
                "an issuer of its receipts is the relay itself, or is named twice"
            }
            Self::ReceiptsTooMany => "an address in it has too many receipts",
            Self::ReceiptAddress => "a receipt in it is for another address",
            Self::ReceiptTime => "a receipt in it is too old, or of the future",
            Self::ReceiptSignature => "the signature of a receipt in it is wrong",
            Self::Signature => "its signature is wrong",
        })
    }
}

#[cfg(test)]
#[path = "descriptor_tests.rs"]
mod tests;
