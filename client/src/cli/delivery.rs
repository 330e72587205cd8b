//! Watches messages on their way from the outbox to their holders.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::{DeferReason, Notice, OutboxEntry, SendFault, is_held_by_enough};
use umbel_client::{Client, ClientClosed, Clock, NoticeGap, Notices, SendError};
use umbel_proto::ids::MessageId;
use umbel_proto::time::{Duration, WallTime};

use super::failure::{Exit, Failure};
use super::session::Session;
use super::view::{CLOCK_HINT, ViewWait, clock_text};
use super::{output, times};

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
    One,
    /// As many relays as wanted keep it
    All,
}

/// How far one message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Enough holders have it.
    Held,
    /// Some have it, fewer than are wanted.
    Kept(Missing),
    /// It is still in the outbox, and nobody has it.
    Queued(Obstacle),
    /// It can't be sent.
    Failed(SendFault),
    /// It was taken back.
    Cancelled,
}

/// Why a message is not with more holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The next copy goes out at this time: it follows from nothing that an observer sees.
    Planned(Instant),
    /// Something is in the way.
    Obstacle(Obstacle),
}

/// Why a message is still in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Time was up.
    Time,
    /// No relay could be reached.
    Unreachable,
    /// Time was up before there was a list of relays.
    View,
    /// Relays answered, but none of their descriptors is in date by this clock.
    Clock {
        /// By how many seconds it is wrong.
        seconds: u64,
    },
    /// This attempt failed, and the next is not now.
    Deferred(DeferReason),
}

/// One message, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) holders: usize,
    pub(super) wanted: Option<usize>,
    fate: Option<Fate>,
    /// Since when one holder has it, as told to this command.
    kept_at: Option<Instant>,
}

impl Progress {
    /// This many have it.
    fn set_held(&mut self, holders: usize, wanted: usize) {
        self.holders = holders;
        self.wanted = Some(wanted);
    }

    /// The same, and that is news.
    fn on_held(&mut self, holders: usize, wanted: usize) {
        self.set_held(holders, wanted);
        if self.is_held_enough() {
            self.fate = Some(Fate::Held);
        } else if self.fate == Some(Fate::Held) {
            self.fate = None;
        }
    }

    fn is_held_enough(&self) -> bool {
        self.wanted
            .is_some_and(|wanted| is_held_by_enough(self.holders, wanted))
    }

    /// The obstacle that keeps it in the outbox; ignored once enough have it.
    fn fate_by(&self, missing: Missing) -> Fate {
        match missing {
            _ if self.is_held_enough() => Fate::Held,
            missing if self.holders > 0 => Fate::Kept(missing),
            Missing::Obstacle(obstacle) => Fate::Queued(obstacle),
            Missing::Planned(_) => Fate::Queued(Obstacle::Time),
        }
    }

    fn settle(&mut self, missing: Missing) {
        self.fate = Some(self.fate_by(missing));
    }

    pub(super) fn fate(&self) -> Fate {
        self.fate
            .unwrap_or_else(|| self.fate_by(Missing::Obstacle(Obstacle::Time)))
    }

