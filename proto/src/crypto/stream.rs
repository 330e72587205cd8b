//! The raw ChaCha20 keystream (RFC 8439 §2.4) of a [`LayerKey`], nonce 0: backward layers, fillers, key erasure.
//!
//! Counter 0 belongs to the AEAD's tag, 1 and up to the cell, [`ERASURE_COUNTER`] to the next key (docs/protocol.md §3.1).

use chacha20::cipher::StreamCipherCore;
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, KeyIvInit, R20};
use zeroize::Zeroizing;

use super::aead::{self, LayerKey};

/// Length of a ChaCha20 block, bytes.
pub const BLOCK_LEN: usize = 64;
/// Counter of the block whose first half is the next key: far beyond any cell.
pub const ERASURE_COUNTER: u32 = 0x8000_0000;

/// Writes the keystream from block `counter` on.
pub fn keystream_at(key: &LayerKey, counter: u32, out: &mut [u8]) {
    out.fill(0);
    xor_keystream(key, counter, out);
}

/// XORs the keystream from block `counter` on into `buf`.
pub fn xor_keystream(key: &LayerKey, counter: u32, buf: &mut [u8]) {
    let mut cipher = cipher(key);
    cipher.set_block_pos(counter);
    cipher.apply_keystream_partial(buf.into());
}

/// Moves `key` to the next cell's: the old one cannot be had back from it.
pub fn next_key(key: &mut LayerKey) {
    let mut cipher = cipher(key);
    erase(key, &mut cipher);
}

/// The keystream block at `counter`, and then [`next_key`], with one key set-up for both.
pub fn block_and_next_key(key: &mut LayerKey, counter: u32) -> Zeroizing<[u8; BLOCK_LEN]> {
    let mut cipher = cipher(key);
    let block = block_at(&mut cipher, counter);
    erase(key, &mut cipher);
    block
}

/// XORs a cell's keystream, from counter 1 on, into `body`, and then [`next_key`].
pub fn xor_cell_and_next_key(key: &mut LayerKey, body: &mut [u8]) {
    // Sealing XORs the very same keystream, and aws-lc does it with a tag nobody looks at in less time than the
    // chacha20 crate without one: 1.08 us against 1.31 us for a body of 2043 bytes (one core of a busy 2-core Xeon).
    aead::seal_in_place(key, body);
    next_key(key);
}

type Cipher = ChaChaCore<R20, Ietf>;

fn cipher(key: &LayerKey) -> Cipher {
    Cipher::new(key.as_bytes().into(), &[0; 12].into())
}

fn block_at(cipher: &mut Cipher, counter: u32) -> Zeroizing<[u8; BLOCK_LEN]> {
    let mut block = Zeroizing::new([0; BLOCK_LEN]);
    cipher.set_block_pos(counter);
    cipher.write_keystream_block((&mut *block).into());
    block
}

fn erase(key: &mut LayerKey, cipher: &mut Cipher) {
    let block = block_at(cipher, ERASURE_COUNTER);
    let (next, _) = block.split_at(key.as_bytes().len());
    key.as_bytes_mut().copy_from_slice(next);
}
