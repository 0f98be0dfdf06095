//! S3: as many bytes as will go through, over one connection and over eight.
//!
//! From backend to client, as downloads are. Invariant: only bytes that reached the client count.

use super::Turn;
use crate::Result;
use crate::backends::Service;
use crate::load::bulk::Bulk;
use crate::report::Sample;

/// One sample of both.
pub fn run(turn: &Turn<'_>) -> Result<Sample> {
    let [one_rate, one_cost] = through(turn, 1)?;
    let [eight_rate, eight_cost] = through(turn, 8)?;
    Ok(Sample::default()
        .with("c1_gbit/s", one_rate)
        .with("c1_cpu_s/gib", one_cost)
        .with("c8_gbit/s", eight_rate)
        .with("c8_cpu_s/gib", eight_cost))
}

fn through(turn: &Turn<'_>, connections: usize) -> Result<[f64; 2]> {
    let mut bulk = Bulk::open(turn.proxy.front(Service::Bulk)?, connections)?;
    bulk.run(turn.scale.warm_up)?;
    let ((bytes, elapsed), cpu) = turn.account(|| Ok(bulk.run(turn.scale.window)?))?;
    let bytes = bytes as f64;
    Ok([bytes * 8.0 / 1e9 / elapsed.as_secs_f64(), cpu.total.as_secs_f64() / (bytes / f64::from(1 << 30))])
}
