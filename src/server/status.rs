//! What the admin interface sees of the process: [`Control`] for [`Server`].
//!
//! Counts nothing itself. Invariant: one report comes from one snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::table_file::TableFileReport;
use super::{Server, fleet, lock_of};
use crate::access_log;
use crate::admin;
use crate::admin::moved::{HeldAddresses, SuccessorStage};
use crate::admin::{Control, PageSampler, PlanRequest, ReloadVerdict, StickTableView, UpgradeVerdict, WhyReport};
use crate::clock;
use crate::config::{self, MetricsPools, StandingOrder};
use crate::connection::{ConnectionFilter, ConnectionView};
use crate::counters::HistogramSum;
use crate::events::{self, EventRing};
use crate::metrics;
use crate::metrics::status::{
    self, AdmissionStatus, BackendStatus, BackendTotals, BreakCount, CertificateStatus, Descriptors, ListenerKinds,
    ListenerStatus, ListenerTotals, PoolStatus, ProcessUsage, QueueStatus, RequestTotals, RuntimeStatus,
    SplitPoolStatus, SplitStatus, Status, StickTableStatus, StoreNodeStatus, StoreStatus, TableFileStatus,
    WorkerStatus,
};
use crate::order::{BackendOrder, OrderOrigin, OrderRefusal};
use crate::outcome::BreakCause;
use crate::plan::{ClientReport, Plan, Question};
use crate::pool::{self, Health, PoolTable};
use crate::snapshot::{Listener, Snapshot};
use crate::split::Split;
use crate::store::{BreakerState, NodeView, Store};

/// How many of the most frequent keys are shown.
const HOTTEST_SHOWN: usize = 10;

impl Control for Server {
    type Connection = ConnectionView;

    fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Relaxed) { Err("the process is stopping".into()) } else { Ok(()) }
    }

    fn status(&self) -> Status {
        let (descriptors, usage) = (Descriptors::of_this_process(), ProcessUsage::of_this_process());
        let mut status = Status { descriptors, usage, ..self.counted() };
        status.admission.sources = self.admission.sources() as u64;
        status
    }

    fn sampler(&self) -> &PageSampler {
        &self.sampler
    }

    fn counted(&self) -> Status {
        let snapshot = self.current.load_full();
        let bound = lock_of(&self.bound).clone();
        let addresses = |name: &str| bound.iter().find(|(known, _)| known == name).map(|(_, bind)| bind.clone());
        let at_limit = lock_of(&self.alarms).process();
        let listeners = snapshot.listeners.iter().map(|listener| {
            let at_limit = lock_of(&self.alarms).listener(&listener.config.name);
            ListenerStatus {
                name: listener.config.name.clone(),
                bind: addresses(&listener.config.name).unwrap_or_default(),
                open: listener.state.open() as u64,
                max: listener.config.max_connections.map(|max| max as u64),
                defer_accept_s: listener.config.defer_accept_s,
                at_limit: at_limit.is_active(),
                limit_reached: at_limit.times(),
                kinds: listener_kinds(listener),
                totals: ListenerTotals::sum(&listener.state.counters),
            }
        });
        let log = self.log_losses();
        let now_ms = clock::now_ms();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            ready: self.ready().is_ok(),
            uptime_s: self.started.elapsed().as_secs(),
            process: self.process_status(),
            generation: snapshot.generation,
            generations_alive: self.current.generations_alive(),
            digest: format!("{:016x}", snapshot.digest),
            reloads: lock_of(&self.reloads).clone(),
            admission: AdmissionStatus {
                open: self.admission.open() as u64,
                max: self.admission.connections_max() as u64,
                sources: 0,
                hello_memory_bytes: self.admission.hello_memory.held() as u64,
                hello_memory_max_bytes: self.admission.hello_memory.most() as u64,
                at_limit: at_limit.is_active(),
                limit_reached: at_limit.times(),
            },
            log_lost: log.lost,
            log_dropped: log.dropped,
            log_complaint: log.complaint(),
            messages_lost: access_log::messages_lost(),
            stick_table_file: self.table_file_status(&snapshot),
            state_file: self.state_file.report(&snapshot.config).map(|(path, report)| file_status(&path, report)),
            descriptors: None,
            usage: None,
            admin_peers_refused: admin::peers_refused(),
            certificates: certificates(&snapshot),
            listeners: listeners.collect(),
            pools: snapshot.pools.iter().map(|pool| self.pool_status(pool, now_ms)).collect(),
            splits: snapshot.splits.iter().map(|split| split_status(split)).collect(),
            busy_pools_only: snapshot.config.process.metrics_pools == MetricsPools::Busy,
            stick_tables: Vec::new(),
            store: store_status(&self.store),
            fleet: fleet::status(self.store.fleet(), &snapshot),
            requests_refused: status::refusals(self.runtimes.counters(), |counters| &counters.requests_refused),
            requests_limited: status::limited(self.runtimes.counters()),
            responses_refused: status::refusals(self.runtimes.counters(), |counters| &counters.responses_refused),
            conversations: self.runtimes.counters().iter().map(|own| RuntimeStatus::read(&own.0)).collect(),
            workers: self.workers_status(),
        }
    }

    fn stick_tables(&self) -> Vec<StickTableView> {
        let snapshot = self.current.load_full();
        let now_ms = clock::now_ms();
        let full = |name: &str| lock_of(&self.alarms).stick_table(name).is_active();
        snapshot.stick_tables().filter_map(|(name, pools)| stick_table_view(name, pools, full(name), now_ms)).collect()
    }

    async fn explain(&self, question: Question) -> Result<ClientReport, String> {
        self.explain_now(question).await
    }

    async fn connections(&self, filter: ConnectionFilter) -> (usize, Vec<ConnectionView>) {
        self.threads.list(&filter).await
    }

    async fn reopen_log(&self) -> Result<String, String> {
        self.reopen().await
    }

    async fn reload(&self, max_move: Option<f64>) -> ReloadVerdict {
        self.reload_file(max_move).await
    }

    async fn plan(&self, request: PlanRequest) -> Result<Plan, Vec<String>> {
        self.plan_for(request).await
    }

    fn events(&self) -> &EventRing {
        events::ring()
    }

    async fn why(&self, what: String) -> WhyReport {
        self.why_of(&what).await
    }

    async fn upgrade(self: Arc<Self>, binary: Option<PathBuf>) -> UpgradeVerdict {
        self.upgrade_to(binary).await
    }

    async fn order(&self, order: BackendOrder, max_move: Option<f64>) -> Result<String, OrderRefusal> {
        let given_ms = i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
        self.apply_order(&order, &OrderOrigin::Command, given_ms, max_move).await
    }

    fn orders(&self) -> Vec<BackendOrder> {
        self.standing_orders().into_iter().map(|(order, _)| order).collect()
    }

    async fn followed(self: Arc<Self>, stage: SuccessorStage) -> Result<HeldAddresses, String> {
        self.followed_by(stage).await
    }

    #[cfg(debug_assertions)]
    async fn panic(&self, id: u64) {
        self.workers.panic(id).await;
    }
}

