//! The addresses that the process is bound to: [`ListenSockets::plan`] binds what a configuration adds, and
//! [`ListenSockets::commit`] puts it in force.
//!
//! Accepts nothing. Invariants: nothing listens before everything is bound, and a reload that is refused leaves every
//! socket as it was; a TCP address is a group with one socket per worker, a unix or systemd socket is shared by all.

mod inherit;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

pub use self::inherit::Inherited;

use super::own_files;
use super::systemd::PassedSockets;
use crate::config::{Bind, Config, KeyPart, Listener, LogLevel};
use crate::limits;
use crate::snapshot::Snapshot;
use crate::socket::unix_file::{FileAccess, UnixFile};
use crate::socket::{self, Options};
use crate::splicer::Adoption;

/// Every listen socket of this process; the workers hold the sockets.
pub struct ListenSockets {
    workers: usize,
    bound: Vec<Bound>,
    /// Addresses that an earlier reload gave up; workers may still accept what is in their backlog.
    closing: Vec<Bound>,
    next_number: u32,
    systemd: PassedSockets,
    /// Addresses on which a process listens that stops: this one binds beside it.
    beside: Vec<Bind>,
    /// Sockets from the process before that no listener has claimed yet.
    inherited: Vec<Inherited>,
    /// Numbers, in the process before, of addresses that are served on.
    kept_on: Vec<u32>,
}

/// One address that is bound, with its sockets.
#[derive(Debug, Clone)]
struct Bound {
    number: u32,
    /// Name of the listener and index of the address; identifies an address with a port that the kernel chose.
    owner: (String, usize),
    bind: Bind,
    address: Option<SocketAddr>,
    /// The configuration names only a wider address of this port, such as 0.0.0.0. The kernel would lead new clients to
    /// this socket until it closes, so it stays and serves them by the rules of the wider one.
    covered: bool,
    /// Number of sockets of another process at this address, which stops: new clients pass by them.
    pass_by: u32,
    /// The file of a unix socket that this process has bound; `None`: another kind of socket.
    file: Option<UnixFile>,
    /// The sockets; the workers own them.
    sockets: Vec<Weak<OwnedFd>>,
}

/// What was bound for a configuration that is not in force yet. Dropping the plan closes it again.
#[derive(Default)]
pub struct BindPlan {
    kept: Vec<Bound>,
    opened: Vec<(Bound, Vec<Arc<OwnedFd>>, u32)>,
    closed: Vec<Bound>,
    /// Files of unix sockets to remove unless the plan is committed.
    made: Vec<UnixFile>,
    /// Files of unix sockets with another mode or group now, which they lose unless the plan is committed.
    changed: Vec<(UnixFile, FileAccess)>,
}

impl ListenSockets {
    /// Begins without sockets. `systemd`: the sockets that systemd has passed, by name. `inherited`: those that the
    /// process before has given over; `beside`: the addresses on which a process listens that stops.
    pub fn new(workers: usize, systemd: PassedSockets, inherited: Vec<Inherited>, beside: Vec<Bind>) -> Self {
        Self {
            workers,
            bound: Vec::new(),
            closing: Vec::new(),
            next_number: 0,
            systemd,
            beside,
            inherited,
            kept_on: Vec::new(),
        }
    }

    /// A warning for each socket from systemd that no listener of a configuration names.
    pub fn unnamed(&self, config: &Config) -> Vec<String> {
        self.systemd.unnamed(config)
    }

    /// The addresses of a listener, with the ports that the kernel chose.
    pub fn addresses(&self, listener: &str) -> Vec<String> {
        let own = self.bound.iter().filter(|bound| bound.owner.0 == listener && !bound.covered);
        let mut addresses: Vec<_> =
            own.map(|bound| bound.address.map_or_else(|| bound.bind.to_string(), |at| at.to_string())).collect();
        // One that came from a process with more workers has several groups of sockets.
        addresses.dedup();
        addresses
    }

    /// The addresses on which this process listens now, also those that it closes.
    pub fn held(&self) -> Vec<String> {
        let held = self.bound.iter().chain(&self.closing).filter(|bound| bound.is_open());
        let reached = held.filter(|bound| bound.file.as_ref().is_none_or(UnixFile::is_there));
        reached
            .map(|bound| bound.address.map_or_else(|| bound.bind.to_string(), |address| address.to_string()))
            .collect()
    }

