//! [`Messages`]: messages about the process with the priority that the journal reads (systemd.exec(5), sd-daemon(3)).
//!
//! Says nothing itself and waits for nothing ([`StandardError`] does). Invariant: a line has a priority where standard
//! error is the stream that `JOURNAL_STREAM` names, and nowhere else: not in a file, a pipe or a terminal.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::messages::{StandardError, say_last};

/// How long the end of a process waits for standard error.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where messages about the process go, each as its level demands.
#[derive(Debug, Clone, Copy)]
pub struct Messages {
    in_journal: bool,
}

impl Messages {
    /// Messages to standard error, which the journal may read.
    pub fn to_standard_error() -> Self {
        Self { in_journal: is_journal() }
    }

    fn writer(self, level: Level) -> Prioritized<StandardError> {
        Prioritized { priority: if self.in_journal { priority(level) } else { "" }, out: StandardError }
    }
}

impl MakeWriter<'_> for Messages {
    type Writer = Prioritized<StandardError>;

    fn make_writer(&self) -> Self::Writer {
        self.writer(Level::INFO)
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> Self::Writer {
        self.writer(*meta.level())
    }
}

/// An output for one message a write, with a priority before it.
#[derive(Debug)]
pub struct Prioritized<W> {
    priority: &'static str,
    out: W,
}

impl<W: Write> Write for Prioritized<W> {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        if self.priority.is_empty() {
            return self.out.write(message);
        }
        // In one write: the journal reads a stream, and another thread may write between two.
        self.out.write_all(&[self.priority.as_bytes(), message].concat())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints an error of the whole process as its last words, every line of it with its priority where the journal reads
/// standard error.
pub fn print_error(text: &str) {
    let priority = if is_journal() { priority(Level::ERROR) } else { "" };
    say_last(&prioritized(text, priority), LAST_WORDS);
}

fn prioritized(text: &str, priority: &str) -> String {
    text.lines().map(|line| format!("{priority}{line}")).collect::<Vec<_>>().join("\n")
}

/// Priorities of syslog: error, warning, informational, debug.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Whether the journal reads standard error.
fn is_journal() -> bool {
    static IS_JOURNAL: OnceLock<bool> = OnceLock::new();
    *IS_JOURNAL.get_or_init(|| {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        rustix::fs::fstat(rustix::stdio::stderr()).is_ok_and(|there| names(&stream, there.st_dev, there.st_ino))
    })
}

/// True if `DEVICE:INODE` is this file.
fn names(stream: &str, device: u64, inode: u64) -> bool {
    let parts = stream.split_once(':').and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    parts == Some((device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_priority_of_its_level_in_the_same_write() {
        struct Writes(Vec<String>);
        impl Write for Writes {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let all = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(all.map(priority), ["<3>", "<4>", "<6>", "<7>", "<7>"]);
        let mut out = Prioritized { priority: "<4>", out: Writes(Vec::new()) };
        out.write_all(b"WARN full\n").unwrap();
        out.priority = "";
        out.write_all(b"WARN full\n").unwrap();
        assert_eq!(out.out.0, ["<4>WARN full\n", "WARN full\n"]);
        let level = |in_journal, level| Messages { in_journal }.writer(level).priority;
        assert_eq!((level(true, Level::WARN), level(false, Level::WARN)), ("<4>", ""));
    }

    #[test]
    fn every_line_of_an_error_has_its_priority() {
        assert_eq!(prioritized("a.toml: 2 problems\na.toml:1:2: b", "<3>"), "<3>a.toml: 2 problems\n<3>a.toml:1:2: b");
        assert_eq!(prioritized("one", ""), "one");
    }

    #[test]
    fn only_the_stream_that_is_named_is_the_journal() {
        assert!(names("9:123456", 9, 123_456));
        for other in ["", ":", "9", "9:", ":123456", "9:12345", "8:123456", "9:123456:1", "x:y"] {
            assert!(!names(other, 9, 123_456), "{other}");
        }
    }
}
