//! Backends that are written with a name: they follow its address, and stay where they are while none can be relied on.
//!
//! The backends of all addresses have one port, and answer with a word of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use rustix::process::Signal;
use serde_json::Value;

use super::knot::Knot;
use super::name_server::{NameServer, Say, a, cname};
use crate::support::backend::{Backend, echo, listener};
use crate::support::http::unix_post;
use crate::support::load_support::Client;
use crate::support::program::free_local_address;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

const NAME: &str = "app.example";

/// Backends at 127.0.0.1, 127.0.0.2 and so on, all at one port; each answers with the last number of its address.
struct Places {
    port: u16,
    _backends: Vec<Backend>,
}

impl Places {
    fn start(count: u8) -> Self {
        let port = free_local_address().port();
        let at = |last: u8| {
            Backend::on(SocketAddr::from(([127, 0, 0, last], port)), move |stream| echo(&format!("at{last}"), &stream))
        };
        Self { port, _backends: (1..=count).map(at).collect() }
    }

    /// A configuration in which these places are backend `a`, by its name, beside backend `b`.
    fn config(&self, server: SocketAddr, options: &str, beside: &Backend) -> String {
        format!(
            "[discovery]\nresolvers = [\"{server}\"]\n{}[[pool]]\nname = \"p\"\nstick_table = \"1 MiB\"\n{options}\n\
             backend = [{{ name = \"a\", address = \"{NAME}:{}\" }}, {{ name = \"b\", address = \"{}\" }}]\n",
            listener("p", ""),
            self.port,
            beside.address
        )
    }
}

/// What a name server says of a name with these addresses, the last numbers of 127.0.0.0/24.
fn at(last: &[u8]) -> Say {
    Say::Records(last.iter().map(|last| a(NAME, [127, 0, 0, *last], 1)).collect(), Vec::new())
}

fn saying(say: Say) -> impl FnMut(&str, RecordType) -> Say + Send + 'static {
    move |_, _| say.clone()
}

fn backend(sessile: &Sessile, name: &str) -> Value {
    let status = sessile.status();
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    backends.iter().find(|backend| backend["name"] == name).cloned().unwrap()
}

/// Waits until backend `a` is at this place.
fn is_at(sessile: &Sessile, places: &Places, last: u8) {
    let address = format!("127.0.0.{last}:{}", places.port);
    eventually(&format!("the backend at {address}"), || (backend(sessile, "a")["address"] == address).then_some(()));
}

/// Waits until what is found of the name is complained of in these words; empty: not at all.
fn complains(sessile: &Sessile, words: &str) {
    eventually(&format!("the complaint {words:?}"), || {
        let of_name = backend(sessile, "a")["resolve"].clone();
        let complaint = of_name["complaint"].as_str().unwrap_or_default();
        (complaint.contains(words) && complaint.is_empty() == words.is_empty()).then_some(())
    });
}

/// Waits until the server was asked so many times more.
fn is_asked(server: &NameServer, times: usize) {
    let before = server.asked();
    eventually("more questions", || (server.asked() >= before + times).then_some(()));
}

fn client(sessile: &Sessile, number: u8) -> Client {
    Client::connect_from([127, 3, 0, number].into(), sessile.address("l"))
}

/// What serves client number `number`: the word of a place, or `b`.
fn home(sessile: &Sessile, number: u8) -> String {
    client(sessile, number).ask("x").split(' ').next().unwrap().to_owned()
}

/// A client of backend `a`.
fn client_of_a(sessile: &Sessile) -> u8 {
    (1..200).find(|number| home(sessile, *number).starts_with("at")).expect("a client of the backend")
}

