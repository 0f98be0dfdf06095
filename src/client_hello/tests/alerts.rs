//! The alert that each kind of broken hello gets.

use super::*;
use rustls::AlertDescription::{
    self, DecodeError, IllegalParameter, ProtocolVersion, RecordOverflow, UnexpectedMessage,
};

/// The alert for these bytes; panics if they are a hello, or may become one.
fn alert(wire: &[u8]) -> AlertDescription {
    match super::super::parse(wire) {
        Progress::No(refusal) => refusal.alert(),
        other => panic!("{other:?}: {wire:x?}"),
    }
}

#[test]
fn a_record_that_does_not_belong_here_gets_the_alert_of_its_kind() {
    let hello = Hand::new().name("a.example").message();
    let (first, second) = hello.split_at(20);
    let after = |bytes: &[u8]| [record(first), bytes.to_vec(), record(second)].concat();
    for (wire, expected) in [
        (b"SSH-2.0-".to_vec(), UnexpectedMessage),
        (vec![21, 3, 1, 0, 2, 1, 0], UnexpectedMessage),
        (vec![23, 3, 3, 0, 1, 0], UnexpectedMessage),
        (vec![22, 2, 0, 0, 9], ProtocolVersion),
        (vec![22, 4, 1], ProtocolVersion),
        (vec![22, 3, 1, 0, 0], UnexpectedMessage),
        (vec![22, 3, 1, 0x40, 0x01], RecordOverflow),
        (record(&message(2, &[0; 40])), UnexpectedMessage),
        (record(&message(0, &[])), UnexpectedMessage),
        (after(&[21, 3, 1, 0, 2, 1, 0]), UnexpectedMessage),
        (after(&[20, 3, 1, 0, 1, 1]), UnexpectedMessage),
        (after(&[22, 9, 1, 0, 1, 0]), ProtocolVersion),
        (after(&[22, 3, 1, 0, 0]), UnexpectedMessage),
        (after(&[22, 3, 1, 0x40, 0x01]), RecordOverflow),
    ] {
        assert_eq!(alert(&wire), expected, "{wire:x?}");
    }
}

#[test]
fn a_message_that_cannot_be_decoded_gets_decode_error() {
    let good = Hand::new().name("a.example").message();
    let body = &good[MESSAGE_HEADER..];
    let without_extensions = 2 + 32 + 33 + 8 + 2;
    for length in (0..body.len()).filter(|length| *length != without_extensions) {
        assert_eq!(alert(&record(&message(CLIENT_HELLO, &body[..length]))), DecodeError, "cut to {length}");
    }
    for more in [1, 2, 3, 255, 256] {
        let padded = message(CLIENT_HELLO, &[body, &vec![0xff; more]].concat());
        assert_eq!(alert(&records(&padded, RECORD_MAX)), DecodeError, "{more} bytes more");
    }
    for extension in [&[][..], &[0, 0], &[0, 1, 0], &[0xff; 4], &[0, 3, 3, b'h', b'2']] {
        for kind in [SERVER_NAME, ALPN] {
            assert_eq!(alert(&Hand::new().extension(kind, extension).wire()), DecodeError, "{kind}: {extension:x?}");
        }
    }
    let longest = message(CLIENT_HELLO, &vec![0; (1 << 24) - 1]);
    assert_eq!(alert(&records(&longest, RECORD_MAX)), DecodeError, "longer than any hello that is read");
}

#[test]
fn a_field_that_must_not_be_there_gets_illegal_parameter() {
    let host = host_entry(b"a.example");
    let two_names = with_length(&[host.as_slice(), &host].concat());
    for hello in [
        Hand::new().name("a.example").name("a.example"),
        Hand::new().alpn(&["h2"]).alpn(&["h2"]),
        Hand::new().extension(SERVER_NAME, &two_names),
    ] {
        assert_eq!(alert(&hello.wire()), IllegalParameter);
    }
}
