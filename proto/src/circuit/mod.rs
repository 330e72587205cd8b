//! The machines of a circuit's two ends: the origin that builds it, and the terminal it leads to
//! (docs/protocol.md §4, §6, §7).
//!
//! What is between them, a relay's transit half, is [`crate::onion::transit`] and a table in the
//! relay. Both ends are driven alike: cells or messages in by `handle_*`; then events out by
//! `poll_event` and cells by `poll_cell`, until there are none. A machine whose peer broke a rule
//! is closed: its keys are gone, and it refuses everything. [`requests`] is the origin's end
//! together with those who wait for answers on it.

mod half;
pub mod origin;
pub mod requests;
mod stream;
pub mod terminal;
mod window;

use crate::Violation;
use crate::cell::{Cell, Command};
use crate::ids::CircId;
use crate::message::{Credit, Data, RelayMsg};

pub use origin::{OriginCircuit, OriginEvent};
pub use requests::{Answer, Answers, Request, RequestCircuit, RequestEvent};
pub use stream::Full;
pub use terminal::{TerminalCircuit, TerminalEvent};

use stream::{End, Streams};
use window::{ReceiveWindow, SendWindow, Tag};

/// The part that both ends share once data may pass: streams, under a window each way (§7).
struct Flow {
    streams: Streams,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
}

impl Flow {
    const fn new(end: End, may_grow: bool) -> Self {
        Self {
            streams: Streams::new(end),
            send_window: SendWindow::new(),
            receive_window: ReceiveWindow::new(may_grow),
        }
    }

    /// Takes a `Data` message that came in the cell with this tag. It counts, whatever becomes of
    /// it.
    fn handle_data(&mut self, tag: Tag, data: &Data<'_>) -> Result<(), Violation> {
        self.receive_window.handle_cell(tag)?;
        self.streams.handle_data(data)
    }

    fn handle_credit(&mut self, credit: &Credit) -> Result<(), Violation> {
        self.send_window.handle_credit(credit)
    }

    /// Makes the next message with `seal`, which returns the tag of its cell. Credits go first, so
    /// that both ends' full queues can't wait for each other; data follows while the window is open
    /// (§7.3(6)).
    fn poll_message(&mut self, seal: impl FnOnce(&[u8]) -> Tag) -> bool {
        let mut message = Vec::new();
        if let Some(credit) = self.receive_window.poll_credit() {
            RelayMsg::Credit(credit).encode(&mut message);
            seal(&message);
            return true;
        }
        if !self.send_window.is_open() {
            return false;
        }
        let Some(segment) = self.streams.poll_segment() else {
            return false;
        };
        let data = Data {
            stream: segment.stream,
            flags: segment.flags,
            bytes: &segment.bytes,
        };
        message.reserve_exact(crate::limits::DATA_HEADER_LEN + segment.bytes.len());
        RelayMsg::Data(data).encode(&mut message);
        self.send_window.on_sent(seal(&message));
        true
    }
}

/// A cell whose circuit id the caller, who knows the link, has yet to write.
fn unaddressed(command: Command) -> Cell {
    const PLACEHOLDER: Option<CircId> = CircId::new(1);
    Cell::new(PLACEHOLDER, command)
}
