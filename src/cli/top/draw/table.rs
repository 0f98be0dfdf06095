//! The table of pools and backends.
//!
//! Sorts nothing. Invariants: every line has the width of the screen; columns that find no room are left out, those that
//! are missed least first; the chosen row is among the lines, with a mark that is no colour.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::cells::{Look, Tone, cell, columns, span};
use crate::cli::status::narrow::{count, short, since};
use crate::cli::status::{bytes, duration};
use crate::cli::top::rows::TopRow;
use crate::metrics::status::BackendStatus;

/// Least and greatest width of the column of names, with the mark of the chosen row.
const NAME_WIDTHS: [usize; 2] = [13, 34];

/// Least width of the column of complaints.
const COMPLAINT_MIN: usize = 16;

/// A column: heading, width, whether it is one of numbers, how soon it is left out, and its cell.
struct TopColumn {
    heading: &'static str,
    width: usize,
    is_number: bool,
    /// Columns with higher numbers are left out first.
    rank: u8,
    cell: fn(&TopRow<'_>) -> (Tone, String),
}

static COLUMNS: [TopColumn; 12] = [
    TopColumn { heading: "STATE", width: 12, is_number: false, rank: 0, cell: state },
    TopColumn {
        heading: "SINCE",
        width: 6,
        is_number: true,
        rank: 4,
        cell: |row| plain(row.backend.and_then(since).map(short)),
    },
    TopColumn { heading: "OPEN", width: 6, is_number: true, rank: 1, cell: |row| plain(Some(count(row.open()))) },
    TopColumn {
        heading: "NEW/S",
        width: 6,
        is_number: true,
        rank: 2,
        cell: |row| plain(Some(count_rate(row.rate.new))),
    },
    TopColumn { heading: "REQ/S", width: 6, is_number: true, rank: 8, cell: requests },
    TopColumn { heading: "ERR/S", width: 6, is_number: true, rank: 3, cell: errors },
    TopColumn {
        heading: "IN/S",
        width: 6,
        is_number: true,
        rank: 5,
        cell: |row| plain(Some(bytes_rate(row.rate.bytes_up))),
    },
    TopColumn {
        heading: "OUT/S",
        width: 6,
        is_number: true,
        rank: 6,
        cell: |row| plain(Some(bytes_rate(row.rate.bytes_down))),
    },
    TopColumn { heading: "LATENCY", width: 7, is_number: true, rank: 7, cell: latency },
    TopColumn { heading: "TOTAL", width: 6, is_number: true, rank: 9, cell: |row| plain(Some(count(total(row)))) },
    TopColumn {
        heading: "WEIGHT",
        width: 6,
        is_number: true,
        rank: 11,
        cell: |row| plain(row.backend.map(|backend| backend.weight.to_string())),
    },
    TopColumn {
        heading: "ADDRESS",
        width: 21,
        is_number: false,
        rank: 10,
        cell: |row| plain(row.backend.map(|backend| backend.address.clone())),
    },
];

/// The heading and as many rows as fit, the chosen one among them.
pub(super) fn lines(
    rows: &[TopRow<'_>],
    chosen: Option<usize>,
    look: Look,
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    if height == 0 {
        return Vec::new();
    }
    let shown = choose_columns(width);
    let name_width = (width.saturating_sub(taken(&shown))).min(NAME_WIDTHS[1]);
    let complaint_width = width.saturating_sub(taken(&shown) + name_width + 1);
    let complaint_width = if complaint_width >= COMPLAINT_MIN { complaint_width } else { 0 };
    let room = height - 1;
    let first = chosen.unwrap_or_default().saturating_sub(room / 2).min(rows.len().saturating_sub(room));
    let mut heading = cell(" NAME", name_width, false);
    for column in &shown {
        heading += &format!(" {}", cell(column.heading, column.width, column.is_number));
    }
    if complaint_width > 0 {
        heading += " COMPLAINT";
    }
    let mut lines = vec![Line::from(span(look, Tone::Title, &heading, width))];
    for (place, row) in rows.iter().enumerate().skip(first).take(room) {
        let line = line(row, chosen == Some(place), &shown, [name_width, complaint_width], look);
        lines.push(line);
    }
    lines
}

fn line(
    row: &TopRow<'_>,
    is_chosen: bool,
    shown: &[&TopColumn],
    [name_width, complaint_width]: [usize; 2],
    look: Look,
) -> Line<'static> {
    let mark = if is_chosen { ">" } else { " " };
    let indent = if row.backend.is_some() { "  " } else { "" };
    let tone = if row.backend.is_some() { Tone::Plain } else { Tone::Title };
    let name = cell(row.name(), name_width.saturating_sub(1 + indent.len()), false);
    let name = cell(&format!("{mark}{indent}{name}"), name_width, false);
    let mut spans = vec![Span::styled(name, look.style(tone))];
    for column in shown {
        let (tone, text) = (column.cell)(row);
        spans.push(Span::raw(" "));
        spans.push(Span::styled(cell(&text, column.width, column.is_number), look.style(tone)));
    }
    if complaint_width > 0 {
        let complaint = row.backend.map_or("", |backend| &backend.complaint);
        spans.push(Span::raw(" "));
        let text = span(look, Tone::Plain, complaint, complaint_width);
        let rest = " ".repeat(complaint_width - columns(&text.content));
        spans.extend([text, Span::raw(rest)]);
    }
    let line = Line::from(spans);
    if !is_chosen {
        return line;
    }
    let spans = line.spans.into_iter().map(|span| {
        let style = span.style.add_modifier(Modifier::REVERSED);
        span.style(style)
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// Columns that fit beside a name, in their order.
fn choose_columns(width: usize) -> Vec<&'static TopColumn> {
    let fits = |rank: u8| {
        let wanted: Vec<_> = COLUMNS.iter().filter(|column| column.rank <= rank).collect();
        taken(&wanted) + NAME_WIDTHS[0] <= width
    };
    let most = COLUMNS.iter().map(|column| column.rank).filter(|rank| fits(*rank)).max();
    COLUMNS.iter().filter(|column| most.is_some_and(|most| column.rank <= most)).collect()
}

/// Width of columns, each with the blank before it.
fn taken(shown: &[&TopColumn]) -> usize {
    shown.iter().map(|column| column.width + 1).sum()
}

fn plain(text: Option<String>) -> (Tone, String) {
    (Tone::Plain, text.unwrap_or_default())
}

/// Health and command of a backend; of a pool, how many backends serve new clients.
fn state(row: &TopRow<'_>) -> (Tone, String) {
    let Some(backend) = row.backend else {
        let all = row.pool.backends.len();
        let serving = row.pool.backends.iter().filter(|backend| backend_state(backend).0 == Tone::Good).count();
        let tone = match serving {
            0 => Tone::Bad,
            _ if serving < all => Tone::Doubtful,
            _ => Tone::Good,
        };
        return (tone, format!("{serving}/{all} up"));
    };
    backend_state(backend)
}

fn backend_state(backend: &BackendStatus) -> (Tone, String) {
    let health = backend.state.as_str();
    match (&backend.runtime, health) {
        (None, "up" | "unchecked") => (Tone::Good, health.to_owned()),
        (None, "awaited" | "damped") => (Tone::Doubtful, health.to_owned()),
        (None, _) => (Tone::Bad, health.to_owned()),
        (Some(order), "up" | "unchecked") => (Tone::Doubtful, order.clone()),
        (Some(order), _) => (Tone::Bad, format!("{health},{order}")),
    }
}

fn requests(row: &TopRow<'_>) -> (Tone, String) {
    plain(row.pool.requests.as_ref().filter(|_| row.backend.is_none()).map(|_| count_rate(row.rate.requests)))
}

fn errors(row: &TopRow<'_>) -> (Tone, String) {
    let tone = if row.rate.errors.is_some_and(|errors| errors > 0.0) { Tone::Bad } else { Tone::Plain };
    (tone, count_rate(row.rate.errors))
}

fn latency(row: &TopRow<'_>) -> (Tone, String) {
    let mean_us = match row.backend {
        Some(backend) => backend.totals.connect_us_mean,
        None => row.pool.requests.as_ref().and_then(|requests| requests.first_byte_us_mean),
    };
    plain(mean_us.map(|us| duration(us).replace(' ', "")))
}

/// Connections since the start.
fn total(row: &TopRow<'_>) -> u64 {
    match row.backend {
        Some(backend) => backend.totals.connections,
        None => row.pool.backends.iter().map(|backend| backend.totals.connections).sum(),
    }
}

/// A number a second in at most five characters; `-`: not known.
pub(super) fn count_rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(rate.round() as u64),
    }
}

/// Bytes a second in at most five characters; `-`: not known.
pub(super) fn bytes_rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| bytes(rate.round() as u64).replace(' ', "").replace("iB", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short() {
        for (rate, text) in [
            (None, "-"),
            (Some(0.0), "0"),
            (Some(0.25), "0.2"),
            (Some(9.96), "10"),
            (Some(1e6), "1.0M"),
            (Some(0.01), "0.0"),
        ] {
            assert_eq!(count_rate(rate), text);
        }
        for (rate, text) in [(None, "-"), (Some(0.0), "0B"), (Some(1_536.0), "1.5K"), (Some(2e9), "1.9G")] {
            assert_eq!(bytes_rate(rate), text);
        }
    }

    #[test]
    fn columns_leave_in_their_order() {
        let headings = |width| choose_columns(width).iter().map(|column| column.heading).collect::<Vec<_>>();
        assert_eq!(headings(39), ["STATE", "OPEN"]);
        assert_eq!(headings(40), ["STATE", "OPEN", "NEW/S"]);
        assert_eq!(headings(80), ["STATE", "SINCE", "OPEN", "NEW/S", "ERR/S", "IN/S", "OUT/S", "LATENCY"]);
        assert_eq!(headings(160).len(), COLUMNS.len());
        assert!(headings(10).is_empty());
        let ranks: std::collections::BTreeSet<_> = COLUMNS.iter().map(|column| column.rank).collect();
        assert_eq!(ranks.len(), COLUMNS.len(), "each column has a rank of its own");
    }
}
