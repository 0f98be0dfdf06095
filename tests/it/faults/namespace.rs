//! A network namespace of its own for the process under test, its clients and its backends.
//!
//! It has a name nowhere and goes with the last process and socket in it. Invariant: nothing outside is changed.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{Sessile, has, is_root, skip};

pub struct Namespace(File);

/// Whether namespaces can be made; if not, the test is skipped.
pub fn possible(test: &str) -> bool {
    if !is_root(test) || !["unshare", "ip", "sysctl", "nft"].iter().all(|program| has(test, program)) {
        return false;
    }
    let allowed = succeeds(Command::new("unshare").args(["--net", "true"]));
    if !allowed {
        skip(test, "may not make a network namespace");
    }
    allowed
}

/// Starts a process in a namespace that a script has prepared.
pub fn start(script: &str, config: &str) -> (Sessile, Namespace) {
    let script = format!("ip link set lo up\n{script}\nexec \"$0\" \"$@\"");
    let sessile = Sessile::start_in_shell(&["unshare", "--net"], &script, config);
    let namespace = of(sessile.pid());
    (sessile, namespace)
}

/// The namespace of a process.
pub fn of(pid: u32) -> Namespace {
    Namespace(File::open(format!("/proc/{pid}/ns/net")).expect("a namespace"))
}

impl Namespace {
    /// Does something inside; threads and processes begun there are inside, too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).expect("a namespace");
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Drops every segment from or to a TCP port of the namespace that this thread is in, in silence.
pub fn swallow(port: u16) {
    for side in ["sport", "dport"] {
        let rule = format!("add rule inet faults in tcp {side} {port} drop");
        assert!(succeeds(Command::new("nft").arg(rule)), "nft");
    }
}

/// What a script has to do before [`swallow`] can work.
pub const FILTER: &str = "nft 'add table inet faults; \
                          add chain inet faults in { type filter hook input priority 0; }'";

fn succeeds(command: &mut Command) -> bool {
    let output = command.stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        if !output.status.success() {
            eprintln!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    })
}
