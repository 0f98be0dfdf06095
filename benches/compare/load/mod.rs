//! Clients: one thread, one epoll, as many connections as asked for, each with one request on its way.
//!
//! What a connection says is a [`Session`]; this file opens, times, replaces and counts them. Invariant: every
//! connection that was opened is counted once for each exchange, as done or as an error.

pub mod bulk;
pub mod download;
pub mod echo;
pub mod frames;
pub mod h2load;
pub mod http;
pub mod http2;
pub mod https;
pub mod identity;
pub mod idle;
pub mod paced;
pub mod pattern;
mod reply;
mod secure;
pub mod tls;
pub mod transfer;
pub mod upload;
mod wire;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// How long unfinished exchanges may take when a load ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one connection says.
pub trait Session {
    /// The socket, not blocking.
    fn socket(&self) -> &TcpStream;
    /// Goes on as far as it can until the exchange is complete; `WouldBlock` if it has to wait for an event.
    fn step(&mut self) -> io::Result<()>;
    /// Gets ready for the next exchange on the same connection; `false` if each has its own.
    fn again(&mut self) -> bool;
    /// Whether something is still to be sent, so that the socket is watched for that too.
    fn unsent(&self) -> bool;
    /// Which backend answered the last exchange.
    fn backend(&self) -> usize;
}

/// When a load pauses.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After some time, with exchanges still on their way.
    After(Duration),
    /// After so many exchanges more, all complete.
    Count(usize),
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Complete exchanges.
    pub done: u64,
    /// Everything that went wrong.
    pub errors: u64,
    /// The first thing that did.
    pub first_error: Option<String>,
    /// How long each complete exchange took.
    pub latencies: Vec<Duration>,
    /// Exchanges by backend.
    pub by_backend: [u64; 2],
    /// Exchanges of the client that was served least, by the mean of all.
    pub least_served: f64,
    /// From the first to the last moment of the load.
    pub elapsed: Duration,
}

impl Tally {
    /// Exchanges a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn failed(&mut self, error: &io::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

/// A running load.
pub struct Load<S, F> {
    open: F,
    slots: Vec<Slot<S>>,
    vacant: Vec<usize>,
    epoll: Epoll,
    tally: Tally,
    may_start: usize,
}

struct Slot<S> {
    session: Option<S>,
    done: u64,
    since: Instant,
}

impl<S: Session, F: FnMut() -> io::Result<S>> Load<S, F> {
    /// This many clients, none of which has begun.
    pub fn new(clients: usize, open: F) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            open,
            slots: (0..clients).map(|_| Slot { session: None, done: 0, since: now }).collect(),
            vacant: (0..clients).collect(),
            epoll: Epoll::new()?,
            tally: Tally::default(),
            may_start: usize::MAX,
        })
    }

    /// Runs on, and tells what came of this part.
    pub fn run(&mut self, until: Until) -> io::Result<Tally> {
        let begin = Instant::now();
        let (end, count) = match until {
            Until::After(time) => (begin + time, usize::MAX),
            Until::Count(count) => (begin + PATIENCE + Duration::from_millis(5) * count as u32, count),
        };
        self.may_start = count;
        self.drive(end, |load| load.may_start == 0 && load.vacant.len() == load.slots.len())?;
        Ok(self.take(begin))
    }

    /// Waits for what is on its way, starts nothing, and counts what does not come as errors.
    pub fn finish(mut self) -> io::Result<Tally> {
        let begin = Instant::now();
        self.may_start = 0;
        self.drive(begin + PATIENCE, |load| load.slots.iter().all(|slot| slot.session.is_none()))?;
        let stuck = self.slots.iter().filter(|slot| slot.session.is_some()).count();
        for _ in 0..stuck {
            self.tally.failed(&io::Error::new(ErrorKind::TimedOut, "no answer"));
        }
        Ok(self.take(begin))
    }

    fn take(&mut self, begin: Instant) -> Tally {
        let clients = self.slots.len() as f64;
        let least = self.slots.iter_mut().map(|slot| std::mem::take(&mut slot.done)).min().unwrap_or(0);
        let least_served = least as f64 * clients / self.tally.done.max(1) as f64;
        Tally { elapsed: begin.elapsed(), least_served, ..std::mem::take(&mut self.tally) }
    }

    fn drive(&mut self, end: Instant, complete: impl Fn(&Self) -> bool) -> io::Result<()> {
        let mut ready = Vec::with_capacity(256);
        loop {
            self.fill();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || complete(self) {
                return Ok(());
            }
            // What could not be opened is tried again soon, but not in a tight loop.
            let pause = Duration::from_millis(if self.vacant.is_empty() { 20 } else { 1 });
            self.epoll.wait(&mut ready, pause.min(left))?;
            for event in &ready {
                self.go_on(event.data.u64() as usize);
            }
        }
    }

    /// Opens what is vacant, once each.
    fn fill(&mut self) {
        for slot in std::mem::take(&mut self.vacant) {
            if self.may_start == 0 {
                self.vacant.push(slot);
                continue;
            }
            self.start(slot);
        }
    }

    fn start(&mut self, slot: usize) {
        self.may_start -= 1;
        self.slots[slot].since = Instant::now();
        match (self.open)() {
            Ok(session) => {
                self.slots[slot].session = Some(session);
                if self.go_on(slot) {
                    self.watch(slot);
                }
            }
            Err(error) => self.end(slot, Err(error)),
        }
    }

    fn watch(&mut self, slot: usize) {
        let Some(session) = &self.slots[slot].session else { return };
        let out = if session.unsent() { EventFlags::OUT } else { EventFlags::empty() };
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET | out;
        if let Err(error) = self.epoll.add(session.socket(), slot, flags) {
            self.end(slot, Err(error));
        }
    }

    /// Whether the session lives on.
    fn go_on(&mut self, slot: usize) -> bool {
        let Slot { session: Some(session), done, since } = &mut self.slots[slot] else { return false };
        loop {
            match session.step() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) => {
                    self.end(slot, Err(error));
                    return false;
                }
                Ok(()) => {
                    let now = Instant::now();
                    let backend = session.backend();
                    self.tally.done += 1;
                    *done += 1;
                    self.tally.by_backend[backend.min(1)] += 1;
                    self.tally.latencies.push(now - *since);
                    if self.may_start == 0 || !session.again() {
                        self.end(slot, Ok(()));
                        return false;
                    }
                    self.may_start -= 1;
                    *since = now;
                }
            }
        }
    }

    fn end(&mut self, slot: usize, how: io::Result<()>) {
        self.slots[slot].session = None;
        self.vacant.push(slot);
        if let Err(error) = how {
            self.tally.failed(&error);
        }
    }
}

/// The kernel's list of what is ready.
pub struct Epoll(rustix::fd::OwnedFd);

impl Epoll {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches a socket until it is closed.
    pub fn add(&self, socket: impl AsFd, token: usize, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, epoll::EventData::new_u64(token as u64), flags)?)
    }

    /// Watches it for something else.
    pub fn change(&self, socket: impl AsFd, token: usize, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.0, socket, epoll::EventData::new_u64(token as u64), flags)?)
    }

    /// What is ready now or within the timeout, at most what fits.
    pub fn wait(&self, ready: &mut Vec<epoll::Event>, timeout: Duration) -> io::Result<()> {
        ready.clear();
        let timeout = timeout.try_into().map_err(io::Error::other)?;
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Begins a connection that does not block, if wanted from a certain address.
pub fn connect(target: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    if let Some(source) = source {
        rustix::net::bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))?;
    }
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}
