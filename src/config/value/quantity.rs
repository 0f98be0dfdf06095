//! Durations and sizes: a number and one unit.
//!
//! Bounds come from the caller. Invariant: [`show_duration`] writes a duration as [`duration`] reads it.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::{ValueResult, text};
use crate::config::problem::Bad;

/// The unit of the shortest times, for bounds and defaults.
pub(in crate::config) const MICROSECOND: Duration = Duration::from_micros(1);
pub(in crate::config) const MILLISECOND: Duration = Duration::from_millis(1);
pub(in crate::config) const SECOND: Duration = Duration::from_secs(1);
pub(in crate::config) const MINUTE: Duration = Duration::from_secs(60);
pub(in crate::config) const HOUR: Duration = Duration::from_secs(3600);
pub(in crate::config) const DAY: Duration = Duration::from_secs(86_400);

/// Units of durations, in microseconds, ascending.
const UNITS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Reads a number and one unit, in bounds: `"200ms"`, `"5s"`, `"10m"`, `"1h"`, `"7d"`; zero needs a unit, too.
pub(in crate::config) fn duration(least: Duration, most: Duration) -> impl Fn(&DeValue<'_>) -> ValueResult<Duration> {
    move |value| {
        let malformed =
            || Bad::new("is not a duration").hint("a number and a unit: \"200ms\", \"5s\", \"10m\", \"1h\", \"7d\"");
        // Only a key with a lower bound in microseconds has timers that precise; elsewhere "us" would be cut silently.
        let has_microseconds = !least.is_zero() && least < MILLISECOND;
        let whole = |duration: &Duration| has_microseconds || duration.subsec_micros().is_multiple_of(1_000);
        let duration = value.as_str().and_then(parse_duration).filter(whole).ok_or_else(malformed)?;
        let in_bounds = (least..=most).contains(&duration);
        in_bounds
            .then_some(duration)
            .ok_or_else(|| Bad::new(format!("is not between {} and {}", show_duration(least), show_duration(most))))
    }
}

