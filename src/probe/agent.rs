//! [`Agent`]: the agent of a backend, which says in one line whether the backend wants clients.
//!
//! Knows the words of HAProxy's agent-check as far as there is something here for them: `up` and `ready`; `drain`; `down`,
//! `fail`, `failed`, `stopped` and `maint`, with a reason behind `#`; a percentage, of which 0 drains and any other lifts
//! that. Weights are not changed, other words are passed over. Invariant: an agent that cannot be asked changes nothing.

use std::sync::Arc;

use tokio::time::timeout;

use super::dialogue::{Dialogue, answered, late};
use super::{CheckFailure, CheckSettings, connect};
use crate::clock;
use crate::config::Address;
use crate::events::{self, Event, EventKind};
use crate::pool::Backend;
use crate::remote_text;

/// What an agent says.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// The backend takes clients.
    Up,
    /// The backend takes no new clients.
    Drain,
    /// The backend takes no clients, for this reason.
    Down(String),
}

/// The agent of one backend.
#[derive(Debug, Default)]
pub(super) struct Agent {
    /// True if the agent could not be asked the last time.
    is_lost: bool,
}

impl Agent {
    /// Asks the agent, if there is one, and drains the backend or ends that. An error says that the backend is down.
    pub(super) async fn ask(
        &mut self,
        backend: &Arc<Backend>,
        settings: &CheckSettings,
        now_ms: fn() -> u64,
    ) -> Result<(), CheckFailure> {
        let (Some(port), Address::Tcp(_)) = (settings.check.agent, backend.address()) else { return Ok(()) };
        let mut heard = Vec::new();
        let said = timeout(settings.check.timeout, hear(backend.address(), settings, port, &mut heard)).await;
        let said = said.unwrap_or_else(|_| Err(CheckFailure::Backend(late(settings.check.timeout, &heard, None))));
        match said {
            Ok(Word::Down(why)) => {
                self.is_lost = false;
                return Err(CheckFailure::Backend(format!("agent: {why}")));
            }
            Ok(word) => {
                self.is_lost = false;
                let drains = word == Word::Drain;
                if backend.heed_agent(drains, settings.drain_deadline, now_ms()) {
                    let (kind, state) =
                        if drains { (EventKind::Drain, "draining") } else { (EventKind::Ready, "ready") };
                    tell(backend, kind, &format!("{state}, by its agent"));
                }
            }
            Err(failure) if !self.is_lost => {
                self.is_lost = true;
                let why = match failure {
                    CheckFailure::Backend(complaint) => remote_text::shown(&complaint),
                    CheckFailure::Local(error) => error.to_string(),
                };
                let (pool, name) = (backend.pool_name(), backend.name());
                tracing::warn!("pool {pool:?}: backend {name:?}: its agent says nothing: {why}");
            }
            Err(_) => {}
        }
        Ok(())
    }
}

fn tell(backend: &Backend, kind: EventKind, text: &str) {
    let (pool, name) = (backend.pool_name(), backend.name());
    let text = format!("backend {pool}/{name}: {text}");
    tracing::info!("{text}");
    events::note(clock::unix_ms(), Event::new(kind, &text).of_backend(pool, name));
}

async fn hear(
    address: &Address,
    settings: &CheckSettings,
    port: u16,
    heard: &mut Vec<u8>,
) -> Result<Word, CheckFailure> {
    let connected = connect(address, settings, Some(port)).await;
    let mut stream = connected.map_err(|error| CheckFailure::from_io("connect", error))?;
    let line = Dialogue::new(&mut *stream, heard).last_line().await?;
    word_of(&remote_text::text_of(&line, remote_text::SHOWN_MAX))
        .ok_or_else(|| CheckFailure::Backend(format!("{}, which is no word of an agent", answered(&line))))
}

/// The word of a line that counts most: down before drain before up; `None`: there is none.
fn word_of(line: &str) -> Option<Word> {
    let (words, reason) = line.split_once('#').map_or((line, None), |(words, reason)| (words, Some(reason.trim())));
    let mut found = None;
    for word in words.split([' ', '\t', ',']) {
        let word = word.to_ascii_lowercase();
        let percent = word.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
        match (&*word, percent) {
            ("down" | "fail" | "failed" | "stopped" | "maint", _) => {
                let reason = reason.filter(|reason| !reason.is_empty());
                return Some(Word::Down(reason.map_or(word.clone(), |reason| format!("{word}, {reason}"))));
            }
            ("drain", _) | (_, Some(0)) => found = Some(Word::Drain),
            ("up" | "ready", _) | (_, Some(_)) if found.is_none() => found = Some(Word::Up),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_counts_most_is_heeded_and_others_are_passed_over() {
        let down = |why: &str| Some(Word::Down(why.to_owned()));
        for (line, word) in [
            ("up", Some(Word::Up)),
            ("READY", Some(Word::Up)),
            ("75%", Some(Word::Up)),
            ("up 0%", Some(Word::Drain)),
            ("drain,up", Some(Word::Drain)),
            ("maxconn:30 up", Some(Word::Up)),
            ("down", down("down")),
            ("up stopped # for the backup", down("stopped, for the backup")),
            ("fail #", down("fail")),
            ("", None),
            ("maxconn:30", None),
            ("# down", None),
            ("uptime 3 %", None),
        ] {
            assert_eq!(word_of(line), word, "{line}");
        }
    }
}
