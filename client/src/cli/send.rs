//! `umbel send`: put a message into the outbox, and see it to its holders.
//!
//! A message to an address begins a conversation, unless it is to go one way; one to a contact goes on
//! with the one that there is.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use umbel_client::core::io::Recipient;
use umbel_client::{Client, Correspondent, ListenError, Reach, check_life};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::record::{LETTER_LEN_MAX, MESSAGE_LEN_MAX};
use umbel_proto::time::Duration;
use umbel_relay::shell::Clock;

use super::failure::{Exit, Failure};
use super::session::Session;
use super::watch::{Progress, Stage, Watch};
use super::{output, people, times};

/// How long to wait for the first relay.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for all relays: their deposits follow one another within minutes.
const TIMEOUT_ALL: Duration = Duration::from_secs(300);

const AFTER_HELP: &str = "\
A message to an address begins a conversation: its reader can answer, and umbel keeps the message in the outbox until \
they have it, which `umbel outbox list` and `umbel history` show. --one-way sends without a way back.

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
    /// A contact's name or words; or an inbox's address, as its owner gave it to you
    #[arg(value_name = "NAME|ADDRESS", required_unless_present_any = ["flush", "verbatim"])]
    to: Option<String>,
    /// The message; with `-`, or without it, umbel reads standard input, which the list of
    /// processes does not show
    #[arg(conflicts_with = "file", allow_hyphen_values = true, value_parser = parse_text)]
    text: Option<String>,
    /// Words after `--`, whatever they begin with
    #[arg(last = true, hide = true)]
    verbatim: Vec<String>,
    /// Send it without a way back: its reader can't answer, and can't tell whether two such messages
    /// are of one writer
    #[arg(long)]
    one_way: bool,
    /// Prove to its reader that you own this inbox; without it nobody can tell who writes. For the
    /// first message to an address
    #[arg(long = "as", value_name = "INBOX", conflicts_with = "one_way")]
    writer: Option<String>,
    /// Also retry everything in the outbox and wait for it, like `umbel outbox flush`
    #[arg(long)]
    flush: bool,
    #[command(flatten)]
    how: How,
}

/// What a message says besides words on the command line, and how it is sent.
#[derive(clap::Args)]
pub(super) struct How {
    /// Send this file instead
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Send it even if it is empty
    #[arg(long)]
    allow_empty: bool,
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

/// To whom a message is to go, as it is written on the command line.
enum Reader<'a> {
    Address(InboxAddress),
    Name(&'a str),
}

impl<'a> Reader<'a> {
    /// What begins as an address does is one, or mistyped.
    fn parse(text: &'a str) -> Result<Self, Failure> {
        const PREFIX: &str = "umbel1";
        let text = text.trim();
        let is_address = text
            .get(..PREFIX.len())
            .is_some_and(|it| it.eq_ignore_ascii_case(PREFIX));
        match text.parse::<InboxAddress>() {
            Ok(address) => Ok(Self::Address(address)),
            Err(error) if is_address => Err(error.into()),
            Err(_) => Ok(Self::Name(text)),
        }
    }

