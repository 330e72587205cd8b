//! Which mailboxes are subscribed to where there are more than places (docs/protocol.md §10.5(5)).
//!
//! Every inbox's first mailbox in reach has a place before any inbox's second has one, and so on. A
//! mailbox keeps its place until it is out of reach while another of its inbox is not, or until an
//! inbox with fewer places lacks one.

use std::collections::BTreeMap;

use umbel_proto::ids::QueueId;
use umbel_proto::time::Instant;

use super::Listener;
use super::visiting::{Seen, Visiting};

/// Most mailboxes with a subscription, each of which takes up a circuit; the others are polled.
pub(super) const SUBSCRIPTIONS_MAX: usize = 40;

/// Gives the places out; returns the mailboxes whose subscriptions end because their places went to
/// other inboxes.
pub(super) fn seat(listeners: &mut BTreeMap<String, Listener>) -> Vec<(String, QueueId)> {
    let mut interactive: Vec<(&String, &mut Listener)> = listeners
        .iter_mut()
        .filter(|(_, listener)| listener.is_interactive)
        .collect();
    for (_, listener) in &mut interactive {
        listener.leave_unreachable();
    }
    let taken: usize = interactive
        .iter()
        .map(|(_, listener)| listener.taken_count())
        .sum();
    let mut free = SUBSCRIPTIONS_MAX.saturating_sub(taken);
    let ranks = interactive
        .iter()
        .map(|(_, listener)| listener.current().count())
        .max()
        .unwrap_or_default();
    let mut ended = Vec::new();
    for rank in 0..ranks {
        for index in 0..interactive.len() {
            let Some((_, listener)) = interactive.get(index) else {
                continue;
            };
            let lacks_place = listener.seated_count() <= rank;
            if !lacks_place || !listener.has_candidate(free == 0) {
                continue;
            }
            if free > 0 {
                free -= 1;
            } else if !take_place(&mut interactive, rank + 1, &mut ended) {
                return ended;
            }
            if let Some((_, listener)) = interactive.get_mut(index) {
                listener.seat_next();
            }
        }
    }
    ended
}

/// Takes a place from the inbox that has the most of them, if it has more than `kept`.
fn take_place(
    interactive: &mut [(&String, &mut Listener)],
    kept: usize,
    ended: &mut Vec<(String, QueueId)>,
) -> bool {
    let most = interactive
        .iter_mut()
        .max_by_key(|(_, listener)| listener.seated_count())
        .filter(|(_, listener)| listener.seated_count() > kept);
    let Some((name, listener)) = most else {
        return false;
    };
    let Some((queue, had_subscription)) = listener.unseat_last() else {
        return false;
    };
    if had_subscription {
        ended.push((name.clone(), queue));
    }
    true
}

impl Listener {
    fn current(&self) -> impl Iterator<Item = &Visiting> {
        self.mailboxes
            .values()
            .filter(|visiting| visiting.is_current)
    }

    /// How many of the mailboxes that the descriptor names have a place.
    fn seated_count(&self) -> usize {
        self.current()
            .filter(|visiting| visiting.may_subscribe)
            .count()
    }

    /// How many places it takes up. A mailbox that was replaced keeps its subscription, and its
    /// circuit, for as long as that lasts.
    fn taken_count(&self) -> usize {
        let is_taken = |visiting: &&Visiting| visiting.has_place();
        self.mailboxes.values().filter(is_taken).count()
    }

    /// Whether a mailbox could take another place; only one in reach can if it `must_answer`.
    fn has_candidate(&self, must_answer: bool) -> bool {
        let mut candidates = self.current().filter(|visiting| !visiting.has_place());
        candidates.any(|visiting| !must_answer || visiting.is_in_reach())
    }

    /// Gives the next mailbox a place: one in reach if there is one.
    fn seat_next(&mut self) {
        let candidates = self.mailboxes.values_mut();
        let next = candidates
            .filter(|visiting| visiting.is_current && !visiting.has_place())
            .min_by_key(|visiting| !visiting.is_in_reach());
        if let Some(visiting) = next {
            visiting.may_subscribe = true;
        }
    }

    /// Takes the place that is missed least; says whose it was, and whether it had a subscription.
    fn unseat_last(&mut self) -> Option<(QueueId, bool)> {
        let seated = self.mailboxes.iter_mut().filter(|(_, visiting)| {
            visiting.is_current && visiting.may_subscribe && visiting.fetch.is_none()
        });
        let (&queue, visiting) = seated
            .max_by_key(|(_, visiting)| (!visiting.is_in_reach(), !visiting.is_answered()))?;
        Some((queue, visiting.leave_place()))
    }

