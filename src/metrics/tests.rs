//! The page as a scraper reads it.

use std::collections::{BTreeMap, BTreeSet};

use super::status::{
    self, AdmissionStatus, BackendStatus, BackendTotals, Descriptors, ListenerStatus, ListenerTotals, PoolStatus,
    Reloads, WorkerStatus,
};
use super::*;
use crate::counters::{BackendCounters, ListenerCounters, Padded};

/// A page taken apart by the letter of the text format: series with their values, families with their types.
#[derive(Default)]
struct Parsed {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
    helped: BTreeSet<String>,
}

fn parse(page: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(text.ends_with('.'), "{line}");
            assert!(parsed.helped.insert(name.into()), "twice: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(parsed.types.insert(name.into(), kind.into()).is_none(), "twice: {line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(parsed.samples.insert(series.into(), value).is_none(), "twice: {line}");
        }
    }
    parsed
}

/// The first page of a process.
fn render(status: &Status) -> String {
    Exporter::default().render(status)
}

fn backend(name: &str) -> BackendStatus {
    let counters: Vec<Padded<BackendCounters>> = (0..2).map(|_| Padded::default()).collect();
    for Padded(worker) in &counters {
        worker.connections.add(2);
        worker.bytes_up.add(1 << 40);
        worker.connect_time.record_us(300);
        worker.duration.record_us(7_200_000_000);
    }
    let totals = BackendTotals::sum(&counters);
    BackendStatus { name: name.into(), up: true, weight: 3, leases: 5, totals, ..BackendStatus::default() }
}

fn status() -> Status {
    let counters: Vec<Padded<ListenerCounters>> = (0..2).map(|_| Padded::default()).collect();
    counters[0].0.accepted.add(4);
    counters[1].0.accepted.add(5);
    counters[1].0.ended[Ended::NoRoute as usize].add(2);
    let totals = ListenerTotals::sum(&counters);
    let front = ListenerStatus { name: "front".into(), open: 6, max: Some(100), totals, ..ListenerStatus::default() };
    Status {
        version: "0.1.0".into(),
        ready: true,
        generation: 3,
        generations_alive: 1,
        digest: "00c0ffee".into(),
        reloads: Reloads { accepted: 2, refused: 1, last_accepted: true, ..Reloads::default() },
        admission: AdmissionStatus {
            open: 6,
            max: 1_000,
            hello_memory_bytes: 70_000,
            limit_reached: 2,
            ..AdmissionStatus::default()
        },
        descriptors: Some(Descriptors { open: 20, max: 1_024 }),
        listeners: vec![front],
        pools: vec![PoolStatus {
            name: "web".into(),
            digest: "00ff".into(),
            breaks: [("down".to_owned(), 9)].into(),
            breaks_from: vec![status::BreakCount { from: "a".into(), cause: "down", count: 9 }],
            dropped_cookies: 15,
            cookies: [("forged".to_owned(), 7)].into(),
            backends: vec![backend("a"), backend("b")],
            ..PoolStatus::default()
        }],
        store: Some(status::StoreStatus {
            state: "working".into(),
            pending: 13,
            requests: [("find".to_owned(), [("known".to_owned(), 14)].into())].into(),
            ..status::StoreStatus::default()
        }),
        workers: vec![
            WorkerStatus { wakes: 11, adopt_us_max: 250, ..WorkerStatus::default() },
            WorkerStatus { log_dropped: 12, ..WorkerStatus::default() },
        ],
        ..Status::default()
    }
}

#[test]
fn every_series_is_named_typed_and_explained() {
    let page = parse(&render(&status()));
    assert!(page.types.keys().eq(page.helped.iter()));
    for series in page.samples.keys() {
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let kind = &page.types[family];
        assert!(family.starts_with("sessile_") || family.starts_with("process_"), "{family}");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        assert_eq!(kind == "histogram", family != name, "{series}");
    }
}

