//! [`DnsName`]: a name in DNS of which the records are the backends of a pool.
//!
//! Asks nothing (`discovery::dns` does). Invariant: the name is in lower case and without its last dot, so that two
//! spellings of one name are equal.

use std::fmt;

/// A name, and which of its records are backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName {
    /// Full name of the records; no search list is used.
    pub name: String,
    /// Records that stand for backends.
    pub records: DnsRecords,
}

/// The records that stand for backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsRecords {
    /// SRV records, which have ports.
    Services(DnsIdentity),
    /// A records, or AAAA records where there is no A record; all backends have this port.
    Addresses(u16),
}

/// What a backend of an SRV record is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsIdentity {
    /// The first label of the target, which is the name of a pod of a StatefulSet.
    Target,
    /// The address and port.
    Address,
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.records {
            DnsRecords::Services(_) => write!(f, "dns {}", self.name),
            DnsRecords::Addresses(port) => write!(f, "dns {} port {port}", self.name),
        }
    }
}
