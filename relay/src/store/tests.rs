//! The store by itself: an answered write is on the disk, an unanswered one may be lost (§10.1).

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;
use serde_bytes::ByteBuf;
use umbel_proto::crypto::sign::PublicKey;
use umbel_proto::directory::{Age, Belief, BookOp, BookRow};
use umbel_proto::ids::{BlindedKey, QueueId, RecordId, RelayId};
use umbel_proto::inbox::holder::{HolderDone, OpId, RecordEntry};
use umbel_proto::inbox::mailbox::{QueueKind, QueueTerms};
use umbel_proto::time::{Epoch, WallTime};
use zeroize::Zeroizing;

use super::*;
use crate::control::io::StoredOnionKey;

const QUEUE: QueueId = QueueId([1; 32]);
const SOON: WallTime = WallTime(1_800_003_600);

struct Open {
    store: Store,
    snapshot: Snapshot,
    done: Receiver<StoreDone>,
}

/// A callback, and where what it is given can be waited for.
fn answers() -> (OnDone, Receiver<StoreDone>) {
    let (sender, done): (Sender<StoreDone>, _) = channel();
    (
        Box::new(move |batch| {
            batch
                .into_iter()
                .for_each(|done| sender.send(done).unwrap());
        }),
        done,
    )
}

fn open(path: &Path) -> Open {
    let (on_done, done) = answers();
    let (store, snapshot) = Store::open(path, on_done).unwrap();
    Open {
        store,
        snapshot,
        done,
    }
}

/// On a disk that has no more room than this.
fn open_full(path: &Path, pages: u32) -> Open {
    let (on_done, done) = answers();
    let db = open::open(path).unwrap();
    db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        .unwrap();
    Open {
        store: Store::start(db, on_done).unwrap(),
        snapshot: Snapshot::default(),
        done,
    }
}

impl Open {
    fn submit(&self, op: HolderOp) {
        assert!(self.store.submit(StoreOp::Mailbox(op)).is_ok());
    }

    fn next(&self) -> HolderDone {
        match self.done.recv_timeout(Duration::from_secs(30)) {
            Ok(StoreDone::Mailbox(done)) => done,
            Ok(StoreDone::InboxDescriptor { .. }) => panic!("not a mailbox's"),
            Err(late) => panic!("{late}"),
        }
    }

    fn run(&self, op: HolderOp) -> Outcome {
        let id = op.id();
        self.submit(op);
        let done = self.next();
        assert_eq!(done.op, id);
        done.outcome
    }
}

const TERMS: QueueTerms = QueueTerms {
    owner: PublicKey([2; 32]),
    sender: PublicKey([3; 32]),
    kind: QueueKind::Public,
    effort: 70,
};

fn put_queue(op: u64) -> HolderOp {
    HolderOp::PutQueue {
        op: OpId(op),
        queue: QUEUE,
        terms: TERMS,
        fetched_at: WallTime(1_800_000_000),
    }
}

fn id(seq: u64) -> RecordId {
    RecordId([u8::try_from(seq % 256).unwrap(); 32])
}

fn put_record(op: u64, seq: u64, len: usize) -> HolderOp {
    let body = ByteBuf::from(vec![u8::try_from(seq % 256).unwrap(); len]);
    HolderOp::PutRecord {
        op: OpId(op),
        queue: QUEUE,
        seq,
        record: id(seq),
        expires_at: SOON,
        body,
    }
}

fn read(op: u64, seqs: &[u64]) -> HolderOp {
    HolderOp::ReadRecords {
        op: OpId(op),
        queue: QUEUE,
        seqs: seqs.to_vec(),
    }
}

