//! kill -9 under load: what the stick-table file does not know yet is found by placement, or lost.
//!
//! The balancer cannot count clients that it has forgotten, so the logs alone say what broke: of the
//! clients that came or moved within the last interval, new ones that placement would put elsewhere, and those that the
//! file has at the backend that they have left.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use super::backends::Backends;
use super::clients::{Load, visit_all};
use super::table::Table;
use super::truth::Truth;
use super::{Row, Scale, breaks, reload, roomy, tell};
use crate::support::{Sessile, eventually};

const FIRST: usize = 10;
const GROWN: usize = 13;
const INTERVAL: Duration = Duration::from_secs(1);
/// What writing itself takes, on a machine that has other things to do.
const WRITING: Duration = Duration::from_secs(1);

/// Once.
pub fn run(scale: &Scale) -> Vec<Row> {
    let backends = Backends::start(GROWN);
    let mut table = Table::new(&backends.addresses, FIRST, roomy(scale));
    table.top = "stick_table_file = \"$DIR/stick-table\"\nstick_table_interval = \"1s\"\n".into();
    let mut sessile = Sessile::start(&table.text());
    let front = sessile.address("l");
    let mut truth = Truth::new(&backends.log);
    visit_all(front, scale.sources(), scale.parallel);
    // The table grows: from here on stick table alone knows where many are.
    table = table.with(GROWN);
    reload(&sessile, &table.text());
    visit_all(front, scale.sources(), scale.parallel);
    truth.step();
    let file = sessile.dir.path().join("stick-table");
    let written = || std::fs::metadata(&file).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    for _ in 0..2 {
        let last = written();
        eventually("the stick table to be written", || (written() > last).then_some(()));
    }

    let load = Load::start(front, scale.sources(), scale.parallel / 2);
    load.go_on(100);
    // At the last moment some have to move, and others come for the first time.
    let movers: Vec<u32> = truth.at(0).take(scale.fresh as usize / 10).collect();
    tell(&sessile, 0, "close");
    visit_all(front, movers.iter().copied(), scale.parallel);
    tell(&sessile, 0, "ready");
    visit_all(front, scale.fresh_sources(0), scale.parallel);
    let (killed, age) = (Instant::now(), written().elapsed().unwrap_or_default());
    sessile.signal(Signal::KILL);
    sessile.wait();
    load.stop();
    truth.step();
    let late: Vec<u64> = {
        let everybody = scale.sources().chain(scale.fresh_sources(0)).map(u64::from);
        let since = killed.checked_sub(INTERVAL + WRITING).expect("the machine runs longer");
        everybody.filter(|key| truth.home(*key).is_some_and(|home| home.since >= since)).collect()
    };
    let placement = table.placement();
    let strayed = |key: u64| truth.home(key).is_some_and(|home| home.moved || home.backend != placement(key));
    let lost: HashSet<u64> = late.iter().copied().filter(|key| strayed(*key)).collect();

    sessile.restart();
    let toll = visit_all(sessile.address("l"), scale.sources().chain(scale.fresh_sources(0)), scale.parallel);
    let step = truth.step();
    let mut row = Row::new("kill -9 under load, 10 grown to 13", step.arrivals.len() as u64);
    row.counted = breaks(&sessile);
    row.by_logs = step.breaks.len() as u64;
    let others = step.breaks.iter().filter(|(key, ..)| !lost.contains(key)).count();
    row.must(others == 0, || format!("{others} broke that the file or placement knows"));
    row.must(row.counted.is_empty(), || "counted what it cannot know".into());
    row.must(toll.lost + toll.cut == 0, || "visits were cut".into());
    row.note = format!(
        "file {:.1} s old; {} settled within the last interval, {} of them moved or not where placement is",
        age.as_secs_f64(),
        late.len(),
        lost.len()
    );
    vec![row]
}
