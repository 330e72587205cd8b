//! The core after each input: every machine does its due work, until none has anything to do for
//! another (docs/decisions/039-what-is-due-and-nothing-else.md).
//!
//! The only place where machines meet: answers go back to the machine that asked, and what a visit
//! brought to the mailbox's owner.

use std::net::IpAddr;
use std::sync::Arc;

use rand::CryptoRng;
use umbel_proto::directory::{Listing, Source};
use umbel_proto::ids::RelayId;
use umbel_proto::time::{Duration, Moment};

use super::contacts::ContactId;
use super::inboxes::InboxId;
use super::known::{Forged, Teller};
use super::mailbox::{MailboxId, Owner, Visited};
use super::outbox::{ForContact, Post};
use super::requests::{Answer, Asker};
use super::sync::Received;
use super::{Core, WAKE_JUDGED_AFTER};

/// Rounds after one input in which machines set each other going, at most. No input takes so many: if
/// one does, the rest is done at the next timeout, which is due at once.
const ROUNDS_MAX: usize = 64;

impl Core {
    /// Lets every part do what is due, until none has anything more to do for another.
    pub(super) fn drive(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        let before = core::mem::replace(&mut self.driven_at, moment);
        self.is_behind = false;
        if self.is_stopped {
            return;
        }
        self.look_at_clock(moment);
        let was_alone = self.sync.is_alone(before.now);
        if self.shared.expire(moment) || (was_alone && !self.sync.is_alone(moment.now)) {
            self.look_at_view(moment);
        }
        let has_woken = core::mem::take(&mut self.has_woken);
        if core::mem::take(&mut self.shared.is_clock_jumped) {
            self.sync.handle_clock_set();
            // Links from before a sleep are closed by then: what they said of clocks says nothing.
            let wait = if has_woken {
                WAKE_JUDGED_AFTER
            } else {
                Duration::ZERO
            };
            self.judges_at = Some(moment.now + wait);
        }
        if self.judges_at.take_if(|at| *at <= moment.now).is_some() {
            let mut cx = self.shared.context(moment, rng);
            self.pool.links.judge_clock(&mut cx);
        }
        for round in 0.. {
            if !self.run_round(moment, rng) {
                break;
            }
            if round == ROUNDS_MAX {
                debug_assert!(false, "machines set each other going for ever");
                self.is_behind = true;
                break;
            }
        }
        let mut cx = self.shared.context(moment, rng);
        self.pool
            .tidy_links(&mut cx, |relay| self.sync.wants(relay));
        self.pool.tell(&mut cx);
    }

    /// Lets every machine do what is due once, and passes on what was answered. Whether that may have
    /// given another something to do.
    fn run_round(&mut self, moment: Moment, rng: &mut dyn CryptoRng) -> bool {
        let expected = self.expected_stubs();
        let mut cx = self.shared.context(moment, rng);
        let are_all_tried = self.sync.are_all_tried(&self.pool, moment.now);
        let have_moved = [
            self.inboxes.take_holders_moved(),
            self.contacts.take_holders_moved(),
        ];
        if have_moved.contains(&true) {
            let holders = self.inboxes.holders().chain(self.contacts.holders());
            self.pool.paths.avoid_holders(holders);
        }
        self.pool.drive(&mut cx, expected, are_all_tried);
        self.sync.drive(&mut cx, &mut self.pool, &mut self.requests);
        self.lookups.drive(&mut cx, &mut self.requests);
        let (lookups, requests) = (&mut self.lookups, &mut self.requests);
        self.inboxes
            .drive(&mut cx, lookups, requests, &self.pool.paths);
        self.contacts
            .drive(&mut cx, requests, &self.inboxes, &self.pool.paths);
        self.outbox.drive(
            &mut cx,
            &mut Post {
                lookups,
                requests,
                contacts: &mut self.contacts,
                inboxes: &self.inboxes,
            },
        );
        self.inboxes.tell_efforts(&mut cx, &mut self.errands);
        self.errands.drive(&cx, requests);
        let has_said = self.pass_on_what_is_said(moment, rng);
        self.follow_moved(moment);
        let mut cx = self.shared.context(moment, rng);
        for caught_up in self.visits.drive(&mut cx, &mut self.requests) {
            self.catching_up.on_caught_up(&caught_up);
        }
        self.catching_up.tell(&mut cx, &self.inboxes);
        let answers = self.requests.drive(&mut cx, &mut self.pool);
        if self.requests.take_met_unknown() {
            self.sync.on_unknown_relay(&cx);
        }
        for relay in self.pool.take_rule_breakers() {
            self.sync.on_violation(&mut cx, relay);
            self.requests.forget_sync(relay);
        }
        let is_news = self.sync.are_all_tried(&self.pool, moment.now) != are_all_tried;
        let is_over = answers.is_empty() && !self.pool.has_events() && !is_news && !has_said;
        for (asker, answer) in answers {
            self.on_answer(moment, asker, answer, rng);
        }
        !is_over
    }

