//! [`Explanation`]: a pool's [`Decision`] about one client, in words.
//!
//! Decides nothing and lays out no text. Invariant: `choice` is the backend that the pool picks, and absent where only
//! the moment decides.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::KeyPart;
use crate::outcome::PickReason;
use crate::pool::explain::{CandidateBackend, DecidingKey, Decision, Exclusion};
use crate::pool::{AwaitedPlace, Pool};
use crate::proxy_protocol;
use crate::sticky::cookie::CookieVerdict;
use crate::sticky::key::{Key, SourceAs, cut};
use crate::sticky::table::{KeyHash, TableLookup};
use crate::sticky::{Facts, Left};

/// Where a client goes in a pool, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the pool.
    pub pool: String,
    /// Balancing method of the pool.
    pub balance: String,
    /// Parts of the key as text; `None`: the client has none, or the pool asks for none.
    pub key: Option<String>,
    /// Hash of the key's bytes for placement, as 16 hexadecimal digits.
    pub key_hash: Option<String>,
    /// True if load places the key when it is new, and the stick table remembers where: only the process can say then
    /// where the client is, and of a new key nothing foretells where it goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_load: bool,
    /// Name of the range that holds the client's address.
    pub range: Option<String>,
    /// What the stick table has about the client; `None`: nothing, or there is no stick table to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<ExplainedEntry>,
    /// Every backend in the order placement prefers them; those of weight 0 last, without a score.
    pub candidates: Vec<ExplainedCandidate>,
    /// The backend that gets the client; `None` when no backend does, or when any may.
    pub choice: Option<String>,
    /// True if load or turns decide: any usable candidate may get the client.
    pub any: bool,
    /// Of a living pool where `any` is true: the backend that is next in turn, as long as no other client comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_turn: Option<String>,
    /// Step of the chain that chose the backend, the same word as in the access log.
    pub reason: Option<String>,
    /// Why the client gets another backend than it had, the same word as in the access log; `None`: it does not, or had
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
    /// Backend that the client had, if it gets another one and the name is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Milliseconds that the client waits at most for the backend that it has, before it gets `choice`; 0: it is
    /// refused instead. `None`: it does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The line in which the client has to wait for a place at a full backend; `None`: it need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<ExplainedLine>,
    /// The backend that gets the client when the choice goes down.
    pub next: Option<String>,
    /// True if any usable candidate may get the client then, in turn or by load; `next` is `None`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub next_any: bool,
}

/// A line of clients that wait for a place at a full backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedLine {
    /// Name of the backend; `None`: the first that has a place.
    pub backend: Option<String>,
    /// Clients that wait in it.
    pub waiting: u64,
    /// True if no more clients may wait, so that this one is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// Milliseconds that a client waits at most.
    pub wait_ms: u64,
}

/// An entry of the stick table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedEntry {
    /// Name of the backend; `None`: it has left the pool.
    pub backend: Option<String>,
    /// The instance that has told the entry through the shared store; `None`: it was made here, or that is not known any
    /// more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_by: Option<String>,
    /// Hash of the key, by which the process knows that instance.
    #[serde(skip)]
    pub key: Option<KeyHash>,
}

/// One backend as a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedCandidate {
    /// Name of the backend.
    pub backend: String,
    /// Address in the configuration.
    pub address: String,
    /// What placement compared, one word per level.
    pub score: String,
    /// Weight in the configuration, 0 to 256.
    pub weight: u16,
    /// True if it serves only when no primary can.
    pub backup: bool,
    /// State of a living backend: that of its checks and connects, and of a drain by command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// True if it may serve this client.
    pub usable: bool,
    /// Why it does not get this client, or what puts it last.
    pub why_not: Option<String>,
}

/// The cookie of a client of a living pool.
#[derive(Debug, Default)]
pub struct LiveCookie {
    /// What it is worth; `None`: there is none, or it is not known.
    pub verdict: Option<CookieVerdict>,
    /// Backend at which the client was known, if the shared store names another one.
    pub left: Option<Left>,
    /// Name of the backend in the store, if the pool does not have it.
    pub gone: Option<Arc<str>>,
}

