//! A client of the relays in this experiment, who may have a hostile guard.

use std::collections::BTreeSet;

use rand::{RngExt, rngs::ChaCha20Rng};
use umbel_proto::directory::{Book, BookRow, Unverified};
use umbel_proto::ids::RelayId;
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;

use crate::experiments::reconciling::reconcile;

/// Whom a client asks: its primary guards in turn, and one time in three a relay drawn at random.
const FAR_IN: u32 = 3;
/// One relay in so many that are drawn at random is hostile.
const HOSTILE_IN: u32 = 20;

/// A client's book, and what became of the ghosts there.
pub(super) struct Client {
    book: Book,
    guards: [RelayId; 3],
    /// What the first guard and other hostile relays show it, if they are: all relays, and ghosts of
    /// which no relay hears.
    hostile: Option<Hostile>,
    turn: usize,
    /// The most ghosts in its view at once, and of these the most that it might have drawn.
    pub(super) known: usize,
    pub(super) selectable: usize,
    /// The honest relays that it might have drawn, at the least.
    pub(super) honest: usize,
}

/// The view of those who are hostile.
pub(super) struct Hostile {
    pub(super) book: Book,
    /// Who may be drawn at random, besides the guard.
    pub(super) others: Vec<RelayId>,
}

impl Client {
    pub(super) fn new(
        network: &Network,
        rows: Vec<BookRow>,
        guards: [RelayId; 3],
        hostile: Option<Hostile>,
        wall: WallTime,
    ) -> Self {
        let mut book = Book::restore(network, rows, wall);
        book.believe_listed_only(network, wall, []);
        let honest = book.view().selectable(network, wall).count();
        Self {
            book,
            guards,
            hostile,
            turn: 0,
            known: 0,
            selectable: 0,
            honest,
        }
    }

    /// A relay has issued its descriptor anew: hostile relays have that, too.
    pub(super) fn tell_hostile(
        &mut self,
        network: &Network,
        wall: WallTime,
        bytes: &[u8],
        rng: &mut ChaCha20Rng,
    ) {
        let (Some(hostile), Ok(descriptor)) = (&mut self.hostile, Unverified::decode(bytes)) else {
            return;
        };
        let _ = hostile.book.hear(network, wall, None, descriptor, rng);
        while hostile.book.poll_op().is_some() {}
    }

    /// Asks the next source: the others all have the `honest` view. Then sees whom it might draw, of
    /// those that are `there` and the ghosts.
    pub(super) fn ask(
        &mut self,
        (network, wall): (&Network, WallTime),
        honest: &Book,
        there: &BTreeSet<RelayId>,
        rng: &mut ChaCha20Rng,
    ) {
        self.book.expire(network, wall, wall);
        let (source, is_hostile) = self.next_source(there, rng);
        let theirs = self.hostile.as_mut().filter(|_| is_hostile);
        let answerer = match theirs {
            Some(hostile) => {
                hostile.book.expire(network, wall, wall);
                &hostile.book
            }
            None => honest,
        };
        reconcile(network, &mut self.book, (source, answerer), wall, rng);
        let is_ghost = |relay: &RelayId| !there.contains(relay);
        let view = self.book.view();
        let known = view.iter().filter(|it| is_ghost(&it.relay)).count();
        let drawn: Vec<RelayId> = view.selectable(network, wall).map(|it| it.relay).collect();
        let ghosts = drawn.iter().filter(|it| is_ghost(it)).count();
        self.known = self.known.max(known);
        self.selectable = self.selectable.max(ghosts);
        self.honest = self.honest.min(drawn.len() - ghosts);
    }

    /// Who is asked next, and whether it is hostile.
    fn next_source(&mut self, there: &BTreeSet<RelayId>, rng: &mut ChaCha20Rng) -> (RelayId, bool) {
        let hostile = self.hostile.as_ref();
        if rng.random_range(0..FAR_IN) > 0 {
            let turn = self.turn % self.guards.len();
            self.turn += 1;
            return (self.guards[turn], turn == 0 && hostile.is_some());
        }
        let others = hostile.map(|it| it.others.as_slice()).unwrap_or_default();
        if !others.is_empty() && rng.random_range(0..HOSTILE_IN) == 0 {
            return (others[rng.random_range(0..others.len())], true);
        }
        let all: Vec<RelayId> = there.iter().copied().collect();
        (all[rng.random_range(0..all.len())], false)
    }
}