    /// Ends the sharing with a process that has closed its sockets: all own sockets of an address get new clients.
    pub fn share_no_more(&mut self) {
        self.beside.clear();
        for bound in self.bound.iter_mut().filter(|bound| bound.pass_by > 0) {
            bound.pass_by = 0;
            let socket = bound.sockets.iter().find_map(Weak::upgrade);
            if let Some(Err(error)) = socket.map(|socket| socket::steer(&socket, socket::BY_HASH)) {
                tracing::warn!("{}: new clients go to one worker: {error}", bound.bind);
            }
        }
    }

    /// True if workers still close an address that a configuration needs again.
    pub fn closes(&mut self, config: &Config) -> bool {
        self.closing.retain(Bound::is_open);
        let wanted = || config.listeners.iter().flat_map(|listener| &listener.bind);
        self.closing.iter().any(|bound| wanted().any(|bind| matches!(bind, Bind::Tcp(to) if bound.overlaps(*to))))
    }

    /// Binds the addresses of a configuration that are not bound yet; each that cannot be bound is a problem.
    pub fn plan(&mut self, config: &Config) -> Result<BindPlan, Vec<String>> {
        let mut plan = BindPlan::default();
        plan.closed = self.bound.clone();
        let mut problems = Vec::new();
        let keep_alive = limits::keep_alive(&config.limits);
        for listener in &config.listeners {
            let options = Options { backlog: listener.backlog, keep_alive };
            for (index, bind) in listener.bind.iter().enumerate() {
                let owner = (listener.name.clone(), index);
                let known: Vec<_> = plan.closed.extract_if(.., |bound| bound.is(bind, &owner)).collect();
                let mut refuse = |why: String| problems.push(format!("listener {:?}: {bind}: {why}", listener.name));
                if !known.is_empty() {
                    known.iter().for_each(|bound| plan.set_access(bound, listener).unwrap_or_else(&mut refuse));
                    let kept = known.into_iter().map(|bound| Bound { owner: owner.clone(), covered: false, ..bound });
                    plan.kept.extend(kept);
                    continue;
                }
                let inherited = self.inherit(bind, &owner).map(Ok);
                let opened = inherited.unwrap_or_else(|| self.open(bind, &options, config, listener, &mut plan.made));
                match opened {
                    Ok(groups) => {
                        for SocketGroup { sockets, address, pass_by, file } in groups {
                            let (number, held) = (self.next_number, sockets.iter().map(Arc::downgrade).collect());
                            let (owner, bind) = (owner.clone(), bind.clone());
                            self.next_number += 1;
                            let bound =
                                Bound { number, owner, bind, address, covered: false, pass_by, file, sockets: held };
                            plan.opened.push((bound, sockets, listener.backlog));
                        }
                    }
                    Err(why) => refuse(why),
                }
            }
        }
        plan.keep_covered(config);
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    /// Listens on the sockets of a plan.
    pub fn listen(plan: &mut BindPlan) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        for (bound, sockets, backlog) in &mut plan.opened {
            if matches!(bound.bind, Bind::Systemd(_)) {
                continue;
            }
            let listening = sockets.iter().try_for_each(|socket| socket::listen(socket, *backlog));
            if let Err(why) = listening.and_then(|()| bound.take_place(sockets)) {
                let why = bind_error(&bound.bind, &why);
                problems.push(format!("listener {:?}: {}: {why}", bound.owner.0, bound.bind));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Puts a plan in force: returns what each worker has to adopt. The workers own the sockets from here on.
    pub fn commit(&mut self, mut plan: BindPlan, snapshot: &Snapshot) -> Vec<Adoption> {
        (plan.made, plan.changed) = (Vec::new(), Vec::new());
        let mut adoptions: Vec<_> = (0..self.workers).map(|_| adoption(snapshot)).collect();
        let rules = |bound: &Bound| snapshot.listener(&bound.owner.0).cloned();
        for (worker, adoption) in adoptions.iter_mut().enumerate() {
            adoption.close = plan.closed.iter().map(|bound| bound.number).collect();
            adoption.rebind = plan.kept.iter().filter_map(|bound| Some((bound.number, rules(bound)?))).collect();
            for (bound, sockets, _) in &plan.opened {
                let shared = !matches!(bound.bind, Bind::Tcp(_));
                if let (Some(socket), Some(rules)) = (sockets.get(if shared { 0 } else { worker }), rules(bound)) {
                    adoption.open.push((bound.number, Arc::clone(socket), rules, shared));
                }
            }
        }
        for bound in &plan.closed {
            bound.unlink();
        }
        self.closing.extend(plan.closed.drain(..).filter(|bound| matches!(bound.bind, Bind::Tcp(_))));
        self.bound = std::mem::take(&mut plan.kept);
        self.bound.extend(plan.opened.drain(..).map(|(bound, _, _)| bound));
        adoptions
    }

    /// Gives up every address: returns what each worker has to adopt.
    pub fn close_all(&mut self, snapshot: &Snapshot) -> Vec<Adoption> {
        let close: Vec<_> = self.bound.iter().map(|bound| bound.number).collect();
        self.bound.iter().for_each(Bound::unlink);
        self.closing.append(&mut self.bound);
        (0..self.workers).map(|_| Adoption { close: close.clone(), ..adoption(snapshot) }).collect()
    }

    /// True if an address is in use by a process that stops, so that it can be bound beside that one.
    fn is_beside(&self, address: SocketAddr, error: &std::io::Error) -> bool {
        let reaches = |bind: &Bind| matches!(bind, Bind::Tcp(other) if overlap(*other, address));
        error.kind() == std::io::ErrorKind::AddrInUse && self.beside.iter().any(reaches)
    }

    fn open(
        &self,
        bind: &Bind,
        options: &Options,
        config: &Config,
        listener: &Listener,
        made: &mut Vec<UnixFile>,
    ) -> Result<Vec<SocketGroup>, String> {
        let error = |error: std::io::Error| bind_error(bind, &error);
        match bind {
            Bind::Tcp(address) => {
                // The probe finds sockets of other processes. An own socket that overlaps, as 0.0.0.0 does with every
                // address of the port, would be found too.
                let is_own = |bound: &Bound| bound.is_open() && bound.overlaps(*address);
                let mut pass_by = 0;
                if !self.bound.iter().chain(&self.closing).any(is_own) {
                    match socket::probe(*address) {
                        Err(in_use) if self.is_beside(*address, &in_use) => {
                            pass_by = socket::listening_at(*address) as u32;
                        }
                        free => free.map_err(error)?,
                    }
                }
                let first = socket::bind_tcp(*address, options).map_err(error)?;
                let real = local_address(&first).unwrap_or(*address);
                let mut group = vec![Arc::new(first)];
                for _ in 1..self.workers {
                    group.push(Arc::new(socket::bind_tcp(real, options).map_err(error)?));
                }
                Ok(vec![SocketGroup { sockets: group, address: Some(real), pass_by, file: None }])
            }
            Bind::Unix(path) => {
                own_files::make_folder(path, own_files::OPEN).map_err(error)?;
                let beside = self.beside.contains(bind).then(|| beside(path));
                let (socket, file) = socket::bind_unix(beside.as_deref().unwrap_or(path)).map_err(error)?;
                made.push(file.clone());
                // Before the socket listens, so that no client connects under another mode.
                file.set_access(listener.mode, listener.group.as_deref())?;
                Ok(vec![SocketGroup { sockets: vec![Arc::new(socket)], address: None, pass_by: 0, file: Some(file) }])
            }
            Bind::Systemd(name) => {
                let passed = self.systemd.named(name)?;
                passed.iter().map(|socket| adopt_passed(socket, options, config, listener)).collect()
            }
        }
    }
}

/// The sockets of one address (one per worker, or one for all), and the address or the file of a unix socket.
struct SocketGroup {
    sockets: Vec<Arc<OwnedFd>>,
    address: Option<SocketAddr>,
    pass_by: u32,
    file: Option<UnixFile>,
}

/// Where a unix socket is bound while another process, which stops, has its path; it takes the path once it listens.
fn beside(path: &Path) -> PathBuf {
    own_files::with_suffix(path, own_files::UNFINISHED)
}

/// Why an address cannot be bound or listened on. For the path of a unix socket it is known that a process listens.
fn bind_error(bind: &Bind, error: &std::io::Error) -> String {
    match (error.kind(), bind) {
        (std::io::ErrorKind::AddrInUse, Bind::Tcp(address)) => socket::why_in_use(*address),
        (std::io::ErrorKind::AddrInUse, Bind::Unix(_)) => "somebody else listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// Duplicates a socket from systemd, so that a listener that is removed and one that is added share no descriptor.
fn adopt_passed(
    socket: &OwnedFd,
    options: &Options,
    config: &Config,
    listener: &Listener,
) -> Result<SocketGroup, String> {
    let address = local_address(socket);
    match address {
        Some(_) => socket::tune_tcp(socket, options).map_err(|error| error.to_string())?,
        None if keyed_by_source(config, listener) => {
            return Err("is a unix socket, whose clients have no address to be a key".into());
        }
        None => {}
    }
    let duplicate = socket.try_clone().map_err(|error| error.to_string())?;
    Ok(SocketGroup { sockets: vec![Arc::new(duplicate)], address, pass_by: 0, file: None })
}

/// What every worker adopts from a snapshot, without sockets.
fn adoption(snapshot: &Snapshot) -> Adoption {
    let log = snapshot.config.process.log;
    Adoption {
        generation: snapshot.generation,
        logs_connections: log.connections,
        logs_local: log.level == LogLevel::Debug,
        ..Adoption::default()
    }
}

impl Drop for BindPlan {
    fn drop(&mut self) {
        self.made.iter().for_each(own_files::remove_socket);
        self.changed.iter().for_each(|(file, before)| file.restore(*before));
    }
}

impl BindPlan {
    /// Gives the file of a unix socket that stays bound the mode and group of its listener.
    fn set_access(&mut self, bound: &Bound, listener: &Listener) -> Result<(), String> {
        let Some(file) = &bound.file else { return Ok(()) };
        let before = file.set_access(listener.mode, listener.group.as_deref())?;
        self.changed.push((file.clone(), before));
        Ok(())
    }

    /// Keeps the addresses that a wider address of the configuration covers.
    fn keep_covered(&mut self, config: &Config) {
        let covering = |bound: &Bound| {
            config.listeners.iter().find_map(|listener| {
                let covers = |bind: &Bind| matches!(bind, Bind::Tcp(to) if bound.is_within(*to));
                Some((listener.name.clone(), listener.bind.iter().position(covers)?))
            })
        };
        let mut closed = Vec::new();
        for bound in self.closed.drain(..) {
            match covering(&bound) {
                Some(owner) => self.kept.push(Bound { owner, covered: true, ..bound }),
                None => closed.push(bound),
            }
        }
        self.closed = closed;
    }
}

impl Bound {
    /// True if this is the address that a configuration names. An address with a port that the kernel chose is
    /// identified by its owner. A unix socket without its file is reached by no client and must be bound again.
    fn is(&self, bind: &Bind, owner: &(String, usize)) -> bool {
        let chosen = matches!(bind, Bind::Tcp(address) if address.port() == 0);
        let is_reachable = self.file.as_ref().is_none_or(UnixFile::is_there);
        self.bind == *bind && (!chosen || self.owner == *owner) && is_reachable
    }

    /// True if a worker still holds a socket of this address.
    fn is_open(&self) -> bool {
        self.sockets.iter().any(|socket| socket.strong_count() > 0)
    }

    /// True if a client can reach both addresses by the same address.
    fn overlaps(&self, other: SocketAddr) -> bool {
        self.address.is_some_and(|own| overlap(own, other))
    }

    /// Takes the place of another process that stops: new TCP clients pass by its sockets, and the path of a unix socket
    /// leads here.
    fn take_place(&mut self, sockets: &[Arc<OwnedFd>]) -> std::io::Result<()> {
        if let (1.., Some(socket)) = (self.pass_by, sockets.first())
            && let Err(error) = socket::steer(socket, self.pass_by)
        {
            self.pass_by = 0;
            tracing::warn!("{}: some new clients may wait a second for a process that stops: {error}", self.bind);
        }
        match (&mut self.file, &self.bind) {
            (Some(file), Bind::Unix(path)) if file.path() != path => file.rename_to(path),
            _ => Ok(()),
        }
    }

    /// True if the other address stands for every address of its family and port, this one among them.
    fn is_within(&self, other: SocketAddr) -> bool {
        other.ip().is_unspecified() && self.overlaps(other)
    }

    /// Removes the file of a unix socket: new clients cannot connect, and those in the backlog are still served.
    fn unlink(&self) {
        self.file.iter().for_each(own_files::remove_socket);
    }
}

fn overlap(one: SocketAddr, two: SocketAddr) -> bool {
    let (a, b) = (one.ip(), two.ip());
    one.port() == two.port() && a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}

fn keyed_by_source(config: &Config, listener: &Listener) -> bool {
    let names = listener.routes.iter().map(|route| &route.pool).chain(&listener.pool);
    let pools = config.pools_by_name();
    let mut named = names.filter_map(|name| pools.get(name.as_str()));
    listener.proxy.is_none() && named.any(|pool| pool.key.contains(&KeyPart::Source))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::admission::Admission;
    use crate::{config, snapshot};

    fn config(bind: &str) -> Config {
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = {bind}\npool = \"p\"\n\
             [[pool]]\nname = \"p\"\nbalance = \"random\"\n\
             backend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n"
        );
        config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap().config
    }

    /// Puts a configuration in force; the sockets that the workers would own.
    fn commit(sockets: &mut ListenSockets, mut plan: BindPlan, config: Config) -> Vec<Arc<OwnedFd>> {
        ListenSockets::listen(&mut plan).unwrap();
        let admission = Arc::new(Admission::new(1));
        let snapshot = Snapshot::build(config, snapshot::LoadedFiles::default(), None, 1, &admission);
        let adoptions = sockets.commit(plan, &snapshot);
        adoptions.into_iter().flat_map(|adoption| adoption.open).map(|(_, socket, ..)| socket).collect()
    }

    fn accepted(socket: &OwnedFd) -> usize {
        std::iter::from_fn(|| rustix::net::accept(socket).ok()).count()
    }

    #[test]
    fn new_clients_pass_by_a_process_that_stops_and_are_spread_once_it_has_closed() {
        let (mut old, none) = (ListenSockets::new(1, PassedSockets::default(), vec![], vec![]), PassedSockets::default);
        let first = config("\"127.0.0.1:0\"");
        let plan = old.plan(&first).unwrap();
        let of_the_old = commit(&mut old, plan, first);
        let held = old.held();
        let address: SocketAddr = held[0].parse().unwrap();
        let second = config(&format!("\"{address}\""));
        let refused = ListenSockets::new(3, none(), vec![], vec![]).plan(&second).err().unwrap();
        assert!(refused[0].contains("listens there"), "{refused:?}");
        let mut new = ListenSockets::new(3, none(), vec![], vec![Bind::Tcp(address)]);
        let plan = new.plan(&second).unwrap();
        let of_the_new = commit(&mut new, plan, second);
        let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(accepted(&of_the_old[0]), 0);
        drop(of_the_old);
        assert!(old.held().is_empty());
        new.share_no_more();
        clients.extend((0..120).map(|_| TcpStream::connect(address).unwrap()));
        let accepted: Vec<_> = of_the_new.iter().map(|socket| accepted(socket)).collect();
        assert_eq!(accepted.iter().sum::<usize>(), 140);
        assert!(accepted.iter().all(|count| *count > 10), "not spread: {accepted:?}");
    }

    #[test]
    fn the_path_of_a_process_that_stops_is_taken_once_the_new_socket_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("u.sock");
        let bind = format!("\"unix:{}\"", path.display());
        let mut old = ListenSockets::new(1, PassedSockets::default(), vec![], vec![]);
        let plan = old.plan(&config(&bind)).unwrap();
        let of_the_old = commit(&mut old, plan, config(&bind));
        assert_eq!(old.held(), [format!("unix:{}", path.display())]);
        let mut new = ListenSockets::new(1, PassedSockets::default(), vec![], vec![Bind::Unix(path.clone())]);
        drop(new.plan(&config(&bind)).unwrap());
        let to_the_old = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let plan = new.plan(&config(&bind)).unwrap();
        let of_the_new = commit(&mut new, plan, config(&bind));
        let to_the_new = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!((accepted(&of_the_old[0]), accepted(&of_the_new[0])), (1, 1));
        assert!(old.held().is_empty(), "its path leads to another process");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        drop((to_the_old, to_the_new));
    }
}
