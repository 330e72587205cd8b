//! The identity key's file: made once, never overwritten, readable by its owner only.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use umbel_proto::crypto::sign::SigningKey;
use zeroize::Zeroizing;

use crate::shell::files::write_whole;

/// Name of the identity file in the data directory.
pub const IDENTITY_FILE: &str = "identity";

/// The beginning of the file; the seed follows, and nothing else.
const MAGIC: [u8; 16] = *b"umbel-identity-1";
const FILE_LEN: usize = MAGIC.len() + 32;

/// Why the identity can't be read or made.
#[derive(Debug)]
pub enum KeyError {
    /// There is one already; it is left as it is.
    Exists,
    /// There is none.
    Missing,
    /// The file is not an identity file of this version, or was cut short.
    Malformed,
    /// The disk.
    Io(io::Error),
}

/// Makes a fresh identity and keeps it in `data_dir`.
///
/// # Errors
/// There is one already, or the disk fails.
pub fn create(data_dir: &Path) -> Result<SigningKey, KeyError> {
    let path = data_dir.join(IDENTITY_FILE);
    if path.try_exists().map_err(KeyError::Io)? {
        return Err(KeyError::Exists);
    }
    let key = SigningKey::generate(&mut rand::rng());
    let mut bytes = Zeroizing::new([0; FILE_LEN]);
    let (magic, seed) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    seed.copy_from_slice(&*key.seed());
    write_whole(&path, &*bytes, false).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists,
        _ => KeyError::Io(error),
    })?;
    Ok(key)
}

/// Reads the identity that is kept in `data_dir`.
///
/// # Errors
/// There is none, it is damaged, or the disk fails.
pub fn load(data_dir: &Path) -> Result<SigningKey, KeyError> {
    let mut file =
        File::open(data_dir.join(IDENTITY_FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KeyError::Missing,
            _ => KeyError::Io(error),
        })?;
    // One byte more than there should be shows a file that is too long.
    let mut bytes = Zeroizing::new([0; FILE_LEN + 1]);
    let mut len = 0;
    while let Some(rest @ [_, ..]) = bytes.get_mut(len..) {
        match file.read(rest).map_err(KeyError::Io)? {
            0 => break,
            read => len += read,
        }
    }
    match bytes.split_first_chunk() {
        Some((&MAGIC, [seed @ .., _])) if len == FILE_LEN => {
            let seed = seed.try_into().map_err(|_| KeyError::Malformed)?;
            Ok(SigningKey::from_seed(seed))
        }
        _ => Err(KeyError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(KeyError::Missing)));
        let made = create(dir.path()).unwrap();
        assert!(load(dir.path()).is_ok_and(|key| key.public() == made.public()));
        assert!(matches!(create(dir.path()), Err(KeyError::Exists)));
        assert!(load(dir.path()).is_ok_and(|key| key.public() == made.public()));
        let mode = fs::metadata(dir.path().join(IDENTITY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_identity_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        let good = fs::read(&path).unwrap();
        let mut long = good.clone();
        long.push(0);
        let mut other = good.clone();
        other[0] ^= 1;
        for bad in [&good[..FILE_LEN - 1], &long, &other, &[]] {
            fs::write(&path, bad).unwrap();
            assert!(
                matches!(load(dir.path()), Err(KeyError::Malformed)),
                "{} bytes",
                bad.len()
            );
        }
    }
}
