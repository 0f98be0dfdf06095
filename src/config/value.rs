//! What single values mean: durations, counts, networks, addresses, names, words.
//!
//! Knows no keys and no places. Invariant: a reader answers with a value that is in bounds and in canonical form
//! (IPv4-mapped IPv6 is IPv4), or with a complaint that completes the sentence `KEY VALUE …`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use toml::de::DeValue;

use super::problem::Bad;
use super::{Address, Bind, KeyPart, OWN_NAME};
use crate::server_name::{NamePattern, ServerName};

/// What a reader answers.
pub(super) type ValueResult<T> = Result<T, Bad>;

/// Looks a `host:port` up.
pub(super) type Resolve<'a> = &'a dyn Fn(&str) -> io::Result<Vec<SocketAddr>>;

/// Units for bounds and defaults.
pub(super) const MICROSECOND: Duration = Duration::from_micros(1);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// The kernel's limit on the path of a unix socket (`sun_path` less its zero byte).
const UNIX_PATH_MAX: usize = 107;
/// Longest name of a listener, pool, backend, range or location: it becomes a metric label.
const NAME_MAX: usize = 64;
/// Levels of a location.
const LOCATION_DEPTH_MAX: usize = 8;
/// Longest name of a cookie.
const COOKIE_NAME_MAX: usize = 128;

/// Text.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> ValueResult<&'v str> {
    value.as_str().ok_or_else(|| Bad::new("is not a string"))
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> ValueResult<bool> {
    value.as_bool().ok_or_else(|| Bad::new("is not true or false"))
}

/// A whole number in bounds; decimal, `0x`, `0o` or `0b`.
pub(super) fn integer<T: TryFrom<u64>>(bounds: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> ValueResult<T> {
    move |value| {
        let number = value.as_integer().ok_or_else(|| Bad::new("is not a whole number"))?;
        let in_bounds = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| bounds.contains(n));
        in_bounds
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Bad::new(format!("is not between {} and {}", bounds.start(), bounds.end())))
    }
}

