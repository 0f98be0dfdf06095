//! Starts programs on a core of their own that end with this process.
//!
//! Both can only be set by the process itself before it becomes the program, so this binary is started first, in a
//! hidden role. Invariant: whatever is launched here is told to end when the harness dies, however that happens.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;

/// First argument of the role that becomes another program.
pub const LAUNCH: &str = "launch";
/// First argument of the role that serves as backend.
pub const BACKEND: &str = "backend";

/// The cores of a run.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// Of the proxy, alone.
    pub proxy: usize,
    /// Of clients and backends; the same where there is only one.
    pub others: usize,
    /// How many there are.
    pub usable: usize,
}

impl Cores {
    /// The first two that this process may use.
    pub fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut all = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let proxy = all.next().ok_or("no core may be used")?;
        Ok(Self { proxy, others: all.next().unwrap_or(proxy), usable: allowed.count() as usize })
    }
}

/// Puts the calling thread, and what it starts, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// A program on a core, not started.
pub fn on_core(core: usize, program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(LAUNCH).arg(core.to_string()).arg(program);
    Ok(command)
}

/// The hidden role: `CORE PROGRAM ARGUMENT…`. Returns only where that fails.
pub fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible> {
    let core = arguments.next().and_then(|core| core.to_str()?.parse().ok()).ok_or("launch: no core")?;
    let program = arguments.next().ok_or("launch: no program")?;
    pin(core)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let error = Command::new(&program).args(arguments).exec();
    Err(format!("{}: {error}", program.display()).into())
}
