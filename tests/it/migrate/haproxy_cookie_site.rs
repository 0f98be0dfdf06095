//! `haproxy-cookie-site`: redirects, denials, routes, headers, cookies of two kinds, load, backends that go.

use std::process::{Child, Stdio};

use super::backend::{HOLD, Web};
use super::client::{Answer, ask, curl};
use super::{Proxy, Site, with_quick_checks};
use crate::support::program::output;
use crate::support::{eventually, has, http};

const FILE: &str = "haproxy-cookie-site";
const PLAIN: &str = "127.0.0.1:33500";
const SECURE: &str = "127.0.0.1:33501";
const ADMIN: &str = "127.0.0.1:33509";
const SITE: &str = "https://www.example.org";
const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// All backends of the files, and both balancers.
struct Stage {
    proxies: Vec<Proxy>,
    web: [Option<Web>; 2],
    _others: [Web; 3],
    site: Site,
}

impl Stage {
    fn start(test: &str) -> Option<Self> {
        if !has(test, "curl") {
            return None;
        }
        let site = Site::new();
        let web = [1, 2].map(|n| Some(Self::web(&site, n)));
        let others = [
            Web::plain("sorry", site.backend("10.0.0.9:80")),
            Web::plain("s1", site.backend("10.0.2.1:80")),
            Web::tls("a1", site.backend("10.0.1.1:8080"), site.path()),
        ];
        // Clients of a network that is denied have to come from this machine, where HAProxy may have few descriptors.
        let change = |text: &str| {
            let text = with_quick_checks(text).replace("192.0.2.0/24", "127.9.2.0/24");
            text.replace("maxconn 20000", "maxconn 2000")
        };
        let proxies = site.both(test, FILE, change);
        let stage = Self { proxies, web, _others: others, site };
        for proxy in &stage.proxies {
            eventually("all backends to be up", || (stage.get(proxy, &[], "/api").backend() == "a1").then_some(()));
        }
        Some(stage)
    }

    fn web(site: &Site, number: usize) -> Web {
        Web::plain(&format!("web{number}"), site.backend(&format!("10.0.0.{number}:80")))
    }

    fn get(&self, proxy: &Proxy, arguments: &[&str], path: &str) -> Answer {
        ask(&self.site, proxy.at(SECURE), arguments, &format!("{SITE}{path}"))
    }
}

#[test]
fn plain_http_is_redirected_and_a_network_is_denied() {
    let Some(stage) = Stage::start("plain_http_is_redirected_and_a_network_is_denied") else { return };
    for proxy in &stage.proxies {
        for url in ["http://www.example.org/", "http://static.example.org/api?a=b"] {
            let got = ask(&stage.site, proxy.at(PLAIN), &["--interface", "127.9.2.7"], url);
            let location = url.replacen("http:", "https:", 1);
            assert_eq!((got.status, got.field("location")), (301, Some(&*location)), "{}", proxy.name);
        }
        for url in ["https://www.example.org/", "https://www.example.org/api/x", "https://static.example.org/api"] {
            for version in VERSIONS {
                let bad = ask(&stage.site, proxy.at(SECURE), &[version, "--interface", "127.9.2.7"], url);
                let good = ask(&stage.site, proxy.at(SECURE), &[version, "--interface", "127.9.3.7"], url);
                assert_eq!((bad.status, good.status), (403, 200), "{} {url} {version}", proxy.name);
            }
        }
    }
}

