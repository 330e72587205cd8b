//! Messages from client to client: how long they take, and what they put on the wire.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use tempfile::TempDir;
use tokio::process::Command;
use umbel_client::core::io::{Notice, is_held_by_enough};
use umbel_client::local::{LocalError, LocalNetwork};
use umbel_client::{Client, ClientClosed, NewKey, NewProfile, NoticeGap, Notices, Profile};
use umbel_proto::ids::{MessageId, Peer};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::CELL_LEN;
use umbel_proto::time::Duration;

use super::process::Meter;
use super::relays::{Admission, Relays};
use super::row::{Goal, Row, Unit, ms};
use super::{BenchError, Extent, RELAYS, Report, Step, part, within};

/// Length of every message, bytes.
const MESSAGE_LEN: usize = 100;
/// The receiving client's name for its inbox.
const INBOX: &str = "bench";
/// Relays that a client begins with.
const SEEDS: usize = 2;
/// How long to wait for what follows a message.
const SETTLE: Duration = Duration::from_secs(1);
/// Most bytes that TLS 1.3 adds to a cell.
const TLS_LEN: usize = 22;

/// How much is done.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Messages sent, one after the other.
    pub(super) messages: usize,
    /// Clients opened to send one message each.
    pub(super) cold_starts: usize,
    /// How long an idle network is watched.
    pub(super) idle: Duration,
    /// Groups of messages whose cells are counted.
    pub(super) wire_rounds: usize,
    /// Messages in each group.
    pub(super) wire_messages: usize,
}

impl Plan {
    pub(super) const FULL: Self = Self {
        messages: 200,
        cold_starts: 20,
        idle: Duration::from_secs(20),
        wire_rounds: 10,
        wire_messages: 10,
    };
    pub(super) const QUICK: Self = Self {
        messages: 10,
        cold_starts: 2,
        idle: Duration::from_secs(2),
        wire_rounds: 2,
        wire_messages: 3,
    };
}

pub(super) async fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let plan = extent.pick(Plan::FULL, Plan::QUICK);
    let network = LocalNetwork::start(RELAYS).await?;
    let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
    let mut pair = Pair::open(dir.path(), &network.peers()).await?;
    warm(&plan, &mut pair, report).await?;
    wire(&plan, &network, &mut pair, report).await?;
    cold(&plan, dir.path(), &network.peers(), pair.address, report).await?;
    pair.close().await;
    network.stop().await?;
    Box::pin(cpu(&plan, dir.path(), report)).await?;
    dir.close().map_err(LocalError::Dir)?;
    Ok(())
}

/// The figures that distance changes.
pub(super) async fn measure_far(
    plan: &Plan,
    network: &LocalNetwork,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
    let mut pair = Pair::open(dir.path(), &network.peers()).await?;
    warm(plan, &mut pair, report).await?;
    cold(plan, dir.path(), &network.peers(), pair.address, report).await?;
    pair.close().await;
    dir.close().map_err(LocalError::Dir)?;
    Ok(())
}

/// Two clients, each subscribed to an inbox of its own. The reader reads the sender's messages and
/// may answer them.
struct Pair {
    sender: Client,
    sent: Notices,
    reader: Client,
    received: Notices,
    /// The reader's.
    address: InboxAddress,
    /// The sender's.
    answers: InboxAddress,
}

/// How long a message took, counted from the call that sends it.
struct Times {
    /// Until enough holders had it durably, and the sender knew.
    held: Duration,
    /// Until the reader had it durably.
    received: Duration,
}

impl Pair {
    /// Ready: circuits, mailboxes and descriptors are there.
    async fn open(dir: &Path, peers: &[Peer]) -> Result<Self, BenchError> {
        let sender = open(&make(dir, "sender", peers)?).await?;
        let reader = open(&make(dir, "reader", peers)?).await?;
        let (mut sent, mut received) = (sender.notices(), reader.notices());
        let address = own_inbox(&reader, &mut received).await?;
        let answers = own_inbox(&sender, &mut sent).await?;
        let mut pair = Self {
            sender,
            sent,
            reader,
            received,
            address,
            answers,
        };
        pair.exchange().await?;
        pair.round_trip().await?;
        Ok(pair)
    }

    /// Sends one message, and waits until enough holders have it and the reader too.
    async fn exchange(&mut self) -> Result<Times, BenchError> {
        let started = Instant::now();
        let id = self
            .sender
            .send(self.address, vec![b'x'; MESSAGE_LEN])
            .await?
            .id;
        let (sent, received) = (&mut self.sent, &mut self.received);
        let held = async {
            until(sent, |notice| is_held(notice, id)).await?;
            Ok::<_, BenchError>(started.elapsed())
        };
        let received = async {
            until(received, |notice| is_received(notice, id)).await?;
            Ok::<_, BenchError>(started.elapsed())
        };
        within(Step::Message, async {
            let (held, received) = tokio::try_join!(held, received)?;
            Ok(Times { held, received })
        })
        .await
    }