#[test]
fn numbers_arrive_where_they_belong() {
    let page = parse(&render(&status()));
    for (series, value) in [
        ("sessile_build_info{version=\"0.1.0\"}", 1.0),
        ("sessile_generation", 3.0),
        ("sessile_permits_max_reached_total", 2.0),
        ("sessile_digest_info{digest=\"00c0ffee\"}", 1.0),
        ("sessile_reloads_total{verdict=\"refused\"}", 1.0),
        ("sessile_connections_accepted_total{listener=\"front\"}", 9.0),
        ("sessile_connections_open{listener=\"front\"}", 6.0),
        ("sessile_connections_max{listener=\"front\"}", 100.0),
        ("sessile_connections_ended_total{listener=\"front\",outcome=\"no_route\",fault=\"client\"}", 2.0),
        ("sessile_connections_ended_total{listener=\"front\",outcome=\"done\",fault=\"none\"}", 0.0),
        ("sessile_connections_refused_total{listener=\"front\",reason=\"no_route\"}", 2.0),
        ("sessile_sticky_breaks_total{pool=\"web\",from=\"a\",cause=\"down\"}", 9.0),
        ("sessile_dropped_set_cookies_total{pool=\"web\"}", 15.0),
        ("sessile_cookies_total{pool=\"web\",verdict=\"forged\"}", 7.0),
        ("sessile_backend_connections_total{pool=\"web\",backend=\"a\"}", 4.0),
        ("sessile_backend_up_bytes_total{pool=\"web\",backend=\"b\"}", 2.0 * 1_099_511_627_776.0),
        ("sessile_backend_leases{pool=\"web\",backend=\"a\"}", 5.0),
        ("sessile_backend_weight{pool=\"web\",backend=\"a\"}", 3.0),
        ("sessile_store_up", 1.0),
        ("sessile_store_pending", 13.0),
        ("sessile_store_requests_total{kind=\"find\",result=\"known\"}", 14.0),
        ("sessile_worker_wakes_total{worker=\"0\"}", 11.0),
        ("sessile_worker_adopt_max_seconds{worker=\"0\"}", 0.000_25),
        ("sessile_log_dropped_total{worker=\"1\"}", 12.0),
        ("process_max_fds", 1_024.0),
    ] {
        assert_eq!(page.samples.get(series), Some(&value), "{series}");
    }
    let refusals = page.samples.keys().filter(|series| series.starts_with("sessile_connections_refused_total"));
    assert_eq!(refusals.count(), Ended::ALL.iter().filter(|ended| ended.refused()).count());
}

