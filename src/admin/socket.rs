//! The unix socket of the admin interface.
//!
//! Serves no request. Invariants: only users that the mode allows can ever connect, because it is set between bind and
//! listen; a socket of another process is never removed, neither at the start nor at the end.

use std::fmt;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::Socket;

use crate::detached::{self, Patience};
use crate::socket;
use crate::socket::unix_file::UnixFile;

const BACKLOG: i32 = 64;

/// Why the admin interface cannot listen.
#[derive(Debug)]
pub struct BindError {
    /// The path or address that could not be bound.
    pub place: String,
    /// The error of the kernel.
    pub cause: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match (self.cause.kind(), self.place.parse()) {
            (io::ErrorKind::AddrInUse, Ok(address)) => socket::why_in_use(address),
            // Before a path is called in use, a process was found that listens there.
            (io::ErrorKind::AddrInUse, Err(_)) => "another program listens there".to_owned(),
            _ => self.cause.to_string(),
        };
        write!(f, "admin: cannot listen on {}: {why}", self.place)
    }
}

impl std::error::Error for BindError {}

/// The file of the socket, which can move while the socket is served.
#[derive(Debug, Clone)]
pub struct MovableFile(Arc<Mutex<UnixFile>>);

impl MovableFile {
    /// Path of the file.
    pub fn path(&self) -> PathBuf {
        self.file().path().to_owned()
    }

    /// True if the file is still there; false if it was deleted or another one is in its place.
    pub fn is_there(&self) -> bool {
        self.file().is_there()
    }

    /// Moves the file: clients reach the socket by the new path, and requests under way get their reply.
    pub fn rename_to(&self, path: &Path) -> io::Result<()> {
        self.file().rename_to(path)
    }

    fn file(&self) -> MutexGuard<'_, UnixFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of the socket. Dropping it removes the file, unless another process has put one in its place or has taken
/// the socket over; the listener must be dropped before.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) file: MovableFile,
    /// The file stays where it is.
    pub(super) left: Arc<AtomicBool>,
}

impl SocketFile {
    fn new(file: UnixFile) -> Self {
        Self { file: MovableFile(Arc::new(Mutex::new(file))), left: Arc::default() }
    }

    /// The file of a socket that another process has bound; `None`: there is none any more.
    pub(super) fn taken_over(path: &Path) -> Option<Self> {
        UnixFile::bound(path).ok().map(Self::new)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        const PATIENCE: Patience = Patience { each: Duration::from_secs(1), whole: Duration::from_secs(1) };
        if self.left.load(Relaxed) {
            return;
        }
        let file = self.file.clone();
        let remove = move || {
            if file.is_there() {
                let _ = socket::remove_stale(&file.path());
            }
        };
        // At worst, as on a disk that does not answer, the next start finds the file.
        let _ = detached::within("remove", PATIENCE, remove);
    }
}

/// Listens on `path` with a non-blocking socket; its file gets this mode and group.
pub(super) fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<(UnixListener, SocketFile), BindError> {
    try_bind(path, mode, group).map_err(|cause| BindError { place: path.display().to_string(), cause })
}

fn try_bind(path: &Path, mode: u32, group: Option<&str>) -> io::Result<(UnixListener, SocketFile)> {
    let (socket, file) = socket::bind_unix(path)?;
    let file = SocketFile::new(file);
    file.file.file().set_access(Some(mode), group).map_err(io::Error::other)?;
    let socket = Socket::from(socket);
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    const MODE: u32 = 0o660;

    fn bind_here(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
        bind(path, MODE, None)
    }

    #[test]
    fn a_socket_left_behind_is_taken_over_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead socket's file stays");
        let (listener, file) = bind_here(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_is_listened_on_is_left_alone_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _first = bind_here(&path).unwrap();
        let error = bind_here(&path).unwrap_err().to_string();
        assert!(error.ends_with("admin.sock: another program listens there"), "{error}");
        while socket::knock(&path).is_ok() {} // until the queue is full, as that of a process that hangs
        assert!(bind_here(&path).is_err());
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(bind_here(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_socket_that_has_moved_is_removed_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("admin.sock"), folder.path().join("admin.1.sock"));
        let (listener, file) = bind_here(&path).unwrap();
        file.file.rename_to(&moved).unwrap();
        let (_second, _second_file) = bind_here(&path).unwrap();
        assert!(bind_here(&moved).is_err(), "the first one is served there");
        drop(listener);
        drop(file);
        assert!(path.exists() && !moved.exists());
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (listener, file) = bind_here(&path).unwrap();
        drop(listener);
        let (_second, _second_file) = bind_here(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
