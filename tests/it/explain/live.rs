//! `explain --live` says of the next 10,000 connections where they go, with one backend down, one draining, one full,
//! and a stick table with half of the clients in it.
//!
//! Passthrough by source and server name with three methods, requests with the balancer's own cookie, and a pool without
//! a key. What a connection got is read from its backend and from its line in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use form_urlencoded::Serializer;
use serde_json::Value;

use super::clients::{self, Client};
use super::configurations::{WITH_HELLO, WITHOUT_HELLO};
use super::{THREADS, announcing, ask, candidates, explained};
use crate::support::backend::Backend;
use crate::support::http::unix_get;
use crate::support::program::free_address;
use crate::support::sessile::run;
use crate::support::{PATIENCE, Sessile, eventually};

const CLIENTS: usize = 1_000;
/// Connections that fill `b3`.
const FULL: usize = 3;

/// What became of one connection or request.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    backend: Option<String>,
    reason: Option<String>,
    moved: Option<String>,
    from: Option<String>,
}

impl Fate {
    fn text(value: &Value) -> Option<String> {
        value.as_str().map(str::to_owned)
    }

    fn explained(report: &Value) -> Self {
        let text = |name: &str| Self::text(&report[name]);
        Self { backend: text("choice"), reason: text("reason"), moved: text("moved"), from: text("from") }
    }

    fn logged(line: &Value) -> Self {
        let text = |name: &str| Self::text(&line[name]);
        Self { backend: text("backend"), reason: text("reason"), moved: text("moved"), from: text("from") }
    }
}

/// A balancer whose pool `p` has five backends.
struct Scene {
    sessile: Sessile,
    backends: Vec<Backend>,
    /// Where `b1` listens until it is down.
    doomed: Option<Backend>,
    held: Vec<TcpStream>,
    /// Lines of the log that were looked at.
    seen: usize,
}

impl Scene {
    /// `backend` starts one of that name, at an address of its own or at any.
    fn new(listener: &str, pool: &str, backend: impl Fn(&str, Option<SocketAddr>) -> Backend) -> Self {
        let doomed = backend("b1", Some(free_address()));
        let backends: Vec<_> = ["b0", "b2", "b3", "b4", "b5"].map(|name| backend(name, None)).into();
        let [b0, b2, b3, b4, b5] = [0, 1, 2, 3, 4].map(|index: usize| backends[index].address);
        let b1 = doomed.address;
        let config = format!(
            "[limits]\nhalf_close_timeout = \"10m\"\n\
             [[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntrust = \"127.0.0.0/8\"\npool = \"p\"\n{listener}\n\
             [[pool]]\nname = \"p\"\n{pool}\n\
             check = {{ interval = \"50ms\", timeout = \"2s\", rise = 1, fall = 2 }}\n\
             backend = [\n\
             {{ name = \"b0\", address = \"{b0}\" }},\n\
             {{ name = \"b1\", address = \"{b1}\" }},\n\
             {{ name = \"b2\", address = \"{b2}\" }},\n\
             {{ name = \"b3\", address = \"{b3}\", max_connections = {FULL} }},\n\
             {{ name = \"b4\", address = \"{b4}\", weight = 2 }},\n\
             ]\n\
             [[pool]]\nname = \"site\"\ncheck = \"off\"\nbackend = [{{ name = \"b5\", address = \"{b5}\" }}]\n"
        );
        let sessile = Sessile::start(&config);
        let scene = Self { sessile, backends, doomed: Some(doomed), held: Vec::new(), seen: 0 };
        scene.wait_for("b1", |backend| backend["state"] == "up");
        scene
    }

    fn wait_for(&self, name: &str, fits: impl Fn(&Value) -> bool) {
        eventually(&format!("{name} to be so"), || {
            let status = self.sessile.json("/backends");
            status.as_array()?.iter().any(|backend| backend["name"] == name && fits(backend)).then_some(())
        });
    }

