//! The head of the screen: the process as a whole, in as few lines as its width allows.
//!
//! Invariant: what is most important comes first, so that a head that is cut has it.

use ratatui::text::{Line, Span};

use super::cells::{Look, Tone, begin, columns, span};
use super::table::{bytes_rate, count_rate};
use crate::cli::status::bytes;
use crate::cli::status::narrow::{count, short};
use crate::cli::top::model::Model;
use crate::cli::top::view::View;

/// Columns between two parts.
const GAP: usize = 2;

/// The lines of the head; that of a process that does not respond is the second one.
pub(super) fn lines(model: &Model, view: &View, look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines = flow(&parts(model, view), look, width);
    if let Some(away) = &model.away {
        let text = format!("no response for {}, tries again: {}", short(away.time.as_secs()), away.why);
        lines.insert(1.min(lines.len()), Line::from(span(look, Tone::Bad, &text, width)));
    }
    lines
}

fn parts(model: &Model, view: &View) -> Vec<(Tone, String)> {
    let status = &model.status;
    let rate = &model.rates.process;
    let state = match (&model.away, status.process.stopping_s, status.ready) {
        (Some(_), ..) => (Tone::Bad, "AWAY".to_owned()),
        (None, Some(seconds), _) => (Tone::Doubtful, format!("stopping {}", short(seconds))),
        (None, None, true) => (Tone::Good, "ready".to_owned()),
        (None, None, false) => (Tone::Bad, "not ready".to_owned()),
    };
    let admission = &status.admission;
    let at_limit = if admission.at_limit { " at the limit" } else { "" };
    let open_tone = if admission.at_limit { Tone::Bad } else { Tone::Plain };
    let mut parts = vec![(Tone::Title, format!("sessile {}", status.version)), state];
    if view.paused {
        parts.push((Tone::Doubtful, "paused".to_owned()));
    }
    parts.extend([
        (open_tone, format!("open {}/{}{at_limit}", count(admission.open), count(admission.max))),
        (Tone::Plain, format!("new {}/s", count_rate(rate.new))),
        (Tone::Plain, format!("in {}/s", bytes_rate(rate.bytes_up))),
        (Tone::Plain, format!("out {}/s", bytes_rate(rate.bytes_down))),
        (bad_if(rate.errors.is_some_and(|errors| errors > 0.0)), format!("errors {}/s", count_rate(rate.errors))),
        (Tone::Plain, format!("drains {}", drains(model))),
        (Tone::Plain, format!("up {}", short(status.uptime_s))),
        (Tone::Plain, format!("generation {}", status.generation)),
        (Tone::Plain, format!("pid {}", status.process.pid)),
    ]);
    parts.extend(status.usage.map(|usage| (Tone::Plain, format!("memory {}", bytes(usage.resident_bytes)))));
    for (what, lines) in [("dropped", status.log_dropped), ("lost", status.log_lost)] {
        if lines > 0 {
            parts.push((Tone::Bad, format!("log lines {what} {}", count(lines))));
        }
    }
    if let Some(store) = status.store.as_ref().filter(|store| store.state != "working") {
        parts.push((Tone::Bad, format!("store {}", store.state)));
    }
    if !status.reloads.last_accepted && !status.reloads.problems.is_empty() {
        parts.push((Tone::Bad, "last reload refused".to_owned()));
    }
    for former in &status.process.draining {
        parts.push((Tone::Doubtful, format!("process {} stopping, open {}", former.pid, count(former.open))));
    }
    parts
}

/// Backends that a command drains or has drained.
fn drains(model: &Model) -> usize {
    let backends = model.status.pools.iter().flat_map(|pool| &pool.backends);
    backends.filter(|backend| backend.runtime.is_some()).count()
}

fn bad_if(is_bad: bool) -> Tone {
    if is_bad { Tone::Bad } else { Tone::Plain }
}

/// Parts in as many lines as they need.
fn flow(parts: &[(Tone, String)], look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (tone, text) in parts {
        let text = begin(text, width);
        let room = lines.last().map_or(0, |line| width.saturating_sub(line.width()));
        let styled = Span::styled(text.clone(), look.style(*tone));
        match lines.last_mut().filter(|_| columns(&text) + GAP <= room) {
            Some(line) => {
                line.push_span(" ".repeat(GAP));
                line.push_span(styled);
            }
            None => lines.push(Line::from(styled)),
        }
    }
    lines
}
