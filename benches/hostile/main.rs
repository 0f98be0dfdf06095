//! What attacks cost sessile, and what its other clients notice: `cargo bench --bench hostile`.
//!
//! | where | what |
//! |---|---|
//! | `attacks` | the attackers: one process each, bounded in rate and in connections |
//! | `http2` | those of HTTP/2 |
//! | `floods` | backends that attack: interim responses and one-byte chunks without end |
//! | `others` | the other clients, and how long their requests take |
//! | `stage` | the process under attack, with a listener for each kind of attack |
//!
//! Every attack has rounds of three windows: quiet, quiet again, and under attack. Printed are
//!
//! - the CPU time of sessile per CPU time of the attacker, without what the other clients cost in the quiet window;
//! - p50 and p99 of the others' requests under attack, as ratios to the quiet windows;
//! - as a null, the same ratios of the second quiet window to the first: what the machine does by itself;
//! - memory of sessile's own for each connection of the attacker: what it grows by at most, and what is left.
//!
//! Sessile has one worker on a core of its own; clients, attackers (at the lowest priority) and backends share another.
//! Noise: latencies of all rounds are taken together, from the moment at which a request was due; p99 under 0.5 ms
//! counts as 0.5 ms; a ratio of p99 is divided by its null where that is above 1; CPU below a hundredth of the window
//! is no cost. Bars: CPU 5; p99 2, and under attacks of HTTP/2 1.3; 2 MiB for each connection of these. A missed bar
//! ends a full run with an error, and so does a quiet p99 above 50 ms: on a busy machine nothing can be said. It takes
//! nine minutes of an idle machine and at most ten; `-- --test`, or `cargo test --benches`, does everything once, small,
//! and without bars. Words choose attacks.
//!
//! Invariant: at most 1,000 connections at a time, nothing but loopback, and no process is left behind.

mod attacks;
mod floods;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/it/http2/frames.rs"]
mod frames;
mod http2;
#[allow(dead_code, reason = "the comparison uses more of it")]
#[path = "../compare/launch.rs"]
mod launch;
#[allow(dead_code, reason = "the comparison uses more of it")]
#[path = "../compare/measure.rs"]
mod measure;
mod others;
mod stage;
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use attacks::Attack;
use others::Latencies;
use stage::Stage;

/// What goes wrong here is told to a person and ends the run.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// The most CPU time of sessile for one of the attacker.
const CPU_BAR: f64 = 5.0;
/// A p99 below this is that of the scheduler.
const P99_FLOOR: Duration = Duration::from_micros(500);
/// A quiet p99 above this is that of a busy machine.
const P99_BUSY: Duration = Duration::from_millis(50);
/// The longest that a run may take.
const LONGEST: Duration = Duration::from_secs(585);
/// CPU time below this part of the windows is no cost.
const CPU_FLOOR: f64 = 0.01;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [launch::LAUNCH, ..] => launch::become_program(std::env::args_os().skip(2)).map(|never| match never {}),
        [attacks::ROLE, name, ref rest @ ..] => attacks::play(name, rest).map(|()| true),
        [floods::ROLE, name] => floods::serve(name).map(|()| true),
        _ => run(&words),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hostile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<bool> {
    let (options, words): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|word| word.starts_with("--"));
    let small = options.contains(&"--test") || !options.contains(&"--bench");
    let wanted = |attack: &&Attack| {
        words.is_empty() || words.iter().any(|word| attack.name.contains(word) || *word == "hostile")
    };
    let (rounds, window) = if small { (1, Duration::from_millis(150)) } else { (3, Duration::from_secs(2)) };
    support::load_support::descriptors_at_least(0);
    let cores = launch::Cores::find()?;
    let (began, mut missed) = (Instant::now(), 0);
    println!(
        "{:<16} {:>11} {:>22} {:>36} {:>18}",
        "attack", "CPU (null)", "p50 quiet, attacked", "p99 quiet, attacked (null)", "KiB each, left"
    );
    for attack in attacks::all().filter(wanted) {
        let mut row = Row::of(attack);
        let stage = Stage::start(&cores)?;
        for _ in 0..rounds {
            if began.elapsed() > LONGEST {
                return Err("the machine is too busy: the attacks take more than ten minutes".into());
            }
            row.round(&stage, window)?;
        }
        let verdict = row.verdict();
        println!("{:<16} {row} {verdict}", attack.name);
        missed += usize::from(!verdict.is_empty());
    }
    println!("{missed} above the bars in {:.0} s", began.elapsed().as_secs_f64());
    Ok(small || missed == 0)
}

/// CPU time of processes, with that of threads that have ended, in the kernel's ticks.
fn cpu(processes: &[u32]) -> Duration {
    let measure::Cpu { user_ticks, system_ticks, .. } = measure::cpu(processes);
    Duration::from_secs(user_ticks + system_ticks) / rustix::param::clock_ticks_per_second() as u32
}

