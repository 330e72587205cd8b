//! A relay's layers: peel forward, add or seal backward (docs/protocol.md §3.2, §3.4). The hot
//! path.
//!
//! Works in place, and allocates nothing but what aws-lc does for a key (see `crypto::aead`), and
//! OpenSSL once a thread.

use super::{HopCommand, LayerFault};
use crate::cell::Cell;
use crate::crypto::aead::{self, LayerKey};
use crate::crypto::stream;
use crate::limits::{
    BACKWARD_ROOM, BODY_LEN, HOP_OVERHEAD_LEN, MSG_LEN_LEN, TAG_LEN, forward_room,
};
use crate::wire::{Malformed, Reader};

/// Where in the keystream the bytes lie that a hop appends: right behind those that the AEAD used.
const TAIL_START: usize = BODY_LEN - TAG_LEN;
/// The one block that holds them, and their place in it.
const TAIL_COUNTER: u32 = 32;
const TAIL_SKIP: usize = TAIL_START % stream::BLOCK_LEN;

const _: () = assert!(TAIL_START / stream::BLOCK_LEN + 1 == TAIL_COUNTER as usize);
const _: () = assert!(TAIL_SKIP + HOP_OVERHEAD_LEN <= stream::BLOCK_LEN);

/// A hop's forward layer.
pub struct PeelLayer {
    key: LayerKey,
}

/// A forward cell with this hop's layer off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peeled {
    /// The action for it.
    pub command: HopCommand,
    /// The tag it arrived with. A credit proves receipt by it (§7.3).
    pub tag: [u8; TAG_LEN],
}

impl PeelLayer {
    /// The layer that starts with this key.
    pub const fn new(key: LayerKey) -> Self {
        Self { key }
    }

    /// Peels a cell in place. Its header has to be written anew; after a fault nothing in it means
    /// anything, and the circuit is over.
    ///
    /// # Errors
    /// A bad tag, or an unknown hop command.
    pub fn peel(&mut self, cell: &mut Cell) -> Result<Peeled, LayerFault> {
        let (body, tail) = cell.body_and_room_mut().split_at_mut(BODY_LEN);
        let (tag, sealed) = body.split_first_chunk_mut().ok_or(LayerFault::BadTag)?;
        let tag = *tag;
        aead::open_in_place(&self.key, &tag, sealed)?; // §3.2(1)
        let number = sealed.first().copied().unwrap_or(u8::MAX);
        // §3.2(2)
        let block = stream::block_and_next_key(&mut self.key, TAIL_COUNTER);
        let (_, appended) = block.split_at(TAIL_SKIP);
        for (byte, &key_byte) in tail.iter_mut().zip(appended) {
            *byte = key_byte;
        }
        cell.shift();
        // §3.2(3)
        let command = HopCommand::from_number(number).ok_or(LayerFault::HopCommand)?;
        Ok(Peeled { command, tag })
    }
}

/// The relay message in a peeled cell that is for this hop (§3.3(1)). Behind it are padding and
/// filler.
///
/// # Errors
/// It says it is longer than any can be.
pub fn delivered_message(cell: &Cell) -> Result<&[u8], Malformed> {
    message_in(cell.body(), forward_room(1))
}

/// A hop's backward layer.
pub struct AddLayer {
    key: LayerKey,
}

impl AddLayer {
    /// The layer that starts with this key.
    pub const fn new(key: LayerKey) -> Self {
        Self { key }
    }

    /// Adds this hop's layer to a cell on its way to the origin (§3.4(2)).
    pub fn add(&mut self, body: &mut [u8; BODY_LEN]) {
        stream::xor_cell_and_next_key(&mut self.key, body);
    }

    /// Fills `cell` with a message from this hop to the origin, and returns its tag (§3.4(1)).
    ///
    /// # Panics
    /// The message is longer than [`BACKWARD_ROOM`].
    pub fn seal(&mut self, message: &[u8], cell: &mut Cell) -> [u8; TAG_LEN] {
        assert!(
            message.len() <= BACKWARD_ROOM,
            "a backward message fits its cell"
        );
        let (tag_place, plain) = cell.body_mut().split_at_mut(TAG_LEN);
        // Only the origin reads this padding, and it knows the path, so zeros give nothing away.
        write_plain(plain, HopCommand::Deliver, message).fill(0);
        let tag = aead::seal_in_place(&self.key, plain);
        tag_place.copy_from_slice(&tag);
        stream::next_key(&mut self.key);
        tag
    }
}

/// Writes hop command, length and message; returns what is left of `plain`, to be padded.
pub(super) fn write_plain<'a>(
    plain: &'a mut [u8],
    command: HopCommand,
    message: &[u8],
) -> &'a mut [u8] {
    let len =
        u16::try_from(message.len()).unwrap_or_else(|_| unreachable!("a message fits a cell"));
    let [high, low] = len.to_be_bytes();
    let (head, rest) = plain.split_at_mut(1 + MSG_LEN_LEN);
    head.copy_from_slice(&[command as u8, high, low]);
    let (message_place, pad) = rest.split_at_mut(message.len());
    message_place.copy_from_slice(message);
    pad
}

/// Reads a length and the message behind it.
pub(super) fn message_in(bytes: &[u8], len_max: usize) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(bytes);
    let len = usize::from(reader.u16()?);
    if len > len_max {
        return Err(Malformed::TooLong);
    }
    reader.bytes(len)
}
