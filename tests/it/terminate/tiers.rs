//! Several cookies of our own name: of an earlier path, of an application, and of another tier of sessile.

use std::collections::BTreeMap;
use std::net::TcpStream;

use super::backend::Recorder;
use super::client::{Response, Talk};
use super::cookie::name_of;
use crate::support::backend::{listener, pool};
use crate::support::{PATIENCE, Sessile};

const KEYS: [&str; 2] = [
    "0123456789abcdef5a69788796a5b4c30123456789abcdef5a69788796a5b4c3",
    "1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c",
];

fn plain(instance: &Sessile) -> Talk<TcpStream> {
    let stream = TcpStream::connect(instance.address("l")).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Talk::new(stream)
}

/// The cookies of one browser.
#[derive(Default)]
struct Jar(BTreeMap<String, String>);

impl Jar {
    fn take(&mut self, response: &Response) {
        let lines = response.head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: "));
        for line in lines {
            let (name, value) = line.split(';').next().unwrap().split_once('=').expect("a cookie");
            if line.contains("Max-Age=0") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn line(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) }
    }

    fn get(&mut self, talk: &mut Talk<TcpStream>, path: &str) -> String {
        let response = talk.get(path, &self.line());
        self.take(&response);
        response.text()
    }
}

/// A pool that spreads new clients in turn and keeps them by a cookie sealed with these keys.
fn tier(dir: &std::path::Path, name: &str, keys: &str, addresses: &[std::net::SocketAddr]) -> String {
    let file = dir.join(format!("{name}-{}.keys", &keys[..4]));
    std::fs::write(&file, format!("{keys}\n")).expect("the file is written");
    let cookie = format!("cookie = {{ mode = \"insert\", keys = \"{}\" }}\n", file.display());
    listener(name, "") + &pool(name, &format!("http = true\nbalance = \"round_robin\"\n{cookie}"), addresses)
}

/// Sends requests of several browsers through two tiers of two instances each, in turn over new connections, and holds
/// each to its first final backend.
fn two_tiers_hold_their_clients(inner_name: &str, inner_keys: &str) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let backends = ["x", "y", "z"].map(Recorder::named);
    let addresses = backends.each_ref().map(Recorder::address);
    let inner = [(); 2].map(|()| Sessile::start(&tier(dir.path(), inner_name, inner_keys, &addresses)));
    let between = inner.each_ref().map(|instance| instance.address("l"));
    let outer = [(); 2].map(|()| Sessile::start(&tier(dir.path(), "p", KEYS[0], &between)));
    let mut jars: Vec<Jar> = (0..7).map(|_| Jar::default()).collect();
    let homes: Vec<_> =
        jars.iter_mut().enumerate().map(|(n, jar)| name_of(&jar.get(&mut plain(&outer[n % 2]), "/"))).collect();
    let firsts: Vec<_> = jars.iter().map(|jar| jar.0.clone()).collect();
    for round in 0..12 {
        for (n, jar) in jars.iter_mut().enumerate() {
            let text = jar.get(&mut plain(&outer[(round + n) % 2]), "/");
            assert_eq!(name_of(&text), homes[n], "{inner_name}, round {round}: {}", jar.line());
            assert!(!text.contains("SESSILE"), "{text}");
        }
    }
    assert!(homes.iter().any(|home| *home != homes[0]), "{homes:?}");
    assert!(jars.iter().map(|jar| &jar.0).eq(&firsts), "nothing was set anew");
    let same_name = inner_name == "p";
    assert!(jars.iter().all(|jar| jar.0.len() == if same_name { 1 } else { 2 }), "{:?}", jars[0].line());
    let dropped = |instance: &Sessile| instance.metric("sessile_dropped_set_cookies_total{pool=\"p\"}");
    let dropped: f64 = outer.iter().map(dropped).sum();
    assert_eq!(dropped, if same_name { jars.len() as f64 } else { 0.0 });
}

#[test]
fn two_tiers_with_other_names_and_keys_hold_their_clients() {
    two_tiers_hold_their_clients("inner", KEYS[1]);
}

#[test]
fn two_tiers_with_other_names_and_the_same_keys_hold_their_clients() {
    two_tiers_hold_their_clients("inner", KEYS[0]);
}

#[test]
fn two_tiers_with_the_same_names_and_other_keys_hold_their_clients() {
    two_tiers_hold_their_clients("p", KEYS[1]);
}

#[test]
fn two_tiers_with_the_same_names_and_keys_hold_their_clients() {
    two_tiers_hold_their_clients("p", KEYS[0]);
}

#[test]
fn three_tiers_of_one_configuration_hold_their_clients() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let backends = ["x", "y", "z"].map(Recorder::named);
    let mut addresses: Vec<_> = backends.iter().map(Recorder::address).collect();
    let mut tiers = Vec::new();
    for _ in 0..3 {
        tiers.push(Sessile::start(&tier(dir.path(), "p", KEYS[0], &addresses)));
        addresses = vec![tiers.last().unwrap().address("l")];
    }
    let mut jars: [Jar; 4] = Default::default();
    let mut ask = |n: usize| name_of(&jars[n].get(&mut plain(&tiers[2]), "/"));
    let homes: Vec<_> = (0..4).map(&mut ask).collect();
    for round in 0..20 {
        assert_eq!(ask(round * 3 % 4), homes[round * 3 % 4]);
    }
}

