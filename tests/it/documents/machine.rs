//! [`Machine`]: where commands of the documents run: namespaces and a root of their own, where every path and port is free.
//!
//! Needs root. Judges no command. Invariant: whatever a command does, it ends with the machine, and nothing outside has
//! changed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::eventually;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// Seconds after which a command is ended; a good one takes less than one.
const PATIENCE: &str = "60";

/// What a machine has when a command comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing of sessile is installed.
    Bare,
    /// The package is installed and has a configuration; its service is stopped.
    Installed,
    /// The service of the package runs, too.
    Serving,
}

/// A machine; it is gone when dropped.
pub struct Machine {
    root: TempDir,
    /// Holds the namespaces; its only child is the first process in them.
    holder: Child,
    _said: BufReader<ChildStdout>,
    /// What serves by a command of ours, with its standard error.
    served: Option<(Child, File)>,
}

impl Machine {
    /// Starts a machine, with this text as `sessile.toml` in the folder of its user and as the file of its service.
    pub fn start(state: State, config: &str) -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = tempfile::tempdir().expect("a scratch directory");
        fs::create_dir(root.path().join("root")).expect("a folder");
        fs::write(root.path().join("root/sessile.toml"), config).expect("the file is written");
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "bash"]);
        holder.arg(sources.join("tests/it/documents/machine.sh"));
        holder.arg(root.path()).args([env!("CARGO_BIN_EXE_sessile"), env!("CARGO_MANIFEST_DIR")]);
        holder.arg(format!("{state:?}").to_lowercase()).env_clear().envs([("PATH", PATH), ("HOME", "/root")]);
        let mut holder = holder.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        let mut said = BufReader::new(holder.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            assert_ne!(said.read_line(&mut line).expect("text"), 0, "no machine: {:?}", holder.wait());
        }
        Self { root, holder, _said: said, served: None }
    }

    /// A shell of the machine with a command, in the folder of its user.
    fn shell(&self, command: &str) -> Command {
        let holder = self.holder.id();
        let mut shell = Command::new("nsenter");
        shell.arg(format!("--target={holder}")).args(["--mount", "--net"]);
        shell.arg(format!("--pid=/proc/{holder}/ns/pid_for_children")).arg("chroot").arg(self.root.path());
        shell.args(["timeout", "--foreground", PATIENCE, "bash", "-c", "cd && eval \"$1\"", "bash", command]);
        shell.env_clear().envs([("PATH", PATH), ("HOME", "/root")]).stdin(Stdio::null());
        shell
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &str) -> Output {
        self.shell(command).output().expect("nsenter runs")
    }

    /// Starts a command that serves, in the place of the one before, and waits until its process is ready; an error is
    /// what it said instead.
    pub fn serve(&mut self, command: &str) -> Result<(), String> {
        self.stop()?;
        let said = tempfile::tempfile().expect("a scratch file");
        let mut shell = self.shell(command);
        let stderr = said.try_clone().expect("a descriptor");
        let mut child = shell.stdout(Stdio::null()).stderr(stderr).spawn().expect("nsenter runs");
        let ended = eventually("the process to be ready, or at its end", || {
            let ended = child.try_wait().expect("the process is ours");
            (ended.is_some() || self.pid().is_some()).then_some(ended)
        });
        if let Some(status) = ended {
            return Err(format!("{status}: {}", read(said)));
        }
        self.served = Some((child, said));
        Ok(())
    }

    /// Ends what serves by a command of ours as Ctrl-C does; an error is what it said if its exit code is not 0.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some((mut child, said)) = self.served.take() else { return Ok(()) };
        let Some(pid) = self.pid() else { return Err(format!("nothing serves any more: {}", read(said))) };
        self.run(&format!("kill -INT {pid}"));
        let status = eventually("the end of a process", || child.try_wait().expect("the process is ours"));
        // After an upgrade the process that serves is not the child.
        eventually("the end of the service", || self.pid().is_none().then_some(()));
        if status.success() { Ok(()) } else { Err(format!("after Ctrl-C {status}: {}", read(said))) }
    }

    /// The process that serves, by its number on the machine.
    fn pid(&self) -> Option<u64> {
        let said = self.run("/opt/package/sessile status --json").stdout;
        let status: serde_json::Value = serde_json::from_slice(&said).ok()?;
        status["pid"].as_u64()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn read(mut said: File) -> String {
    let mut text = String::new();
    // The writer has moved the place in the file.
    said.rewind().and_then(|()| said.read_to_string(&mut text)).expect("a text");
    text
}
