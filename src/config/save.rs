//! [`save_orders`]: the text of a configuration file with orders at run time in it.
//!
//! Changes the text at the places of the backends alone, so that comments and everything else stay. Judges nothing: the
//! result is checked like every file. Invariant: the result means what the file means with the orders; a text that cannot
//! be changed in place is written anew from its tables.

mod place;

use toml::{Table, Value};

use self::place::with_order;
use super::edit::{backends, find, find_pool, unpin};
use super::written::Written;
use crate::order::{BackendOrder, NewBackend, OrderKind};

/// A text with orders in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedText {
    /// The text.
    pub text: String,
    /// Orders that no file can have, one sentence each.
    pub left_out: Vec<String>,
    /// True if the text was written anew, without its comments.
    pub is_rewritten: bool,
}

/// The text of a file with these orders in it. Drains are left to the running process.
pub fn save_orders(text: &str, orders: &[BackendOrder]) -> Result<SavedText, String> {
    let mut saved = SavedText { text: text.to_owned(), left_out: Vec::new(), is_rewritten: false };
    let mut top = Written::of(text).top().clone();
    if top.is_empty() {
        return Err("is no configuration: it is empty, or no TOML".to_owned());
    }
    for order in orders {
        if let Err(why) = apply(order, &mut top) {
            let BackendOrder { pool, backend, kind } = order;
            saved.left_out.push(format!("{} {pool}/{backend}: {why}", kind.word()));
            continue;
        }
        let changed = with_order(&saved.text, order).filter(|changed| *Written::of(changed).top() == top);
        saved.text = match changed {
            Some(changed) => changed,
            None => {
                saved.is_rewritten = true;
                toml::to_string(&top).map_err(|error| format!("cannot be written: {error}"))?
            }
        };
    }
    Ok(saved)
}

/// Makes an order in the tables of a file; an error says why no file can have it.
fn apply(order: &BackendOrder, top: &mut Table) -> Result<(), String> {
    let BackendOrder { pool, backend, kind } = order;
    match kind {
        OrderKind::Add(new) => {
            if find(top, pool, backend).is_ok() {
                return Err(format!("pool {pool:?} has a backend {backend:?} already"));
            }
            let list = find_pool(top, pool)?.entry("backend").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                list.push(Value::Table(
                    keys_of(backend, new).into_iter().map(|(key, value)| (key.into(), value)).collect(),
                ));
            }
        }
        OrderKind::Remove { .. } => {
            let (table, index) = find(top, pool, backend)?;
            if let Some(list) = backends(table) {
                list.remove(index);
            }
            unpin(table, backend);
        }
        OrderKind::Weight { .. } | OrderKind::Address { .. } => {
            let (table, index) = find(top, pool, backend)?;
            if let Some(table) = backends(table).and_then(|list| list[index].as_table_mut()) {
                for (key, value) in changed_keys(kind, table.contains_key("state")) {
                    table.insert(key.to_owned(), value);
                }
            }
        }
        OrderKind::Drain | OrderKind::Close | OrderKind::Ready => {}
    }
    Ok(())
}

/// The keys of a backend that was added.
fn keys_of(name: &str, new: &NewBackend) -> Vec<(&'static str, Value)> {
    let NewBackend { address, weight, location, max_connections } = new;
    let text = |text: &str| Value::String(text.to_owned());
    let mut keys = vec![("name", text(name)), ("address", text(address))];
    keys.extend((*weight != 1).then(|| ("weight", Value::Integer((*weight).into()))));
    keys.extend((!location.is_empty()).then(|| ("location", text(location))));
    keys.extend(max_connections.map(|most| ("max_connections", Value::Integer(most.into()))));
    keys
}

/// The keys of a backend that an order changes. `has_state`: a state in the file would stand above a weight.
fn changed_keys(kind: &OrderKind, has_state: bool) -> Vec<(&'static str, Value)> {
    match kind {
        OrderKind::Weight { weight: Some(weight) } => {
            let active = has_state.then(|| ("state", Value::String("active".to_owned())));
            [("weight", Value::Integer((*weight).into()))].into_iter().chain(active).collect()
        }
        OrderKind::Address { address: Some(address) } => vec![("address", Value::String(address.to_string()))],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
