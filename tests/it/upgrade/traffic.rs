//! Clients that notice whatever an upgrade does to them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::backend::Backend;
use crate::support::rng::Rng;

/// A backend that sends every byte back, and its end.
pub fn mirror() -> Backend {
    Backend::serving(|mut stream| {
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match stream.read(&mut buffer)? {
                0 => return stream.shutdown(Shutdown::Write),
                n => stream.write_all(&buffer[..n])?,
            }
        }
    })
}

/// A connection that says nothing until it is asked.
pub struct Idle(TcpStream);

impl Idle {
    pub fn open(address: SocketAddr) -> Self {
        let mut idle = Self(TcpStream::connect(address).expect("a connection"));
        idle.0.set_read_timeout(Some(PATIENCE)).unwrap();
        idle.lives();
        idle
    }

    /// It still leads to its backend.
    pub fn lives(&mut self) {
        self.try_lives().expect("the connection lives");
    }

    pub fn try_lives(&mut self) -> std::io::Result<()> {
        self.0.write_all(b"hello")?;
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer)?;
        if answer == *b"hello" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }

    pub fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// Byte number `at` of stream number `stream`.
fn byte(stream: u64, at: u64) -> u8 {
    ((at ^ stream).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// What became of a stream: how many bytes came back, and how long each read waited; or what went wrong.
type Returned = Result<(u64, Vec<Duration>), String>;

/// Streams that are sent and compared with what comes back, until they are stopped.
pub struct Streams {
    threads: Vec<JoinHandle<Returned>>,
    stop: Arc<AtomicBool>,
}

impl Streams {
    /// Even numbers send in bulk, odd ones small messages.
    pub fn start(address: SocketAddr, count: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |number| {
            let stop = Arc::clone(&stop);
            let stream = TcpStream::connect(address).expect("a connection");
            thread::spawn(move || run_stream(number, &stream, &stop).map_err(|error| format!("{number}: {error}")))
        };
        Self { threads: (0..count).map(one).collect(), stop }
    }

    /// Ends all; every byte must have come back. Returns how many, and how long each read waited, shortest
    /// first.
    pub fn stop(self) -> (u64, Vec<Duration>) {
        self.stop.store(true, Relaxed);
        let (mut bytes, mut pauses) = (0, Vec::new());
        for thread in self.threads {
            let (own, waited) = thread.join().expect("a stream").unwrap_or_else(|why| panic!("stream {why}"));
            bytes += own;
            pauses.extend(waited);
        }
        pauses.sort_unstable();
        (bytes, pauses)
    }
}

fn run_stream(number: u64, stream: &TcpStream, stop: &AtomicBool) -> Returned {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut at, mut buffer, mut waits) = (0, vec![0; 64 * 1024], Vec::new());
            loop {
                let begun = Instant::now();
                let n = (&*stream).read(&mut buffer).map_err(|error| format!("read at {at}: {error}"))?;
                waits.push(begun.elapsed());
                if n == 0 {
                    return Ok((at, waits));
                }
                if let Some(bad) = (0..n).find(|index| buffer[*index] != byte(number, at + *index as u64)) {
                    return Err(format!("byte {} is another", at + bad as u64));
                }
                at += n as u64;
            }
        });
        let (mut rng, mut at) = (Rng(number), 0);
        while !stop.load(Relaxed) {
            let most = if number.is_multiple_of(2) { 200_000 } else { 3_000 };
            let length = 1 + rng.below(most) as u64;
            let bytes: Vec<_> = (at..at + length).map(|at| byte(number, at)).collect();
            (&*stream).write_all(&bytes).map_err(|error| format!("write at {at}: {error}"))?;
            at += length;
            if !number.is_multiple_of(2) {
                thread::sleep(Duration::from_millis(2));
            }
        }
        stream.shutdown(Shutdown::Write).map_err(|error| format!("the end: {error}"))?;
        let (read, waits) = reader.join().expect("a reader")?;
        if read == at { Ok((read, waits)) } else { Err(format!("{read} of {at} bytes came back")) }
    })
}

/// Clients that come one after the other; none may be refused, reset or kept waiting for long.
pub struct Churn {
    threads: Vec<JoinHandle<Vec<String>>>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
}

impl Churn {
    pub fn start(address: SocketAddr, threads: usize) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = |_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Relaxed) && failed.len() < 5 {
                    match TcpStream::connect_timeout(&address, PATIENCE).and_then(|stream| {
                        stream.set_read_timeout(Some(PATIENCE))?;
                        Idle(stream).try_lives()
                    }) {
                        Ok(()) => drop(served.fetch_add(1, Relaxed)),
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                failed
            })
        };
        Self { threads: (0..threads).map(one).collect(), stop, served }
    }

    pub fn served(&self) -> usize {
        self.served.load(Relaxed)
    }

    /// Ends it; returns how many were served. None may have failed.
    pub fn stop(self) -> usize {
        self.stop.store(true, Relaxed);
        let failed: Vec<_> = self.threads.into_iter().flat_map(|thread| thread.join().expect("clients")).collect();
        assert_eq!(failed, Vec::<String>::new(), "of {}", self.served.load(Relaxed));
        self.served.load(Relaxed)
    }
}
