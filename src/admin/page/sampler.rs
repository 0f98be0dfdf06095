//! [`PageSampler`]: one sample of the process each second, for all viewers of the page together.
//!
//! Looks at nothing itself: what is sampled is given. Invariants: no sample is made while there is no viewer; a sample is
//! made once and written as JSON once for each kind of viewer, and viewers share the bytes; a viewer that is slow misses
//! samples and holds none back; there are at most [`VIEWERS_MAX`] viewers, and viewers through the port leave places to
//! those through the socket.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::super::StickTableView;
use super::super::door::DoorKind;
use super::sample::PageSample;
use super::tables::RecentTables;

/// Most viewers at once, over all doors.
pub(super) const VIEWERS_MAX: usize = 64;
/// Most viewers at once through the port.
pub(super) const PORT_VIEWERS_MAX: usize = 48;

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// Makes samples while there are viewers.
#[derive(Debug, Clone)]
pub struct PageSampler {
    shared: Arc<SamplerShared>,
    every: Duration,
}

#[derive(Debug)]
struct SamplerShared {
    /// The last sample; `None`: there is none yet, or no viewer. Every viewer is a receiver.
    latest: watch::Sender<Option<Arc<SharedSample>>>,
    /// True while a task makes samples.
    runs: Mutex<bool>,
    /// Viewers through the port hold it, too.
    of_port: Arc<()>,
    tables: Mutex<RecentTables>,
}

/// A sample, and its bytes once a viewer has asked for them.
#[derive(Debug)]
struct SharedSample {
    sample: PageSample,
    with_clients: OnceLock<Bytes>,
    without_clients: OnceLock<Bytes>,
}

impl Default for PageSampler {
    fn default() -> Self {
        Self {
            shared: Arc::new(SamplerShared {
                latest: watch::Sender::new(None),
                runs: Mutex::new(false),
                of_port: Arc::default(),
                tables: Mutex::default(),
            }),
            every: EVERY,
        }
    }
}

impl PageSampler {
    /// Adds a viewer; the error is how many there may be. `take` makes the samples if no other viewer's does, on a thread where
    /// it may take its time. `names_clients`: the viewer sees keys of clients.
    pub(super) fn join(
        &self,
        kind: DoorKind,
        names_clients: bool,
        take: impl FnMut() -> PageSample + Send + 'static,
    ) -> Result<Viewer, usize> {
        let mut runs = self.shared.runs();
        if self.shared.latest.receiver_count() >= VIEWERS_MAX {
            return Err(VIEWERS_MAX);
        }
        let of_port = (kind == DoorKind::Port).then(|| Arc::clone(&self.shared.of_port));
        if of_port.is_some() && Arc::strong_count(&self.shared.of_port) > 1 + PORT_VIEWERS_MAX {
            return Err(PORT_VIEWERS_MAX);
        }
        let mut samples = self.shared.latest.subscribe();
        samples.mark_changed();
        if !std::mem::replace(&mut *runs, true) {
            tokio::spawn(self.clone().run(take));
        }
        Ok(Viewer { samples, names_clients, _of_port: of_port })
    }

    /// The stick tables as of late, for all viewers; `count` counts them.
    pub(super) fn tables(&self, count: impl FnOnce() -> Vec<StickTableView>) -> Vec<StickTableView> {
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner).look(count)
    }

    async fn run(self, mut take: impl FnMut() -> PageSample + Send + 'static) {
        loop {
            let taken = spawn_blocking(move || {
                let sample = take();
                (sample, take)
            });
            let Ok((sample, again)) = taken.await else {
                // It has panicked: the next viewer begins anew.
                *self.shared.runs() = false;
                return;
            };
            take = again;
            self.shared.latest.send_replace(Some(Arc::new(SharedSample::new(sample))));
            tokio::select! {
                () = sleep(self.every) => {}
                () = self.shared.latest.closed() => {}
            }
            if self.shared.rests() {
                return;
            }
        }
    }
}

impl SamplerShared {
    /// True if no viewer is left: the next one begins anew.
    fn rests(&self) -> bool {
        let mut runs = self.runs();
        *runs = self.latest.receiver_count() > 0;
        if !*runs {
            self.latest.send_replace(None);
        }
        !*runs
    }

    fn runs(&self) -> MutexGuard<'_, bool> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedSample {
    fn new(sample: PageSample) -> Self {
        Self { sample, with_clients: OnceLock::new(), without_clients: OnceLock::new() }
    }

    /// The sample as a server-sent event.
    fn bytes(&self, names_clients: bool) -> Bytes {
        let bytes = if names_clients { &self.with_clients } else { &self.without_clients };
        bytes.get_or_init(|| self.sample.event(names_clients)).clone()
    }
}

/// A viewer of the page.
#[derive(Debug)]
pub(super) struct Viewer {
    samples: watch::Receiver<Option<Arc<SharedSample>>>,
    names_clients: bool,
    _of_port: Option<Arc<()>>,
}

