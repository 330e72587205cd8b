//! A network: its id, its first peers, and the parameters that everyone in it uses
//! (docs/protocol.md §8.6).
//!
//! A network is a file, read once, at the edge, into [`Network`], which can't be wrong. Unknown
//! keys, values out of range and contradictory values are refused by name, except that `[optional]`
//! holds what a node may ignore. A value that weakens anonymity must be accepted by its key.

pub mod as_map;
mod explain;
mod family;
mod group;
mod host;
mod invite;
mod nearest;
mod optional;
mod params;
mod weak;

use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use as_map::{AsMap, AsNumber};
pub use family::Family;
pub use group::{AddressGroups, CAP_LEVELS, Cap, Group};
pub(crate) use host::Host;
pub use invite::{Invite, InviteError, InviteFileError};
pub use optional::Optional;
pub use params::Params;
pub use weak::Weakness;

use crate::ids::{NetworkId, Peer};
use crate::limits::{NETWORK_NAME_LEN_MAX, OPTIONAL_NAME_LEN_MAX, SEEDS_MAX};
use params::RawParams;

/// SHA-256 of `umbel local network`.
const LOCAL_ID: [u8; 32] = [
    0x64, 0x1c, 0x52, 0xd8, 0xf6, 0x5d, 0xad, 0x4f, 0xb7, 0x19, 0xae, 0x9a, 0x49, 0xfe, 0xd3, 0x82,
    0x11, 0xc1, 0x2f, 0x13, 0x60, 0x07, 0x6b, 0x54, 0x20, 0x37, 0x0d, 0xf2, 0xa3, 0x12, 0xa6, 0xad,
];

/// A network: who belongs to it, where to begin, and by which numbers it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Part of every handshake and signature, so that networks never mix (§8.6(6)).
    pub id: NetworkId,
    /// Its name for people; has no other meaning.
    pub name: String,
    /// Peers to begin with; any peer is as good.
    pub seeds: Vec<Peer>,
    /// The numbers.
    pub params: Params,
    /// Entries that a node may ignore; kept for later versions.
    pub optional: Optional,
}

impl Network {
    /// The network of one machine or one test: every `ip:port` counts as an address group of its
    /// own, private addresses are fine, nothing waits. Protects nobody.
    pub fn local() -> Self {
        Self {
            id: NetworkId(LOCAL_ID),
            name: "local".to_owned(),
            seeds: Vec::new(),
            params: Params::LOCAL,
            optional: Optional::default(),
        }
    }

    /// Whether nobody but this machine belongs to it: everybody has the id of the local network, so
    /// that private addresses must not let strangers make its relays dial others' machines
    /// (§8.6(7)).
    pub fn is_of_one_machine(&self) -> bool {
        self.params.are_of_one_machine(self.id)
    }

    /// Whether nodes of this network link to this address, and take links from it (§8.6(7)).
    pub fn may_link(&self, ip: IpAddr) -> bool {
        self.params.may_link(self.id, ip)
    }

    /// Reads a network file. Parameters that it does not name have their default.
    ///
    /// # Errors
    /// The first thing that is wrong with it, by key.
    pub fn from_toml(text: &str) -> Result<Self, NetworkFault> {
        let raw = RawNetwork::parse(text)?;
        raw.params.check_read()?;
        raw.check()
    }

    /// Reads the copy of a network file that a profile or a relay keeps, which an earlier version
    /// may have written: `danger_accept_weak` may have its earlier form, keys that no code reads are
    /// taken, and those that someone chose a value for are named.
    ///
    /// # Errors
    /// The first other thing that is wrong with it, by key.
    pub fn from_stored_toml(text: &str) -> Result<(Self, Vec<&'static str>), NetworkFault> {
        let mut raw = RawNetwork::parse(text)?;
        let unread = raw.params.unread();
        raw.params.accept_earlier_form();
        Ok((raw.check()?, unread))
    }

