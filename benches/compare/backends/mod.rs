//! What the proxies balance to: one small server a process, on the clients' core, with as many ports as are asked for;
//! files come from nginx instead.
//!
//! One thread, one level-triggered epoll; nothing is measured here. Invariant: a server answers from memory or from
//! the page cache, so that what it costs is the same for every contestant.

mod conversation;
mod nginx;
mod site;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::net::SocketFlags;
use tempfile::TempDir;

use self::conversation::{Conversation, Next};
pub use self::nginx::temporary;
use crate::Result;
use crate::launch::{BACKEND, on_cores};
use crate::load::Epoll;
use crate::load::identity::Identity;
use crate::stage::Stage;

/// What a backend does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Small fixed answers.
    Http,
    /// Bytes without end.
    Bulk,
    /// The bytes that came.
    Echo,
    /// Small fixed answers over TLS.
    Tls,
    /// A site without TLS, which the proxy puts on.
    Https,
    /// The same site, where clients speak HTTP/2.
    Http2,
    /// Files of nginx, which takes uploads too.
    Files,
    /// The same, where the proxy reads HTTP.
    Pages,
}

impl Service {
    /// All services, in one order.
    pub const ALL: [Self; 8] =
        [Self::Http, Self::Bulk, Self::Echo, Self::Tls, Self::Https, Self::Http2, Self::Files, Self::Pages];

    /// Whether TLS ends at the proxy.
    pub fn is_terminated(self) -> bool {
        matches!(self, Self::Https | Self::Http2)
    }

    /// Whether nginx serves it.
    pub fn is_of_nginx(self) -> bool {
        matches!(self, Self::Files | Self::Pages)
    }

    /// The name of the service in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Bulk => "bulk",
            Self::Echo => "echo",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Http2 => "http2",
            Self::Files => "files",
            Self::Pages => "pages",
        }
    }
}

/// Two backends of a service, in a process of their own; it ends when this is dropped.
#[derive(Debug)]
pub struct Backends {
    /// What they do.
    pub service: Service,
    /// Where they listen.
    pub addresses: [SocketAddr; 2],
    process: Child,
    /// What it writes, if anything.
    folder: Option<TempDir>,
}

impl Backends {
    /// Starts them.
    pub fn start(service: Service, stage: &Stage) -> Result<Self> {
        if service.is_of_nginx() {
            return nginx::start(service, stage.shelf.as_ref().ok_or("files without nginx")?, stage.cores);
        }
        let mut command = on_cores(&[stage.cores.others], std::env::current_exe()?)?;
        command.arg(BACKEND).arg(service.name()).arg(stage.minted_in()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut said = BufReader::new(process.stdout.take().ok_or("a backend without output")?);
        let mut address = || -> Result<SocketAddr> {
            let mut line = String::new();
            said.read_line(&mut line)?;
            Ok(line.trim().parse().map_err(|_| format!("the {} backend does not start", service.name()))?)
        };
        let addresses = [address()?, address()?];
        Ok(Self { service, addresses, process, folder: None })
    }

    /// The id of their process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The hidden role: `SERVICE FOLDER`. Never returns but by an error.
pub fn serve(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let name = arguments.next().unwrap_or_default();
    let service = Service::ALL.into_iter().find(|known| name == known.name()).ok_or("backend: which service?")?;
    if service.is_of_nginx() {
        return Err("backend: files come from nginx".into());
    }
    let folder = PathBuf::from(arguments.next().unwrap_or_default());
    let tls = if service == Service::Tls { Some(Identity::kept_in(&folder).server()?) } else { None };
    let mut listeners = Vec::new();
    for _ in 0..2 {
        let listener = listen()?;
        println!("{}", listener.local_addr()?);
        listeners.push(listener);
    }
    let open = move |socket, backend| Conversation::new(socket, service, backend, tls.as_ref().map(Arc::clone));
    Server { epoll: Epoll::new()?, listeners, slots: Vec::new(), free: Vec::new(), open }.run()
}

fn listen() -> Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Server<F> {
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    slots: Vec<Option<Conversation>>,
    free: Vec<usize>,
    open: F,
}

impl<F: FnMut(TcpStream, usize) -> Result<Conversation>> Server<F> {
    fn run(mut self) -> Result<()> {
        for (token, listener) in self.listeners.iter().enumerate() {
            self.epoll.add(listener, token, EventFlags::IN)?;
        }
        let mut ready = Vec::with_capacity(256);
        loop {
            self.epoll.wait(&mut ready, Duration::from_secs(3600))?;
            for event in &ready {
                match event.data.u64() as usize {
                    listener if listener < self.listeners.len() => self.accept(listener)?,
                    token => self.turn(token - self.listeners.len()),
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match rustix::net::accept_with(&self.listeners[listener], flags) {
            Ok(socket) => TcpStream::from(socket),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.epoll.add(&socket, slot + self.listeners.len(), EventFlags::IN)?;
        self.slots[slot] = Some((self.open)(socket, listener)?);
        Ok(())
    }

    fn turn(&mut self, slot: usize) {
        let Some(conversation) = &mut self.slots[slot] else { return };
        let token = slot + self.listeners.len();
        let watch = |conversation: &Conversation, flags| self.epoll.change(conversation.socket(), token, flags);
        let lives = match conversation.turn() {
            Ok(Next::Read) => true,
            Ok(Next::Write) => watch(conversation, EventFlags::OUT).is_ok(),
            Ok(Next::ReadAgain) => watch(conversation, EventFlags::IN).is_ok(),
            Ok(Next::Close) | Err(_) => false,
        };
        if !lives {
            self.slots[slot] = None;
            self.free.push(slot);
        }
    }
}
