//! [`write_request`] and [`write_response`]: write the head that is passed on, from one that was read.
//!
//! Lines are copied byte for byte and in order, with these exceptions: hop-by-hop fields are dropped and written anew
//! for the next hop (RFC 9110 §7.6.1); framing fields are written in their plainest spelling, so that every reader
//! reads them alike; clients get HTTP/1.1, backends the version of the client (RFC 9110 §2.5 allows the downgrade: a
//! backend may not reply to HTTP/1.0 with chunks, so no body needs another framing); of the framing fields of a response
//! only those remain that its framing follows; and an absolute target becomes an origin one (RFC 9112 §3.2.1). Never
//! touches bodies, and never refuses a head that the readers have accepted.
//!
//! Connection removes only fields without a rule here: `Connection: Cookie` or `Connection: X-Forwarded-For` would
//! otherwise change what the backend sees.
//!
//! Invariant: the written head has the framing of the read one, and no added value can begin a line.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::cookie::{split, unquote};
use super::field::{FieldRef, Fields, KnownField, folds_to, split_at_byte, trim};
use super::forwarded::{self, Forwarding};
use super::framing::forbids_framing;
use super::head::{Request, Response};
use super::set_cookie::sets;
use super::target::Target;
use super::upgrade::RequestMeta;
use super::upgrade::protocols;
use super::work::spend;
use super::{Method, Version};

/// The changes to a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestEdit<'a> {
    /// The treatment of X-Forwarded-For, -Proto, -Host and -Port, and of what else proxies say of a client.
    pub x_forwarded: Forwarding,
    /// The treatment of Forwarded (RFC 7239).
    pub forwarded: Forwarding,
    /// The address of the client; `None`: a unix socket.
    pub client: Option<IpAddr>,
    /// The port that the client has connected to; `None`: it is not known.
    pub port: Option<u16>,
    /// True if the client used TLS, to this process or to the proxy in front of it.
    pub secure: bool,
    /// The cookie that the backend does not get, or gets shortened.
    pub cookie: CookieEdit<'a>,
    /// A further cookie that the backend does not get: that of the split which has chosen its pool.
    pub split_cookie: Option<CookieNames<'a>>,
    /// True if the connection to the backend ends with this request.
    pub close: bool,
    /// True if what carries the request has trailers of responses in any case: the client's word that it takes them is
    /// passed on (RFC 9110 §10.1.4).
    pub trailers: bool,
    /// Fields that only this process may set (the subject of the client's certificate, a request id, what the pool sets).
    /// The client's own are dropped, also under a name with underscores; a value is written if it is `Some`. They take
    /// the place of fields that this process writes of itself.
    pub set: &'a [SetField<'a>],
    /// Names of fields that are dropped in the same way.
    pub remove: &'a [String],
}

/// Name of a field that is set, and its value; `None`: the field is only removed.
pub type SetField<'a> = (&'a str, Option<&'a str>);

impl RequestEdit<'_> {
    /// True if a rule is for the field of this name, in any spelling that CGI folds into it.
    fn has_rule_for(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(known, _)| folds_to(name, known)) || self.remove.iter().any(|known| folds_to(name, known))
    }
}

/// The treatment of the cookies of one name.
#[derive(Debug, Clone, Copy, Default)]
pub enum CookieEdit<'a> {
    /// All cookies are passed on unchanged.
    #[default]
    Keep,
    /// Every cookie of these names is removed.
    Remove(CookieNames<'a>),
    /// Every cookie of these names is removed, and one of the first name with this value is added.
    Replace {
        /// The names of the cookie.
        names: CookieNames<'a>,
        /// The value for the backend, without a byte that ends a value or a line.
        value: &'a [u8],
    },
    /// Every value of this name loses its prefix up to and including the first separator.
    CutPrefix {
        /// The name of the cookie, case-sensitive.
        name: &'a [u8],
        /// The byte that ends the prefix.
        separator: u8,
    },
}

/// The name of a cookie, and that of its twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieNames<'a> {
    /// The name of the cookie, case-sensitive.
    pub name: &'a [u8],
    /// The name of a second cookie with the same value; `None`: there is no such cookie.
    pub twin: Option<&'a [u8]>,
}

impl<'a> CookieNames<'a> {
    /// A cookie without a twin.
    pub fn one(name: &'a [u8]) -> Self {
        Self { name, twin: None }
    }

    /// True for the name of the cookie or of its twin.
    fn has(self, name: &[u8]) -> bool {
        self.name == name || self.twin == Some(name)
    }

