//! [`Rings`]: the keys of cookies by their files, and the cookies of pools and splits that they seal.
//!
//! Reads no file. Invariant: each file has one ring, whichever pools and splits name it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Config, FileProblem};
use crate::split::{self, Split, SplitRules};
use crate::sticky::cookie::{CookieRule, KeyRing};

/// The keys that seal cookies, by file.
#[derive(Debug, Clone, Default)]
pub struct Rings {
    rings: Vec<(PathBuf, Arc<KeyRing>)>,
    /// Warnings about files that every user of this machine can read.
    warnings: Vec<FileProblem>,
}

impl Rings {
    /// Adds the keys of one file, and a warning if every user of this machine can read it.
    pub fn add(&mut self, path: PathBuf, ring: Arc<KeyRing>, warning: Option<FileProblem>) {
        self.warnings.extend(warning);
        self.rings.push((path, ring));
    }

    /// The keys of a file; `None`: it was not added.
    pub fn of(&self, path: &Path) -> Option<&Arc<KeyRing>> {
        self.rings.iter().find(|(known, _)| known == path).map(|(_, ring)| ring)
    }

    /// True if both have the same keys, read once.
    pub(super) fn are_same(&self, other: &Self) -> bool {
        let mut both = self.rings.iter().zip(&other.rings);
        let is_same = both.all(|(own, known)| own.0 == known.0 && Arc::ptr_eq(&own.1, &known.1));
        is_same && self.rings.len() == other.rings.len()
    }

    /// One line for each file with other keys than in `previous`, or the same in another order.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        let differs = |(path, ring): &&(PathBuf, _)| previous.of(path).is_some_and(|before| before != ring);
        let changed = self.rings.iter().filter(differs);
        changed.map(|(path, _)| format!("file \"{}\" changed", path.display())).collect()
    }

    /// One warning for each file that every user of this machine can read.
    pub fn warnings(&self) -> Vec<FileProblem> {
        self.warnings.clone()
    }

    /// The cookie rule of a pool; `None`: the pool has no cookie, or its key file was not added.
    pub fn rule(&self, pool: &config::Pool) -> Option<CookieRule> {
        let cookie = pool.cookie.as_ref()?;
        let names = pool.backends.iter().map(|backend| backend.name.as_str());
        let ring = |path: &Path| self.of(path).cloned().ok_or(());
        CookieRule::new(cookie, pool.sticks_as(), names, ring).ok()
    }

    /// The cookie rule of a split; `None`: it has no cookie, or its key file was not added.
    pub fn rule_of_split(&self, split: &config::Split) -> Option<CookieRule> {
        let ring = |path: &Path| self.of(path).cloned().ok_or(());
        CookieRule::new(split.cookie()?, &split::sealed_as(&split.name), split.pools(), ring).ok()
    }

    /// The splits of a configuration, ready for requests; those of `previous` go on under their names.
    pub fn splits(
        &self,
        config: &Config,
        pool_index: impl Fn(&str) -> usize,
        previous: &[Arc<Split>],
        blocks: usize,
    ) -> Box<[Arc<Split>]> {
        let split = |split: &config::Split| {
            let before = previous.iter().find(|before| **before.name() == *split.name);
            let reads_http = config.pools.iter().find(|pool| split.pools().any(|name| name == pool.name));
            let of_requests = reads_http.is_none_or(|pool| pool.http.is_read());
            let rules = SplitRules { cookie: self.rule_of_split(split), of_requests };
            Arc::new(Split::new(split, rules, &pool_index, before.map(|before| &**before), blocks))
        };
        config.splits.iter().map(split).collect()
    }
}
