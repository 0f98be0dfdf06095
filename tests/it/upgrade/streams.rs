//! Streams of bytes that are sent and compared with what comes back, and how long their readers stood still.
//!
//! All clients are tasks of one thread, so that what is measured is the balancer and not a queue of threads. Invariants:
//! each byte that arrives is compared with the byte that was sent; a reader stands still only while a byte of its stream
//! is under way.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::rng::Rng;
use crate::support::{PATIENCE, eventually};

/// The longest message.
const MESSAGE_MAX: usize = 256 * 1024;

/// Bytes after which what is sent comes again: a prime, so that no loss of whole buffers goes unnoticed.
const PERIOD: usize = 1_048_573;

/// Bytes a second of one stream.
const RATE: f64 = 512.0 * 1024.0;

/// The shortest time between two messages.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Streams until they are stopped.
pub struct Streams {
    thread: JoinHandle<Vec<Standstills>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Even: nothing happens; odd: an upgrade.
    phase: AtomicUsize,
    bytes: AtomicU64,
    /// Why a stream has ended before its time.
    broken: Mutex<Option<String>>,
}

/// The longest time that a stream's reader stood still, in each phase.
type Standstills = Vec<Duration>;

/// What streams are like, by their number.
#[derive(Clone, Copy)]
enum Manner {
    /// Messages of hundreds of kilobytes: spliced.
    Bulk,
    /// Messages of at most 3,000 bytes: copied.
    Small,
    /// A sender without a pause and a reader that takes small sips: the buffers and pipes between them are full.
    Slow,
}

/// The standstills of all streams, each the longest of its stream in one phase, shortest first.
pub struct Pauses {
    /// While nothing happened.
    pub calm: Vec<Duration>,
    /// During upgrades.
    pub upgrade: Vec<Duration>,
}

impl Streams {
    /// Starts them; of eight, three are bulk, four small and one slow.
    pub fn start(address: SocketAddr, count: u64) -> Self {
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for number in 0..count {
                    let shared = Arc::clone(&of_thread);
                    all.spawn(async move {
                        let one = run(number, address, &shared).await;
                        one.map_err(|why| format!("stream {number}, phase {}: {why}", shared.phase.load(Relaxed)))
                    });
                }
                let mut standstills = Vec::new();
                while let Some(one) = all.join_next().await {
                    match one.expect("a stream") {
                        Ok(one) => standstills.push(one),
                        Err(why) => _ = of_thread.broken.lock().expect("no panic").get_or_insert(why),
                    }
                }
                standstills
            })
        });
        Self { thread, shared }
    }

    /// Waits until so many more bytes have come back; fails if a stream has ended.
    pub fn go_on(&self, bytes: u64) {
        let before = self.bytes();
        eventually("the streams to go on", || {
            self.assert_whole();
            (self.bytes() >= before + bytes).then_some(())
        });
    }

    fn assert_whole(&self) {
        let broken = self.shared.broken.lock().expect("no panic").clone();
        assert_eq!(broken, None, "a stream has broken");
    }

    /// How many bytes came back so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    /// Begins the next phase: an upgrade, or the calm after it.
    pub fn next_phase(&self) {
        self.shared.phase.fetch_add(1, Relaxed);
    }

    /// Ends all; every byte must have come back.
    pub fn stop(self) -> Pauses {
        self.shared.stop.store(true, Relaxed);
        let standstills = self.thread.join().expect("streams");
        let broken = self.shared.broken.lock().expect("no panic").take();
        assert_eq!(broken, None, "a stream has broken");
        let of = |first: usize| {
            let of = standstills.iter().flat_map(|one| one.iter().skip(first).step_by(2)).copied();
            // A stream without a byte in a phase did not stand still in it.
            let mut of: Vec<_> = of.filter(|waited| !waited.is_zero()).collect();
            of.sort_unstable();
            of
        };
        // Not of the first phase, in which the streams begin.
        Pauses { calm: of(2), upgrade: of(1) }
    }
}

impl Pauses {
    /// The time that `percent` of the standstills do not exceed.
    pub fn at(sorted: &[Duration], percent: usize) -> Duration {
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Pauses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (what, sorted)) in [("during upgrades", &self.upgrade), ("else", &self.calm)].iter().enumerate() {
            let [half, p99, most] = [50, 99, 100].map(|percent| Self::at(sorted, percent));
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{what} a stream stood still for {half:.1?} (half), {p99:.1?} (p99), {most:.1?} (most)")?;
        }
        Ok(())
    }
}

