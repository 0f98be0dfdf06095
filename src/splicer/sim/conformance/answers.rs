//! Which answer a step may have, and the words for answers.
//!
//! Plays nothing. Invariant: an answer that a step does not name is not allowed.

use super::{Class, ScriptStep, StepResult};
use crate::fault::Fault;
use crate::splicer::os::{Event, Io};

pub(super) fn letters(event: &Event) -> impl Iterator<Item = char> {
    let told = [event.readable, event.writable, event.finished, event.failed, event.urgent];
    told.into_iter().zip(['r', 'w', 'f', 'x', 'u']).filter(|(told, _)| *told).map(|(_, letter)| letter)
}

pub(super) fn allowed(step: &ScriptStep, answer: &StepResult) -> bool {
    let within = |told: &str, most: &str| told.chars().all(|letter| most.contains(letter));
    match (step, answer) {
        (
            ScriptStep::Recv(_, classes)
            | ScriptStep::Send(_, classes)
            | ScriptStep::SpliceIn(_, classes)
            | ScriptStep::SpliceOut(classes)
            | ScriptStep::ReadPipe(_, classes),
            StepResult::Io(class),
        ) => classes.contains(class),
        (ScriptStep::Fill | ScriptStep::AcceptEmpty, StepResult::Io(class)) => *class == Class::Later,
        (ScriptStep::TakeError(errors), StepResult::Error(error)) => errors.iter().any(|known| word(*known) == *error),
        (ScriptStep::Events(least, most), StepResult::Events(told)) => within(least, told) && within(told, most),
        (ScriptStep::EventsAtMost(most), StepResult::Events(told)) => within(told, most),
        (ScriptStep::NoEvent, StepResult::Events(told)) => told.is_empty(),
        (ScriptStep::Finds(expected), StepResult::Found(found)) => expected.contains(found),
        (_, StepResult::Done) => true,
        _ => false,
    }
}

pub(super) fn class(answer: Io, there: usize) -> Class {
    match answer {
        Io::Moved(n) if n >= there => Class::All,
        Io::Moved(_) => Class::Part,
        Io::End => Class::End,
        Io::Later => Class::Later,
        Io::Broken(Fault::Reset) => Class::Broken("reset"),
        Io::Broken(Fault::Refused) => Class::Broken("refused"),
        Io::Broken(_) => Class::Broken("other"),
    }
}

pub(super) fn word(error: Option<Fault>) -> String {
    error.map_or_else(|| "none".to_owned(), |error| format!("{error:?}"))
}
