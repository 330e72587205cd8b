//! Whether the store has a state as it is in memory; the owner of the state keeps one of these
//! beside it.

use umbel_proto::time::{Duration, Instant};

use super::io::StoreTicket;

/// How long after the store failed it is asked again.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(2);

/// How what is stored compares with what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saving {
    /// The store will be asked at this time.
    Due(Instant),
    /// It was asked last under this ticket.
    Storing(StoreTicket),
    /// The store has it as it is here.
    Saved,
}