    /// How many stubs are about to be needed. More than usual only where all copies of a message
    /// leave together anyway: elsewhere circuits made now would show the guard that a message is
    /// about to be sent.
    pub(super) fn expected_stubs(&self) -> usize {
        let params = &self.shared.network.params;
        if params.second_deposit_delay.is_zero() && self.outbox.is_finding() {
            params.mailboxes
        } else {
            0
        }
    }

    /// Who passed this on, and whether what it lists counts: a relay that is linked to has to be where
    /// its descriptor says (§8.2(3)).
    fn teller_of(&self, received: &Received) -> Teller {
        let (relay, network) = (received.source, &self.shared.network);
        let known = self.shared.book.view().get(&relay);
        let remote = self.pool.links.remote(relay);
        let source = if received.isolation.is_direct() {
            let linked = known.zip(remote);
            linked.and_then(|(known, remote)| Source::linked(network, known, remote.ip()))
        } else {
            known.map(|known| Source::dialled_by_others(network, known))
        };
        let counts = source.is_some();
        let elsewhere = || remote.into_iter().flat_map(|it| network.groups_of(it));
        let source = source.unwrap_or_else(|| Source {
            relay,
            groups: elsewhere().collect(),
        });
        Teller {
            source: Arc::new(source),
            counts,
        }
    }

    /// Where a relay that is linked to is, if its descriptor doesn't say so.
    fn elsewhere(&self, relay: RelayId) -> Option<IpAddr> {
        let known = self.shared.book.view().get(&relay)?;
        let ip = self.pool.links.remote(relay)?.ip().to_canonical();
        let linked = Source::linked(&self.shared.network, known, ip);
        linked.is_none().then_some(ip)
    }