/// The windows of one attack, all rounds together.
struct Row {
    attack: &'static Attack,
    quiet: Window,
    null: Window,
    attacked: Window,
    attacker: Duration,
    /// Memory of sessile's own before the first attack, what an attack has made of it at most, and what is left.
    memory: Option<usize>,
    most: usize,
    left: usize,
}

#[derive(Default)]
struct Window {
    time: Duration,
    cpu: Duration,
    latencies: Latencies,
}

impl Window {
    fn take(&mut self, stage: &Stage, attack: &Attack, window: Duration) -> Result<()> {
        let process = [stage.sessile.pid()];
        let (began, before) = (Instant::now(), cpu(&process));
        self.latencies.add(others::ask(stage, attack.others, window)?);
        self.cpu += cpu(&process) - before;
        self.time += began.elapsed();
        Ok(())
    }
}

impl Row {
    fn of(attack: &'static Attack) -> Self {
        let [quiet, null, attacked] = std::array::from_fn(|_| Window::default());
        Self { attack, quiet, null, attacked, attacker: Duration::ZERO, memory: None, most: 0, left: 0 }
    }

    fn round(&mut self, stage: &Stage, window: Duration) -> Result<()> {
        let attack = self.attack;
        // Connections and pages that the first requests need.
        others::ask(stage, attack.others, window / 5)?;
        self.quiet.take(stage, attack, window)?;
        self.null.take(stage, attack, window)?;
        self.memory.get_or_insert_with(|| stage.sessile.anonymous_kib());
        let attacker = stage.attack(attack)?;
        // The attack has to stand before its effect is measured.
        let stands = Instant::now() + window;
        while Instant::now() < stands {
            self.most = self.most.max(stage.sessile.anonymous_kib());
            std::thread::sleep(window / 100);
        }
        let before = stage.attackers_cpu(&attacker);
        self.attacked.take(stage, attack, window)?;
        self.attacker += stage.attackers_cpu(&attacker) - before;
        self.most = self.most.max(stage.sessile.anonymous_kib());
        drop(attacker);
        std::thread::sleep(window / 5);
        self.left = stage.sessile.anonymous_kib();
        Ok(())
    }

    fn cpu(&self, of: &Window) -> f64 {
        let extra = of.cpu.as_secs_f64() - self.quiet.cpu.as_secs_f64();
        let floor = CPU_FLOOR * of.time.as_secs_f64();
        if extra <= floor { 0.0 } else { extra / self.attacker.as_secs_f64().max(floor) }
    }

    fn p99(&self, of: &Window) -> f64 {
        let p99 = |window: &Window| window.latencies.percentile(99).max(P99_FLOOR).as_secs_f64();
        p99(of) / p99(&self.quiet)
    }

    /// KiB for each connection of the attacker that this is more than before.
    fn each(&self, memory: usize) -> f64 {
        memory.saturating_sub(self.memory.unwrap_or(memory)) as f64 / self.attack.connections as f64
    }

    /// The bars that are missed.
    fn verdict(&self) -> String {
        let (cpu, p99) = (self.cpu(&self.attacked), self.p99(&self.attacked) / self.p99(&self.null).max(1.0));
        let Attack { p99_bar, growth_bar, .. } = *self.attack;
        let missed = [("CPU", cpu, CPU_BAR), ("p99", p99, p99_bar), ("KiB", self.each(self.most), growth_bar)]
            .map(|(name, ratio, bar)| if ratio > bar { format!(" {name} {ratio:.1} > {bar}") } else { String::new() });
        let busy = self.quiet.latencies.percentile(99) > P99_BUSY;
        missed.concat() + if busy { " a busy machine" } else { "" }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |window: &Window, percent| window.latencies.percentile(percent).as_secs_f64() * 1e3;
        write!(f, "{:>5.2} ({:.2})", self.cpu(&self.attacked), self.cpu(&self.null))?;
        write!(f, "  {:>6.2} ms {:>8.2} ms", ms(&self.quiet, 50), ms(&self.attacked, 50))?;
        write!(f, "  {:>6.2} ms {:>8.2} ms", ms(&self.quiet, 99), ms(&self.attacked, 99))?;
        write!(f, "  {:.2} ({:.2})", self.p99(&self.attacked), self.p99(&self.null))?;
        write!(f, "  {:>8.1} {:>8.1}", self.each(self.most), self.each(self.left))?;
        let failed = [&self.quiet, &self.null, &self.attacked].map(|window| window.latencies.failed);
        if failed == [0; 3] { Ok(()) } else { write!(f, "  failed {failed:?}") }
    }
}
