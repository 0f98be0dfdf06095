//! No file of `src/` depends on itself by way of others.
//!
//! File A depends on file B where its code uses an item that B declares, as `names` defines it: tests, the declaration
//! of child modules and plain re-exports do not count. Nor does the use of a module above: a module and its parts are
//! one thing that was cut into files, and a part works on the types of its whole. So `pool/table.rs` may name `Pool` of
//! `pool/mod.rs`, which holds a `PoolTable`; but neither parts, nor files side by side, nor folders depend on each other
//! in a circle. Invariant: what is found is the shortest cycle, with the items and lines that make it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::names::{Names, Use};
use super::source::Source;

#[test]
fn no_file_depends_on_itself_by_way_of_others() {
    let uses = Names::of(&Source::shipped()).uses();
    let found: Vec<_> = cycles(&uses).iter().map(|cycle| shown(cycle)).collect();
    assert!(found.is_empty(), "{} cycles between files\n\n{}", found.len(), found.join("\n\n"));
}

/// For each group of files that reach each other, the shortest cycle through its first file that has one; the search
/// goes on without its last step until no cycle is left.
fn cycles(uses: &[Use]) -> Vec<Vec<&Use>> {
    let mut next: BTreeMap<&str, BTreeMap<&str, &Use>> = BTreeMap::new();
    for used in uses.iter().filter(|used| !is_above(&used.to, &used.from)) {
        next.entry(&used.from).or_default().entry(&used.to).or_insert(used);
    }
    let files: Vec<&str> = next.keys().copied().collect();
    let mut cycles = Vec::new();
    while let Some(cycle) = files.iter().filter_map(|file| shortest(file, &next)).min_by_key(Vec::len) {
        let last = cycle.last().expect("a cycle has steps");
        next.get_mut(last.from.as_str()).expect("a known file").remove(last.to.as_str());
        cycles.push(cycle);
    }
    cycles
}

/// True where a file declares a module above the module of another file.
fn is_above(file: &str, other: &str) -> bool {
    let module = file.trim_end_matches(".rs");
    let folder = module.strip_suffix("/mod").unwrap_or(module);
    other != file && other.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The shortest way from a file back to itself.
fn shortest<'a>(file: &str, next: &BTreeMap<&str, BTreeMap<&str, &'a Use>>) -> Option<Vec<&'a Use>> {
    let (mut seen, mut queue) = (BTreeSet::new(), VecDeque::from([(file, Vec::new())]));
    while let Some((at, way)) = queue.pop_front() {
        for (to, used) in next.get(at).into_iter().flatten() {
            let way = [&way[..], &[*used]].concat();
            if *to == file {
                return Some(way);
            }
            if seen.insert(*to) {
                queue.push_back((to, way));
            }
        }
    }
    None
}

fn shown(cycle: &[&Use]) -> String {
    let step = |used: &&Use| format!("{}:{} uses {} of {}", used.from, used.line, used.item, used.to);
    cycle.iter().map(step).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_cycle_is_found_through_re_exports_and_a_parent_that_only_passes_on_is_in_none() {
    let source = |path: &str, code: &str| Source {
        path: path.to_owned(),
        text: String::new(),
        code: code.to_owned(),
        test_lines: 0,
        is_test: false,
    };
    let mut sources = vec![
        source("lib.rs", "pub mod a; pub mod b;"),
        source("a/mod.rs", "mod inner; pub use self::inner::Inner; pub struct Outer;"),
        source("a/inner.rs", "use super::Outer; pub struct Inner(Outer);"),
        source("b.rs", "use crate::a; pub fn b() -> a::Inner { todo() }"),
    ];
    assert_eq!(cycles(&Names::of(&sources).uses()), Vec::<Vec<&Use>>::new());
    sources[2].code += " use crate::{b::{b as call}};";
    let uses = Names::of(&sources).uses();
    let found: Vec<_> = cycles(&uses).into_iter().flatten().map(|used| (&*used.from, &*used.item)).collect();
    assert_eq!(found, [("a/inner.rs", "b"), ("b.rs", "Inner")]);
    assert!(is_above("a/mod.rs", "a/inner/deep.rs") && is_above("a.rs", "a/inner.rs"));
    assert!(!is_above("a/inner.rs", "a/mod.rs") && !is_above("a/mod.rs", "ab.rs"));
}