    /// True if a Set-Cookie line sets or ends the cookie or its twin.
    pub fn set_by(self, line: &[u8]) -> bool {
        sets(line, self.name) || self.twin.is_some_and(|twin| sets(line, twin))
    }
}

/// The changes to a response.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseEdit<'a> {
    /// True if the client's connection ends with this response.
    pub close: bool,
    /// Lines added behind the others.
    pub add: &'a [(&'a str, &'a str)],
    /// A prefix for every value of this cookie that the response sets: (name, prefix with its separator).
    pub cookie_prefix: Option<(&'a [u8], &'a str)>,
    /// A cookie that only this process may set or end: lines of the backend for it, or its twin, are dropped.
    pub drop_cookie: Option<CookieNames<'a>>,
    /// A further cookie of that kind: that of the split which has chosen the pool.
    pub drop_split: Option<CookieNames<'a>>,
    /// Fields that take the place of the backend's lines; not in an interim response.
    pub set: &'a [SetField<'a>],
    /// Names of the backend's fields that are dropped.
    pub remove: &'a [String],
}

impl ResponseEdit<'_> {
    /// True if a rule is for the field of this name.
    fn has_rule_for(&self, name: &[u8]) -> bool {
        let is_it = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        self.set.iter().any(|(known, _)| is_it(known)) || self.remove.iter().any(|known| is_it(known))
    }
}

