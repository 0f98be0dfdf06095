//! Widely used programs as clients: curl, nghttp, h2load, Node, Python's httpx, Go's net/http and Chromium.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::site::{Site, pattern, verdict};
use super::{HTTP, INSERT, figure, plain, request_lines};
use crate::support::chromium::Chromium;
use crate::support::go::GoProgram;
use crate::support::program::{find, output};
use crate::support::{Sessile, eventually, has, skip};
use crate::terminate::Front;
use crate::terminate::programs::{base, curl};

/// Path of a file in the folder `scripts`.
fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/it/http2/scripts", name].iter().collect()
}

/// What a script says of itself, as JSON.
fn said(command: &mut Command) -> Value {
    let text = output(command);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn curl_sends_and_gets_bodies_of_every_size() {
    let test = "curl_sends_and_gets_bodies_of_every_size";
    if !has(test, "curl") {
        return;
    }
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let clear = plain("", HTTP, &[site.address()]);
    let dir = tempfile::tempdir().unwrap();
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    let ways = [("--http2", base(&front)), ("--http2-prior-knowledge", format!("http://{}", clear.address("l")))];
    for size in [0, 16 << 10, 5 << 20] {
        let whole = pattern(size);
        std::fs::write(&up, &whole).unwrap();
        let data = format!("@{}", up.display());
        for (way, base) in &ways {
            let run = |arguments: &[&str], path: &str| {
                let mut curl = curl(&front);
                curl.args([way, "--output"]).arg(&down).args(["--write-out", "%{http_version} %{http_code}"]);
                let said = output(curl.args(arguments).arg(format!("{base}{path}")));
                assert_eq!(said, "2 200", "{way} {arguments:?} {path}");
                std::fs::read(&down).unwrap_or_default()
            };
            for framing in ["length", "chunked", "close"] {
                assert!(run(&[], &format!("/down/{framing}/{size}")) == whole, "{way} {framing} {size}");
            }
            let head = run(&["--head"], &format!("/down/length/{size}"));
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with("HTTP/2 200") && head.contains(&format!("content-length: {size}\r\n")), "{head}");
            for arguments in [
                &["--data-binary", &data][..],
                &["--upload-file", up.to_str().unwrap()],
                &["--data-binary", &data, "--header", "Expect: 100-continue"],
            ] {
                let text = run(arguments, "/up");
                assert!(text.starts_with(verdict(&whole).as_bytes()), "{way} {arguments:?} {size}");
            }
        }
    }
    // The same port without HTTP/2.
    let said = output(curl(&front).args(["--http1.1", "--write-out", " %{http_version}"]).arg(base(&front)));
    assert!(said.ends_with(" 1.1"), "{said}");
}

#[test]
fn curl_gets_sixty_pages_at_once_over_one_connection() {
    let test = "curl_gets_sixty_pages_at_once_over_one_connection";
    if !has(test, "curl") {
        return;
    }
    let site = Site::named("x");
    let front = Front::start("", INSERT, &[site.address()]);
    let mut curl = curl(&front);
    curl.args(["--http2", "--parallel", "--parallel-max", "60", "--write-out", "%{http_version} %{http_code}\n"]);
    for n in 0..60 {
        curl.args(["--output", "/dev/null"]).arg(format!("{}/{n}", base(&front)));
    }
    let said = output(&mut curl);
    assert_eq!(said.lines().filter(|line| *line == "2 200").count(), 60, "{said}");
    let lines = request_lines(&front.sessile, 60);
    let ids = super::site::counts(lines.iter().map(|line| line["id"].as_u64()));
    assert!(ids.len() <= 3, "{ids:?}");
}

