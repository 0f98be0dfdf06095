//! [`page`]: a page of the manual as plain text.
//!
//! Writes no escape sequence and does not ask how wide the terminal is. Invariant: no line is longer than [`WIDTH`], but
//! for lines of fenced blocks, words and tables that cannot be narrower.

use super::markup::Block;

/// Columns of a page.
pub(super) const WIDTH: usize = 80;
/// Columns between two columns of a table.
const GAP: usize = 2;

/// Renders blocks, with a blank line between two of them.
pub(in crate::cli) fn page(blocks: &[Block]) -> String {
    let blocks = blocks.iter().map(|block| lines(block).iter().map(|line| format!("{line}\n")).collect::<String>());
    blocks.collect::<Vec<_>>().join("\n")
}

fn lines(block: &Block) -> Vec<String> {
    match block {
        Block::Heading(1, title) => vec![title.to_uppercase()],
        Block::Heading(_, title) => vec![title.clone(), "-".repeat(length(title))],
        Block::Paragraph(text) => wrap(&plain(text), WIDTH),
        Block::Code(_, lines) => lines.iter().map(|line| format!("    {line}").trim_end().to_owned()).collect(),
        Block::List(items) => items.iter().flat_map(|text| item(text)).collect(),
        Block::Table(rows) => table(rows, WIDTH),
    }
}

fn item(text: &str) -> Vec<String> {
    let lines = wrap(&plain(text), WIDTH - 2).into_iter().enumerate();
    lines.map(|(index, line)| format!("{}{line}", if index == 0 { "- " } else { "  " })).collect()
}

/// A text without the marks of emphasis; backticks stay, because they show where a value ends.
fn plain(text: &str) -> String {
    text.replace("**", "")
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text, width) {
        match lines.last_mut().filter(|line| line.is_empty() || length(line) + 1 + length(word) <= width) {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Pieces of a text that stand on one line: words, and spans in backticks that fit into a line.
fn words(text: &str, width: usize) -> Vec<&str> {
    let mut in_backticks = false;
    let pieces = text.split(|c: char| {
        in_backticks ^= c == '`';
        c == ' ' && !in_backticks
    });
    let broken = |piece: &str| length(piece) > width;
    let pieces = pieces.flat_map(|piece| piece.splitn(if broken(piece) { usize::MAX } else { 1 }, ' '));
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// A table of at most `width` columns, with its head underlined. Where cells of three or more columns are wrapped, a
/// blank line stands between two rows.
pub(super) fn table(rows: &[Vec<String>], width: usize) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let widths = column_widths(&rows, width);
    let mut rendered = rows.iter().map(|row| row_lines(row, &widths));
    let mut table = Vec::new();
    if rows.first().is_some_and(|head| head.iter().any(|cell| !cell.is_empty())) {
        table.extend(rendered.next().unwrap_or_default());
        let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        table.extend(row_lines(&rules, &widths));
    } else {
        rendered.next();
    }
    let body: Vec<_> = rendered.collect();
    let is_airy = widths.len() > 2 && body.iter().any(|lines| lines.len() > 1);
    for (index, lines) in body.into_iter().enumerate() {
        table.extend((is_airy && index > 0).then(String::new));
        table.extend(lines);
    }
    table
}

/// Widths of columns that fit into `width`: the widest columns give way, down to their longest word.
fn column_widths(rows: &[Vec<String>], width: usize) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widest = |column: usize, measure: fn(&str) -> usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| measure(cell)).max().unwrap_or_default()
    };
    let least: Vec<_> = (0..columns).map(|column| widest(column, longest_word)).collect();
    let mut widths: Vec<_> = (0..columns).map(|column| widest(column, length)).collect();
    while widths.iter().sum::<usize>() + GAP * columns.saturating_sub(1) > width {
        let may_shrink = (0..columns).filter(|column| widths[*column] > least[*column]);
        let Some(column) = may_shrink.max_by_key(|column| widths[*column]) else { break };
        widths[column] -= 1;
    }
    widths
}

fn longest_word(cell: &str) -> usize {
    cell.split(' ').map(length).max().unwrap_or_default()
}

fn row_lines(row: &[String], widths: &[usize]) -> Vec<String> {
    let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| wrap(cell, *width)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or_default();
    let line = |index: usize| {
        let parts = cells.iter().zip(widths).map(|(lines, width)| {
            let part = lines.get(index).map(String::as_str).unwrap_or_default();
            format!("{part:<width$}")
        });
        parts.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    (0..height).map(line).collect()
}
