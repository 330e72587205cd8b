//! A queue on the last relay of a circuit, as its owner and its sender in one: the source and the
//! sink of bulk transfers.

use rand::Rng;
use serde_bytes::ByteBuf;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::{CircId, QueueId, QueueNonce};
use umbel_proto::inbox::mailbox::{
    FETCH_BYTES_MAX, MailboxContext, MailboxReply, QueueKind, Verb, queue_id,
};
use umbel_proto::limits::RECORD_LEN_MAX;
use umbel_proto::message::Service;
use umbel_proto::network::Network;

use super::probe::Probe;
use super::{BenchError, Step, within};

/// Requests in flight, so that the circuit's window is the limit.
const UNDER_WAY: usize = 4;

/// A circuit with a link of its own, and a queue with one record of the greatest length at its end.
pub(super) struct Queue {
    probe: Probe,
    circ: CircId,
    holder: HopTarget,
    network: Network,
    queue: QueueId,
    owner: SigningKey,
    sender: SigningKey,
    record: Vec<u8>,
    under_way: usize,
}

impl Queue {
    /// Builds the circuit over this link, and makes the queue.
    pub(super) async fn create(mut probe: Probe, onward: &[HopTarget]) -> Result<Self, BenchError> {
        let circ = probe.build(onward).await?;
        let holder = onward.last().unwrap_or_else(|| probe.target()).clone();
        let mut rng = rand::rng();
        let (mut nonce, mut record) = ([0; QueueNonce::LEN], vec![0; RECORD_LEN_MAX]);
        rng.fill_bytes(&mut nonce);
        rng.fill_bytes(&mut record);
        let (owner, sender) = (
            SigningKey::generate(&mut rng),
            SigningKey::generate(&mut rng),
        );
        let (nonce, network) = (QueueNonce(nonce), Network::local());
        let queue = queue_id(&owner.public(), &nonce);
        let mut made = Self {
            probe,
            circ,
            holder,
            network,
            queue,
            owner,
            sender,
            record,
            under_way: UNDER_WAY,
        };
        let (owner, sender) = (made.owner.public(), made.sender.public());
        made.ask(Verb::Create {
            nonce,
            owner,
            sender,
            kind: QueueKind::Contact,
        })
        .await?;
        match made.answer().await? {
            MailboxReply::Created => made.deposit(1).await.map(|_| made),
            _ => Err(BenchError::Unexpected),
        }
    }

    /// From now on this many requests are in flight: over a long way it takes more to fill the
    /// window. Call it once the window has grown, since a relay limits what it keeps for a circuit.
    pub(super) const fn set_under_way(&mut self, count: usize) {
        self.under_way = count;
    }

    /// Deposits the record this many times, which stores it once: the holder answers the others
    /// from memory. Returns the bytes sent.
    pub(super) async fn deposit(&mut self, count: usize) -> Result<u64, BenchError> {
        self.ask_again_and_again(count, Self::deposit_verb, |reply| {
            matches!(reply, MailboxReply::Deposited).then_some(0)
        })
        .await?;
        Ok((self.record.len() * count) as u64)
    }

    /// Fetches the record this many times. Returns the bytes received.
    pub(super) async fn fetch(&mut self, count: usize) -> Result<u64, BenchError> {
        let bytes = |reply: &MailboxReply| match reply {
            MailboxReply::Fetched { records, .. } => {
                Some(records.iter().map(|record| record.len() as u64).sum())
            }
            _ => None,
        };
        self.ask_again_and_again(count, Self::fetch_verb, bytes)
            .await
    }

    /// The link, for other circuits over it.
    pub(super) const fn probe(&mut self) -> &mut Probe {
        &mut self.probe
    }

    /// Begins to fetch without end: see [`Self::next_fetched`].
    pub(super) async fn begin_fetches(&mut self) -> Result<(), BenchError> {
        for _ in 0..UNDER_WAY {
            self.ask(self.fetch_verb()).await?;
        }
        Ok(())
    }

    /// Waits for the next frame on the link. Whether it was fetched: then the next fetch is asked
    /// for. Otherwise it came on another circuit.
    pub(super) async fn next_fetched(&mut self) -> Result<bool, BenchError> {
        let (circ, ..) = within(Step::Mailbox, self.probe.next_frame()).await?;
        if circ != self.circ {
            return Ok(false);
        }
        self.ask(self.fetch_verb()).await?;
        Ok(true)
    }

    fn deposit_verb(&self) -> Verb {
        Verb::Deposit {
            queue: self.queue,
            record: ByteBuf::from(self.record.clone()),
            puzzle: 0,
        }
    }

    fn fetch_verb(&self) -> Verb {
        Verb::Fetch {
            queue: self.queue,
            remove: Vec::new(),
            bytes_max: FETCH_BYTES_MAX,
        }
    }

    /// Repeats a request this many times, with several in flight. `bytes` must know each answer.
    async fn ask_again_and_again(
        &mut self,
        count: usize,
        verb: fn(&Self) -> Verb,
        bytes: impl Fn(&MailboxReply) -> Option<u64>,
    ) -> Result<u64, BenchError> {
        let (mut asked, mut answered, mut sum) = (0, 0, 0);
        while answered < count {
            while asked < count && asked - answered < self.under_way {
                self.ask(verb(self)).await?;
                asked += 1;
            }
            sum += bytes(&self.answer().await?).ok_or(BenchError::Unexpected)?;
            answered += 1;
        }
        Ok(sum)
    }

    async fn ask(&mut self, verb: Verb) -> Result<(), BenchError> {
        let binding = self.probe.binding(self.circ)?;
        let context = MailboxContext {
            network: &self.network.id,
            holder: &self.holder.relay,
            binding: &binding,
        };
        let key = if matches!(verb, Verb::Deposit { .. }) {
            &self.sender
        } else {
            &self.owner
        };
        let frame = verb.signed(key, &context).encode();
        self.probe.ask(self.circ, Service::Mailbox, frame).await
    }

    async fn answer(&mut self) -> Result<MailboxReply, BenchError> {
        let (_, _, frame) = within(Step::Mailbox, self.probe.next_frame()).await?;
        match MailboxReply::decode(&frame) {
            Ok(MailboxReply::Refused(refusal)) => Err(BenchError::Refused(refusal)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(BenchError::Unexpected),
        }
    }
}
