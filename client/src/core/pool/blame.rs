//! Which relay is blamed for a circuit that failed (docs/protocol.md §6.4(10)).
//!
//! While a circuit is being built, the client knows which relay could not be had, and by whose word.
//! The word is counted against the hop that gives it, until another hop says the same: then the
//! relay is avoided for a while. Once the circuit is built, any relay on the path may be at fault:
//! see `suspects`. A guard that has no room for a circuit just then has not failed.

use std::collections::BTreeSet;

use umbel_proto::Violation;
use umbel_proto::cell::DestroyReason;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::GUARD_REFUSALS_MAX;
use umbel_proto::link::LinkId;
use umbel_proto::network::Params;
use umbel_proto::path::{Stage, Word};
use umbel_proto::time::{Duration, Instant};

use super::super::circuit::{Circuit, CircuitKey};
use super::super::context::Context;
use super::super::suspects::Suspected;
use super::{Loss, Pool, STUB_HOPS};

/// Onionskins in a row that a guard may leave unanswered before its link is closed.
const GUARD_SILENCES_MAX: u32 = 2;

/// The source of the answer that a hop can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// Whatever the guard lets us see: silence, or a destroy, which any relay on the way can make
    /// up.
    Guard,
    /// The hop before it, in a cell that only this hop could seal.
    LastHop,
}

/// A hop that could not be made.
struct Unmade {
    /// The path up to this hop, and with it.
    path: Vec<RelayId>,
    purpose: Purpose,
}

/// What the hop was to be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To hear whether another hop can't reach it either.
    SecondWord,
    /// To be on the way to a terminal.
    Way,
    /// To be the terminal.
    Terminal,
}

impl Unmade {
    fn of(circuit: &Circuit) -> Option<Self> {
        let hops = circuit.made;
        circuit.hop_due_at?;
        let path = circuit.path.get(..=hops)?;
        let purpose = if circuit.is_second_word() {
            Purpose::SecondWord
        } else if hops < STUB_HOPS && !circuit.is_direct() {
            Purpose::Way
        } else {
            Purpose::Terminal
        };
        Some(Self {
            path: path.iter().map(|hop| hop.relay).collect(),
            purpose,
        })
    }
}

impl Pool {
    /// Circuits that broke since one carried an answer, and over how many guards.
    pub(in super::super) fn broken(&self) -> (u32, u32) {
        self.suspects.tally()
    }

    /// Whether circuits to this terminal break while others carry answers: then it is not the way
    /// that fails.
    pub(in super::super) fn breaks_alone(&self, terminal: RelayId) -> bool {
        self.breakers.is_alone(terminal)
    }

    /// The terminals to which no circuit begins now, since circuits broke in a row over the guard in
    /// use, to these among others (§6.4(10i)). Whether it is they who break them is known once a circuit
    /// to another carries an answer over that guard.
    pub(in super::super) fn held_terminals(
        &self,
        cx: &Context<'_>,
    ) -> impl Iterator<Item = RelayId> {
        let life = broken_life(&cx.network.params);
        let broken = self.breakers.terminals(cx.now, life);
        broken.filter(|_| self.lacks_answer())
    }

    /// Whether a circuit to any other relay is wanted now.
    pub(in super::super) fn wants_probe(&self, now: Instant) -> bool {
        self.lacks_answer() && self.brake.is_due(now)
    }

    /// Whether circuits broke in a row over the guard in use, and none has carried an answer since.
    fn lacks_answer(&self) -> bool {
        let in_use = self.guard_in_use();
        self.brake.failures() > 0
            && in_use.is_some_and(|(guard, _)| self.suspects.broke_over(guard))
    }

    /// A request on this circuit was not answered in time.
    pub(in super::super) fn on_unanswered(&mut self, cx: &mut Context<'_>, key: CircuitKey) {
        self.on_used_broken(cx, key, false); // the circuit no longer counts the late request
        self.close(cx, key, DestroyReason::Finished);
    }

