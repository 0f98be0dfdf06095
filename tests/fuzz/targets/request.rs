//! Requests: read in any pieces, written for a backend, and read again as the same message.

use std::net::{IpAddr, Ipv6Addr};

use sessile::http::cookie::pairs;
use sessile::http::edit::{CookieEdit, CookieNames, RequestEdit, write_request};
use sessile::http::field::KnownField;
use sessile::http::forwarded::Forwarding;
use sessile::http::head::{REQUEST_LINE_MAX, Request, RequestReader};
use sessile::http::target::Target as Resource;
use sessile::http::{Framing, Method, Progress, Refused};

use super::head::{self, Head, Reader, listed, second_listed};
use crate::cost::{Limit, bounded};
use crate::engine::Target;
use crate::messages::{Kind, cases};

pub const TARGET: Target = Target {
    name: "request",
    run,
    words: &[
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"OPTIONS * ",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"\r\n\r\n",
        b"\r\n",
        b"Host: a\r\n",
        b"Host: [::1]:80\r\n",
        b"http://a",
        b"HTTPS://b?c",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"3;a=\"b\"\r\nxyz\r\n",
        b"Connection: ",
        b"close",
        b"upgrade",
        b"keep-alive",
        b"Upgrade: websocket\r\n",
        b"Cookie: ",
        b"SESSILE=a~b; ",
        b"; ;",
        b"Expect: 100-continue\r\n",
        b"X-Forwarded-For: 1.2.3.4\r\n",
        b"x_forwarded_proto: https\r\n",
        b"Forwarded: for=x\r\n",
        b"TE: trailers\r\n",
        b"X-Real-IP: 1.1.1.1\r\n",
        b"Proxy-Connection: x\r\n",
        b"X-Request-Id: y\r\n",
        b"a,b,",
        b"Trailer: x\r\n",
    ],
    seeds: || cases().into_iter().filter(|case| case.kind == Kind::Request).map(|case| case.bytes).collect(),
    length_max: 40_000,
    mutants: 4_000,
};

/// What writing a head may cost, into a buffer with room: what announces the client, a list of options, and steps.
const WRITE: Limit = Limit { allocations: 20, bytes: 8_192, steps: 20_000, steps_per_byte: 60 };

impl Reader for RequestReader {
    fn read(&mut self, bytes: &[u8]) -> Progress<usize, Refused> {
        RequestReader::read(self, bytes)
    }

    fn reset(&mut self) {
        RequestReader::reset(self);
    }

    fn head(&self, bytes: &[u8]) -> Head {
        let request = self.request(bytes);
        let target = match request.target {
            Resource::Origin(path) => path.to_vec(),
            Resource::Asterisk => b"*".to_vec(),
            Resource::Absolute { scheme, authority, path } => [scheme, b"://", authority, path].concat(),
        };
        let start = vec![request.method_name.to_vec(), target, request.version.text().into()];
        Head { start, fields: listed(request.fields) }
    }

    fn framing(&self, bytes: &[u8]) -> Framing {
        self.request(bytes).framing
    }

    fn second(bytes: &[u8]) -> Result<Option<(Head, usize)>, httparse::Error> {
        let mut headers = [httparse::EMPTY_HEADER; 160];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
        let start = [request.method.unwrap_or_default(), request.path.unwrap_or_default()].map(Vec::from);
        let version = format!("HTTP/1.{}", request.version.unwrap_or_default()).into_bytes();
        let head = Head { start: [&start[..], &[version]].concat(), fields: second_listed(request.headers) };
        Ok(Some((head, length)))
    }
}

fn run(bytes: &[u8]) {
    let Some(reader) = head::read(&RequestReader::new(), bytes) else { return };
    let request = reader.request(bytes);
    assert!(request.framing != Framing::UntilClose, "a request does not end with the connection");
    check_cookies(&request, bytes);
    let name = pairs(request.fields).map(|pair| pair.name).find(|name| !name.is_empty()).unwrap_or(b"SESSILE");
    for edit in edits(name) {
        let written = write(&request, &edit);
        if let Some(again) = reread(&request, &edit, &written) {
            compare(&request, &edit, &again.request(&written));
        }
    }
}

