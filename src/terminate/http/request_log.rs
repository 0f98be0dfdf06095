//! [`RequestLog`]: the line of a request in the access log.
//!
//! Writes no line of a connection. Invariant: where requests are logged, one line for each request that was read, and
//! for each head that got a reply although it was refused or not complete in time, with the id of that reply; never a
//! query or the value of a cookie; a move of the client is said once. Where they are not logged, nothing is copied from
//! the head and no clock is read.

use std::sync::Arc;

use super::HttpConnection;
use crate::access_log::{self, LastSession, LogRecord, LogRules};
use crate::clock::{self, Micros};
use crate::config::Log;
use crate::http::head::Request;
use crate::http::target::Target;
use crate::http::upgrade::RequestMeta;
use crate::http::{Method, Refused, Version};
use crate::log_field::{LogField, LogFields};
use crate::outcome::Ended;
use crate::remote_text::text_of;
use crate::split::ChosenBy;
use crate::terminate::Routed;
use crate::terminate::byte_stream::ClientStream;

/// Longest path, host and User-Agent in the log, in bytes. The query behind `?` is never logged.
const TEXT_MAX: usize = 256;
/// Longest method in the log, in bytes.
const METHOD_MAX: usize = 32;

/// What the line of a request needs of its head and of its way to a backend.
pub(super) struct RequestLog {
    /// What the line says of the beginning; `None`: requests were not logged when this one came, and it gets no line.
    begin: Option<RequestBegin>,
    /// Method, version and persistence, also for the response.
    pub meta: RequestMeta,
    /// A body follows the head.
    pub has_body: bool,
    /// Index of the route; `None`: none decided, or not yet.
    pub route: Option<usize>,
    /// The split of the route, and what has chosen the pool there; `None`: the route leads to no split.
    pub split: Option<(Arc<str>, ChosenBy)>,
    /// The request has a pool.
    pub routed: bool,
    /// A backend was picked for the request.
    pub picked: bool,
    /// Id that a trusted proxy has given the request.
    pub given_id: Option<String>,
    /// The word for what the cookie was worth.
    pub cookie: Option<&'static str>,
    /// The request uses a connection that was kept.
    pub reused: bool,
    /// Where the request belongs and is counted; `None` before that is known.
    pub counted_at: Option<Routed>,
}

/// The beginning of a request.
pub(super) struct RequestBegin {
    began: Micros,
    /// Bytes of the conversation before, up and down.
    bytes: (u64, u64),
    /// Fields that lines have.
    wanted: LogFields,
    /// `None`: the head was not read to its end, and nothing of it is logged.
    head: Option<HeadText>,
    session: Option<u64>,
}

impl RequestBegin {
    /// Begins the line of a request; `None`: requests are not logged. `bytes`: of the conversation so far.
    fn new(log: &Log, bytes: (u64, u64)) -> Option<Self> {
        let begin = || Self { began: clock::now(), bytes, wanted: log.fields, head: None, session: None };
        log.connections.then(begin)
    }
}

/// What is logged of a head.
struct HeadText {
    method: String,
    host: Option<String>,
    path: String,
    user_agent: Option<String>,
}

impl HeadText {
    fn of(request: &Request<'_>, wanted: LogFields) -> Self {
        let path = match request.target {
            Target::Origin(path) | Target::Absolute { path, .. } => path,
            Target::Asterisk => &b"*"[..],
        };
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let user_agent = if wanted.has(LogField::UserAgent) { request.fields.named("User-Agent").next() } else { None };
        Self {
            method: text_of(request.method_name, METHOD_MAX),
            host: request.host().map(|host| text_of(host.bytes, TEXT_MAX)),
            path: text_of(path, TEXT_MAX),
            user_agent: user_agent.map(|agent| text_of(agent, TEXT_MAX)),
        }
    }
}

impl RequestLog {
    /// Begins the line with what the head holds. `begin`: what [`HttpConnection::begin_line`] returns.
    pub fn of(request: &Request<'_>, begin: Option<RequestBegin>) -> Self {
        let with_head = |begin: RequestBegin| RequestBegin { head: Some(HeadText::of(request, begin.wanted)), ..begin };
        Self { has_body: !request.framing.is_empty(), ..Self::begun(begin.map(with_head), request.asked()) }
    }

    /// The line of a head that was refused, or not complete in time.
    pub fn of_unread(begin: Option<RequestBegin>) -> Self {
        let meta = RequestMeta { method: Method::Other, version: Version::Http11, persists: false, upgrade: None };
        Self::begun(begin, meta)
    }

    fn begun(begin: Option<RequestBegin>, meta: RequestMeta) -> Self {
        Self {
            begin,
            meta,
            has_body: false,
            route: None,
            split: None,
            routed: false,
            picked: false,
            given_id: None,
            cookie: None,
            reused: false,
            counted_at: None,
        }
    }

