//! [`Trend`]: makes a [`PageSample`] of a [`Status`], with rates that come from the status before.
//!
//! Asks nothing and reads no clock: status and time are arguments. Invariants: a sample lists at most [`BACKENDS_MAX`]
//! backends, those with trouble first; a rate is shown only for what both samples have.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::sample::{BackendSample, FaultSample, ListenerSample, MoveSample, PageSample, PoolSample, Traffic};
use super::times::RecentTimes;
use crate::http::date::rfc3339;
use crate::metrics::Status;
use crate::metrics::status::{
    BackendStatus, BackendTotals, ListenerStatus, PoolStatus, RequestTotals, TableFileStatus,
};
use crate::outcome::{Ended, Party};

/// Most backends of a sample.
const BACKENDS_MAX: usize = 1_000;
/// Most rows of faults, and of moves of one pool.
const ROWS_MAX: usize = 100;
/// How long before its end a certificate needs attention.
const CERTIFICATE_NEAR: Duration = Duration::from_secs(14 * 86_400);

/// What the last sample was made of.
#[derive(Debug, Default)]
pub(super) struct Trend {
    at: Option<Instant>,
    all: Option<Totals>,
    backends: AHashMap<(String, String), Totals>,
    pools: AHashMap<String, PoolTrend>,
    accepted: AHashMap<String, u64>,
}

/// Totals that rates come from.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    connections: u64,
    failures: u64,
    bytes_up: u64,
    bytes_down: u64,
}

#[derive(Debug, Default)]
struct PoolTrend {
    connect: RecentTimes,
    first_byte: RecentTimes,
    requests: Option<u64>,
}

impl Totals {
    fn of(totals: &BackendTotals) -> Self {
        Self {
            connections: totals.connections,
            failures: totals.connect_failures,
            bytes_up: totals.bytes_up,
            bytes_down: totals.bytes_down,
        }
    }

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            failures: self.failures + other.failures,
            bytes_up: self.bytes_up + other.bytes_up,
            bytes_down: self.bytes_down + other.bytes_down,
        }
    }

    /// Traffic since `before`, so many seconds ago; `None`: something counts from nothing again.
    fn since(self, before: Self, seconds: f64) -> Option<Traffic> {
        Some(Traffic {
            connections: rate(self.connections, before.connections, seconds)?,
            failures: rate(self.failures, before.failures, seconds)?,
            bytes_up: rate(self.bytes_up, before.bytes_up, seconds)?,
            bytes_down: rate(self.bytes_down, before.bytes_down, seconds)?,
        })
    }
}

fn rate(now: u64, before: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then_some(())?;
    Some(now.checked_sub(before)? as f64 / seconds)
}

impl Trend {
    /// The sample of a status, without tables, events and names of clients.
    pub(super) fn sample(&mut self, status: Status, at: Instant, unix_ms: u64) -> PageSample {
        let before = self.at.replace(at);
        let seconds = before.map_or(0.0, |before| at.duration_since(before).as_secs_f64());
        let backends = || status.pools.iter().flat_map(|pool| &pool.backends);
        let all = backends().map(|backend| Totals::of(&backend.totals)).fold(Totals::default(), Totals::add);
        let all_before = self.all.replace(all);
        let max = status.admission.max;
        let moves = || status.pools.iter().flat_map(|pool| &pool.breaks_from).filter(|moved| moved.count > 0);
        let (moved, moves_all) = (moves().map(|moved| moved.count).sum(), moves().count());
        let (faults, faults_left_out) = most_frequent(faults(&status), |fault| fault.count);
        let mut sample = PageSample {
            unix_ms,
            pid: status.process.pid,
            uptime_s: status.uptime_s,
            generation: status.generation,
            open: status.admission.open,
            max: (max < u64::from(u32::MAX)).then_some(max),
            per_s: all_before.and_then(|before| all.since(before, seconds)),
            warnings: warnings(&status, unix_ms),
            backends: backends().count() as u64,
            backends_serving: backends().filter(|backend| !is_troubled(backend)).count() as u64,
            moved,
            faults,
            faults_left_out: faults_left_out as u64,
            ..PageSample::default()
        };
        sample.listeners = self.listeners(&status.listeners, seconds);
        let (shown, left_out) = shown(status.pools, BACKENDS_MAX);
        sample.left_out = left_out;
        sample.pools = self.pools(shown, seconds);
        let moves_shown: usize = sample.pools.iter().map(|pool| pool.moves.len()).sum();
        sample.moves_left_out = (moves_all - moves_shown) as u64;
        sample.version = status.version;
        sample
    }

