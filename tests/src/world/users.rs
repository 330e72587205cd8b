//! The users of a world: their actions, and the notices that they get.

use rand::RngExt;
use umbel_client::core::{Notice, Recipient, Wish};
use umbel_proto::ids::{MessageId, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::{Duration, Instant};

use super::World;
use super::network::Node;
use crate::shells::ClientName;

impl World {
    /// A user's wish.
    pub fn wish(&mut self, name: ClientName, wish: Wish) {
        let moment = self.moment_of(Node::Client(name.0));
        self.clients[name.0].wish(moment, wish, &mut self.rng);
        self.drain(Node::Client(name.0));
    }

    /// Sends a message without a way back; its id.
    pub fn send(&mut self, from: ClientName, address: &InboxAddress, body: Vec<u8>) -> MessageId {
        self.send_to(from, Recipient::OneWay(*address), body)
    }

    /// Sends a message; its id.
    pub fn send_to(&mut self, from: ClientName, to: Recipient, body: Vec<u8>) -> MessageId {
        let id = MessageId(self.rng.random());
        let life = None;
        self.wish(from, Wish::Send { id, to, body, life });
        id
    }

    /// Makes an inbox and waits until it is ready: its address.
    ///
    /// # Panics
    /// It is not ready within two minutes.
    pub fn create_inbox(&mut self, owner: ClientName, name: &str) -> InboxAddress {
        self.wish(
            owner,
            Wish::CreateInbox {
                name: name.to_owned(),
            },
        );
        self.expect_within(Duration::from_secs(120), |world| {
            world.has_notice(
                owner,
                |notice| matches!(notice, Notice::InboxReady { name: ready, .. } if ready == name),
            )
        });
        let core = self.clients[owner.0].core();
        core.and_then(|core| core.inbox_address(name))
            .unwrap_or_else(|| unreachable!("a ready inbox has an address"))
    }

    /// Whether a client has given its user such a notice.
    pub fn has_notice(&self, name: ClientName, is_it: impl Fn(&Notice) -> bool) -> bool {
        self.clients[name.0]
            .notices
            .iter()
            .any(|(_, notice)| is_it(notice))
    }

    /// How many messages a client holds.
    pub fn message_count(&self, name: ClientName) -> usize {
        self.clients[name.0].disk.messages.len()
    }

    /// Which relays clients dialled since then, one entry a dial.
    pub fn dialled_since(&self, since: Instant) -> Vec<RelayId> {
        self.client_dials
            .iter()
            .filter(|(at, _)| *at >= since)
            .map(|&(_, relay)| relay)
            .collect()
    }
}
