//! How far the calendar may be believed before something is deleted by it (docs/protocol.md §1.6).
//!
//! A machine's clock can be wrong: after a start before its time service answers, by a hand that slips, by a lie. What is
//! deleted by a wrong clock is gone for good. So whoever keeps something deletes it by *confirmed* time, which runs with the
//! monotonic clock and follows the calendar's jumps ahead a day of running later. Time spent switched off can't be told from
//! a jump, and is one. A jump back undoes the jumps ahead that are not confirmed yet, newest first; one that goes farther moves
//! confirmed time back, which deletes nothing, and is not believed for a day either.
//!
//! Look at every start and then about once a minute, and store [`ClockGuard::state`] when it is due.

use serde::{Deserialize, Serialize};

use super::{Duration, Instant, WallTime};
use crate::wire;

/// What the calendar advances more than the monotonic clock, or less, before that is called a jump.
pub const JUMP_MIN: Duration = Duration::from_secs(3600);
/// A jump ahead is confirmed by this much running.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The state is due to be stored this often: what is lost of it only makes deletion later.
const STORE_EVERY: Duration = Duration::from_secs(5 * 60);
/// Differences this small are how the calendar is read: in whole seconds.
const SLACK: Duration = Duration::from_secs(2);
/// Most jumps that wait each for itself; beyond it the two oldest become one, as late as the later.
const JUMPS_MAX: usize = 8;
const STATE_VERSION: u8 = 1;

/// A difference between the calendar and the monotonic clock of over [`JUMP_MIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockJump {
    /// The calendar is ahead by this much: since the last look, or since the state was stored.
    Ahead(Duration),
    /// It is behind by this much.
    Back(Duration),
}

/// Tells time that is confirmed from time that is only said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockGuard {
    looked_at: Instant,
    /// Since the Unix epoch.
    confirmed: Duration,
    /// Jumps ahead, oldest first. With `confirmed` they come to what the calendar said at the last look.
    pending: Vec<Pending>,
    /// By how much small steps ahead may still be followed at once; grows as time is lived, up to [`JUMP_MIN`].
    allowance: Duration,
    stored_at: Option<Instant>,
}

/// A jump ahead that is not confirmed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    amount: Duration,
    /// How much running is missing.
    left: Duration,
}

/// What is stored, in seconds.
#[derive(Serialize, Deserialize)]
struct State {
    version: u8,
    confirmed: u64,
    allowance: u64,
    pending: Vec<(u64, u64)>,
}

impl ClockGuard {
    /// Goes on from what was stored. Without it, or with what can't be read, all of the past is a jump: nothing is known of
    /// how right this clock was.
    pub fn restore(state: Option<&[u8]>, now: Instant, wall: WallTime) -> (Self, Option<ClockJump>) {
        let known = state.and_then(|bytes| wire::decode::<State>(bytes).ok());
        let known = known.filter(|state| state.version == STATE_VERSION);
        let mut guard = Self {
            looked_at: now,
            confirmed: Duration::ZERO,
            pending: Vec::new(),
            allowance: Duration::ZERO,
            stored_at: None,
        };
        let Some(state) = known else {
            guard.jump_ahead(Duration::from_secs(wall.as_secs()));
            return (guard, None);
        };
        guard.confirmed = Duration::from_secs(state.confirmed);
        guard.allowance = Duration::from_secs(state.allowance).min(JUMP_MIN);
        for (amount, left) in state.pending.into_iter().take(JUMPS_MAX) {
            let left = Duration::from_secs(left).min(CONFIRM_AFTER);
            guard.pending.push(Pending { amount: Duration::from_secs(amount), left });
        }
        let jump = guard.look(now, wall);
        (guard, jump)
    }

    /// Compares the clocks. Cheap; what comes too often does no harm.
    pub fn look(&mut self, now: Instant, wall: WallTime) -> Option<ClockJump> {
        self.live(now.since(self.looked_at));
        self.looked_at = now;
        let (said, expected) = (Duration::from_secs(wall.as_secs()), self.expected());
        let (ahead, back) = (said.saturating_sub(expected), expected.saturating_sub(said));
        if ahead > SLACK {
            match self.allowance.checked_sub(ahead) {
                Some(left) => (self.allowance, self.confirmed) = (left, self.confirmed.saturating_add(ahead)),
                None => self.jump_ahead(ahead),
            }
        } else if back > SLACK {
            self.jump_back(back);
        }
        match (ahead > JUMP_MIN, back > JUMP_MIN) {
            (true, _) => Some(ClockJump::Ahead(ahead)),
            (_, true) => Some(ClockJump::Back(back)),
            (false, false) => None,
        }
    }

    /// The calendar as far as it is confirmed: never ahead of it. What expired by then may be deleted.
    pub const fn confirmed(&self) -> WallTime {
        WallTime(self.confirmed.as_secs())
    }

