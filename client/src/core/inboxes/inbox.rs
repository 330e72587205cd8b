//! One own inbox: its keys, its mailboxes, and when its descriptor changes (docs/protocol.md §9,
//! §10).
//!
//! Decides when the descriptor is published, and what the user hears. It has `Mailboxes`, and names
//! those in its descriptor that senders are to be told of.

mod effort;
mod seals;

use umbel_proto::chance::exponential;
use umbel_proto::ids::{QueueId, RelayId};
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::{InboxDescriptor, Mailbox};
use umbel_proto::inbox::record::{Opened, RecordFault};
use umbel_proto::path::Paths;
use umbel_proto::time::{Duration, Epoch, Instant, WallTime};
use umbel_proto::wire;
use zeroize::Zeroizing;

use super::super::context::Context;
use super::super::io::{Notice, StoreOp, Stored, Warning};
use super::super::lookup::Lookups;
use super::super::mailbox::{Change, Mailboxes, Outcome, OwnMailbox, Owner};
use super::super::requests::{Answer, Requests};
use super::super::saving::Saving;
use super::InboxId;
use super::publish::{Posted, Publications, Turn};
use super::rival::Rival;
use super::sight::{Missing, Seen, Sight};
use super::stored::{self, InboxState};
use effort::Effort;
pub(super) use effort::EffortState;
use seals::SealKeys;

/// Positions that have not answered for so long, while most have, are not waited for.
const SLOW_POSITIONS: Duration = Duration::from_secs(2);
/// How long to wait for more than half of them: if others are broken, a sender that asks some still
/// finds the inbox.
const FEW_POSITIONS: Duration = Duration::from_secs(10);
/// How long after the first mailbox is there the others are waited for before the descriptor goes
/// out without them.
const SETTLE: Duration = Duration::from_secs(5);
/// How long an inbox that was just made comes before all else.
const AWAITED_MAX: Duration = Duration::from_secs(60);
/// How long after it was made its positions may change as the view fills up: each gets the
/// descriptor at once.
const NEW_FOR: Duration = Duration::from_secs(600);

pub(super) struct Inbox {
    id: InboxId,
    /// Its owner's name for it.
    pub(super) name: String,
    pub(super) identity: InboxIdentity,
    seals: SealKeys,
    /// Its descriptor was published, ever: until then nobody can find it.
    is_published: bool,
    /// Until when the client publishes nothing more of its own accord, for the sake of what it
    /// published of this inbox.
    pub(super) rests_until: WallTime,
    pub(super) mailboxes: Mailboxes,
    pub(super) saving: Saving,
    pub(super) publications: Publications,
    /// When the descriptor goes out though mailboxes are missing.
    settles_at: Option<Instant>,
    /// When to report this as ready though some positions have not answered.
    tells_at: Option<Instant>,
    /// Whether this was reported as ready.
    pub(super) is_told: bool,
    /// When it was made, if that was since the client started.
    made_at: Option<Instant>,
    /// When the user asked for it, if that was since the client started.
    pub(super) asked_at: Option<Instant>,
    /// Whether a warning said that a mailbox is being replaced, and none yet that it was.
    is_mending_told: bool,
    rival: Rival,
    pub(super) sight: Sight,
    effort: Effort,
}

impl Inbox {
    pub(super) fn generate(cx: &mut Context<'_>, id: InboxId, name: String) -> Self {
        Self {
            id,
            name,
            identity: InboxIdentity::generate(cx.rng),
            seals: SealKeys::generate(cx.wall, cx.rng),
            is_published: false,
            rests_until: WallTime(0),
            mailboxes: Mailboxes::default(),
            saving: Saving::Due(cx.now),
            publications: Publications::default(),
            settles_at: None,
            tells_at: None,
            is_told: false,
            made_at: Some(cx.now),
            asked_at: Some(cx.now),
            is_mending_told: false,
            rival: Rival::default(),
            sight: Sight::new(cx),
            effort: Effort::default(),
        }
    }

