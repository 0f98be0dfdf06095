//! [`InstanceLock`]: the lock file beside the admin socket, which also keeps the names of drained backends.
//!
//! Drains nothing (`drains.rs` decides what is kept). Invariants: one process holds the lock of an admin socket,
//! whatever addresses it binds, because with `SO_REUSEPORT` a second process would take half of the connections; only
//! the owner of the file can open it, because any process that can open it can hold the lock; the lock ends with the
//! process.

use std::collections::BTreeSet;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{StartError, own_files};
use crate::config::Config;
use crate::regular_file;

/// Mode of the lock file: only its owner can open it.
const MODE: u32 = 0o600;

/// Most bytes of the file that are read.
const FILE_MAX: u64 = 1 << 20;

/// The lock of this process, and the file that holds it.
#[derive(Debug)]
pub(super) struct InstanceLock(File);

impl InstanceLock {
    /// Takes the lock of the admin socket; `None`: the configuration has no socket.
    pub(super) fn take(config: &Config) -> Result<Option<Self>, StartError> {
        let Some(socket) = &config.process.admin.socket else { return Ok(None) };
        let path = socket.with_extension("lock");
        let cannot = |why: String| StartError::unavailable("admin.socket", format!("{}: {why}", path.display()));
        let made = own_files::make_folder(&path, own_files::OPEN);
        let file = made.and_then(|()| open(&path)).map_err(|error| cannot(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Err(cannot("another sessile runs with this admin socket".into())),
            Err(TryLockError::Error(error)) => Err(cannot(error.to_string())),
        }
    }

    /// The names that the process before has kept.
    pub(super) fn kept(&self) -> BTreeSet<String> {
        let mut bytes = Vec::new();
        let mut file = &self.0;
        // A file that cannot be read keeps nothing: the lock counts, and the names are an extra.
        let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(FILE_MAX).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Keeps these names, and no others, for the next process.
    pub(super) fn keep(&self, names: &BTreeSet<String>) -> io::Result<()> {
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        let mut file = &self.0;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())
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

    #[test]
    fn names_are_kept_for_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.lock");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let lock = InstanceLock(open(&path).unwrap());
        assert_eq!(lock.kept(), names(&[]));
        lock.keep(&names(&["web/b", "web/a"])).unwrap();
        lock.keep(&names(&["web/a"])).unwrap();
        assert_eq!(lock.kept(), names(&["web/a"]));
        drop(lock);
        assert_eq!(InstanceLock(open(&path).unwrap()).kept(), names(&["web/a"]));
    }
}
