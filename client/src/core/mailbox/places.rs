//! Which mailboxes are subscribed to where there are more than places (docs/protocol.md §10.5(5)).
//!
//! Every inbox's first mailbox in reach has a place before any inbox's second has one, and so on. A
//! mailbox keeps its place until it is out of reach while another of its inbox is not, or until an
//! inbox with fewer places lacks one. Places are given out anew only once something has happened
//! that they depend on: `Seating` knows.

use std::collections::BTreeMap;

use umbel_proto::ids::QueueId;

use super::visit::{Phase, Seat, Visit};
use super::visits::Followed;
use super::{MailboxId, Owner};

/// Most mailboxes with a subscription, each of which takes up a circuit; the others are polled.
pub(super) const SUBSCRIPTIONS_MAX: usize = 40;

/// Whether places have to be given out anew.
#[derive(Debug, Default)]
pub(super) struct Seating {
    is_open: bool,
    /// A place could not go to another inbox, since something is being fetched from each mailbox that
    /// could lose one.
    waits_for_fetch: bool,
}

impl Seating {
    /// Something happened that places depend on.
    pub(super) const fn reopen(&mut self) {
        self.is_open = true;
    }

    /// Nothing is being fetched any more from some mailbox.
    pub(super) const fn on_fetch_over(&mut self) {
        self.is_open |= self.waits_for_fetch;
    }

    /// Whether places are given out now.
    pub(super) const fn take_open(&mut self) -> bool {
        core::mem::replace(&mut self.is_open, false)
    }
}

/// Gives the places out; returns the mailboxes whose subscriptions end because their places went to
/// other inboxes.
pub(super) fn seat(
    owners: &mut BTreeMap<Owner, Followed>,
    seating: &mut Seating,
) -> Vec<MailboxId> {
    seating.waits_for_fetch = false;
    let mut interactive: Vec<(&Owner, &mut Followed)> = owners
        .iter_mut()
        .filter(|(_, followed)| followed.is_interactive)
        .collect();
    for (_, followed) in &mut interactive {
        followed.leave_unreachable();
    }
    let taken: usize = interactive
        .iter()
        .map(|(_, followed)| followed.taken_count())
        .sum();
    let mut free = SUBSCRIPTIONS_MAX.saturating_sub(taken);
    let ranks = interactive
        .iter()
        .map(|(_, followed)| followed.current().count())
        .max()
        .unwrap_or_default();
    let mut ended = Vec::new();
    for rank in 0..ranks {
        for index in 0..interactive.len() {
            let Some((_, followed)) = interactive.get(index) else {
                continue;
            };
            let lacks_place = followed.seated_count() <= rank;
            if !lacks_place || !followed.has_candidate(free == 0) {
                continue;
            }
            if free > 0 {
                free -= 1;
            } else if !take_place(&mut interactive, rank + 1, seating, &mut ended) {
                return ended;
            }
            if let Some((_, followed)) = interactive.get_mut(index) {
                followed.seat_next();
            }
        }
    }
    ended
}

/// Takes a place from the inbox that has the most of them, if it has more than `kept`.
fn take_place(
    interactive: &mut [(&Owner, &mut Followed)],
    kept: usize,
    seating: &mut Seating,
    ended: &mut Vec<MailboxId>,
) -> bool {
    let most = interactive
        .iter_mut()
        .max_by_key(|(_, followed)| followed.seated_count())
        .filter(|(_, followed)| followed.seated_count() > kept);
    let Some((owner, followed)) = most else {
        return false;
    };
    let owner = **owner;
    let Some((queue, had_subscription)) = followed.unseat_last() else {
        seating.waits_for_fetch = true;
        return false;
    };
    if had_subscription {
        ended.push(MailboxId { owner, queue });
    }
    true
}

impl Followed {
    fn current(&self) -> impl Iterator<Item = &Visit> {
        self.mailboxes.values().filter(|visit| visit.is_listed())
    }

