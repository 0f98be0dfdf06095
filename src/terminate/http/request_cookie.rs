//! [`RequestCookie`]: what the pool's cookie says of a request, and the heads of request and response as the other side
//! gets them.
//!
//! Moves no byte and picks no backend; `shared_cookie.rs` asks the store for cookies of other instances. Invariant: a
//! client gets our cookie only for the backend that serves its request, and backends never see it.

use std::rc::Rc;

use crate::clock;
use crate::config::{self, Forwarded};
use crate::connection::ClientInfo;
use crate::http::edit::{CookieEdit, RequestEdit, ResponseEdit, write_response};
use crate::http::field::Fields;
use crate::http::forwarded::Forwarding;
use crate::http::head::{Request, Response};
use crate::http::set_cookie::set_cookies;
use crate::http::upgrade::RequestMeta;
use crate::outcome::BreakCause;
use crate::pool::request_cookie::ReadCookie;
use crate::pool::{Pool, Remember};
use crate::sticky::cookie::{CookieRule, CookieVerdict, Mode, PREFIX_END};
use crate::terminate::conversation::Conversation;
use crate::terminate::runtime::RuntimeContext;
use crate::terminate::secure::Secured;
use crate::terminate::timer_fd::StoreWait;

/// Header field with the subject of the client's certificate; a field of this name from the client is removed.
const SUBJECT: &str = "X-Client-Certificate-Subject";

/// The pool's cookie in one request and its response.
pub struct RequestCookie<'p> {
    pub(super) pool: &'p Pool,
    rule: Option<&'p CookieRule>,
    pub(super) verdict: Option<CookieVerdict>,
    /// Value of a cookie that the application sets and the pool learns.
    pub(super) value: Option<Rc<[u8]>>,
    /// The store was asked for the value; once a request is enough.
    pub(super) looked_up: bool,
    /// Backend at which the client was known here, and why it cannot keep it, if the store names another one.
    pub(super) store_left: Option<(Option<usize>, BreakCause)>,
    /// Time of the request in seconds since 1970.
    pub(super) now: u64,
}

impl<'p> RequestCookie<'p> {
    /// Reads the cookie of a request; `now` is in seconds since 1970.
    pub fn read(pool: &'p Pool, fields: Fields<'_>, now: u64) -> Self {
        let ReadCookie { verdict, value } = ReadCookie::new(pool, fields, now, clock::now_ms());
        let value = value.map(Rc::from);
        Self { pool, rule: pool.cookie(), verdict, value, looked_up: false, store_left: None, now }
    }

    /// Index of the backend that a valid cookie names.
    pub fn backend(&self) -> Option<usize> {
        self.verdict.and_then(CookieVerdict::backend)
    }

    /// Word of the access log for what the cookie was worth; `None`: no cookie.
    pub fn word(&self) -> Option<&'static str> {
        self.verdict.map(CookieVerdict::word)
    }

    /// Why the client gets another backend than it had, now that the backend at `index` serves it; `None`: it keeps
    /// its backend, or none is known. Where the cookie says which backend that was, it goes before `picked`, the cause
    /// that the pick has found.
    pub fn broke(&self, index: usize, picked: Option<BreakCause>) -> Option<BreakCause> {
        match self.store_left.or_else(|| self.verdict?.left()) {
            Some((had, cause)) => (had != Some(index)).then_some(cause),
            None => picked,
        }
    }

    /// Counts the cookie by its verdict; `counters_index` is that of the thread.
    pub fn count(&self, counters_index: usize) {
        if let Some(verdict) = self.verdict {
            self.pool.count_cookie(verdict, counters_index);
        }
    }

    /// Entry for the stick table once the request has its backend; `None`: the pool learns no value of this request.
    pub fn remember(&self) -> Option<Remember> {
        self.pool.table()?.remember_value(self.value.as_deref()?)
    }

    /// How the cookies of the request change for the backend.
    fn edit(&self) -> CookieEdit<'p> {
        match self.rule.map(|rule| (rule.name().as_bytes(), rule.mode())) {
            Some((name, Mode::Insert(_))) => CookieEdit::Remove(name),
            Some((name, Mode::Prefix)) => CookieEdit::CutPrefix { name, separator: PREFIX_END },
            _ => CookieEdit::Keep,
        }
    }

    /// Our `Set-Cookie` line, if the client has no cookie for this backend or a renewal is due; always with a 101,
    /// because the browser's copy ages while the upgraded connection is open.
    fn own_cookie(&self, backend: usize, switches: bool, tls: bool, context: &RuntimeContext) -> Option<String> {
        let Some(Mode::Insert(insert)) = self.rule.map(CookieRule::mode) else { return None };
        let issued = match self.verdict {
            Some(CookieVerdict::Fresh { backend: named, issued }) if named == backend => switches.then_some(issued)?,
            Some(CookieVerdict::Due { backend: named, issued }) if named == backend => issued,
            _ => self.now,
        };
        let mut line = Vec::new();
        insert.write(&mut line, backend, issued, self.now, tls, context.nonce()?);
        String::from_utf8(line).ok()
    }

    /// Stores the value that the backend sets, here and in the store, before the client can use it. Returns the wait
    /// for the store, if that has to end before the response goes on.
    fn learn(&self, index: usize, fields: Fields<'_>, conversation: &Conversation) -> Option<StoreWait> {
        let rule = self.rule.filter(|rule| matches!(rule.mode(), Mode::Learn))?;
        let backend = self.pool.backends().get(index)?;
        let mut store_wait = None;
        for set in set_cookies(fields).filter(|set| set.name == rule.name().as_bytes()) {
            match (set.ends(self.now), &self.value) {
                (false, _) => {
                    if let Some(table) = self.pool.table() {
                        table.learn(set.value, backend, clock::now_ms());
                    }
                    store_wait = self.store_learned(&conversation.context, set.value, index, backend).or(store_wait);
                }
                (true, Some(value)) => {
                    if let Some(table) = self.pool.table() {
                        table.forget(value);
                    }
                    conversation.state.forget_placement();
                    conversation.context.store.forget(self.pool, value);
                }
                (true, None) => {}
            }
        }
        store_wait
    }
}

