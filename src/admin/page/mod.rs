//! The page of the admin interface: its static files, and the stream of samples that it shows.
//!
//! Decides nothing and changes nothing. Invariants: the files name no other host, and hold no script and no style in
//! the markup; samples cost the same for one viewer and for many, and nothing for none; a stream ends with its door.

mod sample;
mod sampler;
#[cfg(test)]
mod tests;
mod times;
mod trend;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use self::sampler::{VIEWERS_MAX, Viewer};
use self::trend::Trend;
use super::bounded::{StreamTurn, Turn};
use super::door::{DoorStop, NamesClients};
use super::{Control, StickTableView};
use crate::clock;

/// The least time between two looks at stick tables.
const TABLES_EVERY: Duration = Duration::from_secs(2);
/// A look at stick tables is so many times shorter than the time until the next one.
const TABLES_SHARE: u32 = 200;
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
    Extension(DoorStop(stop)): Extension<DoorStop>,
    ConnectInfo(turn): ConnectInfo<Turn>,
) -> Response {
    let mut taker = SampleTaker::new(Arc::clone(&control));
    let Some(viewer) = control.sampler().join(names, move || taker.take()) else {
        let full = format!("{VIEWERS_MAX} viewers watch this process already; close one of their pages\n");
        return (StatusCode::SERVICE_UNAVAILABLE, full).into_response();
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
    tables: Vec<StickTableView>,
    tables_due: Instant,
}

impl<C: Control> SampleTaker<C> {
    fn new(control: Arc<C>) -> Self {
        Self { control, trend: Trend::default(), tables: Vec::new(), tables_due: Instant::now() }
    }

    fn take(&mut self) -> PageSample {
        let now = Instant::now();
        if now >= self.tables_due {
            self.tables = self.control.stick_tables();
            self.tables_due = now + TABLES_EVERY.max(now.elapsed() * TABLES_SHARE);
        }
        let mut sample = self.trend.sample(self.control.counted(), now, clock::unix_ms());
        let full = self.tables.iter().map(|table| &table.stick_table).filter(|table| table.full);
        sample.warnings.extend(full.map(|table| format!("Stick table {} is full and loses entries.", table.name)));
        sample.tables = self.tables.iter().take(TABLES_MAX).cloned().collect();
        sample.tables_left_out = (self.tables.len() - sample.tables.len()) as u64;
        sample.events = self.control.events().latest(EVENTS_MAX);
        sample
    }
}
