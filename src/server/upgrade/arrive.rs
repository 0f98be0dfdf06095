//! The process that follows: takes over what another process gives it, and accepts once that one has stopped.
//!
//! The steps are in `mod.rs`. Invariant: a pair is acknowledged before it is touched, so the other process never goes
//! on with a pair that this one has read from; and if the other process ends too early, this one serves what it has.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::ENVIRONMENT;
use super::channel::{Channel, ChannelError, Message, open_sealed};
use super::messages::{Addresses, Commit, Committed, Hello, Kind, Ready, Refused, State, Taken};
use super::pairs::Intake;
use crate::admin::SocketCopies;
use crate::clock;
use crate::server::listen_sockets::Inherited;
use crate::server::runtime_state::RuntimeState;
use crate::server::{Server, StartError, descriptors, in_force, table_file};
use crate::sticky::table::Secret;

/// How long the old process may take to say what it has.
const STATE_MAX: Duration = Duration::from_secs(30);

/// The process before this one.
pub(in crate::server) struct Predecessor {
    channel: Channel,
    hello: Hello,
    secret: Option<Secret>,
    runtime: Value,
    /// Its listening sockets; empty once they are taken.
    pub(in crate::server) addresses: Vec<Inherited>,
    /// Its lock; `None` once it is taken.
    pub(in crate::server) lock: Option<OwnedFd>,
    /// Its admin sockets; empty once they are taken.
    pub(in crate::server) admin: SocketCopies,
}

impl Predecessor {
    /// Greets the process that has started this one, and receives what it gives; `None`: none has.
    pub(in crate::server) async fn of_environment() -> Result<Option<Self>, StartError> {
        if std::env::var_os(ENVIRONMENT).is_none() {
            return Ok(None);
        }
        let failed = |error: ChannelError| StartError::unavailable("upgrade", error);
        let received = async {
            let channel = Channel::new(take_standard_input()?)?;
            Self::receive(channel).await
        };
        let late = |_| Err(ChannelError::Malformed("no state in time"));
        match timeout(STATE_MAX, received).await.unwrap_or_else(late) {
            Ok(predecessor) => Ok(Some(predecessor)),
            // It would have killed this process before it gave up.
            Err(ChannelError::Closed) => {
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
            let received = async { Self::receive(Channel::of_queue(queue)?).await };
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

    async fn receive(channel: Channel) -> Result<Self, ChannelError> {
        let mut predecessor = Self {
            channel,
            hello: Hello::default(),
            secret: None,
            runtime: Value::Null,
            addresses: Vec::new(),
            lock: None,
            admin: SocketCopies::default(),
        };
        // Addresses that need several messages come in several parts.
        let mut addresses = BTreeMap::<u32, Inherited>::new();
        loop {
            let message = predecessor.channel.receive().await?;
            if message.kind == Kind::Hello as u16 {
                predecessor.hello = message.read()?;
                if let Err(none) = predecessor.hello.common() {
                    predecessor.refuse(&[none]).await;
                    return Err(ChannelError::Malformed("no version of the protocol that is spoken here"));
                }
                predecessor.send(Kind::Hello, &Hello::own()).await?;
            } else if message.kind == Kind::Addresses as u16 {
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

    /// Tells why this process cannot serve; the other one goes on.
    pub(in crate::server) async fn refuse(&self, problems: &[String]) {
        // Without a receiver the other process has gone.
        let _ = self.send(Kind::Refused, &Refused { problems: problems.to_vec() }).await;
    }

    async fn send(&self, kind: Kind, document: &impl Serialize) -> Result<(), ChannelError> {
        self.channel.send(kind as u16, document, &[], &[]).await
    }

    /// Says that this process could serve, takes pairs, and returns when it is to accept. `keeps`: numbers of the
    /// addresses that it goes on to serve.
    pub(in crate::server) async fn take_over(&mut self, server: &Server, keeps: Vec<u32>) -> Result<(), StartError> {
        match self.take_until_commit(server, keeps).await {
            Ok(()) if self.has_ended() => {
                let (open, pid) = (server.workers.open(), self.hello.pid);
                tracing::info!("restart: {open} connections of process {pid} go on here");
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(ChannelError::Closed) => {
                tracing::warn!(
                    "upgrade: process {} has ended before it had given everything; this one serves what it has",
                    self.hello.pid
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

    async fn take_until_commit(&mut self, server: &Server, keeps: Vec<u32>) -> Result<(), ChannelError> {
        self.send(Kind::Ready, &Ready { keeps, descriptors: descriptors::limit() }).await?;
        let mut intake = server.intake();
        loop {
            let message = self.channel.receive().await?;
            if message.kind == Kind::Pairs as u16 {
                self.take_pairs(&mut intake, message, server).await?;
            } else if message.kind == Kind::Commit as u16 {
                return self.commit(server, message).await;
            }
        }
    }

    /// Takes pairs that were still connecting at the commit, until the other process has ended.
    pub(in crate::server) async fn take_the_rest(self, server: Arc<Server>) {
        let mut intake = server.intake();
        loop {
            let taken = match self.channel.receive().await {
                Ok(message) if message.kind == Kind::Pairs as u16 => {
                    self.take_pairs(&mut intake, message, &server).await
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => {}
                Err(ChannelError::Closed) => break,
                Err(error) => {
                    tracing::warn!("upgrade: connections stay with process {}: {error}", self.hello.pid);
                    return;
                }
            }
        }
        tracing::info!("upgrade: process {} has ended", self.hello.pid);
    }

    /// Acknowledges a batch, and only then lets a worker touch it. A process that has ended needs no acknowledgement.
    async fn take_pairs(&self, intake: &mut Intake, message: Message, server: &Server) -> Result<(), ChannelError> {
        let (worker, rows) = intake.rows(message)?;
        let told = self.send(Kind::Taken, &Taken { pairs: rows.len() }).await;
        if matches!(told, Ok(()) | Err(ChannelError::Closed)) {
            server.workers.take_in(worker, rows).await;
        }
        told
    }

    async fn commit(&mut self, server: &Server, message: Message) -> Result<(), ChannelError> {
        let Commit { numbered, runtime } = message.read()?;
        let tables = message.descriptors.into_iter().next();
        let tables = open_sealed(tables.ok_or(ChannelError::Malformed("a commit without stick tables"))?)?;
        table_file::load_from(tables, &server.current.load());
        server.take_runtime_state(&runtime);
        self.runtime = Value::Null;
        server.workers.number_from(numbered).await;
        self.send(Kind::Committed, &Committed {}).await
    }
}

impl Server {
    /// What pairs that arrive belong to.
    fn intake(&self) -> Intake {
        let snapshot = self.current.load_full();
        in_force::limit(&self.admission, &snapshot, self.workers.len());
        Intake::new(snapshot, Arc::clone(&self.admission), self.workers.len())
    }

    /// Takes over what a process has left that ended before the commit: its state, and the stick-table file, which has
    /// the secret that it has given over. After the commit there is nothing more to take.
    fn take_what_is_left(&self, state: &Value) {
        if state.is_null() {
            return;
        }
        self.take_runtime_state(state);
        let snapshot = self.current.load_full();
        if let Some(path) = &snapshot.config.process.stick_table_file {
            table_file::load(path, &snapshot);
        }
    }

    /// Takes over what commands and time have made of the backends.
    fn take_runtime_state(&self, state: &Value) {
        match RuntimeState::from_json(&state.to_string()) {
            Ok(state) => {
                let lines = state.apply(&self.current.load(), clock::now_ms(), clock::unix_ms());
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
