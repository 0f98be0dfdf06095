//! The peer at the far end of a socket: the bytes that it sends, and a check of the bytes that it receives.
//!
//! Knows nothing of sockets. Invariants it checks: what is heard is what one other said, from its beginning and in
//! order, after what was announced to come first.

use std::net::IpAddr;
use std::sync::OnceLock;

use super::kernel::Id;
use crate::random::mix;
use crate::splicer::os::Micros;

/// Every stream begins with its peer's number, so that its receiver can identify it.
const NAME_BYTES: usize = 8;

/// How a peer ends; the number is of bytes sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Says all and finishes.
    Completes,
    /// Resets.
    Aborts(usize),
    /// Says all, finishes, and resets then.
    AbortsAfterEnd,
    /// Is not heard of any more, which the kernel finds out.
    Vanishes(usize),
    /// Closes, whatever was still to be said and heard.
    Leaves(usize),
    /// Finishes too early.
    Quits(usize),
    /// Says no more, but stays.
    Rests(usize),
}

/// The next action of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAction {
    /// Nothing.
    Nothing,
    /// Send bytes, at most so many.
    Send(usize),
    /// Finish.
    Finish,
    /// Reset.
    Abort,
    /// Be gone.
    Vanish,
    /// Close.
    Leave,
}

/// A client or a backend.
#[derive(Debug)]
pub struct Peer {
    /// Number of the socket at whose far end the peer is.
    pub id: Id,
    /// Where they dialled from; a backend was dialled.
    pub source: Option<IpAddr>,
    /// Sent before the stream.
    pub prefix: Vec<u8>,
    /// Length of the stream.
    pub total: usize,
    /// What becomes of them.
    pub script: Script,
    /// Bytes sent, the prefix included.
    pub sent: usize,
    /// They have finished.
    pub finished: bool,
    /// They have reset, closed or vanished.
    pub gone: bool,
    /// Bytes sent at once, at most.
    pub chunk: usize,
    /// Bytes of theirs that may be on their way and unread.
    pub buffer: usize,
    /// They finish only after the other side has.
    pub waits: bool,
    /// They do nothing until then.
    pub stalled_until: Micros,
    /// A PROXY header comes first.
    pub expects_header: bool,
    /// What comes before the stream they hear.
    pub expected_prefix: Vec<u8>,
    /// The peer that sends the stream received here.
    pub partner: Option<Id>,
    /// They have heard the end.
    pub heard_end: bool,
    /// They were reset.
    pub heard_reset: bool,
    header: Vec<u8>,
    name: Vec<u8>,
    received: usize,
}

impl Peer {
    /// A peer that has sent nothing yet.
    pub fn new(id: Id, source: Option<IpAddr>, total: usize, script: Script) -> Self {
        Self {
            id,
            source,
            prefix: Vec::new(),
            total: total.max(NAME_BYTES),
            script,
            sent: 0,
            finished: false,
            gone: false,
            chunk: usize::MAX,
            buffer: usize::MAX,
            waits: false,
            stalled_until: 0,
            expects_header: false,
            expected_prefix: Vec::new(),
            partner: None,
            heard_end: false,
            heard_reset: false,
            header: Vec::new(),
            name: Vec::new(),
            received: 0,
        }
    }

    /// Whether they dialled.
    pub fn is_client(&self) -> bool {
        self.source.is_some()
    }

    /// What they want to do next.
    pub fn next_action(&self) -> NextAction {
        let goal = self.prefix.len() + self.total;
        let (bound, then) = match self.script {
            Script::Aborts(at) => (at, NextAction::Abort),
            Script::Vanishes(at) => (at, NextAction::Vanish),
            Script::Leaves(at) => (at, NextAction::Leave),
            Script::Quits(at) => (at, NextAction::Finish),
            Script::Rests(at) => (at, NextAction::Nothing),
            Script::AbortsAfterEnd if self.finished => (goal, NextAction::Abort),
            Script::AbortsAfterEnd | Script::Completes => (goal, NextAction::Finish),
        };
        match bound.min(goal).saturating_sub(self.sent) {
            0 if then == NextAction::Finish && (self.finished || self.waits && !self.heard_end) => NextAction::Nothing,
            0 => then,
            left => NextAction::Send(left.min(self.chunk)),
        }
    }

    /// Whether nothing more is to be expected from them; `closed`: the code under test has closed.
    pub fn done(&self, closed: bool) -> bool {
        self.gone || self.heard_reset || (self.heard_end && (self.finished || closed))
    }

    /// The next bytes of what they say.
    pub fn say(&self, count: usize, into: &mut Vec<u8>) {
        into.clear();
        let in_prefix = self.prefix.len().saturating_sub(self.sent).min(count);
        into.extend(self.prefix.iter().skip(self.sent).take(in_prefix));
        let at = (self.sent + in_prefix).saturating_sub(self.prefix.len());
        stream(self.id, at, count - in_prefix, |piece| into.extend_from_slice(piece));
    }

    /// Of the stream they hear, how much they have heard.
    pub fn heard(&self) -> usize {
        self.received.saturating_sub(self.expected_prefix.len())
    }

    /// Of their stream, how much they have sent.
    pub fn said(&self) -> usize {
        self.sent.saturating_sub(self.prefix.len())
    }

    /// They hear bytes.
    pub fn hear(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        if self.expects_header {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            self.header.extend_from_slice(&bytes[..end]);
            self.expects_header = self.header.last() != Some(&b'\n');
            bytes = &bytes[end..];
            if !self.expects_header && !self.header.starts_with(b"PROXY TCP4 10.0.") {
                return Err(format!("peer {}: the PROXY header is wrong", self.id));
            }
        }
        let rest = &self.expected_prefix[self.received.min(self.expected_prefix.len())..];
        let n = rest.len().min(bytes.len());
        if bytes[..n] != rest[..n] {
            return Err(format!("peer {}: the hello was changed", self.id));
        }
        (self.received, bytes) = (self.received + n, &bytes[n..]);
        let n = (NAME_BYTES - self.name.len()).min(bytes.len());
        self.name.extend_from_slice(&bytes[..n]);
        (self.received, bytes) = (self.received + n, &bytes[n..]);
        if self.partner.is_none() && self.name.len() == NAME_BYTES {
            self.partner = Some(u64::from_le_bytes(self.name[..].try_into().unwrap_or_default()) as Id);
        }
        let (mut rest, mut same) = (bytes, true);
        stream(self.partner.unwrap_or_default(), self.heard(), bytes.len(), |piece| {
            same &= rest.starts_with(piece);
            rest = &rest[piece.len()..];
        });
        if !same {
            return Err(format!("peer {}: byte {} or one soon after is not what was sent", self.id, self.heard()));
        }
        self.received += bytes.len();
        Ok(())
    }
}

/// Calls `each` with the pieces of a part of a peer's stream: its number, then a part of the pattern chosen by it.
fn stream(id: Id, from: usize, count: usize, mut each: impl FnMut(&[u8])) {
    let pattern = pattern();
    let offset = mix(id.into()) as usize % pattern.len();
    let (mut at, end) = (from, from + count);
    let name = u64::from(id).to_le_bytes();
    if at < NAME_BYTES {
        let n = (NAME_BYTES - at).min(count);
        each(&name[at..at + n]);
        at += n;
    }
    while at < end {
        let place = (offset + at) % pattern.len();
        let n = (pattern.len() - place).min(end - at);
        each(&pattern[place..place + n]);
        at += n;
    }
}

/// Random bytes, more than any stream has.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| (0..1 << 19).flat_map(|word| mix(word).to_le_bytes()).collect())
}
