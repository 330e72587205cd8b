//! `umbel contact`: the people that one writes with.

use std::io::{self, IsTerminal};

use serde::Serialize;
use umbel_client::display;
use umbel_client::{Client, ContactEntry, ContactError, Correspondent, Library, Reach, Verified};
use umbel_proto::inbox::address::InboxAddress;

use super::failure::Failure;
use super::session::Session;
use super::{output, people};

/// Groups of digits of a safety number on one line.
const GROUPS_A_LINE: usize = 4;

#[derive(clap::Subcommand)]
pub(super) enum ContactCommand {
    /// List contacts, and strangers apart; needs no network
    List,
    /// Show a contact; needs no network
    Show {
        /// Its name or words
        name: String,
    },
    /// Give an address a name; needs no network
    Add {
        /// The name
        name: String,
        /// The address, as its owner gave it to you
        address: String,
    },
    /// Give a contact another name; needs no network
    Rename {
        /// Its name or words
        name: String,
        /// The new name
        new: String,
    },
    /// Show the 60 digits that both sides compare, and note that they did; needs no network
    Verify(VerifyArgs),
    /// Read nothing more that a contact writes
    Block {
        /// Its name or words
        name: String,
    },
    /// Read again what a contact writes
    Unblock {
        /// Its name or words
        name: String,
    },
    /// Forget a contact: its keys, all messages of its conversation, and what waits for it
    Remove {
        /// Its name or words
        name: String,
        /// Skip confirmation; implied by --json or when stdin is not a terminal
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(clap::Args)]
pub(super) struct VerifyArgs {
    /// Its name or words
    name: String,
    /// Note that both sides saw the same digits, without a question
    #[arg(long, short)]
    yes: bool,
    /// Note that it is not verified any more
    #[arg(long, conflicts_with = "yes")]
    undo: bool,
}

#[derive(Serialize)]
struct Line {
    /// Names it in this profile; none of an address that was not written to.
    contact: Option<String>,
    name: Option<String>,
    words: Option<String>,
    /// None where its owner has not shown it.
    address: Option<String>,
    /// The own inbox that the conversation belongs to.
    inbox: Option<String>,
    is_stranger: bool,
    is_blocked: bool,
    verified: bool,
    /// It was verified, and is somebody else since.
    has_changed: bool,
    unread: u64,
    added_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_number: Option<String>,
}

impl Line {
    fn of_contact(contact: &ContactEntry) -> Self {
        Self {
            contact: Some(contact.key.to_string()),
            name: contact.name.clone(),
            words: Some(contact.words.clone()),
            address: contact.card.address.map(|address| address.to_text()),
            inbox: contact.card.inbox.clone(),
            is_stranger: contact.card.is_stranger,
            is_blocked: contact.card.is_blocked,
            verified: contact.verified == Verified::Yes,
            has_changed: contact.verified == Verified::Changed,
            unread: contact.unread,
            added_at: Some(output::rfc3339(contact.added_at)),
            safety_number: None,
        }
    }

    fn of_address(name: &str, address: &InboxAddress) -> Self {
        Self {
            contact: None,
            name: Some(name.to_owned()),
            words: None,
            address: Some(address.to_text()),
            inbox: None,
            is_stranger: false,
            is_blocked: false,
            verified: false,
            has_changed: false,
            unread: 0,
            added_at: None,
            safety_number: None,
        }
    }

