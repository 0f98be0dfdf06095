//! [`RequestReader`] and [`ResponseReader`]: read heads out of a growing buffer, line by line and each line once.
//!
//! Keeps offsets into the caller's buffer and nothing else: no byte is copied or changed, nothing is allocated. Does
//! not read bodies, and does not decide where a request goes.
//!
//! Invariant: a result is final and does not depend on how the bytes were cut, and a [`Request`] or [`Response`] exists
//! only if every line has the form of RFC 9112 and the framing has one reading.

use memchr::memchr2;

use super::field::{Field, FieldList, Fields, KnownField, Span, is_text, is_token, is_token_byte, split_at_byte};
use super::target::{Host, Target, TargetSpans};
use super::upgrade::{self, RequestMeta};
use super::work::spend;
use super::{Framing, Method, Progress, Refused, Version, cookie, framing};

/// The longest head in bytes, with its empty line.
pub const HEAD_MAX: usize = 32 * 1024;

pub use super::field::FIELDS_MAX;

/// What the head of a request may hold, at most [`HEAD_MAX`] and [`FIELDS_MAX`].
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Most bytes, the empty line with them.
    pub bytes: usize,
    /// Most field lines.
    pub fields: usize,
}

impl HeadLimits {
    /// Refuses a head that holds more.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Refused> {
        match request {
            _ if request.length > self.bytes => Err(Refused::HeadTooLong),
            _ if request.fields.lines().len() > self.fields => Err(Refused::TooManyFields),
            _ => Ok(()),
        }
    }
}

/// The longest request line in bytes; RFC 9112 §3 recommends at least 8000.
pub const REQUEST_LINE_MAX: usize = 8 * 1024;

/// Most interim responses (1xx) before a final one. A server that processes for long may send 102 now and then.
pub const INTERIMS_MAX: usize = 16;

/// Reads request heads, one after another. Holds no heap memory and about 1.6 KiB.
#[derive(Debug, Clone)]
pub struct RequestReader {
    lines: Lines,
    line: RequestLine,
    framing: Framing,
}

/// A request head, borrowed from the buffer it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, as far as rules depend on it.
    pub method: Method,
    /// The method as the client wrote it.
    pub method_name: &'a [u8],
    /// The resource, as path, URI or `*`.
    pub target: Target<'a>,
    /// The version in the request line.
    pub version: Version,
    /// The field lines, in order.
    pub fields: Fields<'a>,
    /// How the body is delimited.
    pub framing: Framing,
    /// How many bytes of the buffer the head takes, its empty line with it.
    pub length: usize,
}

impl Request<'_> {
    /// The site that the request is for: Host, which equals the authority of an absolute target, or that authority if
    /// there is no Host. `None` only in HTTP/1.0.
    pub fn host(&self) -> Option<Host<'_>> {
        let bytes = match (self.fields.all(KnownField::Host).next(), self.target) {
            (Some(host), _) => host,
            (None, Target::Absolute { authority, .. }) => authority,
            (None, _) => return None,
        };
        Host::read(bytes).ok()
    }
}

impl RequestReader {
    /// The state before the first byte of a head.
    pub fn new() -> Self {
        Self { lines: Lines::new(), line: RequestLine::default(), framing: Framing::None }
    }

    /// Prepares for the next request. The next head must begin at the first byte of the buffer.
    pub fn reset(&mut self) {
        self.lines.reset();
    }

    /// Continues where the last call stopped; `Done` holds the length of the head. `bytes` are all bytes since the head
    /// began. One empty line before the head is skipped (RFC 9112 §2.2).
    pub fn read(&mut self, bytes: &[u8]) -> Progress<usize, Refused> {
        if self.lines.progress == Progress::More {
            self.lines.progress = self.go_on(bytes).into();
        }
        self.lines.progress
    }

    /// The request that was read from these bytes; more of them may follow.
    ///
    /// # Panics
    ///
    /// If no call of [`RequestReader::read`] on these bytes has returned `Done`.
    pub fn request<'a>(&'a self, bytes: &'a [u8]) -> Request<'a> {
        let length = self.lines.whole();
        Request {
            method: self.line.method,
            method_name: self.line.name.of(bytes),
            target: self.line.target.of(bytes),
            version: self.line.version,
            fields: self.lines.fields.of(bytes),
            framing: self.framing,
            length,
        }
    }

