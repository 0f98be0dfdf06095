//! S1, S2 and S6: exchanges of request and answer, kept alive, one a connection, and one a TLS connection.
//!
//! Invariant: an exchange that fails is counted and named, never repeated in silence.

use std::io;

use super::{Turn, busy, microseconds_per};
use crate::Result;
use crate::backends::Service;
use crate::load::http::{self, Manner};
use crate::load::{Load, Session, Tally, Until, tls};
use crate::measure::Cpu;
use crate::report::{Sample, microseconds};
use crate::strace::{Calls, Count};

/// S1.
pub fn kept_alive(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Http)?;
    sample(turn, Manner::Kept, || Ok(http::load(front, turn.scale.clients, Manner::Kept)?))
}

/// S2.
pub fn once(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Http)?;
    sample(turn, Manner::Once, || Ok(http::load(front, turn.scale.clients, Manner::Once)?))
}

/// S6.
pub fn tls(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Tls)?;
    sample(turn, Manner::Once, || tls::load(front, turn.scale.clients, turn.identity))
}

/// A sample of any kind of exchange.
pub fn sample<S: Session, F: FnMut() -> io::Result<S>>(
    turn: &Turn<'_>,
    manner: Manner,
    load: impl Fn() -> Result<Load<S, F>>,
) -> Result<Sample> {
    let (mut tally, cpu) = measured(turn, load()?)?;
    let [p50, p99] = microseconds(&mut tally.latencies, [500, 990]);
    let calls = if turn.count_calls { count(turn, manner, &load)? } else { Calls::new() };
    let sample = Sample { calls, note: tally.first_error.clone(), ..Sample::default() };
    Ok(sample
        .with("rate/s", tally.rate())
        .with("p50_us", p50)
        .with("p99_us", p99)
        .with("cpu_us", microseconds_per(cpu, tally.done))
        .with("user_share", cpu.user_share())
        .with("busy", busy(cpu, tally.elapsed))
        .with("least_served", tally.least_served)
        .with("errors", tally.errors as f64))
}

/// Warms up, measures one window, and adds the errors of before and after to those of the window.
pub fn measured<S: Session, F: FnMut() -> io::Result<S>>(
    turn: &Turn<'_>,
    mut load: Load<S, F>,
) -> Result<(Tally, Cpu)> {
    let before = load.run(Until::After(turn.scale.warm_up))?;
    let (mut tally, cpu) = turn.account(|| Ok(load.run(Until::After(turn.scale.window))?))?;
    let after = load.finish()?;
    for other in [before, after] {
        tally.errors += other.errors;
        tally.first_error = tally.first_error.or(other.first_error);
    }
    Ok((tally, cpu))
}

/// System calls per exchange. Connections that are kept are opened before the count; those that are not are counted
/// whole.
fn count<S: Session, F: FnMut() -> io::Result<S>>(
    turn: &Turn<'_>,
    manner: Manner,
    load: impl Fn() -> Result<Load<S, F>>,
) -> Result<Calls> {
    let mut load = load()?;
    if manner == Manner::Kept {
        load.run(Until::After(turn.scale.warm_up))?;
    }
    let count = Count::begin(&turn.proxy.family(), turn.proxy.folder())?;
    // What is on its way when the count of a kept load ends makes up for what was when it began.
    let mut done = load.run(Until::After(turn.scale.window))?.done;
    if manner == Manner::Once {
        done += load.finish()?.done;
    }
    count.end(done)
}
