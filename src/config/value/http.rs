//! What a pool reads of HTTP, and the parts of an HTTP or gRPC health check: path, host, header lines, status, service.
//!
//! Builds no request. Invariant: a path, host or header line fits into the head of a request as it is, and changes
//! neither its length nor what happens to the connection.

use toml::de::DeValue;

use super::name::is_token;
use super::{ValueResult, text};
use crate::config::PoolHttp;
use crate::config::problem::Bad;

/// Longest name of a gRPC service in bytes.
const GRPC_SERVICE_MAX: usize = 256;

/// Reads whether a pool reads HTTP, and what its backends speak.
pub(in crate::config) fn pool_http(value: &DeValue<'_>) -> ValueResult<PoolHttp> {
    match (value.as_bool(), value.as_str()) {
        (Some(false), _) => Ok(PoolHttp::Off),
        (Some(true), _) => Ok(PoolHttp::Http1),
        (None, Some("h2")) => Ok(PoolHttp::Http2),
        (None, _) => Err(Bad::new("is not one of true, false, \"h2\"")),
    }
}

/// Reads a status, `"200"`, or the first and last good status, `"200-399"`.
pub(in crate::config) fn status(value: &DeValue<'_>) -> ValueResult<(u16, u16)> {
    let bad = || Bad::new("is not a range of HTTP statuses").hint("\"200\" or \"200-399\", from 100 to 599");
    let written = text(value).map_err(|_| bad())?;
    let (least, most) = written.split_once('-').unwrap_or((written, written));
    let number = |digits: &str| digits.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    number(least).zip(number(most)).filter(|(least, most)| least <= most).ok_or_else(bad)
}

/// Reads the path of a `GET` request.
pub(in crate::config) fn path(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let good = written.starts_with('/') && is_one_token(written);
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a path: '/' first, no spaces"))
}

/// Reads the value of a `Host` field.
pub(in crate::config) fn host(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let good = is_one_token(written) && !written.contains('/');
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a host"))
}

/// Reads a further line of the request's head: `"X-Check: yes"`.
pub(in crate::config) fn header_line(value: &DeValue<'_>) -> ValueResult<String> {
    /// Headers that the check writes itself, or that would change what follows.
    const OF_THE_CHECK: [&str; 8] =
        ["host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer"];
    let written = text(value)?;
    let (name, content) = written.split_once(':').unwrap_or_default();
    let is_text = |c: char| c == ' ' || c == '\t' || !(c.is_control() || c.is_whitespace());
    if !is_token(name) || !content.chars().all(is_text) {
        return Err(Bad::new("is not a header").hint("name and value on one line: \"X-Check: yes\""));
    }
    match OF_THE_CHECK.iter().find(|own| name.eq_ignore_ascii_case(own)) {
        Some(&"host") => Err(Bad::new("has a key of its own").hint("host = \"NAME\"")),
        Some(_) => Err(Bad::new("is a header that a check sends or leaves out by itself")),
        None => Ok(format!("{name}: {}", content.trim())),
    }
}

/// True if a host can be the `:authority` of a request of HTTP/2.
pub(in crate::config) fn is_authority(host: &str) -> bool {
    ::http::uri::Authority::try_from(host).is_ok()
}

/// Reads the name of a gRPC service, as `package.Service`; the empty name is the server as a whole.
pub(in crate::config) fn grpc_service(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let good = written.len() <= GRPC_SERVICE_MAX && !written.contains(char::is_control);
    let bad = || Bad::new(format!("is not the name of a service: at most {GRPC_SERVICE_MAX} bytes, none a control"));
    good.then(|| written.to_owned()).ok_or_else(bad)
}

fn is_one_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
