//! How far the calendar may be believed before something is deleted by it (docs/protocol.md §1.6).
//!
//! A machine's clock can be wrong: before its time service answers, by a slip of the hand, by a
//! lie. Whatever a wrong clock deletes is gone for good. So a node deletes by *confirmed* time,
//! which runs with the monotonic clock and follows the calendar's jumps ahead after a day of
//! running. Time spent switched off can't be told from a jump, and counts as one. A jump back first
//! undoes the jumps ahead that are not confirmed yet, newest first. A jump back beyond them moves
//! confirmed time back, which deletes nothing, and is not believed for a day either.
//!
//! Call [`ClockGuard::look`] at every start and then about once a minute, and store
//! [`ClockGuard::state`] when it is due.

use serde::{Deserialize, Serialize};

use super::{Duration, Instant, WallTime};
use crate::limits::{
    CLOCK_CONFIRM_AFTER, CLOCK_JUMP_MIN, CLOCK_STARTS_APART, CLOCK_STARTS_CONFIRM,
};
use crate::wire;

/// The state is stored this often. Losing the rest only makes deletion later.
const STORE_EVERY: Duration = Duration::from_secs(5 * 60);
/// Differences this small are how the calendar is read: in whole seconds.
const SLACK: Duration = Duration::from_secs(2);
/// Most jumps that wait each for itself; beyond it the two oldest become one, as late as the later.
const JUMPS_MAX: usize = 8;
const STATE_VERSION: u8 = 2;

/// A difference between the calendar and the monotonic clock of over [`CLOCK_JUMP_MIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockJump {
    /// The calendar is ahead by this much: since the last look, or since the state was stored.
    Ahead(Duration),
    /// It is behind by this much.
    Back(Duration),
}

/// Separates confirmed time from time that a clock merely shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockGuard {
    looked_at: Instant,
    /// A calendar was confirmed before, so that there is something to compare the present one with.
    has_past: bool,
    /// Since the Unix epoch.
    confirmed: Duration,
    /// Jumps ahead, oldest first. With `confirmed` they come to what the calendar said at the last
    /// look.
    pending: Vec<Pending>,
    /// By how much small steps ahead may still be followed at once; grows as time is lived, up to
    /// [`CLOCK_JUMP_MIN`].
    allowance: Duration,
    stored_at: Option<Instant>,
}

/// A jump ahead that is not confirmed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    amount: Duration,
    /// How much running is missing.
    left: Duration,
    /// The calendar after it; since then it has not gone back by more than [`CLOCK_JUMP_MIN`].
    since: WallTime,
    /// How many starts count since then, and when the last of them was.
    starts: u8,
    started_at: WallTime,
}

impl Pending {
    const fn new(amount: Duration, since: WallTime) -> Self {
        Self {
            amount,
            left: CLOCK_CONFIRM_AFTER,
            since,
            starts: 0,
            started_at: since,
        }
    }
}

/// The stored state.
#[derive(Serialize, Deserialize)]
struct State {
    version: u8,
    has_past: bool,
    confirmed: Duration,
    allowance: Duration,
    pending: Vec<Pending>,
}

/// The stored state before starts counted, in seconds.
#[derive(Serialize, Deserialize)]
struct StateV1 {
    version: u8,
    confirmed: u64,
    allowance: u64,
    pending: Vec<(u64, u64)>,
}

impl State {
    fn decode(bytes: &[u8], wall: WallTime) -> Option<Self> {
        let state = wire::decode::<Self>(bytes)
            .ok()
            .filter(|state| state.version == STATE_VERSION);
        state.or_else(|| {
            let old = wire::decode::<StateV1>(bytes)
                .ok()
                .filter(|old| old.version == 1)?;
            Some(Self::from_v1(old, wall))
        })
    }

