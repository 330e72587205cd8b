//! Where a passphrase comes from: the file that an environment variable names, or the terminal.

use std::io::{self, IsTerminal};
use std::path::Path;

use umbel_client::{PASSPHRASE_LEN_MIN, Passphrase};

use super::failure::Failure;
use super::session::Session;

/// One of the passphrases that a command may take.
pub(super) struct Kind {
    /// Names a file with it.
    variable: &'static str,
    /// What has it.
    of: &'static str,
    /// What the user is asked for.
    prompt: &'static str,
    /// The option that makes a key file instead.
    key_option: &'static str,
}

/// That of the profile.
pub(super) const PROFILE: Kind = Kind {
    variable: "UMBEL_PASSPHRASE_FILE",
    of: "profile",
    prompt: "passphrase",
    key_option: "--key-file",
};

/// That which the profile is to have instead.
pub(super) const NEW: Kind = Kind {
    variable: "UMBEL_NEW_PASSPHRASE_FILE",
    of: "profile",
    prompt: "passphrase",
    key_option: "--key-file",
};

/// A passphrase of something that is there.
pub(super) fn existing(session: &Session, kind: &Kind) -> Result<Passphrase, Failure> {
    if let Some(passphrase) = from_file(session, kind)? {
        return Ok(passphrase);
    }
    let Kind {
        variable,
        of,
        prompt: name,
        ..
    } = kind;
    if !io::stdin().is_terminal() {
        return Err(Failure::failed(
            format!("the {of} has a passphrase, and there is no terminal to ask for it"),
            format!("name a file that holds it in {variable}"),
        ));
    }
    prompt(&format!("{}: ", capitalised(name)))
}

/// A new passphrase, typed twice, that is not easily guessed.
pub(super) fn new(session: &Session, kind: &Kind) -> Result<Passphrase, Failure> {
    if let Some(passphrase) = from_file(session, kind)? {
        return strong(passphrase, kind);
    }
    let Kind {
        variable,
        of,
        prompt: name,
        ..
    } = kind;
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            format!(
                "a new {of} needs a passphrase or a key file, and there is no terminal to ask for one"
            ),
            format!(
                "name a file with the passphrase in {variable}, or make a key file with {} PATH",
                kind.key_option
            ),
        ));
    }
    let first = strong(
        prompt(&format!(
            "New {name} (at least {PASSPHRASE_LEN_MIN} characters): "
        ))?,
        kind,
    )?;
    let again = prompt(&format!("Repeat the {name}: "))?;
    if first.is_same(&again) {
        Ok(first)
    } else {
        Err(Failure::failed(
            "the two passphrases are not the same",
            "run the command again",
        ))
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn strong(passphrase: Passphrase, kind: &Kind) -> Result<Passphrase, Failure> {
    if passphrase.is_guessable() {
        let Kind { of, key_option, .. } = kind;
        return Err(Failure::usage(
            format!("the passphrase is too easy to guess for anyone who gets a copy of the {of}"),
            format!(
                "take {PASSPHRASE_LEN_MIN} characters or more, not the same few again and again: four or five words \
                 drawn at random are good; or have a random key made with {key_option} PATH"
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

fn from_file(session: &Session, kind: &Kind) -> Result<Option<Passphrase>, Failure> {
    let variable = kind.variable;
    let Some(path) = std::env::var_os(variable) else {
        return Ok(None);
    };
    let path = Path::new(&path);
    warn_if_shared(session, path);
    Passphrase::read(path).map(Some).map_err(|error| {
        Failure::failed(
            format!(
                "could not read the passphrase from {}: {error}",
                path.display()
            ),
            format!(
                "check the file that {variable} names: it holds the passphrase and nothing else"
            ),
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
