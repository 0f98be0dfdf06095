//! Responses in every framing, whole and cut at every byte.

use super::*;

/// A piece in a form that can be compared; the data of several pieces is one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Interim(u16, Vec<String>),
    Head(u16, Vec<String>),
    Data(String),
    Trailers(Vec<String>),
    /// The stream has ended, with the piece before or behind it.
    End,
}

fn lines(fields: &HeaderMap) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii())).collect()
}

/// Adds a piece to what was told.
fn tell(told: &mut Vec<Told>, piece: Piece<'_>) {
    let ended = match piece {
        Piece::Interim(head) => {
            told.push(Told::Interim(head.status().as_u16(), lines(head.headers())));
            false
        }
        Piece::Head { response, ends } => {
            told.push(Told::Head(response.status().as_u16(), lines(response.headers())));
            ends
        }
        Piece::Data { bytes, ends } => {
            assert!(!bytes.is_empty());
            let text = bytes.escape_ascii().to_string();
            match told.last_mut() {
                Some(Told::Data(before)) => before.push_str(&text),
                _ => told.push(Told::Data(text)),
            }
            ends
        }
        Piece::Trailers(fields) => {
            told.push(Told::Trailers(lines(&fields)));
            true
        }
        Piece::End => true,
    };
    if ended {
        told.push(Told::End);
    }
}

/// Reads bytes that come up to these places, and then all; then the end of the connection, if it is to come.
fn read(
    mut translator: ResponseTranslator,
    bytes: &[u8],
    stops: &[usize],
    most: usize,
    closes: bool,
) -> Result<(Vec<Told>, usize), BadResponse> {
    let (mut told, mut at) = (Vec::new(), 0);
    for stop in stops.iter().copied().chain([bytes.len()]) {
        loop {
            let (taken, piece) = translator.next(&bytes[at..stop.max(at)], most)?;
            at += taken;
            if let Some(piece) = piece {
                tell(&mut told, piece);
            } else if taken == 0 {
                break;
            }
        }
    }
    if closes && let Some(piece) = translator.end() {
        tell(&mut told, piece);
    }
    assert_eq!(translator.is_complete(), told.last() == Some(&Told::End));
    assert!(!translator.is_complete() || translator.end().is_none(), "it ends once");
    Ok((told, at))
}

fn any() -> ResponseTranslator {
    ResponseTranslator::new(false, false)
}

fn text(list: &[&str]) -> Vec<String> {
    list.iter().map(|&line| line.to_owned()).collect()
}

/// The response, read in every cut, with data of every length.
fn translated(make: fn() -> ResponseTranslator, bytes: &str, closes: bool) -> Vec<Told> {
    let bytes = bytes.as_bytes();
    let (whole, taken) = read(make(), bytes, &[], usize::MAX, closes).unwrap();
    for most in [1, 2, 3, 100] {
        assert_eq!(read(make(), bytes, &[], most, closes), Ok((whole.clone(), taken)), "{most}");
    }
    for first in 0..=bytes.len() {
        assert_eq!(read(make(), bytes, &[first], 100, closes), Ok((whole.clone(), taken)), "{first}");
        let second = first + (bytes.len() - first) / 2;
        assert_eq!(read(make(), bytes, &[first, second], 100, closes), Ok((whole.clone(), taken)), "{first} {second}");
    }
    let every: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(read(make(), bytes, &every, 100, closes), Ok((whole.clone(), taken)));
    whole
}

fn data(text: &str) -> Told {
    Told::Data(text.escape_default().to_string())
}

