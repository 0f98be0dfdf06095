//! The table of a scenario: a column a figure; rows are medians of every contestant, then sessile's paired ratios.
//!
//! In brackets stand the quartiles, where there was more than one round. Invariant: nothing is left out because it
//! looks bad; what could not be measured is a dash.

use std::fmt::{self, Display, Formatter};

use super::{Results, Spread};

impl Display for Results {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rounds = self.rounds.len();
        let plural = if rounds == 1 { "" } else { "s" };
        writeln!(f, "\n{}: {} ({rounds} round{plural})", self.scenario.name, self.scenario.title)?;
        let figures = self.figures();
        let cell = |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| shown(spread, rounds > 1));
        let mut rows =
            vec![std::iter::once(String::new()).chain(figures.iter().map(|name| (*name).to_owned())).collect()];
        for who in &self.contestants {
            let cells = figures.iter().map(|figure| cell(self.spread(who, figure)));
            rows.push(std::iter::once((*who).to_owned()).chain(cells).collect());
        }
        for rival in self.rivals() {
            let cells = figures.iter().map(|figure| cell(self.ratio(rival, figure)));
            rows.push(std::iter::once(format!("sessile / {rival}")).chain(cells).collect::<Vec<_>>());
        }
        aligned(f, &rows)?;
        self.contestants.iter().try_for_each(|who| self.calls_of(f, who))
    }
}

impl Results {
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

fn aligned(f: &mut Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
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

fn shown(spread: Spread, with_quartiles: bool) -> String {
    let Spread { lower, median, upper } = spread;
    if with_quartiles { format!("{} [{}-{}]", short(median), short(lower), short(upper)) } else { short(median) }
}

/// Three digits that mean something.
fn short(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{figure:.3}"),
        middle if middle < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
