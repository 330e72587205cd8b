//! Conversations: what two clients say to each other, and how they keep it to themselves
//! (docs/protocol.md §11).

pub mod contents;
mod double;
pub mod envelope;
mod keys;
pub mod numbering;
pub mod opening;
mod post_quantum;
mod recovery;
pub mod session;
#[cfg(test)]
mod session_tests;
pub mod thread;
#[cfg(test)]
mod thread_tests;
pub mod verification;
