//! The circuit handshake: hybrid ntor with X25519 and ML-KEM-768, one round trip, one cell each way
//! (docs/protocol.md §5).
//!
//! The initiator stays anonymous; the responder proves that it owns the onion key, for this relay
//! id, in this network. An observer who breaks X25519 later still lacks the ML-KEM secret, and one
//! who breaks ML-KEM lacks X25519's.

use core::fmt;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::aead::{self, LayerKey};
use crate::crypto::dh::{DhPublic, DhSecret, NonContributory};
use crate::crypto::kdf::{Prk, hkdf_expand, hkdf_extract, hmac_sha256, sha256};
use crate::crypto::kem::{self, CIPHERTEXT_LEN, ENCAPSULATION_KEY_LEN, KemSecret};
use crate::crypto::{SharedSecret, is_equal};
use crate::ids::{NetworkId, OnionKeyId, RelayId};
use crate::limits::{BODY_LEN, TAG_LEN};
use crate::wire::{Malformed, Reader};

/// Length of an onionskin, bytes (§5.2).
pub const ONIONSKIN_LEN: usize =
    OnionKeyId::LEN + 32 + ENCAPSULATION_KEY_LEN + EXTENSION_LEN + TAG_LEN;
/// Length of a reply, bytes (§5.2).
pub const REPLY_LEN: usize = 32 + CIPHERTEXT_LEN + 32;

/// Length of the extension block inside its seal, bytes. All zeros in this version: it is reserved
/// for a puzzle's solution (§5.2(2), §5.4(2)).
const EXTENSION_LEN: usize = 64;
/// Name and parameters of the handshake: in front of everything that is hashed.
const PROTO: &[u8] = b"umbel-hntor1-x25519-mlkem768-sha256";
/// Number of this handshake in a `Create` cell (§4.1).
const HANDSHAKE_KIND: u8 = 1;

const _: () = assert!(ONIONSKIN_LEN < BODY_LEN && REPLY_LEN <= BODY_LEN);

/// The initiator's message: onion key id, X25519 key, ML-KEM key, sealed extension block (§5.2).
#[derive(Clone, PartialEq, Eq)]
pub struct Onionskin(pub [u8; ONIONSKIN_LEN]);

/// The responder's answer: X25519 key, ML-KEM ciphertext, authenticator (§5.2).
#[derive(Clone, PartialEq, Eq)]
pub struct Reply(pub [u8; REPLY_LEN]);

/// A relay's onion key: circuits are extended to the relay by it (§5.1(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OnionKey(pub [u8; 32]);

/// The secret half of an [`OnionKey`]. Not `Clone`, not `Debug`, wiped on drop.
pub struct OnionSecret {
    secret: DhSecret,
    public: OnionKey,
    id: OnionKeyId,
}

/// Whom a handshake is for.
#[derive(Clone, PartialEq, Eq)]
pub struct HopTarget {
    /// The relay.
    pub relay: RelayId,
    /// Its onion key.
    pub onion_key: OnionKey,
}

/// The keys that both ends have after a handshake. Not `Clone`, not `Debug`.
pub struct HopKeys {
    /// For cells away from the origin.
    pub forward: LayerKey,
    /// For cells toward the origin.
    pub backward: LayerKey,
    /// Names this hop to what signs for it.
    pub binding: Binding,
}

/// A value that only the two ends of one hop know; signatures made over a circuit cover it, so that
/// they are worth nothing on another (§5.2(6)).
#[derive(Clone, PartialEq, Eq)]
pub struct Binding(pub [u8; 32]);

/// Why a handshake failed. The peer does not learn which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The onionskin names an onion key that this relay does not have, or no longer has.
    UnknownOnionKey,
    /// A public key has low order.
    NonContributory,
    /// The extension block does not open: made for another relay, another key, another network, or
    /// changed on the way.
    Extension,
    /// The extension block asks for something that this version does not know.
    ExtensionValue,
    /// The ML-KEM key is none.
    EncapsulationKey,
    /// The reply was not made by the relay the onionskin was for.
    Authenticator,
}

impl From<NonContributory> for HandshakeFault {
    fn from(NonContributory: NonContributory) -> Self {
        Self::NonContributory
    }
}

/// The side that wants a hop, waiting for the reply.
pub struct Initiator {
    network: NetworkId,
    target: HopTarget,
    secret: DhSecret,
    kem_secret: KemSecret,
    /// The secret shared with the onion key; `None` if that key has low order.
    static_shared: Option<SharedSecret>,
    onionskin: Box<Onionskin>,
}

