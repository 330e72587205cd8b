//! Why a relay was not made, or did not start, and what to do about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store::StoreError;
use crate::store::keys::KeyError;

/// Why no relay was made.
#[derive(Debug)]
pub enum InitError {
    /// There is one already.
    Exists(PathBuf),
    /// The disk.
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl InitError {
    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exists(_) => {
                "choose another directory with --data-dir, or run the one that is there"
            }
            Self::Disk { .. } => "check the path, its permissions and the room on the disk",
        }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(
                f,
                "{} holds a relay already, which is left as it is",
                path.display()
            ),
            Self::Disk { path, error } => {
                write!(f, "can't make a relay in {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for InitError {}

/// Why a relay did not start.
#[derive(Debug)]
pub enum StartError {
    /// Its identity can't be read or made.
    Identity(KeyError),
    /// Another process has its data directory.
    InUse(PathBuf),
    /// Its data directory can't be locked.
    Lock {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It can't listen.
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Nothing says where it can be dialled.
    NoAddress,
    /// It can't be dialled from outside at the address it would advertise, and its network is for
    /// relays that can.
    NotPublic,
    /// Its network is this machine's, and it would listen at, or advertise, an address that others
    /// might reach (§8.6(7)).
    NotLoopback(SocketAddr),
    /// Its store can't be opened.
    Store(StoreError),
    /// TLS does not work on this machine.
    Tls(rustls::Error),
    /// The runtime is stopping.
    Stopped,
}

impl StartError {
    /// Whether the command line or a file of the operator's is wrong, so that trying again changes
    /// nothing.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NotPublic | Self::NotLoopback(_) | Self::NoAddress
        )
    }

    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Identity(KeyError::Missing) => {
                "make a relay there with `umbel-relay init --data-dir DIR`, or correct --data-dir"
            }
            Self::Identity(KeyError::Malformed) => {
                "put the file's copy back, or make another relay in another directory"
            }
            Self::Identity(KeyError::Exists) => "run the relay that is there",
            Self::Identity(KeyError::Io(_)) => {
                "check the permissions of the data directory, and the disk"
            }
            Self::InUse(_) => "stop the other process first, or choose another --data-dir",
            Self::Lock { .. } => "check the permissions of the data directory, and the disk",
            Self::Listen { .. } => {
                "choose another address with --listen, or stop what uses this one"
            }
            Self::NoAddress => "run the relay once, or set `advertise` in umbel-relay.toml",
            Self::NotPublic => {
                "say how the relay is reached from outside with --advertise HOST:PORT"
            }
            Self::NotLoopback(_) => {
                "listen on and advertise 127.0.0.1 or [::1]; for several machines, make a file with `umbel-relay network new`"
            }
            Self::Store(error) => error.hint(),
            Self::Tls(_) => "this is a fault of Umbel or of this system's build: report it",
            Self::Stopped => "start it again",
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(KeyError::Missing) => f.write_str("the data directory holds no relay"),
            Self::Identity(KeyError::Malformed) => f.write_str("the file `identity` is damaged"),
            Self::Identity(KeyError::Exists) => f.write_str("there is a relay already"),
            Self::Identity(KeyError::Io(error)) => {
                write!(f, "can't read the file `identity`: {error}")
            }
            Self::InUse(path) => write!(f, "another process runs the relay in {}", path.display()),
            Self::Lock { path, error } => write!(f, "can't lock {}: {error}", path.display()),
            Self::Listen { address, error } => write!(f, "can't listen on {address}: {error}"),
            Self::NoAddress => f.write_str("nothing says where the relay can be dialled"),
            Self::NotPublic => {
                f.write_str("this network needs a public address, and this relay advertises none")
            }
            Self::NotLoopback(address) => write!(
                f,
                "the network `local` is for one machine: its relays use loopback addresses only, not {address}"
            ),
            Self::Store(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "TLS does not work here: {error}"),
            Self::Stopped => f.write_str("the program is stopping"),
        }
    }
}

impl std::error::Error for StartError {}