    fn from_v1(old: StateV1, wall: WallTime) -> Self {
        let waiting = |(amount, left)| {
            let jump = Pending::new(Duration::from_secs(amount), wall);
            Pending {
                left: Duration::from_secs(left),
                ..jump
            }
        };
        Self {
            version: STATE_VERSION,
            // Without a past all of it waited, as one jump from 1970 on.
            has_past: old
                .pending
                .first()
                .is_none_or(|&(amount, _)| amount <= old.confirmed),
            confirmed: Duration::from_secs(old.confirmed),
            allowance: Duration::from_secs(old.allowance),
            pending: old.pending.into_iter().map(waiting).collect(),
        }
    }
}

impl ClockGuard {
    /// Continues from the stored state. Without it, or if it can't be read, all of the past is a
    /// jump: nobody knows how right this clock was.
    pub fn restore(
        state: Option<&[u8]>,
        now: Instant,
        wall: WallTime,
    ) -> (Self, Option<ClockJump>) {
        let known = state.and_then(|bytes| State::decode(bytes, wall));
        let mut guard = Self {
            looked_at: now,
            has_past: false,
            confirmed: Duration::ZERO,
            pending: Vec::new(),
            allowance: Duration::ZERO,
            stored_at: None,
        };
        let Some(state) = known else {
            guard.jump_ahead(Duration::from_secs(wall.as_secs()), wall);
            return (guard, None);
        };
        guard.has_past = state.has_past;
        guard.confirmed = state.confirmed;
        guard.allowance = state.allowance.min(CLOCK_JUMP_MIN);
        guard.pending = state.pending;
        guard.pending.truncate(JUMPS_MAX);
        guard
            .pending
            .iter_mut()
            .for_each(|jump| jump.left = jump.left.min(CLOCK_CONFIRM_AFTER));
        let jump = guard.look(now, wall);
        (guard, jump)
    }

    /// Compares the clocks. Cheap; extra calls do no harm.
    pub fn look(&mut self, now: Instant, wall: WallTime) -> Option<ClockJump> {
        self.live(now.since(self.looked_at));
        self.looked_at = now;
        let (said, expected) = (Duration::from_secs(wall.as_secs()), self.expected());
        let (ahead, back) = (said.saturating_sub(expected), expected.saturating_sub(said));
        if ahead > SLACK {
            match self.allowance.checked_sub(ahead) {
                Some(left) => {
                    (self.allowance, self.confirmed) = (left, self.confirmed.saturating_add(ahead));
                }
                None => self.jump_ahead(ahead, wall),
            }
        } else if back > SLACK {
            self.jump_back(back, wall);
        }
        match (ahead > CLOCK_JUMP_MIN, back > CLOCK_JUMP_MIN) {
            (true, _) => Some(ClockJump::Ahead(ahead)),
            (_, true) => Some(ClockJump::Back(back)),
            (false, false) => None,
        }
    }

    /// Confirmed time: never ahead of the calendar. Whatever expired by then may be deleted.
    pub const fn confirmed(&self) -> WallTime {
        WallTime(self.confirmed.as_secs())
    }

    /// Whether the calendar is confirmed as it is: no jump, either way, that is neither taken back
    /// nor a day of running ago.
    pub const fn may_delete(&self) -> bool {
        self.pending.is_empty()
    }

    /// All other sources agree with this calendar: nothing has to wait any more.
    pub fn confirm(&mut self) {
        if !self.pending.is_empty() {
            self.confirmed = self.expected();
            self.pending.clear();
            (self.has_past, self.stored_at) = (true, None);
        }
    }

    /// Counts this start, for a client that runs only for moments, and never for a day. The third
    /// start that counts confirms a jump that is a day old by the calendar. Call it once, after
    /// [`restore`](Self::restore). Returns whether to store the state, so that the next start knows
    /// of this one.
    pub fn count_start(&mut self, wall: WallTime) -> bool {
        let mut is_news = false;
        for jump in &mut self.pending {
            let counts = wall.since(jump.started_at) >= CLOCK_STARTS_APART;
            if counts {
                (jump.starts, jump.started_at) = (jump.starts.saturating_add(1), wall);
            }
            if jump.starts >= CLOCK_STARTS_CONFIRM && wall.since(jump.since) >= CLOCK_CONFIRM_AFTER
            {
                jump.left = Duration::ZERO;
            }
            is_news |= counts || jump.since == wall;
        }
        self.live(Duration::ZERO);
        is_news
    }

