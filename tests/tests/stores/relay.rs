//! The relay's store and `RelayDisk`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha20Rng;
use rand::seq::IteratorRandom;
use serde_bytes::ByteBuf;
use tempfile::TempDir;
use umbel_proto::crypto::sign::PublicKey;
use umbel_proto::directory::{Age, Belief, BookOp, BookRow};
use umbel_proto::ids::{BlindedKey, QueueId, RecordId, RelayId};
use umbel_proto::inbox::holder::{HolderDone, HolderOp, OpId, Outcome, QueueSnapshot};
use umbel_proto::inbox::mailbox::{QueueKind, QueueTerms};
use umbel_proto::time::{Epoch, WallTime};
use umbel_relay::control::io::{Listed, Snapshot, StoreDone, StoreOp, StoredOnionKey};
use umbel_relay::store::Store;
use umbel_tests::disk::RelayDisk;

use super::{Keeper, Source, assert_same, copy_dir, hex, sorted, transcript};

/// The store, in a directory that is left behind at each power cut.
struct OnDisk {
    dirs: TempDir,
    lives: usize,
    open: Option<(Store, Receiver<StoreDone>)>,
    restored: Snapshot,
    written: Vec<StoreOp>,
}

impl OnDisk {
    fn new() -> Self {
        let mut store = Self {
            dirs: TempDir::new().unwrap(),
            lives: 0,
            open: None,
            restored: Snapshot::default(),
            written: Vec::new(),
        };
        std::fs::create_dir(store.dir()).unwrap();
        store.open();
        store
    }

    fn dir(&self) -> PathBuf {
        self.dirs.path().join(self.lives.to_string())
    }

    fn open(&mut self) {
        let (sender, done) = channel();
        let on_done = Box::new(move |batch: Vec<StoreDone>| {
            batch
                .into_iter()
                .for_each(|done| sender.send(done).unwrap());
        });
        let (store, restored) = Store::open(&self.dir().join("store.db"), on_done).unwrap();
        self.open = Some((store, done));
        self.restored = restored;
    }
}

impl Keeper for OnDisk {
    type Op = StoreOp;

    fn write(&mut self, op: StoreOp) {
        self.written.push(op);
    }

    fn commit(&mut self) -> Vec<String> {
        let (store, done) = self.open.as_ref().unwrap();
        // Ops take effect in order: the answer to the last one says that all did.
        let last = StoreOp::Mailbox(HolderOp::ReadRecords {
            op: OpId(u64::MAX),
            queue: QueueId([0; 32]),
            seqs: Vec::new(),
        });
        for op in self.written.drain(..).chain([last]) {
            assert!(store.submit(op).is_ok(), "there is room");
        }
        let answers = std::iter::from_fn(|| {
            let answer = done.recv_timeout(Duration::from_secs(30)).unwrap();
            let is_last = matches!(&answer, StoreDone::Mailbox(done) if done.op == OpId(u64::MAX));
            (!is_last).then(|| answer_line(&answer))
        });
        answers.collect()
    }

    fn cut_power(&mut self) {
        self.written.clear();
        let before = self.dir();
        self.lives += 1;
        copy_dir(&before, &self.dir());
        self.open();
    }

    fn restore(&mut self) -> Vec<String> {
        // Closed and opened again: a restart without a power cut.
        self.open = None;
        self.open();
        restored_lines(&self.restored)
    }
}

impl Keeper for RelayDisk {
    type Op = StoreOp;

    fn write(&mut self, op: StoreOp) {
        RelayDisk::write(self, op);
    }

    fn commit(&mut self) -> Vec<String> {
        RelayDisk::commit(self).iter().map(answer_line).collect()
    }

    fn cut_power(&mut self) {
        self.crash();
    }

    fn restore(&mut self) -> Vec<String> {
        restored_lines(&RelayDisk::restore(self))
    }
}

