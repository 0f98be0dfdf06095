//! Responses to several kinds of request: read in any pieces, written for the client, and read again as the same.
//!
//! The first byte of an input chooses the request, the response is the rest.

use sessile::http::edit::{ResponseEdit, write_response};
use sessile::http::head::{RequestReader, Response, ResponseReader};
use sessile::http::set_cookie::set_cookies;
use sessile::http::upgrade::RequestMeta;
use sessile::http::{Framing, Method, Progress, Refused, Version};

use super::head::{self, Head, Reader, listed, second_listed};
use crate::cost::{Limit, bounded};
use crate::engine::Target;
use crate::messages::{Kind, cases};

pub const TARGET: Target = Target {
    name: "response",
    run,
    words: &[
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 \r\n",
        b"HTTP/1.1 204\r\n",
        b"HTTP/1.1 304 x\r\n",
        b"HTTP/1.1 100 \r\n\r\n",
        b"HTTP/1.1 101 \r\n",
        b"HTTP/1.1 426 \r\n",
        b"HTTP/1.1 103 \r\n",
        b"\r\n\r\n",
        b"\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"3\r\nxyz\r\n",
        b"Connection: ",
        b"close",
        b"upgrade",
        b"Upgrade: websocket\r\n",
        b"Upgrade: h2c, x/1\r\n",
        b"Set-Cookie: SID=1; Path=/\r\n",
        b"Max-Age=0",
        b"Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        b"SID=\"a\"; ",
        b"Keep-Alive: timeout=5\r\n",
        b"a,b,",
        b"Cache-Control: no-store\r\n",
        b"Trailer: x\r\n",
    ],
    seeds,
    length_max: 40_000,
    mutants: 2_000,
};

/// Requests that a response may be to.
const ASKED: [&str; 6] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x/2, websocket\r\n\r\n",
];

/// What writing a head may cost, into a buffer with room: a list of options, and steps.
const WRITE: Limit = Limit { allocations: 10, bytes: 4_096, steps: 20_000, steps_per_byte: 60 };

fn seeds() -> Vec<Vec<u8>> {
    let kind = |kind| match kind {
        Kind::Request => None,
        Kind::Response => Some(0),
        Kind::ResponseToHead => Some(1),
        Kind::ResponseToOld => Some(2),
        Kind::ResponseToWebSocket => Some(4),
    };
    let responses = cases().into_iter().filter_map(|case| Some([&[kind(case.kind)?], &case.bytes[..]].concat()));
    responses.collect()
}

#[derive(Clone)]
struct Responses(ResponseReader, RequestMeta);

