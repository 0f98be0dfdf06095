//! [`changed_keys`]: every key that two files write differently, and when a change of it takes effect.
//!
//! Compares files as they are written, so that no key can be forgotten; what a change means is not its business.
//! Invariant: a key with another value in the two files is in the list, by itself or by the table or list that was
//! added, removed or made longer or shorter; values are never shown.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use toml::{Table, Value};

use crate::config::{Config, Pool};

/// When the change of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// With the reload.
    AtOnce,
    /// With the next start of the process.
    NextStart,
    /// With the reload, but for entries of stick tables: whether they are shared, and under which secret, stays until
    /// the next start.
    AtOnceInPart,
    /// Never: both files mean the same.
    None,
}

/// Keys that only a start reads, by table; all others take effect with a reload.
pub(super) const NEXT_START: [(&str, &str); 12] = [
    ("", "workers"),
    ("", "cpu_affinity"),
    ("", "busy_poll"),
    ("", "bulk_memory"),
    ("admin", "socket"),
    ("admin", "mode"),
    ("admin", "group"),
    ("admin", "http"),
    ("admin", "allow"),
    ("admin", "clients"),
    ("admin", "names"),
    ("log", "level"),
];

/// One difference between two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyChange {
    /// Top-level key or table that it is in: `pool`.
    pub(super) root: String,
    /// Names of the objects that it is in, from the top level on: `web/app-1`; empty outside of objects.
    pub(super) names: String,
    /// The object: `backend "web/app-1"`; empty outside of objects.
    object: String,
    /// The key with the tables above it: `cookie.path`; empty where the object itself was added or removed.
    key: String,
    word: &'static str,
    pub(super) effect: Effect,
}

impl KeyChange {
    /// The line about a key that does not take effect with a reload; `None`: it does, or has no effect.
    pub(super) fn at_next_start(&self) -> Option<String> {
        match self.effect {
            Effect::NextStart => Some(format!("{}: changed in the file; takes effect at the next start", self.key)),
            Effect::AtOnceInPart => {
                Some(format!("{}: changed in the file; \"displaced\" takes effect at the next start", self.key))
            }
            Effect::AtOnce | Effect::None => None,
        }
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.object.is_empty() || self.key.is_empty() { "" } else { ": " };
        let Self { object, key, word, effect, .. } = self;
        write!(f, "{object}{between}{key} {word}")?;
        match effect {
            // An object that is new or gone is so at once.
            Effect::AtOnce if key.is_empty() => Ok(()),
            Effect::AtOnce => f.write_str(", takes effect at once"),
            Effect::NextStart => f.write_str(", takes effect at the next start"),
            Effect::AtOnceInPart => f.write_str(", takes effect at once, but \"displaced\" at the next start"),
            Effect::None => f.write_str(", without effect"),
        }
    }
}

/// Every key that the two files write differently, those of the process first.
pub(super) fn changed_keys(old: &Config, new: &Config) -> Vec<KeyChange> {
    let mut changed = changed(old.written.top(), new.written.top());
    let pools = (old.pools_by_name(), new.pools_by_name());
    for change in &mut changed {
        if is_same(change, old, new, &pools) {
            change.effect = Effect::None;
        } else if is_in_part(change, old, new) {
            change.effect = Effect::AtOnceInPart;
        }
    }
    changed
}

fn changed(old: &Table, new: &Table) -> Vec<KeyChange> {
    let mut comparison = Comparison(Vec::new());
    comparison.tables(&Place::default(), old, new);
    comparison.0
}

type PoolsByName<'c> = HashMap<&'c str, &'c Pool>;

/// True if what the key belongs to means the same in both files: a default that was written, or a key for `check` alone.
fn is_same(change: &KeyChange, old: &Config, new: &Config, pools: &(PoolsByName<'_>, PoolsByName<'_>)) -> bool {
    let name = change.names.split('/').next().unwrap_or_default();
    let listener = |config: &Config| config.listeners.iter().position(|listener| listener.name == name);
    match &*change.root {
        "pool" => pools.0.get(name).zip(pools.1.get(name)).is_some_and(|(before, after)| before == after),
        "listener" => {
            let both = listener(old).zip(listener(new));
            both.is_some_and(|(before, after)| old.listeners[before] == new.listeners[after])
        }
        "split" => {
            let split = |config: &Config| config.splits.iter().find(|split| split.name == name).cloned();
            split(old).is_some() && split(old) == split(new)
        }
        "limits" => old.limits == new.limits,
        "tls" => old.tls == new.tls,
        "store" => old.store == new.store,
        _ => old.process == new.process,
    }
}

/// True if the key begins to share entries of stick tables, or changes the secret under which their keys are hashed:
/// they stay as they are until the next start.
fn is_in_part(change: &KeyChange, old: &Config, new: &Config) -> bool {
    let secret = |config: &Config| {
        let store = config.store.clone().filter(|store| store.share.displaced);
        store.map(|store| store.secret_file)
    };
    let is_of_it = matches!(&*change.key, "store" | "store.share" | "store.secret_file");
    is_of_it && secret(new).is_some() && secret(old) != secret(new)
}

