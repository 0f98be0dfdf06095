//! A backend is restarted and refuses connections for 150 ms, under full load: no client moves.

use std::time::{Duration, Instant};

use super::backends::Backends;
use super::clients::{Load, visit_all};
use super::table::Table;
use super::truth::Truth;
use super::{Row, Scale, breaks, roomy};
use crate::support::{Sessile, eventually};

const BACKENDS: usize = 10;
const AWAY: Duration = Duration::from_millis(150);
/// Time between two outages, in which refused clients are served.
const BACK: Duration = Duration::from_millis(600);

/// As often as the scale says.
pub fn run(scale: &Scale) -> Vec<Row> {
    let backends = Backends::start(BACKENDS);
    let mut table = Table::new(&backends.addresses, BACKENDS, roomy(scale));
    // Checks as they are where nothing is said.
    table.check = "{ kind = \"tcp\" }".into();
    let sessile = Sessile::start(&table.text());
    let front = sessile.address("l");
    let mut truth = Truth::new(&backends.log);
    visit_all(front, scale.sources(), scale.parallel);
    truth.step();

    // The first check decides alone.
    let checked = || sessile.status()["pools"][0]["backends"][0]["state"] == "up";
    eventually("the first check", || checked().then_some(()));
    let load = Load::start(front, scale.sources(), scale.parallel);
    let refused = || {
        let refused = sessile.status()["pools"][0]["backends"][0]["connect_failures"].as_u64();
        refused.expect("a number")
    };
    let mut longest = Duration::ZERO;
    for _ in 0..scale.restarts {
        load.go_on(200);
        let began = Instant::now();
        backends.shut(0);
        std::thread::sleep(AWAY.saturating_sub(began.elapsed()));
        backends.open(0);
        longest = longest.max(began.elapsed());
        std::thread::sleep(BACK);
    }
    load.go_on(200);
    let toll = load.stop();
    let step = truth.step();
    let mut row = Row::new(format!("{} restarts, 150 ms refused each", scale.restarts), step.arrivals.len() as u64);
    row.counted = breaks(&sessile);
    row.by_logs = step.breaks.len() as u64;
    row.exactly(None);
    row.must(toll.lost == 0, || format!("{} visits were lost", toll.lost));
    row.must(refused() > 0, || "nobody was refused, so nothing was seen".into());
    row.note =
        format!("{} connects refused, at most {longest:.0?}; {} visits cut and tried again", refused(), toll.cut);
    vec![row]
}
