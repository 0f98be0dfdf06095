//! [`build`]: the pools of a new snapshot. Where only the backends of some pools are others than before, the other
//! pools go on as they are: a set of backends that changes costs what its own pool costs, however many pools there are.
//!
//! Puts no pool in force. Invariant: a pool goes on only if another one would be built of the same configuration, with
//! the same keys of cookies, among pools of the same names, and with a stick table of its own; what holds it sees no
//! difference.

use std::sync::Arc;

use super::{Rings, Snapshot};
use crate::clock;
use crate::config::{self, Config};
use crate::pool::{Outbox, Pool, StickTables};
use crate::sticky::cookie::PoolIds;
use crate::sticky::table::Secret;

/// What the pools of one snapshot share.
pub(super) struct SharedParts<'s> {
    pub(super) rings: &'s Rings,
    pub(super) secret: &'s Secret,
    pub(super) outbox: &'s Outbox,
    /// Blocks of counters.
    pub(super) blocks: usize,
}

/// Builds the pools of a configuration, those of `previous` carried over by name.
pub(super) fn build(config: &Config, shared: &SharedParts<'_>, previous: Option<&Snapshot>) -> Arc<[Arc<Pool>]> {
    let SharedParts { rings, secret, outbox, blocks } = shared;
    let now_ms = clock::now_ms();
    let before = previous.map_or(&[][..], |snapshot| &snapshot.pools);
    let mut stick_tables = StickTables::new(before.iter().map(|pool| &**pool), secret, now_ms);
    stick_tables = stick_tables.telling((*outbox).clone());
    let ids = PoolIds::of(sealed_as(config));
    let may_go_on = previous.is_some_and(|previous| seals_alike(previous, config, shared));
    let pools = config.pools.iter().map(|pool| {
        let old = previous.and_then(|snapshot| snapshot.pool(&pool.name));
        if let Some(old) = old.filter(|old| may_go_on && old.is_built_of(pool)) {
            return Arc::clone(old);
        }
        let rule = rings.rule(pool).map(|rule| rule.beside(&ids));
        let pool = stick_tables.give(Pool::new(pool, old.map(|old| &**old), *blocks).with_cookie(rule));
        pool.date(now_ms);
        pool.await_addresses();
        Arc::new(pool)
    });
    pools.collect()
}

/// The names by which pools seal their cookies.
fn sealed_as(config: &Config) -> impl Iterator<Item = &str> {
    config.pools.iter().map(config::Pool::sticks_as)
}

/// True if cookies and stick tables of a pool that goes on are those of the new snapshot.
fn seals_alike(previous: &Snapshot, config: &Config, shared: &SharedParts<'_>) -> bool {
    previous.rings.are_same(shared.rings)
        && previous.secret.bytes() == shared.secret.bytes()
        && sealed_as(&previous.config).eq(sealed_as(config))
}

#[cfg(test)]
mod tests;