impl Initiator {
    /// Begins a handshake with `target`. All keys are fresh for it (§5.2(1)).
    ///
    /// An onion key of low order gets an onionskin that nobody can open, and `finish` fails
    /// (§5.2(8)).
    pub fn start(
        network: &NetworkId,
        target: &HopTarget,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> (Self, Onionskin) {
        let secret = DhSecret::generate(rng);
        let (kem_secret, encapsulation_key) = KemSecret::generate(rng);
        let public = secret.public();
        let offer = Offer {
            public: &public.0,
            encapsulation_key: &encapsulation_key,
        };
        let static_shared = secret.agree(&DhPublic(target.onion_key.0)).ok();

        let sealed = match &static_shared {
            Some(shared) => aead::seal(
                &extension_key(network, target, &offer, shared),
                &[0; 12],
                &[],
                &[0; EXTENSION_LEN],
            ),
            None => {
                let mut noise = vec![0; EXTENSION_LEN + TAG_LEN];
                rng.fill_bytes(&mut noise);
                noise
            }
        };
        let onionskin = Onionskin(joined(&[
            target.onion_key.id().as_bytes(),
            &public.0,
            &encapsulation_key,
            &sealed,
        ]));
        let initiator = Self {
            network: *network,
            target: target.clone(),
            secret,
            kem_secret,
            static_shared,
            onionskin: Box::new(onionskin.clone()),
        };
        (initiator, onionskin)
    }

    /// Takes the reply: from here on the hop is who it should be, and has the same keys (§5.2(7)).
    ///
    /// # Errors
    /// Anything but an answer of the target to exactly this onionskin.
    pub fn finish(self, reply: &Reply) -> Result<HopKeys, HandshakeFault> {
        let skin = SkinParts::of(&self.onionskin);
        let answer = ReplyParts::of(reply);
        let static_shared = self
            .static_shared
            .as_ref()
            .ok_or(HandshakeFault::NonContributory)?;
        let ephemeral_shared = self.secret.agree(&DhPublic(*answer.public))?;
        let kem_shared = self.kem_secret.decapsulate(answer.ciphertext);
        let transcript = transcript_hash(
            &self.network,
            &self.target,
            &skin,
            answer.public,
            answer.ciphertext,
        );
        let prk = extract(&transcript, static_shared, &ephemeral_shared, &kem_shared);
        if !is_equal(&authenticator(&prk, &transcript), answer.authenticator) {
            return Err(HandshakeFault::Authenticator);
        }
        Ok(hop_keys(&prk))
    }
}

/// Answers an onionskin with whichever of `keys` it names; checks in the order of §5.2(3).
///
/// The extension block is opened before any ML-KEM work: it shows, for the price of one X25519,
/// that the initiator knows this relay and made the whole onionskin for it.
///
/// # Errors
/// Anything but an onionskin for this relay in this network.
pub fn respond(
    network: &NetworkId,
    relay: &RelayId,
    keys: &[OnionSecret],
    skin: &Onionskin,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(HopKeys, Reply), HandshakeFault> {
    let skin = SkinParts::of(skin);
    let onion = keys
        .iter()
        .find(|key| key.id.as_bytes() == skin.onion_key)
        .ok_or(HandshakeFault::UnknownOnionKey)?;
    let target = HopTarget {
        relay: *relay,
        onion_key: onion.public,
    };
    let initiator_public = DhPublic(*skin.offer.public);
    let static_shared = onion.secret.agree(&initiator_public)?;
    open_extension(network, &target, &skin, &static_shared)?;

    let (ciphertext, kem_shared) = kem::encapsulate(skin.offer.encapsulation_key, rng)
        .map_err(|_| HandshakeFault::EncapsulationKey)?;
    let ephemeral = DhSecret::generate(rng);
    let public = ephemeral.public();
    let ephemeral_shared = ephemeral.agree(&initiator_public)?;
    let transcript = transcript_hash(network, &target, &skin, &public.0, &ciphertext);
    let prk = extract(&transcript, &static_shared, &ephemeral_shared, &kem_shared);
    let reply = Reply(joined(&[
        &public.0,
        &ciphertext,
        &authenticator(&prk, &transcript),
    ]));
    Ok((hop_keys(&prk), reply))
}

impl OnionKey {
    /// The name of this key (§5.1(2)).
    pub fn id(&self) -> OnionKeyId {
        let [
            id @ ..,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = sha256(&[b"umbel onion key id", &self.0]);
        OnionKeyId(id)
    }
}

impl OnionSecret {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::new(DhSecret::generate(rng))
    }

    /// The key with these bytes, as they were stored.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::new(DhSecret::from_bytes(seed))
    }

    /// The key's bytes, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.secret.to_bytes()
    }