/// Appends the head of a request for a backend.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>, edit: &RequestEdit<'_>) {
    let fields = request.fields;
    write_request_line(out, request, edit);
    let options = ConnectionOptions::of(fields);
    copy_lines(out, fields, |out, field| {
        let dropped = field.known.is_hop_by_hop()
            || options.name(field)
            || forwarded::drops(field, edit.x_forwarded, edit.forwarded)
            || edit.has_rule_for(field.name);
        match field.known {
            _ if dropped => EditedLine::Written,
            KnownField::Cookie => write_cookies(out, field, edit.cookie, edit.split_cookie),
            _ => write_framing(out, field),
        }
    });
    if let CookieEdit::Replace { names, value } = edit.cookie {
        push(out, &[b"Cookie: ", names.name, b"=", value, b"\r\n"]);
    }
    let facts = forwarded::ForwardedFacts {
        client: edit.client,
        port: edit.port,
        secure: edit.secure,
        host: request.host(),
        is_replaced: &|known| edit.has_rule_for(known.name().as_bytes()),
    };
    forwarded::write_x_forwarded(out, fields, edit.x_forwarded, &facts);
    forwarded::write_forwarded(out, fields, edit.forwarded, &facts);
    write_set(out, edit.set);
    if edit.trailers && fields.lists(KnownField::Te, "trailers") {
        write_line(out, "TE", "trailers");
    }
    match (request.upgrade(), edit.close, request.version) {
        (Some(_), _, _) => write_upgrade(out, fields, false),
        (None, true, _) => write_line(out, "Connection", "close"),
        (None, false, Version::Http10) => write_line(out, "Connection", "keep-alive"),
        (None, false, Version::Http11) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response for the client that asked for it.
pub fn write_response(out: &mut Vec<u8>, response: &Response<'_>, asked: &RequestMeta, edit: &ResponseEdit<'_>) {
    let fields = response.fields;
    let status = [100, 10, 1].map(|unit| b'0' + (response.status / unit % 10) as u8);
    push(out, &[Version::Http11.text().as_bytes(), b" ", &status, b" ", response.reason, b"\r\n"]);
    let options = ConnectionOptions::of(fields);
    let bodiless = forbids_framing(response.status);
    let mut length_is_written = bodiless || fields.has(KnownField::TransferEncoding);
    copy_lines(out, fields, |out, field| {
        let dropped = match field.known {
            KnownField::ContentLength => std::mem::replace(&mut length_is_written, true),
            KnownField::TransferEncoding => bodiless || asked.version == Version::Http10,
            KnownField::SetCookie => {
                let mut ours = [edit.drop_cookie, edit.drop_split].into_iter().flatten();
                options.name(field) || ours.any(|names| names.set_by(field.value))
            }
            known => known.is_hop_by_hop() || options.name(field),
        };
        match (field.known, edit.cookie_prefix) {
            _ if dropped || edit.has_rule_for(field.name) => EditedLine::Written,
            (KnownField::SetCookie, Some((name, prefix))) => write_set_cookie(out, field, name, prefix),
            _ => write_framing(out, field),
        }
    });
    if !response.is_interim() {
        write_set(out, edit.set);
    }
    for (name, value) in edit.add {
        write_line(out, name, value);
    }
    match response.status {
        101 => write_upgrade(out, fields, false),
        // RFC 9110 §15.5.22: this status is nothing without Upgrade.
        426 if protocols(fields).next().is_some() => write_upgrade(out, fields, edit.close),
        _ if response.is_interim() => {}
        _ if edit.close => write_line(out, "Connection", "close"),
        _ if asked.version == Version::Http10 => write_line(out, "Connection", "keep-alive"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes `method SP origin-form SP version`, and a Host line if an absolute target came without one.
fn write_request_line(out: &mut Vec<u8>, request: &Request<'_>, edit: &RequestEdit<'_>) {
    push(out, &[request.method_name, b" "]);
    match request.target {
        Target::Origin(path) => out.extend_from_slice(path),
        Target::Asterisk => out.push(b'*'),
        // RFC 9112 §3.2.4: OPTIONS for a URI without a path is about the server.
        Target::Absolute { path: b"", .. } if request.method == Method::Options => out.push(b'*'),
        Target::Absolute { path: path @ [b'/', ..], .. } => out.extend_from_slice(path),
        Target::Absolute { path, .. } => push(out, &[b"/", path]),
    }
    push(out, &[b" ", request.version.text().as_bytes(), b"\r\n"]);
    if let Target::Absolute { authority, .. } = request.target
        && !request.fields.has(KnownField::Host)
        && !edit.has_rule_for(b"Host")
    {
        push(out, &[b"Host: ", authority, b"\r\n"]);
    }
}

fn write_set(out: &mut Vec<u8>, set: &[SetField<'_>]) {
    for (name, value) in set {
        if let Some(value) = value {
            write_line(out, name, value);
        }
    }
}

/// The result of editing a line.
enum EditedLine {
    /// The line is copied unchanged.
    Kept,
    /// The line has been written in another form, or is dropped.
    Written,
}

/// Calls `edit` for each line in order, and copies the lines that it keeps.
fn copy_lines(out: &mut Vec<u8>, fields: Fields<'_>, mut edit: impl FnMut(&mut Vec<u8>, FieldRef<'_>) -> EditedLine) {
    for (line, field) in fields.lines().iter().zip(fields.iter()) {
        if let EditedLine::Kept = edit(out, field) {
            spend(line.of(fields.bytes()).len());
            out.extend_from_slice(line.of(fields.bytes()));
        }
    }
}

/// The options of Connection that may name fields, collected once for all lines of a head.
struct ConnectionOptions<'a>(Vec<&'a [u8]>);

impl<'a> ConnectionOptions<'a> {
    fn of(fields: Fields<'a>) -> Self {
        let usual = ["close", "keep-alive", "upgrade"];
        let is_usual = |option: &[u8]| usual.iter().any(|usual| option.eq_ignore_ascii_case(usual.as_bytes()));
        let mut options: Vec<_> = fields.tokens(KnownField::Connection).filter(|option| !is_usual(option)).collect();
        options.sort_unstable_by(|one, other| compare(one, other));
        Self(options)
    }

    /// True if an option names the field, and no rule here keeps it.
    fn name(&self, field: FieldRef<'_>) -> bool {
        !self.0.is_empty()
            && field.known == KnownField::Other
            && self.0.binary_search_by(|option| compare(option, field.name)).is_ok()
            && !forwarded::describes_client(field.name)
    }
}

/// Compares two names without case, the shorter one first: most are told apart by their length.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| {
        spend(one.len());
        one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase))
    })
}

/// Writes framing fields in their plainest spelling, one of several equal lengths, and keeps any other line.
fn write_framing(out: &mut Vec<u8>, field: FieldRef<'_>) -> EditedLine {
    match field.known {
        KnownField::TransferEncoding => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        KnownField::ContentLength => {
            let length = trim(split_at_byte(field.value, b',').0);
            let zeros = length.iter().take_while(|digit| **digit == b'0').count();
            push(out, &[b"Content-Length: ", &length[zeros.min(length.len() - 1)..], b"\r\n"]);
        }
        _ => return EditedLine::Kept,
    }
    EditedLine::Written
}

