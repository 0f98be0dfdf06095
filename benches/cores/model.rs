//! The model: how many connections W workers serve while they wait for each other's lines.
//!
//! # The formula
//!
//! A closed network of queues. Each worker is a customer: it works for itself for `own` nanoseconds a connection (or a
//! request) and visits each line of the list as often as it writes it. A line serves one worker at a time. A visit takes
//! `local` if the same worker wrote the line last, and `hop` else; with S workers that write a line, the chance of that is
//! `1 - 1/S`:
//!
//! ```text
//! demand of a line    D = writes × (local + (1 - 1/S) × (hop - local)) / number of such lines
//! stay at a line      R(w) = D × (1 + Q(w-1))        Q: workers at the line
//! connections         X(w) = w / (own + sum of all R(w))
//! queue               Q(w) = X(w) × R(w)             for w = 1, 2, …, W, from Q(0) = 0
//! ```
//!
//! This is exact mean value analysis (Reiser and Lavenberg, "Mean-Value Analysis of Closed Multichain Queuing Networks",
//! Journal of the ACM 27, 1980). It takes service times for exponential, though a hop takes much the same time each time,
//! and a write that follows another at once for a hop of its own: both make lines look busier than they are. It knows no
//! distance: all hops are as dear as the one measured, so each question is asked again with dearer ones.
//!
//! Invariant: with one line the result is that of the machine repair model, which has a closed form; checked at each run.

use super::list::{LINES, SharedLine, Spread, When};

/// Backends of the pool that has all clients.
const BACKENDS: f64 = 3.0;
/// Groups of threads that share a stripe.
const STRIPES: f64 = 16.0;
/// So many lines have no queue.
const MANY: f64 = 1e6;

/// What a visit costs, in nanoseconds.
#[derive(Clone, Copy)]
pub struct VisitCost {
    /// The line is in the cache of the core.
    pub local: f64,
    /// The line is in the cache of another core.
    pub hop: f64,
}

/// What workers do.
#[derive(Clone, Copy)]
pub struct Load {
    /// Nanoseconds of a connection or request that no other worker is concerned with.
    pub own: f64,
    /// Requests of kept connections; else connections.
    pub of_requests: bool,
    pub least_connections: bool,
    pub logged: bool,
    pub kernel: bool,
}

/// What came out for some number of workers.
pub struct Solved {
    /// Connections or requests of all workers in a nanosecond.
    pub rate: f64,
    /// The lines, the busiest first.
    pub lines: Vec<BusyLine>,
}

/// How busy a line is.
pub struct BusyLine {
    pub name: &'static str,
    /// Nanoseconds that a connection or request needs it.
    pub demand: f64,
    /// Share of time in which it is busy.
    pub busy: f64,
}

/// A kind of line in the model.
struct Station {
    name: &'static str,
    /// Nanoseconds of one line.
    demand: f64,
    lines: f64,
}

impl Load {
    fn writes(&self, line: &SharedLine) -> f64 {
        let counts = match line.when {
            When::Always => true,
            When::Keyed => !self.least_connections,
            When::Keyless | When::LeastConnections => self.least_connections,
            When::Logged => self.logged,
            When::Kernel => self.kernel,
            When::Seldom(_) => false,
        };
        match (counts, self.of_requests) {
            (false, _) => 0.0,
            (true, false) => line.connection,
            (true, true) => line.request,
        }
    }

    fn stations(&self, cost: VisitCost, workers: usize) -> Vec<Station> {
        let all = workers as f64;
        let station = |line: &SharedLine| {
            let (lines, sharers) = match line.spread {
                Spread::One => (1.0, all),
                Spread::Backends => (BACKENDS, all),
                Spread::Stripes => (STRIPES.min(all), (all / STRIPES).max(1.0)),
                Spread::Keys => (MANY, all),
            };
            let visit = cost.local + (1.0 - 1.0 / sharers) * (cost.hop - cost.local);
            Station { name: line.name, demand: self.writes(line) * visit / lines, lines }
        };
        LINES.iter().map(station).filter(|station| station.demand > 0.0).collect()
    }

    /// Solves the model for so many workers.
    pub fn with(&self, workers: usize, cost: VisitCost) -> Solved {
        let stations = self.stations(cost, workers);
        let rate = rate(self.own, &stations, workers);
        let busy = |&Station { name, demand, .. }: &Station| BusyLine { name, demand, busy: rate * demand };
        let mut lines: Vec<_> = stations.iter().map(busy).collect();
        lines.sort_by(|a, b| b.demand.total_cmp(&a.demand));
        Solved { rate, lines }
    }
}

/// Mean value analysis, from one worker to all.
fn rate(own: f64, stations: &[Station], workers: usize) -> f64 {
    let mut queues = vec![0.0; stations.len()];
    let mut rate = 0.0;
    for customers in 1..=workers {
        let stays: Vec<f64> =
            stations.iter().zip(&queues).map(|(station, queue)| station.demand * (1.0 + queue)).collect();
        let all: f64 = stations.iter().zip(&stays).map(|(station, stay)| station.lines * stay).sum();
        rate = customers as f64 / (own + all);
        queues = stays.iter().map(|stay| rate * stay).collect();
    }
    rate
}

/// Panics if the result for one line is not that of the machine repair model:
/// `X = (1 - P0) / D`, `1/P0 = sum over k = 0…W of W!/(W-k)! × (D/own)^k`.
pub fn check() {
    for (own, demand, workers) in [(100.0, 1.0, 64), (100.0, 30.0, 8), (1.0, 10.0, 3), (50.0, 5.0, 1)] {
        let (mut term, mut sum) = (1.0, 1.0);
        for idle in (1..=workers).rev() {
            term *= idle as f64 * demand / own;
            sum += term;
        }
        let exact = (1.0 - 1.0 / sum) / demand;
        let found = rate(own, &[Station { name: "line", demand, lines: 1.0 }], workers);
        assert!((found / exact - 1.0).abs() < 1e-9, "{found} is not {exact}");
    }
}
