//! [`Crowd`]: clients that come through another instance each time, several at once, and the backend that each had.
//!
//! Changes nothing itself. Invariants: a client has one connection at a time, so what it finds depends on what the
//! instances know of it; a connection that ends without an answer is counted, and its client comes again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::Fleet;
use crate::support::load_support::Client;
use crate::support::rng::Rng;

/// Clients of a crowd; another number by hand: `SESSILE_FLEET_CLIENTS=100000 cargo test --test it -- hop --nocapture`.
const CLIENTS: usize = 500;
const CLIENTS_VARIABLE: &str = "SESSILE_FLEET_CLIENTS";

/// Clients that connect at the same time.
pub const AT_ONCE: usize = 4;

/// Clients, each with an address of its own.
pub struct Crowd {
    /// Number of the backend that served each client last.
    homes: Vec<Option<u8>>,
    seed: u64,
}

/// What clients found.
#[derive(Debug, Default, Clone, Copy)]
pub struct Walk {
    /// Connections that got an answer.
    pub served: usize,
    /// Clients that were served elsewhere than before by a backend that was to be kept.
    pub breaks: usize,
    /// Connections that ended without an answer.
    pub cut: usize,
}

impl AddAssign for Walk {
    fn add_assign(&mut self, other: Self) {
        self.served += other.served;
        self.breaks += other.breaks;
        self.cut += other.cut;
    }
}

/// Says that a change is complete, also where it has failed.
struct Complete<'a>(&'a AtomicBool);

impl Drop for Complete<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Crowd {
    /// Clients that have not come yet.
    pub fn new() -> Self {
        let count = std::env::var(CLIENTS_VARIABLE);
        let count = count.map_or(CLIENTS, |count| count.parse().expect("a number of clients"));
        Self { homes: vec![None; count], seed: 7 }
    }

    /// Number of clients.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// Clients that this backend served last.
    pub fn at(&self, backend: u8) -> usize {
        self.homes.iter().filter(|home| **home == Some(backend)).count()
    }

    /// Every client comes once, through an instance at random.
    pub fn walk(&mut self, fleet: &mut Fleet, lost: Option<u8>) -> Walk {
        self.walk_while(fleet, lost, |_| {})
    }

    /// Every client comes once, and again until the change is complete. `lost`: a backend that clients may leave.
    pub fn walk_while(&mut self, fleet: &mut Fleet, lost: Option<u8>, change: impl FnOnce(&mut Fleet)) -> Walk {
        let fronts: Vec<_> = fleet.instances.iter().map(|instance| instance.address("l")).collect();
        let (fronts, is_complete) = (&fronts, &AtomicBool::new(false));
        let part = self.homes.len().div_ceil(AT_ONCE);
        let mut all = Walk::default();
        self.seed += AT_ONCE as u64;
        let seed = self.seed;
        thread::scope(|scope| {
            let parts = self.homes.chunks_mut(part).enumerate();
            let walks = parts.map(|(number, homes)| {
                let mut rng = Rng(seed + number as u64);
                scope.spawn(move || {
                    let mut walk = Walk::default();
                    loop {
                        pass(number * part, homes, fronts, lost, (&mut rng, &mut walk));
                        if is_complete.load(Relaxed) {
                            return walk;
                        }
                    }
                })
            });
            let walks: Vec<_> = walks.collect();
            {
                let _complete = Complete(is_complete);
                change(fleet);
            }
            walks.into_iter().for_each(|walk| all += walk.join().expect("a walk"));
        });
        all
    }
}

/// Clients from this number on come once.
fn pass(
    first: usize,
    homes: &mut [Option<u8>],
    fronts: &[SocketAddr],
    lost: Option<u8>,
    (rng, walk): (&mut Rng, &mut Walk),
) {
    for (number, home) in homes.iter_mut().enumerate() {
        let mut at = rng.below(fronts.len());
        let now = loop {
            match served(fronts[at], address(first + number)) {
                Ok(now) => break now,
                Err(_) => walk.cut += 1,
            }
            assert!(walk.cut < 10_000, "no instance answers");
            // An instance that was killed accepts no more.
            at = (at + 1) % fronts.len();
        };
        let before = home.replace(now);
        walk.served += 1;
        walk.breaks += usize::from(before.is_some_and(|before| before != now && Some(before) != lost));
    }
}

/// Address of a client: none of a network's ends.
fn address(client: usize) -> IpAddr {
    let [high, middle, low] = [client / 62_500, client / 250 % 250, client % 250].map(|part| part as u8);
    [127, 2 + high, middle, low + 1].into()
}

/// Number of the backend that serves a client.
fn served(front: SocketAddr, source: IpAddr) -> io::Result<u8> {
    let answer = Client::try_connect_from(source, front)?.try_ask("x")?;
    let name = answer.split(' ').next().and_then(|name| name.strip_prefix('b')?.parse().ok());
    name.ok_or_else(|| io::Error::other(answer))
}
