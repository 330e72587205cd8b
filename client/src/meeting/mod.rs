//! Several processes on one profile (docs/decisions/014-several-commands-on-one-profile.md).
//!
//! The process that holds the lock drives the core and has the network; the others are its guests.
//! They meet in the profile's database: a [`guest`] passes on its user's requests and the notices
//! for that user; a [`host`] beside the driver acts for guests as for a local user. When the driver
//! ends, in order or not, a guest takes the lock and continues in its place.

pub(crate) mod ask;
mod guest;
mod host;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;
use umbel_relay::shell::Clock;
use umbel_relay::shell::files::{WATCH_INTERVAL, Watched};

use crate::client::StopReason;
use crate::core::io::{Notice, Snapshot};
use crate::core::{Core, SnapshotFault};
use crate::net::driver::{Driver, Parts, Request, SeedFaults};
use crate::store::{Database, LockFile, Store};
use guest::{Guest, GuestEnd};
use host::Host;

/// A notice to a listener.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// This happened.
    Notice(Notice),
    /// Notices were missed: look at the store.
    Gap,
}

/// Every process of a profile begins with this.
pub(crate) struct Ground {
    /// Where the profile is.
    pub(crate) dir: PathBuf,
    pub(crate) network: Network,
    pub(crate) seeds: Vec<Peer>,
    /// The relay that the user runs, if that is known.
    pub(crate) own_relay: Option<RelayId>,
    pub(crate) lock_file: LockFile,
    /// What must stay where it is while this process has it open.
    pub(crate) watched: Watched,
}

impl Ground {
    /// The oldest time of which the core wants to know what was received.
    pub(crate) fn received_since(&self) -> WallTime {
        WallTime(
            Clock::wall()
                .as_secs()
                .saturating_sub(self.network.params.record_life.as_secs()),
        )
    }

    /// Forgets the guests in the database if no guest is alive. The driver does this before it
    /// reads the outbox.
    pub(crate) fn forget_killed_guests(&self, database: &mut Database) {
        let mut forgotten = Ok(());
        let looked = self
            .lock_file
            .if_no_guests(|| forgotten = database.forget_guests());
        if looked.is_err() || forgotten.is_err() {
            tracing::debug!("guests that were killed can't be forgotten");
        }
    }

    /// A core that continues where the snapshot ends.
    pub(crate) fn restore(&self, snapshot: Snapshot) -> Result<(Core, Clock), SnapshotFault> {
        let clock = Clock::start();
        let (network, seeds) = (self.network.clone(), self.seeds.clone());
        let (own, moment) = (self.own_relay, clock.moment());
        let core = Core::new(network, seeds, own, snapshot, moment, &mut rand::rng())?;
        Ok((core, clock))
    }
}

/// One process's part in the life of a profile.
pub(crate) struct Member {
    pub(crate) ground: Arc<Ground>,
    pub(crate) store: Store,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// To ask the driver on behalf of guests. Weak, so that the driver hears when its user is gone.
    pub(crate) asker: mpsc::WeakSender<Request>,
    pub(crate) notices: broadcast::Sender<Told>,
    pub(crate) is_online: bool,
    /// For what the driver finds at seeds.
    pub(crate) seed_faults: SeedFaults,
    /// Set when this process can't continue: as a guest, or without its profile.
    pub(crate) stop_reason: Arc<OnceLock<StopReason>>,
}

impl Member {
    /// Drives the core, or is a guest until it can; ends on `Stop`, or when all senders of requests
    /// are gone. `restored` is there if this process holds the lock.
    pub(crate) async fn run(self, restored: Option<(Core, Clock)>) {
        let watching = tokio::spawn(stop_without_profile(
            Arc::clone(&self.ground),
            self.asker.clone(),
            Arc::clone(&self.stop_reason),
        ));
        Box::pin(self.work(restored)).await;
        watching.abort();
    }

    async fn work(self, restored: Option<(Core, Clock)>) {
        let Self {
            ground,
            store,
            requests,
            asker,
            notices,
            is_online,
            seed_faults,
            stop_reason,
        } = self;
        let (restored, requests, first) = match restored {
            Some(restored) => (restored, requests, Vec::new()),
            None => {
                let guest = Guest::new(
                    Arc::clone(&ground),
                    store.clone(),
                    requests,
                    notices.clone(),
                    stop_reason,
                );
                match guest.run().await {
                    GuestEnd::Stopped => return,
                    GuestEnd::Took {
                        restored,
                        requests,
                        first,
                    } => (*restored, requests, first),
                }
            }
        };
        let (settle, settling) = mpsc::channel(1);
        let host =
            tokio::spawn(Host::new(store.clone(), asker, notices.subscribe(), settling).run());
        let (core, clock) = restored;
        let (network, params) = (ground.network.id, Arc::new(ground.network.params.clone()));
        let (dir, seeds) = (ground.dir.clone(), ground.seeds.clone());
        let network_seeds = ground.network.seeds.clone();
        let parts = Parts {
            core,
            clock,
            network,
            params,
            store,
            requests,
            first,
            notices,
            settle,
            is_online,
            dir,
            seeds,
            network_seeds,
            seed_faults,
        };
        Box::pin(Driver::new(parts).run()).await;
        // It says its last words.
        drop(host.await);
    }
}

/// Stops this process's driver or guest once the profile's database is deleted or replaced: what is
/// stored from then on is lost.
async fn stop_without_profile(
    ground: Arc<Ground>,
    asker: mpsc::WeakSender<Request>,
    stop_reason: Arc<OnceLock<StopReason>>,
) {
    while ground.watched.lost().is_none() {
        sleep(WATCH_INTERVAL).await;
    }
    tracing::warn!(profile = %ground.dir.display(), "the database was deleted or replaced");
    // A guest may have stopped already, for a reason of its own.
    let _ = stop_reason.set(StopReason::ProfileLost);
    if let Some(asker) = asker.upgrade() {
        drop(asker.send(Request::Stop).await);
    }
}
