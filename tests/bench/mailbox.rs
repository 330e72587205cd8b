//! Mailboxes under load: durable deposits and fetches, over many links to one holder.
//!
//! The holder is a relay process of its own, alone in its network, on a disk that it syncs.
//! Requests are made and signed before the clock starts: a sender signs its own, and here all
//! senders and the holder share the machine.

use std::time::Instant;

use rand::{Rng, RngExt};
use serde_bytes::ByteBuf;
use tokio::task::JoinSet;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::handshake::Binding;
use umbel_proto::ids::{CircId, NetworkId, Peer, QueueId, QueueNonce, RelayId};
use umbel_proto::inbox::mailbox::{
    FETCH_BYTES_ONE_CELL, MailboxContext, MailboxReply, QueueKind, Refusal, Verb, queue_id,
};
use umbel_proto::limits::RECORD_LENS;
use umbel_proto::message::Service;
use umbel_proto::network::Network;
use umbel_proto::time::Duration;

use super::probe::Probe;
use super::process::{Meter, Process};
use super::relays::{Admission, Relays};
use super::row::{Goal, Row, Unit, ms};
use super::{BenchError, Extent, Report, Step, join_all, within};

/// The usual load on a holder here.
const USUAL: Pressure = Pressure {
    links: 8,
    under_way: 16,
};
/// Answers that a link waits for before it asks for as many more: cells then leave together, as
/// they do from a busy link.
const ASKED_TOGETHER: usize = 4;
/// Requests made and signed at once.
const PREPARED_MAX: usize = 10_000;
/// Threads of the holder.
const THREADS: usize = 2;
/// How long until memory that only a start needed is given back.
const SETTLE: Duration = Duration::from_millis(500);

/// How much is asked at once.
#[derive(Clone, Copy)]
struct Pressure {
    /// Links to the holder, each with one circuit.
    links: usize,
    /// Requests in flight on each.
    under_way: usize,
}

/// How much is done.
#[derive(Clone, Copy)]
struct Plan {
    /// Rounds of deposits, and of fetches.
    rounds: usize,
    /// Requests in each.
    requests: usize,
    /// Queues that they go to at first.
    few: usize,
    /// More than a holder lets wait.
    overload: Pressure,
    /// Queues that the holder has then, with a record in each.
    many: usize,
}

impl Plan {
    const FULL: Self = Self {
        rounds: 8,
        requests: 4_000,
        few: 1_000,
        overload: Pressure {
            links: 160,
            under_way: 32,
        },
        many: 100_000,
    };
    const QUICK: Self = Self {
        rounds: 2,
        requests: 200,
        few: 50,
        overload: Pressure {
            links: 10,
            under_way: 32,
        },
        many: 400,
    };
}

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(Plan::FULL, Plan::QUICK);
    let mut relays = Box::pin(Relays::start(&[THREADS], Admission::Open)).await?;
    let mut load = Load::dial(&relays).await?;
    let few = load.create(plan.few).await?;
    load.deposits(&plan, &few)
        .await?
        .report(&DEPOSITS, USUAL, "", report);
    load.fetches(&plan, &few)
        .await?
        .report(&FETCHES, USUAL, "", report);
    overload(&plan, &relays, &mut load, &few, report).await?;
    let many = load.create(plan.many).await?;
    let note = format!(", one to each of {} queues", many.len());
    load.deposits_to_each(&many)
        .await?
        .report(&DEPOSITS_MANY, USUAL, &note, report);
    restart(&mut relays, many.len(), report).await?;
    load.dial_again(&relays, USUAL).await?;
    load.fetches(&plan, &many).await?.report(
        &FETCHES_MANY,
        USUAL,
        &format!(", from any of {} queues", many.len()),
        report,
    );
    relays.stop().await
}

/// More deposits at once than a holder lets wait: how many it accepts, how long these take, and how
/// many it refuses.
async fn overload(
    plan: &Plan,
    relays: &Relays,
    load: &mut Load,
    queues: &[QueueId],
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let Pressure { links, under_way } = plan.overload;
    load.dial_again(relays, plan.overload).await?;
    let mut cost = Cost::default();
    let verbs = queues
        .iter()
        .cycle()
        .take(4 * links * under_way)
        .map(|&queue| deposit(queue));
    load.ask(verbs, &mut cost).await?;
    let note = format!(
        ", {} of {} refused as busy",
        cost.refused,
        4 * links * under_way
    );
    cost.report(&OVERLOAD, plan.overload, &note, report);
    load.dial_again(relays, USUAL).await
}