#[test]
fn paths_and_hosts_lead_to_their_backends_with_the_headers_of_the_site() {
    let Some(stage) = Stage::start("paths_and_hosts_lead_to_their_backends_with_the_headers_of_the_site") else {
        return;
    };
    for proxy in &stage.proxies {
        for (url, backends) in [
            ("https://www.example.org/", &["web1", "web2"][..]),
            ("https://www.example.org/api", &["a1"]),
            ("https://www.example.org/api/v1?x", &["a1"]),
            ("https://static.example.org/logo.svg", &["s1"]),
            ("https://STATIC.example.org/logo.svg", &["s1"]),
            ("https://static.example.org/api/v1", &["a1"]),
        ] {
            for version in VERSIONS {
                let got = ask(&stage.site, proxy.at(SECURE), &[version, "--interface", "127.0.3.4"], url);
                assert!(got.status == 200 && backends.contains(&got.backend()), "{} {url}: {got:?}", proxy.name);
                assert_eq!(got.field("strict-transport-security"), Some("max-age=31536000"), "{}", proxy.name);
                let seen = ["x-real-ip", "x-forwarded-for"].map(|name| got.seen(name));
                assert_eq!(seen, [Some("127.0.3.4"); 2], "{}: {got:?}", proxy.name);
                let sni = (got.backend() == "a1").then_some("api.internal");
                assert_eq!(got.seen("sni"), sni, "{}", proxy.name);
            }
        }
        // The page, or the table, of what the balancer does.
        let stream = std::net::TcpStream::connect(proxy.at(ADMIN)).unwrap();
        assert_eq!(http::exchange(stream, "GET", "/").unwrap().0, 200, "{}", proxy.name);
    }
}

#[test]
fn a_cookie_keeps_a_browser_and_no_backend_sees_it() {
    let Some(stage) = Stage::start("a_cookie_keeps_a_browser_and_no_backend_sees_it") else { return };
    for proxy in &stage.proxies {
        let first = stage.get(proxy, &[], "/");
        let set = first.field("set-cookie").expect("a cookie").to_owned();
        let (cookie, attributes) = set.split_once("; ").expect("attributes");
        assert!(cookie.starts_with("SRV="), "{}: {set}", proxy.name);
        for attribute in ["Path=/", "HttpOnly", "Secure"] {
            let has = attributes.split("; ").any(|known| known.eq_ignore_ascii_case(attribute));
            assert!(has, "{}: {attribute}: {set}", proxy.name);
        }
        let lower = attributes.to_ascii_lowercase();
        assert!(!["max-age", "expires", "domain"].iter().any(|word| lower.contains(word)), "{}: {set}", proxy.name);
        if proxy.is_ours() {
            assert_eq!(first.field("cache-control"), Some("private"));
        }
        for _ in 0..5 {
            let again = stage.get(proxy, &["--cookie", cookie], "/");
            assert_eq!(again.backend(), first.backend(), "{}", proxy.name);
            assert_eq!((again.seen("cookie"), again.field("set-cookie")), (None, None), "{}", proxy.name);
        }
    }
}

/// Sessions of an application behind a prefix go on when the balancer is changed, in both directions.
#[test]
fn a_session_with_a_prefix_goes_on_behind_the_other_balancer() {
    let Some(stage) = Stage::start("a_session_with_a_prefix_goes_on_behind_the_other_balancer") else { return };
    for proxy in &stage.proxies {
        let got = stage.get(proxy, &["--header", "X-Set-Cookie: yes"], "/api/login");
        let cookie = got.field("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie");
        assert_eq!(cookie, "JSESSIONID=a1~4711", "{}", proxy.name);
        for other in &stage.proxies {
            let again = stage.get(other, &["--cookie", cookie], "/api/cart");
            assert_eq!(again.seen("cookie"), Some("JSESSIONID=4711"), "{} and {}", proxy.name, other.name);
        }
    }
}

/// Clients that are ended with the test.
struct Clients(Vec<Child>);

