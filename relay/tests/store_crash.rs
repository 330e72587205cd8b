//! A store's process is killed in the middle of its work: every acknowledged write is there, and
//! nothing is torn (§10.1).
//!
//! The child is this test program again, which its environment has deposit until it is killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_bytes::ByteBuf;
use umbel_proto::crypto::sign::PublicKey;
use umbel_proto::ids::QueueId;
use umbel_proto::inbox::holder::{HolderDone, HolderOp, OpId, Outcome};
use umbel_proto::inbox::mailbox::{QueueKind, QueueTerms};
use umbel_proto::inbox::record::record_id;
use umbel_proto::limits::RECORD_LENS;
use umbel_proto::time::WallTime;
use umbel_relay::control::io::{Snapshot, StoreDone, StoreOp};
use umbel_relay::store::Store;

const CHILD: &str = "UMBEL_STORE_CRASH_FILE";
const QUEUE: QueueId = QueueId([1; 32]);
/// Deposits that wait for their answer at any time.
const IN_FLIGHT: u64 = 64;

/// A record that says which it is; lengths mixed, so that pages of every kind are torn if any are.
fn body(seq: u64) -> ByteBuf {
    let len = RECORD_LENS[usize::try_from(seq % 3).unwrap()];
    ByteBuf::from(
        seq.to_be_bytes()
            .into_iter()
            .cycle()
            .take(len)
            .collect::<Vec<u8>>(),
    )
}

fn put_record(seq: u64) -> StoreOp {
    let body = body(seq);
    let (record, expires_at) = (record_id(&body), WallTime(1_900_000_800));
    StoreOp::Mailbox(HolderOp::PutRecord {
        op: OpId(seq),
        queue: QUEUE,
        seq,
        record,
        expires_at,
        body,
    })
}

fn open(path: &Path) -> (Store, Snapshot, std::sync::mpsc::Receiver<HolderDone>) {
    let (sender, done) = channel();
    let on_done = Box::new(move |batch: Vec<StoreDone>| {
        for done in batch {
            if let StoreDone::Mailbox(done) = done {
                sender.send(done).unwrap();
            }
        }
    });
    let (store, snapshot) = Store::open(path, on_done).unwrap();
    (store, snapshot, done)
}

/// Deposits until killed; writes the place of each record that was acknowledged.
fn deposit_until_killed(path: &Path) {
    let (store, snapshot, done) = open(path);
    let held = snapshot
        .queues
        .iter()
        .flat_map(|queue| &queue.records)
        .map(|entry| entry.seq)
        .max();
    let terms = QueueTerms {
        owner: PublicKey([2; 32]),
        sender: PublicKey([3; 32]),
        kind: QueueKind::Contact,
        effort: 0,
    };
    let first = held.map_or(1, |seq| seq + 1);
    let queue = HolderOp::PutQueue {
        op: OpId(0),
        queue: QUEUE,
        terms,
        fetched_at: WallTime(1_800_000_000),
    };
    assert!(store.submit(StoreOp::Mailbox(queue)).is_ok());
    for seq in first..first + IN_FLIGHT {
        assert!(store.submit(put_record(seq)).is_ok());
    }
    let mut out = std::io::stdout().lock();
    for HolderDone {
        op: OpId(seq),
        outcome,
    } in done
    {
        assert!(outcome == Outcome::Done);
        if seq != 0 {
            writeln!(out, "acknowledged {seq}").unwrap();
            out.flush().unwrap();
            assert!(store.submit(put_record(seq + IN_FLIGHT)).is_ok());
        }
    }
}

/// Lets a child deposit until it acknowledged `count` records, kills it, and returns what it
/// acknowledged.
fn run_and_kill(path: &Path, count: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "what_was_acknowledged_survives_a_kill",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = |line: String| {
        line.strip_prefix("acknowledged ")
            .and_then(|seq| seq.parse().ok())
    };
    let mut acknowledged: Vec<u64> = lines
        .by_ref()
        .map_while(Result::ok)
        .filter_map(number)
        .take(count)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(lines.map_while(Result::ok).filter_map(number));
    assert!(acknowledged.len() >= count, "the child ended by itself");
    acknowledged
}

#[test] // §10.1
fn what_was_acknowledged_survives_a_kill() {
    if let Some(path) = std::env::var_os(CHILD) {
        return deposit_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut acknowledged = Vec::new();
    for count in [1, 150, 400, 37] {
        acknowledged.extend(run_and_kill(&path, count));
        check(&path, &acknowledged);
    }
}

/// Every acknowledged record is in the index, and every record of the index is whole.
fn check(path: &Path, acknowledged: &[u64]) {
    let (store, snapshot, done) = open(path);
    let [queue] = &snapshot.queues[..] else {
        panic!("one queue")
    };
    let held: BTreeMap<u64, _> = queue
        .records
        .iter()
        .map(|entry| (entry.seq, entry))
        .collect();
    assert!(
        acknowledged.iter().all(|seq| held.contains_key(seq)),
        "an acknowledged record is lost"
    );
    for (index, (&seq, entry)) in (0..).zip(&held) {
        let read = HolderOp::ReadRecords {
            op: OpId(index),
            queue: QUEUE,
            seqs: vec![seq],
        };
        assert!(store.submit(StoreOp::Mailbox(read)).is_ok());
        let outcome = done.recv_timeout(Duration::from_secs(30)).unwrap().outcome;
        assert!(
            outcome == Outcome::Records(vec![body(seq)]),
            "record {seq} is torn"
        );
        assert_eq!(
            (entry.record, entry.len),
            (record_id(&body(seq)), body(seq).len())
        );
    }
    store.close();
}