async fn restart(
    relays: &mut Relays,
    queue_count: usize,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let started = Instant::now();
    relays.restart_first().await?;
    let note = format!(
        "until a holder of {queue_count} queues, and a record in each, is ready after it was killed"
    );
    report(Row::single(
        "holder_start",
        Unit::Milliseconds,
        Some(ms(started.elapsed())),
        note,
    ));
    tokio::time::sleep(SETTLE).await;
    let (holder, _) = relays.path()?;
    let kib = holder
        .process
        .resident_bytes()
        .map(|bytes| bytes as f64 / 1024.0);
    report(Row::single(
        "holder_memory",
        Unit::Kibibytes,
        kib,
        "its resident memory then",
    ));
    Ok(())
}

fn nonces(count: usize) -> Vec<QueueNonce> {
    let mut rng = rand::rng();
    std::iter::repeat_with(|| QueueNonce(rng.random()))
        .take(count)
        .collect()
}

/// All clients of a holder. One owner key and one sender key serve all queues, which makes no
/// difference to the holder.
struct Load {
    links: Vec<Asker>,
    under_way: usize,
    process: Process,
    owner: SigningKey,
    sender: SigningKey,
}

/// The cost of some rounds.
#[derive(Default)]
struct Cost {
    rates: Vec<f64>,
    latencies_ms: Vec<f64>,
    cpu_us: Vec<f64>,
    /// Requests that the holder had no room for.
    refused: usize,
}

/// The names of the rows of one kind of request.
struct Names {
    rate: &'static str,
    latency: &'static str,
    cpu: &'static str,
    what: &'static str,
    goals: Option<Goals>,
}

/// The goals of one kind of request.
struct Goals {
    /// Least rate.
    rate: f64,
    /// The name of the row with the latency's p99.
    p99: &'static str,
    /// Most milliseconds that the p99 may be.
    p99_ms: f64,
}

const DEPOSITS: Names = Names {
    rate: "deposits",
    latency: "deposit_latency",
    cpu: "deposit_cpu",
    what: "deposits of the shortest record at one holder, each answered when it is synced to the disk",
    goals: Some(Goals {
        rate: 5000.0,
        p99: "deposit_p99",
        p99_ms: 50.0,
    }),
};
const DEPOSITS_MANY: Names = Names {
    rate: "deposits_many",
    latency: "deposit_latency_many",
    cpu: "deposit_cpu_many",
    goals: Some(Goals {
        rate: 5000.0,
        p99: "deposit_p99_many",
        p99_ms: 50.0,
    }),
    ..DEPOSITS
};
const OVERLOAD: Names = Names {
    rate: "overload",
    latency: "overload_latency",
    cpu: "overload_cpu",
    what: "deposits, granted or refused, with more under way than a holder lets wait",
    goals: None,
};
const FETCHES: Names = Names {
    rate: "fetches",
    latency: "fetch_latency",
    cpu: "fetch_cpu",
    what: "fetches of one such record, from the disk or what is in memory of it",
    goals: None,
};
const FETCHES_MANY: Names = Names {
    rate: "fetches_many",
    latency: "fetch_latency_many",
    cpu: "fetch_cpu_many",
    ..FETCHES
};

impl Load {
    async fn dial(relays: &Relays) -> Result<Self, BenchError> {
        let (holder, _) = relays.path()?;
        let mut rng = rand::rng();
        let (owner, sender) = (
            SigningKey::generate(&mut rng),
            SigningKey::generate(&mut rng),
        );
        let (links, process) = (
            links(&holder.peer, USUAL.links).await?,
            holder.process.clone(),
        );
        Ok(Self {
            links,
            under_way: USUAL.under_way,
            process,
            owner,
            sender,
        })
    }

    /// Dials the holder as it runs now, over as many links as `pressure` has.
    async fn dial_again(&mut self, relays: &Relays, pressure: Pressure) -> Result<(), BenchError> {
        let (holder, _) = relays.path()?;
        self.links = links(&holder.peer, pressure.links).await?;
        (self.under_way, self.process) = (pressure.under_way, holder.process.clone());
        Ok(())
    }

