//! The addresses that the process is bound to: [`ListenSockets::plan`] binds what a configuration adds, and
//! [`ListenSockets::commit`] puts it in force.
//!
//! Accepts nothing. Invariants: nothing listens before everything is bound, and a reload or upgrade that is refused
//! leaves every socket as it was; a TCP address is a group with one socket per worker, a unix or systemd socket is
//! shared by all.

mod bound;
mod inherit;
mod open;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::bound::Bound;
pub use self::inherit::Inherited;

use super::made::Made;
use super::own_files;
use super::systemd::PassedSockets;
use crate::access_log::LogRules;
use crate::config::{Bind, Config, Listener, Problem};
use crate::limits;
use crate::snapshot::Snapshot;
use crate::socket::Options;
use crate::socket::unix_file::{FileAccess, UnixFile};
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
    /// Numbers, in the process before, of addresses that are served on.
    kept_on: Vec<u32>,
}

/// What was bound for a configuration that is not in force yet. Dropping the plan closes it again.
#[derive(Default)]
pub struct BindPlan {
    /// Every address of the configuration, those that stay and those that are new.
    bound: Vec<Bound>,
    closed: Vec<Bound>,
    /// Files of unix sockets to remove unless the plan is committed.
    made: Vec<UnixFile>,
    /// Their folders.
    folders: Made,
    /// Files of unix sockets with another mode or group now, which they lose unless the plan is committed.
    changed: Vec<(UnixFile, FileAccess)>,
}

/// What a configuration wants of an address.
struct Wanted<'a> {
    config: &'a Config,
    listener: &'a Listener,
    options: Options,
}

impl ListenSockets {
    /// Begins without listeners. `systemd`: the sockets that systemd has passed, by name. `inherited`: those that the
    /// process before has given over; `beside`: the addresses on which a process listens that stops.
    pub fn new(workers: usize, systemd: PassedSockets, inherited: Vec<Inherited>, beside: Vec<Bind>) -> Self {
        let mut sockets = Self {
            workers,
            bound: Vec::new(),
            closing: Vec::new(),
            next_number: 0,
            systemd,
            beside,
            kept_on: Vec::new(),
        };
        sockets.arrive(inherited);
        sockets
    }

    /// A warning for each socket from systemd that no listener of a configuration names.
    pub fn unnamed(&self, config: &Config) -> Vec<String> {
        self.systemd.unnamed(config)
    }

    /// The addresses of a listener, with the ports that the kernel chose.
    pub fn addresses(&self, listener: &str) -> Vec<String> {
        let own = self.bound.iter().filter(|bound| bound.owner.0 == listener && !bound.covered);
        let mut addresses: Vec<_> = own.map(Bound::shown).collect();
        // One that came from a process with more workers has several groups of sockets.
        addresses.dedup();
        addresses
    }

    /// The addresses on which this process listens now, also those that it closes.
    pub fn held(&self) -> Vec<String> {
        let held = self.bound.iter().chain(&self.closing).filter(|bound| bound.is_open());
        let reached = held.filter(|bound| bound.file.as_ref().is_none_or(UnixFile::is_there));
        reached.map(Bound::shown).collect()
    }

    /// Ends the sharing with a process that has closed its sockets: all own sockets of an address get new clients.
    pub fn share_no_more(&mut self) {
        self.beside.clear();
        self.bound.iter_mut().for_each(Bound::spread);
    }

    /// True if workers still close an address that a configuration needs again.
    pub fn closes(&mut self, config: &Config) -> bool {
        self.closing.retain(Bound::is_open);
        let wanted = || config.listeners.iter().flat_map(|listener| &listener.bind);
        self.closing.iter().any(|bound| wanted().any(|bind| matches!(bind, Bind::Tcp(to) if bound.overlaps(*to))))
    }

