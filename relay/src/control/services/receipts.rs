//! The receipts service (docs/protocol.md §8.7): dials relays that ask, and vouches for them.

use std::collections::{BTreeMap, VecDeque};

use umbel_proto::Violation;
use umbel_proto::directory::Receipt;
use umbel_proto::directory::receipts::{
    Issuer, ProbeId, Probed, ReceiptReply, ReceiptRequest, RequestContext,
};

use super::super::context::Context;
use super::{Answer, LateAnswer, Request, RequestId};

/// The receipts that this relay issues.
#[derive(Default)]
pub(in super::super) struct Receipts {
    issuer: Issuer,
    /// Who waits for a dial; at most [`RECEIPT_DIALS_MAX`](umbel_proto::limits::RECEIPT_DIALS_MAX).
    waiting: BTreeMap<u64, RequestId>,
    answers: VecDeque<LateAnswer>,
}

impl Receipts {
    pub(super) fn handle_request(
        &mut self,
        cx: &mut Context<'_>,
        id: RequestId,
        request: &Request<'_>,
    ) -> Result<Answer, Violation> {
        let asked = ReceiptRequest::decode(request.frame)?;
        let peer = cx.links.relay_at(request.link);
        let (relay, from) = peer.ok_or(Violation::Unexpected)?; // §8.7(1)
        let context = RequestContext {
            network: &cx.config.network.id,
            issuer: &cx.relay,
            binding: request.binding,
        };
        asked
            .verify(&context, &relay)
            .map_err(|_| Violation::Unexpected)?;
        let known = (&cx.config.network, cx.book.view(), cx.wall);
        let begun = self
            .issuer
            .handle_request(cx.now, known, relay, from, asked.address);
        match begun {
            Ok((probe, dial)) => {
                self.waiting.insert(probe, id);
                cx.out.probes.push_back((ProbeId::Receipt(probe), dial));
                Ok(Answer::Later)
            }
            Err(refusal) => Ok(Answer::Now(ReceiptReply::Refused(refusal).encode())),
        }
    }

    /// A dial is over.
    pub(super) fn handle_probed(&mut self, cx: &Context<'_>, probe: u64, probed: Probed) {
        let network = &cx.config.network;
        let reply = match self.issuer.handle_probed(cx.now, network, probe, probed) {
            Ok(it) => ReceiptReply::Issued(Receipt::sign(
                &cx.config.identity,
                &network.id,
                &it.relay,
                it.address,
                cx.wall,
            )),
            Err(refusal) => ReceiptReply::Refused(refusal),
        };
        if let Some(request) = self.waiting.remove(&probe) {
            self.answers
                .push_back(LateAnswer::whole(request, reply.encode()));
        }
    }

    pub(super) fn poll_answer(&mut self) -> Option<LateAnswer> {
        self.answers.pop_front()
    }
}
