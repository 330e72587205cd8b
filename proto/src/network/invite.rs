//! An invitation: one line by which a newcomer gets a network's file from a relay of the network,
//! and knows that it is that file (docs/protocol.md §8.6(9), §8.6(10)).

use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use std::collections::BTreeSet;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{Network, NetworkFault};
use crate::crypto::kdf::sha256;
use crate::ids::{NetworkId, Peer, RelayId};
use crate::limits::{INVITE_SEEDS_MAX, NETWORK_FILE_LEN_MAX};
use crate::wire;

const HRP: Hrp = Hrp::parse_unchecked("umbelnet");
const PREFIX: &str = "umbelnet1";
const VERSION: u8 = 1;
/// What is hashed before the file.
const FILE_LABEL: &[u8] = b"umbel network file 1";

/// Names a network's file, and relays that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    file: [u8; 32],
    network: NetworkId,
    seeds: Vec<Peer>,
}

/// What follows the version.
#[derive(Serialize, Deserialize)]
struct Body {
    file: [u8; 32],
    network: NetworkId,
    #[serde(deserialize_with = "wire::list::<_, _, INVITE_SEEDS_MAX>")]
    seeds: Vec<Seed>,
}

#[derive(Serialize, Deserialize)]
struct Seed {
    relay: RelayId,
    place: Place,
}

#[derive(Serialize, Deserialize)]
enum Place {
    Address(SocketAddr),
    /// A name and a port.
    Name(String),
}

impl Invite {
    /// An invitation to this network through these relays, of which it takes as many of the first
    /// as fit in a line, no two of one group (§8.5(4)).
    ///
    /// # Errors
    /// No seed fits, or the file is too long to be handed on.
    pub fn new(network: &Network, seeds: &[Peer]) -> Result<Self, InviteError> {
        let mut invite = Self {
            file: network.hash_shared().ok_or(InviteError::FileTooLong)?,
            network: network.id,
            seeds: Vec::new(),
        };
        let mut taken = BTreeSet::new();
        for seed in seeds {
            let places = places(network, seed);
            if !places.is_disjoint(&taken) {
                continue;
            }
            invite.seeds.push(seed.clone());
            taken.extend(places);
            if invite.seeds.len() > INVITE_SEEDS_MAX || invite.encoded().is_none() {
                invite.seeds.pop();
            }
        }
        if invite.seeds.is_empty() {
            return Err(InviteError::NoSeeds);
        }
        Ok(invite)
    }

    /// The id of the network: what the first `Hello` must hold (§2.4).
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// Relays that have the file, at least one, to be asked in turn.
    pub fn seeds(&self) -> &[Peer] {
        &self.seeds
    }

    /// The network, if these bytes are the file that the invitation names.
    ///
    /// # Errors
    /// They are not, or this version can't read the file.
    pub fn open(&self, file: &[u8]) -> Result<Network, InviteFileError> {
        if hash(file) != self.file {
            return Err(InviteFileError::Other);
        }
        let text = core::str::from_utf8(file).map_err(|_| InviteFileError::Other)?;
        let network = Network::from_toml(text).map_err(InviteFileError::Network)?;
        if network.id == self.network {
            Ok(network)
        } else {
            Err(InviteFileError::Other)
        }
    }

    fn encoded(&self) -> Option<String> {
        let seeds = self.seeds.iter().map(|seed| Seed {
            relay: seed.id,
            place: match seed.host_port.parse() {
                Ok(address) => Place::Address(address),
                Err(_) => Place::Name(seed.host_port.clone()),
            },
        });
        let body = Body {
            file: self.file,
            network: self.network,
            seeds: seeds.collect(),
        };
        let mut payload = vec![VERSION];
        payload.extend_from_slice(&wire::encode(&body));
        bech32::encode_lower::<Bech32m>(HRP, &payload).ok()
    }
}

/// The line, in lower case.
impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever made it left out the seeds that don't fit.
        f.write_str(&self.encoded().ok_or(fmt::Error)?)
    }
}