/// Ways to pass a request on; `name` is that of a cookie.
fn edits(name: &[u8]) -> [RequestEdit<'_>; 4] {
    let plain = RequestEdit { x_forwarded: Forwarding::Off, forwarded: Forwarding::Off, ..RequestEdit::default() };
    let client = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    [
        plain,
        RequestEdit {
            x_forwarded: Forwarding::Replace,
            forwarded: Forwarding::Remove,
            client,
            cookie: CookieEdit::Remove(CookieNames::one(name)),
            close: true,
            ..plain
        },
        RequestEdit {
            x_forwarded: Forwarding::Append,
            forwarded: Forwarding::Append,
            secure: true,
            cookie: CookieEdit::CutPrefix { name, separator: b'~' },
            ..plain
        },
        RequestEdit {
            forwarded: Forwarding::Replace,
            set: &[("X-Request-Id", Some("1\r\n2")), ("X-Cert", None)],
            ..plain
        },
    ]
}

fn is_plain(edit: &RequestEdit<'_>) -> bool {
    matches!(edit.cookie, CookieEdit::Keep) && edit.set.is_empty() && edit.forwarded == Forwarding::Off
}

fn write(request: &Request<'_>, edit: &RequestEdit<'_>) -> Vec<u8> {
    let mut written = Vec::with_capacity(4 * request.length + 2_048);
    // The Host is quoted in one of the lines that announce the client.
    let quoted = 4 * request.host().map_or(0, |host| host.bytes.len()) as u64;
    let limit = Limit { bytes: WRITE.bytes + quoted, ..WRITE };
    bounded("writing a request", request.length, limit, || write_request(&mut written, request, edit));
    written
}

/// A written head is a head again, unless the lines of this hop made it too long.
fn reread(request: &Request<'_>, edit: &RequestEdit<'_>, written: &[u8]) -> Option<RequestReader> {
    let mut reader = RequestReader::new();
    match reader.read(written) {
        Progress::Done(length) => {
            assert_eq!(length, written.len(), "one head and nothing else: {}", written.escape_ascii());
            let second = RequestReader::second(written);
            assert_eq!(second, Ok(Some((reader.head(written), length))), "httparse: {}", written.escape_ascii());
            if is_plain(edit) {
                assert_eq!(write(&reader.request(written), edit), written, "written twice");
            }
            return Some(reader);
        }
        // A path of its own is a byte longer than the URI `http://a?b` had room for.
        Progress::No(Refused::RequestLineTooLong) => assert!(request.length > REQUEST_LINE_MAX),
        Progress::No(Refused::HeadTooLong | Refused::TooManyFields) => {
            // Up to three of the lines that are added repeat the Host.
            let added = 3 * request.host().map_or(0, |host| host.bytes.len());
            assert!(head::is_nearly_full(request.fields, request.length + added), "{}", written.escape_ascii());
        }
        other => panic!("{other:?}: {}", written.escape_ascii()),
    }
    None
}

fn compare(before: &Request<'_>, edit: &RequestEdit<'_>, after: &Request<'_>) {
    assert_eq!((after.method_name, after.version), (before.method_name, before.version));
    assert_eq!(after.framing, before.framing);
    assert_eq!(after.host(), before.host());
    assert_eq!((after.upgrade(), after.expects_continue()), (before.upgrade(), before.expects_continue()));
    assert_eq!(after.persists(), !edit.close || before.upgrade().is_some());
    let path = match before.target {
        Resource::Origin(path) => path.to_vec(),
        Resource::Asterisk => b"*".to_vec(),
        Resource::Absolute { path: b"", .. } if before.method == Method::Options => b"*".to_vec(),
        Resource::Absolute { path, .. } if path.starts_with(b"/") => path.to_vec(),
        Resource::Absolute { path, .. } => [b"/", path].concat(),
    };
    assert_eq!(after.target, if path == b"*" { Resource::Asterisk } else { Resource::Origin(&path) });
    compare_fields(before, edit, after);
}

