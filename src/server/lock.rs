//! [`InstanceLock`]: the lock file beside the admin socket.
//!
//! Holds nothing but the lock. Invariants: one process holds the lock of an admin socket,
//! whatever addresses it binds, because with `SO_REUSEPORT` a second process would take half of the connections; only
//! the owner of the file can open it, because any process that can open it can hold the lock; the lock ends with the
//! process at the latest.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{StartError, own_files};
use crate::config::Config;
use crate::regular_file;

/// Mode of the lock file: only its owner can open it.
const MODE: u32 = 0o600;

/// How long a start waits for the lock of a process that may have been told to stop a moment ago.
const SERVING_PATIENCE: Duration = Duration::from_millis(500);

/// How long a start waits for the lock of a process that has left the admin path: it gives up the lock at once, or once
/// it has written its last files.
const LEAVING_PATIENCE: Duration = Duration::from_secs(10);

/// How often a start looks whether the lock is free.
const LOOK: Duration = Duration::from_millis(5);

/// The lock of this process, held as long as its file is open.
#[derive(Debug)]
pub(super) struct InstanceLock {
    file: File,
    /// Another process may have a copy, and the lock is that one's, too.
    is_copied: bool,
}

/// Another process holds the lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeldElsewhere;

impl InstanceLock {
    /// Takes the lock of the admin socket, and waits for a process that is about to give it up; `None`: the configuration
    /// has no socket.
    pub(super) fn take(config: &Config) -> Result<Option<Self>, StartError> {
        let Some(socket) = &config.process.admin.socket else { return Ok(None) };
        let path = socket.with_extension("lock");
        let cannot = |why: String| StartError::unavailable("admin.socket", format!("{}: {why}", path.display()));
        let made = own_files::make_folder(&path, own_files::OPEN);
        let file = made.and_then(|()| open(&path)).map_err(|error| cannot(error.to_string()))?;
        let begun = Instant::now();
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self::of(file))),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(cannot(error.to_string())),
            }
            let serves = socket.symlink_metadata().is_ok();
            if begun.elapsed() >= if serves { SERVING_PATIENCE } else { LEAVING_PATIENCE } {
                return Err(cannot("another sessile runs with this admin socket; a second one needs its own".into()));
            }
            if !serves && !std::mem::replace(&mut said, true) {
                tracing::info!("{}: waiting for a process that stops", path.display());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Takes the lock again after it was given up, without waiting. `None`: there is no file to lock, so no other process
    /// can hold it.
    pub(super) fn take_again(config: &Config) -> Result<Option<Self>, HeldElsewhere> {
        let Some(socket) = &config.process.admin.socket else { return Ok(None) };
        let Ok(file) = open(&socket.with_extension("lock")) else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self::of(file))),
            Err(TryLockError::WouldBlock) => Err(HeldElsewhere),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Gives up the lock for the next process. One that another process has as well stays that one's: it is closed here,
    /// and not unlocked.
    pub(super) fn give_up(self) {
        if !self.is_copied {
            let _ = self.file.unlock(); // fails for no open file; closing it would release the lock as well
        }
    }

    /// Keeps the lock that the process before has given over, if it is that of this configuration; takes the own one
    /// otherwise.
    pub(super) fn take_over(config: &Config, inherited: Option<OwnedFd>) -> Result<Option<Self>, StartError> {
        let path = config.process.admin.socket.as_ref().map(|socket| socket.with_extension("lock"));
        match inherited.map(File::from).zip(path) {
            // The process before closes its copy without unlocking.
            Some((file, path)) if own_files::is_at(&file, &path) => Ok(Some(Self::of(file))),
            _ => Self::take(config),
        }
    }

    /// A copy of the lock for the process that follows: it is held for as long as either is open.
    pub(super) fn copy(&mut self) -> io::Result<OwnedFd> {
        self.is_copied = true;
        Ok(self.file.try_clone()?.into())
    }

    fn of(file: File) -> Self {
        Self { file, is_copied: false }
    }
}

