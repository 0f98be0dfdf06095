//! Session ids that servers make, in a response header, in the path and in `;jsessionid=`: every session stays at its
//! backend over three instances, while a backend is added, the file is reloaded and an instance restarts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Tally;
use super::carriers::{self, Way};
use crate::support::backend::pool;
use crate::support::load_support::alone;
use crate::support::program::free_local_address;
use crate::support::{Sessile, size};
use crate::terminate::load::Backends;
use crate::terminate::store::redis::Redis;
use crate::terminate::store::{AMPLE, store};

/// Sessions of each test; with `SESSILE_TEST_SESSIONS` as many as that says.
const SESSIONS: usize = 3_000;
const SESSIONS_VARIABLE: &str = "SESSILE_TEST_SESSIONS";
const BACKENDS: usize = 5;

/// An application that makes ids: it returns them in a header, and as a link with its own name behind the id.
fn application() -> Backends {
    let ids = Arc::new(AtomicUsize::new(0));
    Backends::start(BACKENDS, None, async move |backend, line, asked| {
        let begins = asked.path() == "/new" && asked.head.field("mcp-session-id").is_none();
        let made = match begins {
            true => {
                let id = format!("{:08x}", ids.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b1));
                format!("Mcp-Session-Id: {id}\r\nX-Link: /list;jsessionid={id}.b{backend}/all\r\n")
            }
            false => String::new(),
        };
        line.send(format!("HTTP/1.1 200 OK\r\n{made}X-Backend: b{backend}\r\nContent-Length: 0\r\n\r\n")).await?;
        Ok(true)
    })
}

fn new_session(_: usize) -> String {
    "POST /new HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n".into()
}

const BY_HEADER: Way = Way {
    begin: new_session,
    id: |head| head.field("mcp-session-id").map(str::to_owned),
    go_on: |id, hop| format!("GET /mcp?hop={hop} HTTP/1.1\r\nHost: a.test\r\nMcp-Session-Id: {id}\r\n"),
    begins_at_home: true,
};

const BY_PATH: Way = Way {
    id: |head| head.field("mcp-session-id").map(|id| format!("/carts/{id}")),
    go_on: |id, hop| format!("GET {id}/items/{hop}?page={hop} HTTP/1.1\r\nHost: a.test\r\n"),
    begins_at_home: false,
    ..BY_HEADER
};

const BY_PARAMETER: Way = Way {
    id: |head| head.field("x-link").map(str::to_owned),
    go_on: |id, hop| format!("GET {id}?page={hop} HTTP/1.1\r\nHost: a.test\r\n"),
    begins_at_home: true,
    ..BY_HEADER
};

/// The parameter as a key: the id alone decides, and the first backend that gets it has it.
const BY_PARAMETER_KEY: Way = Way { begins_at_home: false, ..BY_PARAMETER };

/// Three instances with one store, at addresses that stay.
struct Fleet {
    instances: Vec<Sessile>,
    addresses: Vec<SocketAddr>,
    options: String,
    redis: Redis,
    backends: Backends,
}

/// A change in the middle of a load.
type Step<'s> = &'s dyn Fn(&mut Fleet);

impl Fleet {
    /// Starts it with these keys of the pool, and so many backends at first; `None`: there is no Redis.
    fn start(test: &str, options: &str, backends: usize) -> Option<Self> {
        let redis = Redis::start(test)?;
        let addresses: Vec<_> = (0..3).map(|_| free_local_address()).collect();
        let options = format!("http = true\n{options}\n");
        let mut fleet = Self { instances: Vec::new(), addresses, options, redis, backends: application() };
        fleet.instances = (0..3).map(|number| Sessile::start(&fleet.text(number, backends, ""))).collect();
        Some(fleet)
    }

    /// The file of an instance, with so many backends; `more`: further keys of the pool.
    fn text(&self, instance: usize, backends: usize, more: &str) -> String {
        format!(
            "stop_deadline = \"2s\"\n[log]\nformat = \"json\"\nconnections = false\n{}\
             [[listener]]\nname = \"l\"\nbind = \"{}\"\npool = \"p\"\n{}",
            store(&self.redis.url(), AMPLE),
            self.addresses[instance],
            pool("p", &format!("{}{more}", self.options), &self.backends.addresses[..backends]),
        )
    }

