//! What every turn of a run shares: cores, a certificate, files to serve, folders and ports.
//!
//! Starts nothing. Invariant: what is made here is gone when the run has ended.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use tempfile::TempDir;

use crate::Result;
use crate::launch::Cores;
use crate::load::identity::Identity;
use crate::load::pattern;

/// The ground of a run.
#[derive(Debug)]
pub struct Stage {
    /// The cores of the proxy and of all others.
    pub cores: Cores,
    /// What is shown where TLS ends.
    pub identity: Identity,
    /// What nginx serves as backend, where a scenario needs it.
    pub shelf: Option<Shelf>,
    /// Whether access log, metrics and checks are off in every proxy.
    pub off: bool,
    minted_in: TempDir,
}

/// A file to download, and the nginx that serves it.
#[derive(Debug)]
pub struct Shelf {
    /// The program.
    pub nginx: PathBuf,
    folder: TempDir,
}

impl Stage {
    /// Mints a certificate. `nginx`: the program that serves files of this length.
    pub fn new(cores: Cores, off: bool, nginx: Option<(&Path, u64)>) -> Result<Self> {
        let minted_in = scratch()?;
        let identity = Identity::mint(minted_in.path())?;
        let shelf = nginx.map(|(nginx, length)| Shelf::fill(nginx, length)).transpose()?;
        Ok(Self { cores, identity, shelf, off, minted_in })
    }

    /// The folder in which the certificate was minted.
    pub fn minted_in(&self) -> &Path {
        self.minted_in.path()
    }
}

impl Shelf {
    /// On a file system for files, not in memory: the page cache of a file is what users serve.
    fn fill(nginx: &Path, length: u64) -> Result<Self> {
        let shelf = Self { nginx: nginx.to_owned(), folder: tempfile::tempdir()? };
        pattern::write(&shelf.file(), length)?;
        Ok(shelf)
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("file")
    }
}

/// In memory where that is possible, so that no contestant pays for writing logs to a disk.
pub fn scratch() -> Result<TempDir> {
    Ok(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?)
}

/// Below the ports that the kernel gives to clients.
pub fn free_port() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 15_000 + (std::process::id() % 1_000) as u16 * 10;
    for _ in 0..10_000 {
        let port = 15_000 + (first - 15_000 + NEXT.fetch_add(1, Relaxed)) % 15_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".into())
}
