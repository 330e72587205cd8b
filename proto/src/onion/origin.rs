//! The origin's layers: wrap a cell for the last hop, unwrap what the last hop sealed
//! (docs/protocol.md §3.3, §3.4).

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::transit::{message_in, write_plain};
use super::{HopCommand, LayerFault};
use crate::crypto::aead::{self, LayerKey};
use crate::crypto::stream;
use crate::limits::{BACKWARD_ROOM, BODY_LEN, HOP_OVERHEAD_LEN, HOPS_MAX, TAG_LEN, forward_room};

/// Where the ciphertext of a body ends in the keystream, and what a hop appends begins.
const TAIL_START: usize = BODY_LEN - TAG_LEN;
/// Longest filler: the bytes that all hops before the last append.
const FILLER_LEN_MAX: usize = HOP_OVERHEAD_LEN * (HOPS_MAX - 1);
/// The last two blocks of a cell's keystream hold all that a filler meets.
const FILLER_COUNTER: u32 = 31;
const FILLER_BLOCKS_LEN: usize = 2 * stream::BLOCK_LEN;
const FILLER_BLOCKS_START: usize = (FILLER_COUNTER - 1) as usize * stream::BLOCK_LEN;

const _: () = assert!(FILLER_BLOCKS_START <= TAIL_START - FILLER_LEN_MAX);
const _: () = assert!(TAIL_START + HOP_OVERHEAD_LEN <= FILLER_BLOCKS_START + FILLER_BLOCKS_LEN);

/// All layers of one circuit, nearest hop first.
#[derive(Default)]
pub struct OriginLayers {
    hops: Vec<HopLayers>,
}

struct HopLayers {
    forward: LayerKey,
    backward: LayerKey,
}

impl OriginLayers {
    /// No layers yet.
    pub fn new() -> Self {
        Self {
            hops: Vec::with_capacity(HOPS_MAX),
        }
    }

    /// Adds the layers of one more hop, which from now on is the last.
    ///
    /// # Panics
    /// There are [`HOPS_MAX`] already.
    pub fn push(&mut self, forward: LayerKey, backward: LayerKey) {
        assert!(
            self.hops.len() < HOPS_MAX,
            "a circuit has at most four hops"
        );
        self.hops.push(HopLayers { forward, backward });
    }

    /// How many hops there are.
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// Whether there is no hop yet.
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// Fills `body` with a message for the last hop, and only for it (§3.3(3), §3.3(4), §3.3(7)),
    /// and returns the tag that the last hop will see. All keys move (§3.3(5)). An early cell is
    /// early at every hop (§3.2(6)).
    ///
    /// # Panics
    /// There is no hop, or the message is longer than [`forward_room`] of the hops.
    pub fn wrap(
        &mut self,
        is_early: bool,
        message: &[u8],
        body: &mut [u8; BODY_LEN],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> [u8; TAG_LEN] {
        assert!(!self.hops.is_empty(), "there is a hop to deliver to");
        assert!(
            message.len() <= forward_room(self.hops.len()),
            "a forward message fits its cell"
        );
        let (forward, deliver) = if is_early {
            (HopCommand::ForwardEarly, HopCommand::DeliverEarly)
        } else {
            (HopCommand::Forward, HopCommand::Deliver)
        };

        let filler_len = HOP_OVERHEAD_LEN * (self.hops.len() - 1);
        let (content, filler) = body.split_at_mut(BODY_LEN - filler_len);
        let (_, plain) = content.split_at_mut(TAG_LEN);
        // §3.3(6): random, because zeros would show the last hop where they end, and so how many
        // hops there are.
        rng.fill_bytes(write_plain(plain, deliver, message));
        self.write_filler(filler);

        let mut last_tag = None;
        for hop in self.hops.iter_mut().rev() {
            if last_tag.is_some() {
                body.copy_within(..BODY_LEN - HOP_OVERHEAD_LEN, HOP_OVERHEAD_LEN);
                body[TAG_LEN] = forward as u8;
            }
            let (tag_place, plain) = body.split_at_mut(TAG_LEN);
            let tag = aead::seal_in_place(&hop.forward, plain);
            tag_place.copy_from_slice(&tag);
            stream::next_key(&mut hop.forward);
            last_tag.get_or_insert(tag);
        }
        last_tag.unwrap_or_else(|| unreachable!("there is a hop"))
    }

    /// Writes the filler: the end of the last hop's plaintext, which the hops before it append,
    /// each through the layers after it. The origin knows it in advance, so that the last hop's tag
    /// can cover it (§3.3(2)).
    fn write_filler(&self, filler: &mut [u8]) {
        let mut len = 0;
        for hop in &self.hops {
            let mut blocks = Zeroizing::new([0; FILLER_BLOCKS_LEN]);
            stream::keystream_at(&hop.forward, FILLER_COUNTER, &mut *blocks);
            let tail_start = TAIL_START - FILLER_BLOCKS_START;
            let (met, appended) = blocks[tail_start - len..].split_at(len);
            for (byte, &key_byte) in filler.iter_mut().zip(met) {
                *byte ^= key_byte;
            }
            if len < filler.len() {
                filler[len..len + HOP_OVERHEAD_LEN].copy_from_slice(&appended[..HOP_OVERHEAD_LEN]);
                len += HOP_OVERHEAD_LEN;
            }
        }
    }

    /// Takes all layers off a cell from the last hop (§3.4(3)): its tag, and the message in it.
    ///
    /// # Errors
    /// The cell is not what the last hop sealed next, or is not a message: the circuit is over.
    ///
    /// # Panics
    /// There is no hop.
    pub fn unwrap<'a>(
        &mut self,
        body: &'a mut [u8; BODY_LEN],
    ) -> Result<([u8; TAG_LEN], &'a [u8]), LayerFault> {
        let Some((last, before)) = self.hops.split_last_mut() else {
            unreachable!("there is a hop that could speak")
        };
        for hop in before {
            stream::xor_cell_and_next_key(&mut hop.backward, body);
        }
        let (tag, sealed) = body.split_first_chunk_mut().ok_or(LayerFault::BadTag)?;
        aead::open_in_place(&last.backward, tag, sealed)?;
        stream::next_key(&mut last.backward);
        let (&number, rest) = sealed.split_first().ok_or(LayerFault::HopCommand)?;
        if HopCommand::from_number(number) != Some(HopCommand::Deliver) {
            return Err(LayerFault::HopCommand);
        }
        let message = message_in(rest, BACKWARD_ROOM).map_err(|_| LayerFault::Length)?;
        Ok((*tag, message))
    }
}
