//! Companions: mailboxes that stand beside those whose holders are out of reach, so that senders find
//! holders that answer (docs/protocol.md §10.5(6)).
//!
//! No companion is one certain mailbox's: there are as many as mailboxes are out of reach, up to a
//! bound. One that is no longer needed leaves the descriptor, and comes back before a holder is drawn
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

use super::super::super::context::Context;
use super::super::super::io::Warning;
use super::super::stored::OwnMailbox;
use super::Inbox;

impl Inbox {
    /// Decides which mailboxes the descriptor names besides the usual ones, and which leave it.
    pub(super) fn see_to_companions(&mut self, cx: &mut Context<'_>, paths: &Paths, name: &str) {
        self.note_long_outages(cx);
        self.give_up(cx, name);
        let needed = self.usual().filter(|it| is_out(it)).count();
        let needed = needed.min(COMPANIONS_MAX);
        while self.companions().filter(|it| !is_out(it)).count() < needed
            && (self.recall(cx) || self.add_mailbox(cx, paths, true))
        {}
        self.drop_unneeded(cx, needed);
        self.retire_unneeded(cx);
        assert!(self.companions().filter(|it| it.is_created).count() <= COMPANIONS_MAX);
    }

    /// The listed mailboxes that are no companions.
    fn usual(&self) -> impl Iterator<Item = &OwnMailbox> {
        self.created().filter(|mailbox| !mailbox.is_companion)
    }

    /// Companions in the descriptor, and those that are being made for it.
    fn companions(&self) -> impl Iterator<Item = &OwnMailbox> {
        let companions = self.mailboxes.iter();
        companions.filter(|mailbox| mailbox.is_companion && mailbox.retired_at.is_none())
    }

    /// An outage becomes long only by a visit that failed in this run.
    fn note_long_outages(&mut self, cx: &Context<'_>) {
        let is_cut_off = self.is_cut_off(cx);
        let health = &self.health;
        let is_failing = |queue: &QueueId| health.get(queue).is_some_and(|it| it.is_failing);
        let failing = self.mailboxes.iter_mut().filter(|it| is_failing(&it.queue));
        let mut is_any = false;
        for outage in failing.filter_map(|mailbox| mailbox.outage.as_mut()) {
            is_any |= outage.grow_long(&cx.network.params, is_cut_off);
        }
        if is_any {
            self.touch(cx);
        }
    }

    /// Whether nobody can write to the inbox, as it seems. But not if a mailbox left the descriptor
    /// lately: an attacker who feigns that must not make us forget mailboxes that hold mail.
    fn is_cut_off(&self, cx: &Context<'_>) -> bool {
        let is_recent = |at: WallTime| at + COMPANIONS_SOON_EVERY > cx.confirmed;
        let mut left_at = self.mailboxes.iter().filter_map(|it| it.retired_at);
        let is_dead =
            |mailbox: &OwnMailbox| self.health.get(&mailbox.queue).is_some_and(|it| it.is_dead);
        self.created().all(is_dead) && !left_at.any(is_recent)
    }

    /// Companions take the places of mailboxes that there is nothing left to wait for.
    fn give_up(&mut self, cx: &mut Context<'_>, name: &str) {
        while self.mailboxes.iter().any(is_over)
            && let Some(companion) = self.mailboxes.iter_mut().find(|it| is_sound(it))
        {
            companion.is_companion = false;
            if let Some(old) = self.mailboxes.iter_mut().find(|it| is_over(it)) {
                old.retired_at = Some(cx.wall);
            }
            self.change(cx);
            cx.warn(Warning::MailboxReplaced {
                inbox: name.to_owned(),
            });
        }
    }

    /// Lists the mailbox again that left the descriptor last, of those whose holders are in reach.
    fn recall(&mut self, cx: &mut Context<'_>) -> bool {
        let left = self.mailboxes.iter_mut();
        let last = left
            .filter(|mailbox| mailbox.is_created && mailbox.outage.is_none())
            .filter(|mailbox| mailbox.retired_at.is_some())
            .max_by_key(|mailbox| mailbox.retired_at);
        let Some(mailbox) = last else { return false };
        mailbox.retired_at = None;
        mailbox.is_companion = true;
        self.change(cx);
        true
    }

    /// Makes no more companions than are needed.
    fn drop_unneeded(&mut self, cx: &Context<'_>, needed: usize) {
        let made = self.companions().filter(|it| it.is_created && !is_out(it));
        let spare = needed.saturating_sub(made.count());
        let unmade = self.companions().filter(|it| !it.is_created);
        let unneeded: Vec<QueueId> = unmade.skip(spare).map(|it| it.queue).collect();
        for queue in unneeded {
            self.drop_uncreated(cx, queue);
        }
    }

