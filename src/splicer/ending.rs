//! The end of a connection, and what can be told of it while it lives.
//!
//! Decides nothing. Invariant: every connection that was accepted is counted here once, with one ending.

use super::flow::{Flow, Stage, Step};
use super::os::{Micros, Os};
use crate::access_log;
use crate::clock;
use crate::connection::{ConnectionFilter, ConnectionView, OpenConnection, Selection};
use crate::outcome::Ended;

/// Which connections get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRules {
    /// None.
    Off,
    /// Those of clients; not those that a balancer in front opens for itself.
    Clients,
    /// All of them.
    All,
}

impl<O: Os> Flow<O> {
    /// Closes what is open, counts the ending and answers the line for the log, if there is one.
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
        let local = self.labels.as_ref().is_some_and(|labels| labels.local);
        (log == LogRules::All || (log == LogRules::Clients && !local)).then(|| self.line(ended, duration_us))
    }

    /// Whether a command means it.
    pub fn uses(&self, whom: &Selection) -> bool {
        match whom {
            Selection::All => true,
            Selection::Of(backend) => {
                self.lease.as_ref().is_some_and(|lease| std::sync::Arc::ptr_eq(lease.backend(), backend))
            }
        }
    }

    /// Whether somebody wants to see it.
    pub fn wanted(&self, wanted: &ConnectionFilter) -> bool {
        let lease = self.lease.as_ref();
        wanted.holds(lease.map(|lease| lease.pool_name()), lease.map(|lease| lease.name()))
    }

    /// What a plan looks at, once there is a backend.
    pub fn open(&self) -> Option<OpenConnection> {
        let labels = self.labels.as_deref();
        Some(OpenConnection {
            listener: self.permit.listener().name.clone(),
            backend: std::sync::Arc::clone(self.lease.as_ref()?.backend()),
            by_cookie: false,
            source: self.source().map(|source| source.ip()),
            local: labels.is_some_and(|labels| labels.local),
            sni: labels.and_then(|labels| labels.sni.clone()),
        })
    }

    /// What the admin interface shows.
    pub fn view(&self, worker: usize, now: Micros) -> ConnectionView {
        ConnectionView {
            id: self.id,
            worker,
            client: self.source().map(|source| source.to_string()),
            listener: self.permit.listener().name.to_string(),
            pool: self.lease.as_ref().map(|lease| lease.pool_name().to_owned()),
            backend: self.lease.as_ref().map(|lease| lease.name().to_owned()),
            reason: self.reason.map(|reason| reason.word()),
            sni: self.labels.as_ref().and_then(|labels| Some(labels.sni.as_ref()?.to_string())),
            stage: match self.stage {
                Stage::Preread => "preread",
                Stage::Relay => "relay",
                _ => "connect",
            },
            age_ms: now.saturating_sub(self.started) / 1_000,
            idle_ms: now.saturating_sub(self.last_active) / 1_000,
            bytes_up: self.up.bytes,
            bytes_down: self.down.bytes,
        }
    }

    fn line(&self, ended: Ended, duration_us: u64) -> access_log::ConnectionLine {
        let labels = self.labels.as_deref();
        let lease = self.lease.as_ref();
        access_log::ConnectionLine {
            id: self.id,
            started_unix_us: clock::unix_us().saturating_sub(duration_us),
            duration_us,
            client: self.source(),
            peer: labels.and_then(|labels| labels.peer),
            listener: self.permit.listener().name.clone(),
            sni: labels.and_then(|labels| labels.sni.clone()),
            ech: labels.is_some_and(|labels| labels.ech),
            pool: lease.map(|lease| lease.pool_name_shared()).or_else(|| labels.and_then(|labels| labels.pool.clone())),
            range: labels.and_then(|labels| labels.range.clone()),
            backend: lease.map(|lease| lease.name_shared()),
            reason: self.reason,
            attempts: self.attempts_made,
            connect_us: (self.stage == Stage::Relay).then_some(self.connect_us.into()),
            bytes_up: self.up.bytes,
            bytes_down: self.down.bytes,
            ended,
            tls: None,
            broke: labels.and_then(|labels| labels.broke),
        }
    }
}
