//! [`BackendEdit`]: a change of one backend, without a file that has it.
//!
//! Changes the tables of a text and writes them as text again, so that the result is checked like every file. Judges
//! nothing but whether the backend is there. Invariant: what an edit does not name means what it meant before.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::Config;

/// A change of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendEdit {
    /// The backend is removed.
    Without {
        /// Name of the pool.
        pool: String,
        /// Name of the backend.
        backend: String,
    },
    /// The backend gets another weight.
    Weight {
        /// Name of the pool.
        pool: String,
        /// Name of the backend.
        backend: String,
        /// The new weight.
        weight: u16,
    },
    /// A backend is added.
    Add {
        /// Name of the pool.
        pool: String,
        /// Name of the new backend.
        backend: String,
        /// Address of the new backend.
        address: String,
    },
}

impl Config {
    /// The text of this configuration after the edits, one after the other; the error names what is not there.
    pub fn edited(&self, edits: &[BackendEdit]) -> Result<String, String> {
        let mut top = self.written.top().clone();
        edits.iter().try_for_each(|edit| edit.apply(&mut top))?;
        toml::to_string(&top).map_err(|error| format!("the configuration in force cannot be written: {error}"))
    }
}

impl Config {
    /// True if the edit is about a backend that the source of its pool has named, or that is under an order: no text has
    /// what is in force.
    pub fn has_found(&self, edit: &BackendEdit) -> bool {
        let (BackendEdit::Without { pool, backend } | BackendEdit::Weight { pool, backend, .. }) = edit else {
            return false;
        };
        let mut pools = self.pools.iter().filter(|known| known.name == *pool);
        pools.any(|pool| pool.orders.of(backend).is_some() || pool.found().any(|known| known.name == *backend))
    }

    /// True if the edit adds a backend that is there already.
    pub fn has_added(&self, edit: &BackendEdit) -> bool {
        let BackendEdit::Add { pool, backend, .. } = edit else { return false };
        let mut pools = self.pools.iter().filter(|known| known.name == *pool);
        pools.any(|pool| pool.backends.iter().any(|known| known.name == *backend))
    }

    /// Makes the edit of a backend that no text has as it is.
    pub fn edit_found(&mut self, edit: &BackendEdit) {
        let (BackendEdit::Without { pool, backend }
        | BackendEdit::Weight { pool, backend, .. }
        | BackendEdit::Add { pool, backend, .. }) = edit;
        let Some(pool) = self.pools.iter_mut().find(|known| known.name == *pool) else { return };
        match edit {
            BackendEdit::Without { .. } => pool.backends.retain(|known| known.name != *backend),
            BackendEdit::Weight { weight, .. } => {
                let known = pool.backends.iter_mut().filter(|known| known.name == *backend);
                known.for_each(|known| known.weight = *weight);
            }
            BackendEdit::Add { .. } => {}
        }
    }
}

impl BackendEdit {
    fn apply(&self, top: &mut Table) -> Result<(), String> {
        match self {
            Self::Without { pool, backend } => {
                let (pool_table, index) = find(top, pool, backend)?;
                if let Some(list) = backends(pool_table) {
                    list.remove(index);
                }
                unpin(pool_table, backend);
            }
            Self::Weight { pool, backend, weight } => {
                let (pool_table, index) = find(top, pool, backend)?;
                let list = backends(pool_table);
                if let Some(table) = list.and_then(|list| list[index].as_table_mut()) {
                    table.insert("weight".to_owned(), Value::Integer((*weight).into()));
                }
            }
            Self::Add { pool, backend, address } => {
                if find(top, pool, backend).is_ok() {
                    return Err(format!("pool {pool:?} has a backend {backend:?} already"));
                }
                let texts = [("name", backend), ("address", address)];
                let table: Table =
                    texts.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text.clone()))).collect();
                // A pool with a source may have no list.
                let list = find_pool(top, pool)?.entry("backend").or_insert_with(|| Value::Array(Vec::new()));
                if let Some(list) = list.as_array_mut() {
                    list.push(Value::Table(table));
                }
            }
        }
        Ok(())
    }
}

pub(super) fn find_pool<'t>(top: &'t mut Table, name: &str) -> Result<&'t mut Table, String> {
    let pools = top.get_mut("pool").and_then(Value::as_array_mut).into_iter().flatten();
    let mut pools = pools.filter_map(Value::as_table_mut);
    pools.find(|pool| is_named(pool, name)).ok_or_else(|| format!("there is no pool {name:?}"))
}

