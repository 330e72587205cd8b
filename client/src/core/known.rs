//! What a client knows of relays and of time: the book, the view made from it, and how far the
//! calendar is believed (docs/protocol.md §1.6, §8.2).

use umbel_proto::directory::Unverified;
use umbel_proto::directory::choice::Candidates;
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::CLOCK_CONFIRMED_BY_ONE_MAX;
use umbel_proto::time::{Moment, WallTime};

use super::path::are_enough;
use super::{CLOCK_STORE_EVERY, Core, HEARTBEAT, Notice, StoreOp};

impl Core {
    /// Takes the descriptor a peer showed of itself; says how to begin a circuit there.
    pub(super) fn learn_peer(
        &mut self,
        wall: WallTime,
        relay: RelayId,
        bytes: &[u8],
    ) -> Option<HopTarget> {
        let shown = Unverified::decode(bytes)
            .ok()
            .filter(|shown| shown.relay() == relay)?;
        let target = self.learn(wall, shown)?;
        self.look_at_view(wall);
        Some(target)
    }

    /// Takes a descriptor into the book and stores what is news. How to begin a circuit there, if
    /// it is good.
    pub(super) fn learn(&mut self, wall: WallTime, unverified: Unverified) -> Option<HopTarget> {
        let learned = self.book.learn(&self.network, wall, unverified).ok()?;
        self.is_view_changed |= learned.is_news();
        self.store_book();
        Some(learned.descriptor.hop_target())
    }

    /// Looks how far the calendar has moved, and whether the linked relays say the same.
    pub(super) fn look_at_clock(&mut self, moment: Moment) {
        if self.clock.look(moment.now, moment.wall).is_some() {
            // Other descriptors may be dead now.
            self.expires_at = moment.now;
            self.is_clock_jumped = true;
        }
        let (agreeing, linked) = self
            .pool
            .links
            .clocks_agreeing(moment, &self.network.params);
        if linked > 0 {
            let is_right = agreeing * 2 > linked;
            self.outbox.judge_clock(is_right);
            // Clients tell their hour, which a lone relay may only repeat: it is not believed about
            // a long jump.
            let is_short = self
                .clock
                .unconfirmed()
                .is_none_or(|jump| jump <= CLOCK_CONFIRMED_BY_ONE_MAX);
            if is_right && (agreeing > 1 || is_short) && !self.clock.may_delete() {
                self.clock.confirm();
                self.clock_stored_at = moment.now;
            }
        }
        if self.clock_stored_at > moment.now {
            return;
        }
        self.clock_stored_at = moment.now + CLOCK_STORE_EVERY;
        self.out.store(StoreOp::PutClock(self.clock.state()));
    }

    /// Takes dead descriptors out of the view, once a heartbeat, and looks again at which relays
    /// may be drawn.
    pub(super) fn expire(&mut self, moment: Moment) {
        if self.expires_at > moment.now {
            return;
        }
        self.expires_at = moment.now + HEARTBEAT;
        self.book
            .expire(&self.network, moment.wall, self.clock.confirmed());
        self.store_book();
        self.is_view_changed = true;
        self.look_at_view(moment.wall);
    }

    fn store_book(&mut self) {
        while let Some(op) = self.book.poll_op() {
            self.out.store(StoreOp::Book(op));
        }
    }

    /// Sees which relays may be drawn, and whether circuits can be built. A view that is being
    /// filled is not used before it is whole: relays that are sent first would be drawn first.
    pub(super) fn look_at_view(&mut self, wall: WallTime) {
        if core::mem::take(&mut self.is_view_changed) {
            self.candidates = Candidates::selectable(self.book.view(), &self.network, wall);
        }
        let is_whole = self.is_ready || !self.sync.is_running();
        let is_ready = is_whole && are_enough(&self.network, self.book.view(), &self.candidates);
        match (core::mem::replace(&mut self.is_ready, is_ready), is_ready) {
            (false, true) => self.out.notices.push_back(Notice::Ready {
                relays: self.book.view().len(),
            }),
            (true, false) => self.on_view_lost(),
            (false, false) | (true, true) => {}
        }
    }

    /// The descriptors are dead, while the relays need not be: everything waits for fresh ones.
    fn on_view_lost(&mut self) {
        self.sync.on_view_lost();
        self.tell_waiting();
    }

    pub(super) fn tell_waiting(&mut self) {
        let last_known = self.book.last_known(&self.network).count();
        self.out
            .notices
            .push_back(Notice::WaitingForView { last_known });
    }
}
