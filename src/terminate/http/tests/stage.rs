//! [`Stage`]: a conversation without sockets, and [`Turns`], which polls an exchange as its thread does.
//!
//! Invariant: an exchange is polled only when it was woken, or when a test wants it to be.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use super::wire::Wire;
use crate::attempt::FirstByte;
use crate::connection::ClientInfo;
use crate::http::edit::{RequestEdit, write_request};
use crate::http::head::{RequestReader, ResponseReader};
use crate::http::upgrade::RequestMeta;
use crate::http::{Framing, Progress};
use crate::pool::{Lease, PickScene, Pool};
use crate::random::Random;
use crate::snapshot::{Current, Snapshot};
use crate::terminate::buffer::{BUFFER, Buffer};
use crate::terminate::conversation::Conversation;
use crate::terminate::deadline::{Deadline, Timeouts};
use crate::terminate::http::client_side::Http1Client;
use crate::terminate::http::exchange::{Exchange, Exchanged};
use crate::terminate::http::header_rules::{RequestFacts, SetHeaders};
use crate::terminate::http::local_reply::RequestFailure;
use crate::terminate::http::request_cookie::{RequestCookie, ResponseWriter};
use crate::terminate::http::upstreams::UpstreamConnection;
use crate::terminate::request_limits::BodyLimits;
use crate::terminate::runtime::RuntimeContext;

const CONFIG: &str = "[log]\nconnections = false\n\
    [[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n\
    [[pool]]\nname = \"p\"\nhttp = true\ncheck = \"off\"\nbackend = [{ name = \"b\", address = \"127.0.0.1:1\" }]\n";

/// A pool with one backend, and a conversation with a client of it.
pub struct Stage {
    pub pool: Arc<Pool>,
    pub conversation: Conversation,
    runtime: tokio::runtime::Runtime,
}

/// The request of an exchange.
pub struct Asked {
    /// The head as the client has sent it.
    pub head: Vec<u8>,
    pub meta: RequestMeta,
    pub framing: Framing,
    pub waits_for_100: bool,
    pub body_limits: BodyLimits,
    /// The head as the backend gets it.
    pub written: Vec<u8>,
    /// The client's last read before it brought a full buffer.
    pub after_bulk: bool,
}

impl Asked {
    /// Reads a head and writes it for the backend.
    pub fn read(head: &str) -> Self {
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)), "{head}");
        let request = reader.request(head.as_bytes());
        let mut written = Vec::new();
        write_request(&mut written, &request, &RequestEdit { close: !request.persists(), ..RequestEdit::default() });
        Self {
            head: head.as_bytes().to_vec(),
            meta: request.asked(),
            framing: request.framing,
            waits_for_100: request.expects_continue(),
            body_limits: BodyLimits { most: u64::MAX, rate_min: None, time_max: None },
            written,
            after_bulk: false,
        }
    }
}

/// What is left after an exchange.
pub struct Left {
    pub result: Result<Exchanged, RequestFailure>,
    /// Bytes of the client that were read and belong to no message so far.
    pub behind: Vec<u8>,
    /// Bytes of the backend that were read and belong to no message.
    pub unasked: Vec<u8>,
    /// Bytes that were counted, up and down.
    pub counted: (u64, u64),
    /// Memory of both buffers.
    pub memory: usize,
}

