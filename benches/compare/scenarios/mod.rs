//! The questions of the race, one file each, and what they share.
//!
//! A scenario takes one sample of one proxy: it warms up, looks at the proxy's account, loads, looks again. Invariant:
//! what is started here has ended when the sample is there, so that the next contestant finds a quiet machine.

mod bulk;
mod crowd;
mod exchanges;
mod idle;
mod pingpong;
mod reload;

use std::time::Duration;

use crate::Result;
use crate::backends::Service;
use crate::cli::Scale;
use crate::load::tls::Identity;
use crate::measure::{self, Cpu};
use crate::proxies::Proxy;
use crate::report::Sample;

/// One question.
#[derive(Debug)]
pub struct Scenario {
    /// Short name, for the command line.
    pub name: &'static str,
    /// What is asked.
    pub title: &'static str,
    /// What stands behind the proxies.
    pub services: &'static [Service],
    /// Whether a proxy that splices is another contestant.
    pub splicing: bool,
    /// One round only, with a fresh process alone on the machine.
    pub once: bool,
    /// Takes a sample.
    pub run: fn(&Turn<'_>) -> Result<Sample>,
}

/// One contestant's turn.
pub struct Turn<'a> {
    /// Who is under load.
    pub proxy: &'a Proxy,
    /// How much.
    pub scale: &'a Scale,
    /// The certificate behind TLS fronts.
    pub identity: &'a Identity,
    /// Whether system calls are counted after the measurement.
    pub count_calls: bool,
}

const fn repeated(
    name: &'static str,
    title: &'static str,
    services: &'static [Service],
    run: fn(&Turn<'_>) -> Result<Sample>,
) -> Scenario {
    Scenario { name, title, services, splicing: false, once: false, run }
}

/// All of them, in order.
static ALL: [Scenario; 10] = [
    repeated("S1", "kept-alive small requests, 64 connections", &[Service::Http], exchanges::kept_alive),
    repeated("S2", "one request per connection, 64 at a time", &[Service::Http], exchanges::once),
    Scenario { splicing: true, ..repeated("S3", "bulk, one and eight connections", &[Service::Bulk], bulk::run) },
    Scenario { once: true, ..repeated("S4", "idle connections, filled and closed twice", &[Service::Echo], idle::run) },
    repeated("S6", "TLS passthrough by SNI, handshake and one request each", &[Service::Tls], exchanges::tls),
    repeated("S7", "reloads during S2, beside long-lived connections", &[Service::Http, Service::Echo], reload::run),
    repeated("S8", "64-byte ping-pong", &[Service::Echo], pingpong::run),
    repeated("S9a", "S2 beside held connections", &[Service::Http, Service::Echo], crowd::beside_held),
    repeated("S9b", "short connections, each from an address of its own", &[Service::Http], crowd::from_everywhere),
    repeated("S9c", "S1 beside one slow reader", &[Service::Http, Service::Bulk], crowd::beside_slow_reader),
];

/// Those that are asked for; all, if none is.
pub fn named(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if let Some(unknown) = names.iter().find(|name| !ALL.iter().any(|known| known.name.eq_ignore_ascii_case(name))) {
        let known: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        return Err(format!("{unknown}: no such scenario; there are {}", known.join(", ")).into());
    }
    let wanted =
        |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| scenario.name.eq_ignore_ascii_case(name));
    Ok(ALL.iter().filter(wanted).collect())
}

impl Turn<'_> {
    /// What the proxy's processes use while something runs.
    fn account<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<(T, Cpu)> {
        let family = self.proxy.family();
        let before = measure::cpu(&family);
        let outcome = run()?;
        Ok((outcome, measure::cpu(&family) - before))
    }
}

/// CPU time per unit in microseconds.
fn microseconds_per(cpu: Cpu, units: u64) -> f64 {
    cpu.total.as_secs_f64() * 1e6 / units.max(1) as f64
}

/// The part of a core that was used.
fn busy(cpu: Cpu, elapsed: Duration) -> f64 {
    cpu.total.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}
