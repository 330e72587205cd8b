//! Bytes in, values out: a reader that never panics and never allocates by a peer's number, and
//! canonical postcard.

use core::fmt;
use core::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(Malformed::Value)
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
