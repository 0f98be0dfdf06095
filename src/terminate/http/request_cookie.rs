//! Where a request goes by what it says, and what it and its response say of that to the other side.
//!
//! The chain: the request's cookie (`share.rs` asks others whose it is), then placement, then the last resort. Moves no
//! byte. Invariant: a client is sent our cookie for the backend that answers it, and for no other; a backend never sees
//! it.

use std::rc::Rc;

use crate::clock;
use crate::config::{self, Forwarded};
use crate::connection::ClientInfo;
use crate::counters::ConversationCounters;
use crate::http::edit::{CookieEdit, RequestEdit, ResponseEdit, write_response};
use crate::http::field::Fields;
use crate::http::forwarded::Forwarding;
use crate::http::head::{Request, RequestMeta, Response};
use crate::http::set_cookie::set_cookies;
use crate::outcome::BreakCause;
use crate::pool::request_cookie::ReadCookie;
use crate::pool::{Pool, Remember};
use crate::sticky::cookie::{CookieRule, CookieVerdict, Mode, PREFIX_END};
use crate::terminate::runtime::RuntimeContext;
use crate::terminate::secure::Secured;
use crate::terminate::state::Conversation;
use crate::terminate::timer_fd::StoreWait;

/// The field that tells backends whose certificate the client has shown. Nobody else can write it.
const SUBJECT: &str = "X-Client-Certificate-Subject";

/// What the pool's cookie makes of one request and its response.
pub struct RequestCookie<'p> {
    pub(super) pool: &'p Pool,
    rule: Option<&'p CookieRule>,
    pub(super) verdict: Option<CookieVerdict>,
    /// The application's value, where it is learned.
    pub(super) value: Option<Rc<[u8]>>,
    /// The store was asked about it.
    pub(super) asked: bool,
    /// Why the client cannot stay where it was known here, if the store says where it is now.
    pub(super) left: Option<BreakCause>,
    pub(super) now: u64,
}

impl<'p> RequestCookie<'p> {
    /// Reads the request's cookie; `now` is in seconds since 1970.
    pub fn read(pool: &'p Pool, fields: Fields<'_>, now: u64) -> Self {
        let ReadCookie { verdict, value } = ReadCookie::new(pool, fields, now, now_ms());
        Self { pool, rule: pool.cookie(), verdict, value: value.map(Rc::from), asked: false, left: None, now }
    }

    /// The backend that a valid cookie names, by its index.
    pub fn backend(&self) -> Option<usize> {
        self.verdict.and_then(CookieVerdict::backend)
    }

    /// What the cookie was, in a word.
    pub fn word(&self) -> Option<&'static str> {
        self.verdict.map(CookieVerdict::word)
    }

    /// Why a client that brought it does not stay where it was.
    pub fn cause(&self) -> Option<BreakCause> {
        if self.left.is_some() {
            return self.left;
        }
        match self.verdict? {
            CookieVerdict::Expired => Some(BreakCause::Expired),
            CookieVerdict::Forged => Some(BreakCause::Forged),
            CookieVerdict::Removed => Some(BreakCause::Removed),
            CookieVerdict::Fresh { .. } | CookieVerdict::Due { .. } | CookieVerdict::OtherPool => None,
        }
    }

    /// Counts what it was.
    pub fn count(&self, counters: &ConversationCounters) {
        let Some(verdict) = self.verdict else { return };
        let counter = match verdict {
            CookieVerdict::Fresh { .. } | CookieVerdict::Due { .. } => &counters.cookies_valid,
            CookieVerdict::Expired => &counters.cookies_expired,
            CookieVerdict::Forged => &counters.cookies_forged,
            CookieVerdict::OtherPool => &counters.cookies_other_pool,
            CookieVerdict::Removed => &counters.cookies_removed,
        };
        counter.add(1);
    }

    /// What the pool remembers of a value that it learns, once the request has its backend.
    pub fn remember(&self) -> Option<Remember> {
        self.pool.table()?.remember_value(self.value.as_deref()?)
    }

    /// What the backend does not see of the client's cookies.
    fn edit(&self) -> CookieEdit<'p> {
        match self.rule.map(|rule| (rule.name().as_bytes(), rule.mode())) {
            Some((name, Mode::Insert(_))) => CookieEdit::Remove(name),
            Some((name, Mode::Prefix)) => CookieEdit::CutPrefix { name, separator: PREFIX_END },
            _ => CookieEdit::Keep,
        }
    }

    /// Our `Set-Cookie`, if the client has none for this backend or it is due; and always with a 101, since the
    /// browser's copy ages while what was switched to is open.
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

    /// Lets what the backend sets be known before the client can use it, here and, where it answers, in the store: that
    /// is what to wait for.
    fn learn(&self, index: usize, fields: Fields<'_>, conversation: &Conversation) -> Option<StoreWait> {
        let rule = self.rule.filter(|rule| matches!(rule.mode(), Mode::Learn))?;
        let (backend, table) = (self.pool.backends().get(index)?, self.pool.table());
        let mut told = None;
        for set in set_cookies(fields).filter(|set| set.name == rule.name().as_bytes()) {
            match (set.ends(self.now), &self.value) {
                (false, _) => {
                    if let Some(table) = table {
                        table.learn(set.value, backend, now_ms());
                    }
                    told = self.tell_learned(&conversation.context, set.value, index, backend).or(told);
                }
                (true, Some(value)) => {
                    if let Some(table) = table {
                        table.forget(value);
                    }
                    conversation.state.forgets();
                    conversation.context.store.forget(self.pool, value);
                }
                (true, None) => {}
            }
        }
        told
    }
}