    fn listeners(&mut self, listeners: &[ListenerStatus], seconds: f64) -> Vec<ListenerSample> {
        let before = std::mem::take(&mut self.accepted);
        let sample = |listener: &ListenerStatus| {
            let accepted = listener.totals.accepted;
            self.accepted.insert(listener.name.clone(), accepted);
            ListenerSample {
                name: listener.name.clone(),
                bind: listener.bind.clone(),
                open: listener.open,
                max: listener.max,
                accepted_per_s: before.get(&listener.name).and_then(|before| rate(accepted, *before, seconds)),
            }
        };
        listeners.iter().map(sample).collect()
    }

    fn pools(&mut self, pools: Vec<PoolStatus>, seconds: f64) -> Vec<PoolSample> {
        let mut before = std::mem::take(&mut self.pools);
        let mut backends_before = std::mem::take(&mut self.backends);
        let mut samples = Vec::with_capacity(pools.len());
        for pool in pools {
            let mut trend = before.remove(&pool.name).unwrap_or_default();
            trend.connect.add(&pool.connect_time, seconds);
            let requests = pool.requests.as_ref().map(requests_of);
            if let Some(totals) = &pool.requests {
                trend.first_byte.add(&totals.first_byte, seconds);
            }
            let requests_before = std::mem::replace(&mut trend.requests, requests);
            samples.push(PoolSample {
                connect: trend.connect.bounds(),
                first_byte: trend.first_byte.bounds(),
                requests_per_s: requests.zip(requests_before).and_then(|(now, before)| rate(now, before, seconds)),
                moves: moves(&pool),
                balance: pool.balance,
                backends: self.backends(&pool.name, pool.backends, &mut backends_before, seconds),
                name: pool.name.clone(),
            });
            self.pools.insert(pool.name, trend);
        }
        samples
    }

    fn backends(
        &mut self,
        pool: &str,
        backends: Vec<BackendStatus>,
        before: &mut AHashMap<(String, String), Totals>,
        seconds: f64,
    ) -> Vec<BackendSample> {
        let sample = |status: BackendStatus| {
            let place = (pool.to_owned(), status.name.clone());
            let totals = Totals::of(&status.totals);
            let per_s = before.remove(&place).and_then(|before| totals.since(before, seconds));
            self.backends.insert(place, totals);
            BackendSample { status, per_s }
        };
        backends.into_iter().map(sample).collect()
    }
}

fn requests_of(totals: &RequestTotals) -> u64 {
    totals.responses.values().chain(totals.local_replies.values()).sum()
}

fn moves(pool: &PoolStatus) -> Vec<MoveSample> {
    let moved = pool.breaks_from.iter().filter(|moved| moved.count > 0);
    let moves = moved.map(|moved| MoveSample { from: moved.from.clone(), cause: moved.cause, count: moved.count });
    most_frequent(moves.collect(), |moved| moved.count).0
}

/// At most [`ROWS_MAX`] rows, in their order; if there are more, those of the highest counts. Also returns how many there
/// are beyond.
fn most_frequent<T>(mut rows: Vec<T>, count: impl Fn(&T) -> u64) -> (Vec<T>, usize) {
    let beyond = rows.len().saturating_sub(ROWS_MAX);
    if beyond > 0 {
        rows.sort_by_key(|row| Reverse(count(row)));
        rows.truncate(ROWS_MAX);
    }
    (rows, beyond)
}

