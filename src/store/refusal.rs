//! Whether the store refuses writes although it replies.
//!
//! A Redis that is full, cannot save, has too few replicas, or gives us no right to write still serves reads. So it
//! stays in use, and a refused entry is tried again once a tick. Uses no connection and no clock: a tick is a call.
//! Invariant: a complaint lasts from the first refusal to the first tick before which something was written and nothing
//! refused.

/// Refusals and writes since the last tick, and the complaint.
#[derive(Debug, Default)]
pub struct Refusal {
    active: bool,
    /// A write was refused since the last tick.
    refused: bool,
    /// A write was accepted since the last tick.
    written: bool,
}

impl Refusal {
    /// Takes note of a refused write; true for the first since the last tick.
    pub fn refused(&mut self) -> bool {
        self.active = true;
        !std::mem::replace(&mut self.refused, true)
    }

    /// Takes note of an accepted SET; commands that need no memory prove nothing.
    pub fn written(&mut self) {
        self.written = true;
    }

    /// Ends the tick; true if the complaint is over with it.
    pub fn tick(&mut self) -> bool {
        let is_over = self.active && self.written && !self.refused;
        *self = Self { active: self.active && !is_over, ..Self::default() };
        is_over
    }

    pub fn is_active(&self) -> bool {
        self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_stands_until_a_beat_in_which_only_something_was_written() {
        let mut refusal = Refusal::default();
        refusal.written();
        assert!(!refusal.tick() && !refusal.is_active());
        assert!(refusal.refused() && !refusal.refused());
        for _ in 0..3 {
            refusal.written();
            assert!(!refusal.tick(), "one key is refused, the others are written");
            assert!(refusal.is_active() && refusal.refused());
        }
        assert!(!refusal.tick());
        assert!(!refusal.tick() && refusal.is_active(), "nothing was written");
        refusal.written();
        assert!(refusal.tick() && !refusal.is_active());
    }
}
