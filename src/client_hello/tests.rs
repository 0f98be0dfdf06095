//! Hellos of a real client, hellos built by hand, and hellos that were damaged.
//!
//! Opens no connection: rustls writes its first flight into memory. Invariant: whatever is valid here is `More` at
//! every shorter length.

mod alerts;
mod fields;
mod generated;

use std::sync::Arc;

use rustls::client::{ClientConfig, ClientConnection, EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs;

use super::*;
use crate::outcome::Ended;

/// The result of [`super::parse`], with the outcome of a refusal.
fn parse(bytes: &[u8]) -> Progress<ClientHello, Ended> {
    with_outcome(super::parse(bytes))
}

fn with_outcome(progress: Progress<ClientHello, TlsRefusal>) -> Progress<ClientHello, Ended> {
    match progress {
        Progress::Done(hello) => Progress::Done(hello),
        Progress::More => Progress::More,
        Progress::No(refusal) => Progress::No(refusal.ended()),
    }
}

/// A hello put together extension by extension.
struct Hand {
    extensions: Vec<u8>,
}

impl Hand {
    fn new() -> Self {
        Self { extensions: Vec::new() }
    }

    fn extension(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.extend(kind.to_be_bytes());
        self.extensions.extend(with_length(body));
        self
    }

    fn name(self, name: &str) -> Self {
        self.extension(SERVER_NAME, &with_length(&host_entry(name.as_bytes())))
    }

    fn alpn(self, names: &[&str]) -> Self {
        self.extension(ALPN, &with_length(&name_list(names)))
    }

    /// Adds a padding extension (RFC 7685) that makes the message exactly this long.
    fn padded_to(self, length: usize) -> Self {
        let missing = length - self.message().len() - 4;
        self.extension(21, &vec![0; missing])
    }

    fn message(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([0x5a; 32]);
        body.extend([32; 33]); // session id: its length and 32 bytes
        body.extend([0, 6, 0x1a, 0x1a, 0x13, 0x01, 0xc0, 0x2f]); // the first is GREASE
        body.extend([1, 0]);
        body.extend(with_length(&self.extensions));
        message(CLIENT_HELLO, &body)
    }

    fn wire(&self) -> Vec<u8> {
        records(&self.message(), RECORD_MAX)
    }
}

fn with_length(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes(), body].concat()
}

fn host_entry(name: &[u8]) -> Vec<u8> {
    [&[0], with_length(name).as_slice()].concat()
}

fn name_list(names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| [&[name.len() as u8], name.as_bytes()].concat()).collect()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

fn record(payload: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1], with_length(payload).as_slice()].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

/// Cuts a message into exactly this many records of nearly equal size.
fn in_records(message: &[u8], count: usize) -> Vec<u8> {
    let edge = |index: usize| message.len() * index / count;
    (0..count).flat_map(|index| record(&message[edge(index)..edge(index + 1)])).collect()
}

/// The name `bytes` ask for; panics unless they are a hello.
fn name_of(bytes: &[u8]) -> Option<String> {
    match parse(bytes) {
        Progress::Done(hello) => hello.server_name.map(|name| name.to_string()),
        other => panic!("{other:?}"),
    }
}

/// What `bytes` show in place of a host name; panics unless they are a hello without one.
fn odd_name_of(bytes: &[u8]) -> Option<String> {
    match parse(bytes) {
        Progress::Done(hello) if hello.server_name.is_none() => hello.odd_name.map(|name| name.to_string()),
        other => panic!("{other:?}"),
    }
}

fn assert_every_prefix_wants_more(wire: &[u8]) {
    for length in 0..wire.len() {
        assert_eq!(parse(&wire[..length]), Progress::More, "at {length} of {}", wire.len());
    }
    assert!(matches!(parse(wire), Progress::Done(_)), "{:?}", parse(wire));
}

/// What rustls would send.
fn first_flight(config: ClientConfig, name: &str) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut wire = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut wire).unwrap();
    }
    wire
}

