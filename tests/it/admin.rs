//! What an operator sees, and the one thing an operator may do, at the process's own doors.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::http::{exchange, unix_get, unix_post};
use crate::support::load_support::{Client, client_hello};
use crate::support::prometheus::Page;
use crate::support::sessile::run;
use crate::support::{PATIENCE, Sessile, eventually};

const ADMIN: &str = "[admin]\nsocket = \"$DIR/admin.sock\"\nhttp = \"127.0.0.1:0\"\n";

/// The loopback port, which is said at the start.
pub fn port(sessile: &Sessile) -> SocketAddr {
    eventually("the port to be said", || {
        let said = sessile.said();
        let (_, after) = said.split_once("metrics and health on http://")?;
        after.split_once('"')?.0.parse().ok()
    })
}

fn over(port: SocketAddr, method: &str, path: &str) -> (u16, String) {
    exchange(TcpStream::connect(port).unwrap(), method, path).unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_view_is_on_both_doors_and_only_the_socket_reloads() {
    let backend = Backend::named("b");
    let config = format!("{}{ADMIN}{}", listener("p", ""), pool("p", "", &[backend.address]));
    let sessile = Sessile::start(&config);
    let port = port(&sessile);
    assert!(port.ip().is_loopback());
    let mode = std::fs::metadata(sessile.admin()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "owner and group only");
    for path in ["/healthz", "/readyz", "/pools", "/backends", "/connections"] {
        let here = unix_get(&sessile.admin(), path).unwrap();
        assert_eq!((here.0, &here), (200, &over(port, "GET", path)), "{path}");
    }
    for path in ["/status", "/metrics"] {
        assert_eq!(unix_get(&sessile.admin(), path).unwrap().0, 200, "{path}");
        assert_eq!(over(port, "GET", path).0, 200, "{path}");
    }
    for (method, path, status) in [
        ("POST", "/reload", 404),
        ("GET", "/reload", 404),
        ("PUT", "/status", 405),
        ("DELETE", "/backends", 405),
        ("POST", "/", 405),
        ("GET", "/page.html", 404),
        ("GET", "/../etc/passwd", 404),
    ] {
        assert_eq!(over(port, method, path).0, status, "{method} {path}");
    }
    assert_eq!(sessile.status()["generation"], 1, "the port changes nothing");
    let (status, body) = unix_post(&sessile.admin(), "/reload").unwrap();
    assert_eq!((status, sessile.status()["generation"].as_u64()), (200, Some(2)), "{body}");
    assert_eq!(unix_get(&sessile.admin(), "/reload").unwrap().0, 405);
}

/// Status of a GET over the port with these header lines.
fn status_with(port: SocketAddr, fields: &str) -> u16 {
    let mut stream = TcpStream::connect(port).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /connections HTTP/1.1\r\n{fields}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_site_that_a_browser_shows_reads_nothing_over_the_port() {
    let backend = Backend::named("b");
    let admin = format!("{ADMIN}names = [\"metrics.test\"]\n");
    let sessile = Sessile::start(&format!("{}{admin}{}", listener("p", ""), pool("p", "", &[backend.address])));
    let port = port(&sessile);
    assert_eq!(status_with(port, "Host: rebound.attacker.test\r\n"), 421);
    assert_eq!(status_with(port, &format!("Host: {port}\r\nOrigin: http://attacker.test\r\n")), 403);
    for served in ["Host: metrics.test:80\r\n", "Host: localhost\r\n", "Host: [::1]:1\r\n"] {
        assert_eq!(status_with(port, served), 200, "{served}");
    }
}

/// The first bytes of a reply to a GET from this address of the machine; none if the connection was closed.
fn reply_from(source: [u8; 4], port: SocketAddr, path: &str) -> String {
    let client = Client::connect_from(source.into(), port);
    let mut stream = client.stream();
    let _ = write!(stream, "GET {path} HTTP/1.0\r\nHost: {port}\r\n\r\n");
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8(reply).unwrap()
}

#[test]
fn a_port_for_other_hosts_serves_the_networks_that_are_allowed_and_counts_the_others() {
    let backend = Backend::named("b");
    let door = |admin: &str| {
        format!(
            "{}[admin]\nsocket = \"$DIR/admin.sock\"\n{admin}{}",
            listener("p", ""),
            pool("p", "", &[backend.address])
        )
    };
    let sessile = Sessile::start(&door("http = \"0.0.0.0:0\"\nallow = [\"127.0.7.0/24\"]\n"));
    let port = SocketAddr::new([127, 0, 0, 1].into(), port(&sessile).port());
    for path in ["/metrics", "/status", "/healthz"] {
        assert!(reply_from([127, 0, 7, 9], port, path).starts_with("HTTP/1.0 200 "), "{path}");
    }
    assert!(reply_from([127, 0, 7, 9], port, "/reload").starts_with("HTTP/1.0 404 "), "it changes nothing");
    for _ in 0..50 {
        assert_eq!(reply_from([127, 0, 0, 1], port, "/metrics"), "");
    }
    assert_eq!(sessile.metric("sessile_admin_peers_refused_total"), 50.0);
    sessile.says("closed a connection of 127.0.0.1");
    assert_eq!(sessile.said().matches("closed a connection of 127.0.0.1, which admin.allow does not have").count(), 1);
    let without = run(&["check", &text_file(&sessile, "without.toml", &door("http = \"0.0.0.0:0\"\n"))]);
    assert_eq!(without.status.code(), Some(64), "{without:?}");
    let said = text([without.stdout, without.stderr].concat());
    assert!(said.contains("is no loopback address, and allow names no network that may read it"), "{said}");
}

/// Writes a configuration beside that of a process; its path.
fn text_file(sessile: &Sessile, name: &str, config: &str) -> String {
    let path = sessile.dir.path().join(name);
    std::fs::write(&path, config.replace("$DIR", sessile.dir.path().to_str().unwrap())).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn half_sent_requests_stop_neither_health_nor_metrics() {
    let backend = Backend::named("b");
    let config = format!("{}{ADMIN}{}", listener("p", ""), pool("p", "", &[backend.address]));
    let sessile = Sessile::start(&config);
    let port = port(&sessile);
    let half = |mut stream: TcpStream| {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").unwrap();
        stream
    };
    let held: Vec<_> = (0..200).map(|_| half(TcpStream::connect(port).unwrap())).collect();
    let begun = Instant::now();
    assert_eq!((over(port, "GET", "/healthz").0, over(port, "GET", "/metrics").0), (200, 200));
    assert_eq!(unix_get(&sessile.admin(), "/readyz").unwrap().0, 200);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // The rest of them is closed when the time of a head is over.
    for mut stream in held {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0; 256]), Ok(_) | Err(_)));
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn only_the_owner_can_hold_the_lock() {
    let backend = Backend::named("b");
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let lock = sessile.admin().with_extension("lock");
    let mode = || std::fs::metadata(&lock).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    sessile.signal(rustix::process::Signal::TERM);
    sessile.wait();
    std::fs::set_permissions(&lock, PermissionsExt::from_mode(0o644)).unwrap();
    sessile.restart();
    assert_eq!(mode(), 0o600, "one that an earlier version has made");
}

#[test]
fn views_agree_with_each_other_and_with_what_happened() {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let config = listener("p", "max_connections = 500") + &pool("p", "", &addresses);
    let sessile = Sessile::start(&config);
    let front = sessile.address("l");
    let mut held: Vec<_> = (1..=30).map(|n| Client::connect_from([127, 0, 3, n].into(), front)).collect();
    let homes: Vec<_> = held.iter_mut().map(|client| client.ask("12345")).collect();
    let of = |name: &str| homes.iter().filter(|home| home.starts_with(name)).count();
    for _ in 0..5 {
        Client::connect_from([127, 0, 3, 1].into(), front).ask("x");
    }
    eventually("the short ones to be gone", || (sessile.status()["admission"]["open"] == 30).then_some(()));

    let status = sessile.status();
    assert_eq!(status["pools"], sessile.json("/pools"));
    assert_eq!((&status["ready"], &status["generations_alive"]), (&true.into(), &1.into()));
    let known = &status["listeners"][0];
    assert_eq!((&known["open"], &known["max"], &known["accepted"]), (&30.into(), &500.into(), &35.into()));
    assert_eq!(known["ended"], serde_json::json!({ "done": 5 }));
    let shown = sessile.json("/backends");
    for (index, backend) in shown.as_array().unwrap().iter().enumerate() {
        let name = format!("b{index}");
        let extra = if homes[0].starts_with(&name) { 5 } else { 0 };
        assert_eq!((&backend["pool"], &backend["name"]), (&"p".into(), &name.as_str().into()));
        assert_eq!((&backend["state"], &backend["up"]), (&"unchecked".into(), &true.into()));
        assert_eq!(backend["leases"], of(&name), "{backend}");
        assert_eq!(backend["connections"], of(&name) + extra, "{backend}");
        assert_eq!(backend["bytes_up"], 6 * of(&name) + 2 * extra, "{backend}");
        assert_eq!(backend["bytes_down"], 9 * of(&name) + 5 * extra, "{backend}");
    }

    let all = sessile.json("/connections");
    assert_eq!((&all["open"], &all["shown"]), (&30.into(), &30.into()));
    for (client, home) in held.iter().zip(&homes) {
        let own = client.stream().local_addr().unwrap().to_string();
        let view = all["connections"].as_array().unwrap().iter().find(|view| view["client"] == own.as_str()).unwrap();
        for (key, value) in
            [("listener", "l"), ("pool", "p"), ("backend", &home[..2]), ("reason", "placement"), ("stage", "relay")]
        {
            assert_eq!(view[key], value, "{key}: {view}");
        }
        assert_eq!((&view["bytes_up"], &view["bytes_down"]), (&6.into(), &9.into()), "{view}");
        assert!(view["age_ms"].as_u64() >= view["idle_ms"].as_u64() && view["id"].is_u64(), "{view}");
    }
    let some = sessile.json("/connections?pool=p&backend=b0&limit=3");
    assert_eq!((&some["open"], &some["shown"]), (&of("b0").into(), &3.into()));
    assert!(some["connections"].as_array().unwrap().iter().all(|view| view["backend"] == "b0"));
    assert_eq!(sessile.json("/connections?backend=nobody")["open"], 0);
    drop(held);
    eventually("an empty view", || (sessile.json("/connections")["open"] == 0).then_some(()));
}

#[test]
fn a_connection_that_has_not_said_enough_is_shown_as_such() {
    let backend = Backend::named("b0");
    let config = listener("p", "tls = \"passthrough\"\n[[listener.route]]\nsni = \"*.example\"\npool = \"p\"")
        + &pool("p", "", &[backend.address]);
    let sessile = Sessile::start(&config);
    let hello = client_hello("www.example");
    let mut slow = TcpStream::connect(sessile.address("l")).unwrap();
    slow.write_all(&hello[..20]).unwrap();
    let view = eventually("the first half of a hello", || {
        let view = sessile.json("/connections")["connections"][0].clone();
        (view["bytes_up"] == 20).then_some(view)
    });
    assert_eq!((&view["stage"], &view["backend"], &view["sni"]), (&"preread".into(), &Value::Null, &Value::Null));
    slow.write_all(&hello[20..]).unwrap();
    let view = eventually("the whole hello", || {
        let view = sessile.json("/connections")["connections"][0].clone();
        (view["stage"] == "relay").then_some(view)
    });
    assert_eq!((&view["backend"], &view["sni"]), (&"b0".into(), &"www.example".into()));
    assert_eq!(view["bytes_up"], hello.len());
}

#[test]
fn the_status_command_shows_it_to_people_and_to_programs() {
    let backend = Backend::named("b0");
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let mut held = Client::connect(sessile.address("l"));
    held.ask("x");
    let socket = sessile.admin();
    let output = run(&["status", "--wide", "--socket", socket.to_str().unwrap()]);
    let shown = text(output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    let digest = sessile.status()["digest"].as_str().unwrap().to_owned();
    let address = backend.address.to_string();
    for part in ["generation 1", &digest, "LISTENER", "BACKEND", "WORKER", "unchecked", &address, "connections 1 of "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let file = sessile.file();
    let output = run(&["status", "--json", "--config", file.to_str().unwrap()]);
    let status: Value = serde_json::from_str(&text(output.stdout)).unwrap();
    assert_eq!((&status["digest"], &status["admission"]["open"]), (&digest.into(), &1.into()));
    assert_eq!(
        status.as_object().unwrap().keys().collect::<Vec<_>>(),
        sessile.status().as_object().unwrap().keys().collect::<Vec<_>>()
    );
    // A refused reload is the first thing to know.
    std::fs::write(&file, "bogus = 1\n").unwrap();
    unix_post(&socket, "/reload").unwrap();
    let shown = text(run(&["status", "--socket", socket.to_str().unwrap()]).stdout);
    assert!(shown.contains("the last reload was refused:\n") && shown.contains("bogus"), "{shown}");
    drop(sessile);
    let output = run(&["status", "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(69));
    assert!(text(output.stderr).contains("admin.sock"));
}

/// Clients that send labels, names and cookies of their own choice to every listener that reads them.
fn strange_clients(sessile: &Sessile) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let say = |listener: &str, bytes: &[u8]| {
        let mut stream = TcpStream::connect(sessile.address(listener)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    };
    for name in
        ["strange-name-1.example", "strange-name-2.example", "strange_name_3.test", "strange\"name\n4", "strange{5}=\\"]
    {
        say("tls", &client_hello(name));
        words.insert(name.split(['.', '"', '{']).next().unwrap().to_owned());
    }
    for source in ["203.0.113.77", "198.51.100.78"] {
        say("proxied", format!("PROXY TCP4 {source} 192.0.2.99 40001 443\r\nhello\n").as_bytes());
        words.insert(source.to_owned());
    }
    say("proxied", b"PROXY TCP6 2001:db8:77::1 2001:db8::99 40001 443\r\nhello\n");
    say("proxied", b"PROXY strange-words\r\n");
    say("tls", b"GET /strange-path HTTP/1.1\r\nHost: strange-host\r\n\r\n");
    words.extend(["2001:db8:77".to_owned(), "192.0.2.99".to_owned(), "40001".to_owned(), "strange".to_owned()]);
    words
}

#[test]
fn the_metrics_page_is_by_the_letter_and_no_client_writes_on_it() {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let door = |name: &str, options: &str| {
        format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n{options}\n")
    };
    let config = door("plain", "")
        + &door("tls", "tls = \"passthrough\"\n[[listener.route]]\nsni = \"*.example\"\npool = \"q\"")
        + &door("proxied", "trust = [\"127.0.0.0/8\"]")
        + ADMIN
        + &pool("p", "", &addresses)
        + &pool("q", "key = [\"source\", \"sni\"]", &addresses)
            .replace("[pool.check]\nkind = \"off\"", "[pool.check]\nkind = \"tcp\"");
    let sessile = Sessile::start(&config);
    let page = |text: &str| Page::read(text);
    let before = page(&sessile.metrics());
    let words = strange_clients(&sessile);
    for n in 1..=20 {
        Client::connect_from([127, 0, 4, n].into(), sessile.address("plain")).ask("x");
    }
    eventually("everybody to be gone", || (sessile.status()["admission"]["open"] == 0).then_some(()));
    let text = sessile.metrics();
    let after = page(&text);
    assert!(before.samples.keys().eq(after.samples.keys()), "series come from the configuration alone");
    assert_eq!(page(&over(port(&sessile), "GET", "/metrics").1).samples.len(), after.samples.len());
    for word in &words {
        assert!(!text.contains(word.as_str()), "{word} is on the page");
    }
    sessile.line("it was heard, though", |line| line["sni"] == "strange-name-1.example");

    // Numbers agree with the other view, and all of them are somewhere.
    let status = sessile.status();
    for listener in status["listeners"].as_array().unwrap() {
        let name = listener["name"].as_str().unwrap();
        let accepted = after.value(&format!("sessile_connections_accepted_total{{listener=\"{name}\"}}"));
        assert_eq!(accepted, listener["accepted"].as_f64().unwrap());
        let ended: f64 = sessile::outcome::Ended::ALL
            .iter()
            .map(|ended| {
                let (outcome, fault) = (ended.word(), ended.fault().word());
                let series = format!("{{fault=\"{fault}\",listener=\"{name}\",outcome=\"{outcome}\"}}");
                let value = after.value(&format!("sessile_connections_ended_total{series}"));
                assert_eq!(value, listener["ended"][outcome].as_f64().unwrap_or(0.0), "{name} {outcome}");
                value
            })
            .sum();
        assert_eq!(ended, accepted, "{name}");
    }
    for pool in status["pools"].as_array().unwrap() {
        for backend in pool["backends"].as_array().unwrap() {
            let labels = format!("{{backend={},pool={}}}", backend["name"], pool["name"]);
            for (series, key) in [
                ("sessile_backend_connections_total", "connections"),
                ("sessile_backend_connect_time_seconds_count", "connections"),
                ("sessile_backend_duration_seconds_count", "connections"),
                ("sessile_backend_up_bytes_total", "bytes_up"),
                ("sessile_backend_down_bytes_total", "bytes_down"),
                ("sessile_backend_leases", "leases"),
                ("sessile_backend_weight", "weight"),
            ] {
                assert_eq!(
                    after.value(&format!("{series}{labels}")),
                    backend[key].as_f64().unwrap(),
                    "{series}{labels}"
                );
            }
        }
    }
    for (series, value) in &before.samples {
        let rises = after.kinds.get(series.split('{').next().unwrap()).is_some_and(|kind| kind == "counter");
        assert!(!rises || after.samples[series] >= *value, "{series} fell");
    }
    // A listener and a backend that go take their series with them; the rest goes on counting.
    let smaller = door("plain", "") + ADMIN + &pool("p", "", &addresses[..1]);
    let total = after.value("sessile_backend_connections_total{backend=\"b0\",pool=\"p\"}");
    assert_eq!(sessile.reload(&smaller)["accepted"], true);
    let page = page(&sessile.metrics());
    assert!(page.samples.keys().all(|series| !series.contains("\"b1\"") && !series.contains("\"tls\"")));
    assert_eq!(page.value("sessile_backend_connections_total{backend=\"b0\",pool=\"p\"}"), total);
    assert_eq!(page.value("sessile_connections_accepted_total{listener=\"plain\"}"), 20.0);
}
