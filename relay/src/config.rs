//! The operator's configuration: the file and the flags as written, and the checked form that the
//! relay uses.

mod error;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::limits::ADDRESSES_MAX;
use umbel_proto::network::{Network, Params};

use crate::store::keys::IDENTITY_FILE;

pub use error::ConfigError;

/// Name of the optional configuration file in the data directory.
pub const CONFIG_FILE: &str = "umbel-relay.toml";
/// Name of the network file that `init` leaves in the data directory.
pub const NETWORK_FILE: &str = "network.toml";
/// Names the built-in network instead of a file.
pub const LOCAL_NETWORK: &str = "local";

/// Where links are accepted by default: all addresses, since most machines have the one that
/// matters among several.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443);
/// The same in the local network, which takes no other addresses (docs/protocol.md §8.6(7)).
const LISTEN_LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), LISTEN.port());
/// Most memory for queued cells by default. More would only make slow links slower.
const MEMORY_BUDGET_DEFAULT_MAX: usize = 1 << 30;
/// The same where the size of the machine can't be found out.
const MEMORY_BUDGET_UNKNOWN: usize = 256 << 20;
/// Less than this could not hold the windows of a hundred circuits.
const MEMORY_BUDGET_MIB_MIN: u32 = 128;
/// Links by default: with its socket and TLS each takes some tens of KiB.
pub(crate) const LINKS_MAX: usize = 20_000;
/// Links from one address group by default: a few hundred people behind one network.
const LINKS_PER_GROUP_MAX: usize = 512;
/// Connections that are not yet links: each may take a handshake's work and ten seconds.
const HALF_OPEN_MAX: usize = 256;
/// The same from one address group: eight groups are needed to keep everybody out for ten seconds.
const HALF_OPEN_PER_GROUP_MAX: usize = HALF_OPEN_MAX / 8;
/// Circuits by default: about 0.6 KiB each.
const CIRCUITS_MAX: usize = 65_536;
/// Inbox descriptors by default: 8 KiB each, in memory and on the disk.
const INBOX_DESCRIPTORS_MAX: usize = 16_384;
/// Records by default: each takes some hundred bytes of memory, as does the name of one that was
/// removed.
const RECORDS_MAX: usize = 2_000_000;
/// Bytes of records by default: as many as a small rented disk can spare.
const RECORDS_DISK_MIB: u32 = 8 << 10;

/// How a relay runs. Every value is in range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where its identity and all that lasts is kept.
    pub data_dir: PathBuf,
    /// Where links are accepted. Port 0: any that is free.
    pub listen: SocketAddr,
    /// Each `host:port` by which others dial it; none: where it listens.
    pub advertise: Vec<String>,
    /// Peers to join through.
    pub seeds: Vec<Peer>,
    /// Most bytes that wait for others: half of it for cells on slow links, half for frames of
    /// services.
    pub memory_budget_bytes: usize,
    /// Threads that carry cells.
    pub threads: usize,
    /// The log filter, in `RUST_LOG` syntax.
    pub log: String,
    /// Most links that others made.
    pub links_max: usize,
    /// Most of these from one address group, in networks where addresses say something.
    pub links_per_group_max: usize,
    /// Most connections that are not yet links.
    pub half_open_max: usize,
    /// Most of these from one address group.
    pub half_open_per_group_max: usize,
    /// Most circuits through the relay.
    pub circuits_max: usize,
    /// Most inbox descriptors it keeps.
    pub inbox_descriptors_max: usize,
    /// Most mailbox queues it keeps; `None`: the network's parameter.
    pub queues_max: Option<usize>,
    /// Most records in all queues together.
    pub records_max: usize,
    /// Most bytes of records in all queues together.
    pub records_bytes_max: u64,
    /// Parameters that the network file sets and this version does not use: worth a warning.
    pub unread_params: Vec<&'static str>,
    /// The file's values of keys that a flag overrides: they have no effect.
    pub overridden: Settings,
}

/// Settings that the file and the command line have: the command line's count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where links are accepted.
    pub listen: Option<SocketAddr>,
    /// Each `host:port` by which others dial it; in place of the file's.
    pub advertise: Vec<String>,
    /// Peers to join through; in place of the file's.
    pub seeds: Vec<Peer>,
}

impl Settings {
    /// What is used where the file says `of_file`, and the file's values that are not.
    fn override_file(mut self, mut of_file: Self) -> (Self, Self) {
        if self.listen.is_none() {
            self.listen = of_file.listen.take();
        }
        if self.advertise.is_empty() {
            self.advertise = std::mem::take(&mut of_file.advertise);
        }
        if self.seeds.is_empty() {
            self.seeds = std::mem::take(&mut of_file.seeds);
        }
        (self, of_file)
    }
}

