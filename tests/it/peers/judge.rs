//! Reads what the programs print, and judges one against another by rules that a program can apply.
//!
//! Knows no mistake. Invariant: each rule finds a message that breaks it (`each_rule_finds_what_breaks_it`).

use std::collections::BTreeSet;
use std::process::Output;

/// The longest message and the longest hint, in characters: three lines of a terminal.
const CHARACTERS_MAX: usize = 240;

/// What a program said of one file.
#[derive(Debug, Clone, Default)]
pub struct Said {
    pub code: i32,
    pub messages: Vec<Message>,
}

/// One problem.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub text: String,
    /// What the program says that should be written instead, apart from the message.
    pub hint: Option<String>,
    /// What stands in the file at that place.
    pub there: Option<There>,
}

/// The words of a file at one place.
#[derive(Debug, Clone)]
pub struct There {
    /// The key of the line.
    pub key: String,
    /// The word at that place, or the last one before.
    pub word: String,
}

impl Said {
    /// Number of problems in different lines; those without a line differ by their text.
    fn distinct(&self) -> usize {
        let place = |message: &Message| message.line.map_or_else(|| message.text.clone(), |line| line.to_string());
        self.messages.iter().map(place).collect::<BTreeSet<_>>().len()
    }

    /// True if a message says what is allowed or what to do.
    fn has_remedy(&self) -> bool {
        const WORDS: [&str; 15] = [
            "did you mean",
            "must be",
            "has to be",
            "supports",
            "expects",
            "expecting",
            " expected",
            "supported",
            "please",
            "(use ",
            "not within",
            "maximum value",
            "is not one of",
            "is not between",
            "is not true or false",
        ];
        self.messages.iter().any(|one| one.hint.is_some() || WORDS.iter().any(|word| one.text.contains(word)))
    }
}

/// What breaks a rule that needs no other program to compare with.
pub fn alone(ours: &Said) -> Vec<String> {
    let mut found = Vec::new();
    if ours.code == 0 || ours.messages.is_empty() {
        found.push(format!("the file is accepted: {ours:?}"));
    }
    for Message { text, hint, there, .. } in &ours.messages {
        let longest = [text, hint.as_ref().unwrap_or(text)].map(|text| text.chars().count()).into_iter().max();
        if longest > Some(CHARACTERS_MAX) {
            found.push(format!("too long: {text} {hint:?}"));
        }
        if let Some(There { key, word }) = there
            && !text.contains(word.as_str())
            && (key.is_empty() || !text.to_lowercase().contains(key.as_str()))
        {
            found.push(format!("names neither {word} nor {key}: {text}"));
        }
    }
    found
}

/// In what a program is worse than another one for the same mistake.
pub fn beside(ours: &Said, theirs: &Said) -> Vec<String> {
    let mut found = Vec::new();
    if theirs.code != 0 && ours.code == 0 {
        found.push(format!("the file is accepted; the other says {theirs:?}"));
    }
    if ours.distinct() < theirs.distinct() {
        found.push(format!("{} problems, the other has {theirs:?}", ours.distinct()));
    }
    let has_line = theirs.messages.iter().any(|message| message.line.is_some());
    let is_placed = |message: &Message| message.line.is_some() && message.column.is_some();
    if has_line && !ours.messages.iter().all(is_placed) {
        found.push(format!("no line and column in {ours:?}"));
    }
    if theirs.has_remedy() && !ours.has_remedy() {
        found.push(format!("no remedy in {ours:?}, the other has {theirs:?}"));
    }
    found
}

/// Reads `FILE:LINE:COLUMN: MESSAGE`, `    hint: HINT` and, for a file that cannot be read, `sessile: FILE: MESSAGE`.
pub fn sessile(output: &Output, file: &str, text: &str) -> Said {
    let mut messages: Vec<Message> = Vec::new();
    for line in lines(&output.stdout) {
        if let Some(hint) = line.strip_prefix("    hint: ") {
            messages.last_mut().expect("a hint follows a problem").hint = Some(hint.to_owned());
        } else if !line.starts_with(&format!("{file}: refused for ")) {
            messages.push(placed(&line, file, text));
        }
    }
    let error = lines(&output.stderr).into_iter();
    messages.extend(error.filter_map(|line| Some(placed(line.strip_prefix("sessile: ")?, file, ""))));
    Said { code: output.status.code().unwrap_or(-1), messages }
}

