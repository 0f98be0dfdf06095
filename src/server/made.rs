//! [`Made`]: the files and folders that were made for a configuration which is not in force yet.
//!
//! Writes no file itself. Invariant: unless it is kept, everything goes again that was noted here and that nothing has
//! changed since, so a configuration that is refused leaves no trace on the disk. A file that another process may have read
//! (`cookie_key_file`) is not noted.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::own_files;
use crate::detached::{self, Patience};

/// How long a refusal waits for a disk on which something was made.
const PATIENCE: Patience = Patience { each: Duration::from_secs(1), whole: Duration::from_secs(1) };

/// Device, inode and length of a file.
type FileState = (u64, u64, u64);

/// What was made; dropped, it is removed again.
#[derive(Debug, Default)]
pub struct Made(Vec<MadePath>);

#[derive(Debug)]
enum MadePath {
    Folder(PathBuf),
    File(PathBuf, FileState),
}

impl Made {
    /// Makes the folder of a file, and those above it, if they are missing.
    pub(super) fn folder_of(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let above = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        let missing: Vec<_> = above.take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        // Also of those that were made before one could not be made.
        self.0.extend(missing.into_iter().rev().map(MadePath::Folder));
        own_files::make_folder(path, mode)
    }

    /// Notes that a file was made.
    pub(super) fn file(&mut self, path: &Path) {
        if let Some(state) = state_of(path) {
            self.0.push(MadePath::File(path.to_owned(), state));
        }
    }

    /// Adds what else was made.
    pub(super) fn and(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// True if nothing was made.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves everything as it is: the configuration is in force.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let made = std::mem::take(&mut self.0);
        if !made.is_empty() {
            let remove = move || made.iter().rev().for_each(MadePath::remove);
            if let Err(unfinished) = detached::within("remove", PATIENCE, remove) {
                tracing::warn!("what was made for a configuration that was refused is not removed: {unfinished}");
            }
        }
    }
}

impl MadePath {
    fn remove(&self) {
        // A failure leaves what is in use: a folder that is not empty, a file that another process has written.
        let _ = match self {
            Self::Folder(path) => fs::remove_dir(path),
            Self::File(path, state) if state_of(path) == Some(*state) => fs::remove_file(path),
            Self::File(..) => Ok(()),
        };
    }
}

/// `None`: there is no file, or it cannot be looked at.
fn state_of(path: &Path) -> Option<FileState> {
    let there = fs::symlink_metadata(path).ok()?;
    Some((there.dev(), there.ino(), there.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_again_and_what_was_there_or_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("there")).unwrap();
        let make = |path: &Path| {
            let mut made = Made::default();
            made.folder_of(path, own_files::PRIVATE).unwrap();
            fs::write(path, "").unwrap();
            made.file(path);
            made
        };
        drop(make(&at("a/b/c")));
        drop(make(&at("there/c")));
        assert!(!at("a").exists() && at("there").exists() && !at("there/c").exists());
        make(&at("kept/c")).keep();
        assert!(at("kept/c").exists());
        let both = |mut first: Made| {
            first.and(make(&at("second/c")));
            first
        };
        drop(both(make(&at("first/c"))));
        assert!(!at("first").exists() && !at("second").exists());
        // Another process has written into it, or has put another file there.
        let made = make(&at("a/c"));
        fs::write(at("a/c"), "of another").unwrap();
        drop(made);
        assert_eq!(fs::read(at("a/c")).unwrap(), b"of another");
        let made = make(&at("x/c"));
        fs::write(at("x/d"), "").unwrap();
        fs::rename(at("x/d"), at("x/c")).unwrap();
        drop(made);
        assert!(at("x/c").exists());
    }

    #[test]
    fn folders_above_one_that_cannot_be_made_go_too() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("a").join("x".repeat(300)).join("file");
        let mut made = Made::default();
        assert!(made.folder_of(&long, own_files::PRIVATE).is_err());
        drop(made);
        assert!(!dir.path().join("a").exists());
    }
}
