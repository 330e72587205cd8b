//! Companions: mailboxes that stand beside those whose holders are out of reach, so that senders find
//! holders that answer (docs/protocol.md §10.5(6)).
//!
//! No companion is one certain mailbox's: there are as many as mailboxes are out of reach, up to a
//! bound. One that is no longer needed is left, and comes back before a holder is drawn
//! anew: a holder that comes and goes, or is made to, must not have its owner draw until the right one
//! is drawn.
//!
//! An outage is *long* once it has lasted for long enough, until it is over; *out* while it is long and
//! the holder does not answer; *final* once there is nothing left to wait for. A mailbox is *over* if
//! its outage is final. Companions are made for mailboxes that are out, and kept for those whose
//! outage is long: one does not leave before the holder has been back for a while.

use umbel_proto::ids::QueueId;
use umbel_proto::limits::{COMPANIONS_MAX, COMPANIONS_SOON_EVERY};
use umbel_proto::path::Paths;
use umbel_proto::time::WallTime;

use super::super::context::Context;
use super::{Change, Mailboxes, OwnMailbox};

impl Mailboxes {
    /// Decides which mailboxes senders are told of besides the usual ones, and which no longer: one
    /// step, and what it changed.
    pub(super) fn see_to_companions(
        &mut self,
        cx: &mut Context<'_>,
        paths: &Paths,
    ) -> Option<Change> {
        if self.note_long_outages(cx) {
            return Some(Change::State);
        }
        if self.give_up(cx) {
            return Some(Change::Replaced);
        }
        let needed = self.usual().filter(|it| is_out(it)).count();
        let needed = needed.min(COMPANIONS_MAX);
        if self.companions().filter(|it| !is_out(it)).count() < needed {
            if self.recall() {
                return Some(Change::Listed);
            }
            if self.add(cx, paths, true) {
                return Some(Change::State);
            }
        }
        if self.drop_unneeded(needed) {
            return Some(Change::State);
        }
        if self.retire_unneeded(cx) {
            return Some(Change::Listed);
        }
        assert!(self.companions().filter(|it| it.is_created).count() <= COMPANIONS_MAX);
        None
    }

    /// The listed mailboxes that are no companions.
    fn usual(&self) -> impl Iterator<Item = &OwnMailbox> {
        self.listed().filter(|mailbox| !mailbox.is_companion)
    }

    /// Companions that senders are told of, and those that are being made for it.
    fn companions(&self) -> impl Iterator<Item = &OwnMailbox> {
        let companions = self.all.iter();
        companions.filter(|mailbox| mailbox.is_companion && mailbox.retired_at.is_none())
    }

    /// An outage becomes long only by a visit that failed in this run. Says whether any has.
    fn note_long_outages(&mut self, cx: &Context<'_>) -> bool {
        let is_cut_off = self.is_cut_off(cx);
        let health = &self.health;
        let is_failing = |queue: &QueueId| health.get(queue).is_some_and(|it| it.is_failing);
        let failing = self.all.iter_mut().filter(|it| is_failing(&it.queue));
        let mut is_any = false;
        for outage in failing.filter_map(|mailbox| mailbox.outage.as_mut()) {
            is_any |= outage.grow_long(&cx.network.params, is_cut_off);
        }
        is_any
    }

    /// Whether nobody can write to the owner, as it seems. But not if a mailbox was left lately: an
    /// attacker who feigns that must not make us forget mailboxes that hold mail.
    fn is_cut_off(&self, cx: &Context<'_>) -> bool {
        let is_recent = |at: WallTime| at + COMPANIONS_SOON_EVERY > cx.confirmed;
        let mut left_at = self.all.iter().filter_map(|it| it.retired_at);
        let is_dead =
            |mailbox: &OwnMailbox| self.health.get(&mailbox.queue).is_some_and(|it| it.is_dead);
        self.listed().all(is_dead) && !left_at.any(is_recent)
    }

    /// A companion takes the place of a mailbox that there is nothing left to wait for. Says whether
    /// one has.
    fn give_up(&mut self, cx: &Context<'_>) -> bool {
        let mut mailboxes = self.all.iter();
        let old = mailboxes.position(is_over);
        let companion = self.all.iter().position(is_sound);
        let (Some(old), Some(companion)) = (old, companion) else {
            return false;
        };
        if let Some(mailbox) = self.all.get_mut(companion) {
            mailbox.is_companion = false;
        }
        if let Some(mailbox) = self.all.get_mut(old) {
            mailbox.retired_at = Some(cx.wall);
        }
        self.has_moved = true;
        true
    }

    /// Lists the mailbox again that was left last, of those whose holders are in reach. Says whether
    /// there was one.
    fn recall(&mut self) -> bool {
        let left = self.all.iter_mut();
        let last = left
            .filter(|mailbox| mailbox.is_created && mailbox.outage.is_none())
            .filter(|mailbox| mailbox.retired_at.is_some())
            .max_by_key(|mailbox| mailbox.retired_at);
        let Some(mailbox) = last else { return false };
        mailbox.retired_at = None;
        mailbox.is_companion = true;
        self.has_moved = true;
        true
    }

