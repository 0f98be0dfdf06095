//! Clients that notice whatever an upgrade does to them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::PATIENCE;
use crate::support::backend::Backend;

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
        Self::from_stream(TcpStream::connect(address).expect("a connection"))
    }

    /// Opens one from another loopback address.
    pub fn open_from(source: IpAddr, address: SocketAddr) -> Self {
        Self::from_stream(connect_from(source, address).expect("a connection"))
    }

    fn from_stream(stream: TcpStream) -> Self {
        let mut idle = Self(stream);
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

/// Loopback address number `index` of a block, which has 65,536.
pub fn source(block: u8, index: usize) -> IpAddr {
    let [.., high, low] = index.to_be_bytes();
    Ipv4Addr::new(127, block, high, low).into()
}

fn connect_from(source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// Clients that come one after the other; none may be refused, reset or kept waiting for long. Each thread's clients
/// have fifty addresses of their own, for more ports than one address has.
pub struct Churn {
    threads: Vec<JoinHandle<(Vec<String>, Duration)>>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
}

/// Block of loopback addresses of the churn.
const CHURN_BLOCK: u8 = 9;

/// Clients a second of one thread, at most.
const CHURN_OF_THREAD: u32 = 125;

impl Churn {
    /// Starts so many clients a second.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = rate.div_ceil(CHURN_OF_THREAD).max(2);
        let pause = Duration::from_secs(1) * threads / rate;
        let one = |thread: u32| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let (mut failed, mut longest, mut next) = (Vec::new(), Duration::ZERO, Instant::now());
                for index in (0..50).cycle() {
                    if stop.load(Relaxed) || failed.len() == 5 {
                        break;
                    }
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += pause;
                    let begun = Instant::now();
                    match serve_one(source(CHURN_BLOCK, thread as usize * 50 + index), address) {
                        Ok(()) => drop(served.fetch_add(1, Relaxed)),
                        Err(error) => failed.push(format!("{error} after {:.1?}", begun.elapsed())),
                    }
                    longest = longest.max(begun.elapsed());
                }
                (failed, longest)
            })
        };
        Self { threads: (0..threads).map(one).collect(), stop, served }
    }

    pub fn served(&self) -> usize {
        self.served.load(Relaxed)
    }

    /// Ends it; returns how many were served, and the longest time that one took. None may have failed.
    pub fn stop(self) -> (usize, Duration) {
        self.stop.store(true, Relaxed);
        let (failed, longest): (Vec<_>, Vec<_>) =
            self.threads.into_iter().map(|thread| thread.join().expect("clients")).unzip();
        assert_eq!(failed.concat(), Vec::<String>::new(), "of {}", self.served.load(Relaxed));
        (self.served.load(Relaxed), longest.into_iter().max().unwrap_or_default())
    }
}

fn serve_one(source: IpAddr, address: SocketAddr) -> std::io::Result<()> {
    let stream = connect_from(source, address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Idle(stream).try_lives()
}
