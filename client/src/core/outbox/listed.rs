//! A message in the outbox as seen from outside: by its user, and by a program that reads the
//! profile without a client.

use umbel_proto::ids::MessageId;
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant, Moment, WallTime};
use zeroize::Zeroizing;

use super::super::delivery::Delivery;
use super::super::io::{OutboxEntry, OutboxMessage, Recipient};
use super::{Entry, Outbox, Stage, has_room};

/// So much of the beginning of a stored state says how long its body is.
pub const OUTBOX_HEAD_LEN: usize = 128;

impl Outbox {
    /// Each message, in the order they were sent.
    pub(in super::super) fn list(&self, params: &Params, moment: Moment) -> Vec<OutboxEntry> {
        let mut entries: Vec<(&MessageId, &Entry)> = self.entries.iter().collect();
        entries.retain(|(_, entry)| !entry.delivery.is_quiet());
        entries.sort_unstable_by_key(|(_, entry)| entry.seq);
        let to_listed = |(&id, entry): (&MessageId, &Entry)| {
            let next_try_at = entry
                .next_try()
                .map(|at| moment.wall + at.since(moment.now));
            OutboxEntry {
                next_try_at,
                ..listed(id, &entry.delivery, params)
            }
        };
        entries.into_iter().map(to_listed).collect()
    }
}

impl Entry {
    /// Before when nothing is done about it; `None` if something is.
    fn next_try(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting(until) | Stage::Blocked(until) => Some(until),
            Stage::Finding => None,
            Stage::Depositing => self
                .delivery
                .next_due()
                .filter(|_| !self.delivery.is_awaited()),
        }
    }
}

/// Reads a message from what is stored of it in the outbox; `None` if it can't be read, or the program
/// and not its user says it. `wall` is the time now.
pub fn read_outbox_message(
    id: MessageId,
    state: &[u8],
    params: &Params,
    wall: WallTime,
) -> Option<OutboxMessage> {
    let delivery = Delivery::restore(state, wall).filter(|it| !it.is_quiet())?;
    let spacing = delivery.spacing(wall, params);
    let next_try_at = (!spacing.is_zero()).then(|| wall + spacing);
    let entry = OutboxEntry {
        next_try_at,
        ..listed(id, &delivery, params)
    };
    Some(OutboxMessage {
        entry,
        body: Zeroizing::new(delivery.body().to_vec()),
    })
}

/// The stored form of a message that no holder was asked to take yet: a client that opens the
/// profile continues with it. The body is not longer than
/// [`umbel_proto::inbox::record::MESSAGE_LEN_MAX`]; `life` is that of a record if it is `None`.
pub fn new_outbox_state(
    to: Recipient,
    body: Vec<u8>,
    life: Option<Duration>,
    params: &Params,
    wall: WallTime,
) -> Zeroizing<Vec<u8>> {
    Delivery::new(to.into(), body, wall, life.unwrap_or(params.record_life)).state()
}

/// Whether one more message, which would be stored as `state`, has a place in an outbox whose
/// states begin with these heads of [`OUTBOX_HEAD_LEN`] bytes, or of all if they are shorter.
pub fn outbox_has_room(heads: &[Vec<u8>], state: &[u8]) -> bool {
    // An unreadable row is no message.
    let len = |state: &[u8]| Delivery::stored_body_len(state).unwrap_or_default();
    let bytes = heads
        .iter()
        .fold(0, |sum: usize, head| sum.saturating_add(len(head)));
    has_room(heads.len(), bytes, len(state))
}

fn listed(id: MessageId, delivery: &Delivery, params: &Params) -> OutboxEntry {
    let (created_at, expires_at) = delivery.life();
    OutboxEntry {
        id,
        to: delivery.to().into(),
        len: delivery.body_len(),
        created_at,
        expires_at,
        holders: delivery.held_count(),
        wanted: delivery.wanted(params),
        obstacle: delivery.obstacle(),
        next_try_at: None,
        is_unacknowledged: delivery.is_kept(),
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::inbox::address::InboxIdentity;
    use umbel_proto::network::Network;
    use umbel_proto::wire;

    use super::super::super::delivery::Destination;
    use super::super::{BYTES_MAX, MESSAGES_MAX};
    use super::*;

    fn state(len: usize) -> Zeroizing<Vec<u8>> {
        let address = *InboxIdentity::from_seed(&[3; 32]).address();
        new_outbox_state(
            Recipient::OneWay(address),
            vec![7; len],
            None,
            &Network::local().params,
            WallTime(1_790_000_000),
        )
    }

    /// The beginning of what is stored of a message with a body of this length, whatever it is
    /// sealed for.
    fn head(len: usize) -> Vec<u8> {
        let address = *InboxIdentity::from_seed(&[3; 32]).address();
        wire::encode(&(5u8, Destination::OneWay(address), len))
    }

    #[test]
    fn the_beginning_of_a_state_says_how_long_its_body_is() {
        for len in [0, 1, 127, 128, 100_000] {
            let state = state(len);
            let head = &state[..state.len().min(OUTBOX_HEAD_LEN)];
            assert_eq!(Delivery::stored_body_len(head), Some(len));
        }
        assert_eq!(Delivery::stored_body_len(b"nothing"), None);
    }

    #[test] // One rule for a message of this process and for one of a guest.
    fn an_outbox_is_full_by_the_number_and_the_length_of_its_bodies() {
        let new = state(5);
        assert!(outbox_has_room(&[], &new));
        assert!(outbox_has_room(&[head(BYTES_MAX - 5)], &new));
        assert!(!outbox_has_room(&[head(BYTES_MAX - 4)], &new));
        assert!(outbox_has_room(&vec![head(1); MESSAGES_MAX - 1], &new));
        assert!(!outbox_has_room(&vec![head(1); MESSAGES_MAX], &new));
    }
}