    /// Takes `b1` down, drains `b2` and fills `b3` by clients that `hold` connects and keeps, if they reach it.
    fn trouble(&mut self, hold: impl Fn(usize) -> Option<TcpStream>) {
        let _ = self.backends.len();
        drop(self.doomed.take());
        self.wait_for("b1", |backend| backend["state"] == "down");
        let socket = self.sessile.admin();
        let output = run(&["drain", "p/b2", "--json", "--socket", socket.to_str().expect("words")]);
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&said["accepted"], &said["message"]), (&true.into(), &"p/b2: draining".into()));
        self.held = (0..1_000).filter_map(hold).take(FULL).collect();
        self.wait_for("b3", |backend| backend["leases"] == FULL);
    }

    /// Lines of the log of these clients that were not there before, by client.
    fn lines(&mut self, clients: &[Client], is_wanted: fn(&Value) -> bool) -> BTreeMap<String, Value> {
        let wanted: BTreeSet<_> = clients.iter().map(Client::logged).collect();
        let (lines, seen) = eventually("a line for every client", || {
            let lines = self.sessile.lines();
            let seen = lines.len();
            let new = lines.into_iter().skip(self.seen).filter(is_wanted);
            let new = new.map(|line| (line["client"].as_str().unwrap_or_default().to_owned(), line));
            let new: BTreeMap<_, _> = new.filter(|(client, _)| wanted.contains(client)).collect();
            (new.len() == clients.len()).then_some((new, seen))
        });
        self.seen = seen;
        lines
    }

    /// What the command says of all clients.
    fn explain(&self, clients: &[Client]) -> Vec<Value> {
        let socket = self.sessile.admin();
        let arguments = ["explain", "--live", "--json", "--listener", "l", "--socket", socket.to_str().expect("words")];
        explained(&arguments, clients)
    }

    /// What the process says of one client.
    fn explain_one(&self, parameters: &[(&str, &str)]) -> Value {
        let query = Serializer::new(String::new()).extend_pairs(parameters).finish();
        self.sessile.json(&format!("/explain?{query}"))
    }

    fn address(&self) -> SocketAddr {
        self.sessile.address("l")
    }

    fn entries(&self) -> u64 {
        self.sessile.json("/stick-table")[0]["known"].as_u64().expect("a number")
    }
}

/// Clients with addresses of their own.
fn distinct(seed: u64, count: usize, hello: bool) -> Vec<Client> {
    let like = if hello { &WITH_HELLO } else { &WITHOUT_HELLO };
    let mut seen = BTreeSet::new();
    let mut all = clients::random(seed, count + 50, like);
    all.retain(|client| seen.insert(client.address()));
    all.truncate(count);
    assert_eq!(all.len(), count);
    all
}

