//! Where requests go: by host, path, method and field, one by one on kept connections and streams.

use std::net::TcpStream;

use super::Asking;
use crate::support::backend::pool;
use crate::support::program::output;
use crate::support::sessile::{command, run};
use crate::support::{PATIENCE, Sessile, has};
use crate::terminate::Front;
use crate::terminate::backend::Recorder;
use crate::terminate::client::Talk;

const HTTP: &str = "http = true\n";

/// Routes of three pools, for any listener.
const ROUTES: &str = "
[[listener.route]]
host = [\"shop.test\", \"*.shop.test\"]
pool = \"shop\"
[[listener.route]]
host = \"shop.test\"
path = [\"/api\", \"=/login\"]
pool = \"api\"
[[listener.route]]
path = \"/api\"
method = [\"POST\", \"PUT\"]
pool = \"api\"
[[listener.route]]
header = { X-Version = \"2\" }
pool = \"shop\"
";

/// Requests, as curl asks for them, and the pools that they go to.
const ASKED: [(&[&str], &str, &str); 15] = [
    (&[], "shop.test/", "shop"),
    (&[], "www.shop.test/api", "shop"),
    (&[], "SHOP.test/api", "api"),
    (&[], "shop.test./api/v1?x=/", "api"),
    (&[], "shop.test/apis", "shop"),
    (&[], "shop.test/login?next=/", "api"),
    (&[], "shop.test/login/", "shop"),
    (&[], "shop.test//api", "shop"),
    (&[], "other.test/api", "rest"),
    (&["--request", "POST"], "other.test/api/v1", "api"),
    (&["--data", "a body"], "other.test/api/v1", "api"),
    (&["--header", "x-version: 2"], "other.test/", "shop"),
    (&["--header", "X-Version: 3"], "other.test/", "rest"),
    (&["--header", "X-Version: 2", "--header", "X-Version: 2"], "other.test/", "rest"),
    (&[], "127.0.0.1/", "rest"),
];

fn pools(sites: &[Recorder; 3]) -> String {
    let [shop, api, rest] = sites.each_ref().map(|site| [site.address()]);
    pool("shop", HTTP, &shop) + &pool("api", HTTP, &api) + &pool("rest", HTTP, &rest)
}

fn plain(keys: &str, pools: &str) -> Sessile {
    Sessile::start(&format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n{keys}\n{pools}"))
}

#[test]
fn one_listener_in_the_clear_serves_many_hosts_and_paths() {
    if !has("one_listener_in_the_clear_serves_many_hosts_and_paths", "curl") {
        return;
    }
    let sites = ["shop", "api", "rest"].map(Recorder::named);
    let sessile = plain(&format!("pool = \"rest\"\n{ROUTES}"), &pools(&sites));
    for (asking, version) in Asking::plain(sessile.address("l")).iter().zip(["HTTP/1.1", "HTTP/2"]) {
        for (arguments, url, site) in ASKED {
            let got = asking.with(arguments, url);
            assert_eq!((got.status, &*got.version), (200, version), "{url}");
            assert!(got.body.starts_with(&format!("{site} ")), "{arguments:?} {url}: {}", got.body);
        }
    }
    let line = sessile.line("the request", |line| line["path"] == "/login" && line["host"] == "shop.test");
    assert_eq!((&line["route"], &line["pool"], &line["ended"]), (&2.into(), &"api".into(), &"done".into()), "{line}");
    let line = sessile.line("the request", |line| line["path"] == "/api" && line["host"] == "other.test");
    assert_eq!((&line["route"], &line["pool"]), (&serde_json::Value::Null, &"rest".into()), "{line}");
}

#[test]
fn where_tls_ends_requests_go_by_their_hosts_and_not_by_the_server_name() {
    if !has("where_tls_ends_requests_go_by_their_hosts_and_not_by_the_server_name", "curl") {
        return;
    }
    let sites = ["shop", "api", "rest"].map(Recorder::named);
    let named = "[[listener.route]]\nsni = \"shop.a.test\"\npool = \"shop\"\n";
    let asked = "[[listener.route]]\nhost = \"shop.a.test\"\npath = \"/api\"\npool = \"api\"\n";
    let policy = "client_certificate = { ca = \"$FILES/clients.pem\", required = true }\n";
    let partner = format!("[[listener.route]]\nsni = \"partner.a.test\"\npool = \"rest\"\n{policy}");
    let front = Front::with("", &format!("pool = \"rest\"\n{named}{asked}{partner}"), &pools(&sites));
    for asking in Asking::secure(&front) {
        for (url, host, status, site) in [
            ("a.test/", "a.test", 200, "rest"),
            ("a.test/", "shop.a.test", 200, "shop"),
            ("a.test/api/x", "shop.a.test:8443", 200, "api"),
            ("shop.a.test/api", "shop.a.test", 200, "api"),
            ("shop.a.test/api", "a.test", 200, "rest"),
            ("a.test/", "partner.a.test", 421, "421"),
            ("shop.a.test/", "partner.a.test.", 421, "421"),
        ] {
            let got = asking.with(&["--header", &format!("Host: {host}")], url);
            assert_eq!(got.status, status, "{url} {host}: {}", got.body);
            assert!(got.body.starts_with(&format!("{site} ")), "{url} {host}: {}", got.body);
        }
    }
}

#[test]
fn requests_of_one_kept_connection_go_to_different_pools() {
    let sites = ["shop", "api", "rest"].map(Recorder::named);
    let sessile = plain(&format!("pool = \"rest\"\n{ROUTES}"), &pools(&sites));
    let stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut talk = Talk::new(stream);
    for round in 0..3 {
        for (host, path, site) in [("shop.test", "/", "shop"), ("shop.test", "/api", "api"), ("x.test", "/", "rest")] {
            talk.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let text = talk.response().unwrap().text();
            // The connection to each backend is kept, too.
            assert!(text.starts_with(&format!("{site} 0 {round} ")), "{text}");
        }
    }
    // Two that come at once.
    talk.send("GET /api HTTP/1.1\r\nHost: shop.test\r\n\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let [first, second] = [talk.response().unwrap().text(), talk.response().unwrap().text()];
    assert!(first.starts_with("api ") && second.starts_with("shop "), "{first} {second}");
}

#[test]
fn a_request_that_no_route_takes_gets_404_and_its_line() {
    if !has("a_request_that_no_route_takes_gets_404_and_its_line", "curl") {
        return;
    }
    let sites = ["shop", "api", "rest"].map(Recorder::named);
    let pools = pools(&sites);
    let only_hosts = "[[listener.route]]\nhost = \"shop.test\"\npool = \"shop\"\n";
    let sessile = plain(only_hosts, &pools);
    for asking in Asking::plain(sessile.address("l")) {
        assert!(asking.get("shop.test/").body.starts_with("shop "));
        let got = asking.get("other.test/nowhere");
        assert_eq!((got.status, got.body.lines().next()), (404, Some("404 Not Found")));
        let id = got.field("x-request-id").unwrap().to_owned();
        let line = sessile.line("the request", |line| line["request"] == *id);
        assert_eq!((&line["ended"], &line["status"]), (&"no_route".into(), &404.into()), "{line}");
    }
}

#[test]
fn a_reload_changes_the_routes_of_requests_on_open_connections() {
    let sites = ["shop", "api", "rest"].map(Recorder::named);
    let keys = |path: &str| format!("pool = \"rest\"\n[[listener.route]]\npath = \"{path}\"\npool = \"api\"\n");
    let sessile = plain(&keys("/old"), &pools(&sites));
    let stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut talk = Talk::new(stream);
    assert!(talk.get("/old", "").text().starts_with("api "));
    let listener = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n{}\n", keys("/new"));
    let verdict = sessile.reload(&(listener + &pools(&sites)));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    let changes: Vec<_> = verdict["changes"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    assert_eq!(changes, ["route \"l/#1\": path changed, takes effect at once"]);
    assert!(talk.get("/old", "").text().starts_with("rest "));
    assert!(talk.get("/new", "").text().starts_with("api "));
}

#[test]
fn explain_names_the_route_that_a_request_takes() {
    let sites = ["shop", "api", "rest"].map(Recorder::named);
    let answers = "[[listener.route]]\nhost = \"old.test\"\nredirect = \"https://new.test{path}{query}\"\n\
                   [[listener.route]]\nhost = \"shop.test\"\nmethod = \"TRACE\"\nrespond = { status = 403 }\n";
    let sessile = plain(&format!("pool = \"rest\"\n{ROUTES}{answers}"), &pools(&sites));
    let file = sessile.file().display().to_string();
    let socket = sessile.admin().display().to_string();
    let places = [vec!["--live", "--socket", &socket], vec!["--config", &file]];
    let explain = |more: &[&str]| {
        places.each_ref().map(|place| {
            let said = run(&[&["explain", "--json", "--client", "127.0.0.1"][..], place, more].concat());
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|_| panic!("{said:?}"))
        })
    };
    for (more, route, pool, answer) in [
        (&["--host", "shop.test"][..], Some(1), Some("shop"), None),
        (&["--host", "shop.test", "--path", "/api/x"], Some(2), Some("api"), None),
        (&["--host", "x.test", "--path", "/api", "--method", "POST"], Some(3), Some("api"), None),
        (&["--host", "x.test", "--header", "X-Version=2"], Some(4), Some("shop"), None),
        (&["--host", "x.test", "--header", "X-Version: 3"], None, Some("rest"), None),
        (&["--host", "old.test", "--path", "/a?b"], Some(5), None, Some("302 https://new.test/a?b")),
        (&["--host", "shop.test", "--method", "TRACE"], Some(6), None, Some("403")),
    ] {
        for report in explain(more) {
            let text = |name: &str| report[name].as_str();
            assert_eq!((report["route"].as_u64(), text("pool"), text("answer")), (route, pool, answer), "{report}");
        }
    }
    let asked = ["--client", "127.0.0.1", "--host", "old.test", "--path", "/a"];
    let text = output(&mut command(&[&["explain", "--config", &file][..], &asked].concat()));
    assert!(text.contains("at listener l: route #5 answers 302 https://new.test/a\n"), "{text}");
}
