//! [`addresses`]: the addresses of a name in the text of `/etc/hosts` (hosts(5)).
//!
//! Reads no file. Invariant: what is no line of addresses and names costs itself alone.

use std::net::IpAddr;

/// The addresses that lines have for a name, in any case of its letters, each once and the lowest first; IPv4 alone if
/// there are both.
pub(super) fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let has_name = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next()?.parse::<IpAddr>().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then(|| address.to_canonical())
    };
    let mut all: Vec<_> = text.lines().filter_map(has_name).collect();
    all.sort_unstable();
    all.dedup();
    if all.first().is_some_and(IpAddr::is_ipv4) {
        all.retain(IpAddr::is_ipv4);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # loopback\n10.0.0.2  web web.example # a\n\
                        10.0.0.1 Web\n2001:db8::1 web six\n#10.0.0.3 off\nnonsense web\n10.0.0.4\n10.0.0.2 web\n\
                        10.0.0.5 # web\n::ffff:10.0.0.9 mapped";

    #[test]
    fn every_line_of_a_name_counts_and_a_name_with_both_families_is_ipv4() {
        let of = |name: &str| addresses(TEXT, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("web"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(of("WEB.example"), ["10.0.0.2"]);
        assert_eq!(of("six"), ["2001:db8::1"]);
        assert_eq!(of("mapped"), ["10.0.0.9"]);
        for none in ["off", "a", "10.0.0.2", "", "example", "#"] {
            assert!(of(none).is_empty(), "{none}");
        }
    }
}
