//! Text for a screen: [`cell`] of a fixed width, [`span`] of a sentence, [`Tone`] for its colour.
//!
//! Knows nothing of the process. Invariants: whatever a text holds, what is made of it moves no cursor, and is not wider
//! than asked for; without colours no colour is set.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use crate::cli::width::{CUT, shorten};
use crate::remote_text::one_line;

/// How the terminal may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::top) struct Look {
    /// Colours are wanted.
    pub(in crate::cli::top) colours: bool,
}

/// What a text means, where a colour may repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Text like any other.
    Plain,
    /// A heading, or a name that stands out.
    Title,
    /// Text beside the matter.
    Dim,
    /// State in which all is well.
    Good,
    /// State that a command has set, or that is not known yet.
    Doubtful,
    /// State in which something is broken.
    Bad,
}

impl Look {
    /// The style of a tone.
    pub(super) fn style(self, tone: Tone) -> Style {
        let style = match tone {
            Tone::Title | Tone::Bad => Style::new().add_modifier(Modifier::BOLD),
            _ => Style::new(),
        };
        match tone {
            Tone::Good if self.colours => style.fg(Color::Green),
            Tone::Doubtful if self.colours => style.fg(Color::Yellow),
            Tone::Bad if self.colours => style.fg(Color::Red),
            Tone::Dim if self.colours => style.fg(Color::DarkGray),
            _ => style,
        }
    }
}

/// Columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

/// A name or a number in exactly `width` columns; a name that is too long loses its middle.
pub(super) fn cell(text: &str, width: usize, to_the_right: bool) -> String {
    let text = one_line(text);
    let fits = |count: &usize| columns(&shorten(&text, *count)) <= width;
    // Some characters take two columns.
    let short = (0..=width).rev().find(fits).map(|count| shorten(&text, count)).unwrap_or_default();
    let padding = " ".repeat(width.saturating_sub(columns(&short)));
    if to_the_right { padding + &short } else { short + &padding }
}

/// The begin of a sentence in at most `width` columns, with a mark where it was cut.
pub(super) fn begin(text: &str, width: usize) -> String {
    let text = one_line(text);
    if columns(&text) <= width {
        return text.into_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    while columns(&short) >= width.max(1) {
        short.pop();
    }
    if width > 0 {
        short.push(CUT);
    }
    short
}

/// A sentence in a tone, in at most `width` columns.
pub(super) fn span(look: Look, tone: Tone, text: &str, width: usize) -> Span<'static> {
    Span::styled(begin(text, width), look.style(tone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_its_width_whatever_is_in_it() {
        let texts = [
            "",
            "a",
            "web1",
            "payments-eu-central-1",
            "世界世界世界",
            "a\u{301}\u{301}\u{301}b",
            "\u{1b}[2J",
            "a\u{202e}b",
        ];
        for text in texts {
            for width in 0..12 {
                for to_the_right in [false, true] {
                    let cell = cell(text, width, to_the_right);
                    assert_eq!(columns(&cell), width, "{text:?} in {width}: {cell:?}");
                    assert!(!cell.contains(crate::remote_text::is_unsafe), "{cell:?}");
                }
                let begin = begin(text, width);
                assert!(columns(&begin) <= width && !begin.contains(crate::remote_text::is_unsafe), "{begin:?}");
            }
        }
        assert_eq!((cell("12", 4, true), cell("web1", 6, false)), ("  12".into(), "web1  ".into()));
        assert_eq!(
            (cell("payments-eu1", 7, false), begin("backend is down", 10)),
            ("pay…eu1".into(), "backend i…".into())
        );
    }

    #[test]
    fn without_colours_there_is_none_and_the_bad_still_stands_out() {
        for tone in [Tone::Plain, Tone::Title, Tone::Dim, Tone::Good, Tone::Doubtful, Tone::Bad] {
            assert_eq!(Look { colours: false }.style(tone).fg, None);
        }
        assert_eq!(Look { colours: true }.style(Tone::Bad).fg, Some(Color::Red));
        assert!(Look { colours: false }.style(Tone::Bad).add_modifier.contains(Modifier::BOLD));
    }
}
