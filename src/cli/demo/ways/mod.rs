//! Six ways to keep users logged in, and the logins that each loses when backends or balancers change.
//!
//! A login makes a session in the memory of one backend, or in a store that all backends share, and a cookie names the
//! session. A user at a backend without the session has to log in again; these logins are counted. Invariant: all ways
//! see the same events at the same time, with the same backends.

mod fleet;
mod service;
mod sessions;
mod users;

use self::fleet::Fleet;
use self::users::{USERS, Users};
use super::report::Scene;
use super::stage::{NEWCOMER, VICTIM};
use crate::cli::CommandError;
use crate::cli::table::Table;

/// One way, with its listener and pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    listener: &'static str,
    title: &'static str,
    /// Keys of the pool in the configuration.
    options: &'static str,
    /// True if all backends share the sessions.
    replicated: bool,
}

/// All ways; `$KEYS` is replaced by the path of the cookie keys.
const WAYS: [Way; 6] = [
    Way { listener: "hash", title: "IP hash", options: "balance = \"hash\"\nstick_table = \"0\"\n", replicated: false },
    Way {
        listener: "ring",
        title: "consistent ring",
        options: "balance = \"ring\"\nstick_table = \"0\"\n",
        replicated: false,
    },
    Way { listener: "stick-table", title: "ring with stick table", options: "balance = \"ring\"\n", replicated: false },
    Way {
        listener: "insert",
        title: "balancer's cookie",
        options: "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = $KEYS }\n",
        replicated: false,
    },
    Way {
        listener: "learn",
        title: "learned cookie",
        options: "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n",
        replicated: false,
    },
    Way {
        listener: "replicated",
        title: "replicated sessions",
        options: "balance = \"round_robin\"\n",
        replicated: true,
    },
];

/// Events in their order, as headings of the table.
const EVENTS: [&str; 5] = ["ONE ADDED", "ONE DIES", "IT RETURNS", "RESTART", "BALANCER KILLED"];
const ADDED: usize = 0;
const DIES: usize = 1;
const RETURNS: usize = 2;
const RESTART: usize = 3;

/// Number of users that had to log in again, by way and event.
type Losses = [[usize; EVENTS.len()]; WAYS.len()];

/// Runs all events and returns the scene.
pub(super) async fn logged_in_users() -> Result<Scene, CommandError> {
    let mut fleet = Fleet::start().await?;
    let mut users = Vec::new();
    for way in WAYS {
        users.push(Users::log_in(way, fleet.address(way)?).await?);
    }
    let mut losses = Losses::default();
    let mut at_victim = [0; WAYS.len()];
    for (event, _) in EVENTS.iter().enumerate() {
        match event {
            ADDED => fleet.add(NEWCOMER).await?,
            DIES => {
                at_victim = std::array::from_fn(|way| users[way].at(VICTIM));
                fleet.kill(VICTIM).await?;
            }
            RETURNS => fleet.revive(VICTIM).await?,
            RESTART => fleet.restart().await?,
            _ => fleet.lose_one(),
        }
        for (way, users) in users.iter_mut().enumerate() {
            losses[way][event] = users.request_accounts(fleet.address(WAYS[way])?).await?;
        }
    }
    Ok(scene(&fleet, &losses, &at_victim))
}

fn scene(fleet: &Fleet, losses: &Losses, at_victim: &[usize; WAYS.len()]) -> Scene {
    let [added, dies, returns, restart, killed] = EVENTS;
    let mut table = Table::new(["HAD TO LOG IN AGAIN", added, dies, returns, restart, killed]);
    for (way, [a, b, c, d, e]) in WAYS.iter().zip(losses.map(|row| row.map(|count| count.to_string()))) {
        table.row([way.title.to_owned(), a, b, c, d, e]);
    }
    let row = |title: &str| losses[WAYS.iter().position(|way| way.title == title).unwrap_or(0)];
    let none_lost = |counts: &[usize]| {
        let lost = counts.iter().sum::<usize>();
        (lost > 0).then(|| format!("{lost} lost"))
    };
    let orphans = WAYS.iter().zip(losses).zip(at_victim).filter(|((way, _), _)| !way.replicated);
    let others = orphans
        .filter(|((_, row), orphans)| row[DIES] != **orphans)
        .map(|((way, row), orphans)| format!("{}: {} instead of {orphans}", way.title, row[DIES]));
    let others: Vec<_> = others.collect();
    let [stick_table, insert, learn] = ["ring with stick table", "balancer's cookie", "learned cookie"].map(row);
    let store = match fleet.redis() {
        Some(version) => {
            format!("A Redis {version} keeps the replicated sessions, and the learned cookies of the balancers.")
        }
        None => "There is no redis-server on this machine: replicated sessions are in the demo's own memory, and the \
                 balancers do not share learned cookies."
            .to_owned(),
    };
    let scene = Scene::new("Six ways to keep users logged in")
        .text(format!(
            "{USERS} users each log in through the first of two balancers. A backend is added, one dies with its \
             sessions, it returns without them, the balancer is restarted, and at last killed, so that all users come \
             through the second one, with an empty stick table. {store}"
        ))
        .show(&table)
        .promise("users in a stick table or with a cookie stay when a backend is added or returns", {
            none_lost(&[stick_table, insert, learn].map(|row| row[ADDED] + row[RETURNS]))
        })
        .promise(
            "a backend takes only its own users' sessions with it",
            (!others.is_empty()).then(|| others.join(", ")),
        )
        .promise("a restart loses no session", none_lost(&losses.map(|row| row[RESTART])))
        .promise("the balancer's cookie is good at the other balancer", none_lost(&insert[RESTART..]))
        .promise("with replicated sessions no login is lost", none_lost(&row("replicated sessions")));
    match fleet.redis() {
        Some(_) => scene.promise(
            "a learned cookie is good at the other balancer, through the shared store",
            none_lost(&learn[RESTART..]),
        ),
        None => scene,
    }
}
