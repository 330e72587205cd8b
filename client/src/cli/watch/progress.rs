//! How far one message is, and what it is waiting for.

use tokio::time::Instant;
use umbel_client::core::io::{Copies, DeferReason, SendFault, is_held_by_enough};
use umbel_proto::time::{Duration, WallTime};

use super::super::output;
use super::words::{planned_text, why_not_more};

/// How far one message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Fate {
    /// Enough holders have it.
    Held,
    /// Its reader has it.
    Acknowledged,
    /// Some have it, fewer than are wanted.
    Kept(Missing),
    /// It is still in the outbox, and nobody has it.
    Queued(Obstacle),
    /// It expired and is out of the outbox, and nobody is known to have it.
    Expired(Copies),
    /// It is out of the outbox, and nobody knows why: the process that did has ended.
    Left,
    /// It can't be sent.
    Failed(SendFault),
    /// It was taken back.
    Cancelled,
}

/// Why a message is not with more holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Missing {
    /// The next copy goes out at this time: it follows from nothing that an observer sees.
    Planned(Instant),
    /// Something is in the way.
    Obstacle(Obstacle),
    /// The message expired: no more are tried.
    Expired(Copies),
    /// It is out of the outbox, and nobody knows why.
    Left,
}

/// Why a message is still in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Obstacle {
    /// Time was up.
    Time,
    /// No relay could be reached.
    Unreachable,
    /// Time was up before there was a list of enough relays.
    View {
        /// How many are known.
        relays: usize,
    },
    /// Relays answered, but none of their descriptors is in date by this clock.
    Clock {
        /// By how many seconds it is wrong.
        seconds: u64,
    },
    /// Relays answered, but seeds disagree about which there are.
    Disputed,
    /// This attempt failed, and the next is not now.
    Deferred(DeferReason),
}

/// One message, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Progress {
    pub(in super::super) holders: usize,
    pub(in super::super) wanted: Option<usize>,
    pub(in super::super) fate: Option<Fate>,
    /// When it expires, if that is known.
    pub(in super::super) expires_at: Option<WallTime>,
    /// Why the last attempt failed, if one has since the last holder took it.
    pub(in super::super) obstacle: Option<DeferReason>,
    /// Since when one holder has it, by this command's notices.
    pub(in super::super) kept_at: Option<Instant>,
}

impl Progress {
    /// This many have it, and no fewer than were said before: a driver that was killed may have told
    /// of a holder that the next one does not know.
    pub(in super::super) fn set_held(&mut self, holders: usize, wanted: usize) {
        self.holders = self.holders.max(holders);
        self.wanted = Some(wanted);
    }

    /// The same, and that is news.
    pub(in super::super) fn on_held(&mut self, holders: usize, wanted: usize) {
        self.set_held(holders, wanted);
        self.obstacle = None;
        if self.is_held_enough() {
            self.fate = Some(Fate::Held);
        } else if self.fate == Some(Fate::Held) {
            self.fate = None;
        }
    }

    pub(in super::super) fn is_held_enough(&self) -> bool {
        self.wanted
            .is_some_and(|wanted| is_held_by_enough(self.holders, wanted))
    }

    /// Its fate while no more get it, for this reason; ignored once enough have it.
    fn fate_by(&self, missing: Missing) -> Fate {
        match missing {
            _ if self.is_held_enough() => Fate::Held,
            missing if self.holders > 0 => Fate::Kept(missing),
            Missing::Obstacle(obstacle) => Fate::Queued(obstacle),
            Missing::Planned(_) => Fate::Queued(Obstacle::Time),
            Missing::Expired(copies) => Fate::Expired(copies),
            Missing::Left => Fate::Left,
        }
    }

    /// Whether it is known to be out of the outbox, and how it left.
    pub(in super::super) fn is_out(&self) -> bool {
        matches!(
            self.fate,
            Some(
                Fate::Held
                    | Fate::Acknowledged
                    | Fate::Failed(_)
                    | Fate::Cancelled
                    | Fate::Expired(_)
                    | Fate::Kept(Missing::Expired(_))
            )
        )
    }

    pub(in super::super) fn settle(&mut self, missing: Missing) {
        self.fate = Some(self.fate_by(missing));
    }

    pub(in super::super) fn fate(&self) -> Fate {
        let obstacle = self.obstacle.map_or(Obstacle::Time, Obstacle::Deferred);
        self.fate
            .unwrap_or_else(|| self.fate_by(Missing::Obstacle(obstacle)))
    }

    /// The same name in JSON and in text.
    pub(in super::super) fn state(&self) -> &'static str {
        match self.fate() {
            Fate::Held => "held",
            Fate::Acknowledged => "acknowledged",
            Fate::Kept(_) => "kept",
            Fate::Queued(_) => "queued",
            Fate::Expired(_) => "expired",
            Fate::Left => "left",
            Fate::Failed(_) => "failed",
            Fate::Cancelled => "cancelled",
        }
    }

    /// How long it is until the next copy goes out, where that is planned.
    pub(in super::super) fn next_copy_in(&self) -> Option<Duration> {
        match self.fate() {
            Fate::Kept(Missing::Planned(at)) => Some(at.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// Whether its reader may get it, where it expired and nobody is known to have it.
    pub(in super::super) fn may_be_out(&self) -> Option<bool> {
        match self.fate() {
            Fate::Expired(copies) => Some(copies.may_be_out()),
            _ => None,
        }
    }

    /// How many relays have it, as people count.
    pub(super) fn holders_text(&self) -> String {
        if self.holders == 1 {
            "one relay".to_owned()
        } else {
            output::count(self.holders, "relay")
        }
    }

    /// The text for people.
    pub(in super::super) fn text(&self) -> String {
        let holders = self.holders_text();
        match self.fate() {
            Fate::Kept(Missing::Planned(_)) => {
                let wait = self.next_copy_in().unwrap_or_default();
                planned_text(&holders, wait)
            }
            Fate::Kept(Missing::Obstacle(obstacle)) => {
                format!(
                    "kept by {holders}; {}; the next `umbel send` or `receive` tries again",
                    why_not_more(obstacle)
                )
            }
            Fate::Kept(Missing::Expired(_)) => {
                format!("kept by {holders}; it has expired, and no more are tried")
            }
            Fate::Kept(Missing::Left) => format!("kept by {holders}; it has left the outbox since"),
            Fate::Acknowledged => "acknowledged: its reader has it".to_owned(),
            Fate::Left => "left the outbox; nobody knows how many have it".to_owned(),
            Fate::Expired(Copies::None) => "expired; nobody has it".to_owned(),
            Fate::Expired(_) => "expired; a relay may have it".to_owned(),
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
