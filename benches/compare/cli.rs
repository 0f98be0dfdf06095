//! What was asked for on the command line, and the scale that follows from it.
//!
//! Starts nothing. Invariant: a smoke run asks for little enough to end within seconds and needs nothing installed;
//! what is left out for that reason is named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::Result;
use crate::load::h2load::{self, Shape};
use crate::proxies::{Contestant, Peers, Programs, file_server};
use crate::scenarios::{self, Scenario};

/// Race sessile against HAProxy and nginx on this machine.
#[derive(Debug, Parser)]
#[command(name = "compare", max_term_width = 120)]
struct Arguments {
    /// Rounds of every scenario; in each, every contestant has one turn.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long one measurement takes.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Scenarios to run instead of all, such as S1,S9b; S10 runs only if it stands here.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Which peers race: as they come, well tuned, or none. What tuned means is printed before a run.
    #[arg(long, value_delimiter = ',', default_value = "default,tuned")]
    peers: Vec<Peers>,
    /// No access log, no metrics and no checks, in every program.
    #[arg(long)]
    off: bool,
    /// Another HAProxy than the one in PATH.
    #[arg(long)]
    haproxy: Option<PathBuf>,
    /// Another nginx than the one in PATH.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// Another sessile than the one built for this bench.
    #[arg(long)]
    sessile: Option<PathBuf>,
    /// An earlier sessile that races too.
    #[arg(long)]
    before: Option<PathBuf>,
    /// Keep every round as JSON, in this file or as one file a scenario in this folder; with --off as S1-off.json.
    #[arg(long, value_name = "FILE.json|FOLDER")]
    out: Option<PathBuf>,
    /// Count system calls per unit in S1, S2, S3f and S3u (per MiB over one connection), S5a, S5b, S5r, S5w, S6, S11a,
    /// S11b and S11o, after the first round.
    #[arg(long)]
    strace: bool,
    /// One short round of everything, to see that it works. Without `--bench`, of sessile alone.
    #[arg(long)]
    smoke: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given to every bench in a smoke run of all.
    #[arg(long, hide = true)]
    test: bool,
    /// Benches to run, as `cargo bench` passes them to each.
    #[arg(hide = true)]
    filters: Vec<String>,
}

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Rounds of a scenario.
    pub rounds: usize,
    /// One measurement.
    pub window: Duration,
    /// Load before it that is not measured.
    pub warm_up: Duration,
    /// Clients at the same time, where nothing else is said.
    pub clients: usize,
    /// Idle connections of S4.
    pub idle: usize,
    /// Idle connections of S5i, and of each protocol of S11i.
    pub visitors: usize,
    /// Connections and streams of S11a.
    pub multiplexed: Shape,
    /// Connections and streams of S11o.
    pub single: Shape,
    /// Bytes of the stream of S11c.
    pub stream: u64,
    /// Connections held through the reloads of S7 and the bursts of S12.
    pub long_lived: usize,
    /// Clients that connect at once in S12, and the time from one burst to the next.
    pub burst: (usize, Duration),
    /// Bytes of the file that is downloaded.
    pub file: u64,
    /// Bytes of a file that is uploaded.
    pub upload: u64,
    /// Reloads of S7.
    pub reloads: u32,
    /// Connections held beside S9a.
    pub held: usize,
    /// Source addresses of S9b.
    pub sources: usize,
}

/// Everything that decides a run.
#[derive(Debug)]
pub struct Settings {
    /// How large and long the scenarios are.
    pub scale: Scale,
    /// The proxies that race, sessile first.
    pub contestants: Vec<Contestant>,
    /// The scenarios to run.
    pub scenarios: Vec<&'static Scenario>,
    /// Contestants that are only asked whether they accept their configurations.
    pub judged: Vec<Contestant>,
    /// The nginx that serves files as backend, where a scenario needs one.
    pub file_server: Option<PathBuf>,
    /// What the h2load says of itself that asks, where a scenario needs one.
    pub h2load: Option<String>,
    /// Whether access log, metrics and checks are off.
    pub off: bool,
    /// The folder for one file of figures per scenario.
    pub out: Option<PathBuf>,
    /// Whether system calls are counted.
    pub strace: bool,
}

