//! `haproxy-dns`: a client has one backend, backends follow the addresses of a name, and few clients move with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use hickory_resolver::proto::op::ResponseCode;

use super::backend::Web;
use super::client::{connect_from, get};
use super::{Proxy, Site, host, with_quick_checks};
use crate::discovery::name_server::{NameServer, Say, a};
use crate::support::eventually;
use crate::support::program::free_address;

const FILE: &str = "haproxy-dns";
const FRONT: &str = "127.0.0.1:33540";
const NAME: &str = "chat.default.svc.cluster.local";
const CLIENTS: u8 = 60;

/// Where each client gets; `None`: there is no backend for one of them.
fn homes(proxy: &Proxy) -> Option<BTreeMap<u8, String>> {
    let visit = |number| {
        let mut stream = connect_from(Ipv4Addr::new(127, 1, 5, number), proxy.at(FRONT)).ok()?;
        Some((number, get(&mut stream).ok()?.backend().to_owned()))
    };
    (1..=CLIENTS).map(visit).collect()
}

/// Addresses that the backends have here, all with one port.
fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(host(Ipv4Addr::new(10, 0, 5, last).into()), port)
}

/// What a server says of a name with these addresses.
fn says(lasts: &'static [u8]) -> impl FnMut(&str, hickory_resolver::proto::rr::RecordType) -> Say + Send + 'static {
    move |asked, _| {
        let record = |last: &u8| {
            let std::net::IpAddr::V4(ip) = address(*last, 0).ip() else { panic!("{last}") };
            a(NAME, ip.octets(), 1)
        };
        match lasts {
            [] => Say::Nothing(ResponseCode::NXDomain, Some(1)),
            _ if asked == NAME => Say::Records(lasts.iter().map(record).collect(), vec![]),
            _ => Say::Nothing(ResponseCode::NXDomain, Some(60)),
        }
    }
}

#[test]
fn backends_follow_a_name_and_few_clients_move() {
    let (site, port) = (Site::new(), free_address().port());
    let _backends = [1, 2, 3].map(|last| Web::plain(&format!("chat{last}"), address(last, port)));
    let server = NameServer::start(says(&[2, 1]));
    let change = |text: &str| {
        let ours = text.lines().map(|line| match line.starts_with("resolvers = ") {
            true => format!("resolvers = [\"{}\"]\n", server.address),
            false => format!("{line}\n"),
        });
        let text = with_quick_checks(&ours.collect::<String>());
        let text = text.replace("parse-resolv-conf", &format!("nameserver one {}", server.address));
        text.replace("port = 8080", &format!("port = {port}")).replace(":8080", &format!(":{port}"))
    };
    for proxy in site.both("backends_follow_a_name_and_few_clients_move", FILE, change) {
        // In whatever order a server has them.
        let becomes = |lasts: &'static [u8], names: &[&str]| {
            server.say(says(lasts));
            eventually(&format!("{}: clients at {names:?}", proxy.name), || {
                let homes = homes(&proxy)?;
                let at: BTreeSet<_> = homes.values().map(String::as_str).collect();
                (at == names.iter().copied().collect()).then_some(homes)
            })
        };
        let two = becomes(&[2, 1], &["chat1", "chat2"]);
        assert_eq!(becomes(&[1, 2], &["chat1", "chat2"]), two, "{}", proxy.name);
        let three = becomes(&[3, 1, 2], &["chat1", "chat2", "chat3"]);
        let moved: Vec<_> = two.iter().filter(|(number, home)| three[*number] != **home).collect();
        assert!(moved.iter().all(|(number, _)| three[*number] == "chat3"), "{}: {moved:?} {three:?}", proxy.name);
        assert!(moved.len() < usize::from(CLIENTS) * 3 / 5, "{}: {} moved", proxy.name, moved.len());
        assert_eq!(becomes(&[1, 2], &["chat1", "chat2"]), two, "{}", proxy.name);
        // A name without an address is no reason to lose the backends.
        server.say(says(&[]));
        if let Some(sessile) = proxy.ours() {
            sessile.says("no backend");
        }
        assert_eq!(homes(&proxy).as_ref(), Some(&two), "{}", proxy.name);
        server.say(says(&[2, 1]));
    }
}