impl Manner {
    fn of(number: u64) -> Self {
        match number % 8 {
            0 => Self::Slow,
            number if number % 2 == 0 => Self::Bulk,
            _ => Self::Small,
        }
    }
}

/// Messages under way: where each ends, and when its sending began.
type UnderWay = Mutex<VecDeque<(u64, Instant)>>;

async fn run(number: u64, address: SocketAddr, shared: &Shared) -> Result<Standstills, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).expect("an option");
    let (from, to) = stream.into_split();
    let under_way = UnderWay::default();
    let (sent, received) =
        tokio::try_join!(send(number, to, &under_way, shared), receive(number, from, &under_way, shared))?;
    let (read, standstills) = received;
    if read == sent { Ok(standstills) } else { Err(format!("{read} of {sent} bytes came back")) }
}

async fn send(number: u64, mut to: OwnedWriteHalf, under_way: &UnderWay, shared: &Shared) -> Result<u64, String> {
    let (manner, mut rng, mut at) = (Manner::of(number), Rng(number), 0);
    let most = if matches!(manner, Manner::Small) { 3_000 } else { MESSAGE_MAX };
    while !shared.stop.load(Relaxed) {
        let message = content(number, at, 1 + rng.below(most));
        under_way.lock().expect("no panic").push_back((at + message.len() as u64, Instant::now()));
        // A slow reader may leave no room for longer than a test waits; the reads say whether anything moves.
        to.write_all(message).await.map_err(|error| format!("write: {error}"))?;
        at += message.len() as u64;
        if !matches!(manner, Manner::Slow) {
            sleep(Duration::from_secs_f64(message.len() as f64 / RATE).max(PAUSE_MIN)).await;
        }
    }
    to.shutdown().await.map_err(|error| format!("the end: {error}"))?;
    Ok(at)
}

async fn receive(
    number: u64,
    mut from: OwnedReadHalf,
    under_way: &UnderWay,
    shared: &Shared,
) -> Result<(u64, Standstills), String> {
    let slow = matches!(Manner::of(number), Manner::Slow);
    let mut buffer = vec![0; if slow { 4 * 1024 } else { 64 * 1024 }];
    let (mut at, mut standstills) = (0, Standstills::new());
    loop {
        let begun = Instant::now();
        let read = timeout(PATIENCE, from.read(&mut buffer)).await;
        let n =
            read.map_err(|_| format!("a read at {at} waited in vain"))?.map_err(|error| format!("read: {error}"))?;
        let now = Instant::now();
        if n == 0 {
            return Ok((at, standstills));
        }
        let phase = shared.phase.load(Relaxed);
        standstills.resize(standstills.len().max(phase + 1), Duration::ZERO);
        standstills[phase] = standstills[phase].max(now - begun.max(sent_at(under_way, at)));
        let sent = content(number, at, n);
        if let Some(bad) = (buffer[..n] != *sent).then(|| (0..n).find(|index| buffer[*index] != sent[*index])).flatten()
        {
            return Err(format!("byte {} is another", at + bad as u64));
        }
        at += n as u64;
        shared.bytes.fetch_add(n as u64, Relaxed);
        if slow && !shared.stop.load(Relaxed) {
            sleep(Duration::from_millis(8)).await;
        }
    }
}

/// When the sending of the byte began.
fn sent_at(under_way: &UnderWay, at: u64) -> Instant {
    let mut under_way = under_way.lock().expect("no panic");
    while under_way.front().is_some_and(|(end, _)| *end <= at) {
        under_way.pop_front();
    }
    under_way.front().map_or_else(Instant::now, |(_, sent)| *sent)
}

/// Bytes of a stream from a place on.
fn content(stream: u64, at: u64, length: usize) -> &'static [u8] {
    static ALL: OnceLock<Vec<u8>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut rng = Rng(14);
        let mut all: Vec<_> = (0..PERIOD).map(|_| rng.next() as u8).collect();
        all.extend_from_within(..MESSAGE_MAX);
        all
    });
    let begin = ((at + stream * 104_729) % PERIOD as u64) as usize;
    &all[begin..begin + length]
}