#[test]
fn nghttp_asks_uploads_and_reads_trailers() {
    let test = "nghttp_asks_uploads_and_reads_trailers";
    let Some(nghttp) = find(test, "nghttp") else { return };
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let clear = plain("", HTTP, &[site.address()]);
    let dir = tempfile::tempdir().unwrap();
    let up = dir.path().join("up");
    std::fs::write(&up, pattern(1 << 20)).unwrap();
    for base in [format!("https://{}", front.address()), format!("http://{}", clear.address("l"))] {
        let run = |arguments: &[&str], path: &str| {
            output(
                Command::new(&nghttp)
                    .args(["--no-verify-peer", "--timeout=10"])
                    .args(arguments)
                    .arg(base.clone() + path),
            )
        };
        let said = run(&["--verbose", "--multiply=30"], "/hops");
        assert_eq!(said.matches(":status: 200").count(), 30, "{said}");
        assert!(!said.contains("RST_STREAM") && !said.contains("INTERNAL_ERROR"), "{said}");
        assert!(said.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL") || said.contains("[UNKNOWN(0x08):1]"), "{said}");
        let said = run(&["--verbose"], "/trailers");
        assert!(said.contains("x-sum: 7"), "{said}");
        let said = run(&["--verbose"], "/early");
        assert!(said.contains(":status: 103") && said.contains("link: </style.css>"), "{said}");
        let file = format!("--data={}", up.display());
        for more in [&["--header=x-a: b"][..], &["--expect-continue"], &["--no-content-length", "--trailer=x-sum: 7"]] {
            let said = run(&[&[file.as_str()], more].concat(), "/up");
            assert!(said.contains(&verdict(&pattern(1 << 20))), "{more:?}: {said}");
        }
    }
}

#[test]
fn h2load_loses_no_request() {
    let test = "h2load_loses_no_request";
    let Some(h2load) = find(test, "h2load") else { return };
    let sites = ["x", "y", "z"].map(Site::named);
    let front = Front::start("", INSERT, &sites.each_ref().map(Site::address));
    let run = |arguments: &[&str], path: &str| {
        output(Command::new(&h2load).args(arguments).arg(format!("https://{}{path}", front.address())))
    };
    for (arguments, path, count) in [
        (&["-n", "2000", "-c", "16", "-m", "8"][..], "/", 2_000),
        (&["-n", "400", "-c", "8", "-m", "1"], "/down/chunked/3000", 400),
        (&["-n", "80", "-c", "4", "-m", "10"], "/down/length/200000", 80),
    ] {
        let said = run(arguments, path);
        assert!(said.contains(&format!("{count} succeeded, 0 failed, 0 errored, 0 timeout")), "{arguments:?}: {said}");
        assert!(said.contains(&format!("status codes: {count} 2xx")), "{said}");
    }
    assert_eq!(figure(&front.sessile, "sessile_http2_streams_total"), 2_480.0);
    assert_eq!(figure(&front.sessile, "sessile_http2_local_resets_total"), 0.0);
}

#[test]
fn node_asks_uploads_and_reads_what_comes_between() {
    let test = "node_asks_uploads_and_reads_what_comes_between";
    let Some(node) = find(test, "node") else { return };
    let site = Site::named("x");
    let front = Front::start("", INSERT, &[site.address()]);
    let mut command = Command::new(node);
    command.arg(script("asks.mjs")).arg(base(&front)).arg(front.file("ca.pem"));
    let seen = said(&mut command);
    assert_eq!(seen["statuses"], serde_json::json!(vec![200; 40]), "{seen}");
    assert_eq!(seen["cookies"], 1, "{seen}");
    assert_eq!(seen["upload"].as_str().map(|text| text.starts_with("1048576 ")), Some(true), "{seen}");
    assert_eq!((&seen["trailers"], &seen["early"], &seen["head"]), (&"7".into(), &103.into(), &"5".into()), "{seen}");
    assert_eq!((&seen["down"], &seen["cut"], &seen["after"]), (&5_000_000.into(), &true.into(), &200.into()), "{seen}");
    assert_eq!(site.upload().trailers.iter().map(|line| line.to_ascii_lowercase()).collect::<Vec<_>>(), ["x-sum: 9"]);
}

#[test]
fn node_goes_on_over_new_connections_and_sees_no_error() {
    let test = "node_goes_on_over_new_connections_and_sees_no_error";
    let Some(node) = find(test, "node") else { return };
    let site = Site::named("x");
    let front = Front::start("[limits]\nrequests_max = 20\n", HTTP, &[site.address()]);
    let mut command = Command::new(node);
    command.arg(script("goes_on.mjs")).arg(base(&front)).arg(front.file("ca.pem")).arg("400");
    let seen = said(&mut command);
    assert_eq!((&seen["served"], &seen["errors"]), (&400.into(), &serde_json::json!([])), "{seen}");
    assert!(seen["connections"].as_u64() >= Some(10), "{seen}");
    assert_eq!(site.requests(), 400, "none twice");
}

#[test]
fn httpx_asks_a_hundred_times_at_once() {
    let test = "httpx_asks_a_hundred_times_at_once";
    let python = PathBuf::from("/usr/bin/python3");
    let there = Command::new(&python).args(["-c", "import httpx, h2"]).output();
    if !there.is_ok_and(|answer| answer.status.success()) {
        return skip(test, "Python with httpx and h2 is not installed");
    }
    let site = Site::named("x");
    let front = Front::start("", INSERT, &[site.address()]);
    let clear: Sessile = plain("", HTTP, &[site.address()]);
    for base in [format!("https://{}", front.address()), format!("http://{}", clear.address("l"))] {
        let mut command = Command::new(&python);
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script("asks.py")).arg(base).arg(front.file("ca.pem"));
        let seen = said(&mut command);
        assert_eq!(
            (&seen["statuses"], &seen["versions"]),
            (&serde_json::json!({"200": 100}), &serde_json::json!(["HTTP/2"]))
        );
        assert_eq!(seen["upload"].as_str().map(|text| text.starts_with("1048576 ")), Some(true), "{seen}");
        assert_eq!(seen["down"], 1_000_000, "{seen}");
    }
}

