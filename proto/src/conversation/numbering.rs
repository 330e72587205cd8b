//! The numbers of a conversation's messages: which of them arrived, and what their sender hears of
//! that (docs/protocol.md §11.8).
//!
//! Each side numbers what it writes, from 1 in each session. The reader notes what arrived; its
//! acknowledgements say that, and so ask for what is missing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limits::{ACKNOWLEDGED_RANGES_MAX, NUMBERS_AHEAD_MAX};
use crate::wire;

/// Which of a peer's messages arrived, in one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    /// All before this arrived, or are lost.
    next: u64,
    /// Of the later ones, those that arrived.
    above: BTreeSet<u64>,
}

/// The fate of a message with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the first with this number.
    New,
    /// One with this number arrived, or was given up for lost.
    Repeated,
    /// No honest sender is so far ahead.
    TooFar,
}

/// A reader's account of a session's messages: it has all before `next`, and those in the ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// All before this arrived, or were given up by their sender.
    pub next: u64,
    /// Of the later ones, those that arrived, in order and apart from one another.
    #[serde(deserialize_with = "wire::list::<_, _, ACKNOWLEDGED_RANGES_MAX>")]
    pub ranges: Vec<NumberRange>,
}

/// Some numbers in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRange {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

impl Default for Arrived {
    fn default() -> Self {
        Self {
            next: 1,
            above: BTreeSet::new(),
        }
    }
}

impl Arrived {
    /// A message with this number came; if it is new, notes that it did (§11.8(2)).
    pub fn take(&mut self, number: u64) -> Arrival {
        if number < self.next || self.above.contains(&number) {
            return Arrival::Repeated;
        }
        if number - self.next >= NUMBERS_AHEAD_MAX {
            return Arrival::TooFar;
        }
        self.above.insert(number);
        self.close_up();
        Arrival::New
    }

    /// The sender has given up what is before `floor` (§11.8(3)). Returns the messages that are lost by that, at
    /// most [`NUMBERS_AHEAD_MAX`] of them: no honest sender gives up more.
    pub fn give_up_before(&mut self, floor: u64) -> Vec<NumberRange> {
        let floor = floor.min(self.next.saturating_add(NUMBERS_AHEAD_MAX));
        let mut lost = Vec::new();
        while self.next < floor {
            let gap_end = self.above.first().map_or(floor, |&first| first.min(floor));
            if self.next < gap_end {
                lost.push(NumberRange {
                    first: self.next,
                    last: gap_end - 1,
                });
            }
            self.next = gap_end;
            self.close_up();
        }
        lost
    }

    /// The messages that others came after, in order.
    pub fn missing(&self) -> impl Iterator<Item = NumberRange> {
        let ranges = self.ranges();
        let ends = ranges.clone().map(|range| range.first);
        let starts = core::iter::once(self.next).chain(ranges.map(|range| range.last + 1));
        starts.zip(ends).map(|(first, end)| NumberRange {
            first,
            last: end - 1,
        })
    }

    /// How many messages are missing.
    pub fn missing_count(&self) -> u64 {
        self.missing().map(|gap| gap.last - gap.first + 1).sum()
    }

    /// The account for the sender: the earliest ranges, if there are too many.
    pub fn acknowledgement(&self) -> Acknowledgement {
        Acknowledgement {
            next: self.next,
            ranges: self.ranges().take(ACKNOWLEDGED_RANGES_MAX).collect(),
        }
    }

    fn close_up(&mut self) {
        while self.above.first() == Some(&self.next) {
            self.above.pop_first();
            self.next += 1;
        }
    }

    fn ranges(&self) -> impl Iterator<Item = NumberRange> + Clone {
        let mut numbers = self.above.iter().copied().peekable();
        core::iter::from_fn(move || {
            let first = numbers.next()?;
            let mut last = first;
            while numbers.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            Some(NumberRange { first, last })
        })
    }
}

impl Acknowledgement {
    /// Whether this message arrived, or need not.
    pub fn covers(&self, number: u64) -> bool {
        let is_in = |range: &NumberRange| (range.first..=range.last).contains(&number);
        number < self.next || self.ranges.iter().any(is_in)
    }

    /// Whether this message is missing where a later one arrived.
    pub fn asks_for(&self, number: u64) -> bool {
        let is_before_another = self.ranges.last().is_some_and(|last| number < last.first);
        is_before_another && !self.covers(number)
    }

