//! Whether a command waits for a list of relays, and how long that is of use.

use tokio::time::Instant;
use umbel_client::core::io::{Notice, Warning};
use umbel_proto::time::Duration;

use super::failure::{Exit, Failure};
use super::times;

/// How long a list of relays is waited for once a relay has said that this clock is wrong: another
/// may see it otherwise.
const PATIENCE: Duration = Duration::from_secs(4);

/// The last notice about the view.
#[derive(Debug, Default)]
pub(super) struct ViewWait {
    is_missing: bool,
    /// By how many seconds this clock and the relays' differ, and when that was heard.
    clock: Option<(u64, Instant)>,
}

impl ViewWait {
    /// Hears what a notice says of it.
    pub(super) fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::WaitingForView { .. } => self.is_missing = true,
            Notice::Ready { .. } => self.is_missing = false,
            Notice::Warning(Warning::Clock { seconds }) => {
                self.clock = Some((*seconds, Instant::now()));
            }
            _ => {}
        }
    }

    /// Whether the client must first get a list of relays that is not out of date.
    pub(super) const fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// Until when it is waited for: `ends_at`, or, where the clock is the reason, not for long.
    pub(super) fn ends_at(&self, ends_at: Instant) -> Instant {
        match self.clock {
            Some((_, told_at)) if self.is_missing => ends_at.min(told_at + PATIENCE),
            _ => ends_at,
        }
    }

    /// By how many seconds the clock is wrong, if that is why there is no list.
    pub(super) fn clock_off_by(&self) -> Option<u64> {
        self.clock
            .filter(|_| self.is_missing)
            .map(|(seconds, _)| seconds)
    }

    /// There was none in time.
    pub(super) fn failure(&self, what_is_safe: &str) -> Failure {
        match self.clock_off_by() {
            Some(seconds) => Failure::new(
                Exit::Deferred,
                clock_text(seconds),
                format!("{CLOCK_HINT}; {what_is_safe}"),
            ),
            None => Failure::no_view(what_is_safe),
        }
    }
}

/// The hint for a wrong clock.
pub(super) const CLOCK_HINT: &str = "set this computer's clock and time zone right, and try again";

/// Why no relay is chosen.
pub(super) fn clock_text(seconds: u64) -> String {
    let off = times::length(Duration::from_secs(seconds));
    format!(
        "this computer's clock and the relays' differ by {off}, so it can't be seen which relays are up to date"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_missing_from_when_it_is_waited_for_until_it_is_ready() {
        let mut view = ViewWait::default();
        assert!(!view.is_missing());
        for (notice, is_missing) in [
            (Notice::WaitingForView { last_known: 3 }, true),
            (Notice::Unreachable, true),
            (Notice::Ready { relays: 8 }, false),
            (Notice::Unreachable, false),
        ] {
            view.take(&notice);
            assert_eq!(view.is_missing(), is_missing, "{notice:?}");
        }
    }

    #[test]
    fn a_view_that_a_wrong_clock_keeps_away_is_not_waited_for_long() {
        let late = Instant::now() + Duration::from_secs(3600);
        let mut view = ViewWait::default();
        view.take(&Notice::WaitingForView { last_known: 3 });
        assert_eq!(view.ends_at(late), late);
        assert_eq!(view.failure("all is safe").exit, Exit::Unreachable);
        view.take(&Notice::Warning(Warning::Clock { seconds: 7200 }));
        assert!(view.ends_at(late) < late);
        let failure = view.failure("all is safe");
        assert!(
            failure.error.contains("clock") && failure.error.contains("2 hours"),
            "{}",
            failure.error
        );
        assert!(failure.hint.contains("all is safe"));
        view.take(&Notice::Ready { relays: 8 });
        assert_eq!(view.ends_at(late), late);
        assert_eq!(view.clock_off_by(), None);
    }
}
