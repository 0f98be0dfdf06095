//! What was asked for on the command line, and the scale that follows from it.
//!
//! Starts nothing. Invariant: a smoke run asks for little enough to end within seconds and needs nothing installed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::Result;
use crate::proxies::Contestant;
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
    /// Keep every round as JSON, in this file or as one file a scenario in this folder.
    #[arg(long, value_name = "FILE.json|FOLDER")]
    out: Option<PathBuf>,
    /// Count system calls per unit in S1, S2, S5a, S5b, S5r, S5w and S6, after the first round.
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
    /// Idle connections of S5i.
    pub visitors: usize,
    /// Connections held through the reloads of S7.
    pub long_lived: usize,
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
    let scenarios = scenarios::named(&asked.only)?;
    let sessile = asked.sessile.unwrap_or_else(|| env!("CARGO_BIN_EXE_sessile").into());
    let [before, haproxy, nginx] =
        [asked.before, asked.haproxy, asked.nginx].map(|path| path.as_deref().map(absolute).transpose());
    let mut contestants = Contestant::all(&absolute(&sessile)?, before?, haproxy?, nginx?);
    if smoke && !asked.smoke {
        // Run among other tests, which are quick and do not depend on what is installed.
        contestants.retain(Contestant::is_ours);
        scale.window /= 2;
    }
    Ok(Some(Settings { scale, contestants, scenarios, out: asked.out, strace: asked.strace }))
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
        long_lived: 200,
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
        long_lived: 20,
        reloads: 2,
        held: 50,
        sources: 200,
    }
}
