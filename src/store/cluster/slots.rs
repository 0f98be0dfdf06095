//! [`SlotMap`]: which node of a cluster has which of the 16,384 slots, and [`SlotRedirect`]: what a node says of a slot
//! that it has not.
//!
//! Opens no connection. The formats are those of the Redis Cluster specification, which Valkey has kept: the slot of a key,
//! the reply to CLUSTER SLOTS, and the errors MOVED and ASK. Invariant: at most [`NODES_MAX`] nodes, and no text of a node
//! becomes an address unless it is a host and a port.

use std::ops::Range;
use std::sync::Arc;

use crc::{CRC_16_XMODEM, Crc};
use redis::Value;

use crate::config::StoreAddress;

/// Most nodes with slots that are used; each costs a connection.
pub(in crate::store) const NODES_MAX: usize = 256;

/// Number of slots.
const SLOTS: usize = 16_384;
/// In place of a node: none has the slot.
const NONE: u16 = u16::MAX;
/// Longest name of a host (RFC 1035 §2.3.4).
const HOST_MAX: usize = 255;

const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of a key: the checksum of the key, or of the part in its first braces.
pub(in crate::store) fn slot_of(key: &str) -> usize {
    let key = key.as_bytes();
    let hash_tag = || {
        let from = key.iter().position(|byte| *byte == b'{')? + 1;
        let rest = key.get(from..)?;
        rest.iter().position(|byte| *byte == b'}').filter(|end| *end > 0).and_then(|end| rest.get(..end))
    };
    usize::from(CRC16.checksum(hash_tag().unwrap_or(key))) % SLOTS
}

/// The nodes that have slots.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct SlotMap {
    nodes: Vec<Arc<StoreAddress>>,
    /// Index of the node of each slot, or [`NONE`]; empty before the first reply.
    by_slot: Vec<u16>,
}

impl SlotMap {
    /// Reads the reply to CLUSTER SLOTS. `asked`: the server that has sent it; its host stands for one that is not named.
    pub(in crate::store) fn read(reply: Value, asked: &StoreAddress) -> Result<Self, String> {
        let unread = || "its slots cannot be read".to_owned();
        let Value::Array(ranges) = reply else { return Err(unread()) };
        let (mut map, mut count) = (Self { nodes: Vec::new(), by_slot: vec![NONE; SLOTS] }, 0);
        for range in ranges {
            let (slots, node) = slot_range(&range).ok_or_else(unread)?;
            count += slots.len();
            if count > SLOTS {
                return Err(unread());
            }
            // A node of which the cluster knows no address has its slots all the same.
            let Some(node) = node.and_then(|(host, port)| address(host, port, asked)) else { continue };
            let Some(index) = map.index(&node) else {
                return Err(format!("it has more than {NODES_MAX} nodes with slots"));
            };
            map.by_slot[slots].fill(index);
        }
        if map.nodes.is_empty() { Err("no node of it has slots".to_owned()) } else { Ok(map) }
    }

    /// The node that has the slot of a key.
    pub(in crate::store) fn node(&self, key: &str) -> Option<&Arc<StoreAddress>> {
        self.nodes.get(usize::from(*self.by_slot.get(slot_of(key))?))
    }

    /// Takes note that a node has a slot from now on, unless there are too many nodes.
    pub(in crate::store) fn moved(&mut self, slot: usize, to: &StoreAddress) {
        let Some(index) = self.index(to) else { return };
        self.by_slot.resize(SLOTS, NONE);
        if let Some(node) = self.by_slot.get_mut(slot) {
            *node = index;
        }
    }

    /// Index of a node, which may be new; `None`: there are too many.
    fn index(&mut self, node: &StoreAddress) -> Option<u16> {
        let known = self.nodes.iter().position(|known| **known == *node);
        let index = known.unwrap_or(self.nodes.len());
        if index >= NODES_MAX {
            return None;
        }
        if known.is_none() {
            self.nodes.push(Arc::new(node.clone()));
        }
        Some(index as u16)
    }

    /// Each node that has slots, and their number.
    pub(in crate::store) fn nodes(&self) -> impl Iterator<Item = (&Arc<StoreAddress>, usize)> {
        let mut counts = vec![0; self.nodes.len()];
        for index in &self.by_slot {
            if let Some(count) = counts.get_mut(usize::from(*index)) {
                *count += 1;
            }
        }
        self.nodes.iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// Whether every slot has a node.
    pub(in crate::store) fn is_whole(&self) -> bool {
        !self.by_slot.is_empty() && !self.by_slot.contains(&NONE)
    }
}

/// Another node that has a slot, or gets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::store) struct SlotRedirect {
    /// The slot has moved; otherwise it is about to move, and the node is to be asked for this key alone.
    pub(in crate::store) is_moved: bool,
    pub(in crate::store) slot: usize,
    host: String,
    port: u16,
}

impl SlotRedirect {
    /// Reads `MOVED SLOT HOST:PORT` or `ASK SLOT HOST:PORT`; `None`: another error.
    pub(in crate::store) fn read(error: &str) -> Option<Self> {
        let mut words = error.split_ascii_whitespace();
        let is_moved = match words.next()? {
            "MOVED" => true,
            "ASK" => false,
            _ => return None,
        };
        let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
        // An IPv6 address has no brackets here.
        let (host, port) = words.next()?.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        is_host(host).then(|| Self { is_moved, slot, host: host.to_owned(), port })
    }

    /// The other node. `asked`: the node that has sent this; its host stands for one that is not named.
    pub(in crate::store) fn address(&self, asked: &StoreAddress) -> Option<StoreAddress> {
        address(Some(&self.host), self.port, asked)
    }
}

/// One range of slots in the reply to CLUSTER SLOTS: the slots, and host and port of their primary, which stands before its
/// replicas.
type SlotRange<'r> = (Range<usize>, Option<(Option<&'r str>, u16)>);

fn slot_range(range: &Value) -> Option<SlotRange<'_>> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = &parts[..] else { return None };
    let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
    let [host, Value::Int(port), ..] = &node[..] else { return None };
    let host = match host {
        Value::BulkString(host) => Some(std::str::from_utf8(host).ok()?),
        Value::SimpleString(host) => Some(host.as_str()),
        _ => None,
    };
    let port = u16::try_from(*port).ok().filter(|port| *port > 0);
    (first <= last && last < SLOTS).then(|| (first..last + 1, port.map(|port| (host, port))))
}

/// Address of a node; `None`: the cluster does not know it.
fn address(host: Option<&str>, port: u16, asked: &StoreAddress) -> Option<StoreAddress> {
    let host = match host.filter(|host| !host.is_empty()) {
        Some("?") => return None,
        Some(host) => Some(host).filter(|host| is_host(host)),
        None => match asked {
            StoreAddress::Tcp(host, _) => Some(host.as_str()),
            StoreAddress::Unix(_) => None,
        },
    };
    host.map(|host| StoreAddress::Tcp(host.to_owned(), port))
}

/// Whether a text can be a host name or an IP address; an empty one stands for the host of the server itself.
fn is_host(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    text == "?" || text.len() <= HOST_MAX && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests;
