//! The raw ChaCha20 keystream (RFC 8439 §2.4) of a [`LayerKey`], nonce 0: backward layers, fillers, key erasure.
//!
//! Counter 0 belongs to the AEAD's tag, 1 and up to the cell, [`ERASURE_COUNTER`] to the next key (docs/protocol.md §3.1).

use std::cell::RefCell;

use chacha20::cipher::StreamCipherCore;
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, KeyIvInit, R20};
use openssl::cipher_ctx::CipherCtx;
use zeroize::Zeroizing;

use super::aead::LayerKey;

/// Length of a ChaCha20 block, bytes.
pub const BLOCK_LEN: usize = 64;
/// Counter of a cell's first block.
const CELL_COUNTER: u32 = 1;
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
    let (blocks, rest) = body.as_chunks_mut::<BLOCK_LEN>();
    let count = u32::try_from(blocks.len()).unwrap_or_else(|_| unreachable!("a cell is short"));
    LONG.with_borrow_mut(|long| long.xor(key, CELL_COUNTER, blocks.as_flattened_mut()));
    let block = block_and_next_key(key, CELL_COUNTER + count);
    for (byte, &key_byte) in rest.iter_mut().zip(&*block) {
        *byte ^= key_byte;
    }
}

thread_local! {
    static LONG: RefCell<LongStream> = RefCell::new(LongStream::new());
}

/// OpenSSL's ChaCha20, for many blocks: it uses the widest registers that the processor has, which makes it twice as fast as
/// the others where those are AVX-512 (docs/decisions/013-openssl-keystream.md). Setting its key is cheap and making one is
/// not, so there is one a thread. Without it, where OpenSSL's configuration leaves ChaCha20 out, it is done as short ones are.
struct LongStream(Option<CipherCtx>);

impl LongStream {
    fn new() -> Self {
        let context = CipherCtx::new().and_then(|mut context| {
            context.encrypt_init(Some(openssl::cipher::Cipher::chacha20()), None, None)?;
            Ok(context)
        });
        Self(context.ok())
    }

    /// XORs the keystream from block `counter` on into `buf`, whole blocks, so that none of it is kept here; nor is the key.
    fn xor(&mut self, key: &LayerKey, counter: u32, buf: &mut [u8]) {
        let Some(context) = &mut self.0 else { return xor_keystream(key, counter, buf) };
        let mut counter_and_nonce = [0; 16];
        counter_and_nonce[..4].copy_from_slice(&counter.to_le_bytes());
        let mut xor = || {
            context.encrypt_init(None, Some(key.as_bytes()), Some(&counter_and_nonce))?;
            context.cipher_update_inplace(buf, buf.len())?;
            context.encrypt_init(None, Some(&[0; 32]), Some(&[0; 16]))
        };
        xor().unwrap_or_else(|_| unreachable!("key and nonce have their length, and any number of bytes is taken"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_is_there_and_makes_the_same_keystream() {
        let mut openssl = LongStream::new();
        assert!(openssl.0.is_some());
        let key = LayerKey::from_bytes([7; 32]);
        for (counter, blocks) in [(1, 31), (5, 1), (u32::MAX - 40, 40)] {
            let (mut one, mut other) = (vec![1; blocks * BLOCK_LEN], vec![1; blocks * BLOCK_LEN]);
            openssl.xor(&key, counter, &mut one);
            LongStream(None).xor(&key, counter, &mut other);
            assert_eq!(one, other);
        }
    }
}
