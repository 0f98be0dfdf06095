//! Learned cookies in the shared store: several real instances, a real redis-server, and its failures.
//!
//! Each instance places in turn over five backends, so that an unknown value reaches another backend four times out of
//! five. Invariant: each response names its backend, and each client compares it with that of its login.

mod away;
mod cluster;
mod explain;
mod header;
mod held;
mod login;
mod moves;
pub mod redis;
pub mod redis_cluster;
mod refusal;
mod ways;

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::Value;

use super::client::Talk;
use super::load::Backends;
use crate::support::backend::{listener, pool};
use crate::support::{PATIENCE, Sessile, eventually};

const BACKENDS: usize = 5;
/// A budget that a slow machine does not exceed.
pub const AMPLE: &str = "1s";

/// An application that sets a session cookie at login.
fn application() -> Backends {
    part_of_application(0, BACKENDS, &Arc::default())
}

/// `count` backends of one application from number `first` on; all share its number of logins.
fn part_of_application(first: usize, count: usize, logins: &Arc<AtomicUsize>) -> Backends {
    let logins = Arc::clone(logins);
    Backends::start(count, None, async move |backend, line, asked| {
        let backend = first + backend;
        let cookie = match asked.path() {
            "/login" => format!("Set-Cookie: SID=secret-{}; Path=/\r\n", logins.fetch_add(1, Relaxed)),
            "/logout" => "Set-Cookie: SID=; Max-Age=0; Path=/\r\n".to_owned(),
            // Sets a value again under another domain, and ends it where it was.
            "/again" => asked.head.cookie("SID").map_or(String::new(), |value| {
                format!("Set-Cookie: SID={value}; Domain=a.test\r\nSet-Cookie: SID=; Max-Age=0; Path=/\r\n")
            }),
            "/long" => format!("Set-Cookie: SID={}; Path=/\r\n", "v".repeat(4097)),
            _ => String::new(),
        };
        if asked.path() == "/events" {
            line.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await?;
            // Lasts until the other side closes.
            return line.end().await.map(|_| false);
        }
        line.send(format!("HTTP/1.1 200 OK\r\n{cookie}X-Backend: b{backend}\r\nContent-Length: 0\r\n\r\n")).await?;
        Ok(true)
    })
}

/// Keys of the table `[store]`.
pub fn store(url: &str, budget: &str) -> String {
    format!("[store]\nkind = \"redis\"\nurl = \"{url}\"\nbudget = \"{budget}\"\n")
}

/// Configuration of an instance with this `[store]`.
fn text(store: &str, backends: &[SocketAddr]) -> String {
    let options = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    store.to_owned() + &listener("p", "") + &pool("p", options, backends)
}

/// A user with a session: the cookie, and the backend that has it.
#[derive(Debug, Clone)]
struct User {
    cookie: String,
    home: String,
}

/// A client connection to one instance.
struct Visitor(Talk<TcpStream>);

impl Visitor {
    fn to(instance: &Sessile) -> Self {
        let stream = TcpStream::connect(instance.address("l")).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self(Talk::new(stream))
    }

    fn login(&mut self) -> User {
        let response = self.0.get("/login", "");
        assert_eq!(response.status, 200);
        let cookie = response.field("set-cookie").expect("a cookie").split(';').next().expect("a pair").to_owned();
        User { cookie, home: response.field("x-backend").expect("a backend").to_owned() }
    }

    /// Sends a request of this user; returns the backend.
    fn ask(&mut self, user: &User) -> String {
        self.get("/", &user.cookie)
    }

    fn get(&mut self, path: &str, cookie: &str) -> String {
        let response = self.0.get(path, &format!("Cookie: {cookie}\r\n"));
        assert_eq!(response.status, 200);
        response.field("x-backend").expect("a backend").to_owned()
    }

    /// Asserts that each user is served by the backend of its session.
    fn finds(&mut self, users: &[User]) {
        let lost: Vec<_> = users.iter().filter(|user| self.ask(user) != user.home).collect();
        assert!(lost.is_empty(), "{} of {} moved: {:?}", lost.len(), users.len(), lost.first());
    }
}

/// The store as `status` of an instance shows it.
fn seen(instance: &Sessile) -> Value {
    instance.json("/store")
}

fn count(instance: &Sessile, kind: &str, outcome: &str) -> u64 {
    seen(instance)["requests"][kind][outcome].as_u64().expect("a number")
}

/// Waits until the circuit breaker has this state.
fn stands(instance: &Sessile, state: &str) {
    eventually(&format!("the store to be {state}"), || (seen(instance)["state"] == state).then_some(()));
}

/// Asserts that each error was the client's own fault.
fn nobody_was_refused(instance: &Sessile) {
    let lines = instance.lines();
    let bad: Vec<_> = lines
        .iter()
        .filter(|line| line["fault"].as_str().is_some_and(|fault| !["none", "client"].contains(&fault)))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}
