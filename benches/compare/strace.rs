//! Counts the system calls of a proxy, with strace: every thread of every process, those that log and check included.
//!
//! The count slows the proxy down, so it comes after what is measured and never beside it. Counts do not lie on a noisy
//! machine; but a slow proxy sees more at once, so they are on the low side. Invariant: the tracer lets go before the
//! count is read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::measure;

/// Between the moment the kernel knows a tracer and that in which it counts, and for the proxy's last calls.
const SETTLE: Duration = Duration::from_millis(200);

/// Calls by name.
pub type Calls = BTreeMap<String, f64>;

/// A running count.
pub struct Count {
    strace: Child,
    report: std::path::PathBuf,
}

impl Count {
    /// Begins to count; returns once every thread is watched.
    pub fn begin(family: &[u32], folder: &Path) -> Result<Self> {
        let report = folder.join("strace.txt");
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-c", "-U", "calls,name", "-o"])
            .arg(&report)
            .args(family.iter().flat_map(|process| ["-p".to_owned(), process.to_string()]))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace: {error} (apt-get install strace)"))?;
        let mut count = Self { strace, report };
        let give_up = Instant::now() + Duration::from_secs(5);
        let threads = |process: &u32| measure::threads(*process);
        while !family.iter().flat_map(threads).all(is_watched) {
            if count.strace.try_wait()?.is_some() || Instant::now() > give_up {
                return Err("strace may not watch the proxy".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(SETTLE);
        Ok(count)
    }

    /// Stops and tells the calls per unit.
    pub fn end(mut self, units: u64) -> Result<Calls> {
        std::thread::sleep(SETTLE);
        kill_process(Pid::from_child(&self.strace), Signal::INT)?;
        self.strace.wait()?;
        let text = fs::read_to_string(&self.report)?;
        let per_unit = |line: &str| {
            let (count, name) = line.trim().split_once(' ')?;
            let count: f64 = count.parse().ok()?;
            Some((name.trim().to_owned(), count / units.max(1) as f64))
        };
        Ok(text.lines().filter_map(per_unit).filter(|(name, _)| name != "total").collect())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn is_watched(thread: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    status.lines().filter_map(|line| line.strip_prefix("TracerPid:")).any(|tracer| tracer.trim() != "0")
}
