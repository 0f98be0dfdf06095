//! Which file's names a file uses: every path of the code followed to the file that declares the item.
//!
//! A use is an item of another file that the code names, in a `use` or by a path (`config::Pool`, `super::now()`). The
//! declaration of a child module is none; a re-export is none unless the file itself names the item, too. Methods and
//! fields are not followed. Invariant: a path is followed through every re-export.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Token};

/// A module: a file, or `crate` for `lib.rs`.
#[derive(Default)]
struct Module {
    file: String,
    /// Names of child modules.
    children: BTreeSet<String>,
    /// Items that the file declares.
    items: BTreeSet<String>,
    /// Names that `use` brings in, and what they stand for, as written.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths of the code, with their lines.
    paths: Vec<(Vec<String>, usize)>,
}

/// One use of an item that another file declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// Path of the file that uses it.
    pub from: String,
    /// Path of the file that declares it.
    pub to: String,
    /// The item.
    pub item: String,
    /// Line in `from`.
    pub line: usize,
}

/// What a path stands for.
enum Found<'a> {
    Module,
    Item(&'a Module, String),
}

/// The modules of the crate, by path from the root.
pub struct Names(BTreeMap<Vec<String>, Module>);

impl Names {
    pub fn of(sources: &[Source]) -> Self {
        let modules = sources.iter().filter(|source| source.path != "main.rs");
        Self(modules.map(|source| (module_path(&source.path), read(source))).collect())
    }

    /// Every use of another file, once for each item.
    pub fn uses(&self) -> Vec<Use> {
        let mut uses = BTreeMap::new();
        for (own, module) in &self.0 {
            for (path, line) in &module.paths {
                let Some(Found::Item(declares, item)) = self.find(own, path, 0) else { continue };
                if declares.file != module.file {
                    uses.entry((&module.file, &declares.file, item)).or_insert(*line);
                }
            }
        }
        let flat = |((from, to, item), line): ((&String, &String, String), usize)| Use {
            from: from.clone(),
            to: to.clone(),
            item,
            line,
        };
        uses.into_iter().map(flat).collect()
    }

    /// What a path means in a module.
    fn find(&self, own: &[String], path: &[String], depth: usize) -> Option<Found<'_>> {
        if depth > 8 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => return self.descend(&[], rest, depth),
            "self" => return self.descend(own, rest, depth),
            "super" => return self.find_above(own, rest, depth),
            _ => {}
        }
        let module = self.0.get(own)?;
        let known = module.children.contains(first) || module.items.contains(first);
        if known || module.imports.contains_key(first) { self.descend(own, path, depth) } else { None }
    }

    fn find_above(&self, own: &[String], rest: &[String], depth: usize) -> Option<Found<'_>> {
        let above = &own[..own.len().checked_sub(1)?];
        match rest.split_first() {
            Some((first, rest)) if first == "super" => self.find_above(above, rest, depth),
            _ => self.descend(above, rest, depth),
        }
    }

    /// What a path means from a module on: children first, then items, then what is imported.
    fn descend(&self, at: &[String], path: &[String], depth: usize) -> Option<Found<'_>> {
        let module = self.0.get(at)?;
        let Some((first, rest)) = path.split_first() else { return Some(Found::Module) };
        let is_last = rest.is_empty();
        if module.children.contains(first) && !(is_last && self.is_item(module, first)) {
            return self.descend(&[at, std::slice::from_ref(first)].concat(), rest, depth);
        }
        if module.items.contains(first) {
            return Some(Found::Item(module, first.clone()));
        }
        let import = module.imports.get(first)?;
        self.find_import(at, first, &[&import[..], rest].concat(), depth + 1)
    }

    /// Follows an import; its first name is a child, an item or the start of a path, never the import itself.
    fn find_import(&self, at: &[String], name: &str, path: &[String], depth: usize) -> Option<Found<'_>> {
        let module = self.0.get(at)?;
        if path.first().is_some_and(|first| first == name) && !module.children.contains(name) {
            return None; // a crate of the registry
        }
        self.find(at, path, depth)
    }

    /// True where a name of a child module is an item's, too.
    fn is_item(&self, module: &Module, name: &str) -> bool {
        module.items.contains(name) || module.imports.contains_key(name)
    }
}

/// `a/b.rs`, `a/b/mod.rs` → `a::b`; `lib.rs` → the root.
fn module_path(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

fn read(source: &Source) -> Module {
    let tokens = source.tokens();
    let mut module = Module { file: source.path.clone(), ..Module::default() };
    let (mut at, mut depth) = (0, 0);
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "mod" if tokens.get(at + 2).is_some_and(|after| after.text == ";") => {
                module.children.insert(tokens[at + 1].text.to_owned());
                at += 1;
            }
            "use" => {
                let is_public = at > 0 && ["pub", ")"].contains(&tokens[at - 1].text);
                let mut leaves = Vec::new();
                at = read_use(&tokens, at + 1, &[], &mut leaves);
                for (name, path) in leaves {
                    if !is_public {
                        module.paths.push((path.clone(), token.line));
                    }
                    module.imports.insert(name, path);
                }
                continue;
            }
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" if depth == 0 => {
                module.items.extend(tokens.get(at + 1).map(|name| name.text.to_owned()));
            }
            word if is_name(word) && !follows_path(&tokens, at) => {
                let path = read_path(&tokens, at);
                at += 2 * path.len() - 2;
                module.paths.push((path, token.line));
            }
            _ => {}
        }
        at += 1;
    }
    module
}

/// Reads one tree of a `use`; adds each name that it brings in with its path. Returns where the tree ends.
fn read_use(tokens: &[Token<'_>], mut at: usize, head: &[String], leaves: &mut Vec<(String, Vec<String>)>) -> usize {
    let mut path = head.to_vec();
    loop {
        match tokens[at].text {
            "{" => {
                while tokens[at].text != "}" {
                    at += 1;
                    if tokens[at].text != "}" {
                        at = read_use(tokens, at, &path, leaves);
                    }
                }
                return at + 1;
            }
            "as" => {
                leaves.push((tokens[at + 1].text.to_owned(), path));
                return at + 2;
            }
            "," | "}" | ";" => {
                if path.len() > 1 {
                    path.retain(|name| name != "self");
                }
                leaves.push((path.last().cloned().unwrap_or_default(), path));
                return at;
            }
            "::" | "*" => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
}

/// The names of a path from a token on.
fn read_path(tokens: &[Token<'_>], mut at: usize) -> Vec<String> {
    let mut path = vec![tokens[at].text.to_owned()];
    while tokens.get(at + 1).is_some_and(|token| token.text == "::") {
        match tokens.get(at + 2) {
            Some(token) if is_name(token.text) => path.push(token.text.to_owned()),
            _ => break,
        }
        at += 2;
    }
    path
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// True for a field, a method, or the rest of a path that was read or cannot be.
fn follows_path(tokens: &[Token<'_>], at: usize) -> bool {
    at > 0 && ["::", "."].contains(&tokens[at - 1].text)
}
