//! [`Table`]: text tables with columns as wide as their cells, or narrower so that a line fits a terminal.
//!
//! Formats no values. Invariants: no line ends with a space; only cells of columns that may be cut are, and each of them
//! shows that it was.

use super::width::{CUT, shorten};

/// The least width to which a column is cut.
const NARROWEST: usize = 6;

/// Rows under a heading; columns of numbers are aligned to the right.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    heading: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with a heading and no rows.
    pub(super) fn new(heading: [&'static str; N]) -> Self {
        Self { heading, rows: Vec::new() }
    }

    /// Adds one row, with a cell per column.
    pub(super) fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The table as text; empty if it has no rows.
    pub(super) fn render(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let columns: [Column; N] = std::array::from_fn(|index| self.column(index));
        let heading = self.heading.map(str::to_owned);
        let lines = std::iter::once(&heading).chain(&self.rows).map(|row| {
            let cells: Vec<_> = row.iter().zip(&columns).map(|(cell, column)| column.pad(cell)).collect();
            format!("{}\n", cells.join("  ").trim_end())
        });
        lines.collect()
    }

    /// The table with lines of at most `width`, if cutting the cells of these columns makes them so: the widest first.
    pub(super) fn render_within(mut self, width: usize, cut: &[&str]) -> String {
        let mut widths: [usize; N] = std::array::from_fn(|index| self.column(index).width);
        let gaps = 2 * N.saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > width {
            let least = |index: usize| NARROWEST.max(self.heading[index].len());
            let may = (0..N).filter(|index| cut.contains(&self.heading[*index]) && widths[*index] > least(*index));
            let Some(widest) = may.max_by_key(|index| widths[*index]) else { break };
            widths[widest] -= 1;
        }
        for row in &mut self.rows {
            row.iter_mut().zip(widths).for_each(|(cell, width)| *cell = shorten(cell, width));
        }
        self.render()
    }

    fn column(&self, index: usize) -> Column {
        let cells = || self.rows.iter().map(|row| &row[index]);
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let starts_with_digit = |cell: &String| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit());
        let is_number = |cell: &String| starts_with_digit(cell) && !cell.contains(':') && !cell.contains(CUT);
        Column { width: width.max(self.heading[index].len()), right: cells().all(is_number) }
    }
}

struct Column {
    width: usize,
    right: bool,
}

impl Column {
    fn pad(&self, cell: &str) -> String {
        let width = self.width;
        if self.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    }
}

/// What to say below tables in which a name was cut.
pub(super) fn note_of_cuts(text: &str) -> &'static str {
    if text.contains(CUT) { "… stands for the middle of a long name; --json has all names whole\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lean_left_and_numbers_right() {
        let mut table = Table::new(["NAME", "ADDRESS", "N", "NOTE"]);
        table.row(["a".into(), "10.0.0.1:80".into(), "9".into(), "x".into()]);
        table.row(["longer".into(), "::1".into(), "1000".into(), String::new()]);
        assert_eq!(
            table.render(),
            "NAME    ADDRESS         N  NOTE\na       10.0.0.1:80     9  x\nlonger  ::1          1000\n"
        );
        assert_eq!(Table::new(["NAME"]).render(), "");
    }

    #[test]
    fn the_widest_columns_that_may_be_cut_are_cut_and_no_others() {
        let mut table = Table::new(["NAME", "PLACE", "N"]);
        table.row(["x".repeat(30), "y".repeat(12), "1".repeat(14)]);
        let text = table.render_within(44, &["NAME", "PLACE"]);
        assert_eq!(text.lines().last().unwrap(), format!("xxxxxxx…xxxxxx  yyyyyyyyyyyy  {}", "1".repeat(14)));
        assert!(!note_of_cuts(&text).is_empty() && note_of_cuts("a name").is_empty());
        let mut table = Table::new(["NAME", "N"]);
        table.row(["short".into(), "1".repeat(40)]);
        assert_eq!(table.render_within(20, &["NAME"]).lines().last().unwrap().len(), 5 + 2 + 40, "left as it is");
    }
}
