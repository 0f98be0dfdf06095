//! The process that follows: takes over what another process gives it, and accepts once that one has stopped.
//!
//! The steps are in `mod.rs`. Invariants: a pair is acknowledged before it is touched, so the other process never goes
//! on with a pair that this one has read from; if the other process ends too early, this one serves what it has, and if
//! it has only given up, this one ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::ENVIRONMENT;
use super::channel::{Channel, ChannelError, Message, open_sealed};
use super::messages::{Addresses, Commit, Committed, Earlier, Hello, Kind, Ready, Refused, State, Taken};
use super::pairs::{Departed, Intake};
use super::peer::PeerProcess;
use super::queue;
use super::tails::Tail;
use crate::admin::SocketCopies;
use crate::clock;
use crate::config;
use crate::events::{self, Event, EventKind};
use crate::server::listen_sockets::Inherited;
use crate::server::runtime_state::RuntimeState;
use crate::server::{Server, StartError, descriptors, in_force, table_file};
use crate::sticky::table::Secret;

/// How long the old process may take to say what it has.
const STATE_MAX: Duration = Duration::from_secs(30);

/// How long a process that has closed its end of the channel may take to end. One that lives longer has given up the
/// upgrade, and serves.
const END_MAX: Duration = Duration::from_secs(2);

/// The process before this one.
pub(in crate::server) struct Predecessor {
    channel: Channel,
    process: Arc<PeerProcess>,
    hello: Hello,
    secret: Option<Secret>,
    runtime: Value,
    /// The file of its admin socket is not this process's.
    leaves_admin_socket: bool,
    /// What its pairs belong to that the configuration does not have any more.
    departed: Departed,
    /// Its listening sockets; empty once they are taken.
    pub(in crate::server) addresses: Vec<Inherited>,
    /// Its lock; `None` once it is taken.
    pub(in crate::server) lock: Option<OwnedFd>,
    /// Its admin sockets; empty once they are taken.
    admin: SocketCopies,
}

