//! Why a client goes where it goes, for people and for programs.
//!
//! Decides nothing: the choice and the next one come from the function that picks for connections. Invariant: for the
//! same facts and health, `choice` is what [`Pool::pick`] returns; where only the moment decides, none is named.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::placement_key::PlacementKey;
use super::{Choice, Health, Pool};
use crate::config::KeyPart;
use crate::outcome::PickReason;
use crate::proxy_protocol;
use crate::sticky::Facts;
use crate::sticky::cookie::CookieRule;
use crate::sticky::key::{Key, SourceAs, cut};
use crate::sticky::table::EntryKind;

/// From key to choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The pool.
    pub pool: String,
    /// Its method.
    pub balance: &'static str,
    /// The parts of the key, for people; `None` when no key decides.
    pub key: Option<String>,
    /// What placement made of the key's bytes, as 16 hexadecimal digits.
    pub key_hash: Option<String>,
    /// The named range the client is in.
    pub range: Option<String>,
    /// Every backend in the order placement prefers them; those of weight 0 last, without a score.
    pub candidates: Vec<Explained>,
    /// The backend that gets the client; `None` when there is none, or when any may.
    pub choice: Option<String>,
    /// No key decides: any usable candidate may get the client, whoever's turn it is.
    pub any: bool,
    /// The step of the chain that chose it, as in the log.
    pub reason: Option<&'static str>,
    /// Who gets the client when the choice dies.
    pub next: Option<String>,
}

/// One backend as a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its name.
    pub backend: String,
    /// Where it is.
    pub address: String,
    /// What placement compared.
    pub score: String,
    /// Its weight.
    pub weight: u16,
    /// Whether it serves only when the others cannot.
    pub backup: bool,
    /// Whether it may serve this client.
    pub usable: bool,
    /// Why not, or what puts it last.
    pub why_not: Option<String>,
}

impl Pool {
    /// Who gets a client with these facts, why, and who would be next; see [`Explanation`]. Health is not looked at:
    /// the backends named in `down` are down, all others are up.
    pub fn explain(&self, facts: &Facts<'_>, down: &[String]) -> Explanation {
        explain(self, None, facts, down)
    }

    /// The same for a client whose cookie says `settled`.
    pub fn explain_settled(&self, settled: Option<usize>, facts: &Facts<'_>, down: &[String]) -> Explanation {
        explain(self, settled, facts, down)
    }
}

fn explain(pool: &Pool, settled: Option<usize>, facts: &Facts<'_>, down: &[String]) -> Explanation {
    let key = pool.key(facts, || pool.shared.draws.0.load(std::sync::atomic::Ordering::Relaxed));
    let is_down = |index: usize| down.iter().any(|name| name == pool.backends[index].name());
    let health = |index: usize| if is_down(index) { Health::Down } else { Health::Usable };
    let receives = |index: usize| health(index) == Health::Usable && pool.config.backends[index].weight > 0;
    let allowed = |index: &usize| pool.allows(key.range, *index, receives);
    let by_cookie = settled.filter(|index| health(*index) == Health::Usable).filter(allowed);
    let by_cookie =
        by_cookie.map(|index| Choice { index, reason: PickReason::Cookie, broke: None, kind: EntryKind::Placed });
    let choice = by_cookie.or_else(|| pool.decide(&key, health, |_| false, None));
    let next = choice.and_then(|choice| {
        // Down, and left out even where `all_down = "try"` would try the dead.
        let health = |index: usize| if index == choice.index { Health::Down } else { health(index) };
        pool.decide(&key, health, |index| index == choice.index, None)
    });
    let name_of = |index: usize| pool.backends[index].name().to_owned();
    let candidates = candidates(pool, &key, is_down);
    let chosen =
        choice.and_then(|choice| candidates.iter().find(|row| row.backend == pool.backends[choice.index].name()));
    let alike =
        |row: &&Explained| chosen.is_some_and(|chosen| (row.usable, row.backup) == (chosen.usable, chosen.backup));
    let any = by_cookie.is_none() && !key.keyed && candidates.iter().filter(alike).count() > 1;
    let named = |index: usize| (!any).then(|| name_of(index));
    Explanation {
        pool: pool.name().to_owned(),
        balance: pool.config.balance.word(),
        key: key.keyed.then(|| describe_key(pool, facts, &key)),
        key_hash: key.keyed.then(|| format!("{:016x}", key.draw)),
        range: key.range.map(|range| range.name.to_string()),
        candidates,
        choice: choice.and_then(|choice| named(choice.index)),
        any,
        reason: choice.map(|choice| choice.reason.word()),
        next: next.and_then(|next| named(next.index)),
    }
}

