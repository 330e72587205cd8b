//! The raw ChaCha20 keystream (RFC 8439 §2.4) of a [`LayerKey`], nonce 0: backward layers, fillers, key erasure.
//!
//! Counter 0 belongs to the AEAD's tag, 1 and up to the cell, [`ERASURE_COUNTER`] to the next key (docs/protocol.md §3.5).

use chacha20::cipher::StreamCipherCore;
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, KeyIvInit, R20};
use zeroize::Zeroize;

use super::aead::LayerKey;

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
pub fn block_and_next_key(key: &mut LayerKey, counter: u32) -> [u8; BLOCK_LEN] {
    let mut cipher = cipher(key);
    let block = block_at(&mut cipher, counter);
    erase(key, &mut cipher);
    block
}

/// [`xor_keystream`], and then [`next_key`], with one key set-up for both.
pub fn xor_keystream_and_next_key(key: &mut LayerKey, counter: u32, buf: &mut [u8]) {
    xor_keystream(key, counter, buf);
    next_key(key);
}

type Cipher = ChaChaCore<R20, Ietf>;

fn cipher(key: &LayerKey) -> Cipher {
    Cipher::new(key.as_bytes().into(), &[0; 12].into())
}

fn block_at(cipher: &mut Cipher, counter: u32) -> [u8; BLOCK_LEN] {
    let mut block = [0; BLOCK_LEN];
    cipher.set_block_pos(counter);
    cipher.write_keystream_block((&mut block).into());
    block
}

fn erase(key: &mut LayerKey, cipher: &mut Cipher) {
    let mut block = block_at(cipher, ERASURE_COUNTER);
    let (next, _) = block.split_at(key.as_bytes().len());
    key.as_bytes_mut().copy_from_slice(next);
    block.zeroize();
}
