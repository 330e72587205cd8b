//! Umbel's client: send messages to hidden inboxes and own some, without saying who or where one
//! is.
//!
//! A library first: the `umbel` command uses what this crate makes public, [`core::io`] included,
//! and the words of `umbel_proto`. [`Client::open`] opens a [`Profile`] and starts one task that
//! drives the [`core`], which decides everything and touches nothing.
//!
//! ```no_run
//! # async fn example(address: umbel_proto::inbox::address::InboxAddress) -> Result<(), Box<dyn std::error::Error>> {
//! let profile = umbel_client::Profile::load("/home/alice/.local/share/umbel".as_ref())?;
//! let client = umbel_client::Client::open(profile).await?;
//! let sent = client.send(address, b"Nobody knows that I wrote this.".to_vec()).await?;
//! println!("message {} is safe in the outbox", sent.id);
//! client.close().await;
//! # Ok(())
//! # }
//! ```

#[expect(clippy::disallowed_methods, reason = "starts the driver")]
mod client;
mod contact;
pub mod core;
pub mod display;
mod library;
#[expect(clippy::disallowed_methods, reason = "runs relays")]
pub mod local;
#[expect(
    clippy::disallowed_methods,
    reason = "a shell: several commands on one profile"
)]
mod meeting;
#[expect(
    clippy::disallowed_methods,
    reason = "a shell: sockets, tasks and clocks"
)]
mod net;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell: files"
)]
mod store;
#[cfg(test)]
mod testing;

pub use client::{
    CancelError, Client, ClientClosed, CreateInboxError, ListenError, NoticeGap, Notices,
    OpenError, Reach, ReadError, SendError, Sent, StopReason, check_life,
};
pub use contact::{ContactEntry, ContactError, Correspondent, Verified};
pub use library::{Deleted, Library, Old};
pub use store::{
    BareStore, Claim, ConfigFault, Conversed, DatabaseError, Fate, FilesFault, HistoryFilter,
    InitError, KeyChange, KeyChangeError, NewKey, NewProfile, PASSPHRASE_LEN_MIN, Passphrase,
    Place, Profile, ProfileError, SEEDS_MAX, SeedAdded, SeedError, Seeds, StoredMessage,
};
