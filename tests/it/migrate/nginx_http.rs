//! `nginx-http`: a redirect, clients kept by their network, the headers of the site, WebSockets, a page without
//! backends.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tokio_tungstenite::tungstenite::{self, Message};

use super::backend::Web;
use super::client::{Answer, ask, connect_from, tls};
use super::{Proxy, Site};
use crate::support::{eventually, has};

const FILE: &str = "nginx-http";
const PLAIN: &str = "127.0.0.1:33530";
const SECURE: &str = "127.0.0.1:33531";
const BACKENDS: [(&str, &str); 2] = [("app1", "10.0.0.1:8080"), ("app2", "10.0.0.2:8080")];
const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

struct Stage {
    proxies: Vec<Proxy>,
    site: Site,
    backends: Vec<Web>,
}

impl Stage {
    fn start(test: &str) -> Option<Self> {
        if !has(test, "curl") {
            return None;
        }
        let site = Site::new();
        let backends = Self::backends(&site);
        let proxies = site.both(test, FILE, |text| {
            // Requests of one client are many here, and a password is none.
            let text = text.replace("rate=10r/s", "rate=1000r/s").replace("burst=20;", "burst=1000 nodelay;");
            let text = text.replace("request_rate = \"10/s\"\nrequest_burst = 20", "request_rate = \"1000/s\"");
            text.replace("auth_basic x; auth_basic_user_file x;", "")
        });
        Some(Self { proxies, site, backends })
    }

    fn backends(site: &Site) -> Vec<Web> {
        BACKENDS.iter().map(|(name, written)| Web::plain(name, site.backend(written))).collect()
    }

    fn get(&self, proxy: &Proxy, arguments: &[&str], path: &str) -> Answer {
        ask(&self.site, proxy.at(SECURE), arguments, &format!("https://www.example.org{path}"))
    }
}

#[test]
fn plain_http_is_redirected_and_an_internal_page_is_not_served() {
    let Some(stage) = Stage::start("plain_http_is_redirected_and_an_internal_page_is_not_served") else { return };
    for proxy in &stage.proxies {
        for url in ["http://www.example.org/", "http://www.example.org/a/b?c=d&e"] {
            let got = ask(&stage.site, proxy.at(PLAIN), &[], url);
            let location = url.replacen("http:", "https:", 1);
            assert_eq!((got.status, got.field("location")), (301, Some(&*location)), "{}", proxy.name);
        }
        assert_eq!(stage.get(proxy, &[], "/sorry.html").status, 404, "{}", proxy.name);
    }
}

#[test]
fn backends_get_the_fields_of_the_site_and_clients_its_policy() {
    let Some(stage) = Stage::start("backends_get_the_fields_of_the_site_and_clients_its_policy") else { return };
    for proxy in &stage.proxies {
        for version in VERSIONS {
            let got = stage.get(proxy, &[version, "--interface", "127.0.6.7"], "/shop?x=y");
            assert_eq!(got.field("strict-transport-security"), Some("max-age=31536000"), "{}", proxy.name);
            assert_eq!(got.seen("host"), Some("www.example.org"), "{}", proxy.name);
            for field in ["x-real-ip", "x-forwarded-for"] {
                assert_eq!(got.seen(field), Some("127.0.6.7"), "{}: {field}", proxy.name);
            }
            assert!(got.body.contains("\nGET /shop?x=y HTTP/1.1\r\n"), "{}: {got:?}", proxy.name);
        }
        // What a client claims is one address of several there, and gone here.
        let claims = ["--header", "X-Forwarded-For: 192.0.2.1", "--header", "X-Real-IP: 192.0.2.1"];
        let got = stage.get(proxy, &claims, "/");
        let forwarded = if proxy.is_ours() { "127.0.0.1" } else { "192.0.2.1, 127.0.0.1" };
        assert_eq!((got.seen("x-real-ip"), got.seen("x-forwarded-for")), (Some("127.0.0.1"), Some(forwarded)));
    }
}