    pub(super) fn restore(id: InboxId, name: String, state: &InboxState) -> Self {
        Self {
            id,
            name,
            identity: InboxIdentity::from_seed(&state.identity_seed),
            seals: SealKeys::restore(&state.seals),
            is_published: state.is_published,
            rests_until: state.rests_until,
            mailboxes: Mailboxes::restore(state.mailboxes.clone()),
            saving: Saving::Saved,
            publications: Publications::restore(&state.publications),
            settles_at: Some(Instant::default()),
            tells_at: None,
            is_told: false,
            made_at: None,
            asked_at: None,
            is_mending_told: false,
            rival: Rival::default(),
            sight: Sight::restore(state.sight.clone()),
            effort: Effort::restore(state.effort.clone(), Instant::default()),
        }
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
        rest_mean: Duration,
    ) {
        if cx.is_ready {
            let wanted = cx.network.params.mailboxes;
            while let Some(change) = self.mailboxes.mend(cx, paths, wanted) {
                self.on_change(cx, change);
            }
        }
        if let Some(change) = self.mailboxes.forget_retired(cx) {
            self.on_change(cx, change);
        }
        self.turn_seal_keys(cx);
        if self.effort.drive(cx) {
            self.change(cx);
        }
        self.tell_if_mending(cx);
        self.save_if_due(cx);
        // Nothing leaves this client before it is durable here.
        if self.saving != Saving::Saved || !cx.is_ready {
            return;
        }
        let is_awaited = self.is_awaited(cx.now);
        self.mailboxes
            .create_missing(cx, requests, Owner::Inbox(self.id), is_awaited);
        if self.is_settled(cx) {
            self.publish(cx, requests, rest_mean);
        }
        self.save_if_due(cx);
    }

    /// Its mailboxes changed.
    fn on_change(&mut self, cx: &mut Context<'_>, change: Change) {
        match change {
            Change::State => self.touch(cx),
            Change::Listed => self.change(cx),
            Change::Replaced => {
                self.change(cx);
                cx.warn(Warning::MailboxReplaced {
                    inbox: self.name.clone(),
                });
            }
        }
    }

    /// A holder made a mailbox, or did not.
    pub(super) fn on_created(&mut self, cx: &mut Context<'_>, queue: QueueId, answer: &Answer) {
        let Some(change) = self.mailboxes.on_created(cx, queue, answer) else {
            return;
        };
        if change == Change::Listed {
            self.settles_at.get_or_insert(cx.now + SETTLE);
        }
        self.on_change(cx, change);
    }

    /// A mailbox was visited.
    pub(super) fn on_outcome(&mut self, cx: &mut Context<'_>, queue: QueueId, outcome: Outcome) {
        if let Some(change) = self.mailboxes.on_outcome(cx, queue, outcome) {
            self.on_change(cx, change);
        }
    }

    /// Posts what is due. A new revision is stored first.
    fn publish(&mut self, cx: &mut Context<'_>, requests: &mut Requests, rest_mean: Duration) {
        let is_new = self.made_at.is_some_and(|at| at + NEW_FOR > cx.now);
        let is_awaited = self.is_awaited(cx.now);
        let is_urgent = is_awaited || !self.is_published;
        let publications = &mut self.publications;
        publications.work_out(cx, &self.identity, self.is_published, is_new);
        if publications.begin_hasty(cx, is_new, is_awaited, is_urgent) {
            return self.rest(cx, rest_mean);
        }
        let (seals, mailboxes) = (&self.seals, &self.mailboxes);
        let effort = self.effort.in_descriptor();
        let contents = |epoch| contents(seals, mailboxes, effort, epoch);
        let publications = &mut self.publications;
        if publications.post(cx, requests, self.id, &self.identity, contents, is_awaited) {
            self.touch(cx);
        }
        self.tell_if_ready(cx);
    }

