//! A holder and a store that fails on demand; time passes when a test says so.

mod life;
mod model;
mod subscription;
mod terms;
mod verbs;

use std::collections::{BTreeMap, VecDeque};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_bytes::ByteBuf;

use super::*;
use crate::crypto::sign::SigningKey;
use crate::ids::QueueNonce;
use crate::inbox::mailbox::{MailboxContext, Verb};
use crate::inbox::record::record_id;
use crate::limits::RECORD_LENS;

const NETWORK: NetworkId = NetworkId([1; 32]);
const RELAY: RelayId = RelayId([2; 32]);
const CIRCUIT: Binding = Binding([3; 32]);
const OWNER: u8 = 10;
const SENDER: u8 = 20;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn nonce(number: u8) -> QueueNonce {
    QueueNonce([number; QueueNonce::LEN])
}

/// The queue of the key [`OWNER`] with this nonce.
fn queue(number: u8) -> QueueId {
    queue_id(&key(OWNER).public(), &nonce(number))
}

/// A record like no other with this number.
fn record(number: u8, bucket: usize) -> ByteBuf {
    ByteBuf::from(vec![number; RECORD_LENS[bucket]])
}

fn id(number: u8) -> RecordId {
    record_id(&record(number, 0))
}

fn create(number: u8) -> Verb {
    Verb::Create {
        nonce: nonce(number),
        owner: key(OWNER).public(),
        sender: key(SENDER).public(),
        kind: QueueKind::Contact,
    }
}

fn deposit(number: u8, record: ByteBuf) -> Verb {
    Verb::Deposit {
        queue: queue(number),
        record,
        puzzle: 0,
    }
}

fn fetch(number: u8, remove: Vec<RecordId>, bytes_max: u32) -> Verb {
    Verb::Fetch {
        queue: queue(number),
        remove,
        bytes_max,
    }
}

fn subscribe(number: u8, push_delay_ms: u32) -> Verb {
    Verb::Subscribe {
        queue: queue(number),
        push_delay_ms,
    }
}

/// Queues that hold so many records.
fn records(records_max: usize) -> QueueLimits {
    QueueLimits {
        records_max,
        ..QueueLimits::default()
    }
}

fn refused(refusal: Refusal) -> Vec<MailboxReply> {
    vec![MailboxReply::Refused(refusal)]
}

/// The contents of the store: a holder is restored from them.
#[derive(Default, Clone)]
struct Disk {
    queues: BTreeMap<QueueId, (QueueTerms, WallTime)>,
    records: BTreeMap<u64, (QueueId, RecordEntry, ByteBuf)>,
    removed: BTreeMap<(QueueId, RecordId), WallTime>,
}

impl Disk {
    fn apply(&mut self, op: &HolderOp) -> Outcome {
        match op {
            HolderOp::PutQueue {
                queue,
                terms,
                fetched_at,
                ..
            } => {
                self.queues.insert(*queue, (*terms, *fetched_at));
            }
            HolderOp::PutRecord {
                queue,
                seq,
                record,
                expires_at,
                body,
                ..
            } => {
                assert!(
                    self.queues.contains_key(queue),
                    "a record's queue is there before it"
                );
                let entry = RecordEntry {
                    seq: *seq,
                    record: *record,
                    len: body.len(),
                    expires_at: *expires_at,
                };
                assert!(
                    self.records
                        .insert(*seq, (*queue, entry, body.clone()))
                        .is_none(),
                    "places are used once"
                );
            }
            HolderOp::ReadRecords { queue, seqs, .. } => {
                let bodies = seqs.iter().map(|seq| {
                    let (of, _, body) = &self.records[seq];
                    assert_eq!(of, queue);
                    body.clone()
                });
                return Outcome::Records(bodies.collect());
            }
            HolderOp::RemoveRecords {
                queue,
                seqs,
                remember,
                forget,
                ..
            } => {
                self.records.retain(|seq, _| !seqs.contains(seq));
                self.removed
                    .extend(remember.iter().map(|&(record, at)| ((*queue, record), at)));
                self.removed
                    .retain(|(of, record), _| of != queue || !forget.contains(record));
            }
            HolderOp::RemoveQueue { queue, seqs, .. } => {
                self.records.retain(|seq, _| !seqs.contains(seq));
                self.removed.retain(|(of, _), _| of != queue);
                self.queues.remove(queue);
            }
        }
        Outcome::Done
    }

    fn snapshot(&self) -> Vec<QueueSnapshot> {
        let of = |&queue: &QueueId| {
            let (terms, fetched_at) = self.queues[&queue];
            let records = self
                .records
                .values()
                .filter(|(of, ..)| *of == queue)
                .map(|(_, entry, _)| *entry)
                .collect();
            let removed = self
                .removed
                .iter()
                .filter(|((of, _), _)| *of == queue)
                .map(|(&(_, id), &at)| (id, at));
            QueueSnapshot {
                queue,
                terms,
                fetched_at,
                records,
                removed: removed.collect(),
            }
        };
        self.queues.keys().map(of).collect()
    }
}

