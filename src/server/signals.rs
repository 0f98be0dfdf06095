//! [`Signals`]: the signals that the process follows.
//!
//! Acts on none. Invariant: a signal that comes once `new` has returned is not lost, and a repetition of the signal to
//! stop is no second one.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals within this time of the first one to stop are repetitions of it: `timeout` and some supervisors send two.
const REPETITION: Duration = Duration::from_secs(1);

/// The signals that this process follows.
pub(super) struct Signals {
    /// Reads the file again.
    pub(super) reload: Signal,
    /// Upgrades to the file from which the process was started.
    pub(super) upgrade: Signal,
    /// Each of these begins the stop: images of nginx and HAProxy are stopped by SIGQUIT and SIGUSR1.
    pub(super) stop: [Signal; 4],
    /// Received and ignored; the default action of SIGALRM would end the process.
    _ignored: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        let stop = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::user_defined1()];
        let [a, b, c, d] = stop.map(signal);
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            stop: [a?, b?, c?, d?],
            _ignored: signal(SignalKind::alarm())?,
        })
    }
}

/// True if a signal to stop that comes now repeats the one that was received at `first`.
pub(super) fn is_repetition(first: Instant) -> bool {
    first.elapsed() < REPETITION
}

/// Waits for one of the signals to stop.
pub(super) async fn stop_signal([terminate, interrupt, quit, user1]: &mut [Signal; 4]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
        _ = user1.recv() => {}
    }
}
