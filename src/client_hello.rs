//! [`ClientHello`]: the parts of a TLS ClientHello that routing needs: server name, ALPN, and whether ECH is offered.
//!
//! Does not read from sockets, does not judge versions, ciphers or any extension but those three, and never changes
//! or keeps the bytes. Handshake messages may be cut into any number of records (RFC 8446 §5.1); they are joined here,
//! because tls-parser reads only whole messages. A server name that is no host name counts as none and is shown.
//!
//! Invariant: a result is final. Once some bytes are `Done` or `No`, more bytes behind them never change it, and at
//! [`WIRE_MAX`] bytes it is never `More`. Each byte costs the same, however few arrive at once.

use std::borrow::Cow;
use std::sync::Arc;

use crate::alert::TlsRefusal;
pub use crate::progress::Progress;
use crate::remote_text::text_of;
use crate::server_name::ServerName;

/// The longest hello that can be read: the whole handshake message with its 4-byte header, without record headers.
pub const HANDSHAKE_MAX: usize = 64 * 1024;

/// The most bytes a hello can take on the wire, and so the bound of a buffer that waits for one: every byte of the
/// longest message in a record of its own. Empty records are refused, so nothing takes more.
pub const WIRE_MAX: usize = HANDSHAKE_MAX * (RECORD_HEADER + 1);

/// The part of a name that is no host name that is shown, in bytes.
const SHOWN_MAX: usize = 100;

const RECORD_HEADER: usize = 5;
const RECORD_MAX: usize = 1 << 14; // RFC 8446 §5.1: what a plaintext record may hold
const HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0x0000;
const ALPN: u16 = 0x0010;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// The parts of a hello that routing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name asked for; with ECH the outer one. `None` without the extension, or when it holds no host name.
    pub server_name: Option<ServerName>,
    /// What the extension holds instead of a host name, as text, cut to a bounded length. RFC 6066 §3
    /// forbids an address, `HOST:PORT` and the like, but real clients send them and mean "no name".
    pub odd_name: Option<Arc<str>>,
    /// The protocols offered, in the client's order: a raw, checked ProtocolNameList body (length byte, name)*.
    /// Empty without the extension.
    pub alpn: Box<[u8]>,
    /// True if Encrypted ClientHello is offered. GREASE looks the same, by design.
    pub ech: bool,
}

/// Reads a hello from the first bytes of a connection; what follows it is ignored.
///
/// `No` says why the bytes are no hello; its outcome is `NotTls` (the first bytes are no TLS handshake record),
/// `HelloMalformed` or `HelloTooLong`.
/// Incomplete input costs one step a record and allocates nothing.
pub fn parse(bytes: &[u8]) -> Progress<ClientHello, TlsRefusal> {
    Scan::default().resume(bytes)
}

/// The same bytes with the hello in as few records as possible, if that makes them fewer; what follows it is unchanged.
///
/// Records are no part of the handshake's transcript, but rustls takes no more than 64 KiB with their headers.
pub fn in_few_records(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut scan = Scan::default();
    // The record in which the hello ends may hold more, or not be whole; it stays as it is.
    let Ok(Some(_)) = scan.find_end(bytes) else { return Cow::Borrowed(bytes) };
    let (first, rest) = bytes.split_at(scan.record);
    let fewest = scan.passed + RECORD_HEADER * scan.passed.div_ceil(RECORD_MAX);
    if first.len() <= fewest {
        return Cow::Borrowed(bytes);
    }
    let (message, mut joined) = (payloads(first, scan.passed), Vec::with_capacity(fewest + rest.len()));
    for payload in message.chunks(RECORD_MAX) {
        joined.extend_from_slice(&first[..RECORD_HEADER - 2]);
        joined.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        joined.extend_from_slice(payload);
    }
    joined.extend_from_slice(rest);
    Cow::Owned(joined)
}

