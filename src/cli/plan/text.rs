//! [`Plan`] as text: what changes, then one paragraph for each pool.
//!
//! Computes nothing. Invariant: a pool without moving clients takes one line; an estimate is marked as one.

use std::fmt::Write as _;
use std::io::Write;

use super::super::CommandError;
use super::super::table::Table;
use crate::plan::{Live, Move, MoveTally, Plan, PoolPlan, Shift, percent};

/// Most moves that are printed for a pool; JSON has all of them.
const MOVES_SHOWN: usize = 12;

/// Mark behind an estimated number.
const MARK: &str = "*";

/// Prints the whole plan.
pub(super) fn print(out: &mut impl Write, plan: &Plan) -> Result<(), CommandError> {
    if plan.changes.is_empty() {
        writeln!(out, "nothing changes")?;
    }
    for line in &plan.changes {
        writeln!(out, "{line}")?;
    }
    for line in &plan.warnings {
        writeln!(out, "warning: {line}")?;
    }
    for pool in &plan.pools {
        out.write_all(paragraph(pool).as_bytes())?;
    }
    Ok(())
}

fn paragraph(pool: &PoolPlan) -> String {
    let open = pool.live.as_ref().map_or(0, |live| live.open.total);
    if !pool.sticks && open == 0 && pool.lost_cookie.is_none() {
        return String::new();
    }
    let moving = |tally: &MoveTally| tally.leave + tally.depend > 0;
    let listed = pool.listed.as_ref().is_some_and(|listed| listed.known + listed.new > 0);
    let live = pool.live.as_ref().is_some_and(|live| moving(&live.known) || moving(&live.open));
    let mut text = format!("pool {:?}: ", pool.pool);
    if !pool.removed && pool.lost_cookie.is_none() && pool.moves.is_empty() && !listed && !live {
        text += "no client moves";
        if let Some(Live { known, open }) = &pool.live {
            let _ = write!(text, "; {} known clients, {} open connections", known.total, open.total);
        }
        return text + "\n";
    }
    if pool.removed {
        text += "removed, all its clients lose their backend\n";
    } else {
        let (known, new) = (percent(pool.known_keys), percent(pool.new_keys));
        let _ = writeln!(text, "{known} of its known clients move, {new} of new ones go elsewhere");
    }
    if let Some(lost) = &pool.lost_cookie {
        let _ = writeln!(text, "  {} lose it and are placed anew: {}", lost.holders(), lost.why);
    }
    if let Some(Live { known, open }) = &pool.live {
        let _ = writeln!(text, "  known clients now: {}", tally(known));
        let _ = writeln!(
            text,
            "  open connections: {}; no connection is cut, their clients move with their next one",
            tally(open)
        );
    }
    if let Some(listed) = &pool.listed {
        let (known, new, all) = (listed.known, listed.new, listed.clients);
        let _ = match &pool.live {
            Some(_) => writeln!(text, "  of {all} listed clients {known} move, by what the process knows now"),
            None => writeln!(text, "  of {all} listed clients {known} move if they are known, {new} if they are not"),
        };
    }
    text += &matrix(pool);
    text
}

fn tally(tally: &MoveTally) -> String {
    let MoveTally { total, leave, depend, depend_leave_about: about, .. } = tally;
    let mut text = format!("{total}, of which {leave} move");
    if *depend > 0 {
        let _ = write!(text, "; {depend} depend on their keys, of which about {about} move");
    }
    text
}

/// Table of moves from backend to backend.
fn matrix(pool: &PoolPlan) -> String {
    match &pool.live {
        Some(live) => live_matrix(live, &pool.moves),
        None => {
            let mut table = Table::new(["  from", "to", "known", "new"]);
            for row in pool.moves.iter().take(MOVES_SHOWN) {
                table.row([from(&row.from), to(&row.to), percent(row.known_keys), percent(row.new_keys)]);
            }
            table.render() + &more(pool.moves.len())
        }
    }
}

fn live_matrix(live: &Live, moves: &[Move]) -> String {
    let Live { known, open } = live;
    let mut pairs: Vec<(&String, &Option<String>)> = Vec::new();
    let rows = known.moves.iter().chain(&open.moves).map(|row| (&row.from, &row.to));
    for pair in rows.chain(moves.iter().map(|row| (&row.from, &row.to))) {
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    let mut table = Table::new(["  from", "to", "known clients", "open connections", "of all new"]);
    let mut estimated = false;
    for (source, goal) in pairs.iter().take(MOVES_SHOWN) {
        let mut count = |rows: &[Shift]| {
            let row = rows.iter().find(|row| row.from == **source && row.to == **goal);
            estimated |= row.is_some_and(|row| row.about);
            row.map_or("0".to_owned(), |row| format!("{}{}", row.count, if row.about { MARK } else { "" }))
        };
        let (known, open) = (count(&known.moves), count(&open.moves));
        let new = moves.iter().find(|row| row.from == **source && row.to == **goal).map_or(0.0, |row| row.new_keys);
        table.row([from(source), to(goal), known, open, percent(new)]);
    }
    let note = if estimated {
        "  * estimated by shares: where a client goes is in its key, and a stick table keeps only hashes\n"
    } else {
        ""
    };
    table.render() + &more(pairs.len()) + note
}

fn from(backend: &str) -> String {
    format!("  {backend}")
}

fn to(backend: &Option<String>) -> String {
    backend.clone().unwrap_or_else(|| "(nowhere)".to_owned())
}

fn more(rows: usize) -> String {
    if rows > MOVES_SHOWN { format!("  and {} more\n", rows - MOVES_SHOWN) } else { String::new() }
}
