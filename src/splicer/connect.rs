//! The stages between the pick and the relay: attempts to connect, the waits between them, and the first byte.
//!
//! Picks no backend. What a failure means is decided by `attempt.rs`, which side is at fault by `fault.rs`. Invariant:
//! a connection holds a lease from the moment its backend is picked, and at most one socket towards a backend.

use super::flow::Go::{self, Stop, To};
use super::flow::{Flow, Stage, Step, Verdict};
use super::os::Os;
use super::slab::Side;
use crate::admission::source_network;
use crate::attempt::{self, BackendEnd, FirstByte, NextAttempt, Silence};
use crate::connection::Moving;
use crate::fault::{ConnectFailure, Fault};
use crate::outcome::Ended;
use crate::socket::connect_in_turn;

impl<O: Os> Flow<O> {
    /// Begins to connect to the backend that was picked.
    pub(super) fn connect(&mut self, step: &mut Step<'_, O>) -> Go {
        let (Some(preread), Some(lease)) = (&mut self.preread, &self.lease) else { return To(Stage::Pick) };
        self.until = preread.attempts.begin(step.now / 1_000) * 1_000;
        self.attempts_made = preread.attempts.made();
        preread.attempt_began = step.now;
        // What an earlier attempt's socket has reported is not about this one.
        (self.up.writable, self.down.readable, self.down.finished, self.backend_failed) = (false, false, false, false);
        let sources = preread.picked.as_ref().map_or(&[][..], |picked| &picked.pool.config().source);
        let to = lease.address();
        let socket = match connect_in_turn(sources, to, self.id, |from| step.tools.os.connect(to, from)) {
            Ok(socket) => socket,
            Err(fault) => return self.attempt_failed(fault.connect_failure(), step),
        };
        if let Err(fault) = step.tools.os.watch(&socket, step.token.with_side(Side::Backend)) {
            return self.attempt_failed(fault.connect_failure(), step);
        }
        self.backend = Some(socket);
        To(Stage::Connecting)
    }

    /// Waits for the backend's reply: a writable socket is connected, an error is a failed attempt.
    pub(super) fn connecting(&mut self, step: &mut Step<'_, O>) -> Go {
        if let Some(ended) = self.client_failure(step) {
            return Stop(Verdict::End(ended));
        }
        let Some(backend) = &self.backend else { return To(Stage::Connect) };
        if self.backend_failed {
            let fault = step.tools.os.take_error(backend).unwrap_or(Fault::Reset);
            return self.attempt_failed(fault.connect_failure(), step);
        }
        if self.up.writable {
            self.established(step);
            return To(Stage::Relay);
        }
        if step.now < self.until {
            return Stop(Verdict::Wait);
        }
        self.attempt_failed(ConnectFailure::TimedOut, step)
    }

    /// The backend is connected: the preread bytes go to it first, behind a PROXY header where its pool wants one.
    fn established(&mut self, step: &mut Step<'_, O>) {
        let (Some(mut preread), Some(lease), Some(client)) = (self.preread.take(), &self.lease, &self.client) else {
            return;
        };
        self.connect_us = (step.now - preread.attempt_began).min(u32::MAX.into()) as u32;
        lease.counters(step.worker).bytes_up.add(self.up.bytes);
        let mut header = preread.proxy_header(|| step.tools.os.local_address(client));
        if header.is_empty() {
            self.up.owe(&preread.bytes);
        } else {
            header.extend_from_slice(&preread.bytes);
            self.up.owe(&header);
        }
        self.last_active = step.now;
        if let Some(picked) = preread.picked.take() {
            picked.target(lease, step.worker).succeeded(self.connect_us.into());
            self.down.first_byte = FirstByte::of(&picked.pool);
            let moved = picked.moved.as_ref();
            let is_move = attempt::settle(&picked.pool, lease.backend(), moved, picked.remember, step.now / 1_000);
            if let Some(moved) = picked.moved.filter(|_| is_move) {
                let client = Moving { address: self.source(), connection: self.id, cookie: None };
                step.history.moved(step.worker, client.noted(&picked.pool, &moved, lease.backend()));
                self.labels.get_or_insert_default().moved = Some(moved);
            }
            if let Some(remember) = picked.remember {
                self.keep_entry(&picked.pool, remember, step.now);
            }
        }
        preread.clear();
        step.spare.push(preread);
    }

    /// Notes the first byte of the backend, or that it has ended the connection without one; `ended`: how the connection
    /// ends now.
    pub(super) fn judge_begin(&mut self, ended: Option<Ended>, step: &Step<'_, O>) {
        let Some(lease) = &self.lease else { return };
        let backend = lease.backend();
        if self.down.bytes > 0 {
            return self.down.first_byte.came(backend);
        }
        let silence = Silence {
            backend: match ended {
                Some(Ended::BackendReset) => Some(BackendEnd::Reset),
                _ => self.down.end_seen.then_some(BackendEnd::Closed),
            },
            client_has_sent: self.up.bytes > 0,
            client_has_ended: self.up.end_seen,
            source: self.source().map(|source| source_network(source.ip())),
        };
        let pool = || step.current.load().pool_of(backend).cloned();
        self.down.first_byte.missed(silence, backend, pool, step.now / 1_000);
    }

    fn attempt_failed(&mut self, failure: ConnectFailure, step: &mut Step<'_, O>) -> Go {
        self.backend = None;
        let (Some(preread), Some(lease)) = (&mut self.preread, &self.lease) else { return To(Stage::Relay) };
        let Some(picked) = &preread.picked else { return Stop(Verdict::End(failure.ended())) };
        match preread.attempts.failed(failure, &picked.target(lease, step.worker), step.now / 1_000) {
            NextAttempt::SameAt(at_ms) => {
                self.until = at_ms * 1_000;
                To(Stage::RetryPause)
            }
            // The lease stays until another takes its place: if none does, the log names the last backend tried.
            NextAttempt::Another => To(Stage::Pick),
            NextAttempt::GiveUp(ended) => Stop(Verdict::End(ended)),
        }
    }

    /// Waits to try the same backend again.
    pub(super) fn retry_pause(&mut self, step: &mut Step<'_, O>) -> Go {
        if let Some(wait) = self.wait(step) {
            return wait;
        }
        let (Some(preread), Some(lease)) = (&mut self.preread, &self.lease) else { return To(Stage::Relay) };
        let Some(picked) = &preread.picked else { return To(Stage::Pick) };
        match preread.attempts.key_moved(&picked.target(lease, step.worker), step.now / 1_000) {
            true => To(Stage::Pick),
            false => To(Stage::Connect),
        }
    }

    /// Waits for the backend at which the client is known, or for a place at a full one; the pick decides whether the wait is
    /// over.
    pub(super) fn wait_for_backend(&mut self, step: &mut Step<'_, O>) -> Go {
        let is_called = self.preread.as_ref().is_some_and(|preread| preread.visit.was_called());
        match self.wait(step) {
            Some(Stop(Verdict::Wait)) if is_called => To(Stage::Pick),
            wait => wait.unwrap_or(To(Stage::Pick)),
        }
    }

    /// Waits until the stage's time; `None` when it has come.
    fn wait(&mut self, step: &mut Step<'_, O>) -> Option<Go> {
        if let Some(ended) = self.client_failure(step) {
            return Some(Stop(Verdict::End(ended)));
        }
        (step.now < self.until).then_some(Stop(Verdict::Wait))
    }
}