/// True for a backend that does not take new clients, or should not have to be looked after.
fn is_troubled(backend: &BackendStatus) -> bool {
    !backend.up || backend.ejected || backend.runtime.is_some() || !["up", "unchecked"].contains(&&*backend.state)
}

/// At most so many backends, in the order of the file; if there are more, those with trouble of any pool have a place
/// first, then those of pools with work. Also returns how many there are beyond.
fn shown(mut pools: Vec<PoolStatus>, most: usize) -> (Vec<PoolStatus>, u64) {
    let all: usize = pools.iter().map(|pool| pool.backends.len()).sum();
    if all <= most {
        return (pools, 0);
    }
    pools.sort_by_key(|pool| (!pool.backends.iter().any(is_troubled), !pool.busy));
    let troubled = |pool: &PoolStatus| pool.backends.iter().filter(|backend| is_troubled(backend)).count();
    let mut room = most;
    let mut room_beside = most.saturating_sub(pools.iter().map(troubled).sum());
    for pool in &mut pools {
        let troubled = troubled(pool);
        let healthy = (pool.backends.len() - troubled).min(room_beside);
        let troubled = troubled.min(room);
        room -= troubled;
        room_beside -= healthy;
        pool.backends.sort_by_key(|backend| !is_troubled(backend));
        pool.backends.truncate(troubled + healthy);
    }
    pools.retain(|pool| !pool.backends.is_empty());
    (pools, (all - most) as u64)
}

/// Endings of which a side is at fault, and requests without a good response.
fn faults(status: &Status) -> Vec<FaultSample> {
    let mut faults = Vec::new();
    for listener in &status.listeners {
        let endings = Ended::ALL.iter().filter(|ended| ended.fault() != Party::None);
        let counted = endings.filter_map(|ended| Some((ended, *listener.totals.ended.get(ended.word())?)));
        faults.extend(counted.map(|(ended, count)| FaultSample {
            place: format!("listener {}", listener.name),
            word: ended.word().to_owned(),
            side: ended.fault().word(),
            count,
        }));
    }
    let served = status.pools.iter().filter_map(|pool| Some((&pool.name, pool.requests.as_ref()?)));
    for (name, requests) in served {
        let of = |class: &str, by: &RequestTotals, is_own: bool| {
            let counts = if is_own { &by.local_replies } else { &by.responses };
            counts.get(class).copied().unwrap_or(0)
        };
        let rows = [
            ("responses 5xx", "backend", of("5xx", requests, false)),
            ("replies 5xx", "sessile", of("5xx", requests, true)),
            ("no whole response", "sessile", of("none", requests, true)),
        ];
        let place = format!("pool {name}");
        let counted = rows.into_iter().filter(|(.., count)| *count > 0);
        faults.extend(counted.map(|(word, side, count)| FaultSample {
            place: place.clone(),
            word: word.to_owned(),
            side,
            count,
        }));
    }
    faults
}

