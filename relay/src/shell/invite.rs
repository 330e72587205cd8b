//! Getting a network's file by an invitation (docs/protocol.md §8.6(10)): from one relay after the
//! other, over a circuit of one hop, until one gives the file that the invitation names.
//!
//! Nothing is known of the network but its id. The relay proves its identity by TLS, the circuit's
//! keys hold the id, and the file is taken only if it is the one: a relay, or anybody on the way,
//! can refuse, and nothing else.

use std::fmt;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::circuit::{Answer, Answers, Request, RequestCircuit, RequestEvent};
use umbel_proto::directory::{DirectoryReply, DirectoryRequest, Unverified};
use umbel_proto::ids::{CircId, Peer};
use umbel_proto::limits::{HANDSHAKE_MAX, LINK_CLOSING_MAX, NETWORK_FILE_TIMEOUT};
use umbel_proto::link::{CircIds, Hello, circuit_of};
use umbel_proto::message::Service;
use umbel_proto::network::{Invite, InviteFileError, Network, NetworkFault, Params};

use super::{ClientStream, Clock, ConnectFault, DialFault, connect_as_client, exchange_hello};

/// Why a relay did not give the file.
#[derive(Debug)]
pub enum SeedFault {
    /// Its name was not found.
    NoName,
    /// It could not be reached.
    Dial(DialFault),
    /// It was reached, and neither gave the file nor refused before the link or the time was over.
    NoAnswer,
    /// It ended the circuit or said no: an earlier version does not know the request.
    Refused,
    /// It broke this rule.
    Broke(Violation),
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

/// What an invitation failed for, in the order in which one counts more than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvitedKind {
    /// A relay gave another file.
    WrongFile,
    /// A relay that was reached, or this program, is of too early a version.
    Version,
    /// No relay gave an answer that counts.
    Unreachable,
}

impl InvitedFault {
    /// What it failed for.
    pub fn kind(&self) -> InvitedKind {
        let seeds = match self {
            Self::Network(_) => return InvitedKind::Version,
            Self::Seeds(seeds) => seeds,
        };
        let any = |is: fn(&SeedFault) -> bool| seeds.iter().any(|(_, fault)| is(fault));
        if any(|it| matches!(it, SeedFault::WrongFile)) {
            InvitedKind::WrongFile
        } else if any(|it| matches!(it, SeedFault::Refused)) {
            InvitedKind::Version
        } else {
            InvitedKind::Unreachable
        }
    }

    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match (self, self.kind()) {
            (Self::Network(_), _) => {
                "use a later version of this program, then the same invitation"
            }
            (Self::Seeds(_), InvitedKind::WrongFile) => {
                "do not use this invitation; ask for another one, from somebody you trust: it decides which network you join"
            }
            (Self::Seeds(_), InvitedKind::Version) => {
                "ask for an invitation through relays of this version, or for the network file itself"
            }
            (Self::Seeds(_), InvitedKind::Unreachable) => {
                "check this machine's connection and try again, or ask for another invitation"
            }
        }
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
            Self::NoName => f.write_str("its name was not found"),
            Self::Dial(fault) => write!(f, "{fault}"),
            Self::NoAnswer => f.write_str("it answered, but the file did not come"),
            Self::Broke(violation) => write!(f, "it broke a rule of the protocol ({violation:?})"),
            Self::Refused => f.write_str("it refused, as a relay of an earlier version does"),
            Self::WrongFile => f.write_str("it gave another file than the invitation names"),
        }
    }
}

impl SeedFault {
    /// The connection, or its TLS, did not come to be.
    fn of_dial(fault: ConnectFault) -> Self {
        match fault {
            ConnectFault::NoName(_) => Self::NoName,
            ConnectFault::Elsewhere => Self::Dial(DialFault::Elsewhere),
            ConnectFault::Io(error) => Self::Dial((&error).into()),
            ConnectFault::Tls(_) => Self::Dial(DialFault::Unknown),
        }
    }

