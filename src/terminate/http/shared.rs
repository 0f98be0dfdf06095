//! [`Shared`]: what the requests of one client share: those of a connection one after another, those of HTTP/2 at once.
//!
//! Serves no request. Invariant: nothing here is shared between two clients.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::request_cookie::RequestCookie;
use super::rules::{RequestRules, Unrouted};
use super::upstreams::Upstreams;
use crate::access_log::LastSession;
use crate::config::Tls;
use crate::http::head::Request;
use crate::pool::{Backend, Pool};
use crate::terminate::Routed;
use crate::terminate::conversation::Conversation;
use crate::terminate::follow::Follow;
use crate::terminate::secure::Secured;

/// What the requests of one client share.
pub struct Shared<'a> {
    pub secured: &'a Secured,
    pub rules: RequestRules,
    pub upstreams: Upstreams,
    /// The client may begin HTTP/2 instead of its first request.
    pub takes_http2: bool,
    /// Hash of the session in the last request that was logged with one.
    pub last_session: RefCell<LastSession>,
    /// Where requests without a cookie go; `None`: the client has one request at a time, and each is placed by itself.
    follow: Option<Box<Follow>>,
    /// The rules of the connection are not in force any more.
    is_outdated: Cell<bool>,
}

impl<'a> Shared<'a> {
    /// For a client that has one request at a time.
    pub fn for_one_at_a_time(routed: &Routed, secured: &'a Secured) -> Self {
        Self {
            secured,
            rules: RequestRules::of(routed),
            upstreams: Upstreams::default(),
            takes_http2: routed.target.tls == Tls::Off && routed.offers_http2(),
            last_session: RefCell::default(),
            follow: None,
            is_outdated: Cell::new(false),
        }
    }

    /// For a client that has many requests at once, of which at most `at_once` use connections to one backend.
    /// `many_clients`: a trusted peer brings them.
    pub fn for_many_at_once(rules: RequestRules, secured: &'a Secured, at_once: usize, many_clients: bool) -> Self {
        Self {
            secured,
            rules,
            upstreams: Upstreams::with_places(at_once),
            takes_http2: false,
            last_session: RefCell::default(),
            follow: Some(Box::new(Follow::new(many_clients))),
            is_outdated: Cell::new(false),
        }
    }

    /// Routes a request.
    pub fn route(&self, conversation: &Conversation, request: &Request<'_>) -> Result<Routed, Unrouted> {
        let routed = self.rules.route(conversation, request);
        if routed.as_ref().is_err_and(|why| *why == Unrouted::RulesChanged) {
            self.is_outdated.set(true);
        }
        routed
    }

    /// True if a request was misdirected because the rules have changed: the client needs another connection.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated.get()
    }

    /// Where a request goes that brings no cookie of a pool that has one; `None`: it is placed by itself. Notes a cookie
    /// that is valid. A header field in the place of a cookie is not one that a browser has for all its requests: each
    /// request without it may begin a session of its own.
    pub fn follow(&self, cookie: &RequestCookie<'_>, request: &Request<'_>) -> Option<&Follow> {
        let follow = self.followed()?;
        let brought = cookie.session(request);
        if let Some(value) = brought.filter(|_| cookie.backend().is_some()) {
            follow.note_cookie(value);
        }
        let is_cookie = cookie.pool.cookie().is_some_and(|rule| rule.header().is_none());
        (is_cookie && brought.is_none()).then_some(follow)
    }

    /// What requests of the client without a cookie follow; `None`: each is placed by itself.
    pub fn followed(&self) -> Option<&Follow> {
        self.follow.as_deref()
    }

    /// Notes where a request has its place; `follows`: it has brought no cookie.
    pub fn note_placed(&self, pool: &Pool, backend: &Arc<Backend>, follows: bool) {
        self.follow.iter().for_each(|follow| follow.note_placed(pool, backend, follows));
    }
}
