//! [`Files`]: reads PEM files (RFC 7468) with certificates and keys.
//!
//! Verifies no content. Invariant: an error names the file and the problem, never a byte of a key; and the hash of each
//! file is kept, so that a reload finds the changed ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest file in bytes; a bundle of all public authorities is a quarter of it.
const FILE_MAX: u64 = 1 << 20;

/// The files of one load.
#[derive(Debug, Default)]
pub(super) struct Files {
    hashes: BTreeMap<PathBuf, [u8; 32]>,
    exposed: BTreeSet<PathBuf>,
}

impl Files {
    /// The certificates in a file, at least one, in file order.
    pub(super) fn certificates(&mut self, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
        let bytes = self.read(path)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err(about(path, "there is no certificate in it")),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(about(path, &reason(&error))),
        }
    }

    /// The first key in a file.
    pub(super) fn key(&mut self, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
        const ENCRYPTED: &[u8] = b"ENCRYPTED";
        let bytes = self.read_secret(path)?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            pem::Error::NoItemsFound if bytes.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) => {
                about(path, "its key is encrypted; store it without a password")
            }
            pem::Error::NoItemsFound => about(path, "there is no key in it"),
            other => about(path, &reason(&other)),
        })
    }

    /// Reads a file of secrets as text.
    pub(super) fn secrets(&mut self, path: &Path) -> Result<String, String> {
        String::from_utf8(self.read_secret(path)?).map_err(|_| about(path, "it is not text"))
    }

    /// The files of this load with other content than in an earlier load.
    pub(super) fn changed_since(&self, earlier: &Self) -> impl Iterator<Item = &Path> {
        let differs = |(path, hash): &(&PathBuf, &[u8; 32])| earlier.hashes.get(*path).is_some_and(|old| old != *hash);
        self.hashes.iter().filter(differs).map(|(path, _)| path.as_path())
    }

    /// The files with secrets that every user of this machine can read.
    pub(super) fn exposed(&self) -> impl Iterator<Item = &Path> {
        self.exposed.iter().map(PathBuf::as_path)
    }

    fn read_secret(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        const OTHERS: u32 = 0o007;
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & OTHERS != 0) {
            self.exposed.insert(path.to_owned());
        }
        self.read(path)
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| about(path, &error.to_string());
        let mut bytes = Vec::new();
        let mut file = File::open(path).map_err(failed)?.take(FILE_MAX + 1);
        file.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(about(path, "it is longer than 1 MiB"));
        }
        self.hashes.insert(path.to_owned(), sha256(&bytes));
        Ok(bytes)
    }
}

/// The SHA-256 hash of the bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// An error text with its file: `"certs/a.pem": WHAT`.
pub(super) fn about(path: &Path, what: &str) -> String {
    format!("\"{}\": {what}", path.display())
}

fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end: the file may be cut short".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section begins badly".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        _ => "it is not PEM".to_owned(),
    }
}
