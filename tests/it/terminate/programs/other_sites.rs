//! The balancer's own cookies in Chromium: in the page itself, in a frame of another site, and after the browser was ended
//! and started again; of pools, and of a split.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::support::backend::{Backend, pool};
use crate::support::browser::Browser;
use crate::terminate::Front;

const VISITS: usize = 6;
const BACKENDS: usize = 4;

/// A server of pages: its own is its name, which it also tells a page that has it in a frame.
fn server(name: &str) -> Backend {
    let script = "<script>parent.postMessage(document.title, '*')</script>";
    page(format!("<!doctype html><title>{name}</title><body>{name}{script}"))
}

/// Another site: a page that keeps what frames tell it.
fn other_site() -> Backend {
    page("<!doctype html><script>window.told = []; onmessage = event => told.push(event.data)</script><body>".into())
}

fn page(page: String) -> Backend {
    Backend::serving(move |mut stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            while reader.read_line(&mut line)? > 0 && line != "\r\n" {
                line.clear();
            }
            if line.is_empty() {
                return Ok(());
            }
            let fields =
                format!("Content-Type: text/html\r\nCache-Control: no-store\r\nContent-Length: {}", page.len());
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{page}").as_bytes())?;
        }
    })
}

/// A site at `a.test` and one at `second.a.test`, each with a cookie of its own over the same servers; another site.
struct Scene {
    front: Front,
    other: Backend,
    _servers: Vec<Backend>,
    browser: Browser,
}

impl Scene {
    fn start(test: &str, cookies: [&str; 2]) -> Option<Self> {
        let hosts = "MAP a.test 127.0.0.1, MAP *.a.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
        // Debian's Chromium keeps cookies out of frames of other sites unless its user allows them.
        let allowing = json!({ "profile": { "cookie_controls_mode": 0 } });
        let browser = Browser::with(test, hosts, &["--ignore-certificate-errors".to_owned()], &allowing)?;
        let servers: Vec<_> = (0..BACKENDS).map(|number| server(&format!("b{number}"))).collect();
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let pool = |name: &str, cookie: &str| {
            let cookie = format!("cookie = {{ mode = \"insert\", keys = \"$FILES/cookie.keys\", {cookie} }}\n");
            pool(name, &format!("http = true\nbalance = \"round_robin\"\n{cookie}"), &addresses)
        };
        // Over HTTP/2 a stream without a cookie would follow the first one of its connection.
        let listener = "pool = \"p\"\nhttp2 = false\n[[listener.route]]\nhost = \"second.a.test\"\npool = \"q\"\n";
        let front = Front::with("", listener, &(pool("p", cookies[0]) + &pool("q", cookies[1])));
        Some(Self { front, other: other_site(), _servers: servers, browser })
    }

    fn address(&self, host: &str) -> String {
        format!("https://{host}:{}/", self.front.address().port())
    }

    /// Which server answers each visit of a page of this host.
    fn visit(&self, host: &str) -> Vec<String> {
        self.visit_at(host, "page")
    }

    fn visit_at(&self, host: &str, path: &str) -> Vec<String> {
        let page = self.browser.page();
        let visit = |number: usize| {
            page.open(&format!("{}{path}?visit={number}", self.address(host)));
            page.evaluate("document.title").as_str().expect("a name").to_owned()
        };
        (0..VISITS).map(visit).collect()
    }

    /// Which server answers each visit in a frame of a page of another site.
    fn visit_in_frame(&self, host: &str) -> Vec<String> {
        let page = self.browser.page();
        page.open(&format!("http://{}/", self.other.address));
        for number in 0..VISITS {
            let address = format!("{}?frame={number}", self.address(host));
            page.evaluate(&format!(
                "{{ const frame = document.createElement('iframe'); frame.src = '{address}'; document.body.append(frame) }}"
            ));
            page.until("the page in the frame", &format!("told.length > {number}"));
        }
        let told = page.evaluate("told");
        told.as_array().expect("names").iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }
}

fn are_all(visits: &[String], name: &str) -> bool {
    visits.iter().all(|visit| visit == name)
}

