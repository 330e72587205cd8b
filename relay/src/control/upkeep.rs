//! What a relay does as time passes: keys and descriptor are renewed, what expired is forgotten.

use rand::CryptoRng;
use umbel_proto::cell::DestroyReason;
use umbel_proto::inbox::holder::EXPIRED_KEPT;
use umbel_proto::limits::CLOCK_SKEW_MAX;
use umbel_proto::link::LinkOp;
use umbel_proto::time::{Duration, Instant, WallTime};

use super::Control;
use super::circuits::End;
use super::timers::Timer;

/// How often expiry is looked after.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// A link that carries no circuit for so many sweeps is closed by whoever dialled it.
const UNUSED_LINK_SWEEPS: u32 = 10;

impl Control {
    pub(super) fn on_sweep(&mut self, now: Instant, wall: WallTime, rng: &mut dyn CryptoRng) {
        self.timers.set(now + SWEEP_INTERVAL, Timer::Sweep);
        self.judge_clock(now, wall);
        self.renew(wall, rng);
        let confirmed = self.clock.confirmed();
        self.book.expire(&self.config.network, wall, confirmed);
        self.store_book();
        self.forget_inboxes(EXPIRED_KEPT); // a day more (§8.4)
        self.close_idle(now);
    }

    /// Rotates the onion key and issues the descriptor anew, when it is time.
    fn renew(&mut self, wall: WallTime, rng: &mut dyn CryptoRng) {
        let params = &self.config.network.params;
        // A key that goes by a wrong clock takes with it every circuit to whoever has the old
        // descriptor.
        let is_key_old =
            self.clock.confirmed().since(self.keys.created_at()) >= params.onion_key_life;
        let is_descriptor_old = wall >= self.descriptor.republish_at
            || self.descriptor.issued_at > wall + CLOCK_SKEW_MAX;
        if is_key_old {
            self.keys.add(wall, rng, &mut self.out.store);
        }
        if is_key_old || is_descriptor_old {
            self.reissue(wall, rng);
        }
    }

    /// Destroys circuits that have ended here unused for long, and closes links of ours that carry
    /// none.
    fn close_idle(&mut self, now: Instant) {
        let idle = self.config.network.params.circuit_idle;
        for (link, circ) in self.circuits.idle_for(now, idle) {
            if let Some(end @ End::Prev(_)) = self.circuits.end(link, circ) {
                self.circuits.remove_end(link, circ);
                self.send_destroy(link, circ, DestroyReason::Finished);
                self.on_end_lost(link, circ, end, DestroyReason::Finished);
            }
        }
        let circuits = &self.circuits;
        let unused = self
            .links
            .sweep(UNUSED_LINK_SWEEPS, |link| circuits.is_unused(link));
        for link in unused {
            self.links.begin_close(link);
            self.out.links.push_back(LinkOp::Close(link));
        }
    }
}
