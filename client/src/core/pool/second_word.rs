//! A second guard's word on an L2 that one guard calls out of reach (docs/protocol.md §6.4(15)).
//!
//! Without it an L2 that is down would be drawn for as long as it is pinned, and nothing would tell an
//! honest guard from one that refuses the L2 that it does not like. The circuit ends at the L2 and
//! carries nothing.

use umbel_proto::cell::DestroyReason;
use umbel_proto::ids::RelayId;
use umbel_proto::path::{Stage, hop_target};

use super::super::circuit::{Circuit, CircuitKey, Isolation};
use super::super::context::Context;
use super::super::links::Reach;
use super::{Loss, Pool};

impl Pool {
    /// Asks another primary guard for an L2 that only one guard calls out of reach, one at a time.
    pub(super) fn ask_second_word(&mut self, cx: &mut Context<'_>) {
        if !self.second_word.is_due(cx.now) {
            return;
        }
        let named = self.paths.layer2.relays().find_map(|layer2| {
            let by = self.paths.avoided.named_by(layer2)?;
            self.second_guard(cx, layer2, by)
                .map(|guard| (guard, layer2))
        });
        let Some((guard, layer2)) = named else { return };
        if self.circuits.values().any(Circuit::is_second_word) {
            return;
        }
        match self.links.reach(guard, cx.now) {
            Reach::Up(link) => {
                let target = self.first_hop(cx, link, guard);
                let Some((guard, layer2)) = target.zip(hop_target(cx.view(), layer2)) else {
                    return;
                };
                self.second_word.fail(&cx.network.params, cx.now, cx.rng);
                self.begin(cx, link, vec![guard, layer2], Some(Isolation::SecondWord));
            }
            Reach::Unknown => {
                self.dial_guard(cx, guard);
            }
            Reach::Dialling(_) | Reach::Resting(_) => {}
        }
    }

    /// The first primary guard that may be asked for this L2, and is not the one that refused it.
    fn second_guard(&self, cx: &Context<'_>, layer2: RelayId, by: RelayId) -> Option<RelayId> {
        let mut others = self.other_guards(cx, by);
        others.find(|&guard| cx.known().are_apart(guard, layer2))
    }

    /// Whether another primary guard can be asked than this one.
    pub(super) fn has_other_guard(&self, cx: &Context<'_>, guard: RelayId) -> bool {
        self.other_guards(cx, guard).next().is_some()
    }

    fn other_guards(&self, cx: &Context<'_>, guard: RelayId) -> impl Iterator<Item = RelayId> {
        let (now, params) = (cx.now, &cx.network.params);
        let others = self.paths.guards.primary(cx.known()).into_iter();
        others.filter(move |&other| {
            other != guard
                && self.paths.guards.may_try(other, params)
                && !matches!(self.links.reach(other, now), Reach::Resting(_))
        })
    }

    /// A hop of such a circuit was made: the L2 can be reached after all.
    pub(super) fn on_second_word_made(
        &mut self,
        cx: &mut Context<'_>,
        key: CircuitKey,
        hops: usize,
        relay: RelayId,
    ) {
        if hops == 2 {
            if let Some((by, count)) = self.paths.avoided.refuted(relay) {
                for _ in 0..count {
                    self.paths
                        .guards
                        .handle_failed(cx.known(), by, &[relay], Stage::Refused);
                }
            }
            self.paths.avoided.handle_made(relay);
            self.second_word.reset();
            self.lose(cx, key, Loss::Closed, Some(DestroyReason::Finished));
        }
    }
}
