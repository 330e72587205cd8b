//! Conversations: what two clients say to each other, and how they keep it to themselves
//! (docs/protocol.md §11).

pub mod contents;
mod double;
pub mod envelope;
#[cfg(test)]
mod identity_tests;
mod keys;
mod nonces;
pub mod numbering;
pub mod opening;
mod post_quantum;
mod recovery;
#[cfg(test)]
mod renewal_tests;
pub mod session;
#[cfg(test)]
mod session_tests;
pub mod thread;
#[cfg(test)]
mod thread_tests;
pub mod verification;
