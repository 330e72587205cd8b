//! Bytes in, values out: a reader that never panics and never allocates by a peer's number, and
//! canonical postcard.

use core::fmt;
use core::marker::PhantomData;

use postcard::ser_flavors::{Flavor, Size};
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// The bytes were not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They ended early.
    Truncated,
    /// Some were left over.
    Trailing,
    /// A field holds a value it may not have.
    Value,
    /// A list or string is longer than its limit.
    TooLong,
}

/// Takes fixed-size fields off the front of a byte string.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their beginning.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// How many bytes are left.
    pub const fn left(&self) -> usize {
        self.rest.len()
    }

    /// All that is left.
    pub const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Trailing)
        }
    }

    /// All that is left must be zero: reserved space of a fixed-size body.
    pub fn finish_zero(self) -> Result<(), Malformed> {
        if self.rest.iter().all(|&byte| byte == 0) {
            Ok(())
        } else {
            Err(Malformed::Trailing)
        }
    }
}

/// Encodes a service message or document as postcard.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Only types whose own `Serialize` fails can make this fail; ours are derived.
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Decodes postcard that is exactly one value in its one canonical form (docs/protocol.md
/// §7.2(6)).
///
/// # Errors
/// Left-over bytes, over-long integers, anything postcard refuses.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|_| Malformed::Value)?;
    if !rest.is_empty() {
        return Err(Malformed::Trailing);
    }
    if is_encoding(&value, bytes) {
        Ok(value)
    } else {
        Err(Malformed::Value)
    }
}

/// Encodes a value that holds secrets, into a buffer that is wiped. It has its full length from the
/// start: one that grew would leave parts of the secrets where it lay before.
pub fn encode_secret<T: Serialize>(value: &T) -> Zeroizing<Vec<u8>> {
    let len = postcard::serialize_with_flavor(value, Size::default()).unwrap_or_default();
    let still = Still(Zeroizing::new(Vec::with_capacity(len)));
    // As in `encode`; and whatever is longer than it was a moment ago is cut off, not moved.
    postcard::serialize_with_flavor(value, still).unwrap_or_default()
}

/// A buffer that never moves: beyond its capacity it takes nothing.
struct Still(Zeroizing<Vec<u8>>);

impl Flavor for Still {
    type Output = Zeroizing<Vec<u8>>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Self::Output> {
        Ok(self.0)
    }
}

/// Whether a value is encoded as these bytes. Makes no copy, which might be one of a secret.
fn is_encoding<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    let rest = postcard::serialize_with_flavor(value, Expected(bytes));
    rest.is_ok_and(<[u8]>::is_empty)
}

/// What is left of the bytes that an encoding should have.
struct Expected<'a>(&'a [u8]);

impl<'a> Flavor for Expected<'a> {
    type Output = &'a [u8];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let rest = self.0.strip_prefix(bytes);
        self.0 = rest.ok_or(postcard::Error::SerdeSerCustom)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Self::Output> {
        Ok(self.0)
    }
}

/// Decodes postcard in its one canonical form with nothing but zeros behind it.
///
/// # Errors
/// Other bytes behind it, over-long integers, anything postcard refuses.
pub fn decode_padded<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let (_, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|_| Malformed::Value)?;
    let (value, padding) = bytes.split_at(bytes.len() - rest.len());
    Reader::new(padding).finish_zero()?;
    decode(value)
}

/// Reads a list of at most `MAX` items, allocating as they come: for `#[serde(deserialize_with)]`.
///
/// # Errors
/// There are more.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(ListVisitor::<T, MAX>(PhantomData))
}

/// Puts an item at the end of a list of secrets. Where the list has to move, no copy is left behind.
pub(crate) fn push_secret<T: Zeroize>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        let mut larger = Vec::with_capacity(list.len().saturating_mul(2).max(4));
        larger.append(list);
        list.zeroize();
        *list = larger;
    }
    list.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct State {
        keys: Vec<[u8; 32]>,
        #[serde(with = "serde_bytes")]
        seed: Vec<u8>,
        count: u64,
    }

    fn state(keys: usize) -> State {
        State {
            keys: vec![[7; 32]; keys],
            seed: vec![9; 3 * keys],
            count: 1 << keys,
        }
    }

    /// Fails where it lies elsewhere than at the start.
    struct Watched(Still, *const u8);

    impl Flavor for Watched {
        type Output = (Zeroizing<Vec<u8>>, *const u8);

        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.try_push(byte)?;
            assert_eq!(self.0.0.as_ptr(), self.1, "it moved");
            Ok(())
        }

        fn finalize(self) -> postcard::Result<Self::Output> {
            Ok((self.0.0, self.1))
        }
    }

    #[test]
    fn a_buffer_of_secrets_has_its_length_at_once_and_never_moves() {
        for keys in 0..60 {
            let state = state(keys);
            let plain = encode(&state);
            let secret = encode_secret(&state);
            assert_eq!(*secret, plain);
            assert_eq!(
                secret.capacity(),
                plain.len(),
                "no more than was asked for at the start"
            );
            let buffer = Vec::with_capacity(plain.len());
            let start = buffer.as_ptr();
            let watched = Watched(Still(Zeroizing::new(buffer)), start);
            let (bytes, _) = postcard::serialize_with_flavor(&state, watched).unwrap();
            assert_eq!((&*bytes, bytes.as_ptr()), (&plain, start));
            let short = Still(Zeroizing::new(Vec::with_capacity(plain.len() - 1)));
            assert!(postcard::serialize_with_flavor(&state, short).is_err());
        }
    }

    #[test]
    fn a_value_has_one_encoding() {
        let bytes = encode(&state(3));
        assert_eq!(decode::<State>(&bytes), Ok(state(3)));
        assert!(is_encoding(&state(3), &bytes) && !is_encoding(&state(4), &bytes));
        assert!(!is_encoding(&state(3), &bytes[..bytes.len() - 1]));
        assert!(!is_encoding(&state(3), &[&bytes[..], &[0]].concat()));
        assert_eq!(
            decode::<u64>(&[0x81, 0x00]),
            Err(Malformed::Value),
            "over-long"
        );
    }

    #[test]
    fn a_list_of_secrets_grows_without_leaving_any() {
        let mut list: Vec<u64> = Vec::new();
        for number in 0..100 {
            push_secret(&mut list, number);
        }
        assert_eq!(list, (0..100).collect::<Vec<_>>());
    }
}
