//! [`AdminSocket`]: where the admin socket of this process is, and what of it another process gets.
//!
//! Serves no request (`admin` does). Invariant: from the moment at which this process makes room for another one, the
//! path of the configuration is that one's, and operators find this one beside it until its end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::{Server, lock_of, own_files};
use crate::admin;
use crate::admin::moved::moved_path;
use crate::config;

/// The admin socket of this process.
#[derive(Debug, Default)]
pub(super) struct AdminSocket(Mutex<AdminPlace>);

#[derive(Debug, Default)]
struct AdminPlace {
    /// `None`: there is no socket.
    bound: Option<BoundAdmin>,
    /// Copies of the sockets, for the process that follows.
    copies: admin::SocketCopies,
    /// Ends the admin interface as it is bound now.
    stop: watch::Sender<bool>,
}

/// A socket with a file.
#[derive(Debug)]
struct BoundAdmin {
    config: config::Admin,
    file: admin::MovableFile,
    /// Leaves the file where it is: it is another process's.
    left: Option<Arc<AtomicBool>>,
}

impl AdminSocket {
    /// Notes sockets that were bound for a configuration and are about to be served.
    pub(super) fn note(&self, sockets: &admin::Sockets, config: &config::Admin) -> io::Result<()> {
        let mut place = self.lock();
        place.copies = sockets.copies(config)?;
        place.note_file(sockets, config);
        Ok(())
    }

    /// Ends once the interface is to end.
    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.lock().stop.subscribe()
    }

    /// Copies of the sockets, for the process that follows.
    pub(super) fn copies(&self) -> io::Result<admin::SocketCopies> {
        self.lock().copies.try_clone()
    }

    /// Gives up the copy of the port, which keeps it open as well.
    pub(super) fn give_up_port(&self) {
        self.lock().copies.http = None;
    }

    /// Where the socket is; `None`: there is none.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.lock().bound.as_ref().map(|bound| bound.file.path())
    }

    /// Ends the interface.
    pub(super) fn end(&self) {
        let mut place = self.lock();
        place.copies = admin::SocketCopies::default();
        place.stop.send_replace(true);
    }

    /// Binds the socket again if its file was deleted, as a program that cleans folders may do. A signal is then the only
    /// way to reach the process.
    pub(super) fn renew(&self, server: &Arc<Server>) {
        let mut place = self.lock();
        let Some(bound) = place.bound.as_ref().filter(|bound| !bound.file.is_there()) else { return };
        let path = bound.file.path();
        match place.bind_again(server, &path) {
            Ok(()) => tracing::warn!("the file of the admin socket was gone: bound {} again", path.display()),
            Err(error) => tracing::error!("the file of the admin socket is gone: {error}"),
        }
    }

    /// Makes room for another process at the path. `is_shared`: that process serves this socket from here on.
    pub(super) fn step_aside(&self, server: &Arc<Server>, is_shared: bool) {
        let mut place = self.lock();
        place.copies = admin::SocketCopies::default();
        let Some(bound) = &place.bound else { return };
        let moved = moved_path(&bound.file.path(), std::process::id());
        if is_shared {
            bound.left.iter().for_each(|left| left.store(true, Relaxed));
            std::mem::take(&mut place.stop).send_replace(true);
        } else if bound.file.is_there() {
            return said(&moved, bound.file.rename_to(&moved).map_err(|error| error.to_string()));
        }
        said(&moved, place.bind_again(server, &moved));
    }

    fn lock(&self) -> MutexGuard<'_, AdminPlace> {
        lock_of(&self.0)
    }
}

impl AdminPlace {
    fn note_file(&mut self, sockets: &admin::Sockets, config: &config::Admin) {
        let bound = |file: &admin::MovableFile| BoundAdmin {
            config: config.clone(),
            file: file.clone(),
            left: sockets.leave_file(),
        };
        self.bound = sockets.unix_file().map(bound);
    }

    /// Binds and serves the socket at a path, in the place of one without a file.
    fn bind_again(&mut self, server: &Arc<Server>, path: &Path) -> Result<(), String> {
        let Some(bound) = &self.bound else { return Ok(()) };
        own_files::make_folder(path, own_files::OPEN).map_err(|error| error.to_string())?;
        let config = config::Admin { http: None, socket: Some(path.to_owned()), ..bound.config.clone() };
        let sockets = admin::Sockets::bind(&config).map_err(|error| error.to_string())?;
        match sockets.copies(&config) {
            Ok(copies) => self.copies.unix = copies.unix,
            Err(error) => tracing::warn!("the admin socket cannot be given over: {error}"),
        }
        self.note_file(&sockets, &config);
        tokio::spawn(sockets.serve(Arc::clone(server), self.stop.subscribe()));
        Ok(())
    }
}

fn said(moved: &Path, done: Result<(), String>) {
    let moved = moved.display();
    match done {
        Ok(()) => tracing::info!("the admin socket of this process is {moved} until its end"),
        Err(error) => tracing::error!("the admin socket cannot move to {moved}: {error}"),
    }
}