    /// How far the calendar has jumped ahead that is not confirmed; `None` where no calendar ever
    /// was.
    pub fn unconfirmed(&self) -> Option<Duration> {
        self.has_past
            .then(|| self.expected().saturating_sub(self.confirmed))
    }

    /// The state to store, if that is due: at once after the first look and after
    /// [`confirm`](Self::confirm), then every few minutes.
    pub fn take_state(&mut self) -> Option<Vec<u8>> {
        let is_due = self
            .stored_at
            .is_none_or(|at| self.looked_at.since(at) >= STORE_EVERY);
        is_due.then(|| {
            self.stored_at = Some(self.looked_at);
            self.state()
        })
    }

    /// The state to store.
    pub fn state(&self) -> Vec<u8> {
        wire::encode(&State {
            version: STATE_VERSION,
            has_past: self.has_past,
            confirmed: self.confirmed,
            allowance: self.allowance,
            pending: self.pending.clone(),
        })
    }

    /// The right calendar time.
    fn expected(&self) -> Duration {
        self.pending
            .iter()
            .fold(self.confirmed, |sum, jump| sum.saturating_add(jump.amount))
    }

    fn live(&mut self, elapsed: Duration) {
        self.confirmed = self.confirmed.saturating_add(elapsed);
        self.allowance = self.allowance.saturating_add(elapsed).min(CLOCK_JUMP_MIN);
        for jump in &mut self.pending {
            jump.left = jump.left.saturating_sub(elapsed);
        }
        for jump in self.pending.extract_if(.., |jump| jump.left.is_zero()) {
            self.confirmed = self.confirmed.saturating_add(jump.amount);
            self.has_past = true;
        }
    }

    /// Jumps that follow each other closely wait together, unless they are long: many small ones
    /// need no more room than one.
    fn jump_ahead(&mut self, amount: Duration, wall: WallTime) {
        let newest = self
            .pending
            .last_mut()
            .filter(|jump| jump.left + CLOCK_JUMP_MIN > CLOCK_CONFIRM_AFTER);
        match newest.filter(|_| amount <= CLOCK_STARTS_APART) {
            Some(jump) => {
                (jump.amount, jump.left) =
                    (jump.amount.saturating_add(amount), CLOCK_CONFIRM_AFTER);
            }
            None => self.pending.push(Pending::new(amount, wall)),
        }
        if self.pending.len() > JUMPS_MAX {
            let oldest = self.pending.remove(0);
            if let Some(next) = self.pending.first_mut() {
                next.amount = next.amount.saturating_add(oldest.amount);
            }
        }
    }

    fn jump_back(&mut self, amount: Duration, wall: WallTime) {
        let mut rest = amount;
        while let Some(jump) = self.pending.last_mut().filter(|_| !rest.is_zero()) {
            let undone = jump.amount.min(rest);
            jump.amount -= undone;
            rest -= undone;
            // A remainder below a second comes from how the calendar is read.
            if jump.amount <= SLACK {
                self.pending.pop();
            }
        }
        if amount > CLOCK_JUMP_MIN {
            for jump in &mut self.pending {
                (jump.since, jump.starts, jump.started_at) = (wall, 0, wall);
            }
        }
        self.confirmed = self.confirmed.saturating_sub(rest);
        if rest > CLOCK_JUMP_MIN {
            self.jump_ahead(Duration::ZERO, wall);
        }
    }
}

#[cfg(test)]
#[path = "clock_guard_tests.rs"]
mod tests;
