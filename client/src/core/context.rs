//! The surroundings in which every machine of the core acts: time, randomness, what is known of the
//! network, and the queues for effects.
//!
//! Machines read what is known. Only [`Shared`] changes it (`known`), between two calls of
//! machines, so that a machine never sees the view change under it.

use std::collections::VecDeque;

use rand::CryptoRng;
use umbel_proto::cell::Cell;
use umbel_proto::directory::choice::Candidates;
use umbel_proto::directory::{Book, BookRow, NetView};
use umbel_proto::ids::RelayId;
use umbel_proto::link::{LinkId, LinkOp};
use umbel_proto::network::Network;
use umbel_proto::path::Known;
use umbel_proto::time::{ClockGuard, Instant, Moment, WallTime};

use super::HEARTBEAT;
use super::io::{Notice, StoreOp, StoreTicket, Stored, Warning};
use super::known::{CLOCK_STORE_EVERY, Unvouched};

/// State that all machines share.
pub(super) struct Shared {
    pub(super) network: Network,
    pub(super) book: Book,
    /// The user's own relay.
    pub(super) own_relay: Option<RelayId>,
    /// The relays that may be drawn from the view; made anew when it changes.
    pub(super) candidates: Candidates,
    /// Those of them that may become guards.
    pub(super) guard_candidates: Candidates,
    /// [`Book::changes`] when the candidates were made; `None` forces a new look.
    pub(super) candidates_of: Option<u64>,
    /// Whether circuits can be built with the view.
    pub(super) is_ready: bool,
    /// Whether a reconciliation has ended in order since the start, or since the machine slept or
    /// the view was lost: until then it need not have what is younger.
    pub(super) is_view_current: bool,
    /// What the reconciliation in progress brought too early.
    pub(super) unvouched: Unvouched,
    /// How far to believe the calendar.
    pub(super) clock: ClockGuard,
    /// Whether to compare the clock with the peers' clocks again.
    pub(super) is_clock_jumped: bool,
    /// When it is next stored. A client that runs for a moment does not store it: it has little to
    /// record.
    pub(super) clock_stored_at: Instant,
    /// When the view is next looked through for what has expired.
    pub(super) expires_at: Instant,
    pub(super) out: Outgoing,
}

/// Outgoing effects. Bounded by the machines' own limits: windows, active messages, mailboxes.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) stores: VecDeque<(StoreTicket, StoreOp)>,
    pub(super) cells: VecDeque<(LinkId, Cell)>,
    pub(super) links: VecDeque<LinkOp>,
    pub(super) notices: VecDeque<Notice>,
    /// How many entries of their tables machines have looked at.
    pub(super) looks: u64,
    last_ticket: u64,
}

impl Outgoing {
    /// Asks the store, for nobody who waits.
    pub(super) fn store(&mut self, op: StoreOp) {
        self.store_for(Stored::Unawaited, op);
    }

    fn store_for(&mut self, stored: Stored, op: StoreOp) -> StoreTicket {
        self.last_ticket += 1;
        let ticket = StoreTicket::new(self.last_ticket).of(stored);
        self.stores.push_back((ticket, op));
        ticket
    }
}

/// A [`Shared`], borrowed for one call.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) wall: WallTime,
    /// Confirmed time (docs/protocol.md §1.6): whatever is dropped for its age is dropped by it.
    pub(super) confirmed: WallTime,
    /// Whether the calendar is confirmed as it is.
    pub(super) is_clock_sure: bool,
    pub(super) network: &'a Network,
    pub(super) book: &'a Book,
    pub(super) candidates: &'a Candidates,
    pub(super) guard_candidates: &'a Candidates,
    pub(super) is_ready: bool,
    pub(super) is_view_current: bool,
    pub(super) rng: &'a mut dyn CryptoRng,
    pub(super) out: &'a mut Outgoing,
}

impl Shared {
    /// As it was stored; no machine has acted yet.
    pub(super) fn restore(
        network: Network,
        (relays, words): (Vec<BookRow>, Vec<(RelayId, Vec<u8>)>),
        own_relay: Option<RelayId>,
        clock: Option<&[u8]>,
        moment: Moment,
    ) -> Self {
        let Moment { now, wall } = moment;
        let (mut clock, _) = ClockGuard::restore(clock, now, wall);
        let is_start_news = clock.count_start(wall);
        let mut book = Book::restore(&network, relays, wall);
        book.believe_listed_only(&network, wall, words);
        Self {
            book,
            own_relay,
            candidates: Candidates::new([], &network),
            guard_candidates: Candidates::new([], &network),
            candidates_of: None,
            is_ready: false,
            is_view_current: false,
            unvouched: Unvouched::default(),
            clock,
            is_clock_jumped: false,
            clock_stored_at: if is_start_news {
                now
            } else {
                now + CLOCK_STORE_EVERY
            },
            expires_at: now + HEARTBEAT,
            out: Outgoing::default(),
            network,
        }
    }

    /// Leaves the machines free, which are no part of it.
    pub(super) fn context<'a>(
        &'a mut self,
        moment: Moment,
        rng: &'a mut dyn CryptoRng,
    ) -> Context<'a> {
        Context {
            now: moment.now,
            wall: moment.wall,
            confirmed: self.clock.confirmed(),
            is_clock_sure: self.clock.may_delete(),
            network: &self.network,
            book: &self.book,
            candidates: &self.candidates,
            guard_candidates: &self.guard_candidates,
            is_ready: self.is_ready,
            is_view_current: self.is_view_current,
            rng,
            out: &mut self.out,
        }
    }
}

impl<'a> Context<'a> {
    /// The relays that are believed in.
    pub(super) const fn view(&self) -> &'a NetView {
        self.book.view()
    }

    /// What paths are chosen by.
    pub(super) const fn known(&self) -> Known<'a> {
        Known {
            network: self.network,
            view: self.view(),
            candidates: self.candidates,
            guard_candidates: self.guard_candidates,
            now: self.now,
            wall: self.wall,
            confirmed: self.confirmed,
            is_clock_sure: self.is_clock_sure,
            is_view_current: self.is_view_current,
        }
    }

    /// Asks the store, for nobody who waits.
    pub(super) fn store(&mut self, op: StoreOp) {
        self.out.store(op);
    }

    /// Asks the store; `Core::handle_stored` tells the owner of this state what became of it.
    pub(super) fn store_for(&mut self, stored: Stored, op: StoreOp) -> StoreTicket {
        self.out.store_for(stored, op)
    }

    /// A machine looks at an entry of one of its tables.
    pub(super) const fn count_look(&mut self) {
        self.out.looks += 1;
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        self.out.notices.push_back(notice);
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.notify(Notice::Warning(warning));
    }
}
