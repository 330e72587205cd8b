//! Whether the sources that a newcomer asks first agree on which relays there are (docs/protocol.md
//! §8.3(9c)).
//!
//! A client without a view takes what its first sources list. One that invents relays or hides them
//! is noticed if another lists otherwise. Then no relay is drawn before most of them agree, or the
//! user accepts what there is.

use std::collections::BTreeSet;
use std::sync::Arc;

use umbel_proto::directory::{Listing, Source, VerifiedDescriptor};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    NETWORK_NEW_FOR, SECOND_SOURCE_WAIT, SEEDS_COMPARED_MAX, SEEDS_DIFFER_MIN, SEEDS_DIFFER_PERCENT,
};
use umbel_proto::time::Instant;
use umbel_proto::wire;

use super::super::context::Context;
use super::super::io::{StoreOp, Warning};

/// What came of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No two sources disagree, or most agree.
    Agreed = 0,
    Disputed = 1,
    /// The user goes on regardless.
    Accepted = 2,
}

/// The stored state once the user has accepted what there is.
pub const FIRST_CONTACT_ACCEPTED: u8 = Verdict::Accepted as u8;
/// The stored state that the user may accept.
pub const FIRST_CONTACT_DISPUTED: u8 = Verdict::Disputed as u8;

/// See the module.
pub(super) struct FirstContact {
    verdict: Verdict,
    /// The list of each source that answered to the end. No two of them were reached in one address
    /// group.
    lists: Vec<(Arc<Source>, BTreeSet<RelayId>)>,
    /// The only source that has answered a client since it lost its view.
    lone: Option<Arc<Source>>,
    /// Until when another is waited for before the view is used.
    alone_until: Option<Instant>,
}

impl FirstContact {
    /// As it was stored: the verdict, and the only source.
    pub(super) fn restore(state: Option<&[u8]>, lone: Option<&[u8]>) -> Self {
        let verdict = match state {
            Some([FIRST_CONTACT_ACCEPTED]) => Verdict::Accepted,
            Some([FIRST_CONTACT_DISPUTED]) => Verdict::Disputed,
            _ => Verdict::Agreed,
        };
        Self {
            verdict,
            lists: Vec::new(),
            lone: lone.and_then(|lone| wire::decode(lone).ok()).map(Arc::new),
            alone_until: None,
        }
    }

    /// Whether sources disagree, and the user has not accepted that.
    pub(super) fn is_disputed(&self) -> bool {
        self.verdict == Verdict::Disputed
    }

    /// Whether another source is waited for: relays that come back are as old as they were, so that the
    /// one that answers first could choose which do.
    pub(super) fn is_alone(&self, now: Instant) -> bool {
        self.alone_until.is_some_and(|until| now < until)
    }

    /// Whether no other was heard yet, in use as the view may be: it must not choose whom this client
    /// asks next.
    pub(super) const fn lacks_another(&self) -> bool {
        self.lone.is_some()
    }

    /// When that wait is over, a past moment included.
    pub(super) const fn timeout(&self) -> Option<Instant> {
        self.alone_until
    }

    /// Forgets the lists of all sources: no later list is compared with them.
    pub(super) fn forget_lists(&mut self) {
        self.lists.clear();
    }

