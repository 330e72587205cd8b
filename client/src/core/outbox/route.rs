//! Where a message goes, and how it is sealed for each mailbox there (docs/protocol.md §10.3, §11.2,
//! §11.5).
//!
//! A route is of one attempt: the descriptor that was found, or the queues that a contact reads now,
//! with the message as the conversation sealed it.

use std::sync::Arc;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use umbel_proto::conversation::envelope::EnvelopeQueue;
use umbel_proto::conversation::opening::Introduction;
use umbel_proto::crypto::kdf::sha256;
use umbel_proto::ids::{MessageId, NetworkId, QueueId, RelayId};
use umbel_proto::inbox::descriptor::{InboxDescriptor, Mailbox};
use umbel_proto::inbox::record::{Message, SealKey, seal_opening, seal_record};
use umbel_proto::limits::PUZZLE_EFFORT_MAX;
use umbel_proto::network::Params;
use zeroize::Zeroize;

/// The mailboxes of one attempt, and what a copy for each is made from.
pub(in super::super) struct Route {
    pub(in super::super) mailboxes: Vec<Mailbox>,
    /// The puzzle effort that a deposit takes.
    pub(in super::super) effort: u32,
    pub(in super::super) mark: RouteMark,
    sealing: Sealing,
}

/// Says from what a copy was made: the beginning of a hash. A copy of another mark is made anew: a
/// seal key lives for an epoch (§10.3(6)), a contact's session until it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct RouteMark([u8; 8]);

/// A message as its conversation sealed it.
#[derive(Clone)]
pub(in super::super) struct Sealed {
    pub(in super::super) form: Form,
    /// The session that it is of: sealed anew, once that is over.
    pub(in super::super) session: u32,
    /// The contact's state is durable as it was after so many changes, before this leaves.
    pub(in super::super) changes: u64,
}

/// The form that a sealed message has on its way.
#[derive(Clone)]
pub(in super::super) enum Form {
    /// For the peer's inbox, with what makes the session.
    Opening(Arc<Introduction>, Arc<[u8]>),
    /// For the queues that the peer made for this conversation.
    Envelope(Arc<[u8]>),
}

enum Sealing {
    /// Sealed to the inbox's key, each copy by itself.
    OneWay(SealKey),
    Opening(SealKey, Arc<Introduction>, Arc<[u8]>),
    Envelope(Arc<[u8]>),
}

impl Route {
    /// To the owner of an inbox, without a way back.
    pub(in super::super) fn one_way(descriptor: &InboxDescriptor, params: &Params) -> Self {
        let key = descriptor.seal_key.clone();
        let mark = RouteMark::of(&[key.as_bytes()]);
        Self::to_inbox(descriptor, params, mark, Sealing::OneWay(key))
    }

    /// To a contact: to its inbox until it has answered, then to its queues.
    pub(in super::super) fn to_contact(
        sealed: &Sealed,
        descriptor: Option<&InboxDescriptor>,
        queues: &[Mailbox],
        params: &Params,
    ) -> Option<Self> {
        match &sealed.form {
            Form::Opening(introduction, message) => {
                let key = descriptor?.seal_key.clone();
                let mark = RouteMark::of(&[key.as_bytes(), message]);
                let sealing = Sealing::Opening(key, Arc::clone(introduction), Arc::clone(message));
                Some(Self::to_inbox(descriptor?, params, mark, sealing))
            }
            Form::Envelope(message) => Some(Self {
                mailboxes: queues.to_vec(),
                effort: 0,
                mark: RouteMark::of(&[message]),
                sealing: Sealing::Envelope(Arc::clone(message)),
            }),
        }
    }

    fn to_inbox(
        descriptor: &InboxDescriptor,
        params: &Params,
        mark: RouteMark,
        sealing: Sealing,
    ) -> Self {
        Self {
            mailboxes: descriptor.mailboxes.clone(),
            effort: descriptor
                .puzzle_effort
                .max(params.puzzle_effort)
                .min(PUZZLE_EFFORT_MAX),
            mark,
            sealing,
        }
    }

    /// A copy for one mailbox; `None` if the message is too long for a record.
    pub(in super::super) fn seal(
        &self,
        to: &Copy<'_>,
        id: MessageId,
        body: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Vec<u8>> {
        match &self.sealing {
            Sealing::OneWay(key) => {
                let body = body.to_vec();
                let mut message = Message { id, body };
                let sealed = seal_record(key, &message, rng).ok();
                message.body.zeroize();
                sealed
            }
            Sealing::Opening(key, introduction, message) => {
                Some(seal_opening(key, introduction, message, rng))
            }
            Sealing::Envelope(message) => Some(to.envelope().seal(message, rng)),
        }
    }
}

/// The mailbox that a copy is for.
pub(in super::super) struct Copy<'a> {
    pub(in super::super) network: &'a NetworkId,
    pub(in super::super) relay: &'a RelayId,
    pub(in super::super) queue: &'a QueueId,
    pub(in super::super) sender_seed: &'a [u8; 32],
}

impl Copy<'_> {
    const fn envelope(&self) -> EnvelopeQueue<'_> {
        EnvelopeQueue {
            network: self.network,
            holder: self.relay,
            queue: self.queue,
            sender_seed: self.sender_seed,
        }
    }
}

impl RouteMark {
    fn of(parts: &[&[u8]]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = sha256(parts);
        Self([a, b, c, d, e, f, g, h])
    }
}