/// Reads a line, all in lower case or all in upper case. Whitespace in it is dropped: programs that
/// pass it on wrap long lines.
impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text: &str = &text.split_whitespace().collect::<String>();
        if !text
            .get(..PREFIX.len())
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
        {
            return Err(InviteError::Prefix);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| InviteError::Damaged)?;
        let payload: Vec<u8> = checked.byte_iter().collect();
        let (&version, body) = payload.split_first().ok_or(InviteError::Damaged)?;
        if version != VERSION {
            return Err(InviteError::Version);
        }
        let body: Body = wire::decode(body).map_err(|_| InviteError::Damaged)?;
        let seeds = body.seeds.into_iter().map(Seed::into_peer);
        let invite = Self {
            file: body.file,
            network: body.network,
            seeds: seeds.collect::<Option<_>>().ok_or(InviteError::Damaged)?,
        };
        let is_canonical = invite
            .encoded()
            .is_some_and(|again| again.eq_ignore_ascii_case(text));
        if is_canonical && !invite.seeds.is_empty() {
            Ok(invite)
        } else {
            Err(InviteError::Damaged)
        }
    }
}

impl Seed {
    fn into_peer(self) -> Option<Peer> {
        let host_port = match self.place {
            Place::Address(address) => address.to_string(),
            Place::Name(name) => name,
        };
        let peer = Peer {
            id: self.relay,
            host_port,
        };
        // As people write it, so that one rule says what a peer is (§8.6(2)).
        peer.to_string().parse().ok()
    }
}

/// Where a seed is: its groups, or its name, which is looked up when it is dialled.
fn places(network: &Network, seed: &Peer) -> BTreeSet<String> {
    match seed.host_port.parse() {
        Ok(address) => {
            let groups = network.groups_of(address);
            groups.map(|group| group.to_string()).collect()
        }
        Err(_) => BTreeSet::from([seed.host_port.clone()]),
    }
}

impl Network {
    /// The hash by which invitations name the network's file, in hexadecimal digits: the same for
    /// every copy, whatever comments it has and in whatever order (§8.6(9)). `None` if the file is
    /// too long to be handed on.
    pub fn file_hash(&self) -> Option<String> {
        self.hash_shared().map(|hash| HEXLOWER.encode(&hash))
    }

    fn hash_shared(&self) -> Option<[u8; 32]> {
        let file = self.to_shared_toml();
        (file.len() <= NETWORK_FILE_LEN_MAX).then(|| hash(file.as_bytes()))
    }
}

fn hash(file: &[u8]) -> [u8; 32] {
    sha256(&[FILE_LABEL, file])
}

/// Why a text is no invitation, or none can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteError {
    /// It does not begin as one does.
    Prefix,
    /// Something is missing or mistyped.
    Damaged,
    /// It was made for a later version of the protocol.
    Version,
    /// There is no relay to name in it.
    NoSeeds,
    /// The network's file is too long for relays to hand on.
    FileTooLong,
}

impl fmt::Display for InviteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => write!(f, "this is no invitation: one begins with \"{PREFIX}\""),
            Self::Damaged => f.write_str(
                "the invitation is damaged: copy the whole line again, or ask for another",
            ),
            Self::Version => {
                f.write_str("the invitation is of a newer kind than this program knows: update it")
            }
            Self::NoSeeds => f.write_str("there is no relay to name in the invitation"),
            Self::FileTooLong => write!(
                f,
                "the network's file is longer than relays hand on, {NETWORK_FILE_LEN_MAX} bytes"
            ),
        }
    }
}

impl core::error::Error for InviteError {}