impl Config {
    /// The defaults, for a relay that is kept in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: LISTEN,
            advertise: Vec::new(),
            seeds: Vec::new(),
            memory_budget_bytes: default_memory_budget(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            log: "info".to_owned(),
            links_max: LINKS_MAX,
            links_per_group_max: LINKS_PER_GROUP_MAX,
            half_open_max: HALF_OPEN_MAX,
            half_open_per_group_max: HALF_OPEN_PER_GROUP_MAX,
            circuits_max: CIRCUITS_MAX,
            inbox_descriptors_max: INBOX_DESCRIPTORS_MAX,
            queues_max: None,
            records_max: RECORDS_MAX,
            records_bytes_max: mib(RECORDS_DISK_MIB),
            unread_params: Vec::new(),
            overridden: Settings::default(),
        }
    }

    /// Limits of its mailboxes: the network's for each, the operator's for all together.
    pub fn holder_limits(&self, params: &Params) -> HolderLimits {
        let of_network = HolderLimits::of_network(params);
        HolderLimits {
            queues_max: self.queues_max.unwrap_or(of_network.queues_max),
            records_max: self.records_max,
            bytes_max: self.records_bytes_max,
            ..of_network
        }
    }

    /// Keys in which `new` differs and that only a restart takes up.
    pub fn restart_keys(&self, new: &Self) -> Vec<&'static str> {
        differing([
            ("listen", self.listen != new.listen),
            (
                "memory_budget_mib",
                self.memory_budget_bytes != new.memory_budget_bytes,
            ),
            ("threads", self.threads != new.threads),
        ])
    }

    /// Keys in which `new`'s file differs and that a flag overrides.
    pub fn overridden_keys(&self, new: &Self) -> Vec<&'static str> {
        let (before, now) = (&self.overridden, &new.overridden);
        differing([
            ("listen", before.listen != now.listen),
            ("advertise", before.advertise != now.advertise),
            ("seeds", before.seeds != now.seeds),
        ])
    }

    /// The relay that is kept in `data_dir`, as its file and the flags have it, and its network.
    ///
    /// # Errors
    /// A file can't be read, or says something that it can't.
    pub fn load(data_dir: &Path, flags: Settings) -> Result<(Self, Network), ConfigError> {
        let path = data_dir.join(CONFIG_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::Read { path, error }),
        };
        let raw: RawConfig = toml::from_str(&text).map_err(|fault| {
            let line = fault.span().map(|span| {
                1 + text
                    .bytes()
                    .take(span.start)
                    .filter(|&byte| byte == b'\n')
                    .count()
            });
            ConfigError::Toml {
                path,
                line,
                message: fault.message().to_owned(),
            }
        })?;
        let (network, unread_params) = match raw.network.as_deref() {
            Some(LOCAL_NETWORK) => (Network::local(), Vec::new()),
            Some(file) => read_stored_network(Path::new(file))?,
            None => read_own_network(data_dir)?,
        };
        Ok((
            Self {
                unread_params,
                ..raw.check(data_dir, flags, &network)?
            },
            network,
        ))
    }
}

/// The key `seeds` as a configuration file has it.
pub fn seeds_key(seeds: &[Peer]) -> String {
    let lines: String = seeds.iter().map(|it| format!("    \"{it}\",\n")).collect();
    format!("seeds = [\n{lines}]\n")
}