fn events(sessile: &Sessile, kind: &str) -> usize {
    let events = sessile.json("/events");
    events["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).count()
}

fn digest_and_generation(sessile: &Sessile) -> (Value, Value) {
    let status = sessile.status();
    (status["digest"].clone(), status["generation"].clone())
}

#[test]
fn a_backend_follows_its_name_and_open_connections_stay() {
    let (places, b) = (Places::start(2), Backend::named("b"));
    let records = |last: u8| format!("app 1 CNAME pod\npod 1 A 127.0.0.{last}\n");
    let test = "a_backend_follows_its_name_and_open_connections_stay";
    let Some(knot) = Knot::start(test, &records(1)) else { return };
    let sessile = Sessile::start(&places.config(knot.address, "", &b));
    is_at(&sessile, &places, 1);
    let (digest, generation) = digest_and_generation(&sessile);
    let known = client_of_a(&sessile);
    let mut open = client(&sessile, known);
    assert_eq!(open.ask("before"), "at1 before");
    let (_, said) = unix_post(&sessile.admin(), "/backends/p/a/drain").unwrap();
    assert!(said.contains("draining"), "{said}");

    knot.set(&records(2));
    is_at(&sessile, &places, 2);
    assert_eq!((open.ask("after").as_str(), home(&sessile, known).as_str()), ("at1 after", "at2"));
    assert_eq!(backend(&sessile, "a")["runtime"], "draining", "a drain follows the name");
    unix_post(&sessile.admin(), "/backends/p/a/ready").unwrap();
    let (digest_now, generation_now) = digest_and_generation(&sessile);
    assert_eq!(digest_now, digest);
    assert_eq!(generation_now.as_u64(), generation.as_u64().map(|before| before + 1));
    let of_name = backend(&sessile, "a")["resolve"].clone();
    assert_eq!((&of_name["answers"][0], &of_name["changes"]), (&Value::from("127.0.0.2"), &Value::from(1)));
    assert!(backend(&sessile, "b")["resolve"].is_null(), "an address has no name");
    assert_eq!(events(&sessile, "resolved"), 1);
    sessile.says(&format!("backend p/a: {NAME}:{0} is 127.0.0.2:{0} in place of 127.0.0.1:{0}", places.port));
    let labels = "{pool=\"p\",backend=\"a\"}";
    assert_eq!(sessile.metric(&format!("sessile_resolve_changes_total{labels}")), 1.0);
    assert_eq!(sessile.metric(&format!("sessile_resolve_failed{labels}")), 0.0);
    assert_eq!(sessile.sum("sessile_sticky_breaks_total", &["pool=\"p\""]), 0.0);
}

#[test]
fn the_address_in_force_stays_while_it_is_among_the_answers_also_over_a_reload() {
    let (places, b) = (Places::start(5), Backend::named("b"));
    let server = NameServer::start(saying(at(&[3])));
    let config = places.config(server.address, "", &b);
    let sessile = Sessile::start(&config);
    is_at(&sessile, &places, 3);
    let mut turn = 0;
    server.say(move |_, _| {
        turn += 1;
        let mut all = [1, 2, 3, 4, 5];
        all.rotate_left(turn % 5);
        at(&all)
    });
    is_asked(&server, 3);
    let before = digest_and_generation(&sessile);
    let known = client_of_a(&sessile);
    is_asked(&server, 3);
    assert_eq!(digest_and_generation(&sessile), before, "shuffled answers are no change");

    // Also when name servers say nothing: a reload asks for no name that is followed.
    for say in [at(&[5, 4, 3, 2, 1]), Say::Silence] {
        server.say(saying(say));
        let verdict = sessile.reload(&config);
        let all = "127.0.0.1, 127.0.0.2, 127.0.0.3, 127.0.0.4, 127.0.0.5";
        let named = format!("backend \"p/a\": {NAME}:{0} is 127.0.0.3:{0}, of {all}", places.port);
        assert_eq!((&verdict["accepted"], &verdict["names"][0]), (&Value::from(true), &Value::from(named)));
        assert_eq!((&verdict["changes"], &verdict["warnings"]), (&Value::Array(vec![]), &Value::Array(vec![])));
        assert_eq!(home(&sessile, known), "at3");
    }
    let shown = run(&["status", "--socket", sessile.admin().to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("{NAME}:{0} is 127.0.0.3:{0}, of 127.0.0.1, ", places.port)), "{shown}");
}

#[test]
fn what_cannot_be_relied_on_keeps_the_address_and_is_complained_of_once() {
    let (places, b) = (Places::start(2), Backend::named("b"));
    let server = NameServer::start(saying(at(&[1])));
    // The name may lead to this listener.
    let own = format!("[[listener]]\nname = \"own\"\nbind = \"127.0.0.9:{}\"\npool = \"p\"\n", places.port);
    let config = places.config(server.address, "", &b).replacen("[[listener]]", &format!("{own}[[listener]]"), 1);
    let sessile = Sessile::start(&config);
    is_at(&sessile, &places, 1);
    let (before, known) = (digest_and_generation(&sessile), client_of_a(&sessile));
    for (say, why) in [
        (Say::Nothing(ResponseCode::ServFail, None), "SERVFAIL"),
        (Say::Nothing(ResponseCode::NXDomain, Some(1)), "it has no address"),
        (Say::Nothing(ResponseCode::NoError, Some(1)), "it has no address"),
        (Say::Records(vec![a(NAME, [0, 0, 0, 0], 1)], vec![]), "is not an address that can be connected to"),
        (at(&[2, 9]), "is an address of this process: connections would loop"),
        (Say::Records(vec![a("evil.example", [127, 0, 0, 2], 1)], vec![]), "records of other names"),
        (Say::Records(vec![cname(NAME, NAME, 1)], vec![]), "aliases"),
        (Say::Half, ""),
    ] {
        server.say(saying(say));
        match why {
            "" => is_asked(&server, 1),
            why => complains(&sessile, why),
        }
        assert_eq!(home(&sessile, known), "at1", "{why}");
    }
    server.say(saying(Say::Silence));
    complains(&sessile, "did not answer");
    assert_eq!(home(&sessile, known), "at1");
    assert_eq!(digest_and_generation(&sessile), before);
    assert_eq!((events(&sessile, "resolve_failed"), events(&sessile, "resolve_works")), (1, 0));
    assert_eq!(sessile.metric("sessile_resolve_failed{pool=\"p\",backend=\"a\"}"), 1.0);
    let shown = run(&["status", "--socket", sessile.admin().to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("; its last address stays"), "{shown:?}");

    server.say(saying(at(&[2])));
    is_at(&sessile, &places, 2);
    complains(&sessile, "");
    assert_eq!(home(&sessile, known), "at2");
    assert_eq!((events(&sessile, "resolve_failed"), events(&sessile, "resolve_works")), (1, 1));
}

#[test]
fn a_name_without_an_address_stops_no_start_and_its_backend_comes_when_it_has_one() {
    let (places, b) = (Places::start(2), Backend::named("b"));
    let server = NameServer::start(saying(Say::Silence));
    let config = places.config(server.address, "", &b);
    let sessile = Sessile::start(&config);
    let known: Vec<_> = (1..60).map(|number| home(&sessile, number)).collect();
    assert!(known.iter().all(|home| home == "b"), "all others serve");
    let down = backend(&sessile, "a");
    assert_eq!((&down["state"], &down["up"]), (&Value::from("down"), &Value::from(false)));
    assert_eq!(down["address"], format!("{NAME}:{}", places.port));
    assert_eq!(down["complaint"], "its name has no address");
    complains(&sessile, "did not answer");
    sessile.says("; it is down");
    // It stops no reload either, also not with another backend that has no address.
    let more = config.replace("backend = [", "backend = [{ name = \"c\", address = \"no.example:80\" }, ");
    let verdict = sessile.reload(&more);
    let warnings = verdict["warnings"].to_string();
    assert!(verdict["accepted"] == true && warnings.contains("cannot be resolved"), "{verdict}");
    assert!(warnings.contains("\\\"no.example:80\\\"") && warnings.contains("the backend is down"), "{verdict}");
    assert!(sessile.reload(&config)["accepted"] == true);

    server.say(saying(at(&[2])));
    is_at(&sessile, &places, 2);
    eventually("a good check", || (backend(&sessile, "a")["state"] == "up").then_some(()));
    assert!((100..160).any(|number| home(&sessile, number) == "at2"), "new clients come to it");
    assert!(backend(&sessile, "a").get("complaint").is_none(), "{}", backend(&sessile, "a"));
}

#[test]
fn a_start_without_name_servers_has_the_last_addresses() {
    let (places, b) = (Places::start(2), Backend::named("b"));
    let server = NameServer::start(saying(at(&[2, 1])));
    let mut sessile = Sessile::start(&places.config(server.address, "", &b));
    is_at(&sessile, &places, 1);
    server.say(saying(at(&[2])));
    is_at(&sessile, &places, 2);
    let known = client_of_a(&sessile);
    let state = sessile.dir.path().join("admin.sock.state");
    let address = format!("127.0.0.2:{}", places.port);
    let has_it = || std::fs::read_to_string(&state).is_ok_and(|text| text.contains(&address)).then_some(());
    eventually("the address in the state file", has_it);
    for (signal, say) in [(Signal::KILL, Say::Silence), (Signal::TERM, at(&[1, 2]))] {
        server.say(saying(say));
        sessile.signal(signal);
        sessile.wait();
        sessile.restart();
        assert_eq!(home(&sessile, known), "at2", "at once, and as long as it is among the answers");
    }
    sessile.signal(Signal::TERM);
    sessile.wait();
    server.say(saying(Say::Silence));
    sessile.restart_with(&["--fresh"]);
    assert_eq!(backend(&sessile, "a")["state"], "down", "a fresh start forgets the address");
    assert_eq!(home(&sessile, known), "b");
}

/// Says this of the name and counts how often; another name has an address, too, and is asked for every second.
fn counting(asked: &Arc<AtomicUsize>, say: Say) -> impl FnMut(&str, RecordType) -> Say + Send + 'static {
    let asked = Arc::clone(asked);
    move |name, _| {
        if name != NAME {
            return Say::Records(vec![a(name, [127, 0, 0, 1], 1)], Vec::new());
        }
        asked.fetch_add(1, Relaxed);
        say.clone()
    }
}

#[test]
fn with_resolve_load_the_name_is_asked_for_at_each_load_and_until_it_has_an_address() {
    let (places, b) = (Places::start(3), Backend::named("b"));
    let asked = Arc::default();
    let server = NameServer::start(counting(&asked, Say::Nothing(ResponseCode::NXDomain, Some(1))));
    let followed = "[[pool]]\nname = \"q\"\ncheck = \"off\"\nbackend = [\"other.example:1\"]\n";
    let config = places.config(server.address, "resolve = \"load\"", &b) + followed;
    let sessile = Sessile::start(&config);
    assert_eq!(backend(&sessile, "a")["state"], "down");
    server.say(counting(&asked, at(&[2])));
    is_at(&sessile, &places, 2);
    server.say(counting(&asked, at(&[1])));
    let before = asked.load(Relaxed);
    is_asked(&server, 3);
    assert_eq!((asked.load(Relaxed), home(&sessile, client_of_a(&sessile)).as_str()), (before, "at2"));
    for (say, last) in [(at(&[1, 2]), 2), (at(&[1, 3]), 1), (Say::Nothing(ResponseCode::ServFail, None), 1)] {
        server.say(counting(&asked, say));
        let verdict = sessile.reload(&config);
        assert!(verdict["accepted"] == true, "{verdict}");
        is_at(&sessile, &places, last);
        let named = format!("backend \"p/a\": {NAME}:{0} is 127.0.0.{last}:{0}", places.port);
        let names = verdict["names"].as_array().unwrap().iter();
        assert!(names.filter_map(Value::as_str).any(|name| name.starts_with(&named)), "{verdict}");
    }
}

#[test]
fn checks_follow_the_backend_to_its_new_address() {
    let (places, b) = (Places::start(2), Backend::named("b"));
    let server = NameServer::start(saying(at(&[1])));
    let checks = "[pool.check]\ninterval = \"100ms\"\n";
    let sessile = Sessile::start(&(places.config(server.address, "", &b) + checks));
    let is = |state: &str| eventually(state, || (backend(&sessile, "a")["state"] == state).then_some(()));
    is("up");
    // Nothing listens there.
    server.say(saying(at(&[7])));
    is_at(&sessile, &places, 7);
    is("down");
    server.say(saying(at(&[2])));
    is_at(&sessile, &places, 2);
    is("up");
}

/// Answers requests with the last number of the address, until the client ends the connection.
fn http(last: u8, stream: &TcpStream) -> std::io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nat{last}")?;
    }
}

