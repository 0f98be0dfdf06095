//! How messages pass: both versions of clients, every framing, trailers, interim responses.

use super::site::Http2Site;
use super::{H2, http1, http1_answer, plain, read_until};
use crate::http2::client::{Client, only};

#[test]
fn both_versions_of_http_reach_a_backend_of_http2() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let reply = client.get("/a?b=c", &[("te", "trailers"), ("cookie", "x=1")]);
    assert_eq!((reply.status, reply.text()), (200, "GET http a.test /a?b=c".to_owned()));
    let seen = site.seen().fields.clone();
    assert_eq!(only(&seen, "te"), Some("trailers"));
    assert_eq!(only(&seen, "cookie"), Some("x=1"));
    assert_eq!(only(&seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert!(!seen.contains_key("host") && !seen.contains_key("connection"), "{seen:?}");

    let text = http1_answer(&sessile, "GET /d HTTP/1.1\r\nHost: b.test:80\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n");
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n15\r\nGET http b.test:80 /d\r\n0\r\n\r\n"),
        "{text}"
    );
    let seen = site.seen().fields.clone();
    assert!(["te", "connection", "x-a"].iter().all(|name| !seen.contains_key(*name)), "{seen:?}");

    let text = http1_answer(&sessile, "GET /old HTTP/1.0\r\n\r\n");
    assert!(text.ends_with("\r\n\r\nGET none none /old"), "{text}");
    let text = http1_answer(&sessile, "HEAD /d HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n"), "{text}");
    let text = http1_answer(&sessile, "OPTIONS * HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    assert!(text.contains("OPTIONS http b *"), "{text}");
    assert_eq!(site.seen().connections, 5, "one of each client");
}

#[test]
fn trailers_pass_both_ways() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let mut exchange = client.begin(client.request("POST", "/echo", &[("te", "trailers")]), false).unwrap();
    exchange.write(b"hello", false).unwrap();
    exchange.trailers(&[("x-sum", "17")]).unwrap();
    let reply = exchange.reply().unwrap();
    let trailers = reply.trailers.as_ref().expect("trailers");
    assert_eq!((only(trailers, "x-sum"), only(trailers, "grpc-status")), (Some("17"), Some("0")));
    assert_eq!(reply.text(), "hello");

    let chunks = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                  3\r\nabc\r\n0\r\nx-sum: 18\r\n\r\n";
    let text = http1_answer(&sessile, chunks);
    let (_, trailers) = text.split_once("3\r\nabc\r\n0\r\n").expect("a body of chunks");
    assert!(trailers.contains("x-sum: 18\r\n") && trailers.contains("grpc-status: 0\r\n"), "{text}");
    let length = "POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc";
    assert!(http1_answer(&sessile, length).ends_with("\r\n\r\nabc"), "HTTP/1.0 has no trailers");
}

#[test]
fn a_response_of_a_head_alone_passes_as_one() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let mut exchange = client.begin(client.request("POST", "/trailers-only", &[]), false).unwrap();
    exchange.write(b"", true).unwrap();
    let begun = exchange.head().unwrap();
    assert_eq!(only(begun.head.headers(), "grpc-status"), Some("5"));
    assert!(begun.body.is_end_stream());
    let text = http1_answer(&sessile, "GET /trailers-only HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(text.contains("grpc-status: 5\r\n") && text.contains("Content-Length: 0\r\n"), "{text}");
}

#[test]
fn a_stream_goes_on_both_ways_for_as_long_as_it_likes() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let exchange = client.begin(client.request("POST", "/echo", &[]), false).unwrap();
    // The head of the response comes before a byte of the request.
    let mut begun = exchange.head().unwrap();
    for number in 0..100 {
        let message = format!("message {number}");
        begun.write(message.as_bytes(), false).unwrap();
        assert_eq!(begun.piece().unwrap().unwrap(), message);
    }
    begun.write(b"", true).unwrap();
    assert_eq!(begun.rest().unwrap(), b"");
    assert_eq!(only(&begun.trailers().unwrap().unwrap(), "grpc-status"), Some("0"));

    let mut stream = http1(&sessile, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    read_until(&mut stream, "\r\n\r\n");
    for message in ["one", "two", "six"] {
        use std::io::Write as _;
        stream.write_all(format!("3\r\n{message}\r\n").as_bytes()).unwrap();
        assert!(read_until(&mut stream, &format!("{message}\r\n")).contains("3\r\n"));
    }
}

#[test]
fn interim_responses_pass() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let reply = client.get("/interim", &[]);
    assert_eq!((reply.status, reply.early.len(), reply.early[0].status().as_u16()), (200, 1, 103));
    let text = http1_answer(&sessile, "GET /interim HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 103 \r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 "), "{text}");
}

#[test]
fn a_target_that_http2_cannot_carry_is_refused() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let text = http1_answer(&sessile, "GET /a<b> HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    let line = sessile.line("the refusal", |line| line["kind"] == "request");
    assert_eq!((line["ended"].as_str(), line["refused"].as_str()), (Some("request_refused"), Some("bad_target")));
    assert_eq!(site.seen().connections, 0);
}
