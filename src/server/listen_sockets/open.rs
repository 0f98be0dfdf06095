//! Opens addresses that this process does not have yet: [`ListenSockets::open`].
//!
//! Listens on none. Invariant: a TCP address is bound only where no other process listens, unless that one stops or its
//! sockets came here.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bound::{Bound, Steering, overlap};
use super::{BindPlan, ListenSockets, Wanted};
use crate::config::{Bind, Config, KeyPart, Listener};
use crate::server::own_files;
use crate::socket;

impl ListenSockets {
    /// Binds an address, or takes the sockets that systemd has passed for it. `plan` gets the file of a unix socket and its
    /// folder.
    pub(super) fn open(&self, bind: &Bind, wanted: &Wanted<'_>, plan: &mut BindPlan) -> Result<Vec<Bound>, String> {
        match bind {
            Bind::Tcp(address) => match self.systemd.at(*address) {
                Some((name, socket)) if !wanted.names(&Bind::Systemd(name.to_owned())) => {
                    Ok(vec![adopt_passed(name, socket, wanted)?])
                }
                _ => Ok(vec![self.open_tcp(*address, wanted).map_err(|error| bind_error(bind, &error))?]),
            },
            Bind::Unix(path) => {
                let error = |error: std::io::Error| bind_error(bind, &error);
                plan.folders.folder_of(path, own_files::OPEN).map_err(error)?;
                let beside = self.beside.contains(bind).then(|| beside(path));
                let (socket, file) = socket::bind_unix(beside.as_deref().unwrap_or(path)).map_err(error)?;
                plan.made.push(file.clone());
                // Before the socket listens, so that no client connects under another mode.
                file.set_access(wanted.listener.mode, wanted.listener.group.as_deref())?;
                Ok(vec![Bound { file: Some(file), ..wanted.fresh(bind, vec![socket]) }])
            }
            Bind::Systemd(name) => {
                let passed = self.systemd.named(name)?;
                passed.iter().map(|socket| adopt_passed(name, socket, wanted)).collect()
            }
        }
    }

    fn open_tcp(&self, address: SocketAddr, wanted: &Wanted<'_>) -> std::io::Result<Bound> {
        // The probe finds sockets of other processes. An own socket that overlaps, as 0.0.0.0 does with every address of
        // the port, would be found too.
        let is_own = |bound: &&Bound| bound.is_open() && bound.overlaps(address);
        let mut own = self.bound.iter().chain(&self.closing).filter(is_own).peekable();
        let mut steering = Steering::ByHash;
        if own.peek().is_none() {
            match socket::probe(address) {
                Err(in_use) if self.is_beside(address, &in_use) => {
                    steering = match socket::listening_at(address) {
                        0 => Steering::ByHash,
                        count => Steering::PassBy(count as u32),
                    };
                }
                free => free?,
            }
        }
        let waits = own.any(|bound| bound.waits);
        let first = socket::bind_tcp(address, &wanted.options)?;
        let real = socket::local_address(&first).unwrap_or(address);
        let mut group = vec![first];
        for _ in 1..self.workers {
            group.push(socket::bind_tcp(real, &wanted.options)?);
        }
        Ok(Bound { steering, waits, ..wanted.fresh(&Bind::Tcp(address), group) })
    }

    /// True if an address is in use by a process that stops, so that it can be bound beside that one.
    fn is_beside(&self, address: SocketAddr, error: &std::io::Error) -> bool {
        let reaches = |bind: &Bind| matches!(bind, Bind::Tcp(other) if overlap(*other, address));
        error.kind() == std::io::ErrorKind::AddrInUse && self.beside.iter().any(reaches)
    }
}

impl Wanted<'_> {
    /// Sockets that are bound with the options of the listener and do not listen yet.
    fn fresh(&self, bind: &Bind, sockets: Vec<OwnedFd>) -> Bound {
        let sockets = sockets.into_iter().map(Arc::new).collect();
        Bound { has: Some(self.options), ..Bound::new(bind.clone(), sockets, 0) }
    }
}

/// Where a unix socket is bound while another process, which stops, has its path; it takes the path once it listens.
fn beside(path: &Path) -> PathBuf {
    own_files::with_suffix(path, own_files::UNFINISHED)
}

/// Why an address cannot be bound or listened on. For the path of a unix socket it is known that a process listens.
pub(super) fn bind_error(bind: &Bind, error: &std::io::Error) -> String {
    match (error.kind(), bind) {
        (std::io::ErrorKind::AddrInUse, Bind::Tcp(address)) => socket::why_in_use(*address),
        (std::io::ErrorKind::AddrInUse, Bind::Unix(_)) => "another program listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// Duplicates a socket from systemd, so that a listener that is removed and one that is added share no descriptor.
fn adopt_passed(name: &str, socket: &OwnedFd, wanted: &Wanted<'_>) -> Result<Bound, String> {
    if socket::local_address(socket).is_none() && keyed_by_source(wanted.config, wanted.listener) {
        return Err("is a unix socket, whose clients have no address to be a key".into());
    }
    let duplicate = socket.try_clone().map_err(|error| error.to_string())?;
    Ok(Bound::new(Bind::Systemd(name.to_owned()), vec![Arc::new(duplicate)], 1))
}

fn keyed_by_source(config: &Config, listener: &Listener) -> bool {
    let pools = config.pools_by_name();
    let mut named = listener.pools(&config.splits).filter_map(|name| pools.get(name));
    listener.proxy.is_none() && named.any(|pool| pool.key.contains(&KeyPart::Source))
}