    /// Companions leave the descriptor that no outage needs any more: first those that are out of
    /// reach themselves, then those that came last.
    fn retire_unneeded(&mut self, cx: &mut Context<'_>) {
        let long = self
            .usual()
            .filter(|it| it.outage.is_some_and(|it| it.is_long()));
        let kept = long.count().min(COMPANIONS_MAX);
        let made = self.mailboxes.iter_mut().enumerate();
        let mut made: Vec<_> = made
            .filter(|(_, mailbox)| mailbox.is_companion && mailbox.is_listed())
            .collect();
        made.sort_by_key(|(place, mailbox)| (is_out(mailbox), *place));
        let mut unneeded = made.into_iter().skip(kept).peekable();
        let is_any = unneeded.peek().is_some();
        for (_, mailbox) in unneeded {
            mailbox.retired_at = Some(cx.wall);
        }
        if is_any {
            self.change(cx);
        }
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

    use super::super::super::super::testing::When;
    use super::super::super::Visit;
    use super::super::Outage;
    use super::*;

    const START: WallTime = WallTime(1_790_000_000);

    /// An inbox with its three mailboxes.
    fn inbox(cx: &mut Context<'_>, paths: &Paths) -> Inbox {
        let mut inbox = Inbox::generate(cx);
        inbox.plan(cx, paths);
        create(&mut inbox);
        assert_eq!(inbox.created().count(), 3);
        inbox
    }

    /// The holders make what they are asked for.
    fn create(inbox: &mut Inbox) {
        let made = inbox.mailboxes.iter_mut();
        made.for_each(|mailbox| mailbox.is_created = true);
    }

    fn queues(inbox: &Inbox) -> Vec<QueueId> {
        inbox.created().map(|mailbox| mailbox.queue).collect()
    }

    /// The holders of these fail for an hour and more, or answer for as long; then holders make what
    /// they are asked for.
    fn visit(
        cx: &mut Context<'_>,
        inbox: &mut Inbox,
        paths: &Paths,
        queues: &[QueueId],
        is_up: bool,
    ) {
        let visit = if is_up {
            Visit::Answered
        } else {
            Visit::Unreachable
        };
        for _ in 0..10 {
            cx.wall = cx.wall + Duration::from_secs(600);
            cx.confirmed = cx.wall;
            queues
                .iter()
                .for_each(|&queue| inbox.on_visit(cx, queue, visit));
            inbox.see_to_companions(cx, paths, "help");
            create(inbox);
            inbox.see_to_companions(cx, paths, "help");
            assert!(inbox.created().count() <= MAILBOXES_MAX);
        }
    }

    fn with_inbox(act: impl FnOnce(&mut Context<'_>, &mut Inbox, &Paths)) -> usize {
        let relays: Vec<u8> = (0..40).collect();
        let act = |cx: &mut Context<'_>| {
            let mut paths = Paths::default();
            paths.refresh(cx.known(), cx.rng);
            let mut inbox = inbox(cx, &paths);
            act(cx, &mut inbox, &paths);
        };
        let (_, notices) = When::at(START).act_knowing(&relays, act);
        notices.len()
    }

    #[test] // §10.5(6)
    fn however_many_are_out_of_reach_two_companions_are_listed() {
        with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            for (out, listed) in [(1, 4), (2, 5), (3, 5)] {
                visit(cx, inbox, paths, &usual[..out], false);
                assert_eq!(inbox.created().count(), listed);
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
            assert!(inbox.created().count() == 4 && second != first);
            visit(cx, inbox, paths, &usual[..1], true);
            assert_eq!(queues(inbox), usual);
            let made = inbox.mailboxes.len();
            visit(cx, inbox, paths, &usual[1..2], false);
            assert_eq!(queues(inbox)[3], second);
            assert_eq!(inbox.mailboxes.len(), made);
        });
    }

    #[test] // §10.5(6)
    fn companions_take_the_places_of_mailboxes_that_are_given_up() {
        let told = with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            // Ten visits are 100 minutes.
            (0..40).for_each(|_| visit(cx, inbox, paths, &usual[..1], false));
            assert_eq!(inbox.created().count(), 4);
            (0..20).for_each(|_| visit(cx, inbox, paths, &usual[..1], false));
            assert_eq!(queues(inbox)[..2], usual[1..]);
            assert_eq!((inbox.created().count(), inbox.out_of_reach()), (3, 0));
            assert_eq!(inbox.companions().count(), 0);
        });
        assert_eq!(told, 1);
    }

    #[test] // §10.5(6)
    fn mailboxes_that_are_gone_are_replaced_at_once_before_others() {
        let told = with_inbox(|cx, inbox, paths| {
            let usual = queues(inbox);
            visit(cx, inbox, paths, &usual[..2], false);
            inbox.on_visit(cx, usual[2], Visit::Gone);
            for _ in 0..2 {
                inbox.see_to_companions(cx, paths, "help");
                create(inbox);
            }
            let listed = queues(inbox);
            assert!(!listed.contains(&usual[2]) && listed[..2] == usual[..2]);
            assert_eq!(inbox.created().count(), 5);
        });
        assert_eq!(told, 1);
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
                inbox.mailboxes.push(mailbox);
            }
            let forgets = |inbox: &mut Inbox| {
                inbox.forget_retired(cx);
                let is_there =
                    |queue: &QueueId| inbox.mailboxes.iter().any(|it| it.queue == *queue);
                left.iter()
                    .copied()
                    .filter(|it| !is_there(it))
                    .collect::<Vec<_>>()
            };
            assert_eq!(forgets(inbox), [left[3]], "one, and none with an outage");
            assert_eq!(forgets(inbox), [left[3]]);
            inbox
                .mailboxes
                .iter_mut()
                .for_each(|it| it.is_companion = false);
            inbox.mailboxes[0].retired_at = Some(cx.wall + Duration::from_secs(1));
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
            inbox.on_visit(cx, usual[0], Visit::Unreachable);
            cx.wall = cx.wall + Duration::from_secs(3600);
            cx.confirmed = cx.wall;
            inbox.on_visit(cx, usual[0], Visit::Unreachable);
            inbox.see_to_companions(cx, paths, "help");
            assert_eq!(inbox.companions().count(), 1);
            inbox.on_visit(cx, usual[0], Visit::Answered);
            inbox.see_to_companions(cx, paths, "help");
            assert_eq!(inbox.companions().count(), 0);
        });
    }
}
