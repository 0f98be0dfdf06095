//! A service manager that keeps descriptors (sd_pid_notify_with_fds(3)) and passes them to the next process, and the
//! `systemctl` by which it is asked.
//!
//! The process believes to be the service `UNIT`: its file `/proc/self/cgroup` is another one.

use std::fs::{self, File};
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;

use crate::support::{Sessile, has, is_root};

const UNIT: &str = "sessile-of-a-test.service";

/// Becomes the program in `$0`, with standard input as the descriptor that is passed. `$CGROUP`: its control group.
const BECOME: &str = r#"
mount --bind "$CGROUP" /proc/$$/cgroup
if [ -n "$PASSED" ]; then
    exec 3<&0 </dev/null
    export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES="$PASSED"
fi
exec "$0" "$@"
"#;

/// Answers what is in the files beside it.
const SYSTEMCTL: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$*" >>"$folder/asked"
case "$*" in
*FileDescriptorStoreMax*) cat "$folder/store" ;;
*list-jobs*) cat "$folder/jobs" ;;
esac
"#;

#[derive(Default)]
struct Kept {
    /// Messages, without those that give a descriptor or want an answer.
    told: Vec<String>,
    store: Vec<(String, OwnedFd)>,
    is_deaf: bool,
    unanswered: Vec<OwnedFd>,
    stops: bool,
}

pub struct Keeper {
    dir: tempfile::TempDir,
    kept: Arc<Mutex<Kept>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// `None` where the test cannot run.
    pub fn start(test: &str) -> Option<Self> {
        if !is_root(test) || !["unshare", "mount"].iter().all(|program| has(test, program)) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        fs::write(dir.path().join("cgroup"), format!("0::/system.slice/{UNIT}\n")).unwrap();
        let program = dir.path().join("systemctl");
        fs::write(&program, SYSTEMCTL).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let of_thread = Arc::clone(&kept);
        let thread = Some(thread::spawn(move || while take(&socket, &of_thread) {}));
        let keeper = Self { dir, kept, thread };
        keeper.keeps(8);
        keeper.job("restart running");
        Some(keeper)
    }

    /// How many descriptors the unit keeps.
    pub fn keeps(&self, most: u32) {
        fs::write(self.dir.path().join("store"), format!("{most}\n")).unwrap();
    }

    /// What is done with the unit; empty: nothing.
    pub fn job(&self, job: &str) {
        let own = if job.is_empty() { String::new() } else { format!("12 {UNIT} {job}\n") };
        fs::write(self.dir.path().join("jobs"), format!("11 another.service restart running\n{own}")).unwrap();
    }

    /// `systemctl` is another program from now on.
    pub fn systemctl(&self, script: &str) {
        fs::write(self.dir.path().join("systemctl"), format!("#!/bin/sh\n{script}\n")).unwrap();
    }

    /// What `systemctl` was asked.
    pub fn asked(&self) -> String {
        fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default()
    }

    /// Barriers are not answered from now on.
    pub fn is_deaf(&self) {
        self.kept.lock().unwrap().is_deaf = true;
    }

    /// Names of what the store has.
    pub fn stored(&self) -> Vec<String> {
        self.kept.lock().unwrap().store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Puts a descriptor into the store.
    pub fn store(&self, descriptor: OwnedFd) {
        self.kept.lock().unwrap().store.push(("sessile-upgrade".into(), descriptor));
    }

    /// What the store has, as copies.
    pub fn copies(&self) -> Vec<OwnedFd> {
        self.kept.lock().unwrap().store.iter().map(|(_, kept)| kept.try_clone().unwrap()).collect()
    }

    /// Whether a message with this line has come.
    pub fn was_told(&self, line: &str) -> bool {
        self.kept.lock().unwrap().told.iter().any(|told| told.lines().any(|told| told == line))
    }

    /// Starts the service, and does not wait.
    pub fn spawn(&self, config: &str) -> Sessile {
        Sessile::spawn(config, |command| self.prepare(command))
    }

    /// Waits for the end of the process, and checks that it is a good one.
    pub fn ends(&self, sessile: &mut Sessile) {
        let status = sessile.wait();
        assert_eq!(status.code(), Some(0), "{}", sessile.said());
    }

    /// Stops the service as a restart does; returns when the process has ended.
    pub fn stop(&self, sessile: &mut Sessile) {
        sessile.signal(Signal::TERM);
        self.ends(sessile);
    }

    /// Starts the service again with what the store has, and does not wait.
    pub fn start_again(&self, sessile: &mut Sessile) {
        sessile.restart_by(|command| self.prepare(command));
    }

    /// Starts the service in a shell that passes what the store has.
    pub fn prepare(&self, command: &mut Command) {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let out = |name: &str| File::create(file.with_file_name(name)).unwrap();
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-ec", BECOME]).arg(command.get_program()).args(command.get_args());
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", self.dir.path().display()));
        shell.env("NOTIFY_SOCKET", self.dir.path().join("notify")).env("CGROUP", self.dir.path().join("cgroup"));
        shell.env_remove("WATCHDOG_USEC").env_remove("PASSED").stdin(std::process::Stdio::null());
        if let Some((name, kept)) = self.kept.lock().unwrap().store.first() {
            shell.env("PASSED", name).stdin(kept.try_clone().unwrap());
        }
        shell.stdout(out("out.log")).stderr(out("err.log"));
        *command = shell;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).stops = true;
        let _ = self.thread.take().map(JoinHandle::join);
        if thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- asked\n{}", self.asked());
        }
    }
}

/// Takes one message as a service manager does. False: the test is over.
fn take(socket: &UnixDatagram, kept: &Mutex<Kept>) -> bool {
    let mut buffer = [0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    let mut kept = kept.lock().unwrap();
    let Ok(received) = received else { return !kept.stops };
    let text = String::from_utf8(buffer[..received.bytes].to_vec()).unwrap();
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    if text.lines().any(|line| line == "FDSTORE=1") {
        kept.store.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
    } else if text == "BARRIER=1" && kept.is_deaf {
        kept.unanswered.extend(descriptors);
    } else if text != "BARRIER=1" {
        if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
            kept.store.retain(|(known, _)| *known != name);
        }
        kept.told.push(text);
    }
    !kept.stops
}
