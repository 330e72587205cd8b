//! `umbel-relay run`: from the configuration to SIGTERM, with SIGHUP in between.

use std::io::{self, Write};
use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_relay::config::{Config, Settings};
use umbel_relay::{OpenFiles, Relay};

use crate::failure::Failure;
use crate::logs::Logs;

/// How long lookups of host names, which nothing can interrupt, hold up the end.
const LOOKUPS_END: Duration = Duration::from_secs(1);

/// Runs the relay until a signal ends it.
pub(crate) fn run(dir: &Path, flags: Settings) -> Result<(), Failure> {
    let (mut config, network) = Config::load(dir, flags.clone())?;
    let logs = Logs::begin(&config.log)?;
    warn_unread(&config);
    let files = OpenFiles::fit(&mut config);
    report_open_files(files);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::not_started(&error))?;
    let outcome = runtime.block_on(Box::pin(
        Running {
            dir,
            flags,
            config,
            network,
            files,
            logs: &logs,
        }
        .serve(),
    ));
    // Tasks that still wait for the network are no longer needed. But none may run on while the
    // process ends: the crypto libraries' destructors would abort it in the middle of a handshake.
    runtime.shutdown_timeout(LOOKUPS_END);
    logs.flush();
    outcome
}

/// The settings that a running relay uses.
struct Running<'a> {
    dir: &'a Path,
    flags: Settings,
    config: Config,
    network: Network,
    /// The last outcome for the limit of open files.
    files: OpenFiles,
    logs: &'a Logs,
}

impl Running<'_> {
    async fn serve(mut self) -> Result<(), Failure> {
        // Before the relay starts: a signal that comes early must not be lost, nor end it.
        let (mut terminate, mut interrupt) = (
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
        );
        let mut hangup = listen(SignalKind::hangup())?;
        let mut relay = Box::pin(Relay::start(self.config.clone(), self.network.clone())).await?;
        say_ready(&relay);
        self.say_limits(&relay);
        relay.watch_itself();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => self.reload(&relay),
                ended = relay.failed() => return Err(ended.into()),
            }
        }
        tracing::info!("the relay stops");
        relay.shutdown().await;
        Ok(())
    }

    /// Logs, once the relay runs, all that someone who reads the log later would ask first.
    fn say_limits(&self, relay: &Relay) {
        let config = &self.config;
        let holder = config.holder_limits(&self.network.params);
        let peer = relay.peer();
        let advertised = if config.advertise.is_empty() {
            peer.host_port.clone()
        } else {
            config.advertise.join(", ")
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            %peer,
            listen = %relay.listen_address(),
            advertise = advertised,
            network = self.network.name,
            threads = config.threads,
            memory_budget_mib = config.memory_budget_bytes >> 20,
            links_max = config.links_max,
            circuits_max = config.circuits_max,
            queues_max = holder.queues_max,
            records_max = holder.records_max,
            records_disk_mib = holder.bytes_max >> 20,
            inbox_descriptors_max = config.inbox_descriptors_max,
            "the relay runs"
        );
    }

    /// Applies what the operator changed. A wrong file changes nothing.
    fn reload(&mut self, relay: &Relay) {
        match self.load_again() {
            Ok(mut config) => {
                let files = OpenFiles::fit(&mut config);
                if files != self.files {
                    report_open_files(files);
                    self.files = files;
                }
                warn_unread(&config);
                let restart = self.config.restart_keys(&config);
                if !restart.is_empty() {
                    tracing::warn!(
                        keys = restart.join(", "),
                        "these keys changed and take effect only after a restart"
                    );
                }
                let overridden = self.config.overridden_keys(&config);
                if !overridden.is_empty() {
                    tracing::warn!(
                        keys = overridden.join(", "),
                        "these keys changed and have no effect: a flag of the running relay overrides them"
                    );
                }
                relay.reload(&config);
                // Keys that need a restart are compared again the next time.
                self.config = Config {
                    listen: self.config.listen,
                    memory_budget_bytes: self.config.memory_budget_bytes,
                    threads: self.config.threads,
                    ..config
                };
                tracing::info!("the configuration was read again and is in force");
            }
            Err(failure) => {
                tracing::error!(%failure, "the configuration can't be read again; the relay keeps the previous one");
            }
        }
    }

    fn load_again(&self) -> Result<Config, Failure> {
        let (config, network) = Config::load(self.dir, self.flags.clone())?;
        self.logs.set_filter(&config.log)?;
        if network != self.network {
            tracing::warn!("the network file changed; this takes effect only after a restart");
        }
        Ok(config)
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::failed(format!("can't listen for signals: {error}"), "report this")
    })
}

/// The process that waits for this line may have ended; the relay serves others.
fn say_ready(relay: &Relay) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "ready {}", relay.peer()).and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "can't write the ready line");
    }
}

fn warn_unread(config: &Config) {
    for key in &config.unread_params {
        tracing::warn!(
            key,
            "the network file sets a parameter that this version does not use"
        );
    }
}

fn report_open_files(files: OpenFiles) {
    match files {
        OpenFiles::Enough => {}
        OpenFiles::Raised { from, to } => {
            tracing::info!(from, to, "the limit of open files was raised for links_max");
        }
        OpenFiles::Lowered {
            limit,
            links_max,
            is_default: true,
        } => {
            tracing::info!(
                limit,
                links_max,
                "the limit of open files holds fewer links than the default"
            );
        }
        OpenFiles::Lowered {
            limit,
            links_max,
            is_default: false,
        } => tracing::warn!(
            limit,
            links_max,
            "the limit of open files is too low for links_max, which is lowered: raise the limit (LimitNOFILE, ulimit -n)"
        ),
    }
}