    /// As JSON and people are told.
    pub(super) fn state(&self) -> &'static str {
        match self.fate() {
            Fate::Held => "held",
            Fate::Kept(_) => "kept",
            Fate::Queued(_) => "queued",
            Fate::Failed(SendFault::Expired) => "expired",
            Fate::Failed(_) => "failed",
            Fate::Cancelled => "cancelled",
        }
    }

    /// How long it is until the next copy goes out, where that is planned.
    pub(super) fn next_copy_in(&self) -> Option<Duration> {
        match self.fate() {
            Fate::Kept(Missing::Planned(at)) => Some(at.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// The text for people.
    pub(super) fn text(&self) -> String {
        let holders = if self.holders == 1 {
            "one relay".to_owned()
        } else {
            output::count(self.holders, "relay")
        };
        match self.fate() {
            Fate::Kept(Missing::Planned(_)) => {
                let wait = self.next_copy_in().unwrap_or_default();
                planned_text(&holders, wait)
            }
            Fate::Kept(Missing::Obstacle(obstacle)) => {
                format!(
                    "kept by {holders}; {}; the next umbel command tries again",
                    why_not_more(obstacle)
                )
            }
            _ => {
                let verb = if self.holders == 1 { "has" } else { "have" };
                format!(
                    "{}, {} {verb} it",
                    self.state(),
                    output::count(self.holders, "holder")
                )
            }
        }
    }
}

/// Gives what is in the outbox a moment, now that there are circuits; what becomes of it is not
/// this command's affair.
pub(super) async fn in_passing(
    session: &Session,
    client: &Client,
    notices: &mut Notices,
) -> Result<(), Failure> {
    let outbox = client.outbox().await?;
    let mut delivery = Delivery::new(Stage::One, IN_PASSING);
    delivery.watch_all(
        outbox
            .into_iter()
            .filter(|entry| !is_held_by_enough(entry.holders, entry.wanted)),
        Clock::wall(),
    );
    delivery.wait(session, client, notices).await
}

/// Some messages on their way.
pub(super) struct Delivery {
    pub(super) messages: BTreeMap<MessageId, Progress>,
    stage: Stage,
    began_at: Instant,
    ends_at: Instant,
    view: ViewWait,
}

impl Delivery {
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
        }
    }

    /// This one too, which nobody has yet.
    pub(super) fn watch(&mut self, id: MessageId) {
        self.messages.entry(id).or_default();
    }

    /// These too, until an attempt at each has ended; enough may have had some of them before.
    /// `wall` is the time now.
    pub(super) fn watch_all(
        &mut self,
        outbox: impl IntoIterator<Item = OutboxEntry>,
        wall: WallTime,
    ) {
        for OutboxEntry {
            id,
            holders,
            wanted,
            obstacle,
            next_try_at,
            ..
        } in outbox
        {
            self.messages
                .entry(id)
                .or_default()
                .set_held(holders, wanted);
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
                    self.on_time_up();
                    return Ok(());
                }
                Err(_elapsed) => self.lose_patience(),
            }
        }
        Ok(())
    }

    fn on_time_up(&mut self) {
        match self.view.clock_off_by() {
            Some(seconds) => self.settle_open(Obstacle::Clock { seconds }),
            None if self.view.is_missing() => self.settle_open(Obstacle::View),
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
            .filter(|_| self.stage == Stage::One)
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
        session.show_notice(notice);
        self.take(notice);
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
            Notice::Failed { id, reason } => self.end(*id, Fate::Failed(*reason)),
            Notice::Cancelled(cancelled) => self.end(cancelled.id, Fate::Cancelled),
            Notice::Unreachable => self.settle_open(Obstacle::Unreachable),
            Notice::NoCircuits => self.settle_open(Obstacle::Deferred(DeferReason::NoCircuit)),
            _ => {}
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
        let is_over = self.stage == Stage::One || at >= self.ends_at;
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
            |progress: &Progress| self.stage == Stage::One && progress.holders > 0;
        if let Some(progress) = self.messages.get_mut(&id)
            && (is_too_late || is_stage_reached(progress))
        {
            progress.settle(Missing::Obstacle(Obstacle::Deferred(reason)));
        }
    }

    fn end(&mut self, id: MessageId, fate: Fate) {
        if let Some(progress) = self.messages.get_mut(&id) {
            progress.fate = Some(fate);
        }
    }

    /// After missed notices: what is no longer in the outbox has enough holders, unless it can't be
    /// sent.
    async fn compare(&mut self, client: &Client) -> Result<(), Failure> {
        self.take_outbox(client.status().await?.outbox);
        Ok(())
    }

    fn take_outbox(&mut self, outbox: Vec<OutboxEntry>) {
        let outbox: BTreeMap<MessageId, OutboxEntry> =
            outbox.into_iter().map(|entry| (entry.id, entry)).collect();
        for (id, progress) in &mut self.messages {
            match outbox.get(id) {
                Some(entry) => progress.on_held(entry.holders, entry.wanted),
                None if matches!(progress.fate, Some(Fate::Failed(_) | Fate::Cancelled)) => {}
                None => progress.fate = Some(Fate::Held),
            }
        }
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
            let is_outstanding = outbox
                .iter()
                .any(|entry| is_held(&entry.id) && entry.next_try_at.is_none());
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
        let kept = self
            .messages
            .values()
            .find(|progress| matches!(progress.fate(), Fate::Kept(_)));
        match kept.filter(|_| self.stage == Stage::All) {
            Some(progress) => Err(Failure::new(
                Exit::Deferred,
                format!(
                    "fewer relays keep it than wanted: it is {}",
                    progress.text()
                ),
                "wait longer with --timeout, or let the next umbel command continue",
            )),
            None => Ok(()),
        }
    }
}

