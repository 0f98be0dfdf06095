//! [`EntryKind`]: why a key is at its backend.
//!
//! Decides nothing. Invariant: every kind has a word of its own, which never changes: other processes know it.

/// Why a key is at its backend. A later kind is worth more when entries give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// Placement chose this backend and would choose it again.
    Placed,
    /// Placement chose this backend under an earlier digest.
    Outgrown,
    /// Placement would choose another backend, which could not serve the key.
    Displaced,
    /// Placement would choose another backend, but the key stays: that one was overloaded, or the pool has grown since,
    /// or load placed the key, which has no backend of its own.
    Overflowed,
    /// The key is a value of a learned cookie that a client brought: no backend is known to have set it.
    Brought,
    /// The key is a value of a learned cookie that the backend set. The kind stays when the key moves.
    Learned,
}

impl EntryKind {
    /// Every kind, from the one worth least on.
    const ALL: [Self; 6] =
        [Self::Placed, Self::Outgrown, Self::Displaced, Self::Overflowed, Self::Brought, Self::Learned];

    /// Returns the word by which another process knows the kind.
    pub fn word(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Outgrown => "outgrown",
            Self::Displaced => "displaced",
            Self::Overflowed => "overflowed",
            Self::Brought => "brought",
            Self::Learned => "learned",
        }
    }

    /// Returns the kind of this word; `None`: there is none.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether the key is a value of a learned cookie.
    pub fn is_value(self) -> bool {
        matches!(self, Self::Brought | Self::Learned)
    }
}
