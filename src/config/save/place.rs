//! [`with_order`]: changes a text at the places of a backend.
//!
//! Promises nothing about the result: `save` compares what it means. Invariant: bytes that belong to no changed key stay
//! as they are.

use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::{changed_keys, keys_of};
use crate::config::shorthand::backend_name;
use crate::config::written::{elements, text_at};
use crate::order::{BackendOrder, NewBackend, OrderKind};

type Element<'i> = Spanned<DeValue<'i>>;

/// Bytes of the text, and what takes their place.
type TextChange = (Range<usize>, String);

/// The text after an order; `None`: it has no place that can be changed.
pub(super) fn with_order(text: &str, order: &BackendOrder) -> Option<String> {
    let top = DeTable::parse(text).ok()?;
    let pools = elements(top.get_ref().get("pool")?);
    let pool = pools.iter().find(|pool| text_at(pool, "name") == Some(&*order.pool))?;
    let table = pool.get_ref().as_table()?;
    let list = table.get("backend").map_or(&[][..], elements);
    let place = || list.iter().position(|element| name_of(element).as_deref() == Some(&*order.backend));
    let changes = match &order.kind {
        OrderKind::Add(new) => {
            let empty = table.get("backend").filter(|_| list.is_empty());
            vec![added(text, pool, list, empty, (&order.backend, new))?]
        }
        OrderKind::Remove { .. } => removed(text, table, list, place()?, &order.backend),
        kind => changed(text, list.get(place()?)?, kind)?,
    };
    Some(with_changes(text, changes))
}

fn with_changes(text: &str, mut changes: Vec<TextChange>) -> String {
    changes.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut after = text.to_owned();
    changes.into_iter().for_each(|(range, new)| after.replace_range(range, &new));
    after
}

/// Name of a backend, which may be written as its address alone.
fn name_of(element: &Element<'_>) -> Option<String> {
    match element.get_ref() {
        DeValue::String(address) => Some(backend_name(address)),
        _ => text_at(element, "name").map(str::to_owned),
    }
}

/// Other values of a backend.
fn changed(text: &str, backend: &Element<'_>, kind: &OrderKind) -> Option<Vec<TextChange>> {
    let Some(table) = backend.get_ref().as_table() else {
        // An address alone becomes a table, with the name that it has stood for.
        let address = backend.get_ref().as_str()?;
        let mut keys = keys_of(&backend_name(address), &NewBackend::at(address));
        for (key, value) in changed_keys(kind, false) {
            keys.retain(|(known, _)| *known != key);
            keys.push((key, value));
        }
        return Some(vec![(backend.span(), inline(&keys))]);
    };
    let last = table.iter().map(|(_, value)| end_of(value)).max()?;
    let mut added = String::new();
    let mut changes = Vec::new();
    for (key, value) in changed_keys(kind, table.contains_key("state")) {
        match table.get(key) {
            Some(before) => changes.push((before.span(), value.to_string())),
            None if is_inline(text, backend) => added += &format!(", {key} = {value}"),
            None => added += &format!("\n{}{key} = {value}", indent_at(text, last)),
        }
    }
    if !added.is_empty() {
        let at = if is_inline(text, backend) { last } else { line_end(text, last) };
        changes.push((at..at, added));
    }
    Some(changes)
}

/// A new backend behind the last one. `empty`: a list without elements.
fn added(
    text: &str,
    pool: &Element<'_>,
    list: &[Element<'_>],
    empty: Option<&Element<'_>>,
    (name, new): (&str, &NewBackend),
) -> Option<TextChange> {
    let keys = keys_of(name, new);
    let table = || {
        let lines = keys.iter().map(|(key, value)| format!("\n{key} = {value}"));
        format!("\n\n[[pool.backend]]{}", lines.collect::<String>())
    };
    let at = |at: usize, new: String| Some((at..at, new));
    let Some(last) = list.iter().max_by_key(|element| element.span().start) else {
        return match empty {
            Some(empty) => at(empty.span().start + 1, inline(&keys)),
            None => at(line_end(text, end_of(pool)), table()),
        };
    };
    let end = end_of(last);
    if last.get_ref().as_table().is_some() && !is_inline(text, last) {
        return at(line_end(text, end), table());
    }
    if !has_own_line(text, last) {
        return at(end, format!(", {}", inline(&keys)));
    }
    let indent = indent_at(text, last.span().start);
    match text[end..line_end(text, end)].trim_start().starts_with(',') {
        true => at(line_end(text, end), format!("\n{indent}{},", inline(&keys))),
        false => at(end, format!(",\n{indent}{}", inline(&keys))),
    }
}

/// Without a backend, also in ranges that are pinned to several.
fn removed(text: &str, pool: &DeTable<'_>, list: &[Element<'_>], index: usize, name: &str) -> Vec<TextChange> {
    let mut changes = vec![without(text, list, index)];
    let pins = pool.get("range").map_or(&[][..], elements).iter();
    let pins = pins
        .filter_map(|range| range.get_ref().as_table()?.get("pin"))
        .filter(|pin| pin.get_ref().as_array().is_some());
    for pin in pins.map(elements) {
        let is_it = |element: &Element<'_>| element.get_ref().as_str() == Some(name);
        if let Some(index) = pin.iter().position(is_it).filter(|_| pin.len() > 1) {
            changes.push(without(text, pin, index));
        }
    }
    changes
}

/// Without one element of a list.
fn without(text: &str, list: &[Element<'_>], index: usize) -> TextChange {
    let element = &list[index];
    let (start, end) = (element.span().start, end_of(element));
    let is_header = element.get_ref().as_table().is_some() && !is_inline(text, element);
    let range = if is_header || has_own_line(text, element) && is_alone(text, end) {
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        // With the empty line above a table.
        let begin = if is_header && text[..begin].ends_with("\n\n") { begin - 1 } else { begin };
        begin..(line_end(text, end) + 1).min(text.len())
    } else if let Some(next) = list.get(index + 1) {
        start..next.span().start
    } else if let Some(before) = index.checked_sub(1).and_then(|before| list.get(before)) {
        end_of(before)..end
    } else {
        start..end
    };
    (range, String::new())
}

/// The end of a value and of everything in it.
fn end_of(value: &Element<'_>) -> usize {
    let below = match value.get_ref() {
        DeValue::Table(table) => table.iter().map(|(_, value)| end_of(value)).max(),
        DeValue::Array(list) => list.iter().map(end_of).max(),
        _ => None,
    };
    below.unwrap_or(0).max(value.span().end)
}

fn is_inline(text: &str, element: &Element<'_>) -> bool {
    text[element.span().start..].starts_with('{')
}

/// True if nothing stands before an element in its line.
fn has_own_line(text: &str, element: &Element<'_>) -> bool {
    let before = text[..element.span().start].rsplit('\n').next().unwrap_or_default();
    before.trim().is_empty() && text[..element.span().start].contains('\n')
}

/// True if only a comma and a comment follow in the line.
fn is_alone(text: &str, end: usize) -> bool {
    let rest = text[end..line_end(text, end)].trim_start();
    let rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    rest.is_empty() || rest.starts_with('#')
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end)
}

fn indent_at(text: &str, at: usize) -> &str {
    let line = text[..at].rsplit('\n').next().unwrap_or_default();
    &line[..line.len() - line.trim_start().len()]
}

fn inline(keys: &[(&'static str, Value)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", keys.join(", "))
}
