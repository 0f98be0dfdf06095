//! [`Written`]: the keys of a configuration file with their values, as the file has them.
//!
//! Means nothing by itself: [`check`](super::check()) gives a file its meaning, and [`diff`](super::diff) compares two.
//! Invariant: no value is ever shown, because some are secrets.

use std::fmt;
use std::sync::Arc;

use toml::Table;

/// Every table and key of one file.
#[derive(Clone, Default)]
pub struct Written(Arc<Table>);

impl Written {
    /// The tables of a text; none if the text is no TOML.
    pub(super) fn of(text: &str) -> Self {
        Self(Arc::new(text.parse().unwrap_or_default()))
    }

    /// The keys above the first table, and the tables.
    pub(super) fn top(&self) -> &Table {
        &self.0
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written({} keys)", self.0.len())
    }
}