fn answer_line(done: &StoreDone) -> String {
    match done {
        StoreDone::Mailbox(HolderDone { op, outcome }) => match outcome {
            Outcome::Records(bodies) => {
                let bodies: Vec<_> = bodies.iter().map(|body| hex(body)).collect();
                format!("{op:?} records {bodies:?}")
            }
            Outcome::Done => format!("{op:?} done"),
            Outcome::Failed => format!("{op:?} failed"),
            Outcome::Busy => format!("{op:?} busy"),
        },
        StoreDone::InboxDescriptor { ticket, is_stored } => format!("ticket {ticket} {is_stored}"),
    }
}

fn restored_lines(restored: &Snapshot) -> Vec<String> {
    let keys = restored.onion_keys.iter().map(|key| {
        let made_at = key.created_at.as_secs();
        format!("onion key {} of {made_at}", hex(&*key.secret))
    });
    let relays = restored.relays.iter().map(|row| format!("{row:?}"));
    let inboxes = restored.inbox_descriptors.iter().map(|bytes| hex(bytes));
    keys.chain(sorted("relay", relays))
        .chain(sorted("inbox", inboxes))
        .chain(sorted("queue", restored.queues.iter().map(queue_line)))
        .chain([format!("clock {:?}", restored.clock)])
        .chain([format!("{:?}", restored.listed)])
        .chain([format!("{:?}", restored.anchors)])
        .chain(sorted(
            "receipt",
            restored.receipts.iter().map(|it| hex(it)),
        ))
        .chain([format!("spot checks {:?}", restored.spot_checks)])
        .collect()
}

fn queue_line(queue: &QueueSnapshot) -> String {
    let mut removed = queue.removed.clone();
    removed.sort_unstable();
    let terms = &queue.terms;
    let (owner, sender) = (hex(&terms.owner.0), hex(&terms.sender.0));
    format!(
        "{:?} {owner} {sender} {:?} {} {:?} {:?} {removed:?}",
        queue.queue, terms.kind, terms.effort, queue.fetched_at, queue.records
    )
}

/// A holder and a directory that ask for this and that. They ask of queues and records that they
/// have put, and number records in the order that they are put.
#[derive(Default)]
struct Asked {
    next_id: u64,
    /// The records of each queue.
    queues: BTreeMap<QueueId, Vec<u64>>,
    durable: BTreeMap<QueueId, Vec<u64>>,
}

impl Source for Asked {
    type Op = StoreOp;

    fn next(&mut self, rng: &mut ChaCha20Rng) -> StoreOp {
        self.next_id += 1;
        match rng.random_range(0..17) {
            0..=8 => StoreOp::Mailbox(self.next_of_mailbox(rng)),
            9 => StoreOp::Book(BookOp::Put {
                relay: RelayId([rng.random_range(0..6); 32]),
                row: row(rng),
            }),
            10 => StoreOp::Book(BookOp::Remove(vec![RelayId([rng.random_range(0..6); 32])])),
            11 | 12 => StoreOp::PutInboxDescriptor {
                ticket: self.next_id,
                blinded: BlindedKey([rng.random_range(0..4); 32]),
                epoch: Epoch(rng.random_range(0..4)),
                descriptor: bytes(rng),
            },
            13 => StoreOp::RemoveInboxDescriptorsBefore(Epoch(rng.random_range(0..3))),
            14 => StoreOp::RemoveInboxDescriptorsAfter(Epoch(rng.random_range(1..4))),
            15 => {
                let count = rng.random_range(0..4);
                StoreOp::PutReceipts((0..count).map(|number| receipt(number, rng)).collect())
            }
            _ if rng.random() => StoreOp::PutClock(bytes(rng)),
            _ if rng.random() => StoreOp::PutSpotChecks(bytes(rng)),
            _ if rng.random_range(0..3) == 0 => {
                let anchor = |_| RelayId([rng.random(); 32]);
                StoreOp::PutAnchors((0..2).map(anchor).collect())
            }
            _ if rng.random() => StoreOp::PutListed(Listed {
                since: WallTime(rng.random_range(0..1000)),
                until: WallTime(rng.random_range(0..1000)),
            }),
            _ => {
                let newest = WallTime(1_800_000_000 + self.next_id);
                let key = |created_at| StoredOnionKey {
                    secret: zeroize::Zeroizing::new([low_byte(self.next_id); 32]),
                    created_at,
                };
                StoreOp::PutOnionKeys(vec![key(newest), key(WallTime(1_800_000_000))])
            }
        }
    }