impl Explanation {
    /// Explains where a new client goes; `cookie` is the index of the backend that its cookie names. The
    /// backends named in `down` are down, all others are up.
    pub fn new(pool: &Pool, facts: &Facts<'_>, cookie: Option<usize>, down: &[String]) -> Self {
        let down: Vec<usize> = down.iter().filter_map(|name| pool.index_of(name)).collect();
        Self::of(pool, facts, &pool.explain(facts, cookie, &down))
    }

    /// Explains where the client's next connection goes in a living pool. The backends named in `down` are down, too.
    pub fn now(pool: &Pool, facts: &Facts<'_>, cookie: LiveCookie, down: &[String], now_ms: u64) -> Self {
        let down: Vec<usize> = down.iter().filter_map(|name| pool.index_of(name)).collect();
        let named = cookie.verdict.and_then(CookieVerdict::backend);
        let decision = pool.explain_now(facts, named, &down, now_ms);
        let left = |left| cookie.left.or_else(|| cookie.verdict?.left()).or(left);
        let moved = decision.pick.and_then(|pick| pool.client_move(left(pick.left), pick.index));
        let mut told = Self::of(pool, facts, &decision);
        for (row, candidate) in told.candidates.iter_mut().zip(&decision.candidates) {
            let backend = &pool.backends()[candidate.index];
            let drain = backend.runtime_word(now_ms).map_or(String::new(), |word| format!(", {word}"));
            row.state = Some(format!("{}{drain}", backend.state_word(now_ms)));
            let complaint = Some(backend.complaint()).filter(|complaint| !complaint.is_empty());
            if let (Some(Exclusion::Down), Some(complaint)) = (candidate.excluded, complaint) {
                row.why_not = Some(format!("down: {complaint}"));
            }
        }
        told.note_better(&decision);
        let in_turn = decision.pick.filter(|_| decision.any).map(|pick| pick.backend.name().to_owned());
        let entry = decision.entry.and_then(|entry| match entry {
            TableLookup::Unknown => None,
            TableLookup::At(index, _) => Some(Some(pool.backends()[index].name().to_owned())),
            TableLookup::Gone(_) => Some(None),
        });
        Self {
            in_turn,
            entry: entry.map(|backend| ExplainedEntry { backend, told_by: None, key: decision.entry_key }),
            moved: moved.as_ref().map(|moved| moved.cause.word().to_owned()),
            from: moved.and_then(|moved| moved.from.or(cookie.gone)).map(|name| name.to_string()),
            wait_ms: decision.waits.map(|most| most.as_millis() as u64),
            ..told
        }
    }

    fn of(pool: &Pool, facts: &Facts<'_>, decision: &Decision<'_>) -> Self {
        let Decision { key, range, pick, next, any, next_any, by_load, .. } = decision;
        let named = |index: usize| pool.backends()[index].name().to_owned();
        Self {
            pool: pool.name().to_owned(),
            balance: pool.config().balance.word().to_owned(),
            key: key.as_ref().map(|key| describe_key(facts, key)),
            key_hash: key.as_ref().map(|key| format!("{:016x}", key.hash)),
            by_load: *by_load,
            range: range.map(str::to_owned),
            entry: None,
            candidates: decision.candidates.iter().map(|row| ExplainedCandidate::new(pool, row, *range)).collect(),
            choice: pick.filter(|_| !any).map(|pick| named(pick.index)),
            any: *any,
            in_turn: None,
            reason: pick.map(|pick| pick.reason.word().to_owned()),
            moved: None,
            from: None,
            wait_ms: None,
            line: decision.awaited.as_ref().and_then(|awaited| ExplainedLine::of(pool, awaited)),
            next: next.filter(|_| !any && !next_any).map(|next| named(next.index)),
            next_any: !any && *next_any,
        }
    }

    /// Says of the candidates that placement prefers why the client does not go to them, if they could take it.
    fn note_better(&mut self, decision: &Decision<'_>) {
        let Some((choice, pick)) = self.choice.as_ref().zip(decision.pick) else { return };
        let why = match pick.reason {
            PickReason::Cookie => format!("its cookie names {choice}"),
            PickReason::StickTable => format!("known at {choice}"),
            PickReason::Connection => format!("its connection has a stream at {choice}"),
            PickReason::Placement | PickReason::LastResort => return,
        };
        let better = self.candidates.iter_mut().take_while(|row| row.backend != *choice);
        better.filter(|row| row.why_not.is_none()).for_each(|row| row.why_not = Some(why.clone()));
    }
}

