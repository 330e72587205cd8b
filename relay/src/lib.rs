//! Umbel's relay: forwards cells for others, keeps mailboxes and descriptors, and knows the network.

pub mod control;
pub mod forward;
