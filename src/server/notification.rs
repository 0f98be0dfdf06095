//! [`Notification`]: one thing that the service manager is told, as sd_notify(3) writes it.
//!
//! Sends nothing (`notify` does). Invariant: a notification is one or more whole assignments, each on one line.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::remote_text::shown;

/// One assignment of a message to the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification<'n> {
    /// A configuration is in force: after the start, and after a reload whatever its verdict.
    Ready,
    /// A reload has begun.
    Reloading {
        /// Microseconds of CLOCK_MONOTONIC, by which the manager tells this reload from one before its signal.
        monotonic_us: u64,
    },
    /// The process has begun to stop; no `Ready` follows.
    Stopping,
    /// One line for `systemctl status`; characters that cannot be shown are escaped.
    Status(&'n str),
    /// The process is alive, as often as the manager asked for it.
    Watchdog,
    /// The start or the stop needs so much longer, whatever the unit allows.
    ExtendTimeout(Duration),
    /// Another process leads the service from now on.
    MainPid(u32),
}

impl Notification<'_> {
    /// A reload that begins now.
    pub fn reloading() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        Self::Reloading { monotonic_us: now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000 }
    }

    /// True if a later message makes up for the loss of this one.
    pub(super) fn is_repeated(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Watchdog | Self::ExtendTimeout(_))
    }
}

impl fmt::Display for Notification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            Self::Reloading { monotonic_us } => write!(f, "RELOADING=1\nMONOTONIC_USEC={monotonic_us}"),
            Self::Stopping => f.write_str("STOPPING=1"),
            Self::Status(line) => write!(f, "STATUS={}", shown(line)),
            Self::Watchdog => f.write_str("WATCHDOG=1"),
            Self::ExtendTimeout(by) => write!(f, "EXTEND_TIMEOUT_USEC={}", by.as_micros()),
            Self::MainPid(pid) => write!(f, "MAINPID={pid}"),
        }
    }
}
