//! [`Written`]: the keys of a configuration file with their values, as the file has them, and where.
//!
//! Means nothing by itself: [`check`](super::check()) gives a file its meaning, and [`diff`](super::diff) compares two.
//! Invariant: no value is ever shown, because some are secrets.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Deserializer, Spanned, Table};

use super::{Bind, problem, shorthand};

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

    /// Line and column of an address of a listener, for a problem that shows only when it is bound. Where the text has it
    /// in other words, as `8080` or a name, the value with the same port stands in; the listener if there is none.
    pub fn place_of_bind(&self, listener: &str, bind: &Bind) -> (usize, usize) {
        let text = &self.0.text;
        let offset = DeTable::parse(text).ok().and_then(|top| offset_of_bind(top.get_ref(), listener, bind));
        problem::place_in(text, offset.unwrap_or(0))
    }

    fn tables(&self) -> Option<Table> {
        let mut top = DeTable::parse(&self.0.text).ok()?;
        shorthand::expand(top.get_mut());
        Table::deserialize(Deserializer::from(top)).ok()
    }
}

fn offset_of_bind(top: &DeTable<'_>, listener: &str, bind: &Bind) -> Option<usize> {
    let is_it = |table: &&Spanned<DeValue<'_>>| text_at(table, "name") == Some(listener);
    let listener = elements(top.get("listener")?).iter().find(is_it)?;
    let Some(written) = listener.get_ref().as_table()?.get("bind") else { return Some(listener.span().start) };
    let port = match bind {
        Bind::Tcp(address) => address.port().to_string(),
        Bind::Unix(_) | Bind::Systemd(_) => String::new(),
    };
    let (exact, values) = (bind.to_string(), elements(written));
    let is_exact = |value: &&Spanned<DeValue<'_>>| value.get_ref().as_str() == Some(&exact);
    let has_port = |value: &&Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::String(text) => text.rsplit(':').next() == Some(&port),
        DeValue::Integer(number) => number.as_str() == port,
        _ => false,
    };
    let found = values.iter().find(is_exact).or_else(|| values.iter().find(has_port));
    Some(found.unwrap_or(written).span().start)
}

/// The elements of a list, or a value alone.
pub(super) fn elements<'v, 'i>(value: &'v Spanned<DeValue<'i>>) -> &'v [Spanned<DeValue<'i>>] {
    value.get_ref().as_array().map_or(std::slice::from_ref(value), |elements| &elements[..])
}

/// The text under a key of a table.
pub(super) fn text_at<'v>(table: &'v Spanned<DeValue<'_>>, key: &str) -> Option<&'v str> {
    table.get_ref().as_table()?.get(key)?.get_ref().as_str()
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written({} bytes)", self.0.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_listener_is_found_where_it_is_written() {
        let text = "[[listener]]\nname = \"a\"\nbind = [\"10.0.0.1:80\", \"localhost:81\", \"unix:/u\"]\n\
                    [[listener]]\nname = \"b\"\nbind = 8080\n[[listener]]\nname = \"c\"\n";
        let written = Written::of(text);
        let place = |listener, bind: &str| match bind.strip_prefix("unix:") {
            Some(path) => written.place_of_bind(listener, &Bind::Unix(path.into())),
            None => written.place_of_bind(listener, &Bind::Tcp(bind.parse().unwrap())),
        };
        for (listener, bind, expected) in [
            ("a", "10.0.0.1:80", (3, 9)),
            ("a", "[::1]:81", (3, 24)),
            ("a", "unix:/u", (3, 40)),
            ("a", "10.0.0.1:99", (3, 8)),
            ("b", "0.0.0.0:8080", (6, 8)),
            ("c", "0.0.0.0:80", (7, 1)),
            ("d", "0.0.0.0:80", (1, 1)),
        ] {
            assert_eq!(place(listener, bind), expected, "{listener} {bind}");
        }
        let alone = Written::of("listener = { name = \"a\", bind = \":80\" }\n");
        assert_eq!(alone.place_of_bind("a", &Bind::Tcp("[::]:80".parse().unwrap())), (1, 33));
    }
}
