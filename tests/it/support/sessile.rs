//! The process under test.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, http};

/// A running `sessile`; killed when dropped.
pub struct Sessile {
    pub dir: TempDir,
    child: Child,
    /// The process that an upgrade has started, which is not this program's child; `None`: the child serves.
    follower: Option<u32>,
}

/// The binary with arguments, not started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessile"));
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Sessile {
    /// Starts it with a configuration (JSON log, admin socket in a directory of its own) and waits until it is ready.
    pub fn start(config: &str) -> Self {
        let sessile = Self::spawn(config, |_| {});
        sessile.ready();
        sessile
    }

    /// Starts the process in a shell script, which has to end in `exec "$0" "$@"`; `program` runs the shell.
    pub fn start_in_shell(program: &[&str], script: &str, config: &str) -> Self {
        let mut words: Vec<_> = program.iter().chain(&["sh", "-ec", script]).copied().collect();
        let mut shell = Command::new(words.remove(0));
        shell.args(words).arg(env!("CARGO_BIN_EXE_sessile")).stdin(Stdio::null());
        let dir = tempfile::tempdir().expect("a scratch directory");
        write_config(dir.path(), config);
        let child = launch(dir.path(), shell, |_| {});
        let sessile = Self { dir, child, follower: None };
        sessile.ready();
        sessile
    }

    /// Starts it, changed by `prepare`, and does not wait.
    pub fn spawn(config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        write_config(dir.path(), config);
        let child = launch(dir.path(), command(&[]), prepare);
        Self { dir, child, follower: None }
    }

    /// Starts it again, over what the last run has left behind, and waits until it is ready.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// Starts it again with more arguments, and waits until it is ready.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.child = launch(self.dir.path(), command(&[]), |command| {
            command.args(arguments);
        });
        self.ready();
    }

    /// Starts it again, changed by `prepare`, and does not wait. The run before has ended.
    pub fn restart_by(&mut self, prepare: impl FnOnce(&mut Command)) {
        self.child = launch(self.dir.path(), command(&[]), prepare);
    }

    /// Starts the next process in the same folder, and does not wait. The one before goes on by itself.
    pub fn follow(&mut self) -> Former {
        let dir = self.dir.path().to_owned();
        let pid = self.pid();
        for log in ["out", "err"] {
            std::fs::rename(dir.join(format!("{log}.log")), dir.join(format!("{log}.{pid}.log"))).expect("a log file");
        }
        let next = launch(&dir, command(&[]), |_| {});
        Former { dir, child: std::mem::replace(&mut self.child, next) }
    }

    /// Waits until it is ready.
    pub fn ready(&self) {
        eventually("the process to be ready", || {
            let status = http::unix_get(&self.admin(), "/readyz")?;
            (status.0 == 200).then_some(())
        });
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.follower.unwrap_or_else(|| self.child.id())
    }

    /// Has the process upgrade to a binary, its own by default; the verdict. If it is accepted, the process under test is
    /// the new one.
    pub fn upgrade(&mut self, binary: Option<&Path>) -> Value {
        let output = self.upgrade_command(binary).output().expect("the command runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("no verdict: {output:?}"));
        assert_eq!(output.status.code(), Some(if verdict["accepted"] == true { 0 } else { 64 }), "{verdict}");
        if verdict["accepted"] == true {
            self.is_now(verdict["pid"].as_u64().expect("a number") as u32);
        }
        verdict
    }

    /// The command that has the process upgrade.
    pub fn upgrade_command(&self, binary: Option<&Path>) -> Command {
        let mut upgrade = command(&["upgrade", "--json", "--socket"]);
        upgrade.arg(self.admin()).args(binary);
        upgrade
    }

    /// The process under test is this one from here on.
    pub fn is_now(&mut self, pid: u32) {
        self.follower = Some(pid);
    }

    /// Waits until a process has gone, or is only waited for by its parent.
    pub fn gone(&mut self, pid: u32) {
        eventually("the process to be gone", || {
            let _ = self.child.try_wait();
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
            let state = state.as_deref().and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
            matches!(state, None | Some('Z')).then_some(())
        });
    }

    /// Its admin socket, which moves once it stops.
    pub fn admin(&self) -> PathBuf {
        let moved = self.moved_admin();
        if moved.exists() { moved } else { self.dir.path().join("admin.sock") }
    }

    /// Where its admin socket is while it stops.
    pub fn moved_admin(&self) -> PathBuf {
        self.dir.path().join(format!("admin.{}.sock", self.pid()))
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("sessile.toml")
    }

    /// The first address of a listener.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let status = self.status();
        let listeners = status["listeners"].as_array().expect("listeners");
        let known = listeners.iter().find(|known| known["name"] == listener).expect("a listener of this name");
        known["bind"][0].as_str().and_then(|bind| bind.parse().ok()).expect("an address")
    }

    pub fn status(&self) -> Value {
        self.json("/status")
    }

    pub fn json(&self, path: &str) -> Value {
        let (_, body) = http::unix_get(&self.admin(), path).expect("the admin socket answers");
        serde_json::from_str(&body).expect("JSON")
    }

    pub fn metrics(&self) -> String {
        http::unix_get(&self.admin(), "/metrics").expect("the admin socket answers").1
    }

    /// The value of a series, which begins with its whole name and labels; 0 if it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.metrics();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// The sum of all series of a family that have these labels, each as `pool="p"`.
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let page = self.metrics();
        let series = page.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{')?.rsplit_once("} "));
        let has = |own: &str, label: &&str| format!(",{own},").contains(&format!(",{label},"));
        let wanted = series.filter(|(own, _)| labels.iter().all(|label| has(own, label)));
        wanted.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
    }

    /// Writes the file anew, in place.
    pub fn rewrite(&self, config: &str) {
        write_config(self.dir.path(), config);
    }

    /// Puts another file in the place of this one by a rename and requests a reload; the verdict.
    pub fn replace(&self, config: &str) -> Value {
        let beside = self.dir.path().join("sessile.new");
        std::fs::write(&beside, whole_config(self.dir.path(), config)).expect("the file is written");
        std::fs::rename(&beside, self.file()).expect("the file is replaced");
        self.request_reload()
    }

    /// Writes the file anew in place and requests a reload; the verdict.
    pub fn reload(&self, config: &str) -> Value {
        self.rewrite(config);
        self.request_reload()
    }

    fn request_reload(&self) -> Value {
        let (_, body) = http::unix_post(&self.admin(), "/reload").expect("the admin socket answers");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Every connection line of the log so far.
    pub fn lines(&self) -> Vec<Value> {
        let text = read(&self.dir.path().join("out.log"));
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What was said on standard error so far.
    pub fn said(&self) -> String {
        read(&self.dir.path().join("err.log"))
    }

    /// Waits until this was said on standard error: a thread of its own writes messages.
    pub fn says(&self, part: &str) {
        eventually(&format!("the message {part:?}"), || self.said().contains(part).then_some(()));
    }

    /// Every line of the log, once each connection that has ended so far has its own: a thread of its own writes them.
    pub fn lines_of_all(&self) -> Vec<Value> {
        let status = self.status();
        let of_listener = |listener: &Value| {
            let ended = listener["ended"].as_object().expect("endings").values();
            ended.filter_map(Value::as_u64).sum::<u64>()
        };
        let ended: u64 = status["listeners"].as_array().expect("listeners").iter().map(of_listener).sum();
        eventually(&format!("a line for each of {ended} connections"), || {
            let lines = self.lines();
            (lines.iter().filter(|line| line["kind"] == "connection").count() as u64 >= ended).then_some(lines)
        })
    }

    /// Waits for a connection line.
    pub fn line(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("a log line: {what}"), || self.lines().into_iter().find(|line| fits(line)))
    }

    /// Waits until a connection has ended so, in the log and in the metric of its listener.
    pub fn ended(&self, listener: &str, outcome: &str) -> Value {
        let fits = |line: &Value| line["listener"] == listener && line["ended"] == outcome && line["request"].is_null();
        let line = self.line(outcome, fits);
        let status = self.status();
        let listeners = status["listeners"].as_array().expect("listeners");
        let known = listeners.iter().find(|known| known["name"] == listener).expect("a listener of this name");
        assert!(known["ended"][outcome].as_u64() > Some(0), "{outcome} is not counted: {known}");
        line
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).expect("a process");
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process to end", || self.child.try_wait().expect("the process is ours"))
    }

    /// Descriptors of the process.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("/proc").count()
    }

    /// Memory of its own in KiB: resident, and of no file.
    pub fn anonymous_kib(&self) -> usize {
        let text = read(Path::new(&format!("/proc/{}/status", self.pid())));
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Proportional set size in KiB, without files: a page of the binary counts for more when another process that runs
    /// it ends.
    pub fn pss_kib(&self) -> usize {
        let text = read(Path::new(&format!("/proc/{}/smaps_rollup", self.pid())));
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a kind of memory");
            line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
        };
        of("Pss_Anon:") + of("Pss_Shmem:")
    }
}

