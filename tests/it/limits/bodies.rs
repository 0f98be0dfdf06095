//! `body_max`: by length before a backend hears of a request, and by what chunks and frames bring.

use std::net::TcpStream;

use super::{HTTP, limited, plain};
use crate::http2::client::Client;
use crate::routes::Asking;
use crate::support::backend::{listener, pool};
use crate::support::{Sessile, eventually, has};
use crate::terminate::backend::Recorder;
use crate::terminate::client::Talk;

#[test]
fn a_length_above_the_limit_is_413_and_its_backend_hears_nothing() {
    if !has("a_length_above_the_limit_is_413_and_its_backend_hears_nothing", "curl") {
        return;
    }
    let site = Recorder::named("x");
    let sessile = plain(&site, "", "", "[pool.limits]\nbody_max = \"1 KiB\"\n");
    for (number, asking) in Asking::plain(sessile.address("l")).iter().enumerate() {
        let post = |path: &str, size: usize| asking.with(&["--data", &"x".repeat(size)], path);
        let (fits, path) = (post("a.test/fits", 1_024), format!("/long{number}"));
        assert_eq!((fits.status, fits.body.starts_with("x ")), (200, true), "{}", fits.body);
        let answered = site.answered();
        let refused = post(&format!("a.test{path}"), 1_025);
        assert_eq!((refused.status, site.answered()), (413, answered), "{}", refused.body);
        assert!(refused.field("x-request-id").is_some(), "{}", refused.head);
        let (line, count) = limited(&sessile, &path, "body_too_large");
        assert_eq!(
            (&line["status"], &line["fault"], count),
            (&413.into(), &"limit".into(), number as f64 + 1.0),
            "{line}"
        );
        assert_eq!((&line["pool"], &line["backend"]), (&"p".into(), &serde_json::Value::Null), "{line}");
    }
    let text = "Expect: 100-continue\r\nContent-Length: 2000\r\n";
    let mut waits = Talk::new(TcpStream::connect(sessile.address("l")).unwrap());
    let answer = waits.get("/waits", text);
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")), "no 100 comes first");
}

/// Waits until the backend has so many bytes of the body, and no more.
fn has_come(site: &Recorder, connection: usize, count: usize) {
    eventually(&format!("{count} bytes of the body"), || {
        let seen = site.seen();
        let body = seen.get(connection)?.iter().filter(|byte| **byte == b'~').count();
        assert!(body <= count, "{body} bytes");
        (body == count).then_some(())
    });
}

#[test]
fn a_body_without_a_length_is_cut_where_it_announces_more_than_the_limit() {
    let site = Recorder::named("x");
    let sessile = plain(&site, "", "[listener.limits]\nbody_max = \"1 KiB\"\n", "");
    let piece = "~".repeat(1_000);
    let mut chunks = Talk::new(TcpStream::connect(sessile.address("l")).unwrap());
    chunks
        .send(format!("POST /chunks HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{piece}\r\n"));
    has_come(&site, 0, 1_000);
    // 24 bytes still fit.
    chunks.send(format!("18;x=\"y\"\r\n{}\r\n", "~".repeat(24)));
    has_come(&site, 0, 1_024);
    chunks.send("1\r\n");
    assert_eq!(chunks.response().unwrap().status, 413);
    assert_eq!(chunks.end().0, b"", "the connection ends");
    let (line, count) = limited(&sessile, "/chunks", "body_too_large");
    assert_eq!((&line["status"], &line["backend"], count), (&413.into(), &"b0".into(), 1.0), "{line}");

    let client = Client::plain(sessile.address("l"));
    let mut upload = client.begin(client.request("POST", "/frames", &[]), false).unwrap();
    upload.write(piece.as_bytes(), false).unwrap();
    has_come(&site, 1, 1_000);
    upload.write("~".repeat(25).as_bytes(), false).unwrap();
    assert_eq!(upload.reply().unwrap().status, 413);
    has_come(&site, 1, 1_000);
    assert_eq!(limited(&sessile, "/frames", "body_too_large").1, 2.0);
    assert_eq!(client.get("/", &[]).status, 200, "the connection stays");
    assert_eq!(site.answered(), 1, "no request that was cut was answered");
}

#[test]
fn the_nearest_limit_of_a_body_counts_and_off_is_one() {
    let site = Recorder::named("x");
    let own =
        |name: &str, limit: &str| pool(name, HTTP, &[site.address()]) + &format!("[pool.limits]\nbody_max = {limit}\n");
    let route = |name: &str| format!("[[listener.route]]\npath = \"/{name}\"\npool = \"{name}\"\n");
    let of_listener = format!("[listener.limits]\nbody_max = \"2 KiB\"\n{}{}", route("small"), route("any"));
    let text = "[limits]\nbody_max = \"3 KiB\"\n".to_owned()
        + &listener("wide", &of_listener)
        + &own("small", "\"1 KiB\"")
        + &own("any", "\"off\"")
        + &pool("wide", HTTP, &[site.address()]);
    let sessile = Sessile::start(&text);
    let client = Client::plain(sessile.address("l"));
    let post = |path: &str, size: usize| {
        let mut upload = client.begin(client.request("POST", path, &[]), false).unwrap();
        let _ = upload.write(&vec![b'x'; size], true);
        upload.reply().unwrap().status
    };
    for (path, size, status) in
        [("/small", 1_024, 200), ("/small", 1_025, 413), ("/", 2_048, 200), ("/", 2_049, 413), ("/any", 9_999, 200)]
    {
        assert_eq!(post(path, size), status, "{path} {size}");
    }
    let verdict = sessile.reload(&text.replace("\"3 KiB\"", "\"1 KiB\"").replace("\"2 KiB\"", "\"1 KiB\""));
    assert_eq!(verdict["changes"][0], "limits.body_max changed, takes effect at once", "{verdict}");
    assert_eq!(verdict["changes"][1], "listener \"l\": limits.body_max changed, takes effect at once", "{verdict}");
    assert_eq!(post("/", 1_025), 413);
}