#[test]
fn requests_of_a_kept_connection_go_to_the_new_address() {
    let port = free_local_address().port();
    let of = |last: u8| Backend::on(SocketAddr::from(([127, 0, 0, last], port)), move |stream| http(last, &stream));
    let (_first, _second) = (of(1), of(2));
    let server = NameServer::start(saying(at(&[1])));
    let config = format!(
        "[discovery]\nresolvers = [\"{}\"]\n{}[[pool]]\nname = \"p\"\nhttp = true\ncheck = \"off\"\n\
         backend = [\"{NAME}:{port}\"]\n",
        server.address,
        listener("p", "")
    );
    let sessile = Sessile::start(&config);
    let mut kept = TcpStream::connect(sessile.address("l")).unwrap();
    kept.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut ask = || {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        let mut answer = String::new();
        let mut byte = [0];
        while !(answer.ends_with("at1") || answer.ends_with("at2")) {
            kept.read_exact(&mut byte).unwrap();
            answer.push(char::from(byte[0]));
        }
        answer[answer.len() - 3..].to_owned()
    };
    assert_eq!(ask(), "at1");
    server.say(saying(at(&[2])));
    eventually("the new address", || {
        let address = sessile.status()["pools"][0]["backends"][0]["address"].clone();
        (address == format!("127.0.0.2:{port}")).then_some(())
    });
    assert_eq!(ask(), "at2");
}

