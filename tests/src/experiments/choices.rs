//! The relays that a client would choose over months, by `proto::path`, which chooses for clients.
//! Without links, circuits or messages: nothing ever fails here, every guard answers, every circuit
//! is built, and no relay leaves.

use rand::CryptoRng;
use umbel_proto::directory::choice::Candidates;
use umbel_proto::directory::{Book, BookRow, guard_age};
use umbel_proto::ids::RelayId;
use umbel_proto::network::Network;
use umbel_proto::path::{Known, Paths};
use umbel_proto::time::{Instant, WallTime};

/// The relays of a network, as all its clients know them.
#[expect(missing_debug_implementations, reason = "holds a view")]
pub struct KnownRelays {
    network: Network,
    book: Book,
    candidates: Candidates,
    guard_candidates: Candidates,
    begun_at: WallTime,
}

impl KnownRelays {
    /// These relays, looked at now. They stay, and may be drawn, whatever the time.
    pub fn new(network: Network, relays: Vec<BookRow>, wall: WallTime) -> Self {
        let book = Book::restore(&network, relays, wall);
        let candidates = Candidates::selectable(book.view(), &network, wall);
        let guard_candidates = guard_age::old_enough(&candidates, book.view(), &network, wall);
        Self {
            network,
            book,
            candidates,
            guard_candidates,
            begun_at: wall,
        }
    }

    fn at(&self, wall: WallTime) -> Known<'_> {
        Known {
            network: &self.network,
            view: self.book.view(),
            candidates: &self.candidates,
            guard_candidates: &self.guard_candidates,
            now: Instant::default() + wall.since(self.begun_at),
            wall,
            confirmed: wall,
            is_clock_sure: true,
            is_view_current: true,
        }
    }
}

/// What one client has chosen.
#[expect(missing_debug_implementations, reason = "as its parts")]
#[derive(Default)]
pub struct Choices {
    paths: Paths,
    holders: Vec<RelayId>,
}

impl Choices {
    /// A client that has chosen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with full vanguards.
    pub fn with_full_vanguards() -> Self {
        let mut choices = Self::new();
        choices.paths.turn_full_vanguards(true);
        choices
    }

    /// It is this time: what has had its time is dropped, and what is missing is drawn. The guard
    /// that is used from now on.
    pub fn refresh(
        &mut self,
        relays: &KnownRelays,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> Option<RelayId> {
        let known = relays.at(wall);
        self.paths.refresh(known, rng);
        let guard = self.paths.guards.primary(known).first().copied()?;
        self.paths.guards.handle_tried(known, guard);
        self.paths.guards.handle_built(known, guard);
        Some(guard)
    }

    /// The pinned relays behind the guard.
    pub fn layer2(&self) -> impl Iterator<Item = RelayId> {
        self.paths.layer2.relays()
    }

    /// Guard, L2 and middle of another circuit that ends at this relay.
    pub fn path(
        &mut self,
        relays: &KnownRelays,
        wall: WallTime,
        terminal: RelayId,
        rng: &mut dyn CryptoRng,
    ) -> Option<[RelayId; 3]> {
        let known = relays.at(wall);
        let guard = self.paths.guards.primary(known).first().copied()?;
        let chosen = self
            .paths
            .choose(known, guard, false, Some(terminal), rng)?;
        Some(chosen.map(|hop| hop.relay))
    }

    /// The relays that hold the mailboxes of its inbox, which is made when this is first called.
    pub fn holders(
        &mut self,
        relays: &KnownRelays,
        wall: WallTime,
        rng: &mut dyn CryptoRng,
    ) -> &[RelayId] {
        let known = relays.at(wall);
        while self.holders.len() < known.network.params.mailboxes
            && let Some(relay) = self.paths.draw_holder(known, &self.holders, [], rng)
        {
            self.holders.push(relay);
        }
        self.paths.avoid_holders(self.holders.iter().copied());
        &self.holders
    }
}
