//! Whether a flood of creates stops what is forwarded.
//!
//! The flood costs its sender next to nothing: it repeats one onionskin. The relays admit all of
//! it, which no network allows, so this is worse than any flood that admission lets through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::handshake::Initiator;
use umbel_proto::ids::Peer;
use umbel_proto::limits::HOPS_MAX;
use umbel_proto::network::Network;

use super::flow::Flow;
use super::probe::Probe;
use super::queue::Queue;
use super::quiet::{Plan, Quiet};
use super::relays::{Admission, Relays};
use super::row::{Row, Unit};
use super::{BenchError, Extent, Report, join_all};

/// Links that the flood comes over.
const LINKS: usize = 2;
/// Creates in flight on each.
const UNDER_WAY: usize = 64;
/// Quiet circuits.
const QUIET: usize = 20;

const FULL: Plan = Plan {
    rounds: 4,
    round_trips: 400,
};

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(FULL, Plan::QUICK);
    let relays = Relays::start(&[1; HOPS_MAX], Admission::Open).await?;
    let (guard, onward) = relays.path()?;
    let mut quiet = Quiet::open(&guard.peer, &onward, QUIET).await?;
    let mut queue = Queue::create(Probe::dial(&guard.peer).await?, &onward).await?;
    let (mut without, mut with, mut answered) =
        (Forwarded::default(), Forwarded::default(), Vec::new());
    for _ in 0..plan.rounds {
        queue = without.measure(&plan, queue, &mut quiet).await?;
        let flood = Flood::start(&guard.peer).await?;
        queue = with.measure(&plan, queue, &mut quiet).await?;
        answered.push(flood.stop().await?);
    }
    report(Row::of(
        "flood_creates",
        Unit::PerSecond,
        answered,
        "creates that a guard answers of a flood over two links, all of which it admits, while it forwards",
    ));
    let (ms, rate) = (Unit::Milliseconds, Unit::MegabytesPerSecond);
    report(Row::of(
        "flood_bulk_before",
        rate,
        without.rates,
        "a bulk circuit through that guard, without the flood",
    ));
    report(Row::of(
        "flood_bulk",
        rate,
        with.rates,
        "the same with the flood: both share the two cores with all else",
    ));
    report(Row::of(
        "flood_quiet_before",
        ms,
        without.times,
        "a quiet circuit's round trip beside that bulk circuit, without the flood",
    ));
    report(Row::of(
        "flood_quiet",
        ms,
        with.times,
        "the same with the flood",
    ));
    relays.stop().await
}

/// The traffic that passes the guard meanwhile.
#[derive(Default)]
struct Forwarded {
    rates: Vec<f64>,
    times: Vec<f64>,
}

impl Forwarded {
    async fn measure(
        &mut self,
        plan: &Plan,
        queue: Queue,
        quiet: &mut Quiet,
    ) -> Result<Queue, BenchError> {
        let flow = Flow::start(queue);
        self.times
            .extend(quiet.round_trips(plan.round_trips).await?);
        let (queue, rate) = flow.stop().await?;
        self.rates.push(rate);
        Ok(queue)
    }
}

/// Creates as fast as they go, by a task for each link.
struct Flood {
    is_stopping: Arc<AtomicBool>,
    tasks: JoinSet<Result<f64, BenchError>>,
}

impl Flood {
    async fn start(peer: &Peer) -> Result<Self, BenchError> {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..LINKS {
            tasks.spawn(create(Probe::dial(peer).await?, Arc::clone(&is_stopping)));
        }
        Ok(Self { is_stopping, tasks })
    }

    /// Ends it; how many were answered each second.
    async fn stop(self) -> Result<f64, BenchError> {
        self.is_stopping.store(true, Ordering::Relaxed);
        Ok(join_all(self.tasks).await?.into_iter().sum())
    }
}

async fn create(mut probe: Probe, is_stopping: Arc<AtomicBool>) -> Result<f64, BenchError> {
    let (_, onionskin) = Initiator::start(&Network::local().id, probe.target(), &mut rand::rng());
    let (started, mut answered) = (Instant::now(), 0_u32);
    let (mut under_way, mut cell) = (0, Cell::blank());
    while !is_stopping.load(Ordering::Relaxed) {
        while under_way < UNDER_WAY {
            let mut create = Cell::new(Some(probe.new_circ()), Command::Create);
            onionskin.write_create_body(create.body_mut());
            probe.write(&create).await?;
            under_way += 1;
        }
        probe.read(&mut cell).await?;
        match cell.header().map_err(Violation::from)? {
            (Some(circ), Command::Created) => {
                probe
                    .write(&Cell::destroy(circ, DestroyReason::Finished))
                    .await?;
                answered += 1;
                under_way -= 1;
            }
            (Some(_), Command::Destroy) => under_way -= 1,
            _ => return Err(BenchError::Unexpected),
        }
    }
    Ok(f64::from(answered) / started.elapsed().as_secs_f64())
}
