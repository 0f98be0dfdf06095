//! [`RunQueue`]: rows of a worker that have something to do, established pairs before all others.
//!
//! Steps nothing itself. Invariants: a row is stepped once for each time that it was put into the queue (its `queued`
//! says so); rows leave in the order in which they came, pairs before others; a turn steps every pair, and at most
//! [`OTHERS_MAX`] of the others, with one more for each [`ACCEPT_EVERY_US`] that the pairs have taken.

use std::collections::VecDeque;

use super::Worker;
use super::acceptor::ACCEPT_EVERY_US;
use crate::splicer::os::{Event, Os};
use crate::splicer::relay::step_bytes;

/// Steps of one turn for rows that are not yet established. Such a step opens a socket or connects it, which takes ten
/// times as long as passing a message on, and the pairs wait for all of them.
pub(super) const OTHERS_MAX: usize = 16;

/// Most steps that are added where pairs have taken long.
const OTHERS_LONG_MAX: usize = 64;

/// Slots of rows, in two lines.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    pairs: VecDeque<u32>,
    others: VecDeque<u32>,
}

impl RunQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.others.is_empty()
    }

    pub(super) fn push(&mut self, slot: u32, is_pair: bool) {
        if is_pair { self.pairs.push_back(slot) } else { self.others.push_back(slot) }
    }
}

impl<O: Os> Worker<O> {
    /// Puts the row of an event into the queue.
    pub(super) fn note(&mut self, event: &Event) {
        match self.flows.find(event.token) {
            Some(flow) => {
                flow.event(event);
                self.enqueue(event.token.slot());
            }
            None => self.counters().stale_events.add(1),
        }
    }

    /// Puts a row into the queue, unless it is there.
    pub(super) fn enqueue(&mut self, slot: u32) {
        if let Some(flow) = self.flows.at(slot)
            && !std::mem::replace(&mut flow.queued, true)
        {
            self.queue.push(slot, flow.is_pair());
        }
    }

    /// Steps each pair of the queue once, then some of the others, and returns the number of pairs.
    pub(super) fn step_queued(&mut self) -> usize {
        let (pairs, others) = (self.queue.pairs.len(), self.queue.others.len());
        self.step_bytes = step_bytes(pairs + others.min(OTHERS_MAX));
        for _ in 0..pairs {
            if let Some(slot) = self.queue.pairs.pop_front() {
                self.step_if_queued(slot);
            }
        }
        let mut left = OTHERS_MAX;
        if others > left {
            // As many accepts are allowed by the same time: without these, rows would come faster than they are stepped.
            left += ((self.os.now().saturating_sub(self.now) / ACCEPT_EVERY_US) as usize).min(OTHERS_LONG_MAX);
        }
        for _ in 0..others {
            if left > 0
                && let Some(slot) = self.queue.others.pop_front()
            {
                left -= usize::from(self.step_if_queued(slot));
            }
        }
        pairs
    }

    /// Steps a row; false: it has ended or was stepped since it came into the queue, and its place is free.
    fn step_if_queued(&mut self, slot: u32) -> bool {
        let is_queued = self.flows.at(slot).is_some_and(|flow| flow.queued);
        if is_queued {
            self.step(slot);
        }
        is_queued
    }
}
