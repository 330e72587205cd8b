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

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use umbel_proto::crypto::passphrase::{PassphraseCost, StretchError};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::{Network, NetworkFault};
use umbel_relay::shell::Clock;
use umbel_relay::shell::files::{Watched, owner_only, write_whole};

use super::database::{Database, DatabaseError};
use super::files::{self, FilesFault};
use super::key::{DatabaseKey, NewKey, Passphrase};
use super::lock::LockFile;
use super::migrate::StepContext;
use super::unfinished;

pub(super) const CONFIG_FILE: &str = "profile.toml";
const DATABASE_FILE: &str = "profile.db";

/// The layout of a profile's directory that this program writes.
const PROFILE_VERSION: u32 = 1;

/// A new profile.
#[expect(missing_debug_implementations, reason = "may hold a passphrase")]
pub struct NewProfile {
    /// The text of a network file; `None` is the network built in for one machine.
    pub network: Option<String>,
    /// Relays to begin with, besides those in the network file.
    pub seeds: Vec<Peer>,
    /// The kind of key that opens it.
    pub key: NewKey,
}

/// A profile could not be made. Its parts are removed again.
#[derive(Debug)]
pub enum InitError {
    /// There is one already.
    Exists(PathBuf),
    /// A file exists where the new key would go.
    KeyFileExists(PathBuf),
    /// No relay to begin with, neither in the network file nor besides it.
    NoSeeds,
    /// The network file is wrong.
    Network(NetworkFault),
    /// The world says no.
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path of the database would be too long for it.
    Files(FilesFault),
    /// The database says no.
    Database(DatabaseError),
}

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
}

impl RawConfig {
    /// These are the profile's own seeds from now on.
    pub(super) fn set_seeds(&mut self, seeds: &[Peer]) {
        self.seeds = seeds.iter().map(Peer::to_string).collect();
    }
}

#[derive(Serialize, Deserialize)]
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

/// A profile whose key is known, as soon as it has been given its passphrase. Opened with
/// [`crate::Client::open`], or [`crate::Library::open`] for what needs no network.
#[expect(missing_debug_implementations, reason = "may hold a passphrase")]
pub struct Profile {
    dir: PathBuf,
    network: Network,
    seeds: Vec<Peer>,
    own_relay: Option<RelayId>,
    key_source: KeySource,
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
    /// Makes a profile in `dir`. Overwrites nothing; needs no network.
    ///
    /// # Errors
    /// See [`InitError`].
    pub fn create(dir: &Path, new: NewProfile, rng: &mut dyn CryptoRng) -> Result<(), InitError> {
        check_absent(dir)?;
        let network = parse_network(new.network.as_deref()).map_err(InitError::Network)?;
        if new.seeds.is_empty() && network.seeds.is_empty() {
            return Err(InitError::NoSeeds);
        }
        files::check_path(&unfinished::path(dir)).map_err(InitError::Files)?;
        let mut made = Made {
            folder: (!dir.exists()).then(|| dir.to_owned()),
            paths: Vec::new(),
        };
        make_private_dir(dir)?;
        let _lock = unfinished::lock(dir).map_err(|source| InitError::Io {
            doing: "lock",
            path: dir.to_owned(),
            source,
        })?;
        check_absent(dir)?; // another process may have made one meanwhile
        let key = choose_key(dir, new.key, rng)?;
        let config = RawConfig {
            version: PROFILE_VERSION,
            seeds: new.seeds.iter().map(Peer::to_string).collect(),
            network: new.network,
            key: key.source,
        };
        if !key.is_left_behind {
            make_database(dir, &key.key, &mut made)?;
            // After the database: a key that a killed process leaves behind opens that.
            if let Some(path) = &key.file {
                write_key(&key.key, path, &mut made)?;
                check_absent(dir)?; // the key file may have been given such a name
            }
        }
        // A directory with this file in it is a profile, and nothing of it is removed any more.
        write_config(&dir.join(CONFIG_FILE), &config)?;
        made.keep();
        unfinished::finish(dir, &dir.join(DATABASE_FILE)).map_err(|source| InitError::Io {
            doing: "make",
            path: dir.join(DATABASE_FILE),
            source,
        })?;
        sync(dir)
    }

