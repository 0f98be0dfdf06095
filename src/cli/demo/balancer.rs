//! The balancer of the demo: this very binary, run and told what to do as an operator would.
//!
//! A child process with a configuration file, an admin socket and its logs in a folder of its own; everything is
//! asked through that socket or another command. Invariant: neither process nor folder outlives the [`Balancer`].

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

/// How long anything may take until the status shows it.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// The running balancer.
#[derive(Debug)]
pub(super) struct Balancer {
    program: PathBuf,
    process: Child,
    folder: Folder,
}

impl Balancer {
    /// Starts it with the file that is made for its folder, and waits until it answers.
    pub(super) async fn start(text: impl FnOnce(&Folder) -> String) -> Result<Self, CommandError> {
        let process = |folder: &Folder| -> io::Result<(PathBuf, Child)> {
            let program = std::env::current_exe()?;
            fs::write(folder.configuration(), text(folder))?;
            let process = spawn(&program, folder)?;
            Ok((program, process))
        };
        let folder = Folder::new().map_err(|error| failure("folder", &error))?;
        let (program, process) = process(&folder).map_err(|error| failure("start", &error))?;
        let mut balancer = Self { program, process, folder };
        balancer.wait("answer", |_| true).await?;
        Ok(balancer)
    }

    /// Lets it end as its operator would, and starts it again.
    pub(super) async fn restart(&mut self) -> Result<(), CommandError> {
        let mut again = || -> io::Result<Child> {
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM); // fails only if it has ended already
            self.process.wait()?;
            spawn(&self.program, &self.folder)
        };
        self.process = again().map_err(|error| failure("restart", &error))?;
        self.wait("answer", |_| true).await?;
        Ok(())
    }

    /// The process's number.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The binary.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Where its files are.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What it is doing now.
    pub(super) fn status(&self) -> Result<Status, CommandError> {
        client::request(&self.folder.socket(), "GET", "/status")?.json(&[200])
    }

    /// Waits until its status is as wanted.
    pub(super) async fn wait(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status, CommandError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if let Ok(status) = status
                && wanted(&status)
            {
                return Ok(status);
            }
            let ended = self.process.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(self.folder.log()).unwrap_or_default();
                let how = ended.map_or("it runs".to_owned(), |ended| ended.to_string());
                return Err(CommandError::Internal(format!("the balancer does not {what} ({how}); it said:\n{said}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gives it a new file, and word of it.
    pub(super) fn reload(&self, text: impl FnOnce(&Folder) -> String) -> Result<ReloadVerdict, CommandError> {
        let text = text(&self.folder);
        fs::write(self.folder.configuration(), text).map_err(|error| failure("configuration", &error))?;
        let verdict: ReloadVerdict = client::request(&self.folder.socket(), "POST", "/reload")?.json(&[200, 409])?;
        if verdict.accepted { Ok(verdict) } else { Err(CommandError::Internal(verdict.problems.join("\n"))) }
    }

    /// What `sessile explain` says about clients, one a line: the backend of each.
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
            // The question fits into a pipe, so this waits for nobody. Dropped, so that it sees the end.
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
        let _ = self.process.kill(); // fails only if it has ended already
        let _ = self.process.wait();
    }
}

fn spawn(program: &Path, folder: &Folder) -> io::Result<Child> {
    Command::new(program)
        .args(["run", "--config"])
        .arg(folder.configuration())
        .stdin(Stdio::null())
        .stdout(File::create(folder.connections())?)
        .stderr(File::create(folder.log())?)
        .spawn()
}

fn failure(what: &str, error: &io::Error) -> CommandError {
    CommandError::Internal(format!("balancer: {what}: {error}"))
}

/// A folder that only its owner can look into, removed when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub(super) fn new() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        for number in 0.. {
            let path = parent.join(format!("sessile-demo-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // of a demo that was killed
                Err(error) => return Err(io::Error::other(format!("{}: {error}", path.display()))),
                Ok(()) => return Ok(Self(path)),
            }
        }
        unreachable!("numbers do not end")
    }

    /// The configuration file.
    pub(super) fn configuration(&self) -> PathBuf {
        self.0.join("sessile.toml")
    }

    /// The admin socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// One line per connection.
    pub(super) fn connections(&self) -> PathBuf {
        self.0.join("connections.log")
    }

    /// Any other file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is not about one connection.
    fn log(&self) -> PathBuf {
        self.0.join("balancer.log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what cannot be removed is in the folder for temporary files
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
