//! [`StoreShared`]: what conversations, operators and the task of a store, or of one node of a cluster, see of it.
//!
//! Sends nothing. Invariant: of a cluster only the nodes' own breakers count failures; that of the whole is open while no
//! node is reached.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::breaker::{Breaker, BreakerState};
use super::counters::StoreCounters;
use crate::clock;
use crate::config::StoreAddress;
use crate::events::{self, Event, EventKind};
use crate::remote_text;

/// State that conversations and the task share.
#[derive(Debug, Default)]
pub(super) struct StoreShared {
    pub(super) breaker: Breaker,
    pub(super) budget_us: AtomicU64,
    /// Counters of the requests; all nodes of a cluster have the same.
    pub(super) counters: Arc<StoreCounters>,
    /// Wakes the task when the breaker has opened.
    pub(super) breaker_opened: Notify,
    /// Address of the store and its last error, for operators.
    status_text: Mutex<StatusText>,
    /// The nodes of a cluster; `None`: the store is one server.
    nodes: Mutex<Option<Vec<ClusterNode>>>,
}

#[derive(Debug, Default)]
pub(super) struct StatusText {
    pub(super) place: String,
    pub(super) complaint: String,
}

/// A node of a cluster.
#[derive(Debug, Clone)]
pub(super) struct ClusterNode {
    pub(super) address: Arc<StoreAddress>,
    /// Number of its slots.
    pub(super) slots: usize,
    pub(super) shared: Arc<StoreShared>,
}

/// A node of a cluster as operators read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Address of the node, as the cluster names it.
    pub address: String,
    /// Number of the slots that it has.
    pub slots: usize,
    /// Whether requests are sent to it.
    pub state: BreakerState,
    /// Last failure of the node; empty if there is none.
    pub complaint: String,
}

impl StoreShared {
    /// State of a node, which counts with the others.
    pub(super) fn of_node(counters: &Arc<StoreCounters>) -> Self {
        Self { counters: Arc::clone(counters), ..Self::default() }
    }

    /// Counts a failure of a request that was sent in the working period `since`.
    pub(super) fn failed(&self, since: u64) {
        if self.nodes().is_none() && self.breaker.failed(since) {
            self.breaker_opened.notify_one();
        }
    }

    pub(super) fn set_status<T>(&self, what: impl FnOnce(&mut StatusText) -> T) -> T {
        what(&mut self.status_text.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the nodes of a cluster; `None`: the store is one server.
    pub(super) fn set_nodes(&self, nodes: Option<Vec<ClusterNode>>) {
        *self.nodes() = nodes;
    }

    /// The nodes of a cluster; none of a store that is one server.
    pub(super) fn node_views(&self) -> Vec<NodeView> {
        let view = |ClusterNode { address, slots, shared }: &ClusterNode| NodeView {
            address: address.to_string(),
            slots: *slots,
            state: shared.breaker.look(),
            complaint: shared.set_status(|status| status.complaint.clone()),
        };
        self.nodes().iter().flatten().map(view).collect()
    }

    /// Address and complaint of the store; of a cluster, that of a node if there is none of the whole.
    pub(super) fn place_and_complaint(&self) -> (String, String) {
        let (place, complaint) = self.set_status(|status| (status.place.clone(), status.complaint.clone()));
        if !complaint.is_empty() {
            return (place, complaint);
        }
        let nodes = self.node_views();
        let mut complaints = nodes.iter().filter(|node| !node.complaint.is_empty());
        let first = complaints.next().map(|node| format!("node {}: {}", node.address, node.complaint));
        let more = complaints.count();
        let first = first.unwrap_or_default();
        (place, if more > 0 { format!("{first}; and {more} more") } else { first })
    }

    /// Sets the complaint, which may have words of the store in it, and returns it as it is shown; `None`: it is the
    /// complaint that stands already.
    pub(super) fn complain(&self, why: &str) -> Option<String> {
        let shown = remote_text::shown(why);
        let before = self.set_status(|status| std::mem::replace(&mut status.complaint, shown.clone()));
        (before != shown).then_some(shown)
    }

    fn nodes(&self) -> MutexGuard<'_, Option<Vec<ClusterNode>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the store is not used, or not for everything.
pub(super) fn fails(text: &str) {
    events::warn(clock::unix_ms(), Event::new(EventKind::StoreDown, text));
}

/// Says that the store is used again.
pub(super) fn works(text: &str) {
    events::info(clock::unix_ms(), Event::new(EventKind::StoreUp, text));
}
