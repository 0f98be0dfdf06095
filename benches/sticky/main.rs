//! Proves stickiness against what the backends themselves have written down: `cargo bench --bench sticky`.
//!
//! The scenarios are in `stage/`: a hundred thousand clients from addresses of their own, in 127.0.0.0/8, come to the real
//! binary, whose backends log each client; what `sticky_breaks_total` counts, by cause, is held against that log.
//! One table at the end; the exit code says whether every promise was kept. A full run takes about ten minutes; with
//! `-- --test`, or run by `cargo test --benches`, everything is small and takes seconds. Words on the command line choose
//! scenarios. Invariant: it needs nothing but loopback and leaves no process behind.

mod stage;
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use stage::{Row, Scale};

/// What can be asked for.
type Scenario = (&'static str, fn(&Scale) -> Vec<Row>);

const SCENARIOS: [Scenario; 7] = [
    ("change", |scale| [20, 150].into_iter().flat_map(|fill| stage::change::run(scale, fill)).collect()),
    ("flap", stage::flap::run),
    ("crash", stage::crash::run),
    ("outage", stage::outage::run),
    ("campus", stage::campus::run),
    ("drain", stage::drain::run),
    ("held", stage::held::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, words): (Vec<_>, Vec<_>) = arguments.iter().partition(|word| word.starts_with("--"));
    let small = options.iter().any(|option| *option == "--test") || !options.iter().any(|option| *option == "--bench");
    let scale = if small { Scale::small() } else { full() };
    support::load_support::descriptors_at_least(0);
    let wanted =
        |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()) || *word == "sticky");
    println!("{}", Row::heads());
    let began = Instant::now();
    // Holding takes minutes and no work: it goes on beside the others.
    let beside = std::thread::spawn({
        let (scale, wanted) = (scale.clone(), wanted("held"));
        move || if wanted { stage::held::run(&scale) } else { Vec::new() }
    });
    let mut missed = 0;
    let mut print = |rows: Vec<Row>| {
        for row in rows {
            println!("{row}");
            missed += usize::from(!row.missed.is_empty());
        }
    };
    for (name, run) in SCENARIOS.iter().filter(|(name, _)| *name != "held" && wanted(name)) {
        let began = Instant::now();
        print(run(&scale));
        println!("-- {name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    print(beside.join().expect("no panic"));
    println!("{} in {:.0} s", if missed == 0 { "every promise kept" } else { "MISSED" }, began.elapsed().as_secs_f64());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The scenarios, in the order of their promises.
fn full() -> Scale {
    Scale {
        clients: 100_000,
        fresh: 5_000,
        parallel: 128,
        flaps: 20,
        reloads: 100,
        restarts: 5,
        campus: 5_000,
        noise: 0.0,
        idle: 5_000,
        busy: 200,
        drain_over: Duration::from_secs(60),
        hold: Duration::from_secs(200),
        pace: 1.2,
    }
}