struct World {
    holder: Holder,
    limits: HolderLimits,
    disk: Disk,
    /// Ops that have not yet taken effect.
    asked: VecDeque<HolderOp>,
    /// Replies not yet looked at, by request.
    replies: BTreeMap<RequestId, Vec<(MailboxReply, bool)>>,
    now: Instant,
    wall: WallTime,
    /// While the calendar is not confirmed, as far as it is.
    confirmed: Option<WallTime>,
    requests: u64,
    rng: ChaCha20Rng,
}

impl World {
    fn new() -> Self {
        Self::with(HolderLimits::default())
    }

    fn with(limits: HolderLimits) -> Self {
        let mut world = Self {
            holder: Holder::restore(NETWORK, RELAY, limits, Vec::new()),
            limits,
            disk: Disk::default(),
            asked: VecDeque::new(),
            replies: BTreeMap::new(),
            now: Instant::default(),
            wall: WallTime(1_800_000_000),
            confirmed: None,
            requests: 0,
            rng: ChaCha20Rng::seed_from_u64(7),
        };
        world.pass(0);
        world
    }

    /// With queue 1.
    fn with_queue(limits: HolderLimits) -> Self {
        let mut world = Self::with(limits);
        assert_eq!(world.done(OWNER, create(1)), [MailboxReply::Created]);
        world
    }

    fn ask_on(&mut self, circuit: &Binding, by: u8, verb: Verb) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let context = MailboxContext {
            network: &NETWORK,
            holder: &RELAY,
            binding: circuit,
        };
        let asked = verb.signed(&key(by), &context);
        self.holder
            .handle_request(self.now, self.wall, request, &CIRCUIT, asked);
        self.drain();
        request
    }

    fn ask(&mut self, by: u8, verb: Verb) -> RequestId {
        self.ask_on(&CIRCUIT, by, verb)
    }

    /// Asks, lets the store do all it was asked, and returns what was answered.
    fn done(&mut self, by: u8, verb: Verb) -> Vec<MailboxReply> {
        let request = self.ask(by, verb);
        self.store_all();
        self.answers(request)
    }

    fn drain(&mut self) {
        while let Some(op) = self.holder.poll_op() {
            self.asked.push_back(op);
        }
        while let Some(HolderReply {
            request,
            reply,
            fin,
        }) = self.holder.poll_reply()
        {
            let earlier = self.replies.entry(request).or_default();
            assert!(
                earlier.last().is_none_or(|(_, fin)| !fin),
                "nothing after the last reply"
            );
            earlier.push((reply, fin));
        }
        assert_eq!(self.holder.invariants(), Ok(()));
    }

    /// The store does the next op, or fails to.
    fn store_one(&mut self, fails: bool) -> bool {
        let Some(op) = self.asked.pop_front() else {
            return false;
        };
        let outcome = if fails {
            Outcome::Failed
        } else {
            self.disk.apply(&op)
        };
        self.holder.handle_stored(
            self.now,
            HolderDone {
                op: op.id(),
                outcome,
            },
            &mut self.rng,
        );
        self.drain();
        true
    }

    fn store_all(&mut self) {
        while self.store_one(false) {}
    }

    fn fail_all(&mut self) {
        while self.store_one(true) {}
    }

    /// Takes what was answered to a request so far.
    fn answers(&mut self, request: RequestId) -> Vec<MailboxReply> {
        let answers = self
            .replies
            .get_mut(&request)
            .map(std::mem::take)
            .unwrap_or_default();
        answers.into_iter().map(|(reply, _)| reply).collect()
    }

    /// Whether the last reply to a request came; looked at before [`answers`](Self::answers).
    fn is_finished(&self, request: RequestId) -> bool {
        self.replies
            .get(&request)
            .and_then(|replies| replies.last())
            .is_some_and(|(_, fin)| *fin)
    }

    /// Time passes, with every timer on its way; the store does what it is asked.
    fn pass(&mut self, seconds: u64) {
        let (end, wall) = (
            self.now + Duration::from_secs(seconds),
            self.wall + Duration::from_secs(seconds),
        );
        for _ in 0..100_000 {
            let (at, _) = self.holder.poll_timeout();
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            self.wall = WallTime(wall.0 - end.since(self.now).as_secs());
            let confirmed = self.confirmed.unwrap_or(self.wall);
            self.holder.handle_timeout(self.now, self.wall, confirmed);
            self.drain();
            self.store_all();
        }
        (self.now, self.wall) = (end, wall);
    }

    /// The process dies and starts again from the disk.
    fn crash(&mut self) {
        self.holder = Holder::restore(NETWORK, RELAY, self.limits, self.disk.snapshot());
        self.asked.clear();
        self.replies.clear();
        self.drain();
    }

    /// Takes the pushes of a subscription: first byte of each record, push by push, and whether
    /// more follow.
    fn pushes(&mut self, request: RequestId) -> Vec<(Vec<u8>, bool)> {
        self.answers(request).iter().map(numbers).collect()
    }
}

/// First byte of each record returned, and whether there were more.
fn numbers(reply: &MailboxReply) -> (Vec<u8>, bool) {
    match reply {
        MailboxReply::Fetched { records, more } => {
            (records.iter().map(|record| record[0]).collect(), *more)
        }
        other => panic!("{other:?}"),
    }
}
