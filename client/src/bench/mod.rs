//! What Umbel costs, measured: on this machine, by the code that does the work, over real links on loopback.
//!
//! [`run`] starts a network of its own, works, and reports one [`Row`] a figure. Nothing here is estimated or remembered: a
//! figure that can't be had on this machine says so. What each figure means is in docs/benchmarks.md.

mod circuit;
mod cpu;
mod delay;
mod memory;
mod message;
mod probe;
mod process;
mod row;

use std::fmt;
use std::io;

use umbel_proto::Violation;
use umbel_proto::inbox::mailbox::Refusal;
use umbel_proto::time::Duration;

use crate::local::{LocalError, LocalNetwork};
use crate::{ClientClosed, CreateInboxError, InitError, ListenError, OpenError, ProfileError, SendError};

pub use row::{Row, Unit};

/// Relays of the network that is measured: twice as many as a circuit has hops.
const RELAYS: usize = 8;
/// How long any one step may take before the run is given up.
const STEP_MAX: Duration = Duration::from_secs(60);

/// How much is done for each figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Batches of cells, and of handshakes, that are timed on one core.
    pub cpu_rounds: usize,
    /// Circuits that are built, one after the other.
    pub circuits: usize,
    /// Transfers over one circuit.
    pub bulk_rounds: usize,
    /// Records fetched in each transfer.
    pub bulk_records: usize,
    /// Messages sent, one after the other.
    pub messages: usize,
    /// Clients opened to send one message each.
    pub cold_starts: usize,
    /// How long an idle network is watched.
    pub idle: Duration,
    /// Groups of messages whose cells are counted.
    pub wire_rounds: usize,
    /// Messages in each group.
    pub wire_messages: usize,
    /// Links that are held open.
    pub idle_links: usize,
    /// Circuits that are held open.
    pub idle_circuits: usize,
}

impl Plan {
    /// Enough for figures to be compared; takes a minute or two.
    pub const FULL: Self = Self {
        cpu_rounds: 300,
        circuits: 150,
        bulk_rounds: 10,
        bulk_records: 160,
        messages: 200,
        cold_starts: 20,
        idle: Duration::from_secs(20),
        wire_rounds: 10,
        wire_messages: 10,
        idle_links: 200,
        idle_circuits: 10_000,
    };
    /// Enough to see that everything works; takes less than half a minute.
    pub const QUICK: Self = Self {
        cpu_rounds: 20,
        circuits: 10,
        bulk_rounds: 3,
        bulk_records: 8,
        messages: 10,
        cold_starts: 2,
        idle: Duration::from_secs(2),
        wire_rounds: 2,
        wire_messages: 3,
        idle_links: 20,
        idle_circuits: 100,
    };
}

/// Measures everything; each row is reported as soon as it is known.
///
/// # Errors
/// The network could not be run, or something in it did not work.
pub async fn run(plan: &Plan, report: &mut (dyn FnMut(Row) + Send)) -> Result<(), BenchError> {
    cpu::measure(plan, report);
    let network = LocalNetwork::start(RELAYS).await?;
    let result = over_links(plan, &network, report).await;
    network.stop().await?;
    result?;
    delay::measure(plan, report).await
}

async fn over_links(
    plan: &Plan,
    network: &LocalNetwork,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    within(Step::Gathering, until_gathered(network)).await?;
    circuit::measure(plan, network, report).await?;
    message::measure(plan, network, report).await?;
    // Last, since it leaves the others with descriptors of relays that are gone.
    memory::measure(plan, network, report).await
}

/// Until every relay knows every other.
async fn until_gathered(network: &LocalNetwork) -> Result<(), BenchError> {
    while !network.stats().await.iter().all(|stats| stats.control.relays >= RELAYS) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn within<T>(step: Step, work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    tokio::time::timeout(STEP_MAX, work).await.map_err(|_| BenchError::TooSlow(step))?
}

/// What did not come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Relays getting to know each other.
    Gathering,
    /// Making a link.
    Link,
    /// Building a circuit.
    Circuit,
    /// An answer from a mailbox.
    Mailbox,
    /// An inbox being made or listened to.
    Inbox,
    /// A message on its way.
    Message,
    /// A relay process starting.
    Process,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gathering => "relays getting to know each other",
            Self::Link => "a link",
            Self::Circuit => "a circuit",
            Self::Mailbox => "an answer from a mailbox",
            Self::Inbox => "an inbox",
            Self::Message => "a message",
            Self::Process => "the start of a relay",
        })
    }
}

/// Something that was to be measured did not work.
#[derive(Debug)]
pub enum BenchError {
    /// The network.
    Local(LocalError),
    /// A link, a file or a process.
    Io(io::Error),
    /// TLS does not work on this machine.
    Tls(rustls::Error),
    /// A profile could not be made.
    Init(InitError),
    /// A profile could not be read.
    Profile(ProfileError),
    /// A profile could not be opened.
    Open(OpenError),
    /// A message was not taken.
    Send(SendError),
    /// An inbox was not made.
    Inbox(CreateInboxError),
    /// An inbox can't be listened to.
    Listen(ListenError),
    /// A client ended by itself.
    Closed(ClientClosed),
    /// A relay broke a rule.
    Violation(Violation),
    /// A relay did not say who it is.
    NoDescriptor,
    /// A relay ended a circuit.
    Destroyed,
    /// A relay would not extend a circuit.
    ExtendRefused,
    /// A mailbox said no.
    Refused(Refusal),
    /// A mailbox answered something else than it was asked.
    Unexpected,
    /// It took too long.
    TooSlow(Step),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Init(error) => error.fmt(f),
            Self::Profile(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
            Self::Inbox(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Closed(error) => error.fmt(f),
            Self::Violation(violation) => write!(f, "a relay broke a rule: {violation:?}"),
            Self::NoDescriptor => f.write_str("a relay did not say who it is"),
            Self::Destroyed => f.write_str("a relay ended a circuit"),
            Self::ExtendRefused => f.write_str("a relay would not extend a circuit"),
            Self::Refused(refusal) => write!(f, "a mailbox refused: {refusal:?}"),
            Self::Unexpected => f.write_str("a mailbox answered something that was not asked"),
            Self::TooSlow(step) => write!(f, "{step} took more than {} seconds", STEP_MAX.as_secs()),
        }
    }
}

impl std::error::Error for BenchError {}

macro_rules! from_errors {
    ($($variant:ident($error:ty),)+) => {$(
        impl From<$error> for BenchError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )+};
}

from_errors! {
    Local(LocalError),
    Io(io::Error),
    Tls(rustls::Error),
    Init(InitError),
    Profile(ProfileError),
    Open(OpenError),
    Send(SendError),
    Inbox(CreateInboxError),
    Listen(ListenError),
    Closed(ClientClosed),
    Violation(Violation),
}
