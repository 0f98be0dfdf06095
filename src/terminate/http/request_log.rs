//! [`RequestLog`]: the line of a request in the access log.
//!
//! Writes no line of a connection. Invariant: one line for each request that was read, and for each head that got a
//! reply although it was refused or not complete in time, with the id of that reply; never a query or the value of a
//! cookie.

use std::sync::Arc;

use super::HttpConnection;
use crate::access_log::{self, LogRecord};
use crate::clock::{self, Micros};
use crate::http::head::Request;
use crate::http::target::Target;
use crate::http::upgrade::RequestMeta;
use crate::http::{Method, Refused, Version};
use crate::outcome::Ended;

/// Longest path in the log, in bytes. The query behind `?` is never logged.
const PATH_MAX: usize = 256;

/// What the line of a request needs of its head and of its way to a backend.
pub(super) struct RequestLog {
    began: Micros,
    /// `None`: the head was not read to its end, and nothing of it is logged.
    method: Option<String>,
    host: Option<String>,
    path: Option<String>,
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
            method: Some(text(&request.method_name[..request.method_name.len().min(32)])),
            host: request.host().map(|host| text(&host.bytes[..host.bytes.len().min(PATH_MAX)])),
            path: Some(text(&path[..path.len().min(PATH_MAX)])),
            meta: request.asked(),
            has_body: !request.framing.is_empty(),
            cookie: None,
            reused: false,
        }
    }

    /// The line of a head that was refused, or not complete in time.
    pub fn of_unread() -> Self {
        let meta = RequestMeta { method: Method::Other, version: Version::Http11, persists: false, upgrade: None };
        let began = clock::now();
        Self { began, method: None, host: None, path: None, meta, has_body: false, cookie: None, reused: false }
    }
}

impl HttpConnection<'_> {
    /// Writes the line of a request; `status` 0: the client got no response.
    pub(super) fn log_request(&self, log: &RequestLog, status: u16, ended: Ended) {
        self.log_refused(log, status, ended, None);
    }

    /// Writes the line of a request that was refused, or that got a refused response; counts the refusal, also where
    /// nothing is logged.
    pub(super) fn log_refused(&self, log: &RequestLog, status: u16, ended: Ended, refused: Option<Refused>) {
        if let Some(refused) = refused {
            self.count_refusal(refused, ended);
        }
        let (context, client_info) = (&self.conversation.context, &self.conversation.client_info);
        let rules = context.current.load().config.process.log;
        if !rules.connections {
            return;
        }
        let duration_us = clock::now().saturating_sub(log.began);
        // An unread head has no route and no backend; those in the state are of the request before it.
        let state = log.method.is_some().then_some(&self.conversation.state);
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
            pool: state.and_then(|state| state.pool()),
            backend: state.and_then(|state| state.backend_name()),
            reason: state.and_then(|state| state.reason()),
            cookie: log.cookie,
            reused: log.reused,
            subject: self.secured.subject.clone(),
            ended,
            broke: state.and_then(|state| state.broke()),
            refused: refused.map(Refused::word),
        }));
    }

    /// Counts a refusal; that of a response also shows at its backend.
    fn count_refusal(&self, refused: Refused, ended: Ended) {
        let counters = self.conversation.context.counters();
        if ended == Ended::ResponseRefused {
            counters.responses_refused.of(refused as usize).add(1);
            if let Some(backend) = self.conversation.state.connected_backend() {
                backend.response_refused(refused, clock::now_ms());
            }
        } else {
            counters.requests_refused.of(refused as usize).add(1);
        }
    }
}
