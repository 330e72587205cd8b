//! How a link begins: each side sends its `Hello` and reads the other's (docs/protocol.md §2.4).
//! Nothing else goes over a link before that.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use umbel_proto::Violation;
use umbel_proto::cell::Cell;
use umbel_proto::limits::LINK_CLOSING_MAX;
use umbel_proto::link::Hello;
use umbel_proto::time::Duration;

/// Why no `Hello`s were exchanged.
#[derive(Debug)]
pub enum HelloFault {
    /// The stream failed.
    Io(io::Error),
    /// The peer's `Hello` broke this rule.
    Violation(Violation),
    /// The peer took too long.
    Timeout,
}

impl From<io::Error> for HelloFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The first cell each way on a link, in `time_max` (docs/protocol.md §2.5(8)). A peer that takes
/// longer, or breaks a rule, sees the link end as any does (§2.6(5)).
///
/// # Errors
/// The stream fails, the peer's `Hello` breaks a rule, or the time is over.
pub async fn exchange_hello<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ours: &Hello,
    time_max: Duration,
) -> Result<Hello, HelloFault> {
    let exchanged = timeout(time_max, exchange(stream, ours)).await;
    let exchanged = exchanged.unwrap_or(Err(HelloFault::Timeout));
    if matches!(
        &exchanged,
        Err(HelloFault::Violation(_) | HelloFault::Timeout)
    ) {
        let _ = timeout(LINK_CLOSING_MAX, stream.shutdown()).await;
    }
    exchanged
}

/// Ours does not wait for the peer's (§2.4(1)).
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ours: &Hello,
) -> Result<Hello, HelloFault> {
    stream.write_all(ours.encode().as_bytes()).await?;
    stream.flush().await?;
    let mut cell = Cell::blank();
    stream.read_exact(cell.as_bytes_mut()).await?;
    ours.accept(&cell).map_err(HelloFault::Violation)
}
