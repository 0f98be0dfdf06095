//! The examples of RFC 7541 appendix C, and what §5 and §6 forbid: the tests of the suite's own header compression.

use super::hpack::{self, Decoder, Fields, TABLE_SIZE};
use super::huffman;

/// Bytes from hexadecimal digits, with spaces between them.
fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|digit| *digit != b' ').collect();
    data_encoding::HEXLOWER.decode(&digits).expect("hexadecimal digits")
}

fn fields(expected: &[(&str, &str)]) -> Fields {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A block, its fields, and the size of the dynamic table behind it.
type Block<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

/// Decodes each block by the decoder that has read those before, and compares fields and size of the dynamic table.
fn check(mut decoder: Decoder, blocks: &[Block<'_>]) {
    for (block, expected, table) in blocks {
        assert_eq!(decoder.decode(&bytes(block)), Ok(fields(expected)), "{block}");
        assert_eq!(decoder.table_bytes(), *table, "{block}");
    }
}

#[test]
fn integers_are_those_of_c_1() {
    assert_eq!(hpack::integer(10, 5, 0), [0x0a]);
    assert_eq!(hpack::integer(1_337, 5, 0), [0x1f, 0x9a, 0x0a]);
    assert_eq!(hpack::integer(42, 8, 0), [0x2a]);
}

#[test]
fn representations_are_those_of_c_2() {
    let custom = ("custom-key", "custom-header");
    let block = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    assert_eq!(hpack::indexing(custom.0, custom.1), bytes(block));
    check(Decoder::new(TABLE_SIZE), &[(block, &[custom], 55)]);
    let block = "040c 2f73 616d 706c 652f 7061 7468";
    check(Decoder::new(TABLE_SIZE), &[(block, &[(":path", "/sample/path")], 0)]);
    let block = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    check(Decoder::new(TABLE_SIZE), &[(block, &[("password", "secret")], 0)]);
    assert_eq!(hpack::indexed(2), bytes("82"));
    check(Decoder::new(TABLE_SIZE), &[("82", &[(":method", "GET")], 0)]);
}

/// The three requests of C.3 and C.4.
const REQUESTS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

#[test]
fn requests_are_those_of_c_3_and_c_4() {
    let as_they_are = [
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0], 57),
        ("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1], 110),
        ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUESTS[2], 164),
    ];
    check(Decoder::new(TABLE_SIZE), &as_they_are);
    let coded = [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0], 57),
        ("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1], 110),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUESTS[2], 164),
    ];
    check(Decoder::new(TABLE_SIZE), &coded);
}

#[test]
fn responses_are_those_of_c_5_and_c_6() {
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let (first, last) = ("Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT");
    let place = ("location", "https://www.example.com");
    let private = ("cache-control", "private");
    let one: &[_] = &[(":status", "302"), private, ("date", first), place];
    let two: &[_] = &[(":status", "307"), private, ("date", first), place];
    let three: &[_] =
        &[(":status", "200"), private, ("date", last), place, ("content-encoding", "gzip"), ("set-cookie", cookie)];
    let as_they_are = [
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
             3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            one,
            222,
        ),
        ("4803 3330 37c1 c0bf", two, 222),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
             7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
             6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            three,
            215,
        ),
    ];
    check(Decoder::new(256), &as_they_are);
    let coded = [
        (
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
             1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            one,
            222,
        ),
        ("4883 640e ffc1 c0bf", two, 222),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
             e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            three,
            215,
        ),
    ];
    check(Decoder::new(256), &coded);
}

#[test]
fn every_byte_survives_the_huffman_code() {
    let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    assert_eq!(huffman::decode(&huffman::encode(&all)), Ok(all));
    assert_eq!(huffman::encode(b"www.example.com"), bytes("f1e3 c2e5 f23a 6ba0 ab90 f4ff"));
    assert_eq!(huffman::decode(&[]), Ok(Vec::new()));
}

#[test]
fn what_rfc_7541_forbids_is_refused() {
    assert!(huffman::decode(&[0xff, 0xff, 0xff, 0xff]).is_err(), "the symbol that ends a string");
    assert!(huffman::decode(&[0b0001_1111, 0xff]).is_err(), "more than seven bits of padding");
    assert!(huffman::decode(&[0b0001_1000]).is_err(), "padding of zeros");
    let refused = |block: &[u8]| Decoder::new(TABLE_SIZE).decode(block).is_err();
    assert!(refused(&hpack::indexed(0)), "index 0");
    assert!(refused(&hpack::indexed(62)), "an empty dynamic table");
    assert!(refused(&hpack::table_size(4_097)), "a table above the limit");
    assert!(refused(&[hpack::indexed(2), hpack::table_size(0)].concat()), "a table size behind a field");
    assert!(refused(&[0xff; 12]), "an integer without end");
    assert!(refused(&hpack::plain("x")[..1]), "a literal without its strings");
}

#[test]
fn a_lower_limit_has_to_be_confirmed_and_evicts() {
    let mut decoder = Decoder::new(TABLE_SIZE);
    decoder.decode(&hpack::indexing("a", "b")).expect("a field");
    decoder.set_limit(0);
    assert!(decoder.decode(&hpack::indexed(2)).is_err(), "the sender has not confirmed");
    assert!(decoder.decode(&[hpack::table_size(0), hpack::indexed(2)].concat()).is_ok());
    assert!(decoder.decode(&hpack::indexed(62)).is_err(), "the entry has gone");
}