    /// Who that is.
    async fn find(&self, client: &Client, args: &SendArgs) -> Result<Recipient, Failure> {
        if let Some(writer) = &args.writer
            && client.inbox_address(writer).await?.is_none()
        {
            return Err(ListenError::NoInbox.into());
        }
        let (contact, address) = match self {
            Self::Address(address) => (None, Some(*address)),
            Self::Name(name) => match people::find(client, name).await? {
                Correspondent::Address { address, .. } => (None, Some(address)),
                Correspondent::Contact(contact) => (Some(contact.key), contact.card.address),
            },
        };
        match (contact, address) {
            (_, Some(address)) if args.one_way => Ok(Recipient::OneWay(address)),
            (Some(_), _) if args.writer.is_some() => Err(Failure::usage(
                "the conversation with this contact has begun, and who writes in it does not change",
                "leave --as out; with its address, --as begins another conversation",
            )),
            (Some(contact), _) if !args.one_way => Ok(Recipient::Contact(contact)),
            (None, Some(address)) => Ok(Recipient::Owner {
                address,
                writer: args.writer.clone(),
            }),
            _ => Err(Failure::failed(
                "no address of this contact is known, so nothing can be sent to it one way",
                "leave --one-way out",
            )),
        }
    }
}

pub(super) async fn run(session: &Session, args: &SendArgs) -> Result<(), Failure> {
    let message = match words(args)? {
        (Some(to), text) => {
            let to = Reader::parse(to)?;
            let max = if args.one_way {
                MESSAGE_LEN_MAX
            } else {
                LETTER_LEN_MAX
            };
            let body = args.how.body(text, max)?;
            Some((to, body))
        }
        (None, _) => None,
    };
    args.how.check_life(session)?;
    let work = async |client: &Client| {
        let outgoing = match message {
            Some((to, body)) => Some(Outgoing {
                to: to.find(client, args).await?,
                body,
                life: args.how.expire_after,
            }),
            None => None,
        };
        send(session, client, outgoing, args.flush, args.how.watch()).await
    };
    session.with_client(Reach::Online, work).await
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
pub(super) struct Outgoing {
    pub(super) to: Recipient,
    pub(super) body: Vec<u8>,
    pub(super) life: Option<Duration>,
}

pub(super) async fn send(
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
    if let Some(Outgoing { to, body, life }) = message {
        watch.add(client.send_to(to, body, life).await?.id);
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

/// The reader and the text, either of which may stand after `--`.
fn words(args: &SendArgs) -> Result<(Option<&str>, Option<Text<'_>>), Failure> {
    let mut verbatim = args.verbatim.iter().map(String::as_str);
    let to = args.to.as_deref().or_else(|| verbatim.next());
    let text = args.text.as_deref().map(Text::of);
    let text = text.or_else(|| verbatim.next().map(Text::Here));
    match verbatim.next() {
        None if text.is_some() && args.how.file.is_some() => Err(Failure::usage(
            "there is a message beside the file that --file names",
            "leave one of the two out",
        )),
        None => Ok((to, text)),
        Some(_) => Err(Failure::usage(
            "there are words after the message",
            "put quotes around the whole message",
        )),
    }
}

/// Where the text of a message is.
pub(super) enum Text<'a> {
    Here(&'a str),
    Stdin,
}

impl<'a> Text<'a> {
    pub(super) fn of(word: &'a str) -> Self {
        if word == "-" {
            Self::Stdin
        } else {
            Self::Here(word)
        }
    }
}

impl How {
    pub(super) const fn life(&self) -> Option<Duration> {
        self.expire_after
    }

    /// Before anything is tried.
    pub(super) fn check_life(&self, session: &Session) -> Result<(), Failure> {
        if let Some(life) = self.expire_after {
            check_life(life, session.network()?.params.record_life)?;
        }
        Ok(())
    }

    pub(super) fn watch(&self) -> Watch {
        new_watch(self.wait, self.timeout)
    }

    /// The body to send, of at most `max` bytes.
    pub(super) fn body(&self, text: Option<Text<'_>>, max: usize) -> Result<Vec<u8>, Failure> {
        let body = self.read(text, max)?;
        if body.is_empty() && !self.allow_empty {
            return Err(Failure::usage(
                "the message is empty",
                "write something, or send it empty with --allow-empty",
            ));
        }
        Ok(body)
    }

    /// Memory holds at most as much as a message may have.
    fn read(&self, text: Option<Text<'_>>, max: usize) -> Result<Vec<u8>, Failure> {
        match (text, &self.file) {
            (_, Some(path)) => read_file(path, max),
            (Some(Text::Here(text)), None) if text.len() > max => {
                Err(Failure::too_long(max, Some(text.len() as u64)))
            }
            (Some(Text::Here(text)), None) => Ok(text.as_bytes().to_vec()),
            (Some(Text::Stdin) | None, None) => {
                // Without a prompt a user may take it for the question for a passphrase.
                if io::stdin().is_terminal() {
                    output::say("Type the message, then press Ctrl-D on an empty line:");
                }
                read_body(io::stdin().lock(), max, |error| {
                    Failure::failed(
                        format!("could not read standard input: {error}"),
                        "check where the input comes from",
                    )
                })
            }
        }
    }
}

fn read_file(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
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
    if len.is_some_and(|len| len > max as u64) {
        return Err(Failure::too_long(max, len));
    }
    read_body(file, max, unreadable)
}

fn read_body(
    from: impl Read,
    max: usize,
    unreadable: impl FnOnce(io::Error) -> Failure,
) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    from.take(max as u64 + 1)
        .read_to_end(&mut body)
        .map_err(unreadable)?;
    if body.len() > max {
        Err(Failure::too_long(max, None))
    } else {
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_as_an_address_does_is_no_name() {
        let is_name = |text| matches!(Reader::parse(text), Ok(Reader::Name(_)));
        assert!(is_name("bob") && is_name(" lemon-sky-ocean ") && is_name("umbel"));
        for text in ["umbel1", "UMBEL1qqqq", "umbel1 "] {
            assert_eq!(
                Reader::parse(text).err().map(|it| it.exit),
                Some(Exit::Usage)
            );
        }
    }

    #[test]
    fn a_reader_that_has_ended_hears_that_the_message_was_sent() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
            let failure = unreported(&output::unwritten(&kind.into()));
            assert_eq!(failure.exit, Exit::Unwritten);
            assert!(failure.error.starts_with("the message was sent, but"));
        }
    }
}