    /// Takes what a source of the view passed on; returns what it lists, if that was all.
    ///
    /// # Errors
    /// [`Forged`]: nothing more of it is to be looked at, since each costs up to fourteen checks.
    fn take_received(
        &mut self,
        Moment { now, wall }: Moment,
        received: Received,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<(Arc<Source>, Listing)>, Forged> {
        let teller = self.teller_of(&received);
        for unverified in received.descriptors {
            let relay = unverified.relay();
            if self.shared.learn(wall, &teller, unverified, rng)? {
                self.sync.handle_news(now, relay);
            }
        }
        if let Some(listing) = &received.listing {
            for relay in self.shared.learn_unvouched(wall, &teller, rng)? {
                self.sync.handle_news(now, relay);
            }
            self.shared.handle_listing(&teller, listing);
            if received.isolation.is_direct() {
                let elsewhere = self.elsewhere(listing.source);
                let mut cx = self.shared.context(Moment { now, wall }, rng);
                self.sync.handle_place(&mut cx, listing.source, elsewhere);
            }
        }
        Ok(received.listing.map(|listing| (teller.source, listing)))
    }

    /// A source of the view answered, or did not.
    fn on_sync_answer(
        &mut self,
        moment: Moment,
        serial: u64,
        answer: Answer,
        rng: &mut dyn CryptoRng,
    ) {
        let mut cx = self.shared.context(moment, rng);
        let received =
            self.sync
                .on_answer(&mut cx, &mut self.pool, &mut self.requests, serial, answer);
        let listing = received.and_then(|received| {
            let (source, isolation) = (received.source, received.isolation.clone());
            match self.take_received(moment, received, rng) {
                Ok(listing) => listing,
                Err(Forged) => {
                    let mut cx = self.shared.context(moment, rng);
                    self.sync
                        .break_off(&mut cx, &mut self.pool, &isolation, source);
                    None
                }
            }
        });
        if let Some((source, listing)) = &listing {
            let mut cx = self.shared.context(moment, rng);
            self.sync.compare_sources(&mut cx, source, listing);
        }
        self.look_at_view(moment);
        if let Some((_, listing)) = listing {
            let mut cx = self.shared.context(moment, rng);
            self.sync.judge_guards(&mut cx, &mut self.pool, listing);
        }
    }

    fn on_answer(&mut self, moment: Moment, asker: Asker, answer: Answer, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        match asker {
            Asker::Sync(serial) => self.on_sync_answer(moment, serial, answer, rng),
            Asker::CreateMailbox { mailbox, .. } => match mailbox.owner {
                Owner::Inbox(inbox) => {
                    self.inboxes
                        .on_created(&mut cx, inbox, mailbox.queue, &answer);
                }
                Owner::Contact(contact) => {
                    self.contacts
                        .on_created(&mut cx, contact, mailbox.queue, &answer);
                }
            },
            Asker::Publish {
                inbox,
                epoch,
                relay,
                revision,
                ..
            } => {
                self.inboxes
                    .on_published(&mut cx, inbox, (epoch, relay), revision, &answer);
            }
            Asker::Lookup { address, epoch } => {
                self.lookups
                    .on_answer(&mut cx, &mut self.requests, &address, epoch, answer);
            }
            Asker::Deposit { message, queue } => {
                self.outbox.on_answer(&mut cx, message, queue, &answer);
            }
            Asker::Errand(errand) => {
                let over = self.errands.on_answer(&mut cx, errand, &answer);
                if let Some((mailbox, effort, is_told)) = over
                    && let Owner::Inbox(inbox) = mailbox.owner
                {
                    let at = (mailbox.queue, effort);
                    self.inboxes.on_effort_told(&cx, inbox, at, is_told);
                }
            }
            Asker::Fetch(mailbox) => {
                let visited = self.visits.on_fetch(&mut cx, mailbox, answer);
                self.on_visited(moment, mailbox, visited, rng);
            }
            Asker::Subscribe(mailbox) => {
                let visited = self.visits.on_push(&mut cx, mailbox, answer);
                self.on_visited(moment, mailbox, visited, rng);
            }
        }
    }

    /// A mailbox was visited: its owner takes what came, and hears how it went.
    fn on_visited(
        &mut self,
        moment: Moment,
        mailbox: MailboxId,
        visited: Visited,
        rng: &mut dyn CryptoRng,
    ) {
        let mut cx = self.shared.context(moment, rng);
        let Visited {
            records,
            outcome,
            replaced_at,
        } = visited;
        match mailbox.owner {
            Owner::Inbox(inbox) => {
                let of = (inbox, mailbox.queue);
                let (inboxes, visits) = (&self.inboxes, &mut self.visits);
                let contacts = &mut self.contacts;
                let strangers = self
                    .receiving
                    .take(&mut cx, inboxes, contacts, visits, of, &records);
                self.inboxes.on_strangers(&cx, inbox, strangers);
                if let Some(holder) = replaced_at {
                    self.inboxes.on_replaced(&mut cx, inbox, holder);
                }
                if let Some(outcome) = outcome {
                    self.inboxes
                        .on_outcome(&mut cx, inbox, mailbox.queue, outcome);
                }
            }
            Owner::Contact(contact) => {
                let of = (contact, mailbox.queue);
                let (inboxes, visits) = (&self.inboxes, &mut self.visits);
                self.contacts.take(&mut cx, inboxes, visits, of, &records);
                if let Some(outcome) = outcome {
                    self.contacts
                        .on_outcome(&mut cx, contact, mailbox.queue, outcome);
                }
            }
        }
    }

    /// Fetches for an inbox and the contacts that belong to it, or for those that belong to none.
    pub(super) fn listen(&mut self, moment: Moment, inbox: Option<InboxId>, is_interactive: bool) {
        self.catching_up.listen(inbox, is_interactive);
        if let Some(id) = inbox {
            let owner = Owner::Inbox(id);
            self.catching_up.join(inbox, owner);
            self.visits.listen(moment.now, owner, is_interactive);
            self.visits.follow(owner, self.inboxes.mailboxes(id));
        }
        let name = inbox.and_then(|id| self.inboxes.name(id));
        let contacts: Vec<ContactId> = self.contacts.of(name).collect();
        for contact in contacts {
            self.follow_contact(moment, inbox, contact, true);
        }
    }

    /// Visits the mailboxes that inboxes and contacts have now.
    fn follow_moved(&mut self, moment: Moment) {
        for inbox in self.inboxes.take_moved() {
            let mailboxes = self.inboxes.mailboxes(inbox);
            self.visits.follow(Owner::Inbox(inbox), mailboxes);
        }
        for contact in self.contacts.take_moved() {
            let name = self.contacts.inbox_of(contact);
            let inbox = name.and_then(|name| self.inboxes.id(name));
            self.follow_contact(moment, inbox, contact, false);
        }
    }

    /// Visits the mailboxes that a contact has now, if its user fetches for it; looks again at those
    /// that were visited before, if the user asks anew.
    fn follow_contact(
        &mut self,
        moment: Moment,
        inbox: Option<InboxId>,
        contact: ContactId,
        is_asked: bool,
    ) {
        let owner = Owner::Contact(contact);
        let Some(is_interactive) = self.catching_up.is_interactive(inbox) else {
            return;
        };
        if self.contacts.mailboxes(contact).next().is_none() {
            self.visits.leave(owner);
            return self.catching_up.leave(owner);
        }
        if self.catching_up.join(inbox, owner) || is_asked {
            self.visits.listen(moment.now, owner, is_interactive);
        }
        self.visits.follow(owner, self.contacts.mailboxes(contact));
    }

    /// Passes on what conversations and the outbox have to say to each other; whether they had.
    fn pass_on_what_is_said(&mut self, moment: Moment, rng: &mut dyn CryptoRng) -> bool {
        let mut cx = self.shared.context(moment, rng);
        let said = self.contacts.take_said();
        let mut is_any = !said.is_empty();
        for said in said {
            self.outbox.on_said(&mut cx, &mut self.requests, said);
        }
        for told in self.outbox.take_for_contacts() {
            is_any = true;
            match told {
                ForContact::GivenUp(contact, id) => self.contacts.give_up(&cx, contact, id),
                ForContact::Said(contact, saying) => {
                    self.contacts.on_said(&mut cx, contact, saying);
                }
                ForContact::Unsaid(contact, saying) => self.contacts.on_unsaid(contact, saying),
            }
        }
        is_any
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use serde_bytes::ByteBuf;
    use umbel_proto::cell::{Cell, DestroyReason};
    use umbel_proto::ids::{CircId, QueueId};
    use umbel_proto::inbox::mailbox::MailboxReply;
    use umbel_proto::link::{Hello, LinkId};
    use umbel_proto::network::Network;
    use umbel_proto::time::{Instant, WallTime};

    use super::super::inboxes::Inboxes;
    use super::super::io::{Snapshot, Wish};
    use super::super::mailbox::OwnMailbox;
    use super::super::testing::{When, link_up};
    use super::*;

    const WALL: WallTime = WallTime(1_790_000_000);
    const LINK: LinkId = LinkId(1);

    /// A client that is linked to a relay, and fetches for so many inboxes of three mailboxes each.
    struct Owner {
        core: Core,
        mailboxes: Vec<MailboxId>,
        moment: Moment,
        rng: ChaCha20Rng,
    }

    impl Owner {
        fn of(inboxes: u8) -> Self {
            let moment = Moment {
                now: Instant::from_micros(0),
                wall: WALL,
            };
            let mut rng = ChaCha20Rng::seed_from_u64(3);
            let queue = |inbox, number: u8| {
                let mut queue = [inbox; QueueId::LEN];
                queue[0] = number;
                QueueId(queue)
            };
            let state = |inbox| {
                let mailbox = |number| {
                    OwnMailbox::for_test(RelayId([number; RelayId::LEN]), queue(inbox, number))
                };
                let mailboxes = (0..3).map(mailbox).collect();
                let state = When::at(WALL).act(|cx| Inboxes::state_for_test(cx, mailboxes));
                (format!("box {inbox:03}"), state.0)
            };
            let snapshot = Snapshot {
                inboxes: (0..inboxes).map(state).collect(),
                ..Snapshot::default()
            };
            let core = Core::new(
                Network::local(),
                Vec::new(),
                None,
                snapshot,
                moment,
                &mut rng,
            );
            let mut owner = Self {
                core: core.expect("a good snapshot"),
                mailboxes: Vec::new(),
                moment,
                rng,
            };
            owner.link();
            for inbox in 0..inboxes {
                owner.listen(format!("box {inbox:03}"));
                owner.mailboxes.extend((0..3).map(|number| MailboxId {
                    owner: super::Owner::Inbox(InboxId(inbox.into())),
                    queue: queue(inbox, number),
                }));
            }
            owner
        }

        fn link(&mut self) {
            let hello = Hello::of_client(Network::local().id, WALL);
            let up = link_up(LINK, RelayId([200; RelayId::LEN]), &hello);
            self.core.handle_link_up(self.moment, up, &mut self.rng);
        }

        fn listen(&mut self, name: String) {
            let listen = Wish::Listen {
                name,
                is_interactive: true,
            };
            self.core.handle_wish(self.moment, listen, &mut self.rng);
        }

        /// Answers this request with these records.
        fn answer(&mut self, asker: Asker, records: &[Vec<u8>]) {
            let answer = Answer::Mailbox(MailboxReply::Fetched {
                records: records.iter().cloned().map(ByteBuf::from).collect(),
                more: false,
            });
            self.core.requests.send_all();
            self.core
                .on_answer(self.moment, asker, answer, &mut self.rng);
        }

        /// All mailboxes are seen empty.
        fn catch_up(&mut self) {
            for mailbox in self.mailboxes.clone() {
                self.answer(Asker::Fetch(mailbox), &[]);
                self.answer(Asker::Subscribe(mailbox), &[]);
            }
            (0..3).for_each(|_| self.cell());
        }

        /// A cell comes, on a circuit that was closed here.
        fn cell(&mut self) {
            let circ = CircId::new(7).expect("it is not zero");
            let cell = Cell::destroy(circ, DestroyReason::Finished);
            self.core
                .handle_cell(self.moment, LINK, cell, &mut self.rng);
            self.core.requests.send_all();
        }

        /// The entries of tables that are looked at meanwhile.
        fn looks(&mut self, act: impl FnOnce(&mut Self)) -> u64 {
            let before = self.core.look_count();
            act(self);
            self.core.look_count() - before
        }
    }

    /// The costs of a cell that brings nothing, of one that brings a record, and of the answer to a
    /// fetch from the first mailbox, and from the last.
    fn costs(inboxes: u8) -> ([u64; 3], u64) {
        let mut owner = Owner::of(inboxes);
        owner.catch_up();
        let (first, last) = (owner.mailboxes[0], *owner.mailboxes.last().unwrap());
        let nothing = owner.looks(Owner::cell);
        let pushed = owner.looks(|owner| {
            owner.answer(Asker::Subscribe(first), &[b"junk".to_vec()]);
            owner.cell();
        });
        let mut fetched = |from| {
            owner.looks(|owner| {
                owner.answer(Asker::Fetch(from), &[b"junk".to_vec()]);
                owner.cell();
            })
        };
        ([nothing, pushed, fetched(first)], fetched(last))
    }

    #[test]
    fn the_cost_of_a_cell_does_not_grow_with_the_number_of_mailboxes() {
        let (few, _) = costs(1);
        assert_eq!(few[0], 0, "nothing is due");
        assert!(few[1] > 0, "it is counted");
        let (many, polled) = costs(134);
        assert_eq!(many, few, "with 402 mailboxes");
        assert!(polled < 8, "{polled} for one without a subscription");
    }

    #[test]
    fn while_nothing_is_due_no_round_follows_another() {
        let mut owner = Owner::of(2);
        owner.catch_up();
        assert!(!owner.core.run_round(owner.moment, &mut owner.rng));
        let due_at = owner.core.poll_timeout().expect("it runs");
        assert!(due_at > owner.moment.now);
    }
}