fn client(versions: &[&'static rustls::SupportedProtocolVersion], post_quantum: bool) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    if post_quantum {
        provider.kx_groups.insert(0, aws_lc_rs::kx_group::X25519MLKEM768);
    }
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn client_with_ech() -> ClientConfig {
    let suite = aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
    let (key, _) = suite.generate_key_pair().unwrap();
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_ech(EchMode::Grease(EchGreaseConfig::new(suite, key)))
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

#[test]
fn hellos_of_a_real_client_are_read() {
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    for versions in [vec![tls12], vec![tls13], vec![tls12, tls13]] {
        for post_quantum in [false, true] {
            for alpn in [&[][..], &["h2", "http/1.1"]] {
                for sni in [false, true] {
                    let mut config = client(&versions, post_quantum);
                    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
                    config.enable_sni = sni;
                    let wire = first_flight(config, "Shop.Example.org");
                    assert_every_prefix_wants_more(&wire);
                    let server_name = sni.then(|| ServerName::parse("shop.example.org").unwrap());
                    let expected =
                        ClientHello { server_name, odd_name: None, alpn: name_list(alpn).into(), ech: false };
                    assert_eq!(parse(&wire), Progress::Done(expected));
                }
            }
        }
    }
}

#[test]
fn a_real_client_with_ech_is_labelled_and_its_outer_name_counts() {
    let wire = first_flight(client_with_ech(), "outer.example.org");
    assert_every_prefix_wants_more(&wire);
    assert!(matches!(parse(&wire), Progress::Done(hello) if hello.ech));
    assert_eq!(name_of(&wire).as_deref(), Some("outer.example.org"));
}

#[test]
fn the_outer_name_of_ech_routes() {
    let outer = [&[0, 0, 1, 0, 1, 7][..], &with_length(&[9; 32]), &with_length(&[7; 200])].concat();
    let hello = Hand::new().name("front.example.org").extension(ENCRYPTED_CLIENT_HELLO, &outer);
    let expected = ServerName::parse("front.example.org");
    let expected = ClientHello { server_name: expected, odd_name: None, alpn: Box::default(), ech: true };
    assert_eq!(parse(&hello.wire()), Progress::Done(expected));
}

#[test]
fn a_large_hybrid_key_share_is_read() {
    let share = with_length(&[&[0x11, 0xec][..], &with_length(&[0xab; 2048])].concat());
    let hello = Hand::new().extension(51, &share).name("pq.example.org").alpn(&["h2"]);
    assert_every_prefix_wants_more(&hello.wire());
    assert_eq!(name_of(&hello.wire()).as_deref(), Some("pq.example.org"));
}

#[test]
fn unknown_and_grease_extensions_are_passed_over() {
    let hello = Hand::new().extension(0x1a1a, &[]).name("a.example").extension(0xfafa, &[0]).extension(0x7777, &[1; 9]);
    assert_eq!(name_of(&hello.wire()).as_deref(), Some("a.example"));
}

#[test]
fn fifteen_kibibytes_in_any_number_of_records_are_read() {
    let message = Hand::new().name("padded.example.org").padded_to(15 * 1024).message();
    assert_eq!(message.len(), 15 * 1024);
    for count in (1..=40).chain([41, 100, 1_000, 5_000, message.len()]) {
        let wire = in_records(&message, count);
        assert_eq!(name_of(&wire).as_deref(), Some("padded.example.org"), "{count} records");
        assert_eq!(parse(&wire[..wire.len() - 1]), Progress::More, "{count} records");
    }
    assert_every_prefix_wants_more(&in_records(&message, 1));
    assert_every_prefix_wants_more(&in_records(&message, 40));
}

#[test]
fn sixty_four_kibibytes_are_read_and_no_more() {
    for length in [16 * 1024 + 1, 40_000, HANDSHAKE_MAX] {
        let message = Hand::new().name("long.example.org").padded_to(length).message();
        for size in [RECORD_MAX, 1_000, 17] {
            let wire = records(&message, size);
            assert_eq!(name_of(&wire).as_deref(), Some("long.example.org"), "{length} bytes in records of {size}");
            assert_eq!(parse(&wire[..wire.len() - 1]), Progress::More);
        }
    }
}

#[test]
fn the_configured_length_is_the_longest() {
    let exact = Hand::new().padded_to(2_000).wire();
    assert!(matches!(Scan::at_most(2_000).resume(&exact), Progress::Done(_)));
    assert_eq!(Scan::at_most(1_999).resume(&exact[..9]), Progress::No(TlsRefusal::TooLong));
    let long = Hand::new().padded_to(HANDSHAKE_MAX + 1).wire();
    assert_eq!(Scan::at_most(usize::MAX).resume(&long), Progress::No(TlsRefusal::TooLong));
}

/// The server name that a rustls server reads from these bytes.
fn name_by_rustls(mut bytes: &[u8]) -> Option<String> {
    let mut acceptor = rustls::server::Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return accepted.client_hello().server_name().map(str::to_owned),
            Ok(None) => {}
            Err((error, _)) => panic!("{error}"),
        }
    }
    None
}

