//! Name servers that are dead for an hour: how often they are asked, and how soon they are heeded again.

use super::*;
use crate::discovery::found::Found;
use crate::discovery::reconcile::reconcile;
use crate::snapshot::Snapshot;

/// How long a look at dead name servers takes: one server by both protocols, or all questions of a long set.
const DEAD_LOOK: [Duration; 3] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(10)];

/// The readings of an hour that begins with a good one and then has none, on a clock of its own, each with its time;
/// and how long it takes after the hour until the next look begins.
fn dead_hour(pace: &mut Pace, look: Duration) -> (Vec<(Duration, Reading)>, Duration) {
    const HOUR: Duration = Duration::from_secs(3_600);
    let found = vec![Found::new("web-0", "10.0.0.1:80".parse().unwrap())];
    let good = Reading::Set { found, valid_for: Duration::from_secs(30) };
    let mut now = pace.after(&good);
    let mut readings = vec![(Duration::ZERO, good)];
    loop {
        let reading = Reading::Failed { why: "did not answer within 2 s".to_owned() };
        let answered = now + look;
        now = answered + pace.after(&reading);
        readings.push((answered, reading));
        if now >= HOUR {
            return (readings, now - HOUR);
        }
    }
}

#[test]
fn name_servers_that_are_dead_for_an_hour_change_nothing_are_asked_seldom_and_heeded_in_seconds() {
    let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:9\"\npool = \"web\"\n[[pool]]\nname = \"web\"\n\
                [pool.discover]\nkind = \"dns\"\nname = \"_http._tcp.web.example\"\n";
    let snapshot = Snapshot::of_text(text);
    for look in DEAD_LOOK {
        let mut pace = Pace::new();
        let (readings, late) = dead_hour(&mut pace, look);
        let mut pool = snapshot.pools[0].config().clone();
        let rules = pool.discover.clone().unwrap();
        let mut changes = 0;
        for (at, reading) in &readings {
            let now_ms = i64::try_from(at.as_millis()).unwrap();
            if let Ok(found) = reconcile(&pool, &rules, reading, &|_| false, now_ms) {
                changes += usize::from(pool.backends != found);
                pool = pool.with_found(found);
            }
        }
        assert_eq!((changes, pool.backends.len()), (1, 1), "only the first reading is a change");
        // Four looks while the pause grows, then one in eight seconds and the time of the look.
        let most = 4 + 3_600 / (ASK_AGAIN_MAX + look).as_secs();
        let asked = readings.len() as u64 - 1;
        assert!(asked <= most && asked + 10 >= most, "{asked} looks of {look:?}");
        assert!(late <= ASK_AGAIN_MAX + look, "{late:?} after the servers live again");
        let again = Reading::Set { found: Vec::new(), valid_for: Duration::from_secs(30) };
        assert_eq!(pace.after(&again), Duration::from_secs(30));
        assert_eq!(pace.after(&Reading::Failed { why: String::new() }), REFRESH_MIN, "as after a first failure");
    }
}
