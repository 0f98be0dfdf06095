//! The part of a connection's story between the pick and the relay: attempts to connect.
//!
//! What a failure means is decided by `attempt.rs`, whose fault it is by `fault.rs`. Invariant: a connection holds a
//! lease from the moment its backend is picked, and at most one socket towards a backend.

use std::sync::Arc;

use super::fault::connect_failed;
use super::flow::Go::{self, Stop, To};
use super::flow::{Flow, Stage, Step, Verdict};
use super::os::{Broken, Os};
use super::slab::Side;
use crate::attempt::{ConnectFailure, NextAttempt};
use crate::socket::connect_in_turn;

impl<O: Os> Flow<O> {
    /// Begins to connect to the backend that was picked.
    pub(super) fn attempt(&mut self, step: &mut Step<'_, O>) -> Go {
        let (Some(preread), Some(lease)) = (&mut self.preread, &self.lease) else { return To(Stage::Pick) };
        let Some(attempts) = &mut preread.attempts else { return To(Stage::Pick) };
        self.until = attempts.begin(step.now / 1_000) * 1_000;
        self.attempts_made = attempts.made();
        preread.attempt_began = step.now;
        let backend = Arc::clone(lease.backend());
        (self.up.writable, self.down.readable, self.down.finished, self.backend_failed) = (false, false, false, false);
        let sources = preread.picked.as_ref().map_or(&[][..], |pool| &pool.config().source);
        let to = backend.address();
        let no_port = |why: &Broken| *why == Broken::NoPort;
        let socket = match connect_in_turn(sources, to, self.id, no_port, |from| step.tools.os.connect(to, from)) {
            Ok(socket) => socket,
            Err(why) => return self.attempt_failed(why, step),
        };
        if let Err(why) = step.tools.os.watch(&socket, step.token.with_side(Side::Backend)) {
            return self.attempt_failed(why, step);
        }
        self.backend = Some(socket);
        To(Stage::Connecting)
    }

    /// Waits for the backend's answer: writable is yes, an error no.
    pub(super) fn connecting(&mut self, step: &mut Step<'_, O>) -> Go {
        if let Some(ended) = self.client_failure(step) {
            return Stop(Verdict::End(ended));
        }
        let Some(backend) = &self.backend else { return To(Stage::Attempt) };
        if self.backend_failed {
            let why = step.tools.os.take_error(backend).unwrap_or(Broken::Reset);
            return self.attempt_failed(why, step);
        }
        if !self.up.writable {
            return match step.now >= self.until {
                true => self.attempt_failed(Broken::Gone, step),
                false => Stop(Verdict::Wait),
            };
        }
        self.established(step);
        To(Stage::Relay)
    }

    fn established(&mut self, step: &mut Step<'_, O>) {
        let source = self.source();
        let (Some(mut preread), Some(lease), Some(client)) = (self.preread.take(), &self.lease, &self.client) else {
            return;
        };
        self.connect_us = (step.now - preread.attempt_began).min(u32::MAX.into()) as u32;
        let counters = lease.counters(step.worker);
        counters.connections.add(1);
        counters.bytes_up.add(self.up.bytes);
        counters.connect_time.record_us(self.connect_us.into());
        let mut header = Vec::new();
        if let Some(pool) = &preread.picked {
            pool.connect_succeeded(lease.backend());
            if let Some(cause) = preread.broke {
                pool.count_break(cause);
                self.labels.get_or_insert_default().broke = Some(cause);
            }
            header = preread.announce(source, client, self.id, step.tools.os);
        }
        if header.is_empty() {
            self.up.owe(&preread.bytes);
        } else {
            header.extend_from_slice(&preread.bytes);
            self.up.owe(&header);
        }
        self.last_active = step.now;
        if let (Some(pool), Some(remember)) = (&preread.picked, preread.remember) {
            self.settle(pool, remember, step.now);
        }
        preread.clear();
        step.spare.push(preread);
    }

    fn attempt_failed(&mut self, why: Broken, step: &mut Step<'_, O>) -> Go {
        self.backend = None;
        let (Some(preread), Some(lease)) = (&mut self.preread, &self.lease) else { return To(Stage::Relay) };
        let failure = connect_failed(why);
        let now_ms = step.now / 1_000;
        let to_blame = !matches!(failure, ConnectFailure::Local(_));
        if to_blame {
            lease.counters(step.worker).connect_failures.add(1);
        }
        let Some(attempts) = &mut preread.attempts else { return Stop(Verdict::End(failure.ended())) };
        preread.last_failure = Some(failure);
        let next = attempts.failed(failure, lease.usable(now_ms), now_ms);
        // As long as it is to be tried again, nothing is said against it.
        if to_blame
            && !matches!(next, NextAttempt::SameAt(_))
            && let Some(pool) = &preread.picked
        {
            pool.connect_failed(lease.backend(), now_ms);
        }
        match next {
            NextAttempt::SameAt(at_ms) => {
                self.until = at_ms * 1_000;
                To(Stage::Pause)
            }
            NextAttempt::Another => {
                // The lease stays until another takes its place: if none does, the log names the last one tried.
                preread.tried.push(Arc::clone(lease.backend()));
                let table = preread.picked.as_ref().and_then(|pool| pool.table());
                if let (Some(table), Some(remember), Some(reason)) = (table, preread.remember, self.reason) {
                    table.release(remember, reason, lease.backend(), now_ms);
                }
                To(Stage::Pick)
            }
            NextAttempt::GiveUp(ended) => Stop(Verdict::End(ended)),
        }
    }

    /// Waits to try the same backend again.
    pub(super) fn pause(&mut self, step: &mut Step<'_, O>) -> Go {
        if let Some(ended) = self.client_failure(step) {
            return Stop(Verdict::End(ended));
        }
        if step.now < self.until {
            return Stop(Verdict::Wait);
        }
        match self.settled_elsewhere(step) {
            true => To(Stage::Pick),
            false => To(Stage::Attempt),
        }
    }

    /// Whether another connection of the same client did not wait, and has taken it to another backend.
    fn settled_elsewhere(&mut self, step: &Step<'_, O>) -> bool {
        let (Some(preread), Some(lease)) = (&mut self.preread, &self.lease) else { return false };
        let table = preread.picked.as_ref().and_then(|pool| pool.table());
        let (Some(table), Some(remember), Some(attempts)) = (table, preread.remember, &mut preread.attempts) else {
            return false;
        };
        let elsewhere = table.settled_elsewhere(remember, lease.backend(), step.now / 1_000);
        if elsewhere {
            attempts.elsewhere();
        }
        elsewhere
    }
}