#[test]
fn after_a_change_of_path_the_cookie_that_was_sealed_last_counts() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let backends = ["x", "y"].map(Recorder::named);
    let text = tier(dir.path(), "p", KEYS[0], &backends.each_ref().map(Recorder::address));
    let instance = Sessile::start(&text.replace("mode = \"insert\"", "mode = \"insert\", path = \"/shop\""));
    let place = || {
        let response = plain(&instance).get("/shop", "");
        let line = response.field("set-cookie").expect("a cookie");
        (name_of(&response.text()), line.split("; Max-Age").next().unwrap().to_owned(), line.contains("; Path=/shop"))
    };
    let old = place();
    assert_eq!(instance.reload(&text)["accepted"], true);
    let new = place();
    assert_eq!((old.2, new.2, old.0 == new.0), (true, false, false));
    // A browser sends the cookie of the longer path first.
    for _ in 0..3 {
        let response = plain(&instance).get("/shop", &format!("Cookie: {}; {}\r\n", old.1, new.1));
        assert_eq!((name_of(&response.text()), response.field("set-cookie")), (new.0.clone(), None));
    }
}

#[test]
fn a_backends_cookie_of_our_name_reaches_no_client_and_is_counted() {
    // As an application that clears all cookies, and one that makes them up.
    let answer = |name: &'static str| {
        move |head: &str| {
            let lines = match head.split(' ').nth(1)? {
                "/clear" => "Set-Cookie: SESSILE-p=; Max-Age=0; Path=/\r\nSet-Cookie: SID=; Max-Age=0\r\n",
                "/make" => "Set-Cookie: SESSILE-p=made-up\r\nset-cookie: =SESSILE-p=made-up\r\nSet-Cookie: SID=1\r\n",
                "/early" => {
                    let early = "HTTP/1.1 103 Early Hints\r\nSet-Cookie: SESSILE-p=made-up\r\nLink: <x>\r\n\r\n";
                    return Some(format!("{early}HTTP/1.1 204 No Content\r\nServer: {name}\r\n\r\n").into_bytes());
                }
                _ => return None,
            };
            Some(format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 1\r\n\r\n{name}").into_bytes())
        }
    };
    let backends = ["x", "y"].map(|name| Recorder::answering(name, answer(name)));
    let dir = tempfile::tempdir().expect("a scratch directory");
    let instance = Sessile::start(&tier(dir.path(), "p", KEYS[0], &backends.each_ref().map(Recorder::address)));
    let (mut jar, mut talk) = (Jar::default(), plain(&instance));
    let home = name_of(&jar.get(&mut talk, "/"));
    let own = jar.0["SESSILE-p"].clone();
    for _ in 0..3 {
        for path in ["/clear", "/make", "/"] {
            let text = jar.get(&mut talk, path);
            assert_eq!(name_of(&text), home, "{path}");
            assert_eq!(jar.0["SESSILE-p"], own, "{path}");
            assert!(!text.contains("SESSILE") && !text.contains("made-up"), "{text}");
            assert_eq!(jar.0.contains_key("SID"), path != "/clear", "other cookies pass");
        }
    }
    talk.send(format!("GET /early HTTP/1.1\r\nHost: a.test\r\n{}\r\n", jar.line()));
    let early = talk.response().expect("the interim response");
    assert_eq!((early.status, early.field("link"), early.field("set-cookie")), (103, Some("<x>"), None));
    assert_eq!(talk.response().expect("the final response").status, 204);
    assert_eq!(instance.metric("sessile_dropped_set_cookies_total{pool=\"p\"}"), 10.0);
    assert_eq!(instance.status()["pools"][0]["dropped_cookies"], 10);
}

#[test]
fn the_value_of_a_tier_behind_is_given_back_until_that_tier_ends_it() {
    let sealed = |last: char| format!("AQ{}{last}", "A".repeat(73));
    let (one, two) = (sealed('B'), sealed('C'));
    let (first, second) = (one.clone(), two.clone());
    let backend = Recorder::answering("x", move |head: &str| {
        let value = match head.split(' ').nth(1)? {
            "/one" => first.clone(),
            "/two" => second.clone(),
            "/end" => "; Max-Age=0".to_owned(),
            "/other" => "made-up".to_owned(),
            _ => return None,
        };
        Some(format!("HTTP/1.1 200 OK\r\nSet-Cookie: SESSILE-p={value}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    });
    let dir = tempfile::tempdir().expect("a scratch directory");
    let instance = Sessile::start(&tier(dir.path(), "p", KEYS[0], &[backend.address()]));
    let (mut jar, mut talk) = (Jar::default(), plain(&instance));
    let mut seen = |path: &str| {
        jar.get(&mut talk, path);
        let text = jar.get(&mut talk, "/");
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("Cookie: ")).map(str::to_owned).collect();
        (lines.join("; "), jar.0["SESSILE-p"].len())
    };
    let carried = |value: &str| (format!("SESSILE-p={value}"), 2 * 76 + 1);
    assert_eq!(seen("/"), (String::new(), 76));
    assert_eq!(seen("/one"), carried(&one));
    assert_eq!(seen("/"), carried(&one));
    assert_eq!(seen("/two"), carried(&two));
    assert_eq!(seen("/other"), carried(&two), "a text of an application is removed and changes nothing");
    assert_eq!(seen("/end"), (String::new(), 76));
}