    /// Writes a network file that names every parameter, so that later versions' defaults don't
    /// change the network.
    pub fn to_toml(&self) -> String {
        let raw = RawNetwork {
            id: self.id.to_string(),
            name: self.name.clone(),
            seeds: self.seeds.iter().map(Peer::to_string).collect(),
            params: RawParams::from(&self.params),
            optional: self.optional.clone(),
        };
        // Strings, numbers and tables of what was TOML always have a TOML form.
        toml::to_string(&raw).unwrap_or_default()
    }
}

impl Params {
    fn are_of_one_machine(&self, network: NetworkId) -> bool {
        network.0 == LOCAL_ID && self.danger_allow_private_addresses
    }

    /// Whether nodes of the network with this id and these parameters link to this address
    /// (§8.6(7)).
    pub fn may_link(&self, network: NetworkId, ip: IpAddr) -> bool {
        !self.are_of_one_machine(network) || ip.to_canonical().is_loopback()
    }
}

/// A network file as it is written.
#[derive(Serialize, Deserialize)]
struct RawNetwork {
    id: String,
    name: String,
    #[serde(default)]
    seeds: Vec<String>,
    #[serde(default)]
    params: RawParams,
    #[serde(default, skip_serializing_if = "Optional::is_empty")]
    optional: Optional,
}

impl RawNetwork {
    const KEYS: &[&str] = &["id", "name", "seeds", "params", "optional"];

    fn parse(text: &str) -> Result<Self, NetworkFault> {
        let fault = |fault| NetworkFault::Toml(Box::new(fault));
        let file: toml::Table = toml::from_str(text).map_err(fault)?;
        check_keys("", &file, Self::KEYS)?;
        if let Some(params) = file.get("params").and_then(toml::Value::as_table) {
            check_keys("params.", params, RawParams::KEYS)?;
        }
        toml::from_str(text).map_err(fault)
    }

    fn check(self) -> Result<Network, NetworkFault> {
        let id = self.id.parse().map_err(|_| NetworkFault::Id)?;
        if !is_name(&self.name) {
            return Err(NetworkFault::Name);
        }
        if self.seeds.len() > SEEDS_MAX {
            return Err(NetworkFault::Seeds);
        }
        let parse_seed = |(index, text): (usize, &String)| {
            text.parse().map_err(|_| NetworkFault::Seed { index })
        };
        let seeds = self
            .seeds
            .iter()
            .enumerate()
            .map(parse_seed)
            .collect::<Result<Vec<Peer>, _>>()?;
        Ok(Network {
            id,
            name: self.name,
            seeds,
            params: self.params.check()?,
            optional: self.optional.check()?,
        })
    }
}

/// Whether a network can have this name: 1 to 32 of `a-z`, `0-9` and `-` (§8.6(3)).
pub fn is_name(text: &str) -> bool {
    (1..=NETWORK_NAME_LEN_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Refuses a key that is not known: a node that ignored it would run by other rules than those that
/// do know it (§8.6(8)).
fn check_keys(
    place: &str,
    table: &toml::Table,
    known: &'static [&str],
) -> Result<(), NetworkFault> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(NetworkFault::Unknown {
            key: format!("{place}{}", key.escape_debug()),
            nearest: nearest::nearest(key, known.iter().copied()),
        }),
        None => Ok(()),
    }
}

