//! Precision by example, and the table against a reference that filters and scores every route.
//!
//! Invariant: the reference shares no code with the table.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::config::{PathPattern, RequestConditions, Route, RouteGoal, Tls};
use crate::http::Progress;
use crate::http::head::RequestReader;

/// A route about requests, by hosts, paths, methods and fields.
fn route(hosts: &[&str], paths: &[&str], methods: &[&str], header: &[(&str, &str)]) -> Route {
    let path = |path: &&str| match path.strip_prefix('=') {
        Some(path) => PathPattern { path: path.to_owned(), is_exact: true },
        None => PathPattern { path: (*path).to_owned(), is_exact: false },
    };
    let request = RequestConditions {
        host: hosts.iter().map(|host| NamePattern::parse(host).unwrap()).collect(),
        path: paths.iter().map(path).collect(),
        method: methods.iter().map(|method| (*method).to_owned()).collect(),
        header: header.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    Route {
        sni: Vec::new(),
        alpn: Vec::new(),
        source: Vec::new(),
        request,
        tls: Tls::Off,
        client_certificate: None,
        http2: true,
        goal: RouteGoal::Pool("0".into()),
    }
}

/// A request as it is sent: method, target, host and more lines.
#[derive(Debug, Clone)]
struct Sent {
    method: String,
    target: String,
    host: Option<String>,
    fields: Vec<(String, String)>,
    source: IpAddr,
}

fn sent(method: &str, target: &str, host: &str) -> Sent {
    let (method, target, host) = (method.to_owned(), target.to_owned(), Some(host.to_owned()));
    Sent { method, target, host, fields: Vec::new(), source: Ipv4Addr::LOCALHOST.into() }
}

impl Sent {
    fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Index of the route that the table finds; `None`: the default, or none.
    fn routed_by(&self, table: &RequestTable) -> Option<usize> {
        let version = if self.host.is_some() { "HTTP/1.1" } else { "HTTP/1.0" };
        let mut head = format!("{} {} {version}\r\n", self.method, self.target);
        self.host.iter().for_each(|host| head += &format!("Host: {host}\r\n"));
        self.fields.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += "\r\n";
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)), "{head}");
        let request = reader.request(head.as_bytes());
        let mut buffer = [0; NAME_MAX];
        let connection = RouteFacts { source: Some(self.source), ..RouteFacts::default() };
        table.find(&RequestFacts::of(&request, connection, &mut buffer)).and_then(|found| found.route)
    }
}

fn table(routes: &[Route]) -> RequestTable {
    RequestTable::new(routes, Some(0), |_| 0)
}

#[test]
fn the_host_decides_before_the_path_and_the_path_before_other_conditions() {
    let mut routes = vec![
        route(&["a.test"], &[], &[], &[]),
        route(&["a.test"], &["/api"], &[], &[]),
        route(&["a.test"], &["/api/v2/"], &[], &[]),
        route(&["a.test"], &["=/api"], &[], &[]),
        route(&["*.test"], &["/api/v2/long"], &[], &[]),
        route(&[], &["/api/v2/longer/still"], &["GET"], &[("x-a", "1")]),
        route(&["a.test"], &["/api"], &["POST"], &[]),
        route(&["a.test"], &["/api"], &["POST"], &[("x-a", "1")]),
    ];
    let names = ["host", "api", "v2", "exact", "below", "any", "post", "both"];
    let mut order: Vec<usize> = (0..routes.len()).collect();
    for _ in 0..routes.len() {
        routes.rotate_left(1);
        order.rotate_left(1);
        let table = table(&routes);
        for (sent, name) in [
            (sent("GET", "/", "a.test"), Some("host")),
            (sent("GET", "/api/x", "A.Test:8080"), Some("api")),
            (sent("GET", "/api/x", "a.test."), Some("api")),
            (sent("GET", "/apix", "a.test"), Some("host")),
            (sent("GET", "/api/v2", "a.test"), Some("api")),
            (sent("GET", "/api/v2/", "a.test"), Some("v2")),
            (sent("GET", "/api/v2/longer/still", "a.test"), Some("v2")),
            (sent("GET", "/api?x=/api/v2/", "a.test"), Some("exact")),
            (sent("POST", "/api?x", "a.test"), Some("exact")),
            (sent("POST", "/api/", "a.test"), Some("post")),
            (sent("POST", "/api/", "a.test").field("X-A", "1"), Some("both")),
            (sent("POST", "/api/", "a.test").field("X-A", "2"), Some("post")),
            (sent("POST", "/api/", "a.test").field("X-A", "1").field("x-a", "1"), Some("post")),
            (sent("GET", "/api/v2/long", "b.test"), Some("below")),
            (sent("GET", "/api/v2/longer/still", "b.test").field("x-a", "1"), Some("any")),
            (sent("GET", "/api/v2/longer/still", "192.0.2.1").field("x-a", "1"), Some("any")),
            (sent("GET", "http://a.test/api/x", "a.test"), Some("api")),
            (sent("GET", "http://a.test", "a.test"), Some("host")),
            (sent("OPTIONS", "*", "a.test"), Some("host")),
            (sent("GET", "/api", "test"), None),
            (sent("GET", "/", "b.test"), None),
        ] {
            let found = sent.routed_by(&table).map(|index| names[order[index]]);
            assert_eq!(found, name, "{sent:?}");
        }
    }
}

