//! Heads of responses in HTTP/2, written for the reader: what it accepts is what the stream said.

use ::http::StatusCode;
use ::http::response::Parts;

use super::*;
use crate::http::http2_head::StreamBody;
use crate::http::http2_response::{AskedOfStream, write_interim_head, write_response_head};

const ASKED_OF_STREAM: AskedOfStream = AskedOfStream { is_head: false, version: Version::Http11, accept: None };

fn parts(status: u16, fields: &[(&str, &str)]) -> Parts {
    let response = ::http::Response::builder().status(status);
    let response = fields.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(()).unwrap().into_parts().0
}

/// The head as it is written, what follows it, and how the reader delimits that.
fn written(parts: &Parts, ends: bool, asked: AskedOfStream) -> (String, StreamBody, Result<Framing, Refused>) {
    let mut out = Vec::new();
    let body = write_response_head(&mut out, parts, ends, asked).unwrap();
    let mut reader = ResponseReader::new();
    let method = if asked.is_head { Method::Head } else { Method::Get };
    let upgrade = asked.accept.map(|_| Upgrade::WebSocket);
    let framing = match reader.read(&out, RequestMeta { method, version: asked.version, upgrade, ..ASKED }) {
        Progress::Done(length) => {
            assert_eq!(length, out.len());
            Ok(reader.response(&out).framing)
        }
        Progress::No(refused) => Err(refused),
        Progress::More => panic!("{}", String::from_utf8_lossy(&out)),
    };
    (String::from_utf8(out).unwrap(), body, framing)
}

#[test]
fn the_reader_learns_where_the_body_ends() {
    let (head, old) = (
        AskedOfStream { is_head: true, ..ASKED_OF_STREAM },
        AskedOfStream { version: Version::Http10, ..ASKED_OF_STREAM },
    );
    let (length, announces) = (&[("content-length", "7")][..], &[("content-length", "7"), ("trailer", "x")][..]);
    for (status, fields, ends, asked, added, body, framing) in [
        (200, &[][..], false, ASKED_OF_STREAM, "Transfer-Encoding: chunked\r\n", StreamBody::Chunked, Framing::Chunked),
        (200, &[], true, ASKED_OF_STREAM, "Content-Length: 0\r\n", StreamBody::None, Framing::Length(0)),
        (200, length, false, ASKED_OF_STREAM, "content-length: 7\r\n", StreamBody::Length, Framing::Length(7)),
        (
            200,
            announces,
            false,
            ASKED_OF_STREAM,
            "Transfer-Encoding: chunked\r\n",
            StreamBody::Chunked,
            Framing::Chunked,
        ),
        (200, &[], false, old, "", StreamBody::Tunnel, Framing::UntilClose),
        (200, announces, false, old, "content-length: 7\r\n", StreamBody::Length, Framing::Length(7)),
        (200, length, true, head, "content-length: 7\r\n", StreamBody::None, Framing::None),
        (200, &[], false, head, "", StreamBody::None, Framing::None),
        (304, length, true, ASKED_OF_STREAM, "content-length: 7\r\n", StreamBody::None, Framing::None),
        (204, &[], true, ASKED_OF_STREAM, "", StreamBody::None, Framing::None),
    ] {
        let (text, follows, read) = written(&parts(status, fields), ends, asked);
        assert_eq!((follows, read), (body, Ok(framing)), "{text}");
        let others = text.replacen(added, "", 1).replace("trailer: x\r\n", "");
        assert!(text.contains(added) && others == format!("HTTP/1.1 {status} \r\n\r\n"), "{text}");
    }
}

#[test]
fn a_switch_is_written_where_one_was_asked_for() {
    let accept = *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let asked = AskedOfStream { accept: Some(accept), ..ASKED_OF_STREAM };
    let (text, body, _) = written(&parts(200, &[("x", "1"), ("content-length", "0")]), false, asked);
    let expected = "HTTP/1.1 101 \r\nx: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
                    s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!((&*text, body), (expected, StreamBody::Tunnel));
    assert!(written(&parts(403, &[]), true, asked).0.starts_with("HTTP/1.1 403 \r\n"));
    for asked in [asked, ASKED_OF_STREAM] {
        assert_eq!(write_response_head(&mut Vec::new(), &parts(101, &[]), true, asked), None);
    }
    let switch = StatusCode::SWITCHING_PROTOCOLS;
    assert_eq!(write_interim_head(&mut Vec::new(), switch, &parts(101, &[]).headers), None);
}

#[test]
fn space_around_a_value_is_refused() {
    let mut bad = parts(200, &[]);
    bad.headers.insert("x", " a".parse().unwrap());
    assert_eq!(written(&bad, true, ASKED_OF_STREAM).2, Err(Refused::BadFieldName));
}
