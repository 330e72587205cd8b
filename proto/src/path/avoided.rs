//! Relays that circuits could not be extended to, or that are suspected (docs/protocol.md §6.4(10),
//! §6.4(15)).
//!
//! A hop that lies could call every relay out of reach but those it likes, and so choose the rest of
//! the path. So one hop's word is kept apart, where no draw looks: a relay is avoided once a second
//! hop says the same, or once circuits that it had a part in broke.

use std::collections::{BTreeMap, BTreeSet};

use rand::CryptoRng;

use super::Known;
use crate::chance::Backoff;
use crate::directory::choice::Exclude;
use crate::ids::RelayId;
use crate::time::Instant;

/// Most relays that are remembered of each kind; beyond it the oldest word, or the rest that ends
/// first, is forgotten.
const KEPT_MAX: usize = 1024;
/// Most guards, and most L2, that are remembered of a relay that failed over them.
const REPORTED_BY_MAX: usize = 8;

/// What is held against relays.
#[derive(Debug, Default)]
pub struct Avoided {
    /// Relays that a single hop calls out of reach. No draw looks here.
    named: BTreeMap<RelayId, Named>,
    /// Relays that are not drawn for a while, twice as long each time.
    rests: BTreeMap<RelayId, Rest>,
}

/// One hop's word.
#[derive(Debug)]
struct Named {
    by: RelayId,
    role: Role,
    /// How often it was given, as far as that counts: against an L2 at once, against a guard once
    /// another guard has reached the relay.
    count: u32,
    at: Instant,
}

/// What the hop that gave its word was on that path. A relay may be both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Guard,
    Layer2,
    Other,
}

/// How long a relay is avoided.
#[derive(Debug, Default)]
struct Rest {
    backoff: Backoff,
    /// The guards that reported it, or over which it was suspected.
    guards: BTreeSet<RelayId>,
    /// The L2 that reported it, in messages that only they could seal.
    layer2: BTreeSet<RelayId>,
    /// It is reachable, and suspected of breaking circuits: only an answer clears it.
    is_suspect: bool,
}

/// What a hop's word that a relay is out of reach is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Nobody else says so.
    Alone {
        /// Whether the same hop did not say it before.
        is_news: bool,
    },
    /// Another hop said so before.
    Agreed {
        /// If that was an L2: which, and how often it was counted against it.
        layer2: Option<(RelayId, u32)>,
    },
    /// Two others did.
    Known,
}

impl Avoided {
    /// The last relay of this path can't be reached, by the word of the one before it. `is_sealed`:
    /// nobody else can have made that up.
    pub fn handle_failed(
        &mut self,
        known: Known<'_>,
        path: &[RelayId],
        is_sealed: bool,
        rng: &mut dyn CryptoRng,
    ) -> Option<Word> {
        let [.., by, relay] = path else { return None };
        let role = match path.len() {
            2 => Role::Guard,
            3 => Role::Layer2,
            _ => Role::Other,
        };
        let is_certain = is_sealed || role == Role::Guard;
        let witness = is_certain.then_some((role, *by));
        if self.rests.contains_key(relay) {
            self.rest(known, *relay, witness, rng);
            return Some(Word::Known);
        }
        if let Some(named) = self.named.get_mut(relay).filter(|named| named.by == *by) {
            named.at = known.now;
            return Some(Word::Alone { is_news: false });
        }
        if let Some(before) = self.named.remove(relay) {
            self.rest(known, *relay, witness, rng);
            let layer2 = (before.role == Role::Layer2).then_some((before.by, before.count));
            return Some(Word::Agreed { layer2 });
        }
        if self.named.len() >= KEPT_MAX
            && let Some((&oldest, _)) = self.named.iter().min_by_key(|(_, named)| named.at)
        {
            self.named.remove(&oldest);
        }
        let named = Named {
            by: *by,
            role,
            count: 0,
            at: known.now,
        };
        self.named.insert(*relay, named);
        Some(Word::Alone { is_news: true })
    }

    /// The word that this relay is out of reach counts once more.
    pub fn count(&mut self, relay: RelayId) {
        if let Some(named) = self.named.get_mut(&relay) {
            named.count = named.count.saturating_add(1);
        }
    }

    /// Circuits that this relay had a part in break, over this guard.
    pub fn handle_suspected(
        &mut self,
        known: Known<'_>,
        relay: RelayId,
        guard: RelayId,
        rng: &mut dyn CryptoRng,
    ) {
        self.rest(known, relay, Some((Role::Guard, guard)), rng)
            .is_suspect = true;
    }

