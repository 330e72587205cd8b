//! Watches messages on their way from the outbox to their holders.

mod progress;
mod words;

use std::collections::BTreeMap;

use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{Copies, DeferReason, Notice, OutboxEntry};
use umbel_client::{Client, ClientClosed, NoticeGap, Notices, SendError};
use umbel_proto::ids::MessageId;
use umbel_proto::time::{Duration, WallTime};
use umbel_relay::shell::Clock;

use super::failure::{Exit, Failure};
use super::session::Session;
use super::view::ViewWait;
use progress::Missing;
pub(super) use progress::{Fate, Obstacle, Progress};
use words::{ASK_FIRST, exit, expired_failure, hint, left_hint, text};
pub(super) use words::{expired_text, why};

/// Bounds of how long copies that are outstanding are waited for once enough holders have a
/// message.
const LINGER: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));
/// The part of the time taken so far that they are waited for, between these bounds.
const LINGER_SHARE: u32 = 4;

/// How long the other holders are waited for once one has a message and they are being asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long messages in the outbox are waited for by a command that is about something else.
const IN_PASSING: Duration = Duration::from_secs(5);

/// Until when the user wants to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Stage {
    /// One relay keeps it, and every further copy is sent, planned or refused
    #[value(alias = "one")]
    Kept,
    /// As many relays as wanted keep it: two of three, unless the network says otherwise
    #[value(alias = "all")]
    Held,
}

/// Gives the outbox a moment, now that there are circuits. This command does not wait for the
/// outcome.
pub(super) async fn in_passing(
    session: &Session,
    client: &Client,
    notices: &mut Notices,
) -> Result<(), Failure> {
    let outbox = client.outbox().await?;
    let mut watch = Watch::new(Stage::Kept, IN_PASSING);
    watch.add_all(
        outbox.into_iter().filter(|entry| !entry.is_held()),
        Clock::wall(),
    );
    watch.wait(session, client, notices).await
}

/// Some messages on their way.
pub(super) struct Watch {
    pub(super) messages: BTreeMap<MessageId, Progress>,
    stage: Stage,
    began_at: Instant,
    ends_at: Instant,
    view: ViewWait,
    /// Whether the command prints the fate of each message at its end.
    is_reported: bool,
}

impl Watch {
    /// None so far; to be waited for until this stage, or until `timeout` has passed.
    pub(super) fn new(stage: Stage, timeout: Duration) -> Self {
        let began_at = Instant::now();
        let ends_at = began_at + timeout;
        Self {
            messages: BTreeMap::new(),
            stage,
            began_at,
            ends_at,
            view: ViewWait::default(),
            is_reported: false,
        }
    }

    /// The same, for a command that prints the fate of each message at its end.
    pub(super) fn reported(self) -> Self {
        Self {
            is_reported: true,
            ..self
        }
    }

    /// This one too, which nobody has yet.
    pub(super) fn add(&mut self, id: MessageId) {
        self.messages.entry(id).or_default();
    }

    /// These too, until an attempt at each has ended; enough may have had some of them before. Those
    /// that only wait for their readers are left out.
    /// `wall` is the time now.
    pub(super) fn add_all(
        &mut self,
        outbox: impl IntoIterator<Item = OutboxEntry>,
        wall: WallTime,
    ) {
        for OutboxEntry {
            id,
            holders,
            wanted,
            expires_at,
            obstacle,
            next_try_at,
            ..
        } in outbox.into_iter().filter(|entry| !entry.is_unacknowledged)
        {
            let progress = self.messages.entry(id).or_default();
            progress.set_held(holders, wanted);
            progress.expires_at = Some(expires_at);
            let wait = next_try_at.map_or(Duration::ZERO, |at| at.since(wall));
            match obstacle {
                _ if wait.is_zero() => {}
                Some(reason) => self.on_deferred(id, reason, wait),
                None if holders > 0 => self.on_planned(id, wait),
                None => {}
            }
        }
    }

    /// Waits until the fate of each is known.
    pub(super) async fn wait(
        &mut self,
        session: &Session,
        client: &Client,
        notices: &mut Notices,
    ) -> Result<(), Failure> {
        while self
            .messages
            .values()
            .any(|progress| progress.fate.is_none())
        {
            let ends_at = self.view.ends_at(self.ends_at);
            let until = self.patient_until().unwrap_or(ends_at).min(ends_at);
            match timeout_at(until, notices.next()).await {
                Ok(Ok(notice)) => self.on_notice(session, &notice),
                Ok(Err(NoticeGap::Missed(_))) => self.compare(client).await?,
                Ok(Err(NoticeGap::Closed)) => return Err(ClientClosed.into()),
                Err(_elapsed) if until >= ends_at => {
                    self.on_time_up(client.status().await?.relays);
                    return Ok(());
                }
                Err(_elapsed) => self.lose_patience(),
            }
        }
        Ok(())
    }

