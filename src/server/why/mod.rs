//! The answer to "what happened to this client": [`Server::why_of`] puts together what moves, endings, stick tables,
//! open connections and events say of it.
//!
//! Moves no client and counts none. Invariant: the answer names a cause only where a move was noted with it; without
//! one it says what is known, what goes on, and since when moves are noted.

mod answer;
mod cause;
mod concerns;
mod cookie;
mod present;
mod question;

use std::net::IpAddr;
use std::sync::Arc;

use self::concerns::Concerns;
use self::cookie::JudgedCookie;
use self::present::Present;
use self::question::Question;
use super::pool_changes::PoolChanges;
use super::{Server, lock_of};
use crate::admin::{WhyConnection, WhyEnding, WhyEntry, WhyReport};
use crate::client_history::{ClientNotes, NotedEnding};
use crate::clock;
use crate::connection::{ConnectionFilter, ConnectionView};
use crate::events;
use crate::http::date::rfc3339;
use crate::pool::{KnownClient, Pool};
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Most open connections that are shown.
const CONNECTIONS_SHOWN: usize = 20;

/// Most certificates that are named.
const CERTIFICATES_SHOWN: usize = 10;

/// Most moves and endings that are shown, the latest ones.
const NOTES_SHOWN: usize = 20;

impl Server {
    /// What happened to the client of an address, of a number of a connection, of an id of a request or of a cookie.
    pub(super) async fn why_of(&self, what: &str) -> WhyReport {
        let snapshot = self.current.load_full();
        let question = Question::read(what, &snapshot, self.workers.len());
        let history = self.workers.history();
        let notes = history.of(&question.key(&snapshot));
        let (open, connections) = match question.filter() {
            Some(filter) => self.threads.list(&ConnectionFilter { limit: CONNECTIONS_SHOWN, ..filter }).await,
            None => (0, Vec::new()),
        };
        let client = question.client(history, &connections);
        let cookie = question.cookie().and_then(|cookie| cookie::judge(cookie, &snapshot));
        let since_unix_ms = history.complete_since_unix_ms();
        let (asked, subject) = (question.word(), question.subject());
        let store = Some(Arc::clone(&self.store));
        let found = FoundClient { store, snapshot, client, cookie, notes, open, connections, since_unix_ms };
        let present = Present::of(self);
        found.report(asked, &subject, question.cookie(), &present, &lock_of(&self.pool_changes))
    }
}

/// What was found of a client.
struct FoundClient {
    /// Where entries of other instances came from.
    store: Option<Arc<Store>>,
    snapshot: Arc<Snapshot>,
    client: Option<IpAddr>,
    cookie: Option<JudgedCookie>,
    notes: ClientNotes,
    open: usize,
    connections: Vec<ConnectionView>,
    since_unix_ms: u64,
}

impl FoundClient {
    fn report(
        &self,
        asked: &str,
        subject: &str,
        cookie: Option<&question::AskedCookie>,
        present: &Present,
        changes: &PoolChanges,
    ) -> WhyReport {
        let mut entries = self.entries(cookie);
        let (pool, backend) = self.place(&entries);
        let own = entries.iter().position(|entry| Some(&entry.pool) == pool.as_ref());
        let entry = own.map(|index| entries.remove(index));
        let concerns = Concerns::of(self, pool.as_deref());
        let all = events::ring().all();
        let moves = last(&self.notes.moves).map(|noted| cause::explained(noted, &all, changes)).collect();
        let own = concerns.of_client(&all);
        let going_on = concerns::going_on(&own, present, &self.snapshot);
        let mut report = WhyReport {
            asked: asked.to_owned(),
            client: self.client.map(|client| client.to_string()),
            pool,
            backend,
            entry,
            other_entries: entries,
            cookie: self.cookie.as_ref().map(|cookie| cookie.shown.clone()),
            open: self.open,
            connections: self.connections.iter().map(shown_connection).collect(),
            moves,
            ended: last(&self.notes.endings).map(shown_ending).collect(),
            events: concerns::shown(&own, &going_on, clock::unix_ms()),
            since: rfc3339(self.since_unix_ms),
            ..WhyReport::default()
        };
        answer::give(&mut report, subject, &going_on, &self.refused_certificates());
        report
    }

