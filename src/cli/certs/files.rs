//! Files of `certs dev`: read, written whole, and refused where another program made them.
//!
//! Knows no certificates. Invariant: a file appears with its whole content, and a key is readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::KeyPair;

use super::Made;
use crate::cli::CommandError;
use crate::regular_file::{self, PEM_MAX, WholeFile};
use crate::server;

/// Reads a file; `None`: it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, CommandError> {
    match regular_file::read(path, PEM_MAX).and_then(WholeFile::text) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot(path, &error)),
    }
}

/// Writes a key and its certificate; the key first, so that a certificate never exists without its key.
pub(super) fn write(files: &Made, certificate: &str, key: &KeyPair) -> Result<(), CommandError> {
    replace(&files.key, 0o600, &key.serialize_pem())?;
    replace(&files.cert, 0o644, certificate)
}

/// Writes a file with one random key, unless it exists: cookies, tickets and hashes in use depend on the existing key.
pub(in crate::cli) fn keep_or_make_key(path: &Path) -> Result<(), CommandError> {
    if path.exists() {
        return Ok(());
    }
    let made = server::random_key().and_then(|key| regular_file::make_once(path, key.as_bytes()));
    made.map(drop).map_err(|error| cannot(path, &error))
}

/// Error for a file that must not be replaced.
pub(super) fn refused(path: &Path, what: &str) -> CommandError {
    CommandError::Usage(format!("{}: {what}; nothing was written", path.display()))
}

/// Error for a file that cannot be read or written.
pub(super) fn cannot(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Usage(format!("{}: {error}", path.display()))
}

/// Replaces a file by renaming a finished one over it; `mode` holds from the first byte on.
fn replace(path: &Path, mode: u32, content: &str) -> Result<(), CommandError> {
    let unfinished = path.with_extension("new");
    let written = (|| {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&unfinished, path)
    })();
    written.map_err(|error| cannot(path, &error))
}