impl Predecessor {
    /// Greets the process that has started this one, and receives what it gives; `None`: none has.
    pub(in crate::server) async fn of_environment() -> Result<Option<Self>, StartError> {
        if std::env::var_os(ENVIRONMENT).is_none() {
            return Ok(None);
        }
        let failed = |error: ChannelError| StartError::unavailable("upgrade", error);
        let channel = take_standard_input().and_then(Channel::new).map_err(|error| failed(error.into()))?;
        let process = Arc::new(PeerProcess::of(&channel).map_err(failed)?);
        let late = |_| Err(ChannelError::Malformed("no state in time"));
        match timeout(STATE_MAX, Self::receive(channel, Some(Arc::clone(&process)))).await.unwrap_or_else(late) {
            Ok(predecessor) => Ok(Some(predecessor)),
            Err(ChannelError::Closed) if process.ends_within(END_MAX).await => {
                eprintln!("sessile: upgrade: the process before has ended and left nothing; this one starts by itself");
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Receives what a process that has ended has left for this one in the store of the service manager; `None`: nothing
    /// that can be taken over.
    pub(in crate::server) async fn of_store(queues: Vec<OwnedFd>) -> Option<Self> {
        for queue in queues {
            let reader = queue.try_clone();
            let received = async { Self::receive(Channel::of_queue(queue)?, None).await };
            match received.await {
                Ok(predecessor) => return Some(predecessor),
                // It was read by a process that has ended since then.
                Err(ChannelError::Closed) => {
                    eprintln!("sessile: restart: the store of the service manager has nothing left");
                }
                Err(error) => {
                    eprintln!("sessile: restart: what the store of the service manager has is not used: {error}");
                }
            }
            // The manager has it, too.
            reader.iter().for_each(queue::empty);
        }
        None
    }

    /// True if the process has ended before this one began.
    pub(in crate::server) fn has_ended(&self) -> bool {
        self.channel.is_queue()
    }

    /// What a start that fails costs; `None`: the other process goes on.
    pub(in crate::server) fn loss(&self) -> Option<String> {
        let pid = self.hello.pid;
        self.has_ended()
            .then(|| format!("restart: the connections that process {pid} has left for this one end with it"))
    }

    /// The process at the other end of a channel, which has given nothing yet. `hello`: what it has said of itself.
    fn at(channel: Channel, process: Arc<PeerProcess>, hello: Hello) -> Self {
        Self {
            channel,
            process,
            hello,
            secret: None,
            runtime: Value::Null,
            leaves_admin_socket: false,
            departed: Departed::default(),
            addresses: Vec::new(),
            lock: None,
            admin: SocketCopies::default(),
        }
    }

    /// Greets a process, and receives its state. `process`: `None` for one that has ended, which says which one it was.
    async fn receive(channel: Channel, process: Option<Arc<PeerProcess>>) -> Result<Self, ChannelError> {
        let hello = greeting(&channel).await?;
        let process = process.unwrap_or_else(|| Arc::new(PeerProcess::ended(hello.pid)));
        let mut predecessor = Self::at(channel, process, hello);
        if let Err(none) = predecessor.hello.common() {
            predecessor.refuse(&[none]).await;
            return Err(ChannelError::Malformed("no version of the protocol that is spoken here"));
        }
        predecessor.send(Kind::Hello, &Hello::own()).await?;
        // Addresses that need several messages come in several parts.
        let mut addresses = BTreeMap::<u32, Inherited>::new();
        loop {
            let message = predecessor.channel.receive().await?;
            if message.kind == Kind::Addresses as u16 {
                let Addresses { addresses: facts } = message.read()?;
                let mut sockets = message.descriptors.into_iter();
                for facts in facts {
                    let own = sockets.by_ref().take(facts.sockets);
                    addresses
                        .entry(facts.number)
                        .or_insert_with(|| Inherited { facts, sockets: Vec::new() })
                        .sockets
                        .extend(own);
                }
            } else if message.kind == Kind::State as u16 {
                predecessor.addresses = addresses.into_values().collect();
                predecessor.take_state(message)?;
                return Ok(predecessor);
            }
        }
    }

    fn take_state(&mut self, message: Message) -> Result<(), ChannelError> {
        let State { secret, open, lock, admin_socket, admin_http, runtime } = message.read()?;
        descriptors::make_room_for(2 * open as u64);
        let mut descriptors = message.descriptors.into_iter();
        self.lock = lock.then(|| descriptors.next()).flatten();
        self.admin.unix = admin_socket.and_then(|path| Some((descriptors.next()?, path)));
        self.admin.http = admin_http.and_then(|address| Some((descriptors.next()?, address)));
        self.secret = u128::from_str_radix(&secret, 16).ok().map(|secret| Secret::new(secret.to_be_bytes()));
        self.runtime = runtime;
        Ok(())
    }

    /// Secret of the stick tables that will come.
    pub(in crate::server) fn secret(&self) -> Option<Secret> {
        self.secret.clone()
    }

    /// What commands, time and sources have made of its backends until it gave its state; `None`: nothing that can be
    /// read.
    pub(in crate::server) fn runtime_state(&self) -> Option<RuntimeState> {
        RuntimeState::from_value(self.runtime.clone()).ok()
    }

    /// Takes its admin sockets, for a process with this configuration.
    pub(in crate::server) fn take_admin(&mut self, config: &config::Admin) -> SocketCopies {
        let copies = std::mem::take(&mut self.admin);
        self.leaves_admin_socket = copies.unix.as_ref().is_some_and(|(_, path)| config.socket.as_ref() != Some(path));
        copies
    }

    /// Tells why this process cannot serve; the other one goes on.
    pub(in crate::server) async fn refuse(&self, problems: &[String]) {
        // Without a receiver the other process has gone.
        let _ = self.send(Kind::Refused, &Refused { problems: problems.to_vec() }).await;
    }

    async fn send(&self, kind: Kind, document: &impl Serialize) -> Result<(), ChannelError> {
        self.channel.send(kind as u16, document, &[], &[]).await
    }

    /// Says that this process could serve, takes pairs, and returns when it is to accept. `keeps`: numbers of the
    /// addresses that it goes on to serve. Dropping this before is an end that the other process survives.
    pub(in crate::server) async fn take_over(
        &mut self,
        server: &Arc<Server>,
        keeps: Vec<u32>,
    ) -> Result<(), StartError> {
        let taken = async {
            let (descriptors, leaves_admin_socket) = (descriptors::limit(), self.leaves_admin_socket);
            self.send(Kind::Ready, &Ready { keeps, descriptors, leaves_admin_socket }).await?;
            while !self.take(self.channel.receive().await?, server).await? {}
            Ok(())
        };
        match taken.await {
            Ok(()) if self.has_ended() => {
                let (open, pid) = (server.workers.open(), self.hello.pid);
                let text = format!("restart: {open} connections of process {pid} go on here");
                events::info(clock::unix_ms(), Event::new(EventKind::Upgrade, &text));
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(ChannelError::Closed) if self.process.ends_within(END_MAX).await => {
                let pid = self.process.pid();
                tracing::warn!(
                    "upgrade: process {pid} has ended before it had given everything; this one serves what it has"
                );
                server.take_what_is_left(&self.runtime);
                Ok(())
            }
            Err(error) if self.has_ended() => {
                tracing::warn!("restart: {error}; this process serves what it has");
                server.take_what_is_left(&self.runtime);
                Ok(())
            }
            Err(error) => Err(StartError::unavailable("upgrade", error)),
        }
    }

    /// Takes what comes after the commit, until the other process has ended. Returns the channel once this process leaves,
    /// too: the rest is the next one's.
    async fn take_the_rest(mut self, server: Arc<Server>) -> Option<Channel> {
        let pid = self.process.pid();
        loop {
            let taken = tokio::select! {
                biased;
                // Between two messages, and never within one.
                () = server.handover.left() => return Some(self.channel),
                received = self.channel.receive() => match received {
                    Ok(message) => self.take(message, &server).await,
                    Err(error) => Err(error),
                },
            };
            match taken {
                Ok(_) => {}
                Err(ChannelError::Closed) => {
                    let text = format!("upgrade: process {pid} has ended");
                    events::info(clock::unix_ms(), Event::new(EventKind::Upgrade, &text));
                    return None;
                }
                Err(error) => {
                    tracing::warn!("upgrade: connections stay with process {pid}: {error}");
                    return None;
                }
            }
        }
    }

    /// Takes what a message gives; true: this process is to accept from here on.
    async fn take(&mut self, message: Message, server: &Arc<Server>) -> Result<bool, ChannelError> {
        match Kind::of(message.kind) {
            Some(Kind::Pairs) => self.take_pairs(message, server).await?,
            Some(Kind::Commit) => return self.commit(message, server).await.map(|()| true),
            Some(Kind::LastTables) => self.take_last_tables(message, server).await,
            Some(Kind::Earlier) => take_earlier(message, server).await?,
            _ => {}
        }
        Ok(false)
    }

    /// Acknowledges a batch, and only then lets a worker touch it. A process that has ended needs no acknowledgement.
    async fn take_pairs(&mut self, message: Message, server: &Server) -> Result<(), ChannelError> {
        let (worker, rows) = server.intake(&mut self.departed).rows(message)?;
        let told = self.send(Kind::Taken, &Taken { pairs: rows.len() }).await;
        if matches!(told, Ok(()) | Err(ChannelError::Closed)) {
            server.workers.take_in(worker, rows).await;
        }
        told
    }

    async fn commit(&mut self, message: Message, server: &Server) -> Result<(), ChannelError> {
        let Commit { numbered, runtime } = message.read()?;
        let snapshot = server.current.load_full();
        match tables_of(message) {
            Ok(tables) => table_file::load_from(tables, &snapshot),
            // What it has is worth more than an entry: its connections would end with this process.
            Err(why) => {
                tracing::warn!("upgrade: process {} gives no stick tables: {why}", self.process.pid());
                table_file::load_own(&snapshot);
            }
        }
        server.take_runtime_state(&runtime);
        self.runtime = Value::Null;
        server.workers.number_from(numbered).await;
        self.send(Kind::Committed, &Committed {}).await
    }

    /// Takes entries that are newer than those here: what the last conversations of the other process have made.
    async fn take_last_tables(&self, message: Message, server: &Server) {
        let (pid, snapshot) = (self.process.pid(), server.current.load_full());
        let load = move || tables_of(message).map(|tables| table_file::load_from(tables, &snapshot));
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok(())) => tracing::info!("upgrade: the last conversations of process {pid} are remembered here"),
            Ok(Err(why)) => tracing::warn!("upgrade: process {pid} gives no stick tables at its end: {why}"),
            Err(panic) => tracing::warn!("upgrade: the last stick tables of process {pid}: {panic}"),
        }
    }
}

/// The greeting of a process. What comes before it is the rest of a queue that another process has read from.
async fn greeting(channel: &Channel) -> Result<Hello, ChannelError> {
    loop {
        let message = channel.receive().await?;
        match Kind::of(message.kind) {
            Some(Kind::Hello) => return message.read(),
            Some(Kind::State) => return Err(ChannelError::Malformed("a state without greetings")),
            _ => {}
        }
    }
}

/// Goes on with a process before the other one, which follows to this one by a greeting.
async fn take_earlier(message: Message, server: &Arc<Server>) -> Result<(), ChannelError> {
    let Earlier { pid } = message.read()?;
    let Some(descriptor) = message.descriptors.into_iter().next() else {
        return Err(ChannelError::Malformed("an earlier process without its channel"));
    };
    let channel = Channel::new(descriptor)?;
    let process = Arc::new(PeerProcess::of(&channel)?);
    let earlier = Predecessor::at(channel, process, Hello::default());
    match earlier.send(Kind::Hello, &Hello::own()).await {
        Ok(()) => tracing::info!("upgrade: process {pid} still finishes conversations"),
        Err(error) => tracing::debug!("upgrade: process {pid}: {error}"),
    }
    server.follow(earlier);
    Ok(())
}

/// Stick tables that came with a message.
fn tables_of(message: Message) -> Result<File, ChannelError> {
    open_sealed(message.descriptors.into_iter().next().ok_or(ChannelError::Malformed("a message without them"))?)
}

impl Server {
    /// Takes what a process before this one still gives, in a task of its own.
    pub(in crate::server) fn follow(self: &Arc<Self>, predecessor: Predecessor) {
        let process = Arc::clone(&predecessor.process);
        let task = tokio::spawn(predecessor.take_the_rest(Arc::clone(self)));
        self.handover.tails().add(Tail { process, task });
    }

    /// What pairs that arrive now belong to: the configuration may have changed since the last ones.
    fn intake<'d>(&self, departed: &'d mut Departed) -> Intake<'d> {
        let snapshot = self.current.load_full();
        in_force::limit(&self.admission, &snapshot, self.workers.len());
        Intake::new(snapshot, Arc::clone(&self.admission), self.workers.len(), departed)
    }

    /// Takes over what a process has left that ended before the commit: its state, and the stick-table file, which has
    /// the secret that it has given over. After the commit there is nothing more to take.
    fn take_what_is_left(&self, state: &Value) {
        if state.is_null() {
            return;
        }
        self.take_runtime_state(state);
        table_file::load_own(&self.current.load_full());
    }

    /// Takes over what commands and time have made of the backends.
    fn take_runtime_state(&self, state: &Value) {
        match RuntimeState::from_value(state.clone()) {
            Ok(state) => {
                state.left_out().into_iter().for_each(|what| tracing::warn!("what the process before says {what}"));
                let lines = state.apply(&self.current.load(), clock::now_ms(), clock::unix_ms());
                state.resume_store(&self.store);
                state.resume_events(events::ring(), clock::unix_ms());
                lines.iter().for_each(|line| tracing::info!("{line}"));
            }
            Err(why) => tracing::warn!("what the process before says of its backends {why}"),
        }
    }
}

/// Takes the standard input of this process, and puts nothing in its place.
fn take_standard_input() -> std::io::Result<OwnedFd> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(input)
}
