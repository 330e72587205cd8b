//! A data directory of each released format starts, as the relay it was, with everything that it
//! kept (`relay/tests/fixtures/README.md`).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use umbel_relay::Relay;
use umbel_relay::config::{Config, Flags};
use umbel_relay::store::Store;

const PEER: &str = "7pbw4476ese2c4dkvp6tkclsggsfnfwkiu2m25mrlifsgxiplcwq@127.0.0.1:37789";
/// Each queue's first byte, how many records wait in it, and how many removed ones it remembers.
const QUEUES: [(u8, usize, usize); 3] = [(0x25, 1, 0), (0x85, 2, 4), (0x8a, 0, 2)];

/// A copy of a fixture, which no test writes to.
fn copy() -> (TempDir, PathBuf) {
    let from = Path::new("tests/fixtures/relay-7e4259e");
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("relay");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    (folder, to)
}

fn assert_whole(dir: &Path) {
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
    assert_eq!(queues, QUEUES);
    let lens: Vec<_> = restored
        .queues
        .iter()
        .flat_map(|queue| queue.records.iter().map(|record| record.len))
        .collect();
    assert_eq!(lens, [1777, 1777, 7684]);
    assert!(
        restored
            .queues
            .iter()
            .all(|queue| queue.fetched_at.as_secs() == 1_795_683_600)
    );
    assert!(
        restored
            .queues
            .iter()
            .flat_map(|queue| &queue.records)
            .all(|record| {
                record.expires_at.as_secs() == 1_796_896_800 // 14 days after its deposit
            })
    );
    let (keys, relays, inboxes) = (
        &restored.onion_keys,
        &restored.relays,
        &restored.inbox_descriptors,
    );
    assert_eq!((keys.len(), relays.len(), inboxes.len()), (1, 7, 6));
    store.close();
}

#[test]
fn a_store_of_7e4259e_keeps_its_mailboxes_descriptors_and_keys() {
    let (_folder, dir) = copy();
    assert_whole(&dir);
    assert_whole(&dir); // what the first opening brought along, the second reads
}

#[tokio::test]
async fn a_relay_of_7e4259e_starts_as_the_one_it_was() {
    let (_folder, dir) = copy();
    let flags = Flags {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        ..Flags::default()
    };
    let (config, network) = Config::load(&dir, flags).unwrap();
    assert_eq!(umbel_relay::known_peer(&config).unwrap().to_string(), PEER);
    let relay = Relay::start(config, network).await.unwrap();
    assert_eq!(relay.peer().id.to_string(), PEER.split('@').next().unwrap());
    relay.shutdown().await;
}