    pub(super) fn on_violation(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        violation: Violation,
    ) {
        self.violations += 1;
        if let Some(circuit) = self
            .circuits
            .get(&key)
            .filter(|circuit| circuit.is_direct())
        {
            self.rule_breakers.extend(circuit.terminal());
        }
        let loss = self.loss_of_broken(key);
        self.blame(cx, key, Witness::Guard);
        self.on_broken(cx, key, true);
        self.lose(cx, key, loss, Some(violation.reason()));
    }

    /// The circuit was destroyed from the other side. Which relay did it can't be known once all
    /// hops are there.
    pub(super) fn on_destroy(&mut self, cx: &mut Context<'_>, key: CircuitKey, is_busy: bool) {
        if is_busy && self.is_refused(cx, key) {
            return self.lose(cx, key, Loss::Busy, None);
        }
        let loss = self.loss_of_broken(key);
        self.blame(cx, key, Witness::Guard);
        self.on_broken(cx, key, true);
        self.lose(cx, key, loss, None);
    }

    /// The kind of loss when a circuit is destroyed. An unreachable terminal is reported by the hop
    /// before it, so it is not the cause of a destroy.
    fn loss_of_broken(&self, key: CircuitKey) -> Loss {
        match self.loss_of(key) {
            Loss::Terminal if !self.circuits.get(&key).is_some_and(Circuit::is_direct) => {
                Loss::Broken
            }
            loss => loss,
        }
    }

    /// A circuit carried an answer: nobody on its way is suspected.
    pub(super) fn on_answered(&mut self, key: CircuitKey) {
        let Some(circuit) = self.circuits.get_mut(&key) else {
            return;
        };
        circuit.is_proven = true;
        if circuit.is_direct() {
            return;
        }
        let path: Vec<RelayId> = circuit.path.iter().map(|hop| hop.relay).collect();
        self.on_worked(&path);
    }

    /// A circuit of this path carried an answer.
    pub(super) fn on_worked(&mut self, path: &[RelayId]) {
        self.suspects.on_worked(path);
        path.iter()
            .take(STUB_HOPS)
            .skip(1)
            .for_each(|&relay| self.paths.avoided.handle_worked(relay));
        self.breakers.on_worked(path);
        self.brake.reset();
        if let Some(guard) = path.first() {
            self.suspected.remove(guard);
        }
    }

    /// Ends circuits whose next hop did not come in time. A guard that leaves several onionskins
    /// unanswered is given up.
    pub(super) fn end_overdue(&mut self, cx: &mut Context<'_>, due: &BTreeSet<CircuitKey>) {
        let due = due.iter().filter_map(|&key| {
            let circuit = self.circuits.get(&key)?;
            let is_overdue = circuit.hop_due_at.is_some_and(|due_at| due_at <= cx.now);
            is_overdue.then_some((key, circuit.link, circuit.made))
        });
        let overdue: Vec<(CircuitKey, LinkId, usize)> = due.collect();
        for (key, link, hops) in overdue {
            let loss = self.loss_of(key);
            self.blame(cx, key, Witness::Guard);
            self.on_broken(cx, key, false);
            self.lose(cx, key, loss, Some(DestroyReason::Finished));
            if hops == 0 {
                let silences = self.guard_silences.entry(link).or_default();
                *silences += 1;
                if *silences >= GUARD_SILENCES_MAX {
                    self.close_link(cx, link);
                }
            }
        }
    }

