//! How contacts are found, and how they appear in output: names that others chose, or that look like
//! others', are marked.

use serde::Serialize;
use umbel_client::display;
use umbel_client::{Client, ContactEntry, ContactError, Correspondent, Library, Verified};

use super::failure::Failure;

/// Who wrote a message, in JSON.
#[derive(Serialize)]
pub(super) struct From {
    /// Names the contact in this profile.
    contact: String,
    /// The name that the user gave it; none of a stranger.
    name: Option<String>,
    words: String,
    is_stranger: bool,
    verified: bool,
    /// It was verified, and is somebody else since.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    has_changed: bool,
}

impl From {
    pub(super) fn new(contact: &ContactEntry) -> Self {
        Self {
            contact: contact.key.to_string(),
            name: contact.name.clone(),
            words: contact.words.clone(),
            is_stranger: contact.card.is_stranger,
            verified: contact.verified == Verified::Yes,
            has_changed: contact.verified == Verified::Changed,
        }
    }
}

/// How a contact is called, with what people should know beside that.
pub(super) fn called(contact: &ContactEntry) -> String {
    let mut marks = Vec::new();
    if contact.card.is_stranger {
        marks.push("stranger");
    }
    match contact.verified {
        Verified::Yes => marks.push("verified"),
        Verified::Changed => marks.push("NO LONGER VERIFIED: somebody else may be there"),
        Verified::No => {}
    }
    if contact.card.is_blocked {
        marks.push("blocked");
    }
    let name = display::name(contact.label());
    if marks.is_empty() {
        name
    } else {
        format!("{name} ({})", marks.join(", "))
    }
}

/// As an argument of a command that is shown to people: a name with blanks in quotes.
pub(super) fn argument(contact: &ContactEntry) -> String {
    let name = display::name(contact.label());
    if name.contains(|character: char| !character.is_alphanumeric() && character != '-') {
        format!("'{}'", name.replace('\'', "'\\''"))
    } else {
        name
    }
}

/// Who this name stands for.
pub(super) async fn find(client: &Client, name: &str) -> Result<Correspondent, Failure> {
    client
        .contact(name)
        .await
        .map_err(|error| unfound(name, error))
}

/// The same, without a network.
pub(super) fn find_in(library: &Library, name: &str) -> Result<Correspondent, Failure> {
    library.contact(name).map_err(|error| unfound(name, error))
}

/// The contact of this name; one that was not written to is none yet.
pub(super) fn contact_in(library: &Library, name: &str) -> Result<Box<ContactEntry>, Failure> {
    match find_in(library, name)? {
        Correspondent::Contact(contact) => Ok(contact),
        Correspondent::Address { .. } => Err(ContactError::NotBegun.into()),
    }
}

fn unfound(name: &str, error: ContactError) -> Failure {
    match error {
        ContactError::Missing => Failure::usage(
            format!(
                "\"{}\" is neither a contact nor an address",
                display::name(name)
            ),
            "`umbel contact list` shows the contacts; an address begins with umbel1",
        ),
        error => error.into(),
    }
}
