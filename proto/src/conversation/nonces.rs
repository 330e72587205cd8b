//! Nonces of messages, by which a reader knows those that it has read: a copy, and one that is so old
//! that it may be a copy (docs/protocol.md §11.3).
//!
//! A holder can't open a record, but can give it out again whenever it likes. If a message that no key
//! opens any more always counted as a sign of a lost state, the holder could have the reader ask for a
//! new session at will, and see whose inbox the other side writes to then. So a nonce has a date in
//! it: of what is older than all nonces that are kept, a reader does not say that it is new.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::limits::NONCES_KEPT;
use crate::time::WallTime;
use crate::wire::{Malformed, Reader};

pub(super) const NONCE_LEN: usize = RANDOM_LEN + DATE_LEN;
const RANDOM_LEN: usize = 11;
const DATE_LEN: usize = 5;

/// Eleven random bytes, and when they were drawn, by their sender's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nonce([u8; NONCE_LEN]);

/// The nonces of the messages that were read last.
#[derive(Serialize, Deserialize)]
pub(super) struct Nonces {
    /// Oldest first.
    kept: Vec<Nonce>,
    /// When the first message was sent that was read.
    first: Option<WallTime>,
    /// Up to here a message may have been read, though its nonce is not kept.
    forgotten: WallTime,
}

impl Nonce {
    pub(super) fn draw(now: WallTime, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut nonce = [0; NONCE_LEN];
        let (random, date) = nonce.split_at_mut(RANDOM_LEN);
        rng.fill_bytes(random);
        date.copy_from_slice(&now.as_secs().to_be_bytes()[8 - DATE_LEN..]);
        Self(nonce)
    }

    /// Off the front of a message.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.array().map(Self)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; NONCE_LEN] {
        &self.0
    }

    /// When its sender says that it was drawn.
    pub(super) fn drawn_at(&self) -> WallTime {
        let date = &self.0[RANDOM_LEN..];
        WallTime(date.iter().fold(0, |sum, &it| (sum << 8) | u64::from(it)))
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            first: None,
            forgotten: WallTime(0),
        }
    }
}

impl Nonces {
    pub(super) fn has(&self, nonce: &Nonce) -> bool {
        self.kept.contains(nonce)
    }

    /// Notes that a message was read. A sender whose clock is ahead keeps nothing else from being
    /// told apart.
    pub(super) fn note(&mut self, nonce: Nonce, now: WallTime) {
        let sent = |nonce: &Nonce| nonce.drawn_at().min(now);
        let first = self.first.unwrap_or(now);
        self.first = Some(first.min(sent(&nonce)));
        self.kept.push(nonce);
        let excess = self.kept.len().saturating_sub(NONCES_KEPT);
        let dropped = self.kept.drain(..excess).map(|it| sent(&it));
        self.forgotten = dropped.fold(self.forgotten, WallTime::max);
    }

    /// When the first message was sent that was read.
    pub(super) const fn first(&self) -> Option<WallTime> {
        self.first
    }

    /// When the last message was sent that was read.
    pub(super) fn last(&self) -> Option<WallTime> {
        self.kept.iter().map(Nonce::drawn_at).max()
    }

    /// Up to here a message may have been read, though its nonce is not kept.
    pub(super) const fn forgotten(&self) -> WallTime {
        self.forgotten
    }

    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    use super::*;
    use crate::time::Duration;

    const NOW: WallTime = WallTime(1_790_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test] // §11.3(6)
    fn a_nonce_that_is_not_kept_any_more_leaves_its_date() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut nonces = Nonces::default();
        let mut drawn = Vec::new();
        let seconds = core::iter::successors(Some(NOW), |&at| Some(at + SECOND));
        for now in seconds.take(NONCES_KEPT + 1) {
            let nonce = Nonce::draw(now, &mut rng);
            assert_eq!(nonce.drawn_at(), now);
            nonces.note(nonce, now);
            drawn.push(nonce);
        }
        assert!(!nonces.has(&drawn[0]) && drawn[1..].iter().all(|it| nonces.has(it)));
        assert_eq!(nonces.forgotten(), NOW);
        assert_eq!(nonces.first(), Some(NOW));
        assert_eq!(nonces.last(), Some(drawn[NONCES_KEPT].drawn_at()));
    }

    #[test] // §11.3(6)
    fn a_clock_that_was_ahead_hides_nothing_of_what_follows() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut nonces = Nonces::default();
        let year = Duration::from_secs(365 * 24 * 3600);
        nonces.note(Nonce::draw(NOW + year, &mut rng), NOW);
        (0..NONCES_KEPT).for_each(|_| nonces.note(Nonce::draw(NOW, &mut rng), NOW));
        assert_eq!(nonces.forgotten(), NOW);
        assert_eq!(nonces.first(), Some(NOW));
    }
}
