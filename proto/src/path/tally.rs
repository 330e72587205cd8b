//! How often a guard or an L2 did its part, how often it failed, and when that is too much
//! (docs/protocol.md §6.4(11), §6.4(16)).

use serde::{Deserialize, Serialize};

use crate::limits::{GUARD_COUNTS_MAX, SET_ASIDE_MAX, SET_ASIDE_WINDOW};
use crate::network::Params;
use crate::time::WallTime;

/// One relay's counts, as they are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    done: u32,
    failed: u32,
}

impl Tally {
    pub(super) fn add_done(&mut self) {
        self.done += 1;
        self.fade();
    }

    pub(super) fn add_failed(&mut self) {
        self.failed += 1;
        self.fade();
    }

    /// Takes back this many failures.
    pub(super) fn pardon(&mut self, count: u32) {
        self.failed = self.failed.saturating_sub(count);
    }

    /// Whether too much of what is on record failed, and enough is.
    pub(super) fn is_bad(self, params: &Params) -> bool {
        let all = self.done + self.failed;
        let percent = u64::from(params.guard_failures_percent);
        all >= params.guard_circuits_min && u64::from(self.failed) * 100 > u64::from(all) * percent
    }

    #[cfg(test)]
    pub(super) const fn failed(self) -> u32 {
        self.failed
    }

    /// What was long ago says little.
    fn fade(&mut self) {
        if self.done + self.failed >= GUARD_COUNTS_MAX {
            (self.done, self.failed) = (self.done / 2, self.failed / 2);
        }
    }
}

/// Whether one more of these may be set aside, going by when each was, if it was (§6.4(11)).
pub(super) fn may_set_aside(
    set_aside_at: impl Iterator<Item = Option<WallTime>>,
    confirmed: WallTime,
) -> bool {
    let recent = set_aside_at.flatten();
    let recent = recent.filter(|&at| at + SET_ASIDE_WINDOW > confirmed);
    recent.count() < SET_ASIDE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;

    #[test] // §6.4(11)
    fn too_much_is_a_share_of_enough_and_old_counts_fade() {
        let params = Network::local().params;
        let mut tally = Tally::default();
        (1..params.guard_circuits_min).for_each(|_| tally.add_failed());
        assert!(!tally.is_bad(&params), "too few say nothing");
        tally.add_failed();
        assert!(tally.is_bad(&params));
        tally.pardon(u32::MAX);
        assert!(!tally.is_bad(&params));
        tally.failed = 100;
        (0..299).for_each(|_| tally.add_done());
        assert_eq!((tally.done, tally.failed), (299, 100));
        let mut failed = tally;
        tally.add_done();
        assert_eq!((tally.done, tally.failed), (150, 50));
        failed.add_failed();
        assert_eq!((failed.done, failed.failed), (149, 50));
    }

    #[test] // §6.4(11)
    fn two_are_set_aside_in_seven_days() {
        let at = WallTime(1_790_000_000);
        let may = |ages: &[Option<WallTime>], now| may_set_aside(ages.iter().copied(), now);
        assert!(may(&[Some(at), None, None], at));
        assert!(!may(&[Some(at), None, Some(at)], at));
        assert!(may(&[Some(at), Some(at)], at + SET_ASIDE_WINDOW));
    }
}
