//! [`View`]: what the reader has chosen: row, order, pause, and what is in front of the list.
//!
//! Draws nothing and knows no key: `keys` has the [`Action`] of each. Invariant: the chosen row is kept by its name, over
//! other orders, reloads and restarts; while it is not in the list the row at its place stands for it.

use super::rows::{RowId, SortBy, TopRow};

/// Rows that one step by a page takes.
const PAGE: usize = 10;

/// What a reader may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// End the command.
    Quit,
    /// Close what is in front of the list, or end the command.
    Back,
    /// Choose the row above.
    Up,
    /// Choose the row below.
    Down,
    /// Choose a row one page above.
    PageUp,
    /// Choose a row one page below.
    PageDown,
    /// Choose the first row.
    First,
    /// Choose the last row.
    Last,
    /// Show or leave the details of the chosen row.
    Details,
    /// Show or leave the help.
    Help,
    /// Sort by what comes next.
    Sort,
    /// Ask nothing any more, or go on.
    Pause,
    /// Draw everything anew.
    Redraw,
    /// Panic, so that a test sees what becomes of the terminal.
    #[cfg(debug_assertions)]
    Panic,
}

/// What stands in front of the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Front {
    /// The list itself.
    #[default]
    List,
    /// Everything about the chosen row.
    Details,
    /// The keys.
    Help,
}

/// What is chosen.
#[derive(Debug, Default)]
pub(super) struct View {
    selected: Option<RowId>,
    /// Place of the row when it was last in the list.
    place: usize,
    /// The order of the list.
    pub(super) sort: SortBy,
    /// What stands in front of the list.
    pub(super) front: Front,
    /// True while nothing is asked.
    pub(super) paused: bool,
}

impl View {
    /// Does what is wanted within the view; false: the command has to end.
    pub(super) fn apply(&mut self, action: Action, rows: &[TopRow<'_>]) -> bool {
        let at = self.place(rows).unwrap_or_default();
        let last = rows.len().saturating_sub(1);
        match action {
            Action::Quit => return false,
            Action::Back if self.front == Front::List => return false,
            Action::Back => self.front = Front::List,
            Action::Up => self.choose(rows, at.saturating_sub(1)),
            Action::Down => self.choose(rows, (at + 1).min(last)),
            Action::PageUp => self.choose(rows, at.saturating_sub(PAGE)),
            Action::PageDown => self.choose(rows, (at + PAGE).min(last)),
            Action::First => self.choose(rows, 0),
            Action::Last => self.choose(rows, last),
            Action::Details => self.toggle(Front::Details),
            Action::Help => self.toggle(Front::Help),
            Action::Sort => self.sort = self.sort.next(),
            Action::Pause => self.paused = !self.paused,
            Action::Redraw => {}
            #[cfg(debug_assertions)]
            Action::Panic => panic!("a panic by key"),
        }
        true
    }

    /// The place of the chosen row; `None`: there are no rows.
    pub(super) fn place(&self, rows: &[TopRow<'_>]) -> Option<usize> {
        let found = self.selected.as_ref().and_then(|id| rows.iter().position(|row| row.is(id)));
        found.or(Some(self.place)).map(|place| place.min(rows.len().saturating_sub(1))).filter(|_| !rows.is_empty())
    }

    /// Notes where the chosen row is now, for the time when it is not in the list.
    pub(super) fn settle(&mut self, rows: &[TopRow<'_>]) {
        if let Some(id) = &self.selected
            && let Some(place) = rows.iter().position(|row| row.is(id))
        {
            self.place = place;
        }
    }

    fn choose(&mut self, rows: &[TopRow<'_>], place: usize) {
        self.selected = rows.get(place).map(TopRow::id);
        self.place = place;
    }

    fn toggle(&mut self, front: Front) {
        self.front = if self.front == front { Front::List } else { front };
    }
}
