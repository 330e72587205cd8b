//! Which guard is used: the first in order that is reachable and not suspected (docs/protocol.md
//! §6.4(6), §6.4(9)).
//!
//! When none is reachable, the client also tries those that rest, then asks seeds for newer
//! descriptors, then draws another guard, within the day's limit. A failed dial counts against a
//! guard only once another relay has answered: until then this machine itself may be offline.

use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{GUARD_STAGGER, NO_CIRCUITS_TOLD_EVERY, SEEDS_FIRST};
use umbel_proto::link::LinkId;
use umbel_proto::time::{Instant, PeerClock};

use super::super::context::Context;
use super::super::io::Notice;
use super::super::links::Reach;
use super::{Acquired, Pool};

impl Pool {
    /// The best guard with a link: a suspect only if there is no other. A link made for the view
    /// does not make its relay a guard.
    pub(in super::super) fn guard_in_use(&self) -> Option<(RelayId, LinkId)> {
        let up = || {
            let linked = self
                .order
                .iter()
                .filter_map(|&relay| self.links.link_to(relay).map(|link| (relay, link)));
            linked.filter(|(relay, _)| self.paths.guards.is_tried(*relay))
        };
        up().find(|(relay, _)| !self.suspected.contains(relay))
            .or_else(|| up().next())
    }

    /// Whether no guard can be reached, so that relays that may know newer addresses are asked.
    pub(in super::super) const fn lacks_guard(&self) -> bool {
        self.lacking_since.is_some()
    }

    /// A link is up. If the best guards were given up before, they are tried again soon: it was the
    /// network that failed.
    pub(in super::super) fn handle_link_up(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        relay: RelayId,
        target: Option<HopTarget>,
        clock: PeerClock,
    ) {
        let was_cut_off = self.links.ids().is_empty();
        if !self.links.on_up(cx, link, relay, target, clock) {
            return;
        }
        if self.order.contains(&relay) && !self.suspects.broke_over(relay) {
            self.brake.hurry();
        }
        self.primaries.handle_link_up(relay);
        self.missed.remove(&relay);
        for guard in core::mem::take(&mut self.missed) {
            self.paths
                .guards
                .handle_missed(cx.known(), guard, self.links.rest_left(guard, cx.now));
        }
        if was_cut_off {
            if !self.order.contains(&relay) {
                self.primaries.handle_back_online(cx.now);
            }
            self.links.hurry(&self.paths.guards.primary(cx.known()));
        }
    }

    /// A link can't be made.
    pub(in super::super) fn handle_dial_failed(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        let is_online = !self.links.ids().is_empty();
        self.primaries
            .handle_dial_failed(&self.links, relay, cx.now);
        self.links.on_dial_failed(cx, relay);
        if !self.order.contains(&relay) || !self.paths.guards.is_tried(relay) {
            return;
        }
        if is_online {
            self.paths
                .guards
                .handle_missed(cx.known(), relay, self.links.rest_left(relay, cx.now));
        } else {
            self.missed.insert(relay);
        }
    }

    /// A link is gone, and all its circuits with it.
    pub(in super::super) fn handle_link_down(&mut self, cx: &mut Context<'_>, link: LinkId) {
        self.links.on_down(cx, link);
        self.lose_all_of(cx, link);
    }

    /// A link is quiet: if it is the guard's, the guard has to show that it is there.
    pub(in super::super) fn handle_link_quiet(&mut self, cx: &mut Context<'_>, link: LinkId) {
        if self.guard_in_use().is_some_and(|(_, guard)| guard == link) && self.probe_guard(cx) {
            self.links.suspect(link, cx.now);
        }
    }

    /// The machine slept: work that fell due meanwhile gets its time again, and links have to show
    /// that they are alive.
    pub(in super::super) fn handle_wake(&mut self, cx: &mut Context<'_>) {
        let params = &cx.network.params;
        let (hop_by, answer_by) = (cx.now + params.hop_timeout(), cx.now + params.build_timeout);
        for circuit in self.circuits.values_mut() {
            circuit.hop_due_at = circuit.hop_due_at.map(|at| at.max(hop_by));
            circuit.machine.postpone(answer_by);
        }
        self.stub_backoff.hurry();
        self.primaries.handle_back_online(cx.now);
        self.links.suspect_all(cx.now);
        self.probe_guard(cx);
    }

    /// Closes suspect links that stayed silent, and makes links that fell silent say something.
    pub(super) fn end_silent_links(&mut self, cx: &mut Context<'_>) {
        for link in self.links.newly_suspect(cx.now) {
            let is_guard = self.guard_in_use().is_some_and(|(_, guard)| guard == link);
            if !is_guard || !self.probe_guard(cx) {
                self.links.on_heard(link);
            }
        }
        for link in self.links.dead(cx.now) {
            tracing::debug!("a link is silent: it is closed");
            self.links.close(cx, link);
            self.lose_all_of(cx, link);
        }
    }

