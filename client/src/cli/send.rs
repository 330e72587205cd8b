//! `umbel send`: put a message into the outbox, and see it to its holders.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use serde::Serialize;
use umbel_client::{Client, Reach};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::record::MESSAGE_LEN_MAX;
use umbel_proto::time::Duration;

use super::delivery::{Delivery, Progress, Stage};
use super::failure::Failure;
use super::session::Session;
use super::times;

/// How long the first relay is waited for.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long all are, whose deposits follow one another after minutes at most.
const TIMEOUT_ALL: Duration = Duration::from_secs(300);

const AFTER_HELP: &str = "\
A message is first safe in the outbox, then kept by one relay, then held by as many as are wanted (two by default). The
copies follow one another after a random time, half a minute on average, so that nobody can tell the sender by that:
umbel does not wait for it, and whichever umbel command runs after that sends the next copy.

Exit codes: 0 one relay keeps it at least (state \"kept\" or \"held\"; with --wait all: \"held\"), 75 it is safe in the outbox
and umbel tries again with the next command, 69 the same and no relay could be reached, 74 it may or may not have been
sent, 1 it was not sent.";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SendArgs {
    /// To whom: the address that the inbox's owner gave you
    #[arg(required_unless_present = "flush")]
    address: Option<String>,
    /// What to say; `-` takes it from standard input, where others on this computer can't read it off the list of processes
    #[arg(conflicts_with = "file")]
    text: Option<String>,
    /// Send this file instead
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Try everything in the outbox again, and wait for it too
    #[arg(long)]
    flush: bool,
    /// When the message counts as sent
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = Stage::One)]
    wait: Stage,
    /// How long to wait for that, such as 90s or 2m; after that the message stays in the outbox [default: 60s, or 5m with
    /// --wait all]
    #[arg(long, value_name = "TIME", value_parser = times::parse_seconds)]
    timeout: Option<Duration>,
}

#[derive(Serialize)]
struct Line {
    id: String,
    state: &'static str,
    holders: usize,
    wanted: Option<usize>,
    /// Until the next copy goes out, where that is planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_copy_in_seconds: Option<u64>,
}

pub(super) async fn run(session: &Session, args: &SendArgs) -> Result<(), Failure> {
    let message = match &args.address {
        Some(address) => Some((address.trim().parse::<InboxAddress>()?, body(args)?)),
        None => None,
    };
    let timeout = args.timeout.unwrap_or(match args.wait {
        Stage::One => TIMEOUT,
        Stage::All => TIMEOUT_ALL,
    });
    let delivery = Delivery::new(args.wait, timeout);
    session.with_client(Reach::Online, async |client| send(session, client, message, args.flush, delivery).await).await
}

async fn send(
    session: &Session,
    client: &Client,
    message: Option<(InboxAddress, Vec<u8>)>,
    waits_for_all: bool,
    mut delivery: Delivery,
) -> Result<(), Failure> {
    let mut notices = client.notices();
    session.show("sending");
    client.flush().await?;
    if waits_for_all {
        delivery.watch_all(client.outbox().await?, times::now());
    }
    if let Some((address, body)) = message {
        delivery.watch(client.send(address, body).await?.id);
    }
    if delivery.messages.is_empty() {
        return if session.is_json() { Ok(()) } else { session.line("The outbox is empty.") };
    }
    delivery.wait(session, client, &mut notices).await?;
    delivery.linger(session, client, &mut notices).await?;
    for (id, progress) in &delivery.messages {
        report(session, *id, progress)?;
    }
    delivery.outcome()
}

fn report(session: &Session, id: MessageId, progress: &Progress) -> Result<(), Failure> {
    let Progress { holders, wanted, .. } = *progress;
    if session.is_json() {
        let next_copy_in_seconds = progress.next_copy_in().map(|wait| wait.as_secs());
        let state = progress.state();
        return session.json(&Line { id: id.to_string(), state, holders, wanted, next_copy_in_seconds });
    }
    session.line(&format!("message {id}: {}", progress.text()))
}

/// What is to be sent: never more of it in memory than a message may have.
fn body(args: &SendArgs) -> Result<Vec<u8>, Failure> {
    match (&args.text, &args.file) {
        (_, Some(path)) => {
            let unreadable = |error: io::Error| {
                Failure::failed(format!("could not read {}: {error}", path.display()), "check the path after --file")
            };
            let file = File::open(path).map_err(unreadable)?;
            let len = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
            if len.is_some_and(|len| len > MESSAGE_LEN_MAX as u64) {
                return Err(Failure::too_long(len));
            }
            read_body(file, unreadable)
        }
        (Some(text), None) if text != "-" => {
            if text.len() > MESSAGE_LEN_MAX {
                return Err(Failure::too_long(Some(text.len() as u64)));
            }
            Ok(text.clone().into_bytes())
        }
        (None, None) if io::stdin().is_terminal() => Err(Failure::usage(
            "there is nothing to send",
            "write the text after the address, or --file PATH, or - to take it from standard input",
        )),
        (_, None) => read_body(io::stdin().lock(), |error| {
            Failure::failed(format!("could not read standard input: {error}"), "see where the input comes from")
        }),
    }
}

fn read_body(from: impl Read, unreadable: impl FnOnce(io::Error) -> Failure) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    from.take(MESSAGE_LEN_MAX as u64 + 1).read_to_end(&mut body).map_err(unreadable)?;
    if body.len() > MESSAGE_LEN_MAX { Err(Failure::too_long(None)) } else { Ok(body) }
}
