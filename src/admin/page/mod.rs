//! The page of the admin interface: its static files, and the stream of samples that it shows.
//!
//! Decides nothing and changes nothing. Invariants: the files name no other host, and hold no script and no style in
//! the markup; samples cost the same for one viewer and for many, and nothing for none; a stream ends with its door.

mod sample;
mod sampler;
mod tables;
#[cfg(test)]
mod tests;
mod times;
mod trend;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream;
use tokio::sync::watch;

pub use self::sampler::PageSampler;

use self::sample::PageSample;
use self::sampler::Viewer;
use self::trend::Trend;
use super::Control;
use super::bounded::{StreamTurn, Turn};
use super::door::{DoorKind, DoorStop, NamesClients};
use crate::clock;

/// Most stick tables of a sample.
const TABLES_MAX: usize = 100;
/// Most events of a sample.
const EVENTS_MAX: usize = 40;

/// The page, its files and its stream.
pub(super) fn routes<C: Control>() -> Router<Arc<C>> {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", include_str!("index.html")) }))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", include_str!("page.css")) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", include_str!("page.js")) }))
        .route("/icon.svg", get(|| async { file("image/svg+xml", include_str!("icon.svg")) }))
        .route("/stream", get(samples::<C>))
}

/// A file of this binary: another binary may serve another one.
fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// Server-sent events: samples until the viewer leaves or the door closes.
async fn samples<C: Control>(
    State(control): State<Arc<C>>,
    Extension(NamesClients(names)): Extension<NamesClients>,
    Extension(kind): Extension<DoorKind>,
    Extension(DoorStop(stop)): Extension<DoorStop>,
    ConnectInfo(turn): ConnectInfo<Turn>,
) -> Response {
    let mut taker = SampleTaker::new(Arc::clone(&control));
    let viewer = match control.sampler().join(kind, names, move || taker.take()) {
        Ok(viewer) => viewer,
        Err(most) => {
            let full = format!("{most} viewers watch this process already; close one of their pages\n");
            return (StatusCode::SERVICE_UNAVAILABLE, full).into_response();
        }
    };
    let watched = Watched { viewer, stop, _place: turn.stream() };
    let events = stream::unfold(watched, |mut watched| async move {
        let event = watched.next().await?;
        Some((Ok::<_, Infallible>(event), watched))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (kind, Body::from_stream(events)).into_response()
}

/// A viewer at an open door.
struct Watched {
    viewer: Viewer,
    stop: watch::Receiver<bool>,
    _place: StreamTurn,
}

impl Watched {
    /// The next event; `None` once the door closes.
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stopped| *stopped) => None,
            event = self.viewer.next() => event,
        }
    }
}

/// Makes the samples of a process.
struct SampleTaker<C> {
    control: Arc<C>,
    trend: Trend,
}

impl<C: Control> SampleTaker<C> {
    fn new(control: Arc<C>) -> Self {
        Self { control, trend: Trend::default() }
    }

    fn take(&mut self) -> PageSample {
        let tables = self.control.sampler().tables(|| self.control.stick_tables());
        // Counting tables may take long: rates are by the times at which traffic is counted.
        let (now, unix_ms) = (Instant::now(), clock::unix_ms());
        let mut sample = self.trend.sample(self.control.counted(), now, unix_ms);
        let full = tables.iter().map(|table| &table.stick_table).filter(|table| table.full);
        sample.warnings.extend(full.map(|table| format!("Stick table {} is full and loses entries.", table.name)));
        sample.tables_left_out = tables.len().saturating_sub(TABLES_MAX) as u64;
        sample.tables = tables;
        sample.tables.truncate(TABLES_MAX);
        sample.events = self.control.events().latest(EVENTS_MAX);
        sample
    }
}
