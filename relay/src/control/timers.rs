//! The control plane's timers: when, and what for.

use umbel_proto::directory::gossip::ExchangeId;
use umbel_proto::time::Due;

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
pub(super) type Timers = Due<Timer>;

#[cfg(test)]
mod tests {
    use umbel_proto::time::Instant;

    use super::*;

    #[test]
    fn timers_expire_in_order_each_once_and_say_what_for() {
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        let extend = Timer::Extend(CircuitKey(1));
        timers.set(Timer::Sweep, at(9));
        timers.set(extend, at(5));
        let first = timers.first().map(|(at, &timer)| (at, Wake::from(timer)));
        assert_eq!(first, Some((at(5), Wake::Extend)));
        assert_eq!(timers.pop_expired(at(5)), Some(extend));
        assert_eq!(timers.pop_expired(at(5)), None);
        assert_eq!(timers.first(), Some((at(9), &Timer::Sweep)));
    }
}
