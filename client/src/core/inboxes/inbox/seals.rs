//! The seal keys of one own inbox: one for each epoch, each erased once nothing sealed to it can
//! still come (docs/protocol.md §10.3(6)).
//!
//! A key is made before its epoch's descriptor is, and stored before that is published. Keys made at
//! one moment come from one draw, which is not kept.

use std::collections::BTreeMap;

use rand::CryptoRng;
use umbel_proto::crypto::kdf::{hkdf_expand, hkdf_extract};
use umbel_proto::inbox::record::{Opened, RecordFault, SealKey, SealSecret, open_record};
use umbel_proto::limits::{SEAL_KEY_KEPT_AFTER, SEAL_KEYS_MAX};
use umbel_proto::time::{Duration, Epoch, WallTime};
use zeroize::Zeroizing;

use super::super::publish::epochs_at;
use super::super::stored::SealState;

/// Domain of the seeds that one draw gives.
const SEED_INFO: &[u8] = b"umbel seal seed 1";

/// The keys that records for one inbox are, or were, sealed to.
pub(super) struct SealKeys {
    by_epoch: BTreeMap<Epoch, SealSecret>,
}

impl SealKeys {
    /// Keys for this time's epoch and the next.
    pub(super) fn generate(wall: WallTime, rng: &mut dyn CryptoRng) -> Self {
        let mut keys = Self {
            by_epoch: BTreeMap::new(),
        };
        keys.make_missing(wall, rng);
        keys
    }

    pub(super) fn restore(states: &[SealState]) -> Self {
        let secret = |it: &SealState| (Epoch(it.epoch), SealSecret::from_seed(&it.seed));
        Self {
            by_epoch: states.iter().map(secret).collect(),
        }
    }

    pub(super) fn states(&self) -> Vec<SealState> {
        let state = |(epoch, secret): (&Epoch, &SealSecret)| SealState {
            epoch: epoch.0,
            seed: *secret.seed(),
        };
        self.by_epoch.iter().map(state).collect()
    }

