//! Clients that are known by a cookie go to the siblings of their backend's location when it is down, all of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::backend::{Backend, listener, pool};
use crate::support::program::free_local_address;
use crate::support::{PATIENCE, Sessile, eventually};
use crate::terminate::client::Talk;

/// Locations of the backends `b0` to `b5`.
const LOCATIONS: [&str; 6] = ["v1/a", "v1/a", "v1/b", "v1/b", "v2/a", "v2/b"];
const USERS: usize = 120;
const CHECK: &str = "kind = \"tcp\"\ninterval = \"40ms\"\ntimeout = \"2s\"\nrise = 1\nfall = 1\n";

/// A backend with sessions, which sets a cookie with its name in it for a request that has none.
fn application(number: usize, address: SocketAddr) -> Backend {
    Backend::on(address, move |mut stream: TcpStream| {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut line, mut user, mut known) = (String::new(), String::new(), false);
            while reader.read_line(&mut line)? > 0 && line != "\r\n" {
                user = line.strip_prefix("X-User: ").map_or(user, |name| name.trim().to_owned());
                known |= line.starts_with("Cookie: ") && line.contains("SID=");
                line.clear();
            }
            if line.is_empty() {
                return Ok(());
            }
            let cookie = if known { String::new() } else { format!("Set-Cookie: SID={user}.b{number}; Path=/\r\n") };
            let head = format!("HTTP/1.1 200 OK\r\n{cookie}X-Backend: b{number}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes())?;
        }
    })
}

struct Site {
    sessile: Sessile,
    backends: Vec<Option<Backend>>,
    jars: Vec<BTreeMap<String, String>>,
}

impl Site {
    fn start(options: &str, keys: &std::path::Path) -> Self {
        let addresses: Vec<_> = LOCATIONS.iter().map(|_| free_local_address()).collect();
        let backends =
            addresses.iter().enumerate().map(|(number, address)| Some(application(number, *address))).collect();
        let mut text = listener("p", "") + &pool("p", &format!("http = true\n{options}\n"), &addresses);
        for (number, place) in LOCATIONS.iter().enumerate() {
            let name = format!("name = \"b{number}\"\n");
            text = text.replace(&name, &format!("{name}location = \"{place}\"\n"));
        }
        let text = text.replace("kind = \"off\"\n", CHECK).replace("$KEYS", &keys.display().to_string());
        let site = Self { sessile: Sessile::start(&text), backends, jars: vec![BTreeMap::new(); USERS] };
        site.settle();
        site
    }

    /// Waits until checks have seen which backends live.
    fn settle(&self) {
        eventually("checks to have seen all backends", || {
            let status = self.sessile.status();
            let mut seen = status["pools"][0]["backends"].as_array()?.iter().zip(&self.backends);
            seen.all(|(backend, living)| (backend["state"] == "down") == living.is_none()).then_some(())
        });
    }

    fn kill(&mut self, number: usize) {
        self.backends[number] = None;
        self.settle();
    }

    /// Where each user is served, each with the cookies that it has got.
    fn homes(&mut self) -> Vec<String> {
        let stream = TcpStream::connect(self.sessile.address("l")).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut talk = Talk::new(stream);
        let ask = |(user, jar): (usize, &mut BTreeMap<String, String>)| {
            let cookies: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let cookies = if jar.is_empty() { String::new() } else { format!("Cookie: {}\r\n", cookies.join("; ")) };
            let response = talk.get("/", &format!("X-User: user{user}\r\n{cookies}"));
            assert_eq!(response.status, 200);
            for line in response.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie: ")) {
                let pair = line.split_once(": ").and_then(|(_, rest)| rest.split(';').next()?.split_once('='));
                let (name, value) = pair.expect("a cookie");
                jar.insert(name.to_owned(), value.to_owned());
            }
            response.field("x-backend").expect("a backend").to_owned()
        };
        self.jars.iter_mut().enumerate().map(ask).collect()
    }
}

#[test]
fn users_known_by_a_cookie_go_to_the_siblings_of_a_backend_that_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("cookie.keys");
    std::fs::write(&keys, "00112233445566778899aabbccddeeff".repeat(2) + "\n").unwrap();
    for cookie in [
        "mode = \"insert\", keys = \"$KEYS\"",
        "mode = \"learn\", name = \"SID\"",
        "mode = \"prefix\", name = \"SID\"",
        "mode = \"route\", name = \"SID\"",
    ] {
        for balance in ["round_robin", "least_connections", "hash"] {
            let key = if balance == "hash" { "key = \"header:X-User\"\n" } else { "" };
            let options = format!("balance = \"{balance}\"\n{key}cookie = {{ {cookie} }}");
            let mut site = Site::start(&options, &keys);
            let mut before = site.homes();
            assert_eq!(site.homes(), before, "{options}");
            // The nearest that live, as one after the other dies.
            for (dead, siblings) in [(0, &["b1"][..]), (1, &["b2", "b3"])] {
                site.kill(dead);
                let after = site.homes();
                let from = format!("b{dead}");
                assert!(before.contains(&from), "{options}");
                for (before, after) in before.iter().zip(&after) {
                    let is_right = if *before == from { siblings.contains(&after.as_str()) } else { before == after };
                    assert!(is_right, "{options}: {before} died or not, and {after} serves");
                }
                before = after;
            }
        }
    }
}
