//! The onion keys of a relay, and the answering of handshakes with them (docs/protocol.md §5.3).
//!
//! A relay still answers to a key for one life after its successor was made, since origins may have
//! yesterday's descriptor. Secrets leave only toward the store.

use std::sync::Arc;

use rand::CryptoRng;
use umbel_proto::handshake::{
    HandshakeFault, HopKeys, OnionKey, OnionSecret, Onionskin, Reply, respond,
};
use umbel_proto::ids::{NetworkId, RelayId};
use umbel_proto::limits::{CLOCK_SKEW_MAX, ONION_KEYS_MAX};
use umbel_proto::time::WallTime;

use super::context::Context;
use super::io::{StoreOp, StoredOnionKey};

/// A relay's onion keys, newest first.
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
    pub(super) fn restore(cx: &mut Context<'_>, stored: Vec<StoredOnionKey>) -> Self {
        let is_empty = stored.is_empty();
        let mut keys = Self {
            stored,
            secrets: Arc::from([]),
        };
        keys.redate(cx);
        if is_empty {
            keys.add(cx);
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

    /// The public halves, newest first.
    pub(super) fn public(&self) -> Vec<OnionKey> {
        self.secrets.iter().map(OnionSecret::public).collect()
    }

    /// Keys that a wrong clock made are no younger than now: else they would be kept for as long as
    /// it was ahead.
    pub(super) fn redate(&mut self, cx: &mut Context<'_>) {
        let latest = cx.wall + CLOCK_SKEW_MAX;
        let mut is_changed = false;
        for key in self.stored.iter_mut().filter(|key| key.created_at > latest) {
            key.created_at = cx.wall;
            is_changed = true;
        }
        if is_changed {
            cx.store(StoreOp::PutOnionKeys(self.stored.clone()));
        }
    }

    /// Whether the current key has had its time, by confirmed time (§5.3(1)): a wrong clock must
    /// not discard a key that origins still use.
    pub(super) fn is_due(&self, cx: &Context<'_>) -> bool {
        let created_at = self
            .stored
            .first()
            .map_or(WallTime(0), |key| key.created_at);
        cx.clock.confirmed().since(created_at) >= cx.params().onion_key_life
    }

    /// Makes a new current key. Keeps the one before and erases older ones (§5.3(2)).
    pub(super) fn add(&mut self, cx: &mut Context<'_>) {
        let key = StoredOnionKey {
            secret: OnionSecret::generate(cx.rng).seed(),
            created_at: cx.wall,
        };
        self.stored.insert(0, key);
        self.stored.truncate(ONION_KEYS_MAX);
        cx.store(StoreOp::PutOnionKeys(self.stored.clone()));
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

#[cfg(test)]
mod tests {
    use umbel_proto::handshake::{HopTarget, Initiator};
    use umbel_proto::time::Duration;

    use super::super::testing::Bench;
    use super::*;

    /// Whether a handshake for this key is answered.
    fn is_honoured(keys: &OnionKeys, onion_key: OnionKey, bench: &mut Bench) -> bool {
        let cx = bench.context();
        let network = cx.config.network.id;
        let relay = cx.relay;
        let target = HopTarget { relay, onion_key };
        let (_, onionskin) = Initiator::start(&network, &target, cx.rng);
        let responder = keys.responder(network, relay);
        responder.respond(&onionskin, cx.rng).is_ok()
    }

    #[test] // §5.3
    fn a_key_is_honoured_until_one_more_has_had_its_time() {
        let mut bench = Bench::new(0);
        let mut keys = OnionKeys::restore(&mut bench.context(), Vec::new());
        let first = keys.public()[0];
        keys.add(&mut bench.context());
        assert_eq!(keys.public()[1], first, "the newest comes first");
        assert!(is_honoured(&keys, first, &mut bench));
        keys.add(&mut bench.context());
        assert_eq!(keys.public().len(), ONION_KEYS_MAX);
        assert!(!is_honoured(&keys, first, &mut bench));
        let Some(StoreOp::PutOnionKeys(stored)) = bench.shared.out.store.pop_back() else {
            panic!("each change is stored")
        };
        let restored = OnionKeys::restore(&mut bench.context(), stored);
        assert_eq!(restored.public(), keys.public());
    }

    #[test] // §1.6
    fn a_key_that_a_wrong_clock_made_is_no_younger_than_now() {
        let mut bench = Bench::new(0);
        bench.shared.clock.confirm();
        let wall = bench.moment.wall;
        let of_the_future = StoredOnionKey {
            secret: OnionSecret::from_seed(&[1; 32]).seed(),
            created_at: wall + Duration::from_secs(365 * 86_400),
        };
        let keys = OnionKeys::restore(&mut bench.context(), vec![of_the_future]);
        assert!(!keys.is_due(&bench.context()));
        let Some(StoreOp::PutOnionKeys(stored)) = bench.shared.out.store.pop_back() else {
            panic!("the new date is stored")
        };
        assert_eq!(stored[0].created_at, wall);
    }
}