#[test]
fn go_asks_uploads_and_downloads_by_both_versions() {
    let test = "go_asks_uploads_and_downloads_by_both_versions";
    let Some(go) = GoProgram::build(test, &script("asks.go"), None) else { return };
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let seen = said(go.command().arg(base(&front)).arg(front.file("ca.pem")));
    for (index, version) in ["HTTP/1.1", "HTTP/2.0"].into_iter().enumerate() {
        let seen = &seen[index];
        assert_eq!((&seen["versions"][version], &seen["statuses"]["200"]), (&40.into(), &40.into()), "{seen}");
        let is_whole = |text: &Value, body: &[u8]| text.as_str().is_some_and(|text| text.starts_with(&verdict(body)));
        for way in ["length", "chunked", "continue"] {
            assert!(is_whole(&seen["uploads"][way], &vec![7; 5 << 20]), "{version} {way}: {}", seen["uploads"]);
        }
        for way in ["length", "chunked", "close"] {
            assert!(is_whole(&seen["downs"][way], &pattern(5_000_000)), "{version} {way}: {}", seen["downs"]);
        }
        assert!(is_whole(&seen["given"], b"some"), "{seen}");
        assert!(seen["given"].as_str().is_some_and(|text| text.to_ascii_lowercase().ends_with("x-sum: 9")), "{seen}");
        assert_eq!(seen["trailer"], "7", "{version}");
    }
}

#[test]
fn chromium_loads_a_page_with_twenty_parts_from_one_backend() {
    let test = "chromium_loads_a_page_with_twenty_parts_from_one_backend";
    let Some(chromium) = find(test, "chromium") else { return };
    let page = |name: &'static str| {
        crate::terminate::backend::Recorder::answering(name, move |head| {
            let parts: String = (0..20).map(|n| format!("<img src=/part/{n}>")).collect();
            let body = if head.starts_with("GET /page ") { parts } else { name.to_owned() };
            let fields = format!("Content-Type: text/html\r\nContent-Length: {}", body.len());
            Some(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}").into_bytes())
        })
    };
    let pages = ["x", "y", "z"].map(page);
    let front = Front::start("", INSERT, &pages.each_ref().map(crate::terminate::backend::Recorder::address));
    let address = base(&front) + "/page";
    let arguments = ["--ignore-certificate-errors".to_owned(), address];
    let _chromium = Chromium::start(&chromium, "MAP a.test 127.0.0.1, MAP * ~NOTFOUND", &arguments);
    let parts = || {
        let lines = front.requests();
        lines.into_iter().filter(|line| line["path"].as_str().is_some_and(|path| path.starts_with("/part/")))
    };
    eventually("all parts of the page", || (parts().count() >= 20).then_some(()));
    let backends = super::site::counts(parts().map(|line| line["backend"].to_string()));
    assert_eq!(backends.len(), 1, "{backends:?}");
    assert!(figure(&front.sessile, "sessile_http2_streams_total") >= 21.0);
}
