//! A stage on which stickiness is proved: the real binary between clients from addresses of their own and backends that
//! write down every visit.
//!
//! | file | what |
//! |---|---|
//! | `backends` | one thread that serves all backends and keeps their log |
//! | `clients` | short visits, loads in the background, connections that are held |
//! | `truth` | what the log says: the home of each client, and each break |
//! | `table` | configurations, and what placement alone would do |
//! | `row` | a line of the report with its verdict |
//! | `scale` | how many of everything |
//! | the others | one file a scenario |
//!
//! `benches/sticky` runs the scenarios large, `tests/it/sticky` small. Invariant: what is held against the balancer's
//! counters comes from the backends' log and from nowhere else.

mod backends;
mod clients;
mod row;
mod scale;
mod table;
mod truth;

pub mod campus;
pub mod change;
pub mod crash;
pub mod drain;
pub mod flap;
pub mod held;
pub mod outage;

pub use row::Row;
pub use scale::Scale;

use std::collections::BTreeMap;

use crate::support::Sessile;

/// The pool's name in every configuration.
const POOL: &str = "p";

/// Known clients that got another backend, as the balancer counts them, by cause; only those that happened.
type Breaks = BTreeMap<String, u64>;

fn breaks(sessile: &Sessile) -> Breaks {
    let page = sessile.metrics();
    let series = format!("sessile_sticky_breaks_total{{pool=\"{POOL}\",from=\"");
    let counts =
        page.lines().filter_map(|line| line.strip_prefix(&series)?.split_once("\",cause=\"")?.1.split_once("\"} "));
    let mut breaks = Breaks::new();
    for (cause, count) in counts.map(|(cause, count)| (cause, whole(count))).filter(|(_, count)| *count > 0) {
        *breaks.entry(cause.to_owned()).or_default() += count;
    }
    breaks
}

/// What was counted between two looks.
fn since(before: &Breaks, now: Breaks) -> Breaks {
    let more = |(cause, count): (String, u64)| {
        let count = count - before.get(&cause).copied().unwrap_or(0);
        (count > 0).then_some((cause, count))
    };
    now.into_iter().filter_map(more).collect()
}

fn whole(number: &str) -> u64 {
    number.parse::<f64>().expect("a number") as u64
}

/// KiB of a stick table that the clients fill to 20 %.
fn roomy(scale: &Scale) -> u64 {
    u64::from(scale.clients) * 80 / 1024
}

/// Reloads a configuration that is good.
fn reload(sessile: &Sessile, config: &str) {
    let verdict = sessile.reload(config);
    assert_eq!(verdict["accepted"], true, "{verdict}");
}

/// Tells a backend `drain`, `close` or `ready`.
fn tell(sessile: &Sessile, backend: usize, order: &str) {
    let path = format!("/backends/{POOL}/b{backend}/{order}");
    let (status, said) = crate::support::http::unix_post(&sessile.admin(), &path).expect("the admin socket answers");
    assert_eq!(status, 200, "{said}");
}
