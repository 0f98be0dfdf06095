//! [`InstanceLock`]: the lock file beside the admin socket.
//!
//! Holds nothing but the lock. Invariants: one process holds the lock of an admin socket,
//! whatever addresses it binds, because with `SO_REUSEPORT` a second process would take half of the connections; only
//! the owner of the file can open it, because any process that can open it can hold the lock; the lock ends with the
//! process.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{StartError, own_files};
use crate::config::Config;
use crate::regular_file;

/// Mode of the lock file: only its owner can open it.
const MODE: u32 = 0o600;

/// The lock of this process, held as long as its file is open.
#[derive(Debug)]
pub(super) struct InstanceLock {
    file: File,
}

impl InstanceLock {
    /// Takes the lock of the admin socket; `None`: the configuration has no socket.
    pub(super) fn take(config: &Config) -> Result<Option<Self>, StartError> {
        let Some(socket) = &config.process.admin.socket else { return Ok(None) };
        let path = socket.with_extension("lock");
        let cannot = |why: String| StartError::unavailable("admin.socket", format!("{}: {why}", path.display()));
        let made = own_files::make_folder(&path, own_files::OPEN);
        let file = made.and_then(|()| open(&path)).map_err(|error| cannot(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Err(cannot("another sessile runs with this admin socket".into())),
            Err(TryLockError::Error(error)) => Err(cannot(error.to_string())),
        }
    }

    /// The lock that the process before has given over.
    pub(super) fn inherited(file: OwnedFd) -> Self {
        Self { file: file.into() }
    }

    /// A copy of the lock for the process that follows: it is held for as long as either is open.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

/// Opens the lock file. The mode of one that an earlier version has made is mended.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = regular_file::open_with(options.create(true).truncate(false).read(true).write(true).mode(MODE), path)?;
    if file.metadata()?.permissions().mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_open_the_lock_also_an_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.lock");
        open(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        open(&path).unwrap();
        assert_eq!(mode(&path), 0o600, "mended");
    }
}
