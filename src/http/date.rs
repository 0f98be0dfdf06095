//! Dates as HTTP writes them and as cookies have them.
//!
//! Reads no clock; the only time zone is GMT. Invariant: a date that is written here is read here as the same second.

use std::fmt;

/// Seconds since 1970 from the kind of date that Set-Cookie has, read as browsers do (RFC 6265 §5.1.1, the same in
/// RFC 6265bis): any order, any separators, the zone ignored. `None`: the text is not a date.
pub fn read_cookie_date(text: &[u8]) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|byte| is_delimiter(*byte)).filter(|token| !token.is_empty()) {
        if time.is_none()
            && let Some(found) = read_time(token)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some(found) = read_number(token, 1..=2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = read_month(token)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some(found) = read_number(token, 2..=4)
        {
            year = Some(found);
        }
    }
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let ((hour, minute, second), day, month) = (time?, day?, month?);
    let is_good = (1..=days_in(year, month)).contains(&day) && year >= 1601 && hour < 24 && minute < 60 && second < 60;
    is_good.then(|| days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Appends the preferred form of RFC 9110 §5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`. Years have four digits.
pub fn write(out: &mut Vec<u8>, unix_s: u64) {
    const LAST: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z
    let unix_s = unix_s.min(LAST);
    let (days, second) = ((unix_s / 86_400) as i64, unix_s % 86_400);
    let (year, month, day) = date_of(days);
    let weekday = WEEKDAYS[(days + 4) as usize % 7]; // 1970 began on a Thursday
    let text = format_args!(
        "{weekday}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        MONTHS[month as usize - 1],
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    std::io::Write::write_fmt(out, text).expect("memory takes everything");
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e)
}

/// A number of so many digits at the start of a token, with no digit after them.
fn read_number(token: &[u8], digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let length = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = || token[..length].iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    digits.contains(&length).then(value)
}

/// `hh:mm:ss`, each of one or two digits.
fn read_time(token: &[u8]) -> Option<(i64, i64, i64)> {
    let mut parts = token.splitn(3, |byte| *byte == b':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let time = (read_number(hour, 1..=2)?, read_number(minute, 1..=2)?, read_number(second, 1..=2)?);
    (whole(hour) && whole(minute)).then_some(time)
}

fn read_month(token: &[u8]) -> Option<i64> {
    let name = token.get(..3)?;
    let index = MONTHS.iter().position(|month| month.as_bytes().eq_ignore_ascii_case(name))?;
    Some(index as i64 + 1)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 0000-01-01 to the first of January of this year.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    year * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    days_before(year) - days_before(1970) + months + day - 1
}

/// Year, month and day of the day so many days after 1970-01-01.
pub fn date_of(days: i64) -> (i64, i64, i64) {
    // Eras of 400 years, which begin on the first of March, so that a leap day is the last day of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// A time in UTC as RFC 3339 with milliseconds. `unix_ms`: milliseconds since 1970.
pub fn rfc3339(unix_ms: u64) -> String {
    Rfc3339(unix_ms).to_string()
}

/// The text of [`rfc3339`], for a writer.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3339(pub u64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1_000, self.0 % 1_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date_of(i64::try_from(days).unwrap_or(i64::MAX / 1_000_000));
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_calendar() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(unix_s * 1_000), text);
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_is_the_one_after_the_day_before() {
        let first = days_since_1970(1600, 1, 1);
        let mut expected = (1600, 1, 1);
        for days in first..days_since_1970(2600, 1, 1) {
            let (year, month, day) = date_of(days);
            assert_eq!((year, month, day), expected);
            assert_eq!(days_since_1970(year, month, day), days);
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                _ if day == days_in(year, month) => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}
