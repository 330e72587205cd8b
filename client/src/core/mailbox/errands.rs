//! Errands at mailboxes of one's own that nobody waits for (docs/protocol.md §10.2): a holder is told to
//! forget a queue, or to ask another effort of strangers. Each is tried again for a while, and given up
//! when the process ends: a queue that is never visited again expires.

use std::collections::BTreeMap;

use umbel_proto::chance::{Backoff, exponential};
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::mailbox::{MailboxReply, Refusal, Verb};
use umbel_proto::time::Instant;
use umbel_proto::time::{Due, Duration};
use zeroize::Zeroizing;

use super::super::circuit::Isolation;
use super::super::context::Context;
use super::super::requests::{Answer, Asker, Question, Requests};
use super::{MailboxId, OwnMailbox};

/// So often a holder is asked.
const TRIES_MAX: u32 = 8;
/// Errands begin after a random wait with this mean: several at once would show that their queues are
/// one client's.
const BEGIN_MEAN: Duration = Duration::from_secs(60);

/// Names an errand in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct ErrandId(u64);

/// All errands.
#[derive(Default)]
pub(in super::super) struct Errands {
    all: BTreeMap<ErrandId, Errand>,
    due: Due<ErrandId>,
    last: u64,
}

struct Errand {
    mailbox: MailboxId,
    relay: RelayId,
    owner_seed: Zeroizing<[u8; 32]>,
    verb: Verb,
    backoff: Backoff,
}

impl Errands {
    /// Tells the holder of a mailbox that is no longer needed to forget it (§11.9(7)).
    pub(in super::super) fn forget(
        &mut self,
        cx: &mut Context<'_>,
        mailbox: MailboxId,
        own: &OwnMailbox,
    ) {
        let queue = mailbox.queue;
        self.begin(cx, mailbox, own, Verb::Forget { queue });
    }

    /// Tells the holder of a mailbox to ask this effort of strangers.
    pub(in super::super) fn set_effort(
        &mut self,
        cx: &mut Context<'_>,
        mailbox: MailboxId,
        own: &OwnMailbox,
        effort: u32,
    ) {
        let queue = mailbox.queue;
        self.begin(cx, mailbox, own, Verb::SetEffort { queue, effort });
    }

    fn begin(&mut self, cx: &mut Context<'_>, mailbox: MailboxId, own: &OwnMailbox, verb: Verb) {
        self.last += 1;
        let id = ErrandId(self.last);
        let errand = Errand {
            mailbox,
            relay: own.relay,
            owner_seed: Zeroizing::new(own.owner_seed),
            verb,
            backoff: Backoff::default(),
        };
        self.all.insert(id, errand);
        self.due.set(id, cx.now + exponential(BEGIN_MEAN, cx.rng));
    }

    /// Asks holders what is due.
    pub(in super::super) fn drive(&mut self, cx: &Context<'_>, requests: &mut Requests) {
        while let Some(id) = self.due.pop_expired(cx.now) {
            let Some(errand) = self.all.get(&id) else {
                continue;
            };
            let question = Question::Mailbox {
                verb: errand.verb.clone(),
                seed: errand.owner_seed.clone(),
            };
            let isolation = Isolation::Own(errand.mailbox);
            requests.ask(cx, Asker::Errand(id), isolation, errand.relay, question);
        }
    }

    /// When the next is due.
    pub(in super::super) fn timeout(&self) -> Option<Instant> {
        self.due.next()
    }

    /// A holder answered, or did not. Returns the mailbox, the effort, and whether its holder has heard of
    /// it, once nothing more is done about that.
    pub(in super::super) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        id: ErrandId,
        answer: &Answer,
    ) -> Option<(MailboxId, u32, bool)> {
        let errand = self.all.get_mut(&id)?;
        let is_over = matches!(
            answer,
            Answer::Mailbox(
                MailboxReply::Done | MailboxReply::Refused(Refusal::NoQueue | Refusal::Signature)
            )
        );
        errand.backoff.fail(&cx.network.params, cx.now, cx.rng);
        if !is_over && errand.backoff.failures() < TRIES_MAX {
            self.due.set(id, errand.backoff.retry_at());
            return None;
        }
        let errand = self.all.remove(&id)?;
        match errand.verb {
            Verb::SetEffort { effort, .. } => Some((errand.mailbox, effort, is_over)),
            _ => None,
        }
    }
}
