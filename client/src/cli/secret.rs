//! Where a passphrase comes from: the file that `UMBEL_PASSPHRASE_FILE` names, or the terminal.

use std::io::{self, IsTerminal};
use std::path::Path;

use umbel_client::Passphrase;

use super::failure::Failure;

const PASSPHRASE_FILE: &str = "UMBEL_PASSPHRASE_FILE";

/// The passphrase of a profile that is there.
pub(super) fn existing() -> Result<Passphrase, Failure> {
    if let Some(passphrase) = from_file()? {
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

/// A passphrase for a new profile, typed twice.
pub(super) fn new() -> Result<Passphrase, Failure> {
    if let Some(passphrase) = from_file()? {
        return Ok(passphrase);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "a new profile needs a passphrase or a key file, and there is no terminal to ask for one",
            format!(
                "name a file with the passphrase in {PASSPHRASE_FILE}, or have a key file made with --key-file PATH"
            ),
        ));
    }
    let first = prompt("New passphrase: ")?;
    let again = prompt("The same again: ")?;
    if first.is_same(&again) {
        Ok(first)
    } else {
        Err(Failure::failed("the two passphrases are not the same", "run the command again"))
    }
}

fn from_file() -> Result<Option<Passphrase>, Failure> {
    let Some(path) = std::env::var_os(PASSPHRASE_FILE) else { return Ok(None) };
    let path = Path::new(&path);
    Passphrase::read(path).map(Some).map_err(|error| {
        Failure::failed(
            format!("could not read the passphrase from {}: {error}", path.display()),
            format!("check the file that {PASSPHRASE_FILE} names: it holds the passphrase and nothing else"),
        )
    })
}

fn prompt(text: &str) -> Result<Passphrase, Failure> {
    let typed = rpassword::prompt_password(text).map_err(|error| {
        Failure::failed(format!("could not ask for the passphrase: {error}"), "run the command on a terminal")
    })?;
    Passphrase::new(typed)
        .ok_or_else(|| Failure::failed("the passphrase is empty", "run the command again and type one"))
}
