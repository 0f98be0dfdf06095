//! Precision by example, and the table against a reference that scores every route.
//!
//! Invariant: the reference shares no code with the table.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::config::{RequestConditions, Route, RouteGoal, Tls};

fn route(sni: &[&str], alpn: &[&str], source: &[&str], pool: usize) -> Route {
    Route {
        sni: sni.iter().map(|name| NamePattern::parse(name).unwrap()).collect(),
        alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
        source: source.iter().map(|network| network.parse().unwrap()).collect(),
        tls: Tls::Passthrough,
        request: RequestConditions::default(),
        client_certificate: None,
        http2: true,
        goal: RouteGoal::Pool(pool.to_string()),
    }
}

fn table(routes: &[Route], default: Option<usize>) -> RouteTable {
    let default = default.map(|pool| pool.to_string());
    RouteTable::new(routes, default.as_deref(), |name| name.parse().unwrap())
}

fn named(name: &str) -> RouteFacts<'_> {
    RouteFacts { sni: Some(name), ..RouteFacts::default() }
}

fn list(names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| [&[name.len() as u8], name.as_bytes()].concat()).collect()
}

#[test]
fn the_most_precise_name_wins_whatever_the_order_of_writing() {
    let mut routes = vec![
        route(&["www.example.org"], &[], &[], 1),
        route(&["*.example.org"], &[], &[], 2),
        route(&["*.deep.example.org"], &[], &[], 3),
        route(&["*.org"], &[], &[], 4),
    ];
    for _ in 0..routes.len() {
        routes.rotate_left(1);
        let table = table(&routes, Some(9));
        for (name, pool) in [
            ("www.example.org", 1),
            ("a.example.org", 2),
            ("a.b.example.org", 2),
            ("a.www.example.org", 2),
            ("deep.example.org", 2),
            ("a.deep.example.org", 3),
            ("a.b.deep.example.org", 3),
            ("example.org", 4),
            ("org", 9),
            ("example.com", 9),
            ("wwwexample.org", 4),
        ] {
            assert_eq!(table.find(&named(name)), Some(pool), "{name}");
        }
        assert_eq!(table.find(&RouteFacts::default()), Some(9), "no name");
    }
}

#[test]
fn a_long_list_of_protocols_is_kept_so_far_as_it_decides() {
    let routes = [route(&[], &["h2"], &[], 1), route(&["a.example"], &["mqtt", "h2"], &[], 2)];
    let (table, other) = (table(&routes, None), table(&routes[..1], None));
    let short = list(&["x", "h2", "y"]);
    assert_eq!(table.kept_protocols(short.clone().into()), (short.into(), false));
    let filling = ["z"; 200];
    for (before, kept) in [
        (vec!["x", "h2", "h2", "mqtt"], vec!["x", "h2", "mqtt"]),
        (vec!["h2", "x"], vec!["h2"]),
        (vec!["x"], vec!["x"]),
    ] {
        let long = list(&[&before[..], &filling].concat());
        assert_eq!(table.kept_protocols(long.into()), (list(&kept).into(), true));
    }
    assert!(other.protocols_are_of(&table) && table.protocols_are_of(&table));
    assert!(!table.protocols_are_of(&other));
}

#[test]
fn without_a_default_what_matches_nothing_has_no_pool() {
    let table = table(&[route(&["a.example"], &[], &[], 1)], None);
    assert_eq!(table.find(&named("b.example")), None);
    assert_eq!(table.find(&RouteFacts::default()), None);
}

#[test]
fn a_failed_condition_goes_on_to_the_next_less_precise_name() {
    let routes = [
        route(&["a.example.org"], &["h2"], &[], 1),
        route(&["*.example.org"], &[], &["10.0.0.0/8"], 2),
        route(&["*.org"], &[], &[], 3),
        route(&[], &[], &["192.0.2.0/24"], 4),
    ];
    let table = table(&routes, Some(5));
    let (h2, h1) = (list(&["http/1.1", "h2"]), list(&["http/1.1"]));
    let ten = Some("10.1.2.3".parse().unwrap());
    let net = Some("192.0.2.9".parse().unwrap());
    for (sni, alpn, source, pool) in [
        (Some("a.example.org"), &h2, ten, 1),
        (Some("a.example.org"), &h1, ten, 2),
        (Some("a.example.org"), &h1, net, 3),
        (Some("a.example.org"), &h1, None, 3),
        (Some("a.example.com"), &h2, net, 4),
        (None, &h2, net, 4),
        (None, &h2, ten, 5),
        (None, &h2, None, 5),
    ] {
        assert_eq!(table.find(&RouteFacts { sni, alpn, source }), Some(pool), "{sni:?} {source:?}");
    }
}

