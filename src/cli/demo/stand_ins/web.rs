//! [`serve`]: the HTTP server of a stand-in, for connections that turned out to be HTTP.
//!
//! The answers are those of every backend of the demo; added are the application's cookies, and the client that a PROXY
//! header announced. Invariant: a request with a cookie gets no other value of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::sync::mpsc;

use super::opening::{DemoStream, Opening};
use super::plan::{AppCookie, StandIn};
use crate::cli::demo::backends;

/// Response field with the announced client.
const CLIENT: HeaderName = HeaderName::from_static("x-client");

/// Connections, each with the bytes that were read of it.
struct WebConnections(mpsc::Receiver<Opening>);

impl Listener for WebConnections {
    type Io = DemoStream;
    type Addr = Option<SocketAddr>;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.recv().await {
            Some(opening) => {
                let client = opening.client;
                (opening.whole(), client)
            }
            None => std::future::pending().await, // the stand-in has ended
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(None)
    }
}

/// Client that a PROXY header has announced.
#[derive(Debug, Clone)]
struct AnnouncedClient(Option<SocketAddr>);

impl Connected<IncomingStream<'_, WebConnections>> for AnnouncedClient {
    fn connect_info(stream: IncomingStream<'_, WebConnections>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// What is added to the answers.
struct Additions {
    name: String,
    cookies: Vec<AppCookie>,
}

/// Serves connections as long as the runtime is there.
pub(super) async fn serve(stand_in: Arc<StandIn>, connections: mpsc::Receiver<Opening>) {
    let additions = Arc::new(Additions { name: stand_in.name.clone(), cookies: stand_in.cookies.clone() });
    let application = backends::application(&stand_in.name).layer(middleware::from_fn_with_state(additions, add));
    let application = application.into_make_service_with_connect_info::<AnnouncedClient>();
    let _ = axum::serve(WebConnections(connections), application).await; // never ends by itself
}

async fn add(
    State(additions): State<Arc<Additions>>,
    ConnectInfo(AnnouncedClient(client)): ConnectInfo<AnnouncedClient>,
    request: Request,
    next: Next,
) -> Response {
    let missing = additions.cookies.iter().filter(|cookie| !has(request.headers(), &cookie.name));
    let fresh: Vec<_> = missing.map(|cookie| begin_session(cookie, &additions.name)).collect();
    let mut response = next.run(request).await;
    let fields = response.headers_mut();
    for cookie in fresh.into_iter().filter_map(|cookie| HeaderValue::try_from(cookie).ok()) {
        fields.append(SET_COOKIE, cookie);
    }
    if let Some(client) = client.and_then(|client| HeaderValue::try_from(client.ip().to_string()).ok()) {
        fields.insert(CLIENT, client);
    }
    response
}

/// A cookie with a new value.
fn begin_session(cookie: &AppCookie, backend: &str) -> String {
    let (name, value) = (&cookie.name, backends::random());
    let route = if cookie.is_routed { format!(".{backend}") } else { String::new() };
    format!("{name}={value}{route}; Path=/; HttpOnly")
}

fn has(fields: &HeaderMap, name: &str) -> bool {
    let lines = fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(';')).any(|pair| pair.trim().split_once('=').is_some_and(|(own, _)| own == name))
}
