//! The seeds of a profile: relays to ask when no other is known. They stand in `profile.toml`,
//! which holds no secret, so that a user who is locked out by a seed that has moved can name
//! another without the profile's key.
//!
//! A change replaces the whole file: after a crash it is either the old one or the new one. Two
//! changes at once follow each other.

use std::fmt;
use std::fs::File;
use std::path::Path;

use umbel_proto::ids::{Peer, RelayId};

use super::profile::{ProfileError, RawConfig, parse_config, parse_raw, read_config};

/// Most seeds of its own that a profile has.
pub const SEEDS_MAX: usize = 64;

/// All seeds of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds {
    /// Its own.
    pub own: Vec<Peer>,
    /// Those of its network's file.
    pub network: Vec<Peer>,
}

/// The result of adding a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedAdded {
    /// It is one now.
    Added,
    /// The relay was one, at another address.
    Moved,
}

/// The seeds could not be changed; they are as they were.
#[derive(Debug)]
pub enum SeedError {
    /// It is one already.
    Exists(Peer),
    /// There would be more than [`SEEDS_MAX`].
    TooMany,
    /// There is no such seed.
    Missing(RelayId),
    /// It is a seed of the network's file.
    OfNetwork(RelayId),
    /// It is the only one.
    Last(RelayId),
    /// The profile says no.
    Profile(ProfileError),
}

impl From<ProfileError> for SeedError {
    fn from(error: ProfileError) -> Self {
        Self::Profile(error)
    }
}

impl Seeds {
    /// The seeds of the profile in `dir`.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn read(dir: &Path) -> Result<Self, ProfileError> {
        Ok(read(dir)?.1)
    }

    /// Adds these to the profile's own, or none of them.
    ///
    /// # Errors
    /// See [`SeedError`].
    pub fn add(dir: &Path, peers: &[Peer]) -> Result<Vec<SeedAdded>, SeedError> {
        let mut added = Vec::new();
        change(dir, |seeds| {
            for peer in peers {
                added.push(seeds.add_one(peer)?);
            }
            Ok(())
        })?;
        Ok(added)
    }

    /// Removes one of the profile's own, and says where it was.
    ///
    /// # Errors
    /// See [`SeedError`].
    pub fn remove(dir: &Path, relay: &RelayId) -> Result<Peer, SeedError> {
        let mut removed = None;
        change(dir, |seeds| {
            removed = Some(seeds.remove_one(relay)?);
            Ok(())
        })?;
        removed.ok_or(SeedError::Missing(*relay))
    }

    fn add_one(&mut self, peer: &Peer) -> Result<SeedAdded, SeedError> {
        if self
            .own
            .iter()
            .chain(&self.network)
            .any(|seed| seed == peer)
        {
            return Err(SeedError::Exists(peer.clone()));
        }
        if let Some(seed) = self.own.iter_mut().find(|seed| seed.id == peer.id) {
            *seed = peer.clone();
            return Ok(SeedAdded::Moved);
        }
        if self.own.len() >= SEEDS_MAX {
            return Err(SeedError::TooMany);
        }
        self.own.push(peer.clone());
        Ok(SeedAdded::Added)
    }

    fn remove_one(&mut self, relay: &RelayId) -> Result<Peer, SeedError> {
        let Some(index) = self.own.iter().position(|seed| seed.id == *relay) else {
            let is_networks = self.network.iter().any(|seed| seed.id == *relay);
            return Err(if is_networks {
                SeedError::OfNetwork(*relay)
            } else {
                SeedError::Missing(*relay)
            });
        };
        if self.own.len() == 1 && self.network.is_empty() {
            return Err(SeedError::Last(*relay));
        }
        Ok(self.own.remove(index))
    }
}

fn read(dir: &Path) -> Result<(RawConfig, Seeds), ProfileError> {
    let (path, text) = read_config(dir)?;
    let fault = |fault| ProfileError::Config {
        path: path.clone(),
        fault,
    };
    let config = parse_config(&text).map_err(fault)?;
    Ok((
        parse_raw(&text).map_err(fault)?,
        Seeds {
            own: config.seeds,
            network: config.network.seeds,
        },
    ))
}

fn change(
    dir: &Path,
    act: impl FnOnce(&mut Seeds) -> Result<(), SeedError>,
) -> Result<(), SeedError> {
    // Without a profile nothing is made, not even a lock.
    read(dir)?;
    let attempt = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| ProfileError::Io {
            doing,
            path,
            source,
        }
    };
    let directory = File::open(dir).map_err(attempt("open", dir))?;
    directory.lock().map_err(attempt("lock", dir))?;
    let (mut config, mut seeds) = read(dir)?;
    act(&mut seeds)?;
    config.set_seeds(&seeds.own);
    Ok(config.replace_in(dir)?)
}

