//! What a relay does as time passes: onion keys rotate, its descriptor is issued anew, what expired
//! is forgotten.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::{CryptoRng, RngExt};
use umbel_proto::cell::DestroyReason;
use umbel_proto::directory::descriptor::RelayDescriptor;
use umbel_proto::handshake::{HandshakeFault, HopKeys, OnionSecret, Onionskin, Reply, respond};
use umbel_proto::ids::{NetworkId, RelayId};
use umbel_proto::inbox::holder::EXPIRED_KEPT;
use umbel_proto::limits::{CLOCK_SKEW_MAX, ONION_KEYS_MAX};
use umbel_proto::link::LinkOp;
use umbel_proto::time::{Duration, Instant, WallTime};

use super::circuits::End;
use super::io::{News, StoreOp, StoredOnionKey};
use super::timers::Timer;
use super::{Control, ControlConfig};

/// How often expiry is looked after.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// A link that carries no circuit for so many sweeps is closed by whoever dialled it.
const UNUSED_LINK_SWEEPS: u32 = 10;

/// A relay's onion keys: the current one, and the one before while it is honoured (docs/protocol.md
/// §5.3).
pub(super) struct OnionKeys {
    stored: Vec<StoredOnionKey>,
    secrets: Arc<[OnionSecret]>,
}

/// Answers handshakes with the onion keys of the moment; public-key work for any thread.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct Responder {
    network: NetworkId,
    relay: RelayId,
    secrets: Arc<[OnionSecret]>,
}

impl Responder {
    /// Answers one handshake.
    ///
    /// # Errors
    /// The onionskin is not for this relay and one of its keys, or breaks a rule of §5.
    pub fn respond(
        &self,
        onionskin: &Onionskin,
        rng: &mut dyn CryptoRng,
    ) -> Result<(HopKeys, Box<Reply>), HandshakeFault> {
        respond(&self.network, &self.relay, &self.secrets, onionskin, rng)
            .map(|(keys, reply)| (keys, Box::new(reply)))
    }
}

impl OnionKeys {
    /// Takes up stored keys, and makes one if there is none.
    pub(super) fn restore(
        stored: Vec<StoredOnionKey>,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
        ops: &mut VecDeque<StoreOp>,
    ) -> Self {
        let is_empty = stored.is_empty();
        let mut keys = Self {
            stored,
            secrets: Arc::from([]),
        };
        keys.redate(wall, ops);
        if is_empty {
            keys.add(wall, rng, ops);
        } else {
            keys.expand();
        }
        keys
    }

    pub(super) fn responder(&self, network: NetworkId, relay: RelayId) -> Responder {
        Responder {
            network,
            relay,
            secrets: Arc::clone(&self.secrets),
        }
    }

    fn created_at(&self) -> WallTime {
        self.stored
            .first()
            .map_or(WallTime(0), |key| key.created_at)
    }

    /// Keys that a wrong clock made are no younger than now: else they would be kept for as long as
    /// it was ahead.
    fn redate(&mut self, wall: WallTime, ops: &mut VecDeque<StoreOp>) {
        let is_future = |key: &&mut StoredOnionKey| key.created_at > wall + CLOCK_SKEW_MAX;
        let mut is_changed = false;
        for key in self.stored.iter_mut().filter(is_future) {
            key.created_at = wall;
            is_changed = true;
        }
        if is_changed {
            ops.push_back(StoreOp::PutOnionKeys(self.stored.clone()));
        }
    }

    fn add(&mut self, wall: WallTime, rng: &mut dyn CryptoRng, ops: &mut VecDeque<StoreOp>) {
        let secret = OnionSecret::generate(rng);
        self.stored.insert(
            0,
            StoredOnionKey {
                secret: secret.seed(),
                created_at: wall,
            },
        );
        self.stored.truncate(ONION_KEYS_MAX);
        ops.push_back(StoreOp::PutOnionKeys(self.stored.clone()));
        self.expand();
    }

    fn expand(&mut self) {
        self.secrets = self
            .stored
            .iter()
            .map(|key| OnionSecret::from_seed(&key.secret))
            .collect();
    }
}

/// This relay's descriptor, and when it is issued anew.
pub(super) struct OwnDescriptor {
    pub(super) bytes: Vec<u8>,
    pub(super) issued_at: WallTime,
    pub(super) republish_at: WallTime,
}

/// This relay's descriptor, as of now.
pub(super) fn issue_descriptor(
    config: &ControlConfig,
    keys: &OnionKeys,
    wall: WallTime,
    rng: &mut dyn CryptoRng,
) -> OwnDescriptor {
    let descriptor = RelayDescriptor {
        network: config.network.id,
        relay: config.identity.public().into(),
        onion_keys: keys.secrets.iter().map(OnionSecret::public).collect(),
        addresses: config.addresses.clone(),
        roles: config.roles,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        issued_at: wall,
        receipts: Vec::new(),
        puzzle: 0,
    };
    let params = &config.network.params;
    let jitter = params.republish_jitter.mul_f64(rng.random_range(0.0..2.0));
    let republish_at = wall + (params.republish + jitter).saturating_sub(params.republish_jitter);
    OwnDescriptor {
        bytes: descriptor.sign(&config.identity),
        issued_at: wall,
        republish_at,
    }
}

impl Control {
    /// Takes our own descriptor into our view. One that nobody vouches for yet is not believed by
    /// us either.
    pub(super) fn view_own_descriptor(&mut self, wall: WallTime) {
        if self.config.addresses.is_empty() {
            return; // nobody can dial it yet; whoever looks for its addresses has said so
        }
        if let Err(fault) = self
            .book
            .own(&self.config.network, wall, &self.descriptor.bytes)
        {
            self.out.news.push_back(News::DescriptorRefused(fault));
        }
    }

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

    /// Issues the descriptor anew and passes it on.
    pub(super) fn reissue(&mut self, wall: WallTime, rng: &mut dyn CryptoRng) {
        self.keys.redate(wall, &mut self.out.store);
        self.descriptor = issue_descriptor(&self.config, &self.keys, wall, rng);
        self.view_own_descriptor(wall);
        let bytes = self.descriptor.bytes.clone();
        self.spread(&bytes);
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
