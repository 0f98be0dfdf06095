//! The scripts that both stages play, by theme.
//!
//! Where more than one answer is allowed, the kernel may really give each: an event reports all that is so at that
//! moment, not only what has changed (`w` beside `r`); a send may be cut where memory is short.

mod arrivals;
mod connects;
mod endings;
mod pipes;
mod rejoins;
mod resets;
mod room;

use super::{Class, ConformanceScript};

const RESET: Class = Class::Broken("reset");
const REFUSED: Class = Class::Broken("refused");

/// Every script of every theme.
pub fn scripts() -> impl Iterator<Item = &'static ConformanceScript> {
    let themes = [
        arrivals::SCRIPTS,
        endings::SCRIPTS,
        resets::SCRIPTS,
        connects::SCRIPTS,
        room::SCRIPTS,
        pipes::SCRIPTS,
        rejoins::SCRIPTS,
    ];
    themes.into_iter().flatten()
}
