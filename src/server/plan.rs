//! What another file, or an edit of what is in force, would change, computed by the process that would put it in force.
//!
//! Reads and checks as a reload does, then compares with the open connections. Invariant: a plan changes nothing that
//! connections see, and no reload happens while it is computed.

use super::Server;
use super::discovery::Before;
use super::files::{self, ReadConfig};
use crate::admin::PlanRequest;
use crate::clock;
use crate::config::{BackendEdit, Problem};
use crate::plan::{Ask, CookieKeys, Plan, Running};
use crate::snapshot::Snapshot;

impl Server {
    /// Returns the clients that would move, or every problem of the text.
    pub(super) async fn plan_for(&self, request: PlanRequest) -> Result<Plan, Vec<String>> {
        let before = self.current.load_full();
        let PlanRequest { file, text, edits, clients } = request;
        let read = self.readings.read(move || read_new(&file, &text, &edits, &before)).await?;
        let _no_reload = self.listen_sockets.lock().await;
        let snapshot = self.current.load_full();
        let open = self.threads.open_connections().await;
        on_blocking_thread(move || {
            let ReadConfig { config, loaded, warnings, .. } = read;
            let running = Running { snapshot: &snapshot, open: &open, now_ms: clock::now_ms() };
            let keys = CookieKeys::new(&snapshot.rings, &loaded.rings);
            let mut plan = Plan::live(&running, &config, Ask { keys, ..Ask::about(&clients) });
            plan.changes.extend(loaded.tls.changes_in_full(&snapshot.tls, clock::unix_s()));
            plan.changes.extend(loaded.rings.changes(&snapshot.rings));
            plan.changes.extend(loaded.texts.changes(&snapshot.texts));
            plan.warnings.extend(warnings);
            // Backends of the plan took ids in the stick tables; the pools in force free those again.
            snapshot.pools.iter().for_each(|pool| pool.take_over(pool, running.now_ms));
            Ok(plan)
        })
        .await
    }
}

/// Checks the text, or the configuration in force with these edits.
fn read_new(file: &str, text: &str, edits: &[BackendEdit], in_force: &Snapshot) -> Result<ReadConfig, Vec<String>> {
    if edits.is_empty() {
        return files::check_text(file, text, Before::InForce(in_force));
    }
    if let Some(BackendEdit::Add { pool, backend, .. }) = edits.iter().find(|edit| in_force.config.has_added(edit)) {
        return Err(vec![format!("pool {pool:?} has a backend {backend:?} already")]);
    }
    let is_of_found = |edit: &&BackendEdit| in_force.config.has_found(edit);
    let (of_found, edits): (Vec<_>, Vec<_>) = edits.iter().partition(is_of_found);
    let edits: Vec<_> = edits.into_iter().cloned().collect();
    let text = in_force.config.edited(&edits).map_err(|why| vec![why])?;
    // A place in that text would be one in no file.
    let read = files::check_named(&text, Before::InForce(in_force), |Problem { object, message, .. }| {
        match object.is_empty() {
            true => message.clone(),
            false => format!("{object}: {message}"),
        }
    })?;
    let mut config = read.config;
    of_found.into_iter().for_each(|edit| config.edit_found(edit));
    // What is odd about the configuration was said when it came into force.
    Ok(ReadConfig { config, warnings: Vec::new(), ..read })
}

/// Computes for seconds, where there are many clients, while the control thread goes on.
async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Vec<String>> + Send + 'static,
) -> Result<T, Vec<String>> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(vec![format!("the plan failed: {panic}")]))
}
