//! What the tests share: the process under test, backends, clients, waiting.

pub mod authority;
pub mod backend;
pub mod browser;
pub mod chromium;
pub mod go;
pub mod http;
pub mod load_support;
pub mod logfmt;
pub mod monitor;
pub mod program;
pub mod prometheus;
pub mod rng;
pub mod sessile;
pub mod wrk;

use std::io::Write;
use std::time::{Duration, Instant};

pub use sessile::Sessile;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test did not run; a failure where everything has to run.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("SESSILE_TEST_ALL").is_none(), "{test}: {why}");
    // Past the capture of `println!`, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stdout(), "SKIPPED {test}: {why}");
}

/// Whether a program is there; if not, the test is skipped.
pub fn has(test: &str, program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

/// Whether the test runs as root; if not, it is skipped.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

/// A number from the environment, for a run of full size; otherwise the smaller one of the suite.
pub fn size(variable: &str, of_suite: usize) -> usize {
    std::env::var(variable).map_or(of_suite, |text| text.parse().expect("a number"))
}
