//! Whether a command waits for a list of relays, and how long that is of use; `umbel view`.

use clap::Subcommand;
use serde::Serialize;
use tokio::time::Instant;
use umbel_client::core::io::{Notice, Warning};
use umbel_proto::limits::PATH_RELAYS_MIN;
use umbel_proto::time::Duration;

use super::failure::{Exit, Failure};
use super::session::Session;
use super::times;

#[derive(Subcommand)]
pub(super) enum ViewCommand {
    /// Use the list of relays although seeds disagree about it
    Accept,
}

#[derive(Serialize)]
struct Accepted {
    /// Whether seeds disagreed.
    accepted: bool,
}

/// `umbel view`. Needs no network.
pub(super) fn run(session: &Session, command: &ViewCommand) -> Result<(), Failure> {
    let ViewCommand::Accept = command;
    let accepted = session.library()?.accept_view()?;
    if session.is_json() {
        session.json(&Accepted { accepted })
    } else if accepted {
        session.line(
            "Accepted: this profile goes by what the relays asked first say, though they disagree. An umbel that is running for it goes by it \
             once it is started again.",
        )
    } else {
        session.line("There is nothing to accept: no relays that this profile asked first are known to disagree.")
    }
}

/// How long a list of relays is waited for once a relay has said that this clock is wrong, or seeds
/// disagree: others may settle it.
const PATIENCE: Duration = Duration::from_secs(4);

/// The last notice about the view.
#[derive(Debug, Default)]
pub(super) struct ViewWait {
    is_missing: bool,
    /// By how many seconds this clock and the relays' differ, and when that was heard.
    clock: Option<(u64, Instant)>,
    /// When it was heard that seeds disagree.
    disputed_at: Option<Instant>,
}

impl ViewWait {
    /// Hears what a notice says of it.
    pub(super) fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::WaitingForView { .. } => self.is_missing = true,
            Notice::Ready { .. } => {
                self.is_missing = false;
                self.disputed_at = None;
            }
            Notice::Warning(Warning::Clock { seconds }) => {
                self.clock = Some((*seconds, Instant::now()));
            }
            Notice::Warning(Warning::SeedsDisagree) => self.disputed_at = Some(Instant::now()),
            _ => {}
        }
    }

    /// Whether the client must first get a list of relays that is not out of date.
    pub(super) const fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// Until when it is waited for: `ends_at`, or, where the clock or seeds that disagree are the
    /// reason, not for long.
    pub(super) fn ends_at(&self, ends_at: Instant) -> Instant {
        let clock_at = self.clock.map(|(_, told_at)| told_at);
        let told = [clock_at, self.disputed_at].into_iter().flatten();
        told.filter(|_| self.is_missing)
            .fold(ends_at, |ends_at, told_at| ends_at.min(told_at + PATIENCE))
    }

    /// Whether there is none because seeds disagree.
    pub(super) const fn is_disputed(&self) -> bool {
        self.is_missing && self.disputed_at.is_some()
    }

    /// By how many seconds the clock is wrong, if that is why there is no list.
    pub(super) fn clock_off_by(&self) -> Option<u64> {
        self.clock
            .filter(|_| self.is_missing)
            .map(|(seconds, _)| seconds)
    }

    /// There was none in time, or not more than so many relays are known.
    pub(super) fn failure(&self, relays: usize, what_is_safe: &str) -> Failure {
        match self.clock_off_by() {
            _ if self.is_disputed() => Failure::new(
                Exit::Disputed,
                DISPUTED_TEXT,
                format!("{DISPUTED_HINT}; {what_is_safe}"),
            ),
            Some(seconds) => Failure::new(
                Exit::Deferred,
                clock_text(seconds),
                format!("{CLOCK_HINT}; {what_is_safe}"),
            ),
            None if relays > 0 => Failure::new(
                Exit::Unreachable,
                few_text(relays),
                format!("{}; {what_is_safe}", few_hint(relays)),
            ),
            None => Failure::no_view(what_is_safe),
        }
    }
}

/// Why no path is chosen while seeds disagree.
pub(super) const DISPUTED_TEXT: &str =
    "the relays asked first disagree about which relays there are, so none is used";
/// The hint for it.
pub(super) const DISPUTED_HINT: &str = "a seed may lie to you, or was cut off: ask others which seeds they use, name one that you trust \
     with `umbel seed add ID@HOST:PORT`, and try again; `umbel view accept` uses what the seeds say anyway";

/// Why no circuit is begun, though so many relays are known.
pub(super) fn few_text(relays: usize) -> String {
    let why = if relays < PATH_RELAYS_MIN {
        ""
    } else {
        " that more than one relay knows, that others vouch for and have known for long enough,"
    };
    format!(
        "too few relays can be used, of {relays} known: a circuit takes four{why} in different address groups"
    )
}

/// The hint for it. Where enough are known, it takes another source, or time.
pub(super) const fn few_hint(relays: usize) -> &'static str {
    if relays < PATH_RELAYS_MIN {
        "a network of so few relays carries no mail before others join; if it has more, wait longer with --timeout, or name a \
         relay that knows them with `umbel seed add ID@HOST:PORT`"
    } else {
        "perhaps no second relay has answered yet, which must know them, too: check your connection, wait longer with --timeout, or \
         name another relay with `umbel seed add ID@HOST:PORT`"
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

    #[test] // §6.4(1), §8.3(9a)
    fn where_a_list_has_too_few_relays_it_is_said_whether_a_source_is_missing() {
        let mut view = ViewWait::default();
        view.take(&Notice::WaitingForView { last_known: 0 });
        for (relays, is_source_missing) in [(3, false), (4, true), (1000, true)] {
            let failure = view.failure(relays, "all is safe");
            assert!(failure.error.contains(&format!("of {relays} known")));
            assert_eq!(failure.hint.contains("connection"), is_source_missing);
            assert_eq!(failure.hint.contains("second relay"), is_source_missing);
            assert_eq!(failure.hint.contains("so few relays"), !is_source_missing);
            assert!(failure.hint.contains("all is safe"));
        }
        assert!(view.failure(0, "all is safe").hint.contains("connection"));
    }

    #[test] // §8.3(9c)
    fn a_view_that_seeds_disagree_about_is_not_waited_for_long() {
        let late = Instant::now() + Duration::from_secs(3600);
        let mut view = ViewWait::default();
        view.take(&Notice::WaitingForView { last_known: 0 });
        view.take(&Notice::Warning(Warning::SeedsDisagree));
        assert!(view.ends_at(late) < late);
        let failure = view.failure(0, "all is safe");
        assert_eq!(failure.exit, Exit::Disputed);
        assert!(failure.hint.contains("umbel view accept") && failure.hint.contains("all is safe"));
        view.take(&Notice::Ready { relays: 8 });
        assert_eq!(view.ends_at(late), late);
        assert!(!view.is_disputed());
    }

    #[test]
    fn a_view_that_a_wrong_clock_keeps_away_is_not_waited_for_long() {
        let late = Instant::now() + Duration::from_secs(3600);
        let mut view = ViewWait::default();
        view.take(&Notice::WaitingForView { last_known: 3 });
        assert_eq!(view.ends_at(late), late);
        assert_eq!(view.failure(0, "all is safe").exit, Exit::Unreachable);
        view.take(&Notice::Warning(Warning::Clock { seconds: 7200 }));
        assert!(view.ends_at(late) < late);
        let failure = view.failure(0, "all is safe");
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