/// How long it is until a message that these have goes out again.
fn planned_text(holders: &str, wait: Duration) -> String {
    let wait = times::length(wait.max(Duration::from_secs(1)));
    format!(
        "kept by {holders}; the next copy goes out in about {wait}, or with the first umbel command after that"
    )
}

/// Why no further holder has a message that one has.
fn why_not_more(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Time => "the others have not answered yet",
        Obstacle::View | Obstacle::Clock { .. } => "no list of relays has come yet",
        Obstacle::Unreachable => "no relay can be reached just now",
        Obstacle::Deferred(DeferReason::NoCircuit) => "no circuit can be built just now",
        Obstacle::Deferred(DeferReason::QueueFull) => "the inbox is full at the others",
        Obstacle::Deferred(_) => "the others can't be reached",
    }
}

fn exit(obstacle: Obstacle) -> Exit {
    match obstacle {
        Obstacle::Unreachable | Obstacle::View => Exit::Unreachable,
        Obstacle::Time | Obstacle::Clock { .. } | Obstacle::Deferred(_) => Exit::Deferred,
    }
}

fn text(obstacle: Obstacle) -> Cow<'static, str> {
    let text = match obstacle {
        Obstacle::Time => "too few holders have it yet",
        Obstacle::Unreachable => "no relay could be reached",
        Obstacle::View => "no list of relays came in time",
        Obstacle::Clock { seconds } => return clock_text(seconds).into(),
        Obstacle::Deferred(reason) => return why(reason),
    };
    text.into()
}

/// Why a message stays in the outbox for now.
pub(super) fn why(reason: DeferReason) -> Cow<'static, str> {
    let text = match reason {
        DeferReason::NoCircuit => "no circuit could be built",
        DeferReason::NoDescriptor => "no directory relay knows this address",
        DeferReason::NoDirectory => "no directory relay that may know this address answered",
        DeferReason::Broken { circuits, guards } => {
            let (circuits, guards) = (
                output::count(circuits, "circuit"),
                output::count(guards, "guard"),
            );
            return format!("circuits break before the question arrives: {circuits} over {guards}")
                .into();
        }
        DeferReason::Holders => "too few of the inbox's holders could be reached or accepted it",
        DeferReason::QueueFull => "the inbox is full",
    };
    text.into()
}