    /// Another guard reached this relay: which guard alone called it out of reach, and how often
    /// that is to count against it.
    pub fn refuted(&self, relay: RelayId) -> Option<(RelayId, u32)> {
        self.named_by_a_guard(relay)
            .map(|named| (named.by, named.count))
    }

    /// This relay is reachable.
    pub fn handle_made(&mut self, relay: RelayId) {
        self.named.remove(&relay);
        if self.rests.get(&relay).is_some_and(|rest| !rest.is_suspect) {
            self.rests.remove(&relay);
        }
    }

    /// A circuit that this relay had a part in carried an answer, or nothing speaks against it any
    /// more.
    pub fn handle_worked(&mut self, relay: RelayId) {
        self.named.remove(&relay);
        self.rests.remove(&relay);
    }

    /// The guard that calls this relay out of reach, if it is the only hop that does.
    pub fn named_by(&self, relay: RelayId) -> Option<RelayId> {
        self.named_by_a_guard(relay).map(|named| named.by)
    }

    fn named_by_a_guard(&self, relay: RelayId) -> Option<&Named> {
        let named = self.named.get(&relay);
        named.filter(|named| named.role == Role::Guard)
    }

    /// Whether it is not drawn just now.
    pub(super) fn is_avoided(&self, relay: RelayId, now: Instant) -> bool {
        self.rests
            .get(&relay)
            .is_some_and(|rest| !rest.backoff.is_due(now))
    }

    /// The excluded relays, and those that are avoided.
    pub(super) fn and_excluded(&self, now: Instant, exclude: &Exclude) -> Exclude {
        let mut exclude = exclude.clone();
        let resting = self
            .rests
            .iter()
            .filter(|(_, rest)| !rest.backoff.is_due(now));
        resting.for_each(|(&relay, _)| exclude.relay(relay));
        exclude
    }

    /// Whether it failed so often in a row, by the word of two guards, or of two L2. Suspicion over a
    /// guard counts as its word.
    pub(super) fn has_failed_by_two(&self, relay: RelayId, of: Role, times: u32) -> bool {
        self.rests.get(&relay).is_some_and(|rest| {
            let by = match of {
                Role::Guard => &rest.guards,
                Role::Layer2 => &rest.layer2,
                Role::Other => return false,
            };
            by.len() >= 2 && rest.backoff.failures() >= times
        })
    }

    fn rest(
        &mut self,
        known: Known<'_>,
        relay: RelayId,
        witness: Option<(Role, RelayId)>,
        rng: &mut dyn CryptoRng,
    ) -> &mut Rest {
        if self.rests.len() >= KEPT_MAX
            && !self.rests.contains_key(&relay)
            && let Some(first) = self
                .rests
                .iter()
                .min_by_key(|(_, rest)| rest.backoff.retry_at())
                .map(|(&relay, _)| relay)
        {
            self.rests.remove(&first);
        }
        self.named.remove(&relay);
        let rest = self.rests.entry(relay).or_default();
        let by = match witness {
            Some((Role::Guard, by)) => Some((&mut rest.guards, by)),
            Some((Role::Layer2, by)) => Some((&mut rest.layer2, by)),
            Some((Role::Other, _)) | None => None,
        };
        if let Some((kept, by)) = by.filter(|(kept, _)| kept.len() < REPORTED_BY_MAX) {
            kept.insert(by);
        }
        rest.backoff.fail(&known.network.params, known.now, rng);
        rest
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha20Rng;

    use super::super::testing::{NOW as WALL, When};
    use super::*;

    fn relay(number: u8) -> RelayId {
        RelayId([number; RelayId::LEN])
    }

    /// The last relay of each path can't be reached; what each word is worth.
    fn words(avoided: &mut Avoided, paths: &[&[u8]]) -> Vec<Word> {
        let mut word = |known: Known<'_>, path: &[u8], rng: &mut ChaCha20Rng| {
            let path: Vec<RelayId> = path.iter().copied().map(relay).collect();
            avoided.handle_failed(known, &path, true, rng)
        };
        When::at(WALL).act(|known, rng| {
            let paths = paths.iter();
            paths.filter_map(|path| word(known, path, rng)).collect()
        })
    }

    const NOW: Instant = Instant::from_micros(0);

