//! [`ServerName`] and [`NamePattern`]: names of servers as TLS and routes write them.
//!
//! Does not resolve names. Invariant: a `ServerName` is lower-case ASCII, 1-253 bytes, labels of 1-63 bytes of
//! letters, digits, `-` or `_`, no trailing dot, and not an IP address (RFC 6066 §3 forbids those in SNI).

use std::fmt;
use std::sync::Arc;

/// A host name in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(Arc<str>);

/// Longest name in bytes.
pub const NAME_MAX: usize = 253;

/// Writes a name in canonical form into `buffer`; `None` if it is not a host name.
pub fn fold<'b>(text: &str, buffer: &'b mut [u8; NAME_MAX]) -> Option<&'b str> {
    if !is_host_name(text) {
        return None;
    }
    let folded = buffer.get_mut(..text.len())?;
    folded.copy_from_slice(text.as_bytes());
    folded.make_ascii_lowercase();
    std::str::from_utf8(folded).ok()
}

/// True for a host name, in any case.
fn is_host_name(text: &str) -> bool {
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // An address of IPv6 has a colon, which no label has.
    text.len() <= NAME_MAX && text.split('.').all(label_is_good) && text.parse::<std::net::Ipv4Addr>().is_err()
}

impl ServerName {
    /// Reads a name; upper case is folded. `None` if it is not a host name.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = || match text.bytes().any(|b| b.is_ascii_uppercase()) {
            true => text.to_ascii_lowercase().into(),
            false => text.into(),
        };
        is_host_name(text).then(|| Self(lower()))
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `sni` of a route: one name, or every name below a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NamePattern {
    /// One name, written `www.example.org`.
    Exact(ServerName),
    /// Every name below a domain, written `*.example.org`; the domain itself does not match.
    Below(ServerName),
}

impl NamePattern {
    /// Reads a name or `*.name`. `None`: the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(domain) => ServerName::parse(domain).map(Self::Below),
            None => ServerName::parse(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_and_bad_ones_refused() {
        assert_eq!(ServerName::parse("WWW.Example.ORG").unwrap().as_str(), "www.example.org");
        for bad in ["", ".", "a..b", "a.", "10.0.0.1", "::1", "a b", "ä.example", &"a".repeat(64), &"a.".repeat(127)] {
            assert_eq!(ServerName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn patterns_are_exact_or_below() {
        assert!(
            matches!(NamePattern::parse("*.Example.org"), Some(NamePattern::Below(d)) if d.as_str() == "example.org")
        );
        assert!(matches!(NamePattern::parse("example.org"), Some(NamePattern::Exact(_))));
        for bad in ["*", "*.", "a.*.b", "**.a", "*a.b"] {
            assert_eq!(NamePattern::parse(bad), None, "{bad:?}");
        }
    }
}