fn remove(op: u64, seqs: &[u64]) -> HolderOp {
    let remember = seqs.iter().map(|&seq| (id(seq), SOON)).collect();
    HolderOp::RemoveRecords {
        op: OpId(op),
        queue: QUEUE,
        seqs: seqs.to_vec(),
        remember,
        forget: vec![],
    }
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

#[test]
fn a_mailbox_comes_back_without_its_bodies() {
    let (_directory, path) = file();
    let first = open(&path);
    assert!(first.snapshot.queues.is_empty());
    assert!(first.run(put_queue(0)) == Outcome::Done);
    for seq in 1..=4 {
        assert!(first.run(put_record(seq, seq, 100)) == Outcome::Done);
    }
    assert!(
        first.run(remove(5, &[2, 77])) == Outcome::Done,
        "one that is not there is no failure"
    );
    first.store.close();
    let second = open(&path);
    let entry = |seq| RecordEntry {
        seq,
        record: id(seq),
        len: 100,
        expires_at: SOON,
    };
    let [queue] = &second.snapshot.queues[..] else {
        panic!("one queue")
    };
    assert_eq!(queue.records, [entry(1), entry(3), entry(4)]);
    assert_eq!(queue.removed, [(id(2), SOON), (id(77), SOON)]);
    assert!(queue.terms == TERMS && queue.fetched_at == WallTime(1_800_000_000));
    let forget = vec![id(2)];
    let forgetting = HolderOp::RemoveRecords {
        op: OpId(6),
        queue: QUEUE,
        seqs: vec![],
        remember: vec![],
        forget,
    };
    assert!(second.run(forgetting) == Outcome::Done);
    second.store.close();
    assert_eq!(open(&path).snapshot.queues[0].removed, [(id(77), SOON)]);
}

#[test]
fn ops_take_effect_in_the_order_submitted() {
    let (_directory, path) = file();
    let open = open(&path);
    let ops = [
        put_queue(0),
        put_record(1, 1, 9),
        put_record(2, 2, 9),
        read(3, &[2, 1]),
        remove(4, &[1]),
        read(5, &[2]),
    ];
    for op in ops.into_iter().chain([read(6, &[1, 2])]) {
        open.submit(op);
    }
    let done: Vec<HolderDone> = (0..7).map(|_| open.next()).collect();
    assert!(
        done.iter()
            .enumerate()
            .all(|(index, done)| done.op == OpId(index as u64))
    );
    let body = |seq| ByteBuf::from(vec![seq; 9]);
    assert!(done[3].outcome == Outcome::Records(vec![body(2), body(1)]));
    assert!(done[5].outcome == Outcome::Records(vec![body(2)]));
    assert!(
        done[6].outcome == Outcome::Failed,
        "a removed record can't be read"
    );
    assert!(
        done[..3]
            .iter()
            .chain(&done[4..5])
            .all(|done| done.outcome == Outcome::Done)
    );
}

#[test]
fn what_waits_together_is_committed_together() {
    let (_directory, path) = file();
    let open = open(&path);
    open.run(put_queue(0));
    let before = open.store.counts().commits;
    for seq in 1..=4000 {
        open.submit(put_record(seq, seq, 1777));
    }
    for seq in 1..=4000 {
        let done = open.next();
        assert!(done.op == OpId(seq) && done.outcome == Outcome::Done);
    }
    let commits = open.store.counts().commits - before;
    assert!(commits <= 400, "{commits} commits of 4000 deposits");
    assert_eq!(open.store.counts().waiting, 0);
}

#[test]
fn a_full_disk_fails_what_it_must_and_passes() {
    let (_directory, path) = file();
    let full = open_full(&path, 40);
    full.run(put_queue(0));
    let mut seqs = 1..;
    let deposit = |seq: &u64| full.run(put_record(*seq, *seq, 7700)) == Outcome::Done;
    let stored: Vec<u64> = seqs.by_ref().take_while(deposit).collect();
    assert!(!stored.is_empty() && stored.len() < 40);
    // In one batch with an op that has no room, one that has room is done.
    let (big, small) = (seqs.next().unwrap(), seqs.next().unwrap());
    full.submit(put_record(big, big, 200_000));
    full.submit(read(901, &stored[..1]));
    full.submit(remove(902, &stored[..1]));
    full.submit(put_record(small, small, 1777));
    assert!(full.next().outcome == Outcome::Failed);
    assert!(matches!(full.next().outcome, Outcome::Records(records) if records.len() == 1));
    assert!(full.next().outcome == Outcome::Done && full.next().outcome == Outcome::Done);
    assert!(full.store.counts().failed >= 2);
    full.store.close();
    let roomy = open(&path);
    assert!(roomy.run(put_record(big, big, 200_000)) == Outcome::Done);
    roomy.store.close();
    let queues = open(&path).snapshot.queues;
    let expected: Vec<u64> = stored[1..].iter().copied().chain([big, small]).collect();
    assert_eq!(
        queues[0]
            .records
            .iter()
            .map(|entry| entry.seq)
            .collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn a_place_is_used_once() {
    let (_directory, path) = file();
    let open = open(&path);
    open.run(put_queue(0));
    assert!(open.run(put_record(1, 1, 9)) == Outcome::Done);
    assert!(open.run(put_record(2, 1, 10)) == Outcome::Failed);
    assert!(open.run(read(3, &[1])) == Outcome::Records(vec![ByteBuf::from(vec![1; 9])]));
}

#[test]
fn a_removed_queue_leaves_nothing() {
    let (_directory, path) = file();
    let first = open(&path);
    first.run(put_queue(0));
    first.run(put_record(1, 1, 9));
    first.run(put_record(2, 2, 9));
    first.run(remove(3, &[1]));
    assert!(
        first.run(HolderOp::RemoveQueue {
            op: OpId(4),
            queue: QUEUE,
            seqs: vec![2]
        }) == Outcome::Done
    );
    first.run(put_queue(5));
    first.store.close();
    let second = open(&path);
    assert!(
        second.snapshot.queues[0].records.is_empty()
            && second.snapshot.queues[0].removed.is_empty()
    );
}

#[test] // what is left of a removal that failed
fn records_without_a_queue_are_removed_at_start() {
    let (_directory, path) = file();
    let first = open(&path);
    first.run(put_record(1, 1, 9));
    first.store.close();
    open(&path).store.close();
    let rows = |table| {
        let db = Connection::open(&path).unwrap();
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get::<_, i64>(0)
        })
        .unwrap()
    };
    assert_eq!((rows("records"), rows("bodies")), (0, 0));
}

fn age(number: u8) -> Age {
    Age {
        first_seen: WallTime(u64::from(number) * 10),
        belief: Belief::from_number(u64::from(number)),
        there_since: WallTime(u64::from(number) * 10),
    }
}

#[test]
fn descriptors_and_onion_keys_come_back() {
    let (_directory, path) = file();
    let first = open(&path);
    let submit = |op| assert!(first.store.submit(op).is_ok());
    for (relay, bytes) in [(1, b"old"), (2, b"two"), (1, b"new"), (3, b"gon")] {
        let row = BookRow {
            descriptor: bytes.to_vec(),
            age: age(relay),
        };
        submit(StoreOp::Book(BookOp::Put {
            relay: RelayId([relay; 32]),
            row,
        }));
    }
    submit(StoreOp::Book(BookOp::Remove(vec![
        RelayId([3; 32]),
        RelayId([4; 32]),
    ])));
    for (ticket, epoch) in [(7, 10), (8, 11), (9, 12)] {
        let blinded = BlindedKey([u8::try_from(epoch).unwrap(); 32]);
        submit(StoreOp::PutInboxDescriptor {
            ticket,
            blinded,
            epoch: Epoch(epoch),
            descriptor: vec![9; 8192],
        });
        let done = first.done.recv().unwrap();
        assert!(
            matches!(done, StoreDone::InboxDescriptor { ticket: of, is_stored: true } if of == ticket)
        );
    }
    submit(StoreOp::RemoveInboxDescriptorsBefore(Epoch(11)));
    submit(StoreOp::RemoveInboxDescriptorsAfter(Epoch(11)));
    let onion_key = |byte, at| StoredOnionKey {
        secret: Zeroizing::new([byte; 32]),
        created_at: WallTime(at),
    };
    submit(StoreOp::PutOnionKeys(vec![onion_key(1, 100)]));
    submit(StoreOp::PutOnionKeys(vec![
        onion_key(1, 100),
        onion_key(2, 200),
    ]));
    first.store.close();
    let snapshot = open(&path).snapshot;
    let row = |relay, bytes: &[u8]| BookRow {
        descriptor: bytes.to_vec(),
        age: age(relay),
    };
    assert_eq!(snapshot.relays, [row(1, b"new"), row(2, b"two")]);
    assert_eq!(snapshot.inbox_descriptors, [vec![9; 8192]]);
    let keys: Vec<_> = snapshot
        .onion_keys
        .iter()
        .map(|key| (key.secret[0], key.created_at.as_secs()))
        .collect();
    assert_eq!(keys, [(2, 200), (1, 100)], "newest first");
}

#[test]
fn what_waits_is_bounded_and_refused_ops_are_answered() {
    let (_directory, path) = file();
    let (release, blocked) = channel::<()>();
    let mut is_first = true;
    let on_done = Box::new(move |_| {
        if std::mem::take(&mut is_first) {
            let _ = blocked.recv();
        }
    });
    let (store, _) = Store::open(&path, on_done).unwrap();
    let refused = (0..)
        .find_map(|op| store.submit(StoreOp::Mailbox(read(op, &[]))).err())
        .unwrap();
    assert!(matches!(
        refused.answer,
        Some(StoreDone::Mailbox(HolderDone {
            outcome: Outcome::Busy,
            ..
        }))
    ));
    let waiting = store.counts().waiting;
    assert!((QUEUE_OPS_MAX - QUEUE_OPS_RESERVED..=QUEUE_OPS_MAX).contains(&waiting));
    assert!(
        store.submit(StoreOp::PutOnionKeys(vec![])).is_ok(),
        "has a place of its own"
    );
    assert_eq!(store.counts().refused, 1);
    release.send(()).unwrap();
    store.close();

    let open = open(&path);
    let length = QUEUE_BYTES_MAX / 4;
    let body = || ByteBuf::from(vec![0; length + 1]);
    let put = |seq| HolderOp::PutRecord {
        op: OpId(seq),
        queue: QUEUE,
        seq,
        record: id(seq),
        expires_at: SOON,
        body: body(),
    };
    assert!(
        (1..=4).any(|seq| open.store.submit(StoreOp::Mailbox(put(seq))).is_err()),
        "bytes are bounded too"
    );
}

#[test]
fn only_one_process_has_the_file_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = file();
    let first = open(&path);
    first.run(put_queue(0));
    let second = Store::open(&path, Box::new(|_| {}));
    assert!(matches!(second.map(drop), Err(StoreError::InUse { .. })));
    let modes = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777);
    let modes: Vec<u32> = modes.collect();
    assert!(
        modes.len() >= 2 && modes.iter().all(|&mode| mode == 0o600),
        "{modes:?}"
    );
}

