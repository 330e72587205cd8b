//! Whatever is asked in whatever order, with a store that fails and a process that dies: nothing
//! acknowledged is lost, nothing is returned that was not deposited, and a restart finds what the
//! disk has (docs/protocol.md §10.1).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Deposit(u8, u8),
    Fetch {
        queue: u8,
        remove: Vec<u8>,
        bytes_max: u32,
    },
    Subscribe(u8, u32),
    Cancel(u8),
    Store {
        fails: bool,
    },
    StoreAll,
    Pass(u64),
    /// From now on the calendar is wrong by this many days, and not confirmed.
    Jump(i64),
    /// It is right again.
    Heal,
    /// Ops in flight take effect or not, but none is answered; then the process dies.
    Crash {
        applied: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 1..4u8;
    let number = 1..12u8;
    prop_oneof![
        2 => queue.clone().prop_map(Step::Create),
        8 => (queue.clone(), number.clone()).prop_map(|(queue, number)| Step::Deposit(queue, number)),
        4 => (queue.clone(), prop::collection::vec(number, 0..4), 0..8000u32)
            .prop_map(|(queue, remove, bytes_max)| Step::Fetch { queue, remove, bytes_max }),
        2 => (queue, prop_oneof![Just(0), Just(3000)]).prop_map(|(queue, delay)| Step::Subscribe(queue, delay)),
        1 => any::<u8>().prop_map(Step::Cancel),
        10 => prop::bool::weighted(0.2).prop_map(|fails| Step::Store { fails }),
        3 => Just(Step::StoreAll),
        2 => prop_oneof![Just(5), Just(HOUR), Just(DAY)].prop_map(Step::Pass),
        1 => prop_oneof![Just(-3), Just(29), Just(400)].prop_map(Step::Jump),
        1 => Just(Step::Heal),
        1 => (0..6u8).prop_map(|applied| Step::Crash { applied }),
    ]
}

/// The promises that the outside may rely on.
#[derive(Default)]
struct Promises {
    /// The record of each unanswered deposit.
    deposits: BTreeMap<RequestId, (QueueId, RecordId)>,
    /// Acknowledged and neither removed nor expired.
    held: BTreeMap<(QueueId, RecordId), WallTime>,
    /// On the disk, or pushed on the queue's subscription, when its owner asked to remove it:
    /// whether or not that is done, nothing more is promised of it.
    released: BTreeSet<(QueueId, RecordId)>,
    /// Ever deposited.
    known: BTreeSet<(QueueId, RecordId)>,
    /// What each fetch or subscription is about.
    readers: BTreeMap<RequestId, QueueId>,
    /// The records pushed to each subscription, while it lasts.
    pushed: BTreeMap<RequestId, BTreeSet<RecordId>>,
}

impl Promises {
    fn on_replies(&mut self, world: &mut World) {
        for (request, replies) in std::mem::take(&mut world.replies) {
            for (reply, _) in replies {
                match reply {
                    MailboxReply::Deposited => {
                        let about = self
                            .deposits
                            .remove(&request)
                            .expect("a deposit is answered once");
                        self.on_deposited(world, about);
                    }
                    MailboxReply::Fetched { records, .. } => self.on_fetched(request, &records),
                    MailboxReply::Refused(_) => drop(self.pushed.remove(&request)),
                    MailboxReply::Created | MailboxReply::Done => {}
                }
            }
        }
    }

    fn on_remove(&mut self, world: &World, about: (QueueId, RecordId)) {
        let (queue, record) = about;
        let is_durable = world
            .disk
            .records
            .values()
            .any(|(of, entry, _)| (*of, entry.record) == about);
        let mut pushed = self
            .pushed
            .iter()
            .filter(|(request, _)| self.readers[request] == queue);
        if is_durable || pushed.any(|(_, pushed)| pushed.contains(&record)) {
            self.held.remove(&about);
            self.released.insert(about);
        }
    }

    fn on_deposited(&mut self, world: &World, about: (QueueId, RecordId)) {
        let on_disk = world
            .disk
            .records
            .values()
            .find(|(queue, entry, _)| (*queue, entry.record) == about);
        match on_disk {
            Some((_, entry, _)) if !self.released.contains(&about) => {
                self.held.insert(about, entry.expires_at);
            }
            Some(_) => {}
            None => {
                let is_gone =
                    self.released.contains(&about) || !world.disk.queues.contains_key(&about.0);
                assert!(
                    is_gone || world.disk.removed.contains_key(&about),
                    "acknowledged, but neither on the disk nor removed"
                );
            }
        }
    }

    fn on_fetched(&mut self, request: RequestId, records: &[ByteBuf]) {
        let queue = self.readers[&request];
        for record in records {
            let record = record_id(record);
            assert!(
                self.known.contains(&(queue, record)),
                "returned, but never deposited there"
            );
            if let Some(pushed) = self.pushed.get_mut(&request) {
                assert!(pushed.insert(record), "pushed twice on one subscription");
            }
        }
    }

