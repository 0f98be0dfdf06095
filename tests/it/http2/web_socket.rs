//! WebSockets over one stream (RFC 8441) to a backend that speaks HTTP/1.1.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ::http::{Request, Version};
use futures_util::{SinkExt, StreamExt};
use h2::ext::Protocol;
use rustix::process::Signal;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Asked, Response as Accepted};

use super::client::{Begun, Client};
use super::site::{Site, pattern};
use super::socket_frames::{BINARY, CLOSE, PING, TEXT, masked, take};
use super::{HTTP, line_of, plain_with};
use crate::support::backend::Backend;
use crate::support::eventually;
use crate::terminate::Front;

/// The value that accepts the key in this head (RFC 6455 §4.2.2).
fn accept_of(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    derive_accept_key(key.expect("a key").as_bytes())
}

/// The head of an extended CONNECT.
fn connect(client: &Client, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().method("CONNECT").uri(format!("{}{path}", client.base)).version(Version::HTTP_2);
    let request = request.extension(Protocol::from_static("websocket")).header("sec-websocket-version", "13");
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(()).expect("a request")
}

/// Asks for a WebSocket, and waits for the head of the response.
pub fn open(client: &Client, path: &str, fields: &[(&str, &str)]) -> Begun {
    eventually("extended CONNECT to be allowed", || client.takes_extended_connect().then_some(()));
    client.begin(connect(client, path, fields), false).unwrap().head().unwrap()
}

/// Sends bytes on the stream of a WebSocket.
fn send(socket: &mut Begun, bytes: &[u8]) {
    socket.write(bytes, false).unwrap();
}

/// Reads one frame of the server: kind and payload.
fn read(socket: &mut Begun, rest: &mut Vec<u8>) -> (u8, Vec<u8>) {
    loop {
        match take(rest) {
            Some((first, payload)) => return (first & 0x0f, payload),
            None => rest.extend_from_slice(&socket.piece().expect("more bytes").unwrap()),
        }
    }
}

/// A WebSocket server that sends every message back; it tells the head of each request, and the code that ends it.
fn echo() -> (Backend, Receiver<String>) {
    let (tell, told) = channel();
    let backend = Backend::serving(move |stream| {
        let tell = tell.clone();
        stream.set_nonblocking(true)?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
            let heads = tell.clone();
            #[expect(clippy::result_large_err, reason = "the library has it so")]
            let look = move |asked: &Asked, accepted: Accepted| -> Result<Accepted, ErrorResponse> {
                let fields =
                    asked.headers().iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
                let _ = heads.send(format!("{} {}\n{}", asked.method(), asked.uri(), fields.collect::<String>()));
                Ok(accepted)
            };
            let Ok(mut socket) = accept_hdr_async(stream, look).await else { return };
            let mut end = "cut".to_owned();
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Close(frame) => {
                        end = frame.map_or("none".to_owned(), |frame| u16::from(frame.code).to_string());
                    }
                    Message::Text(_) | Message::Binary(_) => {
                        let _ = socket.send(message).await;
                    }
                    _ => {}
                }
            }
            let _ = tell.send(end);
        });
        Ok(())
    });
    (backend, told)
}