#[test]
fn a_file_that_is_not_ours_or_newer_is_refused_and_left_alone() {
    let (directory, path) = file();
    open(&path).store.close();
    let set = |pragma: &str, value: i64| {
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, pragma, value)
            .unwrap();
    };
    let refused = || Store::open(&path, Box::new(|_| {})).map(drop).unwrap_err();
    set("user_version", 1000);
    assert!(matches!(refused(), StoreError::Newer { found: 1000, .. }));
    assert!(
        refused()
            .hint()
            .contains("install the version that wrote it")
    );
    set("user_version", 1);
    set("application_id", 5);
    assert!(matches!(refused(), StoreError::Foreign { .. }));
    let text = directory.path().join("text");
    std::fs::write(&text, vec![b'x'; 5000]).unwrap();
    assert!(matches!(
        Store::open(&text, Box::new(|_| {})).map(drop),
        Err(StoreError::Foreign { .. })
    ));
    assert_eq!(std::fs::read(&text).unwrap(), vec![b'x'; 5000]);
    let nowhere = directory.path().join("no/such/directory");
    assert!(matches!(
        Store::open(&nowhere, Box::new(|_| {})).map(drop),
        Err(StoreError::File { .. })
    ));
}

#[test]
fn a_database_of_another_program_is_not_changed_at_all() {
    use std::os::unix::fs::PermissionsExt;
    for (application, journal_mode, is_closed) in [
        (0, "DELETE", true),
        (0, "DELETE", false),
        (5, "DELETE", false),
        (0, "WAL", true),
        (0, "WAL", false),
        (5, "WAL", false),
    ] {
        let (theirs, path) = file();
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "application_id", application)
            .unwrap();
        db.pragma_update(None, "journal_mode", journal_mode)
            .unwrap();
        db.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
            .unwrap();
        if !is_closed {
            // Larger than the cache: a part is in the file before it is committed.
            let unfinished = "PRAGMA cache_size = 1; BEGIN;
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
                INSERT INTO theirs SELECT zeroblob(4000) FROM n";
            db.execute_batch(unfinished).unwrap();
        }
        let db = (!is_closed).then_some(db); // a copy of an open one has a log, or a journal
        let (ours, path) = file();
        for file in std::fs::read_dir(theirs.path()).unwrap() {
            let file = file.unwrap();
            if !file.file_name().to_string_lossy().ends_with("-shm") {
                let copy = ours.path().join(file.file_name());
                std::fs::copy(file.path(), &copy).unwrap();
                std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o644)).unwrap();
            }
        }
        let files = || {
            let files = std::fs::read_dir(ours.path()).unwrap();
            let files = files.map(|file| file.unwrap().path());
            let state = files.map(|file| {
                let mode = file.metadata().unwrap().permissions().mode() & 0o777;
                (std::fs::read(&file).unwrap(), file, mode)
            });
            let mut files = state.collect::<Vec<_>>();
            files.sort();
            files
        };
        let before = files();
        assert_eq!(before.len(), if is_closed { 1 } else { 2 });
        let refused = Store::open(&path, Box::new(|_| {})).map(drop);
        assert!(matches!(refused, Err(StoreError::Foreign { .. })));
        assert!(
            files() == before,
            "{application}, {journal_mode}, closed: {is_closed}"
        );
        drop(db);
    }
}

