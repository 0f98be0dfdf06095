//! The order of a run: for each scenario, round by round, each contestant is started, has its turn and is stopped.
//!
//! A process keeps the luck of where its memory lies as long as it lives, and that moves its figures by several
//! percent: so every turn has a fresh one. Every order is followed by its reverse, and the first place moves on, so
//! that no contestant always follows the same rival. Invariant: at any time one contestant is on the machine.

use std::time::Duration;

use crate::Result;
use crate::cli::Settings;
use crate::launch::{Cores, pin};
use crate::proxies::{Contestant, Proxy};
use crate::report::{Report, Results, Round, Sample};
use crate::scenarios::{Scenario, Turn};
use crate::stage::Stage;

/// Runs everything; an error if any sample could not be taken.
pub fn run(settings: &Settings) -> Result<()> {
    let cores = Cores::find()?;
    pin(&[cores.others])?;
    raise_descriptor_limit()?;
    let served = settings.file_server.as_deref().map(|nginx| (nginx, settings.scale.file));
    let race = Race { settings, stage: Stage::new(cores, settings.off, served)? };
    for who in &settings.judged {
        [false, true].into_iter().try_for_each(|off| who.judge_configuration(&race.stage, off))?;
    }
    let mut report = Report::new(settings, &race.stage)?;
    println!("about {:.1} minutes", race.estimate().as_secs_f64() / 60.0);
    for scenario in &settings.scenarios {
        let results = race.scenario(scenario)?;
        print!("{results}");
        report.add(&results)?;
    }
    report.finish()
}

struct Race<'a> {
    settings: &'a Settings,
    stage: Stage,
}

impl Race<'_> {
    fn estimate(&self) -> Duration {
        let Settings { scale, contestants, scenarios, .. } = self.settings;
        scenarios.iter().map(|each| each.estimate(scale, each.contestants(contestants).len())).sum()
    }

    fn scenario(&self, scenario: &'static Scenario) -> Result<Results> {
        let contestants = scenario.contestants(&self.settings.contestants);
        let mut results = Results::new(scenario, &contestants, self.settings.off);
        let start = |who: &Contestant| who.start(scenario.services, &self.stage);
        for number in 0..scenario.rounds(&self.settings.scale) {
            let mut round = Round::default();
            for index in order(contestants.len(), number) {
                let who = &contestants[index];
                let sample = start(who).and_then(|proxy| self.turn(scenario, &proxy, number));
                round.add(who.name, sample);
            }
            results.rounds.push(round);
        }
        Ok(results)
    }

    fn turn(&self, scenario: &Scenario, proxy: &Proxy, round: usize) -> Result<Sample> {
        let count_calls = self.settings.strace && round == 0;
        let Settings { scale, .. } = self.settings;
        (scenario.run)(&Turn { proxy, scale, identity: &self.stage.identity, round, count_calls })
    }
}

/// Turns of a round: every order is followed by its reverse, then the first place moves on.
fn order(contestants: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..contestants).map(|turn| (round / 2 + turn) % contestants).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Thousands of connections need as many descriptors as may be had.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
