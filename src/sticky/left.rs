//! [`Left`]: the backend that a client had and does not get, and why.
//!
//! Names no backend: `pool` knows the names behind the indexes. Invariant: a client that gets the backend which it had
//! has left nothing, whatever made it look for another.

use crate::outcome::BreakCause;

/// The backend that a client had, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Had {
    /// A backend of the pool, by its index.
    Backend(usize),
    /// A backend that the pool does not have any more, by its index among the former ones.
    Former(usize),
    /// A backend with a name that is not known any more.
    Nameless,
}

/// The backend that a client had, and why the client does not keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The backend that the client had.
    pub had: Had,
    /// Why the client does not keep it.
    pub cause: BreakCause,
}

impl Left {
    /// The client had the backend at this index of the pool.
    pub fn backend(index: usize, cause: BreakCause) -> Self {
        Self { had: Had::Backend(index), cause }
    }

    /// The client had a backend that was removed: the one at this index among the former ones, if it is known.
    pub fn removed(former: Option<usize>) -> Self {
        Self { had: former.map_or(Had::Nameless, Had::Former), cause: BreakCause::Removed }
    }

    /// The same for a client that gets the backend at this index; `None`: that is the backend which it had.
    pub fn by_getting(self, index: usize) -> Option<Self> {
        (self.had != Had::Backend(index)).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_gets_another_backend_than_its_own_has_left_one() {
        let left = Left::backend(1, BreakCause::Down);
        assert_eq!((left.by_getting(0), left.by_getting(1)), (Some(left), None));
        for gone in [Left::removed(Some(1)), Left::removed(None)] {
            assert_eq!(gone.by_getting(1), Some(gone), "a former backend is none of those that the pool has");
        }
    }
}
