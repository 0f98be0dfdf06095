//! Holds the imitation against the kernel: the same scripts on real sockets and on imitated ones.
//!
//! Without it the simulation proves only what we believe. Every step names the answers it allows; both have to keep to
//! them. What the kernel answered through a whole script must also be something the imitation can answer, or worlds
//! would miss it. The reverse is not asked: the imitation may be stingier than any kernel, within what is allowed.
//! Invariant: a script decides nothing from an answer, so that both stages play the same play.

mod answers;
mod imitated;
mod real;
mod scripts;

use std::collections::BTreeSet;

use self::answers::{allowed, class, letters, word};
use self::imitated::Imitated;
use self::real::Real;
use self::scripts::scripts;
use super::socket::PeerRead;
use crate::config::Address;
use crate::fault::Fault;
use crate::splicer::os::{Accepted, Event, Io, Os, Side, Token};

/// Plays of one script on the kernel, and on the imitation with a seed each.
const REAL_PLAYS: usize = 3;
const IMITATED_PLAYS: u64 = 400;

/// A chunk when as much is sent as goes in.
const CHUNK: usize = 16 * 1024;

/// A pipe holds at least this much.
const PIPE_MIN: usize = 64 * 1024;

/// One step of a script: something the peer does, or a call with the answers it may have.
#[derive(Debug, Clone, Copy)]
enum ScriptStep {
    /// The peer connects; its connection waits to be accepted.
    Dials,
    /// The peer sends so many bytes.
    Sends(usize),
    /// The peer sends so many bytes, each in a segment of its own.
    Drips(usize),
    /// The peer sends one urgent byte (RFC 6093); it is not part of the stream.
    SendsUrgent,
    /// The peer finishes sending.
    Finishes,
    /// The peer closes so that a reset is sent.
    Resets,
    /// The peer closes.
    Closes,
    /// The peer reads so many bytes.
    Reads(usize),
    /// The peer reads all that was sent so far.
    ReadsAll,
    /// The peer reads until it finds something else than bytes.
    Finds(&'static [PeerRead]),
    /// A connection is accepted.
    Accept,
    /// No connection waits to be accepted.
    AcceptEmpty,
    /// Begins to connect.
    Connect(ConnectTarget),
    Watch,
    Unwatch,
    Recv(usize, &'static [Class]),
    /// Sends so many bytes, in as many calls as it takes.
    Send(usize, &'static [Class]),
    /// Sends until the answer is `Later`.
    Fill,
    /// The empty pipe takes so many bytes from now on.
    Grow(usize),
    /// Into an empty pipe.
    SpliceIn(usize, &'static [Class]),
    /// What the pipe holds, in as many calls as it takes.
    SpliceOut(&'static [Class]),
    /// Out of the pipe, once.
    ReadPipe(usize, &'static [Class]),
    /// What is left in the pipe, in as many calls as it takes.
    EmptyPipe,
    Shutdown,
    Reset,
    Drop,
    TakeError(&'static [Option<Fault>]),
    /// Events report at least the first letters, and nothing beyond the second: `r`eadable, `w`ritable, `f`inished,
    /// `x` failed, `u`rgent.
    Events(&'static str, &'static str),
    /// Events may report these letters; no event need come.
    EventsAtMost(&'static str),
    /// No event.
    NoEvent,
}

/// The listener that a connect reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectTarget {
    /// A listener that accepts.
    Accepting,
    /// An address without a listener.
    Closed,
    /// A listener with a full queue, so that no answer comes.
    Silent,
}

/// What moving bytes came to, measured by what was asked and what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    All,
    Part,
    End,
    Later,
    Broken(&'static str),
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum StepResult {
    Done,
    Io(Class),
    Error(String),
    Events(String),
    Found(PeerRead),
}

/// A script: what it shows, where it can be played, its steps.
struct ConformanceScript {
    name: &'static str,
    on_unix: bool,
    steps: &'static [ScriptStep],
}

/// Sockets, and the peer at the far end of them.
trait ScriptStage {
    type Os: Os;
    fn os(&mut self) -> &mut Self::Os;
    fn listener(&self) -> <Self::Os as Os>::Listener;
    fn address(&mut self, target: ConnectTarget) -> Address;
    /// The peer answers a connect.
    fn answer(&mut self, target: ConnectTarget);
    fn dial(&mut self);
    /// All of it arrives, at once or in segments.
    fn send(&mut self, bytes: usize, segments: bool);
    fn send_urgent(&mut self);
    fn finish(&mut self);
    fn reset(&mut self);
    fn close(&mut self);
    /// The peer reads once. `patient`: waits for something to read.
    fn read(&mut self, most: usize, patient: bool) -> PeerRead;
    /// Waits until what the peer did has arrived: so many unread bytes, an end, a reset.
    fn settle(&mut self, socket: &<Self::Os as Os>::Socket, unread: usize, ended: bool, reset: bool);
    /// Events that have come. `patient`: waits a while for one.
    fn events(&mut self, patient: bool) -> Vec<Event>;
    /// Broken promises that the stage has noticed.
    fn complaint(&self) -> Option<String>;
}

/// A play under way.
struct Play<S: ScriptStage> {
    stage: S,
    socket: Option<<S::Os as Os>::Socket>,
    pipe: Option<(<S::Os as Os>::Pipe, usize)>,
    token: Token,
    /// Sent by the peer and not read here.
    unread: usize,
    ended: bool,
    reset: bool,
    /// Sent from here and not read by the peer.
    sent: usize,
}

impl<S: ScriptStage> Play<S> {
    fn new(stage: S) -> Self {
        let token = Token::special(Side::Client, 7);
        Self { stage, socket: None, pipe: None, token, unread: 0, ended: false, reset: false, sent: 0 }
    }

    /// Plays all steps; `Err` names the first step with an answer that is not allowed.
    fn run(mut self, script: &ConformanceScript) -> Result<Vec<StepResult>, String> {
        let mut answers = Vec::new();
        for (number, step) in script.steps.iter().enumerate() {
            let answer = self.step(*step);
            let complaint = self.stage.complaint();
            if !allowed(step, &answer) || complaint.is_some() {
                let complaint = complaint.unwrap_or_default();
                return Err(format!(
                    "{:?}: step {} {step:?} came to {answer:?} {complaint}\n  after {answers:?}",
                    script.name,
                    number + 1
                ));
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    fn step(&mut self, step: ScriptStep) -> StepResult {
        match step {
            ScriptStep::Dials => self.stage.dial(),
            ScriptStep::Sends(n) => self.peer_sends(n, false),
            ScriptStep::Drips(n) => self.peer_sends(n, true),
            ScriptStep::SendsUrgent => self.stage.send_urgent(),
            ScriptStep::Finishes | ScriptStep::Closes | ScriptStep::Resets => self.peer_ends(step),
            ScriptStep::Reads(n) => return self.peer_reads(n),
            ScriptStep::ReadsAll => return self.peer_reads(self.sent),
            ScriptStep::Finds(expected) => {
                return StepResult::Found(self.peer_finds(!expected.contains(&PeerRead::Nothing)));
            }
            ScriptStep::Connect(target) => return self.connect(target),
            ScriptStep::Events(least, _) => return StepResult::Events(self.collect_events(least, true)),
            ScriptStep::EventsAtMost(_) | ScriptStep::NoEvent => {
                return StepResult::Events(self.collect_events("", false));
            }
            call => return self.call(call),
        }
        self.settle();
        StepResult::Done
    }

    fn call(&mut self, step: ScriptStep) -> StepResult {
        let os = self.stage.os();
        match (step, &self.socket) {
            (ScriptStep::Accept | ScriptStep::AcceptEmpty, _) => return self.accept(),
            (ScriptStep::Reset, _) => drop(self.socket.take().map(|socket| os.reset(socket))),
            (ScriptStep::Drop, _) => self.socket = None,
            (ScriptStep::Fill, _) => return self.fill(),
            (ScriptStep::Send(n, _), _) => return self.send(n),
            (ScriptStep::SpliceOut(_), _) => return self.splice_out(),
            (ScriptStep::ReadPipe(most, _), _) => return StepResult::Io(self.read_pipe(most)),
            (ScriptStep::EmptyPipe, _) => {
                while self.pipe.as_ref().is_some_and(|(_, held)| *held > 0) {
                    self.read_pipe(CHUNK);
                }
            }
            (ScriptStep::Recv(most, _), Some(socket)) => {
                let answer = os.recv(socket, &mut vec![0; most]);
                return self.took(answer, most);
            }
            (ScriptStep::SpliceIn(most, _), Some(socket)) => {
                // Like the code under test: a small pipe is not worth having.
                let mut pipes = std::iter::repeat_with(|| os.pipe().expect("a pipe")).take(100);
                let (pipe, held) = self.pipe.get_or_insert_with(|| {
                    (pipes.find(|(_, capacity)| *capacity >= PIPE_MIN).expect("a large one").0, 0)
                });
                let answer = os.splice_in(socket, pipe, most);
                *held += if let Io::Moved(n) = answer { n } else { 0 };
                return self.took(answer, most);
            }
            (ScriptStep::Grow(bytes), _) => {
                let (pipe, _) = self.pipe.as_ref().expect("a pipe");
                assert!(os.grow(pipe, bytes), "a pipe of {bytes} bytes");
            }
            (ScriptStep::Watch, Some(socket)) => os.watch(socket, self.token).expect("watched"),
            (ScriptStep::Unwatch, Some(socket)) => os.unwatch(socket),
            (ScriptStep::Shutdown, Some(socket)) => os.shutdown(socket),
            (ScriptStep::TakeError(_), Some(socket)) => return StepResult::Error(word(os.take_error(socket))),
            _ => panic!("{step:?} needs a socket"),
        }
        StepResult::Done
    }

    fn peer_sends(&mut self, bytes: usize, segments: bool) {
        self.stage.send(bytes, segments);
        self.unread += bytes;
    }

    fn peer_ends(&mut self, step: ScriptStep) {
        match step {
            ScriptStep::Finishes => self.stage.finish(),
            ScriptStep::Closes => self.stage.close(),
            _ => self.stage.reset(),
        }
        self.ended = true;
        self.reset |= matches!(step, ScriptStep::Resets);
    }

    fn settle(&mut self) {
        if let Some(socket) = &self.socket {
            self.stage.settle(socket, self.unread, self.ended, self.reset);
        }
    }

    fn accept(&mut self) -> StepResult {
        let listener = self.stage.listener();
        match self.stage.os().accept(&listener) {
            Accepted::Connection(socket, _) => self.socket = Some(socket),
            Accepted::Empty => return StepResult::Io(Class::Later),
            Accepted::Skip | Accepted::Exhausted(_) => return StepResult::Error("not accepted".to_owned()),
        }
        self.settle();
        StepResult::Done
    }

    fn connect(&mut self, target: ConnectTarget) -> StepResult {
        let address = self.stage.address(target);
        match self.stage.os().connect(&address, None) {
            Ok(socket) => self.socket = Some(socket),
            Err(why) => return StepResult::Error(word(Some(why))),
        }
        self.stage.answer(target);
        StepResult::Done
    }

    fn took(&mut self, answer: Io, most: usize) -> StepResult {
        let there = self.unread.min(most);
        if let Io::Moved(n) = answer {
            self.unread -= n;
        }
        StepResult::Io(class(answer, there))
    }

    fn send(&mut self, bytes: usize) -> StepResult {
        let Some(socket) = &self.socket else { panic!("no socket") };
        let mut left = bytes;
        loop {
            let answer = self.stage.os().send(socket, &vec![7; left]);
            let Io::Moved(n) = answer else {
                return StepResult::Io(if left < bytes { Class::Part } else { class(answer, 0) });
            };
            left -= n;
            self.sent += n;
            if left == 0 {
                return StepResult::Io(Class::All);
            }
        }
    }

    fn fill(&mut self) -> StepResult {
        let Some(socket) = &self.socket else { panic!("no socket") };
        loop {
            match self.stage.os().send(socket, &[7; CHUNK]) {
                Io::Moved(n) => self.sent += n,
                other => return StepResult::Io(class(other, 0)),
            }
        }
    }

    fn splice_out(&mut self) -> StepResult {
        let (Some(socket), Some((pipe, held))) = (&self.socket, &mut self.pipe) else { panic!("no socket or no pipe") };
        let before = *held;
        while *held > 0 {
            match self.stage.os().splice_out(pipe, socket, *held) {
                Io::Moved(n) => (*held, self.sent) = (*held - n, self.sent + n),
                other => return StepResult::Io(if *held < before { Class::Part } else { class(other, 0) }),
            }
        }
        StepResult::Io(Class::All)
    }

    fn read_pipe(&mut self, most: usize) -> Class {
        let Some((pipe, held)) = &mut self.pipe else { panic!("no pipe") };
        let mut bytes = vec![0; most];
        let (answer, there) = (self.stage.os().read_pipe(pipe, &mut bytes), most.min(*held));
        if let Io::Moved(n) = answer {
            assert!(bytes[..n].iter().all(|byte| *byte == 7), "not what was sent");
            *held -= n;
        }
        class(answer, there)
    }

    fn peer_reads(&mut self, bytes: usize) -> StepResult {
        let mut left = bytes;
        while left > 0 {
            match self.stage.read(left, true) {
                PeerRead::Bytes(n) => left -= n,
                other => return StepResult::Found(other),
            }
        }
        self.sent -= bytes;
        StepResult::Done
    }

    fn peer_finds(&mut self, patient: bool) -> PeerRead {
        loop {
            match self.stage.read(CHUNK, patient) {
                PeerRead::Bytes(n) => self.sent -= n,
                PeerRead::End if self.sent > 0 => return PeerRead::Bytes(self.sent),
                other => return other,
            }
        }
    }

    fn collect_events(&mut self, least: &str, patient: bool) -> String {
        let mut told = BTreeSet::new();
        loop {
            let events = self.stage.events(patient);
            let nothing_more = events.is_empty();
            for event in events.iter().filter(|event| event.token == self.token) {
                told.extend(letters(event));
            }
            let enough = patient && least.chars().all(|letter| told.contains(&letter));
            if nothing_more || enough {
                return told.into_iter().collect();
            }
        }
    }
}

/// What the imitation answers, with many seeds.
fn imitated(script: &ConformanceScript) -> Result<BTreeSet<Vec<StepResult>>, String> {
    (0..IMITATED_PLAYS).map(|seed| Play::new(Imitated::new(seed)).run(script)).collect()
}

fn compare(script: &ConformanceScript, real: impl Fn() -> Real) -> Result<(), String> {
    let possible = imitated(script).map_err(|what| format!("imitated: {what}"))?;
    for _ in 0..REAL_PLAYS {
        let answers = Play::new(real()).run(script).map_err(|what| format!("real: {what}"))?;
        if !possible.contains(&answers) {
            let possible: Vec<_> = possible.iter().map(|answers| format!("\n    {answers:?}")).collect();
            let name = script.name;
            return Err(format!("{name:?}: the kernel answers\n    {answers:?}\n  the imitation{}", possible.concat()));
        }
    }
    Ok(())
}

#[test]
fn tcp_answers_as_the_imitation_can() {
    let failures: Vec<_> = scripts().filter_map(|script| compare(script, Real::tcp).err()).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), scripts().count(), failures.join("\n"));
}

#[test]
fn unix_sockets_answer_as_the_imitation_can() {
    let on_unix = || scripts().filter(|script| script.on_unix);
    let failures: Vec<_> = on_unix().filter_map(|script| compare(script, Real::unix).err()).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), on_unix().count(), failures.join("\n"));
}
