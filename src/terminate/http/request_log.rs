//! [`RequestLog`]: the line of a request in the access log.
//!
//! Writes no line of a connection. Invariant: where requests are logged, one line for each request that was read, and
//! for each head that got a reply although it was refused or not complete in time, with the id of that reply; never a
//! query or the value of a cookie. Where they are not, nothing is copied from the head and no clock is read.

use std::sync::Arc;

use super::HttpConnection;
use crate::access_log::{self, LogRecord};
use crate::clock::{self, Micros};
use crate::http::head::Request;
use crate::http::target::Target;
use crate::http::upgrade::RequestMeta;
use crate::http::{Method, Refused, Version};
use crate::outcome::Ended;
use crate::terminate::Routed;

/// Longest path in the log, in bytes. The query behind `?` is never logged.
const PATH_MAX: usize = 256;

/// What the line of a request needs of its head and of its way to a backend.
pub(super) struct RequestLog {
    /// What the line says of the beginning; `None`: requests were not logged when this one came, and it gets no line.
    begin: Option<RequestBegin>,
    /// Method, version and persistence, also for the response.
    pub meta: RequestMeta,
    /// A body follows the head.
    pub has_body: bool,
    /// The word for what the cookie was worth.
    pub cookie: Option<&'static str>,
    /// The request uses a connection that was kept.
    pub reused: bool,
    /// Where the request belongs and is counted; `None` before that is known.
    pub counted_at: Option<Routed>,
}

/// The beginning of a request.
struct RequestBegin {
    began: Micros,
    /// `None`: the head was not read to its end, and nothing of it is logged.
    head: Option<HeadText>,
}

/// What is logged of a head.
struct HeadText {
    method: String,
    host: Option<String>,
    path: String,
}

impl HeadText {
    fn of(request: &Request<'_>) -> Self {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let path = match request.target {
            Target::Origin(path) | Target::Absolute { path, .. } => path,
            Target::Asterisk => &b"*"[..],
        };
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        Self {
            method: text(&request.method_name[..request.method_name.len().min(32)]),
            host: request.host().map(|host| text(&host.bytes[..host.bytes.len().min(PATH_MAX)])),
            path: text(&path[..path.len().min(PATH_MAX)]),
        }
    }
}

impl RequestLog {
    /// Begins the line with what the head holds. `logs`: requests are logged.
    pub fn of(request: &Request<'_>, logs: bool) -> Self {
        Self {
            begin: logs.then(|| RequestBegin { began: clock::now(), head: Some(HeadText::of(request)) }),
            meta: request.asked(),
            has_body: !request.framing.is_empty(),
            cookie: None,
            reused: false,
            counted_at: None,
        }
    }

    /// The line of a head that was refused, or not complete in time.
    pub fn of_unread(logs: bool) -> Self {
        let meta = RequestMeta { method: Method::Other, version: Version::Http11, persists: false, upgrade: None };
        let begin = logs.then(|| RequestBegin { began: clock::now(), head: None });
        Self { begin, meta, has_body: false, cookie: None, reused: false, counted_at: None }
    }
}

impl HttpConnection<'_> {
    /// True if requests are logged now.
    pub(super) fn logs_requests(&self) -> bool {
        self.conversation.context.current.load().config.process.log.connections
    }

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
        let Some(RequestBegin { began, head }) = log.begin.as_ref().filter(|_| self.logs_requests()) else { return };
        let duration_us = clock::now().saturating_sub(*began);
        // An unread head has no route and no backend; those in the state are of the request before it.
        let state = head.as_ref().map(|_| &self.conversation.state);
        context.write(LogRecord::Request(access_log::RequestLine {
            request: self.request_id(),
            id: client_info.id,
            started_unix_us: clock::unix_us().saturating_sub(duration_us),
            duration_us,
            listener: Arc::clone(self.conversation.listener_name()),
            client: client_info.source,
            method: head.as_ref().map(|head| head.method.clone()),
            host: head.as_ref().and_then(|head| head.host.clone()),
            path: head.as_ref().map(|head| head.path.clone()),
            status: (status > 0).then_some(status),
            pool: state.and_then(|state| state.pool()),
            backend: state.and_then(|state| state.backend_name()),
            reason: state.and_then(|state| state.reason()),
            cookie: log.cookie,
            reused: log.reused,
            subject: self.secured.subject.clone(),
            ended,
            moved: state.and_then(|state| state.client_move()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Progress;
    use crate::http::head::RequestReader;

    #[test]
    fn of_a_request_that_is_not_logged_nothing_is_copied_and_no_clock_is_read() {
        let head = b"GET /a?secret HTTP/1.1\r\nHost: b.example\r\n\r\n";
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head), Progress::Done(_)));
        let request = reader.request(head);
        let before = clock::readings();
        assert!(RequestLog::of(&request, false).begin.is_none() && RequestLog::of_unread(false).begin.is_none());
        assert_eq!(clock::readings(), before);

        let logged = RequestLog::of(&request, true).begin.unwrap().head.unwrap();
        let HeadText { method, host, path } = logged;
        assert_eq!((&*method, host.as_deref(), &*path), ("GET", Some("b.example"), "/a"));
        assert!(RequestLog::of_unread(true).begin.unwrap().head.is_none());
        assert_eq!(clock::readings(), before + 2);
    }
}