/// A fault in a network file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkFault {
    /// It is not TOML, lacks a key, or has a value of the wrong type.
    Toml(Box<toml::de::Error>),
    /// `id` is not 64 lower-case hexadecimal digits.
    Id,
    /// `name` is empty, too long, or has other characters than `a-z`, `0-9` and `-`.
    Name,
    /// There are too many seeds.
    Seeds,
    /// A seed is not `<relay id>@host:port`.
    Seed {
        /// Which, counted from 0.
        index: usize,
    },
    /// A parameter can't be read.
    Value {
        /// Its key.
        key: &'static str,
        /// The expected value.
        expected: &'static str,
    },
    /// A parameter is out of its range.
    Range {
        /// Its key.
        key: &'static str,
        /// The least it may be, as it would be written.
        least: String,
        /// The most it may be, as it would be written.
        most: String,
    },
    /// A parameter is greater than another that bounds it.
    Order {
        /// The key of the one that is too great.
        key: &'static str,
        /// The key of its bound.
        bound: &'static str,
    },
    /// A parameter that no code reads yet: an operator who sets it would expect an effect that does
    /// not happen.
    Unread {
        /// Its key.
        key: &'static str,
    },
    /// A name that no version up to this one knows.
    Unknown {
        /// Where it stands, and the name.
        key: String,
        /// The known name that is nearly the same.
        nearest: Option<&'static str>,
    },
    /// A name under `[optional]` is too long, or has other characters than `a-z`, `0-9` and `_`.
    Optional,
    /// `danger_accept_weak` is no list: its earlier form, `true`, did not say what it accepted.
    Acceptance {
        /// The list that this file needs, if any.
        needed: Option<String>,
    },
    /// A parameter weakens anonymity, and the file does not accept that.
    Weak {
        /// Its key.
        key: &'static str,
        /// The list that this file needs in `danger_accept_weak`.
        needed: String,
    },
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(fault) => write!(f, "{fault}"),
            Self::Id => f.write_str("id: must be 64 lower-case hexadecimal digits"),
            Self::Name => write!(
                f,
                "name: must be 1 to {NETWORK_NAME_LEN_MAX} of a-z, 0-9 and -"
            ),
            Self::Seeds => write!(f, "seeds: at most {SEEDS_MAX}"),
            Self::Seed { index } => {
                write!(f, "seeds: number {} is not <relay id>@host:port", index + 1)
            }
            Self::Value { key, expected } => write!(f, "params.{key}: must be {expected}"),
            Self::Range { key, least, most } => {
                write!(f, "params.{key}: must be from {least} to {most}")
            }
            Self::Order { key, bound } => {
                write!(f, "params.{key}: must not be greater than params.{bound}")
            }
            Self::Unread { key } => write!(
                f,
                "params.{key}: this version has no use for it; remove the line"
            ),
            Self::Unknown {
                key,
                nearest: Some(nearest),
            } => write!(f, "{key}: unknown; did you mean {nearest}?"),
            Self::Unknown { key, nearest: None } => write!(
                f,
                "{key}: unknown to this version; correct it, or use a later version"
            ),
            Self::Optional => write!(
                f,
                "optional: a name there must be 1 to {OPTIONAL_NAME_LEN_MAX} of a-z, 0-9 and _"
            ),
            Self::Acceptance {
                needed: Some(needed),
            } => write!(
                f,
                "params.danger_accept_weak: must name what it accepts: {needed}"
            ),
            Self::Acceptance { needed: None } => f.write_str(
                "params.danger_accept_weak: nothing in this file needs it; remove the line",
            ),
            Self::Weak { key, needed } => write!(
                f,
                "params.{key}: this value weakens anonymity; for a test network, write danger_accept_weak = {needed}"
            ),
        }
    }
}

