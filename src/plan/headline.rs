//! [`Headline`]: how many of the clients that a running process knows a change moves, in one sentence.
//!
//! Adds up the pools that change and counts nothing itself. Invariant: pools that share a stick table are counted once,
//! and a number that is an estimate in part says so.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::live::{MoveTally, Running};
use super::{Live, PoolPlan};
use crate::config::Config;

/// Clients of a running process that a change moves, in all pools that change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headline {
    /// Clients in the stick tables of those pools.
    pub known: u64,
    /// How many of them move.
    pub known_move: u64,
    /// How many more may move: clients of pools of which some routes lead elsewhere, while no open connection shows how
    /// many come by these.
    #[serde(default)]
    pub by_route: u64,
    /// Open connections of those pools; the change cuts none.
    pub open: u64,
    /// How many of their clients get another backend with their next connection.
    pub open_move: u64,
    /// True if a number of moves is an estimate in part.
    pub about: bool,
}

impl Headline {
    /// Adds up the pools that change; if none does, all pools.
    pub(super) fn of(plans: &[PoolPlan], running: &Running<'_>, new: &Config) -> Self {
        let after = new.pools_by_name();
        let changes = |plan: &PoolPlan| {
            let before = running.snapshot.pool(&plan.pool).map(|pool| pool.config());
            let moves = |tally: &MoveTally| tally.leave + tally.depend_leave_about > 0;
            let by_route = plan.live.as_ref().is_some_and(|live| moves(&live.known) || moves(&live.open));
            plan.removed || by_route || !plan.routed_away.is_none() || before != after.get(plan.pool.as_str()).copied()
        };
        let none_changes = !plans.iter().any(changes);
        let (mut headline, mut tables) = (Self::default(), HashSet::new());
        for plan in plans.iter().filter(|plan| none_changes || changes(plan)) {
            let Some(Live { known, open }) = &plan.live else { continue };
            let table = running.snapshot.pool(&plan.pool).map(|pool| pool.sticks_as());
            if tables.insert(table) {
                headline.known += known.total;
                headline.known_move += known.leave + known.depend_leave_about;
                headline.about |= known.depend_leave_about > 0;
                headline.by_route += known.by_route;
            }
            headline.open += open.total;
            headline.open_move += open.leave + open.depend_leave_about;
            headline.about |= open.depend_leave_about > 0;
        }
        headline
    }
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, known_move, by_route, open, open_move, about } = self;
        let about = if *about { "about " } else { "" };
        match (known, open) {
            (0, 0) => f.write_str("no client is known and no connection is open"),
            (0, open) => {
                write!(f, "of {open} open connections {about}{open_move} go elsewhere with their client's next")
            }
            (known, _) => write!(f, "of {known} known clients {about}{known_move} move"),
        }?;
        match by_route {
            0 => Ok(()),
            more => write!(f, "; {more} more may move, as their routes decide"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_headline_counts_known_clients_or_else_open_connections() {
        let text = |known, known_move, open, open_move, about| {
            Headline { known, known_move, by_route: 0, open, open_move, about }.to_string()
        };
        assert_eq!(text(412, 37, 60, 5, false), "of 412 known clients 37 move");
        assert_eq!(text(412, 37, 60, 5, true), "of 412 known clients about 37 move");
        assert_eq!(text(0, 0, 60, 5, false), "of 60 open connections 5 go elsewhere with their client's next");
        assert_eq!(text(0, 0, 0, 0, false), "no client is known and no connection is open");
        let by_route = Headline { known: 412, known_move: 37, by_route: 120, ..Headline::default() };
        assert_eq!(by_route.to_string(), "of 412 known clients 37 move; 120 more may move, as their routes decide");
    }
}