    fn go_on(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refused> {
        let line = &mut self.line;
        let start = |text: &[u8], at| RequestLine::read(text, at).map(|read| *line = read);
        let Some(length) = self.lines.read(bytes, Kind::Request, start)? else { return Ok(None) };
        let fields = self.lines.fields.of(bytes);
        check_host(self.line.target.of(bytes), self.line.version, fields)?;
        upgrade::check_connection(fields)?;
        cookie::check_count(fields)?;
        self.framing = framing::of_request(self.line.version, fields)?;
        Ok(Some(length))
    }
}

impl Default for RequestReader {
    fn default() -> Self {
        Self::new()
    }
}

/// RFC 9112 §3.2: exactly one valid Host in HTTP/1.1 and at most one in HTTP/1.0; and an absolute target names the
/// same host, because a reader that prefers the other one would serve another site.
fn check_host(target: Target<'_>, version: Version, fields: Fields<'_>) -> Result<(), Refused> {
    let mut hosts = fields.all(KnownField::Host);
    match (hosts.next(), hosts.next(), target) {
        (_, Some(_), _) => Err(Refused::SeveralHosts),
        (None, _, _) if version == Version::Http11 => Err(Refused::NoHost),
        (None, _, _) => Ok(()),
        (Some(host), None, Target::Absolute { authority, .. }) if !host.eq_ignore_ascii_case(authority) => {
            Host::read(host).and(Err(Refused::OtherHost))
        }
        (Some(host), None, _) => Host::read(host).map(drop),
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct RequestLine {
    method: Method,
    name: Span,
    target: TargetSpans,
    version: Version,
}

impl RequestLine {
    /// `method SP request-target SP HTTP-version` (RFC 9112 §3).
    fn read(line: &[u8], at: usize) -> Result<Self, Refused> {
        let (name, rest) = split_at_byte(line, b' ');
        if !is_token(name) {
            return Err(Refused::BadMethod);
        }
        if name == b"CONNECT" {
            return Err(Refused::Connect);
        }
        let (target, version) = split_at_byte(rest.ok_or(Refused::BadRequestLine)?, b' ');
        let version = read_version(version.ok_or(Refused::BadRequestLine)?, Refused::BadRequestLine)?;
        let method = Method::of(name);
        let target = TargetSpans::read(target, at + name.len() + 1, method)?;
        Ok(Self { method, name: Span::new(at, at + name.len()), target, version })
    }
}

/// Reads `HTTP/1.0` or `HTTP/1.1`. Another version is `BadVersion`, any other text is `malformed`.
fn read_version(text: &[u8], malformed: Refused) -> Result<Version, Refused> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refused::BadVersion)
        }
        _ => Err(malformed),
    }
}

/// Reads response heads, one after another. Holds no heap memory and about 1.6 KiB.
#[derive(Debug, Clone)]
pub struct ResponseReader {
    lines: Lines,
    line: StatusLine,
    framing: Framing,
    /// Interim responses that were passed over since the last final one.
    interims: usize,
}

/// A response head, borrowed from the buffer it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The version in the status line.
    pub version: Version,
    /// The status code, from 100 to 999.
    pub status: u16,
    /// The reason phrase behind the status, often empty.
    pub reason: &'a [u8],
    /// The field lines, in order.
    pub fields: Fields<'a>,
    /// How the body is delimited.
    pub framing: Framing,
    /// How many bytes of the buffer the head takes, its empty line with it.
    pub length: usize,
}

impl Response<'_> {
    /// True if another response to the same request follows (RFC 9110 §15.2). Never sent to a client of HTTP/1.0.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && !self.switches()
    }

    /// True if the connection speaks another protocol behind this head (101).
    pub fn switches(&self) -> bool {
        self.status == 101
    }
}

impl ResponseReader {
    /// The state before the first byte of a head.
    pub fn new() -> Self {
        Self { lines: Lines::new(), line: StatusLine::default(), framing: Framing::None, interims: 0 }
    }

    /// Prepares for the next response. The next head must begin at the first byte of the buffer.
    pub fn reset(&mut self) {
        self.lines.reset();
        self.interims = 0;
    }

    /// Prepares for the response behind an interim one, to the same request. Refuses more interim responses than
    /// [`INTERIMS_MAX`].
    pub fn pass_interim(&mut self) -> Result<(), Refused> {
        self.interims += 1;
        if self.interims > INTERIMS_MAX {
            self.lines.progress = Progress::No(Refused::TooManyInterims);
            return Err(Refused::TooManyInterims);
        }
        self.lines.reset();
        Ok(())
    }

    /// Continues where the last call stopped; `Done` holds the length of the head. `bytes` are all bytes since the head
    /// began, `asked` describes the request.
    pub fn read(&mut self, bytes: &[u8], asked: RequestMeta) -> Progress<usize, Refused> {
        if self.lines.progress == Progress::More {
            self.lines.progress = self.go_on(bytes, asked).into();
        }
        self.lines.progress
    }

    /// The response that was read from these bytes; more of them may follow.
    ///
    /// # Panics
    ///
    /// If no call of [`ResponseReader::read`] on these bytes has returned `Done`.
    pub fn response<'a>(&'a self, bytes: &'a [u8]) -> Response<'a> {
        let length = self.lines.whole();
        Response {
            version: self.line.version,
            status: self.line.status,
            reason: self.line.reason.of(bytes),
            fields: self.lines.fields.of(bytes),
            framing: self.framing,
            length,
        }
    }

