//! Pods of a StatefulSet that are replaced one after the other: the record of each vanishes while it terminates, and
//! comes back with another address.
//!
//! Two pools find the same pods, one for users known by their source addresses and one for users known by cookies.
//! Invariants: what is open at a pod ends with the pod and not before; users follow the name of their pod.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use super::dns_pool::{Pods, SERVICE, keys, names, pod};
use super::name_server::NameServer;
use super::users::{Jar, answer, by_source, source};
use crate::support::backend::listener;
use crate::support::load_support::Client;
use crate::support::{PATIENCE, Sessile};

/// Users of each kind.
const USERS: usize = 200;

fn config(server: SocketAddr, keys: &str) -> String {
    let pool = |name: &str, options: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\n{options}\n[pool.check]\nkind = \"off\"\n[pool.discover]\nkind = \"dns\"\n\
             name = \"{SERVICE}\"\n"
        )
    };
    let cookie = format!("http = true\nbalance = \"random\"\ncookie = {{ mode = \"insert\", keys = \"{keys}\" }}");
    format!(
        "[discovery]\nresolvers = [\"{server}\"]\n{}[[listener]]\nname = \"w\"\nbind = \"127.0.0.1:0\"\npool = \"w\"\n{}{}",
        listener("p", ""),
        pool("p", "stick_table = \"1 MiB\""),
        pool("w", &cookie)
    )
}

/// A request of which the last byte is not sent yet.
struct OpenRequest(TcpStream);

impl OpenRequest {
    fn begin(front: SocketAddr, cookie: &str) -> Self {
        let mut stream = TcpStream::connect(front).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\nCookie: {cookie}\r\nContent-Length: 2\r\n\r\n1");
        stream.write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    /// Sends the rest, and returns which pod has answered.
    fn finish(mut self) -> String {
        self.0.write_all(b"2").unwrap();
        answer(&mut BufReader::new(&self.0), |_| ())
    }
}

/// The users of both kinds, and the pod of each.
struct Site {
    sessile: Sessile,
    jar: Jar,
    by_source: Vec<String>,
    by_cookie: Vec<String>,
}

impl Site {
    fn start(server: SocketAddr, pods: &[&str], keys: &str) -> Self {
        let sessile = Sessile::start(&config(server, keys));
        let mut site = Self { sessile, jar: Jar::new(USERS), by_source: Vec::new(), by_cookie: Vec::new() };
        site.has(pods);
        (site.by_source, site.by_cookie) = site.homes();
        site
    }

    fn homes(&mut self) -> (Vec<String>, Vec<String>) {
        let by_cookie = self.jar.homes(self.sessile.address("w"), 0..USERS);
        (by_source(self.sessile.address("l"), 0..USERS), by_cookie)
    }

    /// Waits until both pools have found these pods.
    fn has(&self, pods: &[&str]) {
        let twice: Vec<_> = pods.iter().flat_map(|pod| [*pod; 2]).collect();
        names(&self.sessile, &twice);
    }

    /// Every user is where it is expected.
    fn no_user_has_moved(&mut self, when: &str) {
        let expected = (self.by_source.clone(), self.by_cookie.clone());
        assert!(self.homes() == expected, "{when}");
    }

    /// Users of a pod follow it to its next life.
    fn follow(&mut self, name: &str) {
        let pod = format!("{name}@1");
        let of_pod = self.by_source.iter_mut().chain(&mut self.by_cookie).filter(|home| **home == pod);
        of_pod.for_each(|home| *home = format!("{name}@2"));
    }
}

#[test]
fn a_rolling_replacement_cuts_no_session_before_its_pod_ends_and_moves_no_user() {
    let mut pods = Pods::start(5);
    let all: Vec<_> = pods.0.keys().cloned().collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let said = pods.say(&all);
    let server = NameServer::start(move |_, _| said.clone());
    let keys = keys();
    let mut site = Site::start(server.address, &all, keys.path().to_str().unwrap());
    let digest = site.sessile.status()["digest"].clone();
    for (turn, name) in all.iter().enumerate() {
        let life = format!("{name}@1");
        let user_of = |homes: &[String]| homes.iter().position(|home| *home == life).expect("every pod has users");
        let mut session = Client::connect_from(source(user_of(&site.by_source)), site.sessile.address("l"));
        assert_eq!(session.ask("before"), format!("{life} before"));
        let cookie = site.jar.cookie(user_of(&site.by_cookie)).to_owned();
        let [in_time, to_the_end] = [0, 1].map(|_| OpenRequest::begin(site.sessile.address("w"), &cookie));

        // Its record goes; the pod serves on while it terminates, and gets no new users.
        let others: Vec<_> = all.iter().filter(|other| *other != name).copied().collect();
        let said = pods.say(&others);
        server.say(move |_, _| said.clone());
        site.has(&others);
        assert_eq!(session.ask("during"), format!("{life} during"));
        assert_eq!(in_time.finish(), life);
        site.no_user_has_moved(&format!("while {name} terminates"));
        let new = by_source(site.sessile.address("l"), 1_000 * (turn + 1)..1_000 * (turn + 1) + 40);
        assert!(new.iter().all(|home| *home != life), "{new:?}");
        let new = Jar::new(40).homes(site.sessile.address("w"), 0..40);
        assert!(new.iter().all(|home| *home != life), "{new:?}");

        // It returns at another address, and the one before ends.
        let old = pods.0.insert((*name).to_owned(), pod(&format!("{name}@2")));
        let said = pods.say(&all);
        server.say(move |_, _| said.clone());
        site.has(&all);
        assert_eq!(session.ask("still"), format!("{life} still"), "a session ends with its pod");
        site.follow(name);
        site.no_user_has_moved(&format!("users of {name} follow its name"));
        assert_eq!(to_the_end.finish(), life, "a request that has begun ends where it began");
        drop(old);
    }
    assert_eq!(site.sessile.status()["digest"], digest);
    assert_eq!(site.sessile.sum("sessile_sticky_breaks_total", &[]), 0.0);
}