/// Opens the lock file. The mode of one that an earlier version has made is mended.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = regular_file::open_own(options.create(true).truncate(false).read(true).write(true).mode(MODE), path)?;
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
    fn a_link_in_the_place_of_the_lock_is_refused_and_where_it_leads_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("a.lock"));
        fs::write(&target, "").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(open(&link).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(mode(&target), 0o644);
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

    fn config(socket: &Path) -> Config {
        let text = format!(
            "[admin]\nsocket = \"{}\"\n[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
             [[pool]]\nname = \"p\"\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n",
            socket.display()
        );
        crate::config::check(&text, &|_| Err(io::ErrorKind::NotFound.into())).unwrap().config
    }

    #[test]
    fn a_start_waits_for_a_process_that_gives_up_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("admin.sock"));
        let first = InstanceLock::take(&config).unwrap().unwrap();
        assert_eq!(InstanceLock::take_again(&config).err(), Some(HeldElsewhere));
        let leaves = std::thread::spawn(move || {
            // Longer than a start waits for a process that serves.
            std::thread::sleep(SERVING_PATIENCE + Duration::from_millis(200));
            first.give_up();
        });
        let second = InstanceLock::take(&config).unwrap().unwrap();
        leaves.join().unwrap();
        drop(second);
        assert!(InstanceLock::take_again(&config).unwrap().is_some());
    }

    #[test]
    fn a_lock_that_another_process_has_as_well_stays_locked() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("admin.sock"));
        let mut old = InstanceLock::take(&config).unwrap().unwrap();
        let copy = old.copy().unwrap();
        old.give_up();
        assert_eq!(InstanceLock::take_again(&config).err(), Some(HeldElsewhere));
        let new = InstanceLock::take_over(&config, Some(copy)).unwrap().unwrap();
        assert_eq!(InstanceLock::take_again(&config).err(), Some(HeldElsewhere));
        new.give_up();
        assert!(InstanceLock::take_again(&config).unwrap().is_some());
    }

    #[test]
    fn a_lock_of_another_path_is_not_taken_for_the_own_one() {
        let folder = tempfile::tempdir().unwrap();
        let [before, now] = ["before.sock", "now.sock"].map(|name| config(&folder.path().join(name)));
        let mut old = InstanceLock::take(&before).unwrap().unwrap();
        let _served = std::os::unix::net::UnixListener::bind(folder.path().join("now.sock")).unwrap();
        let taken = InstanceLock::take_over(&now, Some(old.copy().unwrap())).unwrap();
        assert_eq!(InstanceLock::take_again(&now).err(), Some(HeldElsewhere), "{taken:?}");
        drop(old);
        assert!(InstanceLock::take_again(&before).unwrap().is_some(), "and the other one is free");
        // One that is held elsewhere refuses the start.
        let mut old = InstanceLock::take_again(&before).unwrap().unwrap();
        assert!(InstanceLock::take_over(&now, Some(old.copy().unwrap())).is_err());
        // A lock file that was deleted locks nothing out any more.
        drop(taken);
        std::fs::remove_file(folder.path().join("before.lock")).unwrap();
        let again = InstanceLock::take_over(&before, Some(old.copy().unwrap())).unwrap();
        assert_eq!(InstanceLock::take_again(&before).err(), Some(HeldElsewhere), "{again:?}");
    }

    #[test]
    fn a_process_that_serves_keeps_others_out_and_is_named_soon() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let config = config(&socket);
        let _first = InstanceLock::take(&config).unwrap();
        let _served = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let begun = Instant::now();
        let refused = InstanceLock::take(&config).unwrap_err();
        assert!(refused.lines[0].contains("another sessile runs with this admin socket"), "{refused:?}");
        assert!(begun.elapsed() < LEAVING_PATIENCE / 2);
    }
}
