//! A headless Chromium: how tests start it, and how they end it.
//!
//! Talks to no page (`browser.rs` does). Invariant: it knows no host but those that its rules name, and it ends with all
//! its processes.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// A running browser; dropped, it is killed with all its processes, and what it has said is shown if the test fails.
pub struct Chromium {
    child: Child,
    home: TempDir,
}

impl Chromium {
    /// Starts the program. `hosts`: its rules for names, as of `--host-resolver-rules`; `arguments`: more of them, such as
    /// the address of a page.
    pub fn start(program: &Path, hosts: &str, arguments: &[String]) -> Self {
        let home = tempfile::tempdir().expect("a scratch directory");
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

    /// The folder with its profile.
    pub fn home(&self) -> &Path {
        self.home.path()
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
