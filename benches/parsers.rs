//! What the pure steps before a connect cost: hello, PROXY header, route.
//!
//! Measures no system call. Invariant: every case is checked once, before it is timed, to answer what its name says.

use std::net::IpAddr;
use std::sync::Arc;

use divan::{Bencher, black_box};
use rustls::client::{ClientConfig, ClientConnection};
use rustls::crypto::aws_lc_rs;
use sessile::client_hello::{self, Progress, Scan};
use sessile::config::{ProxyOut, ProxyTlv, ProxyVersion, Route};
use sessile::http::head::RequestReader;
use sessile::proxy_protocol::{self, Announce};
use sessile::route::{RouteFacts, RouteTable};
use sessile::server_name::NamePattern;

fn main() {
    divan::main();
}

/// The first flight of rustls, in one record.
fn hello(post_quantum: bool) -> Vec<u8> {
    let mut provider = aws_lc_rs::default_provider();
    if post_quantum {
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = "shop.example.org".try_into().expect("a host name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut wire = Vec::new();
    connection.write_tls(&mut wire).expect("memory takes everything");
    wire
}

/// A hello with a padding extension (RFC 7685) of this many bytes added.
fn padded(mut wire: Vec<u8>, padding: usize) -> Vec<u8> {
    let mut message = wire.split_off(5);
    message.extend([&[0, 21], &(padding as u16).to_be_bytes()[..], &vec![0; padding]].concat());
    // 4 bytes of header, version, random, session id; then cipher suites, compression methods and extensions.
    let ciphers = 4 + 2 + 32 + 1 + usize::from(message[38]);
    let compression = ciphers + 2 + usize::from(u16::from_be_bytes([message[ciphers], message[ciphers + 1]]));
    let extensions = compression + 1 + usize::from(message[compression]);
    let length = (message.len() - extensions - 2) as u16;
    message[extensions..extensions + 2].copy_from_slice(&length.to_be_bytes());
    let length = (message.len() - 4) as u32;
    message[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
    in_records(&message, 1)
}

fn in_records(message: &[u8], count: usize) -> Vec<u8> {
    let record = |payload: &[u8]| [&[22, 3, 1], &(payload.len() as u16).to_be_bytes()[..], payload].concat();
    message.chunks(message.len().div_ceil(count)).flat_map(record).collect()
}

fn bench_hello(bencher: Bencher<'_, '_>, wire: &[u8]) {
    assert!(matches!(client_hello::parse(wire), Progress::Done(hello) if hello.server_name.is_some()));
    bencher.counter(divan::counter::BytesCount::of_slice(wire)).bench(|| client_hello::parse(black_box(wire)));
}

#[divan::bench]
fn hello_plain(bencher: Bencher<'_, '_>) {
    bench_hello(bencher, &hello(false));
}

#[divan::bench]
fn hello_post_quantum_2_kib(bencher: Bencher<'_, '_>) {
    bench_hello(bencher, &padded(hello(true), 600));
}

#[divan::bench]
fn hello_15_kib(bencher: Bencher<'_, '_>) {
    bench_hello(bencher, &padded(hello(false), 15_000));
}

#[divan::bench]
fn hello_60_kib(bencher: Bencher<'_, '_>) {
    bench_hello(bencher, &in_records(&padded(hello(false), 60_000)[5..], 4));
}

/// What TLS that ends here does with a hello in records of one byte before its handshake begins.
#[divan::bench]
fn hello_60_kib_joined_for_a_handshake(bencher: Bencher<'_, '_>) {
    let message = &padded(hello(false), 60_000)[5..];
    let wire = in_records(message, message.len());
    assert!(client_hello::in_few_records(&wire).len() < 60_500);
    bencher.bench(|| client_hello::in_few_records(black_box(&wire)).len());
}

#[divan::bench]
fn hello_15_kib_in_40_records(bencher: Bencher<'_, '_>) {
    bench_hello(bencher, &in_records(&padded(hello(false), 15_000)[5..], 40));
}

#[divan::bench]
fn hello_one_byte_short(bencher: Bencher<'_, '_>) {
    let wire = hello(true);
    let wire = &wire[..wire.len() - 1];
    assert_eq!(client_hello::parse(wire), Progress::More);
    bencher.bench(|| client_hello::parse(black_box(wire)));
}

#[divan::bench]
fn hello_in_40_records_one_byte_short(bencher: Bencher<'_, '_>) {
    let wire = in_records(&hello(true)[5..], 40);
    let wire = &wire[..wire.len() - 1];
    assert_eq!(client_hello::parse(wire), Progress::More);
    bencher.bench(|| client_hello::parse(black_box(wire)));
}

/// The worst that can be sent: 15 KiB in records of one byte, arriving byte by byte. One iteration is all of it.
#[divan::bench(sample_count = 10)]
fn hello_15_kib_byte_by_byte_in_records_of_one_byte(bencher: Bencher<'_, '_>) {
    let message = &padded(hello(false), 15_000)[5..];
    let wire = in_records(message, message.len());
    bencher.bench(|| {
        let mut scan = Scan::default();
        for length in 0..wire.len() {
            assert_eq!(scan.resume(black_box(&wire[..length])), Progress::More);
        }
        scan.resume(&wire)
    });
}

#[divan::bench]
fn not_tls(bencher: Bencher<'_, '_>) {
    bencher.bench(|| client_hello::parse(black_box(b"GET / HTTP/1.1\r\n\r\n")));
}

fn header(version: ProxyVersion, tlvs: &[ProxyTlv]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_header(&mut out, &ProxyOut { version, tlvs: tlvs.to_vec() });
    out
}

fn write_header(out: &mut Vec<u8>, config: &ProxyOut) {
    let announce = Announce {
        addresses: Some((([192, 0, 2, 1], 56324).into(), ([198, 51, 100, 7], 443).into())),
        alpn: Some(b"\x02h2\x08http/1.1"),
        authority: Some("shop.example.org"),
        unique_id: Some(b"0000000000000001"),
        ssl: None,
    };
    proxy_protocol::write(out, config, &announce);
}

const EVERY_TLV: [ProxyTlv; 4] = [ProxyTlv::Alpn, ProxyTlv::Authority, ProxyTlv::UniqueId, ProxyTlv::Crc32c];

fn bench_header(bencher: Bencher<'_, '_>, wire: &[u8]) {
    assert!(matches!(proxy_protocol::parse(wire), Progress::Done((_, length)) if length == wire.len()));
    bencher.bench(|| proxy_protocol::parse(black_box(wire)));
}

#[divan::bench]
fn proxy_v1(bencher: Bencher<'_, '_>) {
    bench_header(bencher, &header(ProxyVersion::V1, &[]));
}

#[divan::bench]
fn proxy_v2(bencher: Bencher<'_, '_>) {
    bench_header(bencher, &header(ProxyVersion::V2, &[]));
}

#[divan::bench]
fn proxy_v2_with_tlvs_and_checksum(bencher: Bencher<'_, '_>) {
    bench_header(bencher, &header(ProxyVersion::V2, &EVERY_TLV));
}

#[divan::bench]
fn proxy_v2_write_with_tlvs_and_checksum(bencher: Bencher<'_, '_>) {
    let config = ProxyOut { version: ProxyVersion::V2, tlvs: EVERY_TLV.to_vec() };
    let mut out = Vec::with_capacity(512);
    bencher.bench_local(|| {
        out.clear();
        write_header(&mut out, black_box(&config));
        out.len()
    });
}

/// A table of `count` exact names and a tenth as many wildcards.
fn table(names: usize) -> RouteTable {
    let route = |name: String, pool: usize| Route {
        sni: vec![NamePattern::parse(&name).expect("a pattern")],
        alpn: Vec::new(),
        source: Vec::new(),
        tls: sessile::config::Tls::Passthrough,
        request: sessile::config::RequestConditions::default(),
        client_certificate: None,
        http2: true,
        goal: sessile::config::RouteGoal::Pool(pool.to_string()),
    };
    let exact = (0..names).map(|index| route(format!("shop{index}.example.org"), index));
    let below = (0..names / 10).map(|index| route(format!("*.zone{index}.example.org"), index));
    let routes: Vec<_> = exact.chain(below).collect();
    RouteTable::new(&routes, Some("0"), |name| name.parse().expect("a number"))
}

fn bench_route(bencher: Bencher<'_, '_>, names: usize, sni: &str, pool: usize) {
    let table = table(names);
    let facts = RouteFacts { sni: Some(sni), alpn: b"\x02h2", source: Some(IpAddr::from([192, 0, 2, 1])) };
    assert_eq!(table.find(&facts), Some(pool));
    bencher.bench(|| black_box(&table).find(black_box(&facts)));
}

#[divan::bench(args = [100, 1000])]
fn route_exact(bencher: Bencher<'_, '_>, names: usize) {
    bench_route(bencher, names, "shop77.example.org", 77);
}

#[divan::bench(args = [100, 1000])]
fn route_wildcard(bencher: Bencher<'_, '_>, names: usize) {
    bench_route(bencher, names, "a.b.zone7.example.org", 7);
}

#[divan::bench(args = [100, 1000])]
fn route_default(bencher: Bencher<'_, '_>, names: usize) {
    bench_route(bencher, names, "www.nowhere.example.com", 0);
}

/// A table of `count` routes: hosts with ten paths each.
fn requests(count: usize) -> RouteTable {
    let route = |index: usize| {
        let host = format!("shop{}.example.org", index / 10);
        let path = format!("/section{}/part{}", index % 10, "x".repeat(index % 7));
        let request = sessile::config::RequestConditions {
            host: vec![NamePattern::parse(&host).expect("a pattern")],
            path: vec![sessile::config::PathPattern { path, is_exact: index % 10 == 9 }],
            ..sessile::config::RequestConditions::default()
        };
        Route {
            sni: Vec::new(),
            alpn: Vec::new(),
            source: Vec::new(),
            request,
            tls: sessile::config::Tls::Off,
            client_certificate: None,
            http2: true,
            goal: sessile::config::RouteGoal::Pool(index.to_string()),
        }
    };
    let routes: Vec<_> = (0..count).map(route).collect();
    RouteTable::new(&routes, Some("0"), |name| name.parse().expect("a number"))
}

#[divan::bench(args = [100, 10_000])]
fn route_of_a_request(bencher: Bencher<'_, '_>, count: usize) {
    let (table, index) = (requests(count), count / 2 + 5);
    let path = format!("/section5/part{}/and/some/more?query", "x".repeat(index % 7));
    let head = format!("GET {path} HTTP/1.1\r\nHost: Shop{}.example.org:8080\r\nUser-Agent: x\r\n\r\n", index / 10);
    let mut reader = RequestReader::new();
    assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)));
    let request = reader.request(head.as_bytes());
    let facts = RouteFacts { sni: None, alpn: b"\x02h2", source: Some(IpAddr::from([192, 0, 2, 1])) };
    assert_eq!(table.find_request(&request, facts).and_then(|found| found.pool), Some(index));
    bencher.bench(|| black_box(&table).find_request(black_box(&request), black_box(facts)));
}