impl ExplainedLine {
    fn of(pool: &Pool, awaited: &AwaitedPlace) -> Option<Self> {
        let (rules, waiting) = (pool.config().on_full.queue()?, pool.waiting_for(awaited));
        let backend = match awaited {
            AwaitedPlace::At(index) => pool.backends().get(*index).map(|backend| backend.name().to_owned()),
            AwaitedPlace::AtAny(_) => None,
        };
        let full = waiting >= rules.most as usize;
        Some(Self { backend, waiting: waiting as u64, full, wait_ms: rules.timeout.as_millis() as u64 })
    }
}

impl ExplainedCandidate {
    fn new(pool: &Pool, row: &CandidateBackend, range: Option<&str>) -> Self {
        let config = &pool.config().backends[row.index];
        let excluded = row.excluded.map(|excluded| match excluded {
            Exclusion::NoWeight => "weight 0".to_owned(),
            Exclusion::Down => "down".to_owned(),
            Exclusion::Awaited => "no good check yet".to_owned(),
            Exclusion::Ejected => "ejected: connects failed".to_owned(),
            Exclusion::Draining => "draining: only known clients".to_owned(),
            Exclusion::Drained => "drained".to_owned(),
            Exclusion::Full => format!("full: max_connections = {}", config.max_connections.unwrap_or(0)),
            Exclusion::OverBound => "at its load_bound".to_owned(),
            Exclusion::Farther => "others are nearer to the one it had".to_owned(),
            Exclusion::SlowStart => "slow start: not this key yet".to_owned(),
            Exclusion::OutsideRange => format!("not among the backends of range {}", range.unwrap_or_default()),
        });
        Self {
            backend: config.name.clone(),
            address: config.address.to_string(),
            score: row.score.clone(),
            weight: config.weight,
            backup: config.backup,
            state: None,
            usable: excluded.is_none(),
            why_not: excluded.or_else(|| config.backup.then(|| "backup".to_owned())),
        }
    }
}

/// Describes the parts of a key.
fn describe_key(facts: &Facts<'_>, key: &DecidingKey<'_>) -> String {
    let or_absent = |part: &KeyPart| if facts.value(part).is_some() { "" } else { " absent" };
    let shown =
        |part: &KeyPart| facts.value(part).map_or("absent".to_owned(), |value| value.escape_ascii().to_string());
    let describe_one = |part: &KeyPart| match part {
        KeyPart::Source => facts.source.map_or_else(String::new, |source| describe_source(source, key.source_as)),
        KeyPart::Sni => format!("sni {}", facts.sni.unwrap_or("absent")),
        KeyPart::Tlv(kind) => match proxy_protocol::tlv(facts.tlvs, *kind) {
            Some(value) => format!("tlv 0x{kind:02x} {}", value.escape_ascii()),
            None => format!("tlv 0x{kind:02x} absent"),
        },
        // Without the value, which may be a client's secret.
        KeyPart::Cookie(name) => format!("cookie {name}{}", or_absent(part)),
        KeyPart::Header(name) => format!("header {name}{}", or_absent(part)),
        KeyPart::Query(name) => format!("query {name}{}", or_absent(part)),
        KeyPart::PathParameter(name) => format!("path_parameter {name}{}", or_absent(part)),
        KeyPart::Path(_) => format!("path {}", shown(part)),
        KeyPart::ClientCertificate => format!("client_certificate {}", shown(part)),
        KeyPart::FirstOf(_) => String::new(),
    };
    let is_present = |part: &&KeyPart| Key::encode(std::slice::from_ref(*part), key.source_as, facts).is_some();
    let describe = |part: &KeyPart| match part.alternatives().iter().find(is_present) {
        Some(present) => describe_one(present),
        None => part.alternatives().iter().map(describe_one).collect::<Vec<_>>().join(" or "),
    };
    key.parts.iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn describe_source(source: IpAddr, source_as: SourceAs<'_>) -> String {
    let source = source.to_canonical();
    match source_as {
        SourceAs::Range(name) => format!("range {name}"),
        SourceAs::Prefix { v4, v6 } => {
            let prefix = if source.is_ipv4() { v4 } else { v6 };
            format!("source {}/{prefix}", cut(source, prefix))
        }
    }
}
