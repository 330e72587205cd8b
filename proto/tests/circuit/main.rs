//! The machines of a circuit's two ends, joined through real layers (docs/protocol.md §4.3, §4.4,
//! §6, §7).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "patterns wrap; ids are small"
)]

#[path = "../common/chain.rs"]
mod chain;

mod build;
mod frames;
mod random;
mod streams;
mod windows;
