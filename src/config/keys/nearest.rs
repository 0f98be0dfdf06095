//! [`nearest`]: the word that a mistyped one may have been meant to be.
//!
//! Knows no word itself. Invariant: the cost of a comparison is bounded, whatever was written.

/// The word nearest to `written`, if it is near enough for a typing mistake: one edit in a word below 4 letters, two
/// (two swapped letters) in most words, one in three letters of a long word.
pub(in crate::config) fn nearest<'a>(written: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = |word: &str| if word.len() < 4 { 1 } else { (word.len() / 3).max(2) };
    let near = |word: &&str| edits(written, word) <= allowed(word);
    words.into_iter().filter(|word| !word.is_empty()).filter(near).min_by_key(|word| (edits(written, word), *word))
}

/// Levenshtein distance: insertions, deletions and replacements that turn one word into the other. Words over 64 bytes
/// are not compared, because the cost grows with the product of the lengths.
fn edits(from: &str, to: &str) -> usize {
    const BYTES_MAX: usize = 64;
    if from.len() > BYTES_MAX || to.len() > BYTES_MAX {
        return usize::MAX;
    }
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (index, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in [("", "", 0), ("weight", "weight", 0), ("wieght", "weight", 2), ("a", "abc", 2)] {
            assert_eq!((edits(from, to), edits(to, from)), (count, count), "{from} {to}");
        }
    }
}
