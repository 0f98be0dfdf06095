//! What a thread waits for outside of this process, such as a file or the address of a name: [`on`] tells it to the
//! [`WaitNote`] of the thread.
//!
//! Waits for nothing itself, knows no clock and sets no deadline (`detached` does). Invariant: a thread without a note
//! pays for none of this but one look.

use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

thread_local! {
    static NOTE: RefCell<Option<Arc<WaitNote>>> = const { RefCell::new(None) };
}

/// What one thread waits for, as other threads can see it.
#[derive(Debug, Default)]
pub struct WaitNote(Mutex<WaitState>);

/// The present wait of a thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitState {
    /// What is waited for, as `reading "a.pem"`; `None`: the thread computes.
    pub what: Option<String>,
    /// Waits that have begun or come forward so far: a number that stands still means that nothing answers.
    pub steps: u64,
}

impl WaitNote {
    /// The wait of this moment.
    pub fn state(&self) -> WaitState {
        self.lock().clone()
    }

    /// Puts another wait in the place of the present one, and returns that.
    fn replace(&self, what: Option<String>) -> Option<String> {
        let mut state = self.lock();
        state.steps += 1;
        std::mem::replace(&mut state.what, what)
    }

    fn lock(&self) -> MutexGuard<'_, WaitState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs work on this thread, and lets its waits be seen in a note.
pub fn noted<T>(note: Arc<WaitNote>, work: impl FnOnce() -> T) -> T {
    NOTE.set(Some(note));
    let done = work();
    NOTE.set(None);
    done
}

/// Does something that may not answer. `what`: in words, as `reading "a.pem"`.
pub fn on<T>(what: impl FnOnce() -> String, wait: impl FnOnce() -> T) -> T {
    let Some(note) = NOTE.with_borrow(Clone::clone) else { return wait() };
    let around = note.replace(Some(what()));
    let answer = wait();
    note.replace(around);
    answer
}

/// Tells that the present wait comes forward: its time begins anew.
pub fn step() {
    NOTE.with_borrow(|note| note.as_ref().inspect(|note| note.lock().steps += 1).is_some());
}

/// Bytes that come piece by piece; each piece is a step.
#[derive(Debug)]
pub struct Stepwise<R>(pub R);

impl<R: Read> Read for Stepwise<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(into)?;
        step();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seen_while_it_lasts_and_so_is_the_one_around_it() {
        let note = Arc::new(WaitNote::default());
        let seen = || (note.state().what, note.state().steps);
        let say = |what: &str| Some(what.to_owned());
        noted(Arc::clone(&note), || {
            on(
                || "outer".into(),
                || {
                    assert_eq!(seen(), (say("outer"), 1));
                    on(|| "inner".into(), || assert_eq!(seen(), (say("inner"), 2)));
                    assert_eq!(seen(), (say("outer"), 3));
                    Stepwise(&b"abc"[..]).read_exact(&mut [0; 3]).unwrap();
                    assert_eq!(seen(), (say("outer"), 4));
                },
            );
        });
        assert_eq!(seen(), (None, 5));
        on(|| panic!("no note, no words"), || ());
        assert_eq!(seen(), (None, 5));
    }
}