    /// The public half.
    pub const fn public(&self) -> OnionKey {
        self.public
    }

    /// The name of the key.
    pub const fn id(&self) -> OnionKeyId {
        self.id
    }

    fn new(secret: DhSecret) -> Self {
        let public = OnionKey(secret.public().0);
        Self {
            secret,
            public,
            id: public.id(),
        }
    }
}

impl Onionskin {
    /// Reads the body of a `Create` cell (§4.1).
    ///
    /// # Errors
    /// Another kind of handshake, or bytes behind the onionskin.
    pub fn from_create_body(body: &[u8; BODY_LEN]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        if reader.u8()? != HANDSHAKE_KIND {
            return Err(Malformed::Value);
        }
        let skin = Self(reader.array()?);
        reader.finish_zero()?;
        Ok(skin)
    }

    /// The onion key that it is for.
    pub fn onion_key(&self) -> OnionKeyId {
        OnionKeyId(*SkinParts::of(self).onion_key)
    }

    /// Writes the body of a `Create` cell.
    pub fn write_create_body(&self, body: &mut [u8; BODY_LEN]) {
        *body = joined(&[
            &[HANDSHAKE_KIND],
            &self.0,
            &[0; BODY_LEN - 1 - ONIONSKIN_LEN],
        ]);
    }
}

impl Reply {
    /// Reads the body of a `Created` cell (§4.1).
    ///
    /// # Errors
    /// Bytes behind the reply.
    pub fn from_created_body(body: &[u8; BODY_LEN]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let reply = Self(reader.array()?);
        reader.finish_zero()?;
        Ok(reply)
    }

    /// Writes the body of a `Created` cell.
    pub fn write_created_body(&self, body: &mut [u8; BODY_LEN]) {
        *body = joined(&[&self.0, &[0; BODY_LEN - REPLY_LEN]]);
    }
}

/// The initiator's ephemeral keys.
struct Offer<'a> {
    public: &'a [u8; 32],
    encapsulation_key: &'a [u8; ENCAPSULATION_KEY_LEN],
}

struct SkinParts<'a> {
    onion_key: &'a [u8; OnionKeyId::LEN],
    offer: Offer<'a>,
    extension: &'a [u8; EXTENSION_LEN + TAG_LEN],
}

impl<'a> SkinParts<'a> {
    fn of(skin: &'a Onionskin) -> Self {
        let mut rest = skin.0.as_slice();
        Self {
            onion_key: take(&mut rest),
            offer: Offer {
                public: take(&mut rest),
                encapsulation_key: take(&mut rest),
            },
            extension: take(&mut rest),
        }
    }
}

struct ReplyParts<'a> {
    public: &'a [u8; 32],
    ciphertext: &'a [u8; CIPHERTEXT_LEN],
    authenticator: &'a [u8; 32],
}

impl<'a> ReplyParts<'a> {
    fn of(reply: &'a Reply) -> Self {
        let mut rest = reply.0.as_slice();
        Self {
            public: take(&mut rest),
            ciphertext: take(&mut rest),
            authenticator: take(&mut rest),
        }
    }
}

fn extension_key(
    network: &NetworkId,
    target: &HopTarget,
    offer: &Offer<'_>,
    static_shared: &SharedSecret,
) -> Zeroizing<[u8; 32]> {
    let salt = sha256(&[
        PROTO,
        b":extension",
        network.as_bytes(),
        target.relay.as_bytes(),
        &target.onion_key.0,
        offer.public,
        offer.encapsulation_key,
    ]);
    expand(
        &hkdf_extract(&salt, &[static_shared.as_bytes()]),
        b":extension",
    )
}

fn open_extension(
    network: &NetworkId,
    target: &HopTarget,
    skin: &SkinParts<'_>,
    static_shared: &SharedSecret,
) -> Result<(), HandshakeFault> {
    let key = extension_key(network, target, &skin.offer, static_shared);
    let extension =
        aead::open(&key, &[0; 12], &[], skin.extension).map_err(|_| HandshakeFault::Extension)?;
    if extension == [0; EXTENSION_LEN] {
        Ok(())
    } else {
        Err(HandshakeFault::ExtensionValue)
    }
}

