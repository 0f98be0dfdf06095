//! Which server has a key: the one at the configured address, the primary that a sentinel names, or the node of a cluster
//! that has the key's slot; and the connection to it.
//!
//! Sends nothing over it. Invariants: a dial takes at most [`DIAL_MAX`]; a server of which a sentinel says that it is the
//! primary is used only if it says so itself.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::timeout;

use super::access::Access;
use super::cluster::slots::SlotMap;
use super::link::{Greeting, Link, LinkError};
use crate::config::{StoreAddress, StorePlace};

/// Time limit for connecting, with what is asked to find the server.
const DIAL_MAX: Duration = Duration::from_secs(2);

/// Connects to the server that has a key, in time.
pub(super) async fn dial(access: &Access, key: &str) -> Result<Link, String> {
    let made = timeout(DIAL_MAX, connect(access, key)).await;
    made.unwrap_or_else(|_| Err("no connection in time".to_owned()))
}

async fn connect(access: &Access, key: &str) -> Result<Link, String> {
    match &access.config.place {
        StorePlace::One(address) => open(access, address).await,
        StorePlace::Sentinels { sentinels, master } => connect_to_primary(access, sentinels, master).await,
        StorePlace::Cluster(nodes) => {
            let slots = slots(access, nodes).await?;
            let node = slots.node(key).ok_or_else(|| format!("no node of the cluster has the slot of {key:?}"))?;
            let link = open(&access.of_node(node, key.into()), node).await;
            link.map_err(|why| format!("node {node}: {why}"))
        }
    }
}

/// Reads which node of a cluster has which slot, from the first of these servers that answers.
pub(super) async fn slots(access: &Access, servers: &[StoreAddress]) -> Result<SlotMap, String> {
    // Half of the time is left for the node that has the key.
    let each = DIAL_MAX / 2 / servers.len().max(1) as u32;
    let mut complaints = Vec::new();
    for server in servers {
        let asked = timeout(each, slots_of(access, server)).await;
        match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(slots) => return Ok(slots),
            Err(why) => complaints.push(format!("{server}: {why}")),
        }
    }
    Err(complaints.join("; "))
}

async fn slots_of(access: &Access, server: &StoreAddress) -> Result<SlotMap, String> {
    let link = open(access, server).await?;
    let mut which = cmd("CLUSTER");
    which.arg("SLOTS");
    let reply: Value = link.ask(&which).await.map_err(|broken| broken.why)?;
    SlotMap::read(reply, server)
}

async fn open(access: &Access, address: &StoreAddress) -> Result<Link, String> {
    Link::connect(access, address, Greeting::Database).await.map_err(|broken| broken.why)
}

/// Connects to the primary that one of the sentinels names.
async fn connect_to_primary(access: &Access, sentinels: &[StoreAddress], master: &str) -> Result<Link, String> {
    let mut complaints = Vec::new();
    for sentinel in sentinels {
        match primary(access, sentinel, master).await {
            Ok(Some(address)) => match open_primary(access, &address).await {
                Ok(link) => return Ok(link),
                Err(why) => {
                    complaints.push(format!("{address}, of which sentinel {sentinel} says that it is: {why}"));
                }
            },
            Ok(None) => complaints.push(format!("sentinel {sentinel} knows no {master:?}")),
            Err(broken) => complaints.push(format!("sentinel {sentinel}: {}", broken.why)),
        }
    }
    Err(complaints.join("; "))
}

/// Connects to a primary and checks its ROLE, because a sentinel's view may be a moment old.
async fn open_primary(access: &Access, address: &StoreAddress) -> Result<Link, String> {
    let link = open(access, address).await?;
    let role: Vec<Value> = link.ask(&cmd("ROLE")).await.map_err(|broken| broken.why)?;
    match role.first() {
        Some(Value::BulkString(word)) if word == b"master" => Ok(link),
        _ => Err("it is no primary".to_owned()),
    }
}

/// Requests the address of the primary from a sentinel, first without a password: sentinels often have none.
async fn primary(access: &Access, sentinel: &StoreAddress, master: &str) -> Result<Option<StoreAddress>, LinkError> {
    let mut which = cmd("SENTINEL");
    which.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let link = Link::connect(access, sentinel, Greeting::Anonymous).await?;
    let mut found: Result<Option<(String, u16)>, _> = link.ask(&which).await;
    if found.is_err() && access.password.is_some() {
        let link = Link::connect(access, sentinel, Greeting::User).await?;
        found = link.ask(&which).await;
    }
    Ok(found?.map(|(host, port)| StoreAddress::Tcp(host, port)))
}
