//! What is passed on: line by line as it was, but for what has to change.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::http::edit::{CookieEdit, CookieNames, RequestEdit, ResponseEdit, write_request, write_response};
use crate::http::forwarded::{Forwarding, told_secure};

/// Changes nothing that does not have to change.
const PLAIN: RequestEdit<'_> = RequestEdit {
    x_forwarded: Forwarding::Off,
    forwarded: Forwarding::Off,
    client: None,
    port: None,
    secure: true,
    cookie: CookieEdit::Keep,
    split_cookie: None,
    close: false,
    trailers: false,
    set: &[],
    remove: &[],
};

fn edited(text: &str, edit: &RequestEdit<'_>) -> String {
    let reader = read_request(text.as_bytes());
    let mut out = Vec::new();
    write_request(&mut out, &reader.request(text.as_bytes()), edit);
    String::from_utf8(out).expect("text")
}

/// The lines of a request with these lines behind Host, without what every request has.
fn lines(text: &str, edit: &RequestEdit<'_>) -> String {
    let written = edited(&format!("GET / HTTP/1.1\r\nHost: a\r\n{text}\r\n"), edit);
    let lines = written.strip_prefix("GET / HTTP/1.1\r\nHost: a\r\n").expect("request line and host");
    lines.strip_suffix("\r\n").expect("an empty line").to_owned()
}

