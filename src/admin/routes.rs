//! The paths of the admin interface: [`read_only`] for the port, [`full`] for the unix socket.
//!
//! Decides nothing. Invariant: only the router of the unix socket has paths that change something, and only `/plan`
//! and `/upgrade` take a body, of at most [`PLAN_MAX`] bytes; a request that a foreign site has made a browser send is
//! refused; a browser takes every reply for what it is, and runs nothing from elsewhere in it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::bounded::Turn;
use super::door::{DoorKind, DoorStop, HIDDEN, NamesClients};
use super::moved::SuccessorStage;
use super::origin::{HostNames, check_origin};
use super::page;
use super::{Control, PlanRequest, StickTableView, UpgradeRequest, WhyReport};
use crate::connection::ConnectionFilter;
use crate::events::{Event, EventPage};
use crate::metrics::{self, Exporter, Status, status};
use crate::order::{BackendOrder, NewBackend, OrderKind, OrderRefusal};
use crate::plan::Question;

/// The highest `limit` of `/connections`.
const CONNECTIONS_SHOWN_MAX: usize = 100_000;

/// The longest body of a request for a plan, in bytes: about half a million clients.
const PLAN_MAX: usize = 32 << 20;

/// The longest wait of a request for events.
const EVENT_WAIT_MAX: Duration = Duration::from_secs(20);

/// Most requests for events that wait at once on a socket or a port: they keep a place among its connections.
const EVENT_WAITS_MAX: usize = 8;

/// What a browser may do with a reply: run and load what comes from here, and show it in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What holds for the port alone.
#[derive(Debug, Clone, Default)]
pub(super) struct PortRules {
    /// What the port may be called.
    pub(super) names: HostNames,
    /// Views name clients.
    pub(super) clients: bool,
}

/// The paths that only read, by the rules of the port. `stop`: becomes true once the port is given up.
pub(super) fn read_only<C: Control>(control: Arc<C>, rules: PortRules, stop: watch::Receiver<bool>) -> Router {
    let guarded = reading().layer(from_fn_with_state(Arc::new(rules.names), under_known_name));
    let door = guarded.layer(Extension(NamesClients(rules.clients))).layer(Extension(DoorStop(stop)));
    door.layer(Extension(DoorKind::Port)).layer(from_fn(in_turn)).with_state(control)
}

/// Every path: those that read and those that change something. `stop`: becomes true once the socket is given up.
pub(super) fn full<C: Control>(control: Arc<C>, stop: watch::Receiver<bool>) -> Router {
    let all =
        reading().route("/reload", post(reload::<C>)).route("/backends/{pool}/{backend}/{order}", post(order::<C>));
    let all = all.route("/successor/{stage}", post(followed::<C>)).route("/log/reopen", post(reopen_log::<C>));
    let all = all.route("/why", get(why::<C>)).route("/orders", get(orders::<C>));
    let plan = post(plan::<C>).layer(DefaultBodyLimit::max(PLAN_MAX)).layer(from_fn(whole_body));
    let upgrade = post(upgrade::<C>).layer(DefaultBodyLimit::max(PLAN_MAX)).layer(from_fn(whole_body));
    let all = all.route("/plan", plan).route("/upgrade", upgrade);
    #[cfg(debug_assertions)]
    let all = all.route("/connections/{id}/panic", post(panic::<C>));
    let door = all.layer(Extension(NamesClients(true))).layer(Extension(DoorStop(stop)));
    door.layer(Extension(DoorKind::Socket)).layer(from_fn(in_turn)).with_state(control)
}