#[test]
fn a_server_name_is_the_host_of_requests_and_stands_for_one_that_is_missing() {
    let by_name = Route { sni: vec![NamePattern::parse("a.test").unwrap()], ..route(&[], &[], &[], &[]) };
    let table = table(&[by_name, route(&["a.test"], &["/api"], &[], &[])]);
    assert_eq!(sent("GET", "/", "a.test").routed_by(&table), Some(0));
    assert_eq!(sent("GET", "/api", "a.test").routed_by(&table), Some(1));
    let head = b"GET /api HTTP/1.0\r\n\r\n";
    let mut reader = RequestReader::new();
    assert!(matches!(reader.read(head), Progress::Done(_)));
    let connection = RouteFacts { sni: Some("a.test"), ..RouteFacts::default() };
    let mut buffer = [0; NAME_MAX];
    let facts = RequestFacts::of(&reader.request(head), connection, &mut buffer);
    assert_eq!(table.find(&facts).and_then(|found| found.route), Some(1));
}

/// Filters the routes that match, and takes the most precise; of equal ones the first.
fn reference(routes: &[Route], sent: &Sent) -> Option<usize> {
    let name = sent.host.as_deref().map(|host| {
        let name = host.split(':').next().unwrap_or_default().to_lowercase();
        name.trim_end_matches('.').to_owned()
    });
    let path = sent.target.split('?').next().unwrap_or_default();
    let mut best = None;
    for (index, route) in routes.iter().enumerate() {
        let RequestConditions { host, path: paths, method, header } = &route.request;
        let host_score = |pattern: &NamePattern| match pattern {
            NamePattern::Exact(exact) => (name.as_deref() == Some(exact.as_str())).then_some(1000),
            NamePattern::Below(domain) => {
                name.as_ref().filter(|name| name.ends_with(&format!(".{domain}"))).map(|_| domain.as_str().len())
            }
        };
        let path_score = |pattern: &PathPattern| {
            let rest = path.strip_prefix(&pattern.path)?;
            let whole = rest.is_empty() || rest.starts_with('/') || pattern.path.ends_with('/');
            (if pattern.is_exact { rest.is_empty() } else { whole }).then_some((pattern.path.len(), pattern.is_exact))
        };
        let hosts = if host.is_empty() { Some(0) } else { host.iter().filter_map(host_score).max() };
        let paths = if paths.is_empty() { Some((0, false)) } else { paths.iter().filter_map(path_score).max() };
        let methods = method.is_empty() || method.contains(&sent.method);
        let fields = header.iter().all(|(name, value)| {
            let named: Vec<_> = sent.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).collect();
            named.len() == 1 && named[0].1 == *value
        });
        let networks = route.source.iter().filter(|network| network.contains(&sent.source)).map(IpNet::prefix_len);
        let network = if route.source.is_empty() { Some(0) } else { networks.max().map(|length| length + 1) };
        let (Some(host), Some(path), true, true, Some(network)) = (hosts, paths, methods, fields, network) else {
            continue;
        };
        let conditions =
            usize::from(!method.is_empty()) + usize::from(!route.source.is_empty()) + route.request.header.len();
        let score = (host, path, conditions, network);
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, index));
        }
    }
    best.map(|(_, index)| index)
}

fn path() -> impl Strategy<Value = String> {
    "(/[ab]{0,2}){1,4}"
}

fn host() -> impl Strategy<Value = String> {
    "([ab]\\.){0,2}[ab]"
}

fn method() -> impl Strategy<Value = String> {
    prop_oneof![Just("GET"), Just("POST"), Just("PURGE")].prop_map(str::to_owned)
}

fn field() -> impl Strategy<Value = (String, String)> {
    ("[xy]", "[12]")
}

fn source() -> impl Strategy<Value = Ipv4Addr> {
    (0u8..3, 0u8..3).prop_map(|(third, last)| Ipv4Addr::new(10, 0, third, last))
}

fn any_route() -> impl Strategy<Value = Route> {
    let host = (any::<bool>(), host()).prop_map(|(below, name)| if below { format!("*.{name}") } else { name });
    let path = (any::<bool>(), path()).prop_map(|(exact, path)| if exact { format!("={path}") } else { path });
    let hosts = proptest::collection::vec(host, 0..3);
    let paths = proptest::collection::vec(path, 0..3);
    let methods = prop_oneof![2 => Just(vec![]), 1 => proptest::collection::vec(method(), 1..3)];
    let header = proptest::collection::btree_map("[xy]", "[12]", 0..2);
    let network =
        (source(), 22u8..=32).prop_map(|(address, length)| IpNet::new(address.into(), length).unwrap().trunc());
    let sources = prop_oneof![2 => Just(vec![]), 1 => proptest::collection::vec(network, 1..3)];
    (hosts, paths, methods, header, sources).prop_map(|(hosts, paths, methods, header, source)| {
        let fields: Vec<_> = header.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
        Route { source, ..route(&hosts, &paths, &methods, &fields) }
    })
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let host = (host(), prop_oneof![Just(""), Just("."), Just(":80"), Just(".:80")]);
    let host = proptest::option::weighted(0.9, host.prop_map(|(name, end)| format!("{}{end}", name.to_uppercase())));
    let target = (path(), prop_oneof![Just(""), Just("?"), Just("?/a")]).prop_map(|(path, query)| path + query);
    let fields = proptest::collection::vec(field(), 0..3);
    (method(), target, host, fields, source()).prop_map(|(method, target, host, fields, source)| Sent {
        method,
        target,
        host,
        fields,
        source: source.into(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_table_answers_as_the_reference(
        routes in proptest::collection::vec(any_route(), 0..16),
        requests in proptest::collection::vec(any_sent(), 1..24),
    ) {
        let table = table(&routes);
        for sent in &requests {
            prop_assert_eq!(sent.routed_by(&table), reference(&routes, sent), "{:?}", sent);
        }
    }
}
