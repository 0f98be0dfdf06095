//! The thread of the fleet: one session with the store after the other.
//!
//! Says why there is none, once. Invariant: a store that cannot be used is tried again once a second, and nothing waits for
//! that.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::session::{FleetSession, FleetSessionEnd, SessionsBefore, shares_entries};
use super::{FleetOrder, FleetShared, FleetState, lock};
use crate::clock;
use crate::config::Share;
use crate::events::{self, Event, EventKind};
use crate::remote_text;
use crate::snapshot::Current;
use crate::store::Access;

/// Interval between attempts to reach a store that is away.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Why entries of stick tables are not shared although they are to be.
const LATER: &str = "the stick tables were made with another secret, and stay so until the next start";

/// State of the thread, used by it alone.
pub(super) struct FleetTask {
    shared: Arc<FleetShared>,
    current: Arc<Current>,
    orders: mpsc::UnboundedReceiver<FleetOrder>,
    access: Option<Arc<Access>>,
    before: SessionsBefore,
    /// What waits for the first session with the store.
    tried: Vec<oneshot::Sender<()>>,
}

impl FleetTask {
    pub(super) fn new(
        shared: Arc<FleetShared>,
        current: Arc<Current>,
        orders: mpsc::UnboundedReceiver<FleetOrder>,
    ) -> Self {
        Self { shared, current, orders, access: None, before: SessionsBefore::default(), tried: Vec::new() }
    }

    /// Runs until nothing gives orders any more.
    pub(super) async fn run(mut self) {
        loop {
            let end = match self.access.clone() {
                None => self.wait_as(FleetState::Off, "").await,
                Some(access) if !access.config.share.orders && self.awaits_start(&access) => {
                    self.wait_as(FleetState::NextStart, LATER).await
                }
                Some(access) => match self.session(&access).await {
                    FleetSessionEnd::Broken(why) => {
                        self.broken(&access, &why);
                        match timeout(TRY_EVERY, self.orders.recv()).await {
                            Ok(order) => order,
                            Err(_) => continue,
                        }
                    }
                    FleetSessionEnd::Order(order) => Some(order),
                    FleetSessionEnd::NoOrders => None,
                },
            };
            match end {
                Some(order) => self.handle(order),
                None => return,
            }
        }
    }

    /// Waits for the next order.
    async fn wait_as(&mut self, state: FleetState, complaint: &str) -> Option<FleetOrder> {
        self.is(state, complaint);
        self.tried.clear();
        self.orders.recv().await
    }

    /// One session, from the connections to its end.
    async fn session(&mut self, access: &Arc<Access>) -> FleetSessionEnd {
        let (shared, current) = (Arc::clone(&self.shared), Arc::clone(&self.current));
        if matches!(lock(&self.shared.status).0, FleetState::Off | FleetState::NextStart) {
            self.is(FleetState::Joining, "");
        }
        let begun = FleetSession::begin(access, shared, current, self.before).await;
        // What waits finds its channel closed.
        self.tried.clear();
        let mut session = match begun {
            Ok(session) => session,
            Err(why) => return FleetSessionEnd::Broken(why),
        };
        if lock(&self.shared.status).0 != FleetState::Working {
            let text = format!("{} are shared by {}", what(access.config.share), access.config);
            events::info(clock::unix_ms(), Event::new(EventKind::FleetUp, &text));
        }
        self.is(FleetState::Working, if self.awaits_start(access) { LATER } else { "" });
        let end = session.run(&mut self.orders).await;
        self.before = session.end();
        end
    }

    fn handle(&mut self, order: FleetOrder) {
        match order {
            FleetOrder::Use(access, tried) => {
                if access != self.access {
                    self.before.after = (0, 0);
                }
                self.access = access;
                self.tried.push(tried);
            }
            FleetOrder::Foretell(_, answer) => _ = answer.send(()),
            // A session begins with all that waits.
            FleetOrder::Tell => {}
        }
    }

    /// True if entries of stick tables are to be shared, and the tables were made with another secret.
    fn awaits_start(&self, access: &Access) -> bool {
        access.config.share.displaced && !shares_entries(access, &self.current.load())
    }

    fn broken(&mut self, access: &Access, why: &str) {
        self.shared.counters.lost.fetch_add(1, Relaxed);
        self.before.away_since_ms.get_or_insert_with(clock::now_ms);
        let shown = remote_text::shown(why);
        let is_new = *lock(&self.shared.status) != (FleetState::Away, shown.clone());
        self.is(FleetState::Away, &shown);
        if is_new {
            let text = format!("{} are not shared: {}: {shown}", what(access.config.share), access.config);
            events::warn(clock::unix_ms(), Event::new(EventKind::FleetDown, &text));
        }
    }

    fn is(&self, state: FleetState, complaint: &str) {
        *lock(&self.shared.status) = (state, complaint.to_owned());
    }
}

/// What is shared, in words.
fn what(share: Share) -> &'static str {
    match (share.displaced, share.orders) {
        (true, true) => "entries of stick tables and orders",
        (false, true) => "orders",
        _ => "entries of stick tables",
    }
}
