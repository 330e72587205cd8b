//! Sorts the cells of a link that is up: the link's own, or a circuit's (docs/protocol.md §2.1,
//! §2.2, §2.4).

use crate::cell::{Cell, Command};
use crate::ids::CircId;
use crate::violation::Violation;

/// The circuit that a cell belongs to, and its command; `None` for padding, which is dropped.
///
/// # Errors
/// The header breaks a rule (§2.1), or this is a second `Hello` (§2.4(4)): the link is closed.
#[inline]
pub fn circuit_of(cell: &Cell) -> Result<Option<(CircId, Command)>, Violation> {
    match cell.header()? {
        (Some(circ), command) => Ok(Some((circ, command))),
        (None, Command::Padding) => Ok(None),
        (None, _) => Err(Violation::Hello), // §2.4(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellFault;

    #[test] // §2.2
    fn padding_is_the_links_and_all_else_a_circuits() {
        let circ = CircId::new(7).unwrap();
        let relay = Cell::new(Some(circ), Command::Relay);
        assert_eq!(circuit_of(&relay), Ok(Some((circ, Command::Relay))));
        assert_eq!(circuit_of(&Cell::new(None, Command::Padding)), Ok(None));
    }

    #[test] // §2.4(4)
    fn a_second_hello_ends_the_link() {
        let hello = Cell::new(None, Command::Hello);
        assert_eq!(circuit_of(&hello), Err(Violation::Hello));
    }

    #[test] // §2.1(2), §2.1(3)
    fn a_bad_header_ends_the_link() {
        let mut unknown = Cell::new(None, Command::Padding);
        unknown.as_bytes_mut()[4] = 77;
        assert_eq!(
            circuit_of(&unknown),
            Err(Violation::Header(CellFault::Command))
        );
        let of_none = Cell::new(None, Command::Relay);
        assert_eq!(
            circuit_of(&of_none),
            Err(Violation::Header(CellFault::CircId))
        );
    }
}
