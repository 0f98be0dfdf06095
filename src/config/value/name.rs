//! Names of objects, hosts, protocols, cookies, fields and parameters.
//!
//! Whether an object of that name exists is checked in `check`. Invariant: a name of an object can be a metric label.

use toml::de::DeValue;

use super::{ValueResult, text};
use crate::config::is_own_name;
use crate::config::problem::Bad;
use crate::server_name::{NamePattern, ServerName};

/// Longest name of a listener, pool, backend, range or location level, in bytes.
const NAME_MAX: usize = 64;
/// Largest number of levels of a location.
const LOCATION_DEPTH_MAX: usize = 8;
/// Longest name of a cookie, field or parameter in bytes.
const TOKEN_MAX: usize = 128;
/// The rule for names, as error messages state it.
pub(in crate::config) const NAME_RULE: &str = "1 to 64 letters, digits, '.', '_' or '-'";

/// Reads a name that can be a metric label: 1 to 64 letters, digits, `.`, `_` or `-`.
pub(in crate::config) fn name(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    if is_name(written) { Ok(written.to_owned()) } else { Err(Bad::new(format!("is not a name: {NAME_RULE}"))) }
}

/// Reads the levels of a location, `dc1/host3`, outermost first; empty text: no location.
pub(in crate::config) fn location(value: &DeValue<'_>) -> ValueResult<Vec<String>> {
    levels(text(value)?).map_err(|why| Bad::new(why).hint("\"dc1/host3\": names separated by '/'"))
}

/// Splits a location into its levels; the error says what it has instead.
pub fn levels(written: &str) -> Result<Vec<String>, String> {
    if written.is_empty() {
        return Ok(Vec::new());
    }
    let levels: Vec<_> = written.split('/').map(str::to_owned).collect();
    if levels.len() > LOCATION_DEPTH_MAX {
        return Err(format!("has {} levels; the most is {LOCATION_DEPTH_MAX}", levels.len()));
    }
    match levels.iter().find(|level| !is_name(level)) {
        None => Ok(levels),
        Some(level) => Err(format!("has the level \"{level}\", which is not a name: {NAME_RULE}")),
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

/// Checks the name of a cookie: a token (RFC 9110 §5.6.2).
pub(in crate::config) fn cookie_name(written: &str) -> ValueResult<&str> {
    token(written, "cookie name")
}

/// Checks the name of a header field, a token (RFC 9110 §5.1), and writes it in lower case. A `Cookie` field has values
/// of many owners.
pub(in crate::config) fn field_name(written: &str) -> ValueResult<String> {
    match token(written, "header name")?.to_ascii_lowercase() {
        name if name == "cookie" || name == "set-cookie" => {
            Err(Bad::new("is the field of all cookies").hint("one of them: \"cookie:NAME\""))
        }
        name => Ok(name),
    }
}

/// Checks the name of a parameter in a query or path: it is compared with the bytes that are sent.
pub(in crate::config) fn parameter_name(written: &str) -> ValueResult<&str> {
    let good_byte = |byte: u8| byte.is_ascii_graphic() && !b"&=;/?#".contains(&byte);
    let good = (1..=TOKEN_MAX).contains(&written.len()) && written.bytes().all(good_byte);
    let rule = "is not a parameter name: 1 to 128 visible characters, as they are sent, but none of &=;/?#";
    good.then_some(written).ok_or_else(|| Bad::new(rule))
}

fn token<'w>(written: &'w str, what: &str) -> ValueResult<&'w str> {
    let good = written.len() <= TOKEN_MAX && is_token(written);
    let rule = format!("is not a {what}: 1 to 128 letters, digits or any of !#$%&'*+-.^_`|~");
    good.then_some(written).ok_or_else(|| Bad::new(rule))
}

/// True for a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Checks the name of a cookie that the application sets; cookies of balancers are refused.
pub(in crate::config) fn application_cookie(written: &str) -> ValueResult<&str> {
    match cookie_name(written)? {
        own if is_own_name(own) => Err(Bad::new("is the balancer's own cookie, not one of the application")),
        aws if aws.starts_with("AWSALB") => Err(Bad::new("is a cookie of AWS balancers, not one of the application")),
        name => Ok(name),
    }
}

/// True for a name of a listener, pool, backend or range.
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(good)
}