    fn on_commit(&mut self) {
        self.durable.clone_from(&self.queues);
    }

    fn on_cut(&mut self) {
        self.queues.clone_from(&self.durable);
    }
}

impl Asked {
    fn next_of_mailbox(&mut self, rng: &mut ChaCha20Rng) -> HolderOp {
        let op = OpId(self.next_id);
        let Some(queue) = self.queues.keys().copied().choose(rng) else {
            return self.put_queue(op, rng);
        };
        let seqs = self.queues.get_mut(&queue).unwrap();
        match rng.random_range(0..8) {
            0 => self.put_queue(op, rng),
            1..=3 => {
                seqs.push(self.next_id);
                HolderOp::PutRecord {
                    op,
                    queue,
                    seq: self.next_id,
                    record: RecordId([low_byte(self.next_id); 32]),
                    expires_at: WallTime(1_800_000_000 + rng.random_range(0..100)),
                    body: ByteBuf::from(bytes(rng)),
                }
            }
            4 | 5 => {
                let mut seqs = some(seqs, rng);
                seqs.extend(rng.random_bool(0.1).then_some(1 << 40)); // one that is not there
                HolderOp::ReadRecords { op, queue, seqs }
            }
            6 => {
                let removed = some(seqs, rng);
                seqs.retain(|seq| !removed.contains(seq));
                let id = |rng: &mut ChaCha20Rng| RecordId([rng.random_range(0..8); 32]);
                HolderOp::RemoveRecords {
                    op,
                    queue,
                    seqs: removed,
                    remember: vec![(id(rng), WallTime(rng.random_range(0..100)))],
                    forget: vec![id(rng)],
                }
            }
            _ => HolderOp::RemoveQueue {
                op,
                queue,
                seqs: self.queues.remove(&queue).unwrap(),
            },
        }
    }

    fn put_queue(&mut self, op: OpId, rng: &mut ChaCha20Rng) -> HolderOp {
        let queue = QueueId([rng.random_range(0..4); 32]);
        self.queues.entry(queue).or_default();
        HolderOp::PutQueue {
            op,
            queue,
            terms: QueueTerms {
                owner: PublicKey([rng.random(); 32]),
                sender: PublicKey([rng.random(); 32]),
                kind: if rng.random() {
                    QueueKind::Public
                } else {
                    QueueKind::Contact
                },
                effort: rng.random(),
            },
            fetched_at: WallTime(rng.random_range(0..1000)),
        }
    }
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

/// Some of these, in their order.
fn some(seqs: &[u64], rng: &mut ChaCha20Rng) -> Vec<u64> {
    seqs.iter().copied().filter(|_| rng.random()).collect()
}

fn bytes(rng: &mut ChaCha20Rng) -> Vec<u8> {
    vec![rng.random(); rng.random_range(1..40)]
}

/// One of several, no two of which are the same.
fn receipt(number: u8, rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut receipt = bytes(rng);
    receipt.push(number);
    receipt
}

fn row(rng: &mut ChaCha20Rng) -> BookRow {
    BookRow {
        descriptor: bytes(rng),
        age: Age {
            first_seen: WallTime(rng.random_range(0..1000)),
            belief: Belief::from_number(rng.random_range(0..1000)),
            there_since: WallTime(rng.random_range(0..1000)),
        },
    }
}

#[test] // §10.1
fn a_relay_finds_the_same_on_its_store_and_on_a_simulated_disk() {
    for seed in 0..8 {
        let store = transcript(seed, &mut Asked::default(), &mut OnDisk::new());
        let disk = transcript(seed, &mut Asked::default(), &mut RelayDisk::default());
        assert_same(seed, &store, &disk);
    }
}
