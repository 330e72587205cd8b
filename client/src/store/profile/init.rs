//! How a profile is made: its database, its key, and last the file that makes the directory a
//! profile. What fails midway is removed again; what a killed process left is `unfinished`'s.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rand::CryptoRng;
use umbel_proto::crypto::passphrase::PassphraseCost;
use umbel_proto::ids::Peer;
use umbel_proto::network::NetworkFault;
use umbel_relay::shell::files::{owner_only, write_whole};

use super::super::database::{Database, DatabaseError};
use super::super::files::{self, FilesFault};
use super::super::key::{DatabaseKey, NewKey, Passphrase};
use super::super::unfinished;
use super::{
    CONFIG_FILE, DATABASE_FILE, PROFILE_VERSION, Profile, RawConfig, RawKey, parse_network,
};

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
            new_key: None,
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

/// A profile's new key.
pub(super) struct ChosenKey {
    pub(super) key: DatabaseKey,
    pub(super) source: RawKey,
    /// Where it is to be written, unless a passphrase gives it.
    pub(super) file: Option<PathBuf>,
    /// Whether a killed process has made this key file and the database that it opens.
    is_left_behind: bool,
}

pub(super) fn choose_key(
    dir: &Path,
    new: NewKey,
    rng: &mut dyn CryptoRng,
) -> Result<ChosenKey, InitError> {
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
    write_new_key(key, path)?;
    made.note(path);
    Ok(())
}

pub(super) fn write_new_key(key: &DatabaseKey, path: &Path) -> Result<(), InitError> {
    key.write_file(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::KeyFileExists(path.to_owned()),
        _ => InitError::Io {
            doing: "make the key file",
            path: path.to_owned(),
            source,
        },
    })
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
