//! Names of things: fixed-length byte strings that can't be mistaken for one another.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::limits::HOST_PORT_LEN_MAX;

/// Text that is not the name it was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a valid id")
    }
}

impl core::error::Error for ParseIdError {}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length of this name, bytes.
            pub const LEN: usize = $len;

            /// The name's bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        /// Only the first four bytes: enough to tell two apart in a test, too little to follow
        /// someone in a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..)"), HEXLOWER.encode(&self.0[..4]))
            }
        }
    };
}

byte_id!(
    /// A relay's name: its Ed25519 identity key (docs/protocol.md §8.1).
    RelayId, 32
);
byte_id!(
    /// Names an onion key: the first bytes of its hash (docs/protocol.md §5.1).
    OnionKeyId, 8
);
byte_id!(
    /// Names a network; part of every handshake, so that networks never mix (docs/protocol.md
    /// §8.6).
    NetworkId, 32
);
byte_id!(
    /// Names one queue: a hash of its owner's key, so that nobody else can make it
    /// (docs/protocol.md §10.1(1)).
    QueueId, 32
);
byte_id!(
    /// Tells queues of one owner key apart; random (docs/protocol.md §10.1(1)).
    QueueNonce, 32
);
byte_id!(
    /// Names one record in a queue: SHA-256 of the sealed record (docs/protocol.md §10.1).
    RecordId, 32
);
byte_id!(
    /// Names one message, inside the seal; random, chosen by its sender (docs/protocol.md §10.4).
    MessageId, 16
);
byte_id!(
    /// SHA-256 of a relay descriptor's bytes (docs/protocol.md §8.1).
    DescriptorHash, 32
);
byte_id!(
    /// An inbox's public key for one epoch (docs/protocol.md §9.2).
    BlindedKey, 32
);

/// Written as 52 characters of lower-case base32 (§8.6(1)).
impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl FromStr for RelayId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| ParseIdError)?;
        bytes.try_into().map(Self).map_err(|_| ParseIdError)
    }
}

/// Written as 64 hexadecimal digits.
impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for NetworkId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ParseIdError)?;
        bytes.try_into().map(Self).map_err(|_| ParseIdError)
    }
}

/// Written as 32 hexadecimal digits.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Names a circuit on one link only (§2.3(1)); never zero (§2.1(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircId(core::num::NonZeroU32);

impl CircId {
    /// The id with this number, unless it is zero.
    pub const fn new(number: u32) -> Option<Self> {
        match core::num::NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The id's number, as it stands in a cell.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

/// A relay and where it can be dialled, as people write it: `<relay id>@host:port`
/// (docs/protocol.md §8.6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Whom to expect there.
    pub id: RelayId,
    /// Host name or IP address (v6 in brackets), colon, port.
    pub host_port: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.host_port)
    }
}

impl FromStr for Peer {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (id, host_port) = text.split_once('@').ok_or(ParseIdError)?;
        let (host, port) = host_port.rsplit_once(':').ok_or(ParseIdError)?;
        let port_is_valid = port.parse::<u16>().is_ok_and(|port| port != 0);
        if !is_host(host) || !port_is_valid || host_port.len() > HOST_PORT_LEN_MAX {
            return Err(ParseIdError);
        }
        Ok(Self {
            id: id.parse()?,
            host_port: host_port.to_owned(),
        })
    }
}

/// Whether this is a name, a v4 address, or a v6 address in brackets. Nothing in it acts on a
/// terminal that shows it, nor in a file that quotes it.
fn is_host(text: &str) -> bool {
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = in_brackets {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // §8.6(2)
    fn nothing_in_a_host_acts_on_a_terminal_or_in_a_file() {
        let is_read = |host: &str| {
            let id = RelayId([7; RelayId::LEN]);
            format!("{id}@{host}").parse::<Peer>().is_ok()
        };
        for good in [
            "relay.example:7443",
            "xn--bcher-kva.example:1",
            "[::1]:65535",
            "192.0.2.1:9",
        ] {
            assert!(is_read(good), "{good}");
        }
        for bad in [
            "a\u{1b}[2J:1",
            "a\u{7}:1",
            "a\u{9b}:1",
            "a\u{7f}:1",
            "a b:1",
            "b\u{fc}cher.example:1",
            "a\u{202e}:1",
            "a\u{200b}:1",
            "a\"]#:1",
            "a\\:1",
            "[x]:1",
            "::1:1",
            ":1",
            "a:0",
        ] {
            assert!(!is_read(bad), "{bad:?}");
        }
    }
}
