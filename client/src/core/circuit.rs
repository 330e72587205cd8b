//! One circuit as the pool keeps it: its path, its owner, and how far it is built.

use rand::CryptoRng;
use umbel_proto::chance::between;
use umbel_proto::circuit::RequestCircuit;
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::{CircId, QueueId, RelayId};
use umbel_proto::limits::{FRAME_LEN_MAX, HOPS_MAX, OUTGOING_BYTES_MAX, STREAMS_MAX};
use umbel_proto::link::LinkId;
use umbel_proto::network::Params;
use umbel_proto::time::{Epoch, Instant};

use super::inboxes::InboxId;
use super::mailbox::MailboxId;
use super::requests::AskId;

/// Names a circuit of this client; counted from 1, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CircuitKey(pub(super) u64);

/// Which requests may share a circuit: those to one terminal that are equal in this. Never two
/// contacts, never what an owner does and what a sender does (docs/protocol.md
/// §6.4(3)).
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Reconciling views with a peer, on a circuit of one hop.
    Sync,
    /// Asking another guard for an L2 that the guard in use calls out of reach.
    SecondWord,
    /// Reconciling views with a relay drawn at random, once.
    View { serial: u64 },
    /// Publishing an own inbox's descriptor for one epoch.
    Publish { inbox: InboxId, epoch: Epoch },
    /// Looking a contact's inbox up in one epoch: nobody learns that the keys of two epochs are one
    /// inbox's.
    Lookup { address: [u8; 32], epoch: Epoch },
    /// Depositing at one mailbox of a contact.
    Deposit { whom: [u8; 32], queue: QueueId },
    /// Everything about one mailbox of one's own.
    Own(MailboxId),
}

impl Isolation {
    /// Whether the circuit has one hop: every other one has a path before its terminal.
    pub(super) const fn is_direct(&self) -> bool {
        matches!(self, Self::Sync)
    }

    /// Whether the circuit has done its work with one request.
    pub(super) const fn is_single_use(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Lookup { .. })
    }
}

/// One circuit.
pub(super) struct Circuit {
    /// The machine, and who waits for answers on it.
    pub(super) machine: RequestCircuit<AskId>,
    pub(super) link: LinkId,
    pub(super) circ: CircId,
    /// All hops it is to have; grows by the terminal when a stub is bound.
    pub(super) path: Vec<HopTarget>,
    /// How many of them were made; the machine forgets when it closes.
    pub(super) made: usize,
    /// Whose it is; `None` for a clean stub.
    pub(super) isolation: Option<Isolation>,
    /// When the hop being made must be there; `None` while none is being made.
    pub(super) hop_due_at: Option<Instant>,
    /// When it takes no new requests any more.
    pub(super) dirty_at: Instant,
    /// It carried an answer.
    pub(super) is_proven: bool,
    pub(super) idle_since: Instant,
}

impl Circuit {
    /// Whether all its hops are there.
    pub(super) fn is_built(&self) -> bool {
        self.machine.circuit().is_open() && self.machine.circuit().hops() == self.path.len()
    }

    /// Whether it can take the longest request there is.
    pub(super) fn has_room(&self) -> bool {
        self.is_built()
            && self.machine.circuit().stream_count() < STREAMS_MAX
            && self.machine.circuit().outgoing_bytes() + FRAME_LEN_MAX <= OUTGOING_BYTES_MAX
    }

    /// Whether a request on it is not over.
    pub(super) fn is_asked(&self) -> bool {
        self.machine.request_count() > 0
    }

    pub(super) fn is_stub(&self) -> bool {
        self.isolation.is_none()
    }

    pub(super) fn is_direct(&self) -> bool {
        self.isolation.as_ref().is_some_and(Isolation::is_direct)
    }

    /// Whether it only asks a second guard for an L2.
    pub(super) fn is_second_word(&self) -> bool {
        self.isolation == Some(Isolation::SecondWord)
    }

    /// The relay at this end of the path.
    pub(super) fn terminal(&self) -> Option<RelayId> {
        self.path.last().map(|hop| hop.relay)
    }

    /// Whether a request of this isolation to this relay may use it.
    pub(super) fn serves(&self, isolation: &Isolation, terminal: RelayId, now: Instant) -> bool {
        let is_spent =
            isolation.is_single_use() && self.machine.circuit().is_open() && self.is_asked();
        self.isolation.as_ref() == Some(isolation)
            && self.terminal() == Some(terminal)
            && self.dirty_at > now
            && !is_spent
            && !self.is_clogged()
    }

