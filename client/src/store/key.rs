//! The key of a profile: a passphrase stretched by Argon2id, or a file with a random key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use rand::CryptoRng;
use umbel_proto::crypto::passphrase::{PassphraseCost, StretchError, stretch};
use umbel_relay::shell::files::write_whole;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of a database key, bytes.
const KEY_LEN: usize = 32;
/// Fewest characters of a passphrase for a new profile: with Argon2id's cost for each guess, twelve
/// random letters last for centuries, eight for days.
pub const PASSPHRASE_LEN_MIN: usize = 12;
/// Fewest different characters in it.
const DISTINCT_MIN: usize = 5;

/// The passphrase that the user types. Not `Clone`, not `Debug`, wiped on drop.
#[derive(ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "a secret")]
pub struct Passphrase(String);

impl Passphrase {
    /// Takes a passphrase as it was typed or read; one line ending is taken off its end. `None`
    /// when nothing is left.
    pub fn new(mut text: String) -> Option<Self> {
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        let passphrase = Self(text);
        if passphrase.0.is_empty() {
            None
        } else {
            Some(passphrase)
        }
    }

    /// Reads a passphrase from a file: all of it, without the line ending at its end.
    ///
    /// # Errors
    /// The file can't be read, is empty, or is not UTF-8.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        Self::new(text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file is empty"))
    }

    /// Whether someone with a copy of the profile could guess it, however slow each guess is made:
    /// it is too short, or made of a few characters.
    pub fn is_guessable(&self) -> bool {
        let mut seen = Vec::with_capacity(DISTINCT_MIN);
        for character in self.0.chars() {
            if seen.len() < DISTINCT_MIN && !seen.contains(&character) {
                seen.push(character);
            }
        }
        let is_guessable = self.0.chars().count() < PASSPHRASE_LEN_MIN || seen.len() < DISTINCT_MIN;
        seen.zeroize();
        is_guessable
    }

    /// Whether two passphrases typed one after the other are the same. No secret is compared with a
    /// guess here.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// The key of a profile's database. Not `Clone`, not `Debug`, wiped on drop.
#[derive(ZeroizeOnDrop)]
pub(crate) struct DatabaseKey([u8; KEY_LEN]);

impl DatabaseKey {
    /// The key that this passphrase gives with this salt.
    pub(crate) fn from_passphrase(
        passphrase: &Passphrase,
        salt: &[u8; 16],
        cost: PassphraseCost,
    ) -> Result<Self, StretchError> {
        let mut key = Self([0; KEY_LEN]);
        stretch(passphrase.0.as_bytes(), salt, cost, &mut key.0)?;
        Ok(key)
    }

    /// A new random key.
    pub(crate) fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self([0; KEY_LEN]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// Writes it to a key file, readable by its owner only. Never overwrites.
    pub(crate) fn write_file(&self, path: &Path) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_LEN + 1));
        HEXLOWER_PERMISSIVE.encode_append(&self.0, &mut text);
        text.push('\n');
        write_whole(path, text.as_bytes(), false)
    }

    /// Reads a key file.
    pub(crate) fn read_file(path: &Path) -> io::Result<Self> {
        let fault = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "not a key file: 64 hexadecimal digits are expected",
            )
        };
        let text = Zeroizing::new(fs::read_to_string(path)?);
        let bytes = Zeroizing::new(
            HEXLOWER_PERMISSIVE
                .decode(text.trim_end().as_bytes())
                .map_err(|_| fault())?,
        );
        let key: &[u8; KEY_LEN] = bytes.as_slice().try_into().map_err(|_| fault())?;
        Ok(Self(*key))
    }

    /// The statement that gives SQLCipher the key as it is, without another stretching.
    pub(crate) fn pragma(&self) -> Zeroizing<String> {
        self.statement("key")
    }

    /// The statement that makes this the key of an open database.
    pub(crate) fn rekey_pragma(&self) -> Zeroizing<String> {
        self.statement("rekey")
    }

    fn statement(&self, pragma: &str) -> Zeroizing<String> {
        let hex = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&self.0));
        let mut sql = Zeroizing::new(String::with_capacity(96));
        for part in ["PRAGMA ", pragma, " = \"x'", &hex, "'\""] {
            sql.push_str(part);
        }
        sql
    }
}

/// Where a profile's key comes from, when the profile is made.
#[expect(missing_debug_implementations, reason = "may hold a passphrase")]
pub enum NewKey {
    /// Stretched from this passphrase each time.
    Passphrase(Passphrase),
    /// A random key in a new file here.
    File(PathBuf),
}