    /// Notes the hash of the session cookie. `value`: finds its value; called only if the line has the hash. `last`: of
    /// this client.
    pub fn note_session<'v>(&mut self, value: impl FnOnce() -> Option<&'v [u8]>, last: &mut LastSession) {
        if let Some(begin) = self.begin.as_mut().filter(|begin| begin.wanted.has(LogField::Session)) {
            begin.session = value().map(|value| last.hash_of(value));
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestEnd {
    /// Status of the response; `None`: the client got none.
    pub status: Option<u16>,
    pub ended: Ended,
    /// Why the request was refused, or its response.
    pub refused: Option<Refused>,
    /// Length of a reply of our own, which is sent behind the line; 0: there is none.
    pub reply: usize,
}

impl<S: ClientStream> HttpConnection<'_, S> {
    /// Begins the line of a request, if requests are logged now.
    pub(super) fn begin_line(&self) -> Option<RequestBegin> {
        RequestBegin::new(&self.conversation.context.current.load().config.process.log, self.conversation.state.bytes())
    }

    /// Writes the line of a request, and counts a refusal, also where nothing is logged.
    pub(super) fn log_request(&self, log: &mut RequestLog, end: RequestEnd) {
        let RequestEnd { status, ended, refused, reply } = end;
        let ended = self.conversation.cancelled_request().unwrap_or(ended);
        if let Some(refused) = refused {
            self.count_refusal(refused, ended);
        }
        if let Some(limit) = Ended::OF_REQUEST_LIMITS.iter().position(|limit| *limit == ended) {
            self.conversation.context.counters().requests_limited.of(limit).add(1);
        }
        self.conversation.note_ending(ended, true);
        let Some(begin) = log.begin.take() else { return };
        let (context, state, client_info) =
            (&self.conversation.context, &self.conversation.state, &self.conversation.client_info);
        let replied = reply > 0 && ended != Ended::Answered;
        let failed = refused.is_some() || replied || status.is_some_and(|status| status >= 500);
        let rules = LogRules::of(&context.current.load().config.process.log);
        let Some(sample) = rules.request(client_info.id, self.count, ended, state.has_moved(), failed) else { return };
        let now = clock::now();
        let duration_us = now.saturating_sub(begin.began);
        let first_byte = state.first_byte().filter(|at| *at >= begin.began);
        let bytes = state.bytes();
        let head = begin.head;
        let (method, host, path, user_agent) = match head {
            Some(HeadText { method, host, path, user_agent }) => (Some(method), host, Some(path), user_agent),
            None => (None, None, None, None),
        };
        // Of a request without a route or a backend, those in the state are of the request before it.
        let (routed, picked) = (log.routed.then_some(state), log.picked.then_some(state));
        context.write(LogRecord::Request(access_log::RequestLine {
            request: self.request_id(),
            request_id: log.given_id.take(),
            id: client_info.id,
            started_unix_us: clock::unix_us().saturating_sub(duration_us),
            duration_us,
            listener: Arc::clone(self.conversation.listener_name()),
            client: client_info.source,
            method,
            host,
            path,
            user_agent,
            session: begin.session,
            status,
            route: log.route.map(|route| route as u64 + 1),
            split: log.split.take(),
            pool: routed.and_then(|state| state.pool()),
            backend: picked.and_then(|state| state.backend_name()),
            reason: picked.and_then(|state| state.reason()),
            cookie: log.cookie,
            reused: log.reused,
            first_byte_us: first_byte.map(|at| at - begin.began),
            bytes_up: bytes.0.saturating_sub(begin.bytes.0),
            bytes_down: bytes.1.saturating_sub(begin.bytes.1) + reply as u64,
            subject: self.shared.secured.subject.clone(),
            ended,
            moved: state.take_move(),
            refused: refused.map(Refused::word),
            sample,
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
    use crate::access_log::session_hash;
    use crate::config::{LogFormat, LogLevel, LogOutput};
    use crate::http::Progress;
    use crate::http::head::RequestReader;

    fn log(connections: bool, fields: LogFields) -> Log {
        let (format, level, output) = (LogFormat::Text, LogLevel::Info, LogOutput::Stdout);
        Log { format, connections, level, output, fields, sample: 1 }
    }

    #[test]
    fn of_a_request_that_is_not_logged_nothing_is_copied_and_no_clock_is_read() {
        let head = b"GET /a?secret HTTP/1.1\r\nHost: b.example\r\nuser-agent: curl/8 \"x\"\r\n\r\n";
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head), Progress::Done(_)));
        let request = reader.request(head);
        let before = clock::readings();
        let begin = |log: &Log| RequestBegin::new(log, (0, 0));
        let last = &mut LastSession::default();
        let off = log(false, LogFields::EVERY);
        let mut unlogged = RequestLog::of(&request, begin(&off));
        unlogged.note_session(|| panic!("the cookie is not looked for"), last);
        assert!(unlogged.begin.is_none() && RequestLog::of_unread(begin(&off)).begin.is_none());
        assert_eq!(clock::readings(), before);

        let usual = log(true, LogFields::default());
        let mut logged = RequestLog::of(&request, begin(&usual));
        logged.note_session(|| Some(b"31d4"), last);
        let logged = logged.begin.unwrap();
        assert_eq!(logged.session, Some(session_hash(b"31d4")));
        let HeadText { method, host, path, user_agent } = logged.head.unwrap();
        assert_eq!((&*method, host.as_deref(), &*path, user_agent), ("GET", Some("b.example"), "/a", None));
        assert!(RequestLog::of_unread(begin(&usual)).begin.unwrap().head.is_none());
        assert_eq!(clock::readings(), before + 2);

        let with_agent = RequestLog::of(&request, begin(&log(true, LogFields::EVERY))).begin.unwrap().head.unwrap();
        assert_eq!(with_agent.user_agent.as_deref(), Some("curl/8 \"x\""));
        let without = log(true, LogFields::least());
        let mut unwanted = RequestLog::of(&request, begin(&without));
        unwanted.note_session(|| panic!("the line has no hash"), last);
    }
}
