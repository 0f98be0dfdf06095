//! Looks at DNS: what a real name server has, and what a hostile one says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Record, RecordType};
use sessile::config::{DnsIdentity, DnsName, DnsRecords};
use sessile::discovery::dns::{DnsSource, Resolver};
use sessile::discovery::found::{Found, Reading};
use tokio::runtime::Runtime;

use super::knot::{Knot, pods};
use super::name_server::{NameServer, Say, a, aaaa, cname, srv};
use crate::support::rng::Rng;

const SERVICE: &str = "_http._tcp.web.example";
const BY_TARGET: DnsRecords = DnsRecords::Services(DnsIdentity::Target);

/// A source, and the runtime that its looks run on.
struct Looker {
    runtime: Runtime,
    source: DnsSource,
}

impl Looker {
    fn new(servers: &[SocketAddr], name: &str, records: DnsRecords) -> Self {
        let name = DnsName { name: name.to_owned(), records };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, source: DnsSource::new(name, 1024, Arc::new(Resolver::new(servers.to_vec()))) }
    }

    fn look(&self) -> Reading {
        self.runtime.block_on(self.source.look())
    }

    /// The backends of a look that finds some.
    fn set(&self) -> (Vec<Found>, Duration) {
        match self.look() {
            Reading::Set { found, valid_for } => (found, valid_for),
            other => panic!("{other:?}"),
        }
    }

    /// Names and addresses of a look that finds some.
    fn backends(&self) -> Vec<String> {
        self.set().0.iter().map(|one| format!("{} {}", one.name, one.address)).collect()
    }

    /// The words of a look that failed.
    fn why(&self) -> String {
        match self.look() {
            Reading::Failed { why } => why,
            other => panic!("{other:?}"),
        }
    }
}

/// A server that has these records of any name, each under its owner, and none beside.
fn has(records: Vec<Record>) -> impl FnMut(&str, RecordType) -> Say + Send + 'static {
    move |asked, kind| {
        let owned = |record: &&Record| record.name == super::name_server::name(asked) && record.record_type() == kind;
        let own: Vec<_> = records.iter().filter(owned).cloned().collect();
        if own.is_empty() { Say::Nothing(ResponseCode::NoError, Some(20)) } else { Say::Records(own, vec![]) }
    }
}

#[test]
fn pods_of_a_real_name_server_come_and_go_by_name() {
    let Some(knot) = Knot::start("pods_of_a_real_name_server_come_and_go_by_name", &pods(3)) else { return };
    let looker = Looker::new(&[knot.address], SERVICE, BY_TARGET);
    let three = ["web-0 10.0.0.1:8080", "web-1 10.0.0.2:8080", "web-2 10.0.0.3:8080"];
    assert_eq!(looker.backends(), three);
    assert_eq!(looker.set().1, Duration::from_secs(30));
    knot.set(&pods(10));
    let ten = looker.backends();
    assert_eq!((ten.len(), &ten[..3]), (10, &three.map(str::to_owned)[..]));
    knot.set(&pods(3));
    assert_eq!(looker.backends(), three);
    knot.set("");
    assert_eq!(looker.look(), Reading::Empty { valid_for: Duration::from_secs(7) });
}

#[test]
fn a_thousand_records_come_by_tcp_and_more_than_the_most_are_refused() {
    let test = "a_thousand_records_come_by_tcp_and_more_than_the_most_are_refused";
    let Some(knot) = Knot::start(test, &pods(1000)) else { return };
    let looker = Looker::new(&[knot.address], SERVICE, BY_TARGET);
    let (found, _) = looker.set();
    assert_eq!(found.len(), 1000);
    assert!(found.is_sorted_by(|a, b| a.name < b.name));
    knot.set(&pods(1025));
    assert_eq!(looker.why(), "the answer has 1025 backends; the most is 1024 (max_backends)");
}

#[test]
fn a_real_name_server_leads_through_aliases() {
    let chain = "_http._tcp.web 9 CNAME _http._tcp.blue\n_http._tcp.blue SRV 0 0 80 pod.blue\n\
                 pod.blue 11 CNAME pod.green\npod.green A 10.0.0.1\nfront CNAME middle\n\
                 middle CNAME back\nback A 10.0.0.2\nback A 10.0.0.3\nends CNAME nowhere";
    let Some(knot) = Knot::start("a_real_name_server_leads_through_aliases", chain) else { return };
    let services = Looker::new(&[knot.address], SERVICE, BY_TARGET);
    assert_eq!(services.backends(), ["pod 10.0.0.1:80"]);
    assert_eq!(services.set().1, Duration::from_secs(9));
    let addresses = |name| Looker::new(&[knot.address], name, DnsRecords::Addresses(8080));
    let two = ["10.0.0.2-8080 10.0.0.2:8080", "10.0.0.3-8080 10.0.0.3:8080"];
    assert_eq!(addresses("front.example").backends(), two);
    assert_eq!(addresses("Front.Example.").backends(), two);
    assert_eq!(addresses("ends.example").look(), Reading::Empty { valid_for: Duration::from_secs(7) });
}