fn edited_response(text: &str, asked: RequestMeta, edit: &ResponseEdit<'_>) -> String {
    let reader = read_response(text.as_bytes(), asked);
    let mut out = Vec::new();
    write_response(&mut out, &reader.response(text.as_bytes()), &asked, edit);
    String::from_utf8(out).expect("text")
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

#[test]
fn what_has_no_rule_stays_byte_for_byte() {
    let text = "GET /a?b HTTP/1.1\r\nhOST:a\r\nX:  y \t\r\nx: \tz\r\nAccept: */*\r\nTrailer: X\r\nExpect: 100-continue\r\n\
                Cookie: a=b;;c = \"d\" \r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\n\r\n";
    assert_eq!(edited(text, &PLAIN), text);
}

#[test]
fn an_absolute_target_becomes_an_origin_one() {
    for (target, written) in [
        ("GET http://a", "GET /"),
        ("GET HTTPS://a/", "GET /"),
        ("GET http://a/b?c", "GET /b?c"),
        ("GET http://a?b", "GET /?b"),
        ("OPTIONS http://a", "OPTIONS *"),
        ("OPTIONS http://a/", "OPTIONS /"),
        ("OPTIONS http://a?b", "OPTIONS /?b"),
        ("OPTIONS *", "OPTIONS *"),
    ] {
        let wanted = format!("{written} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(edited(&format!("{target} HTTP/1.1\r\nHost: a\r\n\r\n"), &PLAIN), wanted);
    }
    let old = edited("GET http://a:8/b HTTP/1.0\r\n\r\n", &PLAIN);
    assert_eq!(old, "GET /b HTTP/1.0\r\nHost: a:8\r\nConnection: keep-alive\r\n\r\n");
}

#[test]
fn what_concerns_one_hop_is_not_passed_on() {
    let hop = "Connection: close, X-Hop\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
               Proxy-Authorization: Basic YTpi\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\nx-hop: 1\r\nY: z\r\n";
    assert_eq!(lines(hop, &PLAIN), "Y: z\r\n");
}

#[test]
fn connection_takes_nothing_away_that_counts() {
    let kept = "Cookie: a=b\r\nAuthorization: c\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\nExpect: 100-continue\r\n\
                Content-Type: text/plain\r\nCache-Control: no-cache\r\n";
    let connection =
        "Connection: cookie, authorization, x-forwarded-for, forwarded, expect, content-type, cache-control\r\n";
    assert_eq!(lines(&format!("{connection}{kept}"), &PLAIN), kept);
    let edit = RequestEdit { set: &[("X-Subject", Some("us"))], ..PLAIN };
    assert_eq!(lines("Connection: x-subject\r\nX-Subject: them\r\n", &edit), "X-Subject: us\r\n");
}

#[test]
fn connection_is_said_anew_by_version_and_intent() {
    let close = RequestEdit { close: true, ..PLAIN };
    assert_eq!(lines("Connection: keep-alive\r\n", &PLAIN), "");
    assert_eq!(lines("Connection: keep-alive\r\n", &close), "Connection: close\r\n");
    let old = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(edited(old, &PLAIN), "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(edited(old, &close), "GET / HTTP/1.0\r\nConnection: close\r\n\r\n");
}

#[test]
fn an_upgrade_passes_without_http_in_it() {
    let both = "Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n";
    assert_eq!(lines(both, &PLAIN), "Sec-WebSocket-Key: x\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n");
    let many = "Connection: upgrade, http2-settings\r\nUpgrade: h2c,tcp/1 , websocket\r\nHTTP2-Settings: x\r\n";
    assert_eq!(lines(many, &PLAIN), "Connection: upgrade\r\nUpgrade: tcp/1, websocket\r\n");
    assert_eq!(lines("Connection: upgrade\r\nUpgrade: h2c\r\n", &PLAIN), "");
    assert_eq!(lines("Upgrade: websocket\r\n", &PLAIN), "");
}

#[test]
fn framing_is_written_in_its_plainest_spelling() {
    assert_eq!(lines("tRANSFER-eNCODING:\tCHUNKED \r\n", &PLAIN), "Transfer-Encoding: chunked\r\n");
    assert_eq!(lines("content-length:\t0042 \r\n", &PLAIN), "Content-Length: 42\r\n");
    assert_eq!(lines("content-length: 000\r\n", &PLAIN), "Content-Length: 0\r\n");
}

#[test]
fn x_forwarded_tells_of_the_client() {
    let brought = "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-Proto: http\r\nA: b\r\nx-forwarded-for:3.3.3.3\r\n";
    let with = |x_forwarded| RequestEdit { x_forwarded, client: address("2001:db8::1"), ..PLAIN };
    let ours = "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\n";
    assert_eq!(lines(brought, &with(Forwarding::Replace)), format!("A: b\r\n{ours}"));
    assert_eq!(lines("", &with(Forwarding::Append)), ours);
    assert_eq!(
        lines(brought, &with(Forwarding::Append)),
        "X-Forwarded-Proto: http\r\nA: b\r\n\
         X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 2001:db8::1\r\nX-Forwarded-Host: a\r\n"
    );
    assert_eq!(lines(brought, &with(Forwarding::Remove)), "A: b\r\n");
    assert_eq!(lines(brought, &with(Forwarding::Off)), brought);
    let disguised = "X_Forwarded_For: 1.1.1.1\r\nX-Forwarded_Host: b\r\nX_Other: c\r\n";
    assert_eq!(lines(disguised, &with(Forwarding::Replace)), format!("X_Other: c\r\n{ours}"));
}

#[test]
fn no_description_of_a_client_by_itself_reaches_the_backend() {
    let with = |x_forwarded| RequestEdit { x_forwarded, client: address("192.0.2.1"), ..PLAIN };
    let ours = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\n";
    for name in [
        "X-Real-IP",
        "X-Forwarded-Port",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X-Forwarded-Prefix",
        "X-Forwarded-User",
        "X-Forwarded",
        "Forwarded-For",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "Front-End-Https",
        "X-Url-Scheme",
        "X-Original-Forwarded-For",
        "X-Original-Host",
        "X-Original-URL",
        "X-Rewrite-URL",
        "CF-Connecting-IP",
        "Client-IP",
        "CloudFront-Forwarded-Proto",
        "Fastly-Client-IP",
        "Script-Name",
        "Path-Info",
        "X-Scheme",
        "X-HTTP-Host-Override",
        "X-Original-URI",
    ] {
        for name in [name.to_owned(), name.to_lowercase(), name.replace('-', "_"), name.replacen('-', ".", 1)] {
            let line = format!("{name}: 203.0.113.9\r\n");
            assert_eq!(lines(&line, &with(Forwarding::Replace)), ours, "{name}");
            assert_eq!(lines(&line, &with(Forwarding::Remove)), "", "{name}");
            // Trusted proxies as clients: what they say stays, even if Connection names it.
            let named = format!("Connection: {name}\r\n{line}");
            assert_eq!(lines(&named, &with(Forwarding::Append)), format!("{line}{ours}"), "{name}");
            assert_eq!(lines(&line, &with(Forwarding::Off)), line, "{name}");
        }
    }
    assert_eq!(lines("X-Forwarded-Host: b\r\nForwarded: for=x\r\n", &with(Forwarding::Remove)), "Forwarded: for=x\r\n");
    let disguised = "X.Forwarded.For: 1.1.1.1\r\nX-Forwarded.Proto: http\r\nX~Real~IP: 1.1.1.1\r\n";
    assert_eq!(lines(disguised, &with(Forwarding::Replace)), ours);
    let kept = "X-Real: 1\r\nX-Forwarder: a\r\nForwarded-To: b\r\nX-Original: c\r\nXForwardedFor: d\r\n";
    assert_eq!(lines(kept, &with(Forwarding::Replace)), format!("{kept}{ours}"));
}

#[test]
fn the_port_stands_beside_the_scheme_of_the_same_connection() {
    let with = |x_forwarded| RequestEdit { x_forwarded, port: Some(8443), ..PLAIN };
    let own = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\nX-Forwarded-Port: 8443\r\n";
    assert_eq!(lines("x-forwarded-port: 1\r\nX_Forwarded_Port: 2\r\n", &with(Forwarding::Replace)), own);
    assert_eq!(lines("", &with(Forwarding::Append)), own);
    assert_eq!(
        lines("X-Forwarded-Port: 80\r\n", &with(Forwarding::Append)),
        "X-Forwarded-Port: 80\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\n"
    );
    let told = "X-Forwarded-Proto: http\r\n";
    assert_eq!(lines(told, &with(Forwarding::Append)), format!("{told}X-Forwarded-Host: a\r\n"));
    let told = "Forwarded: for=x;proto=http\r\n";
    let wanted = format!("{told}X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n");
    assert_eq!(lines(told, &with(Forwarding::Append)), wanted);
}

#[test]
fn the_scheme_of_the_first_client_is_told_by_either_family() {
    for (told, secure) in [
        ("", None),
        ("X-Forwarded-Proto: https\r\n", Some(true)),
        ("x-forwarded-proto: HTTPS, http\r\nX-Forwarded-Proto: http\r\n", Some(true)),
        ("X-Forwarded-Proto: wss\r\n", Some(true)),
        ("X-Forwarded-Proto: http\r\nForwarded: proto=https\r\n", Some(false)),
        ("X-Forwarded-Proto: ,ws\r\n", Some(false)),
        ("X-Forwarded-Proto: gopher\r\nForwarded: proto=https\r\n", None),
        ("Forwarded: for=\"a,;proto=http\"; Proto = \"https\" ;by=b, proto=http\r\n", Some(true)),
        ("Forwarded: for=a, proto=https\r\n", None),
        ("Forwarded: proto\r\n", None),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{told}\r\n");
        let reader = read_request(text.as_bytes());
        assert_eq!(told_secure(reader.request(text.as_bytes()).fields), secure, "{told}");
    }
}

#[test]
fn connection_takes_away_what_it_names_among_many() {
    let options: String = (0..40).map(|index| format!("x-{index}, ")).collect();
    let fields: String = (0..44).map(|index| format!("X-{index}: {index}\r\n")).collect();
    let kept: String = (40..44).map(|index| format!("X-{index}: {index}\r\n")).collect();
    assert_eq!(lines(&format!("Connection: close, {options}\r\n{fields}"), &PLAIN), kept);
}

#[test]
fn x_forwarded_leaves_out_what_is_not_known() {
    let edit = RequestEdit { x_forwarded: Forwarding::Replace, secure: false, ..PLAIN };
    let written = edited("GET / HTTP/1.0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n", &edit);
    assert_eq!(written, "GET / HTTP/1.0\r\nX-Forwarded-Proto: http\r\nConnection: keep-alive\r\n\r\n");
    let mapped = RequestEdit { x_forwarded: Forwarding::Replace, client: address("::ffff:1.2.3.4"), ..PLAIN };
    assert!(lines("", &mapped).starts_with("X-Forwarded-For: 1.2.3.4\r\n"));
}

#[test]
fn forwarded_quotes_what_is_no_token() {
    let with = |client, forwarded| RequestEdit { forwarded, client, ..PLAIN };
    let replace = Forwarding::Replace;
    assert_eq!(lines("", &with(address("1.2.3.4"), replace)), "Forwarded: for=1.2.3.4;proto=https;host=a\r\n");
    assert_eq!(
        lines("Forwarded: for=x\r\n", &with(address("2001:db8::1"), replace)),
        "Forwarded: for=\"[2001:db8::1]\";proto=https;host=a\r\n"
    );
    assert_eq!(
        lines("Forwarded: for=x\r\nB: c\r\nforwarded: for=y;by=z\r\n", &with(None, Forwarding::Append)),
        "B: c\r\nForwarded: for=x, for=y;by=z, for=unknown;proto=https;host=a\r\n"
    );
    assert_eq!(lines("Forwarded: for=x\r\n", &with(None, Forwarding::Remove)), "");
    let port = edited("GET / HTTP/1.1\r\nHost: [::1]:8\r\n\r\n", &with(None, replace));
    assert!(port.contains(";host=\"[::1]:8\"\r\n"), "{port}");
}

#[test]
fn only_we_say_who_the_certificate_names() {
    let subject = "X-Client-Subject: CN=them\r\nx_client_subject: CN=them\r\nA: b\r\n";
    let with = |set| RequestEdit { set, ..PLAIN };
    assert_eq!(lines(subject, &with(&[("X-Client-Subject", None)])), "A: b\r\n");
    assert_eq!(
        lines(subject, &with(&[("X-Client-Subject", Some("CN=Zoë\r\nX: y,O=100 %")), ("X-Id", Some("1"))])),
        "A: b\r\nX-Client-Subject: CN=Zo%C3%AB%0D%0AX: y,O=100 %\r\nX-Id: 1\r\n"
    );
}

#[test]
fn what_a_rule_is_for_is_written_once_or_not_at_all() {
    let set = [("X-Real-IP", Some("192.0.2.1")), ("X-Forwarded-Proto", Some("https")), ("Forwarded", None)];
    let remove = ["X-Debug".to_owned(), "X-Forwarded-Host".to_owned()];
    let client = address("192.0.2.1");
    let edit = |forwarding, secure| RequestEdit {
        x_forwarded: forwarding,
        forwarded: forwarding,
        client,
        secure,
        set: &set,
        remove: &remove,
        ..PLAIN
    };
    let text = "x_real_ip: 1\r\nA: b\r\nX-DEBUG: 1\r\nX.Debug: 1\r\nX-Forwarded-Host: c\r\nForwarded: for=x\r\n";
    let ours = "X-Real-IP: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n";
    for forwarding in [Forwarding::Replace, Forwarding::Append] {
        assert_eq!(lines(text, &edit(forwarding, false)), format!("A: b\r\nX-Forwarded-For: 192.0.2.1\r\n{ours}"));
    }
    assert_eq!(lines(text, &edit(Forwarding::Off, false)), format!("A: b\r\n{ours}"));
    let host = RequestEdit { set: &[("Host", Some("b:1"))], ..PLAIN };
    for request in ["GET / HTTP/1.1\r\nhost: a\r\nX: y\r\n\r\n", "GET http://a/ HTTP/1.1\r\nhost: a\r\nX: y\r\n\r\n"] {
        assert_eq!(edited(request, &host), "GET / HTTP/1.1\r\nX: y\r\nHost: b:1\r\n\r\n");
    }
    let old = edited("GET http://a/ HTTP/1.0\r\n\r\n", &host);
    assert_eq!(old, "GET / HTTP/1.0\r\nHost: b:1\r\nConnection: keep-alive\r\n\r\n");
}

#[test]
fn rules_for_responses_leave_our_own_lines_alone() {
    let edit = ResponseEdit {
        set: &[("Strict-Transport-Security", Some("max-age=1")), ("X-Id", None)],
        remove: &["server".to_owned(), "Set-Cookie".to_owned(), "Cache-Control".to_owned()],
        add: &[("Set-Cookie", "S=ours"), ("Cache-Control", "private")],
        ..Default::default()
    };
    let text = "HTTP/1.1 200 OK\r\nServer: x\r\nstrict-transport-security: y\r\nSet-Cookie: a=b\r\nX-Id: 1\r\nX_Id: 2\r\n\
                Cache-Control: public\r\nContent-Length: 0\r\n\r\n";
    let wanted = "HTTP/1.1 200 OK\r\nX_Id: 2\r\nContent-Length: 0\r\nStrict-Transport-Security: max-age=1\r\n\
                  Set-Cookie: S=ours\r\nCache-Control: private\r\n\r\n";
    assert_eq!(edited_response(text, ASKED, &edit), wanted);
    let interim = "HTTP/1.1 103 Early Hints\r\nServer: x\r\nLink: y\r\n\r\n";
    let edit = ResponseEdit { add: &[], ..edit };
    assert_eq!(edited_response(interim, ASKED, &edit), "HTTP/1.1 103 Early Hints\r\nLink: y\r\n\r\n");
}

#[test]
fn a_cookie_is_taken_out_and_nothing_else_is_touched() {
    let remove = RequestEdit { cookie: CookieEdit::Remove(CookieNames::one(b"S")), ..PLAIN };
    for (before, after) in [
        ("S=1", None),
        ("S=1; ", None),
        (" ;S=1;; S=2 ;", None),
        ("S=1; a=b", Some(" a=b")),
        ("a=b; S=1", Some(" a=b")),
        ("a=b;  S=1;c=d", Some(" a=b;c=d")),
        ("a=b; S=\"1\" ; c=d; S=2;e", Some(" a=b; c=d;e")),
        ("S=1;; a = b ;c", Some(" ; a = b ;c")),
        ("  s=1;SS=2; S ; =S", Some("  s=1;SS=2; S ; =S")),
        ("a=S=1; b=\"S\"", Some("a=S=1; b=\"S\"")),
    ] {
        let after = after.map_or(String::new(), |after| format!("coOkie:{after}\r\n"));
        assert_eq!(lines(&format!("coOkie:{before}\r\n"), &remove), after, "{before:?}");
    }
    assert_eq!(
        lines("Cookie: a=b; S=1\r\nX: S=1\r\nCookie: S=2\r\nCookie: c=d\r\n", &remove),
        "Cookie: a=b\r\nX: S=1\r\nCookie: c=d\r\n"
    );
}

#[test]
fn the_cookie_of_a_split_is_taken_out_beside_every_treatment_of_another_one() {
    let names = CookieNames::one(b"S");
    let split_cookie = Some(CookieNames { name: b"W", twin: Some(b"WCORS") });
    for (cookie, after) in [
        (CookieEdit::Keep, "Cookie: S=b~1; a=b\r\n"),
        (CookieEdit::Remove(names), "Cookie: a=b\r\n"),
        (CookieEdit::Replace { names, value: b"in" }, "Cookie: a=b\r\nCookie: S=in\r\n"),
        (CookieEdit::CutPrefix { name: b"S", separator: b'~' }, "Cookie: S=1; a=b\r\n"),
    ] {
        let edit = RequestEdit { cookie, split_cookie, ..PLAIN };
        assert_eq!(lines("Cookie: S=b~1; W=1; a=b; WCORS=1\r\n", &edit), after, "{cookie:?}");
    }
    let alone = RequestEdit { split_cookie, ..PLAIN };
    assert_eq!(lines("Cookie: W=1\r\n", &alone), "");
}

#[test]
fn a_cookie_is_replaced_wherever_it_stood() {
    let replace = RequestEdit { cookie: CookieEdit::Replace { names: CookieNames::one(b"S"), value: b"in" }, ..PLAIN };
    for (before, after) in [
        ("Cookie: S=1\r\nX: y\r\n", "X: y\r\nCookie: S=in\r\n"),
        (
            "Cookie: a=b; S=1.in\r\nX: y\r\nCookie: S=2; c=d\r\n",
            "Cookie: a=b\r\nX: y\r\nCookie: c=d\r\nCookie: S=in\r\n",
        ),
    ] {
        assert_eq!(lines(before, &replace), after);
    }
}

#[test]
fn a_twin_goes_the_way_of_its_cookie() {
    let names = CookieNames { name: b"S", twin: Some(b"SCORS") };
    let text = "Cookie: a=b; SCORS=1; S=2; SCORSX=3\r\nCookie: SCORS=4\r\n";
    let remove = RequestEdit { cookie: CookieEdit::Remove(names), ..PLAIN };
    assert_eq!(lines(text, &remove), "Cookie: a=b; SCORSX=3\r\n");
    let replace = RequestEdit { cookie: CookieEdit::Replace { names, value: b"in" }, ..PLAIN };
    assert_eq!(lines(text, &replace), "Cookie: a=b; SCORSX=3\r\nCookie: S=in\r\n");
    let response = "HTTP/1.1 200 OK\r\nSet-Cookie: SCORS=x\r\nSet-Cookie: S=x\r\nSet-Cookie: SCORSX=x\r\n\
                    Content-Length: 0\r\n\r\n";
    let wanted = "HTTP/1.1 200 OK\r\nSet-Cookie: SCORSX=x\r\nContent-Length: 0\r\n\r\n";
    let edit = ResponseEdit { drop_cookie: Some(names), ..Default::default() };
    assert_eq!(edited_response(response, ASKED, &edit), wanted);
}

#[test]
fn a_backends_lines_for_our_cookie_are_dropped_and_no_others() {
    let drop_cookie = Some(CookieNames::one(b"S"));
    let edit = ResponseEdit { drop_cookie, add: &[("Set-Cookie", "S=ours")], ..Default::default() };
    let text = "HTTP/1.1 200 OK\r\nSet-Cookie: S=theirs; Path=/\r\nSet-Cookie: s=1\r\nset-cookie:S = \"x\"\r\n\
                Set-Cookie: SS=S=1\r\nSet-Cookie: S=; Max-Age=0\r\nSet-Cookie: S\r\nSet-Cookie: =S=x; Path=/\r\n\
                X: S=1\r\nContent-Length: 0\r\n\r\n";
    let wanted = "HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nSet-Cookie: SS=S=1\r\nSet-Cookie: S\r\nX: S=1\r\n\
                  Content-Length: 0\r\nSet-Cookie: S=ours\r\n\r\n";
    assert_eq!(edited_response(text, ASKED, &edit), wanted);
    let interim = "HTTP/1.1 103 Early Hints\r\nSet-Cookie: S=theirs\r\nLink: x\r\n\r\n";
    let edit = ResponseEdit { drop_cookie, ..Default::default() };
    assert_eq!(edited_response(interim, ASKED, &edit), "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
}

#[test]
fn a_prefix_is_cut_from_a_cookie_and_put_before_one_that_is_set() {
    let cut = RequestEdit { cookie: CookieEdit::CutPrefix { name: b"J", separator: b'~' }, ..PLAIN };
    for (before, after) in [
        ("J=b1~x~y; a=b~c", "J=x~y; a=b~c"),
        ("a=b;  J=\"b1~x\";c", "a=b;  J=\"x\";c"),
        ("J=b1~; J=x; J=~z", "J=; J=x; J=z"),
    ] {
        assert_eq!(lines(&format!("Cookie: {before}\r\n"), &cut), format!("Cookie: {after}\r\n"));
    }
    let edit = ResponseEdit { cookie_prefix: Some((b"J", "b1~")), ..Default::default() };
    let response = "HTTP/1.1 200 OK\r\nset-cookie:J=x; Path=/\r\nSet-Cookie: K=x\r\nSet-Cookie: J = \"x\"\r\n\
                    Set-Cookie: J=; Max-Age=0\r\nSet-Cookie: =J=x\r\nSet-Cookie: =K=J=x\r\nSet-Cookie: =J\r\n\
                    Set-Cookie: J=\"\"\r\nSet-Cookie: J=\" \"\r\nSet-Cookie: J=\"x\r\nContent-Length: 0\r\n\r\n";
    // A line without a name is sent as J if its value begins so; a value of two quotes is none.
    let wanted = "HTTP/1.1 200 OK\r\nset-cookie: J=b1~x; Path=/\r\nSet-Cookie: K=x\r\nSet-Cookie: J = \"b1~x\"\r\n\
                  Set-Cookie: J=; Max-Age=0\r\nSet-Cookie: =J=b1~x\r\nSet-Cookie: =K=J=x\r\nSet-Cookie: =J\r\n\
                  Set-Cookie: J=\"\"\r\nSet-Cookie: J=\"b1~ \"\r\nSet-Cookie: J=b1~\"x\r\n\
                  Content-Length: 0\r\n\r\n";
    assert_eq!(edited_response(response, ASKED, &edit), wanted);
}

#[test]
fn a_response_gets_our_version_and_our_lines() {
    let edit = ResponseEdit {
        add: &[("Set-Cookie", "SESSILE=x; Path=/"), ("Cache-Control", "private")],
        ..Default::default()
    };
    let text = "HTTP/1.0 200 Very  good \r\nX: y\r\nConnection: close, Z\r\nKeep-Alive: 5\r\nZ: 1\r\nUpgrade: h2c\r\n\
                Proxy-Authenticate: x\r\ncontent-length: 05\r\nSet-Cookie: a=b\r\nServer: c\r\n\r\n";
    let wanted = "HTTP/1.1 200 Very  good \r\nX: y\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\nServer: c\r\n\
                  Set-Cookie: SESSILE=x; Path=/\r\nCache-Control: private\r\n\r\n";
    assert_eq!(edited_response(text, ASKED, &edit), wanted);
}

#[test]
fn a_response_says_whether_the_client_keeps_its_connection() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (stay, close) = (ResponseEdit::default(), ResponseEdit { close: true, ..Default::default() });
    assert_eq!(edited_response(text, ASKED, &stay), text);
    for (asked, edit, connection) in
        [(ASKED, close, "close"), (ASKED_OLD, stay, "keep-alive"), (ASKED_OLD, close, "close")]
    {
        let wanted = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: {connection}\r\n\r\n");
        assert_eq!(edited_response(text, asked, &edit), wanted);
    }
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    assert_eq!(edited_response(interim, ASKED, &close), interim);
    let empty = edited_response("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", ASKED, &stay);
    assert_eq!(empty, "HTTP/1.1 204 No Content\r\n\r\n");
    let unchanged = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n";
    assert_eq!(edited_response(unchanged, ASKED, &stay), unchanged);
}

#[test]
fn of_the_framing_fields_of_a_response_only_those_remain_that_count() {
    for (status, before, after, asked) in [
        ("200 OK", "Content-Length: 05\r\nX: y\r\ncontent-length:5\r\n", "Content-Length: 5\r\nX: y\r\n", ASKED),
        ("200 OK", "Content-Length: 5, 5 ,05\r\n", "Content-Length: 5\r\n", ASKED),
        (
            "200 OK",
            "Content-Length: 5\r\ntransfer-encoding: Chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            ASKED,
        ),
        ("200 OK", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n", ASKED_HEAD),
        ("304 Not Modified", "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5\r\n", ASKED),
        ("304 Not Modified", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n", ASKED),
        ("304 Not Modified", "Transfer-Encoding: chunked\r\n", "Connection: keep-alive\r\n", ASKED_OLD),
        ("204 No Content", "Content-Length: 5\r\nX: y\r\nTransfer-Encoding: chunked\r\n", "X: y\r\n", ASKED),
        ("103 Early Hints", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nX: y\r\n", "X: y\r\n", ASKED),
    ] {
        let text = format!("HTTP/1.1 {status}\r\n{before}\r\n");
        let wanted = format!("HTTP/1.1 {status}\r\n{after}\r\n");
        assert_eq!(edited_response(&text, asked, &ResponseEdit::default()), wanted, "{text}");
    }
    let short = edited_response("HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n", ASKED, &ResponseEdit::default());
    assert_eq!(short, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn every_response_of_the_corpus_that_passes_is_written_as_the_same_message() {
    for (asked, mut case) in super::corpus::accepted_responses() {
        let mut reader = ResponseReader::new();
        while let Progress::Done(length) = reader.read(&case, asked)
            && reader.response(&case).is_interim()
        {
            case.drain(..length);
            reader.pass_interim().expect("not too many");
        }
        let before = reader.response(&case);
        let mut out = Vec::new();
        write_response(&mut out, &before, &asked, &ResponseEdit::default());
        let after = read_response(&out, asked);
        let after = after.response(&out);
        assert_eq!((after.framing, after.status, after.length), (before.framing, before.status, out.len()));
    }
}

#[test]
fn a_switch_keeps_what_makes_it_one() {
    let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
    let wanted = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(edited_response(text, ASKED_WEB_SOCKET, &ResponseEdit::default()), wanted);
    let required = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n";
    let wanted =
        "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(edited_response(required, ASKED, &ResponseEdit::default()), wanted);
}

fn some_request() -> impl Strategy<Value = String> {
    let start = prop_oneof![
        Just("GET /a HTTP/1.1\r\nHost: a\r\n"),
        Just("POST http://a HTTP/1.1\r\nhost:a\r\n"),
        Just("OPTIONS * HTTP/1.1\r\nHost: a\r\n"),
        Just("HEAD http://a/?b HTTP/1.0\r\n"),
    ];
    let line = prop_oneof![
        Just("Connection: close, X"),
        Just("Connection: upgrade"),
        Just("Upgrade: websocket, h2c"),
        Just("X: y"),
        Just("Cookie: a=b; S=1;; S"),
        Just("Cookie:S=2"),
        Just("X-Forwarded-For: 1.1.1.1"),
        Just("X-Forwarded-Host: x"),
        Just("Forwarded: for=\"[::1]\""),
        Just("X-Id: 1"),
        Just("TE: trailers"),
        Just("Trailer: X"),
    ];
    let framing = prop_oneof![Just(""), Just("content-length: 0007\r\n"), Just("Content-Length:0\r\n")];
    (start, proptest::collection::vec(line, 0..8), framing).prop_map(|(start, lines, framing)| {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{start}{lines}{framing}\r\n")
    })
}

fn some_edit() -> impl Strategy<Value = RequestEdit<'static>> {
    let forwarding =
        || proptest::sample::select(vec![Forwarding::Append, Forwarding::Replace, Forwarding::Remove, Forwarding::Off]);
    let cookie = prop_oneof![
        Just(CookieEdit::Keep),
        Just(CookieEdit::Remove(CookieNames::one(b"S"))),
        Just(CookieEdit::Replace { names: CookieNames::one(b"S"), value: b"x" }),
        Just(CookieEdit::CutPrefix { name: b"S", separator: b'1' })
    ];
    let client = proptest::option::of(any::<IpAddr>());
    (forwarding(), forwarding(), client, any::<bool>(), cookie, any::<bool>()).prop_map(
        |(x_forwarded, forwarded, client, secure, cookie, close)| RequestEdit {
            x_forwarded,
            forwarded,
            client,
            port: Some(8443),
            secure,
            cookie,
            split_cookie: None,
            close,
            trailers: close,
            set: &[("X-Id", Some("a\nb"))],
            remove: &[],
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_as_the_same_message(text in some_request(), edit in some_edit()) {
        let written = edited(&text, &edit);
        let (before, after) = (read_request(text.as_bytes()), read_request(written.as_bytes()));
        let (before, after) = (before.request(text.as_bytes()), after.request(written.as_bytes()));
        prop_assert_eq!(after.length, written.len());
        prop_assert_eq!(after.framing, before.framing);
        prop_assert_eq!((after.method_name, after.version), (before.method_name, before.version));
        prop_assert_eq!(after.host(), before.host());
        prop_assert_eq!(after.upgrade(), before.upgrade());
        prop_assert_eq!(after.expects_continue(), before.expects_continue());
        prop_assert_eq!(after.persists(), !edit.close || before.upgrade().is_some());
        let others = |request: &crate::http::head::Request<'_>| {
            request.fields.iter().filter(|field| field.name == b"Trailer").map(|field| field.value.to_vec()).collect::<Vec<_>>()
        };
        prop_assert_eq!(others(&after), others(&before));
    }
}

#[test]
fn every_request_of_the_corpus_that_passes_is_written_as_the_same_message() {
    for case in super::corpus::accepted_requests() {
        let before = read_request(&case);
        let before = before.request(&case);
        // Lines of ours may be too many behind the most that we read.
        let full = before.fields.iter().count() > 120;
        let x_forwarded = if full { Forwarding::Off } else { Forwarding::Append };
        let mut out = Vec::new();
        write_request(&mut out, &before, &RequestEdit { x_forwarded, ..PLAIN });
        let after = read_request(&out);
        let after = after.request(&out);
        assert_eq!((after.framing, after.length, after.host()), (before.framing, out.len(), before.host()));
    }
}
