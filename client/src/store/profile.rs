//! A profile: one directory with a database, a lock and `profile.toml`.
//!
//! ```text
//! DIR            readable by its owner only
//!   profile.toml network, seeds, and where the database's key comes from; no secret
//!   profile.db   SQLCipher: guards, relays, inboxes, outbox, messages
//!   lock         held by the one process that has the profile's network
//!   guests       held by all others that talk with it
//!   .profile.db.init  the database while `umbel init` makes it
//!   key          a random key, unless there is a passphrase or the file is elsewhere
//! ```

mod init;
mod rekey;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use umbel_proto::crypto::passphrase::{PassphraseCost, StretchError};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::{Network, NetworkFault};
use umbel_relay::shell::Clock;
use umbel_relay::shell::files::{Watched, write_whole};

use super::database::{Database, DatabaseError};
use super::files::{self, FilesFault};
use super::key::{DatabaseKey, Passphrase};
use super::lock::LockFile;
use super::migrate::StepContext;
use super::unfinished;

pub use init::{InitError, NewProfile};
pub use rekey::{KeyChange, KeyChangeError};

pub(super) const CONFIG_FILE: &str = "profile.toml";
const DATABASE_FILE: &str = "profile.db";

/// The layout of a profile's directory that this program writes.
const PROFILE_VERSION: u32 = 1;

/// A profile could not be opened.
#[derive(Debug)]
pub enum ProfileError {
    /// There is none here.
    Missing(PathBuf),
    /// `profile.toml` is not what it should be.
    Config {
        /// Which file.
        path: PathBuf,
        /// The fault.
        fault: ConfigFault,
    },
    /// It has a passphrase and none was given.
    PassphraseNeeded,
    /// The passphrase does not open it, or its database is damaged.
    WrongPassphrase,
    /// The key file is not where profile.toml says, or can't be read.
    KeyFileUnreadable {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The key file does not open it, or its database is damaged.
    WrongKeyFile(PathBuf),
    /// There was a database once, and something is wrong with its files.
    Files(FilesFault),
    /// The system gives less memory than the passphrase takes.
    OutOfMemory {
        /// How much it takes.
        needed_mib: u32,
    },
    /// The world says no.
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The database says no.
    Database(DatabaseError),
}

/// A fault in `profile.toml`.
#[derive(Debug)]
pub enum ConfigFault {
    /// It is not TOML of the expected shape.
    Syntax(Box<toml::de::Error>),
    /// A newer program wrote it.
    TooNew(u32),
    /// A seed is not `<relay id>@host:port`.
    Seed(String),
    /// The salt is not 32 hexadecimal digits, or the cost is out of range.
    Key,
    /// The copy of the network file is wrong.
    Network(NetworkFault),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    version: u32,
    seeds: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    key: RawKey,
    /// The key that is to open it instead: only while it changes, or after that was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_key: Option<RawKey>,
}

impl RawConfig {
    /// These are the profile's own seeds from now on.
    pub(super) fn set_seeds(&mut self, seeds: &[Peer]) {
        self.seeds = seeds.iter().map(Peer::to_string).collect();
    }

