//! [`RequestCookie`]: what the pool's cookie says of a request, and the heads of request and response as the other side
//! gets them.
//!
//! Moves no byte and picks no backend; `shared_cookie.rs` asks the store for cookies of other instances. Invariant: a
//! client gets our cookie only for the backend that serves its request and from nothing else, and backends never see
//! it.

use std::rc::Rc;
use std::sync::Arc;

use super::header_rules::{self, RequestFacts, SetHeaders};
use super::history;
use super::request_split::RequestSplit;
use crate::clock;
use crate::config::{self, Carrier, Forwarded, PoolHttp};
use crate::connection::ClientInfo;
use crate::http::Method;
use crate::http::edit::{CookieEdit, CookieNames, RequestEdit, ResponseEdit, SetField, write_response};
use crate::http::field::{Fields, KnownField};
use crate::http::forwarded::{Forwarding, told_secure};
use crate::http::head::{Request, Response};
use crate::http::set_cookie::{SetCookie, set_cookies};
use crate::http::upgrade::RequestMeta;
use crate::pool::request_cookie::{ReadCookie, values_of};
use crate::pool::{Pool, Remember};
use crate::sticky::Left;
use crate::sticky::cookie::{CookieRule, CookieVerdict, Issue, Mode, PREFIX_END, is_learnable, tiers};
use crate::terminate::conversation::Conversation;
use crate::terminate::follow::Follow;
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
    /// The request brought no other value of that cookie.
    is_only_value: bool,
    /// Other values that only the store may know.
    pub(super) unknown: Vec<Rc<[u8]>>,
    /// Value of a balancer behind this one with a cookie of the same name, for which ours carries it.
    inner: Option<Box<[u8]>>,
    /// The store was asked for the value; once a request is enough.
    pub(super) looked_up: bool,
    /// Backend at which the client was known here, if the store names another one.
    pub(super) store_left: Option<Left>,
    /// Name of the backend in the store, if the pool does not have it.
    pub(super) store_gone: Option<Arc<str>>,
    /// Time of the request in seconds since 1970; 0 where the pool has no cookie.
    pub(super) now: u64,
    /// The split that has chosen the pool; `None`: the route names it.
    pub(super) split: Option<RequestSplit>,
}

impl<'p> RequestCookie<'p> {
    /// Reads the cookie of a request; `now` returns seconds since 1970, and is not called where the pool has no cookie.
    pub fn read(pool: &'p Pool, request: &Request<'_>, now: impl FnOnce() -> u64) -> Self {
        let (now, now_ms) = pool.cookie().map_or((0, 0), |_| (now(), clock::now_ms()));
        let read = ReadCookie::new(pool, request, now, now_ms);
        Self {
            pool,
            rule: pool.cookie(),
            verdict: read.verdict,
            value: read.value.map(Rc::from),
            is_only_value: read.is_only_value,
            unknown: read.unknown.into_iter().map(Rc::from).collect(),
            inner: read.inner.map(Box::from),
            looked_up: false,
            store_left: None,
            store_gone: None,
            now,
            split: None,
        }
    }

    /// Index of the backend that a valid cookie names.
    pub fn backend(&self) -> Option<usize> {
        self.verdict.and_then(CookieVerdict::backend)
    }

