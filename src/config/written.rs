//! [`Written`]: the keys of a configuration file with their values, as the file has them.
//!
//! Means nothing by itself: [`check`](super::check()) gives a file its meaning, and [`diff`](super::diff) compares two.
//! Invariant: no value is ever shown, because some are secrets.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use toml::de::DeTable;
use toml::{Deserializer, Table};

use super::shorthand;

/// Every table and key of one file. The text is taken apart when it is first compared: a start compares nothing.
#[derive(Clone, Default)]
pub struct Written(Arc<WrittenText>);

#[derive(Default)]
struct WrittenText {
    text: Box<str>,
    top: OnceLock<Table>,
}

impl Written {
    /// The tables of a text; none if the text is no TOML.
    pub(super) fn of(text: &str) -> Self {
        Self(Arc::new(WrittenText { text: text.into(), top: OnceLock::new() }))
    }

    /// The keys above the first table, and the tables. What stands for a table counts as the table.
    pub(super) fn top(&self) -> &Table {
        self.0.top.get_or_init(|| self.tables().unwrap_or_default())
    }

    fn tables(&self) -> Option<Table> {
        let mut top = DeTable::parse(&self.0.text).ok()?;
        shorthand::expand(top.get_mut());
        Table::deserialize(Deserializer::from(top)).ok()
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written({} bytes)", self.0.text.len())
    }
}
