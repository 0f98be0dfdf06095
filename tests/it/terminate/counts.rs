//! Requests and moves of clients as `/metrics` counts them: by listener, by pool, by the side that replied, with their times.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::backend::Recorder;
use crate::support::backend::{listener, pool};
use crate::support::{Sessile, eventually};

/// Sends bytes on a connection of its own and returns the status line of the reply.
fn exchange(sessile: &Sessile, bytes: &str) -> String {
    let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    reply.lines().next().unwrap_or_default().to_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
}

/// Replies at once, after 300 ms, with the status in the path, or with half of a response.
fn application() -> Recorder {
    Recorder::answering("b", |head| {
        let path = head.split(' ').nth(1).unwrap();
        match path {
            "/slow" => thread::sleep(Duration::from_millis(300)),
            "/half" => return Some(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf".to_vec()),
            _ => {}
        }
        let status = path.strip_prefix("/status/").unwrap_or("200");
        Some(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes())
    })
}

#[test]
fn requests_are_counted_by_what_their_client_got_with_or_without_a_log() {
    for log in ["", "[log]\nconnections = false\n"] {
        let application = application();
        let config = format!("{log}{}{}", listener("p", ""), pool("p", "http = true", &[application.address()]));
        let sessile = Sessile::start(&config);
        for path in ["/", "/slow", "/status/304", "/status/404", "/status/500", "/half"] {
            exchange(&sessile, &get(path));
        }
        assert!(exchange(&sessile, "GET / HTTP/1.1\r\nHost a\r\n\r\n").contains(" 400 "), "no header");
        drop(application);
        assert!(exchange(&sessile, &get("/")).contains(" 503 "), "nothing listens any more");

        let of_pool = |code: &str, by: &str| {
            sessile.metric(&format!("sessile_pool_requests_total{{pool=\"p\",code=\"{code}\",by=\"{by}\"}}"))
        };
        eventually("all requests to be counted", || (sessile.sum("sessile_requests_total", &[]) == 8.0).then_some(()));
        let backend = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| of_pool(code, "backend"));
        assert_eq!((backend, log), ([0.0, 2.0, 1.0, 1.0, 1.0], log));
        assert_eq!(["none", "4xx", "5xx"].map(|code| of_pool(code, "sessile")), [1.0, 0.0, 1.0], "cut, and no backend");
        let of_listener = |code| sessile.metric(&format!("sessile_requests_total{{listener=\"l\",code=\"{code}\"}}"));
        assert_eq!(["none", "1xx", "2xx", "3xx", "4xx", "5xx"].map(of_listener), [1.0, 0.0, 2.0, 1.0, 2.0, 2.0]);

        // One request of five took 300 ms, nearly all of them until the first byte.
        for family in ["sessile_pool_request_duration_seconds", "sessile_pool_first_byte_seconds"] {
            let value = |what: &str| sessile.metric(&format!("{family}_{what}"));
            assert_eq!(value("count{pool=\"p\"}"), 5.0, "{family}");
            assert!(value("sum{pool=\"p\"}") >= 0.3 && value("sum{pool=\"p\"}") < 3.0, "{family}");
            assert!(value("bucket{pool=\"p\",le=\"0.1\"}") <= 4.0, "{family}");
            assert_eq!(value("bucket{pool=\"p\",le=\"10\"}"), 5.0, "{family}");
        }
        assert_eq!(sessile.metric("sessile_pool_connect_time_seconds_count{pool=\"p\"}"), 6.0);
        let requests = sessile.status()["pools"][0]["requests"].clone();
        assert_eq!(requests["responses"], serde_json::json!({ "2xx": 2, "3xx": 1, "4xx": 1, "5xx": 1 }));
        assert!(requests["duration_us_mean"].as_u64() >= requests["first_byte_us_mean"].as_u64(), "{requests}");
    }
}

#[test]
fn a_request_that_comes_with_others_and_over_kept_connections_has_its_own_time() {
    let application = Recorder::answering("b", |head| {
        if head.starts_with("GET /slow ") {
            thread::sleep(Duration::from_millis(300));
        }
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "http = true", &[application.address()])));
    let keeps = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    exchange(&sessile, &(keeps("/slow") + &keeps("/") + &get("/")));
    let value = |series: &str| sessile.metric(series);
    eventually("three requests", || (value("sessile_pool_first_byte_seconds_count{pool=\"p\"}") == 3.0).then_some(()));
    let fast = value("sessile_pool_request_duration_seconds_bucket{pool=\"p\",le=\"0.25\"}");
    assert_eq!(fast, 2.0, "the wait for the slow one is not theirs");
    assert_eq!(value("sessile_pool_requests_reused_total{pool=\"p\"}"), 2.0);
}

#[test]
fn a_move_is_counted_by_the_backend_that_the_client_had() {
    let names = ["b0", "b1", "b2"].map(crate::support::backend::Backend::named);
    let addresses = names.each_ref().map(|backend| backend.address);
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &addresses)));
    let ask = |host: u8| {
        let front = sessile.address("l");
        let home = crate::support::load_support::Client::connect_from([127, 6, 0, host].into(), front).ask("x");
        home.split(' ').next().unwrap().to_owned()
    };
    let homes: Vec<_> = (1..=60).map(ask).collect();
    let series = |from: &str, cause: &str| {
        sessile.metric(&format!("sessile_sticky_breaks_total{{pool=\"p\",from=\"{from}\",cause=\"{cause}\"}}"))
    };
    let page = sessile.metrics();
    for from in ["b0", "b1", "b2"] {
        for cause in ["down", "drain"] {
            let line = format!("sessile_sticky_breaks_total{{pool=\"p\",from=\"{from}\",cause=\"{cause}\"}} 0\n");
            assert!(page.contains(&line), "there before it moves: {line}");
        }
    }
    let [gone, others @ ..] = names;
    drop(gone);
    let of_b0 = homes.iter().filter(|home| *home == "b0").count();
    let now: Vec<_> = (1..=60).map(ask).collect();
    assert!(of_b0 > 5 && now.iter().zip(&homes).all(|(now, before)| (now == before) == (before != "b0")), "{now:?}");
    eventually("the moves to be counted", || (series("b0", "down") == of_b0 as f64).then_some(()));
    assert_eq!((series("b1", "down"), series("b2", "down")), (0.0, 0.0));
    // The same clients again: each has the backend that it had.
    assert_eq!((1..=60).map(ask).collect::<Vec<_>>(), now);
    assert_eq!(sessile.sum("sessile_sticky_breaks_total", &[]), of_b0 as f64);

    // A backend that leaves the file: its clients are counted under the name of all that the file has not.
    let of_b1 = now.iter().filter(|home| *home == "b1").count();
    let last = listener("p", "") + &pool("p", "", &addresses).replace("name = \"b1\"", "name = \"z1\"");
    assert_eq!(sessile.reload(&last)["accepted"], true);
    (1..=60).for_each(|host| drop(ask(host)));
    eventually("removed clients to be counted", || (series("(other)", "removed") == of_b1 as f64).then_some(()));
    assert_eq!(sessile.sum("sessile_sticky_breaks_total", &["from=\"b1\""]), 0.0, "no series of it is left");
    drop(others);
}