#[test]
fn requests_are_shown_by_pool_and_by_listener_where_there_can_be_some() {
    let (mut status, exporter) = (status(), Exporter::default());
    let no_http = exporter.render(&status);
    for family in ["requests_total", "pool_requests_total", "pool_request_duration", "tls_handshakes", "keyless"] {
        assert!(!no_http.contains(&format!("sessile_{family}")), "{family}");
    }
    assert!(no_http.contains("sessile_pool_connect_time_seconds_count{pool=\"web\"} 0"));
    status.listeners[0].kinds = status::ListenerKinds { tls: true, http: true, proxy: true };
    status.listeners[0].totals.requests = [("2xx".to_owned(), 7), ("none".to_owned(), 1)].into();
    let mut requests = status::RequestTotals::default();
    (requests.responses, requests.local_replies) = ([("2xx".to_owned(), 6)].into(), [("5xx".to_owned(), 2)].into());
    requests.first_byte.buckets[4] = 6;
    status.pools[0].requests = Some(requests);
    let page = parse(&exporter.render(&status));
    for (series, value) in [
        ("sessile_requests_total{listener=\"front\",code=\"2xx\"}", 7.0),
        ("sessile_requests_total{listener=\"front\",code=\"none\"}", 1.0),
        ("sessile_requests_total{listener=\"front\",code=\"5xx\"}", 0.0),
        ("sessile_pool_requests_total{pool=\"web\",code=\"2xx\",by=\"backend\"}", 6.0),
        ("sessile_pool_requests_total{pool=\"web\",code=\"5xx\",by=\"sessile\"}", 2.0),
        ("sessile_pool_requests_total{pool=\"web\",code=\"5xx\",by=\"backend\"}", 0.0),
        ("sessile_pool_first_byte_seconds_bucket{pool=\"web\",le=\"0.005\"}", 6.0),
        ("sessile_pool_first_byte_seconds_bucket{pool=\"web\",le=\"0.001\"}", 0.0),
        ("sessile_tls_handshakes_total{listener=\"front\"}", 0.0),
        ("sessile_keyless_connections_total{listener=\"front\"}", 0.0),
    ] {
        assert_eq!(page.samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn changes_of_checks_certificates_and_files_are_shown() {
    let mut status = status();
    status.pools[0].checks = true;
    (status.pools[0].backends[0].rises, status.pools[0].backends[0].falls) = (1, 2);
    status.certificates = vec![status::CertificateStatus { name: "*.a.test".into(), not_after_unix_s: 1_900_000_000 }];
    status.state_file = Some(status::TableFileStatus { written_unix_s: Some(1_800_000_000), ..Default::default() });
    status.stick_table_file = Some(status::TableFileStatus::default());
    status.usage = Some(status::ProcessUsage { cpu_s: 1.25, ..Default::default() });
    status.stick_tables =
        vec![status::StickTableStatus { name: "web".into(), known: 3, entries_max: 64, ..Default::default() }];
    let page = parse(&render(&status));
    for (series, value) in [
        ("sessile_backend_check_transitions_total{pool=\"web\",backend=\"a\",to=\"up\"}", 1.0),
        ("sessile_backend_check_transitions_total{pool=\"web\",backend=\"a\",to=\"down\"}", 2.0),
        ("sessile_certificate_not_after_seconds{name=\"*.a.test\"}", 1_900_000_000.0),
        ("sessile_state_file_written_timestamp_seconds", 1_800_000_000.0),
        ("sessile_stick_table_entries{stick_table=\"web\"}", 3.0),
        ("sessile_stick_table_entries_max{stick_table=\"web\"}", 64.0),
        ("process_cpu_seconds_total", 1.25),
        ("process_open_fds", 20.0),
    ] {
        assert_eq!(page.samples.get(series), Some(&value), "{series}");
    }
    assert!(!page.samples.contains_key("sessile_stick_table_file_written_timestamp_seconds"), "not written yet");
}

#[test]
fn histograms_are_cumulative_and_in_seconds() {
    let page = parse(&render(&status()));
    let connect = |le: &str| {
        page.samples[&format!("sessile_backend_connect_time_seconds_bucket{{pool=\"web\",backend=\"a\",le=\"{le}\"}}")]
    };
    assert_eq!((connect("0.005"), connect("0.5"), connect("+Inf")), (2.0, 2.0, 2.0));
    assert_eq!(page.samples["sessile_backend_connect_time_seconds_sum{pool=\"web\",backend=\"a\"}"], 0.0006);
    let duration = |le: &str| {
        page.samples[&format!("sessile_backend_duration_seconds_bucket{{pool=\"web\",backend=\"a\",le=\"{le}\"}}")]
    };
    assert_eq!((duration("0.1"), duration("3600"), duration("+Inf")), (0.0, 0.0, 2.0));
    assert_eq!(page.samples["sessile_backend_duration_seconds_count{pool=\"web\",backend=\"a\"}"], 2.0);
}

#[test]
fn what_was_removed_is_gone_from_the_next_page() {
    let (exporter, mut status) = (Exporter::default(), status());
    assert!(exporter.render(&status).contains("backend=\"b\""));
    status.pools[0].backends.pop();
    status.listeners.clear();
    let page = exporter.render(&status);
    assert!(!page.contains("backend=\"b\"") && !page.contains("listener="));
    assert!(page.contains("backend=\"a\""));
}

#[test]
fn every_page_of_an_exporter_is_what_a_new_one_would_render() {
    let (exporter, mut status) = (Exporter::default(), status());
    let accepted = "sessile_connections_accepted_total{listener=\"front\"}";
    let mut judge = |change: fn(&mut Status)| {
        change(&mut status);
        let page = parse(&exporter.render(&status));
        assert_eq!(page.samples, parse(&render(&status)).samples);
        page.samples.get(accepted).copied()
    };
    assert_eq!(judge(|_| {}), Some(9.0));
    assert_eq!(judge(|status| status.listeners[0].totals.accepted += 1), Some(10.0));
    // A listener that was removed and added again counts from 0.
    assert_eq!(judge(|status| status.listeners[0].totals.accepted = 0), Some(0.0));
    assert_eq!(judge(|status| status.pools[0].backends.insert(1, backend("between"))), Some(0.0));
    assert_eq!(judge(|status| status.descriptors = None), Some(0.0));
    assert_eq!(judge(|status| status.store = None), Some(0.0));
    assert_eq!(judge(|status| status.listeners.clear()), None);
}

#[test]
fn an_empty_process_has_a_page_too() {
    let page = parse(&render(&Status::default()));
    assert_eq!(page.samples["sessile_ready"], 0.0);
}

#[test]
fn a_backend_takes_half_of_what_every_bound_and_every_state_would_take() {
    let size = |backends: usize| {
        let mut status = status();
        status.pools[0].ejects = true;
        status.pools[0].backends = (0..backends).map(|index| backend(&format!("b{index:03}"))).collect();
        render(&status).len()
    };
    let each = (size(600) - size(100)) / 500;
    // Two histograms with 15 bounds each, and ten series more: 3.3 KiB.
    let page = render(&status());
    let of_b =
        |start: &str| page.lines().find(|line| line.starts_with(start) && line.contains("\"b\"")).unwrap().len() + 4;
    let histograms =
        ["connect_time", "duration"].map(|what| of_b(&format!("sessile_backend_{what}_seconds_bucket")) * 18);
    let others: usize = page
        .lines()
        .filter(|line| line.contains("backend=\"b\"") && !line.contains("_seconds_"))
        .map(|line| line.len() + 4)
        .sum();
    let whole = histograms.iter().sum::<usize>() + others + 2 * of_b("sessile_backend_leases");
    assert!(2 * each <= whole, "{each} of {whole} bytes");
}

#[test]
fn states_that_a_pool_cannot_have_are_not_shown() {
    let (mut status, has) = (status(), |page: &str, what: &str| page.contains(&format!("sessile_backend_{what}{{")));
    let page = render(&status);
    assert!(!has(&page, "ejected") && !has(&page, "damped") && has(&page, "up") && has(&page, "drain_seconds"));
    (status.pools[0].checks, status.pools[0].ejects) = (true, true);
    let page = render(&status);
    assert!(has(&page, "ejected") && has(&page, "damped"));
}

#[test]
fn pools_that_were_never_busy_are_left_out_where_the_configuration_says_so() {
    let mut status = status();
    let table = |name: &str, busy| status::StickTableStatus { name: name.into(), busy, ..Default::default() };
    status.stick_tables = vec![table("web", true), table("idle", false)];
    status.pools[0].busy = true;
    status.pools.push(PoolStatus { name: "idle".into(), backends: vec![backend("c")], ..PoolStatus::default() });
    let all = render(&status);
    assert!(["pool=\"idle\"", "stick_table=\"idle\"", "pool=\"web\""].iter().all(|part| all.contains(part)));
    status.busy_pools_only = true;
    let busy = render(&status);
    assert!(!busy.contains("=\"idle\"") && busy.contains("pool=\"web\"") && busy.contains("stick_table=\"web\""));
    status.pools[1].busy = true;
    assert!(render(&status).contains("pool=\"idle\""));
}

#[test]
fn five_hundred_backends_are_rendered_in_well_under_a_second() {
    let mut status = status();
    status.pools[0].backends = (0..500).map(|index| backend(&format!("backend-{index}"))).collect();
    let exporter = Exporter::default();
    for scrape in 0..3 {
        let start = std::time::Instant::now();
        let page = exporter.render(&status);
        println!("scrape {scrape}: {} bytes in {:?}", page.len(), start.elapsed());
        assert!(start.elapsed().as_secs_f64() < 1.0);
    }
}
