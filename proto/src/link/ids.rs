//! Names on a link: of the link itself within one process, and of the circuits on it.
//!
//! A circuit id is valid on one link only, and its top bit says which side chose it
//! (docs/protocol.md §2.3).

use crate::ids::CircId;

/// Names a link of this process; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// The bit that is set in the ids that a dialler chooses.
const DIALLER_BIT: u32 = 1 << 31;

/// One side's circuit ids on one link: which are its own, and which comes next (§2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircIds {
    is_dialler: bool,
    /// Without the dialler's bit; never 0.
    next: u32,
}

impl CircIds {
    /// The ids of the side that dialled the link, or of the other side.
    pub const fn new(is_dialler: bool) -> Self {
        Self {
            is_dialler,
            next: 1,
        }
    }

    /// Whether this side dialled the link.
    pub const fn is_dialler(&self) -> bool {
        self.is_dialler
    }

    /// Whether this side may choose this id. The peer may choose exactly the others.
    pub const fn is_ours(&self, circ: CircId) -> bool {
        (circ.number() & DIALLER_BIT != 0) == self.is_dialler // §2.3(2)
    }

    /// The next id of ours that `is_used` does not know.
    ///
    /// Ids are taken in order and wrap, so that none returns while cells of its former circuit may
    /// be in flight. Fewer circuits than there are ids must be in use.
    pub fn next(&mut self, is_used: impl Fn(CircId) -> bool) -> CircId {
        let side = if self.is_dialler { DIALLER_BIT } else { 0 };
        loop {
            let circ = CircId::new(side | self.next)
                .unwrap_or_else(|| unreachable!("the count is never 0"));
            self.next = self.next % (DIALLER_BIT - 1) + 1; // §2.3(4)
            if !is_used(circ) {
                return circ;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // §2.3(2)
    fn each_side_takes_ids_of_its_own_in_order() {
        let (mut dialler, mut acceptor) = (CircIds::new(true), CircIds::new(false));
        let numbers = |ids: &mut CircIds| [ids.next(|_| false), ids.next(|_| false)];
        assert_eq!(
            numbers(&mut dialler).map(CircId::number),
            [0x8000_0001, 0x8000_0002]
        );
        assert_eq!(numbers(&mut acceptor).map(CircId::number), [1, 2]);
        let circ = acceptor.next(|_| false);
        assert!(acceptor.is_ours(circ) && !dialler.is_ours(circ));
    }

    #[test] // §2.3(4)
    fn ids_wrap_and_pass_over_those_in_use() {
        for is_dialler in [false, true] {
            let mut ids = CircIds {
                is_dialler,
                next: DIALLER_BIT - 1,
            };
            let last = ids.next(|_| false);
            let first = ids.next(|circ| circ.number() & !DIALLER_BIT == 1);
            assert_eq!(last.number() & !DIALLER_BIT, DIALLER_BIT - 1);
            assert_eq!(first.number() & !DIALLER_BIT, 2);
            assert!(ids.is_ours(last) && ids.is_ours(first));
        }
    }
}
