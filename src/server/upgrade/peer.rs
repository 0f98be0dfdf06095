//! [`PeerProcess`]: the process at the other end of a channel, by a descriptor.
//!
//! Speaks no message (`messages.rs` does). Invariant: no other process is ever taken for this one, because the
//! descriptor is of one process, and its number is not given again before it was opened.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::channel::{Channel, ChannelError};
use crate::server::look::wait_until;

/// How long a process may take to end that was killed, or has closed its end of a channel on its way out.
const END_MAX: Duration = Duration::from_secs(10);

/// Another process.
#[derive(Debug)]
pub struct PeerProcess {
    pid: u32,
    /// `None`: it had ended before it was opened.
    descriptor: Option<OwnedFd>,
}

impl PeerProcess {
    /// The process with this number, which runs or has just run.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let opened = number.ok_or(Errno::SRCH).and_then(|number| pidfd_open(number, PidfdFlags::empty()));
        match opened {
            Ok(descriptor) => Ok(Self { pid, descriptor: Some(descriptor) }),
            Err(Errno::SRCH) => Ok(Self::ended(pid)),
            Err(error) => Err(error.into()),
        }
    }

    /// A process that has ended.
    pub fn ended(pid: u32) -> Self {
        Self { pid, descriptor: None }
    }

    /// The process that has made a channel.
    pub fn of(channel: &Channel) -> Result<Self, ChannelError> {
        Ok(Self::open(channel.maker()?)?)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; a process that has ended needs none.
    pub fn signal(&self, signal: Signal) {
        if let Some(descriptor) = &self.descriptor {
            let _ = pidfd_send_signal(descriptor, signal);
        }
    }

    /// True if the process has ended: its descriptor is readable then (pidfd_open(2)).
    pub fn has_ended(&self) -> bool {
        let Some(descriptor) = &self.descriptor else { return true };
        let mut process = [PollFd::new(descriptor, PollFlags::IN)];
        poll(&mut process, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the end of a process that is on its way out; false: it goes on.
    pub async fn ends_within(&self, most: Duration) -> bool {
        wait_until(Instant::now() + most, || async { self.has_ended() }).await
    }

    /// Kills the process, and waits until it has ended.
    pub async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ends_within(END_MAX).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_process_is_seen_to_end_and_one_that_has_ended_is_known_to_have() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = PeerProcess::open(child.id()).unwrap();
        assert!(!process.has_ended() && !process.ends_within(Duration::from_millis(50)).await);
        process.kill().await;
        assert!(process.has_ended(), "also before its parent has asked for it");
        child.wait().unwrap();
        assert!(PeerProcess::open(child.id()).unwrap().has_ended());
        // Neither is sent to another process.
        process.signal(Signal::KILL);
        PeerProcess::open(0).unwrap().signal(Signal::KILL);
    }
}