    /// Sends one message, which the reader answers as soon as it has it.
    async fn round_trip(&mut self) -> Result<Duration, BenchError> {
        let started = Instant::now();
        within(Step::Message, async {
            let sending = self.sender.send(self.address, vec![b'x'; MESSAGE_LEN]);
            let receiving = until(&mut self.received, |notice| {
                matches!(notice, Notice::Received { .. })
            });
            let (sent, received) = tokio::join!(sending, receiving);
            sent?;
            received?;
            let answering = self.reader.send(self.answers, vec![b'y'; MESSAGE_LEN]);
            let receiving = async {
                until(&mut self.sent, |notice| {
                    matches!(notice, Notice::Received { .. })
                })
                .await?;
                Ok::<_, BenchError>(started.elapsed())
            };
            let (sent, took) = tokio::join!(answering, receiving);
            let answer = sent?.id;
            until(&mut self.received, |notice| is_held(notice, answer)).await?;
            took
        })
        .await
    }

    async fn close(self) {
        tokio::join!(self.sender.close(), self.reader.close());
    }
}

/// Makes an inbox and subscribes to it.
async fn own_inbox(client: &Client, notices: &mut Notices) -> Result<InboxAddress, BenchError> {
    let address = client.create_inbox(INBOX).await?;
    let is_ready = |notice: &Notice| matches!(notice, Notice::InboxReady { .. });
    within(Step::Inbox, until(notices, is_ready)).await?;
    client.listen(INBOX, true).await?;
    let is_listening = |notice: &Notice| matches!(notice, Notice::CaughtUp { .. });
    within(Step::Inbox, until(notices, is_listening)).await?;
    Ok(address)
}

/// Runs a client that is subscribed to an inbox of its own, until the process is killed.
pub(super) async fn subscribe(dir: &Path, peers: &[Peer]) -> Result<(), BenchError> {
    let client = open(&make(dir, "client", peers)?).await?;
    let mut notices = client.notices();
    own_inbox(&client, &mut notices).await?;
    part::ready(&"client")?;
    until(&mut notices, |_| false).await
}

/// Whether enough holders have this message.
fn is_held(notice: &Notice, message: MessageId) -> bool {
    matches!(notice, Notice::Held { id, holders, wanted } if *id == message && is_held_by_enough(*holders, *wanted))
}

fn is_received(notice: &Notice, message: MessageId) -> bool {
    matches!(notice, Notice::Received { id, .. } if *id == message)
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
    let new = NewProfile {
        network: None,
        seeds,
        key: NewKey::File(path.join("key")),
    };
    Profile::create(&path, new, &mut rand::rng())?;
    Ok(path)
}

async fn open(path: &Path) -> Result<Client, BenchError> {
    Ok(Client::open(Profile::load(path)?).await?)
}

