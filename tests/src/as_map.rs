//! Makes the AS map files that `umbel-proto` ships (docs/protocol.md Appendix D) from tables of
//! announced ranges; proto/data/README.md says how.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use umbel_proto::network::as_map::{self, BLOCK_ENTRIES, MAGIC, MapFile, RECENT_MAX};

/// Why a table can't become a map.
#[derive(Debug, PartialEq, Eq)]
pub enum MakeError {
    /// A line is not `first address,last address,AS number,...`.
    Line {
        /// Which, counted from 1.
        number: usize,
    },
    /// A line's range begins before that of the line before it.
    Order {
        /// Which, counted from 1.
        number: usize,
    },
    /// There are more blocks or bytes than the file can say.
    TooLong,
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number } => {
                write!(
                    f,
                    "line {number}: not `first address,last address,AS number,...`"
                )
            }
            Self::Order { number } => write!(f, "line {number}: not in ascending order"),
            Self::TooLong => f.write_str("too much for a map file"),
        }
    }
}

impl std::error::Error for MakeError {}

/// From here to the next entry, prefixes are of this AS; 0 if of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    prefix: u64,
    number: u32,
}

/// A family's tables: how many prefixes of it there are, and in one address group (§8.5(1)).
#[derive(Clone, Copy)]
struct Family {
    prefix_bits: u32,
    group_bits: u32,
}

const V4: Family = Family {
    prefix_bits: as_map::V4_BITS,
    group_bits: 16,
};
const V6: Family = Family {
    prefix_bits: as_map::V6_BITS,
    group_bits: 32,
};

/// A map file of these tables of announced ranges, each in ascending order: lines of `first
/// address,last address,AS number`, and whatever follows. Where ranges overlap, the earlier line
/// counts.
///
/// # Errors
/// The first line that is wrong, of the v4 table before the v6 table.
pub fn make(v4: &str, v6: &str) -> Result<Vec<u8>, MakeError> {
    let v4 = blocks(&entries(v4, V4)?);
    let v6 = blocks(&entries(v6, V6)?);
    let count = |blocks: &[Block]| u32::try_from(blocks.len()).map_err(|_| MakeError::TooLong);
    let mut file = MAGIC.to_vec();
    file.extend(count(&v4)?.to_be_bytes());
    file.extend(count(&v6)?.to_be_bytes());
    let all = [v4, v6].concat();
    let mut at = MapFile::HEADER_LEN + MapFile::INDEX_LEN * all.len();
    for block in &all {
        file.extend(block.prefix.to_be_bytes());
        let place = u32::try_from(at).map_err(|_| MakeError::TooLong)?;
        file.extend(place.to_be_bytes());
        at += block.bytes.len();
    }
    all.iter().for_each(|block| file.extend(&block.bytes));
    Ok(file)
}

/// The entries of a table. A gap smaller than an address group belongs to the AS before it: relays
/// there are in that AS's address group anyway.
fn entries(table: &str, family: Family) -> Result<Vec<Entry>, MakeError> {
    let small = 1_u64 << (family.prefix_bits - family.group_bits);
    let (mut entries, mut end, mut before) = (Vec::<Entry>::new(), 0, None);
    let mut push = |prefix, number| {
        if entries
            .last()
            .is_none_or(|entry: &Entry| entry.number != number)
        {
            entries.push(Entry { prefix, number });
        }
    };
    for (number, line) in (1..).zip(table.lines()) {
        let range = range(line).ok_or(MakeError::Line { number })?;
        if before.is_some_and(|before| range.first < before) {
            return Err(MakeError::Order { number });
        }
        before = Some(range.first);
        let Some((from, until)) = range.prefixes().filter(|&(_, until)| until > end) else {
            continue;
        };
        let from = from.max(end);
        if from - end >= small {
            push(end, 0);
        }
        push(from, range.number);
        end = until;
    }
    push(end, 0);
    Ok(entries)
}

/// A line of a table.
struct Range {
    first: IpAddr,
    last: IpAddr,
    number: u32,
}

impl Range {
    /// The prefixes that are in it whole, from and until, if its number is one that IANA gives to
    /// networks.
    fn prefixes(&self) -> Option<(u64, u64)> {
        let is_assigned =
            matches!(self.number, 1..=23_455 | 23_457..=64_495 | 131_072..=12_582_911);
        let (from, until) = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let before = first.to_bits().checked_sub(1).map(Into::into);
                let from = before.map_or(0, |before| as_map::v4_prefix(before) + 1);
                let after = last.to_bits().checked_add(1).map(Into::into);
                (from, after.map_or(1 << as_map::V4_BITS, as_map::v4_prefix))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let before = first.to_bits().checked_sub(1).map(Into::into);
                let from = before.map_or(0, |before| as_map::v6_prefix(before) + 1);
                let after = last.to_bits().checked_add(1).map(Into::into);
                (from, after.map_or(1 << as_map::V6_BITS, as_map::v6_prefix))
            }
            _ => return None,
        };
        (is_assigned && from < until).then_some((from, until))
    }
}

fn range(line: &str) -> Option<Range> {
    let mut fields = line.split(',');
    let range = Range {
        first: fields.next()?.parse().ok()?,
        last: fields.next()?.parse().ok()?,
        number: fields.next()?.parse().ok()?,
    };
    let is_one_family = range.first.is_ipv4() == range.last.is_ipv4();
    (is_one_family && range.first <= range.last).then_some(range)
}