    /// A mailbox out of reach leaves its place to one of the same inbox that is in reach.
    fn leave_unreachable(&mut self) {
        while self.has_candidate(true) {
            let unreachable = self.mailboxes.values_mut().find(|visiting| {
                visiting.may_subscribe && visiting.subscription.is_none() && !visiting.is_in_reach()
            });
            let Some(visiting) = unreachable else { return };
            visiting.leave_place();
            self.seat_next();
        }
    }
}

impl Visiting {
    fn has_place(&self) -> bool {
        self.may_subscribe || self.subscription.is_some()
    }

    fn is_in_reach(&self) -> bool {
        self.seen != Seen::Failed
    }

    fn is_answered(&self) -> bool {
        let subscription = self.subscription.as_ref();
        subscription.is_some_and(|subscription| subscription.has_answered)
    }

    /// It is polled from now on; says whether it had a subscription, which is over.
    fn leave_place(&mut self) -> bool {
        self.may_subscribe = false;
        let had_subscription = self.subscription.take().is_some();
        if had_subscription && !matches!(self.seen, Seen::Empty | Seen::Failed) {
            self.next_at = Instant::default(); // the subscription was to bring what there is
        }
        had_subscription
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::RelayId;

    use super::super::visiting::Subscription;
    use super::super::{Fetching, OwnMailbox};
    use super::*;

    fn visiting(number: u8) -> (QueueId, Visiting) {
        let queue = QueueId([number; QueueId::LEN]);
        let mailbox = OwnMailbox::for_test(RelayId([number; RelayId::LEN]), queue);
        (queue, Visiting::new(&mailbox))
    }

    fn listener(mailboxes: u8) -> Listener {
        Listener {
            is_interactive: true,
            mailboxes: (0..mailboxes).map(visiting).collect(),
            ..Listener::default()
        }
    }

    /// Follows these inboxes one after the other, as a client's commands come.
    fn followed(inboxes: usize) -> Fetching {
        let mut fetching = Fetching::default();
        for number in 0..inboxes {
            let name = format!("box{number:02}");
            fetching.listeners.insert(name, listener(3));
            seat(&mut fetching.listeners);
            subscribe(&mut fetching);
        }
        fetching
    }

    fn subscribe(fetching: &mut Fetching) {
        for visiting in fetching
            .listeners
            .values_mut()
            .flat_map(|listener| listener.mailboxes.values_mut())
            .filter(|visiting| visiting.may_subscribe)
        {
            visiting.subscription = Some(Subscription {
                since: Instant::default(),
                has_answered: true,
            });
        }
    }

    fn seated(fetching: &Fetching) -> Vec<usize> {
        let listeners = fetching.listeners.values();
        listeners.map(Listener::seated_count).collect()
    }

    #[test] // §10.5(5)
    fn every_inbox_has_a_place_before_one_has_two() {
        let mut fetching = followed(64);
        let places = seated(&fetching);
        assert_eq!(
            (places.iter().sum::<usize>(), places.iter().max()),
            (SUBSCRIPTIONS_MAX, Some(&1))
        );
        assert_eq!(seat(&mut fetching.listeners), [], "who has one keeps it");
        assert_eq!(seated(&fetching), places);
        for (inboxes, places) in [(13, 3), (20, 2), (40, 1)] {
            assert_eq!(seated(&followed(inboxes)), vec![places; inboxes]);
        }
    }

    #[test] // §10.5(5)
    fn a_place_that_goes_to_another_inbox_ends_its_subscription() {
        let mut fetching = followed(20);
        fetching.listeners.insert("new".to_owned(), listener(3));
        let ended = seat(&mut fetching.listeners);
        assert_eq!(ended.len(), 1, "it has one now, and others have two");
        let (name, queue) = &ended[0];
        let visiting = &fetching.listeners[name].mailboxes[queue];
        assert!(visiting.subscription.is_none() && !visiting.may_subscribe);
        assert_eq!(fetching.listeners["new"].seated_count(), 1);
    }

    #[test] // §10.5(5)
    fn a_mailbox_out_of_reach_leaves_its_place_to_one_in_reach() {
        let mut fetching = followed(64);
        let listener = fetching
            .listeners
            .values_mut()
            .find(|listener| listener.seated_count() == 1)
            .expect("some have one");
        let lost = listener
            .mailboxes
            .values_mut()
            .find(|visiting| visiting.may_subscribe)
            .expect("it has one");
        (lost.subscription, lost.seen) = (None, Seen::Failed);
        let before = seated(&fetching);
        assert_eq!(seat(&mut fetching.listeners), []);
        assert_eq!(seated(&fetching), before);
        let unreachable = fetching
            .listeners
            .values()
            .flat_map(|listener| listener.mailboxes.values())
            .find(|visiting| visiting.seen == Seen::Failed);
        assert!(unreachable.is_some_and(|visiting| !visiting.may_subscribe));
    }
}
