//! Text that fits a terminal: [`shorten`] for names, [`wrap`] for sentences.
//!
//! Knows no table. Invariants: no line is wider than it may be, unless one word alone is; a name that is not whole has a
//! mark where it was cut, and both of its ends.

/// Columns of a terminal that was never made wider.
pub(super) const COLUMNS: usize = 80;

/// What stands for the middle of a name.
pub(super) const CUT: char = '…';

/// The name, or its two ends where it is wider than `width` (at least 3).
pub(super) fn shorten(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let kept = width.max(3) - 1;
    let tail = kept / 2;
    let head = name.chars().take(kept - tail);
    head.chain([CUT]).chain(name.chars().skip(count - tail)).collect()
}

/// A text of one line, broken at spaces into lines of at most `width`; all but the first are indented.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let words = text.trim_start_matches(' ');
    let mut column = text.len() - words.len();
    let mut lines = " ".repeat(column);
    for (index, word) in words.split(' ').enumerate() {
        let wide = word.chars().count();
        if index > 0 && column + 1 + wide > width {
            lines.push('\n');
            lines += &" ".repeat(indent);
            column = indent;
        } else if index > 0 {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += wide;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_its_middle_and_says_so() {
        for (width, short) in [(12, "payments-eu1"), (11, "payme…s-eu1"), (4, "pa…1"), (0, "p…1")] {
            assert_eq!(shorten("payments-eu1", width), short);
        }
        assert_eq!(shorten("äöüäöü", 5), "äö…öü");
    }

    #[test]
    fn sentences_are_broken_between_words() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three\n");
        assert_eq!(wrap("one", 2, 2), "one\n");
        assert_eq!(wrap("", 2, 2), "\n");
        assert_eq!(wrap("  one two", 6, 4), "  one\n    two\n");
        assert_eq!(wrap("a verylongword b", 6, 2), "a\n  verylongword\n  b\n");
    }
}
