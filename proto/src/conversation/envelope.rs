//! The form that a message of a conversation has at a holder: sealed once more for each queue, so
//! that copies at two holders share no byte (docs/protocol.md §11.5).

use rand::CryptoRng;

use super::keys::Key;
use super::session::Rooms;
use crate::ids::{NetworkId, QueueId, RelayId};
use crate::inbox::record::{RecordFault, is_record_len};
use crate::limits::{RECORD_LENS, TAG_LEN};

const SALT_LEN: usize = 16;
const INFO: &[u8] = b"umbel envelope 1";

/// How long a message in an envelope is, for each of [`RECORD_LENS`], bytes (§11.5(2)).
pub const ENVELOPE_ROOMS: Rooms = {
    let mut rooms = RECORD_LENS;
    let mut class = 0;
    while class < rooms.len() {
        rooms[class] -= SALT_LEN + TAG_LEN;
        class += 1;
    }
    rooms
};

/// The queue that an envelope is for.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "holds a key's seed")]
pub struct EnvelopeQueue<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The queue's holder.
    pub holder: &'a RelayId,
    /// The queue.
    pub queue: &'a QueueId,
    /// The seed of its sender key, which its holder does not know.
    pub sender_seed: &'a [u8; 32],
}

impl EnvelopeQueue<'_> {
    fn key(&self, salt: &[u8]) -> Key {
        let Self {
            network,
            holder,
            queue,
            sender_seed,
        } = self;
        let context = [network.as_bytes(), holder.as_bytes(), queue.as_bytes()];
        Key::derived(
            salt,
            &[*sender_seed],
            &[INFO, context[0], context[1], context[2]],
        )
    }

    /// A record of this message, for this queue (§11.5(1)). The message is as long as one of
    /// [`ENVELOPE_ROOMS`].
    pub fn seal(&self, message: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
        let mut record = vec![0; SALT_LEN];
        rng.fill_bytes(&mut record);
        let sealed = self.key(&record).seal(&[], message);
        record.extend(sealed);
        assert!(is_record_len(record.len()), "the ratchet filled its room");
        record
    }

    /// The message in a record of this queue.
    ///
    /// # Errors
    /// It is no record, or not of this queue.
    pub fn open(&self, record: &[u8]) -> Result<Vec<u8>, RecordFault> {
        if !is_record_len(record.len()) {
            return Err(RecordFault::Length);
        }
        let (salt, sealed) = record.split_at(SALT_LEN);
        self.key(salt)
            .open(&[], sealed)
            .map_err(|_| RecordFault::Seal)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;
    use crate::conversation::session::MESSAGE_OVERHEAD_LEN;
    use crate::crypto::kem::{CIPHERTEXT_LEN, ENCAPSULATION_KEY_LEN};

    #[test] // §11.5(2)
    fn an_envelope_leaves_this_much_for_contents() {
        let contents = ENVELOPE_ROOMS.map(|room| room - MESSAGE_OVERHEAD_LEN);
        assert_eq!(contents, [1652, 7559, 31_187, 125_699]);
        let beside = |share_len| contents[0] - share_len - TAG_LEN;
        assert_eq!(beside(ENCAPSULATION_KEY_LEN), 452);
        assert_eq!(beside(CIPHERTEXT_LEN), 548);
    }

    #[test] // §11.5(1)
    fn an_envelope_is_opened_by_its_queue_only_and_copies_share_nothing() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (network, holder, id) = (NetworkId([1; 32]), RelayId([2; 32]), QueueId([3; 32]));
        let queue = EnvelopeQueue {
            network: &network,
            holder: &holder,
            queue: &id,
            sender_seed: &[4; 32],
        };
        let (other_network, other_holder) = (NetworkId([9; 32]), RelayId([9; 32]));
        let others = [
            EnvelopeQueue {
                network: &other_network,
                ..queue
            },
            EnvelopeQueue {
                holder: &other_holder,
                ..queue
            },
            EnvelopeQueue {
                queue: &QueueId([9; 32]),
                ..queue
            },
            EnvelopeQueue {
                sender_seed: &[9; 32],
                ..queue
            },
        ];
        let message = vec![7; ENVELOPE_ROOMS[0]];
        let record = queue.seal(&message, &mut rng);
        assert_eq!(queue.open(&record).as_ref(), Ok(&message));
        for other in &others {
            assert_eq!(other.open(&record), Err(RecordFault::Seal));
        }
        let copy = queue.seal(&message, &mut rng);
        let same = record.iter().zip(&copy).filter(|(a, b)| a == b).count();
        assert!(same < record.len() / 64, "no more than chance: {same}");
        assert_eq!(queue.open(&record[1..]), Err(RecordFault::Length));
    }
}
