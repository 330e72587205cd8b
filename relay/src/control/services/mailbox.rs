//! The mailbox service (docs/protocol.md §10): a [`Holder`] behind a stream.

use umbel_proto::Violation;
use umbel_proto::inbox::holder::{self, Holder, HolderDone, HolderLimits, QueueSnapshot};
use umbel_proto::inbox::mailbox::MailboxRequest;

use super::super::context::Context;
use super::super::io::StoreOp;
use super::{Answer, LateAnswer, Request, RequestId};

/// The mailboxes of a relay.
pub(in super::super) struct Mailbox {
    holder: Holder,
}

impl Mailbox {
    pub(in super::super) fn restore(cx: &Context<'_>, queues: Vec<QueueSnapshot>) -> Self {
        let (network, limits) = (cx.config.network.id, cx.config.holder);
        Self {
            holder: Holder::restore(network, cx.relay, limits, queues),
        }
    }

    pub(super) fn handle_request(
        &mut self,
        cx: &Context<'_>,
        id: RequestId,
        request: &Request<'_>,
    ) -> Result<Answer, Violation> {
        let asked = MailboxRequest::decode(request.frame)?;
        self.holder
            .handle_request(cx.now, cx.wall, id.into(), request.binding, asked);
        Ok(Answer::Later)
    }

    pub(super) fn handle_stored(&mut self, cx: &mut Context<'_>, done: HolderDone) {
        self.holder.handle_stored(cx.now, done, cx.rng);
    }

    /// Runs what is due, and passes operations to the store.
    pub(super) fn run(&mut self, cx: &mut Context<'_>) {
        let confirmed = cx.clock.confirmed();
        self.holder.handle_timeout(cx.now, cx.wall, confirmed);
        while let Some(op) = self.holder.poll_op() {
            cx.store(StoreOp::Mailbox(op));
        }
    }

    pub(super) fn poll_answer(&mut self) -> Option<LateAnswer> {
        let reply = self.holder.poll_reply()?;
        Some(LateAnswer {
            request: RequestId(reply.request.0),
            frame: reply.reply.encode(),
            fin: reply.fin,
        })
    }

    /// Nobody waits for this request any more.
    pub(super) fn cancel(&mut self, id: RequestId) {
        self.holder.cancel(id.into());
    }

    pub(super) fn set_limits(&mut self, limits: HolderLimits) {
        self.holder.set_limits(limits);
    }

    pub(super) const fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl From<RequestId> for holder::RequestId {
    fn from(id: RequestId) -> Self {
        Self(id.0)
    }
}
