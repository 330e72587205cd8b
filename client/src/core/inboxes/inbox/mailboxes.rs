//! The mailboxes of one own inbox: which holders are drawn, when one is made, and what visits tell
//! (docs/protocol.md §10.5).
//!
//! Each has a holder apart from the others', if there is one. A mailbox that left the descriptor stays
//! for as long as a record lives there, up to a bound.

use umbel_proto::chance::Backoff;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::{QueueId, QueueNonce, RelayId};
use umbel_proto::inbox::mailbox::{MailboxReply, Verb, queue_id};
use umbel_proto::limits::LEFT_MAILBOXES_MAX;
use umbel_proto::path::Paths;
use umbel_proto::time::Duration;
use zeroize::Zeroizing;

use super::super::super::circuit::Isolation;
use super::super::super::context::Context;
use super::super::super::requests::{Answer, AskFault, Asker, Question, Requests};
use super::super::Visit;
use super::super::stored::OwnMailbox;
use super::Inbox;
use super::outage::Outage;

/// Failed tries to create a mailbox before another relay is drawn for it.
const CREATE_TRIES: u32 = 2;
/// How long after the first mailbox is there the others are waited for before the descriptor goes
/// out without them.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Health {
    pub(super) is_asked: bool,
    pub(super) backoff: Backoff,
    /// The last visit since the client started failed.
    pub(super) is_failing: bool,
    /// And that was the holder's doing, as far as can be known.
    pub(super) is_dead: bool,
}

impl Inbox {
    /// Draws holders for mailboxes that are missing.
    pub(super) fn plan(&mut self, cx: &mut Context<'_>, paths: &Paths) {
        let is_usual =
            |mailbox: &&OwnMailbox| mailbox.retired_at.is_none() && !mailbox.is_companion;
        while self.mailboxes.iter().filter(is_usual).count() < cx.network.params.mailboxes
            && self.add_mailbox(cx, paths, false)
        {}
    }

