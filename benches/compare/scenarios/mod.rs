//! The questions of the race, one file each, and what they share.
//!
//! A scenario takes one sample of one proxy: it warms up, looks at the proxy's account, loads, looks again. Invariant:
//! what is started here has ended when the sample is there, so that the next contestant finds a quiet machine.

mod bulk;
mod bursts;
mod crowd;
mod exchanges;
mod http2;
mod idle;
mod pingpong;
mod reload;
mod terminated;
mod workers;

use std::time::Duration;

use crate::Result;
use crate::backends::Service;
use crate::cli::Scale;
use crate::load::identity::Identity;
use crate::measure::{self, Cpu};
use crate::proxies::{Contestant, Proxy};
use crate::report::Sample;

/// About how long a contestant takes to start and stop.
const START: Duration = Duration::from_millis(400);

/// One question.
#[derive(Debug)]
pub struct Scenario {
    /// Short name, for the command line.
    pub name: &'static str,
    /// The question, as the heading of its table.
    pub title: &'static str,
    /// What stands behind the proxies.
    pub services: &'static [Service],
    /// The contestants that take part.
    pub field: Field,
    /// Takes a sample.
    pub run: fn(&Turn<'_>) -> Result<Sample>,
    /// How long that takes: windows with their warm-up, and seconds of the full scale beside them.
    pub takes: (f64, f64),
}

/// The contestants of a scenario, and how often each has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Every proxy in one configuration.
    Usual,
    /// Also the configuration that differs only where bytes are spliced.
    Splicing,
    /// Every proxy, in fewer rounds: memory does not vary.
    Few,
    /// Every proxy, and sessile with busy polling.
    Waking,
    /// Every proxy, and sessile with X25519MLKEM768.
    Handshakes,
    /// Sessile with one worker and with two; runs by name only.
    Workers,
}

/// One contestant's turn.
pub struct Turn<'a> {
    /// The proxy under load.
    pub proxy: &'a Proxy,
    /// How much.
    pub scale: &'a Scale,
    /// The certificate behind TLS fronts.
    pub identity: &'a Identity,
    /// The number of the sample.
    pub round: usize,
    /// Whether system calls are counted after the measurement.
    pub count_calls: bool,
}

