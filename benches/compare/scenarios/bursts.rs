//! S12: how long those wait that are connected, while many others connect at once.
//!
//! Every held connection says 64 bytes every 20 ms; beside them, again and again, a burst of clients connects, asks once
//! and leaves. Clients and backend of the bursts run only while the held connections want nothing on their core, so that
//! these wait for the proxy and for nothing else. Invariant: bursts come from the beginning of the measurement to its end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Turn, busy};
use crate::Result;
use crate::backends::Service;
use crate::launch::give_way;
use crate::load::Until;
use crate::load::http::{self, Manner};
use crate::load::paced::Paced;
use crate::report::{Sample, microseconds};

/// From one message of a held connection to the next.
const EVERY: Duration = Duration::from_millis(20);

/// One sample.
pub fn run(turn: &Turn<'_>) -> Result<Sample> {
    let mut held = Paced::open(turn.proxy.front(Service::Echo)?, turn.scale.long_lived, EVERY)?;
    let mut quiet = held.run(turn.scale.warm_up)?;
    let crowd = turn.proxy.front(Service::Http)?;
    give_way(turn.proxy.backends(Service::Http)?)?;
    let stop = AtomicBool::new(false);
    let (heard, bursts) = std::thread::scope(|scope| {
        let bursts = scope.spawn(|| burst(crowd, turn.scale.burst, &stop));
        let heard = turn.account(|| {
            let begin = Instant::now();
            let heard = held.run(turn.scale.window)?;
            Ok((heard, begin.elapsed()))
        });
        stop.store(true, Relaxed);
        (heard, bursts.join())
    });
    let ((mut heard, elapsed), cpu) = heard?;
    let mut bursts = bursts.map_err(|_| "the bursts panicked")??;
    let [p50, p99, longest] = microseconds(&mut heard.latencies, [500, 990, 1000]);
    let [quiet_p99] = microseconds(&mut quiet.latencies, [990]);
    let [burst] = microseconds(&mut bursts.took, [500]);
    let note = heard.first_error.or(bursts.first_error);
    Ok(Sample { note, ..Sample::default() }
        .with("p50_us", p50)
        .with("p99_us", p99)
        .with("longest_us", longest)
        .with("quiet_p99_us", quiet_p99)
        .with("burst_ms", burst / 1e3)
        .with("bursts", bursts.took.len() as f64)
        .with("busy", busy(cpu, elapsed))
        .with("messages", heard.latencies.len() as f64)
        .with("held_errors", heard.errors as f64)
        .with("errors", bursts.errors as f64))
}

/// What came of all bursts.
#[derive(Debug, Default)]
struct Bursts {
    /// From the first connect of each to its last answer.
    took: Vec<Duration>,
    errors: u64,
    first_error: Option<String>,
}

/// So many clients at once, then again after some time, until told to stop.
fn burst(front: SocketAddr, (clients, every): (usize, Duration), stop: &AtomicBool) -> Result<Bursts> {
    give_way(rustix::thread::gettid().as_raw_nonzero().get() as u32)?;
    let mut load = http::load(front, clients, Manner::Once)?;
    let mut all = Bursts::default();
    while !stop.load(Relaxed) {
        let begin = Instant::now();
        let tally = load.run(Until::Count(clients))?;
        all.took.push(begin.elapsed());
        all.errors += (clients as u64).saturating_sub(tally.done);
        all.first_error = all.first_error.or(tally.first_error);
        std::thread::sleep(every.saturating_sub(begin.elapsed()));
    }
    Ok(all)
}
