//! What the service manager is told of this process, and when.
//!
//! Knows no protocol (`notify` does). Invariants: a sign of life means that this thread, every worker and every runtime
//! have done a turn for it; the time of a stop is extended within the times of the configuration, and not beyond.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::notify::{Notification, ServiceManager};
use super::{Server, lock_of, stop};
use crate::threads::Threads;

/// How often the status is told anew while the process drains, and what was not taken is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// How often the status is told anew otherwise.
const REFRESH: Duration = Duration::from_secs(10);

/// By how much each look extends the time that the manager gives the stop.
const EXTENSION: Duration = Duration::from_secs(10);

/// A reload that the service manager knows of. When it is dropped, the manager learns that the reload is over.
pub(super) struct ReloadReport<'s>(&'s Server);

impl Drop for ReloadReport<'_> {
    fn drop(&mut self) {
        self.0.report_ready();
    }
}

impl Server {
    /// Tells that a configuration is in force.
    pub(super) fn report_ready(&self) {
        if self.manager.is_there() && !self.stopping.load(Relaxed) {
            self.manager.notify(&[Notification::Ready, Notification::Status(&self.serving())]);
        }
    }

    /// Tells that a reload has begun.
    pub(super) fn report_reload(&self) -> ReloadReport<'_> {
        if !self.stopping.load(Relaxed) {
            self.manager.notify(&[Notification::reloading(), Notification::Status("reloading")]);
        }
        ReloadReport(self)
    }

    /// Tells that the stop begins.
    pub(super) fn report_stop(&self) {
        let longest = stop::longest(&self.current.load().config.process);
        let status = self.draining(longest);
        self.manager.notify(&[
            Notification::Stopping,
            Notification::Status(&status),
            Notification::ExtendTimeout(EXTENSION),
        ]);
    }

    /// Keeps the status fresh and gives signs of life, for ever.
    pub(super) async fn report(self: Arc<Self>) {
        if self.manager.is_there() {
            tokio::join!(self.refresh_status(), give_signs_of_life(&self.manager, &self.threads));
        }
    }

    async fn refresh_status(&self) {
        let mut told = Instant::now();
        let mut until = None;
        loop {
            tokio::time::sleep(LOOK).await;
            self.manager.flush();
            if self.stopping.load(Relaxed) {
                let longest = || Instant::now() + stop::longest(&self.current.load().config.process);
                let left = until.get_or_insert_with(longest).saturating_duration_since(Instant::now());
                self.manager.notify(&while_draining(&self.draining(left), left));
            } else if told.elapsed() >= REFRESH {
                told = Instant::now();
                self.manager.notify(&[Notification::Status(&self.serving())]);
            }
        }
    }

    fn serving(&self) -> String {
        let snapshot = self.current.load();
        let backends = snapshot.pools.iter().flat_map(|pool| pool.backends());
        let (up, all) =
            backends.fold((0, 0), |(up, all), backend| (up + usize::from(backend.standing().serves()), all + 1));
        let (generation, open) = (snapshot.generation, connections(self.workers.open()));
        let serving = format!("serving: generation {generation}, {open}, {up} of {all} backends up");
        match lock_of(&self.reloads).problems.as_slice() {
            [] => serving,
            [first, ..] => format!("{serving}; the last reload was refused: {first}"),
        }
    }

    fn draining(&self, left: Duration) -> String {
        format!("draining: {} left, at most {} s more", connections(self.workers.open()), left.as_secs())
    }
}

/// What each look tells while the process drains. The time is not extended once the stop is overdue.
fn while_draining(status: &str, left: Duration) -> Vec<Notification<'_>> {
    let extension = (!left.is_zero()).then_some(Notification::ExtendTimeout(EXTENSION));
    std::iter::once(Notification::Status(status)).chain(extension).collect()
}

