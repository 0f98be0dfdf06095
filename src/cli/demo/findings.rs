//! Compares rounds of requests: tables, and the reason why a promise is broken.
//!
//! Pure functions without I/O. Invariant: a reason names a client, its old and its new backend.

use super::clients::{CLIENTS, DemoMove, Round};
use crate::cli::table::Table;

/// Name of a pool, and the responses to its clients before and after an event.
pub(super) type Change<'a> = (&'a str, &'a Round, &'a Round);

/// Table: number of clients of each backend.
pub(super) fn shares(backends: &[&str], round: &Round) -> Table<4> {
    let mut table = Table::new(["BACKEND", "CLIENTS", "SHARE", "ITS OWN COUNTER"]);
    for name in backends {
        let count = round.count(name);
        let share = percent(count as f64 / CLIENTS as f64);
        table.row([(*name).to_owned(), count.to_string(), share, round.counter(name).to_string()]);
    }
    table
}

/// Table: number of clients that each backend lost and got.
pub(super) fn movement<'a>(backends: &[&str], changes: impl IntoIterator<Item = Change<'a>>) -> Table<6> {
    let mut table = Table::new(["POOL", "BACKEND", "CLIENTS BEFORE", "LEFT IT", "CAME TO IT", "CLIENTS AFTER"]);
    for (pool, before, after) in changes {
        for name in backends {
            let left = before.moves(after).filter(|moved| moved.from == *name).count();
            let came = before.moves(after).filter(|moved| moved.to == *name).count();
            let numbers = [before.count(name), left, came, after.count(name)].map(|number| number.to_string());
            let [before, left, came, after] = numbers;
            table.row([pool.to_owned(), (*name).to_owned(), before, left, came, after]);
        }
    }
    table
}

/// New backends of the moved clients, with counts: "a (20), c (22)".
pub(super) fn destinations(backends: &[&str], before: &Round, after: &Round) -> String {
    let came = |name: &&str| before.moves(after).filter(|moved| moved.to == *name).count();
    let counts = backends.iter().map(|name| (name, came(name))).filter(|(_, count)| *count > 0);
    counts.map(|(name, count)| format!("{name} ({count})")).collect::<Vec<_>>().join(", ")
}

/// A share as a percentage with one decimal.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Reason if a client did not reach the same backend in every round; `None`: all did.
pub(super) fn astray(rounds: &[Round]) -> Option<String> {
    unwanted(rounds.iter().flat_map(|round| rounds[0].moves(round)))
}

/// Reason if there is any move in `moves`; `None`: there is none.
pub(super) fn unwanted<'a>(mut moves: impl Iterator<Item = DemoMove<'a>>) -> Option<String> {
    let DemoMove { client, from, to } = moves.next()?;
    let others = match moves.count() {
        0 => String::new(),
        count => format!(" (and {count} more such moves)"),
    };
    Some(format!("{client} moved from {from} to {to}{others}"))
}

/// Reason if a connection did not reach the next backend in turn; `None`: all did.
pub(super) fn out_of_turn(backends: &[&str], round: &Round) -> Option<String> {
    let names: Vec<_> = round.backends().collect();
    let turn = &names[..backends.len()];
    let missing = backends.iter().find(|name| !turn.contains(name));
    let wrong = names.iter().zip(turn.iter().cycle()).position(|(name, expected)| name != expected);
    match (missing, wrong) {
        (Some(missing), _) => Some(format!("{missing} is not among the first {}", turn.len())),
        (None, Some(wrong)) => Some(format!("connection {} reached {}", wrong + 1, names[wrong])),
        (None, None) => None,
    }
}

/// Reason if counts of these backends differ by more than one, or another backend served a client; `None`: neither.
pub(super) fn uneven(backends: &[&str], round: &Round) -> Option<String> {
    let counts: Vec<_> = backends.iter().map(|name| round.count(name)).collect();
    let spread = counts.iter().max()? - counts.iter().min()?;
    let elsewhere = CLIENTS - counts.iter().sum::<usize>();
    let shown = || backends.iter().zip(&counts).map(|(name, count)| format!("{name} {count}, ")).collect::<String>();
    (spread > 1 || elsewhere > 0).then(|| format!("{}others {elsewhere}", shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    /// A round with backends in turn, except for one client.
    fn round(odd: Option<(usize, &'static str)>) -> Round {
        let name = |index| odd.filter(|(client, _)| *client == index).map_or(NAMES[index % 3], |(_, name)| name);
        (0..CLIENTS).map(name).collect()
    }

    #[test]
    fn who_goes_astray_is_named() {
        assert_eq!(astray(&[round(None), round(None)]), None);
        let complaint = astray(&[round(None), round(Some((7, "c"))), round(None)]).unwrap();
        assert_eq!(complaint, "127.0.0.9 moved from b to c");
        let complaint = astray(&[round(None), round(Some((7, "c"))), round(Some((7, "a")))]).unwrap();
        assert!(complaint.ends_with("(and 1 more such moves)"), "{complaint}");
    }

    #[test]
    fn whose_turn_it_was_not_is_named() {
        assert_eq!(out_of_turn(&NAMES, &round(None)), None);
        assert_eq!(out_of_turn(&NAMES, &round(Some((3, "b")))).unwrap(), "connection 4 reached b");
        assert_eq!(out_of_turn(&NAMES, &round(Some((2, "a")))).unwrap(), "c is not among the first 3");
    }

    #[test]
    fn one_client_more_is_even_and_two_are_not() {
        assert_eq!(uneven(&NAMES, &round(None)), None, "200 clients of 3 backends");
        assert_eq!(uneven(&NAMES, &round(Some((0, "b")))).unwrap(), "a 66, b 68, c 66, others 0");
        assert_eq!(uneven(&["a", "b"], &round(None)).unwrap(), "a 67, b 67, others 66");
    }

    #[test]
    fn who_lost_clients_and_who_won_them_is_shown() {
        let (before, after) = (round(None), round(Some((0, "b"))));
        assert_eq!(destinations(&NAMES, &before, &after), "b (1)");
        let table = movement(&NAMES, [("hash", &before, &after)]).render();
        let rows: Vec<Vec<_>> = table.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["hash", "a", "67", "1", "0", "66"]);
        assert_eq!(rows[1], ["hash", "b", "67", "0", "1", "68"]);
    }
}
