//! [`CalledRows`]: connections of one worker that other threads have called, because a place for which they wait is free.
//!
//! Steps no connection. Invariant: a row that was called is taken by its worker, which is woken for the first of them; its
//! token tells it from a later row in the same slot.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use super::slab::Token;

/// The called rows of one worker.
pub struct CalledRows {
    tokens: Mutex<Vec<Token>>,
    wake_worker: Box<dyn Fn() + Send + Sync>,
}

/// Calls one row.
struct RowWaker {
    token: Token,
    rows: Arc<CalledRows>,
}

impl CalledRows {
    /// Makes the list of a worker that this function wakes.
    pub fn of(wake_worker: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { tokens: Mutex::default(), wake_worker: Box::new(wake_worker) })
    }

    /// What calls the row of this token.
    pub fn waker(self: &Arc<Self>, token: Token) -> Waker {
        Waker::from(Arc::new(RowWaker { token, rows: Arc::clone(self) }))
    }

    /// Takes the rows that were called.
    pub fn take(&self) -> Vec<Token> {
        std::mem::take(&mut *self.tokens.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for RowWaker {
    fn wake(self: Arc<Self>) {
        let mut tokens = self.rows.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.push(self.token);
        let is_first = tokens.len() == 1;
        drop(tokens);
        if is_first {
            (self.rows.wake_worker)();
        }
    }
}

impl fmt::Debug for CalledRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CalledRows")
    }
}
