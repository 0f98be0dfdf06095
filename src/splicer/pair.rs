//! An established pair on its way to another process or worker: [`Flow::freeze`] makes a row leave its worker,
//! [`PairFacts`] is what another process has to know of it, [`Flow::arrived`] is the row there, and [`Flow::thaw`] lets
//! it go on.
//!
//! Sends nothing (`server::upgrade` does). Invariants: a frozen row is in no epoll and holds no pipe, so whatever was
//! read and not written is in its buffers: 64 KiB a way, or a filling of a large pipe, which counts among the large pipes
//! of each process until it is written; a row that was frozen and thawed again, here or elsewhere, goes on as if
//! nothing had happened, because edge-triggered epoll reports every state of a socket anew when it is added.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::flow::{CompactAddress, Flow, Stage, Step, Verdict};
use super::os::{Micros, Os, Side};
use super::preread::Labels;
pub use super::relay::WayFacts;
use super::relay::{Direction, Tools};
use super::timer::WheelLink;
use crate::admission::Permit;
use crate::fault::{Endpoint, Fault};
use crate::limits::Limits;
use crate::outcome::{BreakCause, ClientMove, PickReason};
use crate::pool::Lease;
use crate::server_name::ServerName;
use crate::split::ChosenBy;
use crate::sticky::table::{EntryKind, KeyHash};

/// A pair without a byte for this time is quiet: it may stand still for as long as many others need to be moved.
pub(super) const QUIET_US: Micros = 1_000_000;

/// Facts of a pair, beside its two sockets and the bytes that it owes. Times are ages, because each process has a clock
/// of its own. A field that is missing has its default, and one that is unknown is skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PairFacts {
    /// Number of the connection in logs and headers.
    pub id: u64,
    /// Name of the listener that accepted it.
    pub listener: String,
    /// Name of its pool.
    pub pool: String,
    /// Name of its backend.
    pub backend: String,
    /// Address of its backend, as `IP:PORT` or `unix:PATH`.
    pub address: String,
    /// Address of the client, announced or seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Address of the socket's peer where a PROXY header announced another client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// A PROXY header said LOCAL or UNKNOWN.
    pub local: bool,
    /// Server name of the ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// What the ClientHello has in place of a host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub odd_name: Option<String>,
    /// The ClientHello offers Encrypted ClientHello.
    pub ech: bool,
    /// Name of the split that has chosen the pool, and the word for what chose there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<(String, String)>,
    /// Named range of the pool that contains the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Word for why this backend was picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Word for why the client left the backend that it was known at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broke: Option<String>,
    /// Name of the backend that the client has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Attempts to connect.
    pub attempts: u8,
    /// Microseconds of the successful attempt.
    pub connect_us: u32,
    /// Microseconds since accept.
    pub age_us: u64,
    /// Microseconds since the last byte.
    pub idle_us: u64,
    /// The backend's socket has keepalive and user timeout.
    pub tuned: bool,
    /// Entry in the stick table; `None`: the connection has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryFacts>,
    /// Limit of a relay without a byte, in milliseconds; 0: none.
    pub idle_limit_ms: u32,
    /// Limit of a relay without a byte after one side has closed, in milliseconds; 0: none.
    pub half_close_limit_ms: u32,
    /// Limit of the connection's age, in milliseconds; 0: none.
    pub lifetime_ms: u32,
    /// Age at which the backend's socket gets keepalive, in milliseconds.
    pub tune_ms: u32,
    /// Way from the client to the backend.
    pub up: WayFacts,
    /// Way from the backend to the client.
    pub down: WayFacts,
}

/// Facts of the entry that a connection refreshes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EntryFacts {
    /// Hash of the key, under the secret of the stick tables.
    pub key: u64,
    /// Word for the kind of the entry.
    pub kind: String,
}

/// How many pairs are taken out at once, and stand still until the last of them goes on.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Most pairs on which nothing moves.
    pub quiet: usize,
    /// Most of the others, which are taken out once no pair is quiet.
    pub busy: usize,
}

impl Batch {
    /// So many pairs, whatever they do.
    pub fn of(most: usize) -> Self {
        Self { quiet: most, busy: most }
    }
}

/// A pair that came from another process.
pub struct Arrival<S> {
    /// Socket of the client.
    pub client: S,
    /// Socket of the backend.
    pub backend: S,
    /// Everything else about the pair.
    pub facts: PairFacts,
    /// Bytes owed to the backend.
    pub up: Vec<u8>,
    /// Bytes owed to the client.
    pub down: Vec<u8>,
    /// Permit that counts the connection here.
    pub permit: Permit,
    /// Lease on the backend here.
    pub lease: Lease,
}

impl<O: Os> Flow<O> {
    /// True if both sides are connected: earlier stages are finished where they began.
    pub fn is_pair(&self) -> bool {
        self.stage == Stage::Relay && self.client.is_some() && self.backend.is_some()
    }

    /// True if no byte has moved for a while, and none is held.
    pub fn is_quiet(&self, now: Micros) -> bool {
        self.last_active + QUIET_US <= now && self.up.held() + self.down.held() == 0
    }

    /// Takes the sockets out of epoll and the bytes out of the pipes; the worker takes it off the wheel. After an error the stream is not whole.
    pub fn freeze(&mut self, tools: &mut Tools<'_, O>) -> Result<(), Fault> {
        for socket in self.client.iter().chain(&self.backend) {
            tools.os.unwatch(socket);
        }
        self.queued = false;
        self.up.empty_pipe(tools)?;
        self.down.empty_pipe(tools)
    }