/// Does something for every client, by many threads; the results in the order of the clients.
fn each<T: Send>(clients: &[Client], work: impl Fn(usize, &Client) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(clients.len()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Relaxed)
                    && let Some(client) = clients.get(index)
                {
                    let result = work(index, client);
                    done.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Fails unless every connection was what was explained; the fates that there were.
fn assert_foreseen(what: &str, explained: &[Value], lines: &[&Value]) -> Vec<Fate> {
    let mut wrong = Vec::new();
    for (report, line) in explained.iter().zip(lines) {
        let (said, seen) = (Fate::explained(report), Fate::logged(line));
        if said != seen || report["live"] != true || report["pool"] != line["pool"] {
            wrong.push(format!("{said:?}, and it was {seen:?}\n  {report}\n  {line}"));
        }
    }
    assert!(wrong.is_empty(), "{what}: {} of {} wrong:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    lines.iter().map(|line| Fate::logged(line)).collect()
}

/// True if some client had this fate.
fn happened(fates: &[Fate], reason: &str, moved: Option<&str>, from: Option<&str>) -> bool {
    fates.iter().any(|fate| {
        fate.reason.as_deref() == Some(reason) && fate.moved.as_deref() == moved && fate.from.as_deref() == from
    })
}

#[test]
fn explain_live_names_the_backend_of_the_next_passthrough_connections() {
    for (seed, pool) in [
        (1, "balance = \"hash\""),
        (2, "balance = \"ring\"\nkey = [\"source\", \"sni\"]"),
        (3, "balance = \"maglev\"\nprefix_v4 = 32"),
    ] {
        let route = "tls = \"passthrough\"\n[[listener.route]]\nsni = \"www.example.org\"\npool = \"site\"";
        let mut scene = Scene::new(route, pool, announcing);
        let (address, clients) = (scene.address(), distinct(seed, CLIENTS, true));
        let known = &clients[..CLIENTS / 2];
        each(known, |_, client| ask(address, client));
        scene.lines(known, |_| true);
        let others = distinct(seed + 1_000, CLIENTS, true);
        scene.trouble(|index| {
            let mut stream = TcpStream::connect(address).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.write_all(&others[index].first_bytes()).ok()?;
            let mut name = [0; 2];
            stream.read_exact(&mut name).ok()?;
            (&name == b"b3").then_some(stream)
        });
        for round in 0..2 {
            let entries = scene.entries();
            let explained = scene.explain(&clients);
            assert_eq!(scene.entries(), entries, "a question writes no entry");
            let reached = each(&clients, |_, client| ask(address, client));
            let lines = scene.lines(&clients, |_| true);
            let lines: Vec<_> = clients.iter().map(|client| &lines[&client.logged()]).collect();
            let fates = assert_foreseen(&format!("{pool}, round {round}"), &explained, &lines);
            assert!(fates.iter().zip(&reached).all(|(fate, reached)| fate.backend.as_ref() == Some(reached)));
            let moved = |cause, from| happened(&fates, "placement", Some(cause), Some(from));
            if round == 0 {
                assert!(moved("down", "b1") && moved("full", "b3"), "{pool}: nobody had to move");
                assert!(happened(&fates, "placement", None, None) && happened(&fates, "stick_table", None, None));
                let stays = fates.iter().any(|fate| fate.backend.as_deref() == Some("b2"));
                assert!(stays, "{pool}: nobody was known at the backend that drains");
            }
        }
    }
}

/// A backend that answers every request with its name.
fn answering(name: &str, address: Option<SocketAddr>) -> Backend {
    let name = name.to_owned();
    let serve = move |mut stream: TcpStream| {
        let (mut head, mut bytes) = (Vec::new(), [0; 1024]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                count => head.extend(&bytes[..count]),
            }
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{name}").as_bytes())?;
        // Kept for as long as the balancer keeps it.
        while stream.read(&mut bytes)? > 0 {}
        Ok(())
    };
    match address {
        Some(address) => Backend::on(address, serve),
        None => Backend::serving(serve),
    }
}

/// Sends one request over a connection of its own: the connection, the answer, and the cookie that it sets.
fn request(address: SocketAddr, client: &Client, cookie: &str) -> Option<(TcpStream, String, Option<String>)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    let head = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\n");
    stream.write_all(&[&client.first_bytes()[..], head.as_bytes()].concat()).ok()?;
    let (mut answer, mut bytes) = (Vec::new(), [0; 1024]);
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, name)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.len() == 2) {
            let set =
                head.lines().find_map(|line| line.strip_prefix("set-cookie: ").or(line.strip_prefix("Set-Cookie: ")));
            let set = set.and_then(|line| line.split(';').next()).map(str::to_owned);
            return Some((stream, name.to_owned(), set));
        }
        match stream.read(&mut bytes).ok()? {
            0 => return None,
            count => answer.extend(&bytes[..count]),
        }
    }
}

#[test]
fn explain_live_names_the_backend_of_the_next_requests_by_their_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("cookie.keys");
    std::fs::write(&keys, "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210\n").unwrap();
    let cookie = format!("cookie = {{ mode = \"insert\", name = \"S\", keys = \"{}\" }}", keys.display());
    let mut scene = Scene::new("", &format!("http = true\nbalance = \"hash\"\n{cookie}"), answering);
    let (address, clients) = (scene.address(), distinct(7, CLIENTS, false));
    let is_request: fn(&Value) -> bool = |line| line["request"].is_string();
    let mut jar = vec![String::new(); CLIENTS];
    // Half of the clients have a cookie, from a time when all was well; some have one that is forged.
    let given = each(&clients[..CLIENTS / 2], |_, client| request(address, client, "").and_then(|(_, _, set)| set));
    for (place, set) in given.into_iter().enumerate() {
        jar[place] = set.expect("a cookie");
    }
    jar[CLIENTS - 1] = jar[0].replacen("S=", "S=x", 1);
    scene.lines(&clients[..CLIENTS / 2], is_request);
    let others = distinct(8, CLIENTS, false);
    scene.trouble(|index| {
        let (stream, name, _) = request(address, &others[index], "")?;
        (name == "b3").then_some(stream)
    });
    let mut fates = Vec::new();
    for round in 0..2 {
        let ask_about = |client: &Client, cookie: &str| {
            let source = client.address().to_string();
            scene.explain_one(&[("client", &source), ("host", "shop.test"), ("path", "/"), ("cookie", cookie)])
        };
        let explained = each(&clients, |index, client| ask_about(client, &jar[index]));
        let answers = each(&clients, |index, client| {
            request(address, client, &jar[index]).map(|(_, name, set)| (name, set)).expect("an answer")
        });
        let lines = scene.lines(&clients, is_request);
        let lines: Vec<_> = clients.iter().map(|client| &lines[&client.logged()]).collect();
        for (report, line) in explained.iter().zip(&lines) {
            assert_eq!(report.get("cookie"), line.get("cookie"), "the verdict on the cookie: {report}\n{line}");
        }
        fates.push(assert_foreseen(&format!("requests, round {round}"), &explained, &lines));
        for (place, (name, set)) in answers.into_iter().enumerate() {
            assert_eq!(fates[round][place].backend.as_ref(), Some(&name));
            jar[place] = set.unwrap_or(std::mem::take(&mut jar[place]));
        }
    }
    let moved = |cause, from| happened(&fates[0], "placement", Some(cause), Some(from));
    assert!(moved("down", "b1") && moved("full", "b3"), "nobody had to move");
    assert!(
        fates[0].iter().any(|fate| fate.reason.as_deref() == Some("cookie") && fate.backend.as_deref() == Some("b2"))
    );
    assert!(fates[1].iter().all(|fate| fate.reason.as_deref() == Some("cookie") && fate.moved.is_none()));
}

