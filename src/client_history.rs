//! [`ClientHistory`]: the last moves of clients between backends, and the last endings that a client notices.
//!
//! Decides no move and logs nothing. A connection or a request that keeps its client and ends well is not noted and costs
//! one comparison. Each thread writes a part of its own, so no thread waits for another one; `sessile why` reads all
//! parts. Invariants: at most [`NOTED_MAX`] moves and as many endings are held, in less than 5 MB together; the value of a
//! cookie is held as a keyed hash alone.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counters::Padded;
use crate::outcome::{BreakCause, Ended, Party};

/// Most moves, and most endings, of all threads together.
pub const NOTED_MAX: usize = 16_384;

/// Number of a thread's last moves that are searched for the one to which a new cookie, or another backend, belongs.
const LAST_LOOK: usize = 16;

/// A client that got another backend than the one it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedMove {
    /// When it got the other backend, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Address of the client, announced or seen; `None` for a unix peer.
    pub client: Option<IpAddr>,
    /// Number of the connection.
    pub connection: u64,
    /// Name of the pool.
    pub pool: Arc<str>,
    /// Name of the backend that the client had; `None`: it is not known any more.
    pub from: Option<Arc<str>>,
    /// Name of the backend that the client got.
    pub to: Arc<str>,
    /// Why it did not keep the one that it had.
    pub cause: BreakCause,
    /// Hashes of the cookie that the client brought, and of the one that it got.
    pub cookies: [Option<u64>; 2],
}

/// An ending that a client notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedEnding {
    /// When it ended, in milliseconds since 1970; of several alike, the last one.
    pub unix_ms: u64,
    /// Address of the client, announced or seen; `None` for a unix peer.
    pub client: Option<IpAddr>,
    /// Number of the connection.
    pub connection: u64,
    /// True if a request ended so, and not its connection.
    pub is_request: bool,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Name of the pool; `None`: it was not routed.
    pub pool: Option<Arc<str>>,
    /// Name of the backend tried last; `None`: none was tried.
    pub backend: Option<Arc<str>>,
    /// How it ended.
    pub ended: Ended,
    /// How many endings of this kind in a row the note stands for.
    pub count: u64,
}

impl NotedEnding {
    /// True if one note can stand for both.
    fn is_like(&self, other: &Self) -> bool {
        let key = |ending: &Self| (ending.client, ending.is_request, ending.ended);
        key(self) == key(other)
            && (&self.backend, &self.pool, &self.listener) == (&other.backend, &other.pool, &other.listener)
    }
}

/// What a question about a client is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKey {
    /// The address of the client.
    Address(IpAddr),
    /// The number of a connection.
    Connection(u64),
    /// The keyed hash of a cookie's value.
    Cookie(u64),
}

/// What was noted of one client, the oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClientNotes {
    /// Moves between backends.
    pub moves: Vec<NotedMove>,
    /// Endings that the client has noticed.
    pub endings: Vec<NotedEnding>,
}

/// True for an ending that a client asks about: a part of its connection was cut or refused, and not by itself. Endings
/// that clients cause alone, as by bytes that are no TLS, are not noted: a scan would fill the memory with them. A client
/// that goes over a rate may be a busy browser.
pub fn is_noticed(ended: Ended) -> bool {
    use Ended::{CertificateExpired, CertificateRevoked, HandshakeFailed, Http2Flood, Http2Resets, Misdirected};
    match ended.fault() {
        Party::None => ended == Ended::Drained,
        Party::Client => {
            matches!(
                ended,
                HandshakeFailed | CertificateExpired | CertificateRevoked | Misdirected | Http2Flood | Http2Resets
            )
        }
        Party::Backend | Party::Us => true,
        Party::Limit => ended != Ended::KeepaliveTimeout,
    }
}

/// The last moves and endings of all threads.
#[derive(Debug)]
pub struct ClientHistory {
    parts: Box<[Padded<Mutex<HistoryPart>>]>,
    /// Most moves, and most endings, of one part.
    part_max: usize,
    since_unix_ms: u64,
}

#[derive(Debug, Default)]
struct HistoryPart {
    moves: VecDeque<NotedMove>,
    endings: VecDeque<NotedEnding>,
    /// When the newest note was written of those that are gone.
    forgotten_unix_ms: Option<u64>,
}

impl ClientHistory {
    /// An empty one for so many threads; `unix_ms` is now, in milliseconds since 1970.
    pub fn new(threads: usize, unix_ms: u64) -> Self {
        let threads = threads.max(1);
        let parts = (0..threads).map(|_| Padded::default()).collect();
        Self { parts, part_max: (NOTED_MAX / threads).max(1), since_unix_ms: unix_ms }
    }

