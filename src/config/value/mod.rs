//! Readers of single values. This file has the general ones: text, booleans, numbers, one word of a list.
//!
//! `quantity` reads durations and sizes, `address` addresses and networks, `name` names, `key` parts of placement keys,
//! `file` paths of files and pins, `http` the word of a pool and parts of an HTTP or gRPC check, `payload` bytes of other
//! checks, `header` what a pool sets in heads, `request` what routes compare and answer, `log` what the log has. No reader
//! knows the key or the place of its value; `file::Section` adds both.
//!
//! Invariant: a reader returns a value that is in bounds and in canonical form (IPv4-mapped IPv6 is IPv4), or a
//! complaint that completes the sentence `KEY VALUE …`.

mod address;
mod file;
mod header;
mod http;
mod key;
mod log;
mod name;
mod payload;
mod quantity;
mod request;

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::problem::Bad;

pub(in crate::config) use self::address::{
    Resolve, address, bind, host_and_port, is_host_with_port, local_ip, network, tcp_address, unix_path,
};
pub(in crate::config) use self::file::{file, group, mode, pin};
pub(in crate::config) use self::header::{header_name, header_value, id_header, is_like, removed_header};
pub(in crate::config) use self::http::{grpc_service, header_line, host, is_authority, path, pool_http, status};
pub(in crate::config) use self::key::key_part;
pub(in crate::config) use self::log::{log_field, log_output};
pub(in crate::config) use self::name::{
    NAME_RULE, alpn, application_cookie, cookie_name, field_name, location, name, name_pattern, parameter_name,
    server_name,
};
pub(in crate::config) use self::payload::payload;
pub(in crate::config) use self::quantity::{
    DAY, HOUR, MICROSECOND, MILLISECOND, MINUTE, SECOND, bytes, bytes_between, bytes_per_s, duration, rate,
    show_duration,
};
pub(in crate::config) use self::request::{
    answered_field, compared_field, field_value, method, path_pattern, redirect_status, template,
};

pub use self::address::{
    backend_address, canonical as canonical_network, is_connectable, order_address, shown_address,
};
pub use self::file::hex32;
pub use self::name::{is_name, levels};

/// Result of a reader: the value, or why it was refused.
pub(in crate::config) type ValueResult<T> = Result<T, Bad>;

/// Reads a string.
pub(in crate::config) fn text<'v>(value: &'v DeValue<'_>) -> ValueResult<&'v str> {
    value.as_str().ok_or_else(|| Bad::new("is not a string"))
}

/// Reads `true` or `false`.
pub(in crate::config) fn boolean(value: &DeValue<'_>) -> ValueResult<bool> {
    value.as_bool().ok_or_else(|| Bad::new("is not true or false"))
}

/// Reads a whole number in bounds: decimal, `0x`, `0o` or `0b`.
pub(in crate::config) fn integer<T: TryFrom<u64>>(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&DeValue<'_>) -> ValueResult<T> {
    move |value| {
        let number = value.as_integer().ok_or_else(|| Bad::new("is not a whole number"))?;
        let in_bounds = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| bounds.contains(n));
        in_bounds
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Bad::new(format!("is not between {} and {}", bounds.start(), bounds.end())))
    }
}

/// Reads a number with up to two decimals, as hundredths: 1.25 is 125.
pub(in crate::config) fn hundredths(bounds: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> ValueResult<u32> {
    let show = |hundredths: u32| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    move |value| {
        let written = match value {
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            _ => return Err(Bad::new("is not a number")),
        };
        let (whole, part) = written.split_once('.').unwrap_or((&written, ""));
        let part = if part.len() <= 2 { format!("{part:0<2}").parse::<u32>().ok() } else { None };
        let number =
            whole.parse::<u32>().ok().zip(part).and_then(|(whole, part)| whole.checked_mul(100)?.checked_add(part));
        number.filter(|number| bounds.contains(number)).ok_or_else(|| {
            let (least, most) = (show(*bounds.start()), show(*bounds.end()));
            Bad::new(format!("is not between {least} and {most}, with two decimals at most"))
        })
    }
}

/// Reads `word` as `None`, and anything else with `read`.
pub(in crate::config) fn unless<T>(
    word: &'static str,
    read: impl Fn(&DeValue<'_>) -> ValueResult<T>,
) -> impl Fn(&DeValue<'_>) -> ValueResult<Option<T>> {
    move |value| match value.as_str() {
        Some(text) if text == word => Ok(None),
        _ => read(value).map(Some).map_err(|bad| Bad { hint: bad.hint.or(Some(format!("or \"{word}\""))), ..bad }),
    }
}

/// Reads one word of a closed list.
pub(in crate::config) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> ValueResult<T> {
    move |value| {
        let written = value.as_str().unwrap_or_default();
        words.iter().find(|(word, _)| *word == written).map(|(_, value)| *value).ok_or_else(|| {
            let list: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let bad = Bad::new(format!("is not one of {}", list.join(", ")));
            match super::keys::nearest(written, words.iter().map(|(word, _)| *word)) {
                Some(near) => bad.hint(format!("did you mean \"{near}\"?")),
                None => bad,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_written_in_any_base() {
        let number = |text| DeValue::parse(text).unwrap().into_inner();
        let read = integer::<u64>(0..=u64::MAX);
        for (written, expected) in [("0xff", 255), ("1_000", 1000), ("18446744073709551615", u64::MAX), ("0", 0)] {
            assert_eq!(read(&number(written)), Ok(expected), "{written}");
        }
        for written in ["-1", "18446744073709551616", "1.0", "true"] {
            assert!(read(&number(written)).is_err(), "{written}");
        }
    }
}
