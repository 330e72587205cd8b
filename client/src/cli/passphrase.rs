//! `umbel passphrase`: another passphrase or key file for the profile. Needs no network.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use umbel_client::{NewKey, Profile};

use super::failure::Failure;
use super::init::loss_words;
use super::secret;
use super::session::Session;

#[derive(Subcommand)]
pub(super) enum PassphraseCommand {
    /// Change the passphrase, or have a key file open the profile instead
    ///
    /// Writes the whole profile under the new key. If it is interrupted, the old passphrase opens the
    /// profile, or the new one. A copy or a backup of the profile that was made before still opens
    /// with the old passphrase.
    #[command(after_help = FILES)]
    Change(ChangeArgs),
}

const FILES: &str = "\
umbel asks for both passphrases on the terminal, or reads the old one from the file that UMBEL_PASSPHRASE_FILE names, and \
the new one from the file that UMBEL_NEW_PASSPHRASE_FILE names.";

#[derive(clap::Args)]
pub(super) struct ChangeArgs {
    /// Write a random key to this new file, which opens the profile then, instead of asking for a
    /// passphrase
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Changed {
    profile: String,
    /// None where a passphrase opens the profile.
    key_file: Option<String>,
    /// The key file that opens it no more.
    old_key_file: Option<String>,
}

pub(super) fn run(session: &Session, command: PassphraseCommand) -> Result<(), Failure> {
    let PassphraseCommand::Change(args) = command;
    // Before the new passphrase is asked for: the old one may be wrong, or the profile in use.
    let change = session.profile()?.begin_key_change()?;
    let old = change.old_key_file().map(Path::to_owned);
    let new = match args.key_file {
        Some(path) => NewKey::File(path),
        None => NewKey::Passphrase(secret::new(session, &secret::NEW)?),
    };
    session.show("writing the profile under its new key");
    let changed = change.finish(new, &mut rand::rng());
    session.show_nothing();
    changed?;
    tell(session, old.as_deref())
}

fn tell(session: &Session, old: Option<&Path>) -> Result<(), Failure> {
    let dir = session.profile_dir()?;
    let profile = Profile::load(&dir)?;
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    if session.is_json() {
        return session.json(&Changed {
            profile: shown(&dir),
            key_file: profile.key_file().map(shown),
            old_key_file: old.map(shown),
        });
    }
    session.line(match profile.key_file() {
        Some(_) => "Changed: a new key opens the profile, and the old passphrase or key no longer does.",
        None => "Changed: the new passphrase opens the profile, and the old one or the key file no longer does.",
    })?;
    if let Some(old) = old {
        session.line(&format!(
            "Delete {}, unless an older copy of the profile needs it.",
            old.display()
        ))?;
    }
    session.line(&loss_words(profile.key_file()))
}