    /// Word of the access log for what the cookie was worth; `None`: no cookie.
    pub fn word(&self) -> Option<&'static str> {
        self.verdict.map(CookieVerdict::word)
    }

    /// The backend that the client had by its cookie, and why it may not keep it. This goes before what the pick has
    /// found.
    pub fn left(&self) -> Option<Left> {
        self.store_left.or_else(|| self.verdict?.left())
    }

    /// Value of the session cookie for the log: the one that counts where the pool learns, else the first of the pool's
    /// cookie, as the application set it.
    pub fn session<'v>(&'v self, request: &Request<'v>) -> Option<&'v [u8]> {
        let rule = self.rule?;
        let value = self.value.as_deref().or_else(|| values_of(rule, request).next())?;
        match rule.mode() {
            Mode::Prefix => value.splitn(2, |byte| *byte == PREFIX_END).last(),
            _ => Some(value),
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
    fn edit(&self) -> CookieEdit<'_> {
        match (self.own_names(), &self.inner) {
            (Some(names), Some(value)) => return CookieEdit::Replace { names, value },
            (Some(names), None) => return CookieEdit::Remove(names),
            (None, _) => {}
        }
        match self.rule.map(|rule| (rule.name().as_bytes(), rule.mode())) {
            Some((name, Mode::Prefix)) => CookieEdit::CutPrefix { name, separator: PREFIX_END },
            _ => CookieEdit::Keep,
        }
    }

    /// Our `Set-Cookie` line, if the client has no cookie for this backend, a renewal is due, or the value of the tier
    /// behind this one has changed; always with a 101, because the browser's copy ages while the upgraded connection is
    /// open.
    fn own_cookie(
        &self,
        backend: usize,
        response: &Response<'_>,
        tls: bool,
        follow: Option<&Follow>,
        context: &RuntimeContext,
    ) -> Option<String> {
        let Some(Mode::Insert(insert)) = self.rule.map(CookieRule::mode) else { return None };
        let inner = self.inner_after(response.fields);
        let is_wanted = response.switches() || inner.as_deref() != self.inner.as_deref();
        let issued = CookieVerdict::issue_date(self.verdict, backend, self.now, is_wanted)?;
        let write = || {
            let mut line = Vec::new();
            let issue = Issue { backend, issued, inner: inner.as_deref() };
            insert.write(&mut line, issue, self.now, tls, context.nonce()?);
            String::from_utf8(line).ok()
        };
        match follow.filter(|_| inner.is_none()) {
            Some(follow) => follow.cookie_line(self.pool, backend, self.now, write),
            None => write(),
        }
    }

    /// Value of the tier behind this one after a response with these fields: as the backend has set it, or as it was.
    fn inner_after(&self, fields: Fields<'_>) -> Option<Box<[u8]>> {
        let mut inner = self.inner.clone();
        for set in self.own_names().into_iter().flat_map(|names| set_cookies(fields, names.name)) {
            if set.ends(self.now) {
                inner = None;
            } else if tiers::is_inner(set.value) {
                inner = Some(set.value.into());
            }
        }
        inner
    }

    /// Names of our own cookie; `None`: the pool's cookie is the application's.
    fn own_names(&self) -> Option<CookieNames<'p>> {
        let rule = self.rule.filter(|rule| matches!(rule.mode(), Mode::Insert(_)))?;
        Some(CookieNames { name: rule.name().as_bytes(), twin: rule.twin().map(str::as_bytes) })
    }

    /// The `Set-Cookie` line of the twin of our cookie, to which this one belongs.
    fn twin_of(&self, line: &str, tls: bool) -> Option<String> {
        match self.rule.map(CookieRule::mode) {
            Some(Mode::Insert(insert)) => insert.twin_of(line, tls),
            _ => None,
        }
    }

    /// Stores the value that the backend sets, here and in the store, before the client can use it. Returns the wait
    /// for the store, if that has to end before the response goes on.
    fn learn(
        &self,
        index: usize,
        method: Method,
        response: &Response<'_>,
        conversation: &Conversation,
    ) -> Option<StoreWait> {
        let rule = self.rule.filter(|rule| matches!(rule.mode(), Mode::Learn))?;
        let backend = self.pool.backends().get(index)?;
        let ended = self.ended_value(rule, method, response);
        let set = self.set_values(rule, response.fields);
        let mut store_wait = None;
        for value in set.filter(|value| is_learnable(value) && ended != Some(*value)) {
            if let Some(table) = self.pool.table() {
                table.learn(value, backend, clock::now_ms());
            }
            store_wait = self.store_learned(&conversation.context, value, index, backend).or(store_wait);
        }
        if let Some(value) = ended {
            if let Some(table) = self.pool.table() {
                table.forget(value);
            }
            conversation.state.forget_placement();
            conversation.context.store.forget(self.pool, value);
        }
        store_wait
    }

    /// The values that a response sets.
    fn set_values<'f>(&self, rule: &'f CookieRule, fields: Fields<'f>) -> impl Iterator<Item = &'f [u8]> {
        let now = self.now;
        let lines = rule.cookie_names().flat_map(move |name| set_cookies(fields, name.as_bytes()));
        let cookies = lines.filter(move |line| !line.ends(now)).map(|line| line.value);
        cookies.chain(rule.header().into_iter().flat_map(move |name| fields.named(name)))
    }

    /// The value that a response ends: of several that a request brought, none.
    fn ended_value(&self, rule: &CookieRule, method: Method, response: &Response<'_>) -> Option<&[u8]> {
        let value = self.value.as_deref().filter(|_| self.is_only_value)?;
        let ends = match rule.carrier() {
            Carrier::Cookie => self.is_ended_by(value, set_cookies(response.fields, rule.name().as_bytes())),
            Carrier::Header { end_on_404 } => {
                let is_deleted = method == Method::Delete && (200..300).contains(&response.status);
                is_deleted || end_on_404 && response.status == 404
            }
        };
        ends.then_some(value)
    }

    /// True if a response with these lines for the application's cookie ends the value that the request brought. A line
    /// that expires the cookie does not say which value it means: a browser has one for each domain and path. So it is
    /// not ended if the same response sets it.
    fn is_ended_by<'f>(&self, value: &[u8], lines: impl Iterator<Item = SetCookie<'f>>) -> bool {
        let (mut ends, mut is_set) = (false, false);
        for line in lines {
            let line_ends = line.ends(self.now);
            ends |= line_ends;
            is_set |= !line_ends && line.value == value;
        }
        ends && !is_set
    }
}

