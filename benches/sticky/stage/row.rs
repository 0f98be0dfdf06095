//! A line of the report with its verdict.

use std::fmt::Write;

use super::Breaks;

/// What came out of one step of a scenario.
#[derive(Debug)]
pub struct Row {
    pub scenario: String,
    /// Clients, or connections, that came.
    pub clients: u64,
    /// As the balancer counted.
    pub counted: Breaks,
    /// As the backends' logs say.
    pub by_logs: u64,
    /// Largest over mean, and the most it may be; 0 = not a question here.
    pub spread: (f64, f64),
    pub note: String,
    /// What was promised and is not so.
    pub missed: Vec<String>,
}

impl Row {
    pub fn new(scenario: impl Into<String>, clients: u64) -> Self {
        Self {
            scenario: scenario.into(),
            clients,
            counted: Breaks::new(),
            by_logs: 0,
            spread: (0.0, 0.0),
            note: String::new(),
            missed: Vec::new(),
        }
    }

    /// Something promised.
    pub fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.missed.push(what());
        }
    }

    /// So is this, largest over mean; and how much it may be.
    pub fn spreads(&mut self, (largest, most): (f64, f64)) {
        self.spread = (largest, most);
        self.must(largest <= most, || format!("spread {largest:.2} above {most:.2}"));
    }

    /// Counted and logged breaks are the same, and all have this cause; without one there are none.
    pub fn exactly(&mut self, cause: Option<&str>) {
        let sum: u64 = self.counted.values().sum();
        let (by_logs, counted) = (self.by_logs, self.counted.clone());
        self.must(sum == by_logs, || format!("{sum} counted, {by_logs} by the logs"));
        self.must(counted.keys().all(|known| Some(known.as_str()) == cause), || format!("causes: {counted:?}"));
        self.must(cause.is_some() || by_logs == 0, || format!("{by_logs} moved, nobody should"));
    }

    /// Heads of the columns.
    pub fn heads() -> String {
        Self::line(["scenario", "clients", "breaks counted", "by the logs", "spread (at most)", "verdict", ""])
    }

    fn line([scenario, clients, counted, by_logs, spread, verdict, note]: [&str; 7]) -> String {
        format!("{scenario:<44} {clients:>8} {counted:>22} {by_logs:>11} {spread:>16} {verdict:<7} {note}")
            .trim_end()
            .to_owned()
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let causes: Vec<_> = self.counted.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        let counted = if causes.is_empty() { "0".into() } else { causes.join(", ") };
        let spread = match self.spread {
            (0.0, _) => String::new(),
            (largest, most) if most.is_infinite() => format!("{largest:.2}"),
            (largest, most) => format!("{largest:.2} ({most:.2})"),
        };
        let mut note = self.note.clone();
        for missed in &self.missed {
            let _ = write!(note, " [{missed}]");
        }
        let (clients, by_logs) = (self.clients.to_string(), self.by_logs.to_string());
        let verdict = if self.missed.is_empty() { "ok" } else { "MISSED" };
        f.write_str(&Self::line([&self.scenario, &clients, &counted, &by_logs, &spread, verdict, note.trim()]))
    }
}
