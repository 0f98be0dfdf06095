//! S10: what a second worker changes, and how evenly workers share what comes.
//!
//! Proxy, clients and backends have two cores between them, so the figures tell what two workers cost each other, not
//! how far they scale. Invariant: balance is read from the workers' own numbers, not inferred from speed.

use super::exchanges::measured;
use super::{Turn, microseconds_per};
use crate::Result;
use crate::backends::Service;
use crate::load::http::{self, Manner};
use crate::load::idle::Held;
use crate::report::{Sample, microseconds};

/// Few enough that an uneven hash shows.
const FEW: usize = 16;

/// One sample: S1, S2, then a few long connections.
pub fn run(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Http)?;
    let (mut kept, kept_cpu) = measured(turn, http::load(front, turn.scale.clients, Manner::Kept)?)?;
    let before = numbers(turn, "steps")?;
    let (mut once, once_cpu) = measured(turn, http::load(front, turn.scale.clients, Manner::Once)?)?;
    let steps: Vec<_> = numbers(turn, "steps")?.iter().zip(&before).map(|(after, before)| after - before).collect();
    let held = Held::open(turn.proxy.front(Service::Echo)?, FEW)?;
    let connections = numbers(turn, "connections")?;
    drop(held);
    let [kept_p99, kept_longest] = microseconds(&mut kept.latencies, [990, 1000]);
    let [once_p99, once_longest] = microseconds(&mut once.latencies, [990, 1000]);
    Ok(Sample { note: kept.first_error.clone().or(once.first_error.clone()), ..Sample::default() }
        .with("kept_rate/s", kept.rate())
        .with("kept_p99_us", kept_p99)
        .with("kept_longest_us", kept_longest)
        .with("kept_cpu_us", microseconds_per(kept_cpu, kept.done))
        .with("kept_least_served", kept.least_served)
        .with("once_rate/s", once.rate())
        .with("once_p99_us", once_p99)
        .with("once_longest_us", once_longest)
        .with("once_cpu_us", microseconds_per(once_cpu, once.done))
        .with("errors", (kept.errors + once.errors) as f64)
        .with("churn_least_share", least_share(&steps))
        .with("few_least_share", least_share(&connections))
        .with("handed_over", numbers(turn, "handed_over")?.iter().sum()))
}

fn numbers(turn: &Turn<'_>, name: &str) -> Result<Vec<f64>> {
    Ok(turn.proxy.workers()?.iter().map(|worker| worker[name].as_f64().unwrap_or(0.0)).collect())
}

/// The part of the worker that has least; half of all where two share evenly.
fn least_share(parts: &[f64]) -> f64 {
    let least = parts.iter().copied().reduce(f64::min).unwrap_or(0.0);
    least / parts.iter().sum::<f64>().max(1.0)
}
