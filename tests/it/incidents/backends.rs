//! Backends that flap, are slow, or are drained and forgotten.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::without::{lacking, moves, warns, without};
use super::{ask, client, client_at, event, home, kinds, was_moved, why};
use crate::support::backend::{Backend, echo, listener, pool};
use crate::support::{Sessile, eventually};

/// A backend that names itself to clients, and passes checks of kind `http` while the switch is on.
fn switched(name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let good = Arc::new(AtomicBool::new(true));
    let is_good = Arc::clone(&good);
    let backend = Backend::serving(move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.starts_with("GET ") {
            let status = if is_good.load(SeqCst) { "200 OK" } else { "500 No" };
            return (&stream).write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
        (&stream).write_all(format!("{name} {line}").as_bytes())?;
        echo(name, &stream)
    });
    (backend, good)
}

fn has_state(sessile: &Sessile, state: &str) {
    eventually(&format!("b0 to be {state}"), || (sessile.json("/backends")[0]["state"] == state).then_some(()));
}

#[test]
fn a_client_of_a_backend_that_flaps_was_moved_because_of_its_check() {
    let ((b0, good), (b1, _good)) = (switched("b0"), switched("b1"));
    let check = "[pool.check]\nkind = \"http\"\ninterval = \"50ms\"\nrise = 2\nfall = 1\nflap_damping = 1000\n";
    let pool = pool("p", "", &[b0.address, b1.address]).replace("[pool.check]\nkind = \"off\"\n", check);
    let config = listener("p", "") + &pool;
    let sessile = Sessile::start(&config);
    has_state(&sessile, "up");
    let number = client_at(&sessile, "b0");
    let address = client(number).to_string();
    let report = why(&sessile, &address);
    assert_eq!((&report["outcome"], &report["backend"]), (&"not_moved".into(), &"b0".into()), "{report}");
    assert_eq!((&report["entry"]["backend"], &report["entry"]["kind"]), (&"b0".into(), &"placed".into()), "{report}");

    good.store(false, SeqCst);
    has_state(&sessile, "down");
    assert_eq!(home(&sessile, number), "b1");
    let answer = was_moved(&why(&sessile, &address), "b0", "b1", "down");
    assert!(answer.contains("because b0 could not serve (") && answer.contains("backend p/b0 is down: "), "{answer}");
    assert!(answer.contains("status 500"), "{answer}");
    assert!(event(&sessile, "down").contains("backend p/b0 is down: "));

    // It comes and goes until its good checks are not enough any more.
    for _ in 0..5 {
        good.store(true, SeqCst);
        has_state(&sessile, "up");
        good.store(false, SeqCst);
        has_state(&sessile, "down");
    }
    good.store(true, SeqCst);
    has_state(&sessile, "damped");
    assert!(event(&sessile, "damped").contains("backend p/b0 stays down for now: answers, held down"));
    let of_backend = sessile.json("/events?kind=up,down,damped&pool=p")["events"].clone();
    let seen: Vec<_> = of_backend.as_array().unwrap().iter().filter(|event| event["backend"] == "b0").collect();
    assert!(seen.len() >= 12, "{of_backend}");
    let report = why(&sessile, &address);
    assert!(report["events"].as_array().unwrap().iter().any(|event| event["kind"] == "damped"), "{report}");

    // All clients are at b1 now, and find only a backend that is down without it.
    good.store(false, SeqCst);
    has_state(&sessile, "down");
    let known = u64::from(number);
    let plan = without(&sessile, "p/b0", 0);
    assert_eq!(moves(&plan), (known, 0, 0), "{plan}");
    let plan = without(&sessile, "p/b1", 0);
    assert_eq!(moves(&plan), (known, known, 0), "{plan}");
    assert!(warns(&plan, "pool \"p\": no backend that is left takes new clients now"), "{plan}");
    let shift = &plan["pools"][0]["live"]["known"]["moves"][0];
    assert_eq!((&shift["from"], &shift["to"], &shift["count"]), (&"b1".into(), &"b0".into(), &known.into()), "{plan}");
    assert_eq!(sessile.reload(&lacking(&config, "b1", b1.address))["accepted"], true);
    assert_eq!(home(&sessile, number), "b0", "it answers, so the last resort finds it");
}

/// A backend that serves its first client, and then answers no connect.
fn slow() -> (TcpListener, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // One connection waits to be accepted; the kernel answers no further one.
    rustix::net::listen(&listener, 0).unwrap();
    let accepts = listener.try_clone().unwrap();
    let first = thread::spawn(move || {
        let (stream, _) = accepts.accept().unwrap();
        let _ = echo("b0", &stream);
    });
    (listener, first)
}

