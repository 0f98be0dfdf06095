//! Results: every round of every scenario, their medians, quartiles and paired ratios, as tables and as JSON.
//!
//! Measures nothing. A ratio is sessile's figure by a rival's of the same round; its median says more than the ratio
//! of medians, because both met the same minute of the machine. Invariant: what is printed can be computed again from
//! the rounds in the JSON.

mod host;
mod spread;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

pub use self::spread::{Spread, microseconds};
use crate::Result;
use crate::cli::Settings;
use crate::launch::Cores;
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
    /// In order.
    pub rounds: Vec<Round>,
}

impl Results {
    /// None yet.
    pub fn new(scenario: &'static Scenario, contestants: Vec<&'static str>) -> Self {
        Self { scenario, contestants, rounds: Vec::new() }
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
        Spread::of(self.rounds.iter().filter_map(|round| round.sample(who)?.figure(figure)))
    }

    /// Sessile's figure by a rival's, paired by round.
    fn ratio(&self, rival: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| {
            let ours = round.sample(self.contestants.first()?)?.figure(figure)?;
            let theirs = round.sample(rival)?.figure(figure)?;
            (theirs != 0.0).then_some(ours / theirs)
        }))
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

    fn json(&self) -> Value {
        let by = |names: &[&'static str], spread: &dyn Fn(&str, &str) -> Option<Spread>| -> Value {
            let of = |who: &str| -> BTreeMap<_, _> {
                self.figures().into_iter().filter_map(|figure| Some((figure, spread(who, figure)?.json()))).collect()
            };
            names.iter().map(|who| ((*who).to_owned(), json!(of(who)))).collect::<serde_json::Map<_, _>>().into()
        };
        let calls: BTreeMap<_, _> = self.contestants.iter().filter_map(|who| Some((who, self.calls(who)?))).collect();
        json!({
            "title": self.scenario.title,
            "summary": by(&self.contestants, &|who, figure| self.spread(who, figure)),
            "ratios_of_sessile_to": by(self.rivals(), &|rival, figure| self.ratio(rival, figure)),
            "calls_per_unit": calls,
            "rounds": self.rounds.iter().map(Round::json).collect::<Vec<_>>(),
        })
    }
}

impl Round {
    fn json(&self) -> Value {
        let turn = |(who, sample): &(&'static str, std::result::Result<Sample, String>)| match sample {
            Ok(Sample { figures, note, .. }) => {
                let figures: BTreeMap<_, _> = figures.iter().copied().collect();
                json!({ "who": who, "figures": figures, "note": note })
            }
            Err(error) => json!({ "who": who, "failed": error }),
        };
        self.turns.iter().map(turn).collect()
    }
}

/// The whole run.
pub struct Report {
    about: Value,
    scenarios: serde_json::Map<String, Value>,
    failures: usize,
}

impl Report {
    /// What is known before it starts.
    pub fn new(settings: &Settings, cores: Cores) -> Self {
        let about = host::about(settings, cores);
        println!("{}", host::heading(&about));
        Self { about, scenarios: serde_json::Map::new(), failures: 0 }
    }

    /// Adds a scenario.
    pub fn add(&mut self, results: &Results) {
        self.failures += results.failures();
        self.scenarios.insert(results.scenario.name.to_owned(), results.json());
    }

    /// Writes all there is.
    pub fn write(&self, file: &Path) -> Result<()> {
        let whole = json!({ "about": self.about, "scenarios": self.scenarios });
        std::fs::write(file, serde_json::to_string_pretty(&whole)? + "\n")
            .map_err(|error| format!("{}: {error}", file.display()).into())
    }

    /// Whether every sample was taken.
    pub fn verdict(&self) -> Result<()> {
        if self.failures == 0 { Ok(()) } else { Err(format!("{} samples failed", self.failures).into()) }
    }
}
