//! Ways to keep users logged in, and the logins that each loses when backends or balancers change.
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
    /// True if the balancers share their stick tables, which takes a store.
    shares: bool,
}

/// All ways; `$KEYS` is replaced by the path of the cookie keys.
const WAYS: [Way; 7] = [
    Way { options: "balance = \"hash\"\nstick_table = \"0\"\n", ..Way::new("hash", "IP hash") },
    Way { options: "balance = \"ring\"\nstick_table = \"0\"\n", ..Way::new("ring", "consistent ring") },
    Way { options: "balance = \"ring\"\n", ..Way::new("stick-table", STICK_TABLE) },
    Way { options: "balance = \"ring\"\n", shares: true, ..Way::new("shared-stick-table", SHARED_STICK_TABLE) },
    Way {
        options: "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = $KEYS }\n",
        ..Way::new("insert", INSERT)
    },
    Way {
        options: "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n",
        ..Way::new("learn", LEARN)
    },
    Way { options: "balance = \"round_robin\"\n", replicated: true, ..Way::new("replicated", REPLICATED) },
];

const STICK_TABLE: &str = "ring with stick table";
const SHARED_STICK_TABLE: &str = "ring, shared stick table";
const INSERT: &str = "balancer's cookie";
const LEARN: &str = "learned cookie";
const REPLICATED: &str = "replicated sessions";

impl Way {
    /// A way without options.
    const fn new(listener: &'static str, title: &'static str) -> Self {
        Self { listener, title, options: "", replicated: false, shares: false }
    }
}

/// Events in their order, as headings of the table.
const EVENTS: [&str; 5] = ["ONE ADDED", "ONE DIES", "IT RETURNS", "RESTART", "BALANCER KILLED"];
const ADDED: usize = 0;
const DIES: usize = 1;
const RETURNS: usize = 2;
const RESTART: usize = 3;

/// What became of the users of one way.
struct WayLosses {
    way: Way,
    /// Number of users that had to log in again, by event.
    lost: [usize; EVENTS.len()],
    /// Users with a session at the backend that died.
    at_victim: usize,
}

/// Runs all events and returns the scene.
pub(super) async fn logged_in_users() -> Result<Scene, CommandError> {
    let mut fleet = Fleet::start().await?;
    let mut all = Vec::new();
    for way in fleet.ways() {
        let users = Users::log_in(way, fleet.address(way)?).await?;
        all.push((users, WayLosses { way, lost: Default::default(), at_victim: 0 }));
    }
    for (event, _) in EVENTS.iter().enumerate() {
        match event {
            ADDED => fleet.add(NEWCOMER).await?,
            DIES => {
                all.iter_mut().for_each(|(users, losses)| losses.at_victim = users.at(VICTIM));
                fleet.kill(VICTIM).await?;
            }
            RETURNS => fleet.revive(VICTIM).await?,
            RESTART => fleet.restart().await?,
            _ => fleet.lose_one(),
        }
        for (users, losses) in &mut all {
            losses.lost[event] = users.request_accounts(fleet.address(losses.way)?).await?;
        }
    }
    let losses: Vec<_> = all.into_iter().map(|(_, losses)| losses).collect();
    Ok(scene(fleet.store(), &losses))
}

/// `store`: its name and version, if there is one.
fn scene(store: Option<&str>, all: &[WayLosses]) -> Scene {
    let [added, dies, returns, restart, killed] = EVENTS;
    let mut table = Table::new(["HAD TO LOG IN AGAIN", added, dies, returns, restart, killed]);
    for WayLosses { way, lost, .. } in all {
        let [a, b, c, d, e] = lost.map(|count| count.to_string());
        table.row([way.title.to_owned(), a, b, c, d, e]);
    }
    let found = |title: &str| all.iter().find(|losses| losses.way.title == title);
    let row = |title: &str| found(title).map_or([0; EVENTS.len()], |losses| losses.lost);
    let orphans = all.iter().filter(|losses| !losses.way.replicated && losses.lost[DIES] != losses.at_victim);
    let others: Vec<_> = orphans
        .map(|WayLosses { way, lost, at_victim }| format!("{}: {} instead of {at_victim}", way.title, lost[DIES]))
        .collect();
    let [stick_table, shared, insert, learn] = [STICK_TABLE, SHARED_STICK_TABLE, INSERT, LEARN].map(row);
    let restarts: Vec<_> = all.iter().map(|losses| losses.lost[RESTART]).collect();
    let scene = Scene::new("Ways to keep users logged in")
        .text(introduction(store))
        .show(&table)
        .promise("users in a stick table or with a cookie stay when a backend is added or returns", {
            none_lost(&[stick_table, shared, insert, learn].map(|row| row[ADDED] + row[RETURNS]))
        })
        .promise(
            "a backend takes only its own users' sessions with it",
            (!others.is_empty()).then(|| others.join(", ")),
        )
        .promise("a restart loses no session", none_lost(&restarts))
        .promise("the balancer's cookie is good at the other balancer", none_lost(&insert[RESTART..]))
        .promise("with replicated sessions no login is lost", none_lost(&row(REPLICATED)));
    match store {
        Some(_) => scene
            .promise(
                "a learned cookie is good at the other balancer, through the shared store",
                none_lost(&learn[RESTART..]),
            )
            .promise(
                "a shared stick table is good at the other balancer, through the shared store",
                none_lost(&shared[RESTART..]),
            ),
        None => scene,
    }
}

fn introduction(store: Option<&str>) -> String {
    let store = match store {
        Some(version) => format!(
            "A {version} keeps the replicated sessions and the learned cookies of the balancers. Through it two more \
             balancers tell each other what their stick tables have elsewhere than placement (share = [\"cookies\", \
             \"displaced\"])."
        ),
        None => "There is no redis-server or valkey-server on this machine: replicated sessions are in the demo's own \
                 memory, and the balancers share neither learned cookies nor stick tables."
            .to_owned(),
    };
    format!(
        "{USERS} users each log in through the first of two balancers. A backend is added, one dies with its sessions, \
         it returns without them, the balancer is restarted, and at last killed, so that all users come through the \
         second one, of which the stick table has seen none of them. {store}"
    )
}

/// The complaint if users had to log in.
fn none_lost(counts: &[usize]) -> Option<String> {
    let lost = counts.iter().sum::<usize>();
    (lost > 0).then(|| format!("{lost} lost"))
}
