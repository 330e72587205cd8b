//! Shared by the tests of this package: recorded randomness, and vectors in hexadecimal.
#![allow(dead_code, reason = "each test program uses a part of it")]

use core::convert::Infallible;

use data_encoding::HEXLOWER;
use rand::{TryCryptoRng, TryRng};
use serde_json::Value;

/// Randomness that was written down; panics where it ends.
pub(crate) struct Script(pub(crate) Box<dyn Iterator<Item = u8>>);

impl Script {
    /// These bytes and no more.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self(Box::new(bytes.into_iter()))
    }

    /// Whether every byte was drawn.
    pub(crate) fn is_used_up(&mut self) -> bool {
        self.0.next().is_none()
    }

    fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.try_fill_bytes(&mut bytes).unwrap();
        bytes
    }
}

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.draw()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.draw()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.fill_with(|| self.0.next().expect("the script is long enough"));
        Ok(())
    }
}

impl TryCryptoRng for Script {}

/// A byte string written in hexadecimal.
pub(crate) fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER
        .decode(value.as_str().expect("a string").as_bytes())
        .expect("hexadecimal")
}

/// A byte string of known length written in hexadecimal.
pub(crate) fn hex_array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().expect("the length that belongs here")
}

/// The elements of a list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}