fn candidates(pool: &Pool, key: &PlacementKey<'_>, is_down: impl Fn(usize) -> bool) -> Vec<Explained> {
    let leases = |index: usize| pool.backends[index].leases();
    let ordered = pool.placement.order(key.draw, |_| true, leases);
    let weightless = (0..pool.backends.len()).filter(|index| pool.config.backends[*index].weight == 0);
    let mut rows: Vec<(usize, String)> = ordered.into_iter().map(|found| (found.index, found.score)).collect();
    rows.extend(weightless.map(|index| (index, String::new())));
    let row = |(index, score): (usize, String)| {
        let config = &pool.config.backends[index];
        let outside = key.range.filter(|_| key.pin().is_some_and(|pin| !pin.allows(index)));
        let why_not = match outside {
            _ if config.weight == 0 => Some("weight 0".to_owned()),
            _ if is_down(index) => Some("down".to_owned()),
            Some(range) => Some(format!("not among the backends of range {}", range.name)),
            None => None,
        };
        Explained {
            backend: config.name.clone(),
            address: config.address.to_string(),
            score,
            weight: config.weight,
            backup: config.backup,
            usable: why_not.is_none(),
            why_not: why_not.or_else(|| config.backup.then(|| "backup".to_owned())),
        }
    };
    rows.into_iter().map(row).collect()
}

/// The parts of a key that exists.
fn describe_key(pool: &Pool, facts: &Facts<'_>, key: &PlacementKey<'_>) -> String {
    let describe = |part: &KeyPart| match part {
        KeyPart::Source => facts.source.map_or_else(String::new, |source| describe_source(pool, source, key)),
        KeyPart::Sni => format!("sni {}", facts.sni.unwrap_or("absent")),
        KeyPart::Tlv(kind) => match proxy_protocol::tlv(facts.tlvs, *kind) {
            Some(value) => format!("tlv 0x{kind:02x} {}", value.escape_ascii()),
            None => format!("tlv 0x{kind:02x} absent"),
        },
        // The value is a client's secret.
        KeyPart::Cookie(name) => {
            let present = facts.cookies.iter().any(|(known, value)| *known == &**name && !value.is_empty());
            format!("cookie {name}{}", if present { "" } else { " absent" })
        }
    };
    let by_cookie =
        pool.cookie.as_ref().map(CookieRule::key).filter(|key| Key::encode(key, SourceAs::prefix(0), facts).is_some());
    by_cookie.unwrap_or(&pool.config.key).iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn describe_source(pool: &Pool, source: IpAddr, key: &PlacementKey<'_>) -> String {
    let source = source.to_canonical();
    match pool.source_as(key.range) {
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
        let width = |text: fn(&Explained) -> &str| self.candidates.iter().map(|row| text(row).len()).max().unwrap_or(0);
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
        match (&self.choice, self.reason) {
            (None, Some(reason)) if self.any => write!(f, "goes to any usable one, whoever's turn it is ({reason})")?,
            (Some(choice), Some(reason)) => write!(f, "goes to {choice} ({reason})")?,
            _ => f.write_str("is refused: nobody may serve it")?,
        }
        match (&self.choice, &self.next) {
            (Some(choice), Some(next)) => write!(f, "; if {choice} dies, to {next}"),
            (Some(choice), None) => write!(f, "; if {choice} dies, nobody is left"),
            _ => Ok(()),
        }
    }
}
