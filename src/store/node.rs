//! What the task of a cluster's node tells that of the cluster.
//!
//! Holds no state. Invariant: a report is never waited for; those with requests are bounded by the requests under way.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::batch::StoreBatch;
use super::cluster::slots::SlotRedirect;
use crate::config::StoreAddress;

/// What has come of a node.
pub(super) enum NodeReport {
    /// Requests are sent to it from now on.
    Reached,
    /// It could not be reached, or is not any more.
    Away,
    /// Another node has the keys of these requests.
    Elsewhere(SlotRedirect, StoreBatch),
}

/// Sends the reports of one node.
pub(super) struct NodeReporter {
    pub(super) node: Arc<StoreAddress>,
    pub(super) reports: mpsc::UnboundedSender<(Arc<StoreAddress>, NodeReport)>,
}

impl NodeReporter {
    /// Sends a report, unless the cluster is not used any more.
    pub(super) fn send(&self, report: NodeReport) {
        let _ = self.reports.send((Arc::clone(&self.node), report));
    }
}
