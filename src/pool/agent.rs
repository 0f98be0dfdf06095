//! What the agent of a backend does to it: [`Backend::heed_agent`].
//!
//! Asks no agent; the probes do. Invariant: an agent ends only a drain that it has begun.

use std::time::Duration;

use super::Backend;

impl Backend {
    /// Drains the backend because its agent says so, or ends a drain that the agent has begun. A drain by command stays
    /// as it is. `deadline`: time that known clients are still served. True: something has changed.
    pub fn heed_agent(&self, drains: bool, deadline: Duration, now_ms: u64) -> bool {
        let has_changed = self.drain.heed_agent(drains, deadline, now_ms);
        if has_changed {
            self.ready_changed();
        }
        has_changed
    }

    /// Ends a drain that an agent has begun, because no agent is asked any more.
    pub fn forget_agent(&self) {
        self.heed_agent(false, Duration::ZERO, 0);
    }

    /// True if the backend's agent drains it, and no command does.
    pub fn is_drained_by_agent(&self) -> bool {
        self.drain.is_on() && self.drain.is_by_agent()
    }
}