    #[test] // §6.4(15)
    fn one_hops_word_makes_nobody_avoid_a_relay() {
        let mut avoided = Avoided::default();
        let news = Word::Alone { is_news: true };
        let again = Word::Alone { is_news: false };
        let refused: [&[u8]; 4] = [&[1, 11], &[1, 12], &[1, 11], &[1, 13]];
        assert_eq!(words(&mut avoided, &refused), [news, news, again, news]);
        for number in [11, 12, 13] {
            assert!(!avoided.is_avoided(relay(number), NOW), "{number}");
        }
        avoided.count(relay(11));
        let agreed = Word::Agreed { layer2: None };
        assert_eq!(words(&mut avoided, &[&[2, 14, 11]]), [agreed]);
        assert!(avoided.is_avoided(relay(11), NOW), "two hops say so");
        assert_eq!(words(&mut avoided, &[&[1, 11]]), [Word::Known]);
        avoided.handle_made(relay(11));
        assert!(!avoided.is_avoided(relay(11), NOW));
        assert_eq!(words(&mut avoided, &[&[1, 11]]), [news], "it begins anew");
    }

    #[test] // §6.4(15), §6.4(16)
    fn a_relays_word_counts_for_the_part_in_which_it_was_given() {
        let mut avoided = Avoided::default();
        // The same relay as guard, and as L2.
        for (path, layer2, is_guards) in [
            (&[1, 11][..], None, true),
            (&[3, 1, 11], Some((relay(1), 2)), false),
        ] {
            words(&mut avoided, &[path, path]);
            (0..2).for_each(|_| avoided.count(relay(11)));
            assert_eq!(avoided.refuted(relay(11)).is_some(), is_guards);
            assert_eq!(avoided.named_by(relay(11)).is_some(), is_guards);
            let agreed = words(&mut avoided, &[&[4, 5, 11]]);
            assert_eq!(agreed, [Word::Agreed { layer2 }]);
            avoided.handle_worked(relay(11));
        }
    }

    #[test] // §6.4(10), §6.4(15)
    fn a_suspect_is_avoided_until_it_carries_an_answer() {
        let mut avoided = Avoided::default();
        When::at(WALL).act(|known, rng| avoided.handle_suspected(known, relay(11), relay(1), rng));
        avoided.handle_made(relay(11));
        assert!(avoided.is_avoided(relay(11), NOW));
        avoided.handle_worked(relay(11));
        assert!(!avoided.is_avoided(relay(11), NOW));
    }

    #[test] // §6.4(10)
    fn one_guard_can_not_have_an_l2_replaced() {
        let mut avoided = Avoided::default();
        let by_one_guard = [&[1, 11][..], &[1, 14, 11]].repeat(8);
        words(&mut avoided, &by_one_guard);
        assert!(avoided.is_avoided(relay(11), NOW));
        assert!(!avoided.has_failed_by_two(relay(11), Role::Guard, 8));
        words(&mut avoided, &[&[2, 11]]);
        assert!(avoided.has_failed_by_two(relay(11), Role::Guard, 8));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut avoided = Avoided::default();
        let id = |number: u32| {
            let mut id = [0; RelayId::LEN];
            id[..4].copy_from_slice(&number.to_be_bytes());
            RelayId(id)
        };
        When::at(WALL).act(|known, rng| {
            for number in 100..3000 {
                avoided.handle_failed(known, &[id(1), id(number)], true, rng);
                avoided.handle_failed(known, &[id(1), id(number), id(5)], true, rng);
                avoided.handle_suspected(known, id(number + 10_000), id(number), rng);
                avoided.handle_suspected(known, id(5), id(number), rng);
            }
        });
        assert!(avoided.named.len() <= KEPT_MAX && avoided.rests.len() <= KEPT_MAX);
        let mut rests = avoided.rests.values();
        assert!(rests.all(|rest| {
            rest.guards.len() <= REPORTED_BY_MAX && rest.layer2.len() <= REPORTED_BY_MAX
        }));
    }

    #[test] // §6.4(15)
    fn a_word_that_another_hop_refutes_is_counted_as_often_as_it_was_given() {
        let mut avoided = Avoided::default();
        assert_eq!(avoided.refuted(relay(11)), None);
        words(&mut avoided, &[&[1, 11], &[1, 11], &[1, 11]]);
        (0..3).for_each(|_| avoided.count(relay(11)));
        assert_eq!(avoided.refuted(relay(11)), Some((relay(1), 3)));
        avoided.handle_made(relay(11));
        assert_eq!(avoided.refuted(relay(11)), None);
    }
}
