//! What is kept of a run: every round of every scenario, as JSON, in one file or in one a scenario.
//!
//! In a folder a scenario replaces its own file and leaves others alone, so that one can be run again. Invariant: each
//! file says about which machine, versions and method its figures are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::bars::{self, Judged};
use super::{Results, Round, Sample, Spread, host};
use crate::Result;
use crate::cli::Settings;
use crate::stage::Stage;

/// The whole run.
pub struct Report {
    about: Value,
    out: Option<PathBuf>,
    scenarios: Map<String, Value>,
    judged: Vec<Judged>,
    failures: usize,
}

impl Report {
    /// What is known before it starts.
    pub fn new(settings: &Settings, stage: &Stage) -> Result<Self> {
        let about = host::about(settings, stage);
        println!("{}", host::heading(&about));
        let out = settings.out.clone();
        if let Some(folder) = out.as_deref().filter(|out| !is_file(out)) {
            fs::create_dir_all(folder)?;
        }
        Ok(Self { about, out, scenarios: Map::new(), judged: Vec::new(), failures: 0 })
    }

    /// Adds a scenario; what is known so far is kept, so that a run that is broken off leaves what it has.
    pub fn add(&mut self, results: &Results) -> Result<()> {
        let name = results.scenario.name;
        let judged = bars::judge(results);
        self.failures += results.failures();
        self.scenarios.insert(name.to_owned(), results.json(&judged));
        self.judged.extend(judged);
        match &self.out {
            Some(out) if is_file(out) => write(out, &json!({ "about": self.about, "scenarios": self.scenarios })),
            Some(out) => write(
                &out.join(format!("{name}{}.json", if results.off { "-off" } else { "" })),
                &json!({ "about": self.about, "scenarios": { name: self.scenarios[name] } }),
            ),
            None => Ok(()),
        }
    }

    /// Prints which bars hold; an error if a sample could not be taken.
    pub fn finish(&self) -> Result<()> {
        print!("{}", bars::Table(&self.judged));
        if self.failures == 0 { Ok(()) } else { Err(format!("{} samples failed", self.failures).into()) }
    }
}

fn is_file(out: &Path) -> bool {
    out.extension().is_some_and(|extension| extension == "json")
}

fn write(file: &Path, whole: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(whole)? + "\n";
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
}

impl Results {
    fn json(&self, judged: &[Judged]) -> Value {
        let by = |names: &[&'static str], spread: &dyn Fn(&str, &str) -> Option<Spread>| -> Value {
            let of = |who: &str| -> BTreeMap<_, _> {
                self.figures().into_iter().filter_map(|figure| Some((figure, spread(who, figure)?.json()))).collect()
            };
            names.iter().map(|who| ((*who).to_owned(), json!(of(who)))).collect::<Map<_, _>>().into()
        };
        let calls: BTreeMap<_, _> = self.contestants.iter().filter_map(|who| Some((who, self.calls(who)?))).collect();
        json!({
            "title": self.scenario.title,
            "bars": judged.iter().map(Judged::json).collect::<Vec<_>>(),
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