    /// Writes it in the place of that in `dir`. After a crash there is one or the other.
    pub(super) fn replace_in(&self, dir: &Path) -> Result<(), ProfileError> {
        let path = dir.join(CONFIG_FILE);
        let attempt = |doing| {
            let path = path.clone();
            move |source| ProfileError::Io {
                doing,
                path,
                source,
            }
        };
        // A link to a file elsewhere stays one.
        let target = fs::canonicalize(&path).map_err(attempt("find"))?;
        toml::to_string(self)
            .map_err(io::Error::other)
            .and_then(|text| write_whole(&target, text.as_bytes(), true))
            .map_err(attempt("write"))
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum RawKey {
    /// Argon2id.
    Passphrase {
        salt: String,
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
    /// In the profile's directory, unless the path is absolute.
    File { path: PathBuf },
}

pub(super) enum KeySource {
    Passphrase {
        salt: [u8; 16],
        cost: PassphraseCost,
    },
    File(PathBuf),
}

/// What profile.toml says of a key, and where that key comes from.
struct KnownKey {
    raw: RawKey,
    source: KeySource,
}

/// What profile.toml says.
pub(super) struct Config {
    pub(super) network: Network,
    pub(super) seeds: Vec<Peer>,
    /// The key; while it changes, the old one and the new one, of which one opens the database.
    keys: Vec<KnownKey>,
}

/// A profile whose key is known, as soon as it has been given its passphrase. Opened with
/// [`crate::Client::open`], or [`crate::Library::open`] for what needs no network.
#[expect(missing_debug_implementations, reason = "may hold a passphrase")]
pub struct Profile {
    dir: PathBuf,
    network: Network,
    seeds: Vec<Peer>,
    own_relay: Option<RelayId>,
    keys: Vec<KnownKey>,
    passphrase: Option<Passphrase>,
}

/// The contents of an opened profile.
pub(crate) struct OpenProfile {
    pub(crate) dir: PathBuf,
    pub(crate) network: Network,
    pub(crate) seeds: Vec<Peer>,
    pub(crate) own_relay: Option<RelayId>,
    pub(crate) database: Database,
    pub(crate) lock_file: LockFile,
    /// The database's file, as it was opened.
    pub(crate) watched: Watched,
}

impl Profile {
    /// Reads the profile in `dir`.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn load(dir: &Path) -> Result<Self, ProfileError> {
        let config = load_config(dir)?;
        let profile = Self {
            dir: dir.to_owned(),
            network: config.network,
            seeds: config.seeds,
            own_relay: None,
            keys: config.keys,
            passphrase: None,
        };
        Ok(profile.settled())
    }

    /// Whether this directory holds a profile, whatever its state.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(CONFIG_FILE).exists()
    }

    /// Whether a passphrase opens it, which [`Profile::set_passphrase`] takes.
    pub fn needs_passphrase(&self) -> bool {
        let is_passphrase = |key: &KnownKey| matches!(key.source, KeySource::Passphrase { .. });
        self.keys.iter().any(is_passphrase) && self.passphrase.is_none()
    }

    /// The file whose key opens it, unless a passphrase does.
    pub fn key_file(&self) -> Option<&Path> {
        match &self.keys.first()?.source {
            KeySource::File(path) => Some(path),
            KeySource::Passphrase { .. } => None,
        }
    }

    /// Names the relay that the user runs, which the client never uses (§6.4(13)). The profile does
    /// not store it: whoever seizes one of the two should not learn of the other.
    pub fn set_own_relay(&mut self, relay: RelayId) {
        self.own_relay = Some(relay);
    }

    /// Gives the passphrase that opens it.
    pub fn set_passphrase(&mut self, passphrase: Passphrase) {
        self.passphrase = Some(passphrase);
    }

    /// Its network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Opens the database; takes as long as the passphrase was made to take.
    pub(crate) fn open(self) -> Result<OpenProfile, ProfileError> {
        self.open_by(Database::open)
    }

    /// The same, to read it, which can be done where nothing can be written.
    pub(crate) fn open_to_read(self) -> Result<OpenProfile, ProfileError> {
        self.open_by(Database::open_to_read)
    }

    fn open_by(
        self,
        open: impl Fn(&Path, &DatabaseKey, &StepContext) -> Result<Database, DatabaseError>,
    ) -> Result<OpenProfile, ProfileError> {
        let (database, _, watched) = self.unlock(open)?;
        let lock_file = LockFile::of(&self.dir);
        Ok(OpenProfile {
            dir: self.dir,
            network: self.network,
            seeds: self.seeds,
            own_relay: self.own_relay,
            database,
            lock_file,
            watched,
        })
    }

    /// Opens the database, with the key that does; the files are watched from before.
    fn unlock(
        &self,
        open: impl Fn(&Path, &DatabaseKey, &StepContext) -> Result<Database, DatabaseError>,
    ) -> Result<(Database, DatabaseKey, Watched), ProfileError> {
        let path = self.dir.join(DATABASE_FILE);
        // Where that fails, the check says that the database is missing.
        let _ = unfinished::finish(&self.dir, &path);
        files::check(&path).map_err(ProfileError::Files)?;
        files::check_descriptors(&self.dir.join(CONFIG_FILE)).map_err(ProfileError::Files)?;
        let watched = Watched::begin(&self.dir, &[DATABASE_FILE]);
        let context = StepContext {
            wall: Clock::wall(),
            record_life: self.network.params.record_life,
        };
        let mut opened = Err(ProfileError::PassphraseNeeded);
        for known in &self.keys {
            opened = self.key(&known.source).and_then(|key| {
                open(&path, &key, &context)
                    .map(|database| (database, key))
                    .map_err(|error| known.opening_error(error, &path))
            });
            match &opened {
                Ok(_) => {
                    self.settle(known);
                    break;
                }
                Err(error) if error.is_of_key() => {}
                Err(_) => break,
            }
        }
        opened.map(|(database, key)| (database, key, watched))
    }

    fn key(&self, source: &KeySource) -> Result<DatabaseKey, ProfileError> {
        match source {
            KeySource::Passphrase { salt, cost } => {
                let passphrase = self
                    .passphrase
                    .as_ref()
                    .ok_or(ProfileError::PassphraseNeeded)?;
                DatabaseKey::from_passphrase(passphrase, salt, *cost).map_err(|error| match error {
                    StretchError::OutOfMemory => ProfileError::OutOfMemory {
                        needed_mib: cost.memory_kib / 1024,
                    },
                    StretchError::CostOutOfRange => ProfileError::Config {
                        path: self.dir.join(CONFIG_FILE),
                        fault: ConfigFault::Key,
                    },
                })
            }
            KeySource::File(path) => {
                DatabaseKey::read_file(path).map_err(|source| ProfileError::KeyFileUnreadable {
                    path: path.clone(),
                    source,
                })
            }
        }
    }
}

impl KnownKey {
    fn opening_error(&self, error: DatabaseError, database: &Path) -> ProfileError {
        match error {
            DatabaseError::WrongKey if files::is_overwritten(database) => {
                ProfileError::Files(FilesFault::Overwritten(database.to_owned()))
            }
            DatabaseError::WrongKey => match &self.source {
                KeySource::Passphrase { .. } => ProfileError::WrongPassphrase,
                KeySource::File(path) => ProfileError::WrongKeyFile(path.clone()),
            },
            other => ProfileError::Database(other),
        }
    }
}

impl ProfileError {
    /// Whether another key may open the profile where this one did not.
    fn is_of_key(&self) -> bool {
        matches!(
            self,
            Self::WrongPassphrase | Self::WrongKeyFile(_) | Self::KeyFileUnreadable { .. }
        )
    }
}

/// The file `profile.toml`, and what it says.
pub(super) fn read_config(dir: &Path) -> Result<(PathBuf, String), ProfileError> {
    let path = dir.join(CONFIG_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ProfileError::Missing(dir.to_owned()))
        }
        Err(source) => Err(ProfileError::Io {
            doing: "read",
            path,
            source,
        }),
    }
}