impl Drop for Sessile {
    fn drop(&mut self) {
        if let Some(pid) = self.follower.and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of sessile\n{}", self.said());
        }
    }
}

/// A process that stops while the next one has its folder; killed when dropped.
pub struct Former {
    dir: PathBuf,
    child: Child,
}

impl Former {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn admin(&self) -> PathBuf {
        self.dir.join(format!("admin.{}.sock", self.pid()))
    }

    pub fn status(&self) -> Value {
        let (_, body) = http::unix_get(&self.admin(), "/status").expect("the admin socket answers");
        serde_json::from_str(&body).expect("JSON")
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        read(&self.dir.join(format!("err.{}.log", self.pid())))
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process to end", || self.child.try_wait().expect("the process is ours"))
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of the sessile before\n{}", self.said());
        }
    }
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary starts")
}

fn launch(dir: &Path, mut command: Command, prepare: impl FnOnce(&mut Command)) -> Child {
    let out = |name: &str| File::create(dir.join(name)).expect("a log file");
    command.arg("run").arg("--config").arg(dir.join("sessile.toml"));
    command.stdout(out("out.log")).stderr(out("err.log"));
    prepare(&mut command);
    command.spawn().expect("the binary starts")
}

fn write_config(dir: &Path, config: &str) {
    std::fs::write(dir.join("sessile.toml"), whole_config(dir, config)).expect("the file is written");
}

/// A configuration with the admin socket of this test and JSON lines, unless it has the tables for them itself. `$DIR`
/// stands for the test's own directory.
fn whole_config(dir: &Path, config: &str) -> String {
    let mut text = String::new();
    if !config.contains("[admin]") {
        text += &format!("[admin]\nsocket = \"{}\"\n", dir.join("admin.sock").display());
    }
    if !config.contains("[log]") {
        text += "[log]\nformat = \"json\"\nlevel = \"debug\"\n";
    }
    let config = &config.replace("$DIR", dir.to_str().expect("a path of words"));
    let (top, tables) = config.split_at(config.find('[').unwrap_or(config.len()));
    format!("{top}\n{text}{tables}\n")
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    let _ = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    text
}
