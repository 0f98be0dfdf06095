//! The end of a passthrough connection, and its record while it is open.
//!
//! Decides nothing. Invariant: every accepted connection that is not handed over is counted here once, with one ending.

use super::flow::{Flow, Stage, Step};
use super::os::Os;
use crate::access_log::{self, LogRules};
use crate::client_history::is_noticed;
use crate::connection::ConnectionRecord;
use crate::outcome::Ended;

impl<O: Os> Flow<O> {
    /// Closes sockets and pipes, counts the ending and returns the line for the access log, if the rules want one.
    pub fn finish(mut self, ended: Ended, log: LogRules, step: &mut Step<'_, O>) -> Option<access_log::ConnectionLine> {
        let relayed = self.stage == Stage::Relay;
        self.up.close(step.tools.pipes);
        self.down.close(step.tools.pipes);
        let refused_hard = matches!(ended, Ended::SourceConnections | Ended::SourceRate | Ended::Panicked);
        for socket in [self.client.take(), self.backend.take()].into_iter().flatten() {
            // A stream that is cut must not look complete.
            if refused_hard || (relayed && ended != Ended::Done) {
                step.tools.os.reset(socket);
            }
        }
        if let Some(mut preread) = self.preread.take() {
            preread.clear();
            step.spare.push(preread);
        }
        if relayed {
            self.refresh(step);
        }
        let duration_us = step.now - self.started;
        self.permit.listener().counters[step.worker].0.ended[ended as usize].add(1);
        if relayed && let Some(lease) = &self.lease {
            lease.counters(step.worker).duration.record_us(duration_us);
        }
        if is_noticed(ended) {
            step.history.ended(step.worker, self.record().noted(ended));
        }
        let local = self.labels.as_ref().is_some_and(|labels| labels.local);
        let moved = self.labels.as_ref().is_some_and(|labels| labels.moved.is_some());
        let sample = log.connection(self.id, local, ended, moved)?;
        Some(access_log::ConnectionLine { sample, ..self.record().line(ended, duration_us, None) })
    }

    /// Describes a PROXY header that is refused, for the log; `None`: the connection has another ending.
    pub fn refused_header(&self, ended: Ended) -> Option<String> {
        let shown = self.preread.as_ref()?.refused_header(ended)?;
        let peer = self.source().map_or("a unix peer".to_owned(), |peer| peer.to_string());
        let (listener, word) = (&self.permit.listener().name, ended.word());
        Some(format!("listener {listener:?}: {peer} sent a PROXY header that is refused ({word}): \"{shown}\""))
    }

    /// Returns what the admin interface, plans and the access log see of the connection.
    pub fn record(&self) -> ConnectionRecord<'_> {
        let labels = self.labels.as_deref();
        let lease = self.lease.as_ref();
        ConnectionRecord {
            id: self.id,
            accepted: self.started,
            last_active: self.last_active,
            client: self.source(),
            peer: labels.and_then(|labels| labels.peer),
            local: labels.is_some_and(|labels| labels.local),
            listener: &self.permit.listener().name,
            sni: labels.and_then(|labels| labels.sni.as_ref()),
            odd_name: labels.and_then(|labels| labels.odd_name.as_ref()),
            ech: labels.is_some_and(|labels| labels.ech),
            stage: match self.stage {
                Stage::Preread => "preread",
                Stage::Relay => "relay",
                _ => "connect",
            },
            split: labels.and_then(|labels| labels.split.as_ref()),
            pool: lease.map(|lease| lease.pool_name_shared()).or(labels.and_then(|labels| labels.pool.as_ref())),
            range: labels.and_then(|labels| labels.range.as_ref()),
            backend: lease.map(|lease| lease.backend()),
            reason: self.reason,
            attempts: self.attempts_made,
            connect_us: (self.stage == Stage::Relay).then_some(self.connect_us.into()),
            bytes_up: self.up.bytes,
            bytes_down: self.down.bytes,
            moved: labels.and_then(|labels| labels.moved.as_ref()),
        }
    }
}