/// Place of a table in a file.
#[derive(Debug, Clone, Default)]
struct Place {
    /// The key of the top level; empty at the top level itself.
    root: String,
    /// The tables above, without names: `pool.cookie`.
    table: String,
    /// The nearest object.
    object: String,
    /// Names of the objects above and of this one: `web/app-1`.
    names: String,
    /// Tables between the object and a key, each with its dot: `cookie.`.
    prefix: String,
}

impl Place {
    /// The table under this key.
    fn below(&self, key: &str) -> Self {
        let (root, table) = (self.root(key).to_owned(), join(&self.table, ".", key));
        Self { root, table, prefix: format!("{}{key}.", self.prefix), ..self.clone() }
    }

    /// The element of this name in the list under this key.
    fn element(&self, key: &str, name: &str) -> Self {
        let names = join(&self.names, "/", name);
        let (table, object) = (join(&self.table, ".", key), format!("{key} {names:?}"));
        Self { root: self.root(key).to_owned(), table, object, names, prefix: String::new() }
    }

    fn root<'r>(&'r self, key: &'r str) -> &'r str {
        if self.root.is_empty() { key } else { &self.root }
    }

    fn effect(&self, key: &str) -> Effect {
        if NEXT_START.contains(&(&self.table, key)) { Effect::NextStart } else { Effect::AtOnce }
    }
}

fn join(before: &str, between: &str, name: &str) -> String {
    if before.is_empty() { name.to_owned() } else { format!("{before}{between}{name}") }
}

/// The differences found so far.
struct Comparison(Vec<KeyChange>);

impl Comparison {
    fn tables(&mut self, place: &Place, old: &Table, new: &Table) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect::<BTreeSet<_>>().into_iter().collect();
        keys.sort_by_key(|key| matches!(&***key, "listener" | "pool" | "split"));
        for key in keys {
            if old.get(key) != new.get(key) {
                self.values(place, key, old.get(key), new.get(key));
            }
        }
    }

    fn values(&mut self, place: &Place, key: &str, old: Option<&Value>, new: Option<&Value>) {
        let nothing = Value::Table(Table::new());
        // A table of the process that is not written has its defaults. The store is there or not.
        let always_there = place.table.is_empty() && matches!(key, "admin" | "log" | "metrics" | "tls" | "limits");
        let (old, new) =
            if always_there { (Some(old.unwrap_or(&nothing)), Some(new.unwrap_or(&nothing))) } else { (old, new) };
        if let (Some(Value::Table(old)), Some(Value::Table(new))) = (old, new) {
            return self.tables(&place.below(key), old, new);
        }
        if let (Some(old), Some(new)) = (objects(old), objects(new))
            && self.lists(place, key, &old, &new)
        {
            return;
        }
        let word = match (old, new) {
            (None, Some(Value::Table(_))) => "added",
            (Some(Value::Table(_)), None) => "removed",
            _ => "changed",
        };
        self.0.push(KeyChange {
            root: place.root(key).to_owned(),
            names: place.names.clone(),
            object: place.object.clone(),
            key: format!("{}{key}", place.prefix),
            word,
            effect: place.effect(key),
        });
    }

    /// Compares two lists of objects: by name, or by position if they have none and are equally long. False: neither.
    fn lists(&mut self, place: &Place, key: &str, old: &[&Table], new: &[&Table]) -> bool {
        let name = |table: &Table| table.get("name").and_then(Value::as_str).map(str::to_owned);
        let names = |tables: &[&Table]| tables.iter().map(|table| name(table)).collect::<Option<Vec<_>>>();
        let Some((old_names, new_names)) = names(old).zip(names(new)) else {
            let pairs = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
            if old.len() == new.len() {
                pairs.for_each(|(at, (old, new))| {
                    self.tables(&place.element(key, &format!("#{}", at + 1)), old, new);
                });
            }
            return old.len() == new.len();
        };
        let places = |names: &[String]| -> HashMap<String, usize> { names.iter().cloned().zip(0..).collect() };
        let (old_places, new_places) = (places(&old_names), places(&new_names));
        let added = new_names.iter().filter(|name| !old_places.contains_key(*name)).map(|name| (name, "added"));
        let removed = old_names.iter().filter(|name| !new_places.contains_key(*name)).map(|name| (name, "removed"));
        for (name, word) in added.chain(removed) {
            let Place { root, names, object, .. } = place.element(key, name);
            self.0.push(KeyChange { root, names, object, key: String::new(), word, effect: Effect::AtOnce });
        }
        for (name, new) in new_names.iter().zip(new) {
            if let Some(old) = old_places.get(name).and_then(|at| old.get(*at)) {
                self.tables(&place.element(key, name), old, new);
            }
        }
        true
    }
}

/// The tables of a list that holds nothing else, and none where nothing is written; `None`: another value.
fn objects(value: Option<&Value>) -> Option<Vec<&Table>> {
    let Some(value) = value else { return Some(Vec::new()) };
    let elements = value.as_array().filter(|elements| !elements.is_empty())?;
    elements.iter().map(Value::as_table).collect()
}

#[cfg(test)]
mod tests;
