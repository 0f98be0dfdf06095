//! The tables of a scenario: a row a figure; medians of every contestant, then sessile's paired ratios to its rivals,
//! last to the peer that is hardest to beat.
//!
//! In brackets stand the quartiles, where they differ. Invariant: nothing is left out because it looks bad; what could
//! not be measured is a dash.

use std::fmt::{self, Display, Formatter};

use super::{Results, Spread};

/// What could not be measured.
const NONE: &str = "-";
/// The column of the peer that is hardest to beat, figure by figure.
const PEERS: &str = "peers";

impl Display for Results {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rounds = self.rounds.len();
        let plural = if rounds == 1 { "" } else { "s" };
        let off = if self.off { "; log, metrics and checks off" } else { "" };
        writeln!(f, "\n{}: {} ({rounds} round{plural}{off})\n", self.scenario.name, self.scenario.title)?;
        self.table(f, "", &self.contestants, |who, figure| self.spread(who, figure).map_or(NONE.to_owned(), shown))?;
        let mut rivals = self.rivals().to_vec();
        if !self.peers.is_empty() {
            rivals.push(PEERS);
        }
        if !rivals.is_empty() {
            writeln!(f)?;
            let cell = |rival: &str, figure: &str| self.against(rival, figure).unwrap_or(NONE.to_owned());
            self.table(f, "sessile by", &rivals, cell)?;
        }
        self.contestants.iter().try_for_each(|who| self.calls_of(f, who))
    }
}

impl Results {
    fn table(
        &self,
        f: &mut Formatter<'_>,
        corner: &str,
        columns: &[&str],
        cell: impl Fn(&str, &str) -> String,
    ) -> fmt::Result {
        let row = |first: &str, cells: &mut dyn Iterator<Item = String>| -> Vec<String> {
            std::iter::once(first.to_owned()).chain(cells).collect()
        };
        let mut rows = vec![row(corner, &mut columns.iter().map(|name| (*name).to_owned()))];
        for figure in self.figures() {
            rows.push(row(figure, &mut columns.iter().map(|who| cell(who, figure))));
        }
        aligned(f, &rows)
    }

    /// A ratio to a rival, or to that peer which is hardest to beat, with its name.
    fn against(&self, rival: &str, figure: &str) -> Option<String> {
        if rival != PEERS {
            return self.ratio(rival, figure).map(shown);
        }
        let peer = self.best(&self.peers, figure)?;
        Some(format!("{} {peer}", shown(self.ratio(peer, figure)?)))
    }

    fn calls_of(&self, f: &mut Formatter<'_>, who: &str) -> fmt::Result {
        let Some(calls) = self.calls(who) else { return Ok(()) };
        let mut most: Vec<_> = calls.iter().collect();
        most.sort_by(|a, b| b.1.total_cmp(a.1));
        let named: Vec<_> = most
            .iter()
            .filter(|(_, count)| **count >= 0.005)
            .map(|(name, count)| format!("{name} {count:.2}"))
            .collect();
        writeln!(f, "{who}: {:.2} system calls per unit: {}", calls.values().sum::<f64>(), named.join(", "))
    }
}

/// Columns as wide as their widest cell.
pub(super) fn aligned(f: &mut Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    for row in rows {
        write!(f, "{:<width$}", row[0], width = widths[0])?;
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            write!(f, "  {cell:>width$}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// Median, and quartiles where they differ.
fn shown(spread: Spread) -> String {
    let [lower, median, upper] = [spread.lower, spread.median, spread.upper].map(short);
    if lower == upper { median } else { format!("{median} [{lower}-{upper}]") }
}

/// Three digits that mean something.
pub(super) fn short(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{figure:.3}"),
        middle if middle < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
