//! Request targets and hosts: which of the forms of RFC 9112 §3.2 a target has, and whether a host is one.
//!
//! Does not decode percent-encoding, resolve dots or know any site: paths are opaque. Bytes that RFC 3986 forbids in a
//! path or query but browsers send as they are (`|`, `^`, `{`, `"`, …) pass, because nothing here depends on them;
//! controls, white space, `#` and bytes above ASCII do not.
//!
//! Invariant: a [`Host`] is an IP literal in brackets or a name of letters, digits, `.`, `-`, `_` and `~`, with at most
//! a colon and a port. It can be put into any field without quoting but for `:` and the brackets. That is narrower
//! than RFC 3986 §3.2.2, which would also let `a,b` be one name.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::field::{Span, split_at_byte};
use super::{Method, Refused};

/// The target of a request, in one of the forms of RFC 9112 §3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path and an optional query: the form of nearly all requests.
    Origin(&'a [u8]),
    /// A whole URI: the form of requests to a proxy.
    Absolute {
        /// `http` or `https`, in any case.
        scheme: &'a [u8],
        /// The host and an optional port.
        authority: &'a [u8],
        /// Path and query: empty, or beginning with `/` or `?`.
        path: &'a [u8],
    },
    /// `*`: the server as a whole; allowed with OPTIONS only.
    Asterisk,
}

/// A [`Target`] as offsets into the head.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum TargetSpans {
    Origin(Span),
    Absolute {
        scheme: Span,
        authority: Span,
        path: Span,
    },
    #[default]
    Asterisk,
}

impl TargetSpans {
    /// Reads a target that begins at `at` in its buffer.
    pub fn read(target: &[u8], at: usize, method: Method) -> Result<Self, Refused> {
        if !target.iter().fold(true, |good, byte| good & (*byte > b' ') & (*byte < 0x7f) & (*byte != b'#')) {
            return Err(Refused::BadTarget);
        }
        match target {
            [b'/', ..] => Ok(Self::Origin(Span::new(at, at + target.len()))),
            b"*" if method == Method::Options => Ok(Self::Asterisk),
            _ => Self::absolute(target, at),
        }
    }

    fn absolute(target: &[u8], at: usize) -> Result<Self, Refused> {
        let (scheme, rest) = split_at_byte(target, b':');
        let is_web = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b"//")).filter(|_| is_web) else {
            return Err(Refused::BadTarget);
        };
        let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        Host::read(&rest[..length])?;
        let authority = at + target.len() - rest.len();
        Ok(Self::Absolute {
            scheme: Span::new(at, at + scheme.len()),
            authority: Span::new(authority, authority + length),
            path: Span::new(authority + length, at + target.len()),
        })
    }

    pub fn of(self, bytes: &[u8]) -> Target<'_> {
        match self {
            Self::Origin(path) => Target::Origin(path.of(bytes)),
            Self::Absolute { scheme, authority, path } => {
                Target::Absolute { scheme: scheme.of(bytes), authority: authority.of(bytes), path: path.of(bytes) }
            }
            Self::Asterisk => Target::Asterisk,
        }
    }
}

/// The site that a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host<'a> {
    /// The text as the client wrote it, with the port.
    pub bytes: &'a [u8],
    /// The name or address; an IPv6 address with its brackets.
    pub name: &'a [u8],
    /// The port; `None`: the text has none.
    pub port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Reads `uri-host [ ":" port ]` (RFC 9110 §7.2). An empty host is refused: no http URI has one (§4.2.1).
    pub fn read(bytes: &'a [u8]) -> Result<Self, Refused> {
        let length = match bytes {
            [b'[', ..] => memchr::memchr(b']', bytes).ok_or(Refused::BadHost)? + 1,
            _ => memchr::memchr(b':', bytes).unwrap_or(bytes.len()),
        };
        let (name, rest) = bytes.split_at(length);
        let is_good = match name {
            [b'[', address @ .., b']'] => std::str::from_utf8(address).is_ok_and(|a| a.parse::<Ipv6Addr>().is_ok()),
            _ => !name.is_empty() && name.iter().all(|byte| is_name_byte(*byte)),
        };
        if !is_good {
            return Err(Refused::BadHost);
        }
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits).ok_or(Refused::BadHost)?),
            _ => return Err(Refused::BadHost),
        };
        Ok(Self { bytes, name, port })
    }

    /// True for an IPv4 address, or an IPv6 address in brackets.
    pub fn is_address(&self) -> bool {
        let is_v4 = |name: &str| name.parse::<Ipv4Addr>().is_ok();
        self.name.starts_with(b"[") || std::str::from_utf8(self.name).is_ok_and(is_v4)
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |port, digit| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        port.checked_mul(10)?.checked_add(digit)
    })
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~')
}
