//! An inbox's address, the identity behind it, and the keys that stand for it in one network for
//! one epoch.
//!
//! With the address one can derive every epoch's blinded key; with only a blinded key one
//! learns neither the address nor another epoch's key. Rules: docs/protocol.md §9.1 (address), §9.2
//! (epochs and blinding).

use core::fmt;
use core::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::blind::{BlindedSigner, SoundKey, WeakKey};
use crate::crypto::kdf::sha3_256;
use crate::ids::{BlindedKey, NetworkId};
use crate::limits::EPOCH_LEN;
use crate::time::Epoch;

/// Length of an address as text, characters (§9.1).
pub const ADDRESS_TEXT_LEN: usize = 65;

const HRP: Hrp = Hrp::parse_unchecked("umbel");
const PREFIX: &str = "umbel1";
const VERSION: u8 = 1;
const PAYLOAD_LEN: usize = 1 + 32;
const BLINDING_DOMAIN: &[u8] = b"umbel blinded key";

/// Names an inbox: version and Ed25519 key. It is linkable, so it is shown only by
/// [`to_text`](Self::to_text).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 32]", into = "[u8; 32]")]
pub struct InboxAddress(SoundKey);

impl InboxAddress {
    /// The address with this key.
    ///
    /// # Errors
    /// A key that no honest inbox can have (§9.1(3)).
    pub fn from_key(key: &[u8; 32]) -> Result<Self, AddressError> {
        SoundKey::new(key)
            .map(Self)
            .map_err(|WeakKey| AddressError::Weak)
    }

    /// The key, which is sound.
    pub const fn sound_key(&self) -> &SoundKey {
        &self.0
    }

    /// The address's key.
    pub const fn key(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The address as people write it, in lower case (§9.1(1)).
    pub fn to_text(&self) -> String {
        let mut payload = [VERSION; PAYLOAD_LEN];
        payload[1..].copy_from_slice(self.key());
        let Ok(text) = bech32::encode_lower::<Bech32m>(HRP, &payload) else {
            unreachable!("the length is a constant")
        };
        debug_assert_eq!(text.len(), ADDRESS_TEXT_LEN);
        text
    }

    /// The key that stands for this inbox in `network` during `epoch` (§9.2).
    pub fn blinded_key(&self, network: &NetworkId, epoch: Epoch) -> BlindedKey {
        BlindedKey(
            *self
                .0
                .blind(&blinding_parameter(self, network, epoch))
                .as_bytes(),
        )
    }
}

/// Says that it is an address, not which.
impl fmt::Debug for InboxAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InboxAddress(..)")
    }
}

impl TryFrom<[u8; 32]> for InboxAddress {
    type Error = AddressError;

    fn try_from(key: [u8; 32]) -> Result<Self, AddressError> {
        Self::from_key(&key)
    }
}

impl From<InboxAddress> for [u8; 32] {
    fn from(address: InboxAddress) -> Self {
        *address.key()
    }
}

/// Reads an address, all in lower case or all in upper case (§9.1(2)).
impl FromStr for InboxAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text
            .get(..PREFIX.len())
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
        {
            return Err(AddressError::Prefix);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| misread(text))?;
        // The checksum holds, so this is what its maker wrote: judge the version before the length,
        // which may go with it.
        let mut payload = checked.byte_iter();
        if payload.next().ok_or(AddressError::Mistyped)? != VERSION {
            return Err(AddressError::Version);
        }
        let mut key = [0; 32];
        if payload.len() != key.len() || text.len() != ADDRESS_TEXT_LEN {
            return Err(misread(text));
        }
        key.iter_mut()
            .zip(payload)
            .for_each(|(to, from)| *to = from);
        let address = Self::from_key(&key)?;
        // The last character's spare bit is zero.
        let is_canonical = address.to_text().eq_ignore_ascii_case(text);
        if is_canonical {
            Ok(address)
        } else {
            Err(AddressError::Mistyped)
        }
    }
}

/// The fault of a text that has the right prefix and a wrong checksum or length.
fn misread(text: &str) -> AddressError {
    match text.chars().count().cmp(&ADDRESS_TEXT_LEN) {
        core::cmp::Ordering::Less => AddressError::Truncated,
        core::cmp::Ordering::Equal => AddressError::Mistyped,
        core::cmp::Ordering::Greater => AddressError::TooLong,
    }
}

