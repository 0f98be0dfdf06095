//! [`BackendOrder`]: what an operator orders of one backend at run time, by names alone, and [`OrderOrigin`]: where the
//! order was given.
//!
//! Applies nothing (`server::orders` does) and knows no configuration: an address is a text here. Invariant: an order
//! means the same wherever it is read, on the admin socket, in the state file or from another instance; unknown fields
//! are skipped, and missing ones have a default.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Weight of a backend where none is given.
const WEIGHT: u16 = 1;

/// An order about one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendOrder {
    /// Name of the pool.
    pub pool: Box<str>,
    /// Name of the backend.
    pub backend: Box<str>,
    /// What is ordered.
    #[serde(flatten)]
    pub kind: OrderKind,
}

/// What can be ordered of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum OrderKind {
    /// Serve known clients only; after `drain_deadline`, no client.
    Drain,
    /// Serve no client from now on, and close open connections.
    Close,
    /// Serve every client again; also ends a removal.
    Ready,
    /// Have another weight.
    Weight {
        /// The weight, 0 to 256; `None`: as configured.
        weight: Option<u16>,
    },
    /// Be at another address; open connections stay at the old one.
    Address {
        /// `IP:PORT` or `unix:/PATH`; `None`: as configured.
        address: Option<Box<str>>,
    },
    /// Be a backend of the pool.
    Add(NewBackend),
    /// Leave the pool.
    Remove {
        /// At once, instead of when no client needs the backend.
        #[serde(default)]
        now: bool,
    },
}

impl OrderKind {
    /// The word of the order on the command line and in a path of the admin interface.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Close => "close",
            Self::Ready => "ready",
            Self::Weight { .. } => "weight",
            Self::Address { .. } => "address",
            Self::Add(_) => "add",
            Self::Remove { .. } => "remove",
        }
    }
}

/// A backend that no file and no source names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBackend {
    /// `IP:PORT` or `unix:/PATH`.
    pub address: Box<str>,
    /// Weight, 0 to 256.
    #[serde(default = "weight")]
    pub weight: u16,
    /// Levels of the location, outermost first: `dc1/host3`; empty: none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub location: Box<str>,
    /// Most connections at the same time; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

impl NewBackend {
    /// A backend of which only the address is given.
    pub fn at(address: impl Into<Box<str>>) -> Self {
        Self { address: address.into(), weight: WEIGHT, location: Box::default(), max_connections: None }
    }
}

/// Where an order was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderOrigin {
    /// By a command to this process.
    #[default]
    Command,
    /// At another instance of the fleet, of this name.
    Instance(Box<str>),
}

impl fmt::Display for OrderOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command => f.write_str("by command"),
            Self::Instance(name) => write!(f, "by instance {name}"),
        }
    }
}

/// Why an order has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderRefusal {
    /// There is no such pool or backend.
    Unknown(String),
    /// The order cannot be carried out.
    Refused(String),
}

impl fmt::Display for OrderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unknown(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

fn weight() -> u16 {
    WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_the_same_after_it_was_written_and_read() {
        let added = NewBackend { location: "dc1/h2".into(), max_connections: Some(9), ..NewBackend::at("10.0.0.9:80") };
        let kinds = [
            (OrderKind::Drain, r#"{"pool":"web","backend":"a","order":"drain"}"#),
            (OrderKind::Weight { weight: None }, r#"{"pool":"web","backend":"a","order":"weight","weight":null}"#),
            (
                OrderKind::Address { address: Some("[::1]:80".into()) },
                r#"{"pool":"web","backend":"a","order":"address","address":"[::1]:80"}"#,
            ),
            (
                OrderKind::Add(added),
                r#"{"pool":"web","backend":"a","order":"add","address":"10.0.0.9:80","weight":1,"location":"dc1/h2","max_connections":9}"#,
            ),
            (OrderKind::Remove { now: true }, r#"{"pool":"web","backend":"a","order":"remove","now":true}"#),
        ];
        for (kind, text) in kinds {
            let order = BackendOrder { pool: "web".into(), backend: "a".into(), kind };
            assert_eq!(serde_json::to_string(&order).unwrap(), text);
            assert_eq!(serde_json::from_str::<BackendOrder>(text).unwrap(), order);
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_missing_ones_have_a_default() {
        let text = r#"{"pool":"p","backend":"b","order":"add","address":"10.0.0.1:1","colour":"blue"}"#;
        let order: BackendOrder = serde_json::from_str(text).unwrap();
        assert_eq!(order.kind, OrderKind::Add(NewBackend::at("10.0.0.1:1")));
        assert!(serde_json::from_str::<BackendOrder>(r#"{"pool":"p","backend":"b","order":"paint"}"#).is_err());
    }
}
