//! Since when a relay is known (docs/protocol.md §8.2(3)).

use crate::limits::SETUP_LEN;
use crate::time::{Duration, WallTime};

/// Since when a relay is known: facts that outlive its descriptors, and this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// When it was first seen.
    pub first_seen: WallTime,
    /// Whether it is taken at its word. A client draws no other (§8.2(11)), and to a relay no other
    /// vouches (§8.2(12)).
    pub belief: Belief,
    /// Since when its first address has been the one that it is now (§9.4(1)).
    pub there_since: WallTime,
}

/// Whether a relay is taken at its word: several sources list it, or it was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// It is. The setup of its view began then: if it came in the hour after that, it is of that setup.
    Given(WallTime),
    /// It never was: two sources have not listed it yet, or it was not met.
    NotYet,
    /// It was, until most sources lacked it, or until it moved: it is to be met again.
    NoMore,
    /// It was, before a setup that is still to come.
    Anew,
}

impl Belief {
    /// As a number, for a store: of a time its seconds, which are more than those of the others.
    pub const fn to_number(self) -> u64 {
        match self {
            Self::NotYet => 0,
            Self::NoMore => 1,
            Self::Anew => 2,
            Self::Given(setup_at) => setup_at.as_secs(),
        }
    }

    /// What [`Self::to_number`] gave.
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::NotYet,
            1 => Self::NoMore,
            2 => Self::Anew,
            setup_at => Self::Given(WallTime(setup_at)),
        }
    }
}

impl Age {
    /// Whether it has been known for this long, or since the view was set up.
    pub(super) fn is_at_least(self, age: Duration, wall: WallTime) -> bool {
        self.is_of_setup() || self.first_seen + age <= wall
    }

    /// The age of a relay that has come into doubt.
    pub(super) fn in_doubt(self) -> Self {
        let belief = match self.belief {
            Belief::Given(_) => Belief::NoMore,
            doubt => doubt,
        };
        Self { belief, ..self }
    }

    /// The age of a relay that was known before a setup that is still to come.
    pub(super) fn anew(self) -> Self {
        let belief = match self.belief {
            Belief::NotYet => Belief::NotYet,
            Belief::Given(_) | Belief::NoMore | Belief::Anew => Belief::Anew,
        };
        Self { belief, ..self }
    }

    /// When the setup of its view began; none, for one that is in doubt.
    pub(super) fn setup(self) -> Option<WallTime> {
        match self.belief {
            Belief::Given(setup_at) => Some(setup_at),
            Belief::NotYet | Belief::NoMore | Belief::Anew => None,
        }
    }

    /// Whether it has been at its first address for this long, or since the view was set up.
    pub(super) fn is_there_for(self, age: Duration, wall: WallTime) -> bool {
        (self.is_of_setup() && self.setup_there().is_some())
            || self.known_there_since() + age <= wall
    }

    /// From when on it counts as known for this long.
    pub fn reached_at(self, age: Duration) -> WallTime {
        if self.is_of_setup() {
            self.first_seen
        } else {
            self.first_seen + age
        }
    }

    /// The age of a relay that is seen at this time, with another first address if it `has_moved`.
    pub(super) fn seen_again(self, at: WallTime, has_moved: bool) -> Self {
        Self {
            // It was seen no later than now, whatever a wrong clock said.
            first_seen: self.first_seen.min(at),
            there_since: if has_moved {
                at
            } else {
                self.there_since.min(at)
            },
            ..self
        }
    }

    /// Since when it has been at its first address, as this node knows it. All of the setup are as old:
    /// when in it each came says only who answered first.
    pub fn known_there_since(self) -> WallTime {
        let setup = self.setup_there();
        setup.map_or(self.there_since, |setup_at| self.there_since.min(setup_at))
    }

    /// When the setup began, if it has been at its first address since then.
    fn setup_there(self) -> Option<WallTime> {
        self.setup()
            .filter(|&setup_at| self.there_since <= setup_at + SETUP_LEN)
    }

    /// Whether several sources must list it, or it must be met, before it is taken at its word.
    pub(super) fn is_in_doubt(self) -> bool {
        self.setup().is_none()
    }

    /// Whether it is in doubt, and never was in none.
    pub(super) fn was_never_believed(self) -> bool {
        self.belief == Belief::NotYet
    }

    /// Whether it is in doubt, and was in none before.
    pub(super) fn is_doubted_again(self) -> bool {
        self.belief == Belief::NoMore
    }

    fn is_of_setup(self) -> bool {
        self.setup()
            .is_some_and(|setup_at| self.first_seen <= setup_at + SETUP_LEN)
    }
}
