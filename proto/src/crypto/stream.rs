//! The raw ChaCha20 keystream (RFC 8439 §2.4) of a [`LayerKey`], nonce 0: backward layers, fillers,
//! key erasure.
//!
//! Counter 0 belongs to the AEAD's tag, 1 and up to the cell, [`ERASURE_COUNTER`] to the next key
//! (docs/protocol.md §3.1).

use std::cell::RefCell;
use std::sync::OnceLock;

use chacha20::cipher::StreamCipherCore;
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, KeyIvInit, R20};
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;
use openssl::lib_ctx::LibCtx;
use zeroize::Zeroizing;

use super::aead::LayerKey;

/// Length of a ChaCha20 block, bytes.
pub const BLOCK_LEN: usize = 64;
/// Counter of a cell's first block (§3.1(3)).
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

/// Moves `key` to the next cell's (§3.1(1), §3.1(2)): the old one can't be computed from it.
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
    let (blocks, rest) = body.as_chunks_mut();
    let count = u32::try_from(blocks.len()).unwrap_or_else(|_| unreachable!("a cell is short"));
    LONG.with_borrow_mut(|long| long.xor_cell(key, blocks));
    let block = block_and_next_key(key, CELL_COUNTER + count);
    for (byte, &key_byte) in rest.iter_mut().zip(&*block) {
        *byte ^= key_byte;
    }
}

thread_local! {
    static LONG: RefCell<LongStream> = RefCell::new(LongStream::new());
}

/// OpenSSL's ChaCha20, for many blocks: it uses the widest registers that the processor has, which
/// makes it twice as fast as the others where those are AVX-512
/// (docs/decisions/013-openssl-keystream.md). Setting its key is cheap and making one is not, so
/// there is one a thread.
struct LongStream(CipherCtx);

impl LongStream {
    fn new() -> Self {
        let context = CipherCtx::new().and_then(|mut context| {
            context.encrypt_init(Some(&openssl_cipher().cipher), None, None)?;
            Ok(context)
        });
        Self(
            context
                .unwrap_or_else(|_| unreachable!("it is built in, and fails only without memory")),
        )
    }

    /// XORs a cell's keystream into its whole blocks. Neither key nor keystream stays here.
    fn xor_cell(&mut self, key: &LayerKey, blocks: &mut [[u8; BLOCK_LEN]]) {
        let bytes = blocks.as_flattened_mut();
        let mut counter_and_nonce = [0; 16];
        counter_and_nonce[..4].copy_from_slice(&CELL_COUNTER.to_le_bytes());
        let mut xor = || {
            self.0
                .encrypt_init(None, Some(key.as_bytes()), Some(&counter_and_nonce))?;
            self.0.cipher_update_inplace(bytes, bytes.len())?;
            self.0.encrypt_init(None, Some(&[0; 32]), Some(&[0; 16]))
        };
        xor().unwrap_or_else(|_| {
            unreachable!("key and nonce have their length, and any number of bytes is taken")
        });
    }
}

/// ChaCha20, and the library context it is from: one of our own, which no configuration of OpenSSL
/// on the machine reaches.
struct OpensslCipher {
    cipher: openssl::cipher::Cipher,
    _library: LibCtx,
}

fn openssl_cipher() -> &'static OpensslCipher {
    static CIPHER: OnceLock<OpensslCipher> = OnceLock::new();
    CIPHER.get_or_init(|| {
        let fetch = || {
            let library = LibCtx::new()?;
            let cipher = openssl::cipher::Cipher::fetch(Some(&library), "ChaCha20", None)?;
            Ok::<_, ErrorStack>(OpensslCipher {
                cipher,
                _library: library,
            })
        };
        fetch().unwrap_or_else(|_| unreachable!("it is built in, and fails only without memory"))
    })
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

    #[test] // §3.1(2)
    fn the_long_keystream_is_the_same_and_leaves_no_key() {
        let (mut long, key) = (LongStream::new(), LayerKey::from_bytes([7; 32]));
        for count in [0, 1, 4, 15, 16, 17, 31, 32, 100] {
            let mut blocks = vec![[1; BLOCK_LEN]; count];
            long.xor_cell(&key, &mut blocks);
            let mut expected = vec![1; count * BLOCK_LEN];
            xor_keystream(&key, CELL_COUNTER, &mut expected);
            assert_eq!(blocks.as_flattened(), expected, "{count} blocks");
        }
        let (mut left, mut of_zeros) = ([0; BLOCK_LEN], [0; BLOCK_LEN]);
        long.0
            .cipher_update_inplace(&mut left, BLOCK_LEN)
            .expect("it has a key");
        keystream_at(&LayerKey::from_bytes([0; 32]), 0, &mut of_zeros);
        assert_eq!(left, of_zeros);
    }
}
