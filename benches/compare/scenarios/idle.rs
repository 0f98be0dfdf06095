//! S4, S5i and S11i: what a connection costs that does nothing, and what is left when all have gone: passed through
//! (S4), and with TLS terminated at the proxy, after a request (S5i), also over HTTP/2, beside as many connections of
//! HTTP/1.1 to the same front, from which the difference is taken (S11i).
//!
//! User memory is the proxy's alone; the kernel's slab is the whole machine's, with the sockets of client and backend.
//! Invariant: every connection has carried bytes both ways before it is counted as idle.

use std::time::{Duration, Instant};

use super::{Turn, busy};
use crate::Result;
use crate::backends::Service;
use crate::load::http2;
use crate::load::idle::{Held, hold_visitors};
use crate::measure;
use crate::report::Sample;

/// How long a proxy may take to close what its clients have closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// S4.
pub fn run(turn: &Turn<'_>) -> Result<Sample> {
    let open = || Ok(Held::open(turn.proxy.front(Service::Echo)?, turn.scale.idle)?);
    sample(turn, &Crowd { count: turn.scale.idle, left: 0, open })
}

/// S5i. A proxy may keep connections to backends for later clients.
pub fn over_tls(turn: &Turn<'_>) -> Result<Sample> {
    let count = turn.scale.visitors;
    let open = || hold_visitors(turn.proxy.front(Service::Https)?, count, turn.identity);
    sample(turn, &Crowd { count, left: count as u64, open })
}

/// S11i. Connections of HTTP/1.1 are there before those of HTTP/2 come and after they have gone, so that no memory is
/// counted that one kind has left to the other.
pub fn over_http2(turn: &Turn<'_>) -> Result<Sample> {
    let (front, count) = (turn.proxy.front(Service::Http2)?, turn.scale.visitors);
    let family = turn.proxy.family();
    settle(turn);
    let before = measure::memory(&family)?;
    let _plain = hold_visitors(front, count, turn.identity)?;
    settle(turn);
    let plain = (measure::memory(&family)? as f64 - before as f64) / count as f64;
    let open = || http2::hold(front, count, turn.identity);
    let mut sample = sample(turn, &Crowd { count, left: count as u64, open })?;
    let above = sample.figure("pss_b/conn").unwrap_or_default() - plain;
    sample.figures.splice(0..0, [("above_b/conn", above), ("http1_b/conn", plain)]);
    Ok(sample)
}

/// Idle connections of one kind.
struct Crowd<F> {
    count: usize,
    /// Descriptors that may stay when all have gone.
    left: u64,
    open: F,
}

/// Fills and closes twice.
fn sample<T>(turn: &Turn<'_>, crowd: &Crowd<impl Fn() -> Result<T>>) -> Result<Sample> {
    let family = turn.proxy.family();
    settle(turn);
    let before = measure::memory(&family)?;
    let first = fill(turn, &family, crowd)?;
    let second = fill(turn, &family, crowd)?;
    let left = |fill: &Fill| (fill.left as f64 - before as f64) / 1024.0;
    Ok(Sample::default()
        .with("pss_b/conn", first.memory)
        .with("2nd_pss_b/conn", second.memory)
        .with("fds/conn", first.descriptors)
        .with("slab_b/conn", first.slab)
        .with("idle_busy", first.busy)
        .with("base_kib", before as f64 / 1024.0)
        .with("left_kib", left(&first))
        .with("2nd_left_kib", left(&second))
        .with("2nd_more_kib", left(&second) - left(&first)))
}

/// One fill, by connection, and what is left of the memory after it.
struct Fill {
    memory: f64,
    descriptors: f64,
    slab: f64,
    busy: f64,
    left: u64,
}

fn fill<T>(turn: &Turn<'_>, family: &[u32], crowd: &Crowd<impl Fn() -> Result<T>>) -> Result<Fill> {
    let look = || Ok::<_, crate::Error>([measure::memory(family)?, measure::descriptors(family)?, measure::slab()?]);
    let before = look()?;
    let held = (crowd.open)()?;
    settle(turn);
    let full = look()?;
    let begin = Instant::now();
    let ((), cpu) = turn.account(|| {
        settle(turn);
        Ok(())
    })?;
    let busy = busy(cpu, begin.elapsed());
    drop(held);
    let give_up = Instant::now() + PATIENCE;
    while measure::descriptors(family)? > before[1] + crowd.left {
        if Instant::now() > give_up {
            return Err("descriptors stay open after the clients have left".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    settle(turn);
    let each = |index: usize| (full[index] as f64 - before[index] as f64) / crowd.count as f64;
    Ok(Fill { memory: each(0), descriptors: each(1), slab: each(2), busy, left: measure::memory(family)? })
}

/// Waits until proxy, clients and backends have finished their work.
fn settle(turn: &Turn<'_>) {
    std::thread::sleep(turn.scale.window / 2);
}