    /// Time is up, and so many relays are known.
    fn on_time_up(&mut self, relays: usize) {
        match self.view.clock_off_by() {
            _ if self.view.is_disputed() => self.settle_open(Obstacle::Disputed),
            Some(seconds) => self.settle_open(Obstacle::Clock { seconds }),
            None if self.view.is_missing() => self.settle_open(Obstacle::View { relays }),
            None => {}
        }
    }

    /// When the first of the messages that somebody has is waited for no longer.
    fn patient_until(&self) -> Option<Instant> {
        let open = self
            .messages
            .values()
            .filter(|progress| progress.fate.is_none());
        let kept = open
            .filter(|progress| progress.holders > 0)
            .filter_map(|progress| progress.kept_at);
        kept.map(|at| at + PATIENCE)
            .min()
            .filter(|_| self.stage == Stage::Kept)
    }

    fn lose_patience(&mut self) {
        let now = Instant::now();
        for progress in self
            .messages
            .values_mut()
            .filter(|progress| progress.fate.is_none())
        {
            if progress.kept_at.is_some_and(|at| at + PATIENCE <= now) {
                progress.settle(Missing::Obstacle(Obstacle::Time));
            }
        }
    }

    fn on_notice(&mut self, session: &Session, notice: &Notice) {
        if !self.is_said_later(notice) {
            session.show_notice(notice);
        }
        self.take(notice);
    }

    /// Whether the fate that the command prints says that this message expired. A command that only
    /// gives the outbox a moment prints none, and no later notice says it again.
    fn is_said_later(&self, notice: &Notice) -> bool {
        self.is_reported
            && matches!(notice, Notice::Expired { id, .. } if self.messages.contains_key(id))
    }

    fn take(&mut self, notice: &Notice) {
        self.view.take(notice);
        match notice {
            Notice::Held {
                id,
                holders,
                wanted,
            } => {
                if let Some(progress) = self.messages.get_mut(id) {
                    progress.on_held(*holders, *wanted);
                    progress.kept_at.get_or_insert_with(Instant::now);
                }
            }
            Notice::Scheduled { id, wait } => self.on_planned(*id, *wait),
            Notice::Deferred {
                id,
                reason,
                retry_in,
            } => self.on_deferred(*id, *reason, *retry_in),
            Notice::Expired { id, copies, wanted } => {
                if let Some(progress) = self.messages.get_mut(id) {
                    progress.set_held(copies.holders(), *wanted);
                    progress.settle(Missing::Expired(*copies));
                }
            }
            Notice::Failed { id, reason } => self.end(*id, Fate::Failed(*reason)),
            Notice::Acknowledged(id) => self.end(*id, Fate::Acknowledged),
            Notice::Cancelled(cancelled) => self.end(cancelled.id, Fate::Cancelled),
            Notice::Unreachable => self.settle_open(Obstacle::Unreachable),
            Notice::NoCircuits => self.on_walled_in(),
            _ => {}
        }
    }

    /// No circuit can be built just now: the client tries other relays while there is time.
    fn on_walled_in(&mut self) {
        for progress in self.messages.values_mut() {
            progress.obstacle = Some(DeferReason::NoCircuit);
        }
    }

    fn settle_open(&mut self, obstacle: Obstacle) {
        let open = self
            .messages
            .values_mut()
            .filter(|progress| progress.fate.is_none());
        open.for_each(|progress| progress.settle(Missing::Obstacle(obstacle)));
    }

    /// The next copy goes out after this time: too late for us, or nothing that this stage waits
    /// for.
    fn on_planned(&mut self, id: MessageId, wait: Duration) {
        let at = Instant::now() + wait;
        let is_over = self.stage == Stage::Kept || at >= self.ends_at;
        if let Some(progress) = self
            .messages
            .get_mut(&id)
            .filter(|progress| is_over || progress.is_held_enough())
        {
            progress.settle(Missing::Planned(at));
        }
    }

    /// The next attempt is so far off: too late for us, or of no concern where one holder is
    /// enough.
    fn on_deferred(&mut self, id: MessageId, reason: DeferReason, retry_in: Duration) {
        let is_too_late = Instant::now() + retry_in >= self.ends_at;
        let is_stage_reached =
            |progress: &Progress| self.stage == Stage::Kept && progress.holders > 0;
        let Some(progress) = self.messages.get_mut(&id) else {
            return;
        };
        progress.obstacle = Some(reason);
        if is_too_late || is_stage_reached(progress) {
            progress.settle(Missing::Obstacle(Obstacle::Deferred(reason)));
        }
    }

    fn end(&mut self, id: MessageId, fate: Fate) {
        if let Some(progress) = self.messages.get_mut(&id) {
            progress.fate = Some(fate);
        }
    }

    /// After missed notices.
    async fn compare(&mut self, client: &Client) -> Result<(), Failure> {
        // In this order: a message that leaves in between is in both.
        let outbox = client.status().await?.outbox;
        self.take_outbox(outbox, &client.left().await?, Clock::wall());
        Ok(())
    }