fn hint(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Unreachable | Obstacle::View => {
            "check your connection; if every relay that you knew has moved, name one that is up with `umbel seed add \
             ID@HOST:PORT`; the next send or receive tries again"
        }
        Obstacle::Clock { .. } => CLOCK_HINT,
        Obstacle::Deferred(DeferReason::NoDescriptor) => {
            "compare the address with its owner, who must be online once a week; the next send or receive tries again"
        }
        Obstacle::Deferred(DeferReason::QueueFull) => {
            "its owner must receive first; the next send or receive tries again"
        }
        Obstacle::Deferred(DeferReason::Broken { .. }) => {
            "a relay on the path keeps breaking circuits; the next send or receive tries other relays"
        }
        Obstacle::Deferred(DeferReason::NoCircuit) => {
            "a relay answers but can reach no other; the next send or receive tries again, as does `umbel outbox flush`"
        }
        Obstacle::Time | Obstacle::Deferred(_) => {
            "the next send or receive tries again, as does `umbel outbox flush`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId([1; 16]);

    fn held(holders: usize, wanted: usize) -> Notice {
        Notice::Held {
            id: ID,
            holders,
            wanted,
        }
    }

    fn entry(holders: usize) -> OutboxEntry {
        let address = *umbel_proto::inbox::address::InboxIdentity::from_seed(&[3; 32]).address();
        let created_at = WallTime(1_790_000_000);
        OutboxEntry {
            id: ID,
            address,
            len: 5,
            created_at,
            expires_at: created_at + Duration::from_secs(1000),
            holders,
            wanted: 2,
            obstacle: None,
            next_try_at: None,
        }
    }

    fn deferred() -> Notice {
        Notice::Deferred {
            id: ID,
            reason: DeferReason::Holders,
            retry_in: Duration::from_secs(3600),
        }
    }

    /// A message that `holders` of two held when it was in the outbox, after these notices.
    fn after(holders: usize, notices: &[Notice]) -> Delivery {
        after_at(Stage::One, holders, notices)
    }

    fn after_at(stage: Stage, holders: usize, notices: &[Notice]) -> Delivery {
        let mut delivery = Delivery::new(stage, Duration::from_secs(60));
        delivery.watch_all(vec![entry(holders)], WallTime(1_790_000_000));
        notices.iter().for_each(|notice| delivery.take(notice));
        delivery
    }

    fn is_waited_for(delivery: &Delivery) -> bool {
        delivery
            .messages
            .values()
            .any(|progress| progress.fate.is_none())
    }

    #[test]
    fn a_held_message_is_waited_for_until_an_attempt_ends() {
        assert!(is_waited_for(&after(2, &[])));
        for (last, is_over) in [
            (None, false),
            (Some(held(2, 2)), true),
            (Some(Notice::Unreachable), true),
        ] {
            let delivery = after(2, last.as_slice());
            assert_eq!(is_waited_for(&delivery), !is_over);
            assert_eq!(delivery.messages[&ID].fate(), Fate::Held);
            assert!(delivery.outcome().is_ok());
        }
    }

    #[test]
    fn a_message_that_nobody_has_is_queued_and_one_that_some_have_is_kept() {
        let holders = Obstacle::Deferred(DeferReason::Holders);
        for (notices, expected) in [
            (vec![], Fate::Queued(Obstacle::Time)),
            (
                vec![Notice::Unreachable],
                Fate::Queued(Obstacle::Unreachable),
            ),
            (vec![deferred()], Fate::Queued(holders)),
            (
                vec![held(1, 2)],
                Fate::Kept(Missing::Obstacle(Obstacle::Time)),
            ),
            (
                vec![held(1, 2), deferred()],
                Fate::Kept(Missing::Obstacle(holders)),
            ),
            (
                vec![held(1, 2), Notice::Unreachable],
                Fate::Kept(Missing::Obstacle(Obstacle::Unreachable)),
            ),
            (vec![deferred(), held(2, 2)], Fate::Held),
            (vec![held(2, 2), deferred()], Fate::Held),
            (vec![held(1, 1)], Fate::Held),
            (
                vec![held(1, 1), held(1, 3)],
                Fate::Kept(Missing::Obstacle(Obstacle::Time)),
            ),
        ] {
            let delivery = after(0, &notices);
            assert_eq!(delivery.messages[&ID].fate(), expected, "{notices:?}");
            assert_eq!(
                delivery.outcome().is_err(),
                matches!(expected, Fate::Queued(_))
            );
        }
    }

    #[test]
    fn one_relay_is_enough_to_go_unless_all_are_waited_for() {
        let scheduled = |seconds| Notice::Scheduled {
            id: ID,
            wait: Duration::from_secs(seconds),
        };
        let soon = Notice::Deferred {
            id: ID,
            reason: DeferReason::Holders,
            retry_in: Duration::from_secs(1),
        };
        for (stage, last, is_over) in [
            (Stage::One, scheduled(20), true),
            (Stage::All, scheduled(20), false),
            (Stage::All, scheduled(100), true),
            (Stage::One, soon.clone(), true),
            (Stage::All, soon.clone(), false),
            (Stage::All, deferred(), true),
        ] {
            let delivery = after_at(stage, 0, &[held(1, 2), last.clone()]);
            assert_eq!(is_waited_for(&delivery), !is_over, "{stage:?} {last:?}");
            assert_eq!(delivery.messages[&ID].state(), "kept");
            assert!(delivery.messages[&ID].text().contains("kept by one relay"));
            assert_eq!(delivery.outcome().is_ok(), stage == Stage::One);
        }
        assert!(
            is_waited_for(&after(0, &[soon])),
            "nobody has it, and there is time left"
        );
        assert!(
            after(0, &[held(1, 2), scheduled(40)]).messages[&ID]
                .text()
                .contains("the next copy goes out in about")
        );
        for (wait, expected) in [
            (40, "about 40 seconds,"),
            (0, "about 1 second,"),
            (180, "about 3 minutes,"),
        ] {
            let text = planned_text("one relay", Duration::from_secs(wait));
            assert!(
                text.starts_with("kept by one relay;") && text.contains(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn a_list_of_relays_that_never_came_is_why_nothing_was_sent() {
        let waiting = Notice::WaitingForView { last_known: 0 };
        for (notices, expected) in [
            (vec![waiting.clone()], Obstacle::View),
            (vec![waiting, Notice::Ready { relays: 8 }], Obstacle::Time),
        ] {
            let mut delivery = after(0, &notices);
            delivery.on_time_up();
            assert_eq!(delivery.messages[&ID].fate(), Fate::Queued(expected));
        }
    }

    #[test]
    fn a_copy_that_waited_before_this_command_is_not_waited_for() {
        let waiting = OutboxEntry {
            next_try_at: Some(WallTime(1_790_000_030)),
            ..entry(1)
        };
        let mut delivery = Delivery::new(Stage::One, Duration::from_secs(60));
        delivery.watch_all(vec![waiting], WallTime(1_790_000_000));
        assert!(!is_waited_for(&delivery) && delivery.outcome().is_ok());
        assert!(delivery.messages[&ID].next_copy_in().is_some());
        assert!(is_waited_for(&after(1, &[])), "this one is tried now");

        let next_try_at = Some(WallTime(1_790_000_100));
        for (holders, expected) in [
            (
                0,
                Fate::Queued(Obstacle::Deferred(DeferReason::NoDescriptor)),
            ),
            (
                1,
                Fate::Kept(Missing::Obstacle(Obstacle::Deferred(
                    DeferReason::NoDescriptor,
                ))),
            ),
        ] {
            let failed = OutboxEntry {
                next_try_at,
                obstacle: Some(DeferReason::NoDescriptor),
                ..entry(holders)
            };
            let mut delivery = Delivery::new(Stage::One, Duration::from_secs(60));
            delivery.watch_all(vec![failed], WallTime(1_790_000_000));
            assert_eq!(
                delivery.messages[&ID].fate,
                Some(expected),
                "its attempt has failed before"
            );
        }
    }

    #[test]
    fn a_silent_holder_is_waited_for_briefly_once_another_has_it() {
        let mut delivery = after(0, &[held(1, 2)]);
        assert!(
            delivery
                .patient_until()
                .is_some_and(|at| at < delivery.ends_at)
        );
        delivery.lose_patience();
        assert!(is_waited_for(&delivery), "not yet");
        for progress in delivery.messages.values_mut() {
            progress.kept_at = progress.kept_at.and_then(|at| at.checked_sub(PATIENCE));
        }
        delivery.lose_patience();
        assert!(!is_waited_for(&delivery));
        assert_eq!(after_at(Stage::All, 0, &[held(1, 2)]).patient_until(), None);
        assert_eq!(after(0, &[]).patient_until(), None);
    }

    #[test]
    fn what_is_out_of_the_outbox_was_held_unless_it_could_not_be_sent() {
        let failed = Notice::Failed {
            id: ID,
            reason: SendFault::TooLong,
        };
        for (notice, expected) in [
            (deferred(), Fate::Held),
            (failed, Fate::Failed(SendFault::TooLong)),
        ] {
            let mut delivery = after(0, &[notice]);
            delivery.take_outbox(Vec::new());
            assert_eq!(delivery.messages[&ID].fate(), expected);
        }
        let mut delivery = after(0, &[]);
        delivery.take_outbox(vec![entry(1)]);
        assert_eq!(
            (delivery.messages[&ID].holders, is_waited_for(&delivery)),
            (1, true)
        );
    }
}