#[test]
fn chromium_stays_in_a_frame_of_another_site_by_the_twin_alone() {
    let test = "chromium_stays_in_a_frame_of_another_site_by_the_twin_alone";
    let Some(scene) = Scene::start(test, ["cross_site_twin = true", "cross_site_twin = false"]) else { return };
    for host in ["a.test", "second.a.test"] {
        let visits = scene.visit(host);
        assert!(are_all(&visits, &visits[0]), "{host}: {visits:?}");
        let framed = scene.visit_in_frame(host);
        if host == "a.test" {
            assert!(are_all(&framed, &visits[0]), "{host}: {visits:?} {framed:?}");
        } else {
            // SameSite=Lax keeps the cookie back there, so that each visit is a new client's.
            assert!(!are_all(&framed, &framed[0]), "{host}: {framed:?}");
        }
        // What the frame did changes nothing for the page itself.
        assert!(are_all(&scene.visit(host), &visits[0]), "{host}");
    }
}

#[test]
fn a_twin_that_was_first_set_in_a_frame_holds_there_and_in_the_page() {
    let test = "a_twin_that_was_first_set_in_a_frame_holds_there_and_in_the_page";
    let Some(scene) = Scene::start(test, ["cross_site_twin = true", "cross_site_twin = false"]) else { return };
    let framed = scene.visit_in_frame("a.test");
    assert!(are_all(&framed, &framed[0]), "{framed:?}");
    assert!(are_all(&scene.visit("a.test"), &framed[0]));
}

#[test]
fn a_cookie_of_the_session_ends_with_the_browser_and_another_one_does_not() {
    let test = "a_cookie_of_the_session_ends_with_the_browser_and_another_one_does_not";
    let cookies = ["lifetime = \"session\", cross_site_twin = true", "lifetime = \"idle\", cross_site_twin = true"];
    let Some(mut scene) = Scene::start(test, cookies) else { return };
    let [session, idle] = ["a.test", "second.a.test"].map(|host| scene.visit(host));
    assert!(are_all(&session, &session[0]) && are_all(&idle, &idle[0]), "{session:?} {idle:?}");
    assert!(are_all(&scene.visit_in_frame("a.test"), &session[0]));
    scene.browser = scene.browser.restart();

    // In the frame first: the twin is there after the restart, too.
    assert!(are_all(&scene.visit_in_frame("second.a.test"), &idle[0]));
    assert!(are_all(&scene.visit("second.a.test"), &idle[0]));
    let again = scene.visit_at("a.test", "again");
    assert!(are_all(&again, &again[0]), "{again:?}");
    let first = scene.front.sessile.line("the first visit after the restart", |line| line["path"] == "/again");
    assert!(first["cookie"].is_null() && first["reason"] != "cookie", "{first}");
    assert!(are_all(&scene.visit_in_frame("a.test"), &again[0]));
}

#[test]
fn a_split_gives_chromium_one_version_also_after_a_restart() {
    let test = "a_split_gives_chromium_one_version_also_after_a_restart";
    let hosts = "MAP a.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
    let start = Browser::with(test, hosts, &["--ignore-certificate-errors".to_owned()], &json!({}));
    let Some(browser) = start else { return };
    let versions = ["stable", "canary"].map(|name| (name, server(name)));
    let pools = versions.each_ref().map(|(name, server)| pool(name, "http = true", &[server.address]));
    let split = "[[split]]\nname = \"web\"\nto = [{ pool = \"stable\" }, { pool = \"canary\" }]\n\
                 [split.cookie]\nkeys = \"$FILES/cookie.keys\"\n";
    let front = Front::with("", "split = \"web\"\n", &(split.to_owned() + &pools.concat()));
    let visits = |browser: &Browser| -> Vec<String> {
        let page = browser.page();
        let visit = |number: usize| {
            page.open(&format!("https://a.test:{}/page?visit={number}", front.address().port()));
            page.evaluate("document.title").as_str().expect("a name").to_owned()
        };
        (0..10).map(visit).collect()
    };
    let first = visits(&browser);
    assert!(are_all(&first, &first[0]), "{first:?}");
    let again = visits(&browser.restart());
    assert!(are_all(&again, &first[0]), "{first:?} {again:?}");
}
