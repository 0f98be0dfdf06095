//! [`Readings`]: the files and names of a configuration are read beside the control thread, with patience.
//!
//! Reads nothing itself. Invariants: a disk or a resolver that does not answer holds no reload, no plan and no stop for
//! longer than [`FOR_READING`]; while one reading is stuck no other one begins, so that stuck threads do not pile up.

use std::sync::Mutex;

use tokio::sync::watch;

use super::lock_of;
use crate::detached::{self, FOR_READING, Patience, Unfinished};

/// The readings of this process.
#[derive(Debug)]
pub(super) struct Readings {
    patience: Patience,
    /// A reading that was given up; its thread may go on.
    stuck: Mutex<Option<Unfinished>>,
    stop: watch::Sender<bool>,
}

impl Readings {
    /// Begins without one.
    pub(super) fn new() -> Self {
        Self { patience: FOR_READING, stuck: Mutex::default(), stop: watch::Sender::new(false) }
    }

    /// Reads on a thread of its own; a problem says what does not answer.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Vec<String>> + Send + 'static,
    ) -> Result<T, Vec<String>> {
        if let Some(why) = self.stuck() {
            return Err(vec![format!("{why}, and is waited for; nothing else is read until then")]);
        }
        let mut stop = self.stop.subscribe();
        let read = tokio::select! {
            read = detached::finished_within("reading", self.patience, work) => read,
            _ = stop.wait_for(|stops| *stops) => return Err(vec!["the process is stopping".to_owned()]),
        };
        read.unwrap_or_else(|unfinished| {
            let why = unfinished.to_string();
            *lock_of(&self.stuck) = Some(unfinished);
            Err(vec![why])
        })
    }

    /// Why the last reading was given up, as long as its thread goes on.
    pub(super) fn stuck(&self) -> Option<String> {
        lock_of(&self.stuck).as_ref().filter(|stuck| stuck.is_running()).map(Unfinished::to_string)
    }

    /// Gives up every reading: the process is to stop.
    pub(super) fn give_up(&self) {
        self.stop.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::waiting;

    fn short() -> Readings {
        let (each, whole) = (Duration::from_secs(1), Duration::from_secs(5));
        Readings { patience: Patience { each, whole }, ..Readings::new() }
    }

    /// A disk that answers when something is sent.
    fn dead() -> (Sender<()>, impl FnOnce() -> Result<u32, Vec<String>> + Send + 'static) {
        let (answer, answered) = channel::<()>();
        (answer, move || waiting::on(|| "reading \"a\"".into(), || answered.recv()).map(|()| 1).map_err(|_| Vec::new()))
    }

    #[tokio::test]
    async fn while_a_reading_is_stuck_others_are_refused_at_once_and_afterwards_they_are_not() {
        let readings = short();
        let (answer, work) = dead();
        assert_eq!(readings.read(work).await, Err(vec!["reading \"a\" took longer than 1 s".to_owned()]));
        let begun = Instant::now();
        let refused = readings.read(|| -> Result<u32, _> { panic!("no second thread") }).await.unwrap_err();
        assert!(refused[0].starts_with("reading \"a\" took longer than 1 s, and is waited for"), "{refused:?}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        answer.send(()).unwrap();
        while readings.stuck().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(readings.read(|| Ok(2)).await, Ok(2));
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_reading() {
        let readings = Readings::new();
        let (_answer, work) = dead();
        let begun = Instant::now();
        let stop = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            readings.give_up();
        };
        let (read, ()) = tokio::join!(readings.read(work), stop);
        assert_eq!(read, Err(vec!["the process is stopping".to_owned()]));
        assert!(begun.elapsed() < FOR_READING.each, "{:?}", begun.elapsed());
        assert_eq!(readings.read(|| Ok(2)).await, Err(vec!["the process is stopping".to_owned()]));
    }
}
