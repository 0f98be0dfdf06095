//! What another file would do, told by the process that would do it.
//!
//! Reads and checks as a reload does, and asks everybody what they know. Invariant: nothing that connections see has
//! changed, and while it is looked at, nothing else in force has either.

use super::Server;
use super::reload::{self, ReadConfig};
use crate::admin::PlanRequest;
use crate::clock;
use crate::plan::{Ask, Plan, Running};
use crate::splicer;

impl Server {
    /// Who would move, or everything that is wrong with the text.
    pub(super) async fn plan_for(&self, asked: PlanRequest) -> Result<Plan, Vec<String>> {
        // Names in the text may take the resolver a while, during which everything else goes on.
        let before = self.current.load_full();
        let PlanRequest { file, text, clients } = asked;
        let read = aside(move || reload::understand(&file, &text, Some(&before))).await?;
        let _nobody_reloads = self.listen_sockets.lock().await;
        let snapshot = self.current.load_full();
        let mut open = self.workers.opened().await;
        open.extend(self.conversations.opened().await);
        aside(move || {
            let ReadConfig { config, loaded, warnings, .. } = read;
            let running = Running { snapshot: &snapshot, open: &open, now_ms: splicer::now() / 1_000 };
            let mut plan = Plan::live(&running, &config, Ask::about(&clients));
            plan.changes.extend(loaded.tls.changes_in_full(&snapshot.tls, clock::unix_s()));
            plan.warnings.extend(warnings);
            // Seats that were taken for backends of the plan are nobody's again.
            snapshot.pools.iter().for_each(|pool| pool.take_over(pool, running.now_ms));
            Ok(plan)
        })
        .await
    }
}

/// On a thread where it may take its time.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Vec<String>> + Send + 'static,
) -> Result<T, Vec<String>> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(vec![format!("the plan failed: {panic}")]))
}
