//! Shared by all commands: output, the profile, and interruption.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use etcetera::BaseStrategy;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use umbel_client::core::io::{Notice, Warning, is_held_by_enough};
use umbel_client::display;
use umbel_client::{Client, Library, Profile, Reach};
use umbel_proto::ids::RelayId;
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_relay::shell::DialFault;

use super::failure::{Exit, Failure};
use super::{Global, output, relay, secret, times, watch, writer};

/// One run of a command.
pub(super) struct Session {
    global: Global,
    progress: Progress,
}

/// A spinner and a text, on a terminal that shows no other output.
struct Progress {
    bar: ProgressBar,
    is_spinning: OnceLock<()>,
}

impl Progress {
    fn new(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(ProgressStyle::default_spinner());
        Self {
            bar,
            is_spinning: OnceLock::new(),
        }
    }

    fn show(&self, text: String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
            self.is_spinning
                .get_or_init(|| self.bar.enable_steady_tick(Duration::from_millis(100)));
        }
    }

    /// Does this without a spinner in its way. One that was never shown stays so: to suspend it
    /// would draw it.
    fn suspend<T>(&self, act: impl FnOnce() -> T) -> T {
        match self.is_spinning.get() {
            Some(()) => self.bar.suspend(act),
            None => act(),
        }
    }
}

impl Session {
    pub(super) fn new(global: Global) -> Self {
        let Global {
            json,
            quiet,
            verbose,
            ..
        } = global;
        let is_shown = io::stderr().is_terminal() && !(json || quiet || verbose);
        let target = if is_shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            global,
            progress: Progress::new(target),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.global.json
    }