#[test]
fn explain_live_says_which_backend_is_next_in_turn_where_no_key_decides() {
    let mut scene = Scene::new("", "balance = \"round_robin\"", announcing);
    let (address, clients) = (scene.address(), distinct(9, CLIENTS, false));
    scene.trouble(|_| {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(&clients[0].first_bytes()).ok()?;
        let mut name = [0; 2];
        stream.read_exact(&mut name).ok()?;
        (&name == b"b3").then_some(stream)
    });
    // All at once: any of those that can.
    let explained = scene.explain(&clients);
    let reached: BTreeSet<_> = each(&clients, |_, client| ask(address, client)).into_iter().collect();
    for report in &explained {
        assert_eq!((&report["any"], &report["choice"]), (&true.into(), &Value::Null), "{report}");
        assert_eq!(candidates(report), reached.iter().map(String::as_str).collect(), "{report}");
    }
    // One after the other: the one whose turn it is, however often it is asked.
    for client in &clients {
        let source = client.address().to_string();
        let report = scene.explain_one(&[("client", &source)]);
        assert_eq!(scene.explain_one(&[("client", &source)])["in_turn"], report["in_turn"]);
        assert_eq!(report["in_turn"], ask(address, client), "{report}");
    }
    let (socket, client) = (scene.sessile.admin(), clients[0].address().to_string());
    let text = run(&["explain", "--live", "--client", &client, "--socket", socket.to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("live: as the running process decides now\n"), "{text}");
    assert!(text.ends_with(" is next in turn, not fixed\n"), "{text}");
    for (name, why) in [("b1", "down: "), ("b2", "draining: only known clients"), ("b3", "full: max_connections = 3")] {
        // A long reason stands below its backend.
        let mut rows = text.lines().skip_while(|line| line.split_whitespace().nth(1) != Some(name));
        assert!(
            rows.next().is_some_and(|row| row.contains(why)) || rows.next().is_some_and(|row| row.contains(why)),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[test]
fn a_question_that_is_not_understood_is_refused_with_a_sentence() {
    let scene = Scene::new("", "", announcing);
    let refusal = |query: &str| {
        let (code, why) = unix_get(&scene.sessile.admin(), &format!("/explain?{query}")).unwrap();
        assert_eq!(code, 400, "{why}");
        why
    };
    assert_eq!(refusal("client=nobody"), "client \"nobody\" is not an address\n");
    assert_eq!(refusal("client=::1&listener=m"), "--listener m: no such listener; there are: l\n");
    assert_eq!(refusal("client=::1&down=p/b9"), "--down p/b9: no pool has such a backend\n");
    let report = scene.explain_one(&[("client", "192.0.2.1")]);
    let choice = report["choice"].as_str().unwrap();
    let without = scene.explain_one(&[("client", "192.0.2.1"), ("down", choice)]);
    assert_eq!((&without["choice"], &report["moved"]), (&report["next"], &Value::Null));
}