#[test]
fn the_addresses_of_a_network_have_one_backend() {
    let Some(stage) = Stage::start("the_addresses_of_a_network_have_one_backend") else { return };
    for proxy in &stage.proxies {
        let home = |network: u8, last: u8| {
            let source = format!("127.8.{network}.{last}");
            stage.get(proxy, &["--interface", &source], "/").backend().to_owned()
        };
        let mut homes = BTreeSet::new();
        for network in 1..=12 {
            let first = home(network, 1);
            assert_eq!([home(network, 99), home(network, 254)], [&*first, &*first], "{} {network}", proxy.name);
            homes.insert(first);
        }
        assert_eq!(homes.len(), 2, "{}: both serve", proxy.name);
    }
}

#[test]
fn a_session_of_the_api_goes_by_its_cookie() {
    let Some(stage) = Stage::start("a_session_of_the_api_goes_by_its_cookie") else { return };
    for proxy in &stage.proxies {
        for path in ["/api/", "/api/cart"] {
            let got = stage.get(proxy, &["--cookie", "JSESSIONID=4711"], path);
            assert_eq!((got.backend(), got.seen("cookie")), ("app1", Some("JSESSIONID=4711")), "{}", proxy.name);
            // The path is another one behind nginx.
            let sent = if proxy.is_ours() { path } else { &path[4..] };
            assert!(got.body.contains(&format!("\nGET {sent} HTTP/1.")), "{}: {got:?}", proxy.name);
        }
    }
    let ours = stage.proxies[0].ours().unwrap();
    let line = ours.line("a request", |line| line["kind"] == "request" && line["pool"] == "app2");
    assert_eq!((&line["backend"], &line["reason"]), (&"app1".into(), &"placement".into()), "{line}");
}

#[test]
fn a_websocket_stays_open() {
    let Some(stage) = Stage::start("a_websocket_stays_open") else { return };
    for proxy in &stage.proxies {
        let stream = connect_from(Ipv4Addr::LOCALHOST, proxy.at(SECURE)).unwrap();
        let stream = tls(stage.site.path(), stream, "www.example.org", "").unwrap();
        let (mut socket, _) = tungstenite::client("ws://www.example.org/ws", stream).unwrap();
        let home = stage.get(proxy, &[], "/");
        assert_eq!(socket.read().unwrap(), Message::text(home.backend()), "{}", proxy.name);
        socket.send(Message::Ping("here".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("here".into()), "{}", proxy.name);
    }
}

#[test]
fn a_page_is_shown_while_there_is_no_backend() {
    let Some(mut stage) = Stage::start("a_page_is_shown_while_there_is_no_backend") else { return };
    stage.backends.clear();
    for proxy in &stage.proxies {
        for version in VERSIONS {
            let got = stage.get(proxy, &[version], "/");
            assert!((502..=504).contains(&got.status), "{}: {got:?}", proxy.name);
            assert!(got.body.contains("<title>Sorry</title>"), "{}: {got:?}", proxy.name);
            assert!(
                got.field("content-type").is_some_and(|kind| kind.starts_with("text/html")),
                "{}: {got:?}",
                proxy.name
            );
        }
    }
    stage.backends = Stage::backends(&stage.site);
    for proxy in &stage.proxies {
        eventually("an answer", || (stage.get(proxy, &[], "/").status == 200).then_some(()));
    }
}

#[test]
fn a_body_of_more_than_20_mib_is_refused_before_it_is_sent() {
    let Some(stage) = Stage::start("a_body_of_more_than_20_mib_is_refused_before_it_is_sent") else { return };
    let file = stage.site.path().join("body");
    for (bytes, status) in [(20 << 20, 200), ((20 << 20) + 1, 413)] {
        std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
        let body = format!("@{}", file.display());
        for proxy in &stage.proxies {
            for version in VERSIONS {
                let got = stage.get(proxy, &[version, "--header", "Expect:", "--data-binary", &body], "/");
                assert_eq!(got.status, status, "{} {version}", proxy.name);
            }
        }
    }
}