#[test]
fn under_one_name_more_conditions_win_then_the_longer_cidr() {
    let routes = [
        route(&["a.example"], &[], &[], 1),
        route(&["a.example"], &[], &["10.0.0.0/8", "192.0.2.0/24"], 2),
        route(&["a.example"], &[], &["10.1.0.0/16"], 3),
        route(&["a.example"], &["h2"], &["0.0.0.0/0"], 4),
        route(&["a.example"], &["h2", "h3"], &["10.0.0.0/8"], 5),
        route(&["a.example"], &[], &["2001:db8::/32"], 6),
    ];
    for routes in [routes.to_vec(), routes.iter().rev().cloned().collect()] {
        let table = table(&routes, None);
        let (none, h2) = (list(&[]), list(&["h2"]));
        for (alpn, source, pool) in [
            (&none, "172.16.0.1", 1),
            (&none, "10.2.0.1", 2),
            (&none, "192.0.2.1", 2),
            (&none, "10.1.0.1", 3),
            (&h2, "172.16.0.1", 4),
            (&h2, "10.1.0.1", 5),
            (&h2, "2001:db8::1", 6),
            (&none, "2001:db9::1", 1),
        ] {
            let facts = RouteFacts { sni: Some("a.example"), alpn, source: Some(source.parse().unwrap()) };
            assert_eq!(table.find(&facts), Some(pool), "{alpn:?} {source}");
        }
    }
}

#[test]
fn protocols_are_compared_whole() {
    let table = table(&[route(&[], &["h2"], &[], 1)], None);
    for (alpn, pool) in [
        (list(&["h2"]), Some(1)),
        (list(&["http/1.1", "h2"]), Some(1)),
        (list(&["h2c"]), None),
        (list(&["h"]), None),
        (list(&["xh2"]), None),
        (vec![], None),
        (vec![9, b'h', b'2'], None),
    ] {
        assert_eq!(table.find(&RouteFacts { alpn: &alpn, ..RouteFacts::default() }), pool, "{alpn:?}");
    }
}

#[test]
fn the_route_that_decided_is_told() {
    let table = table(&[route(&["a.example"], &[], &[], 1), route(&[], &[], &["10.0.0.0/8"], 1)], Some(7));
    let source = Some("10.1.2.3".parse().unwrap());
    assert_eq!(table.find_route(&named("a.example")), Some(RouteMatch { pool: Some(1), route: Some(0) }));
    assert_eq!(
        table.find_route(&RouteFacts { source, ..named("b.example") }),
        Some(RouteMatch { pool: Some(1), route: Some(1) })
    );
    assert_eq!(table.find_route(&named("b.example")), Some(RouteMatch { pool: Some(7), route: None }));
}

#[test]
fn the_hello_is_needed_only_for_names_and_protocols() {
    assert!(!table(&[], Some(1)).needs_hello());
    assert!(!table(&[route(&[], &[], &["10.0.0.0/8"], 1)], None).needs_hello());
    assert!(table(&[route(&["*.example"], &[], &[], 1)], None).needs_hello());
    assert!(table(&[route(&[], &["h2"], &[], 1)], None).needs_hello());
}

/// Scores every route that matches; the highest score wins, the first of equal ones.
fn reference(routes: &[Route], default: Option<usize>, facts: &RouteFacts<'_>, offered: &[String]) -> Option<usize> {
    let mut best = None;
    for (index, route) in routes.iter().enumerate() {
        let name_scores = route.sni.iter().filter_map(|pattern| match (pattern, facts.sni?) {
            (NamePattern::Exact(name), sni) => (name.as_str() == sni).then_some(usize::MAX),
            (NamePattern::Below(domain), sni) => sni.ends_with(&format!(".{domain}")).then(|| domain.as_str().len()),
        });
        let name_score = if route.sni.is_empty() { Some(0) } else { name_scores.max() };
        let alpn_holds = route.alpn.is_empty() || route.alpn.iter().any(|name| offered.contains(name));
        let networks =
            route.source.iter().filter(|network| facts.source.is_some_and(|source| network.contains(&source)));
        let longest = networks.map(IpNet::prefix_len).max();
        let source_holds = route.source.is_empty() || longest.is_some();
        let Some(name_score) = name_score.filter(|_| alpn_holds && source_holds) else { continue };
        let conditions = [!route.alpn.is_empty(), !route.source.is_empty()].iter().filter(|set| **set).count();
        let score = (name_score, conditions, longest.map_or(0, |length| usize::from(length) + 1));
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, index));
        }
    }
    best.map(|(_, index)| routes[index].pool().unwrap().parse().unwrap()).or(default)
}

