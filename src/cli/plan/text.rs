//! [`Plan`] as text of at most 80 columns: the headline of a running process, what changes, then one paragraph for each
//! pool.
//!
//! Computes nothing. Invariant: a pool without moving clients takes one line; an estimate is marked as one.

use std::fmt::Write as _;
use std::io::Write;

use super::super::CommandError;
use super::super::table::{Table, note_of_cuts};
use super::super::width::{COLUMNS, wrap};
use crate::plan::{Live, Move, MoveTally, Plan, PoolPlan, RoutedAway, Shift, percent};

/// Most moves that are printed for a pool; JSON has all of them.
const MOVES_SHOWN: usize = 12;

/// Heading of the backends that clients leave.
const FROM: &str = "  from";

/// Mark behind an estimated number.
const MARK: &str = "*";

/// Indent of lines that go on.
const INDENT: usize = 4;

/// Prints the whole plan.
pub(super) fn print(out: &mut impl Write, plan: &Plan) -> Result<(), CommandError> {
    out.write_all(of(plan).as_bytes())?;
    Ok(())
}

fn of(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.headline.iter().map(ToString::to_string).collect();
    if plan.changes.is_empty() {
        lines.push("nothing changes".to_owned());
    }
    lines.extend(plan.routes.iter().map(ToString::to_string));
    lines.extend(plan.splits.iter().map(ToString::to_string));
    lines.extend(plan.changes.iter().cloned());
    lines.extend(plan.warnings.iter().map(|line| format!("warning: {line}")));
    let paragraphs: String = plan.pools.iter().map(paragraph).collect();
    let head: String = lines.iter().map(|line| wrap(line, COLUMNS, INDENT)).collect();
    let note = note_of_cuts(&paragraphs);
    head + &paragraphs + note
}

fn paragraph(pool: &PoolPlan) -> String {
    let open = pool.live.as_ref().map_or(0, |live| live.open.total);
    if !pool.sticks && open == 0 && pool.lost_cookie.is_none() {
        return String::new();
    }
    let moving = |tally: &MoveTally| tally.leave + tally.depend > 0;
    let listed = pool.listed.as_ref().is_some_and(|listed| listed.known + listed.new > 0);
    let live = pool.live.as_ref().is_some_and(|live| moving(&live.known) || moving(&live.open));
    let mut line = format!("pool {:?}: ", pool.pool);
    let routed = pool.sticks && !pool.routed_away.is_none();
    if !pool.removed && pool.lost_cookie.is_none() && pool.moves.is_empty() && !listed && !live && !routed {
        line += if pool.by_load { "no known client moves; load places new ones" } else { "no client moves" };
        if let Some(Live { known, open }) = &pool.live {
            let _ = write!(line, "; {} known clients, {} open connections", known.total, open.total);
        }
        return wrap(&line, COLUMNS, INDENT);
    }
    line += &match (pool.removed, &pool.live) {
        (true, _) => "removed, all its clients lose their backend".to_owned(),
        (false, Some(live)) if live.known.total > 0 => {
            let MoveTally { total, leave, .. } = live.known;
            format!("of {total} known clients {leave} move{}; {}", depending(&live.known), of_new(pool))
        }
        (false, _) if pool.all_routed_away() => "all its clients go elsewhere by their routes".to_owned(),
        (false, _) if pool.routed_away == RoutedAway::Some => {
            let (known, new) = (percent(pool.known_keys), percent(pool.new_keys));
            format!("clients of some routes go elsewhere; of the others {known} move if they are known, {new} if not")
        }
        (false, _) => {
            format!("{} of its known clients move, {}", percent(pool.known_keys), of_new(pool))
        }
    };
    let mut lines = vec![line];
    if let Some(lost) = &pool.lost_cookie {
        lines.push(format!("  {} lose it and are placed anew: {}", lost.holders(), lost.why));
    }
    if let Some(Live { known, open }) = &pool.live {
        if pool.removed || known.total == 0 {
            lines.push(format!("  known clients now: {}", tally(known)));
        }
        lines.push(match open.total {
            0 => "  open connections: none".to_owned(),
            _ => format!(
                "  open connections: {}; no connection is cut, their clients move with their next one",
                tally(open)
            ),
        });
    }
    if let Some(listed) = &pool.listed {
        let (known, new, all) = (listed.known, listed.new, listed.clients);
        lines.push(match &pool.live {
            Some(_) if listed.by_load() > 0 => {
                let by_load = listed.by_load();
                format!("  of {all} listed clients {known} move; {by_load} are not known, and load will place them")
            }
            Some(_) => format!("  of {all} listed clients {known} move, by what the process knows now"),
            None => format!("  of {all} listed clients {known} move if they are known, {new} if they are not"),
        });
    }
    let text: String = lines.iter().map(|line| wrap(line, COLUMNS, INDENT)).collect();
    text + &matrix(pool)
}

/// What becomes of new clients.
fn of_new(pool: &PoolPlan) -> String {
    match pool.by_load {
        true => "load places new ones".to_owned(),
        false => format!("{} of new ones go elsewhere", percent(pool.new_keys)),
    }
}