    /// The link is up, and ended.
    fn of_link(_: io::Error) -> Self {
        Self::NoAnswer
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
    // Of the local network as of one machine; of any other whatever its file allows.
    let may_link = |ip| Params::LOCAL.may_link(invite.network(), ip);
    let connect = connect_as_client(&seed.id, &seed.host_port, may_link);
    let connected = timeout(HANDSHAKE_MAX, connect).await;
    let connected = connected.map_err(|_| SeedFault::Dial(DialFault::Nobody))?;
    let mut stream = connected.map_err(SeedFault::of_dial)?;
    let hello = Hello::of_client(invite.network(), Clock::wall());
    let theirs = exchange_hello(&mut stream, &hello, HANDSHAKE_MAX).await;
    let theirs = theirs.map_err(|fault| SeedFault::Dial((&fault).into()))?;
    let shown = theirs.descriptor.ok_or(SeedFault::Refused)?;
    let shown = Unverified::decode(&shown).map_err(|_| SeedFault::Refused)?;
    let target = shown.hop_shown_by(&seed.id).ok_or(SeedFault::Refused)?;
    let circuit = RequestCircuit::create(&invite.network(), &target, &mut rand::rng());
    let circ = CircIds::new(true).next(|_| false);
    let answered = timeout(NETWORK_FILE_TIMEOUT, ask(&mut stream, circ, circuit)).await;
    if matches!(answered, Ok(Ok(_))) {
        let destroy = Cell::destroy(circ, DestroyReason::Finished);
        // The file is here; how the link ends changes nothing.
        let _ = timeout(LINK_CLOSING_MAX, stream.write_all(destroy.as_bytes())).await;
    }
    let _ = timeout(LINK_CLOSING_MAX, stream.shutdown()).await;
    answered.unwrap_or(Err(SeedFault::NoAnswer))
}

/// Asks for the file on this circuit, the only one of its link, and reads until the answer is there.
async fn ask(
    stream: &mut ClientStream,
    circ: CircId,
    mut circuit: RequestCircuit<()>,
) -> Result<Vec<u8>, SeedFault> {
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
            let written = stream.write_all(cell.as_bytes()).await;
            written.map_err(SeedFault::of_link)?;
        }
        stream.flush().await.map_err(SeedFault::of_link)?;
        let mut cell = Cell::blank();
        let read = stream.read_exact(cell.as_bytes_mut()).await;
        read.map_err(SeedFault::of_link)?;
        match circuit_of(&cell).map_err(SeedFault::Broke)? {
            None => continue,
            Some((of, command @ (Command::Created | Command::Relay))) if of == circ => {
                let handled = circuit.handle_cell(command, &mut cell);
                handled.map_err(SeedFault::Broke)?;
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
    match DirectoryReply::decode(frame).map_err(|fault| SeedFault::Broke(fault.into()))? {
        DirectoryReply::NetworkFile(file) => Ok(file.into_vec()),
        DirectoryReply::Refused(_) => Err(SeedFault::Refused),
        DirectoryReply::Sync(_)
        | DirectoryReply::Pushed { .. }
        | DirectoryReply::Published
        | DirectoryReply::Inbox(_) => Err(SeedFault::Broke(Violation::Unexpected)),
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::directory::DirectoryRefusal;
    use umbel_proto::ids::RelayId;

    use super::*;

    #[test] // §8.4(1), §8.6(10)
    fn a_relay_that_says_no_differs_from_one_that_breaks_a_rule() {
        let refused = DirectoryReply::Refused(DirectoryRefusal::Invalid).encode();
        assert!(matches!(file_of(&refused), Err(SeedFault::Refused)));
        let other = DirectoryReply::Published.encode();
        assert!(matches!(
            file_of(&other),
            Err(SeedFault::Broke(Violation::Unexpected))
        ));
        assert!(matches!(
            file_of(&[0xff]),
            Err(SeedFault::Broke(Violation::Malformed(_)))
        ));
    }

    #[test]
    fn only_a_relay_that_refuses_is_of_an_early_version() {
        let seed = Peer {
            id: RelayId([1; 32]),
            host_port: "relay.example:7443".to_owned(),
        };
        let kind = |faults: Vec<SeedFault>| {
            let seeds = faults.into_iter().map(|fault| (seed.clone(), fault));
            InvitedFault::Seeds(seeds.collect()).kind()
        };
        for fault in [
            SeedFault::NoName,
            SeedFault::NoAnswer,
            SeedFault::Dial(DialFault::Nobody),
            SeedFault::Broke(Violation::Tag),
        ] {
            assert_eq!(kind(vec![fault]), InvitedKind::Unreachable);
        }
        let refused = vec![SeedFault::NoName, SeedFault::Refused];
        assert_eq!(kind(refused), InvitedKind::Version);
        let wrong = vec![SeedFault::Refused, SeedFault::WrongFile];
        assert_eq!(kind(wrong), InvitedKind::WrongFile);
    }
}