    /// The options of this run that say how a command speaks, for a program that speaks alike.
    pub(super) fn output_options(&self) -> impl Iterator<Item = &'static str> {
        let Global {
            json,
            quiet,
            verbose,
            ..
        } = self.global;
        [(json, "--json"), (quiet, "--quiet"), (verbose, "--verbose")]
            .into_iter()
            .filter_map(|(is_set, option)| is_set.then_some(option))
    }

    /// Writes a line to standard output, and sees it through.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.progress.suspend(|| output::line(text))
    }

    /// Writes bytes to standard output as they are.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.progress.suspend(|| output::bytes(bytes))
    }

    /// Asks a question; whether the answer is yes.
    pub(super) fn ask(&self, question: &str) -> Result<bool, Failure> {
        self.progress.suspend(|| output::ask(question))
    }

    /// Writes a JSON object as a line.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = output::json(value).map_err(|error| {
            Failure::failed(
                format!("could not write JSON: {error}"),
                "leave --json away",
            )
        })?;
        self.line(&text)
    }

    /// Says on standard error what the user should know besides what was asked for.
    pub(super) fn warn(&self, text: &str) {
        if !self.global.quiet {
            self.say(text);
        }
    }

    fn say(&self, text: &str) {
        self.progress.suspend(|| output::warn(text, self.is_json()));
    }

    /// Says what was found in the place of seeds, for a user whom no relay answers.
    pub(super) fn warn_of_seeds(&self, client: &Client) {
        let faults = client.seed_faults();
        let is_other = |(_, fault): &(RelayId, DialFault)| *fault == DialFault::OtherNetwork;
        if !faults.is_empty() && faults.iter().all(is_other) {
            return self.warn(
                "all seeds are relays of another network: compare the network's file hash, which `umbel status` says, with that of \
                 their operators",
            );
        }
        for (seed, fault) in faults {
            let remedy = match fault {
                DialFault::Nobody | DialFault::Unknown => "",
                DialFault::NoRelay
                | DialFault::OtherRelay
                | DialFault::OtherNetwork
                | DialFault::Elsewhere => {
                    "; if you named it, correct it with `umbel seed remove` and `umbel seed add`"
                }
            };
            self.warn(&format!(
                "the seed {seed} could not be used: {fault}{remedy}"
            ));
        }
    }

    /// Shows progress on a terminal.
    pub(super) fn show(&self, text: &str) {
        self.progress.show(text.to_owned());
    }

    /// Takes away what [`Session::show`] left on the terminal.
    pub(super) fn show_nothing(&self) {
        self.progress.bar.finish_and_clear();
    }

    /// Shows a notice's progress, or prints its warning.
    pub(super) fn show_notice(&self, notice: &Notice) {
        if let Some(text) = notice_warning(notice, self.global.quiet) {
            self.say(&text);
        } else if let Some(text) = progress_text(notice) {
            self.progress.show(text);
        }
    }

    pub(super) fn profile_dir(&self) -> Result<PathBuf, Failure> {
        // Not clap's `env`: its usage lines would name `--profile` as required.
        let named = self.global.profile.clone().or_else(|| {
            let dir = std::env::var_os("UMBEL_PROFILE").filter(|dir| !dir.is_empty());
            dir.map(PathBuf::from)
        });
        if let Some(dir) = named {
            return Ok(dir);
        }
        let base = etcetera::choose_base_strategy().map_err(|error| {
            Failure::usage(
                format!("could not find your data directory: {error}"),
                "say where with --profile DIR",
            )
        })?;
        Ok(base.data_dir().join("umbel"))
    }

    /// The profile, with what opens it.
    pub(super) fn profile(&self) -> Result<Profile, Failure> {
        let mut profile = Profile::load(&self.profile_dir()?)?;
        if let Some(relay) = relay::own_relay() {
            profile.set_own_relay(relay);
        }
        if let Some(path) = profile.key_file() {
            secret::warn_if_shared(self, path);
        }
        if profile.needs_passphrase() {
            profile.set_passphrase(secret::existing(self, &secret::PROFILE)?);
        }
        Ok(profile)
    }

    /// Opens the profile for what needs no network: another process may have that meanwhile.
    pub(super) fn library(&self) -> Result<Library, Failure> {
        Ok(Library::open(self.profile()?)?)
    }

    /// The profile's network.
    pub(super) fn network(&self) -> Result<Network, Failure> {
        let profile = Profile::load(&self.profile_dir()?)?;
        Ok(profile.network().clone())
    }

    /// Opens the profile, does the work, and closes it in order, also when interrupted.
    pub(super) async fn with_client<T>(
        &self,
        reach: Reach,
        work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let profile = self.profile()?;
        // Not before: a prompt is better interrupted by the system.
        let interrupt = Interrupt::watch()?;
        let client = Client::open_with(profile, reach).await?;
        let result = tokio::select! {
            result = work(&client) => result,
            () = interrupt.wait() => Err(Failure::interrupted()),
        };
        if matches!(&result, Err(failure) if failure.exit == Exit::Unreachable) {
            self.warn_of_seeds(&client);
        }
        let stop_reason = client.stop_reason();
        if matches!(&result, Err(failure) if failure.exit == Exit::Interrupted) {
            client.close_at_once().await;
        } else {
            client.close().await;
        }
        self.show_nothing();
        result.map_err(|failure| match stop_reason {
            Some(reason) if failure.is_closed() => reason.into(),
            _ => failure,
        })
    }
}

/// The user, or the system, wants us to stop: in order the first time, at once the second.
pub(super) struct Interrupt {
    watch: tokio::sync::watch::Receiver<bool>,
}

impl Interrupt {
    pub(super) fn watch() -> Result<Self, Failure> {
        let (sender, watch) = tokio::sync::watch::channel(false);
        let mut signals = Signals::new().map_err(|error| {
            Failure::failed(
                format!("could not watch for signals: {error}"),
                "free some file descriptors",
            )
        })?;
        tokio::spawn(async move {
            signals.next().await;
            // The watcher may have ended already.
            sender.send_replace(true);
            writer::interrupt();
            signals.next().await;
            std::process::exit(Exit::Interrupted as i32);
        });
        Ok(Self { watch })
    }

