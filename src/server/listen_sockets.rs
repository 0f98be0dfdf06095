//! The addresses that the process is bound to: [`ListenSockets::plan`] binds what a configuration adds, and
//! [`ListenSockets::commit`] puts it in force.
//!
//! Accepts nothing. Invariants: nothing listens before everything is bound, and a reload that is refused leaves every
//! socket as it was; a TCP address is a group with one socket per worker, a unix or systemd socket is shared by all.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::own_files;
use super::systemd::PassedSockets;
use super::upgrade::AddressFacts;
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
    /// Sockets from the process before that no listener has claimed yet.
    inherited: Vec<Inherited>,
    /// Numbers, in the process before, of addresses that are served on.
    kept_on: Vec<u32>,
}

/// Listening sockets of one address that came from the process before.
#[derive(Debug)]
pub struct Inherited {
    /// What that process says of the address.
    pub facts: AddressFacts,
    /// Its sockets, in the order of workers.
    pub sockets: Vec<OwnedFd>,
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
    /// process before has given over.
    pub fn new(workers: usize, systemd: PassedSockets, inherited: Vec<Inherited>) -> Self {
        Self {
            workers,
            bound: Vec::new(),
            closing: Vec::new(),
            next_number: 0,
            systemd,
            inherited,
            kept_on: Vec::new(),
        }
    }

    /// Numbers, in the process before, of the addresses that are served on. The others are closed.
    pub fn kept_on(&mut self) -> Vec<u32> {
        self.inherited = Vec::new();
        std::mem::take(&mut self.kept_on)
    }

    /// Every address with its sockets, for the process that follows.
    pub fn inventory(&self) -> Vec<(AddressFacts, Vec<Arc<OwnedFd>>)> {
        let facts = |bound: &Bound| {
            let sockets: Vec<_> = bound.sockets.iter().filter_map(Weak::upgrade).collect();
            let facts = AddressFacts {
                number: bound.number,
                listener: bound.owner.0.clone(),
                index: bound.owner.1,
                bind: bound.bind.to_string(),
                sockets: sockets.len(),
            };
            (facts, sockets)
        };
        self.bound.iter().map(facts).collect()
    }

