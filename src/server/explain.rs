//! Where the next connection of a client goes, by the running process: the answer behind `explain --live`.
//!
//! Routes and picks nothing itself (`plan` does). Invariant: the shared store is asked for what a request of the client
//! would ask it for, and is awaited no longer than its budget; what it answers is learned by no stick table.

use std::sync::Arc;

use super::Server;
use crate::clock;
use crate::plan::{AskedAt, AskedStore, ClientReport, Question, StoreAnswers};
use crate::store::BreakerState;

impl Server {
    /// Answers a question; the error says what is wrong with it.
    pub(super) async fn explain_now(&self, question: Question) -> Result<ClientReport, String> {
        let at = AskedAt { now_ms: clock::now_ms(), unix_s: clock::unix_s() };
        let (snapshot, question) = (self.current.load_full(), Arc::new(question));
        let about = (Arc::clone(&snapshot), Arc::clone(&question));
        let asked = on_blocking_thread(move || AskedStore::of(&about.0, &about.1, at)).await?;
        let answers = match asked {
            Some(asked) => self.ask_store(asked).await,
            None => None,
        };
        let explain = move || ClientReport::now(&snapshot, &question, at, answers.as_ref());
        let mut report = on_blocking_thread(explain).await?;
        if let Some(entry) = report.explanation.as_mut().and_then(|explanation| explanation.entry.as_mut()) {
            entry.told_by = entry.key.and_then(|key| self.store.fleet().origin(key));
        }
        Ok(report)
    }

    /// Asks the store for all values at once; `None`: there is no store.
    async fn ask_store(&self, AskedStore { pool, values }: AskedStore) -> Option<StoreAnswers> {
        match self.store.look() {
            BreakerState::Off => return None,
            BreakerState::Open => return Some(StoreAnswers::default()),
            BreakerState::Working(_) => {}
        }
        let find = |value: Box<[u8]>| (self.store.find(&pool, &value), value);
        let waits: Vec<_> = values.into_iter().map(find).collect();
        let mut answers = StoreAnswers { is_reached: true, ..StoreAnswers::default() };
        for (wait, value) in waits {
            let reply = match wait {
                Some(wait) => wait.reply().await.ok(),
                None => None,
            };
            answers.is_reached &= reply.is_some();
            answers.found.extend(reply.flatten().map(|stored| (value, stored)));
        }
        Some(answers)
    }
}

/// Runs work that looks at every backend of a pool, which may take long, while the control thread goes on.
async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(format!("the answer failed: {panic}")))
}