    /// Notes a move; `thread` is the index of the caller's counters.
    pub fn moved(&self, thread: usize, noted: NotedMove) {
        let mut part = self.part(thread);
        if part.moves.len() >= self.part_max {
            let gone = part.moves.pop_front().map(|gone| gone.unix_ms);
            part.forgotten_unix_ms = part.forgotten_unix_ms.max(gone);
        }
        part.moves.push_back(noted);
    }

    /// Adds the cookie that a client got with its last move on this connection.
    pub fn got_cookie(&self, thread: usize, connection: u64, hash: u64) {
        let mut part = self.part(thread);
        part.last_move(connection).into_iter().for_each(|noted| noted.cookies[1] = Some(hash));
    }

    /// Notes that the backend of a client's last move on this connection did not serve it, and that it has got this one.
    pub fn went_on(&self, thread: usize, connection: u64, to: Arc<str>) {
        let mut part = self.part(thread);
        if let Some(noted) = part.last_move(connection) {
            noted.to = to;
        }
    }

    /// Notes an ending; one that is like the last one of the thread is counted there.
    pub fn ended(&self, thread: usize, noted: NotedEnding) {
        let mut part = self.part(thread);
        if let Some(last) = part.endings.back_mut().filter(|last| last.is_like(&noted)) {
            *last = NotedEnding { count: last.count + noted.count, ..noted };
            return;
        }
        if part.endings.len() >= self.part_max {
            let gone = part.endings.pop_front().map(|gone| gone.unix_ms);
            part.forgotten_unix_ms = part.forgotten_unix_ms.max(gone);
        }
        part.endings.push_back(noted);
    }

    /// What is known of a client.
    pub fn of(&self, client: &ClientKey) -> ClientNotes {
        let mut notes = ClientNotes::default();
        for number in 0..self.parts.len() {
            let part = self.part(number);
            notes.moves.extend(part.moves.iter().filter(|noted| is_move_of(noted, client)).cloned());
            notes.endings.extend(part.endings.iter().filter(|noted| is_ending_of(noted, client)).cloned());
        }
        notes.moves.sort_by_key(|noted| noted.unix_ms);
        notes.endings.sort_by_key(|noted| noted.unix_ms);
        notes
    }

    /// Address of the client of a connection, where something was noted of it.
    pub fn client_of(&self, connection: u64) -> Option<IpAddr> {
        let notes = self.of(&ClientKey::Connection(connection));
        let moves = notes.moves.iter().map(|noted| noted.client);
        moves.chain(notes.endings.iter().map(|noted| noted.client)).flatten().next()
    }

    /// Since when nothing that was noted is forgotten, in milliseconds since 1970.
    pub fn complete_since_unix_ms(&self) -> u64 {
        let forgotten = (0..self.parts.len()).filter_map(|number| self.part(number).forgotten_unix_ms);
        forgotten.chain([self.since_unix_ms]).max().unwrap_or_default()
    }

