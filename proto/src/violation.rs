//! A peer's violations: one variant for each rule of docs/protocol.md that can be broken.

use crate::cell::{CellFault, DestroyReason};
use crate::wire::Malformed;

/// A rule of docs/protocol.md was broken by the other side. Closes the circuit, or the link where
/// the rule is a link's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A cell's header is wrong (§2.1(2), §2.1(3)): closes the link.
    Header(CellFault),
    /// Something other than `Hello` came first, or a second `Hello` came (§2.4(2), §2.4(4)):
    /// closes the link.
    Hello,
    /// The peer belongs to another network (§2.4(2)): closes the link.
    Network,
    /// No version in common (§2.4(3)): closes the link.
    Version,
    /// A circuit id of the wrong side, or one already in use (§2.3(3)): closes the link.
    CircId,
    /// A body or message is not what its format says.
    Malformed(Malformed),
    /// A layer's tag is wrong: the cell was tampered with, dropped, replayed or reordered (§3).
    Tag,
    /// An unknown hop command, or one that this hop can't be given (§3.2(4)).
    HopCommand,
    /// More early cells than a circuit may have, or an extend outside one (§3.2(4), §6.2(3)).
    Early,
    /// The handshake failed (§5).
    Handshake,
    /// A message or command that this state does not accept.
    Unexpected,
    /// More cells than the window allows, or a credit that proves nothing (§7.3).
    Window,
    /// A stream rule was broken: unknown stream, id used twice, too many streams, data after its
    /// end (§7.1).
    Stream,
    /// A frame longer than allowed, or too much half-received (§7.2).
    FrameLen,
}

impl Violation {
    /// The reason that goes to the peer: coarse on purpose.
    pub const fn reason(self) -> DestroyReason {
        DestroyReason::Protocol
    }
}

impl From<Malformed> for Violation {
    fn from(fault: Malformed) -> Self {
        Self::Malformed(fault)
    }
}

impl From<CellFault> for Violation {
    fn from(fault: CellFault) -> Self {
        Self::Header(fault)
    }
}