    /// The descriptor that waits for its turn for longest of those that may go, if there is one.
    pub(super) fn due(&self, cx: &Context<'_>, may_go: impl Fn(&Turn) -> bool) -> Option<Turn> {
        let may_publish = self.saving == Saving::Saved && self.is_settled(cx);
        may_publish
            .then(|| self.publications.due(cx, may_go))
            .flatten()
    }

    /// Begins to publish this epoch's descriptor, since it is its turn.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        epoch: Epoch,
        is_hasty: bool,
        rest_mean: Duration,
    ) {
        self.publications.begin(cx, epoch, is_hasty);
        self.rest(cx, rest_mean);
    }

    /// The client has begun to publish, and no other turn comes for a while.
    fn rest(&mut self, cx: &mut Context<'_>, mean: Duration) {
        self.rests_until = cx.wall + exponential(mean, cx.rng);
        self.touch(cx);
    }

    fn save_if_due(&mut self, cx: &mut Context<'_>) {
        if let Saving::Due(at) = self.saving
            && at <= cx.now
        {
            let op = StoreOp::PutInbox {
                name: self.name.clone(),
                state: self.state(),
            };
            self.saving = Saving::Storing(cx.store_for(Stored::Inbox(self.id), op));
        }
    }

    /// The client ends.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        if self.publications.stop(cx) {
            self.touch(cx);
            self.save_if_due(cx);
        }
    }

    /// Whether its descriptor was ever published: until then nobody can find it.
    pub(super) const fn is_published(&self) -> bool {
        self.is_published
    }

    /// Whether the descriptor may go out: all mailboxes are there, or some are and the others take
    /// their time.
    fn is_settled(&self, cx: &Context<'_>) -> bool {
        let count = self.mailboxes.listed().count();
        count > 0
            && (count >= cx.network.params.mailboxes
                || self.settles_at.is_none_or(|at| at <= cx.now))
    }

    /// Opens a record that a mailbox of this inbox held.
    pub(super) fn open(&self, cx: &Context<'_>, record: &[u8]) -> Result<Opened, RecordFault> {
        self.seals.open(cx.wall, record)
    }

    /// Sees to it that there are keys for the descriptors to come, and none for what can't.
    fn turn_seal_keys(&mut self, cx: &mut Context<'_>) {
        let has_made = self.seals.make_missing(cx.wall, cx.rng);
        let life = cx.network.params.record_life;
        if self.seals.erase_old(cx.confirmed, cx.wall, life) || has_made {
            self.touch(cx);
        }
    }

    /// Says that the inbox takes mail: once all positions have the descriptor, or more than half of
    /// them and the others are slow, or some and the others are broken. The user who waits
    /// for it may stop the client, and then nothing more is published for a while. One of which nothing
    /// is due is ready as it is.
    fn tell_if_ready(&mut self, cx: &mut Context<'_>) {
        let (positions, all) = self.publications.progress(cx.wall.epoch());
        if self.is_told || self.is_mending(cx.now) || positions == 0 {
            return;
        }
        let patience = if self.is_published && self.publications.rests(cx) {
            Duration::ZERO
        } else if positions * 2 > all {
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
            if !self.is_published {
                // Some positions have it.
                self.is_published = true;
                self.touch(cx);
            }
            let mailboxes = self.mailboxes.listed().count();
            cx.notify(Notice::InboxReady {
                name: self.name.clone(),
                mailboxes,
                positions,
            });
        }
    }

    /// A position answered.
    pub(super) fn on_published(
        &mut self,
        cx: &mut Context<'_>,
        at: (Epoch, RelayId),
        revision: u64,
        answer: &Answer,
    ) {
        match self.publications.on_answer(cx, at, revision, answer) {
            Posted::Fine => {}
            Posted::News => {
                self.is_published |= self.publications.is_settled(cx.wall.epoch());
                self.touch(cx);
            }
            Posted::Overtaken => self.sight.hurry(cx.now),
        }
    }

    /// Whether a mailbox is missing, or a companion of one. An inbox that was just made may go out
    /// without all.
    fn is_mending(&self, now: Instant) -> bool {
        self.mailboxes.is_mending(self.is_awaited(now))
    }

    /// Says that a mailbox is being made: a user who stops the client now leaves that to the next.
    fn tell_if_mending(&mut self, cx: &mut Context<'_>) {
        if self.is_mending(cx.now) && !self.is_mending_told {
            self.is_mending_told = true;
            self.is_told = false;
            cx.notify(Notice::Mending {
                inbox: self.name.clone(),
            });
        }
    }

    /// Records of strangers came; whether they are a flood.
    pub(super) fn on_strangers(&mut self, now: Instant, count: usize) -> bool {
        self.effort.on_strangers(now, count)
    }

    /// What holders are to be told of the effort: at which mailboxes, and how much. Only what is durable
    /// here is told.
    pub(super) fn efforts_to_tell(&mut self) -> Vec<(OwnMailbox, u32)> {
        if self.saving != Saving::Saved {
            return Vec::new();
        }
        let effort = &mut self.effort;
        let created = self.mailboxes.created();
        let to_tell =
            created.filter_map(|(own, _)| Some((own.clone(), effort.next_told(own.queue)?)));
        to_tell.collect()
    }

    /// A holder asks this effort from now on, or has not heard of it.
    pub(super) fn on_effort_told(
        &mut self,
        cx: &Context<'_>,
        queue: QueueId,
        effort: u32,
        is_told: bool,
    ) {
        let queues = self.mailboxes.all().iter().map(|own| own.queue);
        self.effort.keep(&queues.collect::<Vec<_>>());
        if self.effort.on_told(queue, effort, is_told) {
            self.touch(cx);
        }
    }

    /// Looks this inbox up as senders do; deals with what is seen.
    pub(super) fn look(
        &mut self,
        cx: &mut Context<'_>,
        lookups: &mut Lookups,
        requests: &mut Requests,
        rest_mean: Duration,
    ) {
        let (address, posted) = (*self.identity.address(), self.posted(cx));
        let seen = self.sight.look(cx, lookups, requests, &address, posted);
        match seen {
            None | Some(Seen::Nothing) => {}
            Some(Seen::Found(epoch, revision)) => self.on_found(cx, epoch, revision),
            Some(Seen::Missed) => self.on_missed(cx, rest_mean),
        }
    }

    /// When the own look-up is due, if it is. What is not out yet, after an absence, or is on its way,
    /// can't be missed.
    pub(super) fn look_due(&self, cx: &Context<'_>) -> Option<WallTime> {
        let due = self.sight.due(cx.wall, &cx.network.params);
        due.filter(|_| self.posted(cx).is_some())
    }

    /// Begins the own look-up, which is due.
    pub(super) fn begin_look(&mut self, cx: &mut Context<'_>) {
        let posted = self.posted(cx);
        self.sight.begin(cx, posted);
        self.touch(cx);
    }

    /// The revision that senders should find by now.
    fn posted(&self, cx: &Context<'_>) -> Option<u64> {
        self.publications.posted(cx.wall.epoch())
    }

    /// Senders find a descriptor. Ours has one form, and is stored before it is published: a later
    /// one is another copy's, which is overtaken, since the mailboxes here are those we read.
    fn on_found(&mut self, cx: &mut Context<'_>, epoch: Epoch, revision: u64) {
        self.touch(cx);
        if revision <= self.publications.revision(epoch) {
            return;
        }
        self.tell_rival(cx);
        if self.rival.may_overtake(cx.now) {
            self.publications.overtake(epoch, revision);
        }
    }

    /// Senders do not find what was published.
    fn on_missed(&mut self, cx: &mut Context<'_>, rest_mean: Duration) {
        match self.sight.on_missed(cx) {
            Missing::Again => {
                let epoch = cx.wall.epoch();
                self.begin(cx, epoch, false, rest_mean);
            }
            Missing::Told => cx.warn(Warning::NotFound {
                inbox: self.name.clone(),
            }),
            Missing::Still => {}
        }
        self.touch(cx);
    }

    /// A holder ended a subscription for the sake of another that is not ours.
    pub(super) fn on_replaced(&mut self, cx: &mut Context<'_>, holder: RelayId) {
        self.sight.hurry(cx.now);
        if self.rival.on_replaced(cx.now, &cx.network.params, holder) {
            self.tell_rival(cx);
        }
    }

    fn tell_rival(&mut self, cx: &mut Context<'_>) {
        if self.rival.is_news() {
            cx.warn(Warning::OtherCopy {
                inbox: self.name.clone(),
            });
        }
    }

    /// The descriptor's contents changed.
    fn change(&mut self, cx: &mut Context<'_>) {
        self.publications.change(cx);
        self.touch(cx);
    }

    /// The state to store changed.
    fn touch(&mut self, cx: &Context<'_>) {
        self.saving = Saving::Due(cx.now);
    }

    pub(super) fn state(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(&InboxState {
            version: stored::VERSION,
            identity_seed: *self.identity.seed(),
            seals: self.seals.states(),
            mailboxes: self.mailboxes.all().to_vec(),
            is_published: self.is_published,
            rests_until: self.rests_until,
            publications: self.publications.state(),
            sight: self.sight.state.clone(),
            effort: self.effort.state().clone(),
        })
    }

    /// Whether its own look-up is under way, whose end has to be noticed.
    pub(super) const fn is_looking(&self) -> bool {
        self.sight.is_running()
    }

    /// When there is something to do, past moments included.
    pub(super) fn timeouts(&self, cx: &Context<'_>) -> impl Iterator<Item = Instant> {
        let save = if let Saving::Due(at) = self.saving {
            Some(at)
        } else {
            None
        };
        save.into_iter()
            .chain(self.mailboxes.timeouts())
            .chain(self.publications.timeouts())
            .chain(self.settles_at)
            .chain(self.tells_at)
            .chain(self.sight.timeout())
            .chain(self.effort.timeout(cx))
    }
}