impl core::error::Error for NetworkFault {}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const ID: &str = "641c52d8f65dad4fb719ae9a49fed38211c12f1360076b5420370df2a312a6ad";

    fn with_params(lines: &str) -> Result<Network, NetworkFault> {
        Network::from_toml(&format!(
            "id = \"{ID}\"\nname = \"test\"\n[params]\n{lines}"
        ))
    }

    #[test]
    fn local_network_has_its_constant_id_and_survives_its_file() {
        let local = Network::local();
        assert_eq!(local.id.to_string(), ID);
        assert_eq!(
            local.id.0,
            crate::crypto::kdf::sha256(&[b"umbel local network"])
        );
        assert_eq!(Network::from_toml(&local.to_toml()), Ok(local));
    }

    #[test] // §8.6(7)
    fn the_local_network_links_to_loopback_only() {
        let local = Network::local();
        let may_link = |network: &Network, ip: &str| network.may_link(ip.parse().unwrap());
        for ip in ["127.0.0.1", "127.9.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(may_link(&local, ip), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "8.8.8.8",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!may_link(&local, ip), "{ip}");
        }
        let of_a_file = Network {
            id: NetworkId([1; 32]),
            ..local
        };
        assert!(may_link(&of_a_file, "10.0.0.1"));
    }

    #[test]
    fn file_without_parameters_has_the_defaults() {
        let network = Network::from_toml(&format!("id = \"{ID}\"\nname = \"test\"")).unwrap();
        assert_eq!(network.params, Params::DEFAULT);
        assert_eq!(Network::from_toml(&network.to_toml()), Ok(network));
    }

    #[test]
    fn a_named_parameter_replaces_its_default() {
        let network = with_params("sync_interval = \"90s\"\nmailboxes = 2").unwrap();
        assert_eq!(network.params.sync_interval, Duration::from_secs(90));
        assert_eq!(network.params.mailboxes, 2);
    }

    #[test] // §8.5(4)
    fn a_map_that_this_version_does_not_ship_is_refused() {
        let shipped = with_params(&format!("as_map = \"{}\"", AsMap::NEWEST.name()));
        assert_eq!(shipped.unwrap().params.as_map, AsMap::NEWEST);
        let fault = with_params(&format!("as_map = \"{}\"", "0".repeat(64))).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "params.as_map: must be none, or the SHA-256 of an AS map that this version ships"
        );
    }

    #[test] // §8.6(8)
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        let fault = with_params("sync_intervall = \"90s\"").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "params.sync_intervall: unknown; did you mean sync_interval?"
        );
        let fault = with_params("x_colour = 1").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "params.x_colour: unknown to this version; correct it, or use a later version"
        );
        let refused = |line: &str| {
            let file = format!("id = \"{ID}\"\nname = \"test\"\n{line}");
            let stored = Network::from_stored_toml(&file).map(|_| ());
            let fault = Network::from_toml(&file).unwrap_err();
            assert_eq!(stored, Err(fault.clone()));
            fault.to_string()
        };
        assert_eq!(refused("seed = []"), "seed: unknown; did you mean seeds?");
        assert!(refused("\"a\\u001b[2J\" = 1").starts_with("a\\u{1b}[2J: unknown"));
    }

    #[test] // §8.6(8)
    fn optional_entries_are_named_ignored_and_kept() {
        let file = |lines: &str| format!("id = \"{ID}\"\nname = \"test\"\n[optional]\n{lines}");
        let network = Network::from_toml(&file("contact = \"x\"\nlimits = { a = [1.5] }")).unwrap();
        assert_eq!(network.params, Params::DEFAULT);
        let names: Vec<_> = network.optional.names().collect();
        assert_eq!(names, ["contact", "limits"]);
        assert_eq!(Network::from_toml(&network.to_toml()), Ok(network));
        for name in ["\"\"", "Contact", "\"a b\"", &"a".repeat(33)] {
            let fault = Network::from_toml(&file(&format!("{name} = 1")));
            assert_eq!(fault, Err(NetworkFault::Optional), "{name}");
        }
        let fault = Network::from_toml(&format!("id = \"{ID}\"\nname = \"test\"\noptional = 1"));
        assert!(matches!(fault, Err(NetworkFault::Toml(_))));
    }

    #[test]
    fn keys_that_nothing_reads_are_refused_in_a_file_and_named_in_a_copy() {
        let chosen = [
            "digest_check_relays = 3",
            "digest_check_interval = \"2d\"",
            "clock_jump_max = \"0s\"",
        ];
        for line in chosen {
            let fault = with_params(line).unwrap_err();
            let key = line.split(' ').next().unwrap();
            assert_eq!(
                fault.to_string(),
                format!("params.{key}: this version has no use for it; remove the line")
            );
        }
        let file = |lines: &str| format!("id = \"{ID}\"\nname = \"test\"\n[params]\n{lines}");
        let (network, unread) = Network::from_stored_toml(&file(&chosen.join("\n"))).unwrap();
        assert_eq!(
            unread,
            ["digest_check_interval", "clock_jump_max"],
            "digest_check_relays has what was always written"
        );
        assert_eq!(network.params, Params::DEFAULT);
        assert_eq!(
            Network::from_toml(&network.to_toml()),
            Ok(network),
            "none is written any more"
        );
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let fault = with_params("mailboxes = 9").unwrap_err();
        assert_eq!(fault.to_string(), "params.mailboxes: must be from 1 to 3");
        let fault = with_params("build_timeout = \"0s\"").unwrap_err();
        assert!(
            matches!(
                fault,
                NetworkFault::Range {
                    key: "build_timeout",
                    ..
                }
            ),
            "{fault}"
        );
    }

    #[test] // §8.6(4)
    fn durations_need_a_unit() {
        for text in [
            "10",
            "10 s",
            "s",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            let fault = with_params(&format!("sync_interval = \"{text}\"")).unwrap_err();
            assert!(
                matches!(
                    fault,
                    NetworkFault::Value {
                        key: "sync_interval",
                        ..
                    }
                ),
                "{text}: {fault}"
            );
        }
    }

    #[test]
    fn bounds_that_cross_are_refused() {
        let fault = with_params("retry_base = \"1h\"\nretry_max = \"1s\"").unwrap_err();
        assert_eq!(
            fault,
            NetworkFault::Order {
                key: "retry_base",
                bound: "retry_max"
            }
        );
    }

    #[test] // §8.6(5)
    fn weak_values_must_be_accepted_by_name() {
        let weak = "push_delay = \"0s\"\nreceipts_min = 0\n";
        let refused = |acceptance: &str| {
            let fault = with_params(&format!("{weak}{acceptance}")).unwrap_err();
            fault.to_string()
        };
        let needed = "[\"receipts_min\", \"push_delay\"]";
        assert_eq!(
            refused(""),
            format!(
                "params.receipts_min: this value weakens anonymity; for a test network, write \
                 danger_accept_weak = {needed}"
            )
        );
        let fault = refused("danger_accept_weak = [\"receipts_min\"]");
        assert!(fault.starts_with("params.push_delay"), "{fault}");
        assert!(with_params(&format!("{weak}danger_accept_weak = {needed}")).is_ok());
        assert_eq!(
            refused("danger_accept_weak = [\"receipt_min\"]"),
            "params.danger_accept_weak: \"receipt_min\": unknown; did you mean receipts_min?"
        );
        assert!(refused("danger_accept_weak = [1]").contains("danger_accept_weak: 1: unknown"));
        assert_eq!(
            refused("danger_accept_weak = true"),
            format!("params.danger_accept_weak: must name what it accepts: {needed}")
        );
    }

    #[test] // §8.6(5)
    fn the_earlier_form_of_acceptance_is_read_in_a_copy_only() {
        let file = |lines: &str| format!("id = \"{ID}\"\nname = \"test\"\n[params]\n{lines}");
        let accepting = file("push_delay = \"0s\"\ndanger_accept_weak = true");
        let (network, unread) = Network::from_stored_toml(&accepting).unwrap();
        assert!(unread.is_empty());
        assert_eq!(network.params.guards_new_a_day, 8, "as it was then");
        assert_eq!(Network::from_toml(&network.to_toml()), Ok(network));
        let fault =
            Network::from_stored_toml(&file("push_delay = \"0s\"\ndanger_accept_weak = false"));
        assert!(matches!(fault, Err(NetworkFault::Weak { .. })), "{fault:?}");
        let strong = file("danger_accept_weak = false");
        assert!(Network::from_stored_toml(&strong).is_ok());
        assert_eq!(
            Network::from_toml(&strong),
            Err(NetworkFault::Acceptance { needed: None })
        );
    }

    #[test] // §8.6(1), §8.6(3)
    fn ids_names_and_seeds_are_checked() {
        let file = |id: &str, name: &str, seed: &str| {
            Network::from_toml(&format!(
                "id = \"{id}\"\nname = \"{name}\"\nseeds = [\"{seed}\"]"
            ))
        };
        let seed = format!("{}@192.0.2.1:9000", "a".repeat(52));
        assert_eq!(file(ID, "test", &seed).unwrap().seeds.len(), 1);
        assert_eq!(file("00", "test", &seed).unwrap_err(), NetworkFault::Id);
        assert_eq!(file(ID, "Test!", &seed).unwrap_err(), NetworkFault::Name);
        assert_eq!(
            file(ID, "test", "192.0.2.1:9000").unwrap_err(),
            NetworkFault::Seed { index: 0 }
        );
    }
}