impl Stage {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let current = Arc::new(Current::new(Snapshot::of_text(CONFIG)));
        let context = {
            let _inside = runtime.enter();
            RuntimeContext::alone(&current)
        };
        let (listener, pool) = {
            let snapshot = current.load();
            (Arc::clone(&snapshot.listeners[0]), Arc::clone(&snapshot.pools[0]))
        };
        let permit = listener.state.admit().expect("a permit");
        let conversation = Conversation::begin(&context, ClientInfo::default(), permit, listener);
        Self { pool, conversation, runtime }
    }

    /// Runs an exchange; `play` is called with its turns, and returns once it has ended.
    pub fn exchange(&self, asked: &Asked, client: &Wire, backend: &Wire, play: impl FnOnce(&mut Turns<'_>)) -> Left {
        let _inside = self.runtime.enter();
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(&asked.head), Progress::Done(_)));
        let cookie = RequestCookie::read(&self.pool, &reader.request(&asked.head), || 0);
        let facts = RequestFacts { client: None, is_secure: false, request: &reader.request(&asked.head), id: &"" };
        let set = SetHeaders::of(&self.pool.config().response_headers, None, &facts);
        let writer = ResponseWriter {
            cookie: &cookie,
            backend: 0,
            request: asked.meta,
            follow: None,
            accept: None,
            tls: false,
            set: &set,
            conversation: &self.conversation,
        };
        let facts = self.conversation.client_info.facts();
        let scene = PickScene { cookie: cookie.backend(), ..PickScene::new(&facts, &[], 0) };
        let lease = Lease::new(self.pool.pick(&scene).expect("a backend").backend);
        let before = self.counted();
        let mut client = Http1Client { stream: client.clone(), unread: Buffer::default() };
        if asked.after_bulk {
            client.unread.note_read(BUFFER);
        }
        let mut upstream = UpstreamConnection {
            stream: backend.clone(),
            unread: Buffer::default(),
            lease: Rc::new(lease),
            place: None,
            first_byte: FirstByte::default(),
        };
        let (mut head, mut deadline) = (asked.written.clone(), Deadline::default());
        let exchange = Exchange {
            conversation: &self.conversation,
            client: &mut client,
            upstream: &mut upstream,
            head: &mut head,
            received: &mut Vec::new(),
            repeatable: false,
            framing: asked.framing,
            body_limits: asked.body_limits,
            waits_for_100: asked.waits_for_100,
            is_last: false,
            writer: &writer,
            response: &mut ResponseReader::new(),
            limits: Timeouts { head: 0, kept: None, response: None, body: None },
            deadline: &mut deadline,
        };
        let result = {
            let mut turns = Turns::of(Box::pin(exchange.run()));
            play(&mut turns);
            turns.result.expect("the exchange has ended")
        };
        let after = self.counted();
        Left {
            result,
            behind: client.unread.bytes().to_vec(),
            unasked: upstream.unread.bytes().to_vec(),
            counted: (after.0 - before.0, after.1 - before.1),
            memory: client.unread.memory() + upstream.unread.memory(),
        }
    }

    fn counted(&self) -> (u64, u64) {
        let counters = self.pool.backends()[0].counters(1);
        (counters.bytes_up.value(), counters.bytes_down.value())
    }
}

/// The turns of one exchange.
pub struct Turns<'a> {
    future: Pin<Box<dyn Future<Output = Result<Exchanged, RequestFailure>> + 'a>>,
    woken: Arc<Woken>,
    result: Option<Result<Exchanged, RequestFailure>>,
    pub count: usize,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl<'a> Turns<'a> {
    fn of(future: Pin<Box<dyn Future<Output = Result<Exchanged, RequestFailure>> + 'a>>) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Self { future, woken, result: None, count: 0 }
    }

    /// True if the exchange asked for another turn, or something came that it waits for.
    pub fn is_woken(&self) -> bool {
        self.woken.0.load(Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.result.is_some()
    }

    /// Makes one turn.
    pub fn turn(&mut self) {
        assert!(self.result.is_none(), "the exchange has ended");
        self.woken.0.store(false, Relaxed);
        self.count += 1;
        let waker = Waker::from(Arc::clone(&self.woken));
        if let Poll::Ready(result) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.result = Some(result);
        }
    }

    /// Makes turns until the exchange waits or has ended.
    pub fn settle(&mut self) {
        while self.is_woken() && !self.is_over() {
            self.turn();
        }
    }
}

/// Random numbers that both ends of an exchange draw from in turn.
#[derive(Clone)]
pub struct Dice(Rc<RefCell<Random>>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Random::new(seed))))
    }

    pub fn below(&self, bound: usize) -> usize {
        self.0.borrow_mut().below(bound)
    }

    pub fn one_in(&self, times: usize) -> bool {
        self.0.borrow_mut().one_in(times)
    }

    pub fn one_of<T: Copy>(&self, things: &[T]) -> T {
        self.0.borrow_mut().one_of(things)
    }
}

/// Reads all that can be read, as often as more comes.
pub fn drain(turns: &mut Turns<'_>, wire: &Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        turns.settle();
        let more = wire.receive(usize::MAX);
        if more.is_empty() {
            return bytes;
        }
        bytes.extend(more);
        if turns.is_over() {
            return bytes;
        }
    }
}
