//! The control plane's timers: when, and what for.

use std::collections::BTreeSet;

use umbel_proto::directory::gossip::ExchangeId;
use umbel_proto::time::Instant;

use super::circuits::CircuitKey;
use super::io::Wake;

/// Why a timer was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A circuit's next hop should have answered.
    Extend(CircuitKey),
    /// An exchange with another relay should be over.
    Exchange(ExchangeId),
    /// A receipt that was asked for should have come.
    Receipt(u64),
    /// Look after what expires.
    Sweep,
}

impl From<Timer> for Wake {
    fn from(timer: Timer) -> Self {
        match timer {
            Timer::Extend(_) => Self::Extend,
            Timer::Exchange(_) => Self::Exchange,
            Timer::Receipt(_) => Self::Receipt,
            Timer::Sweep => Self::Sweep,
        }
    }
}

/// Timers in the order they expire. A timer that became pointless stays: its machine looks first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.queue.insert((at, timer));
    }

    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        let (at, _) = self.queue.first()?;
        if *at > now {
            return None;
        }
        self.queue.pop_first().map(|(_, timer)| timer)
    }

    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        self.queue.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_expire_in_order_each_once_and_say_what_for() {
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        let extend = Timer::Extend(CircuitKey(1));
        timers.set(at(9), Timer::Sweep);
        timers.set(at(5), extend);
        timers.set(at(5), extend);
        let next = timers.next().map(|(at, timer)| (at, Wake::from(timer)));
        assert_eq!(next, Some((at(5), Wake::Extend)));
        assert_eq!(timers.pop_expired(at(4)), None);
        assert_eq!(timers.pop_expired(at(5)), Some(extend));
        assert_eq!(timers.pop_expired(at(5)), None);
        assert_eq!(timers.next(), Some((at(9), Timer::Sweep)));
    }
}