    /// Something went wrong while a hop was being made: that is counted against the hop before it,
    /// and against the guard where it may have had a hand in it (§6.4(15)).
    pub(super) fn blame(&mut self, cx: &mut Context<'_>, key: CircuitKey, witness: Witness) {
        let Some(Unmade { path, purpose }) = self.circuits.get(&key).and_then(Unmade::of) else {
            return;
        };
        let word = self.take_word(cx, &path, witness);
        if purpose == Purpose::SecondWord {
            // Only a guard that can't be asked is a reason to wait.
            if word.is_some() {
                self.second_word.reset();
            }
            return;
        }
        if let [_, layer2, _] = path.as_slice()
            && self.paths.layer2.is_set_aside(*layer2)
        {
            self.end_stubs_of(cx, *layer2);
        }
        let suspected = match purpose {
            Purpose::Way => self.blame_way(cx, &path, witness, word),
            // No: the callers report it as broken (`on_broken`).
            Purpose::Terminal if witness == Witness::Guard => return,
            Purpose::Terminal | Purpose::SecondWord => Suspected::Nobody,
        };
        let suspected = match suspected {
            Suspected::Nobody => self.suspects.on_named(cx, &path, witness == Witness::Guard),
            suspected => suspected,
        };
        self.act_on(cx, suspected, &path);
    }

    /// The last relay of this path was to be on the way to a terminal. Whether that makes the guard
    /// suspect.
    fn blame_way(
        &mut self,
        cx: &mut Context<'_>,
        path: &[RelayId],
        witness: Witness,
        word: Option<Word>,
    ) -> Suspected {
        tracing::debug!(
            hops = path.len() - 1,
            ?witness,
            "a circuit could not be built"
        );
        self.stub_backoff.fail(&cx.network.params, cx.now, cx.rng);
        let [guard, way @ ..] = path else {
            return Suspected::Nobody;
        };
        if way.len() > 1 && witness == Witness::LastHop {
            return Suspected::Nobody;
        }
        // One middle that is down is one failure, however often it is tried.
        if way.len() != 1 && matches!(word, None | Some(Word::Alone { is_news: true })) {
            self.paths
                .guards
                .handle_failed(cx.known(), *guard, way, Stage::Unbuilt);
        }
        let suspected = self.suspects.on_unbuilt(cx, *guard, way);
        if suspected != Suspected::Nobody {
            self.unbuildable.insert(*guard);
        }
        suspected
    }

    /// The last relay of this path can't be reached, by the word of the one before it. While nobody
    /// else says so, that counts against the L2, if it is certainly the L2's word; against the guard
    /// it counts once another guard has reached the relay.
    fn take_word(
        &mut self,
        cx: &mut Context<'_>,
        path: &[RelayId],
        witness: Witness,
    ) -> Option<Word> {
        let paths = &mut self.paths;
        let is_sealed = witness == Witness::LastHop;
        let word = paths
            .avoided
            .handle_failed(cx.known(), path, is_sealed, cx.rng)?;
        match (word, path) {
            // It counts once another guard has reached that L2.
            (Word::Alone { .. }, [_, layer2]) => paths.avoided.count(*layer2),
            (Word::Alone { is_news: true }, [_, layer2, middle])
                if is_sealed && paths.layer2.handle_refused(cx.known(), *layer2, *middle) =>
            {
                paths.avoided.count(*middle);
            }
            (
                Word::Agreed {
                    layer2: Some((layer2, count)),
                },
                _,
            ) => {
                paths.layer2.pardon(layer2, count);
            }
            (Word::Alone { .. } | Word::Agreed { layer2: None } | Word::Known, _) => {}
        }
        Some(word)
    }

    /// Avoids the relay that is suspected of breaking a circuit of this path.
    fn act_on(&mut self, cx: &mut Context<'_>, suspected: Suspected, path: &[RelayId]) {
        let Some(&guard) = path.first() else { return };
        let cleared = match suspected {
            Suspected::Nobody => return,
            Suspected::Guard { cleared } => {
                self.suspect(guard);
                cleared
            }
            Suspected::Behind { relay, cleared } => {
                tracing::debug!("a relay behind the guard is suspected of breaking circuits");
                self.paths
                    .avoided
                    .handle_suspected(cx.known(), relay, guard, cx.rng);
                self.end_stubs_of(cx, relay);
                cleared
            }
        };
        cleared
            .into_iter()
            .for_each(|relay| self.paths.avoided.handle_worked(relay));
    }