    fn part(&self, thread: usize) -> MutexGuard<'_, HistoryPart> {
        self.parts[thread % self.parts.len()].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryPart {
    /// The last move on a connection, if it is one of the last of all.
    fn last_move(&mut self, connection: u64) -> Option<&mut NotedMove> {
        self.moves.iter_mut().rev().take(LAST_LOOK).find(|noted| noted.connection == connection)
    }
}

fn is_move_of(noted: &NotedMove, client: &ClientKey) -> bool {
    match client {
        ClientKey::Address(address) => noted.client == Some(*address),
        ClientKey::Connection(connection) => noted.connection == *connection,
        ClientKey::Cookie(hash) => noted.cookies.contains(&Some(*hash)),
    }
}

fn is_ending_of(noted: &NotedEnding, client: &ClientKey) -> bool {
    match client {
        ClientKey::Address(address) => noted.client == Some(*address),
        ClientKey::Connection(connection) => noted.connection == *connection,
        // An ending has no cookie: the access log has its request.
        ClientKey::Cookie(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: [u8; 4] = [192, 0, 2, 1];
    const BEN: [u8; 4] = [192, 0, 2, 2];

    fn noted_move(unix_ms: u64, client: [u8; 4], connection: u64) -> NotedMove {
        NotedMove {
            unix_ms,
            client: Some(client.into()),
            connection,
            pool: "web".into(),
            from: Some("a".into()),
            to: "b".into(),
            cause: BreakCause::Down,
            cookies: [Some(connection), None],
        }
    }

    fn ending(unix_ms: u64, client: [u8; 4], ended: Ended) -> NotedEnding {
        NotedEnding {
            unix_ms,
            client: Some(client.into()),
            connection: unix_ms,
            is_request: false,
            listener: "l".into(),
            pool: Some("web".into()),
            backend: Some("a".into()),
            ended,
            count: 1,
        }
    }

    fn times<T>(notes: &[T], time: impl Fn(&T) -> u64) -> Vec<u64> {
        notes.iter().map(time).collect()
    }

    #[test]
    fn a_client_is_found_by_address_connection_and_either_cookie_over_all_threads_in_order() {
        let history = ClientHistory::new(3, 1);
        for (thread, at, client) in [(2, 30, ANN), (0, 10, ANN), (1, 20, BEN)] {
            history.moved(thread, noted_move(at, client, at));
        }
        history.got_cookie(0, 10, 99);
        history.got_cookie(1, 10, 77);
        let found = |key| times(&history.of(&key).moves, |noted| noted.unix_ms);
        assert_eq!(found(ClientKey::Address(ANN.into())), [10, 30]);
        assert_eq!(found(ClientKey::Connection(20)), [20]);
        assert_eq!((found(ClientKey::Cookie(10)), found(ClientKey::Cookie(99))), (vec![10], vec![10]));
        assert_eq!(found(ClientKey::Cookie(77)), [0_u64; 0], "of a connection of another thread");
        history.went_on(2, 30, "c".into());
        let to: Vec<_> = history.of(&ClientKey::Address(ANN.into())).moves.into_iter().map(|noted| noted.to).collect();
        assert_eq!(to, ["b".into(), Arc::<str>::from("c")]);
        assert_eq!((history.client_of(20), history.client_of(40)), (Some(BEN.into()), None));
    }

    #[test]
    fn what_is_forgotten_moves_the_time_since_when_everything_is_known() {
        let threads = 4;
        let history = ClientHistory::new(threads, 5);
        let most = NOTED_MAX / threads;
        for number in 0..most as u64 {
            history.moved(1, noted_move(100 + number, ANN, number));
        }
        assert_eq!(history.complete_since_unix_ms(), 5);
        history.moved(1, noted_move(1_000_000, BEN, 0));
        assert_eq!(history.complete_since_unix_ms(), 100);
        assert_eq!(history.of(&ClientKey::Address(ANN.into())).moves.len(), most - 1);
        for number in 0..=most as u64 {
            // Two clients in turn: no ending is like the one before.
            let client = if number % 2 == 0 { ANN } else { BEN };
            history.ended(1, ending(200 + number, client, Ended::BackendReset));
        }
        assert_eq!(history.complete_since_unix_ms(), 200);
    }

    #[test]
    fn endings_of_one_kind_in_a_row_are_one_note() {
        let history = ClientHistory::new(1, 0);
        for at in [10, 11, 12] {
            history.ended(0, ending(at, ANN, Ended::ConnectRefused));
        }
        history.ended(0, ending(13, ANN, Ended::BackendReset));
        history.ended(0, ending(14, ANN, Ended::ConnectRefused));
        let notes = history.of(&ClientKey::Address(ANN.into())).endings;
        let seen: Vec<_> = notes.iter().map(|noted| (noted.unix_ms, noted.ended, noted.count)).collect();
        use Ended::{BackendReset, ConnectRefused};
        assert_eq!(seen, [(12, ConnectRefused, 3), (13, BackendReset, 1), (14, ConnectRefused, 1)]);
    }

    #[test]
    fn endings_of_ordinary_traffic_and_of_scans_are_not_noticed() {
        use Ended::*;
        for ordinary in [
            Done,
            Probe,
            ClientLeft,
            ClientReset,
            ClientGone,
            KeepaliveTimeout,
            NotTls,
            Silent,
            HelloMalformed,
            Http2Error,
        ] {
            assert!(!is_noticed(ordinary), "{}", ordinary.word());
        }
        for telling in [
            ConnectRefused,
            BackendReset,
            SourceConnections,
            BackendFull,
            NoBackend,
            Drained,
            NoDescriptor,
            IdleTimeout,
            Http2Flood,
            Http2Resets,
        ] {
            assert!(is_noticed(telling), "{}", telling.word());
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let bytes = NOTED_MAX * (size_of::<NotedMove>() + size_of::<NotedEnding>());
        assert!(bytes < 5_000_000, "{bytes}");
    }
}
