//! What a monitoring system makes of `/metrics`: a real Prometheus, promtool, the dashboard and the alert rules.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::support::backend::{Backend, pool};
use crate::support::monitor::{Prometheus, promtool};
use crate::support::{Sessile, eventually, has};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring")
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// Every query of the dashboard, with its variables filled in.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&text("sessile-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let all: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(all.len() > 30, "{}", all.len());
    let fill =
        |query: String| query.replace("$__rate_interval", "5s").replace("$instance", ".*").replace("$pool", ".*");
    all.into_iter().map(fill).collect()
}

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| ["sessile_", "process_"].iter().any(|start| word.starts_with(start))).collect()
}

#[test]
fn the_dashboard_and_the_rules_name_metrics_that_exist() {
    let known: BTreeSet<String> =
        sessile::metrics::catalog().into_values().flatten().map(|family| family.name).collect();
    let is_known = |name: &str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        known.contains(name) || family.is_some_and(|family| known.contains(family))
    };
    let shown = queries().join("\n");
    for (file, text) in
        [("dashboard", &shown), ("rules", &text("sessile-alerts.yaml")), ("test", &text("sessile-alerts.test.yaml"))]
    {
        let names = names(text);
        assert!(names.len() > 15, "{file}: {names:?}");
        let unknown: Vec<_> = names.into_iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn every_alert_is_tried_and_promtool_is_content_with_the_rules() {
    let rules = text("sessile-alerts.yaml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    let tried = text("sessile-alerts.test.yaml");
    for alert in &alerts {
        assert!(tried.contains(&format!("labels: '{{alertname=\"{alert}\"}}'")), "{alert} is not tried");
    }
    if !has("every_alert_is_tried_and_promtool_is_content_with_the_rules", "promtool") {
        return;
    }
    let said = promtool(&folder(), &["check", "rules", "sessile-alerts.yaml"], "");
    assert!(said.contains(&format!("{} rules found", alerts.len())), "{said}");
    promtool(&folder(), &["test", "rules", "sessile-alerts.test.yaml"], "");
}

/// A backend that replies 200 to every request, and 500 to one for `/fails`.
fn web() -> Backend {
    Backend::serving(|mut stream| {
        let mut unread = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece)?;
            if n == 0 {
                return Ok(());
            }
            unread.extend_from_slice(&piece[..n]);
            while let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = unread.drain(..end + 4).collect();
                let status = if head.starts_with(b"GET /fails ") { "500 No" } else { "200 OK" };
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok")?;
            }
        }
    })
}

/// One request with a cookie line, on a connection of its own; the status line.
fn get(address: SocketAddr, path: &str, cookie: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{cookie}\r\n").unwrap();
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    reply.lines().next().unwrap_or_default().to_owned()
}

/// Writes a certificate for `a.test` that ends after so many days.
fn certificate(folder: &Path, days: u64) {
    let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch;
    params.not_after = epoch + now + Duration::from_secs(days * 86_400);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
    fs::write(folder.join("a.pem"), pem).unwrap();
}

/// Requests with a learned cookie, and without TLS; TLS that ends here; a file of stick tables; a port for Prometheus.
fn config(files: &Path, learning: &Backend, web: &[SocketAddr]) -> String {
    let files = files.display();
    let learn = "http = true\nstick_table = \"1 KiB\"\ncookie = { mode = \"learn\", name = \"SID\" }";
    let checked = "[pool.check]\nkind = \"tcp\"\ninterval = \"50ms\"\nfall = 1\nrise = 1\n";
    format!(
        "stick_table_file = \"$DIR/stick-table\"\nstick_table_interval = \"1s\"\n\
         [admin]\nsocket = \"$DIR/admin.sock\"\nhttp = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
         [[listener]]\nname = \"learn\"\nbind = \"127.0.0.1:0\"\npool = \"learn\"\n\
         [[listener]]\nname = \"t\"\nbind = \"127.0.0.1:0\"\ntls = \"terminate\"\npool = \"web\"\n\
         [[listener.certificate]]\ncert = \"{files}/a.pem\"\nkey = \"{files}/a.pem\"\n{}{}",
        pool("web", "http = true", web).replace("[pool.check]\nkind = \"off\"\n", checked),
        pool("learn", learn, &[learning.address]),
    )
}

/// Sets a flag at its end, also where a test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The port that was said at the start.
fn port(sessile: &Sessile) -> SocketAddr {
    eventually("the port to be said", || {
        let said = sessile.said();
        let (_, after) = said.split_once("metrics and health on http://")?;
        after.split_once('"')?.0.parse().ok()
    })
}