#[test]
fn a_client_of_a_slow_backend_was_moved_because_it_was_ejected() {
    let ((slow, served), b1) = (slow(), Backend::named("b1"));
    let address = slow.local_addr().unwrap();
    let options = "connect_timeout = \"100ms\"\nsticky_retries = 0\n";
    let pool = pool("p", options, &[address, b1.address]) + "[pool.eject]\nfailures = 1\nbase = \"5m\"\n";
    let sessile = Sessile::start(&(listener("p", "") + &pool));
    let number = client_at(&sessile, "b0");
    served.join().unwrap();
    // Whatever waits now is never accepted.
    let waits = |_| TcpStream::connect_timeout(&address, Duration::from_millis(200));
    let waiting: Vec<_> = (0..8).map(waits).take_while(Result::is_ok).collect();
    assert!(waiting.len() < 8, "the queue is full");
    assert_eq!(home(&sessile, number), "b1");
    assert!(event(&sessile, "ejected").contains("backend p/b0 is ejected for 300 s: connections to it have failed"));
    let answer = was_moved(&why(&sessile, &client(number).to_string()), "b0", "b1", "down");
    assert!(answer.contains("backend p/b0 is ejected for 300 s"), "{answer}");
    let plan = without(&sessile, "p/b1", 0);
    assert_eq!(moves(&plan), (number.into(), number.into(), 0), "{plan}");
    assert!(warns(&plan, "\"p/b0\" is ejected") && warns(&plan, "no backend that is left takes"), "{plan}");
    assert_eq!(moves(&without(&sessile, "p/b0", 0)), (number.into(), 0, 0));
}

#[test]
fn a_client_of_a_drain_that_was_forgotten_was_moved_because_of_it() {
    let backends = [Backend::named("b0"), Backend::named("b1")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "drain_deadline = \"1s\"", &addresses)));
    let number = client_at(&sessile, "b0");
    assert!(ask(&sessile, &["drain", "p/b0"]).status.success());
    assert_eq!(event(&sessile, "drain"), "backend p/b0: draining, by command");
    assert_eq!(home(&sessile, number), "b0", "a known client stays");
    let report = why(&sessile, &client(number).to_string());
    assert_eq!((&report["outcome"], &report["backend"]), (&"not_moved".into(), &"b0".into()), "{report}");
    assert!(event(&sessile, "drained").contains("`sessile ready p/b0` ends the drain"));
    assert_eq!(home(&sessile, number), "b1");
    let answer = was_moved(&why(&sessile, &client(number).to_string()), "b0", "b1", "drain");
    assert!(answer.contains("because b0 was drained (") && answer.contains("`sessile ready p/b0` ends"), "{answer}");
    // The backend that is drained can go without harm; without the other one, no backend takes new clients until the
    // drain ends.
    let plan = without(&sessile, "p/b0", 0);
    assert!(moves(&plan) == (number.into(), 0, 0) && !warns(&plan, "no backend that is left takes"), "{plan}");
    let plan = without(&sessile, "p/b1", 0);
    assert_eq!(moves(&plan), (number.into(), number.into(), 0), "{plan}");
    assert!(warns(&plan, "no backend that is left takes new clients now"), "{plan}");
    assert!(ask(&sessile, &["ready", "p/b0"]).status.success());
    event(&sessile, "ready");
    let all = kinds(&sessile);
    assert!(all.iter().map(String::as_str).eq(["start", "drain", "drained", "ready"]), "{all:?}");
}

#[test]
fn a_client_of_a_backend_that_was_removed_was_moved_because_of_the_reload() {
    let backends = [Backend::named("b0"), Backend::named("b1")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &addresses)));
    let number = client_at(&sessile, "b1");
    let refused = sessile.reload("bogus = 1\nworse = 2\n");
    assert_eq!(refused["accepted"], false);
    let text = event(&sessile, "reload_refused");
    assert!(text.starts_with("generation 1 stays in force: ") && text.contains("bogus"), "{text}");
    assert!(text.ends_with(&format!("(and {} more)", refused["problems"].as_array().unwrap().len() - 1)), "{text}");
    assert_eq!(sessile.reload(&(listener("p", "") + &pool("p", "", &addresses[..1])))["accepted"], true);
    assert!(event(&sessile, "reload").starts_with("generation 2: "));
    assert_eq!(home(&sessile, number), "b0");
    let answer = was_moved(&why(&sessile, &client(number).to_string()), "b1", "b0", "removed");
    assert!(answer.contains("b1 has left the pool") && answer.contains("generation 2: "), "{answer}");
}

#[test]
fn a_request_that_failed_is_found_by_its_id_and_so_is_its_connection() {
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let dead = held.local_addr().unwrap().as_socket().unwrap();
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "http = true", &[dead])));
    let response = super::visit(&sessile, 3).get("/", "");
    let id = response.field("x-request-id").expect("an id").to_owned();
    let report = why(&sessile, &id);
    assert_eq!((&report["asked"], &report["client"]), (&"request".into(), &client(3).to_string().into()), "{report}");
    let ended = &report["ended"][0];
    assert_eq!(
        (&ended["ended"], &ended["backend"], &ended["request"]),
        (&"connect_refused".into(), &"b0".into(), &true.into())
    );
    assert!(report["answer"].as_str().unwrap().contains("ended as connect_refused"), "{report}");
    let line = sessile.line("the request", |line| line["request"] == *id);
    let by_connection = why(&sessile, &line["id"].to_string());
    assert_eq!((&by_connection["asked"], &by_connection["ended"]), (&"connection".into(), &report["ended"]));
    assert_eq!(why(&sessile, &client(4).to_string())["outcome"], "not_known");
}
