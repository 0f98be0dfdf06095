//! Bytes of the messages, those of the specification and those that no server should send.

use proptest::prelude::*;

use super::*;

/// A message with its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

fn status_of(message: &[u8]) -> Result<String, &'static str> {
    read_reply(&framed(message)).map(|status| status.to_string())
}

const NO_PROTOBUF: Result<String, &str> = Err("has a message that is not protobuf");

#[test]
fn a_request_has_the_bytes_of_the_specification() {
    assert_eq!(request(""), [0, 0, 0, 0, 0]);
    assert_eq!(request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
    let long = "s".repeat(300);
    let bytes = request(&long);
    assert_eq!((&bytes[..8], &bytes[8..10]), (&[0, 0, 0, 1, 47, 0x0a, 0xac, 0x02][..], &b"ss"[..]));
    assert_eq!(bytes.len(), PREFIX + 3 + 300);
}

#[test]
fn a_status_is_read_with_its_word() {
    for (message, word) in [
        (&[][..], "UNKNOWN"),
        (&[8, 0], "UNKNOWN"),
        (&[8, 1], "SERVING"),
        (&[8, 2], "NOT_SERVING"),
        (&[8, 3], "SERVICE_UNKNOWN"),
        (&[8, 7], "7"),
        (&[8, 0x81, 0x80, 0x00], "SERVING"),
        (&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "-1"),
    ] {
        assert_eq!(status_of(message).as_deref(), Ok(word), "{message:?}");
    }
    assert_eq!(read_reply(&framed(&[8, 1])), Ok(ServingStatus::SERVING));
}

#[test]
fn unknown_fields_are_passed_over_and_the_last_status_counts() {
    for (message, word) in [
        (&[0x10, 0x96, 0x01, 8, 1][..], "SERVING"),
        (&[8, 1, 0x19, 1, 2, 3, 4, 5, 6, 7, 8], "SERVING"),
        (&[0x22, 3, 8, 2, 8, 8, 1], "SERVING"),
        (&[0x2d, 8, 2, 8, 2, 8, 1], "SERVING"),
        (&[0xf8, 0xff, 0xff, 0xff, 0x0f, 5, 8, 1], "SERVING"),
        (&[8, 1, 8, 2], "NOT_SERVING"),
        // The status as text is another field to protobuf.
        (&[8, 1, 0x0a, 1, 0x32], "SERVING"),
    ] {
        assert_eq!(status_of(message).as_deref(), Ok(word), "{message:?}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    for message in [
        // Varints that do not end, or have more than 64 bits.
        &[8][..],
        &[8, 0x80],
        &[0x80],
        &[8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        &[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        // Lengths beyond the end.
        &[0x22, 4, 1, 2, 3],
        &[0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x19, 1, 2, 3, 4, 5, 6, 7],
        &[0x2d, 1, 2, 3],
        &[0x22],
        // The field 0, a tag of more than 32 bits, groups, and wire types that do not exist.
        &[0, 1],
        &[0x88, 0x80, 0x80, 0x80, 0x10, 1],
        &[0x0b, 8, 1, 0x0c],
        &[0x0c],
        &[0x0e, 1],
        &[0x0f, 1],
    ] {
        assert_eq!(status_of(message), NO_PROTOBUF, "{message:?}");
    }
}

#[test]
fn a_body_is_one_message_that_is_whole() {
    for (body, complaint) in [
        (&[][..], "has no message"),
        (&[0], "ends inside a message"),
        (&[0, 0, 0, 0], "ends inside a message"),
        (&[0, 0, 0, 0, 2, 8], "ends inside a message"),
        (&[0, 0xff, 0xff, 0xff, 0xff, 8, 1], "ends inside a message"),
        (&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 0], "has more than one message"),
        (&[0, 0, 0, 0, 1, 8, 1], "has more than one message"),
        (&[1, 0, 0, 0, 2, 8, 1], "is compressed, which was not offered"),
        (b"<html>", "has a message that is not gRPC"),
    ] {
        assert_eq!(read_reply(body), Err(complaint), "{body:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_read_beyond_their_end(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = read_reply(&body);
        let _ = read_reply(&framed(&body));
    }

    #[test]
    fn varints_are_read_as_they_were_written(value: u64, rest in proptest::collection::vec(any::<u8>(), 0..4)) {
        let mut bytes = Vec::new();
        write_varint(&mut bytes, value);
        prop_assert!(bytes.len() <= VARINT_MAX);
        bytes.extend_from_slice(&rest);
        let mut left = &bytes[..];
        prop_assert_eq!((read_varint(&mut left), left), (Some(value), &rest[..]));
    }
}