/// Writes a Cookie line without the removed parts, or no line if nothing is left.
fn write_cookies(
    out: &mut Vec<u8>,
    field: FieldRef<'_>,
    edit: CookieEdit<'_>,
    removed: Option<CookieNames<'_>>,
) -> EditedLine {
    let names = match edit {
        CookieEdit::Keep => None,
        CookieEdit::Remove(names) | CookieEdit::Replace { names, .. } => Some(names),
        CookieEdit::CutPrefix { name, .. } => Some(CookieNames::one(name)),
    };
    let has = |names: Option<CookieNames<'_>>, pair: &[u8]| names.is_some_and(|names| names.has(split(pair).0));
    let is_edited = |pair: &[u8]| has(names, pair) || has(removed, pair);
    if names.is_none() && removed.is_none() || !field.value.split(|byte| *byte == b';').any(is_edited) {
        return EditedLine::Kept;
    }
    let begin = out.len();
    push(out, &[field.name, b": "]);
    let (empty, mut first) = (out.len(), true);
    for pair in field.value.split(|byte| *byte == b';') {
        let is_ours = has(names, pair);
        match edit {
            _ if has(removed, pair) => continue,
            CookieEdit::Remove(_) | CookieEdit::Replace { .. } if is_ours => continue,
            _ if first => {}
            _ => out.push(b';'),
        }
        let pair = if first { pair.trim_ascii_start() } else { pair };
        first = false;
        match edit {
            CookieEdit::CutPrefix { separator, .. } if is_ours => cut_prefix(out, pair, separator),
            _ => out.extend_from_slice(pair),
        }
    }
    if out[empty..].iter().all(|byte| matches!(byte, b';' | b' ' | b'\t')) {
        out.truncate(begin);
    } else {
        out.extend_from_slice(b"\r\n");
    }
    EditedLine::Written
}

/// Writes `name=prefix~value` without `prefix~`, and keeps quotes.
fn cut_prefix(out: &mut Vec<u8>, pair: &[u8], separator: u8) {
    let start = value_start(pair);
    match split_at_byte(&pair[start..], separator) {
        (_, Some(value)) => push(out, &[&pair[..start], value]),
        (_, None) => out.extend_from_slice(pair),
    }
}

/// Writes a Set-Cookie line with the prefix, if the cookie has this name and is not empty.
fn write_set_cookie(out: &mut Vec<u8>, field: FieldRef<'_>, name: &[u8], prefix: &str) -> EditedLine {
    let (pair, _) = split_at_byte(field.value, b';');
    let Some(start) = start_of_value(pair, name) else { return EditedLine::Kept };
    let (before, after) = field.value.split_at(start);
    push(out, &[field.name, b": ", before]);
    write_value(out, prefix);
    push(out, &[after, b"\r\n"]);
    EditedLine::Written
}

/// Where the value begins that a browser sends under this name; `None`: the line sets another cookie, or no value. A
/// cookie without a name is sent as its value alone, which may be `NAME=value` (RFC 6265bis §5.8.3).
fn start_of_value(pair: &[u8], name: &[u8]) -> Option<usize> {
    let at = if split(pair).0.is_empty() { memchr::memchr(b'=', pair)? + 1 } else { 0 };
    let (this, value) = split(&pair[at..]);
    (this == name && !unquote(value).is_empty()).then(|| at + value_start(&pair[at..]))
}

/// The position of the value in `name = "value"`, behind white space and the first quote of a pair.
fn value_start(pair: &[u8]) -> usize {
    let value = memchr::memchr(b'=', pair).map_or(0, |at| at + 1);
    let start = value + pair[value..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let written = trim(&pair[start..]);
    start + usize::from(unquote(written).len() < written.len())
}

/// Writes Upgrade with its allowed protocols, and the Connection line for it.
fn write_upgrade(out: &mut Vec<u8>, fields: Fields<'_>, close: bool) {
    write_line(out, "Connection", if close { "close, upgrade" } else { "upgrade" });
    for (index, protocol) in protocols(fields).enumerate() {
        push(out, &[if index == 0 { b"Upgrade: " } else { b", " }, protocol]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a line. `name` is a constant of this crate or the configuration, and is not checked.
pub(super) fn write_line(out: &mut Vec<u8>, name: &str, value: &str) {
    push(out, &[name.as_bytes(), b": "]);
    write_value(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a value. Bytes other than visible ASCII and space become `%XX`, so that no text of a certificate or name can
/// begin a line.
fn write_value(out: &mut Vec<u8>, value: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        match byte {
            b' '..=b'~' => out.push(byte),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

fn push(out: &mut Vec<u8>, texts: &[&[u8]]) {
    for text in texts {
        spend(text.len());
        out.extend_from_slice(text);
    }
}
