//! Whether the store takes what it is told.
//!
//! A store may answer and write nothing: it is full, cannot save, has too few replicas, or may not be written to by us.
//! It can still be read, so it is asked and told as before; only what it would not have is told again no faster than it
//! is tried. Knows no store and no clock: a beat is an argument. Invariant: a complaint stands from the first refusal
//! until a beat has passed in which something was written and nothing refused.

/// What the beats have seen.
#[derive(Debug, Default)]
pub struct Refusal {
    stands: bool,
    /// Since the last beat.
    refused: bool,
    /// The same.
    written: bool,
}

impl Refusal {
    /// An entry was refused; whether it is the first of this beat.
    pub fn refused(&mut self) -> bool {
        self.stands = true;
        !std::mem::replace(&mut self.refused, true)
    }

    /// An entry was written that takes room.
    pub fn written(&mut self) {
        self.written = true;
    }

    /// A beat has passed; whether the complaint is over with it.
    pub fn beat(&mut self) -> bool {
        let is_over = self.stands && self.written && !self.refused;
        *self = Self { stands: self.stands && !is_over, ..Self::default() };
        is_over
    }

    /// Whether there is a complaint.
    pub fn stands(&self) -> bool {
        self.stands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_stands_until_a_beat_in_which_only_something_was_written() {
        let mut refusal = Refusal::default();
        refusal.written();
        assert!(!refusal.beat() && !refusal.stands());
        assert!(refusal.refused() && !refusal.refused());
        for _ in 0..3 {
            refusal.written();
            assert!(!refusal.beat(), "one key is refused, the others are written");
            assert!(refusal.stands() && refusal.refused());
        }
        assert!(!refusal.beat());
        assert!(!refusal.beat() && refusal.stands(), "nothing was told");
        refusal.written();
        assert!(refusal.beat() && !refusal.stands());
    }
}