/// [`parse`] for bytes that arrive in pieces: complete records are not read again, so a hello sent byte by byte in
/// records of one byte costs as little as any other.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// The longest message that is read.
    most: usize,
    /// The offset of the first record that is not complete.
    record: usize,
    /// Message bytes in the complete records.
    passed: usize,
    /// The type and length of the message, as far as they have arrived.
    header: [u8; MESSAGE_HEADER],
}

impl Default for Scan {
    fn default() -> Self {
        Self::at_most(HANDSHAKE_MAX)
    }
}

impl Scan {
    /// Begins to read a hello of up to `most` bytes; more than [`HANDSHAKE_MAX`] are never read.
    pub fn at_most(most: usize) -> Self {
        Self { most: most.min(HANDSHAKE_MAX), record: 0, passed: 0, header: [0; MESSAGE_HEADER] }
    }

    /// Continues where the last call stopped. `bytes` are all bytes of the connection so far, from the first one.
    pub fn resume(&mut self, bytes: &[u8]) -> Progress<ClientHello, TlsRefusal> {
        self.go_on(bytes).into()
    }

    fn go_on(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, TlsRefusal> {
        let Some(length) = self.find_end(bytes)? else { return Ok(None) };
        read(&self.message(bytes, length)[MESSAGE_HEADER..]).map(Some)
    }

    /// Walks records until the message is whole. Returns its length, `None` if bytes are missing.
    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, TlsRefusal> {
        loop {
            let rest = bytes.get(self.record..).unwrap_or_default();
            let Some((declared, payload)) = open_record(rest).map_err(|refusal| self.in_place(refusal))? else {
                return Ok(None);
            };
            for (slot, byte) in self.header.iter_mut().skip(self.passed).zip(payload) {
                *slot = *byte;
            }
            let seen = self.passed + payload.len();
            if seen > 0 && self.header[0] != CLIENT_HELLO {
                return Err(TlsRefusal::OtherMessage);
            }
            if seen >= MESSAGE_HEADER {
                let [_, high, middle, low] = self.header;
                let length = MESSAGE_HEADER + u32::from_be_bytes([0, high, middle, low]) as usize;
                if length > self.most {
                    return Err(TlsRefusal::TooLong);
                }
                if seen >= length {
                    return Ok(Some(length));
                }
            }
            if payload.len() < declared {
                return Ok(None);
            }
            self.record += RECORD_HEADER + declared;
            self.passed += declared;
        }
    }

    /// A refusal of the record where the scan stands: only the first one can show that the connection does not speak TLS.
    fn in_place(&self, refusal: TlsRefusal) -> TlsRefusal {
        match refusal {
            TlsRefusal::NotTls if self.record > 0 => TlsRefusal::RecordType,
            TlsRefusal::NotTlsVersion if self.record > 0 => TlsRefusal::RecordVersion,
            refusal => refusal,
        }
    }

    /// The message, once its end was found: borrowed when it lies in one record, as it nearly always does.
    fn message<'a>(&self, bytes: &'a [u8], length: usize) -> Cow<'a, [u8]> {
        if self.record == 0 {
            return Cow::Borrowed(&bytes[RECORD_HEADER..RECORD_HEADER + length]);
        }
        Cow::Owned(payloads(bytes, length))
    }
}

/// The first `length` bytes of the payloads of records, which hold as many.
fn payloads(mut bytes: &[u8], length: usize) -> Vec<u8> {
    let mut joined = Vec::with_capacity(length);
    while let Ok(Some((_, payload))) = open_record(bytes)
        && joined.len() < length
    {
        joined.extend_from_slice(&payload[..payload.len().min(length - joined.len())]);
        bytes = &bytes[RECORD_HEADER + payload.len()..];
    }
    joined
}

/// One record: the length it declares, and as much of its payload as is there. `None`: its header is not whole.
fn open_record(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, TlsRefusal> {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Err(TlsRefusal::NotTls);
    }
    // The minor version is not looked at: RFC 8446 §5.1 says to ignore it, and clients in the field differ.
    if bytes.get(1).is_some_and(|major| *major != MAJOR_VERSION) {
        return Err(TlsRefusal::NotTlsVersion);
    }
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let declared = usize::from(u16::from_be_bytes([header[3], header[4]]));
    match declared {
        0 => Err(TlsRefusal::RecordEmpty),
        1..=RECORD_MAX => Ok(Some((declared, &rest[..declared.min(rest.len())]))),
        _ => Err(TlsRefusal::RecordTooLong),
    }
}