impl Reader for Responses {
    fn read(&mut self, bytes: &[u8]) -> Progress<usize, Refused> {
        self.0.read(bytes, self.1)
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn head(&self, bytes: &[u8]) -> Head {
        let response = self.0.response(bytes);
        let start = vec![response.version.text().into(), response.status.to_string().into(), reason(response.reason)];
        Head { start, fields: listed(response.fields) }
    }

    fn framing(&self, bytes: &[u8]) -> Framing {
        self.0.response(bytes).framing
    }

    fn second(bytes: &[u8]) -> Result<Option<(Head, usize)>, httparse::Error> {
        let mut headers = [httparse::EMPTY_HEADER; 160];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
        let start = vec![
            format!("HTTP/1.{}", response.version.unwrap_or_default()).into(),
            response.code.unwrap_or_default().to_string().into(),
            response.reason.unwrap_or_default().into(),
        ];
        Ok(Some((Head { start, fields: second_listed(response.headers) }, length)))
    }
}

/// httparse shows a reason that is not ASCII as none.
fn reason(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_ascii() { bytes.to_vec() } else { Vec::new() }
}

fn asked(index: u8) -> RequestMeta {
    let bytes = ASKED[usize::from(index) % ASKED.len()].as_bytes();
    let mut reader = RequestReader::new();
    assert_eq!(reader.read(bytes), Progress::Done(bytes.len()));
    reader.request(bytes).asked()
}

fn run(input: &[u8]) {
    let Some((index, bytes)) = input.split_first() else { return };
    let asked = asked(*index);
    // httparse skips empty lines before a status line, which no server may send.
    if bytes.starts_with(b"\r") || bytes.starts_with(b"\n") {
        let refused = !matches!(ResponseReader::new().read(bytes, asked), Progress::Done(_));
        assert!(refused, "an empty line is no status line");
        return;
    }
    let Some(reader) = head::read(&Responses(ResponseReader::new(), asked), bytes) else { return };
    let response = reader.0.response(bytes);
    check_framing(&asked, &response);
    let edits = [
        ResponseEdit::default(),
        ResponseEdit { close: true, add: &[("Sessile-Added", "\u{e9}\r\nb")], ..ResponseEdit::default() },
        ResponseEdit { cookie_prefix: Some((b"SID", "b0~")), ..ResponseEdit::default() },
    ];
    for edit in &edits {
        let written = write(&response, &asked, edit);
        let mut again = Responses(ResponseReader::new(), asked);
        match again.read(&written) {
            Progress::Done(length) => {
                assert_eq!(length, written.len(), "one head and nothing else: {}", written.escape_ascii());
                let second = Responses::second(&written);
                assert_eq!(second, Ok(Some((again.head(&written), length))), "httparse: {}", written.escape_ascii());
                compare(&asked, &response, edit, &again.0.response(&written));
            }
            Progress::No(Refused::HeadTooLong | Refused::TooManyFields) => {
                assert!(head::is_nearly_full(response.fields, response.length), "{}", written.escape_ascii());
            }
            other => panic!("{other:?}: {}", written.escape_ascii()),
        }
    }
}

fn write(response: &Response<'_>, asked: &RequestMeta, edit: &ResponseEdit<'_>) -> Vec<u8> {
    let mut written = Vec::with_capacity(2 * response.length + 2_048);
    bounded("writing a response", response.length, WRITE, || write_response(&mut written, response, asked, edit));
    written
}

/// The framing by RFC 9112 §6.3, from the head as it was accepted.
fn check_framing(asked: &RequestMeta, response: &Response<'_>) {
    let (mut chunked, mut length) = (false, None);
    for field in response.fields.iter() {
        chunked |= field.name.eq_ignore_ascii_case(b"transfer-encoding");
        if field.name.eq_ignore_ascii_case(b"content-length") {
            // Equal numbers may be listed; what is accepted has one number.
            let first = field.value.split(|byte| *byte == b',').next().unwrap_or_default();
            length = std::str::from_utf8(first).ok().and_then(|digits| digits.trim().parse::<u64>().ok());
        }
    }
    let bodiless = asked.method == Method::Head || response.status < 200 || [204, 304].contains(&response.status);
    let wanted = match (bodiless, chunked, length) {
        (true, ..) => Framing::None,
        (false, true, _) => Framing::Chunked,
        (false, false, Some(length)) => Framing::Length(length),
        (false, false, None) => Framing::UntilClose,
    };
    assert_eq!(response.framing, wanted);
}

fn compare(asked: &RequestMeta, before: &Response<'_>, edit: &ResponseEdit<'_>, after: &Response<'_>) {
    assert_eq!((after.version, after.status, after.reason), (Version::Http11, before.status, before.reason));
    assert_eq!(after.framing, before.framing);
    check_framing(asked, after);
    let lengths = after.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"content-length")).count();
    let codings = after.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"transfer-encoding")).count();
    assert!(lengths + codings <= 1, "one framing: {lengths} lengths, {codings} codings");
    assert!(after.status >= 200 && after.status != 204 || lengths + codings == 0, "no body is announced");
    if !after.is_interim() && !after.switches() {
        let keeps = after.persists();
        assert!(!edit.close || !keeps, "the client is told that its connection ends");
    }
    let (mut old, new) = (head::end_to_end(before.fields), head::written_end_to_end(before.fields, after.fields));
    old.extend(edit.add.iter().map(|(name, _)| (name.as_bytes().to_vec(), b"%C3%A9%0D%0Ab".to_vec())));
    match edit.cookie_prefix {
        None => assert_eq!(new, old, "a field changed"),
        Some((name, prefix)) => {
            let is_set_cookie = |(name, _): &&(Vec<u8>, Vec<u8>)| name.eq_ignore_ascii_case(b"set-cookie");
            let others = |list: &[(Vec<u8>, Vec<u8>)]| {
                list.iter().filter(|one| !is_set_cookie(one)).cloned().collect::<Vec<_>>()
            };
            assert_eq!(others(&new), others(&old));
            for (old, new) in set_cookies(before.fields, name).zip(set_cookies(after.fields, name)) {
                assert_eq!((old.name, old.lifetime), (new.name, new.lifetime));
                let prefixed = !old.value.is_empty() && !old.value.contains(&b'"');
                let wanted = if prefixed { [prefix.as_bytes(), old.value].concat() } else { old.value.to_vec() };
                assert!(new.value == wanted || old.value.contains(&b'"'), "{new:?} of {old:?}");
            }
        }
    }
}
