//! Settings of the control plane: those fixed at its start, and those that an operator may change
//! later.

use std::net::SocketAddr;

use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::Roles;
use umbel_proto::ids::Peer;
use umbel_proto::inbox::holder::HolderLimits;
use umbel_proto::network::Network;

/// Settings fixed when the relay starts.
#[expect(missing_debug_implementations, reason = "holds the identity key")]
pub struct ControlConfig {
    /// The network it belongs to.
    pub network: Network,
    /// Who it is.
    pub identity: SigningKey,
    /// Where it can be dialled; goes into its descriptor.
    pub addresses: Vec<SocketAddr>,
    /// The roles that it offers.
    pub roles: Roles,
    /// Peers to join through.
    pub seeds: Vec<Peer>,
    /// Limits of its mailboxes.
    pub holder: HolderLimits,
    /// Most circuits through it at once.
    pub circuits_max: usize,
    /// Most bytes of frames that are not yet sent, or not yet whole, on all circuits that end here.
    pub frames_bytes_max: usize,
    /// Most inbox descriptors it keeps.
    pub inbox_descriptors_max: usize,
}

/// Settings that an operator may change while the relay runs.
#[derive(Debug)]
pub struct Tuning {
    /// Peers to join through.
    pub seeds: Vec<Peer>,
    /// Limits of its mailboxes.
    pub holder: HolderLimits,
    /// Most circuits through it at once.
    pub circuits_max: usize,
    /// Most inbox descriptors it keeps.
    pub inbox_descriptors_max: usize,
}
