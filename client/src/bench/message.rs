//! Messages from client to client: how long they take, and what they put on the wire.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;
use umbel_proto::ids::{MessageId, Peer};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::CELL_LEN;
use umbel_proto::time::Duration;

use super::row::{Row, Unit, ms};
use super::{BenchError, Plan, Step, within};
use crate::core::io::Notice;
use crate::local::{LocalError, LocalNetwork};
use crate::{Client, ClientClosed, NewKey, NewProfile, NoticeGap, Notices, Profile};

/// Length of every message, bytes.
const MESSAGE_LEN: usize = 100;
/// The receiving client's name for its inbox.
const INBOX: &str = "bench";
/// Relays that a client begins with.
const SEEDS: usize = 2;
/// Until what follows a message (removals, acknowledgements) is over too.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) async fn measure(
    plan: &Plan,
    network: &LocalNetwork,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
    let mut pair = Pair::open(dir.path(), &network.peers()).await?;
    pair.exchange().await?; // circuits, mailboxes and descriptors are there from now on
    warm(plan, &mut pair, report).await?;
    wire(plan, network, &mut pair, report).await?;
    cold(plan, dir.path(), network, pair.address, report).await?;
    pair.close().await;
    dir.close().map_err(LocalError::Dir)?;
    Ok(())
}

/// What distance changes.
pub(super) async fn measure_far(
    plan: &Plan,
    network: &LocalNetwork,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
    let mut pair = Pair::open(dir.path(), &network.peers()).await?;
    pair.exchange().await?;
    warm(plan, &mut pair, report).await?;
    cold(plan, dir.path(), network, pair.address, report).await?;
    pair.close().await;
    dir.close().map_err(LocalError::Dir)?;
    Ok(())
}

/// A client that sends, and one that is subscribed to its inbox.
struct Pair {
    sender: Client,
    sent: Notices,
    reader: Client,
    received: Notices,
    address: InboxAddress,
}

/// How long a message took, counted from the call that sends it.
struct Times {
    /// Until enough holders had it durably, and the sender knew.
    held: Duration,
    /// Until the reader had it durably.
    received: Duration,
}

impl Pair {
    async fn open(dir: &Path, peers: &[Peer]) -> Result<Self, BenchError> {
        let sender = open(&make(dir, "sender", peers)?).await?;
        let reader = open(&make(dir, "reader", peers)?).await?;
        let (sent, mut received) = (sender.notices(), reader.notices());
        let address = reader.create_inbox(INBOX).await?;
        let is_ready = |notice: &Notice| matches!(notice, Notice::InboxReady { .. });
        within(Step::Inbox, until(&mut received, is_ready)).await?;
        reader.listen(INBOX, true).await?;
        let is_listening = |notice: &Notice| matches!(notice, Notice::CaughtUp { .. });
        within(Step::Inbox, until(&mut received, is_listening)).await?;
        Ok(Self { sender, sent, reader, received, address })
    }

    /// Sends one message, and waits until both sides are done with it.
    async fn exchange(&mut self) -> Result<Times, BenchError> {
        let started = Instant::now();
        let id = self.sender.send(self.address, vec![b'x'; MESSAGE_LEN]).await?.id;
        let (sent, received) = (&mut self.sent, &mut self.received);
        let held = async {
            until(sent, |notice| is_held(notice, id)).await?;
            Ok::<_, BenchError>(started.elapsed())
        };
        let is_received = |notice: &Notice| matches!(notice, Notice::Received { id: received, .. } if *received == id);
        let received = async {
            until(received, is_received).await?;
            Ok::<_, BenchError>(started.elapsed())
        };
        within(Step::Message, async {
            let (held, received) = tokio::try_join!(held, received)?;
            Ok(Times { held, received })
        })
        .await
    }

    async fn close(self) {
        tokio::join!(self.sender.close(), self.reader.close());
    }
}

/// Whether as many holders as are wanted have this message.
fn is_held(notice: &Notice, message: MessageId) -> bool {
    matches!(notice, Notice::Held { id, holders, wanted } if *id == message && holders >= wanted)
}

async fn until(notices: &mut Notices, is_it: impl Fn(&Notice) -> bool) -> Result<(), BenchError> {
    loop {
        match notices.next().await {
            Ok(notice) if is_it(&notice) => return Ok(()),
            Ok(_) | Err(NoticeGap::Missed(_)) => {}
            Err(NoticeGap::Closed) => return Err(ClientClosed.into()),
        }
    }
}

