//! [`Balancer`]: this binary as a child process, operated through its admin socket and commands.
//!
//! The child has a folder with its configuration file, admin socket and logs. Nothing of the balancer runs inside the
//! demo itself. Invariant: neither process nor folder outlives the [`Balancer`].

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::admin::ReloadVerdict;
use crate::cli::{CommandError, client};
use crate::metrics::Status;

/// Longest wait until the status shows a change.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Time between two requests of the status.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The balancer's process and its folder.
#[derive(Debug)]
pub(super) struct Balancer {
    program: PathBuf,
    process: Child,
    /// Processes before a restart, which may still be stopping.
    former: Vec<Child>,
    folder: Folder,
}

impl Balancer {
    /// Starts the balancer with the file that `text` writes for its folder, and waits for its first status.
    pub(super) async fn start(text: impl FnOnce(&Folder) -> String) -> Result<Self, CommandError> {
        let process = |folder: &Folder| -> io::Result<(PathBuf, Child)> {
            let program = std::env::current_exe()?;
            fs::write(folder.configuration(), text(folder))?;
            let process = spawn(&program, folder)?;
            Ok((program, process))
        };
        let folder = Folder::new().map_err(|error| failure("folder", &error))?;
        let (program, process) = process(&folder).map_err(|error| failure("start", &error))?;
        let mut balancer = Self { program, process, former: Vec::new(), folder };
        balancer.wait("respond", |_| true).await?;
        Ok(balancer)
    }

    /// Stops the balancer with SIGTERM and starts the next process at once, which need not wait for the end of the first.
    pub(super) async fn restart(&mut self) -> Result<(), CommandError> {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM); // fails only if the process has already ended
        let next = spawn(&self.program, &self.folder).map_err(|error| failure("restart", &error))?;
        let id = next.id();
        self.former.push(std::mem::replace(&mut self.process, next));
        self.wait("respond", |status| status.process.pid == id).await?;
        Ok(())
    }

    /// Process id of the balancer.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Path of the binary, the demo's own.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Folder of the balancer's files.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Response of the balancer to `/status`.
    pub(super) fn status(&self) -> Result<Status, CommandError> {
        client::request(&self.folder.socket(), "GET", "/status")?.json(&[200])
    }

    /// Waits until the status fulfils a condition; `what` names it in the error.
    pub(super) async fn wait(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status, CommandError> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let status = self.status();
            if let Ok(status) = status
                && wanted(&status)
            {
                return Ok(status);
            }
            let ended = self.process.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.log()).unwrap_or_default();
                let how = ended.map_or("it runs".to_owned(), |ended| ended.to_string());
                return Err(CommandError::Internal(format!("the balancer does not {what} ({how}); its log:\n{log}")));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Writes a new configuration file and reloads.
    pub(super) fn reload(&self, text: impl FnOnce(&Folder) -> String) -> Result<ReloadVerdict, CommandError> {
        let text = text(&self.folder);
        fs::write(self.folder.configuration(), text).map_err(|error| failure("configuration", &error))?;
        let verdict: ReloadVerdict = client::request(&self.folder.socket(), "POST", "/reload")?.json(&[200, 409])?;
        if verdict.accepted { Ok(verdict) } else { Err(CommandError::Internal(verdict.problems.join("\n"))) }
    }

    /// Backend of each client by `sessile explain`; `clients` has one address per line.
    pub(super) fn explain(&self, listener: &str, clients: &str) -> Result<Vec<String>, CommandError> {
        #[derive(Deserialize)]
        struct LogLine {
            choice: String,
        }
        let explain = || -> io::Result<Vec<String>> {
            let mut process = Command::new(&self.program)
                .args(["explain", "--json", "--listener", listener, "--config"])
                .arg(self.folder.configuration())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            // The input fits into the pipe, so this does not block. Dropping the pipe ends the input.
            process.stdin.take().map(|mut input| input.write_all(clients.as_bytes())).transpose()?;
            let output = process.wait_with_output()?;
            let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| Ok(serde_json::from_slice::<LogLine>(line)?.choice)).collect()
        };
        explain().map_err(|error| failure("explain", &error))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for process in self.former.iter_mut().chain([&mut self.process]) {
            let _ = process.kill(); // fails only if the process has already ended
            let _ = process.wait();
        }
    }
}

fn spawn(program: &Path, folder: &Folder) -> io::Result<Child> {
    // The process before may still write.
    let log = |file: PathBuf| File::options().create(true).append(true).open(file);
    Command::new(program)
        .args(["run", "--config"])
        .arg(folder.configuration())
        .stdin(Stdio::null())
        .stdout(log(folder.connections())?)
        .stderr(log(folder.log())?)
        .spawn()
}

fn failure(what: &str, error: &io::Error) -> CommandError {
    CommandError::Internal(format!("balancer: {what}: {error}"))
}

/// A folder with mode 0700, removed when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder among the temporary files.
    pub(super) fn new() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        for number in 0.. {
            let path = parent.join(format!("sessile-demo-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // left over from a killed demo
                Err(error) => return Err(io::Error::other(format!("{}: {error}", path.display()))),
                Ok(()) => return Ok(Self(path)),
            }
        }
        unreachable!("numbers do not end")
    }

    /// Path of the configuration file.
    pub(super) fn configuration(&self) -> PathBuf {
        self.0.join("sessile.toml")
    }

    /// Path of the admin socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// Path of the access log, the child's standard output.
    pub(super) fn connections(&self) -> PathBuf {
        self.0.join("connections.log")
    }

    /// Path of another file in the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Path of the messages about the process, the child's standard error.
    fn log(&self) -> PathBuf {
        self.0.join("balancer.log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a rest stays among the temporary files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn folders_are_private_differ_and_go() {
        let (one, other) = (Folder::new().unwrap(), Folder::new().unwrap());
        assert_ne!(one.0, other.0);
        assert_eq!(fs::metadata(&one.0).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(one.configuration(), "").unwrap();
        let path = one.0.clone();
        drop(one);
        assert!(!path.exists() && other.0.exists());
    }
}
