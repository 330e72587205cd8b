//! Data directories of formats 1 and 4 start, as the relays they were, with everything that they
//! kept (`relay/tests/fixtures/README.md`). A format gets one when it is released.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use umbel_relay::Relay;
use umbel_relay::config::{Config, Settings};
use umbel_relay::store::Store;

/// What a fixture holds: one relay's directory.
struct Fixture {
    folder: &'static str,
    peer: &'static str,
    /// Each queue's first byte, how many records wait in it, and how many removed ones it remembers.
    queues: &'static [(u8, usize, usize)],
    /// The length of each record, queue by queue.
    record_lens: &'static [usize],
    /// When all queues were fetched last.
    fetched_at: u64,
    /// When all records expire.
    expires_at: u64,
    receipt_count: usize,
    has_clock: bool,
}

/// Store format 1.
const OF_7E4259E: Fixture = Fixture {
    folder: "relay-7e4259e",
    peer: "7pbw4476ese2c4dkvp6tkclsggsfnfwkiu2m25mrlifsgxiplcwq@127.0.0.1:37789",
    queues: &[(0x25, 1, 0), (0x85, 2, 4), (0x8a, 0, 2)],
    record_lens: &[1777, 1777, 7684],
    fetched_at: 1_795_683_600,
    expires_at: 1_796_896_800,
    receipt_count: 0,
    has_clock: false,
};

/// Store format 4.
const OF_E8343FD: Fixture = Fixture {
    folder: "relay-e8343fd",
    peer: "6njqkkxkgirs264j7mtpbcdj2dq5rbnm5k3mslrha57n3fcvydja@127.0.0.1:24104",
    queues: &[(0x6b, 3, 1), (0xe6, 2, 1), (0xee, 0, 1)],
    record_lens: &[1777; 5],
    fetched_at: 1_795_741_200,
    expires_at: 1_796_954_400,
    receipt_count: 5,
    has_clock: true,
};

/// A copy of a fixture, which no test writes to.
fn copy(fixture: &Fixture) -> (TempDir, PathBuf) {
    let from = Path::new("tests/fixtures").join(fixture.folder);
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("relay");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    (folder, to)
}

fn assert_whole(fixture: &Fixture, dir: &Path) {
    let (store, restored) = Store::open(&dir.join("relay.db"), Box::new(|_| {})).unwrap();
    let queues: Vec<_> = restored
        .queues
        .iter()
        .map(|queue| {
            (
                queue.queue.as_bytes()[0],
                queue.records.len(),
                queue.removed.len(),
            )
        })
        .collect();
    assert_eq!(queues, fixture.queues);
    let lens: Vec<_> = restored
        .queues
        .iter()
        .flat_map(|queue| queue.records.iter().map(|record| record.len))
        .collect();
    assert_eq!(lens, fixture.record_lens);
    assert!(
        restored
            .queues
            .iter()
            .all(|queue| queue.fetched_at.as_secs() == fixture.fetched_at)
    );
    assert!(
        restored
            .queues
            .iter()
            .flat_map(|queue| &queue.records)
            .all(|record| {
                record.expires_at.as_secs() == fixture.expires_at // 14 days after its deposit
            })
    );
    let (keys, relays, inboxes) = (
        &restored.onion_keys,
        &restored.relays,
        &restored.inbox_descriptors,
    );
    assert_eq!((keys.len(), relays.len(), inboxes.len()), (1, 7, 6));
    assert_eq!(restored.receipts.len(), fixture.receipt_count);
    assert_eq!(restored.clock.is_some(), fixture.has_clock);
    store.close();
}

fn assert_opens(fixture: &Fixture) {
    let (_folder, dir) = copy(fixture);
    assert_whole(fixture, &dir);
    assert_whole(fixture, &dir); // what the first opening brought along, the second reads
}

async fn assert_starts(fixture: &Fixture) {
    let (_folder, dir) = copy(fixture);
    let flags = Settings {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        ..Settings::default()
    };
    let (config, network) = Config::load(&dir, flags).unwrap();
    let known = umbel_relay::known_peer(&config).unwrap();
    assert_eq!(known.to_string(), fixture.peer);
    let relay = Relay::start(config, network).await.unwrap();
    let id = fixture.peer.split('@').next().unwrap();
    assert_eq!(relay.peer().id.to_string(), id);
    relay.shutdown().await;
}

#[test]
fn a_store_of_7e4259e_keeps_its_mailboxes_descriptors_and_keys() {
    assert_opens(&OF_7E4259E);
}

#[tokio::test]
async fn a_relay_of_7e4259e_starts_as_the_one_it_was() {
    assert_starts(&OF_7E4259E).await;
}

#[test]
fn a_store_of_e8343fd_keeps_its_mailboxes_descriptors_keys_and_receipts() {
    assert_opens(&OF_E8343FD);
}

#[tokio::test]
async fn a_relay_of_e8343fd_starts_as_the_one_it_was() {
    assert_starts(&OF_E8343FD).await;
}