impl Drop for Clients {
    fn drop(&mut self) {
        for client in &mut self.0 {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

#[test]
fn new_visitors_are_spread_by_load_and_weight() {
    const VISITORS: usize = 10;
    let Some(stage) = Stage::start("new_visitors_are_spread_by_load_and_weight") else { return };
    let [one, two] = [0, 1].map(|n| stage.web[n].as_ref().expect("it runs"));
    for proxy in &stage.proxies {
        let before = [one.held(), two.held()];
        let mut clients = Clients(Vec::new());
        for visitor in 1..=VISITORS {
            let url = format!("{SITE}{HOLD}");
            let mut client = curl(&stage.site, proxy.at(SECURE), &["--http1.1"], &url);
            clients.0.push(client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
            eventually("a request to be held", || {
                (one.held() + two.held() == before[0] + before[1] + visitor).then_some(())
            });
        }
        // Weights are 1 and 50.
        assert!(one.held() - before[0] <= 1, "{}: {} of {VISITORS}", proxy.name, one.held() - before[0]);
    }
}

#[test]
fn a_visitor_moves_once_when_its_backend_goes_and_sees_a_page_while_there_is_none() {
    let test = "a_visitor_moves_once_when_its_backend_goes_and_sees_a_page_while_there_is_none";
    let Some(mut stage) = Stage::start(test) else { return };
    let jars: Vec<_> = stage.proxies.iter().map(|proxy| proxy.name).collect();
    let visit = |stage: &Stage, index: usize| {
        let jar = stage.site.path().join(jars[index]).display().to_string();
        stage.get(&stage.proxies[index], &["--cookie", &jar, "--cookie-jar", &jar], "/")
    };
    let everywhere = 0..stage.proxies.len();
    for index in everywhere.clone() {
        // The one of weight 50, at a time without load.
        eventually("a visitor at web2", || {
            let _ = std::fs::remove_file(stage.site.path().join(jars[index]));
            (visit(&stage, index).backend() == "web2").then_some(())
        });
    }
    stage.web[1] = None;
    for index in everywhere.clone() {
        eventually("a visitor at web1", || (visit(&stage, index).backend() == "web1").then_some(()));
        for _ in 0..3 {
            assert_eq!(visit(&stage, index).backend(), "web1", "{}", jars[index]);
        }
    }
    // The visitor has another backend now, and stays.
    stage.web[1] = Some(Stage::web(&stage.site, 2));
    for index in everywhere.clone() {
        eventually("web2 to be up", || (stage.get(&stage.proxies[index], &[], "/").backend() == "web2").then_some(()));
        assert_eq!(visit(&stage, index).backend(), "web1", "{}", jars[index]);
    }
    stage.web = [None, None];
    for index in everywhere.clone() {
        eventually("a page without backends", || {
            let got = visit(&stage, index);
            // What is a server of its own there is a page here.
            let ours = got.status == 503 && got.body.contains("<title>Sorry</title>");
            (ours && stage.proxies[index].is_ours() || got.backend() == "sorry").then_some(())
        });
    }
    // Its cookie is as it was: what served meanwhile is no home.
    stage.web[0] = Some(Stage::web(&stage.site, 1));
    for index in everywhere {
        eventually("web1 again", || (visit(&stage, index).backend() == "web1").then_some(()));
    }
}

#[test]
fn a_source_with_more_than_a_hundred_requests_at_once_is_refused_and_no_other_one() {
    let Some(stage) = Stage::start("a_source_with_more_than_a_hundred_requests_at_once_is_refused_and_no_other_one")
    else {
        return;
    };
    for proxy in &stage.proxies {
        let many = format!("{SITE}/?[1-250]");
        let text = output(&mut curl(&stage.site, proxy.at(SECURE), &["--http1.1", "--interface", "127.0.3.9"], &many));
        let statuses =
            |status: &str| text.lines().filter(|line| line.starts_with(&format!("HTTP/1.1 {status} "))).count();
        let (good, refused) = (statuses("200"), statuses("429"));
        assert!(good >= 100 && refused > 0 && good + refused == 250, "{}: {good}, {refused}", proxy.name);
        let other = ask(&stage.site, proxy.at(SECURE), &["--interface", "127.0.3.10"], SITE);
        assert_eq!(other.status, 200, "{}", proxy.name);
    }
}
