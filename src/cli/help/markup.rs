//! [`Block`]: a page of the manual, taken apart.
//!
//! Reads a small part of Markdown: headings, paragraphs, lists of one level, fenced blocks, tables. Renders nothing, and
//! leaves the marks inside of lines (backticks, `**`) where they are. Invariant: every word of a text is in one block.

/// A piece of a page.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Block {
    /// A heading with its level; level 1 is the title of the page.
    Heading(usize, String),
    /// Text to wrap.
    Paragraph(String),
    /// A fenced block: the word behind its fence, and its lines.
    Code(String, Vec<String>),
    /// Items to wrap, each with a bullet.
    List(Vec<String>),
    /// Rows of cells; the first row is the head, empty if the table has none.
    Table(Vec<Vec<String>>),
}

/// Takes a text apart.
pub(in crate::cli) fn parse(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines();
    // A blank line ends a paragraph, a list and a table.
    let mut goes_on = false;
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let code = lines.by_ref().take_while(|line| !line.starts_with("```")).map(str::to_owned).collect();
            blocks.push(Block::Code(language.to_owned(), code));
            goes_on = false;
        } else if line.trim().is_empty() {
            goes_on = false;
        } else {
            let begun = begin_or_go_on(line, blocks.last_mut().filter(|_| goes_on));
            blocks.extend(begun);
            goes_on = true;
        }
    }
    blocks
}

/// The block that a line begins; `None`: the line was added to the last block.
fn begin_or_go_on(line: &str, last: Option<&mut Block>) -> Option<Block> {
    let text = line.trim().to_owned();
    let level = line.chars().take_while(|c| *c == '#').count();
    if level > 0 {
        return Some(Block::Heading(level, text[level..].trim().to_owned()));
    }
    if let Some(row) = line.strip_prefix('|') {
        let row = row.trim_end();
        let cells: Vec<_> =
            row.strip_suffix('|').unwrap_or(row).split('|').map(|cell| cell.trim().to_owned()).collect();
        let is_rule = cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|c| c == '-'));
        return match last {
            Some(Block::Table(rows)) => {
                rows.extend((!is_rule).then_some(cells));
                None
            }
            _ => Some(Block::Table(vec![cells])),
        };
    }
    match (line.strip_prefix("- "), last) {
        (Some(item), Some(Block::List(items))) => items.push(item.trim().to_owned()),
        (Some(item), _) => return Some(Block::List(vec![item.trim().to_owned()])),
        (None, Some(Block::Paragraph(before))) => *before += &format!(" {text}"),
        (None, Some(Block::List(items))) => {
            if let Some(item) = items.last_mut() {
                *item += &format!(" {text}");
            }
        }
        (None, _) => return Some(Block::Paragraph(text)),
    }
    None
}
