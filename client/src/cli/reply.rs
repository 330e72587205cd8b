//! `umbel reply`: answer a message, or go on with a conversation.

use umbel_client::core::io::{ContactKey, Recipient};
use umbel_client::{Client, ContactError, Correspondent, Reach};
use umbel_proto::inbox::record::LETTER_LEN_MAX;

use super::failure::Failure;
use super::send::{self, How, Outgoing, Text};
use super::session::Session;
use super::{mail, people};

#[derive(clap::Args)]
pub(super) struct ReplyArgs {
    /// The id of a message that came, or a prefix of it; or a contact's name or words
    #[arg(value_name = "ID|NAME")]
    to: String,
    /// The answer; with `-`, or without it, umbel reads standard input; write `--` before one that
    /// begins with a dash
    #[arg(conflicts_with = "file")]
    text: Option<String>,
    #[command(flatten)]
    how: How,
}

pub(super) async fn run(session: &Session, args: &ReplyArgs) -> Result<(), Failure> {
    let text = args.text.as_deref().map(Text::of);
    let body = args.how.body(text, LETTER_LEN_MAX)?;
    args.how.check_life(session)?;
    let work = async |client: &Client| {
        let outgoing = Outgoing {
            to: find(client, &args.to).await?,
            body,
            life: args.how.life(),
        };
        send::send(session, client, Some(outgoing), false, args.how.watch()).await
    };
    session.with_client(Reach::Online, work).await
}

/// A name goes before an id, and an id before the key of a contact.
async fn find(client: &Client, to: &str) -> Result<Recipient, Failure> {
    let is_id = !to.is_empty() && to.chars().all(|digit| digit.is_ascii_hexdigit());
    match client.contact(to).await {
        Ok(Correspondent::Contact(contact)) if contact.label() == to || !is_id => {
            Ok(Recipient::Contact(contact.key))
        }
        Ok(Correspondent::Address { address, .. }) => Ok(Recipient::Owner {
            address,
            writer: None,
        }),
        Ok(Correspondent::Contact(contact)) => {
            let writer = writer_of(client, to).await?;
            Ok(Recipient::Contact(writer.unwrap_or(contact.key)))
        }
        Err(ContactError::Missing | ContactError::Ambiguous(_)) if is_id => {
            let writer = writer_of(client, to).await?;
            writer.map(Recipient::Contact).ok_or_else(|| {
                Failure::failed(
                    format!("no message has an id that begins with {to}"),
                    "`umbel list --all` shows the messages that are kept, `umbel contact list` the contacts",
                )
            })
        }
        Err(_) => Err(people::find(client, to)
            .await
            .err()
            .unwrap_or_else(|| ContactError::Missing.into())),
    }
}

/// Who wrote the one message whose id begins so.
async fn writer_of(client: &Client, digits: &str) -> Result<Option<ContactKey>, Failure> {
    let mut found = client.messages_named(&mail::id_digits(digits)?).await?;
    let Some(message) = found.pop() else {
        return Ok(None);
    };
    if !found.is_empty() {
        return Err(Failure::usage(
            format!("several messages have an id that begins with {digits}"),
            "write more of the id",
        ));
    }
    let contact = message.conversation.map(|it| it.contact);
    contact.map(Some).ok_or_else(|| {
        Failure::failed(
            "this message left no way back: its writer sent it one way",
            "it can't be answered, unless its writer told you an address: `umbel send ADDRESS`",
        )
    })
}