    /// Certificates that one side refuses now or soon, some of them.
    fn refused_certificates(&self) -> Vec<String> {
        let troubles = self.snapshot.tls.troubles(clock::unix_s()).into_iter();
        let mut words: Vec<_> = troubles.map(|(what, _, words)| what + &words).collect();
        words.dedup();
        words.truncate(CERTIFICATES_SHOWN);
        words
    }

    /// Entries in the stick tables of all pools.
    fn entries(&self, cookie: Option<&question::AskedCookie>) -> Vec<WhyEntry> {
        let now_ms = clock::now_ms();
        let known = |pool: &Pool| match (cookie, self.client) {
            (Some(cookie), _) => pool.known_by_value(cookie.value.as_bytes(), now_ms),
            (None, Some(client)) => pool.known_by_address(client, now_ms),
            (None, None) => None,
        };
        let told_by = |known: &KnownClient| self.store.as_ref()?.fleet().origin(known.key);
        let shown = |pool: &Arc<Pool>| {
            let known = known(pool)?;
            Some(WhyEntry { told_by: told_by(&known), ..shown_entry(pool, known) })
        };
        self.snapshot.pools.iter().filter_map(shown).collect()
    }

    /// Pool and backend of the client now: where a connection is open, else as its cookie, its entry, or its last move
    /// says.
    fn place(&self, entries: &[WhyEntry]) -> (Option<String>, Option<String>) {
        let open = self.connections.iter().filter(|open| open.backend.is_some());
        let open = open.min_by_key(|open| open.age_ms).map(|open| (open.pool.clone(), open.backend.clone()));
        let by_cookie = self.cookie.as_ref().filter(|cookie| cookie.is_valid);
        let by_cookie = by_cookie.map(|cookie| (Some(cookie.shown.pool.clone()), cookie.shown.backend.clone()));
        let by_entry = entries.first().map(|entry| (Some(entry.pool.clone()), entry.backend.clone()));
        // A cookie that is worth nothing any more does not lead to where its client went once.
        let moved = self.notes.moves.last().filter(|_| self.cookie.is_none());
        let moved = moved.map(|noted| (Some(noted.pool.to_string()), Some(noted.to.to_string())));
        open.or(by_cookie).or(by_entry).or(moved).unwrap_or_default()
    }
}

/// The latest of some notes, the oldest first.
fn last<T>(notes: &[T]) -> impl Iterator<Item = &T> {
    notes.iter().skip(notes.len().saturating_sub(NOTES_SHOWN))
}

fn shown_entry(pool: &Pool, known: KnownClient) -> WhyEntry {
    WhyEntry {
        pool: pool.name().to_owned(),
        backend: known.backend.map(|backend| backend.to_string()),
        kind: known.kind.to_owned(),
        age_s: known.age.as_secs(),
        expires_s: known.left.as_secs(),
        told_by: None,
    }
}

fn shown_connection(open: &ConnectionView) -> WhyConnection {
    WhyConnection {
        id: open.id,
        listener: open.listener.clone(),
        pool: open.pool.clone(),
        backend: open.backend.clone(),
        reason: open.reason.map(str::to_owned),
        stage: open.stage.to_owned(),
        age_ms: open.age_ms,
    }
}

fn shown_ending(noted: &NotedEnding) -> WhyEnding {
    WhyEnding {
        time: rfc3339(noted.unix_ms),
        ended: noted.ended.word().to_owned(),
        meaning: noted.ended.meaning().to_owned(),
        fault: noted.ended.fault().word().to_owned(),
        request: noted.is_request,
        listener: noted.listener.to_string(),
        pool: noted.pool.as_deref().map(str::to_owned),
        backend: noted.backend.as_deref().map(str::to_owned),
        connection: noted.connection,
        count: noted.count,
    }
}
