//! The cell: 2048 bytes, always (docs/protocol.md §2.1(1)).
//!
//! Owns the layout of a cell and the list of commands. Knows nothing of what a body means.

use core::fmt;

use crate::ids::CircId;
use crate::limits::{BODY_LEN, CELL_HEADER_LEN, CELL_LEN, HOP_OVERHEAD_LEN};

/// The command of a cell (docs/protocol.md §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Command {
    /// Keeps a link alive and hides that it is idle; circuit id 0.
    Padding = 0,
    /// The first cell each way; circuit id 0.
    Hello = 1,
    /// An onionskin for the peer itself.
    Create = 2,
    /// The peer's answer to an onionskin.
    Created = 3,
    /// A cell under onion layers.
    Relay = 4,
    /// The circuit is over.
    Destroy = 5,
}

impl Command {
    /// The command with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Padding,
            1 => Self::Hello,
            2 => Self::Create,
            3 => Self::Created,
            4 => Self::Relay,
            5 => Self::Destroy,
            _ => return None,
        })
    }

    /// Whether this command speaks of the link as a whole: its circuit id is 0.
    pub const fn is_link(self) -> bool {
        matches!(self, Self::Padding | Self::Hello)
    }
}

/// Why a circuit is destroyed, as far as the peer learns it: coarse on purpose (docs/protocol.md
/// §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DestroyReason {
    /// Its sender is done with the circuit.
    Finished = 0,
    /// A rule was broken.
    Protocol = 1,
    /// A limit was reached; later it may work.
    Busy = 2,
    /// The next link broke or could not be made.
    Link = 3,
}

impl DestroyReason {
    /// The reason with this number, if there is one. A receiver reads any other as
    /// [`Finished`](Self::Finished) (§4.4(2)).
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Finished,
            1 => Self::Protocol,
            2 => Self::Busy,
            3 => Self::Link,
            _ => return None,
        })
    }
}

/// A cell whose header breaks a rule of docs/protocol.md §2: the link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellFault {
    /// No such command.
    Command,
    /// Circuit id 0 on a circuit's command, or another on a link's.
    CircId,
}

/// One cell in one buffer, from socket to socket.
///
/// Behind the cell the buffer has room for what one hop appends, so that peeling moves the cell's
/// start instead of its bytes: a peeled cell lies [`HOP_OVERHEAD_LEN`] bytes further along
/// (docs/protocol.md §3.2).
#[derive(Clone)]
pub struct Cell {
    buffer: Box<[u8; CELL_LEN + HOP_OVERHEAD_LEN]>,
    is_peeled: bool,
}

impl Cell {
    /// A cell with this header and a body of zeros. `circ` is `None` for a link's command.
    pub fn new(circ: Option<CircId>, command: Command) -> Self {
        let mut cell = Self::blank();
        cell.set_header(circ, command);
        cell
    }

    /// A `Destroy` for `circ`.
    pub fn destroy(circ: CircId, reason: DestroyReason) -> Self {
        let mut cell = Self::new(Some(circ), Command::Destroy);
        let [first, ..] = cell.body_mut();
        *first = reason as u8;
        cell
    }

    /// A buffer to read a cell into: all zeros.
    pub fn blank() -> Self {
        Self {
            buffer: Box::new([0; CELL_LEN + HOP_OVERHEAD_LEN]),
            is_peeled: false,
        }
    }

    /// Makes a used buffer ready to read a cell into; its bytes stay as they are.
    pub fn recycle(&mut self) {
        self.is_peeled = false;
    }

    /// Writes the header.
    pub fn set_header(&mut self, circ: Option<CircId>, command: Command) {
        let number = circ.map_or(0, CircId::number);
        let (header, _) = self.split_mut();
        let [id @ .., command_byte] = header;
        *id = number.to_be_bytes();
        *command_byte = command as u8;
    }

    /// Rewrites the circuit id; the command stays.
    pub fn set_circ_id(&mut self, circ: CircId) {
        let [id @ .., _] = self.split_mut().0;
        *id = circ.number().to_be_bytes();
    }

    /// Reads the header (§2.1(2), §2.1(3)).
    ///
    /// # Errors
    /// An unknown command, or a circuit id that does not go with it.
    pub fn header(&self) -> Result<(Option<CircId>, Command), CellFault> {
        let [a, b, c, d, command, ..] = *self.as_bytes();
        let command = Command::from_number(command).ok_or(CellFault::Command)?;
        let circ = CircId::new(u32::from_be_bytes([a, b, c, d]));
        if circ.is_none() == command.is_link() {
            Ok((circ, command))
        } else {
            Err(CellFault::CircId)
        }
    }

    /// The body.
    pub fn body(&self) -> &[u8; BODY_LEN] {
        last_chunk(self.as_bytes())
    }

    /// The body, to work on in place.
    pub fn body_mut(&mut self) -> &mut [u8; BODY_LEN] {
        self.split_mut().1
    }

    /// All 2048 bytes.
    pub fn as_bytes(&self) -> &[u8; CELL_LEN] {
        if self.is_peeled {
            last_chunk(&*self.buffer)
        } else {
            first_chunk(&*self.buffer)
        }
    }

    /// All 2048 bytes, to read a cell into.
    pub fn as_bytes_mut(&mut self) -> &mut [u8; CELL_LEN] {
        if self.is_peeled {
            last_chunk_mut(&mut *self.buffer)
        } else {
            first_chunk_mut(&mut *self.buffer)
        }
    }

    /// The body of a cell not yet peeled, with the room behind it. A hop opens the body and appends
    /// to it.
    pub(crate) fn body_and_room_mut(&mut self) -> &mut [u8; BODY_LEN + HOP_OVERHEAD_LEN] {
        assert!(!self.is_peeled, "a relay peels a cell once");
        last_chunk_mut(&mut *self.buffer)
    }

    /// From now on the cell is what lies [`HOP_OVERHEAD_LEN`] bytes further along. Its header has
    /// to be written anew.
    pub(crate) fn shift(&mut self) {
        assert!(!self.is_peeled, "a relay peels a cell once");
        self.is_peeled = true;
    }

    fn split_mut(&mut self) -> (&mut [u8; CELL_HEADER_LEN], &mut [u8; BODY_LEN]) {
        let (header, body) = self.as_bytes_mut().split_at_mut(CELL_HEADER_LEN);
        (first_chunk_mut(header), first_chunk_mut(body))
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({:?})", self.header())
    }
}

fn first_chunk<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes
        .first_chunk()
        .unwrap_or_else(|| unreachable!("the buffer is longer than any part of it"))
}

fn last_chunk<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes
        .last_chunk()
        .unwrap_or_else(|| unreachable!("the buffer is longer than any part of it"))
}

fn first_chunk_mut<const N: usize>(bytes: &mut [u8]) -> &mut [u8; N] {
    bytes
        .first_chunk_mut()
        .unwrap_or_else(|| unreachable!("the buffer is longer than any part of it"))
}

fn last_chunk_mut<const N: usize>(bytes: &mut [u8]) -> &mut [u8; N] {
    bytes
        .last_chunk_mut()
        .unwrap_or_else(|| unreachable!("the buffer is longer than any part of it"))
}
