//! `umbel send`: put a message into the outbox, and see it to its holders.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use serde::Serialize;
use umbel_client::{Client, Reach, check_life};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::record::MESSAGE_LEN_MAX;
use umbel_proto::time::Duration;
use umbel_relay::shell::Clock;

use super::failure::{Exit, Failure};
use super::session::Session;
use super::watch::{Progress, Stage, Watch};
use super::{output, times};

/// How long to wait for the first relay.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for all relays: their deposits follow one another within minutes.
const TIMEOUT_ALL: Duration = Duration::from_secs(300);

const AFTER_HELP: &str = "\
A message is first safe in the outbox, then kept by one relay, then held by as many relays as wanted (two by default). \
Two more copies follow, each after a random delay (30 s on average by default), so that the copies cannot be linked. umbel does \
not wait for them: a send or receive that runs then sends them.

Exit codes:
  0   at least one relay has it (\"kept\" or \"held\"; with --wait held: \"held\")
  1   it was not sent
  2   the command line is wrong, or there is nothing to send; it was not sent
  69  safe in the outbox, no relay reached or too few of use; the next send or receive tries again
  73  sent, but the output could not be written: do not send it again
  74  the message may have been delivered: check with its reader before you resend it
  75  safe in the outbox; the next send or receive tries again
  130 interrupted; what was in the outbox is still there";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SendArgs {
    /// The inbox's address, as its owner gave it to you
    #[arg(required_unless_present_any = ["flush", "verbatim"])]
    address: Option<String>,
    /// The message; with `-`, or without it, umbel reads standard input, which the list of
    /// processes does not show
    #[arg(conflicts_with = "file", allow_hyphen_values = true, value_parser = parse_text)]
    text: Option<String>,
    /// Words after `--`, whatever they begin with
    #[arg(last = true, hide = true)]
    verbatim: Vec<String>,
    /// Send this file instead
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Send it even if it is empty
    #[arg(long)]
    allow_empty: bool,
    /// Also retry everything in the outbox and wait for it, like `umbel outbox flush`
    #[arg(long)]
    flush: bool,
    /// Give up if too few relays accept it within this time, such as 2d [default and maximum: how
    /// long relays keep a message, usually 14d]
    #[arg(long, value_name = "TIME", value_parser = times::parse_span)]
    expire_after: Option<Duration>,
    /// When the message counts as sent
    #[arg(long, value_name = "STAGE", value_enum, default_value_t = Stage::Kept)]
    wait: Stage,
    /// How long to wait for that stage at most, such as 90s or 2m; the message then stays in the
    /// outbox. umbel doesn't wait for a copy that is due later [default: 60s, or 5m with --wait held]
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
    /// Whether the reader may get it though nobody is known to have it, where it expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    may_be_out: Option<bool>,
}

pub(super) async fn run(session: &Session, args: &SendArgs) -> Result<(), Failure> {
    let message = match words(args)? {
        (Some(address), text) => Some((address.trim().parse::<InboxAddress>()?, body(args, text)?)),
        (None, _) => None,
    };
    if let Some(life) = args.expire_after {
        check_life(life, session.network()?.params.record_life)?; // before anything is tried
    }
    let message = message.map(|(address, body)| Outgoing {
        address,
        body,
        life: args.expire_after,
    });
    let watch = new_watch(args.wait, args.timeout);
    session
        .with_client(Reach::Online, async |client| {
            send(session, client, message, args.flush, watch).await
        })
        .await
}

/// Tries what is in the outbox again, and waits for it.
pub(super) async fn flush(
    session: &Session,
    wait: Stage,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let watch = new_watch(wait, timeout);
    session
        .with_client(Reach::Online, async |client| {
            send(session, client, None, true, watch).await
        })
        .await
}

fn new_watch(wait: Stage, timeout: Option<Duration>) -> Watch {
    let default = match wait {
        Stage::Kept => TIMEOUT,
        Stage::Held => TIMEOUT_ALL,
    };
    Watch::new(wait, timeout.unwrap_or(default)).reported()
}

/// A message to be sent.
struct Outgoing {
    address: InboxAddress,
    body: Vec<u8>,
    life: Option<Duration>,
}

async fn send(
    session: &Session,
    client: &Client,
    message: Option<Outgoing>,
    waits_for_all: bool,
    mut watch: Watch,
) -> Result<(), Failure> {
    let mut notices = client.notices();
    session.show("sending");
    client.flush().await?;
    if waits_for_all {
        watch.add_all(client.outbox().await?, Clock::wall());
    }
    if let Some(Outgoing {
        address,
        body,
        life,
    }) = message
    {
        watch.add(client.send_for(address, body, life).await?.id);
    }
    if watch.messages.is_empty() {
        return if session.is_json() {
            Ok(())
        } else {
            session.line("The outbox is empty.")
        };
    }
    // Whatever ended it, the messages are in the outbox: a user who sends them again must know
    // their ids.
    let waited = match watch.wait(session, client, &mut notices).await {
        Ok(()) => watch.linger(session, client, &mut notices).await,
        Err(failure) => Err(failure),
    };
    let report = watch
        .messages
        .iter()
        .try_for_each(|(id, progress)| report(session, *id, progress));
    waited?;
    // The messages' outcome comes first: a user who hears that the output failed must not send them
    // again.
    watch.outcome()?;
    report.map_err(|failure| unreported(&failure))
}

