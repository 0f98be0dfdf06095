//! A web application with a login: a session in memory or in a shared store, and a cookie that names it.
//!
//! Depends on nothing of the balancer. Invariant: a session in memory exists only in the process that made it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::get;

use super::sessions::SharedSessions;
use crate::cli::demo::backends::random;

/// Name of the application's cookie.
pub(super) const COOKIE_NAME: &str = "SID";

/// State of one application process.
#[derive(Clone)]
struct AppProcess {
    name: &'static str,
    own: Arc<Mutex<HashMap<String, String>>>,
    shared: SharedSessions,
}

/// Routes `/login/USER` and `/account`, and both below `/shared` for sessions that all processes share.
pub(super) fn application(name: &'static str, shared: SharedSessions) -> Router {
    Router::new()
        .route("/login/{user}", get(login))
        .route("/account", get(account))
        .route("/shared/login/{user}", get(shared_login))
        .route("/shared/account", get(shared_account))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(AppProcess { name, own: Arc::default(), shared })
}

async fn login(State(process): State<AppProcess>, Path(user): Path<String>) -> Response {
    let session = random();
    process.own.lock().unwrap_or_else(PoisonError::into_inner).insert(session.clone(), user.clone());
    welcome(process.name, &user, &session)
}

async fn account(State(process): State<AppProcess>, headers: HeaderMap) -> Response {
    let own = process.own.lock().unwrap_or_else(PoisonError::into_inner);
    greet(process.name, session(&headers).and_then(|session| own.get(session).cloned()))
}

async fn shared_login(State(process): State<AppProcess>, Path(user): Path<String>) -> Response {
    let session = random();
    match process.shared.keep(&session, &user).await {
        Ok(()) => welcome(process.name, &user, &session),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn shared_account(State(process): State<AppProcess>, headers: HeaderMap) -> Response {
    match process.shared.user(session(&headers).unwrap_or_default()).await {
        Ok(user) => greet(process.name, user),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn welcome(name: &str, user: &str, session: &str) -> Response {
    let cookie = format!("{COOKIE_NAME}={session}; Path=/; HttpOnly");
    (AppendHeaders([(SET_COOKIE, cookie)]), hello(name, user)).into_response()
}

fn greet(name: &str, user: Option<String>) -> Response {
    match user {
        Some(user) => hello(name, &user).into_response(),
        None => (StatusCode::UNAUTHORIZED, "not logged in\n").into_response(),
    }
}

fn hello(name: &str, user: &str) -> String {
    format!("{name} {user}\n")
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}