    /// Circuits that are kept ready go without a suspect.
    fn end_stubs_of(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        let is_its = |circuit: &Circuit| circuit.path.iter().any(|hop| hop.relay == relay);
        let stubs = self.circuits.stubs();
        let its = stubs.filter(|(_, stub)| is_its(stub)).map(|(key, _)| key);
        for key in its.collect::<Vec<_>>() {
            self.lose(cx, key, Loss::Closed, Some(DestroyReason::Finished));
        }
    }

    /// The three hops that this client chose were built, and the circuit failed before it carried
    /// an answer.
    fn on_broken(&mut self, cx: &mut Context<'_>, key: CircuitKey, is_certain: bool) {
        let is_used = |circuit: &Circuit| circuit.is_asked() || circuit.hop_due_at.is_some();
        if self.circuits.get(&key).is_some_and(is_used) {
            self.on_used_broken(cx, key, is_certain);
        }
    }

    /// A circuit that was to carry an answer broke.
    fn on_used_broken(&mut self, cx: &mut Context<'_>, key: CircuitKey, is_certain: bool) {
        let Some(circuit) = self.circuits.get(&key) else {
            return;
        };
        if circuit.is_direct() || circuit.is_proven || circuit.made < STUB_HOPS {
            return;
        }
        let path: Vec<RelayId> = circuit.path.iter().map(|hop| hop.relay).collect();
        tracing::debug!(is_certain, "a circuit broke before it carried an answer");
        self.on_path_broken(cx, &path, is_certain);
    }

    /// A circuit of this path broke before it carried an answer.
    pub(super) fn on_path_broken(
        &mut self,
        cx: &mut Context<'_>,
        path: &[RelayId],
        is_certain: bool,
    ) {
        let [guard, way @ ..] = path else {
            return;
        };
        let life = broken_life(&cx.network.params);
        if self.breakers.on_broken(cx.now, life, path) {
            return;
        }
        if is_certain {
            self.paths
                .guards
                .handle_failed(cx.known(), *guard, way, Stage::Built);
        }
        let suspected = self.suspects.on_broken(cx, path);
        self.act_on(cx, suspected, path);
        let attempt = u32::try_from(cx.network.params.circuits_per_attempt)
            .unwrap_or(u32::MAX)
            .max(1);
        let is_again = self.suspects.tally().0 >= attempt && self.brake.is_due(cx.now);
        if is_again && self.is_without_choice() {
            self.brake.fail(&cx.network.params, cx.now, cx.rng);
        }
    }

    /// Another guard takes its place for a while, if there is one.
    fn suspect(&mut self, guard: RelayId) {
        tracing::debug!("circuits over the guard in use fail: another is tried");
        self.suspected.insert(guard);
        self.stub_backoff.hurry();
        if self
            .order
            .iter()
            .any(|&other| self.links.link_to(other).is_some() && !self.suspects.broke_over(other))
        {
            self.brake.hurry();
        }
    }

    /// Whether no guard can replace a suspect yet: then continuing at once would teach us nothing.
    fn is_without_choice(&self) -> bool {
        let in_use = self.guard_in_use().map(|(guard, _)| guard);
        self.suspected.is_empty() || in_use.is_none_or(|guard| self.suspected.contains(&guard))
    }

    /// Whether the guard had no room for one more circuit: that is no failure before it has said so
    /// more than [`GUARD_REFUSALS_MAX`] times in a row.
    fn is_refused(&mut self, cx: &Context<'_>, key: CircuitKey) -> bool {
        let Some(circuit) = self.circuits.get(&key).filter(|circuit| circuit.made == 0) else {
            return false;
        };
        let link = circuit.link;
        self.links.on_too_fast(link, cx.now);
        let refusals = self.refusals.entry(link).or_default();
        *refusals += 1;
        *refusals <= GUARD_REFUSALS_MAX
    }
}

/// For how long it is remembered that a circuit to a terminal broke.
fn broken_life(params: &Params) -> Duration {
    params.retry_max.saturating_mul(2)
}
