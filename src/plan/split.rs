//! What becomes of the clients of splits: [`SplitReport`] for one client, [`SplitPlan`] for a change of the file.
//!
//! Asks [`Split`] what requests ask it; takes no turn and counts nothing. Invariant: a client that is said to have a pool has
//! it by a cookie that the split takes now; which pool a new client gets is not foretold, only how likely each is.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::percent;
use super::question::{AskedAt, ClientTraits};
use crate::config::{self, Config};
use crate::pool::Pool;
use crate::pool::request_key::{values_of, values_of_key};
use crate::split::{ChosenBy, Split, SplitChoice, moved_keys};
use crate::sticky::cookie::CookieVerdict;
use crate::sticky::{ClientMemory, Facts};

/// What a split does with one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// Name of the split.
    pub name: String,
    /// The pool that the client has; `None`: it is new.
    pub pool: Option<String>,
    /// What chooses the pool: `cookie`, `stick_table` or `key`, or `weight` for a client that is new.
    pub by: String,
    /// Verdict on the split's cookie; `None`: the request has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What new clients get now.
    pub new_clients: Vec<SplitShare>,
}

/// The part of the new clients that a pool gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitShare {
    /// Name of the pool.
    pub pool: String,
    /// Share of the pool, 0 to 1.
    pub share: f64,
}

/// What a change does to the clients of one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitPlan {
    /// Name of the split.
    pub split: String,
    /// Shares of new clients before the change; empty: the split is new.
    pub before: Vec<SplitShare>,
    /// Shares of new clients after the change; empty: the split is removed.
    pub after: Vec<SplitShare>,
    /// Pools that the split does not have any more, or, where it is removed, to which nothing else leads: their clients
    /// get another one.
    pub left: Vec<String>,
    /// True if its cookie has another name, so that all its clients are new.
    pub lost_cookie: bool,
    /// Of a split with a key: part of the clients without an entry in a stick table that get another pool, within a
    /// percent, 0 to 1; 1 if its key is another. `None`: it has no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_keys: Option<f64>,
    /// True if every pool of the split with a key has a stick table, which keeps those that it knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remembered: bool,
}

/// What a split does with a client, and the index of the pool that the client has; `None`: it is new. `down`: names of
/// backends that are supposed to be down, by pool.
pub(super) fn choice_of<P: Borrow<Pool>>(
    split: &Split,
    (pools, down): (&[P], &[Vec<String>]),
    (facts, traits): (&Facts<'_>, &ClientTraits),
    at: AskedAt,
) -> (SplitReport, Option<usize>) {
    let request = traits.request();
    let verdict = split.read(&request, at.unix_s);
    let down = |pool: usize| down.get(pool).map_or(&[][..], |down| &down[..]);
    let takes_new =
        |pool: usize| pools.get(pool).is_some_and(|found| found.borrow().takes_new_without(down(pool), at.now_ms));
    let by_cookie = verdict.and_then(CookieVerdict::backend).map(|member| SplitChoice { member, by: ChosenBy::Cookie });
    let by_key = || {
        let subject = traits.certificate.as_deref();
        let values = values_of(split.key().iter(), &request, subject);
        let facts = Facts { values: &values, ..*facts };
        let memory = |pool: usize| {
            let Some(pool) = pools.get(pool).map(Borrow::borrow) else { return ClientMemory::None };
            let values = values_of_key(pool, &request, subject);
            pool.memory_of(&Facts { values: &values, ..facts }, at.now_ms)
        };
        // Of a client without a key the number of its connection decides, which is not known yet.
        Some(split.choose_by_key(&facts, 0, memory, takes_new)).filter(|choice| choice.by != ChosenBy::Weight)
    };
    let choice = if split.is_by_key() { by_key() } else { by_cookie };
    let known = choice.and_then(|choice| split.members().get(choice.member));
    let weights = split.open_weights(takes_new);
    let by = choice.map_or(ChosenBy::Weight, |choice| choice.by);
    let report = SplitReport {
        name: split.name().to_string(),
        pool: known.map(|known| known.name.to_string()),
        by: by.word().to_owned(),
        verdict: verdict.map(|verdict| verdict.word().to_owned()),
        new_clients: shares(split.members().iter().map(|member| &*member.name).zip(weights)),
    };
    (report, known.map(|known| known.pool))
}

fn shares<'n>(weights: impl Iterator<Item = (&'n str, u64)>) -> Vec<SplitShare> {
    let weights: Vec<_> = weights.collect();
    let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let share = |(pool, weight): &(&str, u64)| SplitShare {
        pool: (*pool).to_owned(),
        share: *weight as f64 / total.max(1) as f64,
    };
    weights.iter().map(share).collect()
}

