//! Reads a configuration file, or finds the running process, for a command.
//!
//! The rules are in `config::check`. Invariants: writes no file and binds no socket; the only use of the network is to
//! ask name servers for the sources of pools; what does not answer is an error in time, but for a pipe that the caller has
//! opened for the command itself (`/dev/stdin`, `/dev/fd/63`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::own_places::{self, DEFAULT_FILE};
use super::{CommandError, client};
use crate::admin::PlanRequest;
use crate::config::{self, ADMIN_SOCKET, BackendEdit, CheckedConfig};
use crate::detached::{self, FOR_READING};
use crate::plan::{ListedClient, Plan};
use crate::regular_file::{self, CONFIGURATION_MAX, WholeFile};
use crate::server;

/// Reads and checks a configuration file, and the backends that sources in it name.
pub(super) fn load(file: &Path) -> Result<CheckedConfig, CommandError> {
    let text = read(file)?;
    let find = |mut checked: CheckedConfig| {
        server::find_backends(&mut checked.config);
        checked
    };
    in_time(move || config::check(&text, &crate::socket::resolve).map(find))?
        .map_err(|problems| CommandError::Config { file: file.to_owned(), problems })
}

/// Reads the text of a configuration file.
pub(super) fn read(file: &Path) -> Result<String, CommandError> {
    read_at_most(file, CONFIGURATION_MAX)
}

/// Reads the text of a file of limited size.
pub(super) fn read_at_most(file: &Path, most: u64) -> Result<String, CommandError> {
    let path = file.to_owned();
    let whole = if is_own_descriptor(file) {
        let bytes = File::open(file).and_then(|file| regular_file::read_at_most(file, most));
        bytes.map(|bytes| WholeFile { bytes, mode: 0, owner: 0 })
    } else {
        in_time(move || regular_file::read(&path, most))?
    };
    let whole = whole.map_err(|error: io::Error| CommandError::Usage(format!("{}: {error}", file.display())))?;
    whole.placed_text().map_err(|bad| CommandError::Usage(format!("{}:{bad}", file.display())))
}

/// Runs work that reads files or resolves names, which may not answer.
pub(super) fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CommandError> {
    detached::within("reading", FOR_READING, work).map_err(|late| CommandError::Usage(late.to_string()))
}

/// True for the path of a descriptor that the caller has opened; a pipe there may come slowly.
fn is_own_descriptor(file: &Path) -> bool {
    file == Path::new("/dev/stdin") || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| file.starts_with(folder))
}

/// Arguments by which a command finds the running process.
#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
pub(super) struct RunningProcess {
    /// Path of the admin socket [default: that of a process of this user without a file, or that of the default file].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration file of the running process, to find its admin socket [default: /etc/sessile/sessile.toml].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl RunningProcess {
    /// Path of the admin socket; an error if the file has none or switches it off.
    pub(super) fn socket(&self) -> Result<PathBuf, CommandError> {
        match (&self.socket, &self.config) {
            (Some(socket), _) => Ok(socket.clone()),
            (None, Some(file)) => socket_of(file),
            (None, None) => {
                let own = own_places::running_admin_socket();
                own.map_or_else(|| socket_of_default(Path::new(DEFAULT_FILE)), Ok)
            }
        }
    }

    /// The configuration file, for a command that asks no process; an error if a socket is named.
    pub(super) fn file_alone(&self, command: &str) -> Result<&Path, CommandError> {
        match &self.socket {
            Some(_) => Err(CommandError::Usage(format!("{command} reads a file: --socket names none"))),
            None => Ok(self.file()),
        }
    }

    /// The configuration file of the running process.
    pub(super) fn file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }
}

/// Has the running process plan to put this file in force.
pub(super) fn plan_of(running: &RunningProcess, file: &Path, clients: Vec<ListedClient>) -> Result<Plan, CommandError> {
    let request = PlanRequest { file: file.display().to_string(), text: read(file)?, edits: Vec::new(), clients };
    ask_for_plan(running, &request, "the file")
}

