//! Moves of established pairs: rows that leave a worker frozen, and rows that come in.
//!
//! Sends nothing to another process. Invariant: a pair that is taken out is on no wheel, in no epoll and holds no pipe
//! of the worker; it is counted as ended by the worker that holds it at its end, and by no other.

use super::{Rows, Worker};
use crate::fault::Endpoint;
use crate::splicer::flow::Flow;
use crate::splicer::os::Os;
use crate::splicer::pair::Batch;

impl<O: Os> Worker<O> {
    /// Takes established pairs out, frozen, for another process: quiet ones, or busy ones where no pair is quiet. A pair
    /// ends if its pipe cannot be read.
    pub fn take_out(&mut self, batch: Batch) -> Vec<Flow<O>> {
        let mut taken = Vec::new();
        for slot in self.leaving(batch) {
            let Some(token) = self.flows.token(slot) else { continue };
            let (flows, mut step) = self.split(token);
            let Some(flow) = flows.at(slot) else { continue };
            match flow.freeze(&mut step.tools) {
                Ok(()) => {
                    self.wheel.clear(&mut Rows(&mut self.flows), slot);
                    taken.extend(self.flows.remove(slot));
                }
                Err(fault) => self.end(slot, fault.ending(Endpoint::Backend)),
            }
        }
        self.settle();
        taken
    }

    /// Slots of the pairs that leave next.
    fn leaving(&mut self, batch: Batch) -> Vec<u32> {
        let slots: Vec<_> = self.flows.slots().collect();
        let (mut quiet, mut busy) = (Vec::new(), Vec::new());
        for slot in slots {
            match self.flows.at(slot).filter(|flow| flow.is_pair()) {
                Some(flow) if flow.is_quiet(self.now) => quiet.push(slot),
                Some(_) => busy.push(slot),
                None => {}
            }
        }
        let (mut next, most) = if quiet.is_empty() { (busy, batch.busy) } else { (quiet, batch.quiet) };
        next.truncate(most);
        next
    }

    /// How many connections are established pairs, which could be taken out.
    pub fn pairs(&mut self) -> usize {
        let mut pairs = 0;
        self.each(|flow| pairs += usize::from(flow.is_pair()));
        pairs
    }

    /// Takes in a frozen pair: one that has arrived from another process, or one that could not leave.
    pub fn take_in(&mut self, flow: Flow<O>) {
        self.now = self.os.now().max(self.now);
        let token = self.flows.insert_with(|_| flow);
        self.advance(token.slot(), Flow::thaw);
    }

    /// Numbers connections from here on, so that no number is given twice after an upgrade.
    pub fn number_from(&mut self, accepted: u64) {
        self.accepted = self.accepted.max(accepted);
    }

    /// How many connections this worker, and those before it, have numbered.
    pub fn numbered(&self) -> u64 {
        self.accepted
    }
}

#[cfg(test)]
mod tests;
