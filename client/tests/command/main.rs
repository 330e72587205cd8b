//! The `umbel` command, as far as it goes without a network: arguments, errors, exit codes,
//! profiles.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may fail, and use real files"
)]

mod bench;
mod contact;
#[path = "../ended/mod.rs"]
mod ended;
mod help;
mod init;
mod place;
mod profile;
mod send;
