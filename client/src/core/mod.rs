//! The client's core: everything a client decides, and nothing of the world.
//!
//! From below: `links` · `pool` of `circuit`s, over `proto::path` · `requests`; on top of them the
//! machines: `sync` keeps the view, `inboxes` owns, `contacts` converse, `lookup` and `outbox`
//! (`delivery`) send, `mailbox` visits what is owned, `receive` takes what comes. Each acts with a
//! `Context`, borrowed from what they share.
//! Cells, time, randomness and completions come in; cells, links to make, things to store and
//! notices go out. Rules: docs/protocol.md §4-§10.

mod breakers;
mod catching_up;
mod circuit;
mod contacts;
mod context;
mod delivery;
mod drive;
mod inboxes;
pub mod io;
mod known;
mod links;
mod lookup;
mod mailbox;
mod outbox;
mod pool;
mod receive;
mod requests;
mod saving;
mod suspects;
mod sync;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wake;

use std::collections::BTreeSet;

use rand::CryptoRng;
use umbel_proto::cell::Cell;
use umbel_proto::directory::{NetView, Unverified};
use umbel_proto::ids::{MessageId, Peer, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::link::{LinkId, LinkOp};
use umbel_proto::network::Network;
use umbel_proto::path::Paths;
use umbel_proto::time::{Duration, Instant, Moment, PeerClock, WallTime};

use catching_up::CatchingUp;
use contacts::Contacts;
pub use contacts::STRANGERS_MAX;
use context::{Context, Shared};
pub use inboxes::INBOXES_MAX;
use inboxes::Inboxes;
use io::Stored;
pub use io::{
    Cancelled, Contact, ContactCard, ContactKey, ConversationEvent, Copies, DeferReason, Letter,
    LinkUp, Notice, OutboxEntry, OutboxMessage, Recipient, SendFault, Snapshot, Status, StoreOp,
    StoreTicket, Warning, Wish,
};
use lookup::Lookups;
use mailbox::{Errands, MailboxId, Owner, Visits};
use outbox::Outbox;
pub use outbox::{OUTBOX_HEAD_LEN, new_outbox_state, outbox_has_room, read_outbox_message};
use pool::Pool;
use receive::Receiving;
use requests::Requests;
use sync::Sync;
pub use sync::{FIRST_CONTACT_ACCEPTED, FIRST_CONTACT_DISPUTED};
use wake::Wake;

/// The store gave back other data than was put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotFault {
    /// The guards and L2 relays can't be read.
    Paths,
    /// This inbox can't be read.
    Inbox(String),
    /// This message in the outbox can't be read.
    Outbox(MessageId),
    /// This contact can't be read.
    Contact(ContactKey),
    /// The contacts that were removed can't be read.
    Gone,
}

/// However quiet it is, the clock is looked at this often: epochs end and descriptors expire by it.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// While there are links it is looked this often whether the machine slept: timers may stand still
/// while it does.
const WAKE_LOOK: Duration = Duration::from_secs(5);
/// So long after the machine slept its clock is compared with those of linked relays: by then links
/// that did not outlive the sleep are closed (docs/protocol.md §6.4(12)).
const WAKE_JUDGED_AFTER: Duration = Duration::from_secs(15);

/// A client without a world.
///
/// In by `handle_*`, out by `poll_*`. After each batch of `handle_*` drain in this order:
/// [`Core::poll_store`], [`Core::poll_cell`], [`Core::poll_link`], [`Core::poll_notice`];
/// [`Core::poll_timeout`] last, since everything above may move it.
#[expect(missing_debug_implementations, reason = "holds keys and messages")]
pub struct Core {
    shared: Shared,
    pool: Pool,
    requests: Requests,
    sync: Sync,
    inboxes: Inboxes,
    contacts: Contacts,
    lookups: Lookups,
    outbox: Outbox,
    visits: Visits,
    errands: Errands,
    receiving: Receiving,
    catching_up: CatchingUp,
    /// The machine has slept since the last drive.
    has_woken: bool,
    /// When the clock is compared with those of linked relays, since it has jumped.
    judges_at: Option<Instant>,
    /// When everything that was due was last done.
    driven_at: Moment,
    /// Something that was due then was not done.
    is_behind: bool,
    wake: Wake,
    sent_cells: u64,
    received_cells: u64,
    is_stopped: bool,
}

