//! [`ProcessStatus`]: the process in the status, and the processes that stop beside it.
//!
//! Asks no other process. Invariant: what is shown of another process is what that process has said of itself.

use serde::{Deserialize, Serialize};

/// The process, and those with the same admin socket that stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Number of the process.
    #[serde(default)]
    pub pid: u32,
    /// Seconds since the process began to stop; `None`: it does not stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_s: Option<u64>,
    /// Listening sockets that workers hold; 0 once a process that stops has closed them.
    #[serde(default)]
    pub listening_sockets: u64,
    /// Other processes with the same admin socket that stop, as they were a moment ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<DrainingProcess>,
}

/// A process that stops while another one serves new clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingProcess {
    /// Number of the process.
    pub pid: u32,
    /// Version of its binary.
    pub version: String,
    /// Seconds since it began to stop.
    pub stopping_s: u64,
    /// Connections that are open at it.
    pub open: u64,
    /// Path of its admin socket.
    pub socket: String,
}

/// File descriptors of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// Descriptors that are open now.
    pub open: u64,
    /// Soft limit of descriptors (RLIMIT_NOFILE).
    pub max: u64,
}

impl Descriptors {
    /// Counts the descriptors of this process; `None` without `/proc`.
    pub fn of_this_process() -> Option<Self> {
        let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64 - 1; // the directory itself
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Some(Self { open, max: limit.current.unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_this_process_are_counted() {
        let before = Descriptors::of_this_process().unwrap();
        let held: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let with = Descriptors::of_this_process().unwrap();
        assert!(with.open >= before.open + 100, "{before:?} {with:?}"); // other tests open and close theirs
        assert!(with.open <= with.max);
        drop(held);
    }
}
