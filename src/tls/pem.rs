//! [`Files`]: reads PEM files (RFC 7468) with certificates, keys and revocation lists; those in DER, too.
//!
//! Verifies no content. Invariant: an error names the file and the problem, never a byte of a key; and the hash of each
//! file is kept, so that a reload finds the changed ones.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::config::is_open_to_all;
use crate::regular_file::{self, CRL_MAX, PEM_MAX, WholeFile};

/// Second line of a section that OpenSSL's traditional form encrypts (RFC 1421 §4.6.1.1).
const PROC_TYPE: &[u8] = b"Proc-Type: 4,ENCRYPTED";
/// First line of an encrypted key (RFC 7468 §11).
const ENCRYPTED_KEY: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// The first byte of every DER structure that is a certificate, a key, a revocation list or a PKCS #12 store.
const SEQUENCE: u8 = 0x30;

/// Why a value cannot be used: its key, and the mistake in words that follow the key.
pub(super) type KeyError = (&'static str, String);

/// The files of one load.
#[derive(Debug, Default)]
pub(super) struct Files {
    hashes: BTreeMap<PathBuf, [u8; 32]>,
    exposed: BTreeSet<PathBuf>,
}

impl Files {
    /// The certificates in a file, at least one, in file order.
    pub(super) fn certificates(&mut self, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
        let bytes = self.read(path, PEM_MAX)?.bytes;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&without_encrypted(&bytes)).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err(about(path, &lacks("certificate", &bytes))),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(about(path, &reason(&error))),
        }
    }

    /// The revocation lists in a file of PEM or DER, at least one, in file order.
    pub(super) fn revocation_lists(
        &mut self,
        path: &Path,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        let bytes = self.read(path, CRL_MAX)?.bytes;
        if bytes.first() == Some(&SEQUENCE) {
            return in_der(&bytes).ok_or_else(|| about(path, "it is binary, and not a revocation list in DER"));
        }
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        match lists {
            Ok(lists) if lists.is_empty() => Err(about(path, &lacks("revocation list", &bytes))),
            Ok(lists) => Ok(lists),
            Err(error) => Err(about(path, &reason(&error))),
        }
    }

    /// The first key in a file.
    pub(super) fn key(&mut self, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
        let bytes = self.read_secret(path)?;
        PrivateKeyDer::from_pem_slice(&without_encrypted(&bytes)).map_err(|error| match (error, encryption(&bytes)) {
            (pem::Error::NoItemsFound, Some(form)) => {
                let how = "store it without a password, as `openssl pkey -in FILE -out NEW` does";
                about(path, &format!("its key is encrypted ({form}): {how}"))
            }
            (pem::Error::NoItemsFound, None) => about(path, &lacks("key", &bytes)),
            (other, _) => about(path, &reason(&other)),
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

    /// True for a file with secrets that every user of this machine can read.
    pub(super) fn is_exposed(&self, path: &Path) -> bool {
        self.exposed.contains(path)
    }

    fn read_secret(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let file = self.read(path, PEM_MAX)?;
        if is_open_to_all(file.mode) {
            self.exposed.insert(path.to_owned());
        }
        Ok(file.bytes)
    }

    fn read(&mut self, path: &Path, most: u64) -> Result<WholeFile, String> {
        let file = regular_file::read(path, most).map_err(|error| about(path, &error.to_string()))?;
        self.hashes.insert(path.to_owned(), sha256(&file.bytes));
        Ok(file)
    }
}

/// Revocation lists in DER, one behind the other; `None`: something else is there, too.
fn in_der(mut bytes: &[u8]) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let mut lists = Vec::new();
    while !bytes.is_empty() {
        let (rest, list) = CertificateRevocationList::from_der(bytes).ok()?;
        lists.push(list.as_raw().to_vec().into());
        bytes = rest;
    }
    Some(lists)
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

/// What a file without the wanted section has instead.
fn lacks(wanted: &str, bytes: &[u8]) -> String {
    const LABELS_MAX: usize = 3;
    if bytes.trim_ascii().is_empty() {
        return "it is empty".to_owned();
    }
    let label = |line: &[u8]| {
        let label = line.strip_prefix(b"-----BEGIN ")?.trim_ascii_end().strip_suffix(b"-----")?;
        let is_word = label.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        is_word.then(|| String::from_utf8_lossy(label).into_owned())
    };
    let mut labels: Vec<_> = bytes.split(|byte| *byte == b'\n').filter_map(label).take(LABELS_MAX).collect();
    labels.dedup();
    match labels.is_empty() {
        true if bytes.first() == Some(&SEQUENCE) => "it is binary (DER or PKCS #12) and not PEM".to_owned(),
        true => format!("there is no {wanted} in it"),
        false => format!("there is no {wanted} in it, only {}", labels.join(", ")),
    }
}

/// The form in which a key of a file is encrypted; `None`: no key is.
fn encryption(bytes: &[u8]) -> Option<&'static str> {
    let has = |mark: &[u8]| memchr::memmem::find(bytes, mark).is_some();
    match (has(ENCRYPTED_KEY), has(PROC_TYPE)) {
        (true, _) => Some("PKCS #8, ENCRYPTED PRIVATE KEY"),
        (false, true) => Some("traditional form, Proc-Type: 4,ENCRYPTED"),
        (false, false) => None,
    }
}

/// The text without sections that are encrypted in the traditional form: their headers are no base64, and the reader of
/// PEM would refuse all of the file.
fn without_encrypted(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(bytes, PROC_TYPE).is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut kept = Vec::with_capacity(bytes.len());
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_encrypted =
            line.starts_with(b"-----BEGIN ") && lines.peek().is_some_and(|next| next.starts_with(PROC_TYPE));
        if is_encrypted {
            lines.by_ref().find(|line| line.starts_with(b"-----END "));
        } else {
            kept.extend_from_slice(line);
        }
    }
    Cow::Owned(kept)
}

fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end: the file may be cut short".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section begins badly".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        _ => "it is not PEM".to_owned(),
    }
}