    /// What is in the outbox, and the last notices of messages that left it. Of a message in neither
    /// the process that knew its fate has ended.
    fn take_outbox(&mut self, outbox: Vec<OutboxEntry>, left: &[Notice], wall: WallTime) {
        let outbox: BTreeMap<MessageId, OutboxEntry> =
            outbox.into_iter().map(|entry| (entry.id, entry)).collect();
        for (id, progress) in &mut self.messages {
            if let Some(entry) = outbox.get(id) {
                progress.on_held(entry.holders, entry.wanted);
                progress.expires_at = Some(entry.expires_at);
                continue;
            }
            let is_over = progress.expires_at.is_some_and(|at| at <= wall);
            if !progress.is_out() {
                progress.settle(if is_over {
                    Missing::Expired(Copies::InDoubt)
                } else {
                    Missing::Left
                });
            }
        }
        left.iter().for_each(|notice| self.take(notice));
    }

    /// A little longer, for the copies beyond those that are needed: as long as a message is held,
    /// still in the outbox and waits for no moment, there are some.
    pub(super) async fn linger(
        &mut self,
        session: &Session,
        client: &Client,
        notices: &mut Notices,
    ) -> Result<(), Failure> {
        let wait = (self.began_at.elapsed() / LINGER_SHARE).clamp(LINGER.0, LINGER.1);
        let ends_at = (Instant::now() + wait).min(self.ends_at);
        loop {
            let outbox = client.status().await?.outbox;
            let is_held = |id| {
                self.messages
                    .get(id)
                    .is_some_and(|one| one.fate == Some(Fate::Held))
            };
            let is_outstanding = outbox.iter().any(|entry| {
                is_held(&entry.id) && entry.next_try_at.is_none() && !entry.is_unacknowledged
            });
            // Earlier notices are read in any case.
            let until = if is_outstanding {
                ends_at
            } else {
                Instant::now()
            };
            match timeout_at(until, notices.next()).await {
                Ok(Ok(notice)) => self.on_notice(session, &notice),
                Ok(Err(NoticeGap::Missed(_))) => self.compare(client).await?,
                Ok(Err(NoticeGap::Closed)) | Err(_) => return Ok(()),
            }
        }
    }

    /// The command's own outcome.
    pub(super) fn outcome(&self) -> Result<(), Failure> {
        let fates = || self.messages.values().map(Progress::fate);
        if let Some(fault) = fates().find_map(|fate| match fate {
            Fate::Failed(fault) => Some(fault),
            _ => None,
        }) {
            return Err(SendError::from(fault).into());
        }
        let expired = fates().filter_map(|fate| match fate {
            Fate::Expired(copies) => Some(copies),
            _ => None,
        });
        if let Some(copies) = expired.max() {
            return Err(expired_failure(copies));
        }
        if fates().any(|fate| fate == Fate::Left) {
            return Err(Failure::new(
                Exit::InDoubt,
                "the message has left the outbox, and the umbel command that knew why has ended",
                left_hint(),
            ));
        }
        if fates().any(|fate| fate == Fate::Cancelled) {
            let hint = "another umbel command did that: `umbel outbox list` shows what is left";
            return Err(Failure::failed("the message was taken back", hint));
        }
        if let Some(obstacle) = fates().find_map(|fate| match fate {
            Fate::Queued(obstacle) => Some(obstacle),
            _ => None,
        }) {
            let count = fates()
                .filter(|fate| matches!(fate, Fate::Queued(_)))
                .count();
            let what = if count == 1 {
                "the message is"
            } else {
                "messages are"
            };
            return Err(Failure::new(
                exit(obstacle),
                format!("{}: {what} safe in the outbox", text(obstacle)),
                hint(obstacle),
            ));
        }
        self.kept_outcome()
    }

    /// The outcome where some holders have it, fewer than are wanted.
    fn kept_outcome(&self) -> Result<(), Failure> {
        let kept = self
            .messages
            .values()
            .find(|progress| matches!(progress.fate(), Fate::Kept(_)));
        match kept.filter(|_| self.stage == Stage::Held) {
            Some(progress) if matches!(progress.fate(), Fate::Kept(Missing::Expired(_))) => {
                Err(Failure::new(
                    Exit::InDoubt,
                    format!("the message expired with only {}", progress.holders_text()),
                    format!("its reader gets it from there; {ASK_FIRST}"),
                ))
            }
            Some(progress) if progress.fate() == Fate::Kept(Missing::Left) => Err(Failure::new(
                Exit::InDoubt,
                format!("the message is {}", progress.text()),
                left_hint(),
            )),
            Some(progress) => Err(Failure::new(
                Exit::Deferred,
                format!(
                    "fewer relays keep it than wanted: it is {}",
                    progress.text()
                ),
                "wait longer with --timeout, or let the next `umbel send` or `receive` continue",
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
