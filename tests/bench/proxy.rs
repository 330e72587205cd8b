//! A chain of TLS proxies that do no onion work: the cost of as many hops that do nothing but TLS
//! and the kernel's part.
//!
//! Their links are those of relays: the same TLS, the same ciphers, the same key exchange. They
//! carry plain bytes.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio_rustls::TlsAcceptor;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::Peer;
use umbel_proto::link::tls;

use super::probe::{Tls, dial_tls};
use super::process::Process;
use super::relays::spawn_until_ready;
use super::{BenchError, Step, part, within};

/// Most bytes that a proxy reads before it writes, and that the last one writes at once.
const BUFFER_LEN: usize = 64 * 1024;

/// Proxies, each in a process of its own, and a connection through all of them.
pub(super) struct Chain {
    first: Peer,
    /// In the order in which they are passed.
    processes: Vec<Process>,
    /// Killed on drop.
    children: Vec<Child>,
}

impl Chain {
    /// Starts this many. The last one is the source of the bytes.
    pub(super) async fn start(hops: usize) -> Result<Self, BenchError> {
        let mut next: Option<Peer> = None;
        let (mut processes, mut children) = (Vec::new(), Vec::new());
        for _ in 0..hops {
            let mut command = part::command("proxy")?;
            if let Some(next) = &next {
                command.arg("--next").arg(next.to_string());
            }
            let (child, word) = within(Step::Process, spawn_until_ready(command)).await?;
            next = Some(word.parse().map_err(|_| BenchError::NoDescriptor)?);
            processes.insert(
                0,
                Process::with_id(child.id().ok_or(BenchError::NoDescriptor)?),
            );
            children.push(child);
        }
        Ok(Self {
            first: next.ok_or(BenchError::NoDescriptor)?,
            processes,
            children,
        })
    }

    /// Their processes, in the order in which bytes pass them.
    pub(super) fn processes(&self) -> impl Iterator<Item = Process> {
        self.processes.iter().cloned()
    }

    /// A connection through all of them.
    pub(super) async fn connect(&self) -> Result<Stream, BenchError> {
        Ok(Stream {
            stream: within(Step::Link, dial_tls(&self.first)).await?,
            buffer: vec![0; BUFFER_LEN],
        })
    }

    /// Ends them all.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        for child in &mut self.children {
            child.kill().await?;
        }
        Ok(())
    }
}

/// A connection through a [`Chain`].
pub(super) struct Stream {
    stream: Tls,
    buffer: Vec<u8>,
}

impl Stream {
    /// Asks the far end for this many bytes, and reads them.
    pub(super) async fn fetch(&mut self, len: u64) -> Result<(), BenchError> {
        self.stream.write_u64(len).await?;
        self.stream.flush().await?;
        let mut rest = len;
        while rest > 0 {
            match self.stream.read(&mut self.buffer).await? as u64 {
                0 => return Err(BenchError::Destroyed),
                read => rest = rest.saturating_sub(read),
            }
        }
        Ok(())
    }
}

/// Runs one proxy: to the next one, or as the last one.
pub(super) async fn run(next: Option<Peer>) -> Result<(), BenchError> {
    let identity = SigningKey::generate(&mut rand::rng());
    let acceptor = TlsAcceptor::from(tls::accept_config(&identity)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    part::ready(&Peer {
        id: identity.public().into(),
        host_port: listener.local_addr()?.to_string(),
    })?;
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, next) = (acceptor.clone(), next.clone());
        tokio::spawn(async move {
            // The side that dialled sees that its connection failed.
            let _ = carry(socket, &acceptor, next).await;
        });
    }
}

async fn carry(
    socket: TcpStream,
    acceptor: &TlsAcceptor,
    next: Option<Peer>,
) -> Result<(), BenchError> {
    socket.set_nodelay(true)?;
    let mut near = acceptor.accept(socket).await?;
    if let Some(next) = next {
        let mut far = dial_tls(&next).await?;
        copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_LEN, BUFFER_LEN).await?;
        return Ok(());
    }
    let bytes = vec![0x55; BUFFER_LEN];
    loop {
        let mut rest = usize::try_from(near.read_u64().await?).unwrap_or(usize::MAX);
        while rest > 0 {
            let some = bytes.get(..rest.min(BUFFER_LEN)).unwrap_or(&bytes);
            near.write_all(some).await?;
            rest -= some.len();
        }
        near.flush().await?;
    }
}
