//! [`ForeignWord`]: a word of another balancer, with what sessile has for it.
//!
//! The words stand in `foreign_words.txt`; `file` looks up keys, values and lines that cannot be read. Changes the meaning
//! of nothing. Invariant: every key and value that a word is translated to is one that `check` accepts
//! (`what_is_written_for_a_foreign_word_is_accepted`).

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// Most words of a line that are looked up together, as in `option ssl-hello-chk`.
const WORDS_MAX: usize = 3;
/// The longest text that is looked up, in bytes.
const BYTES_MAX: usize = 80;

/// A word of another balancer, for `check` and for the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignWord {
    /// The balancers that have the word: `HAProxy, nginx`.
    pub balancer: &'static str,
    /// The key, value or phrase as written there: `option httpchk`.
    pub word: &'static str,
    /// Counterpart in a configuration of sessile, with its table: `check = "http" in [[pool]]`; empty: there is none.
    pub ours: &'static str,
    /// Where the two differ, or what to do instead; may be empty if there is a counterpart.
    pub note: &'static str,
}

impl fmt::Display for ForeignWord {
    /// Writes the translation as a hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { balancer, word, ours, note } = self;
        match (ours.is_empty(), note.is_empty()) {
            (true, _) => write!(f, "\"{word}\" of {balancer} has no counterpart: {note}"),
            (false, true) => write!(f, "\"{word}\" of {balancer} is {ours}"),
            (false, false) => write!(f, "\"{word}\" of {balancer} is {ours}; {note}"),
        }
    }
}

/// All words, grouped by balancer.
pub fn foreign_words() -> &'static [ForeignWord] {
    static WORDS: LazyLock<Vec<ForeignWord>> = LazyLock::new(|| {
        let lines = include_str!("foreign_words.txt").lines();
        lines.filter(|line| !line.starts_with('#')).filter_map(row).collect()
    });
    &WORDS
}

/// The word that a key stands for together with a key in its table, as `timeout.client`.
pub(super) fn of_key_and_below(key: &str, below: &[&str]) -> Option<&'static ForeignWord> {
    below.iter().find_map(|below| find(&format!("{key}.{below}")))
}

/// The word that a key stands for.
pub(super) fn of_key(key: &str) -> Option<&'static ForeignWord> {
    find(key)
}

/// The word that a value stands for, together with its key or by itself: `mode = "http"`, `balance = "leastconn"`.
pub(super) fn of_value(key: &str, value: &str) -> Option<&'static ForeignWord> {
    find(&format!("{key} {value}")).or_else(|| find(value))
}

/// The word that a line of another balancer begins with, at its first or second word: `timeout client 5s`,
/// `balance leastconn`.
pub(super) fn of_line(line: &str) -> Option<&'static ForeignWord> {
    let clean = |word: &'_ str| word.trim_matches(['{', '}', ';', '"', ',', ':']).to_owned();
    let words: Vec<_> = line.split_whitespace().take(WORDS_MAX + 1).map(clean).collect();
    let phrases = (0..2).flat_map(|start| (1..=WORDS_MAX).rev().map(move |count| start..start + count));
    phrases.filter_map(|phrase| words.get(phrase)).find_map(|phrase| find(&phrase.join(" ")))
}

/// Finds a word however it is spelled: `ROUND_ROBIN`, `http-check`, `timeout.client`.
fn find(word: &str) -> Option<&'static ForeignWord> {
    static BY_WORD: LazyLock<HashMap<String, &'static ForeignWord>> =
        LazyLock::new(|| foreign_words().iter().map(|row| (spelled_alike(row.word), row)).collect());
    let is_short = word.len() <= BYTES_MAX;
    is_short.then(|| BY_WORD.get(&spelled_alike(word)).copied()).flatten()
}

fn spelled_alike(word: &str) -> String {
    word.trim().to_ascii_lowercase().replace(['-', '.', ' '], "_")
}

fn row(line: &'static str) -> Option<ForeignWord> {
    let mut columns = line.split('|').map(str::trim);
    let (balancer, word, ours, note) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    Some(ForeignWord { balancer, word, ours, note })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn shown(found: Option<&ForeignWord>) -> &str {
        found.map_or("", |found| found.ours)
    }

    #[test]
    fn every_line_of_the_table_is_a_word_and_none_is_there_twice() {
        let lines = include_str!("foreign_words.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        assert_eq!(lines.count(), foreign_words().len());
        let mut seen = HashSet::new();
        for row in foreign_words() {
            assert!(seen.insert(spelled_alike(row.word)), "{}", row.word);
            assert!(!row.ours.is_empty() || !row.note.is_empty(), "{}", row.word);
            for balancer in row.balancer.split(", ") {
                assert!(["HAProxy", "nginx", "Envoy", "Traefik", "AWS"].contains(&balancer), "{balancer}");
            }
        }
        for balancer in ["HAProxy", "nginx", "Envoy", "Traefik", "AWS"] {
            let count = foreign_words().iter().filter(|row| row.balancer.contains(balancer)).count();
            assert!(count >= 15, "{balancer}: {count}");
        }
    }

    #[test]
    fn a_word_is_found_however_it_is_spelled() {
        for word in ["LEAST_REQUEST", "least-request", "least_request"] {
            assert_eq!(shown(of_value("balance", word)), "balance = \"two_choices\" in [[pool]]", "{word}");
        }
        assert_eq!(shown(of_value("mode", "http")), "http = true in [[pool]]");
        assert_eq!(shown(of_key_and_below("timeout", &["client"])), "idle_timeout = \"1h\" in [listener.limits]");
        assert_eq!(shown(of_key("entryPoints")), "[[listener]]");
        assert_eq!(of_value("balance", &"x".repeat(1000)), None);
    }

    #[test]
    fn a_line_is_known_by_its_first_words() {
        for (line, ours) in [
            ("    balance leastconn", "balance = \"least_connections\" in [[pool]]"),
            ("timeout client 1m", "idle_timeout = \"1h\" in [listener.limits]"),
            ("  option httpchk GET /health", "check = \"http\" in [[pool]]"),
            ("upstream app {", "[[pool]]"),
            ("ip_hash;", "balance = \"hash\" in [[pool]]"),
            ("random two least_conn;", "balance = \"two_choices\" in [[pool]]"),
            ("lb_policy: ROUND_ROBIN", "balance = \"hash\" in [[pool]]"),
            ("one two three", ""),
            ("", ""),
        ] {
            assert_eq!(shown(of_line(line)), ours, "{line}");
        }
    }

    #[test]
    fn a_hint_names_the_balancer_and_what_to_write_or_to_do() {
        let hint = |word: &str| find(word).unwrap().to_string();
        assert_eq!(hint("weighted_random"), "\"weighted_random\" of AWS is balance = \"random\" in [[pool]]");
        assert_eq!(hint("mode tcp"), "\"mode tcp\" of HAProxy is http = false in [[pool]]; the default");
        assert!(hint("gzip").starts_with("\"gzip\" of nginx has no counterpart: nothing is compressed; "));
    }
}