/// The messages are sent, but their user could not read that. A reader that has ended is no reason
/// to be silent: the user does not know what became of them.
fn unreported(failure: &Failure) -> Failure {
    let exit = match failure.exit {
        Exit::BrokenPipe => Exit::Unwritten,
        exit => exit,
    };
    Failure::new(
        exit,
        format!("the message was sent, but {}", failure.error),
        "do not send it again; check where the output goes",
    )
}

fn report(session: &Session, id: MessageId, progress: &Progress) -> Result<(), Failure> {
    let Progress {
        holders, wanted, ..
    } = *progress;
    if session.is_json() {
        let next_copy_in_seconds = progress.next_copy_in().map(|wait| wait.as_secs());
        let state = progress.state();
        return session.json(&Line {
            id: id.to_string(),
            state,
            holders,
            wanted,
            next_copy_in_seconds,
            may_be_out: progress.may_be_out(),
        });
    }
    session.line(&format!("message {id}: {}", progress.text()))
}

/// Text that begins with one dash is text; with two it may be an option mistyped.
fn parse_text(text: &str) -> Result<String, String> {
    let name = text
        .strip_prefix("--")
        .map(|rest| rest.split('=').next().unwrap_or_default());
    let is_option = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .chars()
                .all(|character| character.is_ascii_lowercase() || character == '-')
    };
    if name.is_some_and(is_option) {
        return Err(format!(
            "there is no such option; if it is the message, write -- before it: -- {text}"
        ));
    }
    Ok(text.to_owned())
}

/// The address and the text, either of which may stand after `--`.
fn words(args: &SendArgs) -> Result<(Option<&str>, Option<Text<'_>>), Failure> {
    let mut verbatim = args.verbatim.iter().map(String::as_str);
    let address = args.address.as_deref().or_else(|| verbatim.next());
    let text = args.text.as_deref().map(|text| {
        if text == "-" {
            Text::Stdin
        } else {
            Text::Here(text)
        }
    });
    let text = text.or_else(|| verbatim.next().map(Text::Here));
    match verbatim.next() {
        None if text.is_some() && args.file.is_some() => Err(Failure::usage(
            "there is a message beside the file that --file names",
            "leave one of the two out",
        )),
        None => Ok((address, text)),
        Some(_) => Err(Failure::usage(
            "there are words after the message",
            "put quotes around the whole message",
        )),
    }
}

/// Where the text of a message is.
enum Text<'a> {
    Here(&'a str),
    Stdin,
}

fn body(args: &SendArgs, text: Option<Text<'_>>) -> Result<Vec<u8>, Failure> {
    let body = read(args, text)?;
    if body.is_empty() && !args.allow_empty {
        return Err(Failure::usage(
            "the message is empty",
            "write something, or send it empty with --allow-empty",
        ));
    }
    Ok(body)
}

/// The body to send: memory holds at most as much as a message may have.
fn read(args: &SendArgs, text: Option<Text<'_>>) -> Result<Vec<u8>, Failure> {
    match (text, &args.file) {
        (_, Some(path)) => {
            let unreadable = |error: io::Error| {
                Failure::failed(
                    format!("could not read {}: {error}", path.display()),
                    "check the path after --file",
                )
            };
            let file = File::open(path).map_err(unreadable)?;
            let len = file
                .metadata()
                .ok()
                .filter(std::fs::Metadata::is_file)
                .map(|metadata| metadata.len());
            if len.is_some_and(|len| len > MESSAGE_LEN_MAX as u64) {
                return Err(Failure::too_long(len));
            }
            read_body(file, unreadable)
        }
        (Some(Text::Here(text)), None) if text.len() > MESSAGE_LEN_MAX => {
            Err(Failure::too_long(Some(text.len() as u64)))
        }
        (Some(Text::Here(text)), None) => Ok(text.as_bytes().to_vec()),
        (Some(Text::Stdin) | None, None) => {
            // Without a prompt a user may take it for the question for a passphrase.
            if io::stdin().is_terminal() {
                output::say("Type the message, then press Ctrl-D on an empty line:");
            }
            read_body(io::stdin().lock(), |error| {
                Failure::failed(
                    format!("could not read standard input: {error}"),
                    "check where the input comes from",
                )
            })
        }
    }
}

fn read_body(
    from: impl Read,
    unreadable: impl FnOnce(io::Error) -> Failure,
) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    from.take(MESSAGE_LEN_MAX as u64 + 1)
        .read_to_end(&mut body)
        .map_err(unreadable)?;
    if body.len() > MESSAGE_LEN_MAX {
        Err(Failure::too_long(None))
    } else {
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_ended_hears_that_the_message_was_sent() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
            let failure = unreported(&output::unwritten(&kind.into()));
            assert_eq!(failure.exit, Exit::Unwritten);
            assert!(failure.error.starts_with("the message was sent, but"));
        }
    }
}
