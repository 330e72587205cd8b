//! One line of the log now and then: how the relay is doing, so coarsely that it tells nothing of
//! one user.
//!
//! Counts of what users make (links, circuits, mailboxes, records) and sizes are `coarse`.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use umbel_proto::ids::Peer;
use umbel_proto::network::{Network, Params};
use umbel_proto::time::in_words;

use crate::coarse::{Coarse, mib};
use crate::config::Config;
use crate::net::news::clock_off_by;
use crate::running::{self, STORE_FILE, Stats, StatsSource};

/// The first beat: the relay has found the others by then.
const FIRST: Duration = Duration::from_secs(300);
/// From one beat to the next.
const INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// Logs a line five minutes after the start, and then every six hours, until the relay stops.
/// With it comes a warning while the relay, which `peer` names, knows no other.
pub(crate) async fn beat(
    source: StatsSource,
    config: watch::Receiver<Config>,
    network: Network,
    peer: Peer,
) {
    let started_at = Instant::now();
    let mut next = started_at + FIRST;
    loop {
        sleep_until(next).await;
        let Some(stats) = source.stats().await else {
            return;
        };
        let config = config.borrow().clone();
        if stats.control.is_alone {
            tracing::warn!("{}", alone(&config, &network, &peer));
        }
        let disk = disk_bytes(&config.data_dir);
        let pulse = Pulse {
            up: started_at.elapsed(),
            stats,
            config,
            params: &network.params,
            disk,
            memory: memory_bytes(),
        };
        tracing::info!("{pulse}");
        next += INTERVAL;
    }
}

/// What to do about a relay that knows no other, to which nobody comes.
pub(crate) fn alone(config: &Config, network: &Network, peer: &Peer) -> String {
    let remedy = if running::seeds(config, network, peer.id).is_empty() {
        format!(
            "it has no seeds. Name a relay in its `seeds`, or give this relay's peer line to the operator of another: {peer}"
        )
    } else {
        "none of its seeds answers, or their descriptors are not believed. Earlier warnings say why; name another relay in `seeds`"
            .to_owned()
    };
    format!("this relay knows no other relay, so nobody uses it: {remedy}")
}

/// The contents of one line.
struct Pulse<'a> {
    up: Duration,
    stats: Stats,
    config: Config,
    params: &'a Params,
    disk: u64,
    memory: Option<u64>,
}

impl fmt::Display for Pulse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (control, holder) = (&self.stats.control, self.config.holder_limits(self.params));
        write!(f, "heartbeat: up {}; ", in_words(self.up))?;
        write!(
            f,
            "links: {} (links_max {}); ",
            Coarse(control.links),
            self.config.links_max
        )?;
        write!(
            f,
            "circuits: {} (circuits_max {}); ",
            Coarse(control.circuits),
            self.config.circuits_max
        )?;
        write!(f, "relays known: {}; ", control.relays)?;
        if control.newer_count * 10 > control.relays {
            let newer = control.newer_count;
            write!(
                f,
                "{newer} of them run a later version than this one, so look for an update; "
            )?;
        }
        write!(
            f,
            "mailbox queues: {} (queues_max {}); ",
            Coarse(control.queues),
            holder.queues_max
        )?;
        write!(
            f,
            "records: {} (records_max {}), ",
            Coarse(control.records),
            holder.records_max
        )?;
        write!(
            f,
            "{} MiB (records_disk_mib {}); ",
            mib(control.record_bytes),
            holder.bytes_max >> 20
        )?;
        let (inboxes, inboxes_max) = (control.inbox_descriptors, self.config.inbox_descriptors_max);
        write!(
            f,
            "inbox descriptors: {} (inbox_descriptors_max {inboxes_max}); ",
            Coarse(inboxes)
        )?;
        write!(f, "relay.db: {} MiB", mib(self.disk))?;
        if let Some(memory) = self.memory {
            write!(f, "; memory: {} MiB", mib(memory))?;
        }
        let off_by = control.clock_off_by.map(clock_off_by);
        off_by.map_or(Ok(()), |off_by| {
            write!(
                f,
                "; clock: {off_by} that of other relays (descriptors are not believed)"
            )
        })
    }
}

/// The store's file and its log.
fn disk_bytes(data_dir: &Path) -> u64 {
    let len = |name: String| fs::metadata(data_dir.join(name)).map_or(0, |metadata| metadata.len());
    len(STORE_FILE.to_owned()) + len(format!("{STORE_FILE}-wal"))
}