    /// How many of the mailboxes that the descriptor names have a place.
    fn seated_count(&self) -> usize {
        self.current().filter(|visit| visit.is_seated()).count()
    }

    /// How many places it takes up. A mailbox that was replaced keeps its subscription, and its
    /// circuit, for as long as that lasts.
    fn taken_count(&self) -> usize {
        let is_taken = |visit: &&Visit| visit.has_place();
        self.mailboxes.values().filter(is_taken).count()
    }

    /// Whether a mailbox could take another place; only one in reach can if it `must_answer`.
    fn has_candidate(&self, must_answer: bool) -> bool {
        let mut candidates = self.current().filter(|visit| !visit.has_place());
        candidates.any(|visit| !must_answer || visit.is_in_reach())
    }

    /// Gives the next mailbox a place: one in reach if there is one.
    fn seat_next(&mut self) {
        let candidates = self.mailboxes.values_mut();
        let next = candidates
            .filter(|visit| visit.is_listed() && !visit.has_place())
            .min_by_key(|visit| !visit.is_in_reach());
        if let Some(visit) = next {
            visit.seat = Seat::Seated;
        }
    }

    /// Takes the place that is missed least; says whose it was, and whether it had a subscription.
    fn unseat_last(&mut self) -> Option<(QueueId, bool)> {
        let seated = self
            .mailboxes
            .iter_mut()
            .filter(|(_, visit)| visit.is_seated() && !visit.phase.is_fetching());
        let (&queue, visit) =
            seated.max_by_key(|(_, visit)| (!visit.is_in_reach(), !visit.is_answered()))?;
        Some((queue, visit.leave_place()))
    }

    /// A mailbox out of reach leaves its place to one of the same inbox that is in reach.
    fn leave_unreachable(&mut self) {
        while self.has_candidate(true) {
            let unreachable = self.mailboxes.values_mut().find(|visit| {
                visit.is_seated() && !visit.phase.is_subscription() && !visit.is_in_reach()
            });
            let Some(visit) = unreachable else { return };
            visit.leave_place();
            self.seat_next();
        }
    }
}

impl Visit {
    fn has_place(&self) -> bool {
        self.is_seated() || self.phase.is_subscription()
    }

    fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Subscribed(_))
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::RelayId;
    use umbel_proto::inbox::mailbox::QueueKind;
    use umbel_proto::time::Instant;

    use super::super::super::inboxes::InboxId;
    use super::super::OwnMailbox;
    use super::super::visit::{Fetch, Seen, Subscription};
    use super::*;

    type Owners = BTreeMap<Owner, Followed>;

    fn visit(number: u8) -> (QueueId, Visit) {
        let queue = QueueId([number; QueueId::LEN]);
        let mailbox = OwnMailbox::for_test(RelayId([number; RelayId::LEN]), queue);
        (queue, Visit::new(&mailbox, QueueKind::Public))
    }

    fn followed_with(mailboxes: impl Iterator<Item = (QueueId, Visit)>) -> Followed {
        Followed {
            is_interactive: true,
            mailboxes: mailboxes.collect(),
            ..Followed::default()
        }
    }

    fn owner(number: u32) -> Owner {
        Owner::Inbox(InboxId(number))
    }

    fn seat_all(owners: &mut Owners) -> Vec<MailboxId> {
        seat(owners, &mut Seating::default())
    }

    /// Follows these inboxes one after the other, as a client's commands come.
    fn followed(inboxes: u32) -> Owners {
        let mut owners = Owners::default();
        for number in 0..inboxes {
            owners.insert(owner(number), followed_with((0..3).map(visit)));
            seat_all(&mut owners);
            subscribe(&mut owners);
        }
        owners
    }

    const fn subscribed() -> Phase {
        Phase::Subscribed(Subscription {
            since: Instant::from_micros(0),
            probe: None,
        })
    }

    fn all(owners: &mut Owners) -> impl Iterator<Item = &mut Visit> {
        let owners = owners.values_mut();
        owners.flat_map(|followed| followed.mailboxes.values_mut())
    }

    fn subscribe(owners: &mut Owners) {
        for visit in all(owners).filter(|visit| visit.is_seated()) {
            visit.phase = subscribed();
        }
    }

    fn seated(owners: &Owners) -> Vec<usize> {
        owners.values().map(Followed::seated_count).collect()
    }

    #[test] // §10.5(5)
    fn every_inbox_has_a_place_before_one_has_two() {
        let mut owners = followed(64);
        let places = seated(&owners);
        assert_eq!(
            (places.iter().sum::<usize>(), places.iter().max()),
            (SUBSCRIPTIONS_MAX, Some(&1))
        );
        assert_eq!(seat_all(&mut owners), [], "who has one keeps it");
        assert_eq!(seated(&owners), places);
        for (inboxes, places) in [(13, 3), (20, 2), (40, 1)] {
            assert_eq!(seated(&followed(inboxes)), vec![places; inboxes as usize]);
        }
    }

    #[test] // §10.5(5)
    fn a_place_that_goes_to_another_inbox_ends_its_subscription() {
        let mut owners = followed(20);
        owners.insert(owner(20), followed_with((0..3).map(visit)));
        let ended = seat_all(&mut owners);
        assert_eq!(ended.len(), 1, "it has one now, and others have two");
        let visit = &owners[&ended[0].owner].mailboxes[&ended[0].queue];
        assert!(!visit.phase.is_subscription() && !visit.is_seated());
        assert_eq!(owners[&owner(20)].seated_count(), 1);
    }

    #[test] // §10.5(5)
    fn a_place_is_taken_once_nothing_is_fetched_from_its_mailbox() {
        let mut owners = followed(20);
        for visit in all(&mut owners) {
            visit.phase = Phase::Subscribed(Subscription {
                since: Instant::default(),
                probe: Some(Fetch::for_test()),
            });
        }
        owners.insert(owner(20), followed_with((0..3).map(visit)));
        let mut seating = Seating::default();
        assert_eq!(seat(&mut owners, &mut seating), []);
        assert!(!seating.take_open());
        all(&mut owners).for_each(|visit| drop(visit.phase.end_fetch()));
        seating.on_fetch_over();
        assert!(seating.take_open());
        assert_eq!(seat(&mut owners, &mut seating).len(), 1);
        seating.on_fetch_over();
        assert!(!seating.take_open(), "nothing waits for it now");
    }

    #[test] // §10.5(5)
    fn a_mailbox_out_of_reach_leaves_its_place_to_one_in_reach() {
        let mut owners = followed(64);
        let lost = all(&mut owners)
            .find(|visit| visit.is_seated())
            .expect("some have one");
        (lost.phase, lost.seen) = (Phase::Idle, Seen::Failed);
        let before = seated(&owners);
        assert_eq!(seat_all(&mut owners), []);
        assert_eq!(seated(&owners), before);
        let unreachable = all(&mut owners).find(|visit| visit.seen == Seen::Failed);
        assert!(unreachable.is_some_and(|visit| !visit.is_seated()));
    }

    #[test] // §10.2
    fn a_replaced_mailbox_keeps_its_place_while_its_subscription_lasts() {
        let seats = |retired: u8| {
            let visits = (0..100).map(|number| {
                let (queue, mut visit) = visit(number);
                if number < retired {
                    visit.set_listed(false);
                    visit.phase = subscribed();
                }
                (queue, visit)
            });
            let mut owners = Owners::from([(owner(0), followed_with(visits))]);
            seat_all(&mut owners);
            all(&mut owners).filter(|visit| visit.is_seated()).count()
        };
        assert_eq!(
            (seats(0), seats(15), seats(60)),
            (SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_MAX - 15, 0)
        );
    }
}
