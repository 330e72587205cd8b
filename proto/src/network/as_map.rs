//! Which autonomous system (AS) announces an address: relays of one AS are one operator's to run,
//! to watch or to switch off, in however many prefixes they stand (docs/protocol.md §8.5(4)).
//!
//! A map is a file of at most 2 MB that ships inside the program. A network names the map it uses by
//! hash, so that everyone counts alike, and a later version ships the earlier maps, too. Looking an
//! address up reads one block of the file; nothing is decoded before, and nothing is kept.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An AS map that this version ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AsMap {
    /// None: only prefixes tell relays apart.
    None,
    /// The one of June 2026; `proto/data/README.md` says where it comes from.
    June2026,
}

/// The number of an autonomous system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsNumber(pub u32);

/// How an AS map file begins.
pub const MAGIC: [u8; 8] = *b"umbelas1";
/// Most entries of a block.
pub const BLOCK_ENTRIES: usize = 128;
/// How many numbers a block remembers: an entry that repeats one of them takes a byte for it.
pub const RECENT_MAX: u8 = 64;
/// Bits of a v4 address that count: announcements are of a /24 or wider.
pub const V4_BITS: u32 = 24;
/// Bits of a v6 address that count: announcements are of a /48 or wider.
pub const V6_BITS: u32 = 48;

const JUNE_2026: &[u8] = include_bytes!("../../data/as-map-2026-06.bin");

impl AsMap {
    /// The newest, for new networks.
    pub const NEWEST: Self = Self::June2026;

    /// How a network file names it: `none`, or the SHA-256 of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::June2026 => "4b90af96584bfe8a9104d9a09932c1b071bccd43dd98176f884a785cd492d423",
        }
    }

    /// The map of this name, if this version ships it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::June2026]
            .into_iter()
            .find(|map| map.name() == name)
    }

    /// The AS that announces this address, if the map has one. A v4 address written as v6 counts as
    /// v4.
    pub fn look_up(self, address: IpAddr) -> Option<AsNumber> {
        match self {
            Self::None => None,
            Self::June2026 => MapFile(JUNE_2026).look_up(address),
        }
    }
}

/// The bytes of a map file (Appendix D).
#[derive(Debug, Clone, Copy)]
pub struct MapFile<'a>(pub &'a [u8]);

impl MapFile<'_> {
    /// Length of what stands before the first index: the magic, and the number of blocks of v4 and
    /// of v6.
    pub const HEADER_LEN: usize = 16;
    /// Length of an entry of an index: the first prefix of a block, and where the block begins.
    pub const INDEX_LEN: usize = 12;

    /// The AS that announces this address. In what is no map, nothing or anything is found.
    pub fn look_up(&self, address: IpAddr) -> Option<AsNumber> {
        let v4_blocks = self.number(MAGIC.len(), 4)?;
        let v6_blocks = self.number(MAGIC.len() + 4, 4)?;
        let (first, count, prefix) = match address.to_canonical() {
            IpAddr::V4(v4) => (0, v4_blocks, v4_prefix(v4)),
            IpAddr::V6(v6) => (v4_blocks, v6_blocks, v6_prefix(v6)),
        };
        let (block, start) = self.block(first, count, prefix)?;
        let end = match block + 1 < v4_blocks + v6_blocks {
            true => self.index(block + 1)?.1,
            false => u64::try_from(self.0.len()).ok()?,
        };
        let [from, until] = [self.index(block)?.1, end].map(|at| usize::try_from(at).ok());
        in_block(self.0.get(from?..until?)?, start, prefix)
    }

    /// The last of these blocks that begins at or before a prefix, and where it begins.
    fn block(&self, first: u64, count: u64, prefix: u64) -> Option<(u64, u64)> {
        let (mut low, mut high) = (first, first.checked_add(count)?);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.index(middle)?.0 <= prefix {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let block = low.checked_sub(1).filter(|&block| block >= first)?;
        Some((block, self.index(block)?.0))
    }

    /// Where a block begins: its first prefix, and its place in the file.
    fn index(&self, block: u64) -> Option<(u64, u64)> {
        let at = usize::try_from(block).ok()?.checked_mul(Self::INDEX_LEN)?;
        let at = at.checked_add(Self::HEADER_LEN)?;
        Some((self.number(at, 8)?, self.number(at + 8, 4)?))
    }

    /// A big-endian number of so many bytes, 8 at most.
    fn number(&self, at: usize, len: usize) -> Option<u64> {
        let bytes = self.0.get(at..at.checked_add(len)?)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    }
}