/// Reads the command line; nothing if this bench is not meant.
pub fn settings() -> Result<Option<Settings>> {
    let asked = Arguments::parse();
    if !asked.filters.is_empty() && !asked.filters.iter().any(|filter| "compare".contains(filter.as_str())) {
        return Ok(None);
    }
    let smoke = asked.smoke || asked.test || !asked.bench;
    let mut scale = if smoke { smoke_scale() } else { full_scale(asked.rounds, asked.seconds)? };
    let mut scenarios = scenarios::named(&asked.only)?;
    let sessile = asked.sessile.unwrap_or_else(|| env!("CARGO_BIN_EXE_sessile").into());
    let [before, haproxy, nginx] =
        [asked.before, asked.haproxy, asked.nginx].map(|path| path.as_deref().map(absolute).transpose());
    let programs = Programs { sessile: absolute(&sessile)?, before: before?, haproxy: haproxy?, nginx: nginx? };
    let file_server = served_by(&mut scenarios, programs.nginx.as_deref());
    let h2load = asked_by(&mut scenarios);
    let mut contestants = Contestant::all(programs, &asked.peers);
    let mut judged = Vec::new();
    if smoke && !asked.smoke {
        // Among other tests sessile races alone, which is quick; of what is installed, the configurations are judged.
        judged = contestants.clone();
        contestants.truncate(1);
        scale.window /= 2;
    }
    Ok(Some(Settings {
        scale,
        contestants,
        scenarios,
        judged,
        file_server,
        h2load,
        off: asked.off,
        out: asked.out,
        strace: asked.strace,
    }))
}

/// The nginx behind scenarios with files; without one they are left out.
fn served_by(scenarios: &mut Vec<&'static Scenario>, nginx: Option<&Path>) -> Option<PathBuf> {
    let needs = |scenario: &&Scenario| scenario.services.iter().any(|service| service.is_of_nginx());
    let left_out: Vec<_> = scenarios.iter().copied().filter(needs).map(|scenario| scenario.name).collect();
    let server = file_server(nginx).filter(|_| !left_out.is_empty());
    if server.is_none() && !left_out.is_empty() {
        println!("Without {}, which need nginx as backend: apt-get install nginx-light", left_out.join(" and "));
        scenarios.retain(|scenario| !needs(scenario));
    }
    server
}

/// The h2load that is the client of some scenarios; without one they are left out.
fn asked_by(scenarios: &mut Vec<&'static Scenario>) -> Option<String> {
    let left_out: Vec<_> =
        scenarios.iter().filter(|scenario| scenario.is_of_h2load()).map(|scenario| scenario.name).collect();
    if left_out.is_empty() {
        return None;
    }
    let version = h2load::version();
    if version.is_none() {
        println!("Without {}, the client of which is h2load: apt-get install nghttp2-client", left_out.join(" and "));
        scenarios.retain(|scenario| !scenario.is_of_h2load());
    }
    version
}

/// Programs run in folders of their own.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()).into())
}

fn full_scale(rounds: usize, seconds: f64) -> Result<Scale> {
    let window = Duration::try_from_secs_f64(seconds).map_err(|_| format!("--seconds {seconds}: not a duration"))?;
    if rounds == 0 || window < Duration::from_millis(50) {
        return Err("at least one round of 0.05 s".into());
    }
    Ok(Scale {
        rounds,
        window,
        warm_up: (window / 5).min(Duration::from_millis(300)),
        clients: 64,
        idle: 8_000,
        visitors: 2_000,
        multiplexed: Shape { connections: 16, streams: 8 },
        single: Shape { connections: 32, streams: 1 },
        stream: 1 << 30,
        long_lived: 200,
        burst: (500, Duration::from_millis(250)),
        file: 128 << 20,
        upload: 32 << 20,
        reloads: 10,
        held: 2_000,
        sources: 10_000,
    })
}

fn smoke_scale() -> Scale {
    Scale {
        rounds: 1,
        window: Duration::from_millis(200),
        warm_up: Duration::from_millis(20),
        clients: 8,
        idle: 100,
        visitors: 100,
        multiplexed: Shape { connections: 2, streams: 8 },
        single: Shape { connections: 4, streams: 1 },
        stream: 8 << 20,
        long_lived: 20,
        burst: (50, Duration::from_millis(50)),
        file: 4 << 20,
        upload: 2 << 20,
        reloads: 2,
        held: 50,
        sources: 200,
    }
}
