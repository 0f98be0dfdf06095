//! S7: ten reloads while short connections come and go and long ones live, beside the same time without reloads.
//!
//! Reloads are asked for at even distances, without waiting for one to be over where the product does not say when it
//! is. What a worker spends adopting a snapshot is its own measurement, the longest since it started. Invariant: the
//! quiet run is otherwise the same and comes first in every other round, so that a stall can be told from the machine's
//! own.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::Turn;
use crate::Result;
use crate::backends::Service;
use crate::load::http::{self, Manner};
use crate::load::idle::{Held, Survivors};
use crate::load::{Tally, Until};
use crate::report::Sample;

/// One sample of both.
pub fn run(turn: &Turn<'_>) -> Result<Sample> {
    let (quiet, reloaded) = if turn.round.is_multiple_of(2) {
        let quiet = phase(turn, 0)?;
        (quiet, phase(turn, turn.scale.reloads)?)
    } else {
        let reloaded = phase(turn, turn.scale.reloads)?;
        (phase(turn, 0)?, reloaded)
    };
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let longest = |tally: &Tally| milliseconds(tally.latencies.iter().max().copied().unwrap_or_default());
    let adoptions = turn.proxy.workers()?;
    let adopt_us = adoptions.iter().filter_map(|worker| worker["adopt_us_max"].as_f64()).reduce(f64::max);
    let note = reloaded.tally.first_error.clone().or(quiet.tally.first_error.clone());
    let sample = Sample { note, ..Sample::default() }
        .with("errors", reloaded.tally.errors as f64)
        .with("quiet_errors", quiet.tally.errors as f64)
        .with("lost", turn.scale.long_lived as f64 - reloaded.held.alive as f64)
        .with("longest_ms", longest(&reloaded.tally))
        .with("quiet_longest_ms", longest(&quiet.tally))
        .with("held_longest_ms", milliseconds(reloaded.held.longest))
        .with("quiet_held_longest_ms", milliseconds(quiet.held.longest))
        .with("longest_by_quiet", longest(&reloaded.tally) / longest(&quiet.tally))
        .with("rate/s", reloaded.tally.rate())
        .with("quiet_rate/s", quiet.tally.rate())
        .with("processes", reloaded.processes as f64);
    Ok(adopt_us.into_iter().fold(sample, |sample, us| sample.with("adopt_max_ms", us / 1e3)))
}

struct Phase {
    tally: Tally,
    held: Survivors,
    /// While the long-lived connections still are.
    processes: usize,
}

fn phase(turn: &Turn<'_>, reloads: u32) -> Result<Phase> {
    let time = turn.scale.window * 3 / 2;
    let mut held = Held::open(turn.proxy.front(Service::Echo)?, turn.scale.long_lived)?;
    let mut load = http::load(turn.proxy.front(Service::Http)?, turn.scale.clients, Manner::Once)?;
    load.run(Until::After(turn.scale.warm_up))?;
    let stop = AtomicBool::new(false);
    let (tally, held, processes) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| held.ask_until(&stop));
        let reloading = scope.spawn(|| reload(turn, reloads, time));
        let tally = load.run(Until::After(time)).and_then(|mut tally| {
            let rest = load.finish()?;
            tally.errors += rest.errors;
            tally.first_error = tally.first_error.or(rest.first_error);
            tally.latencies.extend(rest.latencies);
            Ok(tally)
        });
        let reloaded = reloading.join();
        stop.store(true, Relaxed);
        let held = asking.join().map_err(|_| "the long-lived clients panicked")?;
        reloaded.map_err(|_| "the reloads panicked")??;
        Ok::<_, crate::Error>((tally?, held, turn.proxy.family().len()))
    })?;
    Ok(Phase { tally, held, processes })
}

fn reload(turn: &Turn<'_>, reloads: u32, time: Duration) -> Result<()> {
    for _ in 0..reloads {
        std::thread::sleep(time / (reloads + 1));
        turn.proxy.reload()?;
    }
    Ok(())
}
