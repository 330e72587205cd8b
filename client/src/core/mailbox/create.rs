//! How a mailbox comes to be: a holder is drawn, and asked to make it, until it does or another is
//! drawn (docs/protocol.md §10.5).

use std::collections::BTreeSet;

use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::{QueueId, QueueNonce, RelayId};
use umbel_proto::inbox::mailbox::{MailboxReply, Verb, queue_id};
use umbel_proto::path::Paths;
use zeroize::Zeroizing;

use super::super::circuit::Isolation;
use super::super::context::Context;
use super::super::requests::{Answer, AskFault, Asker, Question, Requests};
use super::owned::find;
use super::{Change, MailboxId, Mailboxes, OwnMailbox, Owner};

/// Failed tries to create a mailbox before another relay is drawn for it.
const CREATE_TRIES: u32 = 2;

impl Mailboxes {
    /// Draws a holder for one more mailbox. Those that made none in this run come last of all.
    pub(super) fn add(&mut self, cx: &mut Context<'_>, paths: &Paths, is_companion: bool) -> bool {
        let taken: Vec<RelayId> = self.all.iter().map(|mailbox| mailbox.relay).collect();
        let known = cx.known();
        let mut draw = |unwanted: &BTreeSet<RelayId>| {
            paths.draw_holder(known, &taken, unwanted.iter().copied(), cx.rng)
        };
        let mut drawn = None;
        if !self.apart_from.is_empty() {
            drawn = draw(&(&self.apart_from | &self.refusing));
        }
        drawn = drawn.or_else(|| draw(&self.refusing));
        if drawn.is_none() && !self.refusing.is_empty() {
            self.refusing.clear();
            drawn = draw(&self.refusing);
        }
        let Some(relay) = drawn else { return false };
        let mut nonce = QueueNonce([0; QueueNonce::LEN]);
        cx.rng.fill_bytes(&mut nonce.0);
        let owner = SigningKey::generate(cx.rng);
        self.all.push(OwnMailbox {
            relay,
            queue: queue_id(&owner.public(), &nonce),
            nonce,
            owner_seed: *owner.seed(),
            sender_seed: *SigningKey::generate(cx.rng).seed(),
            is_created: false,
            is_companion,
            retired_at: None,
            outage: None,
        });
        self.has_moved = true;
        true
    }

    /// Asks holders for the mailboxes that are not made and whose time it is. Their keys are durable.
    pub(in super::super) fn create_missing(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        owner: Owner,
        is_awaited: bool,
    ) {
        for mailbox in self.all.iter().filter(|mailbox| !mailbox.is_created) {
            let health = self.health.entry(mailbox.queue).or_default();
            if health.is_asked || !health.backoff.is_due(cx.now) {
                continue;
            }
            health.is_asked = true;
            let queue = mailbox.queue;
            let verb = Verb::Create {
                nonce: mailbox.nonce,
                owner: SigningKey::from_seed(&mailbox.owner_seed).public(),
                sender: SigningKey::from_seed(&mailbox.sender_seed).public(),
                kind: owner.queue_kind(),
            };
            let question = Question::Mailbox {
                verb,
                seed: Zeroizing::new(mailbox.owner_seed),
            };
            let id = MailboxId { owner, queue };
            let asker = Asker::CreateMailbox {
                mailbox: id,
                is_awaited,
            };
            requests.ask(cx, asker, Isolation::Own(id), mailbox.relay, question);
        }
    }

    /// A holder answered, or did not. Senders are told of a mailbox from the moment on when its
    /// holder has it.
    pub(in super::super) fn on_created(
        &mut self,
        cx: &mut Context<'_>,
        queue: QueueId,
        answer: &Answer,
    ) -> Option<Change> {
        let health = self.health.entry(queue).or_default();
        health.is_asked = false;
        match answer {
            Answer::Mailbox(MailboxReply::Created) => {
                health.backoff.reset();
                self.take_into_use(queue)
            }
            // The fault is ours, or the path's: the holder is not to blame.
            Answer::Failed(
                AskFault::NoCircuit | AskFault::Broken { .. } | AskFault::Lost | AskFault::Dropped,
            ) => {
                health.backoff.fail(&cx.network.params, cx.now, cx.rng);
                None
            }
            Answer::Failed(_) | Answer::Mailbox(_) | Answer::Directory(_) => {
                health.backoff.fail(&cx.network.params, cx.now, cx.rng);
                let is_refusing = health.backoff.failures() >= CREATE_TRIES;
                is_refusing.then(|| self.drop_uncreated(queue))
            }
        }
    }

    fn take_into_use(&mut self, queue: QueueId) -> Option<Change> {
        let mailbox = find(&mut self.all, queue)?;
        let is_news = !core::mem::replace(&mut mailbox.is_created, true);
        self.has_moved |= is_news;
        is_news.then_some(Change::Listed)
    }

    /// Gives up a mailbox that no sender was ever told of.
    pub(super) fn drop_uncreated(&mut self, queue: QueueId) -> Change {
        let refusing = find(&mut self.all, queue).filter(|mailbox| !mailbox.is_created);
        self.refusing.extend(refusing.map(|mailbox| mailbox.relay));
        self.all
            .retain(|mailbox| mailbox.queue != queue || mailbox.is_created);
        self.health.remove(&queue);
        self.has_moved = true;
        Change::State
    }
}
