//! Bodies for the holder of mailboxes: the input is the requests, and when the store answers.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_bytes::ByteBuf;
use umbel_proto::crypto::sign::{Signature, SigningKey};
use umbel_proto::handshake::Binding;
use umbel_proto::ids::{NetworkId, QueueNonce, RecordId, RelayId};
use umbel_proto::inbox::holder::{
    Holder, HolderDone, HolderLimits, HolderOp, OpId, Outcome, RequestId,
};
use umbel_proto::inbox::mailbox::{
    MailboxContext, MailboxReply, MailboxRequest, QueueKind, Verb, queue_id,
};
use umbel_proto::inbox::record::record_id;
use umbel_proto::limits::{FRAME_LEN_MAX, RECORD_LENS};
use umbel_proto::time::{Duration, Instant, WallTime};
use umbel_relay::control::io::{StoreDone, StoreOp};

use super::Script;
use super::decoders::WALL;
use crate::disk::RelayDisk;

const NETWORK: NetworkId = NetworkId([7; 32]);
const RELAY: RelayId = RelayId([5; 32]);
const BINDING: Binding = Binding([6; 32]);
const CONTEXT: MailboxContext<'_> = MailboxContext {
    network: &NETWORK,
    holder: &RELAY,
    binding: &BINDING,
};

/// Few of everything, so that limits are met.
fn new_holder() -> (Holder, HolderLimits) {
    let limits = HolderLimits {
        queues_max: 3,
        records_max: 12,
        pending_ops_max: 6,
        ..HolderLimits::default()
    };
    (Holder::restore(NETWORK, RELAY, limits, Vec::new()), limits)
}

/// Requests of owners and senders, a store that answers late, wrongly or never, and time.
pub(super) fn holder(input: &[u8]) {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let (mut holder, limits) = new_holder();
    let (mut now, mut wall) = (Instant::from_micros(1), WALL);
    let mut ops: Vec<HolderOp> = Vec::new();
    let mut next_request = 0;
    let mut script = Script::new(input);
    while let Some(op) = script.op() {
        match op % 8 {
            0..4 => {
                next_request += 1;
                let asked = request(op, &mut script);
                holder.handle_request(now, wall, RequestId(next_request), &BINDING, asked);
            }
            4 | 5 if !ops.is_empty() => {
                let index = usize::from(script.byte()) % ops.len();
                let done = HolderDone {
                    op: ops.remove(index).id(),
                    outcome: outcome(script.byte()),
                };
                holder.handle_stored(now, done, &mut rng);
            }
            6 => {
                let time = Duration::from_secs(u64::from(script.u16()) << (op >> 5));
                now = now + time;
                wall = wall + time;
                holder.handle_timeout(now, wall, wall);
            }
            _ => holder.cancel(RequestId(u64::from(script.byte()))),
        }
        while let Some(op) = holder.poll_op() {
            ops.push(op);
        }
        let mut replies = 0;
        while let Some(reply) = holder.poll_reply() {
            replies += 1;
            assert!(
                reply.reply.encode().len() <= FRAME_LEN_MAX,
                "a reply fits a frame"
            );
        }
        assert!(replies <= next_request, "nobody is answered out of turn");
        assert!(
            ops.len() <= limits.pending_ops_max + limits.queues_max * 4,
            "what waits for the store is bounded"
        );
        assert!(holder.counts().queues <= limits.queues_max);
        assert!(holder.invariants().is_ok(), "{:?}", holder.invariants());
    }
}

fn request(op: u8, script: &mut Script<'_>) -> MailboxRequest {
    let which = script.byte();
    let nonce = QueueNonce([which % 5; 32]);
    let (owner, sender) = (
        SigningKey::from_seed(&[1; 32]),
        SigningKey::from_seed(&[2; 32]),
    );
    let queue = queue_id(&owner.public(), &nonce);
    let record = |filling: u8| {
        ByteBuf::from(vec![
            filling;
            RECORD_LENS.first().copied().unwrap_or_default()
        ])
    };
    let verb = match op % 6 {
        0 => Verb::Create {
            nonce,
            owner: owner.public(),
            sender: sender.public(),
            kind: if which.is_multiple_of(2) {
                QueueKind::Public
            } else {
                QueueKind::Contact
            },
        },
        1 => Verb::Deposit {
            queue,
            record: record(script.byte() % 8),
            puzzle: 0,
        },
        2 => {
            let filling = script.byte();
            Verb::Fetch {
                queue,
                remove: vec![record_id(&record(filling % 8))],
                bytes_max: u32::from(filling) << 9,
            }
        }
        3 => Verb::SetEffort {
            queue,
            effort: u32::from(script.byte() % 2),
        },
        4 => Verb::Forget { queue },
        _ => Verb::Subscribe {
            queue,
            push_delay_ms: u32::from(script.byte()),
        },
    };
    if which >= 250 {
        return MailboxRequest {
            verb,
            signature: Signature([which; 64]),
        };
    }
    let key = if op % 6 == 1 { &sender } else { &owner };
    verb.signed(key, &CONTEXT)
}

