//! The client's store and `ClientDisk`.

use std::path::PathBuf;

use rand::rngs::ChaCha20Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use umbel_client::core::{Notice, Snapshot, StoreOp, StoreTicket};
use umbel_client::{BareStore, NewKey, NewProfile, Profile};
use umbel_proto::directory::{Age, Belief, BookOp, BookRow};
use umbel_proto::ids::{MessageId, Peer, RelayId};
use umbel_proto::time::WallTime;
use umbel_tests::disk::ClientDisk;
use zeroize::Zeroizing;

use super::{Keeper, Source, assert_same, copy_dir, hex, sorted, transcript};

/// The store of a profile, in a directory that is left behind at each power cut.
struct OnDisk {
    dirs: TempDir,
    lives: usize,
    store: Option<BareStore>,
    written: Vec<(StoreTicket, StoreOp)>,
}

impl OnDisk {
    fn new() -> Self {
        let dirs = TempDir::new().unwrap();
        let mut store = Self {
            lives: 0,
            store: None,
            written: Vec::new(),
            dirs,
        };
        let new = NewProfile {
            network: None,
            seeds: vec![Peer {
                id: RelayId([7; 32]),
                host_port: "192.0.2.1:9000".to_owned(),
            }],
            key: NewKey::File(store.dirs.path().join("key")),
        };
        Profile::create(&store.dir(), new, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
        store.open();
        store
    }

    fn dir(&self) -> PathBuf {
        self.dirs.path().join(self.lives.to_string())
    }

    fn open(&mut self) {
        let profile = Profile::load(&self.dir()).unwrap();
        self.store = Some(BareStore::open(profile).unwrap());
    }
}

impl Keeper for OnDisk {
    type Op = (StoreTicket, StoreOp);

    fn write(&mut self, op: (StoreTicket, StoreOp)) {
        self.written.push(op);
    }

    fn commit(&mut self) -> Vec<String> {
        let batch = std::mem::take(&mut self.written);
        let store = self.store.as_mut().unwrap();
        store.commit(batch).into_iter().map(answer_line).collect()
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
        self.store = None;
        self.open();
        let store = self.store.as_ref().unwrap();
        let messages = store.messages().unwrap().into_iter();
        let messages = messages.map(|message| {
            let inbox = message.inbox.unwrap_or_default();
            (inbox, message.id, message.body.into_bytes())
        });
        restored_lines(
            &store.restore(WallTime(0)).unwrap(),
            &messages.collect::<Vec<_>>(),
        )
    }
}

impl Keeper for ClientDisk {
    type Op = (StoreTicket, StoreOp);

    fn write(&mut self, op: (StoreTicket, StoreOp)) {
        ClientDisk::write(self, op);
    }

    fn commit(&mut self) -> Vec<String> {
        ClientDisk::commit(self)
            .into_iter()
            .map(answer_line)
            .collect()
    }

    fn cut_power(&mut self) {
        self.crash();
    }

    fn restore(&mut self) -> Vec<String> {
        restored_lines(&ClientDisk::restore(self), &self.messages)
    }
}

fn answer_line((ticket, is_stored): (StoreTicket, bool)) -> String {
    format!("{ticket:?} {is_stored}")
}

fn restored_lines(snapshot: &Snapshot, messages: &[(String, MessageId, Vec<u8>)]) -> Vec<String> {
    let relays = snapshot.relays.iter().map(|row| format!("{row:?}"));
    let words = snapshot.relay_words.iter().map(|it| format!("{it:?}"));
    let inboxes = snapshot.inboxes.iter();
    let outbox = snapshot.outbox.iter();
    let received = snapshot.received.iter();
    let mut lines = vec![format!(
        "paths {:?} clock {:?}",
        snapshot.paths, snapshot.clock
    )];
    lines.extend(sorted("relay", relays));
    lines.extend(sorted("words", words));
    lines.extend(sorted(
        "inbox",
        inboxes.map(|(name, state)| format!("{name} {}", hex(state))),
    ));
    lines.extend(sorted(
        "outbox",
        outbox.map(|(id, state)| format!("{id:?} {}", hex(state))),
    ));
    lines.extend(sorted("received", received.map(|it| format!("{it:?}"))));
    // In the order in which they came.
    lines.extend(messages.iter().map(|it| format!("message {it:?}")));
    lines
}

/// A core that asks for this and that.
#[derive(Default)]
struct Asked {
    next_ticket: u64,
}

impl Source for Asked {
    type Op = (StoreTicket, StoreOp);

    fn next(&mut self, rng: &mut ChaCha20Rng) -> (StoreTicket, StoreOp) {
        self.next_ticket += 1;
        let relay = RelayId([rng.random_range(0..6); 32]);
        let id = MessageId([rng.random_range(0..12); 16]);
        let inbox = format!("inbox {}", rng.random_range(0..3));
        let state = vec![rng.random(); rng.random_range(1..40)];
        let op = match rng.random_range(0..13) {
            0 => StoreOp::PutPaths(state),
            1 => StoreOp::PutClock(state),
            2 | 3 => StoreOp::Book(BookOp::Put {
                relay,
                row: BookRow {
                    descriptor: state,
                    age: Age {
                        first_seen: WallTime(rng.random_range(0..1000)),
                        belief: Belief::from_number(rng.random_range(0..1000)),
                        there_since: WallTime(rng.random_range(0..1000)),
                    },
                },
            }),
            4 => StoreOp::Book(BookOp::Remove(vec![relay])),
            5 => StoreOp::PutInbox {
                name: inbox,
                state: Zeroizing::new(state),
            },
            6..=8 => StoreOp::PutOutbox {
                id,
                state: Zeroizing::new(state),
            },
            9 => StoreOp::RemoveOutbox {
                id,
                last: Notice::Queued(id),
            },
            10 => StoreOp::Book(BookOp::PutWords {
                relay,
                words: if rng.random() { state } else { Vec::new() },
            }),
            _ => StoreOp::PutMessage {
                inbox: Some(inbox),
                id,
                body: state,
                received_at: WallTime(rng.random_range(1..1000)),
                letter: None,
            },
        };
        (StoreTicket::new(self.next_ticket), op)
    }
}

#[test] // §10.5
fn a_client_finds_the_same_in_its_profile_and_on_a_simulated_disk() {
    for seed in 0..8 {
        let store = transcript(seed, &mut Asked::default(), &mut OnDisk::new());
        let disk = transcript(seed, &mut Asked::default(), &mut ClientDisk::default());
        assert_same(seed, &store, &disk);
    }
}