/// The number of the /24 that an address is in.
pub const fn v4_prefix(address: Ipv4Addr) -> u64 {
    (address.to_bits() >> (32 - V4_BITS)) as u64
}

/// The number of the /48 that an address is in.
pub const fn v6_prefix(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> (128 - V6_BITS)) as u64
}

/// The AS of a prefix that is in this block, which begins at `start`.
fn in_block(block: &[u8], start: u64, prefix: u64) -> Option<AsNumber> {
    let (mut bytes, mut at, mut recent) = (block.iter().copied(), start, Recent::new());
    let mut found = 0;
    for entry in 0..BLOCK_ENTRIES {
        if entry > 0 {
            match step(&mut bytes) {
                Some(step) => at = at.checked_add(step)?,
                None => break,
            }
        }
        if at > prefix {
            break;
        }
        found = recent.number(&mut bytes)?;
    }
    (found != 0).then_some(AsNumber(found))
}

/// How far an entry is from the one before: a varint (§1.4). `None` at the end of a block.
fn step(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut step = 0;
    for shift in (0..63).step_by(7) {
        let byte = bytes.next()?;
        step |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(step);
        }
    }
    None
}

/// The numbers that a block had last, the last first.
struct Recent {
    numbers: [u32; RECENT_MAX as usize],
    len: usize,
}

impl Recent {
    const fn new() -> Self {
        Self {
            numbers: [0; RECENT_MAX as usize],
            len: 0,
        }
    }

    /// The next number: a place in the list in one byte, or three bytes for one that is not in it.
    fn number(&mut self, bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
        let first = bytes.next()?;
        let (number, place) = match first.checked_sub(RECENT_MAX) {
            None => {
                let place = usize::from(first);
                (*self.numbers.get(..self.len)?.get(place)?, place)
            }
            Some(high) => {
                let number = u32::from_be_bytes([0, high, bytes.next()?, bytes.next()?]);
                self.len = self.numbers.len().min(self.len + 1);
                (number, self.len - 1)
            }
        };
        self.numbers.copy_within(..place, 1);
        self.numbers[0] = number;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::crypto::kdf::sha256;

    fn of(address: &str) -> Option<u32> {
        let found = AsMap::NEWEST.look_up(address.parse().unwrap());
        found.map(|found| found.0)
    }

    #[test] // appendix D
    fn a_map_is_named_by_its_hash() {
        let hash = HEXLOWER.encode(&sha256(&[JUNE_2026]));
        assert_eq!(AsMap::June2026.name(), hash);
        assert_eq!(AsMap::from_name(&hash), Some(AsMap::June2026));
        assert_eq!(AsMap::from_name("none"), Some(AsMap::None));
        assert_eq!(AsMap::from_name(&hash.to_uppercase()), None);
        assert!(JUNE_2026.starts_with(&MAGIC) && JUNE_2026.len() < 2_000_000);
    }

    #[test] // §8.5(4)
    fn well_known_addresses_are_in_their_as() {
        assert_eq!(of("8.8.8.8"), Some(15_169));
        assert_eq!(of("::ffff:8.8.8.8"), Some(15_169));
        assert_eq!(of("1.1.1.1"), Some(13_335));
        assert_eq!(of("2606:4700:4700::1111"), Some(13_335));
        assert_eq!(of("95.216.0.1"), Some(24_940));
        assert_eq!(of("2a01:4f8::1"), Some(24_940));
    }

    #[test] // §8.5(4)
    fn addresses_that_nobody_announces_are_in_no_as() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "192.168.1.1",
            "255.255.255.255",
        ] {
            assert_eq!(of(address), None, "{address}");
        }
        for address in ["::", "::1", "fe80::1", "fd00::1", "ffff::ffff"] {
            assert_eq!(of(address), None, "{address}");
        }
        assert_eq!(AsMap::None.look_up("8.8.8.8".parse().unwrap()), None);
    }

    #[test]
    fn what_is_no_map_never_panics() {
        let addresses = [
            "0.0.0.0",
            "8.8.8.8",
            "255.255.255.255",
            "2a01:4f8::1",
            "ffff::",
        ];
        let cut = (0..64).map(|len| JUNE_2026[..len].to_vec());
        let full = (0..64).map(|at| {
            let mut bytes = JUNE_2026[..4096].to_vec();
            bytes[at] = 0xff;
            bytes
        });
        for bytes in cut.chain(full) {
            for address in addresses {
                MapFile(&bytes).look_up(address.parse().unwrap());
            }
        }
    }
}