/// A number with up to two decimals, as hundredths.
pub(super) fn hundredths(bounds: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> ValueResult<u32> {
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

/// `word` as the value's absence, anything else as the reader has it.
pub(super) fn unless<T>(
    word: &'static str,
    read: impl Fn(&DeValue<'_>) -> ValueResult<T>,
) -> impl Fn(&DeValue<'_>) -> ValueResult<Option<T>> {
    move |value| match value.as_str() {
        Some(text) if text == word => Ok(None),
        _ => read(value).map(Some).map_err(|bad| Bad { hint: bad.hint.or(Some(format!("or \"{word}\""))), ..bad }),
    }
}

/// One of a closed list of words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&DeValue<'_>) -> ValueResult<T> {
    move |value| {
        let written = value.as_str().unwrap_or_default();
        words.iter().find(|(word, _)| *word == written).map(|(_, meant)| *meant).ok_or_else(|| {
            let list: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let bad = Bad::new(format!("is not one of {}", list.join(", ")));
            match super::keys::nearest(written, words.iter().map(|(word, _)| *word)) {
                Some(meant) => bad.hint(format!("did you mean \"{meant}\"?")),
                None => bad,
            }
        })
    }
}

/// A number and one unit, in bounds: `"200ms"`, `"5s"`, `"10m"`, `"1h"`, `"7d"`; zero needs a unit, too.
pub(super) fn duration(least: Duration, most: Duration) -> impl Fn(&DeValue<'_>) -> ValueResult<Duration> {
    move |value| {
        let not_one =
            || Bad::new("is not a duration").hint("a number and a unit: \"200ms\", \"5s\", \"10m\", \"1h\", \"7d\"");
        // What is kept in milliseconds is also written so.
        let fine = !least.is_zero() && least < MILLISECOND;
        let whole = |duration: &Duration| fine || duration.subsec_micros().is_multiple_of(1_000);
        let written = value.as_str().and_then(parse_duration).filter(whole).ok_or_else(not_one)?;
        let in_bounds = (least..=most).contains(&written);
        in_bounds
            .then_some(written)
            .ok_or_else(|| Bad::new(format!("is not between {} and {}", show_duration(least), show_duration(most))))
    }
}

/// A name that can be a metric label: 1-64 letters, digits, `.`, `_`, `-`.
pub(super) fn name(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    if is_name(written) { Ok(written.to_owned()) } else { Err(Bad::new(format!("is not a name: {NAME_RULE}"))) }
}

/// Levels of names, outermost first; the empty text is no location.
pub(super) fn location(value: &DeValue<'_>) -> ValueResult<Vec<String>> {
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

/// A network; a bare address is a network of one.
pub(super) fn network(value: &DeValue<'_>) -> ValueResult<IpNet> {
    let written = text(value)?;
    let parsed = match written.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => written.parse::<IpAddr>().map(IpNet::from).map_err(|_| Bad::new("is not a network"))?,
    };
    let exact = parsed.trunc();
    if exact != parsed {
        return Err(Bad::new("has bits set behind its prefix").hint(format!("the network is \"{}\"", canonical(exact))));
    }
    Ok(canonical(exact))
}

/// One IP address to connect from.
pub(super) fn local_ip(value: &DeValue<'_>) -> ValueResult<IpAddr> {
    let parsed = text(value)?.parse::<IpAddr>().map_err(|_| Bad::new("is not an IP address"))?;
    let address = parsed.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err(Bad::new("is not an address of one machine"));
    }
    Ok(address)
}

/// A loopback address with its port.
pub(super) fn loopback(value: &DeValue<'_>) -> ValueResult<SocketAddr> {
    let address = socket_address(text(value)?).ok_or_else(|| Bad::new("is not an address with a port"))?;
    if !address.ip().is_loopback() {
        return Err(Bad::new("is not a loopback address").hint(format!("\"127.0.0.1:{}\"", address.port())));
    }
    Ok(address)
}

/// An address to listen on.
pub(super) fn bind(value: &DeValue<'_>) -> ValueResult<Bind> {
    let written = text(value)?;
    if let Some(path) = written.strip_prefix("unix:") {
        return unix_path(path).map(Bind::Unix);
    }
    if let Some(name) = written.strip_prefix("systemd:") {
        return if is_name(name) { Ok(Bind::Systemd(name.to_owned())) } else { Err(Bad::new("names no descriptor")) };
    }
    let hint = "\"0.0.0.0:443\", \"[::]:443\", \"unix:/run/app.sock\" or \"systemd:NAME\"";
    socket_address(written).map(Bind::Tcp).ok_or_else(|| Bad::new("is not an address to listen on").hint(hint))
}

/// The address of a backend; a DNS name is looked up, and the least of its addresses taken, whatever their order.
pub(super) fn address(resolve: Resolve<'_>) -> impl Fn(&DeValue<'_>) -> ValueResult<Address> {
    move |value| {
        let written = text(value)?;
        if let Some(path) = written.strip_prefix("unix:") {
            return unix_path(path).map(Address::Unix);
        }
        let tcp = match socket_address(written) {
            Some(address) => address,
            None => look_up(written, resolve)?,
        };
        if tcp.port() == 0 || tcp.ip().is_unspecified() || tcp.ip().is_multicast() {
            return Err(Bad::new("is not an address that can be connected to"));
        }
        Ok(Address::Tcp(tcp))
    }
}

/// The path of a unix socket, without the `unix:` that addresses carry.
pub(super) fn unix_path(path: &str) -> ValueResult<PathBuf> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Bad::new("is not an absolute path"));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(Bad::new(format!("is longer than a unix path can be ({UNIX_PATH_MAX} bytes)")));
    }
    Ok(path.into())
}

/// The path of a file; one that is not absolute begins where the process was started.
pub(super) fn file(value: &DeValue<'_>) -> ValueResult<PathBuf> {
    let written = text(value)?;
    let good = !written.is_empty() && !written.contains('\0');
    good.then(|| written.into()).ok_or_else(|| Bad::new("is not the path of a file"))
}

/// SHA-256 of a public key: `"sha256:"` and 64 hexadecimal digits.
pub(super) fn pin(value: &DeValue<'_>) -> ValueResult<[u8; 32]> {
    let bad = || Bad::new("is not a pin").hint("\"sha256:\" and 64 hexadecimal digits, of the public key");
    text(value).map_err(|_| bad())?.strip_prefix("sha256:").and_then(hex32).ok_or_else(bad)
}

/// A host name.
pub(super) fn server_name(value: &DeValue<'_>) -> ValueResult<ServerName> {
    ServerName::parse(text(value)?).ok_or_else(|| Bad::new("is not a host name"))
}

/// A host name or `*.` and a domain.
pub(super) fn name_pattern(value: &DeValue<'_>) -> ValueResult<NamePattern> {
    NamePattern::parse(text(value)?)
        .ok_or_else(|| Bad::new("is not a host name").hint("\"www.example.org\" or \"*.example.org\""))
}