pub(super) fn parse_raw(text: &str) -> Result<RawConfig, ConfigFault> {
    let raw: RawConfig =
        toml::from_str(text).map_err(|error| ConfigFault::Syntax(Box::new(error)))?;
    if raw.version > PROFILE_VERSION {
        Err(ConfigFault::TooNew(raw.version))
    } else {
        Ok(raw)
    }
}

pub(super) fn parse_config(text: &str) -> Result<Config, ConfigFault> {
    let raw = parse_raw(text)?;
    let network = stored_network(raw.network.as_deref()).map_err(ConfigFault::Network)?;
    let seeds = raw
        .seeds
        .into_iter()
        .map(|text| text.parse().map_err(|_| ConfigFault::Seed(text)))
        .collect::<Result<Vec<Peer>, _>>()?;
    let keys = [Some(raw.key), raw.new_key].into_iter().flatten();
    let mut keys = keys.map(KnownKey::parse).collect::<Result<Vec<_>, _>>()?;
    // The last one tried says what is wrong: a wrong passphrase is likelier than a wrong file.
    keys.sort_by_key(|key| matches!(key.source, KeySource::Passphrase { .. }));
    Ok(Config {
        network,
        seeds,
        keys,
    })
}

/// What the profile.toml in this directory says, with the paths of key files in full.
fn load_config(dir: &Path) -> Result<Config, ProfileError> {
    let (path, text) = read_config(dir)?;
    let mut config = parse_config(&text).map_err(|fault| ProfileError::Config { path, fault })?;
    for key in &mut config.keys {
        if let KeySource::File(path) = &mut key.source {
            *path = dir.join(&path);
        }
    }
    Ok(config)
}