fn source() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..4, 0u8..4).prop_map(|(third, last)| Ipv4Addr::new(10, 0, third, last).into()),
        (0u16..4).prop_map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()),
    ]
}

fn network() -> impl Strategy<Value = IpNet> {
    (source(), 0u8..=8).prop_map(|(address, host_bits)| {
        let full = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, full - host_bits * (full / 32)).unwrap().trunc()
    })
}

fn name() -> impl Strategy<Value = String> {
    "([ab]\\.){0,3}[ab]"
}

fn protocol() -> impl Strategy<Value = String> {
    prop_oneof![Just("h2"), Just("h3"), Just("http/1.1")].prop_map(str::to_owned)
}

fn any_route() -> impl Strategy<Value = Route> {
    let pattern = (any::<bool>(), name())
        .prop_map(|(below, name)| NamePattern::parse(&if below { format!("*.{name}") } else { name }).unwrap());
    let names = proptest::collection::vec(pattern, 0..3);
    let protocols = prop_oneof![2 => Just(vec![]), 1 => proptest::collection::vec(protocol(), 1..3)];
    let networks = prop_oneof![2 => Just(vec![]), 1 => proptest::collection::vec(network(), 1..4)];
    (names, protocols, networks).prop_map(|(sni, alpn, source)| Route { sni, alpn, source, ..route(&[], &[], &[], 0) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_table_answers_as_the_reference(
        mut routes in proptest::collection::vec(any_route(), 0..12),
        default in proptest::option::of(Just(99usize)),
        questions in proptest::collection::vec((proptest::option::of(name()), proptest::collection::vec(protocol(), 0..3), proptest::option::of(source())), 1..20),
    ) {
        for (index, route) in routes.iter_mut().enumerate() {
            route.goal = RouteGoal::Pool(index.to_string());
        }
        let table = table(&routes, default);
        for (sni, offered, source) in &questions {
            let alpn = list(&offered.iter().map(String::as_str).collect::<Vec<_>>());
            let facts = RouteFacts { sni: sni.as_deref(), alpn: &alpn, source: *source };
            prop_assert_eq!(table.find(&facts), reference(&routes, default, &facts, offered), "{:?}", facts);
        }
    }
}

#[test]
fn a_listener_that_knows_its_names_serves_others_by_nothing_that_is_for_any_name() {
    let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\ntls = \"terminate\"\npool = \"0\"\n\
        certificate = \"c.pem\"\nunknown_names = \"refuse\"\n\
        [[listener.route]]\nsni = [\"one.test\", \"*.wide.test\"]\nalpn = \"http/1.1\"\npool = \"1\"\n\
        [[listener.route]]\nalpn = \"http/1.1\"\npool = \"2\"\n\
        [[listener.route]]\nhost = \"asked.test\"\npath = \"/a\"\npool = \"0\"\n";
    let pool = |name: &str| {
        format!("[[pool]]\nname = \"{name}\"\nhttp = true\nbackend = {{ name = \"b\", address = \"127.0.0.1:2\" }}\n")
    };
    let text = ["0", "1", "2"].map(pool).into_iter().fold(text.to_owned(), |text, pool| text + &pool);
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    let listener = &checked.config.listeners[0];
    let certificates = ["cert.test", "*.cert.test"].map(|name| NamePattern::parse(name).unwrap());
    let any = RouteTable::of(listener, |name| name.parse().unwrap());
    let known = RouteTable::of(listener, |name| name.parse().unwrap()).knowing(listener, &certificates);
    let http1 = list(&["http/1.1"]);
    for (name, plain, with_http1) in [
        (Some("one.test"), Some(0), Some(1)),
        (Some("a.b.wide.test"), Some(0), Some(1)),
        (Some("cert.test"), Some(0), Some(2)),
        (Some("a.cert.test"), Some(0), Some(2)),
        (Some("asked.test"), Some(0), Some(2)),
        (Some("a.b.cert.test"), None, None),
        (Some("wide.test"), None, None),
        (Some("a.one.test"), None, None),
        (Some("test"), None, None),
        (None, Some(0), Some(2)),
    ] {
        let facts = |alpn| RouteFacts { sni: name, alpn, source: None };
        assert_eq!((known.find(&facts(&[])), known.find(&facts(&http1))), (plain, with_http1), "{name:?}");
        assert!(any.find(&facts(&[])).is_some(), "{name:?}");
    }
}