    fn reload(&self, backends: usize, more: &str) {
        for (number, instance) in self.instances.iter().enumerate() {
            let verdict = instance.reload(&self.text(number, backends, more));
            assert_eq!(verdict["accepted"], true, "{verdict}");
        }
    }

    fn restart(&mut self, instance: usize) {
        self.instances[instance].signal(Signal::TERM);
        assert!(self.instances[instance].wait().success());
        self.instances[instance].restart();
    }

    /// Has all sessions of a load served while backends come and one instance after the other restarts.
    fn hold(mut self, way: Way, backends: [usize; 2]) {
        let (sessions, tally, began) = (size(SESSIONS_VARIABLE, SESSIONS), Arc::new(Tally::default()), Instant::now());
        let load = carriers::start(way, self.addresses.clone(), sessions, &tally);
        let steps: [(usize, Step<'_>); 5] = [
            (2, &|fleet| fleet.reload(backends[0], "connect_timeout = \"3s\"\n")),
            (3, &|fleet| fleet.reload(backends[1], "connect_timeout = \"3s\"\n")),
            (5, &|fleet| fleet.restart(0)),
            (6, &|fleet| fleet.restart(1)),
            (8, &|fleet| fleet.reload(backends[1], "")),
        ];
        for (tenth, step) in steps {
            while tally.begun() < sessions * tenth / 10 && !load.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            step(&mut self);
        }
        load.join().expect("sessions that are served");
        let breaks = |instance: &Sessile| instance.sum("sessile_sticky_breaks_total", &["pool=\"p\""]);
        let lost: f64 = self.instances.iter().map(breaks).sum();
        let (requests, broken) = (tally.requests.load(Relaxed), tally.broken.load(Relaxed));
        println!("{sessions} sessions, {requests} requests, {broken} broken in {:.1?}", began.elapsed());
        assert_eq!((broken, lost), (0, 0.0), "of {requests} requests");
    }
}

#[test]
fn ids_of_servers_in_a_header_hold_over_three_instances() {
    let _alone = alone();
    let options = "balance = \"round_robin\"\ncookie = { mode = \"learn\", header = \"Mcp-Session-Id\" }";
    let fleet = Fleet::start("ids_of_servers_in_a_header_hold_over_three_instances", options, 4);
    fleet.into_iter().for_each(|fleet| fleet.hold(BY_HEADER, [4, 5]));
}

#[test]
fn ids_of_servers_in_the_path_hold_over_three_instances() {
    let _alone = alone();
    let fleet = Fleet::start("ids_of_servers_in_the_path_hold_over_three_instances", "key = \"path:2\"", 5);
    fleet.into_iter().for_each(|fleet| fleet.hold(BY_PATH, [5, 5]));
}

#[test]
fn ids_of_servers_in_a_parameter_of_the_path_hold_over_three_instances() {
    let _alone = alone();
    let test = "ids_of_servers_in_a_parameter_of_the_path_hold_over_three_instances";
    let fleet = Fleet::start(test, "key = \"path_parameter:jsessionid or source\"", 5);
    fleet.into_iter().for_each(|fleet| fleet.hold(BY_PARAMETER_KEY, [5, 5]));
}

#[test]
fn names_of_backends_in_a_parameter_of_the_path_hold_over_three_instances() {
    let _alone = alone();
    let test = "names_of_backends_in_a_parameter_of_the_path_hold_over_three_instances";
    let cookie =
        "cookie = { mode = \"route\", name = \"JSESSIONID\", separator = \".\", path_parameter = \"jsessionid\" }";
    let fleet = Fleet::start(test, &format!("balance = \"round_robin\"\n{cookie}"), 4);
    fleet.into_iter().for_each(|fleet| fleet.hold(BY_PARAMETER, [4, 5]));
}