    /// Keeps a link to the best guard that answers: dials down the list, the next one when the one
    /// before rests, is slow or is suspected.
    pub(super) fn keep_guard(&mut self, cx: &mut Context<'_>, are_all_tried: bool) {
        if !cx.is_ready {
            return;
        }
        let now = cx.now;
        self.suspected
            .retain(|&guard| self.suspects.is_suspect(guard, now));
        self.hurry_moved(cx);
        loop {
            let may_draw = self.put_in_order(cx);
            let mut is_any_up = false;
            for relay in self.order.clone() {
                let may_try = self.paths.guards.may_try(relay, &cx.network.params);
                match self.links.reach(relay, now) {
                    Reach::Up(_) if may_try && !self.suspected.contains(&relay) => {
                        self.paths.guards.handle_tried(cx.known(), relay);
                        return self.lacking_since = None;
                    }
                    Reach::Up(_) => is_any_up |= may_try,
                    Reach::Dialling(began_at) if began_at + GUARD_STAGGER > now => return,
                    Reach::Unknown if may_try => return self.dial(cx, relay),
                    Reach::Unknown | Reach::Dialling(_) | Reach::Resting(_) => {}
                }
            }
            if is_any_up {
                return self.lacking_since = None;
            }
            let Some(since) = self.lacking_since else {
                self.lacking_since = Some(now);
                self.links.hurry_resumed();
                continue;
            };
            let is_over = are_all_tried || since + SEEDS_FIRST <= now;
            if !is_over || !may_draw || !self.draw_guard(cx) {
                return;
            }
        }
    }

    /// Puts the guards that may be used now in order: the primary ones alone, until they have failed.
    /// Returns whether another may be
    /// drawn: there are too few primary guards, or they have failed.
    fn put_in_order(&mut self, cx: &Context<'_>) -> bool {
        self.order = self.paths.guards.in_order(cx.known());
        let count = cx.network.params.guards_primary.min(self.order.len());
        let (primary, _) = self.order.split_at(count);
        let have_failed = self
            .primaries
            .have_failed(primary, &self.suspected, &self.links, cx.now);
        if !have_failed {
            self.order.truncate(count);
        }
        have_failed || count < cx.network.params.guards_primary
    }

    /// Reports that no circuit can be built, once every guard with a link was tried and no other
    /// can be reached.
    pub(super) fn tell_if_walled_in(&mut self, cx: &mut Context<'_>) {
        if self.unbuildable.is_empty()
            || self.walled_told_until > cx.now
            || self.links.is_dialling()
            || !cx.is_ready
        {
            return;
        }
        let mut linked = self
            .order
            .iter()
            .filter(|&&relay| self.links.link_to(relay).is_some())
            .peekable();
        if linked.peek().is_some() && linked.all(|relay| self.unbuildable.contains(relay)) {
            self.walled_told_until = cx.now + NO_CIRCUITS_TOLD_EVERY;
            cx.notify(Notice::NoCircuits);
        }
    }

    /// When there is something to do about guards.
    pub(super) fn guard_timeouts(&self, after: Instant) -> impl Iterator<Item = Instant> {
        let order =
            self.order
                .iter()
                .filter_map(move |&relay| match self.links.reach(relay, after) {
                    Reach::Up(_) | Reach::Unknown => None,
                    Reach::Dialling(began_at) => Some(began_at + GUARD_STAGGER),
                    Reach::Resting(until) => Some(until),
                });
        order
            .chain(self.lacking_since.map(|since| since + SEEDS_FIRST))
            .chain(self.primaries.until())
            .chain(self.suspects.timeouts())
    }

    /// Draws one more guard, if that is within the rules. While nothing shows that the network
    /// works, only a few are.
    fn draw_guard(&mut self, cx: &mut Context<'_>) -> bool {
        let params = &cx.network.params;
        let is_online = !self.links.ids().is_empty();
        let most = cx.known().guards_share() * 2;
        let has_room = is_online || self.paths.guards.count() < most;
        has_room
            && self.paths.guards.may_try_new(params)
            && self.paths.grow_guards(cx.known(), cx.rng)
    }

    fn dial(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        let Some(descriptor) = cx.view().get(&relay) else {
            return;
        };
        let host_ports = descriptor.host_ports();
        self.paths.guards.handle_tried(cx.known(), relay);
        self.links.dial(cx, relay, host_ports);
    }

    /// Dials a guard to bring the view up to date, if the rules allow; returns whether it did.
    pub(in super::super) fn dial_guard(&mut self, cx: &mut Context<'_>, relay: RelayId) -> bool {
        let may_try = self.paths.guards.may_try(relay, &cx.network.params);
        if may_try {
            self.dial(cx, relay);
        }
        may_try
    }

    /// A guard that moved may be dialled at once.
    fn hurry_moved(&mut self, cx: &Context<'_>) {
        let moved = |relay: &&RelayId| {
            cx.view().get(relay).is_some_and(|descriptor| {
                self.links
                    .failed_elsewhere(**relay, &descriptor.host_ports())
            })
        };
        let moved: Vec<RelayId> = self.order.iter().filter(moved).copied().collect();
        self.links.hurry(&moved);
    }

    /// Makes the guard in use say something, if it can; says whether it was asked.
    fn probe_guard(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(self.begin_stub(cx, None), Acquired::Circuit(_))
    }
}
