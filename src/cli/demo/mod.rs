//! `sessile demo`: three backends, the balancer and 200 clients, on this machine, in a few seconds; or backends alone.
//!
//! The balancer is this binary as a child process, with a file, an admin socket and reloads; no rule of it is repeated
//! here. Invariants: at any end of the demo its processes end and its files are removed; the exit code is 0 only if
//! every promise was kept.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::configuration::{HASH, RING, ROUND_ROBIN};
use self::report::Report;
use self::stage::DemoStage;
use super::CommandError;
use super::exit_codes::{EXIT_INTERNAL, EXIT_INTERRUPTED};

mod backends;
mod balancer;
mod clients;
mod configuration;
mod findings;
mod report;
mod scenarios;
mod stage;
mod stand_ins;
mod ways;
mod websocket;

/// Arguments of `sessile demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Exit after the scenarios instead of serving until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Start only backends, at the loopback addresses that configuration files name, and serve until Ctrl-C.
    #[arg(long, conflicts_with = "once")]
    backends: bool,
    /// A configuration file with backends to start; may be given several times [default: the examples].
    #[arg(short, long, value_name = "FILE", requires = "backends")]
    config: Vec<PathBuf>,
}

impl Demo {
    /// Runs all scenarios and prints them; or starts backends alone.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let failure = |error| CommandError::Internal(format!("demo: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failure)?;
        runtime.block_on(async {
            // Before anything starts: from here on a signal drops the future, which stops all processes.
            let mut signals = DemoSignals::new().map_err(failure)?;
            if self.backends {
                let _stand_ins = stand_ins::start(&self.config, out)?;
                signals.any().await;
                return Ok(0);
            }
            tokio::select! {
                biased;
                () = signals.any() => Ok(EXIT_INTERRUPTED),
                played = self.play(out) => match played? {
                    (_, code) if self.once => Ok(code),
                    (_stage, code) => {
                        signals.any().await;
                        Ok(code)
                    }
                }
            }
        })
    }

    /// Runs the scenarios in order; the returned stage keeps serving until it is dropped.
    async fn play(&self, out: &mut impl Write) -> Result<(DemoStage, u8), CommandError> {
        let started = Instant::now();
        let mut report = Report::new(out);
        let mut stage = DemoStage::set().await?;
        report.print(&introduction(&stage))?;
        report.print(&to_try(&stage))?;

        report.scene(&scenarios::ip_hash(&mut stage).await?)?;
        report.scene(&scenarios::ring(&mut stage).await?)?;
        report.scene(&scenarios::one_added(&mut stage).await?)?;
        report.scene(&scenarios::round_robin(&mut stage).await?)?;
        let homes = stage.ask_keyed().await?;
        report.scene(&scenarios::one_killed(&mut stage, &homes).await?)?;
        report.scene(&scenarios::one_back(&mut stage, &homes).await?)?;
        report.scene(&ways::logged_in_users().await?)?;

        let (promises, broken) = report.promises();
        let (connections, seconds) = (stage.connections(), started.elapsed().as_secs_f64());
        let verdict = if broken == 0 { "all kept".to_owned() } else { format!("{broken} BROKEN") };
        report.print(&format!("\n{connections} connections in {seconds:.1} s; {promises} promises, {verdict}."))?;
        if !self.once {
            report.print("\nThe balancer goes on serving until Ctrl-C.")?;
            report.print(&to_try(&stage))?;
        }
        Ok((stage, if broken == 0 { 0 } else { EXIT_INTERNAL }))
    }
}

fn introduction(stage: &DemoStage) -> String {
    let backends = stage.backends().iter().map(|backend| format!("{} at {}", backend.name(), backend.address()));
    let backends: Vec<_> = backends.collect();
    let balancer = stage.balancer();
    let (id, file) = (balancer.id(), balancer.folder().configuration());
    format!("Three backends: {}.\nBefore them sessile, process {id}, with {}.", backends.join(", "), file.display())
}

fn to_try(stage: &DemoStage) -> String {
    let folder = stage.balancer().folder();
    let program = from_here(stage.balancer().program());
    let (hash, ring, round_robin) = (stage.address(HASH), stage.address(RING), stage.address(ROUND_ROBIN));
    let (file, socket, log) = (folder.configuration(), folder.socket(), folder.connections());
    let (program, file, socket, log) = (program.display(), file.display(), socket.display(), log.display());
    format!(
        "
To try:
  curl http://{hash}                          IP hash: always the same backend
  curl --interface 127.0.0.77 http://{hash}   the same from another address
  curl http://{ring}                          consistent ring
  curl http://{round_robin}                          round robin: another backend each time
  websocat ws://{ring}/ws                     an echo that survives reloads
  {program} explain --config {file} --listener {HASH} --client 127.0.0.77
  {program} status --socket {socket}
  tail -f {log}
"
    )
}

/// A path relative to the working directory, if it is inside.
fn from_here(path: &Path) -> &Path {
    std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}

/// Signals that end the demo: SIGINT, SIGTERM, SIGHUP.
struct DemoSignals([Signal; 3]);

impl DemoSignals {
    fn new() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