impl Server {
    fn pool_status(&self, pool: &pool::Pool, now_ms: u64) -> PoolStatus {
        let backends = pool.backends().iter().zip(&pool.config().backends).map(|(backend, config)| BackendStatus {
            name: backend.name().to_owned(),
            address: backend.address().to_string(),
            resolve: self.resolve_status(pool.name(), config),
            state: backend.state_word(now_ms).to_owned(),
            complaint: complaint(backend, config, now_ms),
            up: backend.standing().serves(),
            ejected: backend.health(now_ms) == Health::Ejected,
            runtime: backend.runtime_word(now_ms).map(str::to_owned),
            absent: config.is_found() && backend.has_left_source(),
            orders: pool.config().orders.of(&config.name).map(orders_shown).unwrap_or_default(),
            drain_s: backend.draining_for(now_ms).map(|for_ms| for_ms / 1_000),
            drained_by: self.drained_by(backend),
            since_s: backend.state_for(now_ms).map(|for_ms| for_ms / 1_000),
            backup: config.backup,
            max_connections: config.max_connections,
            waiting: backend.waiting() as u64,
            weight: config.weight,
            leases: backend.leases(),
            rises: backend.check_changes().0,
            falls: backend.check_changes().1,
            totals: BackendTotals::sum(backend.all_counters()),
        });
        PoolStatus {
            name: pool.name().to_owned(),
            balance: pool.config().balance.word().to_owned(),
            digest: format!("{:016x}", pool.digest()),
            breaks: BreakCause::ALL.map(|cause| (cause.word().to_owned(), pool.breaks(cause))).into(),
            breaks_from: pool.breaks_from().map(break_count).collect(),
            requests: pool.config().http.is_read().then(|| RequestTotals::sum(pool.all_counters())),
            connect_time: metrics::connect_time(pool.all_counters()),
            dropped_cookies: pool.dropped_cookies(),
            cookies: pool.cookies().map(|(verdict, count)| (verdict.to_owned(), count)).collect(),
            queue: pool.may_have_lines().then(|| QueueStatus::sum(pool.all_counters(), pool.waiting_anywhere())),
            busy: pool.is_busy(now_ms),
            checks: pool.config().check.is_some(),
            ejects: pool.config().eject.is_some(),
            discover: self.discover_status(pool.config()),
            removed: pool.config().orders.removed().map(str::to_owned).collect(),
            backends: backends.collect(),
        }
    }

    /// Counters of each worker; lines that its runtime dropped count as its own.
    fn workers_status(&self) -> Vec<WorkerStatus> {
        let dropped = self.runtimes.counters().iter().map(|runtime| runtime.0.log_dropped.value());
        let workers = self.workers.counters().iter().zip(dropped).map(|(worker, dropped)| {
            let own = WorkerStatus::read(&worker.0);
            WorkerStatus { log_dropped: own.log_dropped + dropped, ..own }
        });
        workers.collect()
    }

    fn table_file_status(&self, snapshot: &Snapshot) -> Option<TableFileStatus> {
        let path = snapshot.config.process.stick_table_file.as_ref()?;
        Some(file_status(path, self.stick_table_file.report()))
    }
}

fn split_status(split: &Split) -> SplitStatus {
    let pools = split.members().iter().enumerate().map(|(index, member)| SplitPoolStatus {
        pool: member.name.to_string(),
        weight: member.weight,
        requests: split.counted(index).map(|(by, count)| (by.word().to_owned(), count)).into(),
    });
    SplitStatus { name: split.name().to_string(), pools: pools.collect() }
}

fn break_count((from, cause, count): (&str, BreakCause, u64)) -> BreakCount {
    BreakCount { from: from.to_owned(), cause: cause.word(), count }
}

fn listener_kinds(listener: &Listener) -> ListenerKinds {
    let config = &listener.config;
    ListenerKinds { tls: config.terminates(), http: listener.serves_http, proxy: config.proxy.is_some() }
}

fn certificates(snapshot: &Snapshot) -> Vec<CertificateStatus> {
    let ends = snapshot.tls.ends().into_iter();
    ends.map(|(name, end)| CertificateStatus { name, not_after_unix_s: u64::try_from(end).unwrap_or(0) }).collect()
}

fn file_status(path: &Path, report: TableFileReport) -> TableFileStatus {
    let TableFileReport { failures, written_unix_s, complaint } = report;
    TableFileStatus { path: path.display().to_string(), written_unix_s, failures, complaint }
}

