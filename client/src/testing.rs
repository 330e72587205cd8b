//! A profile on disk for tests of several modules.

use std::path::PathBuf;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use tempfile::TempDir;
use umbel_proto::ids::{Peer, RelayId};

use crate::{NewKey, NewProfile, Profile};

/// Makes a profile of the built-in network, whose only seed nobody can reach.
pub(crate) fn profile(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("profile");
    let seeds = vec![Peer {
        id: RelayId([7; 32]),
        host_port: "192.0.2.1:9000".to_owned(),
    }];
    let new = NewProfile {
        network: None,
        seeds,
        key: NewKey::File(path.join("key")),
    };
    Profile::create(&path, new, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    path
}