impl fmt::Display for SeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(peer) => write!(f, "{peer} is a seed of this profile already"),
            Self::TooMany => write!(f, "a profile has at most {SEEDS_MAX} seeds"),
            Self::Missing(relay) => write!(f, "{relay} is not a seed of this profile"),
            Self::OfNetwork(relay) => write!(
                f,
                "{relay} is a seed of the network file, which is not changed"
            ),
            Self::Last(relay) => write!(f, "{relay} is the only seed of this profile"),
            Self::Profile(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SeedError {}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::super::profile::CONFIG_FILE;
    use super::super::{NewKey, NewProfile, Profile};
    use super::*;

    fn peer(number: u8, port: u16) -> Peer {
        Peer {
            id: RelayId([number; 32]),
            host_port: format!("127.0.0.1:{port}"),
        }
    }

    fn profile(seeds: Vec<Peer>) -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("profile");
        let new = NewProfile {
            network: None,
            seeds,
            key: NewKey::File(path.join("key")),
        };
        Profile::create(&path, new, &mut rand::rng()).unwrap();
        (dir, path)
    }

    #[test]
    fn seeds_are_added_moved_and_removed_and_the_profile_still_opens() {
        let (_dir, path) = profile(vec![peer(1, 1)]);
        let before = fs::read_to_string(path.join(CONFIG_FILE)).unwrap();
        assert_eq!(
            Seeds::add(&path, &[peer(2, 2), peer(3, 3)]).unwrap(),
            [SeedAdded::Added; 2]
        );
        assert_eq!(
            Seeds::add(&path, &[peer(2, 9)]).unwrap(),
            [SeedAdded::Moved]
        );
        assert_eq!(Seeds::remove(&path, &peer(1, 1).id).unwrap(), peer(1, 1));
        assert_eq!(Seeds::read(&path).unwrap().own, [peer(2, 9), peer(3, 3)]);
        Seeds::add(&path, &[peer(1, 1)]).unwrap();
        Seeds::remove(&path, &peer(2, 9).id).unwrap();
        Seeds::remove(&path, &peer(3, 3).id).unwrap();
        assert_eq!(
            fs::read_to_string(path.join(CONFIG_FILE)).unwrap(),
            before,
            "all else is as it was"
        );
        assert!(Profile::load(&path).unwrap().open().is_ok());
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["key", "profile.db", "profile.toml"],
            "nothing unfinished is left"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_lies_in_wait_is_not_followed() {
        let (dir, path) = profile(vec![peer(1, 1)]);
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, path.join("profile.toml.new")).unwrap();
        Seeds::add(&path, &[peer(2, 2)]).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(Seeds::read(&path).unwrap().own.len(), 2);
    }

    #[test]
    fn what_can_not_be_done_changes_nothing() {
        let (_dir, path) = profile(vec![peer(1, 1)]);
        let exists = Seeds::add(&path, &[peer(2, 2), peer(1, 1)]);
        assert!(matches!(exists, Err(SeedError::Exists(found)) if found == peer(1, 1)));
        assert!(matches!(
            Seeds::remove(&path, &peer(2, 2).id),
            Err(SeedError::Missing(_))
        ));
        assert!(matches!(
            Seeds::remove(&path, &peer(1, 1).id),
            Err(SeedError::Last(_))
        ));
        let many: Vec<Peer> = (2..=u8::try_from(SEEDS_MAX).unwrap() + 1)
            .map(|number| peer(number, 2))
            .collect();
        assert!(matches!(Seeds::add(&path, &many), Err(SeedError::TooMany)));
        assert_eq!(Seeds::read(&path).unwrap().own, [peer(1, 1)]);
        assert!(matches!(
            Seeds::add(&path.join("none"), &[peer(2, 2)]),
            Err(SeedError::Profile(_))
        ));
        assert!(!path.join("none").exists());
    }

    #[test]
    fn changes_at_once_follow_each_other() {
        let (_dir, path) = profile(vec![peer(1, 1)]);
        std::thread::scope(|scope| {
            for number in 2..12 {
                let path = &path;
                scope.spawn(move || Seeds::add(path, &[peer(number, 2)]).unwrap());
            }
        });
        assert_eq!(Seeds::read(&path).unwrap().own.len(), 11);
    }
}