    /// Binds the addresses of a configuration that are not bound yet; each that cannot be bound is a problem.
    pub fn plan(&mut self, config: &Config) -> Result<BindPlan, Vec<Problem>> {
        let mut plan = BindPlan::default();
        plan.closed = self.bound.clone();
        let mut problems = Vec::new();
        for listener in &config.listeners {
            let wanted = Wanted::new(config, listener);
            for (index, bind) in listener.bind.iter().enumerate() {
                let owner = (listener.name.clone(), index);
                let mut refuse = |why: String| problems.push(problem(config, &listener.name, bind, &why));
                let mut groups = self.known(bind, &owner, &wanted, &mut plan.closed);
                if groups.is_empty() {
                    groups = self.open(bind, &wanted, &mut plan).unwrap_or_else(|why| {
                        refuse(why);
                        Vec::new()
                    });
                    groups.iter_mut().for_each(|bound| self.number(bound));
                } else {
                    groups.iter().for_each(|bound| plan.set_access(bound, listener).unwrap_or_else(&mut refuse));
                }
                let options = wanted.options;
                let groups = groups.into_iter();
                plan.bound.extend(groups.map(|bound| Bound { owner: owner.clone(), covered: false, options, ..bound }));
            }
        }
        plan.keep_covered(config);
        self.kept_on.extend(plan.bound.iter().flat_map(|bound| &bound.came));
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    /// Listens on the sockets of a plan that get no clients of another process.
    pub fn listen(plan: &mut BindPlan, config: &Config) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        for bound in plan.bound.iter_mut().filter(|bound| !bound.waits) {
            if let Err(why) = bound.listen() {
                let why = open::bind_error(&bound.bind, &why);
                problems.push(problem(config, &bound.owner.0, &bound.bind, &why));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Puts a plan in force: returns what each worker has to adopt. The workers own the sockets from here on.
    pub fn commit(&mut self, mut plan: BindPlan, snapshot: &Snapshot) -> Vec<Adoption> {
        (plan.made, plan.changed) = (Vec::new(), Vec::new());
        std::mem::take(&mut plan.folders).keep();
        self.bound = std::mem::take(&mut plan.bound);
        self.bound.iter_mut().for_each(Bound::settle);
        let mut adoptions: Vec<_> = (0..self.workers).map(|_| adoption(snapshot)).collect();
        for (worker, adoption) in adoptions.iter_mut().enumerate() {
            adoption.close = plan.closed.iter().map(|bound| bound.number).collect();
            for bound in &self.bound {
                let Some(rules) = snapshot.listener(&bound.owner.0).cloned() else { continue };
                let shared = bound.is_shared();
                match bound.held.get(if shared { 0 } else { worker }) {
                    Some(socket) => adoption.open.push((bound.number, Arc::clone(socket), rules, shared)),
                    None => adoption.rebind.push((bound.number, rules)),
                }
            }
        }
        self.bound.iter_mut().for_each(Bound::belongs_to_workers);
        for bound in &mut plan.closed {
            bound.unlink();
            bound.belongs_to_workers();
        }
        self.closing.extend(plan.closed.drain(..).filter(|bound| matches!(bound.bind, Bind::Tcp(_))));
        adoptions
    }

    /// Gives up every address: returns what each worker has to adopt.
    pub fn close_all(&mut self, snapshot: &Snapshot) -> Vec<Adoption> {
        let close: Vec<_> = self.bound.iter().map(|bound| bound.number).collect();
        self.bound.iter().for_each(Bound::unlink);
        self.closing.append(&mut self.bound);
        (0..self.workers).map(|_| Adoption { close: close.clone(), ..adoption(snapshot) }).collect()
    }

    /// The sockets that this process has for an address; none: it has to be opened. Of the sockets of a name from
    /// systemd, all are taken or none.
    fn known(&self, bind: &Bind, owner: &(String, usize), wanted: &Wanted<'_>, closed: &mut Vec<Bound>) -> Vec<Bound> {
        let is_it = |bound: &mut Bound| bound.is(bind, owner) && (bound.bind == *bind || !wanted.names(&bound.bind));
        let mut known: Vec<_> = closed.extract_if(.., is_it).collect();
        if let Bind::Systemd(name) = bind
            && self.systemd.named(name).is_ok_and(|passed| passed.len() != known.len())
        {
            closed.append(&mut known);
        }
        known
    }

    fn number(&mut self, bound: &mut Bound) {
        bound.number = self.next_number;
        self.next_number += 1;
    }
}

impl<'a> Wanted<'a> {
    fn new(config: &'a Config, listener: &'a Listener) -> Self {
        let options = Options {
            backlog: listener.backlog,
            defer_accept_s: listener.defer_accept_s.unwrap_or(0),
            keep_alive: limits::keep_alive(&config.limits),
        };
        Self { config, listener, options }
    }

    /// True if any listener has this address by this name.
    fn names(&self, bind: &Bind) -> bool {
        self.config.listeners.iter().any(|listener| listener.bind.contains(bind))
    }
}

/// A problem of an address, with its place in the text of the configuration.
fn problem(config: &Config, listener: &str, bind: &Bind, why: &str) -> Problem {
    let (line, column) = config.written.place_of_bind(listener, bind);
    Problem { line, column, object: format!("listener {listener:?}"), message: format!("{bind}: {why}"), hint: None }
}

/// What every worker adopts from a snapshot, without sockets.
fn adoption(snapshot: &Snapshot) -> Adoption {
    let log = LogRules::of(&snapshot.config.process.log);
    Adoption { generation: snapshot.generation, log, ..Adoption::default() }
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
                Some((listener, listener.bind.iter().position(covers)?))
            })
        };
        let mut closed = Vec::new();
        for bound in self.closed.drain(..) {
            match covering(&bound) {
                Some((listener, index)) => {
                    let (owner, options) = ((listener.name.clone(), index), Wanted::new(config, listener).options);
                    self.bound.push(Bound { owner, covered: true, options, ..bound });
                }
                None => closed.push(bound),
            }
        }
        self.closed = closed;
    }
}