impl KnownKey {
    fn parse(raw: RawKey) -> Result<Self, ConfigFault> {
        let source = match &raw {
            RawKey::Passphrase {
                salt,
                memory_kib,
                passes,
                lanes,
            } => {
                let bytes = HEXLOWER
                    .decode(salt.as_bytes())
                    .map_err(|_| ConfigFault::Key)?;
                KeySource::Passphrase {
                    salt: bytes.try_into().map_err(|_| ConfigFault::Key)?,
                    cost: PassphraseCost {
                        memory_kib: *memory_kib,
                        passes: *passes,
                        lanes: *lanes,
                    },
                }
            }
            RawKey::File { path } => KeySource::File(path.clone()),
        };
        Ok(Self { raw, source })
    }
}

fn parse_network(text: Option<&str>) -> Result<Network, NetworkFault> {
    text.map_or_else(|| Ok(Network::local()), Network::from_toml)
}

/// A profile that was made before some keys were refused is still opened.
fn stored_network(text: Option<&str>) -> Result<Network, NetworkFault> {
    let Some(text) = text else {
        return Ok(Network::local());
    };
    let (network, unread) = Network::from_stored_toml(text)?;
    for key in unread {
        tracing::warn!(
            key,
            "the profile's network sets a parameter that this version does not use"
        );
    }
    Ok(network)
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(dir) => write!(f, "no profile in {}", dir.display()),
            Self::Config { path, fault } => write!(f, "{}: {fault}", path.display()),
            Self::PassphraseNeeded => {
                f.write_str("the profile has a passphrase and none was given")
            }
            Self::WrongPassphrase => f.write_str("wrong passphrase"),
            Self::KeyFileUnreadable { path, source } => {
                write!(
                    f,
                    "could not read the key file {}: {source}",
                    path.display()
                )
            }
            Self::WrongKeyFile(path) => {
                write!(f, "the key in {} does not open the profile", path.display())
            }
            Self::Files(fault) => fault.fmt(f),
            Self::OutOfMemory { needed_mib } => {
                write!(
                    f,
                    "out of memory: the passphrase takes {needed_mib} MiB to check"
                )
            }
            Self::Io {
                doing,
                path,
                source,
            } => write!(f, "could not {doing} {}: {source}", path.display()),
            Self::Database(error) => write!(f, "could not open the profile: {error}"),
        }
    }
}

impl std::error::Error for ProfileError {}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "{error}"),
            Self::TooNew(version) => write!(f, "written by a newer umbel (layout {version})"),
            Self::Seed(seed) => write!(f, "not a relay: {seed}"),
            Self::Key => f.write_str("the salt or the cost of the passphrase is wrong"),
            Self::Network(fault) => write!(f, "the copy of the network file is wrong: {fault}"),
        }
    }
}
