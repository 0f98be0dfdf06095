//! Calls to servers of the crate `h2`, and to what is no server of HTTP/2.

use h2::server::{self, SendResponse};
use http::{HeaderName, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const CALL: HealthCall<'_> =
    HealthCall { authority: "10.0.0.1:50051", secure: false, service: "", timeout: Duration::from_secs(1) };

/// A reply: fields of the head, body, and trailers if there are any.
struct Reply {
    status: u16,
    head: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    trailers: Option<Vec<(&'static str, String)>>,
}

/// The reply of a health service with these bytes as its message.
fn reply(message: &[u8]) -> Reply {
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(message);
    Reply {
        status: 200,
        head: vec![("content-type", "application/grpc".to_owned())],
        body: Some(body),
        trailers: Some(vec![("grpc-status", "0".to_owned())]),
    }
}

/// A reply of trailers alone.
fn trailers_only(status: &str, text: &str) -> Reply {
    let mut reply = Reply { body: None, trailers: None, ..reply(&[]) };
    reply.head.push(("grpc-status", status.to_owned()));
    reply.head.push(("grpc-message", text.to_owned()));
    reply
}

fn fields(pairs: Vec<(&'static str, String)>) -> HeaderMap {
    pairs.into_iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(&v).unwrap())).collect()
}

fn send(mut respond: SendResponse<Bytes>, reply: Reply) {
    let mut head = Response::builder().status(reply.status).body(()).unwrap();
    *head.headers_mut() = fields(reply.head);
    let is_over = reply.body.is_none() && reply.trailers.is_none();
    let mut stream = respond.send_response(head, is_over).unwrap();
    if let Some(body) = reply.body {
        stream.send_data(body.into(), reply.trailers.is_none()).unwrap();
    }
    if let Some(trailers) = reply.trailers {
        stream.send_trailers(fields(trailers)).unwrap();
    }
}

/// Serves one call, and keeps the connection until the client has closed it. Returns the request with its body.
async fn serve(stream: DuplexStream, reply: Reply) -> (http::request::Parts, Vec<u8>) {
    let mut connection = server::handshake(stream).await.unwrap();
    let (request, respond) = connection.accept().await.unwrap().unwrap();
    let (parts, mut body) = request.into_parts();
    let read = async {
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        send(respond, reply);
        bytes
    };
    let (bytes, end) = tokio::join!(read, connection.accept());
    assert!(end.is_none(), "one stream, and a good end: {end:?}");
    (parts, bytes)
}

/// The complaint about a reply; `None`: the check passes.
async fn verdict(reply: Reply) -> Option<String> {
    let (near, far) = duplex(64 * 1024);
    let (result, _) = tokio::join!(call(Box::new(near), CALL), serve(far, reply));
    complaint(result)
}

fn complaint(result: Result<(), CheckFailure>) -> Option<String> {
    match result.err()? {
        CheckFailure::Backend(complaint) => Some(complaint),
        CheckFailure::Local(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_call_is_that_of_the_specification() {
    for (call_of, scheme, body) in [
        (CALL, "http", &b"\0\0\0\0\0"[..]),
        (HealthCall { secure: true, service: "shop.Cart", ..CALL }, "https", b"\0\0\0\0\x0b\x0a\x09shop.Cart"),
    ] {
        let (near, far) = duplex(64 * 1024);
        let (result, (head, bytes)) = tokio::join!(call(Box::new(near), call_of), serve(far, reply(&[8, 1])));
        assert_eq!(complaint(result), None);
        assert_eq!((head.method, head.uri.scheme_str()), (Method::POST, Some(scheme)));
        assert_eq!((head.uri.path(), head.uri.authority().unwrap().as_str()), (PATH, "10.0.0.1:50051"));
        for (name, value) in [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", "1000m"),
            ("user-agent", "sessile"),
        ] {
            assert_eq!(head.headers[name], value);
        }
        assert_eq!(bytes, body);
    }
}

#[tokio::test]
async fn only_serving_is_up_and_all_else_is_down_with_its_word() {
    assert_eq!(verdict(reply(&[8, 1])).await, None);
    for (status, word) in [(0, "UNKNOWN"), (2, "NOT_SERVING"), (3, "SERVICE_UNKNOWN"), (9, "9")] {
        assert_eq!(verdict(reply(&[8, status])).await, Some(format!("status {word}, expected SERVING")));
    }
}

#[tokio::test]
async fn every_type_of_grpc_is_taken_and_no_other() {
    for (written, is_good) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("Application/GRPC; charset=x", true),
        ("application/grpc-web", false),
        ("application/grpcs", false),
        ("text/html", false),
        ("", false),
    ] {
        let reply = Reply { head: vec![("content-type", written.to_owned())], ..reply(&[8, 1]) };
        let wanted = (!is_good).then(|| format!("content-type {written}, expected application/grpc"));
        assert_eq!(verdict(reply).await, wanted);
    }
    let bare = Reply { head: vec![], ..reply(&[8, 1]) };
    assert_eq!(verdict(bare).await.as_deref(), Some("no content-type, expected application/grpc"));
}

#[tokio::test]
async fn a_status_other_than_0_is_named_with_its_text() {
    for (reply, wanted) in [
        (trailers_only("12", "Method not found!"), "grpc-status 12 (UNIMPLEMENTED): Method not found!"),
        (trailers_only("5", ""), "grpc-status 5 (NOT_FOUND)"),
        (trailers_only("14", "100%25 lost, caf%C3%A9 %G1 %2"), "grpc-status 14 (UNAVAILABLE): 100% lost, café %G1 %2"),
        (trailers_only("99", "x"), "grpc-status 99: x"),
        (trailers_only("-1", "x"), "grpc-status -1: x"),
        (
            Reply { trailers: Some(vec![("grpc-status", "7".to_owned())]), ..reply(&[8, 1]) },
            "grpc-status 7 (PERMISSION_DENIED)",
        ),
    ] {
        assert_eq!(verdict(reply).await.as_deref(), Some(wanted));
    }
}

#[tokio::test]
async fn what_is_no_whole_response_fails_the_check() {
    let bytes = |body: &[u8]| Reply { body: Some(body.to_vec()), ..reply(&[]) };
    for (reply, wanted) in [
        (Reply { status: 503, ..reply(&[8, 1]) }, "HTTP status 503, expected 200"),
        (Reply { trailers: None, ..reply(&[8, 1]) }, "the response has no grpc-status"),
        (Reply { trailers: Some(vec![]), ..reply(&[8, 1]) }, "the response has no grpc-status"),
        (trailers_only("0", ""), "the response has no message"),
        (Reply { body: None, ..reply(&[]) }, "the response has no message"),
        (bytes(&[0, 0, 0, 0, 9, 8, 1]), "the response ends inside a message"),
        (bytes(&[1, 0, 0, 0, 2, 8, 1]), "the response is compressed, which was not offered"),
        (reply(&[8]), "the response has a message that is not protobuf"),
    ] {
        assert_eq!(verdict(reply).await.as_deref(), Some(wanted));
    }
}

#[tokio::test]
async fn a_message_has_a_greatest_length() {
    let filled = |length: usize| {
        let mut message = vec![0x12, (length - 3) as u8 & 0x7f | 0x80, ((length - 3) >> 7) as u8];
        message.resize(length, b'x');
        message
    };
    let mut most = filled(MESSAGE_MAX - 2);
    most.extend_from_slice(&[8, 1]);
    assert_eq!(verdict(reply(&most)).await, None);
    let (near, far) = duplex(64 * 1024);
    let endless = async {
        let mut connection = server::handshake(far).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(vec![0; 60_000].into(), false).unwrap();
        while let Some(Ok(_)) = connection.accept().await {}
    };
    let (result, ()) = tokio::join!(call(Box::new(near), CALL), endless);
    assert_eq!(complaint(result).as_deref(), Some("the response has a message of more than 4096 bytes"));
}

#[tokio::test]
async fn a_reply_counts_though_the_connection_ends_behind_it() {
    let (near, far) = duplex(64 * 1024);
    let serve = async {
        let mut connection = server::handshake(far).await.unwrap();
        let (_, respond) = connection.accept().await.unwrap().unwrap();
        send(respond, reply(&[8, 1]));
        connection.graceful_shutdown();
        while let Some(Ok(_)) = connection.accept().await {}
    };
    let (result, ()) = tokio::join!(call(Box::new(near), CALL), serve);
    assert_eq!(complaint(result), None);
}

#[tokio::test]
async fn what_does_not_speak_http2_is_told_apart_from_what_ends_it() {
    for (said, wanted) in [
        (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], "HTTP/2: the backend breaks the protocol: "),
        (b"", "response: closed before it was complete"),
        // SETTINGS, then GOAWAY with ENHANCE_YOUR_CALM.
        (
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b",
            "HTTP/2: the backend has ended the connection: ",
        ),
        // SETTINGS, then RST_STREAM of stream 1 with REFUSED_STREAM.
        (b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07", "HTTP/2: the backend has reset the stream: "),
    ] {
        let (near, mut far) = duplex(64 * 1024);
        let serve = async {
            let mut request = Vec::new();
            // The preface, SETTINGS, and the request.
            while !request.ends_with(b"\0\0\0\0\0") || request.len() < 60 {
                far.read_buf(&mut request).await.unwrap();
            }
            far.write_all(said).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let (result, ()) = tokio::join!(call(Box::new(near), CALL), serve);
        let found = complaint(result).unwrap();
        assert!(found.starts_with(wanted), "{found}");
    }
}

#[tokio::test]
async fn a_host_that_cannot_be_sent_is_a_complaint() {
    let (near, _far) = duplex(64);
    let result = call(Box::new(near), HealthCall { authority: "a b", ..CALL }).await;
    assert_eq!(complaint(result).as_deref(), Some("request: a b cannot be sent as a host"));
}