    /// Reads the profile in `dir`.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn load(dir: &Path) -> Result<Self, ProfileError> {
        let (path, text) = read_config(dir)?;
        let (network, seeds, key_source) =
            parse_config(&text).map_err(|fault| ProfileError::Config { path, fault })?;
        let key_source = match key_source {
            KeySource::File(path) => KeySource::File(dir.join(path)),
            passphrase @ KeySource::Passphrase { .. } => passphrase,
        };
        Ok(Self {
            dir: dir.to_owned(),
            network,
            seeds,
            own_relay: None,
            key_source,
            passphrase: None,
        })
    }

    /// Whether a passphrase opens it, which [`Profile::set_passphrase`] takes.
    pub fn needs_passphrase(&self) -> bool {
        matches!(self.key_source, KeySource::Passphrase { .. }) && self.passphrase.is_none()
    }

    /// The file whose key opens it, unless a passphrase does.
    pub fn key_file(&self) -> Option<&Path> {
        match &self.key_source {
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
        open: impl FnOnce(&Path, &DatabaseKey, &StepContext) -> Result<Database, DatabaseError>,
    ) -> Result<OpenProfile, ProfileError> {
        let path = self.dir.join(DATABASE_FILE);
        // Where that fails, the check says that the database is missing.
        let _ = unfinished::finish(&self.dir, &path);
        files::check(&path).map_err(ProfileError::Files)?;
        files::check_descriptors(&self.dir.join(CONFIG_FILE)).map_err(ProfileError::Files)?;
        let watched = Watched::begin(&self.dir, &[DATABASE_FILE]);
        let key = self.key()?;
        let context = StepContext {
            wall: Clock::wall(),
            record_life: self.network.params.record_life,
        };
        let database = open(&path, &key, &context).map_err(|error| match error {
            DatabaseError::WrongKey if files::is_overwritten(&path) => {
                ProfileError::Files(FilesFault::Overwritten(path.clone()))
            }
            DatabaseError::WrongKey => match &self.key_source {
                KeySource::Passphrase { .. } => ProfileError::WrongPassphrase,
                KeySource::File(path) => ProfileError::WrongKeyFile(path.clone()),
            },
            other => ProfileError::Database(other),
        })?;
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

    fn key(&self) -> Result<DatabaseKey, ProfileError> {
        match &self.key_source {
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

/// The files that [`Profile::create`] has made so far: removed again unless all could be made.
struct Made {
    /// The profile's directory, if it was not there.
    folder: Option<PathBuf>,
    paths: Vec<PathBuf>,
}

impl Made {
    fn note(&mut self, path: &Path) {
        self.paths.push(path.to_owned());
    }

    fn keep(mut self) {
        self.paths.clear();
        self.folder = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // The key goes before the database, by which a later attempt would know it.
        for path in self.paths.iter().rev() {
            // Nothing better can be done about a file that can't be removed than to say what failed
            // before it.
            drop(fs::remove_file(path));
        }
        if let Some(folder) = &self.folder {
            drop(fs::remove_dir(folder));
        }
    }
}

/// The key of a profile that is being made.
struct ChosenKey {
    key: DatabaseKey,
    source: RawKey,
    /// Where it is to be written, unless a passphrase gives it.
    file: Option<PathBuf>,
    /// Whether a killed process has made this key file and the database that it opens.
    is_left_behind: bool,
}

fn choose_key(dir: &Path, new: NewKey, rng: &mut dyn CryptoRng) -> Result<ChosenKey, InitError> {
    match new {
        NewKey::Passphrase(passphrase) => from_passphrase(&passphrase, rng),
        NewKey::File(path) => {
            let absolute = |path: &Path| {
                std::path::absolute(path).map_err(|source| InitError::Io {
                    doing: "make the key file",
                    path: path.to_owned(),
                    source,
                })
            };
            let path = absolute(&path)?;
            let left_behind = unfinished::key_of(dir, &path);
            if left_behind.is_none() && path.symlink_metadata().is_ok() {
                return Err(InitError::KeyFileExists(path));
            }
            // A key in the profile's directory is found there when that has moved.
            let within = path.strip_prefix(absolute(dir)?).map(Path::to_owned);
            Ok(ChosenKey {
                is_left_behind: left_behind.is_some(),
                key: left_behind.unwrap_or_else(|| DatabaseKey::generate(rng)),
                source: RawKey::File {
                    path: within.unwrap_or_else(|_| path.clone()),
                },
                file: Some(path),
            })
        }
    }
}

fn from_passphrase(
    passphrase: &Passphrase,
    rng: &mut dyn CryptoRng,
) -> Result<ChosenKey, InitError> {
    let cost = PassphraseCost::default();
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let key = DatabaseKey::from_passphrase(passphrase, &salt, cost).map_err(|_| InitError::Io {
        doing: "stretch the passphrase for",
        path: PathBuf::from(CONFIG_FILE),
        source: io::ErrorKind::OutOfMemory.into(),
    })?;
    let PassphraseCost {
        memory_kib,
        passes,
        lanes,
    } = cost;
    Ok(ChosenKey {
        key,
        source: RawKey::Passphrase {
            salt: HEXLOWER.encode(&salt),
            memory_kib,
            passes,
            lanes,
        },
        file: None,
        is_left_behind: false,
    })
}

fn write_key(key: &DatabaseKey, path: &Path, made: &mut Made) -> Result<(), InitError> {
    key.write_file(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::KeyFileExists(path.to_owned()),
        _ => InitError::Io {
            doing: "make the key file",
            path: path.to_owned(),
            source,
        },
    })?;
    made.note(path);
    Ok(())
}

/// Makes the database under the name that it has until the directory is a profile.
fn make_database(dir: &Path, key: &DatabaseKey, made: &mut Made) -> Result<(), InitError> {
    let path = unfinished::path(dir);
    unfinished::remove(dir).map_err(|source| InitError::Io {
        doing: "remove",
        path: path.clone(),
        source,
    })?;
    make_private_file(&path)?;
    files::all(&path).iter().for_each(|path| made.note(path));
    Database::create(&path, key).map_err(InitError::Database)?;
    sync(&path)?;
    sync(dir)
}

/// Refuses a directory that holds a profile, or a part of one that may have been in use.
fn check_absent(dir: &Path) -> Result<(), InitError> {
    let mut files = [CONFIG_FILE, DATABASE_FILE]
        .map(|name| dir.join(name))
        .into_iter();
    match files.find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(InitError::Exists(path)),
        None => Ok(()),
    }
}

fn make_private_dir(dir: &Path) -> Result<(), InitError> {
    let attempt = |doing| {
        move |source| InitError::Io {
            doing,
            path: dir.to_owned(),
            source,
        }
    };
    fs::create_dir_all(dir).map_err(attempt("make the directory"))?;
    #[cfg(unix)]
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(attempt("make private the directory"))?;
    Ok(())
}

/// Makes an empty file, so that what SQLite adds to it, and beside it, is the owner's alone too.
fn make_private_file(path: &Path) -> Result<(), InitError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    owner_only(&mut options);
    let attempt = |source| InitError::Io {
        doing: "make",
        path: path.to_owned(),
        source,
    };
    options.open(path).map(drop).map_err(attempt)
}

/// Waits until a file, or a directory's list of files, is on the disk.
fn sync(path: &Path) -> Result<(), InitError> {
    let attempt = |source| InitError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(attempt)
}

fn write_config(path: &Path, config: &RawConfig) -> Result<(), InitError> {
    let attempt = |source| InitError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    let text = toml::to_string(config).map_err(|error| attempt(io::Error::other(error)))?;
    write_whole(path, text.as_bytes(), false).map_err(attempt)
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

pub(super) fn parse_config(text: &str) -> Result<(Network, Vec<Peer>, KeySource), ConfigFault> {
    let raw = parse_raw(text)?;
    let network = stored_network(raw.network.as_deref()).map_err(ConfigFault::Network)?;
    let seeds = raw
        .seeds
        .into_iter()
        .map(|text| text.parse().map_err(|_| ConfigFault::Seed(text)))
        .collect::<Result<Vec<Peer>, _>>()?;
    let key_source = match raw.key {
        RawKey::Passphrase {
            salt,
            memory_kib,
            passes,
            lanes,
        } => {
            let bytes = HEXLOWER
                .decode(salt.as_bytes())
                .map_err(|_| ConfigFault::Key)?;
            let salt = bytes.try_into().map_err(|_| ConfigFault::Key)?;
            KeySource::Passphrase {
                salt,
                cost: PassphraseCost {
                    memory_kib,
                    passes,
                    lanes,
                },
            }
        }
        RawKey::File { path } => KeySource::File(path),
    };
    Ok((network, seeds, key_source))
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

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(f, "there is a profile already: {}", path.display()),
            Self::KeyFileExists(path) => {
                write!(
                    f,
                    "there is already a file where the new key is to be: {}",
                    path.display()
                )
            }
            Self::NoSeeds => f.write_str("no relay to begin with"),
            Self::Network(fault) => write!(f, "the network file is wrong: {fault}"),
            Self::Io {
                doing,
                path,
                source,
            } => write!(f, "could not {doing} {}: {source}", path.display()),
            Self::Files(fault) => fault.fmt(f),
            Self::Database(error) => write!(f, "could not make the profile's database: {error}"),
        }
    }
}

impl std::error::Error for InitError {}

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