fn placed(line: &str, file: &str, text: &str) -> Message {
    let place = line.strip_prefix(&format!("{file}:")).map(|rest| rest.splitn(3, ':').collect::<Vec<_>>());
    match place.as_deref() {
        Some(&[line, column, message]) if line.parse::<usize>().is_ok() => {
            let (line, column) = (line.parse().ok(), column.parse().ok());
            let there = line.zip(column).and_then(|(line, column)| there(text, line, column));
            Message { line, column, text: message.trim().to_owned(), hint: None, there }
        }
        _ => Message { text: line.to_owned(), ..Message::default() },
    }
}

/// What stands at a place; `None` at a comment, at an empty line, at the end of the file, and at a bracket, where a table
/// as a whole is meant.
fn there(text: &str, line: usize, column: usize) -> Option<There> {
    let is_last = line == text.lines().count();
    let line = text.lines().nth(line - 1)?;
    let is_gap = |letter: char| letter.is_whitespace() || ",]}=".contains(letter);
    let at = line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at);
    let rest = &line[at..];
    let is_end = is_last && rest.is_empty();
    if line.trim().is_empty() || is_end || line.starts_with('#') || rest.starts_with(['[', '{', '}']) {
        return None;
    }
    let key = line.split(['=', '.']).next().unwrap_or_default().trim().trim_start_matches('[').to_lowercase();
    let before = line[..at].trim_end_matches(is_gap);
    let word = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None if rest.starts_with(|letter| !is_gap(letter)) => rest.split(is_gap).next().unwrap_or_default(),
        None => before.rsplit(is_gap).next().unwrap_or_default(),
    };
    // A message shows what a terminal does not.
    let visible = |letter: char| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] };
    Some(There { key, word: word.chars().flat_map(visible).collect() })
}

/// Reads `[ALERT] (PID) : config : … [FILE:LINE] …`; sums of what was said before are left out.
pub fn haproxy(output: &Output) -> Said {
    const SUMS: [&str; 3] = ["Error(s) found in", "Fatal errors found", "Failed to initialize server"];
    let is_sum = |line: &String| SUMS.iter().any(|sum| line.contains(sum));
    let is_message = |line: &String| ["[ALERT]", "[WARNING]"].iter().any(|kind| line.starts_with(kind));
    let said: Vec<_> = [lines(&output.stderr), lines(&output.stdout)].concat();
    let mut found: Vec<_> = said.iter().filter(|line| is_message(line) && !is_sum(line)).cloned().collect();
    if found.is_empty() {
        found = said.into_iter().filter(|line| line.contains("will not start")).collect();
    }
    let message = |text: String| {
        let text = text.split_once(" : ").map_or(text.clone(), |(_, text)| text.to_owned());
        Message { line: number_behind(&text, "haproxy.cfg:"), text, ..Message::default() }
    };
    Said { code: output.status.code().unwrap_or(-1), messages: found.into_iter().map(message).collect() }
}

/// Reads `… [emerg] … in FILE:LINE`.
pub fn nginx(output: &Output) -> Said {
    let is_message = |line: &String| ["[emerg]", "[alert]", "[crit]", "[warn]"].iter().any(|kind| line.contains(kind));
    let messages = lines(&output.stderr).into_iter().filter(is_message);
    let message = |text: String| Message { line: number_behind(&text, "nginx.conf:"), text, ..Message::default() };
    Said { code: output.status.code().unwrap_or(-1), messages: messages.map(message).collect() }
}

