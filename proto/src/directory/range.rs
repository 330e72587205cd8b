//! Ranges of relay ids, as two views are compared by them (docs/protocol.md §8.3(1)).
//!
//! A range is never empty: its first id is not behind its last one. On the wire a bound is cut to
//! the bytes that tell it from the end of all ids, so that a bound between two relays takes as many
//! bytes as tell these two apart.

use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::RelayId;

/// All relay ids from `from` to `until`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "RawRange", try_from = "RawRange")]
pub struct IdRange {
    from: RelayId,
    until: RelayId,
}

impl IdRange {
    /// Every id there may be.
    pub const ALL: Self = Self {
        from: RelayId([0; RelayId::LEN]),
        until: RelayId([0xff; RelayId::LEN]),
    };

    /// The ids from `from` to `until`, if there are any.
    pub fn new(from: RelayId, until: RelayId) -> Option<Self> {
        (from <= until).then_some(Self { from, until })
    }

    /// The first id.
    pub const fn from(&self) -> RelayId {
        self.from
    }

    /// The last id.
    pub const fn until(&self) -> RelayId {
        self.until
    }

    /// Whether this id is in it.
    pub fn contains(&self, id: &RelayId) -> bool {
        self.bounds().contains(id)
    }

    /// The ids, for a map that they are the keys of.
    pub const fn bounds(&self) -> RangeInclusive<RelayId> {
        self.from..=self.until
    }

    /// The ids of this range behind `id`, if there are any.
    pub(super) fn behind(&self, id: RelayId) -> Option<Self> {
        let next = next(id)?;
        Self::new(self.from.max(next), self.until)
    }

    /// The ids of this range from `id` on, if there are any.
    pub(super) fn starting_at(&self, id: RelayId) -> Option<Self> {
        Self::new(self.from.max(id), self.until)
    }

    /// The ids of this range before `id`, if there are any.
    pub(super) fn before(&self, id: RelayId) -> Option<Self> {
        let previous = previous(id)?;
        Self::new(self.from, self.until.min(previous))
    }

    /// Whether the other range begins where this one ends.
    pub(super) fn is_followed_by(&self, other: &Self) -> bool {
        next(self.until) == Some(other.from)
    }

    /// This range up to the end of another.
    pub(super) fn through(self, other: &Self) -> Self {
        Self {
            until: self.until.max(other.until),
            ..self
        }
    }

    /// Cuts the range behind this id and before that one, which is greater, at the shortest bound.
    pub(super) fn cut(self, low: RelayId, high: RelayId) -> (Option<Self>, Option<Self>) {
        let until = last_between(low, high);
        (
            Self::new(self.from, self.until.min(until)),
            self.behind(until),
        )
    }
}

/// The id with the shortest form as an end of a range that is not before `low`, but before `high`.
fn last_between(low: RelayId, high: RelayId) -> RelayId {
    let common = low.0.iter().zip(&high.0).take_while(|(a, b)| a == b);
    let kept = common.count() + 1;
    let mut until = [0xff; RelayId::LEN];
    let copied = until.iter_mut().zip(low.0).take(kept);
    copied.for_each(|(byte, of_low)| *byte = of_low);
    RelayId(until)
}

/// The id before every other that is behind this one.
fn next(id: RelayId) -> Option<RelayId> {
    let mut bytes = id.0;
    for byte in bytes.iter_mut().rev() {
        let (sum, is_carried) = byte.overflowing_add(1);
        *byte = sum;
        if !is_carried {
            return Some(RelayId(bytes));
        }
    }
    None
}

/// The id behind every other that is before this one.
pub(super) fn previous(id: RelayId) -> Option<RelayId> {
    let mut bytes = id.0;
    for byte in bytes.iter_mut().rev() {
        let (difference, is_borrowed) = byte.overflowing_sub(1);
        *byte = difference;
        if !is_borrowed {
            return Some(RelayId(bytes));
        }
    }
    None
}

