//! Connections that are held: after one exchange each they are silent until asked for another.
//!
//! Invariant: the exchange that opens a connection passes the proxy in both directions, so that a held connection is
//! an established pair and not a place in a backlog.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::echo::Echo;
use super::http::Manner;
use super::https::{Https, Visitors};
use super::identity::{Exchange, Identity};
use crate::Result;

/// Connections to an echo.
pub struct Held(Vec<Echo>);

/// Visitors of a site over TLS that stay when each has had one answer.
pub fn hold_visitors(target: SocketAddr, count: usize, identity: &Identity) -> Result<Vec<Https>> {
    let visitors = Visitors::strangers(identity, Exchange::X25519)?;
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut https = Https::open(target, Manner::Kept, &visitors)?;
        https.exchange_blocking()?;
        held.push(https);
    }
    Ok(held)
}

/// What became of them.
#[derive(Debug, Default, Clone, Copy)]
pub struct Survivors {
    /// Connections that still answer.
    pub alive: usize,
    /// The longest that one took.
    pub longest: Duration,
}

impl Held {
    /// Opens so many.
    pub fn open(target: SocketAddr, count: usize) -> io::Result<Self> {
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            let mut echo = Echo::open(target)?;
            echo.ping()?;
            held.push(echo);
        }
        Ok(Self(held))
    }

    /// Asks each once; those that fail are given up.
    pub fn ask(&mut self) -> Survivors {
        let mut longest = Duration::ZERO;
        self.0.retain_mut(|echo| echo.ping().inspect(|took| longest = longest.max(*took)).is_ok());
        Survivors { alive: self.0.len(), longest }
    }

    /// Asks one after the other, a thousand times a second at most, until told to stop.
    pub fn ask_until(&mut self, stop: &AtomicBool) -> Survivors {
        let mut longest = Duration::ZERO;
        let mut next = 0;
        while !stop.load(Relaxed) && !self.0.is_empty() {
            next = (next + 1) % self.0.len();
            match self.0[next].ping() {
                Ok(took) => longest = longest.max(took),
                Err(_) => drop(self.0.swap_remove(next)),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let last = self.ask();
        Survivors { alive: last.alive, longest: longest.max(last.longest) }
    }
}