/// What needs attention beside backends. The sentences have no figure that changes with each sample.
fn warnings(status: &Status, unix_ms: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    if status.process.stopping_s.is_some() {
        warnings.push("This process is stopping.".to_owned());
    }
    if status.admission.at_limit {
        warnings.push("The limit of connections is reached; clients wait in the backlog.".to_owned());
    }
    let at_limit = status.listeners.iter().filter(|listener| listener.at_limit);
    warnings.extend(at_limit.map(|listener| format!("Listener {} is at its limit; clients wait.", listener.name)));
    if !status.reloads.last_accepted && !status.reloads.problems.is_empty() {
        warnings.push(format!("The last reload was refused: {}", status.reloads.problems[0]));
    }
    if !status.log_complaint.is_empty() {
        warnings.push(format!("Access log: {}", status.log_complaint));
    }
    let unwritten = |what: &str, file: &Option<TableFileStatus>| {
        let complaint = file.as_ref().map(|file| file.complaint.as_str()).filter(|complaint| !complaint.is_empty());
        complaint.map(|complaint| format!("The {what} cannot be written: {complaint}"))
    };
    warnings.extend(unwritten("stick-table file", &status.stick_table_file));
    warnings.extend(unwritten("state file", &status.state_file));
    let sources = status.pools.iter().filter_map(|pool| Some((&pool.name, pool.discover.as_ref()?)));
    let failed = sources.filter(|(_, source)| !source.complaint.is_empty());
    warnings.extend(failed.take(ROWS_MAX).map(|(pool, source)| {
        format!("The backends of pool {pool} are the last good ones: {}: {}", source.source, source.complaint)
    }));
    let named = status.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (&pool.name, backend)));
    let named = named.filter_map(|(pool, backend)| Some((pool, &backend.name, backend.resolve.as_ref()?)));
    let failed = named.filter(|(.., resolve)| !resolve.complaint.is_empty());
    warnings.extend(failed.take(ROWS_MAX).map(|(pool, backend, resolve)| {
        format!("The name of backend {pool}/{backend} is not found: {}: {}", resolve.name, resolve.complaint)
    }));
    if let Some(store) = status.store.as_ref().filter(|store| store.state != "working") {
        warnings.push(format!("The shared store is not used: {}", store.complaint));
    }
    let near = unix_ms / 1_000 + CERTIFICATE_NEAR.as_secs();
    let ending = status.certificates.iter().filter(|certificate| certificate.not_after_unix_s < near);
    warnings.extend(ending.take(ROWS_MAX).map(|certificate| {
        let day = rfc3339(certificate.not_after_unix_s.saturating_mul(1_000));
        format!("The certificate of {:?} ends on {}.", certificate.name, day.split('T').next().unwrap_or_default())
    }));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Histogram;
    use crate::metrics::status::{AdmissionStatus, BreakCount, CertificateStatus, ListenerTotals, Reloads};

    fn backend(name: &str, totals: u64) -> BackendStatus {
        let totals = BackendTotals {
            connections: totals,
            connect_failures: totals / 2,
            bytes_up: 10 * totals,
            bytes_down: 100 * totals,
            ..BackendTotals::default()
        };
        BackendStatus { name: name.into(), state: "up".into(), up: true, totals, ..BackendStatus::default() }
    }

    fn pool(name: &str, backends: Vec<BackendStatus>) -> PoolStatus {
        PoolStatus { name: name.into(), backends, ..PoolStatus::default() }
    }

    fn status(pools: Vec<PoolStatus>) -> Status {
        let reloads = Reloads { last_accepted: true, ..Reloads::default() };
        Status { pools, reloads, ..Status::default() }
    }

    #[test]
    fn rates_are_differences_by_the_time_between_two_samples() {
        let (mut trend, begin) = (Trend::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let first = trend.sample(status(vec![pool("web", vec![backend("a", 10)])]), at(0), 1);
        assert_eq!((first.per_s, first.pools[0].backends[0].per_s), (None, None), "nothing to compare with");
        let both = vec![backend("a", 30), backend("new", 500)];
        let second = trend.sample(status(vec![pool("web", both)]), at(2), 1);
        let expected = Traffic { connections: 10.0, failures: 5.0, bytes_up: 100.0, bytes_down: 1_000.0 };
        let rates: Vec<_> = second.pools[0].backends.iter().map(|backend| backend.per_s).collect();
        assert_eq!(rates, [Some(expected), None], "a backend that is new counts from the next sample on");
        // A backend of this name that was added anew counts from nothing.
        let third = trend.sample(status(vec![pool("web", vec![backend("a", 1)])]), at(3), 1);
        assert_eq!((third.pools[0].backends[0].per_s, third.per_s), (None, None));
        let fourth = trend.sample(status(vec![pool("web", vec![backend("a", 2)])]), at(4), 1);
        assert_eq!(fourth.per_s.unwrap().connections, 1.0);
        assert_eq!(trend.backends.len(), 1, "what has gone is forgotten");
    }

    #[test]
    fn listeners_and_requests_have_rates_and_pools_their_times() {
        let (mut trend, begin) = (Trend::default(), Instant::now());
        let (connects, first_bytes) = (Histogram::default(), Histogram::default());
        let look = |accepted: u64, good: u64, bad: u64| {
            let mut requests = RequestTotals {
                responses: [("2xx".to_owned(), good), ("5xx".to_owned(), bad)].into(),
                local_replies: [("5xx".to_owned(), bad)].into(),
                ..RequestTotals::default()
            };
            first_bytes.add_to(&mut requests.first_byte);
            let mut web = PoolStatus { requests: Some(requests), ..pool("web", vec![]) };
            connects.add_to(&mut web.connect_time);
            let ended = [("done".to_owned(), 7), ("connect_refused".to_owned(), bad)].into();
            let totals = ListenerTotals { accepted, ended, ..ListenerTotals::default() };
            let listener = ListenerStatus { name: "l".into(), totals, ..ListenerStatus::default() };
            Status { listeners: vec![listener], ..status(vec![web]) }
        };
        trend.sample(look(5, 10, 0), begin, 1);
        connects.record_us(400);
        first_bytes.record_us(2_000);
        let sample = trend.sample(look(8, 19, 3), begin + Duration::from_secs(3), 1);
        assert_eq!(sample.listeners[0].accepted_per_s, Some(1.0));
        let web = &sample.pools[0];
        assert_eq!(web.requests_per_s, Some(5.0));
        let halves = (web.connect.unwrap().half_us, web.first_byte.unwrap().half_us);
        assert_eq!(halves, (500, 2_500));
        let faults: Vec<_> =
            sample.faults.iter().map(|fault| (&*fault.place, &*fault.word, fault.side, fault.count)).collect();
        let expected = [
            ("listener l", "connect_refused", "backend", 3),
            ("pool web", "responses 5xx", "backend", 3),
            ("pool web", "replies 5xx", "sessile", 3),
        ];
        assert_eq!(faults, expected, "done is no fault");
    }

    #[test]
    fn moves_are_shown_with_cause_and_origin_where_there_are_any() {
        let moved = |from: &str, count| BreakCount { from: from.into(), cause: "down", count };
        let web = PoolStatus { breaks_from: vec![moved("a", 0), moved("b", 2)], ..pool("web", vec![]) };
        let sample = Trend::default().sample(status(vec![web]), Instant::now(), 1);
        assert_eq!(sample.pools[0].moves, [MoveSample { from: "b".into(), cause: "down", count: 2 }]);
    }

    #[test]
    fn of_too_many_backends_those_with_trouble_are_shown() {
        let many = |name: &str| pool(name, (0..4).map(|index| backend(&format!("{name}{index}"), 0)).collect());
        let mut pools = vec![many("a"), many("b"), many("c")];
        pools[1].busy = true;
        pools[2].backends[3] = BackendStatus { state: "down".into(), up: false, ..backend("c3", 0) };
        let names = |pools: &[PoolStatus]| -> Vec<String> {
            pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.name.clone()).collect()
        };
        let (all, left_out) = shown(pools.clone(), 12);
        assert_eq!((names(&all), left_out), (names(&pools), 0), "the order of the file");
        let (some, left_out) = shown(pools, 6);
        assert_eq!((names(&some), left_out), (["c3", "c0", "c1", "c2", "b0", "b1"].map(str::to_owned).to_vec(), 6));
    }

    #[test]
    fn trouble_of_every_pool_has_a_place_before_health() {
        let mut pools = vec![pool("a", vec![]), pool("b", vec![]), pool("c", vec![])];
        for (pool, dead) in pools.iter_mut().zip([1, 3, 0]) {
            let name = pool.name.clone();
            pool.backends = (0..4).map(|index| backend(&format!("{name}{index}"), 0)).collect();
            pool.backends.iter_mut().rev().take(dead).for_each(|backend| backend.up = false);
        }
        let names = |most: usize| -> Vec<String> {
            let (some, left_out) = shown(pools.clone(), most);
            assert_eq!(left_out, 12 - most as u64);
            some.iter().flat_map(|pool| &pool.backends).map(|backend| backend.name.clone()).collect()
        };
        assert_eq!(names(6), ["a3", "a0", "a1", "b1", "b2", "b3"]);
        assert_eq!(names(4), ["a3", "b1", "b2", "b3"]);
        assert_eq!(names(3), ["a3", "b1", "b2"]);
    }

    #[test]
    fn what_is_cut_is_counted_and_the_highest_counts_stay() {
        let moved = |count: u64| BreakCount { from: format!("b{count}"), cause: "down", count };
        let breaks_from = (1..=130).map(moved).collect();
        let web = PoolStatus { breaks_from, ..pool("web", vec![]) };
        let listener = |number: u64| ListenerStatus {
            name: format!("l{number}"),
            totals: ListenerTotals {
                ended: [("connect_refused".to_owned(), number)].into(),
                ..ListenerTotals::default()
            },
            ..ListenerStatus::default()
        };
        let listeners = (1..=103).map(listener).collect();
        let sample = Trend::default().sample(Status { listeners, ..status(vec![web]) }, Instant::now(), 1);
        assert_eq!((sample.moved, sample.moves_left_out, sample.faults_left_out), (130 * 131 / 2, 30, 3));
        assert_eq!(sample.pools[0].moves.iter().map(|moved| moved.count).min(), Some(31));
        assert_eq!(sample.faults.iter().map(|fault| fault.count).min(), Some(4));
        // What a pool without a place has counted is in the sum.
        let many = (0..=BACKENDS_MAX).map(|index| backend(&format!("b{index}"), 0)).collect();
        let quiet = PoolStatus { breaks_from: vec![moved(7)], ..pool("quiet", vec![backend("q", 0)]) };
        let busy = PoolStatus { busy: true, ..pool("busy", many) };
        let sample = Trend::default().sample(status(vec![quiet, busy]), Instant::now(), 1);
        assert_eq!((sample.pools.len(), sample.moved, sample.moves_left_out), (1, 7, 1));
    }

    #[test]
    fn what_needs_attention_is_one_sentence_each() {
        assert!(warnings(&status(vec![]), 0).is_empty());
        let mut troubled = status(vec![]);
        troubled.admission = AdmissionStatus { at_limit: true, ..AdmissionStatus::default() };
        troubled.reloads = Reloads { problems: vec!["line 3: no".into()], ..Reloads::default() };
        troubled.listeners = vec![ListenerStatus { name: "l".into(), at_limit: true, ..ListenerStatus::default() }];
        troubled.state_file = Some(TableFileStatus { complaint: "disk full".into(), ..TableFileStatus::default() });
        troubled.certificates = [("near.test", 86_400), ("far.test", 86_400 * 400)]
            .map(|(name, not_after_unix_s)| CertificateStatus { name: name.into(), not_after_unix_s })
            .into();
        let expected = [
            "The limit of connections is reached; clients wait in the backlog.",
            "Listener l is at its limit; clients wait.",
            "The last reload was refused: line 3: no",
            "The state file cannot be written: disk full",
            "The certificate of \"near.test\" ends on 1970-01-02.",
        ];
        assert_eq!(warnings(&troubled, 0), expected);
    }
}