#[test]
fn a_store_whose_maker_was_killed_is_made_again() {
    let ours = i32::from_be_bytes(*b"umbl");
    for first_page in [Some(ours), Some(0), None] {
        let (dir, path) = file();
        leave_unmade(&path, first_page);
        assert!(dir.path().join("store-journal").exists());
        let store = open(&path);
        store.run(put_queue(0));
        store.store.close();
        assert!(!dir.path().join("store-journal").exists());
        open(&path).store.close();
    }
    let (_dir, path) = file();
    leave_unmade(&path, Some(5));
    let refused = Store::open(&path, Box::new(|_| {})).map(drop);
    assert!(matches!(refused, Err(StoreError::Foreign { .. })));
}

/// What a process leaves that is killed within the first transaction on a new file: zeros, or a
/// first page with this application id.
fn leave_unmade(path: &Path, first_page: Option<i32>) {
    let (elsewhere, made) = file();
    let db = Connection::open(&made).unwrap();
    // Larger than the cache: a part is in the file before it is committed.
    let unfinished = "PRAGMA cache_size = 1; BEGIN; CREATE TABLE t (x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
         INSERT INTO t SELECT zeroblob(4000) FROM n";
    db.execute_batch(unfinished).unwrap();
    for name in ["store", "store-journal"] {
        std::fs::copy(elsewhere.path().join(name), path.with_file_name(name)).unwrap();
    }
    let mut left = std::fs::read(path).unwrap();
    assert!(left.starts_with(&[0; 4096]));
    if let Some(application) = first_page {
        let (_dir, whole) = file();
        let db = Connection::open(&whole).unwrap();
        db.pragma_update(None, "application_id", application)
            .unwrap();
        left.splice(
            ..4096,
            std::fs::read(whole).unwrap()[..4096].iter().copied(),
        );
        std::fs::write(path, left).unwrap();
    }
}

