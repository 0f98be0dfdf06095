//! S8: how much later a byte arrives.
//!
//! One connection, one message on its way: every figure is wake-ups and system calls, none is queueing. Invariant: an
//! echo that is lost or wrong fails the sample.

use super::{Turn, microseconds_per};
use crate::Result;
use crate::backends::Service;
use crate::load::echo::Echo;
use crate::report::{Sample, microseconds};

/// One sample.
pub fn run(turn: &Turn<'_>) -> Result<Sample> {
    let mut echo = Echo::open(turn.proxy.front(Service::Echo)?)?;
    echo.run(turn.scale.warm_up)?;
    let (mut took, cpu) = turn.account(|| Ok(echo.run(turn.scale.window)?))?;
    let [p50, p99, p999] = microseconds(&mut took, [500, 990, 999]);
    Ok(Sample::default()
        .with("p50_us", p50)
        .with("p99_us", p99)
        .with("p99.9_us", p999)
        .with("cpu_us", microseconds_per(cpu, took.len() as u64))
        .with("user_share", cpu.user_share()))
}
