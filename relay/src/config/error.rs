//! Faults in the operator's files, each with a hint.

use std::fmt;
use std::io;
use std::path::PathBuf;

use umbel_proto::network::NetworkFault;

use super::NETWORK_FILE;

/// A fault in the operator's files or flags.
#[derive(Debug)]
pub enum ConfigError {
    /// A file can't be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The configuration file is not TOML, has an unknown key, or a value of the wrong type.
    Toml {
        /// Which.
        path: PathBuf,
        /// Where, counted from 1.
        line: Option<usize>,
        /// What.
        message: String,
    },
    /// A key has a value that it can't have.
    Value {
        /// Which.
        key: &'static str,
        /// The expected value.
        expected: &'static str,
    },
    /// A flag has a value that it can't have.
    Flag {
        /// Which.
        flag: &'static str,
        /// The expected value.
        expected: &'static str,
    },
    /// The data directory holds no relay.
    NoNetwork,
    /// The data directory holds a relay, but not its network file.
    NetworkLost(PathBuf),
    /// The network file is wrong.
    Network {
        /// Which.
        path: PathBuf,
        /// How.
        fault: NetworkFault,
    },
}

impl ConfigError {
    /// Whether the command line or a file of the operator's is wrong, so that trying again changes
    /// nothing.
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::NoNetwork | Self::NetworkLost(_) => false,
            Self::Read { .. }
            | Self::Toml { .. }
            | Self::Value { .. }
            | Self::Flag { .. }
            | Self::Network { .. } => true,
        }
    }

    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { error, .. } if error.kind() == io::ErrorKind::InvalidData => {
                "the file is damaged, or another than was meant: get it again, or correct the path"
            }
            Self::Flag { .. } => "correct the flag",
            Self::Read { .. } => "check that the file is there and that this user may read it",
            Self::Toml { .. } | Self::Value { .. } => {
                "correct umbel-relay.toml in the data directory; docs/operating.md lists its keys"
            }
            Self::NoNetwork => {
                "make a relay there with `umbel-relay init --data-dir DIR`, or correct --data-dir"
            }
            Self::NetworkLost(_) => {
                "restore it with `umbel-relay init --data-dir DIR --network FILE`, which changes nothing else; FILE is the \
                 network's file, or `local`"
            }
            Self::Network { .. } => {
                "correct the network file, or get it again from the network's operator"
            }
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "can't read {}: {error}", path.display()),
            Self::Toml {
                path,
                line: Some(line),
                message,
            } => write!(f, "{}, line {line}: {message}", path.display()),
            Self::Toml {
                path,
                line: None,
                message,
            } => write!(f, "{}: {message}", path.display()),
            Self::Value { key, expected } => write!(f, "{key}: must be {expected}"),
            Self::Flag { flag, expected } => write!(f, "{flag}: must be {expected}"),
            Self::NoNetwork => f.write_str("the data directory holds no relay"),
            Self::NetworkLost(dir) => write!(
                f,
                "{} holds a relay, but its file {NETWORK_FILE} is gone",
                dir.display()
            ),
            Self::Network { path, fault } => write!(f, "{}: {fault}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}
