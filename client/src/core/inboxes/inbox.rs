//! One own inbox: its keys, its mailboxes, and when its descriptor changes (docs/protocol.md §9,
//! §10).
//!
//! Decides when the descriptor is published, and what the user hears. Its mailboxes are drawn, made
//! and replaced in `mailboxes`.

mod mailboxes;

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::ids::{QueueId, RelayId};
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::{InboxDescriptor, Mailbox};
use umbel_proto::inbox::record::SealSecret;
use umbel_proto::time::{Duration, Instant, WallTime};
use umbel_proto::wire;
use zeroize::Zeroizing;

use super::super::chance::between;
use super::super::context::Context;
use super::super::io::{Notice, StoreOp, Warning};
use super::super::lookup::Lookups;
use super::super::path::Paths;
use super::super::publish::Publication;
use super::super::requests::Requests;
use super::super::saving::Saving;
use super::rival::{self, Rival};
use super::stored::{self, InboxState, OwnMailbox};
use mailboxes::Health;
pub(in crate::core) use mailboxes::draw_holder;

/// Positions that have not answered for so long, while most have, are not waited for.
const SLOW_POSITIONS: Duration = Duration::from_secs(2);
/// How long to wait for more than half of them: if others are broken, a sender that asks some still
/// finds the inbox.
const FEW_POSITIONS: Duration = Duration::from_secs(10);
/// How long an inbox that was just made comes before all else.
const AWAITED_MAX: Duration = Duration::from_secs(60);
/// The descriptor was never published.
const NEVER: WallTime = WallTime(0);
/// The descriptor was published, and has to be again at once.
const OUTDATED: WallTime = WallTime(1);

pub(super) struct Inbox {
    pub(super) identity: InboxIdentity,
    pub(super) seal: SealSecret,
    pub(super) revision: u64,
    /// The revision is one of this run, which has published nothing before it.
    is_revised: bool,
    published_until: WallTime,
    /// Somebody receives for it in this run: its descriptor shows whether another copy does too.
    pub(super) is_in_use: bool,
    pub(super) mailboxes: Vec<OwnMailbox>,
    /// The state of each mailbox since the client started.
    health: BTreeMap<QueueId, Health>,
    /// Relays that made no mailbox in this run, though they were asked often enough.
    refusing: BTreeSet<RelayId>,
    pub(super) saving: Saving,
    pub(super) publication: Publication,
    /// When the descriptor goes out though mailboxes are missing.
    settles_at: Option<Instant>,
    /// When to report this as ready though some positions have not answered.
    tells_at: Option<Instant>,
    /// Whether this was reported as ready.
    pub(super) is_told: bool,
    /// When the user asked for it, if that was since the client started.
    pub(super) asked_at: Option<Instant>,
    /// Whether a warning said that a mailbox is being replaced, and none yet that it was.
    is_mending_told: bool,
    pub(super) rival: Rival,
}

impl Inbox {
    pub(super) fn generate(cx: &mut Context<'_>) -> Self {
        Self {
            identity: InboxIdentity::generate(cx.rng),
            seal: SealSecret::generate(cx.rng),
            revision: 0,
            is_revised: true,
            published_until: NEVER,
            is_in_use: true,
            mailboxes: Vec::new(),
            health: BTreeMap::new(),
            refusing: BTreeSet::new(),
            saving: Saving::Due(cx.now),
            publication: Publication::default(),
            settles_at: None,
            tells_at: None,
            is_told: false,
            asked_at: Some(cx.now),
            is_mending_told: false,
            rival: Rival::default(),
        }
    }

    pub(super) fn restore(state: &InboxState) -> Self {
        Self {
            identity: InboxIdentity::from_seed(&state.identity_seed),
            seal: SealSecret::from_seed(&state.seal_seed),
            revision: state.revision,
            is_revised: false,
            published_until: state.published_until,
            is_in_use: false,
            mailboxes: state.mailboxes.clone(),
            health: BTreeMap::new(),
            refusing: BTreeSet::new(),
            saving: Saving::Saved,
            publication: Publication::default(),
            settles_at: Some(Instant::default()),
            tells_at: None,
            is_told: false,
            asked_at: None,
            is_mending_told: false,
            rival: Rival::default(),
        }
    }

    /// The mailboxes that the descriptor names.
    pub(super) fn created(&self) -> impl Iterator<Item = &OwnMailbox> {
        self.mailboxes
            .iter()
            .filter(|mailbox| mailbox.is_created && mailbox.retired_at.is_none())
    }

    /// Whether someone waits until it takes mail: for a while what it asks comes before all else.
    fn is_awaited(&self, now: Instant) -> bool {
        !self.is_told && self.asked_at.is_some_and(|at| at + AWAITED_MAX > now)
    }

