//! Persistence, Upgrade and Expect.

use super::*;
use crate::http::connection::{backend_stays, client_stays};

fn with_request<T>(text: &str, look: impl FnOnce(&crate::http::head::Request<'_>) -> T) -> T {
    look(&read_request(text.as_bytes()).request(text.as_bytes()))
}

#[test]
fn a_client_keeps_its_connection_by_version_and_word() {
    for (version, connection, persists) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Keep-Alive: 5\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(with_request(&text, |request| request.persists()), persists, "{text}");
    }
}

#[test]
fn connections_stay_where_the_body_ends_before_them() {
    let old = RequestMeta { persists: true, ..ASKED_OLD };
    for (text, asked, client, backend) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ASKED, true, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ASKED, true, true),
        ("HTTP/1.1 200 OK\r\n\r\n", ASKED, false, false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", ASKED, true, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", ASKED, true, false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", ASKED, true, true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", ASKED, false, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ASKED_OLD, false, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", old, true, true),
        ("HTTP/1.1 200 OK\r\n\r\n", old, false, false),
        ("HTTP/1.1 200 OK\r\n\r\n", ASKED_HEAD, true, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", ASKED, true, true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", ASKED, true, true),
        // Bytes may follow that belong to no message.
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ASKED, true, false),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", ASKED, true, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", ASKED, true, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", ASKED, true, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ASKED, true, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ASKED_HEAD, true, true),
        ("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", ASKED_WEB_SOCKET, false, false),
    ] {
        let reader = read_response(text.as_bytes(), asked);
        let response = reader.response(text.as_bytes());
        assert_eq!((client_stays(&asked, &response), backend_stays(&response)), (client, backend), "{text} {asked:?}");
    }
}

#[test]
fn an_upgrade_is_one_only_if_it_may_pass() {
    let upgrade = |start: &str, lines: &str| {
        with_request(&format!("{start}\r\nHost: a\r\n{lines}\r\n"), |request| request.upgrade())
    };
    let get = "GET / HTTP/1.1";
    let both = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    assert_eq!(upgrade(get, both), Some(Upgrade::WebSocket));
    assert_eq!(upgrade("POST / HTTP/1.1", &format!("{both}Content-Length: 0\r\n")), Some(Upgrade::Other));
    assert_eq!(upgrade(get, "Connection: upgrade\r\nUpgrade: SPDY/3.1, tcp\r\n"), Some(Upgrade::Other));
    assert_eq!(upgrade(get, "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n"), Some(Upgrade::WebSocket));
    assert_eq!(upgrade("GET / HTTP/1.0", both), None);
    assert_eq!(upgrade(get, "Upgrade: websocket\r\n"), None);
    assert_eq!(upgrade(get, "Connection: upgrade\r\n"), None);
    assert_eq!(upgrade(get, &format!("{both}Content-Length: 5\r\n")), None);
    assert_eq!(upgrade(get, &format!("{both}Transfer-Encoding: chunked\r\n")), None);
    for barred in ["h2c", "H2C", "h2", "h2c, TLS/1.0", "HTTP/2.0", "", ","] {
        assert_eq!(upgrade(get, &format!("Connection: upgrade\r\nUpgrade: {barred}\r\n")), None, "{barred}");
    }
}

#[test]
fn only_http_1_1_waits_for_100() {
    let expects = |version: &str, value: &str| {
        let text = format!("POST / HTTP/{version}\r\nHost: a\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\n");
        with_request(&text, |request| request.expects_continue())
    };
    assert!(expects("1.1", "100-continue") && expects("1.1", "100-Continue") && expects("1.1", "x, 100-continue"));
    assert!(!expects("1.0", "100-continue") && !expects("1.1", "100-continued") && !expects("1.1", "y 100-continue"));
}