#[test]
fn promtool_is_content_with_a_scrape_and_every_query_of_the_dashboard_has_data() {
    let test = "promtool_is_content_with_a_scrape_and_every_query_of_the_dashboard_has_data";
    if !has(test, "promtool") || !has(test, "prometheus") {
        return;
    }
    let (files, backends) = (tempfile::tempdir().unwrap(), [web(), web(), web()]);
    certificate(files.path(), 300);
    let addresses = [backends[1].address, backends[2].address];
    let sessile = Sessile::start(&config(files.path(), &backends[0], &addresses));
    let prometheus = Prometheus::scraping(port(&sessile), None);
    let (stop, [l, learn]) = (AtomicBool::new(false), ["l", "learn"].map(|name| sessile.address(name)));
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0_u64.. {
                if stop.load(SeqCst) {
                    return;
                }
                assert!(get(l, "/", "").starts_with("HTTP/1.1 200 "));
                get(l, "/fails", "");
                get(learn, "/", &format!("Cookie: SID=value-{}\r\n", n % 10));
                thread::sleep(Duration::from_millis(20));
            }
        });
        let _stop = Stop(&stop);
        for query in queries() {
            eventually(&format!("data of {query}"), || {
                prometheus.query(&query).iter().any(|(_, value)| !value.is_nan()).then_some(())
            });
        }
        // What the queries tell is true.
        let by_code = "sum by (code) (rate(sessile_pool_requests_total{pool=\"web\",by=\"backend\"}[5s])) > 0";
        let rates = eventually("the rates of both classes", || {
            let rates = prometheus.query(by_code);
            (rates.len() == 2).then_some(rates)
        });
        let rate = |code: &str| rates.iter().find(|(labels, _)| labels["code"] == code).map(|(_, rate)| *rate).unwrap();
        assert!((0.5..2.0).contains(&(rate("2xx") / rate("5xx"))), "{rates:?}");
        promtool(&folder(), &["check", "metrics"], &sessile.metrics());
    });
}

#[test]
fn rules_fire_when_a_backend_goes_down_a_table_is_full_and_a_certificate_ends_soon() {
    let test = "rules_fire_when_a_backend_goes_down_a_table_is_full_and_a_certificate_ends_soon";
    if !has(test, "prometheus") {
        return;
    }
    let (files, learning, stays, mut goes) = (tempfile::tempdir().unwrap(), web(), web(), Some(web()));
    certificate(files.path(), 300);
    let addresses = [goes.as_ref().unwrap().address, stays.address];
    let config = config(files.path(), &learning, &addresses);
    let sessile = Sessile::start(&config);
    // The same rules, without the time for which a condition has to hold.
    let rules = text("sessile-alerts.yaml");
    let at_once = rules.lines().map(|line| match line.trim().starts_with("for: ") {
        true => "        for: 0s\n".to_owned(),
        false => format!("{line}\n"),
    });
    let evaluated = "  - name: evaluated\n    rules: [{record: evaluated, expr: vector(1)}]\n";
    let prometheus = Prometheus::scraping(port(&sessile), Some(&(at_once.collect::<String>() + evaluated)));
    let fires = |alert: &str, labels: &str| {
        let query = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",{labels}}}");
        !prometheus.query(&query).is_empty()
    };
    let incidents = [
        ("SessileBackendDown", "pool=\"web\",backend=\"b0\""),
        ("SessileStickTableFull", "stick_table=\"learn\""),
        ("SessileCertificateEnds", "name=\"a.test\""),
    ];
    eventually("the rules to be evaluated", || {
        prometheus.query("count_over_time(evaluated[1m]) > 3").first().map(|_| ())
    });
    let quiet = |except: usize| incidents[except..].iter().all(|(alert, labels)| !fires(alert, labels));
    assert!(quiet(0), "all is well");

    goes.take();
    eventually("the alert of a backend", || fires(incidents[0].0, incidents[0].1).then_some(()));
    assert!(quiet(1) && !fires("SessilePoolDown", "pool=\"web\""), "the other one serves");

    let (learn, mut n) = (sessile.address("learn"), 0);
    eventually("the alert of a table", || {
        for _ in 0..100 {
            n += 1;
            get(learn, "/", &format!("Cookie: SID=value-{n}\r\n"));
        }
        fires(incidents[1].0, incidents[1].1).then_some(())
    });
    assert!(quiet(2));

    certificate(files.path(), 2);
    assert_eq!(sessile.reload(&config)["accepted"], true);
    eventually("the alert of a certificate", || fires(incidents[2].0, incidents[2].1).then_some(()));
    assert!(!fires("SessileCertificateEnded", "name=\"a.test\""));
}
