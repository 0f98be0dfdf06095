//! The messages between the process that leaves and the one that follows it.
//!
//! Sends nothing (`channel.rs` does). Every field has a default and unknown fields are skipped, so that a process speaks
//! to the version before it and the version after it; what cannot be said so has another protocol version. Invariant:
//! what is written here is a promise to other versions, kept by the texts in the tests.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::splicer::pair::PairFacts;

/// The oldest and the newest version of the protocol that this process speaks.
pub const VERSIONS: [u32; 2] = [1, 1];

/// Kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Both ways, first: a [`Hello`].
    Hello = 1,
    /// From the old process: [`Addresses`] with their listening sockets; as many messages as are needed.
    Addresses = 2,
    /// From the old process: a [`State`], with lock and sockets of the admin interface.
    State = 3,
    /// From the new process: it could serve; [`Ready`].
    Ready = 4,
    /// From the new process: why it cannot serve; [`Refused`].
    Refused = 5,
    /// From the old process: [`Pairs`], with two sockets each; also after the commit.
    Pairs = 6,
    /// From the new process: it holds the pairs of the last message; [`Taken`].
    Taken = 7,
    /// From the old process: it accepts no more; [`Commit`], with the stick tables.
    Commit = 8,
    /// From the new process: it accepts from here on; [`Committed`].
    Committed = 9,
    /// From the program that has started the new process: [`Launched`].
    Launched = 10,
    /// From the old process, last: [`LastTables`], with the stick tables of then.
    LastTables = 11,
    /// From the old process, after the commit: an [`Earlier`], with its end of the channel to that process.
    Earlier = 12,
}

impl Kind {
    /// Every kind, by number from 1.
    const ALL: [Self; 12] = [
        Self::Hello,
        Self::Addresses,
        Self::State,
        Self::Ready,
        Self::Refused,
        Self::Pairs,
        Self::Taken,
        Self::Commit,
        Self::Committed,
        Self::Launched,
        Self::LastTables,
        Self::Earlier,
    ];

    /// The kind with this number; `None`: another version has it.
    pub fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// Which process this is, and what it speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Oldest version of the protocol.
    pub oldest: u32,
    /// Newest version of the protocol.
    pub newest: u32,
    /// Version of the program.
    pub version: String,
    /// Number of the process.
    pub pid: u32,
}

impl Hello {
    /// The greeting of this process.
    pub fn own() -> Self {
        let [oldest, newest] = VERSIONS;
        Self { oldest, newest, version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() }
    }

    /// The newest version that both processes speak; an error names what each speaks.
    pub fn common(&self) -> Result<u32, String> {
        let [oldest, newest] = VERSIONS;
        let common = newest.min(self.newest);
        match common >= oldest.max(self.oldest).max(1) {
            true => Ok(common),
            false => Err(format!(
                "sessile {} speaks the versions {} to {} of the upgrade protocol, and sessile {} the versions {oldest} \
                 to {newest}",
                self.version,
                self.oldest,
                self.newest,
                env!("CARGO_PKG_VERSION"),
            )),
        }
    }
}

/// Addresses that the old process listens on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addresses {
    /// One for each address; their sockets follow in this order.
    pub addresses: Vec<AddressFacts>,
}

/// One address with its sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressFacts {
    /// Number of the address in the old process.
    pub number: u32,
    /// Name of the listener; empty for a socket from systemd that no listener has.
    pub listener: String,
    /// Index of the address among those of the listener.
    pub index: usize,
    /// Address as the configuration writes it, with port 0 if the kernel chose it.
    pub bind: String,
    /// How many sockets it has.
    pub sockets: usize,
    /// Device and inode of the file of a unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<[u64; 2]>,
}

/// What the new process begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Secret of the stick tables, 32 hexadecimal digits.
    pub secret: String,
    /// Pairs and conversations that are open: the new process makes room for as many.
    pub open: usize,
    /// The lock of the admin socket is the first descriptor.
    pub lock: bool,
    /// Path of the admin socket; its descriptor is the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_socket: Option<PathBuf>,
    /// Address of the admin port; its descriptor is the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_http: Option<SocketAddr>,
    /// What commands and time have made of the backends.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub runtime: Value,
}

/// The new process has read its file, and everything that can fail has succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ready {
    /// Numbers of the addresses that it goes on to serve; the others are to be closed.
    pub keeps: Vec<u32>,
    /// How many descriptors it may open.
    pub descriptors: u64,
    /// It serves another admin socket, or none: the file of the old one is to be removed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaves_admin_socket: bool,
}

/// Why the new process cannot serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// One sentence for each problem, with line and column where it is one of the file.
    pub problems: Vec<String>,
}

/// Established pairs of one worker. The bytes that they owe follow in this order: of each pair those for the backend
/// first, then those for the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pairs {
    /// Number of the worker.
    pub worker: usize,
    /// One for each pair; its sockets are those of the client and of the backend.
    pub pairs: Vec<PairFacts>,
}

