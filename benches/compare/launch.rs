//! Starts programs on cores of their own that end with this process.
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
    /// The core of the proxy alone.
    pub proxy: usize,
    /// The core of clients and backends; the same as `proxy` on a machine with one core.
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

/// Puts the calling thread, and what it starts, on some cores.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Has a thread, or a process with one thread, run only while no other task of its core wants to.
pub fn give_way(task: u32) -> Result<()> {
    let chrt = Command::new("chrt").args(["--idle", "--pid", "0", &task.to_string()]).output();
    let output = chrt.map_err(|error| format!("chrt: {error} (apt-get install util-linux)"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("chrt: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// A program on some cores, not started.
pub fn on_cores(cores: &[usize], program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let list: Vec<_> = cores.iter().map(usize::to_string).collect();
    command.arg(LAUNCH).arg(list.join(",")).arg(program);
    Ok(command)
}

/// The hidden role: `CORE,… PROGRAM ARGUMENT…`. Returns only where that fails.
pub fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Result<Infallible> {
    let cores = arguments.next().and_then(|list| list.to_str()?.split(',').map(|core| core.parse().ok()).collect());
    let cores: Vec<usize> = cores.ok_or("launch: no cores")?;
    let program = arguments.next().ok_or("launch: no program")?;
    pin(&cores)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let error = Command::new(&program).args(arguments).exec();
    Err(format!("{}: {error}", program.display()).into())
}
