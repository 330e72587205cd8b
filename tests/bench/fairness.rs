//! Whether one bulk circuit is felt by a hundred quiet ones that share its links.

use std::time::Instant;

use umbel_proto::limits::HOPS_MAX;
use umbel_proto::message::Service;

use super::flow::Flow;
use super::probe::Probe;
use super::queue::Queue;
use super::quiet::{PACE, Plan, Quiet, question};
use super::relays::{Admission, Relays};
use super::row::{Row, Unit, ms};
use super::{BenchError, Extent, Report};

/// Quiet circuits.
const QUIET: usize = 100;

const FULL: Plan = Plan {
    rounds: 4,
    round_trips: 500,
};

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(FULL, Plan::QUICK);
    let relays = Relays::start(&[1; HOPS_MAX], Admission::Open).await?;
    own_links(&plan, &relays, report).await?;
    same_link(&plan, &relays, report).await?;
    relays.stop().await
}

/// The bulk circuit comes over one client's link, the quiet ones over another's: they meet between
/// the relays.
async fn own_links(
    plan: &Plan,
    relays: &Relays,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let (guard, onward) = relays.path()?;
    let mut quiet = Quiet::open(&guard.peer, &onward, QUIET).await?;
    let mut queue = Queue::create(Probe::dial(&guard.peer).await?, &onward).await?;
    let (mut alone, mut beside, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        alone.extend(quiet.round_trips(plan.round_trips).await?);
        let flow = Flow::start(queue);
        beside.extend(quiet.round_trips(plan.round_trips).await?);
        let (done, rate) = flow.stop().await?;
        queue = done;
        rates.push(rate);
    }
    let unit = Unit::Milliseconds;
    report(Row::of(
        "quiet_alone",
        unit,
        alone,
        "a question of one cell and its answer over one of a hundred quiet circuits",
    ));
    report(Row::of(
        "quiet_beside_bulk",
        unit,
        beside,
        "the same while one bulk circuit passes the same relays and the links between them, from another client's link",
    ));
    report(Row::of(
        "quiet_bulk",
        Unit::MegabytesPerSecond,
        rates,
        "what that bulk circuit carries meanwhile",
    ));
    Ok(())
}

/// All come over one client's link, and wait there for each other too.
async fn same_link(
    plan: &Plan,
    relays: &Relays,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let (guard, onward) = relays.path()?;
    let mut queue = Queue::create(Probe::dial(&guard.peer).await?, &onward).await?;
    let circuits = queue.probe().build_together(QUIET, &onward).await?;
    let mut circuits = circuits.into_iter().cycle();
    queue.begin_fetches().await?;
    let mut times = Vec::new();
    let mut asked_at = None;
    let mut due_at = Instant::now();
    while times.len() < plan.rounds * plan.round_trips {
        if asked_at.is_none() && Instant::now() >= due_at {
            let circ = circuits.next().ok_or(BenchError::Destroyed)?;
            asked_at = Some(Instant::now());
            queue
                .probe()
                .ask(circ, Service::Directory, question())
                .await?;
        }
        if !queue.next_fetched().await?
            && let Some(asked_at) = asked_at.take()
        {
            times.push(ms(asked_at.elapsed()));
            due_at = Instant::now() + PACE;
        }
    }
    report(Row::of(
        "quiet_same_link",
        Unit::Milliseconds,
        times,
        "the same where bulk and quiet circuits share the client's link too, and its one task",
    ));
    Ok(())
}