/// Tells the connection when a request begins and ends, refuses one of a foreign site, and says what a browser may do with
/// the reply.
async fn in_turn(ConnectInfo(turn): ConnectInfo<Turn>, request: Request, next: Next) -> Response {
    turn.begin();
    let mut response = match check_origin(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    turn.end();
    response
}

/// Reads the body before the request is served, so that a client that sends half of it gives its place to others.
async fn whole_body(ConnectInfo(turn): ConnectInfo<Turn>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    turn.await_body();
    let body = axum::body::to_bytes(body, PLAN_MAX).await;
    turn.begin();
    match body {
        Ok(body) => next.run(Request::from_parts(head, body.into())).await,
        Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or not complete\n").into_response(),
    }
}

/// Refuses a request under a name that leads here without being known.
async fn under_known_name(State(names): State<Arc<HostNames>>, request: Request, next: Next) -> Response {
    match names.check(request.headers(), request.uri().authority()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn reading<C: Control>() -> Router<Arc<C>> {
    let exporter = Arc::new(Exporter::default());
    let metrics = move |State(control): State<Arc<C>>| scrape(control, Arc::clone(&exporter));
    let waiting = Arc::new(Semaphore::new(EVENT_WAITS_MAX));
    let events = move |State(control): State<Arc<C>>, Query(query): Query<EventQuery>| {
        events(control, query, Arc::clone(&waiting))
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<C>))
        .route("/status", get(whole::<C>))
        .route("/pools", get(pools::<C>))
        .route("/backends", get(backends::<C>))
        .route("/stick-table", get(stick_table::<C>))
        .route("/store", get(store::<C>))
        .route("/connections", get(connections::<C>))
        .route("/events", get(events))
        .route("/explain", get(explain::<C>))
        .merge(page::routes())
}

async fn scrape<C: Control>(control: Arc<C>, exporter: Arc<Exporter>) -> Response {
    let page = aside(control, move |control| exporter.render(&everything(control))).await;
    page.map(|page| ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page)).into_response()
}

/// The status with stick tables. Counting their entries takes long, so only a few paths do.
fn everything<C: Control>(control: &C) -> Status {
    let stick_tables = control.stick_tables().into_iter().map(|view| view.stick_table).collect();
    Status { stick_tables, ..control.status() }
}

/// Runs work on a thread of its own: counting a large stick table takes long, and health checks go on meanwhile.
async fn aside<C: Control, T: Send + 'static>(
    control: Arc<C>,
    look: impl FnOnce(&C) -> T + Send + 'static,
) -> Result<T, StatusCode> {
    tokio::task::spawn_blocking(move || look(&control)).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn ready<C: Control>(State(control): State<Arc<C>>) -> Response {
    match control.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn whole<C: Control>(State(control): State<Arc<C>>) -> Result<Json<Status>, StatusCode> {
    aside(control, |control| Json(everything(control))).await
}

async fn pools<C: Control>(State(control): State<Arc<C>>) -> Result<Json<Vec<status::PoolStatus>>, StatusCode> {
    aside(control, |control| Json(control.status().pools)).await
}

/// The hottest keys are addresses and cookies of clients: without names, only their shares are shown.
async fn stick_table<C: Control>(
    State(control): State<Arc<C>>,
    Extension(NamesClients(names)): Extension<NamesClients>,
) -> Result<Json<Vec<StickTableView>>, StatusCode> {
    let look = move |control: &C| {
        let mut views = control.stick_tables();
        let keys = views.iter_mut().flat_map(|view| &mut view.hottest).map(|hot| &mut hot.key);
        keys.filter(|_| !names).for_each(|key| HIDDEN.clone_into(key));
        Json(views)
    };
    aside(control, look).await
}

/// `null` without one.
async fn store<C: Control>(State(control): State<Arc<C>>) -> Result<Json<Option<status::StoreStatus>>, StatusCode> {
    aside(control, |control| Json(control.status().store)).await
}

async fn explain<C: Control>(
    State(control): State<Arc<C>>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, StatusCode> {
    let explained = match Question::read(parameters) {
        Ok(question) => control.explain(question).await,
        Err(why) => Err(why),
    };
    Ok(match explained {
        Ok(report) => Json(report).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    })
}

#[derive(Serialize)]
struct BackendOfPool {
    pool: String,
    #[serde(flatten)]
    backend: status::BackendStatus,
}

async fn backends<C: Control>(State(control): State<Arc<C>>) -> Result<Json<Vec<BackendOfPool>>, StatusCode> {
    let of_pool = |pool: status::PoolStatus| {
        let status::PoolStatus { name, backends, .. } = pool;
        backends.into_iter().map(move |backend| BackendOfPool { pool: name.clone(), backend })
    };
    aside(control, move |control| Json(control.status().pools.into_iter().flat_map(of_pool).collect())).await
}

#[derive(Serialize)]
struct Connections<T> {
    /// Connections that match the filter.
    open: usize,
    /// Connections that are listed.
    shown: usize,
    connections: Vec<T>,
}

async fn connections<C: Control>(
    State(control): State<Arc<C>>,
    Extension(NamesClients(names)): Extension<NamesClients>,
    Query(mut filter): Query<ConnectionFilter>,
) -> Response {
    if !names && filter.client.is_some() {
        return (StatusCode::FORBIDDEN, "clients are named on the admin socket, or with admin.clients = true\n")
            .into_response();
    }
    filter.limit = filter.limit.min(CONNECTIONS_SHOWN_MAX);
    let (open, connections) = control.connections(filter).await;
    let shown = connections.len();
    if names {
        return Json(Connections { open, shown, connections }).into_response();
    }
    let connections: Vec<_> = connections.iter().map(without_client).collect();
    Json(Connections { open, shown, connections }).into_response()
}

/// A connection as JSON, without the address of its client.
fn without_client(connection: &impl Serialize) -> Value {
    let mut view = serde_json::to_value(connection).unwrap_or_default();
    if let Some(client) = view.get_mut("client") {
        *client = HIDDEN.into();
    }
    view
}

/// Which events are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EventQuery {
    /// Only events with a higher number.
    after: u64,
    /// Only events of these kinds, by their words, with commas between them.
    kind: Option<String>,
    /// Only events about this pool.
    pool: Option<String>,
    /// Seconds to wait for an event, if there is none yet.
    wait: u64,
}

impl EventQuery {
    fn wants(&self, event: &Event) -> bool {
        let is_kind = |kinds: &str| kinds.split(',').any(|kind| kind == event.kind.word());
        self.kind.as_deref().is_none_or(is_kind)
            && self.pool.as_deref().is_none_or(|pool| event.pool.as_deref() == Some(pool))
    }
}

/// Events after a number. With too many requests that wait already, the reply comes at once.
async fn events<C: Control>(control: Arc<C>, query: EventQuery, waiting: Arc<Semaphore>) -> Json<EventPage> {
    let ring = control.events();
    let until = Instant::now() + EVENT_WAIT_MAX.min(Duration::from_secs(query.wait));
    let mut page = ring.page(query.after, |event| query.wants(event));
    // A number that is not given yet is one of another process, and its reader has to begin again.
    let may_wait = query.wait > 0 && query.after <= page.next;
    if let Some(_place) = may_wait.then(|| waiting.try_acquire().ok()).flatten() {
        while page.events.is_empty() && timeout_at(until, ring.noted_after(page.next)).await.is_ok() {
            page = EventPage { missed: page.missed, ..ring.page(page.next, |event| query.wants(event)) };
        }
    }
    Json(page)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    /// Address, number of a connection, id of a request, or cookie.
    what: String,
}

async fn why<C: Control>(State(control): State<Arc<C>>, Query(WhyQuery { what }): Query<WhyQuery>) -> Json<WhyReport> {
    Json(control.why(what).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    max_move: Option<f64>,
}

async fn reload<C: Control>(State(control): State<Arc<C>>, Query(Allowed { max_move }): Query<Allowed>) -> Response {
    // A task of its own: this handler is dropped when its client goes away, a reload must not be.
    match tokio::spawn(async move { control.reload(max_move).await }).await {
        Ok(verdict) => {
            let code = if verdict.accepted { StatusCode::OK } else { StatusCode::CONFLICT };
            (code, Json(verdict)).into_response()
        }
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("reload: {panic}\n")).into_response(),
    }
}

async fn upgrade<C: Control>(State(control): State<Arc<C>>, Json(request): Json<UpgradeRequest>) -> Response {
    // A task of its own, as for a reload.
    match tokio::spawn(async move { control.upgrade(request.binary).await }).await {
        Ok(verdict) => {
            let code = if verdict.accepted { StatusCode::OK } else { StatusCode::CONFLICT };
            (code, Json(verdict)).into_response()
        }
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("upgrade: {panic}\n")).into_response(),
    }
}

async fn plan<C: Control>(State(control): State<Arc<C>>, Json(request): Json<PlanRequest>) -> Response {
    match control.plan(request).await {
        Ok(plan) => Json(plan).into_response(),
        Err(problems) => (StatusCode::CONFLICT, Json(problems)).into_response(),
    }
}

/// The values of an order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OrderValues {
    address: Option<Box<str>>,
    weight: Option<u16>,
    location: Box<str>,
    max_connections: Option<u32>,
    now: bool,
    max_move: Option<f64>,
}

