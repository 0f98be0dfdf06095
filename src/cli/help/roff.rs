//! [`add`]: a page of the manual in the language of manual pages.
//!
//! Escaping is done by the `roff` crate. Tables are laid out as for the terminal and keep their lines. Invariant: the
//! title of a page is left out, because a manual page has it in NAME.

use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::markup::Block;
use super::terminal::table;

/// Columns of a table: those of a terminal without the margins of a manual page.
const TABLE_WIDTH: usize = 72;

/// Appends blocks to a page.
pub(in crate::cli) fn add(page: &mut Roff, blocks: &[Block]) {
    let mut below_heading = true;
    for block in blocks {
        match block {
            Block::Heading(1, _) => {}
            Block::Heading(_, title) => {
                page.control("SH", [title.to_uppercase().as_str()]);
            }
            Block::Paragraph(text) => {
                space_unless(below_heading, page);
                page.text(inlines(text));
            }
            Block::List(items) => {
                for item in items {
                    page.control("IP", [r"\(bu", "2"]).text(inlines(item));
                }
            }
            Block::Code(_, lines) => {
                space_unless(below_heading, page);
                keep_lines(page, "4", lines);
            }
            Block::Table(rows) => {
                space_unless(below_heading, page);
                keep_lines(page, "0", &table(rows, TABLE_WIDTH));
            }
        }
        below_heading = matches!(block, Block::Heading(..));
    }
}

/// Appends the space between two blocks; a heading needs none behind it.
fn space_unless(below_heading: bool, page: &mut Roff) {
    if !below_heading {
        page.control("PP", []);
    }
}

/// Appends lines that are neither filled nor wrapped.
pub(in crate::cli) fn keep_lines(page: &mut Roff, indent: &str, lines: &[String]) {
    page.control("RS", [indent]).control("EX", []);
    for line in lines {
        page.text([roman(line.as_str())]);
    }
    page.control("EE", []).control("RE", []);
}

/// A text with its spans in backticks in bold.
fn inlines(text: &str) -> Vec<Inline> {
    let text = text.replace("**", "");
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(index, part)| if index % 2 == 0 { roman(part) } else { bold(part) }).collect()
}