/// The contents of this epoch's descriptor, whichever revision it is; `None` if there is no key for
/// it.
fn contents(
    seals: &SealKeys,
    mailboxes: &Mailboxes,
    puzzle_effort: u32,
    epoch: Epoch,
) -> Option<InboxDescriptor> {
    let to_public = |mailbox: &OwnMailbox| Mailbox {
        relay: mailbox.relay,
        queue: mailbox.queue,
        sender_seed: mailbox.sender_seed,
    };
    Some(InboxDescriptor {
        revision: 0,
        seal_key: seals.public(epoch)?,
        mailboxes: mailboxes.listed().map(to_public).collect(),
        puzzle_effort,
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::network::Network;
    use umbel_proto::time::Moment;

    use super::super::super::testing::{When, surroundings};
    use super::*;

    #[test] // §6.4(14)
    fn own_holders_are_apart_from_guards_and_l2() {
        let planned = |relays: &[u8]| {
            let plan = |cx: &mut Context<'_>| {
                let mut paths = Paths::default();
                paths.refresh(cx.known(), cx.rng);
                let mut mailboxes = Mailboxes::default();
                while mailboxes.mend(cx, &paths, 3).is_some() {}
                let is_kept = |mailbox: &&OwnMailbox| paths.kept().any(|it| it == mailbox.relay);
                let near = mailboxes.all().iter().filter(is_kept).count();
                (mailboxes.all().len(), near)
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
            Inbox::restore(InboxId(0), String::new(), &state).is_published()
        };
        let mut inbox = Inbox::generate(&mut cx, InboxId(0), String::new());
        inbox.change(&mut cx);
        assert!(!inbox.is_published() && !restored(&inbox));
        inbox.is_published = true;
        inbox.change(&mut cx);
        let is_out = inbox.is_published() && restored(&inbox);
        assert!(is_out, "an older revision is out");
    }
}