    /// Makes no more companions than are needed. Says whether it dropped any.
    fn drop_unneeded(&mut self, needed: usize) -> bool {
        let made = self.companions().filter(|it| it.is_created && !is_out(it));
        let spare = needed.saturating_sub(made.count());
        let unmade = self.companions().filter(|it| !it.is_created);
        let unneeded: Vec<QueueId> = unmade.skip(spare).map(|it| it.queue).collect();
        for &queue in &unneeded {
            self.drop_uncreated(queue);
        }
        !unneeded.is_empty()
    }

    /// Senders are no longer told of companions that no outage needs any more: first of those that are
    /// out of reach themselves, then of those that came last. Says whether there were any.
    fn retire_unneeded(&mut self, cx: &Context<'_>) -> bool {
        let long = self
            .usual()
            .filter(|it| it.outage.is_some_and(|it| it.is_long()));
        let kept = long.count().min(COMPANIONS_MAX);
        let made = self.all.iter_mut().enumerate();
        let mut made: Vec<_> = made
            .filter(|(_, mailbox)| mailbox.is_companion && mailbox.is_listed())
            .collect();
        made.sort_by_key(|(place, mailbox)| (is_out(mailbox), *place));
        let mut unneeded = made.into_iter().skip(kept).peekable();
        let is_any = unneeded.peek().is_some();
        for (_, mailbox) in unneeded {
            mailbox.retired_at = Some(cx.wall);
        }
        self.has_moved |= is_any;
        is_any
    }
}

/// Whether its holder is out of reach, for long.
fn is_out(mailbox: &OwnMailbox) -> bool {
    mailbox.outage.is_some_and(|outage| outage.is_out())
}

/// Whether it is a usual mailbox that there is nothing left to wait for.
fn is_over(mailbox: &OwnMailbox) -> bool {
    let is_final = mailbox.outage.is_some_and(|outage| outage.is_final());
    is_final && mailbox.is_listed() && !mailbox.is_companion
}

