//! Held connections that each say a little at even distances, whatever else the proxy has to do.
//!
//! Every connection has at most one message on its way. One that was due while the message before was on its way
//! counts from the moment in which it was due: a stall is as long for those that it kept from speaking as it was.
//! Invariant: what comes back is what was sent, and a connection that fails is counted and asked no more.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::Epoll;
use super::echo::Echo;

/// The connections.
pub struct Paced {
    talks: Vec<Talk>,
    epoll: Epoll,
    /// Between two messages of one connection.
    every: Duration,
    errors: u64,
    first_error: Option<String>,
}

/// One connection; none once it failed.
struct Talk {
    echo: Option<Echo>,
    /// When the message on its way was sent, and when others were due since.
    waiting: Vec<Instant>,
}

/// What came of a time.
#[derive(Debug, Default)]
pub struct Heard {
    /// How long each message took there and back.
    pub latencies: Vec<Duration>,
    /// Connections that failed, since the beginning.
    pub errors: u64,
    /// The first thing that went wrong.
    pub first_error: Option<String>,
}

impl Paced {
    /// Opens so many; each has had an answer.
    pub fn open(target: SocketAddr, count: usize, every: Duration) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut talks = Vec::with_capacity(count);
        for token in 0..count {
            let mut echo = Echo::open(target)?;
            echo.ping()?;
            echo.socket().set_nonblocking(true)?;
            epoll.add(echo.socket(), token, EventFlags::IN)?;
            talks.push(Talk { echo: Some(echo), waiting: Vec::new() });
        }
        Ok(Self { talks, epoll, every, errors: 0, first_error: None })
    }

    /// Goes on for some time, connection after connection at even distances, then hears what is still on its way.
    pub fn run(&mut self, time: Duration) -> io::Result<Heard> {
        let begin = Instant::now();
        let mut latencies = Vec::new();
        let step = self.every / self.talks.len() as u32;
        for turn in 0..(time.as_nanos() / step.as_nanos()) as u32 {
            let due = begin + step * turn;
            self.hear(due, &mut latencies, |_| false)?;
            self.say(turn as usize % self.talks.len(), due);
        }
        let give_up = Instant::now() + Duration::from_secs(5);
        self.hear(give_up, &mut latencies, |paced| paced.talks.iter().all(|talk| talk.waiting.is_empty()))?;
        let stuck = |talk: &Talk| !talk.waiting.is_empty();
        for token in (0..self.talks.len()).filter(|token| stuck(&self.talks[*token])).collect::<Vec<_>>() {
            self.fail(token, &io::Error::new(ErrorKind::TimedOut, "a held connection without an answer"));
        }
        Ok(Heard { latencies, errors: self.errors, first_error: self.first_error.clone() })
    }

    fn say(&mut self, token: usize, due: Instant) {
        let talk = &mut self.talks[token];
        if !talk.waiting.is_empty() {
            talk.waiting.push(due);
            return;
        }
        let now = Instant::now(); // a client that is late is no fault of the proxy
        let Some(echo) = &mut talk.echo else { return };
        match echo.say() {
            Ok(()) => talk.waiting.push(now),
            Err(error) => self.fail(token, &error),
        }
    }

    /// Takes answers until some moment, or until nothing more is awaited.
    fn hear(
        &mut self,
        until: Instant,
        latencies: &mut Vec<Duration>,
        is_enough: impl Fn(&Self) -> bool,
    ) -> io::Result<()> {
        let mut ready = Vec::with_capacity(64);
        while !is_enough(self) {
            let left = until.saturating_duration_since(Instant::now());
            self.epoll.wait(&mut ready, left)?;
            let now = Instant::now();
            for event in &ready {
                let token = event.data.u64() as usize;
                let talk = &mut self.talks[token];
                let Some(echo) = &mut talk.echo else { continue };
                match echo.hear() {
                    Ok(()) => latencies.extend(talk.waiting.drain(..).map(|since| now - since)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => self.fail(token, &error),
                }
            }
            if left.is_zero() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn fail(&mut self, token: usize, error: &io::Error) {
        self.talks[token] = Talk { echo: None, waiting: Vec::new() };
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}