/// The new process holds the pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Taken {
    /// How many.
    pub pairs: usize,
}

/// The old process accepts no more. The first descriptor has the stick tables, in the format of the stick-table file;
/// without one there are none to be had. Others are closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {
    /// How many connections a worker has numbered at most.
    pub numbered: u64,
    /// What commands and time have made of the backends.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub runtime: Value,
}

/// The new process accepts from here on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Committed {}

/// The new process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Launched {
    /// Number of the new process.
    pub pid: u32,
}

/// What the last conversations of the old process have made of its stick tables. A descriptor has them, as at the commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastTables {}

/// A process before the old one that still finishes conversations. The descriptor is the new process's end of the
/// channel to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Earlier {
    /// Its number.
    pub pid: u32,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn agreed<D: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(document: &D, text: &str) {
        assert_eq!(serde_json::to_string(document).unwrap(), text);
        assert_eq!(serde_json::from_str::<D>(text).unwrap(), *document);
        let with_more = format!("{{\"more\":[1],{}", &text[1..]).replace(",}", "}");
        assert_eq!(serde_json::from_str::<D>(&with_more).unwrap(), *document, "unknown fields are skipped");
        serde_json::from_str::<D>("{}").expect("missing fields have their default");
    }

    #[test]
    fn the_words_of_messages_are_as_agreed() {
        agreed(
            &Hello { oldest: 1, newest: 2, version: "0.1.0".into(), pid: 9 },
            r#"{"oldest":1,"newest":2,"version":"0.1.0","pid":9}"#,
        );
        let address = AddressFacts {
            number: 3,
            listener: "web".into(),
            index: 1,
            bind: "0.0.0.0:443".into(),
            sockets: 2,
            file: None,
        };
        agreed(
            &Addresses { addresses: vec![address.clone()] },
            r#"{"addresses":[{"number":3,"listener":"web","index":1,"bind":"0.0.0.0:443","sockets":2}]}"#,
        );
        agreed(
            &AddressFacts { bind: "unix:/a".into(), sockets: 1, file: Some([5, 6]), ..address },
            r#"{"number":3,"listener":"web","index":1,"bind":"unix:/a","sockets":1,"file":[5,6]}"#,
        );
        let state = State {
            secret: "00ff".into(),
            open: 4,
            lock: true,
            admin_socket: Some("/run/admin.sock".into()),
            admin_http: Some("127.0.0.1:9100".parse().unwrap()),
            runtime: serde_json::json!({ "version": 1 }),
        };
        agreed(
            &state,
            concat!(
                r#"{"secret":"00ff","open":4,"lock":true,"admin_socket":"/run/admin.sock","#,
                r#""admin_http":"127.0.0.1:9100","runtime":{"version":1}}"#
            ),
        );
        agreed(&State::default(), r#"{"secret":"","open":0,"lock":false}"#);
        let ready = Ready { keeps: vec![3], descriptors: 1024, leaves_admin_socket: false };
        agreed(&ready, r#"{"keeps":[3],"descriptors":1024}"#);
        agreed(
            &Ready { leaves_admin_socket: true, ..ready },
            r#"{"keeps":[3],"descriptors":1024,"leaves_admin_socket":true}"#,
        );
        agreed(&Refused { problems: vec!["s.toml:1:1: no".into()] }, r#"{"problems":["s.toml:1:1: no"]}"#);
        agreed(&Pairs { worker: 1, pairs: Vec::new() }, r#"{"worker":1,"pairs":[]}"#);
        agreed(&Taken { pairs: 2 }, r#"{"pairs":2}"#);
        agreed(&Commit { numbered: 5, runtime: Value::Null }, r#"{"numbered":5}"#);
        agreed(&Committed {}, "{}");
        agreed(&Launched { pid: 7 }, r#"{"pid":7}"#);
        agreed(&LastTables {}, "{}");
        agreed(&Earlier { pid: 6 }, r#"{"pid":6}"#);
    }

    #[test]
    fn the_numbers_of_kinds_are_as_agreed() {
        use Kind::*;
        let all =
            [Hello, Addresses, State, Ready, Refused, Pairs, Taken, Commit, Committed, Launched, LastTables, Earlier];
        assert_eq!(all.map(|kind| kind as u16), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(all.map(|kind| Kind::of(kind as u16)), all.map(Some));
        assert_eq!((Kind::of(0), Kind::of(13)), (None, None), "a later version may have more");
    }

    #[test]
    fn the_newest_common_version_is_spoken_and_none_is_refused_by_name() {
        let other = |oldest, newest| Hello { oldest, newest, version: "9.9".into(), pid: 1 }.common();
        assert_eq!((other(1, 1), other(1, 7)), (Ok(1), Ok(1)));
        for (oldest, newest) in [(2, 7), (0, 0)] {
            let refused = other(oldest, newest).unwrap_err();
            assert!(refused.starts_with("sessile 9.9 speaks the versions"), "{refused}");
        }
    }
}
