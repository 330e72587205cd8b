//! How a side asks for a new session when it can't open what the other sends (docs/protocol.md
//! §11.6).

use rand::CryptoRng;

use super::envelope::ENVELOPE_ROOMS;
use super::keys::Key;
use super::opening::RecoveryKey;
use crate::limits::TAG_LEN;

pub(super) const NONCE_LEN: usize = 16;
const INFO: &[u8] = b"umbel renewal request 1";

/// It asks, and opens nothing (§11.6(4)).
impl RecoveryKey {
    /// A message that asks for a new session: as long as the shortest of a conversation.
    pub fn request(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Vec<u8> {
        let mut message = vec![0; NONCE_LEN];
        rng.fill_bytes(&mut message);
        let zeros = vec![0; ENVELOPE_ROOMS[0] - NONCE_LEN - TAG_LEN];
        let sealed = self.key(&message).seal(&[], &zeros);
        message.extend(sealed);
        message
    }

    /// Whether a message, which no key of the session opens, asks for a new session.
    pub fn is_request(&self, message: &[u8]) -> bool {
        let Some((nonce, sealed)) = message.split_at_checked(NONCE_LEN) else {
            return false;
        };
        let opened = self.key(nonce).open(&[], sealed);
        message.len() == ENVELOPE_ROOMS[0] && opened.is_ok_and(|it| it.iter().all(|&it| it == 0))
    }

    fn key(&self, nonce: &[u8]) -> Key {
        Key::derived(nonce, &[&self.0.0], &[INFO])
    }
}
