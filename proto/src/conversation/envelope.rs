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

/// How long a message in an envelope is, for each of [`RECORD_LENS`], bytes.
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

    /// A record of this message, for this queue. The message is as long as one of
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
