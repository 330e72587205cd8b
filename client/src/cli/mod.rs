//! The command line: what can be said, and who does it.
//!
//! Output for people by default, one JSON object a line with `--json`. What was asked for goes to standard output;
//! errors, warnings and progress go to standard error.

mod bench;
mod delivery;
mod demo;
mod failure;
mod inbox;
mod init;
mod output;
mod printable;
mod receive;
mod secret;
mod send;
mod session;
mod status;
mod times;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use failure::{Exit, Failure};
use session::Session;

/// Send messages to hidden inboxes, and own some, without saying who or where you are.
#[derive(Parser)]
#[command(name = "umbel", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed
  2   the command line is wrong
  69  no relay could be reached
  74  the profile can't be written, and the message may be delivered all the same: ask before you send it again
  75  safe in the outbox, but not yet with its holders: the next send or receive tries again
  130 interrupted; nothing is lost

A profile's passphrase is asked for on the terminal, or read from the file that UMBEL_PASSPHRASE_FILE names.";

#[derive(clap::Args)]
struct Global {
    /// Where the profile is [default: umbel in the user's data directory]
    #[arg(long, global = true, env = "UMBEL_PROFILE", value_name = "DIR")]
    profile: Option<PathBuf>,
    /// One JSON object a line instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Say on standard error what goes on inside
    #[arg(long, short, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Measure what Umbel costs on this machine, in a network of its own
    Bench(bench::BenchArgs),
    /// What `bench` runs in processes of their own
    #[command(subcommand, hide = true)]
    BenchPart(bench::PartCommand),
    /// Run a whole network on this machine and send messages through it
    Demo(demo::DemoArgs),
    /// Make a profile; needs no network
    Init(init::InitArgs),
    /// Make and show inboxes
    #[command(subcommand)]
    Inbox(inbox::InboxCommand),
    /// Send a message to an inbox
    Send(send::SendArgs),
    /// Print the messages that came
    Receive(receive::ReceiveArgs),
    /// Show how things stand
    Status(status::StatusArgs),
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let args = match Args::try_parse_from(&words) {
        Ok(args) => args,
        Err(error) => return refuse(&error, words.iter().any(|word| word == "--json")),
    };
    let is_json = args.global.json;
    log_to_stderr(args.global.verbose);
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure, is_json);
            failure.exit.into()
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let session = Session::new(args.global);
    match args.command {
        Command::Init(args) => init::run(&session, args),
        Command::Bench(args) => block_on(bench::run(&session, &args)),
        Command::BenchPart(command) => bench::run_part(command),
        Command::Demo(args) => block_on(demo::run(&session, &args)),
        Command::Inbox(command) => block_on(inbox::run(&session, &command)),
        Command::Send(args) => block_on(send::run(&session, &args)),
        Command::Receive(args) => block_on(receive::run(&session, &args)),
        Command::Status(args) => block_on(status::run(&session, &args)),
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("could not start: {error}"), "free some threads or memory"))?;
    runtime.block_on(Box::pin(work))
}

/// Help and version are not errors; all else that clap says is.
fn refuse(error: &clap::Error, is_json: bool) -> ExitCode {
    if !error.use_stderr() || !is_json {
        // If even this can't be written, the exit code says the rest.
        drop(error.print());
        return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("the command line is wrong").trim_start_matches("error: ");
    let rest = lines.collect::<Vec<_>>().join(" ");
    output::complain(&Failure::usage(first, rest), is_json);
    Exit::Usage.into()
}

fn log_to_stderr(is_verbose: bool) {
    let level = if is_verbose { "umbel=debug,umbel_client=debug,umbel_relay=debug" } else { "error" };
    let filter = EnvFilter::try_from_env("UMBEL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
