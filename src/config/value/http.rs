//! The parts of an HTTP health check: path, host and status.
//!
//! Builds no request. Invariant: a path or host fits into a request line or a field as it is.

use toml::de::DeValue;

use super::{ValueResult, text};
use crate::config::problem::Bad;

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

fn is_one_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
