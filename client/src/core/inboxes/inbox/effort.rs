//! The puzzle effort that an inbox asks of strangers (docs/protocol.md §10.5(7)): up a step while many
//! come, slowly down again.
//!
//! Senders learn it from the descriptor, holders from the owner. When it rises, the descriptor comes
//! first, when it falls, the holders: a sender who works for what the descriptor says is never refused.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use umbel_proto::ids::QueueId;
use umbel_proto::limits::{
    EFFORT_FALLS_AFTER, EFFORT_HELD_AFTER, EFFORT_STEP, EFFORT_STEP_FIRST, PUZZLE_EFFORT_MAX,
    STRANGERS_WINDOW, STRANGERS_WINDOW_MAX,
};
use umbel_proto::time::{Instant, WallTime};

use super::super::super::context::Context;

/// The effort as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct EffortState {
    /// What is to be asked: both sides come to it, one after the other.
    wanted: u32,
    /// Asked of senders, in the descriptor; 0: no more than the network asks.
    in_descriptor: u32,
    /// Asked by holders that are told.
    at_holders: u32,
    /// When it last rose or fell.
    moved_at: WallTime,
    /// What each holder was last told: 0, if it was told nothing.
    told: Vec<(QueueId, u32)>,
}

/// The effort, and what moves it.
#[derive(Default)]
pub(super) struct Effort {
    state: EffortState,
    /// When strangers' records came, oldest first.
    came: VecDeque<Instant>,
    /// When what has moved on one side moves on the other, too.
    follows_at: Option<Instant>,
    /// What holders are being told.
    telling: BTreeMap<QueueId, u32>,
}

impl Effort {
    pub(super) fn restore(state: EffortState, now: Instant) -> Self {
        // How long what was under way has waited is not known.
        let is_moving = state.in_descriptor != state.wanted || state.at_holders != state.wanted;
        let follows_at = is_moving.then_some(now + EFFORT_HELD_AFTER);
        Self {
            state,
            follows_at,
            ..Self::default()
        }
    }

    pub(super) const fn state(&self) -> &EffortState {
        &self.state
    }

    /// What the descriptor says.
    pub(super) const fn in_descriptor(&self) -> u32 {
        self.state.in_descriptor
    }

    /// Records of strangers came; whether they are a flood.
    pub(super) fn on_strangers(&mut self, now: Instant, count: usize) -> bool {
        let count = count.min(STRANGERS_WINDOW_MAX);
        self.came.extend(core::iter::repeat_n(now, count));
        let excess = self.came.len().saturating_sub(STRANGERS_WINDOW_MAX);
        self.came.drain(..excess);
        self.is_flooded(now)
    }

    /// Moves it if it is time; whether the descriptor says another now.
    pub(super) fn drive(&mut self, cx: &Context<'_>) -> bool {
        let before = self.state.in_descriptor;
        if self.follows_at.take_if(|at| *at <= cx.now).is_some() {
            self.state.in_descriptor = self.state.wanted;
            self.state.at_holders = self.state.wanted;
        }
        if self.follows_at.is_none() {
            // A network that asks for no puzzles has none.
            if cx.network.params.puzzle_effort > 0 && self.is_flooded(cx.now) {
                self.rise(cx);
            } else if self.state.wanted > 0
                && self.state.moved_at.min(cx.wall) + EFFORT_FALLS_AFTER <= cx.wall
            {
                self.fall(cx);
            }
        }
        self.state.in_descriptor != before
    }

    /// Whether strangers come faster than the owner wants to read.
    fn is_flooded(&self, now: Instant) -> bool {
        let first = self.came.front();
        self.came.len() >= STRANGERS_WINDOW_MAX
            && first.is_some_and(|&at| at + STRANGERS_WINDOW > now)
    }

    fn rise(&mut self, cx: &Context<'_>) {
        self.came.clear();
        let asked = self.state.wanted.max(cx.network.params.puzzle_effort);
        let more = asked.saturating_mul(EFFORT_STEP);
        self.state.wanted = more.clamp(EFFORT_STEP_FIRST, PUZZLE_EFFORT_MAX);
        self.state.in_descriptor = self.state.wanted;
        self.note_moved(cx);
    }

    fn fall(&mut self, cx: &Context<'_>) {
        let less = self.state.wanted / 2;
        let is_little = less <= cx.network.params.puzzle_effort || less < EFFORT_STEP_FIRST / 2;
        self.state.wanted = if is_little { 0 } else { less };
        self.state.at_holders = self.state.wanted;
        self.note_moved(cx);
    }

    fn note_moved(&mut self, cx: &Context<'_>) {
        self.state.moved_at = cx.wall;
        self.follows_at = Some(cx.now + EFFORT_HELD_AFTER);
    }

    /// The effort that the holder of this queue is told next, if it is not told already.
    pub(super) fn next_told(&mut self, queue: QueueId) -> Option<u32> {
        let wanted = self.state.at_holders;
        let told = self.state.told.iter().find(|(it, _)| *it == queue);
        let told = told.map_or(0, |&(_, effort)| effort);
        let telling = self.telling.get(&queue).copied();
        if telling.unwrap_or(told) == wanted {
            return None;
        }
        self.telling.insert(queue, wanted);
        Some(wanted)
    }