fn differing(keys: [(&'static str, bool); 3]) -> Vec<&'static str> {
    let differing = keys.into_iter().filter(|&(_, differs)| differs);
    differing.map(|(key, _)| key).collect()
}

/// The configuration file as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    listen: Option<SocketAddr>,
    advertise: OneOrMore,
    seeds: Vec<String>,
    network: Option<String>,
    memory_budget_mib: Option<u32>,
    threads: Option<u16>,
    log: Option<String>,
    links_max: Option<u32>,
    links_per_group_max: Option<u32>,
    half_open_max: Option<u32>,
    half_open_per_group_max: Option<u32>,
    circuits_max: Option<u32>,
    inbox_descriptors_max: Option<u32>,
    queues_max: Option<u32>,
    records_max: Option<u32>,
    records_disk_mib: Option<u32>,
}

/// One text, or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
}

impl RawConfig {
    fn check(
        self,
        data_dir: &Path,
        flags: Settings,
        network: &Network,
    ) -> Result<Config, ConfigError> {
        let defaults = Config::new(data_dir);
        let of_file = Settings {
            listen: self.listen,
            advertise: self.advertise.into_vec(),
            seeds: check_seeds(&self.seeds)?,
        };
        let is_advertise_flag = !flags.advertise.is_empty();
        let (used, overridden) = flags.override_file(of_file);
        Ok(Config {
            listen: used.listen.unwrap_or_else(|| default_listen(network)),
            advertise: check_advertise(used.advertise, is_advertise_flag)?,
            seeds: used.seeds,
            overridden,
            memory_budget_bytes: check_budget(self.memory_budget_mib)?
                .unwrap_or(defaults.memory_budget_bytes),
            threads: positive("threads", self.threads.map(u32::from), defaults.threads)?,
            log: self.log.unwrap_or(defaults.log),
            links_max: positive("links_max", self.links_max, defaults.links_max)?,
            links_per_group_max: positive(
                "links_per_group_max",
                self.links_per_group_max,
                defaults.links_per_group_max,
            )?,
            half_open_max: positive("half_open_max", self.half_open_max, defaults.half_open_max)?,
            half_open_per_group_max: positive(
                "half_open_per_group_max",
                self.half_open_per_group_max,
                defaults.half_open_per_group_max,
            )?,
            circuits_max: positive("circuits_max", self.circuits_max, defaults.circuits_max)?,
            inbox_descriptors_max: positive(
                "inbox_descriptors_max",
                self.inbox_descriptors_max,
                defaults.inbox_descriptors_max,
            )?,
            queues_max: self
                .queues_max
                .map(|count| positive("queues_max", Some(count), 0))
                .transpose()?,
            records_max: positive("records_max", self.records_max, defaults.records_max)?,
            records_bytes_max: self
                .records_disk_mib
                .map(|count| positive("records_disk_mib", Some(count), 0).map(|_| mib(count)))
                .transpose()?
                .unwrap_or(defaults.records_bytes_max),
            ..defaults
        })
    }
}

fn default_listen(network: &Network) -> SocketAddr {
    if network.is_of_one_machine() {
        LISTEN_LOCAL
    } else {
        LISTEN
    }
}

fn positive(key: &'static str, number: Option<u32>, default: usize) -> Result<usize, ConfigError> {
    match number {
        Some(0) => Err(ConfigError::Value {
            key,
            expected: "1 or more",
        }),
        number => Ok(number.map_or(default, |number| number as usize)),
    }
}

fn check_seeds(all: &[String]) -> Result<Vec<Peer>, ConfigError> {
    let seeds = all.iter().map(|seed| seed.parse());
    seeds
        .collect::<Result<_, _>>()
        .map_err(|_| ConfigError::Value {
            key: "seeds",
            expected: "a list of peers, <relay id>@host:port",
        })
}

/// In bytes.
fn check_budget(mib: Option<u32>) -> Result<Option<usize>, ConfigError> {
    if mib.is_some_and(|mib| mib < MEMORY_BUDGET_MIB_MIN) {
        return Err(ConfigError::Value {
            key: "memory_budget_mib",
            expected: "128 or more",
        });
    }
    Ok(mib.map(|mib| (mib as usize).saturating_mul(1 << 20)))
}

/// No address counts twice.
fn check_advertise(all: Vec<String>, is_flag: bool) -> Result<Vec<String>, ConfigError> {
    let fault = |expected| match is_flag {
        true => ConfigError::Flag {
            flag: "--advertise",
            expected,
        },
        false => ConfigError::Value {
            key: "advertise",
            expected,
        },
    };
    if !all.iter().all(|host_port| is_host_port(host_port)) {
        return Err(fault("host:port, with a port from 1 to 65535"));
    }
    let mut distinct: Vec<String> = Vec::new();
    for host_port in all {
        if !distinct.contains(&host_port) {
            distinct.push(host_port);
        }
    }
    if distinct.len() > ADDRESSES_MAX {
        return Err(fault("at most four times host:port"));
    }
    Ok(distinct)
}

const _: () = assert!(ADDRESSES_MAX == 4, "what is said of `advertise` names it");

const fn mib(count: u32) -> u64 {
    (count as u64) << 20
}

/// The network that `name` stands for: `local`, or a file.
///
/// # Errors
/// The file can't be read, or is wrong.
pub fn read_network(name: &str) -> Result<Network, ConfigError> {
    if name == LOCAL_NETWORK {
        Ok(Network::local())
    } else {
        read_network_file(Path::new(name))
    }
}

/// The network of a file that someone gives.
///
/// # Errors
/// The file can't be read, or is wrong.
pub fn read_network_file(path: &Path) -> Result<Network, ConfigError> {
    let text = read_network_text(path)?;
    Network::from_toml(&text).map_err(|fault| ConfigError::Network {
        path: path.to_owned(),
        fault,
    })
}

/// A copy that an earlier version wrote is still read; the parameters without effect are returned.
fn read_stored_network(path: &Path) -> Result<(Network, Vec<&'static str>), ConfigError> {
    let text = read_network_text(path)?;
    Network::from_stored_toml(&text).map_err(|fault| ConfigError::Network {
        path: path.to_owned(),
        fault,
    })
}

/// The network of the relay in `data_dir`, unless its configuration names another file.
fn read_own_network(data_dir: &Path) -> Result<(Network, Vec<&'static str>), ConfigError> {
    read_stored_network(&data_dir.join(NETWORK_FILE)).map_err(|fault| match fault {
        ConfigError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound => {
            if data_dir.join(IDENTITY_FILE).exists() {
                ConfigError::NetworkLost(data_dir.to_owned())
            } else {
                ConfigError::NoNetwork
            }
        }
        other => other,
    })
}

fn read_network_text(path: &Path) -> Result<String, ConfigError> {
    let fault = |error| ConfigError::Read {
        path: path.to_owned(),
        error,
    };
    let text = fs::read_to_string(path).map_err(fault)?;
    if text.trim().is_empty() {
        let empty = io::Error::new(io::ErrorKind::InvalidData, "the file is empty");
        return Err(fault(empty));
    }
    Ok(text)
}

/// Whether this can stand behind the `@` of a peer.
pub fn is_host_port(text: &str) -> bool {
    format!("{}@{text}", RelayId([0; RelayId::LEN]))
        .parse::<Peer>()
        .is_ok()
}

/// A quarter of the machine's memory, up to the most that helps.
fn default_memory_budget() -> usize {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_memory(&text))
        .map_or(MEMORY_BUDGET_UNKNOWN, |bytes| {
            (bytes / 4).min(MEMORY_BUDGET_DEFAULT_MAX)
        })
}