    /// Every acknowledged record is on the disk until it is removed, it expires by confirmed time,
    /// or its queue is gone.
    fn check(&mut self, world: &World) {
        let confirmed = world.confirmed.unwrap_or(world.wall);
        self.held.retain(|(queue, _), expires_at| {
            *expires_at > confirmed && world.disk.queues.contains_key(queue)
        });
        let on_disk: BTreeSet<_> = world
            .disk
            .records
            .values()
            .map(|(queue, entry, _)| (*queue, entry.record))
            .collect();
        assert!(
            self.held.keys().all(|held| on_disk.contains(held)),
            "an acknowledged record is lost"
        );
        // Once it has expired and its id is forgotten, or could not be stored, the same record is a
        // new one: the holder goes by what it has asked for.
        let mut ahead = world.disk.clone();
        let changes = |op: &&HolderOp| !matches!(op, HolderOp::ReadRecords { .. });
        world.asked.iter().filter(changes).for_each(|op| {
            ahead.apply(op);
        });
        let records = ahead.records.values();
        let mut known: BTreeSet<_> = records
            .map(|(queue, entry, _)| (*queue, entry.record))
            .collect();
        known.extend(ahead.removed.keys());
        for (request, pushed) in &mut self.pushed {
            let queue = self.readers[request];
            pushed.retain(|&record| known.contains(&(queue, record)));
        }
    }
}

fn take(world: &mut World, promises: &mut Promises, step: Step) {
    match step {
        Step::Create(number) => drop(world.ask(OWNER, create(number))),
        Step::Deposit(to, number) => {
            let about = (queue(to), id(number));
            promises.known.insert(about);
            // Known before it is answered, which may be at once.
            promises
                .deposits
                .insert(RequestId(world.requests + 1), about);
            world.ask(SENDER, deposit(to, record(number, 0)));
        }
        Step::Fetch {
            queue: from,
            remove,
            bytes_max,
        } => {
            let remove: Vec<_> = remove.into_iter().map(id).collect();
            take_fetch(world, promises, from, remove, bytes_max);
        }
        Step::Subscribe(to, delay) => {
            let request = RequestId(world.requests + 1);
            promises.readers.insert(request, queue(to));
            promises.pushed.insert(request, BTreeSet::new());
            world.ask(OWNER, subscribe(to, delay));
        }
        Step::Cancel(back) => {
            let request = RequestId(world.requests.saturating_sub(u64::from(back % 8)));
            promises.pushed.remove(&request);
            world.holder.cancel(request);
            world.drain();
        }
        Step::Store { fails } => drop(world.store_one(fails)),
        Step::StoreAll => world.store_all(),
        Step::Pass(seconds) => {
            world.pass(seconds);
            world.confirmed = world.confirmed.map(|at| at + Duration::from_secs(seconds));
        }
        Step::Jump(days) => {
            let wrong = world.wall.as_secs().saturating_add_signed(days * 86_400);
            world.confirmed = Some(world.confirmed.unwrap_or(world.wall).min(WallTime(wrong)));
            world.wall = WallTime(wrong);
        }
        Step::Heal => world.wall = world.confirmed.take().unwrap_or(world.wall),
        Step::Crash { applied } => {
            for op in world
                .asked
                .drain(..)
                .take(usize::from(applied))
                .collect::<Vec<_>>()
            {
                world.disk.apply(&op);
            }
            world.crash();
            promises.pushed.clear();
            assert!(
                world.holder.snapshot() == world.disk.snapshot(),
                "restored as it was"
            );
        }
    }
}

fn take_fetch(
    world: &mut World,
    promises: &mut Promises,
    from: u8,
    remove: Vec<RecordId>,
    bytes_max: u32,
) {
    let readers = &mut promises.readers;
    readers.insert(RequestId(world.requests + 1), queue(from));
    let request = world.ask(OWNER, fetch(from, remove.clone(), bytes_max));
    let is_refused =
        |replies: &Vec<_>| matches!(replies.as_slice(), [(MailboxReply::Refused(_), _)]);
    if !world.replies.get(&request).is_some_and(is_refused) {
        for record in remove {
            promises.on_remove(world, (queue(from), record));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test] // §10.1
    fn nothing_acknowledged_is_lost(steps in prop::collection::vec(step(), 1..80)) {
        let limits = HolderLimits {
            contact: records(6),
            records_max: 12,
            record_life: Duration::from_secs(2 * DAY),
            queue_life: Duration::from_secs(4 * DAY),
            pending_ops_max: 10,
            ..HolderLimits::default()
        };
        let mut world = World::with(limits);
        let mut promises = Promises::default();
        for step in steps {
            take(&mut world, &mut promises, step);
            promises.on_replies(&mut world);
            promises.check(&world);
        }
        // Once all is quiet, memory and disk agree, but for what the store failed to remove: a
        // sweep puts that right.
        world.store_all();
        world.pass(HOUR);
        prop_assert!(world.holder.snapshot() == world.disk.snapshot());
        let counts = world.holder.counts();
        prop_assert_eq!((counts.pending_ops, counts.pending_bytes), (0, 0));
        prop_assert_eq!(counts.waiting, counts.subscriptions, "every other request was answered");
    }
}