    pub(super) async fn wait(&self) {
        let mut watch = self.watch.clone();
        if watch
            .wait_for(|is_interrupted| *is_interrupted)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let ignored = ignored_signals();
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .into_iter();
        // Signals that our parent has us ignore (`nohup`, a script's `&`) stay ignored.
        let heard = kinds.filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0);
        heard.map(signal).collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) {
        std::future::poll_fn(|cx| {
            let is_any = self
                .0
                .iter_mut()
                .any(|signal| signal.poll_recv(cx).is_ready());
            if is_any {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

/// The signals that this process was started to ignore, lowest first, where the system shows them.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // Without a handler the system ends the process by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Names the process that has the network and does not answer.
pub(super) fn unresponsive(pid: Option<u32>) -> String {
    format!(
        "another umbel{} has the network of this profile and does not answer",
        process(pid)
    )
}

/// Names the process that has the network and can't be asked.
pub(super) fn other_release(pid: Option<u32>) -> String {
    format!(
        "another umbel of a different version{} has this profile open",
        process(pid)
    )
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// The text to show while the command waits; `None` if the notice is no progress.
fn progress_text(notice: &Notice) -> Option<String> {
    let in_time = |wait: Duration| times::length(wait.max(Duration::from_secs(1)));
    Some(match notice {
        Notice::Ready { relays } => format!("{} known", output::count(*relays, "relay")),
        Notice::HopBuilt {
            circuit,
            hop,
            relay,
        } => {
            let relay = output::short_relay(relay);
            format!("circuit {circuit}: hop {hop} is {relay}")
        }
        Notice::Queued(_) => "safe in the outbox".to_owned(),
        Notice::Held {
            holders, wanted, ..
        } if is_held_by_enough(*holders, *wanted) => {
            format!("held by {}", output::count(*holders, "relay"))
        }
        Notice::Held {
            holders, wanted, ..
        } => format!("kept by {holders} of {wanted} relays"),
        Notice::Scheduled { wait, .. } => {
            let wait = in_time(*wait);
            format!("kept by a relay; the next copy goes out in {wait}")
        }
        Notice::Deferred {
            reason, retry_in, ..
        } => {
            let (why, retry_in) = (watch::why(*reason), in_time(*retry_in));
            format!("{why}; trying again in {retry_in}")
        }
        Notice::InboxReady {
            mailboxes,
            positions,
            ..
        } => {
            let mailboxes = output::count(*mailboxes, "mailbox");
            let relays = output::count(*positions, "relay");
            format!("{mailboxes}, descriptor at {relays}")
        }
        Notice::WaitingForView { last_known: 0 } => "fetching the list of relays".to_owned(),
        Notice::WaitingForView { .. } => {
            "the list of relays is out of date: fetching a new one".to_owned()
        }
        Notice::Mending { inbox } => {
            let inbox = display::name(inbox);
            format!("making a mailbox for \"{inbox}\"")
        }
        Notice::Unreachable => "no relay could be reached".to_owned(),
        Notice::Acknowledged(_) => "its reader has the message".to_owned(),
        Notice::NoCircuits => "no circuit can be built just now: trying other relays".to_owned(),
        Notice::Failed { .. }
        | Notice::Expired { .. }
        | Notice::Cancelled(_)
        | Notice::Unsaved { .. }
        | Notice::Received { .. }
        | Notice::CaughtUp { .. }
        | Notice::Conversation { .. }
        | Notice::Warning(_) => return None,
    })
}

/// Why nothing is done by itself: whoever shows relays that guards don't know may have kept them back.
pub(super) const GUARDS_HIDE_TEXT: &str = "no guard tells this client of many relays that others know: they may work together against \
    you, or were cut off from the network; if it stays so for a day, make a new profile with seeds that you trust";

/// Why a seed is no help, and what helps.
pub(super) fn seed_elsewhere_text(seed: impl Display, ip: IpAddr) -> String {
    format!(
        "the seed {seed} was reached at {ip}, which it does not advertise, so the relays that it lists don't count: tell whoever \
         runs it to advertise that address, too, or add another seed with `umbel seed add`"
    )
}

fn warning_text(warning: &Warning) -> String {
    match warning {
        Warning::Clock { seconds } => {
            format!(
                "this computer's clock and the relays' differ by {}: set it right",
                times::length(Duration::from_secs(*seconds))
            )
        }
        Warning::GuardFails => {
            "many circuits through the guard fail: the network is overloaded, or someone interferes"
                .to_owned()
        }
        Warning::L2Refuses => "a relay behind the guard refused many circuits that others would have made, and is replaced: it \
             may be broken, or choose who comes after it"
            .to_owned(),
        // The command's error says what to do, once others had time to settle it.
        Warning::SeedsDisagree => {
            "the relays asked first disagree about which relays there are: asking others".to_owned()
        }
        Warning::GuardHides { is_replaced } => {
            let outcome = if *is_replaced {
                "is replaced"
            } else {
                "stays, since others were replaced lately or there is none"
            };
            format!(
                "the guard kept many relays from this client, and {outcome}: it may work against you, or was cut off from the \
                 network itself"
            )
        }
        Warning::AllGuardsHide => GUARDS_HIDE_TEXT.to_owned(),
        Warning::MailboxReplaced { inbox } => {
            format!(
                "a mailbox of the inbox \"{}\" is gone: another takes its place",
                display::name(inbox)
            )
        }
        Warning::Unresponsive { pid } => format!("{}; waiting for it", unresponsive(*pid)),
        Warning::OtherCopy { inbox } => format!(
            "another copy of this profile is in use, or a backup of it was restored: copies take each other's messages in the \
             inbox \"{}\"; use one copy only, and delete the others",
            display::name(inbox)
        ),
        Warning::NotFound { inbox } => format!(
            "the inbox \"{}\" can't be found: the relays that keep its descriptor gave none, or an old one, twice, though it was \
             published anew in between; messages from those who know it already may still come; leave `umbel receive --follow` \
             running, which tries again, and see `umbel status`",
            display::name(inbox)
        ),
        Warning::SeedElsewhere { seed, ip } => seed_elsewhere_text(seed, *ip),
        Warning::Store(fault) => fault.to_string(),
        Warning::OtherParameters => "a relay runs this network with other parameters: compare the file that this profile was made \
             with and the network's file; if they differ, make a profile with the right one"
            .to_owned(),
    }
}

/// The warning in a notice. That a message has left the outbox is said with `--quiet`, too: a
/// command that did not send it says it nowhere else.
fn notice_warning(notice: &Notice, is_quiet: bool) -> Option<String> {
    match notice {
        Notice::Expired { id, copies, wanted } => Some(watch::expired_text(*id, *copies, *wanted)),
        Notice::Warning(warning) if !is_quiet => Some(warning_text(warning)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;
    use umbel_client::core::io::Copies;
    use umbel_proto::ids::MessageId;

    use super::*;

    /// A terminal that remembers what was written to it.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_message_that_left_the_outbox_is_reported_quiet_or_not() {
        let expired = Notice::Expired {
            id: MessageId([1; MessageId::LEN]),
            copies: Copies::Held(1),
            wanted: 2,
        };
        let clock = Notice::Warning(Warning::Clock { seconds: 7200 });
        for is_quiet in [false, true] {
            let text = notice_warning(&expired, is_quiet).unwrap();
            assert!(text.contains("1 of 2 relays have it"), "{text}");
            assert_eq!(notice_warning(&clock, is_quiet).is_none(), is_quiet);
        }
    }

    #[test]
    fn a_spinner_shows_progress_and_leaves_nothing_behind() {
        let screen = Screen::default();
        let progress = Progress::new(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        progress.show("circuit 1: hop 2".to_owned());
        let shown = screen.0.lock().unwrap().trim().to_owned();
        let (spinner, text) = shown.split_once(' ').unwrap();
        assert_eq!((spinner.chars().count(), text), (1, "circuit 1: hop 2"));
        progress.bar.finish_and_clear();
        assert_eq!(screen.0.lock().unwrap().trim(), "");
    }

    #[test]
    fn a_command_that_waits_for_nothing_shows_no_spinner() {
        let screen = Screen::default();
        let progress = Progress::new(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        progress.suspend(|| assert_eq!(*screen.0.lock().unwrap(), ""));
        assert_eq!(*screen.0.lock().unwrap(), "");
    }

    #[test]
    fn nothing_spins_where_nobody_looks() {
        let progress = Progress::new(ProgressDrawTarget::hidden());
        progress.show("circuit 1: hop 2".to_owned());
        assert!(progress.is_spinning.get().is_none());
    }
}
