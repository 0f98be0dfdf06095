//! [`Fields`]: the field lines of a head. Each line is read strictly; names and values stay in the buffer.
//!
//! Does not interpret a field, beyond its name being one of [`KnownField`]. Bad lines are refused, never repaired.
//!
//! Invariant: a field's name is a token, its value has no control character but tab and no white space around it, and
//! its line reaches from the first byte of the name to the LF.

use memchr::memchr;

use super::Refused;
use super::work::spend;

/// The most fields a head may have; HAProxy stops at 101, Apache at 100.
pub const FIELDS_MAX: usize = 128;

/// A range of bytes in a head. Offsets of 16 bits suffice: heads are at most 32 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u16, end: end as u16 }
    }

    /// The offset of the first byte of the range.
    pub fn start(self) -> usize {
        usize::from(self.start)
    }

    /// The offset behind the last byte of the range.
    pub fn end(self) -> usize {
        usize::from(self.end)
    }

    /// The bytes of the range in the buffer of the head.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start()..self.end()]
    }
}

macro_rules! known {
    ($($length:literal: $($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+;)+) => {
        /// A field that this module or a caller has a rule for. No trailer may have one of these names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(u8)]
        pub enum KnownField {
            /// Any other field: no rule applies.
            #[default]
            Other,
            $($($(#[doc = $doc])+ $variant,)+)+
        }

        impl KnownField {
            /// Every known field, but not [`KnownField::Other`].
            pub const ALL: &'static [Self] = &[$($(Self::$variant),+),+];

            /// The usual spelling of the name; empty for [`KnownField::Other`].
            pub fn name(self) -> &'static str {
                match self { Self::Other => "", $($(Self::$variant => $name,)+)+ }
            }

            /// The field of this name, compared without case.
            pub fn of(name: &[u8]) -> Self {
                let candidates: &[Self] = match name.len() { $($length => &[$(Self::$variant),+],)+ _ => &[] };
                spend(1 + candidates.len() * name.len());
                let named = |known: &&Self| known.name().as_bytes().eq_ignore_ascii_case(name);
                candidates.iter().find(named).copied().unwrap_or_default()
            }
        }
    };
}

known! {
    2: /// Transfer codings that the sender accepts; hop-by-hop.
       Te = "TE";
    4: /// The site that a request is for.
       Host = "Host";
    6: /// Cookies that the client sends back.
       Cookie = "Cookie",
       /// `100-continue`: the client waits with the body.
       Expect = "Expect";
    7: /// Protocols to switch this connection to; hop-by-hop.
       Upgrade = "Upgrade",
       /// Names of the trailer fields that follow.
       Trailer = "Trailer";
    9: /// Addresses of the clients before this hop (RFC 7239).
       Forwarded = "Forwarded";
    10: /// Options of this connection; hop-by-hop.
       Connection = "Connection",
       /// Parameters of a persistent connection; hop-by-hop.
       KeepAlive = "Keep-Alive",
       /// A cookie that the response sets.
       SetCookie = "Set-Cookie";
    12: /// The media type of the content.
       ContentType = "Content-Type";
    13: /// Directives for caches on the way.
       CacheControl = "Cache-Control",
       /// The range that a partial response holds.
       ContentRange = "Content-Range",
       /// Credentials of the client for the site.
       Authorization = "Authorization";
    14: /// The length of the body in bytes.
       ContentLength = "Content-Length",
       /// Settings of an h2c upgrade; hop-by-hop.
       Http2Settings = "HTTP2-Settings";
    15: /// Addresses of the clients before this hop.
       XForwardedFor = "X-Forwarded-For";
    16: /// The coding of the content, such as gzip.
       ContentEncoding = "Content-Encoding",
       /// Connection under a name that was never standard; hop-by-hop.
       ProxyConnection = "Proxy-Connection",
       /// The Host of the original request.
       XForwardedHost = "X-Forwarded-Host",
       /// The port of the original request.
       XForwardedPort = "X-Forwarded-Port";
    17: /// The transfer coding; delimits the body.
       TransferEncoding = "Transfer-Encoding",
       /// `https` if the original client used TLS, else `http`.
       XForwardedProto = "X-Forwarded-Proto";
    18: /// The challenge of a proxy; hop-by-hop.
       ProxyAuthenticate = "Proxy-Authenticate";
    19: /// Credentials for a proxy; hop-by-hop.
       ProxyAuthorization = "Proxy-Authorization";
    25: /// The reply of a proxy to credentials; hop-by-hop.
       ProxyAuthenticationInfo = "Proxy-Authentication-Info";
}

impl KnownField {
    /// True if the field concerns one connection only and is never passed on unchanged (RFC 9110 §7.6.1).
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::ProxyAuthenticationInfo
                | Self::Te
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// The fields without which the message would have another meaning.
    const SHAPING: [Self; 3] = [Self::Host, Self::ContentLength, Self::TransferEncoding];

    /// True if the message would have another meaning without the field.
    pub(super) fn shapes_the_message(self) -> bool {
        Self::SHAPING.contains(&self)
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

const _: () = assert!(KnownField::ALL.len() < 32, "the fields that a head has are kept in 32 bits");

/// One field line, as offsets into the head.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Field {
    pub name: Span,
    pub value: Span,
    /// The offset behind the LF of the line.
    pub end: u16,
    pub known: KnownField,
}

impl Field {
    /// Reads a line that begins at `at` in its buffer and is given without its CRLF (RFC 9112 §5).
    pub fn read(line: &[u8], at: usize) -> Result<Self, Refused> {
        let (known, colon) = read_name(line)?;
        let value = &line[colon + 1..];
        if !is_text(value) {
            return Err(Refused::BadFieldValue);
        }
        let left = trim_start(value);
        let start = at + line.len() - left.len();
        let value = Span::new(start, start + trim_end(left).len());
        Ok(Self { name: Span::new(at, at + colon), value, end: (at + line.len() + 2) as u16, known })
    }

    /// The whole line with its CRLF.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.name.start()..usize::from(self.end)]
    }
}

/// The field that a line begins with, and the position of the colon.
fn read_name(line: &[u8]) -> Result<(KnownField, usize), Refused> {
    let end = line.iter().position(|byte| !is_token_byte(*byte));
    spend(1 + end.unwrap_or(line.len()));
    let name = match end.map(|end| (end, line[end])) {
        Some((colon, b':')) if colon > 0 => &line[..colon],
        Some((0, b' ' | b'\t')) => return Err(Refused::Folded),
        _ => return Err(Refused::BadFieldName),
    };
    if is_look_alike(name) {
        return Err(Refused::LookAlike);
    }
    Ok((KnownField::of(name), name.len()))
}

/// True if an application that maps `-`, `_`, `.` and other signs to one character, as CGI does, would read the name as
/// that of a field which shapes the message, although it is another one.
pub(super) fn is_look_alike(name: &[u8]) -> bool {
    let looks_like = |known: &KnownField| {
        let known = known.name();
        folds_to(name, known) && !name.eq_ignore_ascii_case(known.as_bytes())
    };
    KnownField::SHAPING.iter().any(looks_like)
}

/// True if two names are equal when case and the differences between `-`, `_`, `.` and other signs are ignored.
pub(super) fn folds_to(name: &[u8], other: &str) -> bool {
    name.len() == other.len() && folds_to_start(name, other)
}

/// True if a name begins with `start` when case and the differences between signs are ignored.
pub(super) fn folds_to_start(name: &[u8], start: &str) -> bool {
    let Some(name) = name.get(..start.len()) else { return false };
    spend(name.len());
    let fold = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    name.iter().map(fold).eq(start.as_bytes().iter().map(fold))
}

/// The field lines of a head, borrowed from its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    list: &'a [Field],
    present: u32,
}

/// One field line, borrowed from the buffer of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRef<'a> {
    /// The known field, or [`KnownField::Other`].
    pub known: KnownField,
    /// The name as the sender wrote it.
    pub name: &'a [u8],
    /// The value without surrounding white space.
    pub value: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], list: &'a [Field], present: u32) -> Self {
        Self { bytes, list, present }
    }

    /// The lines in the order of the head.
    pub fn iter(self) -> impl Iterator<Item = FieldRef<'a>> + Clone {
        spend(self.list.len());
        self.list.iter().map(move |field| FieldRef {
            known: field.known,
            name: field.name.of(self.bytes),
            value: field.value.of(self.bytes),
        })
    }

    /// True if the head has a line of this field.
    pub fn has(self, known: KnownField) -> bool {
        self.present & known.bit() != 0
    }

    /// The values of every line of this field, in order.
    pub fn all(self, known: KnownField) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.spans(known).map(move |span| span.of(self.bytes))
    }

    /// The elements of a field that is a list, over all its lines (RFC 9110 §5.6.1), without empty ones.
    pub fn tokens(self, known: KnownField) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.elements(known).filter(|token| !token.is_empty())
    }

    /// The elements of a field that is a list, empty ones included.
    pub(super) fn elements(self, known: KnownField) -> impl Iterator<Item = &'a [u8]> + Clone {
        let elements = self.all(known).flat_map(|value| value.split(|byte| *byte == b','));
        elements.map(|element| {
            spend(1 + element.len());
            trim(element)
        })
    }

    /// True if a list field has this element, compared without case.
    pub fn lists(self, known: KnownField, token: &str) -> bool {
        self.has(known) && self.tokens(known).any(|listed| listed.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The values of every line of this name, compared without case, in order.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// The positions of the values of a field.
    pub(super) fn spans(self, known: KnownField) -> impl Iterator<Item = Span> + Clone {
        let list = if self.has(known) { self.list } else { &[] };
        spend(list.len());
        list.iter().filter(move |field| field.known == known).map(|field| field.value)
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn lines(self) -> &'a [Field] {
        self.list
    }
}

/// The lines read so far.
#[derive(Debug, Clone)]
pub(super) struct FieldList {
    list: [Field; FIELDS_MAX],
    count: usize,
    present: u32,
}

impl FieldList {
    pub fn new() -> Self {
        Self { list: [Field::default(); FIELDS_MAX], count: 0, present: 0 }
    }

    pub fn clear(&mut self) {
        (self.count, self.present) = (0, 0);
    }

    pub fn push(&mut self, field: Field) -> Result<(), Refused> {
        *self.list.get_mut(self.count).ok_or(Refused::TooManyFields)? = field;
        self.count += 1;
        self.present |= field.known.bit();
        Ok(())
    }

    pub fn of<'a>(&'a self, bytes: &'a [u8]) -> Fields<'a> {
        Fields::new(bytes, &self.list[..self.count], self.present)
    }
}

/// The value without surrounding white space (RFC 9110 §5.6.3).
pub(super) fn trim(value: &[u8]) -> &[u8] {
    trim_end(trim_start(value))
}

pub(super) fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        spend(1);
        value = rest;
    }
    value
}

pub(super) fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        spend(1);
        value = rest;
    }
    value
}

/// True if a byte may be part of a token (RFC 9110 §5.6.2).
pub(super) const fn is_token_byte(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut index = 0;
        while index < others.len() {
            table[others[index] as usize] = true;
            index += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// True if the bytes are a token (RFC 9110 §5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    spend(bytes.len());
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// True if a byte may be part of a value or a reason: tab, and anything but control characters.
pub(super) const fn is_text_byte(byte: u8) -> bool {
    (byte >= b' ' || byte == b'\t') & (byte != 0x7f)
}

/// True if all bytes are text. No early return, so that the compiler can vectorize the loop.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    spend(bytes.len());
    bytes.iter().fold(true, |good, byte| good & ((*byte >= b' ') | (*byte == b'\t')) & (*byte != 0x7f))
}

/// The parts before and behind the first such byte; without one, everything and `None`.
pub(super) fn split_at_byte(bytes: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    let at = memchr(byte, bytes);
    spend(1 + at.unwrap_or(bytes.len()));
    match at {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}
