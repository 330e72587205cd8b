//! Parts that every shell of Umbel has, relay and client alike: clocks, files for their owner's
//! eyes only, the formats of SQLite files, how a link begins or fails to, how an invitation is
//! taken, text that is safe to show, and the errors of a command line.
//!
//! Knows neither relay nor client. Of the relay's crate a client uses only this, and `local` the
//! relays it runs.

mod clock;
mod dial;
mod dial_fault;
pub mod files;
pub mod formats;
mod hello;
mod invite;
mod printable;
pub mod usage;

pub use clock::Clock;
pub use dial::{ClientStream, ConnectFault, connect_as_client};
pub use dial_fault::DialFault;
pub use hello::{HelloFault, exchange_hello};
pub use invite::{InvitedFault, InvitedKind, SeedFault, network_of_invite};
pub use printable::{is_seen, printable, printable_without};