/// Has the running process plan to change what it has in force.
pub(super) fn plan_of_edits(
    running: &RunningProcess,
    edits: Vec<BackendEdit>,
    clients: Vec<ListedClient>,
) -> Result<Plan, CommandError> {
    let request = PlanRequest { file: "the change".to_owned(), text: String::new(), edits, clients };
    ask_for_plan(running, &request, "the change")
}

fn ask_for_plan(running: &RunningProcess, request: &PlanRequest, what: &str) -> Result<Plan, CommandError> {
    let body = serde_json::to_string(request).map_err(|error| CommandError::Internal(error.to_string()))?;
    let response = client::request_with(&running.socket()?, "POST", "/plan", &body)?;
    if response.code == 409 {
        let problems: Vec<String> = response.json(&[409])?;
        let problems = problems.join("\n");
        return Err(CommandError::Usage(format!("the running process would refuse {what}:\n{problems}")));
    }
    response.json(&[200])
}

/// Finds the socket also in a file with errors, so that the running process can report them. No name of the file is looked
/// up for that: a resolver that does not answer is no reason to wait.
fn socket_of(file: &Path) -> Result<PathBuf, CommandError> {
    if let Some(socket) = socket_as_written(&read(file)?) {
        return Ok(socket);
    }
    let socket = load(file)?.config.process.admin.socket;
    socket.ok_or_else(|| CommandError::Unavailable(format!("{}: [admin] socket is \"off\"", file.display())))
}

/// The socket of the default file. Where this user cannot read one, a process may still have the default socket.
fn socket_of_default(file: &Path) -> Result<PathBuf, CommandError> {
    if read(file).is_ok() { socket_of(file) } else { Ok(ADMIN_SOCKET.into()) }
}

fn socket_as_written(text: &str) -> Option<PathBuf> {
    let table: toml::Table = text.parse().ok()?;
    match table.get("admin").and_then(|admin| admin.get("socket")) {
        Some(socket) => socket.as_str().filter(|path| path.starts_with('/')).map(PathBuf::from),
        None => Some(ADMIN_SOCKET.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> Result<PathBuf, CommandError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sessile.toml");
        std::fs::write(&file, text).unwrap();
        RunningProcess { socket: None, config: Some(file) }.socket()
    }

    const GOOD: &str = "[[listener]]\nname = 'l'\nbind = '127.0.0.1:1'\npool = 'p'\n\
                        [[pool]]\nname = 'p'\nbackend = [{ name = 'a', address = '127.0.0.1:2' }]\n";

    #[test]
    fn the_socket_is_where_the_file_says_or_where_it_always_is() {
        assert_eq!(socket(GOOD).unwrap(), Path::new(ADMIN_SOCKET));
        assert_eq!(socket(&format!("{GOOD}[admin]\nsocket = '/tmp/a.sock'\n")).unwrap(), Path::new("/tmp/a.sock"));
        assert!(matches!(socket(&format!("{GOOD}[admin]\nsocket = 'off'\n")), Err(CommandError::Unavailable(_))));
    }

    #[test]
    fn the_default_file_says_where_the_socket_is_if_it_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sessile.toml");
        assert_eq!(socket_of_default(&file).unwrap(), Path::new(ADMIN_SOCKET));
        std::fs::write(&file, format!("{GOOD}[admin]\nsocket = '/tmp/a.sock'\n")).unwrap();
        assert_eq!(socket_of_default(&file).unwrap(), Path::new("/tmp/a.sock"));
    }

    #[test]
    fn a_refused_file_still_tells_where_the_socket_is() {
        assert_eq!(socket("[admin]\nsocket = '/tmp/a.sock'\nbogus = 1\n").unwrap(), Path::new("/tmp/a.sock"));
        assert!(matches!(socket("[admin\n"), Err(CommandError::Config { .. })));
    }
}
