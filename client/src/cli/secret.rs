//! Where a passphrase comes from: the file that `UMBEL_PASSPHRASE_FILE` names, or the terminal.

use std::io::{self, IsTerminal};
use std::path::Path;

use umbel_client::{PASSPHRASE_LEN_MIN, Passphrase};

use super::failure::Failure;
use super::session::Session;

const PASSPHRASE_FILE: &str = "UMBEL_PASSPHRASE_FILE";

/// The passphrase of a profile that is there.
pub(super) fn existing(session: &Session) -> Result<Passphrase, Failure> {
    if let Some(passphrase) = from_file(session)? {
        return Ok(passphrase);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::failed(
            "the profile has a passphrase, and there is no terminal to ask for it",
            format!("name a file that holds it in {PASSPHRASE_FILE}"),
        ));
    }
    prompt("Passphrase: ")
}

/// A passphrase for a new profile, typed twice, that is not easily guessed.
pub(super) fn new(session: &Session) -> Result<Passphrase, Failure> {
    if let Some(passphrase) = from_file(session)? {
        return strong(passphrase);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "a new profile needs a passphrase or a key file, and there is no terminal to ask for one",
            format!(
                "name a file with the passphrase in {PASSPHRASE_FILE}, or make a key file with --key-file PATH"
            ),
        ));
    }
    let first = strong(prompt(&format!(
        "New passphrase (at least {PASSPHRASE_LEN_MIN} characters): "
    ))?)?;
    let again = prompt("Repeat the passphrase: ")?;
    if first.is_same(&again) {
        Ok(first)
    } else {
        Err(Failure::failed(
            "the two passphrases are not the same",
            "run the command again",
        ))
    }
}

fn strong(passphrase: Passphrase) -> Result<Passphrase, Failure> {
    if passphrase.is_guessable() {
        return Err(Failure::usage(
            "the passphrase is too easy to guess for anyone who gets a copy of the profile",
            format!(
                "take {PASSPHRASE_LEN_MIN} characters or more, not the same few again and again: four or five words \
                 drawn at random are good; or have a random key made with --key-file PATH"
            ),
        ));
    }
    Ok(passphrase)
}

/// Warns of a secret that other users of this computer can read.
pub(super) fn warn_if_shared(session: &Session, path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.is_file()
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
    {
        let shown = path.display();
        session.warn(&format!(
            "others on this computer may read {shown}, which opens the profile: chmod 600 {shown}"
        ));
    }
    #[cfg(not(unix))]
    let _ = (session, path);
}

fn from_file(session: &Session) -> Result<Option<Passphrase>, Failure> {
    let Some(path) = std::env::var_os(PASSPHRASE_FILE) else {
        return Ok(None);
    };
    let path = Path::new(&path);
    warn_if_shared(session, path);
    Passphrase::read(path).map(Some).map_err(|error| {
        Failure::failed(
            format!("could not read the passphrase from {}: {error}", path.display()),
            format!("check the file that {PASSPHRASE_FILE} names: it holds the passphrase and nothing else"),
        )
    })
}

fn prompt(text: &str) -> Result<Passphrase, Failure> {
    let typed = rpassword::prompt_password(text).map_err(|error| {
        Failure::failed(
            format!("could not ask for the passphrase: {error}"),
            "run the command on a terminal",
        )
    })?;
    Passphrase::new(typed).ok_or_else(|| {
        Failure::failed(
            "the passphrase is empty",
            "run the command again and type one",
        )
    })
}
