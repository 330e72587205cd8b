//! A body for a client's outbox: the input is the user's actions, and when the store answers.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_client::core::{Core, Notice, Recipient, StoreOp, StoreTicket, Wish};
use umbel_proto::ids::MessageId;
use umbel_proto::network::Network;
use umbel_proto::time::{Duration, Instant, Moment};

use super::Script;
use super::decoders::{WALL, identity};
use crate::disk::ClientDisk;

/// Messages sent and taken back, and the order in which the store's answers come.
///
/// The store works in the order asked, as the real one does; it may be full. Its answers come when
/// the input says, in any order. A message is reported as queued only once it is durable, and in
/// the end the outbox on the disk agrees with the reports to the user.
pub(super) fn outbox_completions(input: &[u8]) {
    let mut bench = Bench::new();
    let mut script = Script::new(input);
    while let Some(op) = script.op() {
        match op % 8 {
            0 => bench.send(op >> 3),
            1 => bench.wish(Wish::Cancel(id(op >> 3))),
            2..6 => bench.answer(usize::from(script.byte())),
            6 => bench.disk.is_full = !bench.disk.is_full,
            _ => bench.pass(Duration::from_secs(u64::from(script.byte()))),
        }
        bench.drain();
    }
    bench.end();
}

/// A client that reaches nobody, the disk under it, and answers of the disk that are not yet given.
struct Bench {
    core: Core,
    disk: ClientDisk,
    answers: Vec<(StoreTicket, bool)>,
    now: Instant,
    rng: ChaCha20Rng,
    /// Which op puts which message into the outbox.
    puts: BTreeMap<StoreTicket, MessageId>,
    /// Which op removes which message from it.
    removals: BTreeMap<StoreTicket, MessageId>,
    /// Messages whose removal the disk refused. The core does not ask again.
    unremoved: BTreeSet<MessageId>,
    /// Messages whose durability was reported to the core.
    durable: BTreeSet<MessageId>,
    sent: BTreeSet<MessageId>,
    queued: BTreeSet<MessageId>,
    cancelled: BTreeSet<MessageId>,
}

impl Bench {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let (now, disk) = (Instant::from_micros(1), ClientDisk::default());
        let network = Network::local();
        let core = Core::new(
            network,
            Vec::new(),
            None,
            disk.restore(),
            Moment { now, wall: WALL },
            &mut rng,
        );
        Self {
            core: core.unwrap_or_else(|_| unreachable!("an empty disk is sound")),
            disk,
            answers: Vec::new(),
            now,
            rng,
            puts: BTreeMap::new(),
            removals: BTreeMap::new(),
            unremoved: BTreeSet::new(),
            durable: BTreeSet::new(),
            sent: BTreeSet::new(),
            queued: BTreeSet::new(),
            cancelled: BTreeSet::new(),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.now,
            wall: WALL + self.now.since(Instant::from_micros(1)),
        }
    }

    fn wish(&mut self, wish: Wish) {
        let moment = self.moment();
        self.core.handle_wish(moment, wish, &mut self.rng);
    }

    /// Sends a message; each number once.
    fn send(&mut self, number: u8) {
        if self.sent.insert(id(number)) {
            self.wish(Wish::Send {
                id: id(number),
                to: Recipient::OneWay(*identity().address()),
                body: vec![number; 40],
                life: None,
            });
        }
    }

    /// The core hears one of the answers that wait.
    fn answer(&mut self, index: usize) {
        if self.answers.is_empty() {
            return;
        }
        let (ticket, is_stored) = self.answers.remove(index % self.answers.len());
        if is_stored {
            self.durable.extend(self.puts.get(&ticket));
        } else {
            self.unremoved.extend(self.removals.get(&ticket));
        }
        let moment = self.moment();
        self.core
            .handle_stored(moment, ticket, is_stored, &mut self.rng);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let moment = self.moment();
        self.core.handle_timeout(moment, &mut self.rng);
    }

    /// The disk does its work; the notices to the user are checked.
    fn drain(&mut self) {
        while let Some((ticket, op)) = self.core.poll_store() {
            match &op {
                StoreOp::PutOutbox { id, .. } => drop(self.puts.insert(ticket, *id)),
                StoreOp::RemoveOutbox { id, .. } => drop(self.removals.insert(ticket, *id)),
                _ => {}
            }
            self.disk.write((ticket, op));
            self.answers.extend(self.disk.commit());
        }
        while self.core.poll_link().is_some() {}
        assert!(self.core.poll_cell().is_none(), "there is no link");
        while let Some(notice) = self.core.poll_notice() {
            match notice {
                Notice::Queued(id) => {
                    assert!(self.durable.contains(&id), "what is queued is durable");
                    assert!(self.queued.insert(id), "a message is queued once");
                }
                Notice::Cancelled(cancelled) => {
                    assert!(self.cancelled.insert(cancelled.id), "it was taken back");
                }
                _ => {}
            }
        }
    }

    /// The disk has room, and everything is answered: the notices agree with the disk.
    fn end(&mut self) {
        self.disk.is_full = false;
        for _ in 0..60 {
            while !self.answers.is_empty() {
                self.answer(0);
                self.drain();
            }
            self.pass(Duration::from_secs(60));
            self.drain();
        }
        let kept: BTreeSet<_> = self.sent.difference(&self.cancelled).copied().collect();
        assert!(kept.is_subset(&self.queued), "what was sent is queued");
        let restored = self.disk.restore().outbox;
        let on_disk: BTreeSet<_> = restored.iter().map(|(id, _)| *id).collect();
        assert!(kept.is_subset(&on_disk), "the disk holds what was sent");
        let more: BTreeSet<_> = on_disk.difference(&kept).copied().collect();
        assert!(more.is_subset(&self.unremoved), "and nothing taken back");
    }
}

fn id(number: u8) -> MessageId {
    MessageId([number % 4; 16])
}