    /// Lets go of every address: those in `keeps` belong to the process that follows, the others close once their
    /// backlog is served. Returns what each worker has to adopt.
    pub fn give_up(&mut self, keeps: &[u32], snapshot: &Snapshot) -> Vec<Adoption> {
        let (kept, closed): (Vec<_>, Vec<_>) = self.bound.drain(..).partition(|bound| keeps.contains(&bound.number));
        closed.iter().for_each(Bound::unlink);
        let numbers = |bound: &[Bound]| bound.iter().map(|bound| bound.number).collect::<Vec<_>>();
        let (give_up, close) = (numbers(&kept), numbers(&closed));
        let adopt = || Adoption { give_up: give_up.clone(), close: close.clone(), ..adoption(snapshot) };
        (0..self.workers).map(|_| adopt()).collect()
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
                let inherited = self.inherit(bind, &owner, &options);
                let opened = inherited.unwrap_or_else(|| self.open(bind, &options, config, listener, &mut plan.made));
                match opened {
                    Ok(groups) => {
                        for (sockets, address, file) in groups {
                            let (number, held) = (self.next_number, sockets.iter().map(Arc::downgrade).collect());
                            let (owner, bind) = (owner.clone(), bind.clone());
                            self.next_number += 1;
                            let bound = Bound { number, owner, bind, address, file, covered: false, sockets: held };
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
    pub fn listen(plan: &BindPlan) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        for (bound, sockets, backlog) in &plan.opened {
            if matches!(bound.bind, Bind::Systemd(_)) {
                continue;
            }
            for socket in sockets {
                if let Err(why) = socket::listen(socket, *backlog) {
                    let why = bind_error(&bound.bind, &why);
                    problems.push(format!("listener {:?}: {}: {why}", bound.owner.0, bound.bind));
                    break;
                }
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
        for bound in self.bound.drain(..) {
            bound.unlink();
        }
        (0..self.workers).map(|_| Adoption { close: close.clone(), ..adoption(snapshot) }).collect()
    }

    /// The sockets of an address that the process before has given over; `None`: it has not. A group has as many
    /// sockets as that process had workers: with fewer workers one serves several of them, so that no queue is left
    /// without a reader, and with more workers sockets are added.
    fn inherit(
        &mut self,
        bind: &Bind,
        owner: &(String, usize),
        options: &Options,
    ) -> Option<Result<Vec<SocketGroup>, String>> {
        let text = bind.to_string();
        let chosen = matches!(bind, Bind::Tcp(address) if address.port() == 0);
        let is_it = |inherited: &mut Inherited| {
            let AddressFacts { listener, index, bind, .. } = &inherited.facts;
            *bind == text && (!chosen || (listener == &owner.0 && *index == owner.1))
        };
        let file = match bind {
            Bind::Unix(path) => Some(UnixFile::bound(path).ok()?),
            _ => None,
        };
        let found: Vec<_> = self.inherited.extract_if(.., is_it).collect();
        let mut groups = Vec::new();
        for Inherited { facts, sockets } in found {
            let address = sockets.first().and_then(local_address);
            let mut sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
            while let Some(address) = address.filter(|_| matches!(bind, Bind::Tcp(_)) && sockets.len() < self.workers) {
                match socket::bind_tcp(address, options) {
                    Ok(socket) => sockets.push(Arc::new(socket)),
                    Err(error) => return Some(Err(bind_error(bind, &error))),
                }
            }
            groups.extend(sockets.chunks(self.workers.max(1)).map(|group| (group.to_vec(), address, file.clone())));
            self.kept_on.push(facts.number);
        }
        (!groups.is_empty()).then_some(Ok(groups))
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
                if !self.bound.iter().chain(&self.closing).any(|bound| bound.is_open() && bound.overlaps(*address)) {
                    socket::probe(*address).map_err(error)?;
                }
                let first = socket::bind_tcp(*address, options).map_err(error)?;
                let real = local_address(&first).unwrap_or(*address);
                let mut group = vec![Arc::new(first)];
                for _ in 1..self.workers {
                    group.push(Arc::new(socket::bind_tcp(real, options).map_err(error)?));
                }
                Ok(vec![(group, Some(real), None)])
            }
            Bind::Unix(path) => {
                own_files::make_folder(path, own_files::OPEN).map_err(error)?;
                let (socket, file) = socket::bind_unix(path).map_err(error)?;
                made.push(file.clone());
                // Before the socket listens, so that no client connects under another mode.
                file.set_access(listener.mode, listener.group.as_deref())?;
                Ok(vec![(vec![Arc::new(socket)], None, Some(file))])
            }
            Bind::Systemd(name) => {
                let passed = self.systemd.named(name)?;
                passed.iter().map(|socket| adopt_passed(socket, options, config, listener)).collect()
            }
        }
    }
}

/// The sockets of one address (one per worker, or one for all), and the address or the file of a unix socket.
type SocketGroup = (Vec<Arc<OwnedFd>>, Option<SocketAddr>, Option<UnixFile>);

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
    Ok((vec![Arc::new(duplicate)], address, None))
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
        self.address.is_some_and(|own| {
            let (one, two) = (own.ip(), other.ip());
            own.port() == other.port()
                && one.is_ipv4() == two.is_ipv4()
                && (one == two || one.is_unspecified() || two.is_unspecified())
        })
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

fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}

fn keyed_by_source(config: &Config, listener: &Listener) -> bool {
    let names = listener.routes.iter().map(|route| &route.pool).chain(&listener.pool);
    let pools = names.filter_map(|name| config.pools.iter().find(|pool| pool.name == *name));
    listener.proxy.is_none() && pools.into_iter().any(|pool| pool.key.contains(&KeyPart::Source))
}