    /// Makes so many queues.
    async fn create(&mut self, count: usize) -> Result<Vec<QueueId>, BenchError> {
        let (owner, sender) = (self.owner.public(), self.sender.public());
        let create = |&nonce: &QueueNonce| Verb::Create {
            nonce,
            owner,
            sender,
            kind: QueueKind::Contact,
        };
        let nonces = nonces(count);
        let mut cost = Cost::default();
        for some in nonces.chunks(PREPARED_MAX) {
            self.ask(some.iter().map(create), &mut cost).await?;
        }
        cost.all_granted()?;
        Ok(nonces.iter().map(|nonce| queue_id(&owner, nonce)).collect())
    }

    /// Rounds of deposits, to these queues in turn.
    async fn deposits(&mut self, plan: &Plan, queues: &[QueueId]) -> Result<Cost, BenchError> {
        let mut cost = Cost::default();
        for round in 0..plan.rounds {
            let queues = queues.iter().cycle().skip(round).take(plan.requests);
            self.ask(queues.map(|&queue| deposit(queue)), &mut cost)
                .await?;
        }
        cost.all_granted()
    }

    async fn deposits_to_each(&mut self, queues: &[QueueId]) -> Result<Cost, BenchError> {
        let mut cost = Cost::default();
        for some in queues.chunks(PREPARED_MAX) {
            self.ask(some.iter().map(|&queue| deposit(queue)), &mut cost)
                .await?;
        }
        cost.all_granted()
    }

    /// Rounds of fetches, from any of these queues.
    async fn fetches(&mut self, plan: &Plan, queues: &[QueueId]) -> Result<Cost, BenchError> {
        let mut cost = Cost::default();
        for _ in 0..plan.rounds {
            let queues =
                std::iter::repeat_with(|| queues.get(rand::rng().random_range(0..queues.len())));
            let fetch = |&queue| Verb::Fetch {
                queue,
                remove: Vec::new(),
                bytes_max: FETCH_BYTES_ONE_CELL,
            };
            let fetches: Vec<_> = queues.flatten().map(fetch).take(plan.requests).collect();
            self.ask(fetches.into_iter(), &mut cost).await?;
        }
        cost.all_granted()
    }

    /// One round: signs, asks over all links at once, and waits for all answers.
    async fn ask(
        &mut self,
        verbs: impl Iterator<Item = Verb>,
        cost: &mut Cost,
    ) -> Result<(), BenchError> {
        let mut frames: Vec<Vec<Vec<u8>>> = self.links.iter().map(|_| Vec::new()).collect();
        for (index, verb) in verbs.enumerate() {
            let link = index % self.links.len();
            let key = if matches!(verb, Verb::Deposit { .. }) {
                &self.sender
            } else {
                &self.owner
            };
            if let (Some(frames), Some(asker)) = (frames.get_mut(link), self.links.get_mut(link)) {
                frames.push(asker.signed(verb, key));
            }
        }
        let count: usize = frames.iter().map(Vec::len).sum();
        let meter = Meter::start([self.process.clone()]);
        let mut asking = JoinSet::new();
        for (asker, frames) in std::mem::take(&mut self.links).into_iter().zip(frames) {
            asking.spawn(within(Step::Mailbox, asker.ask_all(frames, self.under_way)));
        }
        for (asker, Answers { latencies, refused }) in join_all(asking).await? {
            self.links.push(asker);
            cost.latencies_ms.extend(latencies.into_iter().map(ms));
            cost.refused += refused;
        }
        let reading = meter.stop();
        cost.rates.push(count as f64 / reading.wall);
        cost.cpu_us.extend(
            reading
                .cpu_sum()
                .map(|seconds| seconds * 1e6 / count as f64),
        );
        Ok(())
    }
}

impl Cost {
    fn all_granted(self) -> Result<Self, BenchError> {
        if self.refused == 0 {
            Ok(self)
        } else {
            Err(BenchError::Refused(Refusal::Busy))
        }
    }