#[test]
fn a_websocket_goes_over_one_stream_and_its_ends_see_nothing_of_it() {
    let (backend, told) = echo();
    let front = Front::start("", HTTP, &[backend.address]);
    let client = Client::with(&front);
    let mut socket =
        open(&client, "/chat?room=1", &[("origin", "https://a.test"), ("cookie", "a=1"), ("cookie", "b=2")]);
    assert_eq!(socket.head.status(), 200);
    for name in ["connection", "upgrade", "sec-websocket-accept", "transfer-encoding", "content-length"] {
        assert!(socket.head.headers().get(name).is_none(), "{:?}", socket.head);
    }
    let head = told.recv().unwrap();
    assert!(head.starts_with("GET /chat?room=1\n"), "{head}");
    for line in ["host: a.test\n", "origin: https://a.test\n", "cookie: a=1; b=2\n", "sec-websocket-version: 13\n"] {
        assert!(head.contains(line), "{head}");
    }
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket\n"), "{head}");
    assert_eq!(head.matches("sec-websocket-key: ").count(), 1, "{head}");
    assert!(!head.contains(":protocol"), "{head}");
    let mut rest = Vec::new();
    for size in [0, 1, 125, 126, 5_000, 65_535, 65_536, 300_000] {
        let whole = pattern(size);
        send(&mut socket, &masked(BINARY, &whole));
        let (kind, back) = read(&mut socket, &mut rest);
        assert!((kind, &back) == (2, &whole), "{size} bytes");
    }
    send(&mut socket, &masked(PING, b"ping"));
    assert_eq!(read(&mut socket, &mut rest), (10, b"ping".to_vec()));
    send(&mut socket, &masked(CLOSE, &1000u16.to_be_bytes()));
    assert_eq!(read(&mut socket, &mut rest), (8, 1000u16.to_be_bytes().to_vec()));
    let _ = socket.write(&[], true);
    assert_eq!(socket.rest().unwrap(), b"");
    assert_eq!(told.recv().unwrap(), "1000");
    let line = line_of(&front.sessile, "/chat");
    assert_eq!((&line["ended"], &line["backend"]), (&"done".into(), &"b0".into()), "{line}");
    assert!(line["bytes_up"].as_u64() > Some(400_000) && line["bytes_down"].as_u64() > Some(400_000), "{line}");
    assert_eq!(front.counted("upgrades"), 1);
}

#[test]
fn many_websockets_and_requests_share_one_connection() {
    let (backend, _told) = echo();
    let front = Front::start("[limits]\nhttp2_backend_connections = 20\n", HTTP, &[backend.address]);
    let client = Client::with(&front);
    let mut sockets: Vec<_> = (0..12).map(|n| (open(&client, &format!("/{n}"), &[]), Vec::new())).collect();
    for round in 0..5 {
        for (n, (socket, _)) in sockets.iter_mut().enumerate() {
            send(socket, &masked(TEXT, format!("{round} {n}").as_bytes()));
        }
        for (n, (socket, rest)) in sockets.iter_mut().enumerate().rev() {
            assert_eq!(read(socket, rest), (1, format!("{round} {n}").into_bytes()));
        }
    }
    assert_eq!(front.counted("upgrades"), 12);
}

#[test]
fn a_websocket_stays_where_its_cookie_says() {
    let (x, x_told) = echo();
    let (y, y_told) = echo();
    let front = Front::start("", super::INSERT, &[x.address, y.address]);
    let client = Client::with(&front);
    let socket = open(&client, "/first", &[]);
    let line = socket.head.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = line.split(';').next().unwrap();
    let (home, other) =
        if x_told.recv_timeout(Duration::from_secs(5)).is_ok() { (x_told, y_told) } else { (y_told, x_told) };
    drop(socket);
    assert_eq!(home.recv().unwrap(), "cut");
    for n in 0..4 {
        let again = Client::with(&front);
        let socket = open(&again, &format!("/{n}"), &[("cookie", cookie)]);
        assert_eq!(socket.head.status(), 200);
        assert!(home.recv().unwrap().starts_with(&format!("GET /{n}\n")));
        drop(socket);
        assert_eq!(home.recv().unwrap(), "cut");
    }
    assert!(other.try_recv().is_err());
}

#[test]
fn a_backend_that_refuses_a_websocket_passes_its_status() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    for status in [403, 404, 503] {
        let mut refused = open(&client, &format!("/status/{status}"), &[]);
        assert_eq!(refused.head.status(), status);
        assert_eq!(refused.rest().unwrap(), b"no");
        let line = line_of(&front.sessile, &format!("/status/{status}"));
        assert_eq!(line["status"], status, "{line}");
    }
    // A backend that answers as if it had been a plain request: 200 would open the WebSocket.
    assert_eq!(open(&client, "/", &[]).head.status(), 502);
    assert_eq!(client.get("/", &[]).status, 200);
}

#[test]
fn an_answer_that_does_not_fit_the_key_is_no_websocket() {
    let backend = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece)?;
        let (right, wrong) = (accept_of(&piece[..n]), "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let values = match piece.get(4..6) {
            Some(b"/n") => vec![],
            Some(b"/t") => vec![&right[..], wrong],
            _ => vec![wrong],
        };
        let accept: String = values.iter().map(|value| format!("Sec-WebSocket-Accept: {value}\r\n")).collect();
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        stream.write_all(format!("{head}{accept}\r\n").as_bytes())?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let front = Front::start("", HTTP, &[backend.address]);
    let client = Client::with(&front);
    for path in ["/wrong", "/none", "/twice"] {
        let refused = open(&client, path, &[]);
        assert_eq!(refused.head.status(), 502, "{path}");
        let line = line_of(&front.sessile, path);
        assert_eq!((&line["status"], &line["ended"]), (&502.into(), &"response_refused".into()), "{line}");
    }
}

