//! Getting a network's file by an invitation (docs/protocol.md §8.6(10)): from one relay after the
//! other, over a circuit of one hop, until one gives the file that the invitation names.
//!
//! Nothing is known of the network but its id. The relay proves its identity by TLS, the circuit's
//! keys hold the id, and the file is taken only if it is the one: a relay, or anybody on the way,
//! can refuse, and nothing else.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{error::Elapsed, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::{Answer, Answers, Request, RequestCircuit, RequestEvent};
use umbel_proto::directory::{DirectoryReply, DirectoryRequest, Unverified};
use umbel_proto::ids::{CircId, Peer};
use umbel_proto::limits::{HANDSHAKE_MAX, LINK_CLOSING_MAX};
use umbel_proto::link::{Hello, circuit_of, tls};
use umbel_proto::message::Service;
use umbel_proto::network::{Invite, InviteFileError, Network, NetworkFault, Params};
use umbel_proto::time::Duration;

use super::{Clock, DialFault, HelloFault, exchange_hello};

/// How long a relay may take to give the file, once the link is up.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The one circuit of a link that its dialler makes (§2.3(2)).
const CIRCUIT: u32 = 1 << 31;

/// Why a relay did not give the file.
#[derive(Debug)]
pub enum SeedFault {
    /// It could not be reached.
    Dial(DialFault),
    /// It answered, and ended the circuit or said no: an earlier version does not know the request.
    Refused,
    /// It gave another file than the invitation names.
    WrongFile,
}

/// Why no relay of the invitation gave the file.
#[derive(Debug)]
pub enum InvitedFault {
    /// The file is the one, and this version can't use it.
    Network(NetworkFault),
    /// Each relay, and why it did not.
    Seeds(Vec<(Peer, SeedFault)>),
}

impl InvitedFault {
    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Network(_) => "use a later version of this program, then the same invitation",
            Self::Seeds(_) if self.is_wrong_file() => {
                "do not use that relay; ask for another invitation, from somebody you trust: it decides which network you join"
            }
            Self::Seeds(_) if self.is_refused() => {
                "ask for an invitation through relays of this version, or for the network file itself"
            }
            Self::Seeds(_) => {
                "check this machine's connection and try again, or ask for another invitation"
            }
        }
    }

    /// Whether a relay gave another file.
    pub fn is_wrong_file(&self) -> bool {
        self.seeds()
            .any(|fault| matches!(fault, SeedFault::WrongFile))
    }

    /// Whether a relay was reached and refused.
    pub fn is_refused(&self) -> bool {
        self.seeds()
            .any(|fault| matches!(fault, SeedFault::Refused))
    }

    fn seeds(&self) -> impl Iterator<Item = &SeedFault> {
        let seeds = match self {
            Self::Network(_) => &[][..],
            Self::Seeds(seeds) => seeds,
        };
        seeds.iter().map(|(_, fault)| fault)
    }
}

impl fmt::Display for InvitedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(fault) => write!(
                f,
                "the network that the invitation names can't be used by this version: {fault}"
            ),
            Self::Seeds(seeds) => {
                f.write_str("no relay of the invitation gave the network's file")?;
                seeds
                    .iter()
                    .try_for_each(|(seed, fault)| write!(f, "; {}: {fault}", seed.host_port))
            }
        }
    }
}

impl std::error::Error for InvitedFault {}

impl fmt::Display for SeedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(fault) => write!(f, "{fault}"),
            Self::Refused => f.write_str("it refused, as a relay of an earlier version does"),
            Self::WrongFile => f.write_str("it gave another file than the invitation names"),
        }
    }
}

impl From<DialFault> for SeedFault {
    fn from(fault: DialFault) -> Self {
        Self::Dial(fault)
    }
}

impl From<io::Error> for SeedFault {
    fn from(error: io::Error) -> Self {
        Self::Dial((&error).into())
    }
}

impl From<HelloFault> for SeedFault {
    fn from(fault: HelloFault) -> Self {
        Self::Dial((&fault).into())
    }
}

impl From<Elapsed> for SeedFault {
    fn from(_: Elapsed) -> Self {
        Self::Dial(DialFault::Nobody)
    }
}

impl From<Violation> for SeedFault {
    fn from(_: Violation) -> Self {
        Self::Refused
    }
}