#[test]
fn the_life_of_an_answer_is_kept_within_a_second_and_an_hour() {
    for (ttl, valid_for) in [(0, 1), (1, 1), (77, 77), (3600, 3600), (365 * 86_400, 3600)] {
        let server = NameServer::start(has(vec![a("web.example", [10, 0, 0, 1], ttl)]));
        let looker = Looker::new(&[server.address], "web.example", DnsRecords::Addresses(80));
        assert_eq!(looker.set().1, Duration::from_secs(valid_for), "{ttl} s");
    }
}

#[test]
fn shuffled_answers_are_one_set() {
    let mut rng = Rng(20);
    let server = NameServer::start(move |_, _| {
        let mut order: Vec<u8> = (1..=12).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, rng.below(index + 1));
        }
        let target = |last: &u8| format!("web-{last}.example");
        let services = order.iter().map(|last| srv(SERVICE, &target(last), 80, 60)).collect();
        let beside = order.iter().rev().map(|last| a(&target(last), [10, 0, 0, *last], 60)).collect();
        Say::Records(services, beside)
    });
    let looker = Looker::new(&[server.address], SERVICE, BY_TARGET);
    let first = looker.set();
    assert_eq!(first.0.len(), 12);
    for _ in 0..1000 {
        assert_eq!(looker.set(), first);
    }
    assert_eq!(server.asked(), 1001, "the addresses came with the records");
}

#[test]
fn a_cut_answer_is_asked_for_again_by_tcp() {
    let server = NameServer::start(|_, _| Say::Cut(vec![a("web.example", [10, 0, 0, 1], 60)]));
    let looker = Looker::new(&[server.address], "web.example", DnsRecords::Addresses(80));
    assert_eq!(looker.backends(), ["10.0.0.1-80 10.0.0.1:80"]);
    assert_eq!((server.asked(), server.asked_by_tcp()), (1, 1));
}

#[test]
fn a_name_without_an_ipv4_address_has_its_ipv6_addresses() {
    let server = NameServer::start(has(vec![
        a("both.example", [10, 0, 0, 1], 60),
        aaaa("both.example", "2001:db8::1", 60),
        aaaa("six.example", "2001:db8::6", 60),
    ]));
    let backends = |name| Looker::new(&[server.address], name, DnsRecords::Addresses(80)).backends();
    assert_eq!(backends("both.example"), ["10.0.0.1-80 10.0.0.1:80"]);
    assert_eq!(backends("six.example"), ["2001-db8--6-80 [2001:db8::6]:80"]);
}

#[test]
fn records_of_other_names_change_nothing() {
    let server = NameServer::start(|asked, kind| match kind {
        RecordType::SRV => Say::Records(
            vec![srv(SERVICE, "web-0.example", 80, 60), srv("_http._tcp.evil.example", "evil.example", 6666, 1)],
            vec![a("evil.example", [10, 6, 6, 6], 1), a("web-1.example", [10, 6, 6, 7], 1)],
        ),
        _ => Say::Records(vec![a("evil.example", [10, 6, 6, 8], 1), a(asked, [10, 0, 0, 1], 60)], vec![]),
    });
    let looker = Looker::new(&[server.address], SERVICE, BY_TARGET);
    assert_eq!(looker.backends(), ["web-0 10.0.0.1:80"]);
    assert_eq!(looker.set().1, Duration::from_secs(60));
}

#[test]
fn a_half_answer_is_no_set() {
    let two = || vec![srv(SERVICE, "web-0.example", 80, 60), srv(SERVICE, "web-1.example", 80, 60)];
    let one_missing = move |asked: &str, kind| match (asked, kind) {
        (SERVICE, _) => Say::Records(two(), vec![a("web-0.example", [10, 0, 0, 1], 60)]),
        _ => Say::Nothing(ResponseCode::NXDomain, Some(5)),
    };
    let server = NameServer::start(one_missing);
    let services = Looker::new(&[server.address], SERVICE, BY_TARGET);
    assert_eq!(services.why(), "the SRV target \"web-1.example\" has no address");
    server.say(move |asked, kind| match (asked, kind) {
        (SERVICE, _) => Say::Records(two(), vec![a("web-0.example", [10, 0, 0, 1], 60)]),
        _ => Say::Nothing(ResponseCode::ServFail, None),
    });
    assert_eq!(services.why(), format!("A of \"web-1.example\": {} answered SERVFAIL", server.address));
    // IPv6 addresses would be another set than the IPv4 addresses that could not be asked for.
    server.say(|asked, kind| match kind {
        RecordType::AAAA => Say::Records(vec![aaaa(asked, "2001:db8::1", 60)], vec![]),
        _ => Say::Nothing(ResponseCode::ServFail, None),
    });
    let addresses = Looker::new(&[server.address], "web.example", DnsRecords::Addresses(80));
    assert_eq!(addresses.why(), format!("A of \"web.example\": {} answered SERVFAIL", server.address));
    server.say(|_, kind| match kind {
        RecordType::A => Say::Nothing(ResponseCode::NoError, Some(5)),
        _ => Say::Nothing(ResponseCode::ServFail, None),
    });
    assert_eq!(addresses.why(), format!("AAAA of \"web.example\": {} answered SERVFAIL", server.address));
}

