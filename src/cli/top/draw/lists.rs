//! What stands below the table: known clients that moved, known clients by age, hottest keys, the last events.
//!
//! Invariant: each list has the most telling line first; the last event is the last line.

use std::collections::VecDeque;

use ratatui::text::Line;

use super::cells::{Look, Tone, span};
use super::table::count_rate;
use crate::cli::status::narrow::count;
use crate::cli::status::{HOT, share};
use crate::cli::top::model::Model;
use crate::events::{DatedEvent, EventKind};
use crate::metrics::status::{PoolStatus, StickTableStatus};

/// Known clients that got another backend than theirs: all of them, then by pool where several have some.
pub(super) fn moved(model: &Model, look: Look, width: usize) -> Vec<Line<'static>> {
    let pools: Vec<_> = model.status.pools.iter().filter(|pool| pool.breaks.values().sum::<u64>() > 0).collect();
    let rate = count_rate(model.rates.moved());
    let all: u64 = pools.iter().flat_map(|pool| pool.breaks.values()).sum();
    let clients = if all == 1 { "client" } else { "clients" };
    let head = format!("{} known {clients}, {rate}/s", count(all));
    match &pools[..] {
        [] => vec![titled(look, width, "MOVED", "none")],
        [pool] => vec![titled(look, width, "MOVED", &format!("{head}: {} of {}", causes(pool), pool.name))],
        pools => {
            let first = titled(look, width, "MOVED", &head);
            let of_pool = |pool: &&PoolStatus| titled(look, width, "", &format!("{} of {}", causes(pool), pool.name));
            std::iter::once(first).chain(pools.iter().map(of_pool)).collect()
        }
    }
}

/// Counts of a pool by cause.
pub(super) fn causes(pool: &PoolStatus) -> String {
    let causes = pool.breaks.iter().filter(|(_, count)| **count > 0);
    let causes: Vec<_> = causes.map(|(cause, number)| format!("{} {cause}", count(*number))).collect();
    causes.join(", ")
}

/// Entries of stick tables by the time since they were last seen.
pub(super) fn known(model: &Model, look: Look, width: usize) -> Vec<Line<'static>> {
    let tables = model.status.stick_tables.iter();
    let lines = tables.enumerate().map(|(index, table)| {
        let StickTableStatus { name, known, displaced, full, .. } = table;
        let full = if *full { ", full" } else { "" };
        let text = format!("{} in {name}{full}, displaced {}, seen{}", count(*known), count(*displaced), ages(table));
        titled(look, width, if index == 0 { "KNOWN" } else { "" }, &text)
    });
    lines.collect()
}

/// Classes of age that have entries, the youngest first.
fn ages(table: &StickTableStatus) -> String {
    let minutes = |class: &str| class.strip_suffix('m').and_then(|minutes| minutes.parse::<u64>().ok());
    let mut classes: Vec<_> = table.known_by_age.iter().filter(|(_, count)| **count > 0).collect();
    classes.sort_by_key(|(class, _)| minutes(class).unwrap_or(u64::MAX));
    let shown = classes.into_iter().map(|(class, number)| {
        let class = match minutes(class) {
            Some(minutes) if minutes >= 60 => format!("<{}h", minutes / 60),
            Some(minutes) => format!("<{minutes}m"),
            None => class.clone(),
        };
        format!(" {class} {}", count(*number))
    });
    let shown = shown.collect::<Vec<_>>().join(",");
    if shown.is_empty() { " -".to_owned() } else { shown }
}

/// Keys with at least 1 % of the picks of their stick table.
pub(super) fn hottest(model: &Model, look: Look, width: usize) -> Vec<Line<'static>> {
    let views = model.stick_tables.iter();
    let keys = views.flat_map(|view| view.hottest.iter().map(move |hot| (&view.stick_table, hot)));
    let mut keys: Vec<_> = keys.filter(|(_, hot)| hot.share - hot.share_error >= HOT).collect();
    keys.sort_by(|(_, a), (_, b)| b.share.total_cmp(&a.share));
    let lines = keys.into_iter().enumerate().map(|(index, (table, hot))| {
        let backend = hot.backend.as_deref().unwrap_or("no entry");
        let text = format!("{} {} at {backend} of {}", share(table, hot), hot.key, table.name);
        titled(look, width, if index == 0 { "HOT" } else { "" }, &text)
    });
    lines.collect()
}

/// A heading and the last events, in at most `height` lines.
pub(super) fn events(events: &VecDeque<DatedEvent>, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    if events.is_empty() || height < 2 {
        return Vec::new();
    }
    let mut lines = vec![Line::from(span(look, Tone::Title, "EVENTS (UTC)", width))];
    let shown = events.len().min(height - 1);
    lines.extend(events.iter().skip(events.len() - shown).map(|dated| event(dated, look, width)));
    lines
}

/// One event on one line, cut where it is too long.
pub(super) fn event(dated: &DatedEvent, look: Look, width: usize) -> Line<'static> {
    let time = dated.time.split_once('T').map_or("", |(_, time)| time.get(..8).unwrap_or(time));
    let kind = dated.event.kind.word();
    let mut line = Line::from(span(look, Tone::Plain, &format!("{time} "), width));
    for (tone, text) in [(tone(dated.event.kind), &*format!("{kind:<8} ")), (Tone::Plain, &dated.event.text)] {
        let room = width.saturating_sub(line.width());
        line.push_span(span(look, tone, text, room));
    }
    line
}

/// Events that begin a trouble are bad, events that end one are good.
fn tone(kind: EventKind) -> Tone {
    let ends = |begins: &EventKind| begins.ended_by().contains(&kind);
    match kind {
        EventKind::Drain | EventKind::Drained | EventKind::Damped => Tone::Doubtful,
        _ if !kind.ended_by().is_empty() => Tone::Bad,
        _ if EventKind::ALL.iter().any(ends) => Tone::Good,
        _ => Tone::Plain,
    }
}

/// A word of a fixed width and a sentence behind it.
pub(super) fn titled(look: Look, width: usize, title: &str, text: &str) -> Line<'static> {
    let title = span(look, Tone::Title, &format!("{title:<6} "), width);
    let room = width.saturating_sub(title.width());
    Line::from(vec![title, span(look, Tone::Plain, text, room)])
}