    fn report(self, names: &Names, pressure: Pressure, more: &str, report: &mut Report<'_>) {
        let Names {
            rate,
            latency,
            cpu,
            what,
            goals,
        } = names;
        let Pressure { links, under_way } = pressure;
        let note = format!(
            "{what}{more}; {} under way, over {links} links",
            links * under_way
        );
        let rates = Row::of(rate, Unit::PerSecond, self.rates, note);
        let latencies = Row::of(
            latency,
            Unit::Milliseconds,
            self.latencies_ms,
            "from asking to the answer, for each of these",
        );
        match goals {
            None => {
                report(rates);
                report(latencies);
            }
            Some(Goals { rate, p99, p99_ms }) => {
                let p99 = latencies
                    .p99_alone(p99, "the most that ninety-nine in a hundred of these took");
                report(rates.with_goal(Goal::AtLeast(*rate)));
                report(latencies);
                report(p99.with_goal(Goal::AtMost(*p99_ms)));
            }
        }
        report(Row::of(
            cpu,
            Unit::Microseconds,
            self.cpu_us,
            "time on cores of the holder's process for each, all in all",
        ));
    }
}

async fn links(holder: &Peer, count: usize) -> Result<Vec<Asker>, BenchError> {
    let mut links = Vec::with_capacity(count);
    for _ in 0..count {
        links.push(Asker::dial(holder).await?);
    }
    Ok(links)
}

/// A record that nobody can open: a holder can't tell it from any other.
fn deposit(queue: QueueId) -> Verb {
    let mut record = vec![0; RECORD_LENS[0]];
    rand::rng().fill_bytes(&mut record);
    Verb::Deposit {
        queue,
        record: ByteBuf::from(record),
        puzzle: 0,
    }
}

/// The answers that came on one link.
struct Answers {
    /// How long each took that was granted.
    latencies: Vec<Duration>,
    refused: usize,
}

/// A link to a holder, with one circuit.
struct Asker {
    probe: Probe,
    circ: CircId,
    network: NetworkId,
    holder: RelayId,
    binding: Binding,
}

impl Asker {
    async fn dial(holder: &Peer) -> Result<Self, BenchError> {
        let mut probe = Probe::dial(holder).await?;
        let circ = probe.build(&[]).await?;
        let binding = probe.binding(circ)?;
        Ok(Self {
            probe,
            circ,
            network: Network::local().id,
            holder: holder.id,
            binding,
        })
    }

    fn signed(&self, verb: Verb, key: &SigningKey) -> Vec<u8> {
        let context = MailboxContext {
            network: &self.network,
            holder: &self.holder,
            binding: &self.binding,
        };
        verb.signed(key, &context).encode()
    }

    /// Asks all of these, `under_way` at a time.
    async fn ask_all(
        mut self,
        frames: Vec<Vec<u8>>,
        under_way: usize,
    ) -> Result<(Self, Answers), BenchError> {
        let mut in_flight = 0_usize;
        let mut answers = Answers {
            latencies: Vec::with_capacity(frames.len()),
            refused: 0,
        };
        let mut frames = frames.into_iter();
        loop {
            if in_flight + ASKED_TOGETHER <= under_way {
                for frame in frames.by_ref().take(under_way - in_flight) {
                    self.probe.ask(self.circ, Service::Mailbox, frame).await?;
                    in_flight += 1;
                }
            }
            if in_flight == 0 {
                return Ok((self, answers));
            }
            let (_, asked_at, answer) = self.probe.next_frame().await?;
            in_flight -= 1;
            if is_granted(&answer)? {
                answers.latencies.push(asked_at.elapsed());
            } else {
                answers.refused += 1;
            }
        }
    }
}

/// Whether the holder did what it was asked, or had no room for it.
fn is_granted(answer: &[u8]) -> Result<bool, BenchError> {
    match MailboxReply::decode(answer) {
        Ok(MailboxReply::Refused(Refusal::Busy)) => Ok(false),
        Ok(MailboxReply::Refused(refusal)) => Err(BenchError::Refused(refusal)),
        Ok(MailboxReply::Fetched { records, .. }) if records.is_empty() => {
            Err(BenchError::Unexpected)
        }
        Ok(MailboxReply::Created | MailboxReply::Deposited | MailboxReply::Fetched { .. }) => {
            Ok(true)
        }
        Ok(MailboxReply::Done) | Err(_) => Err(BenchError::Unexpected),
    }
}
