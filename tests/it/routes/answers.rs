//! Answers of routes: redirects, contents, denials; what keeps the connection, and what the log says.

use std::net::TcpStream;

use super::Asking;
use crate::support::backend::pool;
use crate::support::{PATIENCE, Sessile, has};
use crate::terminate::Front;
use crate::terminate::backend::Recorder;
use crate::terminate::client::Talk;

const ANSWERS: &str = "
[[listener.route]]
path = \"/\"
redirect = \"https\"
[[listener.route]]
path = \"=/health\"
respond = { status = 200, body = \"fine\\n\" }
[[listener.route]]
path = \"/moved\"
redirect = { to = \"{scheme}://www.{host}/new{path}{query}\", status = 301 }
[[listener.route]]
path = \"/here\"
redirect = \"/there{path}\"
[[listener.route]]
path = \"=/empty\"
respond = { status = 204, headers = { X-Own = \"a b\" } }
[[listener.route]]
path = \"/api\"
source = \"127.0.0.0/8\"
respond = { status = 403, body = \"denied\" }
[[listener.route]]
path = \"/api\"
pool = \"p\"
";

fn text(keys: &str, site: &Recorder) -> String {
    let listener = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n{keys}\n");
    listener + &pool("p", "http = true\n", &[site.address()])
}

fn start(keys: &str, site: &Recorder) -> Sessile {
    Sessile::start(&text(keys, site))
}

fn connect(sessile: &Sessile) -> Talk<TcpStream> {
    let stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Talk::new(stream)
}

#[test]
fn redirects_and_contents_are_those_of_the_configuration() {
    if !has("redirects_and_contents_are_those_of_the_configuration", "curl") {
        return;
    }
    let site = Recorder::named("p");
    let sessile = start(ANSWERS, &site);
    for asking in Asking::plain(sessile.address("l")) {
        for (url, status, location, body) in [
            ("a.test:8080/x?y=1", 308, Some("https://a.test/x?y=1"), "308 Permanent Redirect\n"),
            (
                "a.test//evil.test/%0d%0aX:y",
                308,
                Some("https://a.test//evil.test/%0d%0aX:y"),
                "308 Permanent Redirect\n",
            ),
            ("[::1]/", 308, Some("https://[::1]/"), "308 Permanent Redirect\n"),
            ("a.test/moved/a?b", 301, Some("http://www.a.test/new/moved/a?b"), "301 Moved Permanently\n"),
            ("a.test/here", 302, Some("/there/here"), "302 Found\n"),
            ("a.test/health", 200, None, "fine\n"),
            ("a.test/empty", 204, None, ""),
            ("a.test/api/x", 403, None, "denied"),
        ] {
            let got = asking.get(url);
            assert_eq!((got.status, got.field("location"), &*got.body), (status, location, body), "{url}");
            assert_eq!(got.field("x-own"), (status == 204).then_some("a b"));
            assert_eq!(got.field("connection"), None, "{url}");
            let length = (status != 204).then(|| body.len().to_string());
            assert_eq!(got.field("content-length"), length.as_deref(), "{url}");
            let id = got.field("x-request-id").unwrap().to_owned();
            let line = sessile.line("the request", |line| line["request"] == *id);
            let said = (&line["ended"], &line["fault"], &line["status"], line["route"].is_u64());
            assert_eq!(said, (&"answered".into(), &"none".into(), &status.into(), true), "{line}");
            let head = asking.with(&["--head"], url);
            assert_eq!((head.status, head.field("location"), &*head.body), (status, location, ""), "{url}");
            assert_eq!(head.field("content-length"), length.as_deref(), "{url}");
        }
        let posted = asking.with(&["--data", "a body"], "a.test/x");
        assert_eq!((posted.status, posted.field("location")), (308, Some("https://a.test/x")));
    }
    assert_eq!(site.answered(), 0);
}

#[test]
fn a_connection_is_kept_behind_an_answer_unless_a_body_follows() {
    let site = Recorder::named("p");
    let routes = ANSWERS.replace("127.0.0.0/8", "192.0.2.0/24");
    let sessile = start(&routes, &site);
    let mut talk = connect(&sessile);
    for _ in 0..3 {
        assert_eq!(talk.get("/health", "").text(), "fine\n");
        assert_eq!(talk.get("/x", "").status, 308);
        assert!(talk.get("/api", "").text().starts_with("p 0 "), "a request between goes to the backend");
        talk.send("HEAD /health HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(talk.response_to("HEAD").unwrap().field("content-length"), Some("5"));
    }
    // Two at once.
    talk.send("GET /health HTTP/1.1\r\nHost: a.test\r\n\r\nGET /empty HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(talk.response().unwrap().status, 200);
    assert_eq!(talk.response().unwrap().status, 204);
    talk.send("POST /health HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nGET ");
    let last = talk.response().unwrap();
    assert_eq!((last.status, last.field("connection")), (200, Some("close")));
    assert_eq!(talk.end().0, b"");
    let mut old = connect(&sessile);
    old.send("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(old.response().unwrap().field("connection"), Some("close"));
    // A Location needs a site.
    let mut nameless = connect(&sessile);
    nameless.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(nameless.response().unwrap().status, 400);
    let id = |line: &serde_json::Value| line["refused"] == "no_host" && line["status"] == 400;
    sessile.line("the refusal", id);
}

#[test]
fn no_bytes_of_a_request_become_another_line_of_the_answer() {
    let site = Recorder::named("p");
    let sessile = start(ANSWERS, &site);
    for request in [
        "GET /x\r\nX-Evil: y HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /x\rX-Evil: y HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\rX-Evil: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test/evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@evil.test\r\n\r\n",
        "GET /\u{e4} HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        let mut talk = connect(&sessile);
        talk.send(request);
        let response = talk.response().unwrap();
        assert_eq!((response.status, response.field("x-evil"), response.field("location")), (400, None, None));
    }
}

#[test]
fn where_tls_ends_a_server_name_can_be_redirected() {
    if !has("where_tls_ends_a_server_name_can_be_redirected", "curl") {
        return;
    }
    let site = Recorder::named("p");
    let route = "[[listener.route]]\nsni = \"old.a.test\"\nredirect = \"{scheme}://a.test{path}\"\n";
    let pools = pool("p", "http = true\n", &[site.address()]);
    let front = Front::with("", &format!("pool = \"p\"\n{route}"), &pools);
    for asking in Asking::secure(&front) {
        let got = asking.get("old.a.test/x");
        assert_eq!((got.status, got.field("location")), (302, Some("https://a.test/x")));
        assert!(asking.get("a.test/x").body.starts_with("p "));
    }
}

#[test]
fn a_file_is_an_answer_and_read_again_by_a_reload() {
    if !has("a_file_is_an_answer_and_read_again_by_a_reload", "curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("robots.json");
    std::fs::write(&file, "{\"a\": 1}").unwrap();
    let keys = format!(
        "pool = \"p\"\n[[listener.route]]\npath = \"=/robots\"\n\
         respond = {{ status = 200, body_file = \"{}\", headers = {{ Cache-Control = \"max-age=60\" }} }}\n",
        file.display()
    );
    let site = Recorder::named("p");
    let sessile = start(&keys, &site);
    let asking = Asking::plain(sessile.address("l"));
    for asking in &asking {
        let got = asking.get("a.test/robots");
        assert_eq!((got.status, &*got.body), (200, "{\"a\": 1}"));
        assert_eq!(got.field("content-type"), Some("application/json"));
        assert_eq!(got.field("cache-control"), Some("max-age=60"));
    }
    std::fs::write(&file, "{}").unwrap();
    let verdict = sessile.reload(&text(&keys, &site));
    assert_eq!(verdict["changes"][0], format!("file \"{}\" changed", file.display()), "{verdict}");
    assert_eq!(asking[0].get("a.test/robots").body, "{}");
    std::fs::remove_file(&file).unwrap();
    let verdict = sessile.reload(&text(&keys, &site));
    assert_eq!(verdict["accepted"], false, "{verdict}");
    let problem = verdict["problems"][0].as_str().unwrap();
    assert!(problem.contains("route #1: respond: body_file") && problem.contains("No such file"), "{problem}");
    assert_eq!(asking[1].get("a.test/robots").body, "{}", "what is in force stays");
}