    pub(super) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        paths: &Paths,
        name: &str,
    ) {
        if cx.is_ready {
            self.plan(cx, paths);
        }
        self.forget_retired(cx);
        self.tell_if_mending(cx, name);
        self.save_if_due(cx, name);
        // Nothing leaves this client before it is durable here.
        if self.saving != Saving::Saved || !cx.is_ready {
            return;
        }
        self.create_missing(cx, requests, name);
        if self.is_settled(cx) && (self.is_revised || self.has_to_publish(cx)) {
            if !self.is_revised {
                // It is sealed anew: one revision never has two forms.
                return self.change(cx);
            }
            let descriptor = self.descriptor();
            let is_awaited = self.is_awaited(cx.now);
            self.publication
                .drive(cx, requests, name, &self.identity, &descriptor, is_awaited);
            self.tell_if_ready(cx, name);
            self.save_if_due(cx, name);
        }
    }

    fn save_if_due(&mut self, cx: &mut Context<'_>, name: &str) {
        if let Saving::Due(at) = self.saving
            && at <= cx.now
        {
            self.saving = Saving::Storing(cx.store(StoreOp::PutInbox {
                name: name.to_owned(),
                state: self.state(),
            }));
        }
    }

    /// Whether its descriptor was ever published: until then nobody can find it.
    pub(super) fn is_published(&self) -> bool {
        self.published_until != NEVER
    }

    /// Whether this run has to publish the descriptor, which one before it has published.
    fn has_to_publish(&self, cx: &Context<'_>) -> bool {
        let latest = cx.wall + cx.network.params.inbox_republish.saturating_mul(2);
        self.is_in_use
            || self.is_awaited(cx.now)
            || self.published_until <= cx.wall
            || self.published_until > latest
    }

    /// Whether the descriptor may go out: all mailboxes are there, or some are and the others take
    /// their time.
    fn is_settled(&self, cx: &Context<'_>) -> bool {
        let count = self.created().count();
        count > 0
            && (count >= cx.network.params.mailboxes
                || self.settles_at.is_none_or(|at| at <= cx.now))
    }

    fn descriptor(&self) -> InboxDescriptor {
        let to_public = |mailbox: &OwnMailbox| Mailbox {
            relay: mailbox.relay,
            queue: mailbox.queue,
            sender_seed: mailbox.sender_seed,
        };
        InboxDescriptor {
            revision: self.revision,
            seal_key: self.seal.public(),
            mailboxes: self.created().map(to_public).collect(),
            puzzle_effort: 0,
        }
    }

    /// Says that the inbox takes mail: once all positions have the descriptor, or more than half of
    /// them and the others are slow, or some and the others are broken. The user who waits
    /// for it may stop the client, and then nothing more is published for a while.
    fn tell_if_ready(&mut self, cx: &mut Context<'_>, name: &str) {
        let (positions, all) = self.publication.progress(cx.wall.epoch(), self.revision);
        if self.is_told || self.is_mending(cx.now) || positions == 0 {
            return;
        }
        let patience = if positions * 2 > all {
            SLOW_POSITIONS
        } else {
            FEW_POSITIONS
        };
        let tells_at = self
            .tells_at
            .map_or(cx.now + patience, |at| at.min(cx.now + patience));
        self.tells_at = Some(tells_at);
        if positions == all || tells_at <= cx.now {
            self.is_told = true;
            self.is_mending_told = false;
            self.tells_at = None;
            if !self.is_published() {
                // Some positions have it, and the next run publishes to the others.
                self.published_until = OUTDATED;
                self.touch(cx);
            }
            let mailboxes = self.created().count();
            cx.notify(Notice::InboxReady {
                name: name.to_owned(),
                mailboxes,
                positions,
            });
        }
    }

    /// Once most positions have the descriptor the next run need not publish it, for a while.
    pub(super) fn look_whether_published(&mut self, cx: &mut Context<'_>) {
        if self.publication.is_complete(self.revision) && self.published_until <= cx.wall {
            let every = cx.network.params.inbox_republish;
            self.published_until = cx.wall + between(every * 3 / 4, every * 5 / 4, cx.rng);
            self.touch(cx);
        }
    }

    /// Whether a mailbox is missing, or is to take the place of another. An inbox that was just
    /// made may go out without all.
    fn is_mending(&self, now: Instant) -> bool {
        let is_new = self.is_awaited(now);
        self.mailboxes
            .iter()
            .any(|mailbox| !mailbox.is_created && (mailbox.replaces.is_some() || !is_new))
    }

    /// Says that a mailbox is being made: a user who stops the client now leaves that to the next.
    fn tell_if_mending(&mut self, cx: &mut Context<'_>, name: &str) {
        if self.is_mending(cx.now) && !self.is_mending_told {
            self.is_mending_told = true;
            self.is_told = false;
            cx.notify(Notice::Mending {
                inbox: name.to_owned(),
            });
        }
    }

    /// Looks whether another copy of this inbox publishes too, and overtakes it: the mailboxes here
    /// are those we read.
    pub(super) fn look_for_rival(
        &mut self,
        cx: &mut Context<'_>,
        lookups: &mut Lookups,
        requests: &mut Requests,
        name: &str,
    ) {
        let address = *self.identity.address();
        let Some(found) = self.rival.look(cx, lookups, requests, &address) else {
            return;
        };
        let (positions, _) = self.publication.progress(cx.wall.epoch(), self.revision);
        let is_published = positions > 0 || !self.is_revised;
        let is_ours = found < self.revision || (found == self.revision && is_published);
        if is_ours {
            return;
        }
        self.tell_rival(cx, name);
        if self.rival.may_overtake(cx.now) {
            self.revision = rival::revision_to_pass(cx, self.revision, found);
            self.change(cx);
        }
    }

    pub(super) fn tell_rival(&mut self, cx: &mut Context<'_>, name: &str) {
        if self.rival.is_news() {
            cx.warn(Warning::OtherCopy {
                inbox: name.to_owned(),
            });
        }
    }

    /// The descriptor's contents changed.
    fn change(&mut self, cx: &Context<'_>) {
        self.revision = self.revision.saturating_add(1);
        self.is_revised = true;
        if self.is_published() {
            self.published_until = OUTDATED;
        }
        self.touch(cx);
    }

    /// The state to store changed.
    fn touch(&mut self, cx: &Context<'_>) {
        self.saving = Saving::Due(cx.now);
    }

    fn state(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(wire::encode(&InboxState {
            version: stored::VERSION,
            identity_seed: *self.identity.seed(),
            seal_seed: *self.seal.seed(),
            revision: self.revision,
            mailboxes: self.mailboxes.clone(),
            published_until: self.published_until,
        }))
    }

    /// When there is something to do, past moments included.
    pub(super) fn timeouts(&self) -> impl Iterator<Item = Instant> {
        let save = if let Saving::Due(at) = self.saving {
            Some(at)
        } else {
            None
        };
        let uncreated = self.mailboxes.iter().filter(|mailbox| !mailbox.is_created);
        let creates = uncreated.filter_map(|mailbox| self.health.get(&mailbox.queue));
        let creates = creates
            .filter(|health| !health.is_asked)
            .map(|health| health.backoff.retry_at());
        let posts = self.publication.timeouts(self.revision);
        save.into_iter()
            .chain(creates)
            .chain(posts)
            .chain(self.settles_at)
            .chain(self.tells_at)
            .chain(self.rival.timeout())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::network::Network;
    use umbel_proto::time::Moment;

    use super::super::super::testing::{When, id, surroundings};
    use super::*;

    #[test] // §6.4(14)
    fn own_holders_are_apart_from_guards_and_l2() {
        let planned = |relays: &[u8]| {
            let plan = |cx: &mut Context<'_>| {
                let mut paths = Paths::restore(None, None).expect("a new client");
                paths.refresh(cx);
                let mut inbox = Inbox::generate(cx);
                inbox.plan(cx, &paths);
                let is_kept = |mailbox: &OwnMailbox| paths.kept().any(|it| it == mailbox.relay);
                let near = inbox.mailboxes.iter().filter(|it| is_kept(it)).count();
                (inbox.mailboxes.len(), near)
            };
            When::at(WallTime(1_790_000_000))
                .act_knowing(relays, |cx| (0..20).map(|_| plan(cx)).collect::<Vec<_>>())
                .0
        };
        let relays: Vec<u8> = (0..12).collect();
        assert_eq!(planned(&relays), [(3, 0); 20]);
        let few = planned(&relays[..8]);
        assert_eq!(few, [(3, 2); 20], "of eight relays seven are guards or L2");
    }

    #[test] // §6.4(14)
    fn guards_and_l2_are_drawn_apart_from_own_holders() {
        let relays: Vec<u8> = (0..12).collect();
        let holders = [id(1), id(2), id(3), id(4)];
        let draw = |cx: &mut Context<'_>| {
            let mut paths = Paths::restore(None, None).expect("a new client");
            paths.avoid_holders(holders.into_iter());
            paths.refresh(cx);
            assert_eq!(paths.kept().count(), 7);
            paths.kept().any(|relay| holders.contains(&relay))
        };
        let (is_any, _) =
            When::at(WallTime(1_790_000_000)).act_knowing(&relays, |cx| (0..20).any(|_| draw(cx)));
        assert!(!is_any);
    }

    #[test] // §9.4
    fn an_inbox_is_unpublished_until_it_was_published_once() {
        let mut shared = surroundings(Network::local(), WallTime(1_790_000_000));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let moment = Moment {
            now: Instant::default(),
            wall: WallTime(1_790_000_000),
        };
        let mut cx = shared.context(moment, &mut rng);
        let restored = |inbox: &Inbox| {
            let state = InboxState::decode(&inbox.state()).expect("it decodes");
            Inbox::restore(&state).is_published()
        };
        let mut inbox = Inbox::generate(&mut cx);
        inbox.change(&cx);
        assert!(!inbox.is_published() && !restored(&inbox));
        inbox.published_until = cx.wall + cx.network.params.inbox_republish;
        inbox.change(&cx);
        assert!(
            inbox.is_published() && restored(&inbox),
            "an older revision is out"
        );
        assert!(
            inbox.published_until <= cx.wall,
            "this one is published at once"
        );
    }
}
