//! A headless Chromium: how tests start it, and how they end it.
//!
//! Talks to no page (`browser.rs` does). Invariant: it knows no host but those that its rules name, and it ends with all
//! its processes.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::eventually;

/// A running browser; dropped, it is killed with all its processes, and what it has said is shown if the test fails.
pub struct Chromium {
    child: Child,
    home: Rc<TempDir>,
}

impl Chromium {
    /// Starts the program. `hosts`: its rules for names, as of `--host-resolver-rules`; `arguments`: more of them, such as
    /// the address of a page.
    pub fn start(program: &Path, hosts: &str, arguments: &[String]) -> Self {
        Self::at(tempfile::tempdir().expect("a scratch directory").into(), program, hosts, arguments)
    }

    /// Starts the program with a profile that may have been in use.
    pub fn at(home: Rc<TempDir>, program: &Path, hosts: &str, arguments: &[String]) -> Self {
        let mut command = Command::new(program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--no-proxy-server"]);
        command.args(["--remote-debugging-port=0", &format!("--host-resolver-rules={hosts}")]);
        command.arg(format!("--user-data-dir={}", home.path().display())).env("HOME", home.path());
        command.args(arguments);
        let log = std::fs::File::create(home.path().join("said")).expect("a log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        Self { child: command.process_group(0).spawn().expect("chromium starts"), home }
    }

    /// Waits until it has ended by itself; its profile.
    pub fn ended(mut self) -> Rc<TempDir> {
        eventually("chromium to end", || self.child.try_wait().expect("the process is ours"));
        Rc::clone(&self.home)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.home.path().join("said")).unwrap_or_default();
            eprintln!("--- said by chromium\n{said}");
        }
    }
}
