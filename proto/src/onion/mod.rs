//! Onion layers make a cell readable by one hop only, and tampering with it fatal (docs/protocol.md
//! §3).
//!
//! Forward, every hop opens an AEAD over the whole body and appends as many bytes as it took off,
//! so that a cell has one length and no unauthenticated byte at every hop. Backward, the last hop
//! seals, each hop before it XORs a stream, and only the origin can verify. Every key moves on with
//! every cell.

pub mod origin;
pub mod transit;

use crate::crypto::aead::BadTag;
use crate::violation::Violation;
use crate::wire::Malformed;

/// A hop's action on a forward cell once its layer is off: the first byte inside the layer
/// (§3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HopCommand {
    /// Pass it on.
    Forward = 0,
    /// It is for this hop.
    Deliver = 1,
    /// Pass it on; it may carry an extend.
    ForwardEarly = 2,
    /// It is for this hop, and may be an extend.
    DeliverEarly = 3,
}

impl HopCommand {
    /// The command with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Forward,
            1 => Self::Deliver,
            2 => Self::ForwardEarly,
            3 => Self::DeliverEarly,
            _ => return None,
        })
    }

    /// Whether the cell is for this hop.
    pub const fn is_deliver(self) -> bool {
        matches!(self, Self::Deliver | Self::DeliverEarly)
    }

    /// Whether the cell counts as early, and may carry an extend.
    pub const fn is_early(self) -> bool {
        matches!(self, Self::ForwardEarly | Self::DeliverEarly)
    }
}

/// A layer that does not come off as it should: the circuit is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerFault {
    /// The tag does not fit: the cell was tampered with, or one was dropped, replayed or reordered
    /// (§3.1(4)).
    BadTag,
    /// No such hop command, or not one for this direction (§3.2).
    HopCommand,
    /// The message inside says it is longer than any can be (§3.3).
    Length,
}

impl From<BadTag> for LayerFault {
    fn from(BadTag: BadTag) -> Self {
        Self::BadTag
    }
}

impl From<LayerFault> for Violation {
    fn from(fault: LayerFault) -> Self {
        match fault {
            LayerFault::BadTag => Self::Tag,
            LayerFault::HopCommand => Self::HopCommand,
            LayerFault::Length => Self::Malformed(Malformed::TooLong),
        }
    }
}