    /// Whether the calendar is confirmed as it is: no jump, either way, that is neither taken back nor a day of running ago.
    pub const fn may_delete(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whoever else could know says the same as this calendar: nothing has to wait any more.
    pub fn confirm(&mut self) {
        if !self.pending.is_empty() {
            self.confirmed = self.expected();
            self.pending.clear();
            self.stored_at = None;
        }
    }

    /// What to store, if that is due: at once after the first look and after [`confirm`](Self::confirm), then every few
    /// minutes.
    pub fn take_state(&mut self) -> Option<Vec<u8>> {
        let is_due = self.stored_at.is_none_or(|at| self.looked_at.since(at) >= STORE_EVERY);
        is_due.then(|| {
            self.stored_at = Some(self.looked_at);
            self.state()
        })
    }

    /// What to store.
    pub fn state(&self) -> Vec<u8> {
        wire::encode(&State {
            version: STATE_VERSION,
            confirmed: self.confirmed.as_secs(),
            allowance: self.allowance.as_secs(),
            // A part of a second less is asked for than is missing; none of a jump is lost.
            pending: self.pending.iter().map(|jump| (jump.amount.as_secs(), jump.left.as_secs())).collect(),
        })
    }

    /// What the calendar should say.
    fn expected(&self) -> Duration {
        self.pending.iter().fold(self.confirmed, |sum, jump| sum.saturating_add(jump.amount))
    }

    fn live(&mut self, elapsed: Duration) {
        self.confirmed = self.confirmed.saturating_add(elapsed);
        self.allowance = self.allowance.saturating_add(elapsed).min(JUMP_MIN);
        for jump in &mut self.pending {
            jump.left = jump.left.saturating_sub(elapsed);
        }
        let confirmed = &mut self.confirmed;
        self.pending.retain(|jump| {
            if jump.left.is_zero() {
                *confirmed = confirmed.saturating_add(jump.amount);
            }
            !jump.left.is_zero()
        });
    }

    /// Jumps that follow each other closely wait together: many small ones need no more room than one.
    fn jump_ahead(&mut self, amount: Duration) {
        let newest = self.pending.last_mut().filter(|jump| jump.left + JUMP_MIN > CONFIRM_AFTER);
        match newest {
            Some(jump) => *jump = Pending { amount: jump.amount.saturating_add(amount), left: CONFIRM_AFTER },
            None => self.pending.push(Pending { amount, left: CONFIRM_AFTER }),
        }
        if self.pending.len() > JUMPS_MAX {
            let oldest = self.pending.remove(0);
            if let Some(next) = self.pending.first_mut() {
                next.amount = next.amount.saturating_add(oldest.amount);
            }
        }
    }

    fn jump_back(&mut self, amount: Duration) {
        let mut rest = amount;
        while let Some(jump) = self.pending.last_mut().filter(|_| !rest.is_zero()) {
            let undone = jump.amount.min(rest);
            jump.amount -= undone;
            rest -= undone;
            if jump.amount.is_zero() {
                self.pending.pop();
            }
        }
        self.confirmed = self.confirmed.saturating_sub(rest);
        if rest > JUMP_MIN {
            self.jump_ahead(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    const START: u64 = 1_790_000_000;

    /// A machine: how long it ran, and what its calendar says.
    struct Machine {
        guard: ClockGuard,
        ran: u64,
        wall: u64,
    }

    impl Machine {
        /// One whose clock has been confirmed.
        fn new() -> Self {
            let (guard, jump) = ClockGuard::restore(None, Instant::default(), WallTime(START));
            assert_eq!(jump, None);
            let mut machine = Self { guard, ran: 0, wall: START };
            assert!(!machine.guard.may_delete());
            assert_eq!(machine.run(25 * HOUR), []);
            assert!(machine.guard.may_delete());
            assert!(machine.lag() <= 2);
            machine
        }

        /// Runs for so many seconds, with a look a minute.
        fn run(&mut self, seconds: u64) -> Vec<ClockJump> {
            let mut jumps = Vec::new();
            for passed in (0..seconds).step_by(60) {
                let step = (seconds - passed).min(60);
                (self.ran, self.wall) = (self.ran + step, self.wall + step);
                jumps.extend(self.look());
            }
            jumps
        }

        fn look(&mut self) -> Option<ClockJump> {
            self.guard.look(Instant::default() + Duration::from_secs(self.ran), WallTime(self.wall))
        }

        fn step(&mut self, seconds: i64) -> Option<ClockJump> {
            self.wall = self.wall.saturating_add_signed(seconds);
            self.look()
        }

        /// Off, and on again when the calendar says so many seconds more.
        fn restart(&mut self, seconds: i64) -> Option<ClockJump> {
            self.wall = self.wall.saturating_add_signed(seconds);
            self.ran = 7;
            let now = Instant::default() + Duration::from_secs(self.ran);
            let (guard, jump) = ClockGuard::restore(Some(&self.guard.state()), now, WallTime(self.wall));
            self.guard = guard;
            jump
        }

        fn lag(&self) -> u64 {
            self.wall.abs_diff(self.guard.confirmed().as_secs())
        }
    }

    fn signed(seconds: u64) -> i64 {
        seconds.cast_signed()
    }

    #[test] // §1.6
    fn a_jump_ahead_is_believed_after_a_day_of_running() {
        for is_restart in [false, true] {
            let mut machine = Machine::new();
            let jump = if is_restart { machine.restart(signed(29 * DAY)) } else { machine.step(signed(29 * DAY)) };
            assert_eq!(jump, Some(ClockJump::Ahead(Duration::from_secs(29 * DAY))));
            assert_eq!(machine.run(23 * HOUR), []);
            assert!(!machine.guard.may_delete() && machine.lag() >= 29 * DAY - 2);
            machine.run(2 * HOUR);
            assert!(machine.guard.may_delete() && machine.lag() <= 2);
        }
    }

    #[test] // §1.6
    fn a_jump_that_is_taken_back_leaves_nothing_behind() {
        let mut machine = Machine::new();
        machine.restart(signed(365 * DAY));
        machine.run(5);
        assert!(matches!(machine.restart(-signed(365 * DAY)), Some(ClockJump::Back(_))));
        assert!(machine.guard.may_delete() && machine.lag() <= 2);
    }

    #[test] // §1.6
    fn a_clock_that_was_behind_is_a_jump_ahead_when_it_is_set_right() {
        let mut machine = Machine::new();
        assert!(matches!(machine.step(-signed(3 * DAY)), Some(ClockJump::Back(_))));
        assert!(!machine.guard.may_delete() && machine.lag() <= 2, "a clock that is behind deletes nothing early");
        assert!(matches!(machine.step(signed(3 * DAY)), Some(ClockJump::Ahead(_))));
        assert!(!machine.guard.may_delete());
    }

    #[test] // §1.6
    fn a_short_restart_is_no_jump_and_small_steps_add_up_to_one() {
        let mut machine = Machine::new();
        for _ in 0..4 {
            assert_eq!(machine.restart(90), None);
            machine.run(HOUR);
            assert!(machine.guard.may_delete());
        }
        machine.step(signed(HOUR - 60));
        assert!(machine.guard.may_delete());
        machine.step(signed(HOUR - 60));
        assert!(!machine.guard.may_delete());
        for _ in 0..1000 {
            machine.step(signed(HOUR - 60));
        }
        assert!(machine.lag() > 900 * HOUR && machine.guard.pending.len() <= JUMPS_MAX);
    }

    #[test] // a relay that is switched off every night
    fn nights_are_confirmed_each_after_a_day_of_running() {
        let mut machine = Machine::new();
        for _ in 0..30 {
            machine.restart(signed(14 * HOUR));
            machine.run(10 * HOUR);
            assert!(machine.lag() <= 3 * 14 * HOUR + 2, "no more than three nights are open");
        }
    }

    #[test] // one that starts every minute, with a clock that runs away
    fn whatever_happens_confirmed_time_is_lived_and_the_list_is_bounded() {
        let mut machine = Machine::new();
        let began = machine.guard.confirmed().as_secs();
        let mut lived = 0;
        for round in 0..200 {
            machine.restart(signed(round * HOUR));
            machine.run(1800);
            lived += 1800;
            assert!(machine.guard.pending.len() <= JUMPS_MAX);
        }
        let followed: u64 = machine.guard.confirmed().as_secs() - began;
        assert!(followed < lived + (0..160).map(|round| round * HOUR).sum::<u64>(), "a day behind, at least");
        machine.run(25 * HOUR);
        assert!(machine.guard.may_delete() && machine.lag() <= 2);
    }

    #[test]
    fn others_who_agree_confirm() {
        let mut machine = Machine::new();
        machine.restart(signed(40 * DAY));
        machine.guard.confirm();
        assert!(machine.guard.may_delete() && machine.lag() <= 2);
    }

    #[test]
    fn what_is_stored_is_due_every_few_minutes_and_nonsense_is_no_past() {
        let mut machine = Machine::new();
        assert!(machine.guard.take_state().is_some());
        assert!(machine.guard.take_state().is_none());
        machine.run(6 * 60);
        assert!(machine.guard.take_state().is_some());
        let (guard, _) = ClockGuard::restore(Some(&[9, 9]), Instant::default(), WallTime(START));
        assert!(!guard.may_delete() && guard.confirmed() < WallTime(1));
        let (guard, jump) = ClockGuard::restore(Some(&machine.guard.state()), Instant::default(), WallTime(u64::MAX));
        assert!(!guard.may_delete() && matches!(jump, Some(ClockJump::Ahead(_))));
    }
}
