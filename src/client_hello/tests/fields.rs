//! Names, protocols and other fields inside the message of a hello.

use super::*;

#[test]
fn names_are_read_as_clients_write_them() {
    for (sent, read) in [
        ("www.example.org", Some("www.example.org")),
        ("WWW.Example.ORG", Some("www.example.org")),
        ("www.example.org.", Some("www.example.org")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        ("_sip.example", Some("_sip.example")),
        ("localhost", Some("localhost")),
        ("192.0.2.7", None),
        ("192.0.2.7.", None),
        ("2001:db8::7", None),
        ("::ffff:192.0.2.7", None),
    ] {
        assert_eq!(name_of(&Hand::new().name(sent).wire()).as_deref(), read, "{sent:?}");
    }
    assert_eq!(name_of(&Hand::new().wire()), None, "no extension");
}

#[test]
fn what_is_no_host_name_counts_as_none_and_is_shown() {
    let long = "a.".repeat(20_000);
    for (sent, shown) in [
        ("", ""),
        (".", "."),
        ("..", ".."),
        ("a..b", "a..b"),
        ("a b", "a b"),
        ("*.example.org", "*.example.org"),
        ("example.org:443", "example.org:443"),
        ("https://example.org/", "https://example.org/"),
        ("bücher.example", "bücher.example"),
        ("a\0b\n\x1b[2J", "a\0b\n\x1b[2J"),
        ("[::1]", "[::1]"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7.", "192.0.2.7."),
        ("::1", "::1"),
        (&"a".repeat(64), &"a".repeat(64)),
        (&long, &long[..SHOWN_MAX]),
    ] {
        let wire = Hand::new().name(sent).alpn(&["h2"]).wire();
        assert_eq!(odd_name_of(&wire).as_deref(), Some(shown), "{sent:?}");
        assert_eq!(parse(&wire[..wire.len() - 1]), Progress::More, "{sent:?}");
    }
    let not_text = Hand::new().extension(SERVER_NAME, &with_length(&host_entry(&[0xff, 0xfe]))).wire();
    assert_eq!(odd_name_of(&not_text).as_deref(), Some("\u{fffd}\u{fffd}"));
    assert_eq!(odd_name_of(&Hand::new().wire()), None, "no extension");
}

#[test]
fn broken_server_name_extensions_are_malformed() {
    let host = host_entry(b"a.example");
    let broken = [
        vec![],                                          // no list: a server's answer, not a client's question
        vec![0, 0],                                      // an empty list
        with_length(&[host.as_slice(), &host].concat()), // two host names
        [with_length(&host), vec![0]].concat(),          // a byte after the list
        with_length(&host)[..5].to_vec(),                // a list cut short
        with_length(&[0, 0, 200, b'a']),                 // an entry longer than the list
        with_length(&[0]),                               // an entry without a length
    ];
    for body in broken {
        let wire = Hand::new().extension(SERVER_NAME, &body).wire();
        assert_eq!(parse(&wire), Progress::No(Ended::HelloMalformed), "{body:x?}");
    }
}

#[test]
fn entries_of_other_name_types_are_passed_over() {
    let other = [&[9], with_length(b"whatever").as_slice()].concat();
    let list = [other.as_slice(), &host_entry(b"a.example"), &other].concat();
    assert_eq!(name_of(&Hand::new().extension(SERVER_NAME, &with_length(&list)).wire()).as_deref(), Some("a.example"));
    assert_eq!(name_of(&Hand::new().extension(SERVER_NAME, &with_length(&other)).wire()), None);
}

#[test]
fn broken_alpn_extensions_are_malformed() {
    for body in
        [&[][..], &[0, 0], &[0, 1, 0], &[0, 3, 2, b'h', b'2', 0], &[0, 3, 3, b'h', b'2'], &[0, 4, 2, b'h', b'2', 0]]
    {
        let wire = Hand::new().extension(ALPN, body).wire();
        assert_eq!(parse(&wire), Progress::No(Ended::HelloMalformed), "{body:x?}");
    }
}

#[test]
fn extensions_that_decide_may_appear_once() {
    let twice = [
        Hand::new().name("a.example").name("a.example"),
        Hand::new().alpn(&["h2"]).alpn(&["h2"]),
        Hand::new().extension(ENCRYPTED_CLIENT_HELLO, &[0]).extension(ENCRYPTED_CLIENT_HELLO, &[0]),
    ];
    for hello in twice {
        assert_eq!(parse(&hello.wire()), Progress::No(Ended::HelloMalformed));
    }
}

#[test]
fn rubbish_inside_the_message_is_malformed() {
    let good = Hand::new().name("a.example").message();
    let body = &good[MESSAGE_HEADER..];
    for length in 0..body.len() {
        // Cut at the end of the compression methods it is a hello without extensions, as TLS 1.0 allowed.
        let expected = length == 2 + 32 + 33 + 8 + 2;
        let answer = parse(&record(&message(CLIENT_HELLO, &body[..length])));
        assert_eq!(matches!(answer, Progress::Done(_)), expected, "body cut to {length}: {answer:?}");
        assert!(expected || answer == Progress::No(Ended::HelloMalformed), "body cut to {length}: {answer:?}");
    }
    let longer = message(CLIENT_HELLO, &[body, &[0]].concat());
    assert_eq!(parse(&record(&longer)), Progress::No(Ended::HelloMalformed));
    let mut odd_extensions = Hand::new().name("a.example");
    odd_extensions.extensions.push(0);
    assert_eq!(parse(&odd_extensions.wire()), Progress::No(Ended::HelloMalformed), "a byte after the last extension");
    let no_ciphers = [&[3, 3][..], &[1; 32], &[0, 0, 0, 1, 0]].concat();
    assert_eq!(parse(&record(&message(CLIENT_HELLO, &no_ciphers))), Progress::No(Ended::HelloMalformed));
    let no_compression = [&[3, 3][..], &[1; 32], &[0, 0, 2, 0x13, 1, 0]].concat();
    assert_eq!(parse(&record(&message(CLIENT_HELLO, &no_compression))), Progress::No(Ended::HelloMalformed));
}
