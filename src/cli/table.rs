//! [`Table`]: text tables with columns as wide as their cells.
//!
//! Formats no values. Invariant: no line ends with a space.

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

    fn column(&self, index: usize) -> Column {
        let cells = || self.rows.iter().map(|row| &row[index]);
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let starts_with_digit = |cell: &String| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit());
        let is_number = |cell: &String| starts_with_digit(cell) && !cell.contains(':');
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
}
