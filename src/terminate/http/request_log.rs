//! The log line of a request.
//!
//! Invariant: one line for each request that was read, also where it was refused; never a query or the value of a cookie.

use std::sync::Arc;

use super::HttpConnection;
use crate::access_log::{self, LogRecord};
use crate::clock::{self, Micros};
use crate::http::head::Request;
use crate::http::target::Target;
use crate::outcome::Ended;

/// A path in the log is cut here; what it asks, behind `?`, is not logged.
const PATH_MAX: usize = 256;

/// What is told of a request when it is over.
pub(super) struct RequestLog {
    began: Micros,
    method: String,
    host: Option<String>,
    path: String,
    pub cookie: Option<&'static str>,
    pub reused: bool,
}

impl RequestLog {
    /// Begins with what its head says.
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
            cookie: None,
            reused: false,
        }
    }
}

impl HttpConnection<'_> {
    /// Writes the line of a request.
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
