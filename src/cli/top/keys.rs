//! [`action`]: what each key means.
//!
//! Reads no key. Invariant: a key that is named in the help has a line here.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::view::Action;

/// Keys and what they do, for the help.
pub(super) const HELP: &[(&str, &str)] = &[
    ("q, Ctrl-C", "end"),
    ("Esc", "back to the list, or end"),
    ("Up, Down, k, j", "choose a row; PgUp, PgDn, Home, End, too"),
    ("Enter, e", "details and events of the row, and back"),
    ("s", "sort by file, open, new, errors, name"),
    ("p", "pause: nothing is asked until it is pressed again"),
    ("Ctrl-L", "draw the screen anew"),
    ("?", "this help, and back"),
];

/// What a key means; `None`: nothing.
pub(super) fn action(key: &KeyEvent) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('l') => Some(Action::Redraw),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Esc => Action::Back,
        KeyCode::Up | KeyCode::Char('k') => Action::Up,
        KeyCode::Down | KeyCode::Char('j') => Action::Down,
        KeyCode::PageUp => Action::PageUp,
        KeyCode::PageDown => Action::PageDown,
        KeyCode::Home => Action::First,
        KeyCode::End => Action::Last,
        KeyCode::Enter | KeyCode::Char('e') => Action::Details,
        KeyCode::Char('?') => Action::Help,
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('p') => Action::Pause,
        #[cfg(debug_assertions)]
        KeyCode::F(12) => Action::Panic,
        _ => return None,
    })
}