/// Why a file does not open an invitation's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InviteFileError {
    /// It is another file than the invitation names.
    Other,
    /// This version can't use it, though it is the one.
    Network(NetworkFault),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Params;

    fn network() -> Network {
        Network {
            id: NetworkId([9; 32]),
            name: "ours".to_owned(),
            seeds: vec![peer(1, "192.0.2.1:9000")],
            params: Params {
                mailboxes: 2,
                ..Params::DEFAULT
            },
            ..Network::local()
        }
    }

    fn peer(number: u8, host_port: &str) -> Peer {
        Peer {
            id: RelayId([number; 32]),
            host_port: host_port.to_owned(),
        }
    }

    fn seeds() -> Vec<Peer> {
        vec![
            peer(1, "192.0.2.1:9000"),
            peer(2, "[2001:db8::1]:7443"),
            peer(3, "relay.example:7443"),
        ]
    }

    #[test] // §8.6(9)
    fn a_line_names_the_file_and_some_seeds() {
        let invite = Invite::new(&network(), &seeds()).unwrap();
        let line = invite.to_string();
        assert!(line.starts_with("umbelnet1") && line.len() < 360, "{line}");
        assert_eq!(line.parse(), Ok(invite.clone()));
        assert_eq!(line.to_uppercase().parse(), Ok(invite.clone()));
        assert_eq!(invite.seeds(), seeds());
        let file = network().to_shared_toml();
        assert_eq!(invite.open(file.as_bytes()), Ok(network()));
    }

    #[test] // §8.6(9)
    fn a_line_that_a_mail_program_wrapped_is_read() {
        let invite = Invite::new(&network(), &seeds()).unwrap();
        let line = invite.to_string();
        let (first, rest) = line.split_at(76);
        for wrapped in [
            format!("{first}\r\n {rest}\n"),
            format!("  {first} \t{rest}"),
            format!("umbel\nnet1{}", &line[9..]),
        ] {
            assert_eq!(wrapped.parse(), Ok(invite.clone()), "{wrapped}");
        }
        let lost = format!("{first}\n{}", &rest[1..]);
        assert_eq!(lost.parse::<Invite>(), Err(InviteError::Damaged));
    }

    #[test] // §8.6(9)
    fn a_damaged_line_is_refused() {
        let line = Invite::new(&network(), &seeds()).unwrap().to_string();
        let read = |text: &str| text.parse::<Invite>().unwrap_err();
        assert_eq!(read("umbel1qqqq"), InviteError::Prefix);
        assert_eq!(read(""), InviteError::Prefix);
        assert_eq!(read(&line[..line.len() - 1]), InviteError::Damaged);
        for at in [9, 40, 100, line.len() - 1] {
            let mut damaged = line.clone().into_bytes();
            damaged[at] = if damaged[at] == b'q' { b'p' } else { b'q' };
            assert_eq!(
                read(core::str::from_utf8(&damaged).unwrap()),
                InviteError::Damaged
            );
        }
        let of = |payload: &[u8]| bech32::encode_lower::<Bech32m>(HRP, payload).unwrap();
        assert_eq!(read(&of(&[2, 7])), InviteError::Version);
        assert_eq!(read(&of(&[1, 7])), InviteError::Damaged);
        assert_eq!(read(&of(&[])), InviteError::Damaged);
        let empty = [&[1; 65][..], &[0]].concat();
        assert_eq!(read(&of(&empty)), InviteError::Damaged, "no seed");
        let many = [&[1; 65][..], &[0xff; 5]].concat();
        assert_eq!(read(&of(&many)), InviteError::Damaged);
    }

    #[test] // §8.6(9)
    fn a_line_takes_as_many_seeds_as_fit() {
        let long = format!("{}.example:1", "a".repeat(240));
        let all: Vec<Peer> = (1..9)
            .map(|number| match number {
                1..4 => peer(number, &format!("{number}{long}")),
                _ => peer(number, &format!("{number}.0.2.1:1")),
            })
            .collect();
        let invite = Invite::new(&network(), &all).unwrap();
        let ids: Vec<u8> = invite.seeds().iter().map(|seed| seed.id.0[0]).collect();
        assert_eq!(ids, [1, 4, 5, 6]);
        assert!(invite.to_string().parse::<Invite>().is_ok());
        assert_eq!(Invite::new(&network(), &[]), Err(InviteError::NoSeeds));
        let near = [
            peer(1, "192.0.2.1:1"),
            peer(2, "192.0.9.9:1"),
            peer(3, "[2001:db8::1]:1"),
        ];
        let invite = Invite::new(&network(), &near).unwrap();
        assert_eq!(invite.seeds(), [near[0].clone(), near[2].clone()]);
    }

    #[test] // §8.6(10)
    fn another_file_is_refused() {
        let invite = Invite::new(&network(), &seeds()).unwrap();
        let mut other = network();
        other.name.push('x');
        for file in [other.to_shared_toml(), network().to_toml(), String::new()] {
            assert_eq!(invite.open(file.as_bytes()), Err(InviteFileError::Other));
        }
        assert_eq!(invite.open(&[0xff]), Err(InviteFileError::Other));
    }

    #[test] // §8.6(10)
    fn the_shared_form_is_the_same_whatever_the_file_names() {
        for network in [network(), Network::local()] {
            let shared = network.to_shared_toml();
            for file in [
                network.to_toml(),
                network.to_explained_toml(),
                shared.clone(),
            ] {
                assert_eq!(Network::from_toml(&file).unwrap().to_shared_toml(), shared);
            }
        }
        let expected = "id = \"0909090909090909090909090909090909090909090909090909090909090909\"\n\
            name = \"ours\"\n\
            seeds = [\"aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq@192.0.2.1:9000\"]\n\
            [params]\nmailboxes = 2\n";
        assert_eq!(network().to_shared_toml(), expected);
    }
}