/// All of them, in order.
static ALL: [Scenario; 27] = [
    Scenario {
        name: "S1",
        title: "kept-alive small requests, 64 connections",
        services: &[Service::Http],
        field: Field::Usual,
        run: exchanges::kept_alive,
        takes: (1.0, 0.0),
    },
    Scenario {
        name: "S2",
        title: "one request per connection, 64 at a time",
        services: &[Service::Http],
        field: Field::Usual,
        run: exchanges::once,
        takes: (1.0, 0.0),
    },
    Scenario {
        name: "S3f",
        title: "a file that nginx sends with sendfile, one and eight connections",
        services: &[Service::Files],
        field: Field::Splicing,
        run: bulk::files,
        takes: (2.0, 0.1),
    },
    Scenario {
        name: "S3u",
        title: "files uploaded into nginx, one and eight connections",
        services: &[Service::Files],
        field: Field::Splicing,
        run: bulk::uploads,
        takes: (2.0, 0.6),
    },
    Scenario {
        name: "S3h",
        title: "the same file through plain HTTP that the proxy reads",
        services: &[Service::Pages],
        field: Field::Splicing,
        run: bulk::pages,
        takes: (2.0, 0.1),
    },
    Scenario {
        name: "S3hu",
        title: "the same uploads through plain HTTP that the proxy reads",
        services: &[Service::Pages],
        field: Field::Splicing,
        run: bulk::page_uploads,
        takes: (2.0, 0.6),
    },
    Scenario {
        name: "S3",
        title: "bulk from memory, one and eight connections",
        services: &[Service::Bulk],
        field: Field::Splicing,
        run: bulk::from_memory,
        takes: (2.0, 0.0),
    },
    Scenario {
        name: "S4",
        title: "idle connections, filled and closed twice",
        services: &[Service::Echo],
        field: Field::Few,
        run: idle::run,
        takes: (3.0, 7.0),
    },
    Scenario {
        name: "S5a",
        title: "terminated TLS, kept-alive requests with a session cookie, 64 connections",
        services: &[Service::Https],
        field: Field::Usual,
        run: terminated::kept_alive,
        takes: (1.0, 0.1),
    },
    Scenario {
        name: "S5b",
        title: "terminated TLS, full handshake and one request each",
        services: &[Service::Https],
        field: Field::Handshakes,
        run: terminated::full_handshakes,
        takes: (1.0, 0.1),
    },
    Scenario {
        name: "S5r",
        title: "terminated TLS, resumed handshake and one request with a cookie each",
        services: &[Service::Https],
        field: Field::Handshakes,
        run: terminated::resumed_handshakes,
        takes: (1.0, 0.2),
    },
    Scenario {
        name: "S5c",
        title: "terminated TLS, bulk down and up, one connection each",
        services: &[Service::Https],
        field: Field::Usual,
        run: terminated::bulk,
        takes: (2.0, 0.0),
    },
    Scenario {
        name: "S5w",
        title: "terminated TLS, WebSocket echo of 64 bytes, 64 connections",
        services: &[Service::Https],
        field: Field::Usual,
        run: terminated::frames,
        takes: (1.0, 0.1),
    },
    Scenario {
        name: "S5i",
        title: "idle terminated connections after one request, filled and closed twice",
        services: &[Service::Https],
        field: Field::Few,
        run: idle::over_tls,
        takes: (3.0, 5.0),
    },
    Scenario {
        name: "S6",
        title: "TLS passthrough by SNI, handshake and one request each",
        services: &[Service::Tls],
        field: Field::Usual,
        run: exchanges::tls,
        takes: (1.0, 0.1),
    },
    Scenario {
        name: "S7",
        title: "reloads during S2, beside long-lived connections",
        services: &[Service::Http, Service::Echo],
        field: Field::Usual,
        run: reload::run,
        takes: (3.0, 0.5),
    },
    Scenario {
        name: "S8",
        title: "64-byte ping-pong",
        services: &[Service::Echo],
        field: Field::Waking,
        run: pingpong::run,
        takes: (1.0, 0.0),
    },
    Scenario {
        name: "S9a",
        title: "S2 beside held connections",
        services: &[Service::Http, Service::Echo],
        field: Field::Usual,
        run: crowd::beside_held,
        takes: (1.0, 1.3),
    },
    Scenario {
        name: "S9b",
        title: "short connections, each from an address of its own",
        services: &[Service::Http],
        field: Field::Usual,
        run: crowd::from_everywhere,
        takes: (0.0, 1.3),
    },
    Scenario {
        name: "S9c",
        title: "S1 beside one slow reader",
        services: &[Service::Http, Service::Bulk],
        field: Field::Usual,
        run: crowd::beside_slow_reader,
        takes: (1.2, 0.1),
    },
    Scenario {
        name: "S10",
        title: "one worker and two, and how evenly two share",
        services: &[Service::Http, Service::Echo],
        field: Field::Workers,
        run: workers::run,
        takes: (2.0, 0.2),
    },
    Scenario {
        name: "S11a",
        title: "HTTP/2 behind TLS, small answers with a session cookie, 16 connections with 8 streams each",
        services: &[Service::Http2],
        field: Field::Usual,
        run: http2::many_streams,
        takes: (1.2, 0.4),
    },
    Scenario {
        name: "S11o",
        title: "HTTP/2 behind TLS, small answers with a session cookie, 32 connections with 1 stream each",
        services: &[Service::Http2],
        field: Field::Usual,
        run: http2::one_stream,
        takes: (1.2, 0.4),
    },
    Scenario {
        name: "S11b",
        title: "HTTP/2 behind TLS, full handshake and one request each",
        services: &[Service::Http2],
        field: Field::Handshakes,
        run: http2::full_handshakes,
        takes: (1.0, 0.1),
    },
    Scenario {
        name: "S11i",
        title: "idle connections of HTTP/2 after one request, beside as many of HTTP/1.1, filled and closed twice",
        services: &[Service::Http2],
        field: Field::Few,
        run: idle::over_http2,
        takes: (4.0, 8.0),
    },
    Scenario {
        name: "S11c",
        title: "HTTP/2 behind TLS, 1 GiB by one stream, down and up",
        services: &[Service::Http2],
        field: Field::Usual,
        run: http2::one_long_stream,
        takes: (0.0, 9.0),
    },
    Scenario {
        name: "S12",
        title: "held connections that say a little, while bursts of clients connect",
        services: &[Service::Echo, Service::Http],
        field: Field::Usual,
        run: bursts::run,
        takes: (1.0, 0.5),
    },
];

/// Scenarios named on the command line; without names, all but those that run by name only.
pub fn named(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if let Some(unknown) = names.iter().find(|name| !ALL.iter().any(|known| known.name.eq_ignore_ascii_case(name))) {
        let known: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        return Err(format!("{unknown}: no such scenario; there are {}", known.join(", ")).into());
    }
    let wanted = |scenario: &&Scenario| match names {
        [] => scenario.field != Field::Workers,
        names => names.iter().any(|name| scenario.name.eq_ignore_ascii_case(name)),
    };
    Ok(ALL.iter().filter(wanted).collect())
}

impl Scenario {
    /// Whether its client is h2load.
    pub fn is_of_h2load(&self) -> bool {
        matches!(self.name, "S11a" | "S11o")
    }

    /// How many rounds it has.
    pub fn rounds(&self, scale: &Scale) -> usize {
        if self.field == Field::Few { scale.rounds.min(3) } else { scale.rounds }
    }

    /// The contestants of a scenario, of all that are installed.
    pub fn contestants(&self, all: &[Contestant]) -> Vec<Contestant> {
        match self.field {
            Field::Workers => all.first().map_or(Vec::new(), Contestant::with_workers),
            Field::Waking => {
                let busy = all.first().map(Contestant::busy);
                all.iter().filter(|who| !who.is_for_bulk()).cloned().chain(busy).collect()
            }
            Field::Handshakes => {
                let post_quantum = all.first().map(Contestant::post_quantum);
                all.iter().filter(|who| !who.is_for_bulk()).cloned().chain(post_quantum).collect()
            }
            field => all.iter().filter(|who| field == Field::Splicing || !who.is_for_bulk()).cloned().collect(),
        }
    }

    /// About how long it takes at full scale.
    pub fn estimate(&self, scale: &Scale, contestants: usize) -> Duration {
        let (windows, seconds) = self.takes;
        let turn = (scale.window + scale.warm_up).mul_f64(windows) + Duration::from_secs_f64(seconds) + START;
        turn.mul_f64((self.rounds(scale) * contestants) as f64)
    }
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