/// Why a text or key is not an address one could write to; each says what to do. Holds nothing of
/// the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// It does not begin as an address does.
    Prefix,
    /// Some of its end is missing.
    Truncated,
    /// It has more characters than an address.
    TooLong,
    /// A character is wrong; which one is not said, since a guessed correction could be someone
    /// else's address.
    Mistyped,
    /// Made for a later version of the protocol.
    Version,
    /// Its key is one that no honest inbox can have.
    Weak,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => {
                "this is not an Umbel address: check that you copied the right text, it begins with \"umbel1\""
            }
            Self::Truncated => "part of the address is missing: copy all of its 65 characters",
            Self::TooLong => "there is more here than an address: copy only its 65 characters, without spaces",
            Self::Mistyped => "the address is mistyped: copy it again or compare it with the original",
            Self::Version => "the address is of a newer kind than this program knows: update it and try again",
            Self::Weak => "the address has an unsafe key that no Umbel inbox would make: ask its owner for another",
        })
    }
}

impl core::error::Error for AddressError {}

/// The secret behind an address. Not `Clone`, not `Debug`, wiped on drop.
pub struct InboxIdentity {
    seed: Zeroizing<[u8; 32]>,
    address: InboxAddress,
}

impl InboxIdentity {
    /// A new identity.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }

    /// The identity with this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            seed: Zeroizing::new(*seed),
            address: InboxAddress(SoundKey::of_seed(seed)),
        }
    }

    /// The seed, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// The address.
    pub const fn address(&self) -> &InboxAddress {
        &self.address
    }

    /// Signs for this inbox in `network` during `epoch`, with the secret of
    /// [`InboxAddress::blinded_key`] (§9.2).
    pub fn blinded_signer(&self, network: &NetworkId, epoch: Epoch) -> BlindedSigner {
        BlindedSigner::new(
            &self.seed,
            &blinding_parameter(&self.address, network, epoch),
        )
    }
}