impl OrderValues {
    /// The order of this word; `None`: there is none, or a value is missing.
    fn kind(self, word: &str) -> Option<OrderKind> {
        let Self { address, weight, location, max_connections, now, max_move: _ } = self;
        Some(match word {
            "drain" => OrderKind::Drain,
            "close" => OrderKind::Close,
            "ready" => OrderKind::Ready,
            "weight" => OrderKind::Weight { weight },
            "address" => OrderKind::Address { address },
            "add" => {
                let new = NewBackend::at(address?);
                OrderKind::Add(NewBackend { weight: weight.unwrap_or(new.weight), location, max_connections, ..new })
            }
            "remove" => OrderKind::Remove { now },
            _ => return None,
        })
    }
}

async fn order<C: Control>(
    State(control): State<Arc<C>>,
    Path((pool, backend, word)): Path<(Box<str>, Box<str>, String)>,
    Query(values): Query<OrderValues>,
) -> Response {
    let max_move = values.max_move;
    let Some(kind) = values.kind(&word) else { return StatusCode::NOT_FOUND.into_response() };
    let order = BackendOrder { pool, backend, kind };
    // A task of its own, as for a reload.
    match tokio::spawn(async move { control.order(order, max_move).await }).await {
        Ok(Ok(state)) => format!("{state}\n").into_response(),
        Ok(Err(refusal)) => {
            let code = match &refusal {
                OrderRefusal::Unknown(_) => StatusCode::NOT_FOUND,
                OrderRefusal::Refused(_) => StatusCode::CONFLICT,
            };
            (code, format!("{refusal}\n")).into_response()
        }
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("order: {panic}\n")).into_response(),
    }
}

async fn orders<C: Control>(State(control): State<Arc<C>>) -> Json<Vec<BackendOrder>> {
    Json(control.orders())
}

async fn reopen_log<C: Control>(State(control): State<Arc<C>>) -> Response {
    // A task of its own, as for a reload.
    match tokio::spawn(async move { control.reopen_log().await }).await {
        Ok(Ok(path)) => format!("{path}\n").into_response(),
        Ok(Err(why)) => (StatusCode::CONFLICT, format!("{why}\n")).into_response(),
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{panic}\n")).into_response(),
    }
}

async fn followed<C: Control>(State(control): State<Arc<C>>, Path(stage): Path<SuccessorStage>) -> Response {
    // A task of its own: what is begun for the next process is finished even if that process goes away.
    match tokio::spawn(async move { control.followed(stage).await }).await {
        Ok(Ok(held)) => Json(held).into_response(),
        Ok(Err(why)) => (StatusCode::CONFLICT, format!("{why}\n")).into_response(),
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{panic}\n")).into_response(),
    }
}

#[cfg(debug_assertions)]
async fn panic<C: Control>(State(control): State<Arc<C>>, Path(id): Path<u64>) -> StatusCode {
    control.panic(id).await;
    StatusCode::ACCEPTED
}