/// One protocol of ALPN, 1-255 bytes.
pub(super) fn alpn(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let fits = (1..=255).contains(&written.len());
    fits.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a protocol name of 1 to 255 bytes"))
}

/// One part of a key; `None` is `"none"`.
pub(super) fn key_part(value: &DeValue<'_>) -> ValueResult<Option<KeyPart>> {
    /// PP2_TYPE_CRC32C and PP2_TYPE_NOOP say nothing about the client.
    const NOT_A_CLIENT: [u8; 2] = [0x03, 0x04];
    let hint = "\"source\", \"sni\", \"tlv:0xNN\", \"cookie:NAME\", \"none\", or a list of the first four";
    let not_one = || Bad::new("is not a key").hint(hint);
    match text(value).map_err(|_| not_one())? {
        "none" => Ok(None),
        "source" => Ok(Some(KeyPart::Source)),
        "sni" => Ok(Some(KeyPart::Sni)),
        written if written.starts_with("cookie:") => {
            let name = application_cookie(&written["cookie:".len()..])?;
            Ok(Some(KeyPart::Cookie(name.into())))
        }
        written => {
            let digits = written.strip_prefix("tlv:0x").filter(|digits| digits.len() == 2).ok_or_else(not_one)?;
            match u8::from_str_radix(digits, 16).map_err(|_| not_one())? {
                kind if NOT_A_CLIENT.contains(&kind) => Err(Bad::new("is a TLV that says nothing about the client")),
                kind => Ok(Some(KeyPart::Tlv(kind))),
            }
        }
    }
}

/// The name of a cookie: a token (RFC 9110 §5.6.2).
pub(super) fn cookie_name(written: &str) -> ValueResult<&str> {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let good = (1..=COOKIE_NAME_MAX).contains(&written.len()) && written.bytes().all(is_token_byte);
    let rule = "is not a cookie name: 1 to 128 letters, digits or any of !#$%&'*+-.^_`|~";
    good.then_some(written).ok_or_else(|| Bad::new(rule))
}

/// The name of a cookie that the application sets; those of balancers are none.
pub(super) fn application_cookie(written: &str) -> ValueResult<&str> {
    match cookie_name(written)? {
        own if own == OWN_NAME => Err(Bad::new("is the balancer's own cookie, not one of the application")),
        aws if aws.starts_with("AWSALB") => Err(Bad::new("is a cookie of AWS balancers, not one of the application")),
        name => Ok(name),
    }
}

/// A status, or the first and last good one: `"200-399"`.
pub(super) fn status(value: &DeValue<'_>) -> ValueResult<(u16, u16)> {
    let bad = || Bad::new("is not a range of HTTP statuses").hint("\"200\" or \"200-399\", from 100 to 599");
    let written = text(value).map_err(|_| bad())?;
    let (least, most) = written.split_once('-').unwrap_or((written, written));
    let number = |digits: &str| digits.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    number(least).zip(number(most)).filter(|(least, most)| least <= most).ok_or_else(bad)
}

/// What follows `GET`.
pub(super) fn path(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let good = written.starts_with('/') && is_one_token(written);
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a path: '/' first, no spaces"))
}

/// What follows `Host:`.
pub(super) fn host(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let good = is_one_token(written) && !written.contains('/');
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a host"))
}

/// A size: a whole number with `KiB`, `MiB` or `GiB`, or 0.
pub(super) fn bytes(most: u64) -> impl Fn(&DeValue<'_>) -> ValueResult<u64> {
    const UNITS: [(&str, u64); 4] = [("", 0), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    move |value| {
        let not_one =
            || Bad::new("is not a size").hint("a number and a unit: \"512 KiB\", \"4 MiB\", \"1 GiB\", or \"0\"");
        let written = text(value)?;
        let (number, unit) = written.split_at(written.bytes().take_while(u8::is_ascii_digit).count());
        let number: u64 = number.parse().map_err(|_| not_one())?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(not_one)?;
        let bytes = number.checked_mul(*unit).filter(|bytes| *unit > 0 || (number == 0 && *bytes == 0));
        let bytes = bytes.ok_or_else(not_one)?;
        if bytes > most { Err(Bad::new(format!("is more than {} GiB", most >> 30))) } else { Ok(bytes) }
    }
}

/// In the largest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let us = duration.as_micros();
    let fitting = UNITS.iter().rev().find(|(_, unit)| us > 0 && us.is_multiple_of(u128::from(*unit)));
    fitting.map_or("0s".to_owned(), |(name, unit)| format!("{}{name}", us / u128::from(*unit)))
}