#[test]
fn a_new_store_is_marked_by_its_first_transaction() {
    let (_dir, path) = file();
    let db = Connection::open(&path).unwrap();
    open::lock_and_mark(&db, false).unwrap();
    drop(db);
    let header = std::fs::read(&path).unwrap();
    assert_eq!(header[68..72], *b"umbl");
}

#[test]
fn a_store_that_came_back_readable_by_others_is_private_again_with_its_log() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = file();
    open(&path).store.close();
    for has_log in [false, true] {
        let shared = std::fs::Permissions::from_mode(0o644);
        if has_log {
            std::fs::write(directory.path().join("store-wal"), b"").unwrap();
            std::fs::set_permissions(directory.path().join("store-wal"), shared.clone()).unwrap();
        }
        std::fs::set_permissions(&path, shared).unwrap();
        let open = open(&path);
        open.run(put_queue(0));
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}, had a log: {has_log}", file.file_name());
        }
        open.store.close();
    }
}

#[test] // before the first checkpoint the log alone says all but what the file is
fn a_new_file_is_marked_as_a_relays_before_anything_else() {
    let (_directory, path) = file();
    let open = open(&path);
    open.run(put_queue(0));
    let header = std::fs::read(&path).unwrap();
    assert_eq!(header.get(68..72), Some(b"umbl".as_slice()));
}

#[test]
fn a_removed_body_is_not_left_in_the_file() {
    let (_directory, path) = file();
    let open = open(&path);
    open.run(put_queue(0));
    let body = ByteBuf::from(b"a record that must not be found later ".repeat(100));
    let put = HolderOp::PutRecord {
        op: OpId(1),
        queue: QUEUE,
        seq: 1,
        record: id(1),
        expires_at: SOON,
        body,
    };
    assert!(open.run(put) == Outcome::Done);
    assert!(open.run(remove(2, &[1])) == Outcome::Done);
    open.store.close();
    let bytes = std::fs::read(&path).unwrap();
    assert!(
        !bytes
            .windows(30)
            .any(|window| window == b"a record that must not be foun")
    );
}
