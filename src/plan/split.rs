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
use crate::split::{ChosenBy, Split};
use crate::sticky::cookie::CookieVerdict;

/// What a split does with one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// Name of the split.
    pub name: String,
    /// The pool that the client has; `None`: it is new.
    pub pool: Option<String>,
    /// What chooses the pool: `cookie`, or `weight` for a client that is new.
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
    /// Pools that the split does not have any more: their clients get another one.
    pub left: Vec<String>,
    /// True if its cookie has another name, so that all its clients are new.
    pub lost_cookie: bool,
}

/// What a split does with a client, and the index of the pool that the client has; `None`: it is new. `down`: names of
/// backends that are supposed to be down, by pool.
pub(super) fn choice_of<P: Borrow<Pool>>(
    split: &Split,
    (pools, down): (&[P], &[Vec<String>]),
    traits: &ClientTraits,
    at: AskedAt,
) -> (SplitReport, Option<usize>) {
    let verdict = split.read(&traits.request(), at.unix_s);
    let down = |pool: usize| down.get(pool).map_or(&[][..], |down| &down[..]);
    let takes_new =
        |pool: usize| pools.get(pool).is_some_and(|found| found.borrow().takes_new_without(down(pool), at.now_ms));
    let known = verdict.and_then(CookieVerdict::backend).and_then(|member| split.members().get(member));
    let weights = split.open_weights(takes_new);
    let by = if known.is_some() { ChosenBy::Cookie } else { ChosenBy::Weight };
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
            .map(|(before, after)| Self::of(before, after))
            .collect()
    }

    fn of(before: Option<&config::Split>, after: Option<&config::Split>) -> Self {
        let of_split = |split: Option<&config::Split>| {
            let to = split.into_iter().flat_map(|split| &split.to);
            shares(to.map(|to| (to.pool.as_str(), u64::from(to.weight))))
        };
        let both = before.zip(after);
        let is_left = |pool: &&str| both.is_some_and(|(_, after)| after.pools().all(|kept| kept != *pool));
        Self {
            split: after.or(before).map_or_else(String::new, |split| split.name.clone()),
            before: of_split(before),
            after: of_split(after),
            left: before.into_iter().flat_map(config::Split::pools).filter(is_left).map(str::to_owned).collect(),
            lost_cookie: both.is_some_and(|(before, after)| before.cookie.name != after.cookie.name),
        }
    }
}

/// The split of this name.
fn find<'c>(config: &'c Config, name: &str) -> Option<&'c config::Split> {
    config.splits.iter().find(|split| split.name == name)
}

impl fmt::Display for SplitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { split, before, after, left, lost_cookie } = self;
        let words = |shares: &[SplitShare]| {
            let words: Vec<_> = shares.iter().map(|share| format!("{} {}", share.pool, percent(share.share))).collect();
            words.join(", ")
        };
        write!(f, "split {split:?}: ")?;
        match (before.is_empty(), after.is_empty()) {
            (true, _) => return write!(f, "added, new clients: {}", words(after)),
            (_, true) => return f.write_str("removed, its cookie says nothing any more"),
            (false, false) if before == after => write!(f, "new clients as before")?,
            (false, false) => write!(f, "new clients: {} instead of {}", words(after), words(before))?,
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