/// A range on the wire: `from` without the zeros that it ends in, `until` without the 0xff bytes.
#[derive(Serialize, Deserialize)]
struct RawRange {
    from: ByteBuf,
    until: ByteBuf,
}

impl From<IdRange> for RawRange {
    fn from(range: IdRange) -> Self {
        Self {
            from: shortened(range.from, 0),
            until: shortened(range.until, 0xff),
        }
    }
}

impl TryFrom<RawRange> for IdRange {
    type Error = BadRange;

    fn try_from(raw: RawRange) -> Result<Self, BadRange> {
        let from = lengthened(&raw.from, 0).ok_or(BadRange)?;
        let until = lengthened(&raw.until, 0xff).ok_or(BadRange)?;
        Self::new(from, until).ok_or(BadRange)
    }
}

fn shortened(id: RelayId, filler: u8) -> ByteBuf {
    let last = id.0.iter().rposition(|byte| *byte != filler);
    let kept = last.map_or(0, |last| last + 1);
    id.0.into_iter().take(kept).collect::<Vec<u8>>().into()
}

/// The id that was shortened to this: `None` if it is too long, or was not shortened to the end.
fn lengthened(bytes: &[u8], filler: u8) -> Option<RelayId> {
    if bytes.len() > RelayId::LEN || bytes.last() == Some(&filler) {
        return None;
    }
    let mut id = [filler; RelayId::LEN];
    id.iter_mut()
        .zip(bytes)
        .for_each(|(byte, given)| *byte = *given);
    Some(RelayId(id))
}

/// A range that is empty, or whose bounds are not in their one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRange;

impl core::fmt::Display for BadRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a range of relay ids")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire;

    fn id(head: &[u8], filler: u8) -> RelayId {
        lengthened(head, filler).unwrap()
    }

    #[test] // §8.3(1)
    fn a_bound_takes_only_the_bytes_that_tell_relays_apart() {
        assert_eq!(wire::encode(&IdRange::ALL), [0, 0]);
        let (low, high) = (id(&[1, 2, 3, 4], 0), id(&[1, 2, 7], 0));
        let (head, tail) = IdRange::ALL.cut(low, high);
        assert_eq!(wire::encode(&head.unwrap()), [0, 3, 1, 2, 3]);
        assert_eq!(wire::encode(&tail.unwrap()), [3, 1, 2, 4, 0]);
    }

    #[test] // §8.3(1)
    fn ranges_that_are_empty_or_have_another_form_are_refused() {
        let is_read = |bytes: &[u8]| wire::decode::<IdRange>(bytes).is_ok();
        assert!(is_read(&[1, 7, 1, 7]), "all that begin with 7");
        assert!(!is_read(&[1, 8, 1, 7]), "inverted");
        assert!(!is_read(&[2, 7, 0, 1, 9]), "a zero too many");
        assert!(!is_read(&[1, 7, 2, 9, 0xff]), "a 0xff too many");
        let long = [&[33][..], &[7; 33], &[0]].concat();
        assert!(!is_read(&long), "longer than an id");
        assert!(!is_read(&[5, 7, 0]), "longer than what is there");
    }

    proptest! {
        #[test] // §8.3(1)
        fn a_cut_leaves_nothing_out_and_nothing_twice(low: [u8; 32], high: [u8; 32]) {
            let (low, high) = (RelayId(low.min(high)), RelayId(low.max(high)));
            prop_assume!(low < high);
            let (head, tail) = IdRange::ALL.cut(low, high);
            let (head, tail) = (head.unwrap(), tail.unwrap());
            prop_assert!(head.contains(&low) && tail.contains(&high));
            prop_assert!(head.is_followed_by(&tail));
            for range in [head, tail] {
                prop_assert_eq!(wire::decode::<IdRange>(&wire::encode(&range)), Ok(range));
            }
        }
    }
}
