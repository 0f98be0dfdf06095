//! The thread of the store: the task of one server, or that of a cluster, as the configuration in force names one or the
//! other.
//!
//! The control runtime is not used: its other work may take longer than the budget of a request. Invariant: a thread that
//! has failed leaves the store switched off.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tokio::task::LocalSet;

use super::cluster::ClusterTask;
use super::shared::StoreShared;
use super::task::StoreTask;

/// Starts the thread.
pub(super) fn start(task: StoreTask, shared: &Arc<StoreShared>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Arc::clone(shared);
    thread::Builder::new().name("store".into()).spawn(move || {
        let run = || LocalSet::new().block_on(&runtime, run(task));
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            shared.breaker.off();
            tracing::error!("the shared store is not used any more: its thread has failed");
        }
    })?;
    Ok(())
}

/// Runs until the process ends.
async fn run(mut task: StoreTask) {
    let mut order = task.run().await;
    while let Some(next) = order {
        order = if next.is_cluster() {
            ClusterTask::of(&task).run(&mut task.inbox, next).await
        } else {
            task.handle(next);
            task.run().await
        };
    }
}
