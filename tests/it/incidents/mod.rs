//! Incidents on stage: for each, `sessile why` says whether a client was moved and why, `sessile events` what happened,
//! and `sessile plan --live --without` what would happen if a backend were removed now.
//!
//! Each answer is read as text and as JSON. Invariant: a client has a loopback address of its own, so that no test sees
//! another one's.

mod backends;
mod cookies;
mod follow;
mod limits;
mod over;
mod without;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Output;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::backend::Backend;
use crate::support::load_support::Client;
use crate::support::sessile::command;
use crate::support::{PATIENCE, Sessile, eventually};
use crate::terminate::client::Talk;

/// Address of a client of these tests.
fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 9, number).into()
}

/// Runs a command that asks the process.
fn ask(sessile: &Sessile, words: &[&str]) -> Output {
    command(words).arg("--socket").arg(sessile.admin()).output().expect("the command runs")
}

/// What the process says of a client: the JSON, after the text was compared with it.
fn why(sessile: &Sessile, what: &str) -> Value {
    let output = ask(sessile, &["why", what, "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {output:?}"));
    let exit = if report["outcome"] == "not_known" { 1 } else { 0 };
    assert_eq!(output.status.code(), Some(exit), "{report}");
    let output = ask(sessile, &["why", what]);
    assert_eq!(output.status.code(), Some(exit), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80 && line.trim().contains(' ')).collect();
    let unbreakable = |line: &&str| line.trim().split(' ').any(|word| word.chars().count() > 60);
    assert!(wide.iter().all(unbreakable), "{text}");
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let answer = report["answer"].as_str().expect("an answer");
    assert!(flat.starts_with(answer), "{text}\n{answer}");
    for one in report["moves"].as_array().expect("moves") {
        let because = one["because"].as_str().expect("a reason");
        assert!(flat.contains(because), "{because}\n{text}");
    }
    report
}

/// Asserts that the last move of a client is this one; the sentence that says why.
fn was_moved(report: &Value, from: &str, to: &str, cause: &str) -> String {
    assert_eq!(report["outcome"], "moved", "{report}");
    let last = report["moves"].as_array().expect("moves").last().expect("a move");
    assert_eq!((&last["from"], &last["to"], &last["cause"]), (&from.into(), &to.into(), &cause.into()), "{report}");
    let answer = report["answer"].as_str().expect("an answer");
    assert!(answer.contains(&format!("was moved from {from} to {to} at ")), "{answer}");
    answer.to_owned()
}

/// Waits for an event of this kind; its text. The command and the admin interface tell the same.
fn event(sessile: &Sessile, kind: &str) -> String {
    let text = eventually(&format!("an event {kind}"), || {
        let page = sessile.json(&format!("/events?kind={kind}"));
        Some(page["events"].as_array()?.last()?["text"].as_str()?.to_owned())
    });
    let output = ask(sessile, &["events", "--kind", kind]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(&format!("{kind} {wanted}")), "{shown}");
    text
}

/// Kinds of all events so far, in order.
fn kinds(sessile: &Sessile) -> Vec<String> {
    let page = sessile.json("/events");
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["kind"].as_str().expect("a word").to_owned()).collect()
}

/// The backend that answers a line of a client.
fn home(sessile: &Sessile, number: u8) -> String {
    let mut client = Client::connect_from(client(number), sessile.address("l"));
    let answer = client.ask("x");
    answer.split(' ').next().expect("a name").to_owned()
}

/// A client of these whose backend is the one of this name.
fn client_at(sessile: &Sessile, backend: &str) -> u8 {
    (1..=250).find(|number| home(sessile, *number) == backend).expect("a client of each backend")
}

/// An HTTP connection of a client to the listener.
fn visit(sessile: &Sessile, number: u8) -> Talk<TcpStream> {
    let address: SocketAddr = sessile.address("l");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(client(number), 0).into()).expect("a loopback address");
    socket.connect(&address.into()).expect("the listener accepts");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Talk::new(stream)
}

/// A backend with HTTP that names itself, and sets a session cookie `SID` for `/login`.
fn application(name: &'static str) -> Backend {
    Backend::serving(move |mut stream| {
        let mut head = Vec::new();
        loop {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let login = head.starts_with(b"GET /login");
            let cookie = if login { format!("Set-Cookie: SID=session-of-{name}; Path=/\r\n") } else { String::new() };
            write!(stream, "HTTP/1.1 200 OK\r\n{cookie}X-Backend: {name}\r\nContent-Length: 0\r\n\r\n")?;
            head.clear();
        }
    })
}