async fn warm(plan: &Plan, pair: &mut Pair, report: &mut Report<'_>) -> Result<(), BenchError> {
    let (mut held, mut received, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.messages {
        let times = pair.exchange().await?;
        held.push(ms(times.held));
        received.push(ms(times.received));
    }
    for _ in 0..plan.messages {
        answered.push(ms(pair.round_trip().await?));
    }
    let unit = Unit::Milliseconds;
    report(
        Row::of(
            "message_latency",
            unit,
            received,
            "from send to received, durable at the reader: clients that are ready, a subscribed reader, no push delay",
        )
        .with_goal(Goal::AtMost(2.0)),
    );
    report(
        Row::of(
            "message_held",
            unit,
            held,
            "from send until two holders have it on disk and the sender knows",
        )
        .with_goal(Goal::AtMost(10.0)),
    );
    report(Row::of(
        "message_round_trip",
        unit,
        answered,
        "a message, and the answer that its reader sends as soon as it is durable there, until that is durable too",
    ));
    Ok(())
}

/// From a closed profile to a message that two holders have; and from nothing to a client that
/// could send one.
async fn cold(
    plan: &Plan,
    dir: &Path,
    peers: &[Peer],
    address: InboxAddress,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    let path = make(dir, "cold", peers)?;
    send_once(&path, address).await?; // from now on the profile has guards and a view
    let umbel = part::beside("umbel");
    let (mut opened, mut processes, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..plan.cold_starts {
        opened.push(ms(send_once(&path, address).await?));
        if let Some(umbel) = &umbel {
            let sending = send_by_process(umbel, &path, address);
            processes.push(ms(within(Step::Message, sending).await?));
            // What the process left there would be sent in the next sample's time.
            empty(&path).await?;
        }
        fresh.push(ms(
            within(Step::Circuit, start_fresh(dir, number, peers)).await?
        ));
    }
    let unit = Unit::Milliseconds;
    report(Row::of(
        "message_cold",
        unit,
        opened,
        "a client opened for one message, until two holders have it: profile, links, circuits and descriptor included",
    ));
    report(
        Row::of(
            "message_cold_send",
            unit,
            processes,
            format!(
                "`umbel send` as a new process, the network known, from its start to its end with two holders or more{}",
                if umbel.is_some() { "" } else { "; there is no umbel beside this program" }
            ),
        )
        .with_goal(Goal::AtMost(250.0)),
    );
    report(
        Row::of(
            "client_fresh",
            unit,
            fresh,
            format!(
                "a client that knows {SEEDS} seeds and nothing else: profile made, opened, all relays known, \
                 first circuit of three hops"
            ),
        )
        .with_goal(Goal::AtMost(1000.0)),
    );
    Ok(())
}

async fn send_once(path: &Path, address: InboxAddress) -> Result<Duration, BenchError> {
    let started = Instant::now();
    let client = open(path).await?;
    let mut notices = client.notices();
    let id = client.send(address, vec![b'x'; MESSAGE_LEN]).await?.id;
    within(
        Step::Message,
        until(&mut notices, |notice| is_held(notice, id)),
    )
    .await?;
    let took = started.elapsed();
    within(Step::Message, until_sent(&client)).await?;
    client.close().await;
    Ok(took)
}

/// Sends what is left in the outbox.
async fn empty(path: &Path) -> Result<(), BenchError> {
    let client = open(path).await?;
    within(Step::Message, until_sent(&client)).await?;
    client.close().await;
    Ok(())
}

/// Until nothing is left for the next client of the profile to do.
async fn until_sent(client: &Client) -> Result<(), BenchError> {
    while !client.status().await?.outbox.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Sends one message by `umbel send`: the time that its user waits.
async fn send_by_process(
    umbel: &Path,
    profile: &Path,
    address: InboxAddress,
) -> Result<Duration, BenchError> {
    let started = Instant::now();
    let mut command = Command::new(umbel);
    command.arg("--profile").arg(profile).args([
        "send",
        "--one-way",
        &address.to_text(),
        &"x".repeat(MESSAGE_LEN),
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    // Held by fewer holders than are wanted is another exit code.
    if command.status().await?.success() {
        Ok(started.elapsed())
    } else {
        Err(BenchError::Unexpected)
    }
}

async fn start_fresh(dir: &Path, number: usize, peers: &[Peer]) -> Result<Duration, BenchError> {
    let started = Instant::now();
    let client = open(&make(dir, &format!("fresh-{number}"), peers)?).await?;
    let mut notices = client.notices();
    until(&mut notices, |notice| {
        matches!(notice, Notice::HopBuilt { hop: 3, .. })
    })
    .await?;
    let took = started.elapsed();
    client.close().await;
    Ok(took)
}

/// Cells so far: on the links of sender and reader, each away from the client and toward it, and on
/// all links together.
#[derive(Clone, Copy)]
struct Carried([f64; 5]);

impl Carried {
    async fn now(network: &LocalNetwork, pair: &Pair) -> Result<Self, BenchError> {
        let (sender, reader) = (pair.sender.status().await?, pair.reader.status().await?);
        let all: u64 = network
            .stats()
            .await
            .iter()
            .map(|stats| stats.received_cells + stats.client_cells)
            .sum();
        let counts = [
            sender.sent_cells,
            sender.received_cells,
            reader.sent_cells,
            reader.received_cells,
            all,
        ];
        Ok(Self(counts.map(|count| count as f64)))
    }

    /// This without what was carried before, and divided.
    fn since(self, before: Self, by: f64) -> Self {
        let mut cells = self.0;
        cells
            .iter_mut()
            .zip(before.0)
            .for_each(|(cells, before)| *cells = ((*cells - before) / by).max(0.0));
        Self(cells)
    }

    /// This less `times` the cells of `rate`.
    fn without(self, rate: Self, times: f64) -> Self {
        let mut cells = self.0;
        cells
            .iter_mut()
            .zip(rate.0)
            .for_each(|(cells, rate)| *cells = (*cells - rate * times).max(0.0));
        Self(cells)
    }
}

/// The cells that messages add to those that an idle network carries.
async fn wire(
    plan: &Plan,
    network: &LocalNetwork,
    pair: &mut Pair,
    report: &mut Report<'_>,
) -> Result<(), BenchError> {
    tokio::time::sleep(SETTLE).await;
    let (started, before) = (Instant::now(), Carried::now(network, pair).await?);
    tokio::time::sleep(plan.idle).await;
    let idle = Carried::now(network, pair)
        .await?
        .since(before, started.elapsed().as_secs_f64());
    let mut rounds = Vec::new();
    let count = plan.wire_messages as f64;
    for _ in 0..plan.wire_rounds {
        let (started, before) = (Instant::now(), Carried::now(network, pair).await?);
        for _ in 0..plan.wire_messages {
            pair.exchange().await?;
        }
        tokio::time::sleep(SETTLE).await;
        let carried = Carried::now(network, pair).await?.since(before, count);
        rounds.push(carried.without(idle, started.elapsed().as_secs_f64() / count));
    }
    report_wire(&rounds, idle, report);
    Ok(())
}

fn report_wire(rounds: &[Carried], idle: Carried, report: &mut Report<'_>) {
    let of = |cells: fn([f64; 5]) -> f64| {
        rounds
            .iter()
            .map(|round| cells(round.0))
            .collect::<Vec<_>>()
    };
    let kib = |cells: Vec<f64>| {
        cells
            .iter()
            .map(|cells| cells * (CELL_LEN + TLS_LEN) as f64 / 1024.0)
            .collect()
    };
    let unit = Unit::Kibibytes;
    report(
        Row::of(
            "message_side",
            unit,
            kib(of(|[up, down, reader_up, reader_down, _]| up.max(down).max(reader_up).max(reader_down))),
            format!(
                "one message of {MESSAGE_LEN} bytes, three copies, all acknowledgements: bytes on one link in one direction, on \
                 the busiest (a client's link to its guard carries all its circuits), TLS included, TCP and IP not"
            ),
        )
        .with_goal(Goal::AtMost(16.0)),
    );
    report(Row::of(
        "message_sender_link",
        unit,
        kib(of(|[up, down, ..]| up + down)),
        "the same, on the sender's link, both directions",
    ));
    report(Row::of(
        "message_reader_link",
        unit,
        kib(of(|[_, _, up, down, _]| up + down)),
        "the same, on the reader's link, both directions; removals go with probes that are sent anyway, one for up to twelve",
    ));
    let [.., idle] = idle.0;
    report(Row::of(
        "message_cells",
        Unit::Cells,
        of(|[.., all]| all),
        format!(
            "the same in cells, on all links together: a cell counts on each; the idle network's {idle:.1} a second are off"
        ),
    ));
    report(Row::of(
        "message_wire",
        unit,
        kib(of(|[.., all]| all)),
        "the same, on all links together, both directions",
    ));
}

/// The time on cores that messages cost relay processes, beyond their idle cost.
async fn cpu(plan: &Plan, dir: &Path, report: &mut Report<'_>) -> Result<(), BenchError> {
    let relays = Box::pin(Relays::start(&[1; RELAYS], Admission::Local)).await?;
    let peers: Vec<Peer> = relays
        .each()
        .iter()
        .map(|relay| relay.peer.clone())
        .collect();
    let dir = dir.join("cpu");
    let mut pair = Pair::open(&dir, &peers).await?;
    tokio::time::sleep(SETTLE).await;
    let meter = Meter::start(relays.processes());
    tokio::time::sleep(plan.idle).await;
    let idle = meter.stop();
    let mut costs = Vec::new();
    for _ in 0..plan.wire_rounds {
        let meter = Meter::start(relays.processes());
        for _ in 0..plan.wire_messages {
            pair.exchange().await?;
        }
        // The last message's third copy and acknowledgements count too; the idle cost meanwhile is
        // subtracted.
        tokio::time::sleep(SETTLE).await;
        let busy = meter.stop();
        let without_idle =
            |busy_cpu: f64| busy_cpu - idle.cpu_sum().unwrap_or(0.0) * busy.wall / idle.wall;
        costs.extend(
            busy.cpu_sum()
                .map(|cpu| without_idle(cpu).max(0.0) * 1e3 / plan.wire_messages as f64),
        );
    }
    report(Row::of(
        "message_cpu",
        Unit::Milliseconds,
        costs,
        "time on cores of all relays together, each a process, for one such message: kernel, TLS, layers and three commits",
    ));
    pair.close().await;
    relays.stop().await
}
