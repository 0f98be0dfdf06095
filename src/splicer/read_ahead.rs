//! The first stage of a connection: bytes are read ahead, until the listener's rules have what they need.
//!
//! Understands no bytes (`preread.rs` does) and routes nothing. Invariant: every byte that is read goes to `Preread`,
//! and no more is read beyond what the rules need than they needed, or 4 KiB.

use super::flow::Go::{self, Stop, To};
use super::flow::{CompactAddress, Flow, Stage, Step, Verdict};
use super::os::{Io, Os};
use super::preread::PrereadProgress;
use crate::alert::TlsRefusal;
use crate::fault::{Endpoint, Fault};
use crate::outcome::Ended;

impl<O: Os> Flow<O> {
    /// Reads until the listener's rules have what they need, or the client's time is over.
    pub(super) fn preread(&mut self, step: &mut Step<'_, O>) -> Go {
        loop {
            let Some(preread) = &mut self.preread else { return To(Stage::Relay) };
            match preread.look() {
                PrereadProgress::Known => return To(Stage::Pick),
                PrereadProgress::Announced => {
                    if let Err(ended) = self.announced(step) {
                        return Stop(Verdict::End(ended));
                    }
                    continue;
                }
                PrereadProgress::Refused(ended) => return Stop(Verdict::End(ended)),
                PrereadProgress::NoHello(refusal) => return self.refuse_tls(refusal),
                PrereadProgress::More => {}
            }
            if !self.up.readable && !self.up.finished {
                return if step.now >= self.until { self.preread_timed_out() } else { Stop(Verdict::Wait) };
            }
            let Some(client) = &self.client else { return Stop(Verdict::Wait) };
            let room = preread.read_size().min(step.tools.scratch.len());
            let answer = step.tools.os.recv(client, &mut step.tools.scratch[..room]);
            match answer {
                Io::Moved(n) => {
                    self.up.bytes += n as u64;
                    self.up.readable &= self.up.urgent || n == room;
                    if let Err(ended) = preread.bytes.add(&step.tools.scratch[..n], self.permit.hello_memory()) {
                        return Stop(Verdict::End(ended));
                    }
                }
                Io::Later => {
                    self.up.readable = false;
                    return if step.now >= self.until { self.preread_timed_out() } else { Stop(Verdict::Wait) };
                }
                Io::End => return Stop(Verdict::End(preread.cut_short())),
                // The health checks of many balancers in front end in this way.
                Io::Broken(Fault::Reset) if preread.cut_short() == Ended::Probe => {
                    return Stop(Verdict::End(Ended::Probe));
                }
                Io::Broken(fault) => return Stop(Verdict::End(fault.ending(Endpoint::Client))),
            }
        }
    }

    /// Ends a connection that gets no TLS handshake. Where TLS ends here, the runtime does it, with an alert.
    pub(super) fn refuse_tls(&mut self, refusal: TlsRefusal) -> Go {
        match &mut self.preread {
            Some(preread) if preread.sends_alerts() => {
                preread.refusal = Some(refusal);
                Stop(Verdict::HandOver)
            }
            _ => Stop(Verdict::End(refusal.ended())),
        }
    }

    fn preread_timed_out(&mut self) -> Go {
        match self.preread.as_mut().map_or(Ok(()), |preread| preread.timed_out()) {
            Ok(()) => To(Stage::Pick),
            Err(ended) => Stop(Verdict::End(ended)),
        }
    }

    /// Applies a PROXY header to the row. Its bytes are the peer's, not the client's, and do not count.
    fn announced(&mut self, step: &Step<'_, O>) -> Result<(), Ended> {
        let Some(preread) = &self.preread else { return Ok(()) };
        self.up.bytes = preread.bytes.len() as u64;
        let client_info = &preread.client_info;
        let labels = self.labels.get_or_insert_default();
        (labels.local, labels.peer) = (client_info.local, client_info.peer);
        self.source = client_info.source.map(CompactAddress::from);
        match client_info.key_source() {
            Some(source) => self.permit.hold_source(source, step.now / 1_000_000),
            None => {
                self.permit.listener().counters[step.worker].0.keyless.add(1);
                Ok(())
            }
        }
    }
}
