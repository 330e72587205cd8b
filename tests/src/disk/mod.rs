//! Disks that fail on cue: they hold what a store would, in memory.

mod client;
mod relay;

pub use client::ClientDisk;
pub use relay::{InboxDescriptors, RelayDisk};
