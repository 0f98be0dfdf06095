//! [`World`]: one exchange between a client and a backend that do what a plan says, in an order that a seed chooses.
//!
//! Judges nothing about the plan; `hostile.rs` makes plans. Invariants, checked at every turn: the steps of a turn are
//! bounded, memory is bounded, and no turn is missed in which something could move. At the end: see [`World::judge`].

use super::stage::{Asked, Dice, Left, Stage, Turns};
use super::wire::{Ends, Wire};
use crate::http::body::Body;
use crate::http::head::ResponseReader;
use crate::http::upgrade::RequestMeta;
use crate::http::{Framing, Progress};
use crate::outcome::Ended;

/// Most calls of streams in one turn: 64 steps in each of three loops, at most two calls a step.
const CALLS_MAX: usize = 64 * 3 * 2;

/// Most turns of one world. The longest have a few bytes a turn.
const TURNS_MAX: usize = 200_000;

/// Most bytes that a peer sends at once, so that the exchange waits inside of a large body, too.
const SENDS_MAX: usize = 48 * 1024;

/// What both peers do.
#[derive(Clone)]
pub struct Plan {
    /// Head of the request.
    pub head: String,
    /// The request's body, framed.
    pub body: Vec<u8>,
    /// What the client sends behind it: the next request.
    pub next: Vec<u8>,
    /// The client sends its body only after a 100.
    pub patient: bool,
    /// When the client ends, in bytes that it has sent, and in bytes that it has received.
    pub client_ends: Option<(usize, Ends)>,
    pub client_leaves: Option<usize>,
    /// Interim heads of the backend, one behind the other.
    pub interims: Vec<u8>,
    pub interim_count: usize,
    /// Head and body of its final response.
    pub final_head: String,
    pub final_body: Vec<u8>,
    /// Bytes of the request after which it begins to respond.
    pub responds_after: usize,
    /// Bytes of the request that it reads; then it stops.
    pub reads: usize,
    /// Bytes of its responses after which it ends.
    pub backend_ends: Option<(usize, Ends)>,
    /// Room and pieces of both streams.
    pub client_wire: (usize, usize),
    pub backend_wire: (usize, usize),
}

/// A plan under way.
pub struct World<'a> {
    plan: &'a Plan,
    dice: Dice,
    asked: Asked,
    client: Wire,
    backend: Wire,
    /// Bytes that the peers have sent, and received.
    outgoing: Vec<u8>,
    client_sent: usize,
    client_may_begin: bool,
    client_got: Vec<u8>,
    client_over: Option<Ends>,
    responses: Vec<u8>,
    backend_sent: usize,
    backend_got: Vec<u8>,
    backend_over: Option<Ends>,
    /// Bytes that the exchange had read of the backend when the client reset.
    read_at_reset: Option<usize>,
    /// Most calls of one turn.
    pub calls: usize,
    /// Nothing moved any more, and the backend was made to reset.
    pub stalled: bool,
}

