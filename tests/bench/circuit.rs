//! Circuits over links that are up: how long one takes, and how many a second there can be.

use std::time::Instant;

use tokio::task::JoinSet;
use umbel_proto::handshake::HopTarget;
use umbel_proto::limits::HOPS_MAX;

use super::probe::Probe;
use super::process::{Meter, Process};
use super::relays::{Admission, Relays};
use super::row::{Goal, Row, Unit, ms};
use super::{BenchError, Extent, Report, join_all};

/// Links of clients that build circuits at once: one for each core.
const BUILDERS: usize = 2;

/// How much is done.
#[derive(Clone, Copy)]
struct Plan {
    /// Circuits that are built, one after the other.
    sequential: usize,
    /// How often as many as `together` are launched.
    rounds: usize,
    /// Circuits that are begun at once, all links together.
    together: usize,
}

impl Plan {
    const FULL: Self = Self {
        sequential: 300,
        rounds: 10,
        together: 200,
    };
    const QUICK: Self = Self {
        sequential: 10,
        rounds: 2,
        together: 20,
    };
}

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(Plan::FULL, Plan::QUICK);
    let relays = Relays::start(&[1; HOPS_MAX], Admission::Open).await?;
    sequential(&plan, &relays, report).await?;
    together(&plan, &relays, report).await?;
    relays.stop().await
}

async fn sequential(
    plan: &Plan,
    relays: &Relays,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let (guard, onward) = relays.path()?;
    let mut probe = Probe::dial(&guard.peer).await?;
    probe.build(&onward).await?;
    let mut times = Vec::new();
    for _ in 0..plan.sequential {
        let started = Instant::now();
        probe.build(&onward).await?;
        times.push(ms(started.elapsed()));
    }
    report(
        Row::of(
            "circuit_build",
            Unit::Milliseconds,
            times,
            "four hops, one after the other, over links that are up: four handshakes at each end, and 2 + 4 + 6 + 8 cells",
        )
        .with_goal(Goal::AtMost(2.67)),
    );
    Ok(())
}

async fn together(plan: &Plan, relays: &Relays, report: &mut Report<'_>) -> Result<(), BenchError> {
    let (guard, onward) = relays.path()?;
    let mut probes = Vec::new();
    for _ in 0..BUILDERS {
        probes.push(Probe::dial(&guard.peer).await?);
    }
    let (mut rates, mut of_hop, mut of_client) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let meter = Meter::start(relays.processes().chain([Process::current()]));
        probes = build_all(probes, plan.together / BUILDERS, &onward).await?;
        let mut reading = meter.stop();
        let count = plan.together as f64;
        rates.push(count / reading.wall);
        of_client.extend(
            reading
                .cpu
                .pop()
                .flatten()
                .map(|seconds| seconds * 1e3 / count),
        );
        of_hop.extend(
            reading
                .cpu_sum()
                .map(|seconds| seconds * 1e3 / count / HOPS_MAX as f64),
        );
        for probe in &mut probes {
            probe.destroy_all().await?;
        }
    }
    report(
        Row::of(
            "circuits_together",
            Unit::PerSecond,
            rates,
            format!("{} circuits of four hops launched at once", plan.together),
        )
        .with_goal(Goal::AtLeast(1000.0)),
    );
    report(
        Row::of(
            "circuit_cpu_hop",
            Unit::Milliseconds,
            of_hop,
            "a relay's time on cores for its hop of one such circuit",
        )
        .with_goal(Goal::AtMost(0.25)),
    );
    report(Row::of(
        "circuit_cpu_client",
        Unit::Milliseconds,
        of_client,
        "the client's time on cores for one such circuit",
    ));
    Ok(())
}

/// Each of these builds this many circuits at once, in a task of its own.
async fn build_all(
    probes: Vec<Probe>,
    count: usize,
    onward: &[HopTarget],
) -> Result<Vec<Probe>, BenchError> {
    let mut building = JoinSet::new();
    for mut probe in probes {
        let onward = onward.to_vec();
        building.spawn(async move { probe.build_together(count, &onward).await.map(|_| probe) });
    }
    join_all(building).await
}