/// Reads a rate, such as `"100/s"`, `"10/m"` or `"1000/h"`: a count, and the seconds in which it may be reached.
pub(in crate::config) fn rate(counts: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> ValueResult<(u32, u32)> {
    const UNITS: [(&str, u32); 3] = [("s", 1), ("m", 60), ("h", 3_600)];
    move |value| {
        let malformed = || Bad::new("is not a rate").hint("a count and a unit: \"100/s\", \"10/m\", \"1000/h\"");
        let (count, unit) = text(value).ok().and_then(|text| text.split_once('/')).ok_or_else(malformed)?;
        let (_, per_s) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let in_bounds = count.parse::<u32>().ok().filter(|count| counts.contains(&u64::from(*count)));
        let bounds = || Bad::new(format!("is not a rate of {} to {}", counts.start(), counts.end()));
        in_bounds.map(|count| (count, *per_s)).ok_or_else(bounds)
    }
}

/// Reads a size in bytes: a whole number with `KiB`, `MiB` or `GiB`, or `"0"`.
pub(in crate::config) fn bytes(most: u64) -> impl Fn(&DeValue<'_>) -> ValueResult<u64> {
    const UNITS: [(&str, u64); 4] = [("", 0), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    move |value| {
        let malformed =
            || Bad::new("is not a size").hint("a number and a unit: \"512 KiB\", \"4 MiB\", \"1 GiB\", or \"0\"");
        let written = text(value)?;
        let (number, unit) = written.split_at(written.bytes().take_while(u8::is_ascii_digit).count());
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(malformed)?;
        let bytes = number.checked_mul(*unit).filter(|bytes| *unit > 0 || (number == 0 && *bytes == 0));
        let bytes = bytes.ok_or_else(malformed)?;
        if bytes > most { Err(Bad::new(format!("is more than {} GiB", most >> 30))) } else { Ok(bytes) }
    }
}

/// Reads a size in bytes like [`bytes()`], in bounds.
pub(in crate::config) fn bytes_between(least: u64, most: u64) -> impl Fn(&DeValue<'_>) -> ValueResult<usize> {
    let read = bytes(u64::MAX);
    move |value| {
        let size = read(value)?;
        let in_bounds = usize::try_from(size).ok().filter(|_| (least..=most).contains(&size));
        in_bounds.ok_or_else(|| Bad::new(format!("is not between {} and {}", show_bytes(least), show_bytes(most))))
    }
}

/// Reads bytes a second, a size with `/s`, in bounds: `"1 KiB/s"`.
pub(in crate::config) fn bytes_per_s(least: u64, most: u64) -> impl Fn(&DeValue<'_>) -> ValueResult<u64> {
    let read = bytes(u64::MAX);
    move |value| {
        let malformed = || Bad::new("is not a size a second").hint("a size and \"/s\": \"1 KiB/s\", \"64 KiB/s\"");
        let size = text(value).ok().and_then(|written| written.strip_suffix("/s")).ok_or_else(malformed)?;
        let rate = read(&DeValue::String(size.into())).map_err(|_| malformed())?;
        let bounds = || Bad::new(format!("is not between {}/s and {}/s", show_bytes(least), show_bytes(most)));
        (least..=most).contains(&rate).then_some(rate).ok_or_else(bounds)
    }
}

/// Writes a size in the largest unit that divides it.
fn show_bytes(size: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fitting = units.iter().find(|(_, unit)| size.is_multiple_of(*unit));
    fitting.map_or(format!("{size} bytes"), |(name, unit)| format!("{} {name}", size / unit))
}

/// Writes a duration in the largest unit that divides it.
pub(in crate::config) fn show_duration(duration: Duration) -> String {
    let us = duration.as_micros();
    let fitting = UNITS.iter().rev().find(|(_, unit)| us > 0 && us.is_multiple_of(u128::from(*unit)));
    fitting.map_or("0s".to_owned(), |(name, unit)| format!("{}{name}", us / u128::from(*unit)))
}

/// A duration that is longer than any bound stands for all that cannot be counted.
const UNCOUNTABLE: Duration = Duration::from_secs(u64::MAX);

fn parse_duration(written: &str) -> Option<Duration> {
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = written.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let counted = number.parse::<u64>().map(|number| number.checked_mul(*unit).map(Duration::from_micros));
    if number.is_empty() { None } else { Some(counted.ok().flatten().unwrap_or(UNCOUNTABLE)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let any = duration(Duration::ZERO, Duration::MAX);
        for (written, ms) in [("0s", 0), ("200ms", 200), ("5s", 5000), ("10m", 600_000), ("1h", 3_600_000)] {
            assert_eq!(any(&string(written)), Ok(Duration::from_millis(ms)), "{written}");
        }
        for written in ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "1h30m", "5ns"] {
            assert!(any(&string(written)).is_err(), "{written}");
        }
    }

    #[test]
    fn a_duration_that_cannot_be_counted_is_out_of_bounds() {
        for written in ["999999999999d", "99999999999999999999999s"] {
            let refused = duration(SECOND, DAY)(&string(written)).unwrap_err();
            assert_eq!(refused.message, "is not between 1s and 1d", "{written}");
        }
    }

    #[test]
    fn sizes_have_bounds() {
        let read = bytes_between(1 << 10, 64 << 10);
        for (written, size) in [("1 KiB", 1 << 10), ("64KiB", 64 << 10), ("5 KiB", 5 << 10)] {
            assert_eq!(read(&string(written)), Ok(size), "{written}");
        }
        for written in ["0", "0 KiB", "65 KiB", "1 MiB", "99999999999 GiB", "1024", "1 KB", ""] {
            assert!(read(&string(written)).is_err(), "{written}");
        }
        assert_eq!(read(&string("65 KiB")), Err(Bad::new("is not between 1 KiB and 64 KiB")));
    }

    #[test]
    fn rates_are_a_count_and_a_unit() {
        let read = rate(1..=1_000);
        for (written, wanted) in [("100/s", (100, 1)), ("1/m", (1, 60)), ("1000/h", (1_000, 3_600))] {
            assert_eq!(read(&string(written)), Ok(wanted), "{written}");
        }
        for written in
            ["", "/s", "1", "1/", "1/d", "1 /s", "+1/s", "-1/s", "1.5/s", "1/s/s", "0/s", "1001/s", "99999999999/s"]
        {
            assert!(read(&string(written)).is_err(), "{written}");
        }
        assert!(read(&DeValue::Boolean(true)).is_err());
        assert_eq!(read(&string("0/s")), Err(Bad::new("is not a rate of 1 to 1000")));
    }

    #[test]
    fn sizes_a_second_have_bounds() {
        let read = bytes_per_s(1 << 10, 1 << 20);
        for (written, rate) in [("1 KiB/s", 1 << 10), ("64KiB/s", 64 << 10), ("1 MiB/s", 1 << 20)] {
            assert_eq!(read(&string(written)), Ok(rate), "{written}");
        }
        for written in ["", "/s", "1 KiB", "1 KiB/m", "1 KiB /s/s", "500/s", "1 KB/s", "-1 KiB/s"] {
            assert_eq!(read(&string(written)).unwrap_err().message, "is not a size a second", "{written}");
        }
        for written in ["0/s", "2 MiB/s"] {
            assert_eq!(read(&string(written)), Err(Bad::new("is not between 1 KiB/s and 1 MiB/s")), "{written}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for written in ["0s", "1ms", "1500ms", "5s", "90s", "10m", "1h", "36h", "7d"] {
            let read = parse_duration(written).unwrap();
            assert_eq!(show_duration(read), written);
        }
    }
}