    /// The holder of this queue asks this effort from now on, or has not heard of it; whether that is
    /// to be stored.
    pub(super) fn on_told(&mut self, queue: QueueId, effort: u32, is_told: bool) -> bool {
        if self.telling.get(&queue) == Some(&effort) {
            self.telling.remove(&queue);
        }
        if is_told {
            self.state.told.retain(|(it, _)| *it != queue);
            self.state.told.push((queue, effort));
        }
        is_told
    }

    /// These are the queues that there are.
    pub(super) fn keep(&mut self, queues: &[QueueId]) {
        self.state.told.retain(|(it, _)| queues.contains(it));
    }

    /// When it moves next.
    pub(super) fn timeout(&self, cx: &Context<'_>) -> Option<Instant> {
        let falls_at = (self.state.wanted > 0).then(|| {
            let at = self.state.moved_at + EFFORT_FALLS_AFTER;
            cx.now + at.since(cx.wall)
        });
        self.follows_at.or(falls_at)
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::network::Network;
    use umbel_proto::time::Duration;

    use super::super::super::super::testing::When;
    use super::*;

    const START: WallTime = WallTime(1_790_000_000);
    const QUEUE: QueueId = QueueId([7; QueueId::LEN]);

    /// An effort, and its clock.
    struct Bench {
        effort: Effort,
        passed: Duration,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                effort: Effort::default(),
                passed: Duration::ZERO,
            }
        }

        /// So many strangers come now, and time passes.
        fn pass(&mut self, strangers: usize, time: Duration) -> (u32, u32) {
            let at = Instant::default() + self.passed;
            self.effort.on_strangers(at, strangers);
            self.passed += time;
            let (passed, effort) = (self.passed, &mut self.effort);
            let when = When {
                now: Instant::default() + passed,
                ..When::at(START + passed)
            };
            let mut network = Network::local();
            network.params.puzzle_effort = 1;
            when.act_in(network, |cx| effort.drive(cx));
            let state = self.effort.state();
            (state.in_descriptor, state.at_holders)
        }
    }

    #[test] // §10.5(7)
    fn effort_rises_by_steps_while_strangers_flood_and_falls_by_halves() {
        let mut bench = Bench::new();
        let minute = Duration::from_secs(60);
        let full = STRANGERS_WINDOW_MAX;
        assert_eq!(bench.pass(full - 1, minute), (0, 0), "that is usual");
        assert_eq!(bench.pass(1, minute), (256, 0), "senders hear first");
        assert_eq!(bench.pass(full, minute), (256, 0), "one step at a time");
        assert_eq!(bench.pass(0, EFFORT_HELD_AFTER), (256, 256));
        assert_eq!(bench.pass(full, minute), (1024, 256));
        bench.pass(0, EFFORT_HELD_AFTER);
        assert_eq!(
            bench.pass(0, EFFORT_FALLS_AFTER),
            (1024, 512),
            "holders first"
        );
        assert_eq!(bench.pass(0, EFFORT_HELD_AFTER), (512, 512));
        for expected in [256, 128, 0] {
            bench.pass(0, EFFORT_FALLS_AFTER);
            assert_eq!(bench.pass(0, EFFORT_HELD_AFTER), (expected, expected));
        }
        for _ in 0..10 {
            bench.pass(full, minute);
            bench.pass(0, EFFORT_HELD_AFTER);
        }
        let most = PUZZLE_EFFORT_MAX;
        assert_eq!(bench.pass(0, EFFORT_HELD_AFTER), (most, most));
    }

    #[test] // §10.5(7)
    fn strangers_who_come_slowly_are_no_flood() {
        let mut bench = Bench::new();
        let slowly = STRANGERS_WINDOW / u32::try_from(STRANGERS_WINDOW_MAX - 1).unwrap();
        for _ in 0..200 {
            assert_eq!(bench.pass(1, slowly), (0, 0));
        }
    }

    #[test] // §10.2(8)
    fn each_holder_is_told_once_and_again_if_it_did_not_hear() {
        let mut bench = Bench::new();
        assert_eq!(
            bench.effort.next_told(QUEUE),
            None,
            "a new queue asks nothing"
        );
        bench.pass(STRANGERS_WINDOW_MAX, Duration::ZERO);
        bench.pass(0, EFFORT_HELD_AFTER);
        assert_eq!(bench.effort.next_told(QUEUE), Some(256));
        assert_eq!(bench.effort.next_told(QUEUE), None, "it is being told");
        assert!(!bench.effort.on_told(QUEUE, 256, false));
        assert_eq!(bench.effort.next_told(QUEUE), Some(256));
        assert!(bench.effort.on_told(QUEUE, 256, true));
        assert_eq!(bench.effort.next_told(QUEUE), None);
        let state = bench.effort.state().clone();
        let mut restored = Effort::restore(state, Instant::default());
        assert_eq!(restored.next_told(QUEUE), None);
    }
}