/// The process's memory, as Linux counts it.
pub(crate) fn memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            << 10,
    )
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tokio::sync::mpsc;
    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::ids::RelayId;
    use umbel_proto::link::Hello;
    use umbel_proto::time::WallTime;

    use super::*;
    use crate::control::io::ControlStats;
    use crate::net::Shared;
    use crate::net::plane::Ask;
    use crate::shell::Clock;

    fn pulse(control: ControlStats, up: u64) -> String {
        let stats = Stats {
            control,
            ..Stats::default()
        };
        let config = Config::new("");
        let (disk, memory) = (17 << 20, Some(1));
        Pulse {
            up: Duration::from_secs(up),
            stats,
            config,
            params: &Params::DEFAULT,
            disk,
            memory,
        }
        .to_string()
    }

    #[test]
    fn one_user_more_or_less_is_the_same_line() {
        let line = |queues, links| {
            let record_bytes = queues as u64 * 50_000;
            let control = ControlStats {
                queues,
                links,
                relays: 12,
                circuits: 99,
                record_bytes,
                ..ControlStats::default()
            };
            pulse(control, 6 * 3600)
        };
        assert_eq!(line(0, 0), line(1, 1));
        assert_eq!(line(100, 40), line(101, 41));
        assert_eq!(
            line(100, 40),
            "heartbeat: up 6 hours; links: 32 to 63 (links_max 20000); circuits: 64 to 127 (circuits_max 65536); relays known: 12; \
             mailbox queues: 64 to 127 (queues_max 65536); records: under 16 (records_max 2000000), 16 MiB (records_disk_mib \
             8192); inbox descriptors: under 16 (inbox_descriptors_max 16384); relay.db: 32 MiB; memory: 16 MiB"
        );
    }

    #[test]
    fn an_update_is_hinted_at_once_more_than_a_few_say_that_they_have_it() {
        let line = |newer_count| {
            let control = ControlStats {
                relays: 20,
                newer_count,
                ..ControlStats::default()
            };
            pulse(control, 300)
        };
        assert!(!line(2).contains("later version"));
        let hint = "relays known: 20; 3 of them run a later version than this one, so look for";
        assert!(line(3).contains(hint), "{}", line(3));
    }

    #[test]
    fn a_clock_that_is_wrong_is_in_every_line_until_it_is_right() {
        let line = |clock_off_by| {
            pulse(
                ControlStats {
                    clock_off_by,
                    ..ControlStats::default()
                },
                300,
            )
        };
        assert!(line(Some(3 * 3600)).ends_with(
            "; clock: 3 hours behind that of other relays (descriptors are not believed)"
        ));
        assert!(!line(None).contains("clock"));
    }

    /// The log, line by line.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// What is logged as long as the guard is there.
    fn log() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The source of a relay that always does as `control` says.
    fn source_of(control: ControlStats) -> StatsSource {
        let network = Network::local();
        let hello = Hello::of_client(network.id, WallTime(0));
        let identity = SigningKey::from_seed(&[1; 32]);
        let (shared, _) = Shared::new(network, identity, 1 << 20, hello, Clock::start(), None);
        let (asks, mut asked) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                if let Ask::Stats(answer) = ask {
                    answer.send(control).unwrap();
                }
            }
        });
        StatsSource::new(asks, shared)
    }

    fn peer(number: u8) -> Peer {
        Peer {
            id: RelayId([number; 32]),
            host_port: "192.0.2.1:9000".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_knows_no_other_says_so_and_what_to_do() {
        let mut config = Config::new("");
        for is_seeded in [false, true] {
            if is_seeded {
                // Itself is no seed of a relay.
                config.seeds = vec![peer(1), peer(2)];
            }
            let (log, _logged) = log();
            let (_sender, config) = watch::channel(config.clone());
            let source = source_of(ControlStats {
                is_alone: true,
                ..ControlStats::default()
            });
            let beat = beat(source, config, Network::local(), peer(1));
            assert!(tokio::time::timeout(2 * FIRST, beat).await.is_err());
            let log = log.text();
            let warning = log.lines().find(|line| line.contains("WARN")).unwrap();
            assert!(warning.contains("knows no other relay"), "{log}");
            let words = if is_seeded {
                "none of its seeds answers".to_owned()
            } else {
                format!(
                    "has no seeds. Name a relay in its `seeds`, or give this relay's peer line to the operator of another: {}",
                    peer(1)
                )
            };
            assert!(warning.contains(&words), "{log}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_logged_after_five_minutes_and_then_every_six_hours() {
        let (log, _logged) = log();
        let (_sender, config) = watch::channel(Config::new(""));
        let source = source_of(ControlStats {
            relays: 12,
            ..ControlStats::default()
        });
        let day = Duration::from_secs(24 * 3600);
        assert!(
            tokio::time::timeout(day, beat(source, config, Network::local(), peer(1)))
                .await
                .is_err(),
            "it goes on"
        );
        let log = log.text();
        let lines: Vec<&str> = log.lines().collect();
        let ups = ["5 minutes", "6 hours", "12 hours", "18 hours"];
        assert_eq!(lines.len(), ups.len(), "{log}");
        for (line, up) in lines.into_iter().zip(ups) {
            assert!(
                line.contains("INFO") && line.contains(&format!("heartbeat: up {up}; ")),
                "{line}"
            );
            assert!(line.contains("relays known: 12; "), "{line}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_relay() {
        let (_sender, config) = watch::channel(Config::new(""));
        let began_at = Instant::now();
        beat(StatsSource::ended(), config, Network::local(), peer(1)).await;
        assert_eq!(began_at.elapsed().as_secs(), FIRST.as_secs());
    }
}