    fn with_number(contact: &ContactEntry) -> Self {
        Self {
            safety_number: contact.safety_number.map(|number| number.to_string()),
            ..Self::of_contact(contact)
        }
    }
}

pub(super) async fn run(session: &Session, command: &ContactCommand) -> Result<(), Failure> {
    match command {
        ContactCommand::List => list(session),
        ContactCommand::Show { name } => show(session, &session.library()?, name),
        ContactCommand::Add { name, address } => add(session, name, address),
        ContactCommand::Rename { name, new } => rename(session, name, new),
        ContactCommand::Verify(args) => verify(session, args),
        ContactCommand::Block { name } => block(session, name, true).await,
        ContactCommand::Unblock { name } => block(session, name, false).await,
        ContactCommand::Remove { name, yes } => remove(session, name, *yes).await,
    }
}

fn list(session: &Session) -> Result<(), Failure> {
    let library = session.library()?;
    let (strangers, contacts): (Vec<_>, Vec<_>) = library
        .contacts()?
        .into_iter()
        .partition(|contact| contact.card.is_stranger);
    let named = library.named_addresses()?;
    if session.is_json() {
        for contact in contacts.iter().chain(&strangers) {
            session.json(&Line::of_contact(contact))?;
        }
        return named
            .iter()
            .try_for_each(|(name, address)| session.json(&Line::of_address(name, address)));
    }
    if contacts.is_empty() && strangers.is_empty() && named.is_empty() {
        return session
            .line("There is no contact yet: `umbel send ADDRESS` begins a conversation.");
    }
    for contact in &contacts {
        session.line(&as_text(contact))?;
    }
    for (name, address) in &named {
        let name = display::name(name);
        session.line(&format!(
            "{name}  {}  not written to yet",
            address.to_text()
        ))?;
    }
    if !strangers.is_empty() {
        session.line("Strangers, who wrote and were never answered:")?;
    }
    strangers
        .iter()
        .try_for_each(|contact| session.line(&format!("  {}", as_text(contact))))
}

fn as_text(contact: &ContactEntry) -> String {
    let address = contact
        .card
        .address
        .map_or_else(|| "address unknown".to_owned(), |it| it.to_text());
    let unread = match contact.unread {
        0 => String::new(),
        unread => format!("  {unread} unread"),
    };
    format!("{}  {address}{unread}", people::called(contact))
}

fn show(session: &Session, library: &Library, name: &str) -> Result<(), Failure> {
    match people::find_in(library, name)? {
        Correspondent::Address { name, address } if session.is_json() => {
            session.json(&Line::of_address(&name, &address))
        }
        Correspondent::Address { name, address } => {
            let name = display::name(&name);
            session.line(&format!(
                "{name}  not written to yet\n{}",
                address.to_text()
            ))
        }
        Correspondent::Contact(contact) if session.is_json() => {
            session.json(&Line::with_number(&contact))
        }
        Correspondent::Contact(contact) => session.line(&in_full(&contact)),
    }
}

fn in_full(contact: &ContactEntry) -> String {
    let mut lines = vec![as_text(contact)];
    lines.push(format!("words     {}", contact.words));
    if let Some(inbox) = &contact.card.inbox {
        lines.push(format!("inbox     {}", display::name(inbox)));
    }
    lines.push(format!("since     {}", output::rfc3339(contact.added_at)));
    lines.push(format!("key       {}", contact.key));
    if let Some(number) = contact.safety_number {
        lines.push(format!("verify by {number}"));
    }
    lines.join("\n")
}

fn add(session: &Session, name: &str, address: &str) -> Result<(), Failure> {
    let address: InboxAddress = address.trim().parse()?;
    let mut library = session.library()?;
    library.add_contact(name, address)?;
    if session.is_json() {
        return show(session, &library, name);
    }
    session.line(&format!("{} is {}", display::name(name), address.to_text()))
}

fn rename(session: &Session, name: &str, new: &str) -> Result<(), Failure> {
    let mut library = session.library()?;
    let who = people::find_in(&library, name)?;
    library.rename(&who, new)?;
    if session.is_json() {
        return show(session, &library, new);
    }
    let before = match &who {
        Correspondent::Contact(contact) => contact.label(),
        Correspondent::Address { name, .. } => name,
    };
    session.line(&format!(
        "{} is called {} now",
        display::name(before),
        display::name(new)
    ))
}

fn verify(session: &Session, args: &VerifyArgs) -> Result<(), Failure> {
    let library = session.library()?;
    let contact = people::contact_in(&library, &args.name)?;
    let Some(number) = contact.safety_number else {
        return Err(ContactError::NotBegun.into());
    };
    if !session.is_json() {
        session.line(&format!(
            "{}\n{}",
            people::called(&contact),
            in_lines(&number.to_string())
        ))?;
    }
    match () {
        () if args.undo => library.verify(&contact, false)?,
        () if args.yes || is_confirmed(session, &contact)? => library.verify(&contact, true)?,
        () => {}
    }
    say_verified(session, &library, &contact)
}

/// Asks whether both sides see the same, where somebody can answer.
fn is_confirmed(session: &Session, contact: &ContactEntry) -> Result<bool, Failure> {
    if session.is_json() || !io::stdin().is_terminal() || contact.verified == Verified::Yes {
        return Ok(false);
    }
    let question = "Compare these digits with the other side, in person or by a call. Does it see the same? [y/N] ";
    session.ask(question)
}

fn say_verified(
    session: &Session,
    library: &Library,
    contact: &ContactEntry,
) -> Result<(), Failure> {
    let contact = library
        .contact_of(contact.key)?
        .ok_or(ContactError::Missing)?;
    if session.is_json() {
        return session.json(&Line::with_number(&contact));
    }
    session.line(match contact.verified {
        Verified::Yes => "Verified.",
        Verified::No => "Not verified: once both sides see the same digits, say so with --yes.",
        Verified::Changed => {
            "NO LONGER VERIFIED: these digits are not those that you compared. Compare them anew."
        }
    })
}

/// The digits, as people read them to each other.
fn in_lines(number: &str) -> String {
    let groups: Vec<&str> = number.split(' ').collect();
    let lines = groups.chunks(GROUPS_A_LINE);
    let lines: Vec<String> = lines
        .map(|line| format!("    {}", line.join(" ")))
        .collect();
    lines.join("\n")
}

async fn block(session: &Session, name: &str, is_blocked: bool) -> Result<(), Failure> {
    let work = async |client: &Client| {
        let contact = find(client, name).await?;
        client.block(contact.key, is_blocked).await?;
        let contact = client.contact_of(contact.key).await?;
        contact.ok_or_else(|| Failure::from(ContactError::Missing))
    };
    let contact = session.with_client(Reach::Offline, work).await?;
    if session.is_json() {
        return session.json(&Line::of_contact(&contact));
    }
    let name = display::name(contact.label());
    session.line(&if is_blocked {
        format!("{name} is blocked: nothing more that it writes is read")
    } else {
        format!("{name} is not blocked")
    })
}

async fn find(client: &Client, name: &str) -> Result<Box<ContactEntry>, Failure> {
    match people::find(client, name).await? {
        Correspondent::Contact(contact) => Ok(contact),
        Correspondent::Address { .. } => Err(ContactError::NotBegun.into()),
    }
}

#[derive(Serialize)]
struct Removed {
    removed: String,
    contact: Option<String>,
}

async fn remove(session: &Session, name: &str, is_sure: bool) -> Result<(), Failure> {
    // Before the profile is opened: a prompt is better interrupted by the system.
    if !is_sure && !is_removal_confirmed(session, name)? {
        return session.line("Nothing was removed.");
    }
    let work = async |client: &Client| {
        let who = people::find(client, name).await?;
        match &who {
            Correspondent::Contact(contact) => client.remove_contact(contact.key).await?,
            Correspondent::Address { address, .. } => client.forget_address(*address).await?,
        }
        Ok(who)
    };
    match session.with_client(Reach::Offline, work).await? {
        Correspondent::Contact(contact) => {
            let key = contact.key.to_string();
            say_removed(session, contact.label().to_owned(), Some(key))
        }
        Correspondent::Address { name, .. } => say_removed(session, name, None),
    }
}

fn is_removal_confirmed(session: &Session, name: &str) -> Result<bool, Failure> {
    if session.is_json() || !io::stdin().is_terminal() {
        return Ok(true);
    }
    session.ask(&format!(
        "Remove {} and all messages of the conversation? [y/N] ",
        display::name(name)
    ))
}

fn say_removed(session: &Session, removed: String, contact: Option<String>) -> Result<(), Failure> {
    if session.is_json() {
        return session.json(&Removed { removed, contact });
    }
    session.line(&format!("{} was removed", display::name(&removed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_digits_are_read_in_three_lines() {
        let number = ["01234"; 12].join(" ");
        let line = "    01234 01234 01234 01234";
        assert_eq!(in_lines(&number), [line; 3].join("\n"));
    }
}