    /// Whether it is what [`Arrived::acknowledgement`] makes: ranges in order, each apart from the
    /// next, and none too far ahead (§11.8(4)).
    pub(super) fn is_sound(&self) -> bool {
        let mut free_from = self.next;
        let end = self.next.saturating_add(NUMBERS_AHEAD_MAX);
        self.next > 0
            && self.ranges.iter().all(|range| {
                let is_sound =
                    free_from < range.first && range.first <= range.last && range.last < end;
                free_from = range.last.saturating_add(1);
                is_sound
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, last: u64) -> NumberRange {
        NumberRange { first, last }
    }

    fn arrived(numbers: impl IntoIterator<Item = u64>) -> Arrived {
        let mut arrived = Arrived::default();
        for number in numbers {
            assert_eq!(arrived.take(number), Arrival::New);
        }
        arrived
    }

    #[test] // §11.8(2)
    fn gaps_are_seen_once_something_later_came_and_close() {
        let mut arrived = arrived([1, 2, 5, 6, 9]);
        let gaps: Vec<_> = arrived.missing().collect();
        assert_eq!(gaps, [range(3, 4), range(7, 8)]);
        assert_eq!(arrived.missing_count(), 4);
        assert_eq!(arrived.take(5), Arrival::Repeated);
        assert_eq!(arrived.take(2), Arrival::Repeated);
        for number in [8, 3, 4] {
            assert_eq!(arrived.take(number), Arrival::New);
        }
        assert_eq!(arrived.missing().collect::<Vec<_>>(), [range(7, 7)]);
        assert_eq!(arrived.take(7), Arrival::New);
        assert_eq!(
            arrived,
            Arrived {
                next: 10,
                above: BTreeSet::new()
            }
        );
    }

    #[test] // §11.8(2)
    fn a_number_far_ahead_is_not_noted() {
        let mut arrived = arrived([1]);
        assert_eq!(arrived.take(2 + NUMBERS_AHEAD_MAX), Arrival::TooFar);
        assert_eq!(arrived.take(u64::MAX), Arrival::TooFar);
        assert_eq!(arrived.take(1 + NUMBERS_AHEAD_MAX), Arrival::New);
    }

    #[test] // §11.8(3)
    fn messages_that_their_sender_gives_up_are_lost() {
        let mut arrived = arrived([1, 4, 5, 8]);
        assert_eq!(arrived.give_up_before(2), []);
        assert_eq!(arrived.give_up_before(7), [range(2, 3), range(6, 6)]);
        assert_eq!(arrived.missing().collect::<Vec<_>>(), [range(7, 7)]);
        assert_eq!(arrived.take(3), Arrival::Repeated);
        assert_eq!(arrived.give_up_before(8), [range(7, 7)]);
        assert_eq!(arrived.acknowledgement().next, 9);
        let lost = arrived.give_up_before(u64::MAX);
        assert_eq!(
            lost,
            [range(9, 8 + NUMBERS_AHEAD_MAX)],
            "and no more at once"
        );
    }

    #[test] // §11.8(4)
    fn an_acknowledgement_covers_what_came_and_asks_for_what_is_missing() {
        let ack = arrived([1, 2, 5, 6, 9]).acknowledgement();
        assert_eq!(ack.ranges, [range(5, 6), range(9, 9)]);
        let covered: Vec<u64> = (0..12).filter(|&number| ack.covers(number)).collect();
        assert_eq!(covered, [0, 1, 2, 5, 6, 9]);
        let asked: Vec<u64> = (0..12).filter(|&number| ack.asks_for(number)).collect();
        assert_eq!(asked, [3, 4, 7, 8]);
    }

    #[test] // §11.8(4)
    fn an_acknowledgement_has_one_form() {
        let sound = |next, ranges: &[(u64, u64)]| {
            let ranges = ranges.iter().map(|&(first, last)| range(first, last));
            let ranges = ranges.collect();
            Acknowledgement { next, ranges }.is_sound()
        };
        assert!(sound(1, &[]) && sound(3, &[(4, 4)]) && sound(3, &[(5, 6), (8, 9)]));
        assert!(!sound(0, &[]), "numbers begin with 1");
        assert!(!sound(3, &[(3, 4)]), "it would be part of `next`");
        assert!(!sound(3, &[(5, 6), (7, 9)]), "they are one");
        assert!(!sound(3, &[(7, 9), (5, 5)]) && !sound(3, &[(6, 5)]));
        assert!(!sound(1, &[(3, 1 + NUMBERS_AHEAD_MAX)]));
        assert!(!sound(u64::MAX, &[(u64::MAX, u64::MAX)]));
    }

    proptest! {
        #[test] // §11.8(2), §11.8(4)
        fn in_whatever_order_they_come(mut numbers in prop::collection::vec(1..200_u64, 0..300)) {
            let mut arrived = Arrived::default();
            let mut model = BTreeSet::new();
            for &number in &numbers {
                let is_new = model.insert(number);
                prop_assert_eq!(arrived.take(number) == Arrival::New, is_new);
                let ack = arrived.acknowledgement();
                prop_assert!(ack.is_sound());
                prop_assert!((1..200).all(|it| !ack.covers(it) || model.contains(&it)));
            }
            let all = arrived.ranges().count() <= ACKNOWLEDGED_RANGES_MAX;
            let ack = arrived.acknowledgement();
            prop_assert!(!all || (1..200).all(|it| ack.covers(it) == model.contains(&it)));
            numbers.sort_unstable();
            let last = numbers.last().copied().unwrap_or(0);
            let missing = (1..=last).filter(|it| !model.contains(it)).count();
            prop_assert_eq!(arrived.missing_count(), missing as u64);
        }
    }
}
