//! Bulk transfers over one circuit of four relays, in turn with a chain of four TLS proxies.

use std::ops::Range;

use tokio::task::JoinSet;
use umbel_proto::limits::{HOPS_MAX, RECORD_LEN_MAX};

use super::probe::Probe;
use super::process::{Meter, Process};
use super::proxy::{Chain, Stream};
use super::queue::Queue;
use super::relays::{Admission, Relays};
use super::row::{Goal, Row, Unit};
use super::{BenchError, Extent, Report, join_all};

/// Circuits that are used at once, so that every core is busy.
const TOGETHER: usize = 4;

/// How much is done.
#[derive(Clone, Copy)]
struct Plan {
    /// Transfers of each kind.
    rounds: usize,
    /// Records of the greatest length carried in each.
    records: usize,
}

impl Plan {
    const FULL: Self = Self {
        rounds: 10,
        records: 800,
    };
    const QUICK: Self = Self {
        rounds: 2,
        records: 16,
    };
}

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(Plan::FULL, Plan::QUICK);
    let relays = Relays::start(&[1; HOPS_MAX], Admission::Local).await?;
    let chain = Chain::start(HOPS_MAX).await?;
    one_circuit(&plan, &relays, &chain, report).await?;
    several_circuits(&plan, &relays, &chain, report).await?;
    relays.stop().await?;
    chain.stop().await
}

/// Something that carries bytes.
trait Carrier: Send + 'static {
    /// Carries as many bytes as this many records hold; returns how many.
    fn carry(&mut self, records: usize) -> impl Future<Output = Result<u64, BenchError>> + Send;
}

impl Carrier for Queue {
    async fn carry(&mut self, records: usize) -> Result<u64, BenchError> {
        self.fetch(records).await
    }
}

impl Carrier for Stream {
    async fn carry(&mut self, records: usize) -> Result<u64, BenchError> {
        let len = (records * RECORD_LEN_MAX) as u64;
        self.fetch(len).await?;
        Ok(len)
    }
}

/// A queue on the last relay, and towards it that same record.
struct Upward(Queue);

impl Carrier for Upward {
    async fn carry(&mut self, records: usize) -> Result<u64, BenchError> {
        self.0.deposit(records).await
    }
}

/// One transfer, or several at once.
struct Round {
    /// 10^6 bytes a second.
    rate: f64,
    /// Seconds on cores for 10^9 bytes: of each hop, then of this process.
    cpu: Vec<Option<f64>>,
}

impl Round {
    /// Carries with each of these at once, each by a task of its own.
    async fn run<C: Carrier>(
        carriers: &mut Vec<C>,
        records: usize,
        hops: impl Iterator<Item = Process>,
    ) -> Result<Self, BenchError> {
        let meter = Meter::start(hops.chain([Process::current()]));
        let mut carrying = JoinSet::new();
        for mut carrier in carriers.drain(..) {
            carrying
                .spawn(async move { carrier.carry(records).await.map(|bytes| (carrier, bytes)) });
        }
        let mut bytes_sum = 0;
        for (carrier, bytes) in join_all(carrying).await? {
            carriers.push(carrier);
            bytes_sum += bytes;
        }
        let reading = meter.stop();
        let gigabytes = bytes_sum as f64 / 1e9;
        let cpu = reading
            .cpu
            .into_iter()
            .map(|cpu| Some(cpu? / gigabytes))
            .collect();
        Ok(Self {
            rate: gigabytes * 1e3 / reading.wall,
            cpu,
        })
    }

    /// Their mean cost; hop 0 is the first.
    fn cpu_of(&self, hops: Range<usize>) -> Option<f64> {
        let count = hops.len() as f64;
        let cpu: Option<f64> = hops.map(|hop| self.cpu.get(hop).copied().flatten()).sum();
        Some(cpu? / count)
    }
}

/// Rounds of one kind.
#[derive(Default)]
struct Rounds(Vec<Round>);

impl Rounds {
    fn rates(&self) -> Vec<f64> {
        self.0.iter().map(|round| round.rate).collect()
    }

    fn cpu_of(&self, hops: &Range<usize>) -> Vec<f64> {
        self.0
            .iter()
            .filter_map(|round| round.cpu_of(hops.clone()))
            .collect()
    }
}

/// Each divided by the one beside it.
fn ratios(values: &[f64], by: &[f64]) -> Vec<f64> {
    values
        .iter()
        .zip(by)
        .map(|(value, by)| value / by)
        .collect()
}

async fn queues(relays: &Relays, count: usize) -> Result<Vec<Queue>, BenchError> {
    let (guard, onward) = relays.path()?;
    let mut queues = Vec::with_capacity(count);
    for _ in 0..count {
        queues.push(Queue::create(Probe::dial(&guard.peer).await?, &onward).await?);
    }
    Ok(queues)
}

async fn streams(chain: &Chain, count: usize) -> Result<Vec<Stream>, BenchError> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(chain.connect().await?);
    }
    Ok(streams)
}