    /// Whether no request is in flight, and yet no stream can be opened: the terminal acknowledges
    /// no end of a stream.
    fn is_clogged(&self) -> bool {
        !self.is_asked() && self.machine.circuit().stream_count() >= STREAMS_MAX
    }

    /// Whether this stub may be extended to this relay: it has no terminal yet, and its last hop is
    /// another relay.
    pub(super) fn can_take(&self, terminal: RelayId) -> bool {
        self.is_stub() && self.path.len() < HOPS_MAX && self.terminal() != Some(terminal)
    }

    /// Gives the stub a terminal and an owner.
    pub(super) fn bind(
        &mut self,
        now: Instant,
        params: &Params,
        isolation: Isolation,
        terminal: HopTarget,
        is_lasting: bool,
        rng: &mut dyn CryptoRng,
    ) {
        let life = if is_lasting {
            between(
                params.subscription_life_min,
                params.subscription_life_max,
                rng,
            )
        } else {
            params.circuit_dirty
        };
        self.isolation = Some(isolation);
        self.path.push(terminal);
        self.dirty_at = now + life;
        self.extend_on(now, params, rng);
    }

    /// Asks for the next hop, if one is missing and none is being made.
    pub(super) fn extend_on(&mut self, now: Instant, params: &Params, rng: &mut dyn CryptoRng) {
        if !self.machine.circuit().can_extend() {
            return;
        }
        if let Some(next) = self.path.get(self.machine.circuit().hops()) {
            self.machine.extend(next, rng);
            self.hop_due_at = Some(now + params.hop_timeout());
        }
    }

    /// When there is something to do about it without anything having come.
    pub(super) fn timeout(&self, params: &Params) -> Instant {
        let ends_at = if self.is_asked() {
            self.dirty_at + params.request_timeout
        } else {
            self.dirty_at
        };
        self.hop_due_at
            .map_or(ends_at, |due_at| due_at.min(ends_at))
    }

    /// All moments at which there may be something to do about it, past ones included.
    pub(super) fn timeouts(&self, params: &Params) -> impl Iterator<Item = Instant> {
        let ends_at = [self.timeout(params)].into_iter();
        let late_at = self.machine.poll_timeout();
        ends_at.chain(self.hop_due_at).chain(late_at)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::handshake::OnionSecret;
    use umbel_proto::ids::NetworkId;
    use umbel_proto::time::Duration;

    use super::super::mailbox::Owner;
    use super::*;

    #[test] // §6.4(3)
    fn contacts_inboxes_and_mailboxes_share_no_circuit() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let terminal = HopTarget {
            relay: RelayId([1; 32]),
            onion_key: OnionSecret::generate(&mut rng).public(),
        };
        let (addresses, queues) = ([[1; 32], [2; 32]], [1, 2].map(|id| QueueId([id; 32])));
        let (inboxes, epochs) = ([1, 2].map(InboxId), [1, 2].map(Epoch));
        let mut isolations = vec![
            Isolation::Sync,
            Isolation::SecondWord,
            Isolation::View { serial: 1 },
        ];
        for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (address, inbox) = (addresses[first], inboxes[first]);
            let (queue, epoch) = (queues[second], epochs[second]);
            isolations.extend([
                Isolation::Lookup { address, epoch },
                Isolation::Deposit {
                    whom: address,
                    queue,
                },
                Isolation::Publish { inbox, epoch },
                Isolation::Own(MailboxId {
                    owner: Owner::Inbox(inbox),
                    queue,
                }),
            ]);
        }
        let now = Instant::from_micros(5);
        for (index, isolation) in isolations.iter().enumerate() {
            let circuit = Circuit {
                machine: RequestCircuit::create(&NetworkId([9; 32]), &terminal, &mut rng),
                link: LinkId(1),
                circ: CircId::new(1).unwrap(),
                path: vec![terminal.clone()],
                made: 1,
                isolation: Some(isolation.clone()),
                hop_due_at: None,
                dirty_at: now + Duration::from_secs(1),
                is_proven: false,
                idle_since: now,
            };
            for (other_index, other) in isolations.iter().enumerate() {
                let is_served = circuit.serves(other, terminal.relay, now);
                assert_eq!(is_served, index == other_index);
            }
        }
    }
}