#[test]
fn rustls_reads_every_hello_that_is_read_here() {
    let mut config = client(&[&rustls::version::TLS13], true);
    config.alpn_protocols = (0..280).map(|n| format!("{n:0>220}").into_bytes()).collect();
    let wire = first_flight(config, "shop.example.org");
    assert!(wire.len() > 60_000, "{}", wire.len());
    let message: Vec<u8> =
        wire.chunks(RECORD_HEADER + RECORD_MAX).flat_map(|record| &record[RECORD_HEADER..]).copied().collect();
    for size in [1, 2, 7, 100, 4_000, 9_000, RECORD_MAX] {
        let cut = records(&message, size);
        let behind = [&cut[..], &[20, 3, 3, 0, 1, 1]].concat();
        for wire in [&cut, &behind] {
            let few = in_few_records(wire);
            assert_eq!(name_by_rustls(&few).as_deref(), Some("shop.example.org"), "records of {size}");
            assert_eq!(parse(&few), parse(wire));
        }
        assert!(in_few_records(&behind).ends_with(&[20, 3, 3, 0, 1, 1]));
    }
    assert!(matches!(in_few_records(&wire), Cow::Borrowed(_)), "nothing is gained");
}

#[test]
fn what_is_no_hello_is_left_as_it_is() {
    let message = Hand::new().name("a.example").message();
    let cut = records(&message, 3);
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &cut[..cut.len() - 1], &records(&message, 1 << 14)] {
        assert!(matches!(in_few_records(bytes), Cow::Borrowed(same) if same == bytes));
    }
    // The last record holds more than the hello, and not all of it has come.
    let (first, last) = message.split_at(40);
    let half = [record(first), record(&[last, &[7; 100]].concat())].concat();
    let few = in_few_records(&half[..half.len() - 50]);
    assert_eq!(name_of(&few).as_deref(), Some("a.example"));
    assert!(half.ends_with(&[7; 100]) && few.ends_with(&[7; 50]));
}

/// Whatever the size of the records and of the pieces, nothing is joined before the hello is whole.
#[test]
fn a_hello_byte_by_byte_is_joined_once() {
    let message = Hand::new().name("slow.example.org").padded_to(HANDSHAKE_MAX).message();
    let wire = records(&message, 1);
    let counted = allocation_counter::measure(|| {
        let mut scan = Scan::default();
        for length in 0..=wire.len() {
            let _ = scan.resume(&wire[..length]);
        }
    });
    assert!(counted.bytes_total < 2 * HANDSHAKE_MAX as u64, "{counted:?}");
}

#[test]
fn records_may_end_anywhere_even_inside_the_message_header() {
    let message = Hand::new().name("split.example.org").alpn(&["h2"]).message();
    for at in 1..message.len() {
        let wire = [record(&message[..at]), record(&message[at..])].concat();
        assert_eq!(name_of(&wire).as_deref(), Some("split.example.org"), "split at {at}");
    }
    assert_every_prefix_wants_more(&records(&message, 1));
}