/// Whether it is a companion that can take another's place.
fn is_sound(mailbox: &OwnMailbox) -> bool {
    mailbox.is_companion && mailbox.is_listed() && mailbox.outage.is_none()
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::RelayId;
    use umbel_proto::limits::{LEFT_MAILBOXES_MAX, MAILBOXES_MAX};
    use umbel_proto::time::Duration;

    use super::super::super::testing::When;
    use super::super::{Outage, Outcome};
    use super::*;

    const START: WallTime = WallTime(1_790_000_000);

    /// An inbox's three mailboxes.
    fn inbox(cx: &mut Context<'_>, paths: &Paths) -> Mailboxes {
        let mut inbox = Mailboxes::default();
        mend(cx, &mut inbox, paths);
        create(&mut inbox);
        assert_eq!(inbox.listed().count(), 3);
        inbox
    }

    /// Mends for as long as there is something to do. How often one was replaced.
    fn mend(cx: &mut Context<'_>, inbox: &mut Mailboxes, paths: &Paths) -> usize {
        let changes = std::iter::from_fn(|| inbox.mend(cx, paths, 3));
        changes.filter(|it| *it == Change::Replaced).count()
    }

    /// The holders make what they are asked for.
    fn create(inbox: &mut Mailboxes) {
        let made = inbox.all.iter_mut();
        made.for_each(|mailbox| mailbox.is_created = true);
    }

    fn queues(inbox: &Mailboxes) -> Vec<QueueId> {
        inbox.listed().map(|mailbox| mailbox.queue).collect()
    }

    /// The holders of these fail for an hour and more, or answer for as long; then holders make what
    /// they are asked for.
    fn visit(
        cx: &mut Context<'_>,
        inbox: &mut Mailboxes,
        paths: &Paths,
        queues: &[QueueId],
        is_up: bool,
    ) -> usize {
        let outcome = if is_up {
            Outcome::Answered
        } else {
            Outcome::Unreachable
        };
        let mut replaced = 0;
        for _ in 0..10 {
            cx.wall = cx.wall + Duration::from_secs(600);
            cx.confirmed = cx.wall;
            for &queue in queues {
                inbox.on_outcome(cx, queue, outcome);
            }
            replaced += mend(cx, inbox, paths);
            create(inbox);
            replaced += mend(cx, inbox, paths);
            assert!(inbox.listed().count() <= MAILBOXES_MAX);
        }
        replaced
    }

    fn with_inbox<T>(act: impl FnOnce(&mut Context<'_>, &mut Mailboxes, &Paths) -> T) -> T {
        let relays: Vec<u8> = (0..40).collect();
        let act = |cx: &mut Context<'_>| {
            let mut paths = Paths::default();
            paths.refresh(cx.known(), cx.rng);
            let mut inbox = inbox(cx, &paths);
            act(cx, &mut inbox, &paths)
        };
        When::at(START).act_knowing(&relays, act).0
    }

    #[test] // §10.5(6)
    fn however_many_are_out_of_reach_two_companions_are_listed() {
        with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            for (out, listed) in [(1, 4), (2, 5), (3, 5)] {
                visit(cx, inbox, paths, &usual[..out], false);
                assert_eq!(inbox.listed().count(), listed);
                assert_eq!(inbox.out_of_reach(), out);
            }
            visit(cx, inbox, paths, &usual, true);
            assert_eq!(queues(inbox), usual);
        });
    }

    #[test] // §10.5(6)
    fn companions_out_of_reach_are_replaced_and_those_in_reach_come_back() {
        with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            visit(cx, inbox, paths, &usual[..1], false);
            let first = queues(inbox)[3];
            visit(cx, inbox, paths, &[usual[0], first], false);
            let second = queues(inbox)[3];
            assert!(inbox.listed().count() == 4 && second != first);
            visit(cx, inbox, paths, &usual[..1], true);
            assert_eq!(queues(inbox), usual);
            let made = inbox.all.len();
            visit(cx, inbox, paths, &usual[1..2], false);
            assert_eq!(queues(inbox)[3], second);
            assert_eq!(inbox.all.len(), made);
        });
    }

    #[test] // §10.5(6)
    fn companions_take_the_places_of_mailboxes_that_are_given_up() {
        let replaced = with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            // Ten visits are 100 minutes.
            let mut visits = |inbox: &mut Mailboxes, count: usize| -> usize {
                let visits = (0..count).map(|_| visit(cx, inbox, paths, &usual[..1], false));
                visits.sum()
            };
            assert_eq!(visits(inbox, 40), 0);
            assert_eq!(inbox.listed().count(), 4);
            let replaced = visits(inbox, 20);
            assert_eq!(queues(inbox)[..2], usual[1..]);
            assert_eq!((inbox.listed().count(), inbox.out_of_reach()), (3, 0));
            assert_eq!(inbox.companions().count(), 0);
            replaced
        });
        assert_eq!(replaced, 1);
    }

    #[test] // §10.5(6)
    fn mailboxes_that_are_gone_are_replaced_at_once_before_others() {
        let replaced = with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            let mut replaced = visit(cx, inbox, paths, &usual[..2], false);
            inbox.on_outcome(cx, usual[2], Outcome::Gone);
            for _ in 0..2 {
                replaced += mend(cx, inbox, paths);
                create(inbox);
            }
            let listed = queues(inbox);
            assert!(!listed.contains(&usual[2]) && listed[..2] == usual[..2]);
            assert_eq!(inbox.listed().count(), 5);
            replaced
        });
        assert_eq!(replaced, 1);
    }

    #[test] // §10.5(6)
    fn of_too_many_that_left_a_companion_that_was_emptied_is_forgotten_first() {
        with_inbox(|cx, inbox, _| {
            // The first companion that left can't be fetched from. All left in one second.
            let left: Vec<QueueId> = (0..=LEFT_MAILBOXES_MAX)
                .map(|place| QueueId([u8::try_from(place).unwrap(); QueueId::LEN]))
                .collect();
            for (place, &queue) in left.iter().enumerate() {
                let mut mailbox = OwnMailbox::for_test(RelayId([1; RelayId::LEN]), queue);
                mailbox.is_companion = place % 3 == 0;
                mailbox.outage = (place == 0).then(|| Outage::begin(cx));
                mailbox.retired_at = Some(cx.wall);
                inbox.all.push(mailbox);
            }
            let forgets = |inbox: &mut Mailboxes| {
                inbox.forget_retired(cx);
                let is_there = |queue: &QueueId| inbox.all.iter().any(|it| it.queue == *queue);
                left.iter()
                    .copied()
                    .filter(|it| !is_there(it))
                    .collect::<Vec<_>>()
            };
            assert_eq!(forgets(inbox), [left[3]], "one, and none with an outage");
            assert_eq!(forgets(inbox), [left[3]]);
            inbox.all.iter_mut().for_each(|it| it.is_companion = false);
            inbox.all[0].retired_at = Some(cx.wall + Duration::from_secs(1));
            assert_eq!(
                forgets(inbox),
                [left[0], left[3]],
                "else the first that left"
            );
        });
    }

    #[test] // §10.5(6)
    fn a_companion_that_is_not_made_yet_is_dropped_when_the_holder_answers() {
        with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            inbox.on_outcome(cx, usual[0], Outcome::Unreachable);
            cx.wall = cx.wall + Duration::from_secs(3600);
            cx.confirmed = cx.wall;
            inbox.on_outcome(cx, usual[0], Outcome::Unreachable);
            mend(cx, inbox, paths);
            assert_eq!(inbox.companions().count(), 1);
            inbox.on_outcome(cx, usual[0], Outcome::Answered);
            mend(cx, inbox, paths);
            assert_eq!(inbox.companions().count(), 0);
        });
    }
}
