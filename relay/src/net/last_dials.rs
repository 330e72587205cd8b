//! What came of the last dial to each relay, for an operator who asks about one.
//!
//! A relay also dials for the circuits of others, so times are kept to the hour: they must not tell
//! when somebody asked for a circuit. Bounded; the relay whose dial is longest ago goes first.

use std::collections::BTreeMap;

use umbel_proto::ids::RelayId;
use umbel_proto::time::WallTime;

use crate::shell::DialFault;

/// Relays of which the last dial is remembered.
const RELAYS_MAX: usize = 1024;

/// The last dial to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastDial {
    /// When it ended, cut to the hour.
    pub(crate) at: WallTime,
    /// Whether it brought a link.
    pub(crate) outcome: Result<(), DialFault>,
}

/// The last dial to each of the relays that were dialled of late.
#[derive(Debug, Default)]
pub(super) struct LastDials {
    by_relay: BTreeMap<RelayId, LastDial>,
}

impl LastDials {
    /// A dial to this relay has ended.
    pub(super) fn note(&mut self, relay: RelayId, at: WallTime, outcome: Result<(), DialFault>) {
        let at = at.to_hour();
        self.by_relay.insert(relay, LastDial { at, outcome });
        if self.by_relay.len() > RELAYS_MAX
            && let Some((&oldest, _)) = self.by_relay.iter().min_by_key(|(_, dial)| dial.at)
        {
            self.by_relay.remove(&oldest);
        }
    }

    /// The last dial to this relay.
    pub(super) fn of(&self, relay: &RelayId) -> Option<LastDial> {
        self.by_relay.get(relay).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_ago_is_forgotten_first_and_times_are_of_an_hour() {
        let relay = |number: usize| {
            let mut id = [0; RelayId::LEN];
            id[..8].copy_from_slice(&number.to_be_bytes());
            RelayId(id)
        };
        let mut dials = LastDials::default();
        for number in (0..=RELAYS_MAX).rev() {
            let at = WallTime(number as u64 * 3600 + 1799);
            dials.note(relay(number), at, Err(DialFault::Nobody));
        }
        assert_eq!(dials.of(&relay(0)), None);
        let at = WallTime(3600);
        let outcome = Err(DialFault::Nobody);
        assert_eq!(dials.of(&relay(1)), Some(LastDial { at, outcome }));
        assert_eq!(dials.by_relay.len(), RELAYS_MAX);
    }
}
