//! What the kernel says that a proxy has used: CPU time, memory, descriptors.
//!
//! A proxy is the process that was started and its descendants. CPU is the scheduler's own account in nanoseconds,
//! not ticks; only its division into user and system time comes from ticks. Invariant: nothing here costs the proxy
//! anything but the look at /proc.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use crate::Result;

/// CPU time used since a process began.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cpu {
    /// Time on a core.
    pub total: Duration,
    /// Ticks found in user space.
    pub user_ticks: u64,
    /// Ticks found in the kernel.
    pub system_ticks: u64,
}

impl Cpu {
    /// The part of the time that was spent in user space.
    pub fn user_share(self) -> f64 {
        self.user_ticks as f64 / (self.user_ticks + self.system_ticks).max(1) as f64
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }
}

/// A process and its descendants, oldest first.
pub fn family(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        for thread in threads(parent) {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{thread}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    found
}

/// Threads of a process.
pub fn threads(process: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// CPU time of one thread; zero if it has gone.
fn thread_cpu(process: u32, thread: u32) -> Duration {
    let account = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")).unwrap_or_default();
    Duration::from_nanos(account.split(' ').next().and_then(|run| run.parse().ok()).unwrap_or(0))
}

/// CPU time of a family.
pub fn cpu(family: &[u32]) -> Cpu {
    let mut sum = Cpu::default();
    for process in family {
        sum.total += threads(*process).into_iter().map(|thread| thread_cpu(*process, thread)).sum::<Duration>();
        let line = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything, come the state and so on; 12th and 13th are the ticks.
        let mut fields = line.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        sum.user_ticks += ticks();
        sum.system_ticks += ticks();
    }
    sum
}

/// User memory of a family in bytes: its own pages, and its share of those it shares.
pub fn memory(family: &[u32]) -> Result<u64> {
    let mut bytes = 0;
    for process in family {
        bytes += kib(&fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?, "Pss:")? * 1024;
    }
    Ok(bytes)
}

/// Kernel slab of the whole machine in bytes.
pub fn slab() -> Result<u64> {
    Ok(kib(&fs::read_to_string("/proc/meminfo")?, "Slab:")? * 1024)
}

/// Open descriptors of a family.
pub fn descriptors(family: &[u32]) -> Result<u64> {
    let mut count = 0;
    for process in family {
        count += fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
    }
    Ok(count)
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name} in /proc"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