    /// Lets a row go on that was frozen, or that has arrived: its sockets are watched, and it makes one step.
    pub fn thaw(&mut self, step: &mut Step<'_, O>) -> Verdict {
        let sides = [(&self.client, Side::Client, Endpoint::Client), (&self.backend, Side::Backend, Endpoint::Backend)];
        for (socket, side, endpoint) in sides {
            if let Some(socket) = socket
                && let Err(fault) = step.tools.os.watch(socket, step.token.with_side(side))
            {
                return Verdict::End(fault.ending(endpoint));
            }
        }
        for way in [&mut self.up, &mut self.down] {
            way.try_again();
            way.charge_rest(step.tools.pipes);
        }
        self.step(step)
    }

    /// Facts of a frozen row, for another process.
    pub fn facts(&self, now: Micros) -> PairFacts {
        let record = self.record();
        let text = |text: &dyn ToString| text.to_string();
        let entry = |kind: EntryKind| EntryFacts { key: self.key.to_bits(), kind: kind.word().to_owned() };
        PairFacts {
            id: self.id,
            listener: record.listener.to_string(),
            pool: record.pool.map(text_of).unwrap_or_default(),
            backend: record.backend.map(|backend| backend.name().to_owned()).unwrap_or_default(),
            address: record.backend.map(|backend| text(backend.address())).unwrap_or_default(),
            client: record.client,
            peer: record.peer,
            local: record.local,
            sni: record.sni.map(|name| text(name)),
            odd_name: record.odd_name.map(text_of),
            ech: record.ech,
            split: record.split.map(|(split, by)| (text_of(split), by.word().to_owned())),
            range: record.range.map(text_of),
            reason: record.reason.map(|reason| reason.word().to_owned()),
            broke: record.moved.map(|moved| moved.cause.word().to_owned()),
            from: record.moved.and_then(|moved| moved.from.as_ref()).map(text_of),
            attempts: record.attempts,
            connect_us: self.connect_us,
            age_us: now.saturating_sub(self.started),
            idle_us: now.saturating_sub(self.last_active),
            tuned: self.tuned,
            entry: self.settled.map(entry),
            idle_limit_ms: self.limits.idle_ms,
            half_close_limit_ms: self.limits.half_close_ms,
            lifetime_ms: self.limits.lifetime_ms,
            tune_ms: self.limits.tune_ms,
            up: self.up.facts(),
            down: self.down.facts(),
        }
    }

    /// Bytes that a frozen row owes to the backend and to the client.
    pub fn owed(&self) -> [&[u8]; 2] {
        [self.up.rest(), self.down.rest()]
    }

    /// Sockets of the client and the backend.
    pub fn sockets(&self) -> Option<[&O::Socket; 2]> {
        Some([self.client.as_ref()?, self.backend.as_ref()?])
    }

    /// Makes the row of a pair that came from another process. Its first step refreshes the entry in the stick table.
    pub fn arrived(arrival: Arrival<O::Socket>, now: Micros) -> Self {
        let Arrival { client, backend, facts, up, down, permit, lease } = arrival;
        let labels = labels(&facts);
        let entry = facts.entry.as_ref();
        Self {
            link: WheelLink::default(),
            queued: false,
            stage: Stage::Relay,
            client: Some(client),
            backend: Some(backend),
            up: Direction::arrived(&facts.up, up),
            down: Direction::arrived(&facts.down, down),
            client_failed: false,
            backend_failed: false,
            tuned: facts.tuned,
            attempts_made: facts.attempts,
            reason: facts.reason.as_deref().and_then(PickReason::of_word),
            until: now,
            started: now.saturating_sub(facts.age_us),
            last_active: now.saturating_sub(facts.idle_us),
            connect_us: facts.connect_us,
            key: entry.map_or_else(KeyHash::default, |entry| KeyHash::from_bits(entry.key)),
            settled: entry.map(|entry| EntryKind::of_word(&entry.kind).unwrap_or(EntryKind::Placed)),
            limits: Limits {
                idle_ms: facts.idle_limit_ms,
                half_close_ms: facts.half_close_limit_ms,
                lifetime_ms: facts.lifetime_ms,
                tune_ms: facts.tune_ms,
            },
            permit,
            lease: Some(lease),
            source: facts.client.map(CompactAddress::from),
            preread: None,
            labels,
            id: facts.id,
        }
    }
}

fn text_of(text: &Arc<str>) -> String {
    text.to_string()
}

/// Labels of a row, if it has any.
fn labels(facts: &PairFacts) -> Option<Box<Labels>> {
    let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
    let cause = facts.broke.as_deref().and_then(BreakCause::of_word);
    let split = facts.split.as_ref().and_then(|(split, by)| Some((Arc::from(&**split), ChosenBy::of_word(by)?)));
    let labels = Labels {
        split,
        sni: facts.sni.as_deref().and_then(ServerName::parse),
        odd_name: shared(&facts.odd_name),
        ech: facts.ech,
        range: shared(&facts.range),
        peer: facts.peer,
        local: facts.local,
        pool: None,
        moved: cause.map(|cause| ClientMove { from: shared(&facts.from), cause }),
    };
    (labels != Labels::default()).then(|| Box::new(labels))
}

#[cfg(test)]
mod tests;
