//! The command line: its grammar, and the module that runs each command.
//!
//! Output for people by default, one JSON object a line with `--json`. Results go to standard
//! output; errors, warnings and progress go to standard error.

mod bench;
mod chat;
mod contact;
mod demo;
mod failure;
mod files;
mod history;
mod inbox;
mod init;
mod invite;
mod mail;
mod mending;
mod outbox;
mod output;
mod passphrase;
mod people;
mod receive;
mod relay;
mod reply;
mod runtime;
mod secret;
mod seed;
mod send;
mod session;
mod status;
mod times;
mod vanguards;
mod view;
mod watch;
mod writer;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use umbel_relay::shell::usage::error_and_hint;

use failure::{Exit, Failure};
use runtime::{block_on, block_on_all_cores};
use session::Session;

/// Send messages to hidden inboxes, and own inboxes, without revealing who or where you are.
#[derive(Parser)]
#[command(name = "umbel", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Where help lists the options that every command has.
const GLOBAL_HEADING: &str = "Global options";

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed
  2   the command line is wrong, or there is nothing to send
  69  no relay could be reached, or too few can be used
  73  done, but the output could not be written; a message sent stays sent
  74  the message may have been delivered: check with its reader before you resend it
  75  not finished; nothing is lost, and the next umbel command continues
  76  a relay gave another network file than the invitation names (`init --invite`)
  77  the relays asked first disagree about which relays there are (`view accept`)
  78  a relay of the invitation, or this program, is of too early a version (`init --invite`)
  127 there is no umbel-bench beside umbel (`bench`)
  130 interrupted; nothing is lost (`receive --follow` ends with 0 instead)
  141 broken pipe: whatever read the output has ended (`send` ends with 73 instead)

umbel asks for a profile's passphrase on the terminal, or reads it from the file that UMBEL_PASSPHRASE_FILE names.";

#[derive(clap::Args)]
struct Global {
    /// Where the profile is [env: UMBEL_PROFILE] [default: umbel in the user's data directory]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL_HEADING)]
    profile: Option<PathBuf>,
    /// One JSON object a line instead of text
    #[arg(long, global = true, help_heading = GLOBAL_HEADING)]
    json: bool,
    /// Print only errors, prompts and expired messages on standard error
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = GLOBAL_HEADING)]
    quiet: bool,
    /// Log to standard error
    #[arg(long, short, global = true, help_heading = GLOBAL_HEADING)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Measure what Umbel costs on this machine: runs the `umbel-bench` beside this program
    #[command(disable_help_flag = true)]
    Bench(bench::BenchArgs),
    /// Run a whole network on this machine and send messages through it
    Demo(demo::DemoArgs),
    /// Make a profile; needs no network, except with --invite
    Init(init::InitArgs),
    /// Print an invitation to the profile's network: one line, which `umbel init --invite` takes;
    /// needs no network
    InvitePeer(invite::InvitePeerArgs),
    /// Make and show inboxes
    #[command(subcommand)]
    Inbox(inbox::InboxCommand),
    /// Manage the seeds: relays to ask when no other is known
    #[command(subcommand)]
    Seed(seed::SeedCommand),
    /// Send a message to a contact, or to an inbox: the first begins a conversation
    Send(send::SendArgs),
    /// Answer a message, or write to a contact
    Reply(reply::ReplyArgs),
    /// List, name, verify, block and remove the people that you write with
    #[command(subcommand)]
    Contact(contact::ContactCommand),
    /// Write with a contact line by line, live, until Ctrl-D
    Chat(chat::ChatArgs),
    /// Show a conversation; needs no network
    History(history::HistoryArgs),
    /// Fetch messages, and print the unread ones
    Receive(receive::ReceiveArgs),
    /// List kept messages, unread ones by default; needs no network
    List(mail::ListArgs),
    /// Show a kept message, or save it as a file; needs no network
    Show(mail::ShowArgs),
    /// Delete kept messages for good; needs no network
    Delete(mail::DeleteArgs),
    /// List, show, cancel or retry messages in the outbox
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Change the passphrase or the key file that opens the profile; needs no network
    #[command(subcommand)]
    Passphrase(passphrase::PassphraseCommand),
    /// Run a relay on this machine, for others, until Ctrl-C; makes one the first time
    Relay(relay::RelayArgs),
    /// Show the state of the profile and the network
    Status(status::StatusArgs),
    /// Choose whether the third hop of each path is kept for hours, too: for owners of inboxes whose
    /// guard somebody may look for; needs no network
    #[command(subcommand)]
    Vanguards(vanguards::VanguardsCommand),
    /// Decide about the list of relays
    #[command(subcommand)]
    View(view::ViewCommand),
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
        Command::InvitePeer(args) => invite::run(&session, args),
        Command::Bench(args) => bench::run(&session, &args),
        Command::Demo(args) => block_on_all_cores(demo::run(&session, &args)),
        Command::Inbox(command) => block_on(inbox::run(&session, &command)),
        Command::Seed(command) => seed::run(&session, &command),
        Command::Send(args) => block_on(send::run(&session, &args)),
        Command::Reply(args) => block_on(reply::run(&session, &args)),
        Command::Contact(command) => block_on(contact::run(&session, &command)),
        Command::Chat(args) => block_on(chat::run(&session, &args)),
        Command::History(args) => history::run(&session, &args),
        Command::List(args) => mail::list(&session, &args),
        Command::Show(args) => mail::show(&session, &args),
        Command::Delete(args) => mail::delete(&session, &args),
        Command::Receive(args) => block_on(receive::run(&session, &args)),
        Command::Outbox(command) => block_on(outbox::run(&session, &command)),
        Command::Passphrase(command) => passphrase::run(&session, command),
        Command::Relay(args) => block_on(relay::run(&session, args)),
        Command::Status(args) => block_on(status::run(&session, &args)),
        Command::Vanguards(command) => vanguards::run(&session, command),
        Command::View(command) => view::run(&session, &command),
    }
}

/// Help and version are not errors; all else that clap says is.
fn refuse(error: &clap::Error, is_json: bool) -> ExitCode {
    if !error.use_stderr()
        || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !is_json
    {
        let printed = error.print();
        return match printed {
            _ if error.use_stderr() => Exit::Usage.into(),
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                let failure = output::unwritten(&fault);
                output::complain(&failure, is_json);
                failure.exit.into()
            }
        };
    }
    let (error, hint) = error_and_hint(&error.render().to_string());
    output::complain(&Failure::usage(error, hint), is_json);
    Exit::Usage.into()
}

fn log_to_stderr(is_verbose: bool) {
    let level = if is_verbose {
        "umbel=debug,umbel_client=debug,umbel_relay=debug"
    } else {
        "error"
    };
    let filter = EnvFilter::try_from_env("UMBEL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
