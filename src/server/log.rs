//! The outputs of the process: what a configuration says about them, opened, put in force, and a file opened anew.
//!
//! Writes no line (`access_log` does). Invariants: an output that cannot be opened changes nothing: the start, the reload
//! or the command is refused, and the output in force stays; a file that was made for a configuration which is refused
//! goes again.

use std::io;
use std::time::{Duration, Instant};

use super::alarms::LogLosses;
use super::made::Made;
use super::{EXIT_UNAVAILABLE, LOG_PATIENCE, Server, StartError, lock_of, own_files};
use crate::access_log::{AccessLog, OpenOutput, Schema, set_message_format};
use crate::config::{Log, LogFormat, LogOutput};
use crate::detached::{self, FOR_READING, Unfinished};

/// How long `sessile log reopen` waits for the last lines of the old file.
const REOPEN_PATIENCE: Duration = Duration::from_secs(2);

/// How often it looks whether they are written.
const LOOK: Duration = Duration::from_millis(5);

/// The lines that a configuration wants.
pub(super) fn schema(log: &Log) -> Schema {
    Schema { json: log.format == LogFormat::Json, fields: log.fields }
}

/// Opens the log of the start, before anything is served. `made` gets what goes again if the start fails.
pub(super) fn open_first(log: &Log, made: &mut Made) -> Result<AccessLog, StartError> {
    let wanted = log.output.clone();
    let output = opened(&log.output, detached::within("log", FOR_READING, move || open_here(&wanted)));
    let (output, new) = output.map_err(|line| StartError { code: EXIT_UNAVAILABLE, lines: vec![line] })?;
    made.and(new);
    AccessLog::open(schema(log), output).map_err(|error| StartError::unavailable("log", error))
}

/// Opens an output, while the process goes on.
pub(super) async fn open(output: &LogOutput) -> Result<(OpenOutput, Made), String> {
    let wanted = output.clone();
    opened(output, detached::finished_within("log", FOR_READING, move || open_here(&wanted)).await)
}

/// Opens an output on this thread, with the folder of a file if that is missing.
fn open_here(output: &LogOutput) -> io::Result<(OpenOutput, Made)> {
    let mut made = Made::default();
    let LogOutput::File(path) = output else { return Ok((OpenOutput::open(output)?, made)) };
    made.folder_of(path, own_files::OF_GROUP)?;
    if OpenOutput::make(path) {
        made.file(path);
    }
    Ok((OpenOutput::open(output)?, made))
}

fn opened<T>(output: &LogOutput, opened: Result<io::Result<T>, Unfinished>) -> Result<T, String> {
    let why = match opened {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(error)) => error.to_string(),
        Err(unfinished) => unfinished.to_string(),
    };
    Err(format!("log.output: {output} cannot be opened: {why}"))
}

impl Server {
    /// Opens the output of a reload; `None`: it stays the one in force.
    pub(super) async fn open_changed_log(&self, next: &Log) -> Result<Option<(OpenOutput, Made)>, String> {
        let output = self.current.load().config.process.log.output.clone();
        if output == next.output { Ok(None) } else { open(&next.output).await.map(Some) }
    }

    /// Puts format, fields and output in force, all at once for the access log.
    pub(super) fn put_log_in_force(&self, log: &Log, output: Option<OpenOutput>) {
        let schema = schema(log);
        set_message_format(schema.json);
        if let Some(access_log) = lock_of(&self.access_log).as_ref() {
            access_log.change(schema, output);
        }
    }

    /// Opens the file of the access log anew, and returns once no line goes to the old one. Returns the path, or why
    /// nothing has changed.
    pub(super) async fn reopen(&self) -> Result<String, String> {
        // No reload changes the output meanwhile.
        let _one_at_a_time = self.listen_sockets.lock().await;
        let log = self.current.load().config.process.log.clone();
        let LogOutput::File(path) = &log.output else {
            return Err(format!("the access log goes to {}; only a file is opened anew", log.output));
        };
        let (output, made) = open(&log.output).await?;
        made.keep();
        let change = lock_of(&self.access_log).as_ref().map(|access_log| access_log.change(schema(&log), Some(output)));
        let number = change.ok_or("the process is ending")?;
        let until = Instant::now() + REOPEN_PATIENCE;
        let is_made = || lock_of(&self.access_log).as_ref().is_none_or(|access_log| access_log.has_changed(number));
        while !is_made() {
            if Instant::now() >= until {
                return Err("the file that was open does not take its last lines; the new one follows them".to_owned());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(path.display().to_string())
    }

    /// Lines that the access log has lost so far.
    pub(super) fn log_losses(&self) -> LogLosses {
        let output = self.current.load().config.process.log.output.clone();
        match lock_of(&self.access_log).as_ref() {
            Some(log) => LogLosses {
                dropped: log.dropped(),
                lost: log.lost(),
                error: log.lost_because(),
                is_stalled: log.is_stalled(),
                output,
            },
            None => LogLosses::default(),
        }
    }

    /// Writes what is left, and says how many lines were not written, all counted.
    pub(super) fn finish_log(&self) {
        let access_log = lock_of(&self.access_log).take();
        let unwritten = access_log.map_or(0, |access_log| access_log.finish(LOG_PATIENCE));
        if unwritten > 0 {
            tracing::warn!("access log: {unwritten} lines of this process were not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn of_processes_that_open_one_file_at_once_one_has_made_it() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..100 {
            let output = LogOutput::File(dir.path().join(round.to_string()));
            let begin = Barrier::new(8);
            let open = || {
                begin.wait();
                let (_, made) = open_here(&output).unwrap();
                made
            };
            let made: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let makers = made.iter().filter(|made| !made.is_empty()).count();
            made.into_iter().for_each(Made::keep);
            assert_eq!(makers, 1, "in round {round}");
        }
    }
}