    /// A reconciliation with this source ended, and what came with it was taken.
    pub(super) fn compare(
        &mut self,
        cx: &mut Context<'_>,
        source: &Arc<Source>,
        listing: &Listing,
    ) {
        if self
            .lone
            .take_if(|lone| lone.is_apart_from(source))
            .is_some()
        {
            cx.store(StoreOp::PutLoneSource(Vec::new()));
        }
        if cx.is_ready || self.verdict == Verdict::Accepted {
            self.lists.clear();
            self.alone_until = None;
            return;
        }
        self.lists.retain(|(other, _)| other.relay != source.relay);
        let mut others = self.lists.iter();
        let is_apart = others.all(|(other, _)| other.is_apart_from(source));
        if !is_apart {
            return;
        }
        // Else those who came first could not be outvoted.
        if self.lists.len() >= SEEDS_COMPARED_MAX {
            self.lists.remove(0);
        }
        let listed = cx.view().iter().map(|known| known.relay);
        let listed = listed.filter(|relay| !listing.lacking.contains(relay));
        self.lists.push((Arc::clone(source), listed.collect()));
        let is_first = self.lists.len() == 1 && !cx.view().is_setting_up(cx.wall);
        if is_first && !cx.network.params.selectable_age.is_zero() {
            self.lone = Some(Arc::clone(source));
            cx.store(StoreOp::PutLoneSource(wire::encode(&**source)));
            self.alone_until.get_or_insert(cx.now + SECOND_SOURCE_WAIT);
        } else {
            self.alone_until = None;
        }
        if is_network_new(cx) {
            return;
        }
        // A source that is alone settles nothing.
        let is_settled =
            do_most_agree(&self.lists) && (self.lists.len() > 1 || !self.is_disputed());
        let verdict = if is_settled {
            Verdict::Agreed
        } else {
            Verdict::Disputed
        };
        if verdict != self.verdict {
            self.verdict = verdict;
            cx.store(StoreOp::PutFirstContact(vec![verdict as u8]));
            if self.is_disputed() {
                cx.warn(Warning::SeedsDisagree);
            }
        }
    }
}

/// Whether so few relays are older than a few minutes that sources differ for that alone.
fn is_network_new(cx: &Context<'_>) -> bool {
    let is_old = |known: &&VerifiedDescriptor| known.issued_at + NETWORK_NEW_FOR <= cx.wall;
    cx.view().iter().filter(is_old).count() < SEEDS_DIFFER_MIN
}

fn do_most_agree(lists: &[(Arc<Source>, BTreeSet<RelayId>)]) -> bool {
    let is_most = |(_, list): &(_, BTreeSet<RelayId>)| {
        let agreeing = lists.iter().filter(|(_, other)| do_agree(list, other));
        agreeing.count() * 2 > lists.len()
    };
    lists.iter().any(is_most)
}