    fn go_on(&mut self, bytes: &[u8], asked: RequestMeta) -> Result<Option<usize>, Refused> {
        let line = &mut self.line;
        let start = |text: &[u8], at| StatusLine::read(text, at).map(|read| *line = read);
        let Some(length) = self.lines.read(bytes, Kind::Response, start)? else { return Ok(None) };
        let fields = self.lines.fields.of(bytes);
        upgrade::check_connection(fields)?;
        self.framing = framing::of_response(asked, self.line.version, self.line.status, fields)?;
        if self.line.status == 101 {
            upgrade::check_switch(asked, self.line.version, fields)?;
        }
        Ok(Some(length))
    }
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct StatusLine {
    version: Version,
    status: u16,
    reason: Span,
}

impl StatusLine {
    /// `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112 §4). Servers leave out the second space where there
    /// is no reason; that can mean nothing else.
    fn read(line: &[u8], at: usize) -> Result<Self, Refused> {
        let (version, rest) = split_at_byte(line, b' ');
        let version = read_version(version, Refused::BadStatusLine)?;
        let Some([hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..]) = rest else {
            return Err(Refused::BadStatusLine);
        };
        let reason = match rest {
            [] => rest,
            [b' ', reason @ ..] => reason,
            _ => return Err(Refused::BadStatusLine),
        };
        if !is_text(reason) {
            return Err(Refused::BadStatusLine);
        }
        let digit = |byte: &u8| u16::from(byte - b'0');
        let end = at + line.len();
        Ok(Self {
            version,
            status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones),
            reason: Span::new(end - reason.len(), end),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
}

/// The lines of a head: which have been read, how far the next one was searched for its end, and the result.
#[derive(Debug, Clone)]
struct Lines {
    /// The offset of the first line that has not been read.
    line: usize,
    /// The offset before which that line does not end.
    searched: usize,
    /// True once the start line has been read.
    started: bool,
    fields: FieldList,
    /// The last result. `Done` and `No` are final.
    progress: Progress<usize, Refused>,
}

impl Lines {
    fn new() -> Self {
        Self { line: 0, searched: 0, started: false, fields: FieldList::new(), progress: Progress::More }
    }

    fn reset(&mut self) {
        (self.line, self.searched, self.started, self.progress) = (0, 0, false, Progress::More);
        self.fields.clear();
    }

    /// The length of a head that was read to its end. Panics before that.
    fn whole(&self) -> usize {
        match self.progress {
            Progress::Done(length) => length,
            _ => panic!("the head has not been read to its end"),
        }
    }

    /// Reads the lines that have arrived. Returns the length of the head if its empty line is one of them.
    fn read(
        &mut self,
        bytes: &[u8],
        kind: Kind,
        mut start: impl FnMut(&[u8], usize) -> Result<(), Refused>,
    ) -> Result<Option<usize>, Refused> {
        while let Some(line) = self.next_line(bytes, kind)? {
            let at = self.line;
            self.line += line.len() + 2;
            self.searched = self.line;
            match (self.started, line.is_empty()) {
                (true, false) => self.fields.push(Field::read(line, at)?)?,
                (true, true) => return Ok(Some(self.line)),
                (false, true) if at == 0 && kind == Kind::Request => {}
                (false, _) => {
                    start(line, at)?;
                    self.started = true;
                }
            }
        }
        Ok(None)
    }

    /// The line at `self.line`, without its CRLF. `None`: its end has not arrived.
    fn next_line<'a>(&mut self, bytes: &'a [u8], kind: Kind) -> Result<Option<&'a [u8]>, Refused> {
        let is_request_line = kind == Kind::Request && !self.started;
        let (end, too_long) = match is_request_line {
            true => (self.line + REQUEST_LINE_MAX + 2, Refused::RequestLineTooLong),
            false => (HEAD_MAX, Refused::HeadTooLong),
        };
        // Refused at the first byte, without waiting for a line: for example TLS on a plain port.
        let is_hopeless = |byte: &u8| !is_token_byte(*byte) && !matches!(byte, b'\r' | b'\n');
        if is_request_line && bytes.get(self.line).is_some_and(is_hopeless) {
            return Err(Refused::BadMethod);
        }
        let window = &bytes[..bytes.len().min(end)];
        let found = memchr2(b'\r', b'\n', &window[self.searched..]).map(|at| self.searched + at);
        spend(1 + found.unwrap_or(window.len()) - self.searched);
        self.searched = found.unwrap_or(window.len());
        match &window[self.searched..] {
            [b'\r', b'\n', ..] => Ok(Some(&window[self.line..self.searched])),
            [] | [b'\r'] if window.len() < end => Ok(None),
            [] | [b'\r'] => Err(too_long),
            _ => Err(Refused::BareLineEnd),
        }
    }
}

const _: () = assert!(HEAD_MAX < u16::MAX as usize);
