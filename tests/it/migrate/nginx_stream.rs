//! `nginx-stream`: announced clients by name and network, kept by their address; limits, weights, a standby.
//!
//! The original runs without transparent sources, for which announced clients would have to be on this machine.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpStream};

use rustls::{ClientConnection, StreamOwned};

use super::backend::Web;
use super::client::{Answer, connect_from, get, is_ended, tls};
use super::{Proxy, Site};
use crate::support::eventually;

const FILE: &str = "nginx-stream";
const TLS: &str = "127.0.0.1:33520";
/// Name and address of each backend.
const BACKENDS: [(&str, &str); 6] = [
    ("shop1", "10.0.0.1:443"),
    ("shop2", "10.0.0.2:443"),
    ("shop3", "10.0.0.3:443"),
    ("api1", "10.0.1.1:443"),
    ("web1", "10.0.2.1:443"),
    ("web2", "10.0.2.2:443"),
];

struct Stage {
    proxies: Vec<Proxy>,
    site: Site,
    backends: BTreeMap<&'static str, Web>,
}

impl Stage {
    fn start(test: &str) -> Self {
        let site = Site::new();
        let start = |(name, written)| (name, Web::tls(name, site.backend(written), site.path()));
        let backends = BACKENDS.into_iter().map(start).collect();
        let proxies = site.both(test, FILE, |text| {
            // The balancer in front is on this machine.
            let text = text.replace("set_real_ip_from 10.0.0.0/8", "set_real_ip_from 127.0.0.0/8");
            let text = text.replace("trust = \"10.0.0.0/8\"", "trust = \"127.0.0.0/8\"");
            text.replace("proxy_bind $remote_addr transparent;", "")
        });
        Self { proxies, site, backends }
    }

    fn stop(&mut self, name: &str) {
        self.backends.remove(name).expect("it runs");
    }

    /// A connection of a client that the balancer in front has announced.
    fn open(
        &self,
        proxy: &Proxy,
        client: &str,
        name: &str,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let stream = connect_from(Ipv4Addr::LOCALHOST, proxy.at(TLS))?;
        tls(self.site.path(), stream, name, &format!("PROXY TCP4 {client} 10.9.9.9 4711 443\r\n"))
    }

    fn visit(&self, proxy: &Proxy, client: &str, name: &str) -> std::io::Result<Answer> {
        get(&mut self.open(proxy, client, name)?)
    }

    fn home(&self, proxy: &Proxy, client: &str) -> String {
        self.visit(proxy, client, "shop.example.org").unwrap().backend().to_owned()
    }
}

fn clients() -> impl Iterator<Item = String> {
    (1..=60).map(|number| format!("10.7.{number}.1"))
}

#[test]
fn names_lead_to_upstreams_which_learn_of_announced_clients() {
    let stage = Stage::start("names_lead_to_upstreams_which_learn_of_announced_clients");
    for proxy in &stage.proxies {
        for (name, backends) in [
            ("shop.example.org", &["shop1", "shop2"][..]),
            ("eu.shop.example.org", &["shop1", "shop2"]),
            ("api-1.example.org", &["api1"]),
            ("api-3.example.org", &["api1"]),
            ("api-x.example.org", &["web1"]),
            ("www.example.org", &["web1"]),
        ] {
            for client in ["10.1.2.3", "10.200.0.9"] {
                let got = stage.visit(proxy, client, name).unwrap();
                assert!(backends.contains(&got.backend()), "{} {name}: {got:?}", proxy.name);
                let seen = (got.seen("announced"), got.seen("sni"));
                assert_eq!(seen, (Some(client), Some(name)), "{}", proxy.name);
            }
            let denied = stage.visit(proxy, "192.0.2.9", name);
            assert!(denied.is_err(), "{} {name}: {denied:?}", proxy.name);
        }
    }
}

#[test]
fn a_client_of_the_shop_keeps_its_backend_by_the_announced_address() {
    let mut stage = Stage::start("a_client_of_the_shop_keeps_its_backend_by_the_announced_address");
    let mut homes = Vec::new();
    for proxy in &stage.proxies {
        let home = |client: String| (client.clone(), stage.home(proxy, &client));
        let first: BTreeMap<_, _> = clients().map(home).collect();
        assert!(first.iter().all(|(client, home)| stage.home(proxy, client) == *home), "{}", proxy.name);
        // Weights are 1 and 5.
        let at_first = first.values().filter(|home| *home == "shop1").count();
        assert!((1..=25).contains(&at_first), "{}: {at_first} of 60 at shop1", proxy.name);
        homes.push(first);
    }

    // A backend that is gone: its clients go on at the other, and all others stay.
    stage.stop("shop1");
    for (proxy, homes) in stage.proxies.iter().zip(&homes) {
        assert!(homes.keys().all(|client| stage.home(proxy, client) == "shop2"), "{}", proxy.name);
    }
    // The standby of ours: nginx has none beside a hash.
    stage.stop("shop2");
    assert_eq!(stage.home(&stage.proxies[0], "10.7.1.1"), "shop3");
}

#[test]
fn a_backend_that_is_marked_down_is_never_used() {
    let mut stage = Stage::start("a_backend_that_is_marked_down_is_never_used");
    stage.stop("web1");
    for proxy in &stage.proxies {
        for _ in 0..5 {
            let got = stage.visit(proxy, "10.1.2.3", "www.example.org");
            assert!(got.is_err(), "{}: {got:?}", proxy.name);
        }
    }
}

#[test]
fn one_announced_client_has_twenty_connections_and_no_more() {
    let stage = Stage::start("one_announced_client_has_twenty_connections_and_no_more");
    for proxy in &stage.proxies {
        let open = |client| stage.open(proxy, client, "www.example.org");
        let mut held: Vec<_> = (0..20).map(|_| open("10.1.2.3").unwrap()).collect();
        assert!(open("10.1.2.3").is_err(), "{}", proxy.name);
        assert!(open("10.1.2.4").is_ok(), "{}", proxy.name);
        assert!(held.iter_mut().all(|stream| get(stream).is_ok()), "{}", proxy.name);
        held.pop();
        eventually("another place", || open("10.1.2.3").ok());
    }
}

#[test]
fn a_peer_without_a_header_is_closed() {
    let stage = Stage::start("a_peer_without_a_header_is_closed");
    for proxy in &stage.proxies {
        let stream = connect_from(Ipv4Addr::LOCALHOST, proxy.at(TLS)).unwrap();
        let raw = stream.try_clone().unwrap();
        assert!(tls(stage.site.path(), stream, "www.example.org", "").is_err(), "{}", proxy.name);
        assert!(is_ended(raw), "{}", proxy.name);
    }
}
