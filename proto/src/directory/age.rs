//! Since when a relay is known (docs/protocol.md §8.2(3)).

use crate::limits::SETUP_LEN;
use crate::time::{Duration, WallTime};

/// Since when a relay is known: facts that outlive its descriptors, and this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// When it was first seen.
    pub first_seen: WallTime,
    /// When the view that it came into was begun. For one that is in doubt a number below 3 stands in its
    /// place: two sources have not listed it yet, or most lack it. If it came in the setup it is as old as
    /// it was seen. A client draws none such (§8.2(11)).
    pub setup_at: WallTime,
    /// Since when its first address has been the one that it is now (§9.4(1)).
    pub there_since: WallTime,
}

/// In place of the time of a setup: the relay was never taken at its word.
const NOT_YET: WallTime = WallTime(0);
/// In place of the time of a setup: the relay was taken at its word, and most sources lack it now.
const NO_MORE: WallTime = WallTime(1);
/// In place of the time of a setup: it is still to come.
const ANEW: WallTime = WallTime(2);

impl Age {
    /// Whether it has been known for this long, or since the view was set up.
    pub(super) fn is_at_least(self, age: Duration, wall: WallTime) -> bool {
        self.is_of_setup() || self.first_seen + age <= wall
    }

    /// The age of a relay that has come into doubt.
    pub(super) fn in_doubt(self) -> Self {
        let setup_at = match self.setup_at {
            NOT_YET | ANEW => self.setup_at,
            _ => NO_MORE,
        };
        Self { setup_at, ..self }
    }

    /// The age of a relay that was known before a setup that is still to come.
    pub(super) fn anew(self) -> Self {
        let setup_at = ANEW;
        Self { setup_at, ..self }
    }

    /// When the setup began of which it is; none, for one that is in doubt.
    pub(super) fn setup(self) -> Option<WallTime> {
        (!self.is_in_doubt()).then_some(self.setup_at)
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
        if self.there_since <= self.setup_at + SETUP_LEN {
            self.there_since.min(self.setup_at)
        } else {
            self.there_since
        }
    }

    /// Whether several sources must list it, or it must be met, before it is taken at its word.
    pub(super) fn is_in_doubt(self) -> bool {
        self.setup_at <= ANEW
    }

    /// Whether it is in doubt, and never was in none.
    pub(super) fn was_never_believed(self) -> bool {
        self.setup_at == NOT_YET
    }

    /// Whether it was in no doubt before most sources lacked it.
    pub(super) fn is_doubted_again(self) -> bool {
        self.setup_at == NO_MORE
    }

    fn is_of_setup(self) -> bool {
        self.first_seen <= self.setup_at + SETUP_LEN
    }
}