    /// Makes the keys of this time's epoch and the next that are missing; whether there were any.
    pub(super) fn make_missing(&mut self, wall: WallTime, rng: &mut dyn CryptoRng) -> bool {
        let [now, next] = epochs_at(wall);
        let missing: Vec<Epoch> = [now, next]
            .into_iter()
            .filter(|epoch| !self.by_epoch.contains_key(epoch))
            .collect();
        if missing.is_empty() {
            return false;
        }
        let mut draw = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *draw);
        let seeds = hkdf_extract(&[], &[&*draw]);
        for epoch in missing {
            let mut seed = Zeroizing::new([0; 32]);
            hkdf_expand(&seeds, &[SEED_INFO, &epoch.0.to_be_bytes()], &mut *seed);
            self.by_epoch.insert(epoch, SealSecret::from_seed(&seed));
        }
        true
    }

    /// Erases the keys to which nothing that is sealed can still come at this confirmed time; whether
    /// there were any. `wall` is the calendar's time, whose keys are in use.
    pub(super) fn erase_old(
        &mut self,
        confirmed: WallTime,
        wall: WallTime,
        record_life: Duration,
    ) -> bool {
        let before = self.by_epoch.len();
        let in_use = epochs_at(wall);
        self.by_epoch.retain(|epoch, _| {
            let ended_at = epoch.next().starts_at();
            in_use.contains(epoch) || ended_at + record_life + SEAL_KEY_KEPT_AFTER > confirmed
        });
        // A clock that was ahead has made keys that nobody knows.
        while self.by_epoch.len() > SEAL_KEYS_MAX {
            let now = confirmed.epoch().0;
            let unused = self.by_epoch.keys().filter(|it| !in_use.contains(it));
            let Some(&farthest) = unused.max_by_key(|it| it.0.abs_diff(now)) else {
                break;
            };
            self.by_epoch.remove(&farthest);
        }
        self.by_epoch.len() != before
    }

    /// The key that this epoch's descriptor names.
    pub(super) fn public(&self, epoch: Epoch) -> Option<SealKey> {
        self.by_epoch.get(&epoch).map(SealSecret::public)
    }

    /// Opens a record, be it sealed to whichever key.
    ///
    /// # Errors
    /// It is not a record, not for us, or its sender wrote nonsense.
    pub(super) fn open(&self, wall: WallTime, record: &[u8]) -> Result<Opened, RecordFault> {
        let epoch = wall.epoch();
        let past = self.by_epoch.range(..=epoch).rev();
        let all = past.chain(self.by_epoch.range(epoch.next()..));
        let mut opened = Err(RecordFault::Seal);
        for (_, secret) in all {
            opened = open_record(secret, record);
            if opened != Err(RecordFault::Seal) {
                break;
            }
        }
        opened
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::ids::MessageId;
    use umbel_proto::inbox::record::{Message, seal_record};

    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    const LIFE: Duration = Duration::from_secs(14 * 24 * 3600);
    const START: WallTime = WallTime(2_960 * 7 * 24 * 3600 + 1000);

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(1)
    }

    /// A message to the key that the descriptor of this time's epoch names.
    fn sealed(keys: &SealKeys, wall: WallTime) -> Vec<u8> {
        let message = Message {
            id: MessageId([1; 16]),
            body: b"hello".to_vec(),
        };
        seal_record(&keys.public(wall.epoch()).unwrap(), &message, &mut rng()).unwrap()
    }

    /// As its owner does while the clock runs from one time to the other.
    fn run(keys: &mut SealKeys, from: WallTime, to: WallTime) {
        let mut wall = from;
        while wall <= to {
            keys.make_missing(wall, &mut rng());
            keys.erase_old(wall, wall, LIFE);
            wall = wall + Duration::from_secs(3600);
        }
    }

    #[test] // §10.3(6)
    fn each_epoch_has_a_key_of_its_own_which_outlives_a_restart() {
        let mut keys = SealKeys::generate(START, &mut rng());
        let [now, next] = epochs_at(START).map(|epoch| keys.public(epoch).unwrap());
        assert_ne!(now.as_bytes(), next.as_bytes());
        assert!(!keys.make_missing(START, &mut rng()));
        let record = sealed(&keys, START);
        assert!(keys.make_missing(START + WEEK, &mut rng()));
        assert!(
            keys.public((START + WEEK).epoch()).unwrap().as_bytes() == next.as_bytes(),
            "the key that is published ahead is the one used then"
        );
        let restored = SealKeys::restore(&keys.states());
        assert!(restored.open(START + WEEK, &record).is_ok());
    }

    #[test] // §10.3(6)
    fn a_key_is_erased_once_nothing_sealed_to_it_can_come() {
        let mut keys = SealKeys::generate(START, &mut rng());
        let record = sealed(&keys, START);
        let ends = START.epoch().next().starts_at() + LIFE;
        run(&mut keys, START, ends + Duration::from_secs(24 * 3600));
        assert!(keys.open(ends, &record).is_ok());
        let late = ends + SEAL_KEY_KEPT_AFTER;
        run(&mut keys, ends, late + Duration::from_secs(3600));
        assert_eq!(keys.open(late, &record), Err(RecordFault::Seal));
        assert_eq!(keys.states().len(), 4, "two that ended, and two in use");
    }

    #[test] // §10.3(6), §1.6
    fn a_clock_that_was_wrong_erases_no_key_and_leaves_few() {
        let mut keys = SealKeys::generate(START, &mut rng());
        let record = sealed(&keys, START);
        for weeks in 1..100 {
            let ahead = START + WEEK.saturating_mul(weeks);
            keys.make_missing(ahead, &mut rng());
            keys.erase_old(START, ahead, LIFE);
        }
        assert!(keys.states().len() <= SEAL_KEYS_MAX);
        assert!(keys.open(START, &record).is_ok(), "it is not confirmed");
    }

    #[test] // §10.3(6): a profile whose clock is years behind still has what it publishes
    fn keys_in_use_are_kept_whatever_was_confirmed() {
        let mut keys = SealKeys::generate(START, &mut rng());
        keys.erase_old(START + WEEK.saturating_mul(500), START, LIFE);
        assert_eq!(keys.states().len(), 2);
    }
}
