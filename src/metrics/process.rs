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

/// What the process has used of the machine since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// Time on a processor, in user and in kernel mode, in seconds.
    pub cpu_s: f64,
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
    /// Addresses that are in use, in bytes.
    pub virtual_bytes: u64,
    /// Time of the start, in seconds since 1970.
    pub start_unix_s: f64,
}

impl ProcessUsage {
    /// Reads the usage of this process; `None` without `/proc`.
    pub fn of_this_process() -> Option<Self> {
        let of_process = std::fs::read_to_string("/proc/self/stat").ok()?;
        let of_machine = std::fs::read_to_string("/proc/stat").ok()?;
        let booted = of_machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        let (ticks, page) = (rustix::param::clock_ticks_per_second() as f64, rustix::param::page_size() as u64);
        Self::parse(&of_process, booted, ticks, page)
    }

    /// Reads a line as proc_pid_stat(5) has it; `ticks` are those of a second.
    fn parse(line: &str, booted_unix_s: f64, ticks: f64, page_bytes: u64) -> Option<Self> {
        // The second field is the name of the program, which may hold anything.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_s: (field(14)? + field(15)?) as f64 / ticks,
            resident_bytes: field(24)? * page_bytes,
            virtual_bytes: field(23)?,
            start_unix_s: booted_unix_s + field(22)? as f64 / ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_behind_a_name_of_any_kind() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 3 0 6000 8192000 25 18446744073709551615 1 1";
        let expected =
            ProcessUsage { cpu_s: 2.0, resident_bytes: 102_400, virtual_bytes: 8_192_000, start_unix_s: 1_060.0 };
        assert_eq!(ProcessUsage::parse(line, 1_000.0, 100.0, 4_096), Some(expected));
        assert_eq!(ProcessUsage::parse("7 (a) S 1", 1_000.0, 100.0, 4_096), None);
    }

    #[test]
    fn usage_of_this_process_is_what_it_is() {
        let usage = ProcessUsage::of_this_process().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(usage.start_unix_s <= now + 1.0 && usage.start_unix_s > now - 86_400.0, "{usage:?}");
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes > usage.resident_bytes, "{usage:?}");
    }

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