#[test]
fn a_reset_or_an_end_of_one_side_reaches_the_other() {
    let (backend, told) = echo();
    let front = Front::start("", HTTP, &[backend.address]);
    let client = Client::with(&front);
    let mut socket = open(&client, "/reset", &[]);
    assert!(told.recv().unwrap().starts_with("GET /reset"));
    socket.request.send_reset(h2::Reason::CANCEL);
    assert_eq!(told.recv_timeout(Duration::from_secs(5)).unwrap(), "cut");
    let mut socket = open(&client, "/ends", &[]);
    assert!(told.recv().unwrap().starts_with("GET /ends"));
    socket.write(&[], true).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(5)).unwrap(), "cut");
    // The backend goes: an end or a reset, and the connection stays.
    let leaves = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece)?;
        let accept = accept_of(&piece[..n]);
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        stream.write_all(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\nbytes").as_bytes())
    });
    let front = Front::start("", HTTP, &[leaves.address]);
    let client = Client::with(&front);
    let mut socket = open(&client, "/leaves", &[]);
    assert_eq!(socket.head.status(), 200);
    assert_eq!(socket.piece().unwrap().unwrap(), &b"bytes"[..]);
    let end = socket.rest();
    assert!(end.as_ref().is_ok_and(Vec::is_empty) || end.as_ref().is_err_and(h2::Error::is_reset), "{end:?}");
    drop(socket);
    assert_eq!(open(&client, "/again", &[]).head.status(), 200);
}

#[test]
fn a_websocket_over_one_stream_learns_by_1012_that_the_process_stops() {
    let (backend, told) = echo();
    let mut front = Front::start("stop_deadline = \"1s\"\n", HTTP, &[backend.address]);
    let client = Client::with(&front);
    let mut socket = open(&client, "/", &[]);
    let mut rest = Vec::new();
    send(&mut socket, &masked(TEXT, b"hello"));
    assert_eq!(read(&mut socket, &mut rest), (1, b"hello".to_vec()));
    front.sessile.signal(Signal::TERM);
    assert_eq!(read(&mut socket, &mut rest), (8, 1012u16.to_be_bytes().to_vec()));
    send(&mut socket, &masked(CLOSE, &1012u16.to_be_bytes()));
    assert!(front.sessile.wait().success());
    assert!(told.recv().unwrap().starts_with("GET /"));
    assert_eq!(told.recv().unwrap(), "1012", "the client's answer reaches the backend");
}

#[test]
fn a_websocket_without_the_version_or_with_a_body_of_requests_is_judged_as_one() {
    let (backend, _told) = echo();
    let front = Front::start("", HTTP, &[backend.address]);
    let client = Client::with(&front);
    // The fields of an Upgrade do not belong to HTTP/2; a key of the client's counts for nothing.
    let socket = open(&client, "/key", &[("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")]);
    assert_eq!(socket.head.status(), 200);
    assert!(socket.head.headers().get("sec-websocket-accept").is_none());
    assert_eq!(open(&client, "/protocols", &[("sec-websocket-protocol", "chat, other")]).head.status(), 200);
}

#[test]
fn a_route_without_a_backend_opens_no_web_socket() {
    let route = "[[listener.route]]\npath = \"=/fine\"\nrespond = { status = 200 }\n\
                 [[listener.route]]\npath = \"=/no\"\nrespond = { status = 403, body = \"no\" }";
    let site = Site::named("x");
    let sessile = plain_with("", route, HTTP, &[site.address()]);
    let client = Client::plain(sessile.address("l"));
    for (path, status) in [("/fine", 501), ("/no", 403)] {
        assert_eq!(open(&client, path, &[]).head.status(), status, "{path}");
    }
    assert_eq!(client.get("/fine", &[]).status, 200);
    let line = sessile.line("the refusal", |line| line["path"] == "/fine" && line["status"] == 501);
    assert_eq!((&line["ended"], &line["refused"]), (&"request_refused".into(), &"connect".into()), "{line}");
}
