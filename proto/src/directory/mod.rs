//! The directory: which relays there are, and where inbox descriptors are kept (docs/protocol.md
//! §8, §9.4).
//!
//! [`descriptor`] what a relay says of itself · [`view`] all that are believed · [`book`] the view,
//! what lasts of it, and the addresses that outlive it · `eviction` who leaves a view that is full ·
//! `age` since when a relay is
//! known · `listing` which relays several sources list · [`receipts`] who has reached whom · `vouchers` who
//! is believed about that · [`range`] what two views are compared by · [`reconcile`] how they become
//! one · [`gossip`] with whom a relay's does, and when · [`choice`] how a relay is drawn from a view ·
//! [`guard_age`] which relays may become guards · [`ring`] which relays keep an inbox's descriptor ·
//! [`service`] what the directory service speaks.

mod age;
pub mod book;
pub mod choice;
pub mod descriptor;
mod eviction;
pub mod gossip;
pub mod guard_age;
mod listing;
pub mod range;
pub mod receipts;
pub mod reconcile;
pub mod ring;
pub mod service;
mod sync_peers;
pub mod view;
mod vouchers;

pub use age::{Age, Belief};
pub use book::{Book, BookOp, BookRow, Learned, NotLearned, Shown};
pub use descriptor::{DescriptorFault, RelayDescriptor, Roles, Unverified, VerifiedDescriptor};
pub use gossip::Gossip;
pub use listing::{Listing, Mark, Source};
pub use receipts::Receipt;
pub use service::{DirectoryRefusal, DirectoryReply, DirectoryRequest};
pub use view::{Hindrance, Inserted, NetView};
pub use vouchers::Vouchers;

#[cfg(test)]
pub(crate) mod testing;