/// What is ordered of a backend, in words; an order from another instance names that instance.
fn orders_shown(order: &StandingOrder) -> Vec<String> {
    let from = Some(&order.by).filter(|by| **by != OrderOrigin::Command);
    order.words().into_iter().chain(from.map(ToString::to_string)).collect()
}

/// What is wrong with a backend, by its source, by an order, its name, its checks and its responses; empty if nothing is.
fn complaint(backend: &pool::Backend, config: &config::Backend, now_ms: u64) -> String {
    let of_checks = Some(backend.complaint()).filter(|complaint| !complaint.is_empty());
    let of_source = backend.has_left_source().then(|| match config.is_found() {
        true => "its source does not name it any more".to_owned(),
        false => "an order removes it when its drain is over".to_owned(),
    });
    let of_name = backend.has_no_address().then(|| "its name has no address".to_owned());
    let said = of_source.into_iter().chain(of_name).chain(of_checks).chain(backend.response_complaint(now_ms));
    said.collect::<Vec<_>>().join("; ")
}

/// The shared store; `None`: the configuration has none.
fn store_status(store: &Store) -> Option<StoreStatus> {
    let word = |state| match state {
        BreakerState::Off => None,
        BreakerState::Open => Some("open".to_owned()),
        BreakerState::Working(_) => Some("working".to_owned()),
    };
    let state = word(store.look())?;
    let counters = store.counters();
    let mut latency = HistogramSum::default();
    counters.latency.add_to(&mut latency);
    let mut requests = BTreeMap::<String, BTreeMap<String, u64>>::new();
    for (kind, outcome, count) in counters.all() {
        requests.entry(kind.to_owned()).or_default().insert(outcome.to_owned(), count);
    }
    let (place, complaint) = store.place_and_complaint();
    let nodes = store.nodes().into_iter().map(|NodeView { address, slots, state, complaint }| StoreNodeStatus {
        address,
        slots,
        // A node is not used before its task has begun.
        state: word(state).unwrap_or_else(|| "open".to_owned()),
        complaint,
    });
    Some(StoreStatus {
        place,
        state,
        complaint,
        nodes: nodes.collect(),
        budget_us: store.budget_us(),
        opened: counters.opened.load(Relaxed),
        pending: counters.pending.load(Relaxed),
        reconciled: counters.reconciled.load(Relaxed),
        overflow: counters.overflow.load(Relaxed),
        requests,
        latency_us_mean: status::mean_us(&latency),
        latency,
    })
}

/// A stick table and its most frequent keys. Pools that share a table have the same backends, so the first pool names
/// them.
fn stick_table_view(name: &str, pools: &[Arc<pool::Pool>], full: bool, now_ms: u64) -> Option<StickTableView> {
    let first = pools.first()?;
    let table = first.table()?;
    let (stats, (hottest, hottest_sampled)) = (table.stats(now_ms), table.top_keys(HOTTEST_SHOWN, now_ms));
    let stick_table = StickTableStatus {
        name: name.to_owned(),
        pools: pools.iter().map(|pool| pool.name().to_owned()).collect(),
        busy: pools.iter().any(|pool| pool.is_busy(now_ms)),
        bytes: table.stick_table().bytes(),
        entries_max: table.stick_table().entries_max(),
        known: stats.known,
        known_by_age: stats.ages().collect(),
        known_by_backend: table.by_backend().map(|(name, count)| (name.to_owned(), count)).collect(),
        displaced: stats.displaced,
        learned: stats.learned,
        evicted_displaced: pools.iter().filter_map(|pool| pool.table()).map(PoolTable::evicted_displaced).sum(),
        refused: pools.iter().filter_map(|pool| pool.table()).map(PoolTable::refused).sum(),
        full,
        hottest_share: hottest.first().map_or(0.0, |hottest| hottest.share),
        hottest_error: hottest.first().map_or(0.0, |hottest| hottest.share_error),
        hottest_sampled,
    };
    Some(StickTableView { stick_table, hottest })
}
