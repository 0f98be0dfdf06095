//! Named ranges of source addresses: the longest matching prefix wins.
//!
//! Ranges nest or are disjoint, so each family is flattened once into a sorted list of addresses at which the answer
//! changes; a look-up is one binary search. Places no client. Invariant: a look-up gives the range with the longest
//! prefix among all that contain the address, and allocates nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config;

/// Sources that have a rule of their own.
#[derive(Debug, Clone)]
pub struct Range {
    /// Name of the range, for logs and `explain`.
    pub name: Arc<str>,
    /// Network of the sources, in canonical form.
    pub cidr: IpNet,
    /// Rule that applies to these sources.
    pub rule: Rule,
}

/// Rules for the sources of a range; backends are indexes into the pool.
#[derive(Debug, Clone)]
pub enum Rule {
    /// All sources of the range share one key.
    One,
    /// The source is cut to this prefix instead of the pool's.
    Prefix(u8),
    /// Only these backends may serve the range.
    Pin(Pin),
}

/// Backends that a range is pinned to.
#[derive(Debug, Clone)]
pub struct Pin {
    /// Indexes in rising order, for binary search.
    backends: Box<[usize]>,
    /// True: if none of the backends can serve, no other may.
    pub strict: bool,
}

impl Pin {
    /// Whether the backend at this index may serve the range.
    #[inline]
    pub fn allows(&self, index: usize) -> bool {
        self.backends.binary_search(&index).is_ok()
    }
}

/// All ranges of a pool, ready for look-ups.
#[derive(Debug, Default)]
pub struct Ranges {
    ranges: Box<[Range]>,
    v4: Steps<u32>,
    v6: Steps<u128>,
}

impl Ranges {
    /// Prepares the ranges. `index_of` finds a backend of the pool by name; unknown names are left out.
    pub fn new(ranges: &[config::Range], index_of: impl Fn(&str) -> Option<usize>) -> Self {
        let ranges: Box<[Range]> = ranges.iter().map(|range| prepared(range, &index_of)).collect();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (index, range) in ranges.iter().enumerate() {
            match range.cidr {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), index)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), index)),
            }
        }
        Self { v4: Steps::new(v4, |last| last.checked_add(1)), v6: Steps::new(v6, |last| last.checked_add(1)), ranges }
    }

    /// Whether the backend at this index may serve every range.
    pub fn all_allow(&self, index: usize) -> bool {
        self.ranges.iter().all(|range| match &range.rule {
            Rule::Pin(pin) => pin.allows(index),
            Rule::One | Rule::Prefix(_) => true,
        })
    }

    /// The range with the longest prefix that contains the address.
    #[inline]
    pub fn find(&self, source: IpAddr) -> Option<&Range> {
        let index = match source.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        };
        index.map(|index| &self.ranges[index])
    }
}

/// Ranges of one family: from each address on, up to the next one, this range is the innermost (or there is none).
#[derive(Debug, Default)]
struct Steps<A>(Box<[(A, Option<usize>)]>);

impl<A: Ord + Copy> Steps<A> {
    /// Flattens spans (first, last, index) that nest or are disjoint. Of two equal spans the first one written wins.
    fn new(mut spans: Vec<(A, A, usize)>, next: impl Fn(A) -> Option<A>) -> Self {
        // Outer spans before inner ones, so that a span's parent is open when the span comes.
        spans.sort_by_key(|(first, last, index)| (*first, std::cmp::Reverse(*last), *index));
        spans.dedup_by_key(|(first, last, _)| (*first, *last));
        let mut steps: Vec<(A, Option<usize>)> = Vec::with_capacity(2 * spans.len());
        let mut open: Vec<(A, usize)> = Vec::new();
        for span in spans.into_iter().map(Some).chain([None]) {
            // A span that ends before this one begins gives way to the span around it.
            while let Some((last, _)) = open.pop_if(|(last, _)| span.is_none_or(|(first, ..)| *last < first)) {
                if let Some(after) = next(last) {
                    steps.push((after, open.last().map(|(_, index)| *index)));
                }
            }
            if let Some((first, last, index)) = span {
                steps.push((first, Some(index)));
                open.push((last, index));
            }
        }
        // Of several steps at one address the last one is valid.
        steps.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        Self(steps.into())
    }

    #[inline]
    fn find(&self, address: A) -> Option<usize> {
        let after = self.0.partition_point(|(from, _)| *from <= address);
        after.checked_sub(1).and_then(|at| self.0[at].1)
    }
}