// §9.2(2)
fn blinding_parameter(address: &InboxAddress, network: &NetworkId, epoch: Epoch) -> [u8; 32] {
    let (number, len) = (epoch.0.to_be_bytes(), EPOCH_LEN.as_secs().to_be_bytes());
    sha3_256(&[
        BLINDING_DOMAIN,
        address.key(),
        network.as_bytes(),
        &number,
        &len,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bech32::Bech32;
    use proptest::prelude::*;

    const NETWORK: NetworkId = NetworkId([9; 32]);

    fn identity() -> InboxIdentity {
        InboxIdentity::from_seed(&[1; 32])
    }

    fn text_of(payload: &[u8]) -> String {
        bech32::encode_lower::<Bech32m>(HRP, payload).unwrap()
    }

    fn read(text: &str) -> Result<InboxAddress, AddressError> {
        text.parse()
    }

    #[test] // §9.1(2)
    fn an_address_is_read_in_either_case_but_not_in_both() {
        let text = identity().address().to_text();
        assert_eq!(text.len(), ADDRESS_TEXT_LEN);
        assert_eq!(read(&text), Ok(*identity().address()));
        assert_eq!(read(&text.to_uppercase()), Ok(*identity().address()));
        let mixed = format!("{}{}", &text[..64], text[64..].to_uppercase());
        let mixed = if mixed == text {
            format!("U{}", &text[1..])
        } else {
            mixed
        };
        assert_eq!(read(&mixed), Err(AddressError::Mistyped));
    }

    #[test] // §9.1(2)
    fn each_error_says_what_is_wrong() {
        let text = identity().address().to_text();
        assert_eq!(read(""), Err(AddressError::Prefix));
        assert_eq!(
            read("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            Err(AddressError::Prefix)
        );
        assert_eq!(read(&text[1..]), Err(AddressError::Prefix));
        assert_eq!(read(&format!(" {text}")), Err(AddressError::Prefix));
        assert_eq!(read("umbel1"), Err(AddressError::Truncated));
        assert_eq!(read(&text[..64]), Err(AddressError::Truncated));
        assert_eq!(read(&format!("{text}q")), Err(AddressError::TooLong));
        assert_eq!(read(&format!("{text} ")), Err(AddressError::TooLong));
        assert_eq!(
            read(&text.replacen('1', "1é", 1)[..65]),
            Err(AddressError::Truncated)
        );
        assert_eq!(
            read(&format!("umbel1b{}", &text[7..])),
            Err(AddressError::Mistyped)
        );
    }

    #[test] // §9.1(2)
    fn only_this_checksum_version_and_length_are_accepted() {
        let mut payload = [0; 33];
        payload[1..].copy_from_slice(identity().address().key());
        assert_eq!(read(&text_of(&payload)), Err(AddressError::Version));
        payload[0] = 2;
        assert_eq!(read(&text_of(&payload)), Err(AddressError::Version));
        let longer = [&payload[..], &[0; 40]].concat();
        assert_eq!(
            read(&text_of(&longer)),
            Err(AddressError::Version),
            "a later version may be of another length"
        );
        payload[0] = 1;
        assert_eq!(read(&text_of(&payload[..32])), Err(AddressError::Truncated));
        assert_eq!(
            read(&text_of(&[&payload[..], &[0]].concat())),
            Err(AddressError::TooLong)
        );
        let old = bech32::encode_lower::<Bech32>(HRP, &payload).unwrap();
        assert_eq!(read(&old), Err(AddressError::Mistyped));
    }

    #[test] // §9.1(2)
    fn the_spare_bit_must_be_zero() {
        use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
        let mut payload = vec![1];
        payload.extend_from_slice(identity().address().key());
        let mut fes: Vec<bech32::Fe32> = payload.iter().copied().bytes_to_fes().collect();
        let last = fes.last_mut().unwrap();
        *last = bech32::Fe32::try_from(last.to_u8() | 1).unwrap();
        let text: String = fes
            .into_iter()
            .with_checksum::<Bech32m>(&HRP)
            .chars()
            .collect();
        assert_eq!(text.len(), ADDRESS_TEXT_LEN);
        assert_eq!(read(&text), Err(AddressError::Mistyped));
    }

    #[test] // §9.1(3)
    fn weak_keys_are_refused() {
        let mut identity_point = [0; 33];
        (identity_point[0], identity_point[1]) = (1, 1);
        assert_eq!(read(&text_of(&identity_point)), Err(AddressError::Weak));
        assert_eq!(
            InboxAddress::from_key(&[0; 32]),
            Err(AddressError::Weak),
            "order four"
        );
        let encoded = crate::wire::encode(&[0u8; 32]);
        assert!(crate::wire::decode::<InboxAddress>(&encoded).is_err());
    }

    #[test] // what may be logged
    fn debug_does_not_name_the_inbox() {
        assert_eq!(format!("{:?}", identity().address()), "InboxAddress(..)");
    }

    #[test] // §9.2(2)
    fn a_blinded_key_belongs_to_one_address_network_and_epoch() {
        let address = *identity().address();
        let base = address.blinded_key(&NETWORK, Epoch(5));
        assert!(
            identity()
                .blinded_signer(&NETWORK, Epoch(5))
                .public()
                .as_bytes()
                == base.as_bytes()
        );
        assert_ne!(base, address.blinded_key(&NETWORK, Epoch(6)));
        assert_ne!(base, address.blinded_key(&NetworkId([8; 32]), Epoch(5)));
        assert_ne!(
            base,
            InboxIdentity::from_seed(&[2; 32])
                .address()
                .blinded_key(&NETWORK, Epoch(5))
        );
    }

    proptest! {
        #[test] // §9.1(1)
        fn addresses_survive_their_text(seed: [u8; 32]) {
            let address = *InboxIdentity::from_seed(&seed).address();
            prop_assert_eq!(read(&address.to_text()), Ok(address));
        }

        #[test] // §9.1(2): bech32m finds any error in up to four characters
        fn a_mistyped_address_is_never_another(seed: [u8; 32], position in 6usize..65, character in "[a-z0-9]") {
            let text = InboxIdentity::from_seed(&seed).address().to_text();
            let changed = format!("{}{character}{}", &text[..position], &text[position + 1..]);
            prop_assume!(changed != text);
            prop_assert_eq!(read(&changed), Err(AddressError::Mistyped));
        }

        #[test]
        fn any_text_is_an_address_or_refused(text in "(umbel1|UMBEL1)?\\PC{0,120}") {
            if let Ok(address) = read(&text) {
                prop_assert!(address.to_text().eq_ignore_ascii_case(&text));
            }
        }
    }
}
