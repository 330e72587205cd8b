//! A link's one runtime timer: for keepalive and padding, for the peer's silence, and for an end
//! that takes too long (docs/protocol.md §2.6).
//!
//! The rules are proto's [`Keepalive`] and [`Silence`]. The timer moves when it expires, or when
//! something is due earlier than it was set for: a busy link hardly touches it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep_until};
use umbel_proto::limits::{LINK_CLOSING_MAX, LINK_SILENCE_MIN};
use umbel_proto::link::{Keepalive, Padding, Silence, Silent};
use umbel_proto::time::Instant;

use crate::shell::Clock;

/// Why a link's timer expired.
pub(super) enum Expired {
    /// Too early: something was sent or came meanwhile.
    Nothing,
    /// A padding cell.
    Keepalive,
    /// The end: the peer is silent.
    Silent,
    /// The end: closing took too long.
    Closing,
}

/// When a link is sent a padding cell, and when it is given up.
pub(super) struct LinkTimer {
    sleep: Pin<Box<Sleep>>,
    /// When the sleep ends.
    set_for: Instant,
    clock: Clock,
    keepalive: Keepalive,
    silence: Silence,
    close_at: Option<Instant>,
}

impl LinkTimer {
    /// A link that came up now.
    pub(super) fn new(padding: Option<Padding>, clock: Clock) -> Self {
        let now = clock.now();
        let keepalive = Keepalive::new(padding, now, &mut rand::rng());
        let set_for = keepalive.due_at();
        Self {
            sleep: Box::pin(sleep_until(clock.at(set_for))),
            set_for,
            clock,
            keepalive,
            silence: Silence::new(LINK_SILENCE_MIN, now),
            close_at: None,
        }
    }

    /// Ready when it is time to call [`on_expired`](Self::on_expired).
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }

    /// A cell was sent.
    pub(super) fn on_sent(&mut self, now: Instant) {
        self.keepalive.on_sent(now, &mut rand::rng());
        if self.keepalive.due_at() < self.set_for {
            self.reset();
        }
    }

    /// A cell came.
    pub(super) fn on_received(&mut self, now: Instant) {
        self.silence.on_received(now);
    }

    /// Gives the link [`LINK_CLOSING_MAX`] to send its queued cells.
    pub(super) fn begin_closing(&mut self, now: Instant) {
        if self.close_at.is_none() {
            self.close_at = Some(now + LINK_CLOSING_MAX);
            self.reset();
        }
    }

    /// The reason that the timer expired; sets it anew.
    pub(super) fn on_expired(&mut self, now: Instant) -> Expired {
        let expired = match self.close_at {
            Some(close_at) if now >= close_at => Expired::Closing,
            None if self.silence.handle_timeout(now) == Some(Silent::Dead) => Expired::Silent,
            _ if now >= self.keepalive.due_at() => {
                self.keepalive.on_sent(now, &mut rand::rng());
                Expired::Keepalive
            }
            _ => Expired::Nothing,
        };
        self.reset();
        expired
    }

    fn reset(&mut self) {
        let end = self.close_at.unwrap_or_else(|| self.silence.due_at());
        self.set_for = end.min(self.keepalive.due_at());
        self.sleep.as_mut().reset(self.clock.at(self.set_for));
    }
}