/// Whether two lists differ by little: of what either has, the other lacks few.
fn do_agree(one: &BTreeSet<RelayId>, other: &BTreeSet<RelayId>) -> bool {
    let differing = one.symmetric_difference(other).count();
    let all = one.union(other).count();
    differing < SEEDS_DIFFER_MIN || differing * 100 <= all * SEEDS_DIFFER_PERCENT
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::directory::{Mark, Unverified};
    use umbel_proto::network::Network;
    use umbel_proto::time::{Duration, Moment, WallTime};

    use super::super::super::io::Notice;
    use super::super::super::testing::{When, descriptor, id as relay, surroundings};
    use super::*;

    /// The relays of these tests are this old.
    const NOW: WallTime = WallTime(1_790_000_000 + NETWORK_NEW_FOR.as_secs());
    const KNOWN: [u8; 20] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
    ];

    /// A seed, reached where no other is.
    fn seed(number: u8) -> Arc<Source> {
        reached_at(number, number)
    }

    fn reached_at(number: u8, port: u8) -> Arc<Source> {
        let address = ([127, 0, 0, 1], port.into()).into();
        Arc::new(Source {
            relay: relay(number),
            groups: Network::local().groups_of(address).collect(),
        })
    }

    /// Seeds end their reconciliations in this order, and lack these of twenty relays. Whether they
    /// disagree, after each.
    fn disputed(contact: &mut FirstContact, seeds: &[(u8, &[u8])]) -> Vec<bool> {
        let seeds: Vec<_> = seeds
            .iter()
            .map(|&(it, lacking)| (seed(it), lacking))
            .collect();
        disputed_by(contact, &seeds)
    }

    fn disputed_by(contact: &mut FirstContact, seeds: &[(Arc<Source>, &[u8])]) -> Vec<bool> {
        let moment = When::at(NOW);
        let ended = |(seed, lacking): &(Arc<Source>, &[u8])| {
            let listing = Listing {
                source: seed.relay,
                mark: Mark::default(),
                lacking: lacking.iter().map(|&it| relay(it)).collect(),
            };
            let (disputed, _) = moment.act_knowing(&KNOWN, |cx| {
                cx.is_ready = false;
                contact.compare(cx, seed, &listing);
                contact.is_disputed()
            });
            disputed
        };
        seeds.iter().map(ended).collect()
    }

    fn new() -> FirstContact {
        FirstContact::restore(None, None)
    }

    const FIVE: &[u8] = &[11, 12, 13, 14, 15];

    #[test] // §8.3(9c)
    fn two_seeds_that_differ_by_much_are_a_dispute_until_a_third_settles_it() {
        assert_eq!(disputed(&mut new(), &[(1, &[]), (2, FIVE)]), [false, true]);
        let settled = [(1, &[][..]), (2, FIVE), (3, &[])];
        assert_eq!(disputed(&mut new(), &settled), [false, true, false]);
        let none_agree = [(1, &[][..]), (2, FIVE), (3, &[16, 17, 18, 19, 20])];
        assert_eq!(disputed(&mut new(), &none_agree), [false, true, true]);
    }

    #[test] // §8.3(9c)
    fn seeds_that_differ_by_few_relays_agree() {
        let few = [(1, &[][..]), (2, &FIVE[1..]), (3, &[20])];
        assert_eq!(disputed(&mut new(), &few), [false; 3]);
    }

    #[test] // §8.3(9c)
    fn seeds_are_apart_by_where_they_are_reached() {
        let beside = [(seed(1), &[][..]), (reached_at(2, 1), FIVE)];
        assert_eq!(disputed_by(&mut new(), &beside), [false; 2], "one counts");
        // In nobody's view, so that no descriptor says anything.
        let unknown = [(seed(1), &[][..]), (seed(50), FIVE)];
        assert_eq!(disputed_by(&mut new(), &unknown), [false, true]);
    }

    #[test] // §8.3(9c)
    fn while_a_network_is_minutes_old_nothing_is_compared() {
        let mut contact = new();
        let earlier = When::at(WallTime(NOW.as_secs() - 1));
        let lacking = FIVE.iter().map(|&it| relay(it)).collect();
        let (source, mark) = (relay(2), Mark::default());
        let listing = Listing {
            source,
            mark,
            lacking,
        };
        for _ in 0..2 {
            let (_, told) = earlier.act_knowing(&KNOWN, |cx| {
                cx.is_ready = false;
                contact.compare(
                    cx,
                    &seed(1),
                    &Listing {
                        lacking: BTreeSet::new(),
                        ..listing.clone()
                    },
                );
                contact.compare(cx, &seed(2), &listing);
            });
            assert!(told.is_empty() && !contact.is_disputed());
        }
        assert_eq!(disputed(&mut contact, &[(1, &[])]), [true], "it is older");
    }

    #[test] // §8.3(9c)
    fn what_was_listed_by_another_clock_is_no_dispute() {
        let mut contact = new();
        assert_eq!(disputed(&mut contact, &[(1, FIVE)]), [false]);
        contact.forget_lists();
        assert_eq!(disputed(&mut contact, &[(2, &[]), (3, &[])]), [false; 2]);
        assert_eq!(
            disputed(&mut contact, &[(4, FIVE), (5, FIVE)]),
            [false, true]
        );
    }

    #[test] // §8.3(9c)
    fn sources_that_came_first_can_be_outvoted() {
        let others: &[u8] = &[16, 17, 18, 19, 20];
        let first = (1..=4).map(|seed| (seed, FIVE));
        let next = (5..=8).map(|seed| (seed, others));
        let mut contact = new();
        let liars: Vec<_> = first.chain(next).collect();
        assert_eq!(disputed(&mut contact, &liars).last(), Some(&true));
        let honest: Vec<(u8, &[u8])> = (9..=14).map(|seed| (seed, &[][..])).collect();
        assert_eq!(disputed(&mut contact, &honest).last(), Some(&false));
    }

    #[test] // §8.3(9c)
    fn who_answers_alone_after_days_is_not_the_only_one_to_be_asked() {
        let mut network = Network::local();
        network.params.selectable_age = Duration::from_secs(60);
        let mut shared = surroundings(network, NOW);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for number in KNOWN {
            let known = Unverified::decode(&descriptor(number)).unwrap();
            let heard = shared
                .book
                .hear(&shared.network, NOW, None, known, &mut rng);
            heard.unwrap();
        }
        let (now, wall) = (Instant::default(), NOW + Duration::from_secs(7200));
        let mut contact = new();
        let mut hear = |number: u8, is_ready, after| {
            let moment = Moment {
                now: now + after,
                wall,
            };
            let mut cx = shared.context(moment, &mut rng);
            cx.is_ready = is_ready;
            let listing = Listing {
                source: relay(number),
                mark: Mark::default(),
                lacking: BTreeSet::new(),
            };
            contact.compare(&mut cx, &seed(number), &listing);
            let stored = cx.out.stores.iter().rev().find_map(|(_, op)| match op {
                StoreOp::PutLoneSource(lone) => Some(lone.as_slice()),
                _ => None,
            });
            let restarted = FirstContact::restore(None, stored);
            assert_eq!(restarted.lacks_another(), contact.lacks_another());
            (contact.is_alone(moment.now), contact.lacks_another())
        };
        let second = Duration::from_secs(1);
        assert_eq!(hear(1, false, Duration::ZERO), (true, true));
        assert_eq!(hear(1, false, SECOND_SOURCE_WAIT), (false, true));
        assert_eq!(hear(1, true, SECOND_SOURCE_WAIT + second), (false, true));
        assert_eq!(hear(2, true, SECOND_SOURCE_WAIT + second), (false, false));
    }

    #[test] // §8.3(9c)
    fn a_seed_that_is_asked_again_is_judged_by_what_it_lists_then() {
        let again = [(1, &[][..]), (2, FIVE), (2, &[])];
        assert_eq!(disputed(&mut new(), &again), [false, true, false]);
    }

    #[test] // §8.3(9c)
    fn a_dispute_outlasts_a_restart_and_what_the_user_accepted_is_none() {
        let mut stored = FirstContact::restore(Some(&[FIRST_CONTACT_DISPUTED]), None);
        assert!(stored.is_disputed());
        let then = disputed(&mut stored, &[(1, &[]), (2, &[])]);
        assert_eq!(then, [true, false], "by one seed it is not settled");
        let mut accepted = FirstContact::restore(Some(&[FIRST_CONTACT_ACCEPTED]), None);
        assert_eq!(disputed(&mut accepted, &[(1, &[]), (2, FIVE)]), [false; 2]);
    }

    #[test] // §8.3(9c)
    fn a_dispute_is_told_and_stored() {
        let mut contact = new();
        disputed(&mut contact, &[(1, &[])]);
        let listing = Listing {
            source: relay(2),
            mark: Mark::default(),
            lacking: FIVE.iter().map(|&it| relay(it)).collect(),
        };
        let is_it = |op: &StoreOp| matches!(op, StoreOp::PutFirstContact(state) if *state == [FIRST_CONTACT_DISPUTED]);
        let (is_stored, told) = When::at(NOW).act_knowing(&KNOWN, |cx| {
            cx.is_ready = false;
            contact.compare(cx, &seed(2), &listing);
            cx.out.stores.iter().any(|(_, op)| is_it(op))
        });
        assert!(is_stored);
        assert_eq!(told, [Notice::Warning(Warning::SeedsDisagree)]);
    }
}
