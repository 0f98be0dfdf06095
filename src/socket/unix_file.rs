//! [`UnixFile`]: the file of a unix socket that this process has bound.
//!
//! Binds nothing. Invariant: only the file that was bound is ever changed or removed; one that another process has put
//! in its place is left alone.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use nix::unistd::Group;

use crate::waiting;

/// The groups that were looked up, each with its number.
static GROUPS: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);

/// The file of a bound socket. As long as the socket is open, the kernel gives its inode to no other file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Time of creation, if the file system has it: the inode may be used again once the socket is closed.
    created: Option<SystemTime>,
}

/// Mode and group of the file, as they were before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAccess {
    mode: u32,
    group: u32,
}

impl UnixFile {
    /// The file that was just bound, by this process or by the one that has given the socket over.
    pub fn bound(path: &Path) -> io::Result<Self> {
        let there = path.symlink_metadata()?;
        Ok(Self { path: path.to_owned(), device: there.dev(), inode: there.ino(), created: there.created().ok() })
    }

    /// Device and inode of the file.
    pub fn identity(&self) -> [u64; 2] {
        [self.device, self.inode]
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the file is still there; false if it was deleted or another one is in its place.
    pub fn is_there(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|there| {
            let same = (there.dev(), there.ino(), there.created().ok()) == (self.device, self.inode, self.created);
            same && there.file_type().is_socket()
        })
    }

    /// Removes the file if it is still there: no new client can connect, and those in the backlog can be served.
    pub fn remove(&self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path); // at worst the next start finds it
        }
    }

    /// Moves the file to another path and replaces what is there: clients reach the same socket by the new path.
    pub fn rename_to(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_there() {
            return Err(io::ErrorKind::NotFound.into());
        }
        std::fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Mode and group of the file.
    pub fn access(&self) -> io::Result<FileAccess> {
        let there = self.path.symlink_metadata()?;
        Ok(FileAccess { mode: there.mode() & 0o7777, group: there.gid() })
    }

    /// Sets group and mode, each if there is one; returns what they were before.
    pub fn set_access(&self, mode: Option<u32>, group: Option<&str>) -> Result<FileAccess, String> {
        let before = self.access().map_err(|error| error.to_string())?;
        if let Some(group) = group {
            let id = known_group_id(group).map_err(|unknown| format!("group \"{group}\" {unknown}"))?;
            self.set_group(id).map_err(|error| format!("the socket file cannot get the group \"{group}\": {error}"))?;
        }
        if let Some(mode) = mode {
            self.set_mode(mode).map_err(|error| format!("the socket file cannot get the mode {mode:04o}: {error}"))?;
        }
        Ok(before)
    }

    /// Sets group and mode as they were before a change, if the file is still there.
    pub fn restore(&self, before: FileAccess) {
        if self.is_there() {
            let _ = self.set_group(before.group).and_then(|()| self.set_mode(before.mode));
        }
    }

    fn set_group(&self, group: u32) -> io::Result<()> {
        chown(&self.path, None, Some(group))
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode))
    }
}

/// The number of a group that is written by name or number. An error completes the sentence that begins with the group.
pub fn group_id(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    match waiting::on(|| format!("looking up the group \"{group}\""), || Group::from_name(group)) {
        Ok(Some(found)) => {
            let id = found.gid.as_raw();
            GROUPS.lock().unwrap_or_else(PoisonError::into_inner).insert(group.to_owned(), id);
            Ok(id)
        }
        Ok(None) => Err("is not a group of this machine".to_owned()),
        Err(error) => Err(format!("cannot be looked up: {}", error.desc())),
    }
}

/// Like [`group_id`], and the answer to the last look is used again: a configuration is checked before it is put in
/// force, and a directory of users that does not answer must not hold the thread that does this.
fn known_group_id(group: &str) -> Result<u32, String> {
    let known = GROUPS.lock().unwrap_or_else(PoisonError::into_inner).get(group).copied();
    known.map_or_else(|| group_id(group), Ok)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_file_that_another_process_has_put_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let _ours = UnixListener::bind(&path).unwrap();
        let file = UnixFile::bound(&path).unwrap();
        assert!(file.is_there());
        std::fs::remove_file(&path).unwrap();
        assert!(!file.is_there());
        file.remove();
        let _theirs = UnixListener::bind(&path).unwrap();
        assert!(!file.is_there());
        file.remove();
        assert!(path.exists());
        UnixFile::bound(&path).unwrap().remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_moves_leads_to_the_same_socket_and_one_that_is_gone_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
        let ours = UnixListener::bind(&from).unwrap();
        let mut file = UnixFile::bound(&from).unwrap();
        std::fs::write(&to, "left over").unwrap();
        file.rename_to(&to).unwrap();
        assert!(file.is_there() && file.path() == to && !from.exists());
        let _client = std::os::unix::net::UnixStream::connect(&to).unwrap();
        ours.accept().unwrap();
        std::fs::remove_file(&to).unwrap();
        let _theirs = UnixListener::bind(&to).unwrap();
        assert_eq!(file.rename_to(&from).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(to.exists() && !from.exists());
    }

    #[test]
    fn mode_and_group_are_set_and_restored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let _ours = UnixListener::bind(&path).unwrap();
        let file = UnixFile::bound(&path).unwrap();
        let mode = || path.symlink_metadata().unwrap().mode() & 0o777;
        let first = mode();
        let own_group = path.symlink_metadata().unwrap().gid().to_string();
        let before = file.set_access(Some(0o600), Some(&own_group)).unwrap();
        assert_eq!(mode(), 0o600);
        file.restore(before);
        assert_eq!(mode(), first);
        let unknown = file.set_access(Some(0o600), Some("no-such-group")).unwrap_err();
        assert_eq!((unknown.as_str(), mode()), ("group \"no-such-group\" is not a group of this machine", first));
        assert_eq!(group_id("root"), Ok(0));
    }
}