/// Writes the head of a request as the backend gets it.
pub fn write_request(
    out: &mut Vec<u8>,
    facts: &RequestFacts<'_>,
    cookie: &RequestCookie<'_>,
    client_info: &ClientInfo,
    (secured, listener): (&Secured, &config::Listener),
) {
    let forwarding = forwarding(client_info, listener);
    let rules = &cookie.pool.config().request_headers;
    let own = [(SUBJECT, secured.subject.as_deref())];
    let further = SetHeaders::of(rules, listener.request_id.as_deref(), facts);
    let is_own_alone = further.is_empty() && rules.remove.is_empty();
    let all: Vec<SetField<'_>> = match is_own_alone {
        true => Vec::new(),
        false => own.into_iter().filter(|(name, _)| !rules.has_rule_for(name)).chain(further.fields()).collect(),
    };
    let edit = RequestEdit {
        x_forwarded: forwarding,
        forwarded: forwarding,
        client: facts.client,
        port: port(client_info, listener),
        secure: secured.tls,
        cookie: cookie.edit(),
        split_cookie: cookie.split.as_ref().and_then(RequestSplit::cookie_names),
        close: !facts.request.persists(),
        trailers: cookie.pool.config().http == PoolHttp::Http2,
        set: if is_own_alone { &own } else { &all },
        remove: &rules.remove,
    };
    crate::http::edit::write_request(out, facts.request, &edit);
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

/// The port that the client has connected to; `None`: it is a socket without one, or that of a proxy in front, which
/// tells no address.
fn port(client_info: &ClientInfo, listener: &config::Listener) -> Option<u16> {
    let is_known = client_info.announced || !listener.client_tls && !client_info.local;
    client_info.destination.filter(|_| is_known).map(|destination| destination.port())
}

/// True if the client used TLS: to this process, to a decoder in front of it, or as a trusted proxy tells.
pub fn is_secure(
    secured: &Secured,
    request: &Request<'_>,
    client_info: &ClientInfo,
    listener: &config::Listener,
) -> bool {
    let told = match forwarding(client_info, listener) {
        Forwarding::Append => told_secure(request.fields),
        _ => None,
    };
    told.unwrap_or(secured.tls)
}

