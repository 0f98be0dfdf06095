//! S9: whether many others make a difference: held connections, thousands of addresses, one slow reader.
//!
//! Invariant: the crowd is there before the measurement begins and still there when it ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::exchanges::measured;
use super::{Turn, microseconds_per};
use crate::Result;
use crate::backends::Service;
use crate::cli::Scale;
use crate::load::http::{self, Manner};
use crate::load::{Until, bulk, idle::Held};
use crate::report::{Sample, microseconds};

/// S9a.
pub fn beside_held(turn: &Turn<'_>) -> Result<Sample> {
    let mut held = Held::open(turn.proxy.front(Service::Echo)?, turn.scale.held)?;
    let (mut tally, cpu) =
        measured(turn, http::load(turn.proxy.front(Service::Http)?, turn.scale.clients, Manner::Once)?)?;
    let survivors = held.ask();
    let [p50, p99, longest] = microseconds(&mut tally.latencies, [500, 990, 1000]);
    Ok(Sample { note: tally.first_error.clone(), ..Sample::default() }
        .with("rate/s", tally.rate())
        .with("p50_us", p50)
        .with("p99_us", p99)
        .with("longest_us", longest)
        .with("cpu_us", microseconds_per(cpu, tally.done))
        .with("errors", tally.errors as f64)
        .with("held_lost", turn.scale.held as f64 - survivors.alive as f64))
}

/// S9b.
pub fn from_everywhere(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Http)?;
    let mut load = http::load_from_everywhere(front, turn.scale.clients)?;
    let (mut tally, cpu) = turn.account(|| Ok(load.run(Until::Count(turn.scale.sources))?))?;
    let [p50, p99, longest] = microseconds(&mut tally.latencies, [500, 990, 1000]);
    let missing = (turn.scale.sources as u64).saturating_sub(tally.done);
    Ok(Sample { note: tally.first_error.clone(), ..Sample::default() }
        .with("rate/s", tally.rate())
        .with("p50_us", p50)
        .with("p99_us", p99)
        .with("longest_us", longest)
        .with("cpu_us", microseconds_per(cpu, tally.done))
        .with("errors", missing as f64)
        .with("share_of_a", tally.by_backend[0] as f64 / tally.done.max(1) as f64))
}

/// S9c.
pub fn beside_slow_reader(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Http)?;
    let half = Scale { window: turn.scale.window / 2, ..turn.scale.clone() };
    let turn = &Turn { scale: &half, ..*turn };
    let fast = || measured(turn, http::load(front, turn.scale.clients, Manner::Kept)?);
    let (mut alone, _) = fast()?;
    let stop = AtomicBool::new(false);
    let slow_front = turn.proxy.front(Service::Bulk)?;
    let (beside, slow) = std::thread::scope(|scope| {
        let slow = scope.spawn(|| bulk::read_slowly(slow_front, &stop));
        std::thread::sleep(Duration::from_millis(50)); // until every buffer on the way is full
        let beside = fast();
        stop.store(true, Relaxed);
        (beside, slow.join())
    });
    let (mut beside, _) = beside?;
    let slow = slow.map_err(|_| "the slow reader panicked")??;
    let [alone_p99] = microseconds(&mut alone.latencies, [990]);
    let [beside_p99] = microseconds(&mut beside.latencies, [990]);
    Ok(Sample { note: beside.first_error.clone(), ..Sample::default() }
        .with("alone_rate/s", alone.rate())
        .with("rate/s", beside.rate())
        .with("kept_rate", beside.rate() / alone.rate())
        .with("least_served", beside.least_served)
        .with("alone_p99_us", alone_p99)
        .with("p99_us", beside_p99)
        .with("errors", (alone.errors + beside.errors) as f64)
        .with("slow_kib", slow as f64 / 1024.0))
}
