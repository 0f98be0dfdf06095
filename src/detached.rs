//! Work that may wait for ever, as for a disk or a resolver that does not answer: [`within`] and [`finished_within`] run
//! it on a thread of its own and wait for it with [`Patience`].
//!
//! Ends no thread: work that is not done in time goes on alone, and does not keep the process from leaving. Invariant:
//! the caller goes on when one wait of the work takes longer than `each`, or all of it longer than `whole`.

use std::fmt;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::waiting::{self, WaitNote};

/// How often it is looked whether the work still comes forward.
const LOOK: Duration = Duration::from_millis(50);

/// How long work may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// One wait, as for one file; see [`waiting::on`].
    pub each: Duration,
    /// All of the work.
    pub whole: Duration,
}

/// For the files and names of one configuration. Commands wait a little longer for the verdict of a reload.
pub const FOR_READING: Patience = Patience { each: Duration::from_secs(10), whole: Duration::from_secs(60) };

/// Work that was not done in time, or not at all.
#[derive(Debug, Clone)]
pub struct Unfinished {
    why: String,
    note: Weak<WaitNote>,
}

impl Unfinished {
    /// True as long as the work goes on.
    pub fn is_running(&self) -> bool {
        self.note.strong_count() > 0
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Runs work on a thread of this name, and blocks until it is done, but no longer than the patience.
pub fn within<T: Send + 'static>(
    name: &str,
    patience: Patience,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (done, result) = sync_channel(1);
    let mut watch = Watch::start(name, patience, move || drop(done.send(work())))?;
    loop {
        match result.recv_timeout(LOOK) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => watch.look(Instant::now())?,
            Err(RecvTimeoutError::Disconnected) => return Err(failed()),
        }
    }
}

/// Like [`within`], and other work of this thread goes on meanwhile.
pub async fn finished_within<T: Send + 'static>(
    name: &str,
    patience: Patience,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (done, mut result) = oneshot::channel();
    let mut watch = Watch::start(name, patience, move || drop(done.send(work())))?;
    loop {
        match tokio::time::timeout(LOOK, &mut result).await {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(_)) => return Err(failed()),
            Err(_) => watch.look(Instant::now())?,
        }
    }
}

fn failed() -> Unfinished {
    Unfinished { why: "the thread for it has failed".to_owned(), note: Weak::new() }
}

/// The view of the work from outside.
struct Watch {
    note: Arc<WaitNote>,
    patience: Patience,
    began: Instant,
    /// The step that was seen last, and when it was seen first.
    step: u64,
    since: Instant,
}

impl Watch {
    fn start(name: &str, patience: Patience, work: impl FnOnce() + Send + 'static) -> Result<Self, Unfinished> {
        let note = Arc::new(WaitNote::default());
        let of_thread = Arc::clone(&note);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || waiting::noted(of_thread, work));
        started
            .map_err(|error: io::Error| Unfinished { why: format!("no thread for it: {error}"), note: Weak::new() })?;
        let now = Instant::now();
        Ok(Self { note, patience, began: now, step: 0, since: now })
    }

    /// An error once the patience is over.
    fn look(&mut self, now: Instant) -> Result<(), Unfinished> {
        let state = self.note.state();
        if state.steps != self.step {
            (self.step, self.since) = (state.steps, now);
        }
        let Patience { each, whole } = self.patience;
        let why = match state.what {
            Some(what) if now - self.since >= each => format!("{what} took longer than {} s", each.as_secs()),
            what if now - self.began >= whole => {
                let last = what.map_or_else(String::new, |what| format!("; the last step was {what}"));
                format!("it was not done within {} s{last}", whole.as_secs())
            }
            _ => return Ok(()),
        };
        Err(Unfinished { why, note: Arc::downgrade(&self.note) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const SHORT: Patience = Patience { each: Duration::from_secs(1), whole: Duration::from_secs(3) };

    /// A file that does not answer until something is sent.
    fn dead_file() -> (Sender<()>, impl FnOnce() -> &'static str + Send + 'static) {
        let (answer, answered) = channel();
        let read = move || {
            waiting::on(|| "reading \"dead.pem\"".into(), || answered.recv()).map_or("nothing", |()| "the content")
        };
        (answer, read)
    }

    fn ends(unfinished: &Unfinished) {
        let begun = Instant::now();
        while unfinished.is_running() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it never ends");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_file_that_does_not_answer_is_named_and_holds_nothing_but_its_thread() {
        assert_eq!(within("quick", SHORT, || 7).unwrap(), 7);
        let (answer, read) = dead_file();
        let begun = Instant::now();
        let unfinished = within("dead", SHORT, read).unwrap_err();
        assert_eq!(unfinished.to_string(), "reading \"dead.pem\" took longer than 1 s");
        assert!(begun.elapsed() < SHORT.whole, "{:?}", begun.elapsed());
        assert!(unfinished.is_running());
        answer.send(()).unwrap();
        ends(&unfinished);
        let (answer, read) = dead_file();
        answer.send(()).unwrap();
        assert_eq!(within("alive", SHORT, read).unwrap(), "the content");
    }

    #[test]
    fn a_panic_is_an_error_at_once() {
        let unfinished = within("panics", SHORT, || -> u8 { std::panic::resume_unwind(Box::new("on purpose")) });
        let unfinished = unfinished.unwrap_err();
        assert_eq!((unfinished.to_string().as_str(), unfinished.is_running()), ("the thread for it has failed", false));
    }

    #[test]
    fn what_comes_forward_may_take_the_whole_time_and_no_more() {
        let note = Arc::new(WaitNote::default());
        let begun = Instant::now();
        let mut watch = Watch { note, patience: SHORT, began: begun, step: 0, since: begun };
        let note = Arc::clone(&watch.note);
        let mut at = |ms: u64| watch.look(begun + Duration::from_millis(ms)).map_err(|late| late.to_string());
        waiting::noted(note, || {
            waiting::on(
                || "reading \"slow\"".into(),
                || {
                    for ms in [100, 1_000, 1_900, 2_800] {
                        waiting::step();
                        assert_eq!(at(ms), Ok(()), "{ms}");
                    }
                    waiting::step();
                    let late = "it was not done within 3 s; the last step was reading \"slow\"";
                    assert_eq!(at(3_000), Err(late.to_owned()));
                },
            );
        });
        assert_eq!(at(3_000), Err("it was not done within 3 s".to_owned()));
        assert_eq!(at(2_999), Ok(()), "what computes is not hurried");
    }

    #[tokio::test]
    async fn a_runtime_that_waits_for_dead_work_does_other_work_and_ends() {
        let (_answer, read) = dead_file();
        let other = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (unfinished, ()) = tokio::join!(finished_within("dead", SHORT, read), other);
        assert!(unfinished.unwrap_err().is_running());
    }
}
