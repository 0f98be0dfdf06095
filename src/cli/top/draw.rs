//! [`frame`] and [`text`]: what is known of the process and what the reader has chosen, as lines of a screen or of a text.
//!
//! Owns no terminal. `cells` has text and colours, `header`, `table`, `lists` and `details` the parts. Invariants: a frame
//! has no more lines than the screen, and no line is wider than it; what is cut is the least important; colours repeat
//! what a word says.

mod cells;
mod details;
mod header;
mod lists;
mod table;

use ratatui::Frame;
use ratatui::text::Line;

pub(super) use self::cells::Look;
use self::cells::{Tone, span};
use super::keys::HELP;
use super::model::Model;
use super::rows::{SortBy, TopRow, rows};
use super::view::{Front, View};
use crate::cli::width::COLUMNS;

/// Fewest lines below the header with which lists stand below the table.
const ROOM_FOR_LISTS: usize = 10;

/// Events that have room before the table may push them out, with their heading.
const EVENTS_MIN: usize = 4;

/// Most lines of one list, where there is room.
const LIST_MAX: usize = 5;

/// Events of a printed text, with their heading.
const EVENTS_PRINTED: usize = 11;

/// Draws on a screen.
pub(super) fn draw(screen: &mut Frame<'_>, model: &Model, view: &View, look: Look) {
    let area = screen.area();
    let lines = frame(model, view, look, area.width.into(), area.height.into());
    for (y, line) in (area.y..).zip(&lines) {
        screen.buffer_mut().set_line(area.x, y, line, area.width);
    }
}

/// The lines of a screen.
fn frame(model: &Model, view: &View, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = header::lines(model, view, look, width);
    lines.truncate((height / 3).max(1));
    let foot = usize::from(height >= 4);
    let room = height.saturating_sub(lines.len() + foot);
    let rows = rows(model, view.sort);
    let place = view.place(&rows);
    let mut body = match (view.front, place.map(|place| &rows[place])) {
        (Front::Help, _) => help(look, width),
        (Front::Details, Some(row)) => details::lines(model, row, look, width, room),
        _ => list(model, &rows, place, look, width, room),
    };
    body.resize(room, Line::default());
    lines.append(&mut body);
    lines.extend((foot > 0).then(|| footer(view, look, width)));
    lines.truncate(height);
    lines
}

/// The same as text, with all rows, for a reader without a terminal.
pub(super) fn text(model: &Model) -> Vec<String> {
    let (look, width) = (Look { colours: false }, COLUMNS);
    let rows = rows(model, SortBy::File);
    let mut lines = header::lines(model, &View::default(), look, width);
    lines.extend(table::lines(&rows, None, look, width, rows.len() + 1));
    lines.extend(lists::moved(model, look, width));
    lines.extend(lists::known(model, look, width));
    lines.extend(lists::hottest(model, look, width));
    lines.extend(lists::events(&model.events, look, width, EVENTS_PRINTED));
    lines.iter().map(|line| line.to_string().trim_end().to_owned()).collect()
}

/// The table, and below it what else there is room for.
fn list(
    model: &Model,
    rows: &[TopRow<'_>],
    place: Option<usize>,
    look: Look,
    width: usize,
    room: usize,
) -> Vec<Line<'static>> {
    let mut lists =
        [lists::moved(model, look, width), lists::known(model, look, width), lists::hottest(model, look, width)];
    let events = if model.events.is_empty() { 0 } else { EVENTS_MIN.min(model.events.len() + 1) };
    let (least, events) = if room < ROOM_FOR_LISTS { ([usize::from(room > 4), 0, 0], 0) } else { ([1; 3], events) };
    let mut heights: Vec<usize> = lists.iter().zip(least).map(|(list, least)| list.len().min(least)).collect();
    let reserved = heights.iter().sum::<usize>() + events;
    let table = (rows.len() + 1).min(room.saturating_sub(reserved));
    let mut spare = room.saturating_sub(table + reserved);
    if room >= ROOM_FOR_LISTS {
        for (height, list) in heights.iter_mut().zip(&lists) {
            let more = (list.len().min(LIST_MAX) - *height).min(spare);
            *height += more;
            spare -= more;
        }
    }
    let mut lines = table::lines(rows, place, look, width, table);
    for (list, height) in lists.iter_mut().zip(heights) {
        list.truncate(height);
        lines.append(list);
    }
    lines.extend(lists::events(&model.events, look, width, if events > 0 { events + spare } else { 0 }));
    lines
}

fn help(look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(span(look, Tone::Title, "KEYS", width))];
    for (keys, meaning) in HELP {
        lines.push(Line::from(span(look, Tone::Plain, &format!("{keys:<17} {meaning}"), width)));
    }
    lines.push(Line::default());
    let notes = [
        "S: a second. IN/S, OUT/S: bytes from clients, and to them.",
        "ERR/S: failed connects; of a pool with HTTP, answers 5xx. LATENCY: mean time",
        "of connects since the start; of a pool with HTTP, until the first byte.",
        "A rate is - until two looks at one process tell it.",
    ];
    lines.extend(notes.map(|note| Line::from(span(look, Tone::Plain, note, width))));
    lines
}

fn footer(view: &View, look: Look, width: usize) -> Line<'static> {
    let pause = if view.paused { "p go on" } else { "p pause" };
    let keys = match view.front {
        Front::List => format!("q end  ? help  e details  s sort: {}  {pause}", view.sort.word()),
        Front::Details => format!("q end  ? help  Esc back  {pause}"),
        Front::Help => "q end  Esc back".to_owned(),
    };
    Line::from(span(look, Tone::Dim, &keys, width))
}