/// Writes the head of a request as the backend gets it.
pub fn write_request(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    cookie: &RequestCookie<'_>,
    client_info: &ClientInfo,
    (secured, listener): (&Secured, &config::Listener),
) {
    let forwarding = forwarding(client_info, listener);
    let edit = RequestEdit {
        x_forwarded: forwarding,
        forwarded: forwarding,
        client: client_info.key_source(),
        secure: secured.tls,
        cookie: cookie.edit(),
        close: !request.persists(),
        set: &[(SUBJECT, secured.subject.as_deref())],
    };
    crate::http::edit::write_request(out, request, &edit);
}

/// How `Forwarded` and `X-Forwarded-*` are written. Those of a client that connected directly, though the listener
/// expects a trusted PROXY peer, are replaced, never continued.
fn forwarding(client_info: &ClientInfo, listener: &config::Listener) -> Forwarding {
    match listener.forwarded {
        Forwarded::Append if client_info.is_direct(listener) => Forwarding::Replace,
        Forwarded::Append => Forwarding::Append,
        Forwarded::Replace => Forwarding::Replace,
        Forwarded::Off => Forwarding::Off,
    }
}

/// Writes heads of responses as the client gets them.
pub struct ResponseWriter<'a> {
    /// The pool's cookie in the request.
    pub cookie: &'a RequestCookie<'a>,
    /// Index of the backend in its pool.
    pub backend: usize,
    /// The request, as far as its response depends on it.
    pub request: RequestMeta,
    /// True if the client used TLS: our cookie is then `Secure`.
    pub tls: bool,
    /// Conversation that the request belongs to.
    pub conversation: &'a Conversation,
}

impl ResponseWriter<'_> {
    /// Appends the head of an interim response (1xx).
    pub fn write_interim(&self, out: &mut Vec<u8>, response: &Response<'_>) {
        write_response(out, response, &self.request, &ResponseEdit::default());
    }

    /// Appends the head of the final response; `close`: the client's connection ends behind it. Returns a wait that has
    /// to end before the client may see the head.
    pub fn write_final(&self, out: &mut Vec<u8>, response: &Response<'_>, close: bool) -> Option<StoreWait> {
        let store_wait = self.cookie.learn(self.backend, response.fields, self.conversation);
        let own = self.cookie.own_cookie(self.backend, response.switches(), self.tls, &self.conversation.context);
        let lines: Vec<(&str, &str)> = match &own {
            Some(line) => vec![("Set-Cookie", line), ("Cache-Control", "private")],
            None => Vec::new(),
        };
        let rule = self.cookie.rule;
        let prefix = rule.and_then(|rule| Some((rule.name().as_bytes(), rule.prefix(self.backend)?)));
        let edit = ResponseEdit { close, add: &lines, cookie_prefix: prefix };
        write_response(out, response, &self.request, &edit);
        store_wait
    }
}
