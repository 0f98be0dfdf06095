//! WebSockets to backends of HTTP/2 (RFC 8441), for clients of both versions.

use std::io::{Read, Write};

use ::http::Method;
use h2::ext::Protocol;
use h2::server::Builder;

use super::site::Http2Site;
use super::{H2, http1, http1_answer, plain, read_until};
use crate::http2::client::{Client, only};
use crate::support::eventually;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn site() -> Http2Site {
    let mut builder = Builder::new();
    builder.enable_connect_protocol();
    Http2Site::with(builder, None)
}

#[test]
fn an_upgrade_becomes_an_extended_connect() {
    let site = site();
    let sessile = plain("", H2, &[site.address]);
    let mut stream = http1(&sessile, UPGRADE);
    let head = read_until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    let fields = site.seen().fields.clone();
    assert_eq!(only(&fields, "sec-websocket-version"), Some("13"));
    assert!(!fields.contains_key("sec-websocket-key") && !fields.contains_key("upgrade"), "{fields:?}");
    // A frame with an empty mask.
    stream.write_all(b"\x82\x83\0\0\0\0abc").unwrap();
    let mut echoed = [0; 9];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"\x82\x83\0\0\0\0abc");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end passes, too");
    site.is_open(0);
}

#[test]
fn an_extended_connect_stays_one() {
    let site = site();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    eventually("the settings", || client.takes_extended_connect().then_some(()));
    let mut request = client.request("GET", "/ws", &[("sec-websocket-version", "13")]);
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let mut begun = client.begin(request, false).unwrap().head().unwrap();
    assert_eq!(begun.head.status().as_u16(), 200);
    begun.write(b"\x82\x83\0\0\0\0abc", false).unwrap();
    assert_eq!(begun.piece().unwrap().unwrap(), &b"\x82\x83\0\0\0\0abc"[..]);
    begun.write(b"", true).unwrap();
    assert_eq!(begun.rest().unwrap(), b"");
    assert_eq!(client.get("/", &[]).field("x-connection"), Some("1"), "beside other requests");
}

#[test]
fn a_backend_without_extended_connect_takes_no_web_socket() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let text = http1_answer(&sessile, &UPGRADE.replace("Upgrade\r\nSec", "Upgrade, close\r\nSec"));
    assert!(text.starts_with("HTTP/1.1 501 "), "{text}");
    let client = Client::plain(sessile.address("l"));
    eventually("the settings", || client.takes_extended_connect().then_some(()));
    let mut request = client.request("GET", "/ws", &[]);
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let begun = client.begin(request, false).unwrap().head().unwrap();
    assert_eq!(begun.head.status().as_u16(), 501);
    assert!(site.seen().requests.is_empty());
}