#[test]
fn what_is_no_answer_is_told_in_words() {
    let server = NameServer::start(|_, _| Say::Silence);
    let looker = Looker::new(&[server.address], "web.example", DnsRecords::Addresses(80));
    let said = |say: Say| {
        server.say(move |_, _| say.clone());
        looker.why().replacen(&format!("A of \"web.example\": {} ", server.address), "", 1)
    };
    assert_eq!(said(Say::Nothing(ResponseCode::ServFail, None)), "answered SERVFAIL");
    assert_eq!(said(Say::Nothing(ResponseCode::Refused, None)), "answered REFUSED");
    assert_eq!(said(Say::Nothing(ResponseCode::NotImp, None)), "answered NOTIMP");
    assert_eq!(said(Say::Nothing(ResponseCode::YXDomain, None)), "answered with response code 6");
    assert_eq!(said(Say::Nothing(ResponseCode::Unknown(11), None)), "answered with response code 11");
    assert_eq!(said(Say::Elsewhere), "refers to other servers: it is no resolver for this name");
    assert!(said(Say::Half).starts_with("sent what is no answer: "));
    let other = said(Say::Records(vec![a("evil.example", [10, 6, 6, 6], 60)], vec![]));
    assert_eq!(other, "the answer has records of other names than \"web.example\"");
    let circle = vec![cname("web.example", "b.example", 60), cname("b.example", "web.example", 60)];
    assert!(said(Say::Records(circle, vec![])).starts_with("more than 16 aliases follow one another"));
    let began = Instant::now();
    // A forged question is passed over, and nothing else comes.
    assert_eq!(said(Say::Beside), "did not answer within 2 s");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[test]
fn nothing_there_is_an_answer_with_its_life() {
    let server = NameServer::start(|_, _| Say::Silence);
    let services = Looker::new(&[server.address], SERVICE, BY_TARGET);
    let empty = |seconds| Reading::Empty { valid_for: Duration::from_secs(seconds) };
    for (code, ttl, seconds) in [
        (ResponseCode::NXDomain, Some(5), 5),
        (ResponseCode::NoError, Some(0), 1),
        (ResponseCode::NXDomain, Some(86_400), 3600),
        (ResponseCode::NoError, None, 10),
    ] {
        server.say(move |_, _| Say::Nothing(code, ttl));
        assert_eq!(services.look(), empty(seconds), "{code} {ttl:?}");
    }
}

#[test]
fn addresses_of_many_machines_or_of_none_are_refused() {
    for (address, name) in [([0, 0, 0, 0], "0.0.0.0"), ([224, 0, 0, 1], "224.0.0.1"), ([255; 4], "255.255.255.255")] {
        let records = vec![a("web.example", address, 60), a("web.example", [10, 0, 0, 1], 60)];
        let server = NameServer::start(has(records));
        let looker = Looker::new(&[server.address], "web.example", DnsRecords::Addresses(80));
        let why = format!("{name}:80 of \"web.example\" is not an address that can be connected to");
        assert_eq!(looker.why(), why);
    }
    let server = NameServer::start(has(vec![aaaa("web.example", "::", 60)]));
    let looker = Looker::new(&[server.address], "web.example", DnsRecords::Addresses(80));
    assert_eq!(looker.why(), "[::]:80 of \"web.example\" is not an address that can be connected to");
}

#[test]
fn the_next_server_is_asked_where_one_fails_and_stays_the_first() {
    let broken = NameServer::start(|_, _| Say::Nothing(ResponseCode::ServFail, None));
    let good = NameServer::start(has(vec![a("web.example", [10, 0, 0, 1], 60)]));
    let looker = Looker::new(&[broken.address, good.address], "web.example", DnsRecords::Addresses(80));
    for _ in 0..3 {
        assert_eq!(looker.backends(), ["10.0.0.1-80 10.0.0.1:80"]);
    }
    assert_eq!((broken.asked(), good.asked()), (1, 3));
    good.say(|_, _| Say::Nothing(ResponseCode::Refused, None));
    let both = format!("A of \"web.example\": {} answered REFUSED; {} answered SERVFAIL", good.address, broken.address);
    assert_eq!(looker.why(), both);
}

#[test]
fn a_look_has_an_end_with_many_targets_and_a_dead_server() {
    let service = |index: usize| srv(SERVICE, &format!("web-{index}.example"), 80, 60);
    let server = NameServer::start(move |asked, _| match asked {
        SERVICE => Say::Cut((0..200).map(service).collect()),
        _ => Say::Silence,
    });
    let looker = Looker::new(&[server.address], SERVICE, BY_TARGET);
    let began = Instant::now();
    let why = looker.why();
    assert!(why.contains("did not answer within 2 s"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
