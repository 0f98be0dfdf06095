//! [`RequestLog`]: the line of a request in the access log.
//!
//! Writes no line of a connection. Invariant: one line for each request that was read, also where it was refused;
//! never a query or the value of a cookie.

use std::sync::Arc;

use super::HttpConnection;
use crate::access_log::{self, LogRecord};
use crate::clock::{self, Micros};
use crate::http::head::Request;
use crate::http::target::Target;
use crate::http::upgrade::RequestMeta;
use crate::outcome::Ended;

/// Longest path in the log, in bytes. The query behind `?` is never logged.
const PATH_MAX: usize = 256;

/// What the line of a request needs of its head and of its way to a backend.
pub(super) struct RequestLog {
    began: Micros,
    method: String,
    host: Option<String>,
    path: String,
    /// Method, version and persistence, also for the response.
    pub meta: RequestMeta,
    /// A body follows the head.
    pub has_body: bool,
    /// The word for what the cookie was worth.
    pub cookie: Option<&'static str>,
    /// The request uses a connection that was kept.
    pub reused: bool,
}

impl RequestLog {
    /// Begins the line with what the head holds.
    pub fn of(request: &Request<'_>) -> Self {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let path = match request.target {
            Target::Origin(path) | Target::Absolute { path, .. } => path,
            Target::Asterisk => &b"*"[..],
        };
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        Self {
            began: clock::now(),
            method: text(&request.method_name[..request.method_name.len().min(32)]),
            host: request.host().map(|host| text(&host.bytes[..host.bytes.len().min(PATH_MAX)])),
            path: text(&path[..path.len().min(PATH_MAX)]),
            meta: request.asked(),
            has_body: !request.framing.is_empty(),
            cookie: None,
            reused: false,
        }
    }
}

impl HttpConnection<'_> {
    /// Writes the line of a request; `status` 0: the client got no response.
    pub(super) fn log_request(&self, log: &RequestLog, status: u16, ended: Ended) {
        let (context, client_info) = (&self.conversation.context, &self.conversation.client_info);
        let rules = context.current.load().config.process.log;
        if !rules.connections {
            return;
        }
        let duration_us = clock::now().saturating_sub(log.began);
        let state = &self.conversation.state;
        context.write(LogRecord::Request(access_log::RequestLine {
            request: self.request_id(),
            id: client_info.id,
            started_unix_us: clock::unix_us().saturating_sub(duration_us),
            duration_us,
            listener: Arc::clone(self.conversation.listener_name()),
            client: client_info.source,
            method: log.method.clone(),
            host: log.host.clone(),
            path: log.path.clone(),
            status: (status > 0).then_some(status),
            pool: state.pool(),
            backend: state.backend_name(),
            reason: state.reason(),
            cookie: log.cookie,
            reused: log.reused,
            subject: self.secured.subject.clone(),
            ended,
            broke: state.broke(),
        }));
    }
}
