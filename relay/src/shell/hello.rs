use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use umbel_proto::Violation;
use umbel_proto::cell::Cell;
use umbel_proto::link::Hello;

/// Why no `Hello`s were exchanged.
#[derive(Debug)]
pub enum HelloFault {
    /// The stream failed.
    Io(io::Error),
    /// The peer's `Hello` broke this rule.
    Violation(Violation),
}

impl From<io::Error> for HelloFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The first cell each way on a link. Ours does not wait for the peer's (docs/protocol.md §2.4(1)).
/// How long that may take is the caller's to bound.
///
/// # Errors
/// The stream fails, or the peer's `Hello` breaks a rule.
pub async fn exchange_hello<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ours: &Hello,
) -> Result<Hello, HelloFault> {
    stream.write_all(ours.encode().as_bytes()).await?;
    stream.flush().await?;
    let mut cell = Cell::blank();
    stream.read_exact(cell.as_bytes_mut()).await?;
    ours.accept(&cell).map_err(HelloFault::Violation)
}