fn connections(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

/// Gives a sign of life as often as the manager wants one, as long as every thread answers.
async fn give_signs_of_life(manager: &ServiceManager, threads: &Threads) {
    let Some(every) = manager.watchdog() else { return };
    loop {
        let begun = tokio::time::Instant::now();
        let mut answers = pin!(threads.answer());
        if tokio::time::timeout(every, &mut answers).await.is_err() {
            tracing::error!("a worker or a runtime has not answered for {every:?}: no sign of life for the watchdog");
            answers.await;
            tracing::warn!("the worker or runtime answers again, after {:?}", begun.elapsed());
        }
        manager.notify(&[Notification::Watchdog]);
        tokio::time::sleep_until(begun + every).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::Mutex;

    use super::*;
    use crate::threads::{Delivery, RunningThread, ThreadCommand, ThreadHandle};

    /// A thread that replies when it is let.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Mutex<Vec<ThreadCommand>>>);

    impl ThreadHandle for Stuck {
        fn deliver(&self, command: ThreadCommand) -> Delivery<'_> {
            self.0.lock().unwrap().push(command);
            Box::pin(std::future::ready(()))
        }
    }

    impl Stuck {
        fn reply(&self) -> bool {
            match self.0.lock().unwrap().pop() {
                Some(ThreadCommand::Ping(done)) => done.send(()).is_ok(),
                _ => false,
            }
        }
    }

    /// A thread that replies at once.
    struct Lively;

    impl ThreadHandle for Lively {
        fn deliver(&self, command: ThreadCommand) -> Delivery<'_> {
            if let ThreadCommand::Ping(done) = command {
                let _ = done.send(());
            }
            Box::pin(std::future::ready(()))
        }
    }

    fn threads(handles: Vec<Box<dyn ThreadHandle>>) -> Threads {
        let running = handles.into_iter().map(|handle| RunningThread::spawn("t".into(), None, handle, || Ok(())));
        Threads::new(running.map(Result::unwrap).collect::<Vec<_>>())
    }

    /// A manager with a watchdog of 20 ms, and the socket that it reads.
    fn manager(dir: &tempfile::TempDir) -> (ServiceManager, UnixDatagram) {
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (ServiceManager::with_watchdog(&path, Duration::from_millis(20)), socket)
    }

    fn signs(socket: &UnixDatagram) -> usize {
        let mut buffer = [0; 256];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
    }

    #[tokio::test]
    async fn one_thread_that_is_stuck_ends_the_signs_of_life_until_it_answers() {
        let dir = tempfile::tempdir().unwrap();
        let (manager, socket) = manager(&dir);
        let stuck = Stuck::default();
        let threads = threads(vec![Box::new(Lively), Box::new(stuck.clone()), Box::new(Lively)]);
        let mut life = pin!(give_signs_of_life(&manager, &threads));
        let wait = Duration::from_millis(200);
        assert!(tokio::time::timeout(wait, &mut life).await.is_err());
        assert_eq!(signs(&socket), 0);
        assert!(stuck.reply(), "it was asked");
        assert!(tokio::time::timeout(wait, &mut life).await.is_err());
        assert_eq!(signs(&socket), 1, "and is asked again");
    }

    #[tokio::test]
    async fn threads_that_answer_are_a_sign_of_life_twice_in_the_time_of_the_watchdog() {
        let dir = tempfile::tempdir().unwrap();
        let (manager, socket) = manager(&dir);
        let threads = threads(vec![Box::new(Lively), Box::new(Lively)]);
        let life = give_signs_of_life(&manager, &threads);
        assert!(tokio::time::timeout(Duration::from_millis(500), life).await.is_err());
        let signs = signs(&socket);
        assert!((10..=51).contains(&signs), "{signs} in 500 ms, one in 10 ms is due");
    }

    #[test]
    fn the_time_of_a_stop_is_extended_from_look_to_look_until_it_is_overdue() {
        let status = Notification::Status("draining");
        let extension = Notification::ExtendTimeout(EXTENSION);
        assert_eq!(while_draining("draining", Duration::from_millis(1)), [status, extension]);
        assert_eq!(while_draining("draining", Duration::ZERO), [status]);
        assert!(EXTENSION >= 5 * LOOK, "a look that is late does not end the process");
    }

    #[test]
    fn a_count_has_its_plural() {
        assert_eq!([0, 1, 2].map(connections), ["0 connections", "1 connection", "2 connections"]);
    }
}
