//! How much more one relay does with two threads than with one.
//!
//! The load needs cores too, so on a machine with two cores the relay can't have both. Instead we
//! measure the cost of a byte with one thread and with two, in turn, under the same load: threads
//! that wait for each other or move each other's memory about cost more. The figure says only how
//! much more work costs: a sleeping thread costs nothing, so threads that take turns look cheap.
//! The forwarding table alone needs no load from outside and gets both cores; a row of its own
//! shows how this machine's two cores compare with one.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use tokio::task::JoinSet;

use super::cpu;
use super::probe::Probe;
use super::process::{Meter, thread_cpu_time};
use super::queue::Queue;
use super::relays::{Admission, Relays};
use super::row::{Goal, Row, Unit};
use super::{BenchError, Extent, Report, join_all};

/// Least work of two cores as a multiple of one core's.
const SCALING_LEAST: f64 = 1.8;
/// Cores that two threads keep busy at least, or they hardly met.
const BUSY_LEAST: f64 = 1.3;

/// How much is done.
#[derive(Clone, Copy)]
struct Plan {
    /// Transfers with each number of threads.
    rounds: usize,
    /// Records carried by each circuit in each of them.
    records: usize,
    /// Batches of cells in a loop that shows what two cores are.
    batches: usize,
}

impl Plan {
    const FULL: Self = Self {
        rounds: 8,
        records: 400,
        batches: 2000,
    };
    const QUICK: Self = Self {
        rounds: 1,
        records: 16,
        batches: 200,
    };
}

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(Plan::FULL, Plan::QUICK);
    let (mut ceiling, mut plane) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        ceiling.extend(two_by_one(&|| seal(plan.batches)));
        plane.extend(two_by_one(&|| add(plan.batches)));
    }
    report(Row::of(
        "scaling_cores",
        Unit::Ratio,
        ceiling,
        "what two cores of this machine do of ChaCha20-Poly1305, by what one does alone: no program scales better here",
    ));
    report(
        Row::of(
            "plane_scaling",
            Unit::Ratio,
            plane,
            "backward cells a second through the forwarding tables of two threads, one link each, by those of one thread",
        )
        .with_goal(Goal::AtLeast(SCALING_LEAST)),
    );
    let mut one = Load::start(1).await?;
    let mut two = Load::start(2).await?;
    let (mut cost_one, mut cost_two, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        let (alone, both) = (
            one.carry(plan.records).await?,
            two.carry(plan.records).await?,
        );
        if round > 0 {
            cost_one.extend(alone.cost);
            cost_two.extend(both.cost);
            busy.extend(both.busy);
        }
    }
    report_relay(cost_one, cost_two, busy, report);
    one.relays.stop().await?;
    two.relays.stop().await
}

fn report_relay(one: Vec<f64>, two: Vec<f64>, busy: Vec<f64>, report: &mut Report<'_>) {
    let scaling = one
        .iter()
        .zip(&two)
        .map(|(one, two)| 2.0 * one / two)
        .collect();
    let busy = Row::of(
        "relay_busy_2",
        Unit::Ratio,
        busy,
        "cores that it keeps busy meanwhile: the load takes the rest",
    );
    let scaling = cpu_scaling(scaling, busy.value);
    let unit = Unit::SecondsPerGigabyte;
    report(Row::of(
        "relay_cpu_1",
        unit,
        one,
        "a relay's time on cores, two links on each side, one thread",
    ));
    report(Row::of(
        "relay_cpu_2",
        unit,
        two,
        "the same with two threads, in turn",
    ));
    report(busy);
    report(scaling);
}

/// Judged only where both threads were at work at once: work done in turn costs no more.
fn cpu_scaling(values: Vec<f64>, busy: Option<f64>) -> Row {
    let note = "twice its cost with one thread by its cost with two: how much dearer work gets, 2 being not at all";
    let row = Row::of("relay_cpu_scaling", Unit::Ratio, values, note);
    if busy.is_some_and(|busy| busy > BUSY_LEAST) {
        row.with_goal(Goal::AtLeast(SCALING_LEAST))
    } else {
        let note = format!(
            "{note}; not judged: its threads were at work together too little (relay_busy_2)"
        );
        Row { note, ..row }
    }
}

/// A relay, and what passes it: two bulk circuits, each over links of its own at both sides of the
/// relay.
struct Load {
    relays: Relays,
    queues: Vec<Queue>,
}

/// A transfer's cost to the relay.
struct Cost {
    /// Seconds on cores for 10^9 bytes.
    cost: Option<f64>,
    /// Seconds on cores a second.
    busy: Option<f64>,
}

impl Load {
    async fn start(threads: usize) -> Result<Self, BenchError> {
        let relays = Relays::start(&[threads, 1, 1], Admission::Open).await?;
        let (relay, targets) = relays.path()?;
        let mut queues = Vec::with_capacity(targets.len());
        for target in targets {
            queues.push(Queue::create(Probe::dial(&relay.peer).await?, &[target]).await?);
        }
        Ok(Self { relays, queues })
    }

    async fn carry(&mut self, records: usize) -> Result<Cost, BenchError> {
        let meter = Meter::start(self.relays.processes().take(1));
        let mut carrying = JoinSet::new();
        for mut queue in self.queues.drain(..) {
            carrying.spawn(async move { queue.fetch(records).await.map(|bytes| (queue, bytes)) });
        }
        let mut bytes_sum = 0;
        for (queue, bytes) in join_all(carrying).await? {
            self.queues.push(queue);
            bytes_sum += bytes;
        }
        let reading = meter.stop();
        let cpu = reading.cpu_sum();
        Ok(Cost {
            cost: cpu.map(|cpu| cpu * 1e9 / bytes_sum as f64),
            busy: cpu.map(|cpu| cpu / reading.wall),
        })
    }
}

/// How much of some work two threads do at once, divided by the best of one alone. The work returns
/// how long it took.
fn two_by_one(work: &(impl Fn() -> Option<f64> + Sync)) -> Option<f64> {
    let before = work()?;
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn(work);
        (work(), other.join().ok().flatten())
    });
    let alone = before.min(work()?);
    Some(alone / first? + alone / second?)
}

/// Seals cells, by the thread's time on cores, which is longer where two cores are siblings.
fn seal(batches: usize) -> Option<f64> {
    let before = thread_cpu_time()?;
    for _ in 0..batches {
        black_box(cpu::baseline());
    }
    Some((thread_cpu_time()? - before).as_secs_f64())
}

/// Adds a layer to cells in a forwarding table of this thread's own; by the clock, so that waiting
/// counts.
fn add(batches: usize) -> Option<f64> {
    let mut table = cpu::Table::new();
    let started = Instant::now();
    for _ in 0..batches {
        black_box(table.backward());
    }
    Some(started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_take_turns_meet_no_goal() {
        let idle = cpu_scaling(vec![2.0], Some(1.0));
        assert!(idle.goal.is_none() && idle.note.contains("not judged"));
        assert!(cpu_scaling(vec![2.0], None).goal.is_none());
        let busy = cpu_scaling(vec![1.9], Some(1.5));
        assert!(
            busy.goal == Some(Goal::AtLeast(SCALING_LEAST)) && !busy.note.contains("not judged")
        );
    }
}