/// Units of durations, in microseconds, ascending.
const UNITS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

const NAME_RULE: &str = "1 to 64 letters, digits, '.', '_' or '-'";

fn parse_duration(written: &str) -> Option<Duration> {
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = written.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*unit).map(Duration::from_micros)
}

fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(good)
}

fn is_one_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// IPv4-mapped IPv6 clients count as IPv4, so a network of such addresses is one of IPv4 addresses.
pub fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

/// 32 bytes as 64 hexadecimal digits.
pub fn hex32(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A host name or an address, in brackets if it is one of IPv6, and a port.
pub(super) fn host_and_port(written: &str) -> Option<(String, u16)> {
    if let Some(address) = socket_address(written) {
        return (address.port() > 0).then(|| (address.ip().to_string(), address.port()));
    }
    let (host, port) = written.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host(host).then(|| (host.to_owned(), port))
}

fn socket_address(written: &str) -> Option<SocketAddr> {
    let parsed = written.parse::<SocketAddr>().ok()?;
    Some(match parsed.ip().to_canonical() {
        ip if ip == parsed.ip() => parsed,
        ip => SocketAddr::new(ip, parsed.port()),
    })
}

fn look_up(written: &str, resolve: Resolve<'_>) -> ValueResult<SocketAddr> {
    let hint = "\"10.0.0.1:443\", \"[2001:db8::1]:443\", \"host.example:443\" or \"unix:/run/app.sock\"";
    let not_one = || Bad::new("is not an address").hint(hint);
    let Some((host, port)) = written.rsplit_once(':') else {
        let named = is_host(written) || written.parse::<IpAddr>().is_ok();
        return Err(if named { Bad::new("has no port").hint(hint) } else { not_one() });
    };
    if !is_host(host) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(not_one());
    }
    let found = resolve(written).map_err(|error| Bad::new(format!("cannot be resolved: {error}")))?;
    let least = found.into_iter().map(|one| SocketAddr::new(one.ip().to_canonical(), one.port())).min();
    least.ok_or_else(|| Bad::new("cannot be resolved: it has no address"))
}

/// A name to resolve. One whose last label is a number is a mistyped IPv4 address.
fn is_host(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    ServerName::parse(host).is_some() && !last.bytes().all(|byte| byte.is_ascii_digit())
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
        for written in ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "1h30m", "999999999999d", "5ns"] {
            assert!(any(&string(written)).is_err(), "{written}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for written in ["0s", "1ms", "1500ms", "5s", "90s", "10m", "1h", "36h", "7d"] {
            let read = parse_duration(written).unwrap();
            assert_eq!(show_duration(read), written);
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        for (written, meant) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(network(&string(written)).unwrap().to_string(), meant, "{written}");
        }
        assert_eq!(bind(&string("[::ffff:127.0.0.1]:80")), Ok(Bind::Tcp("127.0.0.1:80".parse().unwrap())));
        assert_eq!(local_ip(&string("::ffff:10.0.0.1")).unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn a_name_resolves_to_the_least_of_its_addresses() {
        let resolve = |_: &str| {
            Ok(["[2001:db8::1]:80", "10.0.0.2:80", "[::ffff:10.0.0.1]:80"].map(|a| a.parse().unwrap()).into())
        };
        let least = Address::Tcp("10.0.0.1:80".parse().unwrap());
        assert_eq!(address(&resolve)(&string("app.example:80")), Ok(least));
    }

    #[test]
    fn what_only_looks_like_a_name_is_not_resolved() {
        let resolve = |name: &str| panic!("{name} was looked up");
        for written in ["10.0.0.300:80", "10.0.0:80", "app:", "app:0", "app:65536", ":80", "a b:80", "app", "", "[::1]"]
        {
            assert!(address(&resolve)(&string(written)).is_err(), "{written}");
        }
    }

    #[test]
    fn numbers_may_be_written_in_any_base() {
        let number = |text| DeValue::parse(text).unwrap().into_inner();
        let read = integer::<u64>(0..=u64::MAX);
        for (written, meant) in [("0xff", 255), ("1_000", 1000), ("18446744073709551615", u64::MAX), ("0", 0)] {
            assert_eq!(read(&number(written)), Ok(meant), "{written}");
        }
        for written in ["-1", "18446744073709551616", "1.0", "true"] {
            assert!(read(&number(written)).is_err(), "{written}");
        }
    }
}
