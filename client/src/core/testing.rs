//! The surroundings that unit tests give a part of the core.

use std::net::{Ipv4Addr, SocketAddr};

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::choice::Candidates;
use umbel_proto::directory::{RelayDescriptor, Roles, Unverified};
use umbel_proto::handshake::OnionSecret;
use umbel_proto::ids::RelayId;
use umbel_proto::link::{Hello, LinkId};
use umbel_proto::network::Network;
use umbel_proto::time::{Instant, Moment, WallTime};

use super::context::{Context, Shared};
use super::io::{LinkUp, Notice};

/// A link to this relay, where all relays of these tests are.
pub(super) fn link_up(link: LinkId, relay: RelayId, hello: &Hello) -> LinkUp<'_> {
    LinkUp {
        link,
        relay,
        remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)),
        hello,
    }
}

/// A network with nobody in view, where circuits may still be built.
pub(super) fn surroundings(network: Network, wall: WallTime) -> Shared {
    let now = Instant::from_micros(0);
    Shared {
        is_ready: true,
        ..Shared::restore(
            network,
            (Vec::new(), Vec::new()),
            None,
            None,
            Moment { now, wall },
        )
    }
}

/// Relay number so and so of the `local` network: its identity.
pub(super) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

/// Its onion key.
pub(super) fn onion_secret(number: u8) -> OnionSecret {
    OnionSecret::from_seed(&[number; 32])
}

/// Its id.
pub(super) fn id(number: u8) -> RelayId {
    key(number).public().into()
}

/// Its descriptor, on a port of its own.
pub(super) fn descriptor(number: u8) -> Vec<u8> {
    descriptor_with(number, |_| ())
}

/// The same with this change.
pub(super) fn descriptor_with(number: u8, change: impl FnOnce(&mut RelayDescriptor)) -> Vec<u8> {
    let mut descriptor = RelayDescriptor {
        network: Network::local().id,
        relay: id(number),
        onion_keys: vec![onion_secret(number).public()],
        addresses: vec![([127, 0, 0, 1], 9000 + u16::from(number)).into()],
        roles: Roles::HOLDER,
        version: "test".to_owned(),
        issued_at: WallTime(1_790_000_000),
        receipts: Vec::new(),
        puzzle: 0,
    };
    change(&mut descriptor);
    descriptor.sign(&key(number))
}

/// A time at which something is done in the `local` network.
pub(super) struct When {
    pub(super) now: Instant,
    pub(super) wall: WallTime,
    pub(super) confirmed: WallTime,
}

impl When {
    /// One at which the calendar is confirmed as it is.
    pub(super) const fn at(wall: WallTime) -> Self {
        Self {
            now: Instant::from_micros(0),
            wall,
            confirmed: wall,
        }
    }

    /// Runs `act` at that time; its result, and the notices for the user.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Context<'_>) -> T) -> (T, Vec<Notice>) {
        self.act_knowing(&[], act)
    }

    /// The same in another network.
    pub(super) fn act_in<T>(&self, network: Network, act: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let &Self { now, wall, .. } = self;
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut shared = surroundings(network, wall);
        act(&mut shared.context(Moment { now, wall }, &mut rng))
    }

    /// The same with these relays in view.
    pub(super) fn act_knowing<T>(
        &self,
        relays: &[u8],
        act: impl FnOnce(&mut Context<'_>) -> T,
    ) -> (T, Vec<Notice>) {
        let &Self {
            now,
            wall,
            confirmed,
        } = self;
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut shared = surroundings(Network::local(), wall);
        for &number in relays {
            let known = Unverified::decode(&descriptor(number)).expect("a descriptor");
            let learned = shared
                .book
                .hear(&shared.network, wall, None, known, &mut rng);
            learned.expect("a good one");
        }
        shared.candidates = Candidates::selectable(shared.book.view(), &shared.network, wall);
        shared.guard_candidates = shared.candidates.clone();
        let mut cx = shared.context(Moment { now, wall }, &mut rng);
        cx.confirmed = confirmed;
        cx.is_clock_sure = wall == confirmed;
        let came = act(&mut cx);
        (came, shared.out.notices.into())
    }
}
