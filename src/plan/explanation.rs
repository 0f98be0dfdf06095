//! [`Explanation`]: a pool's [`Decision`] about one client, as text and as JSON.
//!
//! Decides nothing. Invariant: `choice` is the backend that the pool picks, and absent where only the moment decides.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::config::KeyPart;
use crate::pool::Pool;
use crate::pool::explain::{CandidateBackend, DecidingKey, Decision, Exclusion};
use crate::proxy_protocol;
use crate::sticky::Facts;
use crate::sticky::key::{SourceAs, cut};

/// Where a client goes in a pool, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Name of the pool.
    pub pool: String,
    /// Balancing method of the pool.
    pub balance: &'static str,
    /// Parts of the key as text; `None` when no key decides.
    pub key: Option<String>,
    /// Hash of the key's bytes for placement, as 16 hexadecimal digits.
    pub key_hash: Option<String>,
    /// Name of the range that holds the client's address.
    pub range: Option<String>,
    /// Every backend in the order placement prefers them; those of weight 0 last, without a score.
    pub candidates: Vec<ExplainedCandidate>,
    /// The backend that gets the client; `None` when no backend does, or when any may.
    pub choice: Option<String>,
    /// True if no key decides: any usable candidate may get the client, in turn or at random.
    pub any: bool,
    /// Step of the chain that chose the backend, the same word as in the access log.
    pub reason: Option<&'static str>,
    /// The backend that gets the client when the choice goes down.
    pub next: Option<String>,
}

/// One backend as a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// True if it may serve this client.
    pub usable: bool,
    /// Why it may not serve this client, or what puts it last.
    pub why_not: Option<String>,
}

impl Explanation {
    /// Explains where a new client goes; `cookie` is the index of the backend that its cookie names. The
    /// backends named in `down` are down, all others are up.
    pub fn new(pool: &Pool, facts: &Facts<'_>, cookie: Option<usize>, down: &[String]) -> Self {
        let down: Vec<usize> = down.iter().filter_map(|name| pool.index_of(name)).collect();
        let Decision { key, range, candidates, pick, next, any } = pool.explain(facts, cookie, &down);
        let named = |index: usize| (!any).then(|| pool.backends()[index].name().to_owned());
        Self {
            pool: pool.name().to_owned(),
            balance: pool.config().balance.word(),
            key: key.as_ref().map(|key| describe_key(facts, key)),
            key_hash: key.as_ref().map(|key| format!("{:016x}", key.hash)),
            range: range.map(str::to_owned),
            candidates: candidates.into_iter().map(|row| ExplainedCandidate::new(pool, row, range)).collect(),
            choice: pick.and_then(|pick| named(pick.index)),
            any,
            reason: pick.map(|pick| pick.reason.word()),
            next: next.and_then(|next| named(next.index)),
        }
    }
}

impl ExplainedCandidate {
    fn new(pool: &Pool, row: CandidateBackend, range: Option<&str>) -> Self {
        let config = &pool.config().backends[row.index];
        let excluded = row.excluded.map(|excluded| match excluded {
            Exclusion::NoWeight => "weight 0".to_owned(),
            Exclusion::Down => "down".to_owned(),
            Exclusion::OutsideRange => format!("not among the backends of range {}", range.unwrap_or_default()),
        });
        Self {
            backend: config.name.clone(),
            address: config.address.to_string(),
            score: row.score,
            weight: config.weight,
            backup: config.backup,
            usable: excluded.is_none(),
            why_not: excluded.or_else(|| config.backup.then(|| "backup".to_owned())),
        }
    }
}

/// Describes the parts of a key.
fn describe_key(facts: &Facts<'_>, key: &DecidingKey<'_>) -> String {
    let describe = |part: &KeyPart| match part {
        KeyPart::Source => facts.source.map_or_else(String::new, |source| describe_source(source, key.source_as)),
        KeyPart::Sni => format!("sni {}", facts.sni.unwrap_or("absent")),
        KeyPart::Tlv(kind) => match proxy_protocol::tlv(facts.tlvs, *kind) {
            Some(value) => format!("tlv 0x{kind:02x} {}", value.escape_ascii()),
            None => format!("tlv 0x{kind:02x} absent"),
        },
        // Without the value, which is a client's secret.
        KeyPart::Cookie(name) => {
            let present = facts.cookies.iter().any(|(known, value)| *known == &**name && !value.is_empty());
            format!("cookie {name}{}", if present { "" } else { " absent" })
        }
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

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}, {}: ", self.pool, self.balance)?;
        match (&self.key, &self.key_hash) {
            (Some(key), Some(hash)) => write!(f, "key {key} (hash {hash})")?,
            _ => f.write_str("no key")?,
        }
        if let Some(range) = &self.range {
            write!(f, ", in range {range}")?;
        }
        f.write_str("\n")?;
        self.write_candidates(f)?;
        match (&self.choice, self.reason) {
            (None, Some(reason)) if self.any => {
                write!(f, "goes to any usable backend, in turn or at random ({reason})")?;
            }
            (Some(choice), Some(reason)) => write!(f, "goes to {choice} ({reason})")?,
            _ => f.write_str("is refused: no backend may serve it")?,
        }
        match (&self.choice, &self.next) {
            (Some(choice), Some(next)) => write!(f, "; if {choice} goes down, to {next}"),
            (Some(choice), None) => write!(f, "; if {choice} goes down, no backend is left"),
            _ => Ok(()),
        }
    }
}

impl Explanation {
    fn write_candidates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&ExplainedCandidate) -> &str| {
            self.candidates.iter().map(|row| text(row).len()).max().unwrap_or(0)
        };
        let (names, addresses, scores) =
            (width(|row| &row.backend), width(|row| &row.address), width(|row| &row.score));
        for (place, row) in self.candidates.iter().enumerate() {
            let mark = if self.choice.as_ref() == Some(&row.backend) { '>' } else { ' ' };
            let line = format!(
                "{mark} {:>3}  {:names$}  {:addresses$}  weight {:<3}  {:scores$}  {}",
                place + 1,
                row.backend,
                row.address,
                row.weight,
                row.score,
                row.why_not.as_deref().unwrap_or("")
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