fn tally(tally: &MoveTally) -> String {
    let MoveTally { total, leave, .. } = tally;
    format!("{total}, of which {leave} move{}", depending(tally))
}

fn depending(tally: &MoveTally) -> String {
    let MoveTally { depend, by_route, depend_leave_about: about, .. } = tally;
    match (depend, by_route) {
        (0, _) => String::new(),
        // Without an open connection there is no estimate.
        (_, 1..) => format!("; {by_route} more may, as their routes decide"),
        _ => format!("; {depend} depend on their keys or routes, of which about {about} move"),
    }
}

/// Table of moves from backend to backend.
fn matrix(pool: &PoolPlan) -> String {
    match &pool.live {
        Some(live) => live_matrix(live, &pool.moves),
        None => {
            let mut table = Table::new([FROM, "to", "known", "new"]);
            for row in pool.moves.iter().take(MOVES_SHOWN) {
                table.row([from(&row.from), to(&row.to), percent(row.known_keys), percent(row.new_keys)]);
            }
            table.render_within(COLUMNS, &[FROM, "to"]) + &more(pool.moves.len())
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
    let mut table = Table::new([FROM, "to", "known clients", "open connections", "of all new"]);
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
        "  * estimated: a key or a route decides where, and a stick table has only hashes\n"
    } else {
        ""
    };
    table.render_within(COLUMNS, &[FROM, "to"]) + &more(pairs.len()) + note
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Headline;

    fn plan() -> Plan {
        let shift = |from: &str, to: &str, count, about| Shift { from: from.into(), to: Some(to.into()), count, about };
        let known = MoveTally {
            total: 412,
            stay: 375,
            leave: 37,
            moves: vec![shift("web2", "web1", 20, false), shift("web2", "web3", 17, false)],
            ..MoveTally::default()
        };
        let open = MoveTally {
            total: 60,
            stay: 55,
            leave: 5,
            moves: vec![shift("web2", "web1", 5, false)],
            ..MoveTally::default()
        };
        let moves = ["web1", "web3"].map(|to| Move {
            from: "web2".into(),
            to: Some(to.into()),
            new_keys: 0.167,
            known_keys: 0.167,
        });
        let pool = PoolPlan {
            pool: "web".into(),
            removed: false,
            sticks: true,
            by_load: false,
            new_keys: 0.334,
            known_keys: 0.334,
            moves: moves.into(),
            routed_away: RoutedAway::None,
            lost_cookie: None,
            listed: None,
            live: Some(Live { known, open }),
        };
        let headline = Headline { known: 412, known_move: 37, by_route: 0, open: 60, open_move: 5, about: false };
        Plan {
            changes: vec!["backend \"web/web2\" removed".into()],
            routes: Vec::new(),
            splits: Vec::new(),
            warnings: Vec::new(),
            pools: vec![pool],
            headline: Some(headline),
        }
    }

    #[test]
    fn the_plan_of_a_running_process_begins_with_its_clients() {
        assert_eq!(
            of(&plan()),
            "of 412 known clients 37 move\n\
             backend \"web/web2\" removed\n\
             pool \"web\": of 412 known clients 37 move; 33.4 % of new ones go elsewhere\n  \
             open connections: 60, of which 5 move; no connection is cut, their clients\n    \
             move with their next one\n  \
             from  to    known clients  open connections  of all new\n  \
             web2  web1             20                 5      16.7 %\n  \
             web2  web3             17                 0      16.7 %\n"
        );
    }

    #[test]
    fn long_names_are_cut_and_no_line_is_wider_than_80() {
        let mut plan = plan();
        let live = plan.pools[0].live.as_mut().unwrap();
        (live.known.moves[0].about, live.known.depend, live.known.depend_leave_about) = (true, 12, 7);
        let long = |end: &str| format!("{}-{end}", "a-very-long-name-of-a-backend".repeat(2));
        let pool = &mut plan.pools[0];
        pool.pool = long("p");
        for row in &mut pool.moves {
            (row.from, row.to) = (long("2"), row.to.as_deref().map(long));
        }
        for row in
            pool.live.as_mut().into_iter().flat_map(|live| live.known.moves.iter_mut().chain(&mut live.open.moves))
        {
            (row.from, row.to) = (long("2"), row.to.as_deref().map(long));
        }
        plan.warnings = vec![format!("backend \"web/{}\" is down; the plan counts it as up", long("2"))];
        let text = of(&plan);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        let row = text.lines().find(|line| line.contains("20")).unwrap();
        assert!(row.contains('…') && row.contains("-2  ") && row.contains("-web1  "), "{text}");
        assert!(text.ends_with("--json has all names whole\n"), "{text}");
        pool_whole_in_json(&plan, &long("2"));
    }

    fn pool_whole_in_json(plan: &Plan, name: &str) {
        let json = serde_json::to_value(plan).unwrap();
        assert_eq!(json["pools"][0]["moves"][0]["from"], name);
    }
}