#[test]
fn check_names_all_answers_and_the_one_that_is_taken_and_warns_of_a_name_without_one() {
    let server = NameServer::start(|name, kind| match (name, kind) {
        ("app.example", RecordType::A) => at(&[2, 1]),
        _ => Say::Nothing(ResponseCode::NXDomain, Some(1)),
    });
    let b = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessile.toml");
    let places = Places { port: 80, _backends: Vec::new() };
    let config = places.config(server.address, "", &b);
    let socket = format!("[admin]\nsocket = \"{}\"\n", dir.path().join("admin.sock").display());
    std::fs::write(&file, config.replace("backend = [", "backend = [\"no.example:80\", ") + &socket).unwrap();
    let check = |arguments: &[&str], file: &Path| {
        let checked = run(&[&["check"], arguments, &[file.to_str().unwrap()]].concat());
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        String::from_utf8(checked.stdout).unwrap()
    };
    let said = check(&[], &file);
    for part in [
        ": warning: pool \"p\": backend \"no.example-80\": address \"no.example:80\" cannot be resolved: it has no address; the \
         backend is down",
        ": backend \"p/a\": app.example:80 is 127.0.0.1:80, of 127.0.0.1, 127.0.0.2\n",
        ": backend \"p/no.example-80\": no.example:80 has no address that can be taken\n",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let json: Value = serde_json::from_str(&check(&["--json"], &file)).unwrap();
    let named = json["names"].as_array().unwrap().iter().find(|name| name["backend"] == "a").unwrap();
    assert_eq!(named["address"], "127.0.0.1:80");
    assert_eq!(named["answers"].as_array().map(Vec::len), Some(2));
}

#[test]
fn many_names_without_a_server_hold_a_start_no_longer_than_one() {
    let silent = NameServer::start(saying(Say::Silence));
    let b = Backend::named("b");
    let names: String = (0..300).map(|number| format!("\"n{number}.example:80\", ")).collect();
    let config = format!(
        "[discovery]\nresolvers = [\"{}\", \"{}\"]\n{}[[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{names}\"{}\"]\n",
        silent.address,
        free_local_address(),
        listener("p", ""),
        b.address
    );
    let begun = std::time::Instant::now();
    let sessile = Sessile::start(&config);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(home(&sessile, 1), "b");
}
