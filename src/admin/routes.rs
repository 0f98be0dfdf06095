//! The paths of the admin interface: [`read_only`] for the port, [`full`] for the unix socket.
//!
//! Decides nothing. Invariant: only the router of the unix socket has paths that change something, and only `/plan`
//! and `/upgrade` take a body, of at most [`PLAN_MAX`] bytes; a request that a foreign site has made a browser send is refused.

use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::bounded::Turn;
use super::moved::SuccessorStage;
use super::origin::{HostNames, check_origin};
use super::{Control, PlanRequest, StickTableView, UpgradeRequest};
use crate::connection::ConnectionFilter;
use crate::metrics::{self, Exporter, Status, status};
use crate::plan::Question;
use crate::pool::AdminState;

/// The highest `limit` of `/connections`.
const CONNECTIONS_SHOWN_MAX: usize = 100_000;

/// The longest body of a request for a plan, in bytes: about half a million clients.
const PLAN_MAX: usize = 32 << 20;

/// The paths that only read. `names`: what the port may be called.
pub(super) fn read_only<C: Control>(control: Arc<C>, names: HostNames) -> Router {
    let guarded = reading().layer(from_fn_with_state(Arc::new(names), under_known_name));
    guarded.layer(from_fn(in_turn)).with_state(control)
}

/// Every path: those that read and those that change something.
pub(super) fn full<C: Control>(control: Arc<C>) -> Router {
    let all =
        reading().route("/reload", post(reload::<C>)).route("/backends/{pool}/{backend}/{order}", post(order::<C>));
    let all = all.route("/successor/{stage}", post(followed::<C>)).route("/log/reopen", post(reopen_log::<C>));
    let plan = post(plan::<C>).layer(DefaultBodyLimit::max(PLAN_MAX)).layer(from_fn(whole_body));
    let upgrade = post(upgrade::<C>).layer(DefaultBodyLimit::max(PLAN_MAX)).layer(from_fn(whole_body));
    let all = all.route("/plan", plan).route("/upgrade", upgrade);
    #[cfg(debug_assertions)]
    let all = all.route("/connections/{id}/panic", post(panic::<C>));
    all.layer(from_fn(in_turn)).with_state(control)
}

/// Tells the connection when a request begins and ends, and refuses one of a foreign site.
async fn in_turn(ConnectInfo(turn): ConnectInfo<Turn>, request: Request, next: Next) -> Response {
    turn.begin();
    let response = match check_origin(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
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
    let page = move |State(control): State<Arc<C>>| page(control, Arc::clone(&exporter));
    Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<C>))
        .route("/status", get(whole::<C>))
        .route("/pools", get(pools::<C>))
        .route("/backends", get(backends::<C>))
        .route("/stick-table", get(stick_table::<C>))
        .route("/store", get(store::<C>))
        .route("/connections", get(connections::<C>))
        .route("/explain", get(explain::<C>))
}

async fn page<C: Control>(control: Arc<C>, exporter: Arc<Exporter>) -> Response {
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

async fn stick_table<C: Control>(State(control): State<Arc<C>>) -> Result<Json<Vec<StickTableView>>, StatusCode> {
    aside(control, |control| Json(control.stick_tables())).await
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
        Ok(question) => aside(control, move |control| control.explain(&question)).await?,
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
    Query(mut filter): Query<ConnectionFilter>,
) -> Json<Connections<C::Connection>> {
    filter.limit = filter.limit.min(CONNECTIONS_SHOWN_MAX);
    let (open, connections) = control.connections(filter).await;
    Json(Connections { open, shown: connections.len(), connections })
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

async fn order<C: Control>(
    State(control): State<Arc<C>>,
    Path((pool, backend, order)): Path<(String, String, String)>,
) -> Response {
    let order = match order.as_str() {
        "drain" => AdminState::Drain,
        "close" => AdminState::Close,
        "ready" => AdminState::Ready,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    match control.order(&pool, &backend, order).await {
        Ok(state) => format!("{state}\n").into_response(),
        Err(why) => (StatusCode::NOT_FOUND, format!("{why}\n")).into_response(),
    }
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