/// Transfers through the proxies and through the relays, in turn: whatever else slows the machine
/// slows both alike. The first of each is not counted: windows grow, and caches fill.
async fn in_turn<A: Carrier, B: Carrier>(
    plan: &Plan,
    (chain, streams): (&Chain, &mut Vec<A>),
    (relays, queues): (&Relays, &mut Vec<B>),
) -> Result<(Rounds, Rounds), BenchError> {
    let (mut tls, mut umbel) = (Rounds::default(), Rounds::default());
    for round in 0..=plan.rounds {
        let through_chain = Round::run(streams, plan.records, chain.processes()).await?;
        let through_relays = Round::run(queues, plan.records, relays.processes()).await?;
        if round > 0 {
            tls.0.push(through_chain);
            umbel.0.push(through_relays);
        }
    }
    Ok((tls, umbel))
}

async fn one_circuit(
    plan: &Plan,
    relays: &Relays,
    chain: &Chain,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let (mut streams, mut down) = (streams(chain, 1).await?, queues(relays, 1).await?);
    let (tls, umbel) = in_turn(plan, (chain, &mut streams), (relays, &mut down)).await?;
    report_chain(&tls, report);
    report_bulk(&umbel, &tls, report);
    let mut up: Vec<_> = queues(relays, 1).await?.into_iter().map(Upward).collect();
    let (_, umbel) = in_turn(plan, (chain, &mut streams), (relays, &mut up)).await?;
    report(Row::of(
        "bulk_up",
        Unit::MegabytesPerSecond,
        umbel.rates(),
        "records carried away from the client over one circuit of four relays; the last checks each, and stores the first",
    ));
    report(Row::of(
        "bulk_up_cpu_middle",
        Unit::SecondsPerGigabyte,
        umbel.cpu_of(&(1..HOPS_MAX - 1)),
        "a middle relay's time on cores for the same",
    ));
    Ok(())
}

fn report_chain(tls: &Rounds, report: &mut Report<'_>) {
    report(Row::of(
        "tls_chain",
        Unit::MegabytesPerSecond,
        tls.rates(),
        "the limit: as many TLS 1.3 proxies that do no onion work, each a process; one connection",
    ));
    report(Row::of(
        "tls_chain_cpu",
        Unit::SecondsPerGigabyte,
        tls.cpu_of(&(0..HOPS_MAX - 1)),
        "time on cores of one such proxy: it opens and seals TLS, and copies",
    ));
}

fn report_bulk(umbel: &Rounds, tls: &Rounds, report: &mut Report<'_>) {
    let cpu = Unit::SecondsPerGigabyte;
    let middle = umbel.cpu_of(&(1..HOPS_MAX - 1));
    report(Row::of(
        "bulk",
        Unit::MegabytesPerSecond,
        umbel.rates(),
        "records of 124 kB fetched over one circuit of four relays, each a process with one thread for cells",
    ));
    report(
        Row::of(
            "bulk_ratio",
            Unit::Ratio,
            ratios(&umbel.rates(), &tls.rates()),
            "the same by that of the proxies, measured in turn",
        )
        .with_goal(Goal::AtLeast(0.5)),
    );
    report(Row::of(
        "bulk_cpu_guard",
        cpu,
        umbel.cpu_of(&(0..1)),
        "the first relay's time on cores",
    ));
    let note = "a middle relay's: it opens and seals TLS, and adds a layer";
    let ratio = ratios(&middle, &tls.cpu_of(&(0..HOPS_MAX - 1)));
    report(Row::of("bulk_cpu_middle", cpu, middle, note).with_goal(Goal::AtMost(2.2)));
    report(Row::of(
        "bulk_cpu_ratio",
        Unit::Ratio,
        ratio,
        "the same by that of a proxy",
    ));
    report(Row::of(
        "bulk_cpu_last",
        cpu,
        umbel.cpu_of(&(HOPS_MAX - 1..HOPS_MAX)),
        "the last relay's, which reads its store",
    ));
    report(Row::of(
        "bulk_cpu_client",
        cpu,
        umbel.cpu_of(&(HOPS_MAX..HOPS_MAX + 1)),
        "the client's: four layers, one link",
    ));
}

async fn several_circuits(
    plan: &Plan,
    relays: &Relays,
    chain: &Chain,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let plan = Plan {
        records: plan.records.div_ceil(TOGETHER),
        ..*plan
    };
    let (mut streams, mut queues) = (
        streams(chain, TOGETHER).await?,
        queues(relays, TOGETHER).await?,
    );
    let (tls, umbel) = in_turn(&plan, (chain, &mut streams), (relays, &mut queues)).await?;
    let rate = Unit::MegabytesPerSecond;
    report(Row::of(
        "tls_chain_4",
        rate,
        tls.rates(),
        "four connections at once through the same proxies",
    ));
    report(Row::of(
        "bulk_4",
        rate,
        umbel.rates(),
        "four circuits at once, each on a client's link of its own, all through the same relays",
    ));
    report(Row::of(
        "bulk_4_ratio",
        Unit::Ratio,
        ratios(&umbel.rates(), &tls.rates()),
        "the same by that of the proxies",
    ));
    report(Row::of(
        "bulk_4_cpu_middle",
        Unit::SecondsPerGigabyte,
        umbel.cpu_of(&(1..HOPS_MAX - 1)),
        "a middle relay's time on cores for the same",
    ));
    Ok(())
}
