//! A backend goes and comes back, again and again, by its checks.
//!
//! Half of the clients come all the time: a client that comes while it is away moves, once, and is counted. The other half
//! never notices, and is where it was.

use super::backends::Backends;
use super::clients::{Load, visit_all};
use super::table::Table;
use super::truth::Truth;
use super::{Row, Scale, breaks, roomy};
use crate::support::{Sessile, eventually};

const BACKENDS: usize = 10;

/// As often as the scale says.
pub fn run(scale: &Scale) -> Vec<Row> {
    let backends = Backends::start(BACKENDS);
    let mut table = Table::new(&backends.addresses, BACKENDS, roomy(scale));
    table.check = "{ kind = \"tcp\", interval = \"100ms\", timeout = \"100ms\", rise = 1, fall = 1 }".into();
    let sessile = Sessile::start(&table.text());
    let front = sessile.address("l");
    let mut truth = Truth::new(&backends.log);
    visit_all(front, scale.sources(), scale.parallel);
    truth.step();

    let half = scale.sources().start + scale.clients / 2;
    let (noticing, quiet) = (scale.sources().start..half, half..scale.sources().end);
    let load = Load::start(front, noticing, scale.parallel / 2);
    let is = |up: bool| {
        let state = || sessile.status()["pools"][0]["backends"][0]["up"] == up;
        eventually("the checks to notice", || state().then_some(()));
    };
    let began = std::time::Instant::now();
    for _ in 0..scale.flaps {
        backends.shut(0);
        is(false);
        load.go_on(50);
        backends.open(0);
        is(true);
        load.go_on(50);
    }
    let took = began.elapsed();
    let toll = load.stop();

    let step = truth.step();
    let mut row = Row::new(format!("one of 10 flaps {} times, half comes", scale.flaps), step.arrivals.len() as u64);
    row.counted = breaks(&sessile);
    row.by_logs = step.breaks.len() as u64;
    row.exactly(Some("down"));
    row.must(step.breaks.iter().all(|(_, from, _)| *from == 0), || "clients of others moved".into());
    row.must(toll.lost == 0, || format!("{} visits were lost", toll.lost));
    row.note = format!("in {:.0} s; {} visits cut and tried again", took.as_secs_f64(), toll.cut);
    let before = breaks(&sessile);
    let toll = visit_all(front, quiet, scale.parallel);
    let step = truth.step();
    let mut rest = Row::new("the other half, afterwards", step.arrivals.len() as u64);
    rest.counted = super::since(&before, breaks(&sessile));
    rest.by_logs = step.breaks.len() as u64;
    rest.exactly(None);
    rest.must(toll.lost + toll.cut == 0, || "visits were cut".into());
    vec![row, rest]
}