fn compare_fields(before: &Request<'_>, edit: &RequestEdit<'_>, after: &Request<'_>) {
    let (old, new) = (head::end_to_end(before.fields), head::written_end_to_end(before.fields, after.fields));
    if is_plain(edit) && edit.x_forwarded == Forwarding::Off {
        // A URI without a Host field brings one.
        let skip = usize::from(!before.fields.has(KnownField::Host) && after.fields.has(KnownField::Host));
        assert_eq!(new[skip..], old[..], "a field changed");
        return;
    }
    // What is announced anew, removed or shortened depends on the edit; anything else is there and in order.
    let ours = |name: &[u8]| {
        let name = head::folded(name);
        let begins = ["x-", "forwarded", "cookie", "host", "true-client-ip", "front-end-https"];
        begins.iter().any(|begin| name.starts_with(begin))
    };
    let others = |list: &[(Vec<u8>, Vec<u8>)]| list.iter().filter(|(name, _)| !ours(name)).cloned().collect::<Vec<_>>();
    assert_eq!(others(&new), others(&old), "a field that no edit is about");
    if edit.x_forwarded == Forwarding::Replace {
        let hosts = new.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"x-forwarded-host")).count();
        let addresses: Vec<_> = after.fields.all(KnownField::XForwardedFor).collect();
        assert_eq!((addresses, hosts), (vec![&b"::1"[..]], usize::from(before.host().is_some())));
        let folded = new.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"x_forwarded_for"));
        assert!(!folded && !after.fields.has(KnownField::Forwarded), "a field that only this hop may write");
    }
    if !edit.set.is_empty() {
        let ids: Vec<_> = after.fields.named("x-request-id").collect();
        assert_eq!(ids, [b"1%0D%0A2"], "a value cannot begin a line");
    }
    compare_cookies(before, edit.cookie, after);
}

/// Every cookie but the edited one is there, in order.
fn compare_cookies(before: &Request<'_>, edit: CookieEdit<'_>, after: &Request<'_>) {
    let new: Vec<_> = pairs(after.fields).map(|pair| (pair.name.to_vec(), pair.value.to_vec())).collect();
    let old = pairs(before.fields).map(|pair| (pair.name.to_vec(), pair.value.to_vec()));
    let wanted: Vec<_> = match edit {
        CookieEdit::Remove(CookieNames { name, .. }) => old.filter(|(this, _)| this != name).collect(),
        CookieEdit::CutPrefix { name, separator } => old
            .map(|(this, value)| {
                let end = value.iter().position(|byte| *byte == separator).filter(|_| this == name);
                (this, end.map_or(value.clone(), |end| value[end + 1..].to_vec()))
            })
            .collect(),
        _ => old.collect(),
    };
    // Quotes, and white space behind the separator, have more than one reading.
    let odd = |list: &[(Vec<u8>, Vec<u8>)]| {
        list.iter().any(|(_, value)| value.contains(&b'"') || value != value.trim_ascii())
    };
    if !odd(&wanted) && !before.fields.all(KnownField::Cookie).any(|line| line.contains(&b'"')) {
        assert_eq!(new, wanted);
    }
}

/// Cookies stand in the head where they say, one behind the other.
fn check_cookies(request: &Request<'_>, bytes: &[u8]) {
    let limit = Limit { steps: 2_000, steps_per_byte: 40, ..Limit::NO_MEMORY };
    bounded("reading cookies", request.length, limit, || pairs(request.fields).count());
    let mut end = 0;
    for pair in pairs(request.fields) {
        assert!(pair.place.start() >= end && !pair.place.of(bytes).is_empty());
        end = pair.place.end();
        assert!(!pair.place.of(bytes).contains(&b';'));
    }
    assert!(end <= request.length);
}
