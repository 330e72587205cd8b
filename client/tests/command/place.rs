//! A directory for each test, and the command in it.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::ended::{code, stderr, umbel};

/// A peer that nobody is.
pub(crate) const SEED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:1";

/// A directory of its own for each test, and the command in it.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn profile(&self) -> PathBuf {
        self.dir.path().join("profile")
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        umbel(self.dir.path(), words)
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// A profile with a key file and a seed that nobody answers for.
    pub(crate) fn with_profile() -> Self {
        let place = Self::new();
        let key = place.profile().join("key");
        let made = place.run(&["init", "--seed", SEED, "--key-file", key.to_str().unwrap()]);
        assert_eq!(code(&made), 0, "{made:?}");
        place
    }
}

/// The error that `--json` gives: the last line on standard error, with what is wrong and what to
/// do.
pub(crate) fn json_error(output: &Output) -> (String, String) {
    let line: Value = serde_json::from_str(stderr(output).lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{output:?}"));
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    let (error, hint) = (text("error"), text("hint"));
    assert!(!error.is_empty() && !hint.is_empty());
    (error, hint)
}

pub(crate) fn address() -> String {
    umbel_proto::inbox::address::InboxIdentity::from_seed(&[3; 32])
        .address()
        .to_text()
}