/// Everything that is changed in the head of a request.
pub fn write_request(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    settled: &RequestCookie<'_>,
    client_info: &ClientInfo,
    (secured, listener): (&Secured, &config::Listener),
) {
    let forwarding = forwarding(client_info, listener);
    let edit = RequestEdit {
        x_forwarded: forwarding,
        forwarded: forwarding,
        client: client_info.source.filter(|_| !client_info.local).map(|source| source.ip()),
        secure: secured.tls,
        cookie: settled.edit(),
        close: !request.persists(),
        set: &[(SUBJECT, secured.subject.as_deref())],
    };
    crate::http::edit::write_request(out, request, &edit);
}

/// Whoever connects outside `trust` is believed nothing.
fn forwarding(client_info: &ClientInfo, listener: &config::Listener) -> Forwarding {
    let direct = listener.proxy.is_some() && !client_info.announced && !client_info.local;
    match listener.forwarded {
        Forwarded::Append if direct => Forwarding::Replace,
        Forwarded::Append => Forwarding::Append,
        Forwarded::Replace => Forwarding::Replace,
        Forwarded::Off => Forwarding::Off,
    }
}

/// What is written in the place of a backend's response head.
pub struct Reply<'a> {
    /// What the request's cookie said.
    pub settled: &'a RequestCookie<'a>,
    /// The backend, by its index in the pool.
    pub backend: usize,
    /// What was asked.
    pub asked: RequestMeta,
    /// The client used TLS.
    pub tls: bool,
    /// Whose request it is.
    pub conversation: &'a Conversation,
}

impl Reply<'_> {
    /// Appends an interim head.
    pub fn interim(&self, out: &mut Vec<u8>, response: &Response<'_>) {
        write_response(out, response, &self.asked, &ResponseEdit::default());
    }

    /// Appends the final head; `close`: nothing follows on the client's connection. What is to be waited for before the
    /// client sees any of it.
    pub fn last(&self, out: &mut Vec<u8>, response: &Response<'_>, close: bool) -> Option<StoreWait> {
        let told = self.settled.learn(self.backend, response.fields, self.conversation);
        let own = self.settled.own_cookie(self.backend, response.switches(), self.tls, &self.conversation.context);
        let lines: Vec<(&str, &str)> = match &own {
            Some(line) => vec![("Set-Cookie", line), ("Cache-Control", "private")],
            None => Vec::new(),
        };
        let rule = self.settled.rule;
        let prefix = rule.and_then(|rule| Some((rule.name().as_bytes(), rule.prefix(self.backend)?)));
        let edit = ResponseEdit { close, add: &lines, cookie_prefix: prefix };
        write_response(out, response, &self.asked, &edit);
        told
    }
}

fn now_ms() -> u64 {
    clock::now() / 1_000
}
