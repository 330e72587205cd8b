//! Quiet circuits: how long the last hop of one takes to answer an occasional small question.

use std::time::Instant;

use umbel_proto::directory::service::DirectoryRequest;
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::{BlindedKey, CircId, Peer};
use umbel_proto::message::Service;
use umbel_proto::time::{Duration, Epoch};

use super::probe::Probe;
use super::row::ms;
use super::{BenchError, Step, within};

/// How often quiet circuits are measured without and with a load, in turn.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) rounds: usize,
    /// Round trips each time.
    pub(super) round_trips: usize,
}

impl Plan {
    pub(super) const QUICK: Self = Self {
        rounds: 1,
        round_trips: 50,
    };
}

/// Between two questions.
pub(super) const PACE: Duration = Duration::from_millis(2);

/// Circuits over a link of their own.
pub(super) struct Quiet {
    probe: Probe,
    circuits: Vec<CircId>,
}

impl Quiet {
    /// Builds this many circuits.
    pub(super) async fn open(
        peer: &Peer,
        onward: &[HopTarget],
        count: usize,
    ) -> Result<Self, BenchError> {
        let mut probe = Probe::dial(peer).await?;
        let circuits = probe.build_together(count, onward).await?;
        Ok(Self { probe, circuits })
    }

    /// This many round trips, one at a time, on each circuit in turn: milliseconds of each.
    pub(super) async fn round_trips(&mut self, count: usize) -> Result<Vec<f64>, BenchError> {
        let mut times = Vec::with_capacity(count);
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for &circ in self.circuits.iter().cycle().take(count) {
            pace.tick().await;
            let started = Instant::now();
            self.probe.ask(circ, Service::Directory, question()).await?;
            within(Step::Answer, self.probe.next_frame()).await?;
            times.push(ms(started.elapsed()));
        }
        Ok(times)
    }
}

/// A question that every directory relay answers at once, in one cell: it has no descriptor of that
/// inbox.
pub(super) fn question() -> Vec<u8> {
    DirectoryRequest::LookupInbox {
        blinded: BlindedKey([0; BlindedKey::LEN]),
        epoch: Epoch(0),
    }
    .encode()
}