fn number_behind(text: &str, mark: &str) -> Option<usize> {
    let digits = text.split_once(mark)?.1;
    digits.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

fn printed(code: i32, out: &str, err: &str) -> Output {
    let status = std::os::unix::process::ExitStatusExt::from_raw(code << 8);
    Output { status, stdout: out.into(), stderr: err.into() }
}

#[test]
fn what_the_programs_print_is_read() {
    let text = "a = 1\nbind = \"x:70000\" # here\n[[pool]]\n";
    let out = "f.toml:2:8: bind \"x:70000\" is bad\n    hint: 65535\nf.toml:3:1: pool: has no name\nf.toml: refused for 2 \
               problems\n";
    let ours = sessile(&printed(64, out, ""), "f.toml", text);
    let [first, second] = &ours.messages[..] else { panic!("{ours:?}") };
    assert_eq!((ours.code, first.line, first.column), (64, Some(2), Some(8)));
    assert_eq!((first.text.as_str(), first.hint.as_deref()), ("bind \"x:70000\" is bad", Some("65535")));
    let there = first.there.as_ref().unwrap();
    assert_eq!((there.key.as_str(), there.word.as_str()), ("bind", "x:70000"));
    assert!(second.there.is_none() && second.hint.is_none(), "a table");
    let unread = sessile(&printed(64, "", "sessile: f.toml: No such file\n"), "f.toml", "");
    assert_eq!((unread.messages.len(), unread.messages[0].line), (1, None));

    let err = "[NOTICE]   (1) : haproxy version is 2\n[ALERT]    (1) : config : parsing [haproxy.cfg:9] : 'bind' : bad\n\
               [ALERT]    (1) : config : Proxy 'web': unable to find\n[ALERT]    (1) : config : Error(s) found in\n";
    let theirs = haproxy(&printed(1, "", err));
    let found: Vec<_> = theirs.messages.iter().map(|message| message.line).collect();
    assert_eq!((found, theirs.distinct()), (vec![Some(9), None], 2));
    assert_eq!(haproxy(&printed(2, "it will not start (no listener)\n", "")).distinct(), 1);

    let theirs =
        nginx(&printed(1, "", "nginx: [emerg] unknown directive \"x\" in /d/nginx.conf:8\nnginx: test failed\n"));
    assert_eq!((theirs.messages.len(), theirs.messages[0].line), (1, Some(8)));
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let there = There { key: "bind".to_owned(), word: "x:1".to_owned() };
    let text = "bind \"x:1\" is bad".to_owned();
    let message = Message { line: Some(2), column: Some(8), text, hint: None, there: Some(there) };
    let good = Said { code: 64, messages: vec![message.clone()] };
    let with = |change: &dyn Fn(&mut Message)| {
        let mut said = good.clone();
        change(&mut said.messages[0]);
        said
    };
    let theirs = Said { code: 1, messages: vec![Message { column: None, ..message.clone() }] };
    assert!(alone(&good).is_empty() && beside(&good, &theirs).is_empty());

    assert_eq!(alone(&Said::default()).len(), 1, "accepted");
    assert_eq!(alone(&with(&|message| message.text = "it is bad".to_owned())).len(), 1, "not named");
    assert_eq!(alone(&with(&|message| message.hint = Some("x".repeat(241)))).len(), 1, "too long");
    assert_eq!(alone(&with(&|message| message.text += &" x:1".repeat(60))).len(), 1, "too long");

    let accepted = Said { code: 0, ..good.clone() };
    assert_eq!(beside(&accepted, &theirs).len(), 1, "accepted");
    let second = Message { line: Some(3), ..message.clone() };
    let two = Said { code: 1, messages: vec![message, second] };
    assert_eq!(beside(&good, &two).len(), 1, "fewer problems");
    assert!(beside(&two, &good).is_empty());
    for placeless in [with(&|message| message.line = None), with(&|message| message.column = None)] {
        assert_eq!(beside(&placeless, &theirs).len(), 1, "no place");
    }
    let mut advice = theirs;
    advice.messages[0].text = "unknown keyword; did you mean 'bind' maybe ?".to_owned();
    assert_eq!(beside(&good, &advice).len(), 1, "no remedy");
    assert!(beside(&with(&|message| message.hint = Some("write bind".to_owned())), &advice).is_empty());
}
