//! [`Point`]: facts of clients and requests that rules name, to be tried before and after a change.
//!
//! Routes nothing. Invariant: each route of a listener has a point for which all its conditions hold, as long as there are
//! no more than [`POINTS_MAX`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Listener, Route};
use crate::http::Progress;
use crate::http::head::RequestReader;
use crate::server_name::NamePattern;

/// Facts that are tried for one listener, at most; those of its rules come first, then all combinations.
const POINTS_MAX: usize = 50_000;

/// Facts of a client and of its request that a rule names.
#[derive(Debug, Default)]
pub(super) struct Point {
    /// Server name, and host of the request.
    pub(super) sni: Option<String>,
    pub(super) alpn: Vec<u8>,
    pub(super) source: Option<IpAddr>,
    request: PointRequest,
}

/// What a rule names of a request besides its host.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PointRequest {
    path: String,
    method: String,
    header: Vec<(String, String)>,
}

impl Point {
    /// The head of the request, and the reader that has read it; `None`: no such request can be read.
    pub(super) fn head(&self) -> Option<(Vec<u8>, RequestReader)> {
        let PointRequest { path, method, header } = &self.request;
        let or = |text: &str, default: &'static str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        let host = self.sni.as_deref().unwrap_or("any-other-name");
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", or(method, "GET"), or(path, ANY_PATH));
        header.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += "\r\n";
        let (mut reader, bytes) = (RequestReader::new(), head.into_bytes());
        matches!(reader.read(&bytes), Progress::Done(_)).then_some((bytes, reader))
    }
}

/// A path that no route names.
const ANY_PATH: &str = "/any-other-path";

/// Facts that the rules of a listener name, before and after, alone and combined.
pub(super) fn points<'l>(before: &'l Listener, after: Option<&'l Listener>) -> impl Iterator<Item = Point> + 'l {
    let routes = || before.routes.iter().chain(after.into_iter().flat_map(|after| &after.routes));
    let own = routes().flat_map(|route| combined(names(route), protocols(route), sources(route), requests(route)));
    // In an order that is the same each time.
    let all_names: BTreeSet<_> = routes().flat_map(names).chain([None]).collect();
    let all_protocols: BTreeSet<_> = routes().flat_map(protocols).chain([Vec::new()]).collect();
    let all_sources: BTreeSet<_> = routes().flat_map(sources).chain([None]).collect();
    let all_requests: BTreeSet<_> = routes().flat_map(requests).chain([PointRequest::default()]).collect();
    let all = combined(
        all_names.into_iter().collect(),
        all_protocols.into_iter().collect(),
        all_sources.into_iter().collect(),
        all_requests.into_iter().collect(),
    );
    [Point::default()].into_iter().chain(own).chain(all).take(POINTS_MAX)
}

fn combined(
    names: Vec<Option<String>>,
    protocols: Vec<Vec<u8>>,
    sources: Vec<Option<IpAddr>>,
    requests: Vec<PointRequest>,
) -> impl Iterator<Item = Point> {
    let count = names.len() * protocols.len() * sources.len() * requests.len();
    (0..count).map(move |number| {
        let (rest, source) = (number / sources.len(), sources[number % sources.len()]);
        let (rest, protocol) = (rest / protocols.len(), rest % protocols.len());
        let (name, request) = (rest / requests.len(), rest % requests.len());
        let (sni, request) = (names[name].clone(), requests[request].clone());
        Point { sni, alpn: protocols[protocol].clone(), source, request }
    })
}

/// A name for each pattern of a route.
fn names(route: &Route) -> Vec<Option<String>> {
    let name = |pattern: &NamePattern| match pattern {
        NamePattern::Exact(name) => name.as_str().to_owned(),
        NamePattern::Below(domain) => format!("any-other-name.{}", domain.as_str()),
    };
    let patterns = route.hosts();
    if patterns.is_empty() { vec![None] } else { patterns.iter().map(|pattern| Some(name(pattern))).collect() }
}

/// A list of protocols, as hellos have it, for each that a route asks for.
fn protocols(route: &Route) -> Vec<Vec<u8>> {
    // A checked name has at most 255 bytes.
    let list = |name: &String| [&[name.len() as u8], name.as_bytes()].concat();
    if route.alpn.is_empty() { vec![Vec::new()] } else { route.alpn.iter().map(list).collect() }
}

/// The first and the last address of each network of a route: a narrower network may hold one of them.
fn sources(route: &Route) -> Vec<Option<IpAddr>> {
    let ends = |network: &IpNet| [Some(network.network()), Some(network.broadcast())];
    if route.source.is_empty() { vec![None] } else { route.source.iter().flat_map(ends).collect() }
}

/// A request for each path and method of a route, with its fields.
fn requests(route: &Route) -> Vec<PointRequest> {
    let conditions = &route.request;
    let below = |path: &str| format!("{}{ANY_PATH}", path.trim_end_matches('/'));
    let paths = conditions.path.iter().map(|it| if it.is_exact { it.path.clone() } else { below(&it.path) });
    let or_none = |values: Vec<String>| if values.is_empty() { vec![String::new()] } else { values };
    let (paths, methods) = (or_none(paths.collect()), or_none(conditions.method.clone()));
    let of_path = |path: &String| {
        let header = &conditions.header;
        let request =
            |method: &String| PointRequest { path: path.clone(), method: method.clone(), header: header.clone() };
        methods.iter().map(request).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// The conditions of a route, as its keys have them.
pub(super) fn words_of(route: &Route) -> String {
    let list = |key: &str, values: Vec<String>| (!values.is_empty()).then(|| format!("{key} {}", values.join(" ")));
    let sni = list("sni", route.sni.iter().map(ToString::to_string).collect());
    let alpn = list("alpn", route.alpn.clone());
    let source = list("source", route.source.iter().map(ToString::to_string).collect());
    let host = list("host", route.request.host.iter().map(ToString::to_string).collect());
    let path = list("path", route.request.path.iter().map(ToString::to_string).collect());
    let method = list("method", route.request.method.clone());
    let header = list("header", route.request.header.iter().map(|(name, value)| format!("{name}={value}")).collect());
    let all: Vec<_> = [sni, host, path, method, header, alpn, source].into_iter().flatten().collect();
    if all.is_empty() { "default".to_owned() } else { all.join(", ") }
}
