//! [`EarlyCloses`]: connections in a row that a backend has ended before its first byte, by the clients that had them.
//!
//! Ejects nothing and reads no clock. A client can make a backend do that, by bytes that the backend does not take, so
//! each source counts once until there are [`SOURCES_MIN`] of them, and fewer count for nothing. Invariants: clients of
//! fewer sources than that eject no backend, whatever they send; what is held does not grow.

use std::net::{IpAddr, Ipv4Addr};

/// Sources of which connections must have ended early before any of them counts.
pub const SOURCES_MIN: usize = 3;

/// Early closes of one backend since its last first byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EarlyCloses {
    /// The first different sources.
    sources: [Option<IpAddr>; SOURCES_MIN],
    /// Connections so far, one of each source until there are enough sources.
    seen: u32,
}

impl EarlyCloses {
    /// Notes a connection of this source; `None`: of a unix peer, which all are one. An IPv6 source is a network, of which
    /// one client has all addresses.
    pub fn note(&mut self, source: Option<IpAddr>) {
        let source = source.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let is_known = self.sources.contains(&Some(source));
        if is_known && !self.is_enough() {
            return;
        }
        if let Some(free) = self.sources.iter_mut().find(|known| known.is_none()).filter(|_| !is_known) {
            *free = Some(source);
        }
        self.seen = self.seen.saturating_add(1);
    }

    /// Connections that were seen, whether they count or not.
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// Failed connections in a row that these are.
    pub fn failures(&self) -> u32 {
        if self.is_enough() { self.seen } else { 0 }
    }

    fn is_enough(&self) -> bool {
        self.sources.iter().all(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(sources: &[Option<u8>]) -> Vec<u32> {
        let mut closes = EarlyCloses::default();
        let note = |source: &Option<u8>| {
            closes.note(source.map(|last| [192, 0, 2, last].into()));
            closes.failures()
        };
        sources.iter().map(note).collect()
    }

    #[test]
    fn fewer_than_three_sources_count_for_nothing_however_often() {
        assert_eq!(failures(&[Some(1); 9]), [0; 9]);
        assert_eq!(failures(&[None; 9]), [0; 9], "a unix peer");
        let two: Vec<_> = [Some(1), None].into_iter().cycle().take(1_000).collect();
        assert_eq!(failures(&two), [0; 1_000]);
    }

    #[test]
    fn each_source_counts_once_until_there_are_three_and_each_connection_from_then_on() {
        let [a, b, c, d] = [1, 2, 3, 4].map(Some);
        assert_eq!(failures(&[a, a, b, a, b, c]), [0, 0, 0, 0, 0, 3]);
        assert_eq!(failures(&[a, b, c, d, d, a, None]), [0, 0, 3, 4, 5, 6, 7]);
    }
}
