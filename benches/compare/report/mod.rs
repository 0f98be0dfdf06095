//! Results: every round of every scenario, their medians, quartiles and paired ratios.
//!
//! | where | what |
//! |---|---|
//! | `spread` | medians, quartiles, percentiles |
//! | `table` | what a person reads |
//! | `bars` | what sessile has promised, and whether it holds |
//! | `file`, `host` | what is kept: every round, and what has to be known about the run |
//!
//! Measures nothing. A ratio is sessile's figure by a rival's of the same round; its median says more than the ratio
//! of medians, because both met the same minute of the machine. Invariant: what is printed can be computed again from
//! the rounds that are kept.

mod bars;
mod file;
mod host;
mod spread;
mod table;

pub use self::file::Report;
pub use self::spread::{Spread, microseconds};
use crate::Result;
use crate::proxies::Contestant;
use crate::scenarios::Scenario;
use crate::strace::Calls;

/// One turn of one contestant.
#[derive(Debug, Default, Clone)]
pub struct Sample {
    /// Figures in the order of the table; a name ends in its unit.
    pub figures: Vec<(&'static str, f64)>,
    /// System calls per unit, where they were counted.
    pub calls: Calls,
    /// What else should be known, such as the first error.
    pub note: Option<String>,
}

impl Sample {
    /// With one figure more.
    pub fn with(mut self, name: &'static str, figure: f64) -> Self {
        self.figures.push((name, figure));
        self
    }

    /// A figure by its name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|(_, figure)| *figure)
    }
}

/// One turn of everyone, in order of turns.
#[derive(Debug, Default)]
pub struct Round {
    turns: Vec<(&'static str, std::result::Result<Sample, String>)>,
}

impl Round {
    /// Adds a turn; one that failed is told at once.
    pub fn add(&mut self, who: &'static str, sample: Result<Sample>) {
        let sample = sample.map_err(|error| error.to_string());
        match &sample {
            Err(error) => eprintln!("compare: {who}: {error}"),
            Ok(Sample { note: Some(note), .. }) => eprintln!("compare: {who}: {note}"),
            Ok(_) => {}
        }
        self.turns.push((who, sample));
    }

    fn sample(&self, who: &str) -> Option<&Sample> {
        self.turns.iter().find(|(known, _)| *known == who).and_then(|(_, sample)| sample.as_ref().ok())
    }
}

/// All rounds of a scenario.
pub struct Results {
    scenario: &'static Scenario,
    contestants: Vec<&'static str>,
    /// Contestants other than sessile.
    peers: Vec<&'static str>,
    /// Those of them that are tuned.
    tuned: Vec<&'static str>,
    /// Whether log, metrics and checks were off.
    off: bool,
    /// In order.
    pub rounds: Vec<Round>,
}

impl Results {
    /// A report without samples.
    pub fn new(scenario: &'static Scenario, contestants: &[Contestant], off: bool) -> Self {
        let names =
            |which: &dyn Fn(&&Contestant) -> bool| contestants.iter().filter(which).map(|who| who.name).collect();
        Self {
            scenario,
            contestants: names(&|_| true),
            peers: names(&|who| !who.is_ours()),
            tuned: names(&|who| who.is_tuned()),
            off,
            rounds: Vec::new(),
        }
    }

    /// Names of the figures, in order.
    fn figures(&self) -> Vec<&'static str> {
        let samples = self.rounds.iter().flat_map(|round| &round.turns).filter_map(|(_, sample)| sample.as_ref().ok());
        samples
            .max_by_key(|sample| sample.figures.len())
            .into_iter()
            .flat_map(|sample| &sample.figures)
            .map(|(name, _)| *name)
            .collect()
    }

    fn rivals(&self) -> &[&'static str] {
        self.contestants.get(1..).unwrap_or_default()
    }

    /// A contestant's figure over the rounds.
    fn spread(&self, who: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.all(who, figure))
    }

    fn all(&self, who: &str, figure: &str) -> impl Iterator<Item = f64> {
        self.rounds.iter().filter_map(move |round| round.sample(who)?.figure(figure))
    }

    /// Sessile's figure by a rival's, paired by round.
    fn ratio(&self, rival: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| {
            let ours = round.sample(self.contestants.first()?)?.figure(figure)?;
            let theirs = round.sample(rival)?.figure(figure)?;
            (theirs != 0.0).then_some(ours / theirs)
        }))
    }

    /// The contestant among some with the lowest median cost, or the highest median rate.
    fn best(&self, among: &[&'static str], figure: &str) -> Option<&'static str> {
        let sign = if figure.ends_with("/s") { -1.0 } else { 1.0 };
        let median = |who: &str| self.spread(who, figure).map(|spread| spread.median * sign);
        let medians = among.iter().filter_map(|who| Some((median(who)?, *who)));
        medians.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, who)| who)
    }

    fn calls(&self, who: &str) -> Option<&Calls> {
        self.rounds
            .iter()
            .filter_map(|round| round.sample(who))
            .map(|sample| &sample.calls)
            .find(|calls| !calls.is_empty())
    }

    fn failures(&self) -> usize {
        self.rounds.iter().flat_map(|round| &round.turns).filter(|(_, sample)| sample.is_err()).count()
    }
}
