//! Rust sources as the tests of the shape read them: product files, code without comments and literals, tokens.
//!
//! This is a lexer, not a parser: it finds comments, literals, test items and the brackets between them. Invariant: a
//! line of `code` has the number that it has in the file.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of `src/`.
pub struct Source {
    /// Path below `src/`.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// The text with comments, literals and `#[cfg(test)]` items as blanks.
    pub code: String,
    /// Lines of `#[cfg(test)]` items.
    pub test_lines: usize,
    /// True for unit tests: `x/tests.rs`, `x/tests/`.
    pub is_test: bool,
}

/// A word or a mark of the code, and its line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token<'a> {
    pub text: &'a str,
    pub line: usize,
}

impl Source {
    /// Every Rust file of `src/`, by path.
    pub fn all() -> Vec<Self> {
        let root = repository().join("src");
        let mut sources: Vec<_> = files_below(&root, "rs").iter().map(|file| Self::read(&root, file)).collect();
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources
    }

    /// Every Rust file of `src/` but unit tests, by path.
    pub fn product() -> Vec<Self> {
        Self::all().into_iter().filter(|source| !source.is_test).collect()
    }

    /// Every Rust file that is part of the library: no unit tests and no module that only tests compile.
    pub fn shipped() -> Vec<Self> {
        let product = Self::product();
        let hidden: Vec<_> = product.iter().flat_map(Self::test_modules).collect();
        let is_hidden = |path: &str| hidden.iter().any(|module| belongs(path, module));
        product.into_iter().filter(|source| !is_hidden(&source.path)).collect()
    }

    /// Modules below this file that only tests compile, as paths without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let folder =
            ["mod", "lib"].iter().find_map(|name| path.strip_suffix(name)).map_or(format!("{path}/"), str::to_owned);
        let items = self.text.split(TEST_MARK).skip(1).filter_map(|item| item.split_once(';'));
        let names = items.filter_map(|(item, _)| item.trim_start().trim_start_matches("pub ").strip_prefix("mod "));
        names.filter(|name| name.chars().all(is_word)).map(|name| format!("{folder}{name}")).collect()
    }

    fn read(root: &Path, file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a text");
        let path = file.strip_prefix(root).expect("a path below src").to_str().expect("UTF-8").to_owned();
        let is_test = path.split('/').any(|part| part == "tests" || part == "tests.rs");
        let (code, test_lines) = without_tests(&without_literals(&text));
        Self { path, text, code, test_lines, is_test }
    }

    /// Words, numbers and marks of the code, `::` as one mark.
    pub fn tokens(&self) -> Vec<Token<'_>> {
        tokens(&self.code)
    }
}

const TEST_MARK: &str = "#[cfg(test)]";

/// True for `a.rs`, `a/mod.rs` and everything below `a/` where the module is `a`.
pub fn belongs(file: &str, module: &str) -> bool {
    file.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files with an extension in a folder and below.
pub fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|own| own == extension) {
            files.push(path);
        }
    }
    files
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut line, mut rest) = (Vec::new(), 1, code);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if is_word(first) => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let (text, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(Token { text, line });
        }
        line += usize::from(first == '\n');
        rest = after;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with everything but line ends of comments and literals as blanks.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hidden = literal(rest, code.chars().next_back());
        let length = hidden.unwrap_or(first.len_utf8());
        let (part, after) = rest.split_at(length);
        if hidden.is_some() {
            code.extend(part.chars().map(|c| if c == '\n' { c } else { ' ' }));
        } else {
            code.push_str(part);
        }
        rest = after;
    }
    code
}

/// The length of the comment or literal that a text begins with; `before` is the character in front of it.
fn literal(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    if before.is_some_and(is_word) {
        return None; // inside a word, which may end in `b` or `r`
    }
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    let (letters, body) = text.split_at(prefix);
    if letters.contains('r') {
        let hashes = body.find(|c| c != '#')?;
        if body[hashes..].starts_with('"') {
            let end = format!("\"{}", &body[..hashes]);
            let inner = prefix + hashes + 1;
            return Some(text[inner..].find(&end).map_or(text.len(), |at| inner + at + end.len()));
        }
        return None;
    }
    match body.chars().next()? {
        '"' => Some(prefix + quoted(body, '"')),
        '\'' if body[1..].starts_with('\\') || body.chars().nth(2) == Some('\'') => Some(prefix + quoted(body, '\'')),
        _ => None,
    }
}

/// The length of a literal from its first quote to its last.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The code without its items for tests only, and how many lines those have.
fn without_tests(code: &str) -> (String, usize) {
    let mut product = String::with_capacity(code.len());
    let (mut lines, mut rest) = (0, code);
    while let Some(at) = rest.find(TEST_MARK) {
        let (before, item) = rest.split_at(at);
        product.push_str(before);
        let (hidden, after) = item.split_at(item_length(item));
        product.extend(hidden.chars().map(|c| if c == '\n' { c } else { ' ' }));
        lines += hidden.lines().count();
        rest = after;
    }
    (product + rest, lines)
}

/// The length of an item: to its semicolon, or to the brace that closes its first one.
fn item_length(code: &str) -> usize {
    match code.find(['{', ';']) {
        Some(at) if code[at..].starts_with('{') => at + block_length(&code[at..]),
        Some(at) => at + 1,
        None => code.len(),
    }
}

/// The length of a block from its first brace to the brace that closes it.
pub fn block_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, mark) in code.match_indices(['{', '}']) {
        depth += if mark == "{" { 1 } else { -1 };
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn comments_literals_and_tests_are_no_code() {
    let text = "use a::b; // use c\nlet s = \"use d\"; let c = '\"'; fn f<'a>() { g(b'\\'') } /* h */ r#\"i\"j\"#\n\
                #[cfg(test)]\nmod tests {\n    fn k() {}\n}\nstruct L;\n";
    let (code, lines) = without_tests(&without_literals(text));
    assert_eq!((code.lines().count(), lines), (text.lines().count(), 4));
    let words: Vec<_> = tokens(&code).iter().map(|token| token.text).filter(|text| text.len() == 1).collect();
    assert_eq!(words.concat(), "ab;s=;c=;f<'a>(){g()}L;");
    assert_eq!(tokens(&code).last().map(|token| token.line), Some(7));
}