/// Reads the body of a whole ClientHello message.
fn read(body: &[u8]) -> Result<ClientHello, TlsRefusal> {
    let Ok((rest, hello)) = tls_parser::parse_tls_handshake_client_hello(body) else {
        return Err(TlsRefusal::Malformed);
    };
    if !rest.is_empty() || hello.ciphers.is_empty() || hello.comp.is_empty() {
        return Err(TlsRefusal::Malformed);
    }
    let (mut names, mut alpn, mut ech) = (None, None, None);
    let mut extensions = hello.ext.unwrap_or_default();
    while let Some((kind, rest)) = extensions.split_first_chunk::<2>() {
        let (body, rest) = take_u16(rest)?;
        let twice = match u16::from_be_bytes(*kind) {
            SERVER_NAME => names.replace(body).is_some(),
            ALPN => alpn.replace(body).is_some(),
            ENCRYPTED_CLIENT_HELLO => ech.replace(body).is_some(),
            _ => false,
        };
        if twice {
            return Err(TlsRefusal::ExtensionTwice);
        }
        extensions = rest;
    }
    if !extensions.is_empty() {
        return Err(TlsRefusal::Malformed);
    }
    let (server_name, odd_name) = names.map_or(Ok((None, None)), server_name)?;
    Ok(ClientHello { server_name, odd_name, alpn: alpn.map_or(Ok(Box::default()), protocols)?, ech: ech.is_some() })
}

/// A server name, or what a client sent in its place.
type SentName = (Option<ServerName>, Option<Arc<str>>);

/// The host name of a server_name extension (RFC 6066 §3): at most one; entries of other types are passed over.
fn server_name(extension: &[u8]) -> Result<SentName, TlsRefusal> {
    const HOST_NAME: u8 = 0;
    let mut entries = whole_list(extension)?;
    let mut host = None;
    while let Some((kind, rest)) = entries.split_first() {
        let (name, rest) = take_u16(rest)?;
        if *kind == HOST_NAME && host.replace(name).is_some() {
            return Err(TlsRefusal::NameTwice);
        }
        entries = rest;
    }
    Ok(host.map_or((None, None), host_name))
}

/// A host name as clients write it. One trailing dot is allowed: DNS treats it as equal, and clients that get an
/// absolute name send it.
fn host_name(name: &[u8]) -> SentName {
    let text = std::str::from_utf8(name).ok().map(|name| name.strip_suffix('.').unwrap_or(name));
    match text.and_then(ServerName::parse) {
        Some(host) => (Some(host), None),
        None => (None, Some(text_of(name, SHOWN_MAX).into())),
    }
}

/// The body of an ALPN extension's list (RFC 7301 §3.1): at least one name, none empty.
fn protocols(extension: &[u8]) -> Result<Box<[u8]>, TlsRefusal> {
    let list = whole_list(extension)?;
    let mut rest = list;
    while let Some((length, names)) = rest.split_first() {
        let length = usize::from(*length);
        if length == 0 || length > names.len() {
            return Err(TlsRefusal::Malformed);
        }
        rest = &names[length..];
    }
    Ok(list.into())
}

/// A list that fills its extension and is not empty.
fn whole_list(extension: &[u8]) -> Result<&[u8], TlsRefusal> {
    match take_u16(extension)? {
        (list, []) if !list.is_empty() => Ok(list),
        _ => Err(TlsRefusal::Malformed),
    }
}

/// Splits off what a two-byte length announces.
fn take_u16(bytes: &[u8]) -> Result<(&[u8], &[u8]), TlsRefusal> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(TlsRefusal::Malformed)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(TlsRefusal::Malformed)
}

#[cfg(test)]
mod tests;