/// The table of the pool, and the index of the backend in its list.
pub(super) fn find<'t>(top: &'t mut Table, pool: &str, name: &str) -> Result<(&'t mut Table, usize), String> {
    let table = find_pool(top, pool)?;
    let is_it = |known: &Value| known.as_table().is_some_and(|known| is_named(known, name));
    let index = backends(table).and_then(|list| list.iter().position(is_it));
    Ok((table, index.ok_or_else(|| format!("pool {pool:?} has no backend {name:?}"))?))
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Value::as_str) == Some(name)
}

/// The list of backends; `None`: the pool has none, because a source names them.
pub(super) fn backends(pool: &mut Table) -> Option<&mut Vec<Value>> {
    pool.get_mut("backend").and_then(Value::as_array_mut)
}

/// Takes a removed backend out of the ranges that are pinned to several.
pub(super) fn unpin(pool: &mut Table, backend: &str) {
    let ranges = pool.get_mut("range").and_then(Value::as_array_mut).into_iter().flatten();
    for pin in ranges.filter_map(|range| range.get_mut("pin").and_then(Value::as_array_mut)) {
        if pin.iter().any(|name| name.as_str() != Some(backend)) {
            pin.retain(|name| name.as_str() != Some(backend));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FILE: &str = r#"
workers = 2
[admin]
socket = "off"
[[listener]]
name = "front"
bind = ["127.0.0.1:1", "[::1]:1"]
tls = "passthrough"
pool = "web"
route = [{ sni = "a.example.org", pool = "api" }]
[[pool]]
name = "web"
check = "tcp"
backend = [
    { name = "a", address = "127.0.0.1:1", weight = 3 },
    { name = "b", address = "127.0.0.1:2" },
    { name = "c", address = "127.0.0.1:3" },
]
[[pool.range]]
name = "office"
cidr = "10.0.0.0/8"
pin = ["a", "b"]
[[pool.range]]
name = "lab"
cidr = "192.0.2.0/24"
pin = "c"
[[pool]]
name = "api"
backend = ["127.0.0.1:4", "127.0.0.1:5"]
"#;

    fn checked(text: &str) -> Config {
        let checked = config::check(text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        checked.unwrap_or_else(|problems| panic!("{problems:?}\n{text}")).config
    }

    fn without(pool: &str, backend: &str) -> BackendEdit {
        BackendEdit::Without { pool: pool.into(), backend: backend.into() }
    }

    fn weight(backend: &str, weight: u16) -> BackendEdit {
        BackendEdit::Weight { pool: "web".into(), backend: backend.into(), weight }
    }

    fn add(backend: &str) -> BackendEdit {
        BackendEdit::Add { pool: "web".into(), backend: backend.into(), address: "127.0.0.1:9".into() }
    }

    #[test]
    fn without_an_edit_the_text_means_the_same() {
        let config = checked(FILE);
        let again = checked(&config.edited(&[]).unwrap());
        assert!(again == config && config::diff::changes(&config, &again).is_empty());
    }

    #[test]
    fn edits_change_what_they_name_and_nothing_else() {
        let config = checked(FILE);
        let edits = [without("web", "b"), weight("a", 7), weight("c", 0), add("d"), without("api", "127.0.0.1-4")];
        let after = checked(&config.edited(&edits).unwrap());
        let mut expected = config.clone();
        let web = &mut expected.pools[0];
        web.backends.remove(1);
        (web.backends[0].weight, web.backends[1].weight) = (7, 0);
        web.backends.push(config::Backend { name: "d".into(), ..after.pools[0].backends[2].clone() });
        web.ranges[0].rule = config::RangeRule::Pin { backends: vec!["a".into()], strict: false };
        expected.pools[1].backends.remove(0);
        assert_eq!(after.pools, expected.pools);
        assert!(after == expected);
        assert_eq!(after.pools[0].backends[2].address.to_string(), "127.0.0.1:9");
        let changes = config::diff::changes(&config, &after);
        assert!(changes.iter().any(|change| change.contains("\"web/b\" removed")), "{changes:?}");
    }

    #[test]
    fn what_is_not_there_is_named_and_what_cannot_be_is_found_by_the_check() {
        let config = checked(FILE);
        let refusal = |edit: BackendEdit| config.edited(&[edit]).unwrap_err();
        assert_eq!(refusal(without("shop", "a")), "there is no pool \"shop\"");
        assert_eq!(refusal(without("web", "z")), "pool \"web\" has no backend \"z\"");
        assert_eq!(refusal(weight("z", 1)), "pool \"web\" has no backend \"z\"");
        assert_eq!(refusal(add("a")), "pool \"web\" has a backend \"a\" already");
        // The only backend of a pin stays named there.
        let text = config.edited(&[without("web", "c")]).unwrap();
        let problems = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(problems.iter().any(|problem| problem.to_string().contains("lab")), "{problems:?}");
    }
}