impl Core {
    /// A client that continues where the snapshot ends. `seeds` are used besides the network's
    /// own; `own_relay`, which the user runs, is never drawn (§6.4(13)). Descriptors that are no longer good are left out, whatever the snapshot holds.
    ///
    /// # Errors
    /// A snapshot that this code did not write.
    pub fn new(
        network: Network,
        seeds: Vec<Peer>,
        own_relay: Option<RelayId>,
        snapshot: Snapshot,
        moment: Moment,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, SnapshotFault> {
        let mut seeds = seeds;
        seeds.extend(network.seeds.iter().cloned());
        let mut paths = match &snapshot.paths {
            Some(state) => Paths::restore(state, own_relay).ok_or(SnapshotFault::Paths)?,
            None => Paths::default(),
        };
        paths.turn_full_vanguards(snapshot.has_full_vanguards);
        let pool = Pool::new(paths, &network.params, moment);
        let clock = snapshot.clock.as_deref();
        let relays = (snapshot.relays, snapshot.relay_words);
        let mut core = Self {
            shared: Shared::restore(network, relays, own_relay, clock, moment),
            pool,
            requests: Requests::default(),
            sync: Sync::new(
                seeds,
                snapshot.first_contact.as_deref(),
                snapshot.lone_source.as_deref(),
            ),
            inboxes: Inboxes::default(),
            contacts: Contacts::default(),
            lookups: Lookups::default(),
            outbox: Outbox::default(),
            visits: Visits::default(),
            errands: Errands::default(),
            receiving: Receiving::default(),
            catching_up: CatchingUp::default(),
            has_woken: false,
            judges_at: None,
            driven_at: moment,
            is_behind: false,
            wake: Wake::new(moment),
            sent_cells: 0,
            received_cells: 0,
            is_stopped: false,
        };
        for (name, state) in snapshot.inboxes {
            core.inboxes.restore(name, &state)?;
        }
        for (key, state) in snapshot.contacts {
            let mut cx = core.shared.context(moment, rng);
            core.contacts.restore(&mut cx, key, &state)?;
        }
        if let Some(state) = &snapshot.gone {
            core.contacts.restore_gone(state)?;
        }
        for (key, id) in snapshot.received_from {
            core.contacts.restore_received(key, id);
        }
        for (id, state) in snapshot.outbox {
            let mut cx = core.shared.context(moment, rng);
            core.outbox.restore(&mut cx, id, &state)?;
        }
        core.outbox.restore_left(snapshot.left);
        for (inbox, id) in snapshot.received {
            if let Some(inbox) = core.inboxes.id(&inbox) {
                core.receiving.restore(inbox, id);
            }
        }
        core.look_at_view(moment);
        if !core.shared.is_ready {
            core.shared.tell_waiting();
        }
        if core.sync.is_disputed() {
            core.shared
                .context(moment, rng)
                .warn(Warning::SeedsDisagree);
        }
        core.drive(moment, rng);
        Ok(core)
    }

    /// Does what the user wants.
    pub fn handle_wish(&mut self, moment: Moment, wish: Wish, rng: &mut dyn CryptoRng) {
        self.look_awake(moment, rng);
        let mut cx = self.shared.context(moment, rng);
        if !matches!(wish, Wish::Stop | Wish::Cancel(_) | Wish::Adopt { .. }) {
            self.pool.links.restart_outage(&mut cx);
            self.sync.hasten(&cx);
        }
        match wish {
            Wish::Send { id, to, body, life } => self.outbox.send(&mut cx, id, to, body, life),
            Wish::Cancel(id) => self.outbox.cancel(&mut cx, &mut self.requests, id),
            Wish::Flush => self.outbox.flush(&mut cx),
            // An entry that can't be read stays where it is, and the next client reports it.
            Wish::Adopt { id, state } => drop(self.outbox.adopt(&mut cx, id, &state).err()),
            Wish::CreateInbox { name } => self.inboxes.create(&mut cx, name),
            Wish::Listen {
                name,
                is_interactive,
            } => {
                // The shell names inboxes that are there; for another there is nothing to fetch.
                if let Some(inbox) = self.inboxes.id(&name) {
                    self.inboxes.report(inbox);
                    self.listen(moment, Some(inbox), is_interactive);
                }
            }
            Wish::ListenForAnswers { is_interactive } => {
                self.listen(moment, None, is_interactive);
            }
            Wish::Block {
                contact,
                is_blocked,
            } => self.contacts.set_blocked(&cx, contact, is_blocked),
            Wish::RemoveContact(contact) => self.remove_contact(moment, contact, rng),
            Wish::Seeds(mut seeds) => {
                seeds.extend(self.shared.network.seeds.iter().cloned());
                self.sync.set_seeds(moment.now, seeds);
            }
            Wish::Stop => {
                self.is_stopped = true;
                self.outbox.stop(&mut cx);
                self.inboxes.stop(&mut cx);
                self.requests.clear();
                self.pool.stop(&mut cx);
            }
        }
        self.drive(moment, rng);
    }

    fn remove_contact(&mut self, moment: Moment, contact: ContactKey, rng: &mut dyn CryptoRng) {
        let mut cx = self.shared.context(moment, rng);
        self.outbox
            .cancel_all_to(&mut cx, &mut self.requests, contact);
        let removed = self.contacts.remove(&mut cx, contact, &mut self.visits);
        let Some((id, mailboxes)) = removed else {
            return;
        };
        let owner = Owner::Contact(id);
        self.visits.leave(owner);
        self.catching_up.leave(owner);
        for own in mailboxes.all().iter().filter(|own| own.is_created) {
            let queue = own.queue;
            self.errands
                .forget(&mut cx, MailboxId { owner, queue }, own);
        }
    }

    /// A link asked for with [`LinkOp::Dial`] is up, its versions negotiated.
    pub fn handle_link_up(&mut self, moment: Moment, up: LinkUp<'_>, rng: &mut dyn CryptoRng) {
        let LinkUp {
            link,
            relay,
            remote,
            hello,
        } = up;
        self.look_awake(moment, rng);
        self.look_at_clock(moment);
        let was_cut_off = self.pool.guard_in_use().is_none();
        let shown = Unverified::shown_by(&relay, hello.descriptor.as_deref()); // §2.4(6)
        let target =
            shown.and_then(|descriptor| self.shared.learn_shown(moment.wall, descriptor, rng));
        if target.is_some() {
            self.look_at_view(moment);
        }
        let mut cx = self.shared.context(moment, rng);
        if self.is_stopped {
            cx.out.links.push_back(LinkOp::Close(link));
            return;
        }
        self.pool.handle_link_up(
            &mut cx,
            link,
            relay,
            target,
            PeerClock::said(moment.now, hello.clock),
        );
        self.pool.links.handle_remote(link, remote);
        self.sync.on_link_up(moment.now);
        self.drive(moment, rng);
        if was_cut_off && self.pool.guard_in_use().is_some() {
            self.outbox.flush(&mut self.shared.context(moment, rng));
            self.drive(moment, rng);
        }
    }

    /// A link is gone.
    pub fn handle_link_down(&mut self, moment: Moment, link: LinkId, rng: &mut dyn CryptoRng) {
        self.look_awake(moment, rng);
        let mut cx = self.shared.context(moment, rng);
        self.pool.handle_link_down(&mut cx, link);
        self.sync.on_link_lost(moment.now);
        self.drive(moment, rng);
    }

    /// A link's peer is silent for longer than its padding or keepalives allow.
    pub fn handle_link_quiet(&mut self, moment: Moment, link: LinkId, rng: &mut dyn CryptoRng) {
        self.look_awake(moment, rng);
        let mut cx = self.shared.context(moment, rng);
        self.pool.handle_link_quiet(&mut cx, link);
        self.drive(moment, rng);
    }

    /// A link asked for with [`LinkOp::Dial`] can't be made.
    pub fn handle_dial_failed(&mut self, moment: Moment, relay: RelayId, rng: &mut dyn CryptoRng) {
        self.look_awake(moment, rng);
        let mut cx = self.shared.context(moment, rng);
        self.pool.handle_dial_failed(&mut cx, relay);
        self.sync.on_link_lost(moment.now);
        self.drive(moment, rng);
        if self.pool.links.is_cut_off() && !self.is_stopped {
            self.shared.out.notices.push_back(Notice::Unreachable);
        }
    }

    /// A cell came, other than `Hello` and `Padding`, which the shell keeps to itself.
    pub fn handle_cell(
        &mut self,
        moment: Moment,
        link: LinkId,
        cell: Cell,
        rng: &mut dyn CryptoRng,
    ) {
        self.look_awake(moment, rng);
        self.received_cells += 1;
        let mut cx = self.shared.context(moment, rng);
        self.pool.handle_cell(&mut cx, link, cell);
        self.drive(moment, rng);
    }

    /// The store did, or could not do, what [`Core::poll_store`] asked for under this ticket.
    pub fn handle_stored(
        &mut self,
        moment: Moment,
        ticket: StoreTicket,
        is_stored: bool,
        rng: &mut dyn CryptoRng,
    ) {
        self.look_awake(moment, rng);
        let mut cx = self.shared.context(moment, rng);
        match ticket.stored {
            Stored::Unawaited => {}
            Stored::Message(inbox, id) => {
                let (inboxes, visits) = (&self.inboxes, &mut self.visits);
                self.receiving
                    .on_stored(&mut cx, inboxes, visits, (inbox, id), is_stored);
                if is_stored {
                    self.catching_up.on_news(Owner::Inbox(inbox));
                }
            }
            Stored::Outbox(id) => self.outbox.on_stored(&mut cx, id, ticket, is_stored),
            Stored::Inbox(id) => self.inboxes.on_stored(&cx, id, ticket, is_stored),
            Stored::Contact(id, changes) => {
                let visits = &mut self.visits;
                let of = (id, changes);
                let has_news = self.contacts.on_stored(&mut cx, visits, of, is_stored);
                has_news
                    .into_iter()
                    .for_each(|it| self.catching_up.on_news(it));
            }
        }
        self.drive(moment, rng);
    }

    /// Does what is due by then; spurious calls do nothing.
    pub fn handle_timeout(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        self.look_awake(moment, rng);
        self.drive(moment, rng);
    }

    /// Something to store.
    pub fn poll_store(&mut self) -> Option<(StoreTicket, StoreOp)> {
        self.shared.out.stores.pop_front()
    }

    /// A cell to send.
    pub fn poll_cell(&mut self) -> Option<(LinkId, Cell)> {
        let cell = self.shared.out.cells.pop_front()?;
        self.sent_cells += 1;
        Some(cell)
    }

    /// A link to make or close.
    pub fn poll_link(&mut self) -> Option<LinkOp> {
        self.shared.out.links.pop_front()
    }

    /// The next notice for the user.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.shared.out.notices.pop_front()
    }

