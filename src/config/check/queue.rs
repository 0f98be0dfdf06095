//! Reads what becomes of clients of a full backend: `on_full`, and the bounds of the lines in which they wait.
//!
//! Puts no client into a line (`pool::queue` does). Invariant: every line has a most, and every wait an end.

use std::time::Duration;

use super::Bad;
use crate::config::file::Section;
use crate::config::value::{self, MILLISECOND, MINUTE};
use crate::config::{Backend, Discover, OnFull, QueueRules};

/// Bounds where the file names none.
const DEFAULT: QueueRules = QueueRules { most: 1_000, timeout: Duration::from_secs(10) };
/// Most clients that one line may have; each holds its connection and little more.
const MOST: u64 = 100_000;

/// Reads `on_full`, `queue_max` and `queue_timeout`.
pub(super) fn on_full(pool: &Section<'_>, backends: &[Backend], discover: Option<&Discover>) -> OnFull {
    const WORDS: [(&str, OnFull); 3] =
        [("overflow", OnFull::Overflow), ("reject", OnFull::Reject), ("queue", OnFull::Queue(DEFAULT))];
    let on_full = pool.read("on_full", value::word(&WORDS)).unwrap_or(OnFull::Overflow);
    let most = pool.read("queue_max", value::integer(1..=MOST));
    let timeout = pool.read("queue_timeout", value::duration(10 * MILLISECOND, 10 * MINUTE));
    let OnFull::Queue(default) = on_full else {
        pool.idle_keys(&["queue_max", "queue_timeout"], "without on_full = \"queue\"");
        return on_full;
    };
    // A file may name one for each backend.
    let may_find_one = |rules: &Discover| rules.max_connections.is_some() || rules.source.kind() == "file";
    if backends.iter().all(|backend| backend.max_connections.is_none()) && !discover.is_some_and(may_find_one) {
        let hint = "write max_connections at the backends that are to be spared";
        pool.warn("on_full", Bad::new("no client ever waits: no backend has max_connections").hint(hint));
    }
    OnFull::Queue(QueueRules { most: most.unwrap_or(default.most), timeout: timeout.unwrap_or(default.timeout) })
}