impl SplitPlan {
    /// Every split that the change adds, removes or alters.
    pub(super) fn all(old: &Config, new: &Config) -> Vec<Self> {
        let kept = new.splits.iter().map(|after| (find(old, &after.name), Some(after)));
        let gone =
            old.splits.iter().filter(|before| find(new, &before.name).is_none()).map(|before| (Some(before), None));
        kept.chain(gone)
            .filter(|(before, after)| before != after)
            .map(|(before, after)| Self::of(before, after, new))
            .collect()
    }

    /// Describes what takes more than `most` of the clients from a pool.
    pub(super) fn too_much(&self, most: f64) -> Vec<String> {
        let Self { split, left, .. } = self;
        let moved_keys = self.moved_keys.filter(|moved| !self.remembered && *moved > most);
        let of_pools = (most < 1.0).then_some(left).into_iter().flatten();
        let of_pools = of_pools.map(|pool| format!("all clients of pool {pool:?} would move"));
        let of_cookie = (self.lost_cookie && most < 1.0).then(|| "every client would be new".to_owned());
        let of_key = moved_keys.map(|moved| format!("{} of its clients would move", percent(moved)));
        let all = of_pools.chain(of_cookie).chain(of_key);
        all.map(|what| format!("split {split:?}: {what}, and {} is allowed", percent(most))).collect()
    }

    fn of(before: Option<&config::Split>, after: Option<&config::Split>, new: &Config) -> Self {
        let of_split = |split: Option<&config::Split>| {
            let to = split.into_iter().flat_map(|split| &split.to);
            shares(to.map(|to| (to.pool.as_str(), u64::from(to.weight))))
        };
        let both = before.zip(after);
        let leads = |pool: &str| new.listeners.iter().any(|l| l.pools(&new.splits).any(|name| name == pool));
        let is_left = |pool: &&str| match after {
            Some(after) => after.pools().all(|kept| kept != *pool),
            None => !leads(pool),
        };
        let remembers = |pool: &str| {
            let of_name = |known: &&config::Pool| known.name == pool;
            new.pools.iter().find(of_name).is_some_and(|pool| pool.stick_table.is_some() && pool.has_key())
        };
        Self {
            split: after.or(before).map_or_else(String::new, |split| split.name.clone()),
            before: of_split(before),
            after: of_split(after),
            left: before.into_iter().flat_map(config::Split::pools).filter(is_left).map(str::to_owned).collect(),
            lost_cookie: both.is_some_and(|(before, after)| {
                let name = |split: &config::Split| split.cookie().map(|cookie| cookie.name.clone());
                after.key().is_none() && name(before) != name(after)
            }),
            moved_keys: both
                .filter(|(_, after)| after.key().is_some())
                .map(|(before, after)| moved_keys(before, after).unwrap_or(1.0)),
            remembered: after.is_some_and(|after| after.key().is_some() && after.pools().all(remembers)),
        }
    }
}

/// The split of this name.
fn find<'c>(config: &'c Config, name: &str) -> Option<&'c config::Split> {
    config.splits.iter().find(|split| split.name == name)
}

impl fmt::Display for SplitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { split, before, after, left, lost_cookie, moved_keys, remembered: _ } = self;
        let words = |shares: &[SplitShare]| {
            let words: Vec<_> = shares.iter().map(|share| format!("{} {}", share.pool, percent(share.share))).collect();
            words.join(", ")
        };
        write!(f, "split {split:?}: ")?;
        match (before.is_empty(), after.is_empty()) {
            (true, _) => return write!(f, "added, new clients: {}", words(after)),
            (_, true) => {
                f.write_str("removed, what it knew of its clients says nothing any more")?;
                return match left.is_empty() {
                    true => Ok(()),
                    false => write!(f, "; clients of {} get another pool", left.join(", ")),
                };
            }
            (false, false) if before == after => write!(f, "new clients as before")?,
            (false, false) => write!(f, "new clients: {} instead of {}", words(after), words(before))?,
        }
        if let Some(moved) = moved_keys {
            write!(f, "; {} of those that no stick table remembers get another pool", percent(*moved))?;
            return match left.is_empty() {
                true => Ok(()),
                false => write!(f, ", and all clients of {}", left.join(", ")),
            };
        }
        match (lost_cookie, left.is_empty()) {
            (true, _) => f.write_str("; its cookie has another name: every client is new"),
            (false, true) => f.write_str("; no known client moves"),
            (false, false) => write!(f, "; clients of {} get another pool, others stay", left.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests;