fn total_memory(meminfo: &str) -> Option<usize> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    total
        .trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<usize>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, flags: Settings) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG_FILE), file).unwrap();
        fs::write(dir.path().join(NETWORK_FILE), Network::local().to_toml()).unwrap();
        Config::load(dir.path(), flags).map(|(config, _)| config)
    }

    fn peer(port: u16) -> Peer {
        Peer {
            id: RelayId([7; 32]),
            host_port: format!("127.0.0.1:{port}"),
        }
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = load("", Settings::default()).unwrap();
        assert_eq!(
            config,
            Config {
                data_dir: config.data_dir.clone(),
                listen: "127.0.0.1:7443".parse().unwrap(),
                ..Config::new("")
            }
        );
        let dir = tempfile::tempdir().unwrap();
        let file = format!("id = \"{}\"\nname = \"test\"", "5a".repeat(32));
        fs::write(dir.path().join(NETWORK_FILE), file).unwrap();
        let (config, _) = Config::load(dir.path(), Settings::default()).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:7443");
    }

    #[test]
    fn flags_count_more_than_the_file() {
        let file = format!(
            "listen = \"127.0.0.1:1\"\nadvertise = \"a.example:1\"\nseeds = [\"{}\"]",
            peer(1)
        );
        let config = load(&file, Settings::default()).unwrap();
        assert_eq!((config.listen.port(), config.seeds), (1, vec![peer(1)]));
        assert_eq!(config.advertise, ["a.example:1"]);
        let flags = Settings {
            listen: Some("127.0.0.1:2".parse().unwrap()),
            advertise: vec!["b.example:2".to_owned(), "[2001:db8::1]:2".to_owned()],
            seeds: vec![peer(2)],
        };
        let config = load(&file, flags).unwrap();
        assert_eq!((config.listen.port(), config.seeds), (2, vec![peer(2)]));
        assert_eq!(config.advertise, ["b.example:2", "[2001:db8::1]:2"]);
    }

    #[test]
    fn what_operators_pay_for_has_keys() {
        let file = "queues_max = 5\nrecords_max = 6\nrecords_disk_mib = 7\ninbox_descriptors_max = 8\nhalf_open_max = 9";
        let config = load(file, Settings::default()).unwrap();
        let limits = config.holder_limits(&Params::DEFAULT);
        assert_eq!(
            (limits.queues_max, limits.records_max, limits.bytes_max),
            (5, 6, 7 << 20)
        );
        assert_eq!((config.inbox_descriptors_max, config.half_open_max), (8, 9));
        let limits = load("", Settings::default())
            .unwrap()
            .holder_limits(&Params::DEFAULT);
        assert_eq!(
            limits,
            HolderLimits::of_network(&Params::DEFAULT),
            "the defaults are the holder's own"
        );
    }

    #[test]
    fn several_addresses_are_a_list_and_each_counts_once() {
        let config = load(
            "advertise = [\"a.example:1\", \"[2001:db8::1]:1\", \"a.example:1\"]",
            Settings::default(),
        )
        .unwrap();
        assert_eq!(config.advertise, ["a.example:1", "[2001:db8::1]:1"]);
        let many: Vec<String> = (1..=5)
            .map(|port| format!("\"a.example:{port}\""))
            .collect();
        let fault = load(
            &format!("advertise = [{}]", many.join(",")),
            Settings::default(),
        )
        .unwrap_err();
        assert!(
            fault
                .to_string()
                .starts_with("advertise: must be at most four"),
            "{fault}"
        );
    }

    #[test]
    fn what_needs_a_restart_is_known() {
        let (old, new) = (
            load("threads = 1", Settings::default()).unwrap(),
            "threads = 2\nlinks_max = 5\nlog = \"debug\"",
        );
        assert_eq!(
            old.restart_keys(&load(new, Settings::default()).unwrap()),
            ["threads"]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |file| load(file, Settings::default()).unwrap_err().to_string();
        assert!(message("threads = 1\nlissten = 5").contains("line 2: unknown field `lissten`"));
        assert!(message("records_disk_mib = 0").starts_with("records_disk_mib: must be 1 or more"));
        assert!(message("advertise = 7").contains("line 1: expected a text or a list of texts"));
        let flags = Settings {
            advertise: vec!["nonsense".to_owned()],
            ..Settings::default()
        };
        let of_flag = load("advertise = \"a.example:1\"", flags).unwrap_err();
        assert!(
            of_flag
                .to_string()
                .starts_with("--advertise: must be host:port")
        );
        assert_eq!(of_flag.hint(), "correct the flag");
        assert!(message("threads = 0").starts_with("threads: must be"));
        assert!(message("memory_budget_mib = 1").starts_with("memory_budget_mib: must be"));
        assert!(
            message("advertise = \"relay.example\"").starts_with("advertise: must be host:port")
        );
        assert!(
            message("advertise = \"relay.example:0\"").starts_with("advertise: must be host:port")
        );
        assert!(message("seeds = [\"x\"]").starts_with("seeds: must be"));
        assert!(message("network = \"/nowhere.toml\"").starts_with("can't read /nowhere.toml"));
    }

    #[test]
    fn a_network_that_sets_what_nothing_reads_is_refused_but_a_copy_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NETWORK_FILE);
        fs::write(
            &file,
            format!(
                "{}\ndigest_check_relays = 9\nclock_jump_max = \"1d\"\n",
                Network::local().to_toml()
            ),
        )
        .unwrap();
        let refused = read_network(file.to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("params.digest_check_relays: this version has no use for it"),
            "{refused}"
        );
        let (config, network) = Config::load(dir.path(), Settings::default()).unwrap();
        assert_eq!(
            (config.unread_params, network),
            (vec!["digest_check_relays"], Network::local())
        );
    }

    #[test]
    fn a_network_file_that_is_empty_or_no_text_is_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ours.toml");
        for bytes in [&b"\n"[..], &[0xff, 0xfe]] {
            fs::write(&file, bytes).unwrap();
            let fault = read_network(file.to_str().unwrap()).unwrap_err();
            assert!(fault.hint().starts_with("the file is damaged"), "{fault}");
        }
    }

    #[test]
    fn a_folder_without_a_network_is_no_relays() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Config::load(dir.path(), Settings::default()),
            Err(ConfigError::NoNetwork)
        ));
    }

    #[test]
    fn memory_is_read_from_the_kernel_and_capped() {
        assert_eq!(
            total_memory("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            Some(2048 * 1024)
        );
        assert_eq!(total_memory("MemTotal: lots"), None);
        assert!(default_memory_budget() <= MEMORY_BUDGET_DEFAULT_MAX);
    }
}