#[test]
fn a_length_ends_with_the_last_byte() {
    let told = translated(any, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: 1\r\n\r\nhello", false);
    let fields = text(&["content-length: 5", "x: 1"]);
    assert_eq!(told, [Told::Head(200, fields), data("hello"), Told::End]);
    let (mut translator, bytes) = (any(), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let (taken, _) = translator.next(bytes, 100).unwrap();
    assert!(matches!(translator.next(&bytes[taken..], 4), Ok((4, Some(Piece::Data { ends: false, .. })))));
    assert!(matches!(translator.next(&bytes[taken + 4..], 4), Ok((1, Some(Piece::Data { ends: true, .. })))));
    let behind = translator.next(b"HTTP/1.1 200 OK\r\n\r\n", 4);
    assert!(matches!(behind, Ok((0, None))), "one response to one request");
}

#[test]
fn chunks_lose_their_framing() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let told = translated(any, &format!("{head}5\r\nhello\r\n1;x=\"y\"\r\n \r\n6\r\nworld\n\r\n0\r\n\r\n"), false);
    assert_eq!(told, [Told::Head(200, vec![]), data("hello world\n"), Told::End]);
    let told = translated(any, &format!("{head}0;x\r\n\r\n"), false);
    assert_eq!(told, [Told::Head(200, vec![]), Told::End]);
    let told = translated(any, &format!("{head}00001\r\nx\r\n000\r\nGrpc-Status:  0 \r\nX: a\r\nx: b\r\n\r\n"), false);
    let trailers = text(&["grpc-status: 0", "x: a", "x: b"]);
    assert_eq!(told, [Told::Head(200, vec![]), data("x"), Told::Trailers(trailers), Told::End]);
    let cut = translated(any, &format!("{head}5\r\nhel"), true);
    assert_eq!(cut, [Told::Head(200, vec![]), data("hel")], "no end");
}

#[test]
fn the_end_comes_with_the_last_data_where_it_is_there() {
    let body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nnext";
    let mut translator = any();
    let (head, _) = translator.next(body, 100).unwrap();
    let (taken, piece) = translator.next(&body[head..], 100).unwrap();
    assert!(matches!(piece, Some(Piece::Data { bytes: b"hello", ends: true })), "{piece:?}");
    assert_eq!(&body[head + taken..], b"next");
    let mut translator = any();
    translator.next(body, 100).unwrap();
    let (taken, piece) = translator.next(&body[head..body.len() - 5], 100).unwrap();
    assert!(matches!(piece, Some(Piece::Data { bytes: b"hello", ends: false })), "{piece:?}");
    assert_eq!(taken, 8, "the line end behind the chunk comes with what follows it");
}

#[test]
fn a_body_without_framing_ends_with_the_connection() {
    let bytes = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of\r\nit";
    let told = translated(any, bytes, true);
    assert_eq!(told, [Told::Head(200, vec![]), data("all of\r\nit"), Told::End]);
    assert_eq!(translated(any, bytes, false).len(), 2, "not ended yet");
    let cut = translated(any, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", true);
    assert_eq!(cut.last(), Some(&data("hello")), "a length is not met");
    assert!(translated(any, "HTTP/1.1 200 OK\r\nConte", true).is_empty(), "a head is cut");
}

#[test]
fn a_response_without_a_body_ends_with_its_head() {
    let ended = |make, bytes| {
        let told = translated(make, bytes, false);
        assert_eq!(told.len(), 2, "{bytes}: {told:?}");
        assert_eq!(told[1], Told::End);
        told[0].clone()
    };
    let to_head: fn() -> ResponseTranslator = || ResponseTranslator::new(true, false);
    let head = ended(to_head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(head, Told::Head(200, text(&["content-length: 5"])));
    ended(to_head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    ended(any, "HTTP/1.1 204 \r\n\r\n");
    ended(any, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n");
    ended(any, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_head_keeps_all_but_what_concerns_one_connection() {
    let bytes = "HTTP/1.1 404 Nothing here\r\nSet-Cookie: a=1\r\nConnection: close, X-Hop\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: x\r\nX-Hop: 1\r\nUpgrade: x/1\r\nSET-COOKIE: b=2; Path=/\r\nX-Bytes: \t\u{e9} \t\r\n\
                 Transfer-Encoding: chunked\r\nTrailer: x\r\nEmpty:\r\n\r\n0\r\n\r\n";
    let told = translated(any, bytes, false);
    let fields = text(&["set-cookie: a=1", "set-cookie: b=2; Path=/", "x-bytes: \\xc3\\xa9", "trailer: x", "empty: "]);
    assert_eq!(told, [Told::Head(404, fields), Told::End]);
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    let told = translated(any, bytes, false);
    let wanted = [
        Told::Interim(100, vec![]),
        Told::Interim(103, text(&["link: </a>"])),
        Told::Head(200, text(&["content-length: 1"])),
        data("x"),
        Told::End,
    ];
    assert_eq!(told, wanted);
    let many = "HTTP/1.1 102 \r\n\r\n".repeat(head::INTERIMS_MAX + 1);
    assert_eq!(refused(any(), &many), Refused::TooManyInterims);
}

fn refused(translator: ResponseTranslator, bytes: &str) -> Refused {
    read(translator, bytes.as_bytes(), &[], 100, true).expect_err(bytes).0
}

fn tunnel() -> ResponseTranslator {
    ResponseTranslator::new(false, true)
}

#[test]
fn a_switch_is_a_200_and_all_behind_it_is_data() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
    let told = translated(tunnel, &format!("{head}0\r\n\r\nframes"), true);
    let fields = text(&["sec-websocket-protocol: chat"]);
    assert_eq!(told, [Told::Head(200, fields), data("0\r\n\r\nframes"), Told::End]);
    let told = translated(tunnel, head, false);
    assert_eq!(told.len(), 1, "open until the connection ends: {told:?}");

    assert_eq!(refused(tunnel(), &head.replace("Upgrade: websocket", "Upgrade: x")), Refused::BadSwitch);
    assert_eq!(refused(any(), head), Refused::BadSwitch, "the request did not ask for it");
}

#[test]
fn a_response_that_opens_no_tunnel_is_one_like_any_other() {
    let told = translated(tunnel, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", false);
    assert_eq!(told, [Told::Head(403, text(&["content-length: 2"])), data("no"), Told::End]);
}

#[test]
fn what_is_no_response_is_refused() {
    assert_eq!(refused(any(), "HTTP/1.1 2000 OK\r\n\r\n"), Refused::BadStatusLine);
    assert_eq!(refused(any(), "HTTP/1.1 200 OK\r\nX: \u{1}\r\n\r\n"), Refused::BadFieldValue);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(any(), &format!("{chunked}x\r\n")), Refused::BadChunkSize);
    assert_eq!(refused(any(), &format!("{chunked}1\r\nab")), Refused::BadChunkEnd);
    assert_eq!(refused(any(), &format!("{chunked}0\r\nContent-Length: 1\r\n\r\n")), Refused::ForbiddenTrailer);
}

#[test]
fn a_refusal_of_a_web_socket_is_passed_on() {
    for text in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 401 No\r\nConnection: close\r\n\r\n",
    ] {
        let mut translator = tunnel();
        let (taken, piece) = translator.next(text.as_bytes(), 0).unwrap();
        assert_eq!(taken, text.len());
        let Some(Piece::Head { response, .. }) = piece else { panic!("{piece:?}") };
        assert!(response.status().is_client_error());
    }
}