/// Every part has a fixed length, so that two transcripts never read the same.
// §5.2(4)
fn transcript_hash(
    network: &NetworkId,
    target: &HopTarget,
    skin: &SkinParts<'_>,
    public: &[u8; 32],
    ciphertext: &[u8; CIPHERTEXT_LEN],
) -> [u8; 32] {
    sha256(&[
        PROTO,
        network.as_bytes(),
        target.relay.as_bytes(),
        &target.onion_key.0,
        skin.offer.public,
        skin.offer.encapsulation_key,
        public,
        ciphertext,
        skin.extension,
    ])
}

fn extract(
    transcript: &[u8; 32],
    with_static: &SharedSecret,
    ephemeral: &SharedSecret,
    kem: &SharedSecret,
) -> Prk {
    hkdf_extract(
        transcript,
        &[with_static.as_bytes(), ephemeral.as_bytes(), kem.as_bytes()],
    )
}

// §5.2(5)
fn authenticator(prk: &Prk, transcript: &[u8; 32]) -> [u8; 32] {
    hmac_sha256(&expand(prk, b":auth"), &[transcript, b"responder"])
}

fn hop_keys(prk: &Prk) -> HopKeys {
    HopKeys {
        forward: LayerKey::from_bytes(*expand(prk, b":forward")),
        backward: LayerKey::from_bytes(*expand(prk, b":backward")),
        binding: Binding(*expand(prk, b":binding")),
    }
}

fn expand(prk: &Prk, label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    hkdf_expand(prk, &[PROTO, label], &mut *out);
    out
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> &'a [u8; N] {
    let (head, tail) = rest
        .split_first_chunk()
        .unwrap_or_else(|| unreachable!("lengths add up, see the constants"));
    *rest = tail;
    head
}

fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut rest = out.as_mut_slice();
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    assert!(rest.is_empty(), "lengths add up, see the constants");
    out
}

impl fmt::Debug for Onionskin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Onionskin(..)")
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(..)")
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding(..)")
    }
}

impl fmt::Debug for HopTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HopTarget({:?})", self.relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    /// An onionskin whose extension block opens, whatever is in it and in the ML-KEM key.
    fn answer(
        spoil: impl FnOnce(&mut [u8; ENCAPSULATION_KEY_LEN], &mut Vec<u8>),
    ) -> Result<(), HandshakeFault> {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let (network, relay) = (NetworkId([1; 32]), RelayId([2; 32]));
        let onion = OnionSecret::generate(&mut rng);
        let target = HopTarget {
            relay,
            onion_key: onion.public(),
        };
        let secret = DhSecret::generate(&mut rng);
        let public = secret.public();
        let (_, mut encapsulation_key) = KemSecret::generate(&mut rng);
        let mut extension = vec![0; EXTENSION_LEN];
        spoil(&mut encapsulation_key, &mut extension);

        let shared = secret
            .agree(&DhPublic(onion.public().0))
            .unwrap_or_else(|_| panic!("contributory"));
        let offer = Offer {
            public: &public.0,
            encapsulation_key: &encapsulation_key,
        };
        let key = extension_key(&network, &target, &offer, &shared);
        let sealed = aead::seal(&key, &[0; 12], &[], &extension);
        let skin = Onionskin(joined(&[
            onion.id().as_bytes(),
            &public.0,
            &encapsulation_key,
            &sealed,
        ]));
        respond(&network, &relay, &[onion], &skin, &mut rng).map(|_| ())
    }

    #[test] // §5.2(3), §5.4(2)
    fn what_the_initiator_may_not_offer_is_refused() {
        assert_eq!(answer(|_, _| ()), Ok(()));
        assert_eq!(
            answer(|_, extension| extension[63] = 1),
            Err(HandshakeFault::ExtensionValue)
        );
        assert_eq!(
            answer(|key, _| key[..2].fill(0xff)),
            Err(HandshakeFault::EncapsulationKey)
        );
        let both = answer(|key, extension| {
            key[..2].fill(0xff);
            extension[0] = 1;
        });
        assert_eq!(
            both,
            Err(HandshakeFault::ExtensionValue),
            "the extension block comes before any ML-KEM work"
        );
    }
}