#[test]
fn the_longest_hello_in_records_of_one_byte_takes_exactly_the_documented_bound() {
    let message = Hand::new().name("long.example.org").padded_to(HANDSHAKE_MAX).message();
    let wire = records(&message, 1);
    assert_eq!(wire.len(), WIRE_MAX);
    let mut scan = Scan::default();
    for length in 0..wire.len() {
        assert_eq!(scan.resume(&wire[..length]), Progress::More, "at {length}");
    }
    assert_eq!(with_outcome(scan.resume(&wire)), parse(&wire));
    assert_eq!(name_of(&wire).as_deref(), Some("long.example.org"));
}

#[test]
fn one_byte_too_long_is_refused_as_soon_as_the_length_is_seen() {
    let message = Hand::new().padded_to(HANDSHAKE_MAX + 1).message();
    for wire in [records(&message, RECORD_MAX), records(&message, 4), records(&message, 100)] {
        assert_eq!(parse(&wire[..8]), Progress::More);
        assert_eq!(parse(&wire[..9]), Progress::No(Ended::HelloTooLong));
        assert_eq!(parse(&wire), Progress::No(Ended::HelloTooLong));
    }
}

#[test]
fn what_follows_the_hello_is_ignored() {
    let message = Hand::new().name("first.example").message();
    let second = Hand::new().name("second.example").message();
    let same_record = record(&[message.as_slice(), &second].concat());
    let early_data = [record(&message), vec![23, 3, 3, 0, 1, 0]].concat();
    let alert = [record(&message), vec![21, 3, 3, 0, 2, 1, 0]].concat();
    let rubbish = [record(&message), vec![0xff; 40_000]].concat();
    let cut_and_rubbish = [records(&message, 7), vec![0xff; 40_000]].concat();
    for wire in [same_record, early_data, alert, rubbish, cut_and_rubbish] {
        assert_eq!(name_of(&wire).as_deref(), Some("first.example"));
    }
}

#[test]
fn bytes_that_are_not_tls_are_known_at_once() {
    let sslv2 = [0x80, 0x2e, 0x01, 0x03, 0x01];
    for bytes in [b"G".as_slice(), b"SSH-2.0-", b"\x00", b"PROXY TCP4", &sslv2, &[22, 2], &[22, 4, 1], &[21, 3, 3]] {
        assert_eq!(parse(bytes), Progress::No(Ended::NotTls), "{bytes:x?}");
    }
    assert_eq!(parse(&[]), Progress::More);
    assert_eq!(parse(&[22]), Progress::More);
    assert_eq!(parse(&[22, 3]), Progress::More);
}

#[test]
fn any_minor_version_of_the_record_is_accepted() {
    let mut wire = Hand::new().name("a.example").wire();
    for minor in 0..=255 {
        wire[2] = minor;
        assert_eq!(name_of(&wire).as_deref(), Some("a.example"));
    }
}

#[test]
fn records_out_of_order_are_malformed() {
    let hello = Hand::new().name("a.example").message();
    let (first, second) = hello.split_at(20);
    let empty_first = [22, 3, 1, 0, 0].to_vec();
    let over_long = [22, 3, 1, 0x40, 0x01].to_vec();
    let other_message = record(&message(2, &[0; 40]));
    let alert_between = [record(first), vec![21, 3, 1, 0, 2, 1, 0], record(second)].concat();
    let empty_between = [record(first), vec![22, 3, 1, 0, 0], record(second)].concat();
    let other_major_between = [record(first), vec![22, 9, 1, 0, 1, 0], record(second)].concat();
    for wire in [empty_first, over_long, other_message, alert_between, empty_between, other_major_between] {
        assert_eq!(parse(&wire), Progress::No(Ended::HelloMalformed), "{wire:x?}");
    }
    assert_eq!(parse(&[22, 3, 1, 0, 9, 2]), Progress::No(Ended::HelloMalformed), "a ServerHello, at its first byte");
}
