//! Everything about one pool or one backend, with its events.
//!
//! Invariant: what is said first is what the table says, in whole words.

use std::collections::BTreeMap;

use ratatui::text::Line;

use super::cells::{Look, Tone, span};
use super::lists::{causes, events, titled};
use super::table::{bytes_rate, count_rate};
use crate::cli::status::narrow::{count, short, since, state};
use crate::cli::status::{bytes, duration};
use crate::cli::top::model::{Model, Rate};
use crate::cli::top::rows::TopRow;
use crate::events::Event;
use crate::metrics::status::{BackendStatus, PoolStatus};

/// The lines in front of the list.
pub(super) fn lines(model: &Model, row: &TopRow<'_>, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let (title, facts) = match row.backend {
        Some(backend) => (format!("BACKEND {}/{}", row.pool.name, backend.name), of_backend(model, row, backend)),
        None => (format!("POOL {}", row.pool.name), of_pool(row.pool, &row.rate)),
    };
    let mut lines = vec![Line::from(span(look, Tone::Title, &title, width))];
    let told = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
    lines.extend(told.map(|(name, fact)| titled(look, width, &format!("{name:<10}"), &fact)));
    let is_about = |event: &Event| {
        event.pool.as_deref() == Some(&*row.pool.name)
            && row.backend.is_none_or(|backend| event.backend.as_deref() == Some(&*backend.name))
    };
    let own = model.events.iter().filter(|dated| is_about(&dated.event)).cloned().collect();
    let room = height.saturating_sub(lines.len());
    lines.extend(events(&own, look, width, room));
    lines
}

fn of_backend(model: &Model, row: &TopRow<'_>, backend: &BackendStatus) -> Vec<(&'static str, String)> {
    let totals = &backend.totals;
    let most = backend.max_connections.map_or(String::new(), |most| format!(" of at most {most}"));
    let since = since(backend).map_or(String::new(), |seconds| format!(", for {}", short(seconds)));
    let backup = if backend.backup { ", backup" } else { "" };
    let mean = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), duration);
    let entries = model.status.stick_tables.iter().filter(|table| table.pools.contains(&row.pool.name));
    let entries: Vec<u64> = entries.filter_map(|table| table.known_by_backend.get(&backend.name).copied()).collect();
    let known = if entries.is_empty() { String::new() } else { count(entries.iter().sum()) };
    vec![
        ("address", backend.address.clone()),
        ("state", format!("{}{since}", state(backend))),
        ("complaint", backend.complaint.clone()),
        ("weight", format!("{}{backup}", backend.weight)),
        ("open", format!("{}{most}", backend.leases)),
        (
            "waiting",
            if backend.waiting > 0 { format!("{} clients for a place", backend.waiting) } else { String::new() },
        ),
        ("rates", rates(&row.rate)),
        ("total", format!("{} connections, {} failed", totals.connections, totals.connect_failures)),
        ("bytes", format!("{} from clients, {} to clients", bytes(totals.bytes_up), bytes(totals.bytes_down))),
        ("mean", format!("connect {}, connection {}", mean(totals.connect_us_mean), mean(totals.duration_us_mean))),
        ("checks", format!("{} times down, {} times up again", backend.falls, backend.rises)),
        ("known", known),
    ]
}

fn of_pool(pool: &PoolStatus, rate: &Rate) -> Vec<(&'static str, String)> {
    let by_word = |counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(word, number)| format!("{word} {number}")).collect::<Vec<_>>().join(", ")
    };
    let moved = causes(pool);
    let mut facts = vec![
        ("balance", pool.balance.clone()),
        ("digest", pool.digest.clone()),
        ("rates", rates(rate)),
        ("moved", if moved.is_empty() { "none".to_owned() } else { moved }),
        ("cookies", by_word(&pool.cookies)),
    ];
    if let Some(requests) = &pool.requests {
        let mean = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), duration);
        let [first, whole] = [requests.first_byte_us_mean, requests.duration_us_mean].map(mean);
        facts.extend([
            ("requests", format!("{}/s", count_rate(rate.requests))),
            ("responses", by_word(&requests.responses)),
            ("own", by_word(&requests.local_replies)),
            ("mean", format!("first byte {first}, whole {whole}")),
        ]);
    }
    facts
}

fn rates(rate: &Rate) -> String {
    let [new, errors] = [rate.new, rate.errors].map(count_rate);
    let [up, down] = [rate.bytes_up, rate.bytes_down].map(bytes_rate);
    format!("new {new}/s, errors {errors}/s, in {up}/s, out {down}/s")
}
