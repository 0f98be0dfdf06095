//! Cookies of requests and responses, and their dates.

use proptest::prelude::*;

use super::*;
use crate::http::cookie::{find, pairs};
use crate::http::date;
use crate::http::set_cookie::{Lifetime, set_cookies};

fn request(lines: &[&str]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("Cookie:{line}\r\n")).collect();
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn all(lines: &[&str]) -> Vec<(String, String)> {
    let bytes = request(lines);
    let reader = read_request(&bytes);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    pairs(reader.request(&bytes).fields).map(|pair| (text(pair.name), text(pair.value))).collect()
}

#[test]
fn cookies_are_read_as_servers_read_them() {
    for (lines, wanted) in [
        (&[" a=b"][..], &[("a", "b")][..]),
        (&[" a=b; c=d;e=f"], &[("a", "b"), ("c", "d"), ("e", "f")]),
        (&["a=b", " c=d", "a=e"], &[("a", "b"), ("c", "d"), ("a", "e")]),
        (&[" a=\"b c\"; d=\"e"], &[("a", "b c"), ("d", "\"e")]),
        (&[" a=\"\"; b=\"; c=\"\"\""], &[("a", ""), ("b", "\""), ("c", "\"")]),
        (&[" a=b=c==; d="], &[("a", "b=c=="), ("d", "")]),
        (&[" a ; =b; ;; \t; c = d "], &[("", "a"), ("", "b"), ("c", "d")]),
        (&[""], &[]),
        (&[" a=\"b;c=d\""], &[("a", "\"b"), ("c", "d\"")]),
        (&[" a=é, ü"], &[("a", "é, ü")]),
        (&[" A=1; a=2"], &[("A", "1"), ("a", "2")]),
    ] {
        let wanted: Vec<_> = wanted.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(all(lines), wanted, "{lines:?}");
    }
}

#[test]
fn a_cookie_is_found_by_its_exact_name_wherever_it_stands() {
    let other = "x=y; ".repeat(1_600); // 8 KiB
    let bytes =
        request(&[&format!(" XSESSILE=0; SESSILE2=0; {other}sessile=0; SESSILE=1"), " SESSILE=\"2\"; a=b", "SESSILE"]);
    let reader = read_request(&bytes);
    let found: Vec<_> = find(reader.request(&bytes).fields, b"SESSILE").collect();
    assert_eq!(found.iter().map(|pair| pair.value).collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(found[0].place.of(&bytes), b"SESSILE=1");
    assert_eq!(found[1].place.of(&bytes), b"SESSILE=\"2\"");
}

#[test]
fn a_set_cookie_says_what_it_sets_and_whether_it_ends_it() {
    const NOW: u64 = 1_000_000_000; // 2001-09-09
    for (line, name, value, lifetime, ends) in [
        ("a=b", "a", "b", Lifetime::Session, false),
        (" a = \"b c\" ;Path=/; HttpOnly", "a", "b c", Lifetime::Session, false),
        ("a=b; Max-Age=0", "a", "b", Lifetime::Seconds(0), true),
        ("a=; max-age = -1", "a", "", Lifetime::Seconds(-1), true),
        ("a=b; Max-Age=60", "a", "b", Lifetime::Seconds(60), false),
        ("a=b; Max-Age=60; Max-Age=0", "a", "b", Lifetime::Seconds(0), true),
        ("a=b; Max-Age=\"60\"; Max-Age=x; Max-Age=", "a", "b", Lifetime::Session, false),
        ("a=b; Max-Age=99999999999999999999", "a", "b", Lifetime::Seconds(i64::MAX), false),
        ("a=b; Max-Age=-99999999999999999999", "a", "b", Lifetime::Seconds(-i64::MAX), true),
        ("a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "a", "b", Lifetime::Until(0), true),
        ("a=b; Expires=Thu, 01-Jan-70 00:00:10 GMT", "a", "b", Lifetime::Until(10), true),
        ("a=b; expires=Wed, 09 Sep 2099 00:00:00 GMT", "a", "b", Lifetime::Until(4_092_595_200), false),
        ("a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5", "a", "b", Lifetime::Seconds(5), false),
        ("a=b; Expires=0", "a", "b", Lifetime::Session, false),
        ("a", "", "a", Lifetime::Session, false),
        ("=a=b=c; Max-Age=0", "a", "b=c", Lifetime::Seconds(0), true),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\nSet-Cookie:{line}\r\n\r\n").into_bytes();
        let reader = read_response(&bytes, ASKED);
        let cookie = set_cookies(reader.response(&bytes).fields, name.as_bytes()).next().expect(line);
        assert_eq!((cookie.name, cookie.value), (name.as_bytes(), value.as_bytes()), "{line}");
        assert_eq!((cookie.lifetime, cookie.ends(NOW)), (lifetime, ends), "{line}");
    }
}

#[test]
fn cookie_dates_are_read_as_browsers_read_them() {
    let date = 784_111_777; // RFC 9110 §5.6.7
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "6 november 1994 8:49:37",
        "1994 Nov 06 08:49:37 PST",
        "08:49:37,06-NOV-1994",
    ] {
        assert_eq!(date::read_cookie_date(text.as_bytes()), Some(date), "{text}");
    }
    for bad in [
        "",
        "0",
        "Sun, 06 Nov 1994",
        "06 Nov 1994 24:00:00",
        "06 Nov 1994 00:60:00",
        "31 Jun 1994 00:00:00",
        "29 Feb 1900 00:00:00",
        "06 Nov 1600 00:00:00",
        "32 Jan 1994 00:00:00",
        "06 Nov 19945 00:00:00",
        "06 Foo 1994 00:00:00",
        "06 Nov 1994 00:00",
    ] {
        assert_eq!(date::read_cookie_date(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(date::read_cookie_date(b"29 Feb 2000 00:00:00"), Some(951_782_400));
    assert_eq!(date::read_cookie_date(b"1 Jan 1601 00:00:00"), Some(-11_644_473_600));
}

proptest! {
    #[test]
    fn a_date_that_is_written_is_read_again(unix_s in 0u64..253_402_300_800) {
        let mut text = Vec::new();
        date::write(&mut text, unix_s);
        prop_assert_eq!(text.len(), 29);
        prop_assert_eq!(date::read_cookie_date(&text), Some(unix_s as i64));
    }

    #[test]
    fn places_are_in_order_and_hold_their_pairs(lines in proptest::collection::vec("[ -~]{0,40}", 0..4)) {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let bytes = request(&lines);
        let reader = read_request(&bytes);
        let mut end = 0;
        for pair in pairs(reader.request(&bytes).fields) {
            prop_assert!(pair.place.start() >= end && pair.place.end() > pair.place.start());
            end = pair.place.end();
            let text = pair.place.of(&bytes);
            prop_assert!(text.starts_with(pair.name) && !text.contains(&b';'));
        }
    }
}