/// The id that a trusted proxy has given a request, on a listener with a field for it.
pub fn given_id(request: &Request<'_>, client_info: &ClientInfo, listener: &config::Listener) -> Option<String> {
    let name = listener.request_id.as_ref().filter(|_| forwarding(client_info, listener) == Forwarding::Append)?;
    header_rules::given_id(request.fields, name)
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
    /// Header fields that the pool sets.
    pub set: &'a SetHeaders<'a>,
    /// The request brought no cookie, and gets the one of the others that did not; `None`: it has its own.
    pub follow: Option<&'a Follow>,
    /// Sec-WebSocket-Accept that has to come for the key that this process has chosen (RFC 6455 §4.1); `None`: it has
    /// chosen none.
    pub accept: Option<[u8; 28]>,
    /// Conversation that the request belongs to.
    pub conversation: &'a Conversation,
}

impl ResponseWriter<'_> {
    /// True unless a final response says that a WebSocket of HTTP/2 stands which does not: any 2xx would mean that
    /// (RFC 8441 §5).
    pub fn accepts(&self, response: &Response<'_>) -> bool {
        let Some(accept) = self.accept else { return true };
        let mut values = response.fields.named("Sec-WebSocket-Accept");
        match response.switches() {
            true => values.next() == Some(&accept[..]) && values.next().is_none(),
            false => !(200..300).contains(&response.status),
        }
    }

    /// Appends the head of an interim response (1xx).
    pub fn write_interim(&self, out: &mut Vec<u8>, response: &Response<'_>) {
        write_response(out, response, &self.request, &self.edit(response.fields, false, &[], &[]));
    }

    /// Appends the head of the final response; `close`: the client's connection ends behind it. Returns a wait that has
    /// to end before the client may see the head.
    pub fn write_final(&self, out: &mut Vec<u8>, response: &Response<'_>, close: bool) -> Option<StoreWait> {
        let store_wait = self.cookie.learn(self.backend, self.request.method, response, self.conversation);
        let context = &self.conversation.context;
        let own = self.cookie.own_cookie(self.backend, response, self.tls, self.follow, context);
        own.iter().for_each(|line| history::note_new_cookie(self.conversation, line));
        let twin = own.as_ref().and_then(|line| self.cookie.twin_of(line, self.tls));
        let split = self.cookie.split.as_ref();
        let of_split = split.map(|split| split.set_cookies(response.switches(), self.tls, context)).unwrap_or_default();
        let set_cookies = of_split.iter().chain([&own, &twin]).flatten().map(|line| ("Set-Cookie", line.as_str()));
        let private = of_split[0].iter().chain(&own).take(1).map(|_| ("Cache-Control", "private"));
        let lines: Vec<(&str, &str)> = set_cookies.chain(private).collect();
        write_response(out, response, &self.request, &self.edit(response.fields, close, &lines, &self.set.fields()));
        store_wait
    }

    /// The changes to a response, interim or final. Counts the lines of the backend that are dropped.
    fn edit<'e>(
        &'e self,
        fields: Fields<'_>,
        close: bool,
        add: &'e [(&'e str, &'e str)],
        set: &'e [SetField<'e>],
    ) -> ResponseEdit<'e> {
        let rule = self.cookie.rule;
        let cookie_prefix = rule.and_then(|rule| Some((rule.name().as_bytes(), rule.prefix(self.backend)?)));
        let drop_cookie = self.cookie.own_names();
        let drop_split = self.cookie.split.as_ref().and_then(RequestSplit::cookie_names);
        for names in [drop_cookie, drop_split].into_iter().flatten() {
            let lines = fields.all(KnownField::SetCookie).filter(|line| names.set_by(line));
            self.cookie.pool.count_dropped_cookies(lines.count());
        }
        let remove = &self.cookie.pool.config().response_headers.remove;
        ResponseEdit { close, add, cookie_prefix, drop_cookie, drop_split, set, remove }
    }
}
