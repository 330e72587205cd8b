//! A hostile relay's tampering with the cells it sends: the relay itself is the real one, its cells
//! are not.

use std::collections::BTreeMap;

use rand::CryptoRng;
use rand::RngExt;
use rand::seq::SliceRandom;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::ids::CircId;
use umbel_proto::limits::{BODY_LEN, CELL_HEADER_LEN, CELL_LEN};
use umbel_proto::link::LinkId;

/// The tampering with relay cells that leave a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    /// One bit of the body is flipped, at this byte.
    Flip(usize),
    /// The cell is not sent.
    Drop,
    /// The cell is sent twice.
    Replay,
    /// The cell changes places with the one after it.
    Reorder,
    /// A cell of random bytes is sent before it.
    Inject,
    /// So many cells of random bytes are sent at once on its circuit.
    Flood(usize),
}

/// How a cell leaves a relay.
#[expect(missing_debug_implementations, reason = "holds cells")]
pub enum Leaving {
    /// By way of the link's queue.
    Queued(Cell),
    /// By way of the queue, after it was sent before.
    Copy(Cell),
    /// At once: what a hostile relay forges keeps to no limit.
    Forged(Cell),
}

/// The fate of a cell that was sent a second time, where it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFate {
    /// The node that it came to saw that a rule was broken.
    Noticed,
    /// Its circuit was over at that node, which dropped it.
    Stale,
    /// It was taken as if it were the first, or went nowhere.
    Taken,
    /// Its link was gone.
    Lost,
}

/// A hostile relay's hands.
#[derive(Debug)]
pub struct Adversary {
    tampering: Tampering,
    /// How many relay cells pass untouched first.
    spare: usize,
    held: Option<Cell>,
    /// How many cells were tampered with.
    pub tampered: usize,
    /// Of a liar: how many relay cells it sent away from the origin on each circuit.
    liar: Option<BTreeMap<(LinkId, u32), usize>>,
}

impl Adversary {
    /// Leaves `spare` relay cells alone, then tampers with the next one, once.
    pub fn new(tampering: Tampering, spare: usize) -> Self {
        Self {
            tampering,
            spare,
            held: None,
            tampered: 0,
            liar: None,
        }
    }

    /// Lets `spare` relay cells of each circuit pass that it sends away from a client, and flips a
    /// bit in all after them: the circuit is built, and breaks as soon as it is used.
    pub fn liar(spare: usize) -> Self {
        Self {
            liar: Some(BTreeMap::new()),
            ..Self::new(Tampering::Flip(77), spare)
        }
    }

    /// The cells that leave on this link in place of this one.
    pub fn send(
        &mut self,
        link: LinkId,
        mut cell: Cell,
        is_to_client: bool,
        rng: &mut dyn CryptoRng,
    ) -> Vec<Leaving> {
        let send = Leaving::Queued;
        let Ok((Some(circ), Command::Relay)) = cell.header() else {
            return vec![send(cell)];
        };
        if let Some(counts) = &mut self.liar {
            let count = counts.entry((link, circ.number())).or_default();
            *count += usize::from(!is_to_client);
            if !is_to_client && *count > self.spare {
                self.tampered += 1;
                flip(&mut cell, 77, 1);
            }
            return vec![send(cell)];
        }
        if let Some(held) = self.held.take() {
            return vec![send(cell), send(held)];
        }
        if self.tampered > 0 {
            return vec![send(cell)];
        }
        if self.spare > 0 {
            self.spare -= 1;
            return vec![send(cell)];
        }
        self.tampered += 1;
        match self.tampering {
            Tampering::Flip(at) => {
                flip(&mut cell, at % BODY_LEN, 1 << rng.random_range(0..8));
                vec![send(cell)]
            }
            Tampering::Drop => vec![],
            Tampering::Replay => vec![send(cell.clone()), Leaving::Copy(cell)],
            Tampering::Reorder => {
                self.held = Some(cell);
                vec![]
            }
            Tampering::Inject => {
                vec![send(forged(circ, rng)), send(cell)]
            }
            Tampering::Flood(count) => {
                let flood = (0..count).map(|_| Leaving::Forged(forged(circ, rng)));
                flood.chain([send(cell)]).collect()
            }
        }
    }
}

/// A cell of random bytes.
fn forged(circ: CircId, rng: &mut dyn CryptoRng) -> Cell {
    let mut forged = Cell::new(Some(circ), Command::Relay);
    rng.fill_bytes(forged.body_mut());
    forged
}

fn flip(cell: &mut Cell, at: usize, bit: u8) {
    if let Some(byte) = cell.body_mut().get_mut(at) {
        *byte ^= bit;
    }
}

/// Byte positions in a cell's body that stand for all: both ends, around each border of a layer,
/// and some at random.
pub fn positions(rng: &mut dyn CryptoRng, random: usize) -> Vec<usize> {
    let mut at = vec![
        0,
        1,
        15,
        16,
        17,
        18,
        19,
        33,
        34,
        1000,
        BODY_LEN - 35,
        BODY_LEN - 18,
        BODY_LEN - 17,
        BODY_LEN - 1,
    ];
    at.extend((0..random).map(|_| rng.random_range(0..CELL_LEN - CELL_HEADER_LEN)));
    at.shuffle(rng);
    at
}