fn outcome(byte: u8) -> Outcome {
    let record = ByteBuf::from(vec![byte; RECORD_LENS.first().copied().unwrap_or_default()]);
    match byte % 8 {
        0..4 => Outcome::Done,
        4 | 5 => Outcome::Records(vec![record; usize::from(byte >> 5)]),
        6 => Outcome::Failed,
        _ => Outcome::Busy,
    }
}

/// Requests of owners and senders, and the order in which the store's answers come.
///
/// The store does what it is asked in the order asked, as the real one does; it may be full. Each
/// answer comes when the input says, before or after any other. A record is acknowledged only once
/// it is durable, each request is answered once, and in the end the holder believes what the disk
/// holds.
pub(super) fn holder_completions(input: &[u8]) {
    let mut bench = Bench::new();
    let mut script = Script::new(input);
    while let Some(op) = script.op() {
        match op % 8 {
            0..4 => bench.ask(op, &mut script),
            4..6 => bench.answer(usize::from(script.byte())),
            6 => bench.disk.is_full = !bench.disk.is_full,
            _ => bench.pass(Duration::from_secs(u64::from(script.u16()))),
        }
        bench.drain();
    }
    while !bench.answers.is_empty() {
        bench.answer(0);
        bench.drain();
    }
    bench.end();
}

/// A holder, the disk under it, and answers of the disk that are not yet given.
struct Bench {
    holder: Holder,
    disk: RelayDisk,
    answers: Vec<HolderDone>,
    now: Instant,
    rng: ChaCha20Rng,
    next_request: u64,
    /// Requests that were not answered, and the record that each deposits.
    asked: BTreeMap<RequestId, Option<RecordId>>,
    /// Which op puts which record.
    puts: BTreeMap<OpId, RecordId>,
    /// Records whose durability was reported to the holder.
    durable: BTreeSet<RecordId>,
}

impl Bench {
    fn new() -> Self {
        Self {
            holder: new_holder().0,
            disk: RelayDisk::default(),
            answers: Vec::new(),
            now: Instant::from_micros(1),
            rng: ChaCha20Rng::seed_from_u64(4),
            next_request: 0,
            asked: BTreeMap::new(),
            puts: BTreeMap::new(),
            durable: BTreeSet::new(),
        }
    }

    fn wall(&self) -> WallTime {
        WALL + self.now.since(Instant::from_micros(1))
    }

    /// A request that is answered once: no subscription.
    fn ask(&mut self, op: u8, script: &mut Script<'_>) {
        let asked = request(op % 5, script);
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let record = match &asked.verb {
            Verb::Deposit { record, .. } => Some(record_id(record)),
            Verb::Create { .. }
            | Verb::Fetch { .. }
            | Verb::Subscribe { .. }
            | Verb::SetEffort { .. }
            | Verb::Forget { .. } => None,
        };
        self.asked.insert(id, record);
        let (now, wall) = (self.now, self.wall());
        self.holder.handle_request(now, wall, id, &BINDING, asked);
    }

    /// The holder hears one of the answers that wait.
    fn answer(&mut self, index: usize) {
        if self.answers.is_empty() {
            return;
        }
        let done = self.answers.remove(index % self.answers.len());
        if done.outcome == Outcome::Done {
            self.durable.extend(self.puts.get(&done.op));
        }
        self.holder.handle_stored(self.now, done, &mut self.rng);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let wall = self.wall();
        self.holder.handle_timeout(self.now, wall, wall);
    }

    /// The disk does what is asked; replies are looked at.
    fn drain(&mut self) {
        while let Some(op) = self.holder.poll_op() {
            if let HolderOp::PutRecord { op, record, .. } = &op {
                self.puts.insert(*op, *record);
            }
            self.disk.write(StoreOp::Mailbox(op));
            let done = self.disk.commit().into_iter();
            self.answers.extend(done.filter_map(|done| match done {
                StoreDone::Mailbox(done) => Some(done),
                StoreDone::InboxDescriptor { .. } => None,
            }));
        }
        while let Some(reply) = self.holder.poll_reply() {
            assert!(reply.fin, "a request has one answer");
            let record = self.asked.remove(&reply.request);
            let Some(record) = record else {
                unreachable!("a request is answered once");
            };
            if reply.reply == MailboxReply::Deposited {
                let is_durable = record.is_some_and(|record| self.durable.contains(&record));
                assert!(is_durable, "only what is durable is acknowledged");
            }
        }
        assert!(self.holder.invariants().is_ok());
    }

    /// The store has answered everything.
    fn end(&self) {
        assert!(self.asked.is_empty(), "every request was answered");
        let queues = self.disk.restore().queues;
        let records = queues.iter().flat_map(|queue| &queue.records);
        let bytes: usize = records.clone().map(|entry| entry.len).sum();
        assert_eq!(self.holder.queue_count(), queues.len());
        assert_eq!(self.holder.record_count(), records.count());
        assert_eq!(self.holder.record_bytes(), bytes as u64);
    }
}
