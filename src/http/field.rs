//! Field lines of a head: one line read strictly, and all of them seen in place.
//!
//! Does not know what a field means, beyond its name being one of [`KnownField`]. Lines are refused, never mended.
//!
//! Invariant: a field's name is a token, its value has no control character but tab and no white space around it, and
//! its line reaches from the first byte of the name to the LF.

use memchr::memchr;

use super::Refused;

/// The most fields a head may have; HAProxy stops at 101, Apache at 100.
pub const FIELDS_MAX: usize = 128;

/// A stretch of a head. Two bytes an end are enough: heads are at most 32 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u16, end: end as u16 }
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        usize::from(self.start)
    }

    /// Where it ends: the first byte that is not in it.
    pub fn end(self) -> usize {
        usize::from(self.end)
    }

    /// The bytes, out of the buffer in which they were found.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start()..self.end()]
    }
}

macro_rules! known {
    ($($length:literal: $($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+;)+) => {
        /// Fields that something here has a rule for. None of them may stand in a trailer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(u8)]
        pub enum KnownField {
            /// Any other field.
            #[default]
            Other,
            $($($(#[doc = $doc])+ $variant,)+)+
        }

        impl KnownField {
            /// Every field there is a rule for.
            pub const ALL: &'static [Self] = &[$($(Self::$variant),+),+];

            /// Its usual spelling; empty for [`KnownField::Other`].
            pub fn name(self) -> &'static str {
                match self { Self::Other => "", $($(Self::$variant => $name,)+)+ }
            }

            /// Which field has this name, in any case.
            pub fn of(name: &[u8]) -> Self {
                let candidates: &[Self] = match name.len() { $($length => &[$(Self::$variant),+],)+ _ => &[] };
                let named = |known: &&Self| known.name().as_bytes().eq_ignore_ascii_case(name);
                candidates.iter().find(named).copied().unwrap_or_default()
            }
        }
    };
}

known! {
    2: /// What codings the sender takes; one hop's affair.
       Te = "TE";
    4: /// Which site.
       Host = "Host";
    6: /// Cookies of the client.
       Cookie = "Cookie",
       /// Whether the client waits with the body.
       Expect = "Expect";
    7: /// Another protocol on this connection; one hop's affair.
       Upgrade = "Upgrade",
       /// Announces trailer fields.
       Trailer = "Trailer";
    9: /// RFC 7239.
       Forwarded = "Forwarded";
    10: /// Options of one hop.
       Connection = "Connection",
       /// One hop's affair.
       KeepAlive = "Keep-Alive",
       /// A cookie for the client.
       SetCookie = "Set-Cookie";
    12: /// What the content is.
       ContentType = "Content-Type";
    13: /// Who may keep the response.
       CacheControl = "Cache-Control",
       /// Which part of the content it is.
       ContentRange = "Content-Range",
       /// Who the client is.
       Authorization = "Authorization";
    14: /// How long the content is.
       ContentLength = "Content-Length",
       /// Settings of an h2c upgrade; one hop's affair.
       Http2Settings = "HTTP2-Settings";
    15: /// Clients in front of us.
       XForwardedFor = "X-Forwarded-For";
    16: /// How the content is coded.
       ContentEncoding = "Content-Encoding",
       /// One hop's affair, and never a standard.
       ProxyConnection = "Proxy-Connection",
       /// The Host that was asked for.
       XForwardedHost = "X-Forwarded-Host";
    17: /// How the message is coded for transfer.
       TransferEncoding = "Transfer-Encoding",
       /// Whether the client spoke TLS.
       XForwardedProto = "X-Forwarded-Proto";
    18: /// A proxy's challenge; one hop's affair.
       ProxyAuthenticate = "Proxy-Authenticate";
    19: /// Credentials for a proxy; one hop's affair.
       ProxyAuthorization = "Proxy-Authorization";
    25: /// A proxy's word on them; one hop's affair.
       ProxyAuthenticationInfo = "Proxy-Authentication-Info";
}

impl KnownField {
    /// Whether it concerns one connection only and is never passed on as it came (RFC 9110 §7.6.1).
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

    /// Whether the message would be another one without it.
    pub(super) fn shapes_the_message(self) -> bool {
        matches!(self, Self::Host | Self::ContentLength | Self::TransferEncoding)
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

const _: () = assert!(KnownField::ALL.len() < 32, "the fields that a head has are kept in 32 bits");

/// One field line, as offsets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Field {
    pub name: Span,
    pub value: Span,
    /// After the LF.
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

/// The name a line begins with, and where its colon is.
fn read_name(line: &[u8]) -> Result<(KnownField, usize), Refused> {
    let mut underscore = false;
    let end = line.iter().position(|byte| {
        underscore |= *byte == b'_';
        !is_token_byte(*byte)
    });
    let name = match end.map(|end| (end, line[end])) {
        Some((colon, b':')) if colon > 0 => &line[..colon],
        Some((0, b' ' | b'\t')) => return Err(Refused::Folded),
        _ => return Err(Refused::BadFieldName),
    };
    if underscore && is_look_alike(name) {
        return Err(Refused::LookAlike);
    }
    Ok((KnownField::of(name), name.len()))
}

/// Whether an application that does not tell `_` from `-`, as CGI and all that came after it, would take the name for
/// one of those that shape the message.
pub(super) fn is_look_alike(name: &[u8]) -> bool {
    let shaping = KnownField::ALL.iter().filter(|known| known.shapes_the_message());
    name.contains(&b'_') && shaping.into_iter().any(|known| folds_to(name, known.name()))
}

/// Whether two names are one where case and the difference of `_` and `-` are lost.
pub(super) fn folds_to(name: &[u8], other: &str) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().map(fold).eq(other.as_bytes().iter().map(fold))
}

/// All field lines of a head, in place.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    list: &'a [Field],
    present: u32,
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRef<'a> {
    /// Which field it is, if there is a rule for it.
    pub known: KnownField,
    /// The name as it was written.
    pub name: &'a [u8],
    /// The value without white space around it.
    pub value: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], list: &'a [Field], present: u32) -> Self {
        Self { bytes, list, present }
    }

    /// The lines in order.
    pub fn iter(self) -> impl Iterator<Item = FieldRef<'a>> + Clone {
        self.list.iter().map(move |field| FieldRef {
            known: field.known,
            name: field.name.of(self.bytes),
            value: field.value.of(self.bytes),
        })
    }

    /// Whether there is a line of this field.
    pub fn has(self, known: KnownField) -> bool {
        self.present & known.bit() != 0
    }

    /// The values of every line of this field, in order.
    pub fn all(self, known: KnownField) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.spans(known).map(move |span| span.of(self.bytes))
    }

    /// The elements of a field that is a list, over all its lines (RFC 9110 §5.6.1), without empty ones.
    pub fn tokens(self, known: KnownField) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.all(known).flat_map(|value| value.split(|byte| *byte == b',')).map(trim).filter(|token| !token.is_empty())
    }

    /// Whether one of a list's elements is this, in any case.
    pub fn lists(self, known: KnownField, token: &str) -> bool {
        self.has(known) && self.tokens(known).any(|listed| listed.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The values of every line of this name, in any case, in order.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// Where the values of a field are.
    pub(super) fn spans(self, known: KnownField) -> impl Iterator<Item = Span> + Clone {
        let list = if self.has(known) { self.list } else { &[] };
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

/// Without the white space around it (RFC 9110 §5.6.3).
pub(super) fn trim(value: &[u8]) -> &[u8] {
    trim_end(trim_start(value))
}

pub(super) fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

pub(super) fn trim_end(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
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

/// Whether this is a token.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether a byte may stand in a value or a reason: anything but control characters; tab may.
pub(super) const fn is_text_byte(byte: u8) -> bool {
    (byte >= b' ' || byte == b'\t') & (byte != 0x7f)
}

/// Whether all bytes are text. Looks at every one, so that the compiler can look at many at once.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, byte| good & ((*byte >= b' ') | (*byte == b'\t')) & (*byte != 0x7f))
}

/// Splits at the first such byte; without one, all of it and nothing.
pub(super) fn split_at_byte(bytes: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match memchr(byte, bytes) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}