    /// When to call [`Core::handle_timeout`] at the latest. `None` once stopped.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_stopped {
            return None;
        }
        // Earlier due steps were done then, or wait for an event.
        let after = self.driven_at.now;
        if self.is_behind {
            return Some(after);
        }
        let soonest = [
            self.pool.timeout(after, &self.shared.network.params),
            self.requests.timeout(after),
            self.sync.timeout(after, &self.pool),
            self.inboxes.timeout(after),
            self.contacts.timeout(),
            self.lookups.timeout(),
            self.outbox.timeout(after),
            self.visits.timeout(),
            self.errands.timeout(),
            self.judges_at,
        ];
        let look_at = after
            + if self.pool.links.ids().is_empty() {
                HEARTBEAT
            } else {
                WAKE_LOOK
            };
        Some(soonest.into_iter().flatten().fold(look_at, Instant::min))
    }

    /// By how much the calendar is ahead of confirmed time (docs/protocol.md §1.6); `None` where no
    /// time was ever confirmed.
    pub(crate) fn unconfirmed(&self) -> Option<Duration> {
        self.shared.clock.unconfirmed()
    }

    /// The status that `umbel status` shows.
    pub fn status(&self) -> Status {
        Status {
            relays: self.shared.book.view().len(),
            in_doubt: self.shared.book.view().doubted_count(),
            contact: self.contact(),
            guard: self.pool.guard_in_use().map(|(relay, _)| relay),
            guards: self.pool.guard_count(),
            seeds_disagree: self.sync.is_disputed(),
            guards_set_aside: self.pool.paths.guards.set_aside_count(),
            do_guards_hide: self.sync.are_guards_hiding(),
            seeds_elsewhere: self.sync.seeds_elsewhere(),
            l2_set_aside: self.pool.paths.layer2.set_aside_count(),
            has_full_vanguards: self.pool.paths.layer3.is_on(),
            circuits: self.pool.built_count(),
            outbox: self
                .outbox
                .list(&self.shared.network.params, self.driven_at),
            inboxes: self.inboxes.list(),
            sent_cells: self.sent_cells,
            received_cells: self.received_cells,
        }
    }

    fn contact(&self) -> Contact {
        let links = &self.pool.links;
        let guard = self.pool.guard_in_use().map(|(_, link)| link);
        match links.up_since(guard) {
            Some((relay, since)) => {
                let age = self.driven_at.now.since(since);
                Contact::Reached {
                    relay,
                    since: WallTime(self.driven_at.wall.as_secs().saturating_sub(age.as_secs())),
                }
            }
            None if links.is_dialling() => Contact::Trying,
            None if links.has_failed() => Contact::NoAnswer,
            None => Contact::NotTried,
        }
    }

    /// The last notice of each of the last messages that left the outbox, oldest first: `Held`,
    /// `Expired`, `Cancelled` or `Failed`.
    pub fn left(&self) -> Vec<Notice> {
        self.outbox.left().cloned().collect()
    }

    /// Whether this message is in the outbox.
    pub fn is_outgoing(&self, id: MessageId) -> bool {
        self.outbox.contains(id)
    }

    /// The address of one of the own inboxes.
    pub fn inbox_address(&self, name: &str) -> Option<InboxAddress> {
        self.inboxes.address(name)
    }

    /// The relays that hold mailboxes of own inboxes, and of contacts.
    pub fn holders(&self) -> (BTreeSet<RelayId>, BTreeSet<RelayId>) {
        let (inboxes, contacts) = (self.inboxes.holders(), self.contacts.holders());
        (inboxes.collect(), contacts.collect())
    }

    /// How many circuits were destroyed here because a rule was broken on them.
    pub const fn violation_count(&self) -> u64 {
        self.pool.violation_count()
    }

    /// How many cells came under ids that name no circuit (§4.4(3)).
    pub const fn stale_count(&self) -> u64 {
        self.pool.stale_count()
    }

    /// How many entries of their tables the machines of mailboxes have looked at, since the start: what
    /// inputs cost, however fast the computer.
    pub const fn look_count(&self) -> u64 {
        self.shared.out.looks
    }

    /// The relays this client knows.
    pub const fn view(&self) -> &NetView {
        self.shared.book.view()
    }

    fn look_at_clock(&mut self, moment: Moment) {
        let links = &self.pool.links;
        let clocks = links.clocks_agreeing(moment, &self.shared.network.params);
        if let Some(is_right) = self.shared.look_at_clock(moment, clocks) {
            self.outbox.judge_clock(moment, is_right);
        }
    }

    /// After the book changed, or a reconciliation ended: continues whatever waited for a view.
    fn look_at_view(&mut self, moment: Moment) {
        let is_whole =
            !self.sync.is_running() && !self.sync.is_disputed() && !self.sync.is_alone(moment.now);
        if self.shared.look_at_view(moment.wall, is_whole) {
            // The descriptors are dead, while the relays need not be.
            self.sync.on_view_lost();
            self.shared.tell_waiting();
        }
    }

    /// Before anything else: notices that the machine slept.
    fn look_awake(&mut self, moment: Moment, rng: &mut dyn CryptoRng) {
        let due_at = self
            .wake
            .is_gap(moment.now)
            .then(|| self.poll_timeout())
            .flatten();
        if !self.wake.has_slept(moment, due_at) || self.is_stopped {
            return;
        }
        tracing::debug!("the machine slept: links are tried out");
        self.shared.is_view_current = false;
        self.has_woken = true;
        let mut cx = self.shared.context(moment, rng);
        self.pool.handle_wake(&mut cx);
        self.requests.handle_wake(&cx);
    }
}
