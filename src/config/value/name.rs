//! Names of objects, hosts, protocols and cookies, and the parts of a placement key.
//!
//! Whether an object of that name exists is checked in `check`. Invariant: a name of an object can be a metric label.

use toml::de::DeValue;

use super::{ValueResult, text};
use crate::config::problem::Bad;
use crate::config::{KeyPart, is_own_name};
use crate::server_name::{NamePattern, ServerName};

/// Longest name of a listener, pool, backend, range or location level, in bytes.
const NAME_MAX: usize = 64;
/// Largest number of levels of a location.
const LOCATION_DEPTH_MAX: usize = 8;
/// Longest name of a cookie in bytes.
const COOKIE_NAME_MAX: usize = 128;
/// The rule for names, as error messages state it.
const NAME_RULE: &str = "1 to 64 letters, digits, '.', '_' or '-'";

/// Reads a name that can be a metric label: 1 to 64 letters, digits, `.`, `_` or `-`.
pub(in crate::config) fn name(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    if is_name(written) { Ok(written.to_owned()) } else { Err(Bad::new(format!("is not a name: {NAME_RULE}"))) }
}

/// Reads the levels of a location, `dc1/host3`, outermost first; empty text: no location.
pub(in crate::config) fn location(value: &DeValue<'_>) -> ValueResult<Vec<String>> {
    let written = text(value)?;
    if written.is_empty() {
        return Ok(Vec::new());
    }
    let levels: Vec<_> = written.split('/').map(str::to_owned).collect();
    if levels.len() > LOCATION_DEPTH_MAX {
        return Err(Bad::new(format!("has {} levels; the most is {LOCATION_DEPTH_MAX}", levels.len())));
    }
    match levels.iter().find(|level| !is_name(level)) {
        None => Ok(levels),
        Some(level) => Err(Bad::new(format!("has the level \"{level}\", which is not a name: {NAME_RULE}"))
            .hint("\"dc1/host3\": names separated by '/'")),
    }
}

/// Reads a host name, as sent in SNI.
pub(in crate::config) fn server_name(value: &DeValue<'_>) -> ValueResult<ServerName> {
    ServerName::parse(text(value)?).ok_or_else(|| Bad::new("is not a host name"))
}

/// Reads a host name, or a wildcard: `*.` and a domain.
pub(in crate::config) fn name_pattern(value: &DeValue<'_>) -> ValueResult<NamePattern> {
    NamePattern::parse(text(value)?)
        .ok_or_else(|| Bad::new("is not a host name").hint("\"www.example.org\" or \"*.example.org\""))
}

/// Reads one ALPN protocol name of 1 to 255 bytes (RFC 7301 §3.1).
pub(in crate::config) fn alpn(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let fits = (1..=255).contains(&written.len());
    fits.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a protocol name of 1 to 255 bytes"))
}

/// Reads one part of a placement key; `None`: the word `"none"`.
pub(in crate::config) fn key_part(value: &DeValue<'_>) -> ValueResult<Option<KeyPart>> {
    // PP2_TYPE_CRC32C and PP2_TYPE_NOOP have the same meaning for every client.
    const NOT_OF_A_CLIENT: [u8; 2] = [0x03, 0x04];
    let hint = "\"source\", \"sni\", \"tlv:0xNN\", \"cookie:NAME\", \"none\", or a list of the first four";
    let malformed = || Bad::new("is not a key").hint(hint);
    match text(value).map_err(|_| malformed())? {
        "none" => Ok(None),
        "source" => Ok(Some(KeyPart::Source)),
        "sni" => Ok(Some(KeyPart::Sni)),
        written => {
            if let Some(name) = written.strip_prefix("cookie:") {
                return Ok(Some(KeyPart::Cookie(application_cookie(name)?.into())));
            }
            let digits = written.strip_prefix("tlv:0x").filter(|digits| digits.len() == 2).ok_or_else(malformed)?;
            match u8::from_str_radix(digits, 16).map_err(|_| malformed())? {
                kind if NOT_OF_A_CLIENT.contains(&kind) => Err(Bad::new("is a TLV that says nothing about the client")),
                kind => Ok(Some(KeyPart::Tlv(kind))),
            }
        }
    }
}

/// Checks the name of a cookie: a token (RFC 9110 §5.6.2).
pub(in crate::config) fn cookie_name(written: &str) -> ValueResult<&str> {
    let good = written.len() <= COOKIE_NAME_MAX && is_token(written);
    let rule = "is not a cookie name: 1 to 128 letters, digits or any of !#$%&'*+-.^_`|~";
    good.then_some(written).ok_or_else(|| Bad::new(rule))
}

/// Checks the name of a cookie that the application sets; cookies of balancers are refused.
pub(in crate::config) fn application_cookie(written: &str) -> ValueResult<&str> {
    match cookie_name(written)? {
        own if is_own_name(own) => Err(Bad::new("is the balancer's own cookie, not one of the application")),
        aws if aws.starts_with("AWSALB") => Err(Bad::new("is a cookie of AWS balancers, not one of the application")),
        name => Ok(name),
    }
}

/// True for a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// True for a name of a listener, pool, backend or range.
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(good)
}
