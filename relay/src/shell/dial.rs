//! A link as a client makes it, up to TLS: the relay proves who it is, and the client nothing
//! (docs/protocol.md §2.5).

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::BufReader;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsConnector, rustls};
use umbel_proto::ids::RelayId;
use umbel_proto::link::tls;

/// Bytes read from a socket at once; rustls alone reads 4 KiB.
const READ_AHEAD_LEN: usize = 32 * 1024;

/// TLS on a socket that is read in large pieces.
pub type ClientStream = TlsStream<BufReader<TcpStream>>;

/// Why there is no TLS with the relay that was dialled.
#[derive(Debug)]
pub enum ConnectFault {
    /// Its name was not found.
    NoName(io::Error),
    /// None of its addresses may be dialled in this network (§8.6(7)).
    Elsewhere,
    /// The connection, or its TLS, did not come to be.
    Io(io::Error),
    /// TLS can't be set up on this machine.
    Tls(rustls::Error),
}

/// Dials the relay at those of its addresses that may be linked to, as a client. The caller bounds
/// the time.
///
/// # Errors
/// See [`ConnectFault`].
pub async fn connect_as_client(
    relay: &RelayId,
    host_port: &str,
    may_link: impl Fn(IpAddr) -> bool,
) -> Result<ClientStream, ConnectFault> {
    let config = tls::dial_config(relay, None).map_err(ConnectFault::Tls)?;
    let found = lookup_host(host_port).await;
    let found = found.map_err(ConnectFault::NoName)?;
    let addresses: Vec<SocketAddr> = found.filter(|it| may_link(it.ip())).collect();
    if addresses.is_empty() {
        return Err(ConnectFault::Elsewhere);
    }
    let handshake = async {
        let socket = TcpStream::connect(&addresses[..]).await?;
        socket.set_nodelay(true)?;
        let socket = BufReader::with_capacity(READ_AHEAD_LEN, socket);
        TlsConnector::from(config)
            .connect(tls::server_name(), socket)
            .await
    };
    handshake.await.map_err(ConnectFault::Io)
}