/// Entries as they stand in the file.
#[derive(Clone)]
struct Block {
    prefix: u64,
    bytes: Vec<u8>,
}

fn blocks(entries: &[Entry]) -> Vec<Block> {
    entries.chunks(BLOCK_ENTRIES).filter_map(block).collect()
}

fn block(entries: &[Entry]) -> Option<Block> {
    let prefix = entries.first()?.prefix;
    let (mut bytes, mut at) = (Vec::new(), prefix);
    let mut recent = VecDeque::new();
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            push_varint(&mut bytes, entry.prefix - at);
        }
        at = entry.prefix;
        match recent.iter().position(|&number| number == entry.number) {
            Some(place) => {
                recent.remove(place);
                bytes.extend(u8::try_from(place));
            }
            None => {
                let [_, high, low @ ..] = entry.number.to_be_bytes();
                bytes.push(high + RECENT_MAX);
                bytes.extend(low);
            }
        }
        recent.push_front(entry.number);
        recent.truncate(usize::from(RECENT_MAX));
    }
    Some(Block { prefix, bytes })
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [.., low] = number.to_be_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use umbel_proto::network::AsNumber;

    use super::*;

    fn found(file: &[u8], address: &str) -> Option<u32> {
        let address = address.parse().unwrap();
        MapFile(file)
            .look_up(address)
            .map(|AsNumber(number)| number)
    }

    #[test] // appendix D
    fn ranges_are_found_to_their_ends() {
        let v4 = "1.0.0.0,1.0.0.255,13335,\"A, B\"\n1.0.4.0,1.0.7.255,38803,C\n\
                  9.0.0.0,9.255.255.255,3356,D\n9.1.0.0,10.0.0.255,7,E\n255.255.255.0,255.255.255.255,5,F";
        let v6 = "2a01:4f8::,2a01:4f9:ffff:ffff:ffff:ffff:ffff:ffff,24940,G";
        let file = make(v4, v6).unwrap();
        let of = |address| found(&file, address);
        assert_eq!(
            [of("0.255.255.255"), of("1.0.0.0"), of("1.0.0.255")],
            [None, Some(13335), Some(13335)]
        );
        assert_eq!(
            of("1.0.2.1"),
            Some(13335),
            "a small gap belongs to the AS before it"
        );
        assert_eq!(
            [of("1.0.7.255"), of("1.1.0.0"), of("8.255.0.0")],
            [Some(38803), None, None]
        );
        assert_eq!(
            [of("9.1.0.0"), of("10.0.0.255"), of("10.0.1.0")],
            [Some(3356), Some(7), None]
        );
        assert_eq!(
            [of("255.255.254.255"), of("255.255.255.255")],
            [None, Some(5)]
        );
        assert_eq!(
            [
                of("2a01:4f7:ffff::"),
                of("2a01:4f9:ffff::1"),
                of("2a01:4fa::")
            ],
            [None, Some(24940), None]
        );
    }

    #[test] // appendix D
    fn lines_that_are_no_ranges_are_named() {
        let fault = |v4: &str| make(v4, "").unwrap_err().to_string();
        let lines = [
            "1.0.0.0,1.0.0.255",
            "1.0.0.0,::1,5",
            "2.0.0.0,1.0.0.0,5",
            "x,1.0.0.0,5",
            "",
        ];
        for line in lines {
            let table = format!("0.0.0.0,0.0.0.255,1\n{line}\n3.0.0.0,3.0.0.255,1");
            assert!(
                fault(&table).starts_with("line 2: not `first address"),
                "{line}"
            );
        }
        let unordered = fault("2.0.0.0,2.0.0.255,1\n1.0.0.0,1.0.0.255,1");
        assert_eq!(unordered, "line 2: not in ascending order");
    }

    #[test] // appendix D
    fn numbers_that_no_network_has_are_left_out() {
        for number in ["0", "23456", "64512", "65535", "4200000000"] {
            let file = make(&format!("1.0.0.0,1.255.255.255,{number}"), "").unwrap();
            assert_eq!(found(&file, "1.1.1.1"), None, "{number}");
        }
    }

    proptest! {
        /// Every prefix of a random table has the AS of its range, many blocks of entries on.
        #[test] // appendix D
        fn a_map_says_what_its_table_says(
            steps in prop::collection::vec((1..5_u32, prop::sample::select((1..100_u32).collect::<Vec<_>>())), 1..600),
        ) {
            let mut table = String::new();
            let (mut ranges, mut at) = (Vec::new(), 256);
            for (len, number) in steps {
                let address = |prefix: u32| IpAddr::V4((prefix << 8).into());
                let IpAddr::V4(last) = address(at + len - 1) else { unreachable!() };
                let last = IpAddr::V4((last.to_bits() | 255).into());
                table.push_str(&format!("{},{last},{number},x\n", address(at)));
                ranges.push((at, len, number));
                at += len;
            }
            let file = make(&table, "").unwrap();
            for (at, len, number) in ranges {
                for prefix in at..at + len {
                    let address = IpAddr::V4((prefix << 8 | prefix & 255).into());
                    prop_assert_eq!(MapFile(&file).look_up(address), Some(AsNumber(number)));
                }
            }
        }
    }
}