fn make(dir: &Path, name: &str, peers: &[Peer]) -> Result<PathBuf, BenchError> {
    let path = dir.join(name);
    let seeds = peers.iter().take(SEEDS).cloned().collect();
    let new = NewProfile { network: None, seeds, key: NewKey::File(path.join("key")) };
    Profile::create(&path, new, &mut rand::rng())?;
    Ok(path)
}

async fn open(path: &Path) -> Result<Client, BenchError> {
    Ok(Client::open(Profile::load(path)?).await?)
}

async fn warm(plan: &Plan, pair: &mut Pair, report: &mut (dyn FnMut(Row) + Send)) -> Result<(), BenchError> {
    let (mut held, mut received) = (Vec::new(), Vec::new());
    for _ in 0..plan.messages {
        let times = pair.exchange().await?;
        held.push(ms(times.held));
        received.push(ms(times.received));
    }
    report(Row::of(
        "message_latency",
        Unit::Milliseconds,
        received,
        "from send to received, both durable: clients that are ready, a subscribed reader, no push delay",
    ));
    report(Row::of(
        "message_held",
        Unit::Milliseconds,
        held,
        "from send until two holders have it on disk and the sender knows",
    ));
    Ok(())
}

/// From a closed profile to a message that two holders have.
async fn cold(
    plan: &Plan,
    dir: &Path,
    network: &LocalNetwork,
    address: InboxAddress,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    let path = make(dir, "cold", &network.peers())?;
    send_once(&path, address).await?; // from now on the profile has guards and a view
    let mut times = Vec::new();
    for _ in 0..plan.cold_starts {
        times.push(ms(send_once(&path, address).await?));
    }
    report(Row::of(
        "message_cold",
        Unit::Milliseconds,
        times,
        "the same for a client that is opened for it: profile, links, circuits and descriptor included",
    ));
    Ok(())
}

async fn send_once(path: &Path, address: InboxAddress) -> Result<Duration, BenchError> {
    let started = Instant::now();
    let client = open(path).await?;
    let mut notices = client.notices();
    let id = client.send(address, vec![b'x'; MESSAGE_LEN]).await?.id;
    within(Step::Message, until(&mut notices, |notice| is_held(notice, id))).await?;
    let took = started.elapsed();
    client.close().await;
    Ok(took)
}

/// Cells on all links so far: what relays received, and what clients did.
async fn carried_cells(network: &LocalNetwork) -> u64 {
    network.stats().await.iter().map(|stats| stats.received_cells + stats.client_cells).sum()
}

/// What messages add to what the network carries anyway.
async fn wire(
    plan: &Plan,
    network: &LocalNetwork,
    pair: &mut Pair,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    tokio::time::sleep(SETTLE).await;
    let (started, before) = (Instant::now(), carried_cells(network).await);
    tokio::time::sleep(plan.idle).await;
    let idle_rate = (carried_cells(network).await - before) as f64 / started.elapsed().as_secs_f64();
    let mut cells = Vec::new();
    for _ in 0..plan.wire_rounds {
        let (started, before) = (Instant::now(), carried_cells(network).await);
        for _ in 0..plan.wire_messages {
            pair.exchange().await?;
        }
        tokio::time::sleep(SETTLE).await;
        let idle_cells = idle_rate * started.elapsed().as_secs_f64();
        let carried = (carried_cells(network).await - before) as f64;
        cells.push(((carried - idle_cells) / plan.wire_messages as f64).max(0.0));
    }
    let kib = cells.iter().map(|cells| cells * CELL_LEN as f64 / 1024.0).collect();
    let idle = format!("the idle network's {idle_rate:.1} cells a second are taken off");
    report(Row::of(
        "message_cells",
        Unit::Cells,
        cells,
        format!(
            "cells on all links together for one message of {MESSAGE_LEN} bytes, delivered, with all that follows; {idle}"
        ),
    ));
    report(Row::of(
        "message_wire",
        Unit::Kibibytes,
        kib,
        "the same in bytes of cells: each cell is counted on every link that it passes; without TLS and TCP around it",
    ));
    Ok(())
}
