//! `haproxy-sni`: names lead to their backends, unread; clients stay at theirs; a backend learns who comes.
//!
//! The original runs without discovery: its backends stand in the file, as ours do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::Ipv4Addr;

use super::backend::Web;
use super::client::{ask, connect_from, get, tls};
use super::{Proxy, Site, with_quick_checks};
use crate::support::has;

const FILE: &str = "haproxy-sni";
const TLS: &str = "127.0.0.1:33514";
const BACKENDS: [&str; 3] = ["10.0.3.1:443", "10.0.3.2:443", "10.0.3.3:443"];

struct Stage {
    proxies: Vec<Proxy>,
    site: Site,
    _backends: Vec<Web>,
}

impl Stage {
    fn start(test: &str) -> Option<Self> {
        if !has(test, "curl") {
            return None;
        }
        let site = Site::new();
        let mut backends = vec![Web::tls("tenants", site.backend("10.0.0.1:443"), site.path())];
        for (number, written) in (1..).zip(BACKENDS) {
            backends.push(Web::tls(&format!("t{number}"), site.backend(written), site.path()));
        }
        let server = |(number, written)| format!("server t{number} {} check\n", site.backend(written));
        let servers: String = (1..).zip(BACKENDS).map(server).collect();
        let proxies = site.both(test, FILE, |text| {
            let discovered = "server-template t 3 _https._tcp.example.org resolvers dns check";
            with_quick_checks(&text.replace(discovered, &servers))
        });
        Some(Self { proxies, site, _backends: backends })
    }
}

#[test]
fn a_name_leads_to_its_backends_however_it_is_written() {
    let Some(stage) = Stage::start("a_name_leads_to_its_backends_however_it_is_written") else { return };
    for proxy in &stage.proxies {
        for (name, expected) in [
            ("a.example.org", "t"),
            ("A.Example.org", "t"),
            ("www.example.org", "t"),
            ("tenant-x.example.org", "t"),
            ("tenant-1.example.org", "tenants"),
            ("tenant-2.example.org", "tenants"),
            ("TENANT-3.example.org", "tenants"),
        ] {
            for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
                let arguments = [version, &["--interface", "127.0.4.5"]].concat();
                let got = ask(&stage.site, proxy.at(TLS), &arguments, &format!("https://{name}/"));
                let is_expected = expected == got.backend() || expected == "t" && got.backend().len() == 2;
                assert!(is_expected, "{} {name}: {got:?}", proxy.name);
                assert_eq!(got.seen("sni"), Some(&*name.to_ascii_lowercase()), "{}", proxy.name);
                // The address of the client: by the header in both, and as that of the peer in the original alone.
                let announced = if expected == "tenants" { "127.0.4.5" } else { "nothing" };
                assert_eq!(got.seen("announced"), Some(announced), "{} {name}", proxy.name);
                let is_transparent = got.seen("peer") == Some("127.0.4.5");
                assert_eq!(is_transparent, expected == "tenants" && !proxy.is_ours(), "{} {name}", proxy.name);
            }
        }
    }
}

/// The key is the address: a session of TLS 1.3 has no id that a balancer could read.
#[test]
fn a_client_takes_its_turn_and_comes_back_to_its_backend() {
    let Some(stage) = Stage::start("a_client_takes_its_turn_and_comes_back_to_its_backend") else { return };
    let visit = |proxy: &Proxy, number| {
        let stream = connect_from(Ipv4Addr::new(127, 1, 4, number), proxy.at(TLS)).unwrap();
        let mut stream = tls(stage.site.path(), stream, "a.example.org", "").unwrap();
        get(&mut stream).unwrap().backend().to_owned()
    };
    for proxy in &stage.proxies {
        let homes: BTreeMap<_, _> = (1..=9).map(|number| (number, visit(proxy, number))).collect();
        let all: BTreeSet<_> = homes.values().cloned().collect();
        assert_eq!(all, BTreeSet::from(["t1", "t2", "t3"].map(str::to_owned)), "{}", proxy.name);
        if proxy.is_ours() {
            let shares: Vec<_> = all.iter().map(|name| homes.values().filter(|home| *home == name).count()).collect();
            assert_eq!(shares, [3, 3, 3]);
            assert!(homes.iter().all(|(number, home)| visit(proxy, *number) == *home), "{homes:?}");
        }
    }
}

#[test]
fn what_is_not_tls_goes_to_the_default() {
    let Some(stage) = Stage::start("what_is_not_tls_goes_to_the_default") else { return };
    // In the original after five seconds.
    let proxy = &stage.proxies[0];
    let mut stream = connect_from(Ipv4Addr::LOCALHOST, proxy.at(TLS)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    drop(stream);
    let line = proxy.ours().unwrap().line("a connection", |line| line["kind"] == "connection");
    assert_eq!((&line["pool"], &line["sni"]), (&"a".into(), &serde_json::Value::Null), "{line}");
    assert!(line["backend"].is_string(), "{line}");
}
