//! The bars: what sessile has promised of each scenario, and whether the rounds hold it.
//!
//! A bar of 1.00 is a promise to be no worse, which two equal programs would miss half the time; it gives way as far
//! as sessile differs from itself, to the upper quartile of the null check. Invariant: a bar without a measured figure
//! is neither passed nor missed.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::table::{aligned, short};
use super::{Results, Spread};

/// One promise.
struct Bar {
    scenario: &'static str,
    what: &'static str,
    rule: Rule,
    at_most: f64,
    holds: Holds,
}

/// When a promise was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// With and without access log, metrics and checks.
    Always,
    /// With them.
    On,
    /// Without them.
    Off,
}

/// What is held against a bar.
#[derive(Clone, Copy)]
enum Rule {
    /// The median ratio of a figure to the lowest of all peers.
    Peers(&'static str),
    /// The median ratio of a figure to the lowest of the peers as they come.
    Untuned(&'static str),
    /// The median ratio of a figure to the lowest of the tuned peers.
    Tuned(&'static str),
    /// The median ratio of a figure to HAProxy as it comes, in its better mode.
    Haproxy(&'static str),
    /// The median ratio of a figure to nginx, as it comes or tuned.
    Nginx(&'static str),
    /// The median ratio of a figure to nginx as it comes.
    PlainNginx(&'static str),
    /// The median ratio of a figure to another of the same sample; what the null check is worth is how far that other
    /// one differs from itself.
    Beside(&'static str, &'static str),
    /// The median of a figure.
    Median(&'static str),
    /// The worst of all rounds.
    Worst(&'static str),
    /// System calls per unit.
    Calls,
}

use Holds::{Always, Off, On};
use Rule::{Beside, Calls, Haproxy, Median, Nginx, Peers, PlainNginx, Tuned, Untuned, Worst};

const fn bar(scenario: &'static str, what: &'static str, rule: Rule, at_most: f64) -> Bar {
    Bar { scenario, what, rule, at_most, holds: Always }
}

impl Bar {
    const fn when(self, holds: Holds) -> Self {
        Self { holds, ..self }
    }
}

static BARS: [Bar; 63] = [
    bar("S1", "CPU per request, by the peers' as they come", Untuned("cpu_us"), 0.92).when(On),
    bar("S1", "CPU per request, by the lowest peer's", Peers("cpu_us"), 0.95).when(Off),
    bar("S1", "part of it in user space", Median("user_share"), 0.06),
    bar("S1", "system calls per request", Calls, 4.2),
    bar("S1", "errors", Worst("errors"), 0.0),
    bar("S2", "CPU per connection, by the peers' as they come", Untuned("cpu_us"), 1.0).when(On),
    bar("S2", "CPU per connection, by the lowest peer's", Peers("cpu_us"), 0.95).when(Off),
    bar("S2", "part of it in user space", Median("user_share"), 0.06),
    bar("S2", "system calls per connection", Calls, 15.5),
    bar("S2", "errors", Worst("errors"), 0.0),
    bar("S3f", "CPU per GiB over one connection, by HAProxy's as it comes", Haproxy("c1_cpu_s/gib"), 0.62),
    bar("S3f", "CPU per GiB over one connection, by the lowest tuned peer's", Tuned("c1_cpu_s/gib"), 0.90),
    bar("S3f", "CPU per GiB over eight, by HAProxy's as it comes", Haproxy("c8_cpu_s/gib"), 0.62),
    bar("S3f", "CPU per GiB over eight, by the lowest tuned peer's", Tuned("c8_cpu_s/gib"), 0.90),
    bar("S3u", "CPU per GiB over one connection, by HAProxy's as it comes", Haproxy("c1_cpu_s/gib"), 0.62),
    bar("S3u", "CPU per GiB over one connection, by the lowest tuned peer's", Tuned("c1_cpu_s/gib"), 0.90),
    bar("S3u", "CPU per GiB over eight, by HAProxy's as it comes", Haproxy("c8_cpu_s/gib"), 0.62),
    bar("S3u", "CPU per GiB over eight, by the lowest tuned peer's", Tuned("c8_cpu_s/gib"), 0.90),
    bar("S3", "CPU per GiB over one connection, by HAProxy's as it comes", Haproxy("c1_cpu_s/gib"), 0.50),
    bar("S3", "CPU per GiB over eight, by HAProxy's as it comes", Haproxy("c8_cpu_s/gib"), 0.35),
    bar("S4", "bytes of user memory per idle connection", Worst("pss_b/conn"), 400.0),
    bar("S4", "descriptors per idle connection", Worst("fds/conn"), 2.0),
    bar("S4", "KiB left when all have closed", Worst("left_kib"), 1024.0),
    bar("S4", "KiB more after a second fill", Worst("2nd_more_kib"), 1024.0),
    bar("S5a", "CPU per request, by the peers' as they come", Untuned("cpu_us"), 0.95).when(On),
    bar("S5a", "system calls per request", Calls, 4.5),
    bar("S5a", "errors", Worst("errors"), 0.0),
    bar("S5b", "CPU per full handshake, by the lowest peer's", Peers("cpu_us"), 0.65),
    bar("S5b", "errors", Worst("errors"), 0.0),
    bar("S5r", "errors", Worst("errors"), 0.0),
    bar("S5c", "CPU per GiB to the client, by the lowest peer's", Peers("down_cpu_s/gib"), 0.60),
    bar("S5c", "CPU per GiB from the client, by the lowest peer's", Peers("up_cpu_s/gib"), 0.85),
    bar("S5w", "errors", Worst("errors"), 0.0),
    bar("S5i", "user memory per idle connection, by nginx's", Nginx("pss_b/conn"), 0.80),
    bar("S6", "CPU per connection, by the peers' as they come", Untuned("cpu_us"), 1.0).when(On),
    bar("S6", "CPU per connection, by the lowest peer's", Peers("cpu_us"), 0.95).when(Off),
    bar("S6", "system calls per connection", Calls, 21.0),
    bar("S6", "errors", Worst("errors"), 0.0),
    bar("S7", "errors", Worst("errors"), 0.0),
    bar("S7", "long-lived connections lost", Worst("lost"), 0.0),
    bar("S7", "processes", Worst("processes"), 1.0),
    bar("S7", "longest connection, by that without reloads", Beside("longest_ms", "quiet_longest_ms"), 1.0),
    bar("S7", "milliseconds a worker spends adopting a snapshot", Worst("adopt_max_ms"), 1.0),
    bar("S8", "p50, by the peers' as they come", Untuned("p50_us"), 1.0).when(On),
    bar("S8", "p50, by the lowest peer's", Peers("p50_us"), 0.97).when(Off),
    bar("S8", "p99, by the peers' as they come", Untuned("p99_us"), 1.0).when(On),
    bar("S9a", "errors", Worst("errors"), 0.0),
    bar("S9a", "held connections lost", Worst("held_lost"), 0.0),
    bar("S9b", "errors", Worst("errors"), 0.0),
    bar("S9c", "errors", Worst("errors"), 0.0),
    bar("S10", "errors", Worst("errors"), 0.0),
    bar("S11a", "CPU per request, by nginx's as it comes", PlainNginx("cpu_us"), 0.95),
    bar("S11a", "CPU per request, by HAProxy's as it comes", Haproxy("cpu_us"), 1.3),
    bar("S11a", "errors", Worst("errors"), 0.0),
    bar("S11o", "CPU per request, by the peers' as they come", Untuned("cpu_us"), 1.05),
    bar("S11o", "errors", Worst("errors"), 0.0),
    bar("S11b", "errors", Worst("errors"), 0.0),
    bar("S11i", "bytes of user memory above an idle connection of HTTP/1.1", Worst("above_b/conn"), 24_576.0),
    bar("S11i", "KiB left when all have closed", Worst("left_kib"), 1024.0),
    bar("S11i", "KiB more after a second fill", Worst("2nd_more_kib"), 1024.0),
    bar("S12", "p99 of held connections, by the lowest peer's", Peers("p99_us"), 1.0),
    bar("S12", "errors of held connections", Worst("held_errors"), 0.0),
    bar("S12", "errors of new connections", Worst("errors"), 0.0),
];

/// How a promise was held.
pub struct Judged {
    bar: &'static Bar,
    /// With what the null check is worth.
    limit: f64,
    found: Option<f64>,
}

/// Holds the rounds of a scenario against its bars.
pub fn judge(results: &Results) -> Vec<Judged> {
    let not_now = if results.off { On } else { Off };
    let here = |bar: &&Bar| bar.scenario == results.scenario.name && bar.holds != not_now;
    BARS.iter().filter(here).map(|bar| bar.judge(results)).collect()
}

impl Bar {
    fn judge(&'static self, results: &Results) -> Judged {
        let us = results.contestants.first().copied().unwrap_or_default();
        let to_best =
            |among: &[&'static str], figure: &str| Some(results.ratio(results.best(among, figure)?, figure)?.median);
        let null = |figure: &str| results.ratio("null", figure).map_or(1.0, |null| null.upper);
        let (found, null) = match self.rule {
            Peers(figure) => (to_best(&results.peers, figure), null(figure)),
            Untuned(figure) => (to_best(&results.untuned(), figure), null(figure)),
            Tuned(figure) => (to_best(&results.tuned, figure), null(figure)),
            Haproxy(figure) => (to_best(&["haproxy", "haproxy-splice"], figure), null(figure)),
            PlainNginx(figure) => (to_best(&["nginx"], figure), null(figure)),
            Nginx(figure) => (to_best(&["nginx", "nginx-tuned"], figure), null(figure)),
            Beside(figure, quiet) => (results.beside(us, figure, quiet).map(|ratio| ratio.median), null(quiet)),
            Median(figure) => (results.spread(us, figure).map(|spread| spread.median), 1.0),
            Worst(figure) => (results.all(us, figure).reduce(f64::max), 1.0),
            Calls => (results.calls(us).map(|calls| calls.values().sum()), 1.0),
        };
        let limit = if self.at_most == 1.0 { null.max(1.0) } else { self.at_most };
        Judged { bar: self, limit, found }
    }
}

impl Results {
    /// Peers as they come.
    fn untuned(&self) -> Vec<&'static str> {
        self.peers.iter().copied().filter(|peer| !self.tuned.contains(peer)).collect()
    }

    /// A figure by another of the same sample.
    fn beside(&self, who: &str, figure: &str, other: &str) -> Option<Spread> {
        let samples = self.rounds.iter().filter_map(|round| round.sample(who));
        Spread::of(samples.filter_map(|sample| Some(sample.figure(figure)? / sample.figure(other)?)))
    }
}

impl Judged {
    fn verdict(&self) -> &'static str {
        match self.found {
            Some(found) if found <= self.limit => "pass",
            Some(_) => "MISS",
            None => "not measured",
        }
    }

    /// For the file.
    pub fn json(&self) -> Value {
        json!({
            "what": self.bar.what,
            "bar": self.bar.at_most,
            "limit": self.limit,
            "found": self.found,
            "verdict": self.verdict(),
        })
    }
}

/// All verdicts of a run.
pub struct Table<'a>(pub &'a [Judged]);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let heading = ["bar", "at most", "with null check", "found", "verdict"].map(str::to_owned).to_vec();
        let row = |judged: &Judged| {
            vec![
                format!("{} {}", judged.bar.scenario, judged.bar.what),
                short(judged.bar.at_most),
                short(judged.limit),
                judged.found.map_or("-".to_owned(), short),
                judged.verdict().to_owned(),
            ]
        };
        writeln!(f)?;
        aligned(f, &std::iter::once(heading).chain(self.0.iter().map(row)).collect::<Vec<_>>())
    }
}