/// What the client has got, as a reader of HTTP sees it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub interims: usize,
    pub status: Option<u16>,
    /// The final body, framed, as far as it came; and whether it says of itself that it is whole.
    pub body: Vec<u8>,
    pub whole: bool,
    pub framing: Framing,
    pub closes: bool,
}

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan, seed: u64) -> Self {
        Self {
            plan,
            dice: Dice::new(seed),
            asked: Asked::read(&plan.head),
            client: Wire::new(plan.client_wire.0, plan.client_wire.1),
            backend: Wire::new(plan.backend_wire.0, plan.backend_wire.1),
            outgoing: [&plan.body[..], &plan.next].concat(),
            client_sent: 0,
            client_may_begin: !plan.patient,
            client_got: Vec::new(),
            client_over: None,
            responses: plan.responses(),
            backend_sent: 0,
            backend_got: Vec::new(),
            backend_over: None,
            read_at_reset: None,
            calls: 0,
            stalled: false,
        }
    }

    /// Plays to the end and judges it.
    pub fn play(&mut self, stage: &Stage) -> Left {
        let (client, backend, asked) = (self.client.clone(), self.backend.clone(), Asked::read(&self.plan.head));
        let left = stage.exchange(&asked, &client, &backend, |turns| self.run(turns));
        assert_eq!(stage.pool.backends()[0].leases(), 0, "a lease is left");
        self.client_got.extend(self.client.receive(usize::MAX));
        self.backend_got.extend(self.backend.receive(usize::MAX));
        self.judge(&left);
        left
    }

    fn run(&mut self, turns: &mut Turns<'_>) {
        while !turns.is_over() {
            assert!(turns.count < TURNS_MAX, "the exchange never ends");
            if turns.is_woken() && !self.dice.one_in(3) || self.dice.one_in(20) {
                self.turn(turns);
            } else if !self.act() && !turns.is_woken() {
                self.force(turns);
            }
        }
    }

    /// One turn, with its limits.
    fn turn(&mut self, turns: &mut Turns<'_>) {
        turns.turn();
        let calls = self.client.take_calls() + self.backend.take_calls();
        self.calls = self.calls.max(calls);
        assert!(calls <= CALLS_MAX, "{calls} calls in one turn");
        if let Some(at) = self.read_at_reset {
            let more = self.backend.moved().0 - at;
            assert!(more <= 64 * 1024, "{more} bytes of the backend are read for a client that is gone");
        }
    }

    /// Nobody has anything to do: no turn may have been missed. A reset of the backend, or at the latest one of the client,
    /// has to end the exchange.
    fn force(&mut self, turns: &mut Turns<'_>) {
        let before = (self.client.moved(), self.backend.moved());
        self.turn(turns);
        assert_eq!((self.client.moved(), self.backend.moved()), before, "a turn was missed");
        if turns.is_over() {
            return;
        }
        if !std::mem::replace(&mut self.stalled, true) {
            self.backend_over = Some(Ends::Reset);
            self.backend.end(Ends::Reset);
        } else {
            assert!(self.client_over != Some(Ends::Reset), "the exchange goes on without its peers");
            self.client_ends(Ends::Reset);
        }
    }

    /// One act of a peer; false: neither has anything to do.
    fn act(&mut self) -> bool {
        let acts: [fn(&mut Self) -> bool; 5] =
            [Self::client_sends, Self::client_reads, Self::backend_reads, Self::backend_sends, Self::ends];
        let first = self.dice.below(acts.len());
        (0..acts.len()).any(|index| acts[(first + index) % acts.len()](self))
    }

    fn some(&self, most: usize) -> usize {
        let most = most.max(1);
        if self.dice.one_in(2) { most } else { 1 + self.dice.below(most) }
    }

    fn client_sends(&mut self) -> bool {
        let until = self.plan.client_ends.map_or(usize::MAX, |(at, _)| at);
        let all = self.outgoing.len();
        let count = self.some(all.min(SENDS_MAX)).min(all.min(until).saturating_sub(self.client_sent));
        if self.client_over.is_some() || !self.client_may_begin || count == 0 {
            return false;
        }
        self.client.send(&self.outgoing[self.client_sent..self.client_sent + count]);
        self.client_sent += count;
        true
    }

    fn client_reads(&mut self) -> bool {
        if self.client_over == Some(Ends::Reset) || self.client.readable() == 0 {
            return false;
        }
        self.client_got.extend(self.client.receive(self.some(self.client.readable())));
        self.client_may_begin |= self.client_got.starts_with(b"HTTP/1.1 100");
        true
    }

    fn backend_reads(&mut self) -> bool {
        let most = self.backend.readable().min(self.plan.reads.saturating_sub(self.backend_got.len()));
        if self.backend_over == Some(Ends::Reset) || most == 0 {
            return false;
        }
        self.backend_got.extend(self.backend.receive(self.some(most)));
        true
    }

    fn backend_sends(&mut self) -> bool {
        let all = self.responses.len();
        let until = self.plan.backend_ends.map_or(usize::MAX, |(at, _)| at).min(all);
        let count = self.some(all.min(SENDS_MAX)).min(until.saturating_sub(self.backend_sent));
        let begins = self.backend_got.len() >= self.plan.responds_after.min(self.plan.reads);
        // No more than a socket would hold.
        if self.backend_over.is_some() || !begins || count == 0 || self.backend.unread().len() > 256 * 1024 {
            return false;
        }
        self.backend.send(&self.responses[self.backend_sent..self.backend_sent + count]);
        self.backend_sent += count;
        true
    }

    /// A peer ends its connection, as planned.
    fn ends(&mut self) -> bool {
        match (self.plan.client_ends, self.plan.client_leaves) {
            (Some((at, ends)), _) if self.client_over.is_none() && self.client_sent >= at => self.client_ends(ends),
            (_, Some(at)) if self.client_over.is_none() && self.client_got.len() >= at => {
                self.client_ends(Ends::Reset);
            }
            _ => match self.plan.backend_ends {
                Some((at, ends)) if self.backend_over.is_none() && self.backend_sent >= at => {
                    self.backend_over = Some(ends);
                    self.backend.end(ends);
                }
                _ => return false,
            },
        }
        true
    }

    fn client_ends(&mut self, ends: Ends) {
        self.client_over = Some(ends);
        self.client.end(ends);
        if ends == Ends::Reset {
            self.read_at_reset = Some(self.backend.moved().0);
        }
    }

    /// What must hold at the end, whatever the plan.
    fn judge(&self, left: &Left) {
        let (plan, got) = (self.plan, self.read());
        let request = [&self.asked.written[..], &plan.body].concat();
        assert!(request.starts_with(&self.backend_got), "the backend got other bytes than the request's");
        assert!(plan.final_body.starts_with(&got.body), "the client got another body than the backend's");
        assert_eq!(left.counted.0 as usize, self.backend.moved().1, "bytes up");
        assert_eq!(left.counted.1 as usize, self.client.moved().1, "bytes down");
        assert!(left.memory <= 3 * 32 * 1024, "{} bytes of memory", left.memory);
        let empty = left.behind.is_empty() && left.unasked.is_empty();
        assert!(!empty || left.memory == 0, "{} bytes of memory for nothing", left.memory);
        // What was not taken for the body is still there, in order.
        let sent = &self.outgoing[..self.client_sent];
        let behind = [&left.behind[..], &self.client.unread()].concat();
        assert!(sent.ends_with(&behind), "bytes of the client are lost");
        match &left.result {
            Ok(exchanged) => {
                assert_eq!(got.status, Some(exchanged.status));
                // Where the end is the only sign of an end, all before it was meant.
                let until_close = got.framing == Framing::UntilClose;
                let head = self.responses.len() - plan.final_body.len();
                let meant = if until_close { &self.responses[head..self.backend_sent] } else { &plan.final_body };
                assert!(got.body == meant, "the response is said to be complete");
                assert!(got.whole || until_close && self.backend_over.is_some());
                if exchanged.ended == Ended::Done {
                    assert_eq!(self.backend.moved().1, request.len(), "the request is said to be complete");
                    assert_eq!(sent.len() - behind.len(), plan.body.len());
                } else {
                    assert!(!exchanged.client_stays && !exchanged.backend_stays && !exchanged.switched);
                }
                assert!(!exchanged.client_stays || !got.closes, "the client was told that its connection closes");
            }
            Err(failure) => {
                // A reply of this process is a message of its own only where no final one has begun.
                assert!(failure.reply.is_none() || got.status.is_none(), "a reply inside of a response");
                assert!(!self.client.finished(), "a cut response looks like an end");
            }
        }
    }

    /// Reads what the client has got.
    pub fn read(&self) -> Read {
        read(&self.client_got, self.asked.meta)
    }

    /// Bytes that went through a pipe, up and down.
    pub fn spliced(&self) -> (usize, usize) {
        (self.backend.spliced().1, self.client.spliced().1)
    }

    /// Bytes of the request that the backend has got.
    pub fn backend_got(&self) -> &[u8] {
        &self.backend_got
    }

    /// The whole request as it is to arrive.
    pub fn request(&self) -> Vec<u8> {
        [&self.asked.written[..], &self.plan.body].concat()
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { head, body, next, interim_count, final_head, final_body, .. } = self;
        let lengths = (body.len(), next.len(), interim_count, final_body.len());
        writeln!(f, "{head:?}\n{final_head:?}\nbody, next, interims, final body: {lengths:?}")?;
        writeln!(f, "patient {}, responds after {}, reads {}", self.patient, self.responds_after, self.reads)?;
        writeln!(f, "client ends {:?}, leaves {:?}", self.client_ends, self.client_leaves)?;
        writeln!(f, "backend ends {:?} of {}", self.backend_ends, self.responses().len())?;
        write!(f, "wires {:?} {:?}", self.client_wire, self.backend_wire)
    }
}

impl Plan {
    /// All bytes of the backend.
    pub fn responses(&self) -> Vec<u8> {
        [&self.interims[..], self.final_head.as_bytes(), &self.final_body].concat()
    }
}

/// Reads responses as a client does.
pub fn read(mut bytes: &[u8], asked: RequestMeta) -> Read {
    let (mut reader, mut read) = (ResponseReader::new(), Read::default());
    loop {
        let length = match reader.read(bytes, asked) {
            Progress::Done(length) => length,
            Progress::More => return read,
            Progress::No(refused) => panic!("{}: {}", refused.word(), bytes.escape_ascii()),
        };
        let response = reader.response(bytes);
        if response.is_interim() {
            read.interims += 1;
            bytes = &bytes[length..];
            reader.pass_interim().expect("not too many");
            continue;
        }
        read.status = Some(response.status);
        read.framing = response.framing;
        read.closes = !response.persists();
        let mut body = Body::new(response.framing);
        let scanned = body.scan(&bytes[length..]).expect("a body");
        assert_eq!(scanned.length, bytes.len() - length, "bytes behind the response");
        read.body = bytes[length..].to_vec();
        read.whole = scanned.complete;
        return read;
    }
}