impl Viewer {
    /// The last sample, as a server-sent event, once it is one that this viewer has not had; `None`: there will be none.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.samples.changed().await.ok()?;
            let latest = self.samples.borrow_and_update().clone();
            if let Some(latest) = latest {
                return Some(latest.bytes(self.names_clients));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A sampler whose samples have numbers, and how many there were.
    struct Scene {
        sampler: PageSampler,
        taken: Arc<AtomicU64>,
    }

    impl Scene {
        fn new(every: Duration) -> Self {
            Self { sampler: PageSampler { every, ..PageSampler::default() }, taken: Arc::default() }
        }

        fn join(&self, names_clients: bool) -> Option<Viewer> {
            let taken = Arc::clone(&self.taken);
            let take = move || PageSample { unix_ms: taken.fetch_add(1, SeqCst) + 1, ..PageSample::default() };
            self.sampler.join(DoorKind::Socket, names_clients, take).ok()
        }

        /// Waits until no sample is made any more.
        async fn rested(&self) {
            let rested = async {
                while *self.sampler.shared.runs() {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, rested).await.expect("it rests");
        }
    }

    async fn next(viewer: &mut Viewer) -> Bytes {
        timeout(PATIENCE, viewer.next()).await.expect("a sample comes").expect("it goes on")
    }

    fn number(event: &Bytes) -> u64 {
        let json = event.strip_prefix(b"data: ").unwrap();
        serde_json::from_slice::<serde_json::Value>(json).unwrap()["unix_ms"].as_u64().unwrap()
    }

    #[tokio::test]
    async fn viewers_of_one_kind_share_the_bytes_of_one_sample() {
        let scene = Scene::new(PATIENCE);
        let mut viewers: Vec<_> = (0..16).map(|_| scene.join(true).unwrap()).collect();
        let mut other = scene.join(false).unwrap();
        let first = next(&mut viewers[0]).await;
        for viewer in &mut viewers[1..] {
            assert_eq!(next(viewer).await.as_ptr(), first.as_ptr(), "the same bytes, not equal ones");
        }
        let hidden = next(&mut other).await;
        assert_eq!((number(&hidden), hidden == first), (1, false));
        assert_eq!(scene.taken.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_late_viewer_gets_the_last_sample_at_once() {
        let scene = Scene::new(2 * PATIENCE);
        let mut early = scene.join(true).unwrap();
        let first = next(&mut early).await;
        let mut late = scene.join(true).unwrap();
        assert_eq!(next(&mut late).await, first);
        let waits = timeout(Duration::from_millis(50), late.next()).await;
        assert!(waits.is_err(), "and no sample twice");
    }

    #[tokio::test]
    async fn nothing_is_sampled_without_a_viewer() {
        let scene = Scene::new(Duration::from_millis(1));
        assert_eq!(scene.taken.load(SeqCst), 0);
        let mut viewer = scene.join(true).unwrap();
        for _ in 0..3 {
            next(&mut viewer).await;
        }
        drop(viewer);
        scene.rested().await;
        let taken = scene.taken.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(scene.taken.load(SeqCst), taken);
        // The next viewer gets no sample of before.
        let mut viewer = scene.join(true).unwrap();
        assert_eq!(number(&next(&mut viewer).await), taken + 1);
    }

    #[tokio::test]
    async fn the_end_of_the_last_viewer_is_not_waited_for_until_the_next_sample() {
        let scene = Scene::new(100 * PATIENCE);
        let mut viewer = scene.join(true).unwrap();
        next(&mut viewer).await;
        drop(viewer);
        scene.rested().await;
    }

    #[tokio::test]
    async fn a_slow_viewer_misses_samples_and_gets_the_last() {
        let scene = Scene::new(Duration::from_millis(1));
        let (mut slow, mut quick) = (scene.join(true).unwrap(), scene.join(true).unwrap());
        let first = number(&next(&mut slow).await);
        let mut last = 0;
        while last < first + 20 {
            last = number(&next(&mut quick).await);
        }
        assert!(number(&next(&mut slow).await) >= last, "no sample waits for it");
    }

    #[tokio::test]
    async fn there_are_so_many_viewers_and_no_more() {
        let scene = Scene::new(PATIENCE);
        let mut viewers: Vec<_> = (0..VIEWERS_MAX).map(|index| scene.join(index % 2 == 0).unwrap()).collect();
        assert!(scene.join(true).is_none());
        viewers.pop();
        assert!(scene.join(true).is_some());
    }

    #[tokio::test]
    async fn a_sample_that_fails_does_not_end_the_sampler() {
        let scene = Scene::new(Duration::from_millis(1));
        let broken = scene.sampler.join(DoorKind::Socket, true, || panic!("by intent")).unwrap();
        scene.rested().await;
        drop(broken);
        let mut viewer = scene.join(true).unwrap();
        next(&mut viewer).await;
    }
}
