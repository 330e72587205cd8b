//! Nonces of messages, by which a reader knows those that it has read: a copy, and one that is so old
//! that it may be a copy (docs/protocol.md §11.3).
//!
//! A holder can't open a record, but can give it out again whenever it likes. If a message that no key
//! opens any more always counted as a sign of a lost state, the holder could have the reader ask for a
//! new session at will, and see whose inbox the other side writes to then. So a nonce has a date in
//! it: of what is older than all nonces that are kept, a reader does not say that it is new.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::limits::{NONCES_KEPT, SKIPPED_LIFE};
use crate::time::WallTime;
use crate::wire::{Malformed, Reader};

pub(super) const NONCE_LEN: usize = RANDOM_LEN + 4;
const RANDOM_LEN: usize = 12;

/// Twelve random bytes, and the minute in which it was drawn, by its sender's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nonce([u8; NONCE_LEN]);

/// Minutes since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(super) struct Minute(u32);

/// The nonces of the messages that were read last.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Nonces {
    /// Oldest first.
    kept: Vec<Nonce>,
    /// When the first message was sent that was read.
    first: Option<Minute>,
    /// Up to here a message may have been read, though its nonce is not kept.
    forgotten: Minute,
}

impl Nonce {
    pub(super) fn draw(now: WallTime, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut nonce = [0; NONCE_LEN];
        let (random, minute) = nonce.split_at_mut(RANDOM_LEN);
        rng.fill_bytes(random);
        minute.copy_from_slice(&Minute::of(now).0.to_be_bytes());
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
    pub(super) fn minute(&self) -> Minute {
        let minute = self.0.last_chunk().copied().unwrap_or_default();
        Minute(u32::from_be_bytes(minute))
    }
}

impl Minute {
    pub(super) fn of(time: WallTime) -> Self {
        Self(u32::try_from(time.as_secs() / 60).unwrap_or(u32::MAX))
    }

    /// Whether no key is kept for so old a message.
    pub(super) fn is_over(self, now: WallTime) -> bool {
        self < Self::of(now.before(SKIPPED_LIFE))
    }
}

impl Nonces {
    pub(super) fn has(&self, nonce: &Nonce) -> bool {
        self.kept.contains(nonce)
    }

    /// Notes that a message was read. A sender whose clock is ahead keeps nothing else from being
    /// told apart.
    pub(super) fn note(&mut self, nonce: Nonce, now: WallTime) {
        let sent = |nonce: &Nonce| nonce.minute().min(Minute::of(now));
        let first = self.first.unwrap_or(Minute(u32::MAX));
        self.first = Some(first.min(sent(&nonce)));
        self.kept.push(nonce);
        let excess = self.kept.len().saturating_sub(NONCES_KEPT);
        let forgotten = self.kept.drain(..excess).map(|it| sent(&it)).max();
        self.forgotten = self.forgotten.max(forgotten.unwrap_or_default());
    }

    /// When the first message was sent that was read.
    pub(super) const fn first(&self) -> Option<Minute> {
        self.first
    }

    /// When the last message was sent that was read.
    pub(super) fn last(&self) -> Option<Minute> {
        self.kept.iter().map(Nonce::minute).max()
    }

    /// Up to here a message may have been read, though its nonce is not kept.
    pub(super) const fn forgotten(&self) -> Minute {
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
    const MINUTE: Duration = Duration::from_secs(60);

    #[test] // §11.3(6)
    fn a_nonce_that_is_not_kept_any_more_leaves_its_date() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut nonces = Nonces::default();
        let mut drawn = Vec::new();
        let minutes = core::iter::successors(Some(NOW), |&at| Some(at + MINUTE));
        for now in minutes.take(NONCES_KEPT + 1) {
            let nonce = Nonce::draw(now, &mut rng);
            assert_eq!(nonce.minute(), Minute::of(now));
            nonces.note(nonce, now);
            drawn.push(nonce);
        }
        assert!(!nonces.has(&drawn[0]) && drawn[1..].iter().all(|it| nonces.has(it)));
        assert_eq!(nonces.forgotten(), Minute::of(NOW));
        assert_eq!(nonces.first(), Some(Minute::of(NOW)));
        assert_eq!(nonces.last(), Some(drawn[NONCES_KEPT].minute()));
    }

    #[test] // §11.3(6)
    fn a_clock_that_was_ahead_hides_nothing_of_what_follows() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut nonces = Nonces::default();
        let year = Duration::from_secs(365 * 24 * 3600);
        nonces.note(Nonce::draw(NOW + year, &mut rng), NOW);
        (0..NONCES_KEPT).for_each(|_| nonces.note(Nonce::draw(NOW, &mut rng), NOW));
        assert_eq!(nonces.forgotten(), Minute::of(NOW));
        assert_eq!(nonces.first(), Some(Minute::of(NOW)));
    }

    #[test] // §11.3(6)
    fn a_message_is_over_when_no_key_is_kept_for_it() {
        let minute = Minute::of(NOW);
        assert!(!minute.is_over(NOW + SKIPPED_LIFE));
        assert!(minute.is_over(NOW + SKIPPED_LIFE + MINUTE));
    }
}
