//! Where the control socket is: its file, for its owner only, in directories however deep.
//!
//! Only the holder of the data directory's lock binds, so a socket found there belonged to a relay
//! that was killed, and makes way. A path that does not fit in a socket's address is taken relative
//! to its open directory, which Linux can (`/proc/self/fd`).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::shell::files::folder_of;

/// The socket in the data directory.
const SOCKET_FILE: &str = "control.sock";
/// The longest path in a socket's address, without the zero that ends it. Linux takes 4 more.
const PATH_LEN_MAX: usize = 103;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// The file of a socket that is bound. Dropping it, which the lock's holder does, removes the file.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if is_socket(&self.0).is_ok_and(|is_socket| is_socket) {
            // One that stays makes way at the next start.
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn is_socket(path: &Path) -> io::Result<bool> {
    Ok(fs::symlink_metadata(path)?.file_type().is_socket())
}

/// Listens in this data directory, whose lock the caller holds.
///
/// # Errors
/// The directory takes no socket, or has something else of that name.
pub(super) fn bind(data_dir: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let path = data_dir.join(SOCKET_FILE);
    match is_socket(&path) {
        Ok(true) => fs::remove_file(&path)?,
        Ok(false) => {
            let error = format!("{} is there and is no socket: move it away", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(Short::of(&path)?.path())?)?;
    let bound = SocketFile(path);
    // Before it listens: until then nobody can connect, whatever the umask made of the file.
    fs::set_permissions(&bound.0, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), bound))
}

/// Connects to the relay that runs in this data directory.
pub(super) fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Short::of(&data_dir.join(SOCKET_FILE))?.path())
}

/// A path that fits in a socket's address.
enum Short {
    Whole(PathBuf),
    /// Relative to a directory that is open as long as this is there.
    Within(
        PathBuf,
        #[expect(dead_code, reason = "the path names its number")] File,
    ),
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= PATH_LEN_MAX {
            return Ok(Self::Whole(path.to_owned()));
        }
        let folder = File::open(folder_of(path))?;
        let within = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        if !within.exists() {
            let error = format!(
                "the path {} is longer than the {PATH_LEN_MAX} bytes that this system takes for a socket",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let name = path.file_name().unwrap_or_default();
        Ok(Self::Within(within.join(name), folder))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Whole(path) | Self::Within(path, _) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// One end says a word, and the other hears it.
    fn assert_connects(listener: &UnixListener, data_dir: &Path) {
        let mut client = connect(data_dir).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"word").unwrap();
        let mut word = [0; 4];
        server.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"word");
    }

    #[test]
    fn only_its_owner_reaches_it_and_it_goes_with_the_relay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_FILE);
        let (listener, file) = bind(dir.path()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_connects(&listener, dir.path());
        drop(file);
        assert!(!path.exists());
        let gone = connect(dir.path()).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_killed_relays_socket_makes_way_and_anything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_FILE);
        let (listener, killed) = bind(dir.path()).unwrap();
        drop(listener);
        std::mem::forget(killed);
        let refused = connect(dir.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let (listener, next) = bind(dir.path()).unwrap();
        assert_connects(&listener, dir.path());
        drop(next);
        fs::write(&path, "precious").unwrap();
        let error = bind(dir.path()).unwrap_err();
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_may_be_deeper_than_a_sockets_address() {
        let dir = tempfile::tempdir().unwrap();
        for deep_len in [PATH_LEN_MAX - SOCKET_FILE.len() - 1, 110, 300] {
            let mut deep = dir.path().to_owned();
            while deep.as_os_str().len() < deep_len {
                let rest = (deep_len - deep.as_os_str().len() - 1).clamp(1, 40);
                deep.push("d".repeat(rest));
            }
            fs::create_dir_all(&deep).unwrap();
            let (listener, _file) = bind(&deep).unwrap();
            assert_connects(&listener, &deep);
        }
    }
}