/// The network of an invitation, by the first of its relays that gives the file.
///
/// # Errors
/// None does, or this version can't use the file.
pub async fn network_of_invite(invite: &Invite) -> Result<Network, InvitedFault> {
    let mut faults = Vec::new();
    for seed in invite.seeds() {
        let fault = match fetch(invite, seed).await.map(|file| invite.open(&file)) {
            Ok(Ok(network)) => return Ok(network),
            Ok(Err(InviteFileError::Network(fault))) => return Err(InvitedFault::Network(fault)),
            Ok(Err(InviteFileError::Other)) => SeedFault::WrongFile,
            Err(fault) => fault,
        };
        tracing::debug!(%seed, %fault, "no network file");
        faults.push((seed.clone(), fault));
    }
    Err(InvitedFault::Seeds(faults))
}

/// The file that this relay gives.
async fn fetch(invite: &Invite, seed: &Peer) -> Result<Vec<u8>, SeedFault> {
    let mut stream = timeout(HANDSHAKE_MAX, connect(invite, seed)).await??;
    let hello = Hello::of_client(invite.network(), Clock::wall());
    let theirs = exchange_hello(&mut stream, &hello, HANDSHAKE_MAX).await?;
    let shown = theirs.descriptor.ok_or(SeedFault::Refused)?;
    let shown = Unverified::decode(&shown).map_err(|_| SeedFault::Refused)?;
    let target = shown.hop_shown_by(&seed.id).ok_or(SeedFault::Refused)?;
    let circuit = RequestCircuit::create(&invite.network(), &target, &mut rand::rng());
    let answered = timeout(ANSWER_MAX, ask(&mut stream, circuit)).await;
    if matches!(answered, Ok(Ok(_)))
        && let Some(circ) = CircId::new(CIRCUIT)
    {
        let destroy = Cell::destroy(circ, DestroyReason::Finished);
        // The file is here; how the link ends changes nothing.
        let _ = timeout(LINK_CLOSING_MAX, stream.write_all(destroy.as_bytes())).await;
    }
    let _ = timeout(LINK_CLOSING_MAX, stream.shutdown()).await;
    answered?
}

async fn connect(invite: &Invite, seed: &Peer) -> Result<TlsStream<TcpStream>, SeedFault> {
    let config = tls::dial_config(&seed.id, None).map_err(|_| DialFault::Unknown)?;
    // Of the local network as of one machine; of any other whatever its file allows.
    let may_link = |it: &SocketAddr| Params::LOCAL.may_link(invite.network(), it.ip());
    let found = lookup_host(&seed.host_port).await?;
    let addresses: Vec<SocketAddr> = found.filter(may_link).collect();
    if addresses.is_empty() {
        return Err(DialFault::Elsewhere.into());
    }
    let socket = TcpStream::connect(&addresses[..]).await?;
    socket.set_nodelay(true)?;
    let connector = TlsConnector::from(config);
    Ok(connector.connect(tls::server_name(), socket).await?)
}

/// Asks for the file on this circuit, the only one of its link, and reads until the answer is there.
async fn ask(
    stream: &mut TlsStream<TcpStream>,
    mut circuit: RequestCircuit<()>,
) -> Result<Vec<u8>, SeedFault> {
    let circ = CircId::new(CIRCUIT).ok_or(SeedFault::Refused)?;
    let request = Request {
        service: Service::Directory,
        frame: DirectoryRequest::NetworkFile.encode(),
        answers: Answers::One,
    };
    circuit
        .ask((), request, None)
        .map_err(|_| SeedFault::Refused)?;
    loop {
        while let Some(mut cell) = circuit.poll_cell(&mut rand::rng()) {
            cell.set_circ_id(circ);
            stream.write_all(cell.as_bytes()).await?;
        }
        stream.flush().await?;
        let mut cell = Cell::blank();
        stream.read_exact(cell.as_bytes_mut()).await?;
        match circuit_of(&cell)? {
            None => continue,
            Some((of, command @ (Command::Created | Command::Relay))) if of == circ => {
                circuit.handle_cell(command, &mut cell)?;
            }
            Some(_) => return Err(SeedFault::Refused),
        }
        while let Some(event) = circuit.poll_event() {
            match event {
                RequestEvent::Answered {
                    answer: Answer::Frame(frame),
                    ..
                } => return file_of(&frame),
                RequestEvent::Extended { .. } => {}
                RequestEvent::ExtendRefused(_) | RequestEvent::Answered { .. } => {
                    return Err(SeedFault::Refused);
                }
            }
        }
    }
}

fn file_of(frame: &[u8]) -> Result<Vec<u8>, SeedFault> {
    match DirectoryReply::decode(frame) {
        Ok(DirectoryReply::NetworkFile(file)) => Ok(file.into_vec()),
        _ => Err(SeedFault::Refused),
    }
}
