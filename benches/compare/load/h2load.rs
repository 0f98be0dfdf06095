//! h2load, a client that is not ours: many streams at once over few connections, with the cookie of a known visitor.
//!
//! Half of the connections belong to one visitor and half to one of the other backend; each has a process, as
//! h2load sends the same cookie everywhere. The path names the backend that has to answer. Invariant: what is told of a
//! run is from its log, a line an answer, and a run that did not speak HTTP/2 over TLS is an error.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::http2::Given;
use super::identity::NAME;
use crate::Result;

/// How long the first answer may take, and what is still to do at the end of a run.
const PATIENCE: Duration = Duration::from_secs(5);
/// The status of an answer that counts.
const GOOD: i64 = 200;

/// What the h2load in PATH says of itself.
pub fn version() -> Option<String> {
    let output = Command::new("h2load").arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Connections, and streams on each.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Connections of both visitors together: an even number.
    pub connections: usize,
    /// Streams at once on each of them.
    pub streams: usize,
}

/// One process a visitor.
pub struct Running(Vec<Process>);

struct Process {
    child: Child,
    log: PathBuf,
    said: PathBuf,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// When it was whole.
    pub at: SystemTime,
    /// How long that took.
    pub took: Duration,
    /// The visitor to which it came.
    pub visitor: usize,
    /// Whether it was the right one.
    pub good: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Heard {
    /// Every answer, in no order.
    pub answers: Vec<Answer>,
    /// The first thing that went wrong.
    pub first_error: Option<String>,
}

impl Running {
    /// Starts to ask, for some time. `folder`: where logs are kept.
    pub fn begin(
        target: SocketAddr,
        shape: Shape,
        visitors: &[Given; 2],
        time: Duration,
        folder: &Path,
    ) -> Result<Self> {
        let mut running = Self(Vec::new());
        for given in visitors {
            let file = |what: &str| folder.join(format!("h2load-{}.{what}", given.backend));
            let (log, said) = (file("log"), file("said"));
            let _ = fs::remove_file(&log);
            let cookie = String::from_utf8_lossy(given.cookie.as_deref().unwrap_or_default());
            let child = Command::new("h2load")
                .arg(format!("--clients={}", shape.connections / visitors.len()))
                .arg(format!("--max-concurrent-streams={}", shape.streams))
                .arg(format!("--duration={}ms", time.as_millis()))
                .arg(format!("--connect-to={target}"))
                .arg(format!("--header=cookie: {cookie}"))
                .args(["--header=user-agent: compare", "--threads=1", "--groups=X25519"])
                .args(["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--log-file"])
                .arg(&log)
                .arg(format!("https://{NAME}/keep/{}", given.backend))
                .stdin(Stdio::null())
                .stdout(File::create(&said)?)
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("h2load: {error} (apt-get install nghttp2-client)"))?;
            running.0.push(Process { child, log, said });
        }
        Ok(running)
    }

    /// Returns once every visitor has been answered.
    pub fn await_answers(&mut self) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        for process in &mut self.0 {
            while fs::metadata(&process.log).map_or(0, |log| log.len()) == 0 {
                if Instant::now() > give_up || process.child.try_wait()?.is_some() {
                    return Err(format!("h2load gets no answer\n{}", process.said()).into());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Whether all of them still ask.
    pub fn goes_on(&mut self) -> Result<bool> {
        let ended = self.0.iter_mut().map(|process| process.child.try_wait()).collect::<std::io::Result<Vec<_>>>()?;
        Ok(ended.iter().all(Option::is_none))
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Result<Heard> {
        let mut heard = Heard::default();
        for (visitor, process) in self.0.iter_mut().enumerate() {
            let status = process.child.wait()?;
            let said = process.said();
            if !status.success() {
                return Err(format!("h2load: {status}\n{said}").into());
            }
            for line in ["Application protocol: h2", "TLS Protocol: TLSv1.3", "Cipher: TLS_AES_128_GCM_SHA256"] {
                if !said.lines().any(|known| known.trim() == line) {
                    return Err(format!("h2load does not say \"{line}\"\n{said}").into());
                }
            }
            heard.first_error = heard.first_error.or(trouble(&said));
            let mut log = String::new();
            File::open(&process.log)?.read_to_string(&mut log)?;
            for line in log.lines() {
                heard.take(visitor, line)?;
            }
        }
        Ok(heard)
    }
}

impl Process {
    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Heard {
    /// A line of the log: microseconds of the epoch at which it was asked, the status, and how many it took.
    fn take(&mut self, visitor: usize, line: &str) -> Result<()> {
        let mut numbers = line.split('\t').map(str::parse::<i64>);
        let (Some(Ok(asked)), Some(Ok(status)), Some(Ok(took))) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(format!("not a line of h2load's log: {line}").into());
        };
        let took = Duration::from_micros(took.max(0) as u64);
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(asked.max(0) as u64) + took;
        if status != GOOD {
            self.first_error.get_or_insert_with(|| format!("an answer of h2load's has the status {status}"));
        }
        self.answers.push(Answer { at, took, visitor, good: status == GOOD });
        Ok(())
    }
}

/// The line `requests: 9 total, … 0 failed, 0 errored, 0 timeout` of h2load's own account, if something has failed.
fn trouble(said: &str) -> Option<String> {
    let Some(line) = said.lines().find(|line| line.starts_with("requests: ")) else {
        return Some("h2load gives no account of its requests".to_owned());
    };
    let clean = ["failed", "errored", "timeout"].iter().all(|what| line.contains(&format!(" 0 {what}")));
    (!clean).then(|| line.to_owned())
}