fn prepared(range: &config::Range, index_of: &impl Fn(&str) -> Option<usize>) -> Range {
    let rule = match &range.rule {
        config::RangeRule::One => Rule::One,
        config::RangeRule::Prefix(prefix) => Rule::Prefix(*prefix),
        config::RangeRule::Pin { backends, strict } => {
            let mut backends: Box<[usize]> = backends.iter().filter_map(|name| index_of(name)).collect();
            backends.sort_unstable();
            Rule::Pin(Pin { backends, strict: *strict })
        }
    };
    Range { name: range.name.as_str().into(), cidr: config::canonical_network(range.cidr).trunc(), rule }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RangeRule;
    use proptest::prelude::*;

    fn named(cidrs: &[IpNet]) -> Vec<config::Range> {
        let range = |(index, cidr): (usize, &IpNet)| config::Range {
            name: index.to_string(),
            cidr: *cidr,
            rule: RangeRule::One,
        };
        cidrs.iter().enumerate().map(range).collect()
    }

    fn find(ranges: &Ranges, source: &str) -> Option<String> {
        ranges.find(source.parse().unwrap()).map(|range| range.name.to_string())
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let cidrs = ["10.1.0.0/16", "10.0.0.0/8", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32"];
        let ranges = Ranges::new(&named(&cidrs.map(|cidr| cidr.parse().unwrap())), |_| None);
        for (source, index) in [("10.1.2.3", "2"), ("10.1.2.4", "0"), ("10.2.0.0", "1"), ("255.255.255.255", "3")] {
            assert_eq!(find(&ranges, source).as_deref(), Some(index), "{source}");
        }
        assert_eq!(find(&ranges, "2001:db8::1").as_deref(), Some("4"));
        assert_eq!(find(&ranges, "2001:db9::1"), None);
        assert_eq!(find(&Ranges::default(), "10.0.0.1"), None);
    }

    #[test]
    fn mapped_addresses_and_networks_are_ipv4() {
        let ranges = Ranges::new(&named(&["::ffff:10.0.0.0/104".parse().unwrap()]), |_| None);
        assert_eq!(find(&ranges, "10.9.9.9").as_deref(), Some("0"));
        assert_eq!(find(&ranges, "::ffff:10.9.9.9").as_deref(), Some("0"));
    }

    #[test]
    fn a_pin_allows_its_backends_only() {
        let rule = RangeRule::Pin { backends: vec!["c".into(), "a".into()], strict: true };
        let range = config::Range { name: "hq".into(), cidr: "10.0.0.0/8".parse().unwrap(), rule };
        let ranges = Ranges::new(&[range], |name| ["a", "b", "c"].iter().position(|known| *known == name));
        let Rule::Pin(pin) = &ranges.find("10.0.0.1".parse().unwrap()).unwrap().rule else { panic!("a pin") };
        assert!(pin.strict);
        assert_eq!([0, 1, 2].map(|index| pin.allows(index)), [true, false, true]);
    }

    #[test]
    fn of_two_equal_ranges_the_first_written_wins() {
        let twice: IpNet = "10.0.0.0/8".parse().unwrap();
        let ranges = Ranges::new(&named(&[twice, twice]), |_| None);
        assert_eq!(find(&ranges, "10.0.0.1").as_deref(), Some("0"));
    }

    /// Networks close together, most of them small, so that they nest, touch and repeat.
    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        let wide = |bits: u8| prop_oneof![3 => 0_u8..=6, 1 => 0_u8..=bits];
        let v4 = (any::<bool>(), 0_u8..64, wide(32)).prop_map(|(top, low, cleared)| {
            let bits = if top { u32::MAX << 6 } else { 0x0a00_0000 } | u32::from(low);
            IpNet::new(IpAddr::V4(bits.into()), 32 - cleared).unwrap()
        });
        let v6 = (any::<bool>(), 0_u8..64, wide(128)).prop_map(|(top, low, cleared)| {
            let bits = if top { u128::MAX << 6 } else { 0x2001 << 112 } | u128::from(low);
            IpNet::new(IpAddr::V6(bits.into()), 128 - cleared).unwrap()
        });
        proptest::collection::vec(prop_oneof![v4, v6], 0..40)
    }

    proptest! {
        #[test]
        fn a_look_up_equals_the_naive_longest_prefix(nets in nets(), strangers: Vec<[u8; 4]>) {
            let ranges = Ranges::new(&named(&nets), |_| None);
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast(), net.addr()]);
            let near = edges.flat_map(|edge| match edge {
                IpAddr::V4(a) => [-1, 0, 1].map(|by| IpAddr::V4(a.to_bits().wrapping_add_signed(by).into())),
                IpAddr::V6(a) => [-1, 0, 1].map(|by| IpAddr::V6(a.to_bits().wrapping_add_signed(by).into())),
            });
            for source in near.chain(strangers.into_iter().map(IpAddr::from)) {
                let longest = nets.iter().filter(|net| net.contains(&source)).map(|net| net.prefix_len()).max();
                let found = ranges.find(source);
                prop_assert_eq!(found.map(|range| range.cidr.prefix_len()), longest, "{}", source);
                prop_assert!(found.is_none_or(|range| range.cidr.contains(&source)));
            }
        }
    }
}