    /// Draws a holder for one more mailbox. Those that made none in this run come last of all.
    pub(super) fn add_mailbox(
        &mut self,
        cx: &mut Context<'_>,
        paths: &Paths,
        is_companion: bool,
    ) -> bool {
        let taken: Vec<RelayId> = self.mailboxes.iter().map(|mailbox| mailbox.relay).collect();
        let mut drawn =
            paths.draw_holder(cx.known(), &taken, self.refusing.iter().copied(), cx.rng);
        if drawn.is_none() && !self.refusing.is_empty() {
            self.refusing.clear();
            drawn = paths.draw_holder(cx.known(), &taken, [], cx.rng);
        }
        let Some(relay) = drawn else { return false };
        let mut nonce = QueueNonce([0; QueueNonce::LEN]);
        cx.rng.fill_bytes(&mut nonce.0);
        let owner = SigningKey::generate(cx.rng);
        self.mailboxes.push(OwnMailbox {
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
        self.touch(cx);
        true
    }

    pub(super) fn create_missing(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        name: &str,
    ) {
        let is_awaited = self.is_awaited(cx.now);
        for mailbox in self.mailboxes.iter().filter(|mailbox| !mailbox.is_created) {
            let health = self.health.entry(mailbox.queue).or_default();
            if health.is_asked || !health.backoff.is_due(cx.now) {
                continue;
            }
            health.is_asked = true;
            let queue = mailbox.queue;
            let owner = SigningKey::from_seed(&mailbox.owner_seed).public();
            let sender = SigningKey::from_seed(&mailbox.sender_seed).public();
            let verb = Verb::Create {
                nonce: mailbox.nonce,
                owner,
                sender,
            };
            let question = Question::Mailbox {
                verb,
                seed: Zeroizing::new(mailbox.owner_seed),
            };
            let asker = Asker::CreateMailbox {
                inbox: name.to_owned(),
                queue,
                is_awaited,
            };
            let isolation = Isolation::Own {
                inbox: name.to_owned(),
                queue,
            };
            requests.ask(cx, asker, isolation, mailbox.relay, question);
        }
    }

    pub(in super::super) fn on_created(
        &mut self,
        cx: &mut Context<'_>,
        queue: QueueId,
        answer: &Answer,
    ) {
        let health = self.health.entry(queue).or_default();
        health.is_asked = false;
        match answer {
            Answer::Mailbox(MailboxReply::Created) => {
                health.backoff.reset();
                self.take_into_use(cx, queue);
            }
            // The fault is ours, or the path's: the holder is not to blame.
            Answer::Failed(
                AskFault::NoCircuit | AskFault::Broken { .. } | AskFault::Lost | AskFault::Dropped,
            ) => {
                health.backoff.fail(&cx.network.params, cx.now, cx.rng);
            }
            Answer::Failed(_) | Answer::Mailbox(_) | Answer::Directory(_) => {
                health.backoff.fail(&cx.network.params, cx.now, cx.rng);
                if health.backoff.failures() >= CREATE_TRIES {
                    self.drop_uncreated(cx, queue);
                }
            }
        }
    }

    /// The holder has the mailbox: from now on the descriptor names it.
    fn take_into_use(&mut self, cx: &mut Context<'_>, queue: QueueId) {
        let Some(mailbox) = find(&mut self.mailboxes, queue) else {
            return;
        };
        if !core::mem::replace(&mut mailbox.is_created, true) {
            self.settles_at.get_or_insert(cx.now + SETTLE);
            self.change(cx);
        }
    }

    /// Gives up a mailbox that no descriptor ever named.
    pub(super) fn drop_uncreated(&mut self, cx: &Context<'_>, queue: QueueId) {
        let refusing = find(&mut self.mailboxes, queue).filter(|mailbox| !mailbox.is_created);
        self.refusing.extend(refusing.map(|mailbox| mailbox.relay));
        self.mailboxes
            .retain(|mailbox| mailbox.queue != queue || mailbox.is_created);
        self.health.remove(&queue);
        self.touch(cx);
    }

    pub(in super::super) fn on_visit(
        &mut self,
        cx: &mut Context<'_>,
        queue: QueueId,
        visit: Visit,
    ) {
        let Some(mailbox) = find(&mut self.mailboxes, queue) else {
            return;
        };
        let health = self.health.entry(queue).or_default();
        (health.is_failing, health.is_dead) = (
            visit != Visit::Answered,
            matches!(visit, Visit::Dead | Visit::Gone),
        );
        let before = mailbox.outage;
        mailbox.outage = match visit {
            Visit::Answered => before.and_then(|outage| outage.answered(cx)),
            Visit::Unreachable | Visit::Dead | Visit::Gone => {
                let outage = before.unwrap_or_else(|| Outage::begin(cx));
                Some(outage.failed(cx, visit == Visit::Gone))
            }
        };
        if mailbox.outage != before {
            self.touch(cx);
        }
    }

    /// Forgets mailboxes that left the descriptor, once nothing can be in them any more, or there are
    /// too many of them.
    pub(super) fn forget_retired(&mut self, cx: &Context<'_>) {
        let before = self.mailboxes.len();
        let life = cx.network.params.record_life;
        self.mailboxes.retain(|mailbox| {
            mailbox
                .retired_at
                .is_none_or(|retired_at| retired_at + life > cx.confirmed)
        });
        while let Some(place) = self.surplus() {
            self.mailboxes.remove(place);
        }
        if self.mailboxes.len() != before {
            self.health
                .retain(|queue, _| self.mailboxes.iter().any(|mailbox| mailbox.queue == *queue));
            self.touch(cx);
        }
    }

    /// Where the mailbox is that is forgotten next, if too many left the descriptor: of the companions
    /// without an outage, since what they had was fetched, or else of all, the one that left first.
    fn surplus(&self) -> Option<usize> {
        let left = self.mailboxes.iter().enumerate();
        let left = left.filter_map(|(place, mailbox)| {
            let is_fetched = mailbox.is_companion && mailbox.outage.is_none();
            mailbox.retired_at.map(|at| (!is_fetched, at, place))
        });
        let is_surplus = left.clone().count() > LEFT_MAILBOXES_MAX;
        is_surplus.then(|| left.min().map(|(_, _, place)| place))?
    }
}

fn find(mailboxes: &mut [OwnMailbox], queue: QueueId) -> Option<&mut OwnMailbox> {
    mailboxes.iter_mut().find(|mailbox| mailbox.queue == queue)
}
