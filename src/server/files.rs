//! Reads a configuration file and every file that it names: [`read`] for a path, [`check_text`] for a text, [`examine`]
//! for `sessile check`.
//!
//! Builds no snapshot and binds nothing. Invariant: a result holds either every problem of the text and of the files
//! that it names, each with the place of the key in the text, or everything that a snapshot is built from.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::discovery::{self, SourceProblem};
use super::own_files;
use crate::answers::{self, Texts};
use crate::clock;
use crate::config::{
    self, CheckedConfig, Config, CookieMode, FileProblem, Problem, Respond, RespondBody, RouteGoal, is_open_to_all,
};
use crate::regular_file::{self, CONFIGURATION_MAX, SECRET_MAX, WholeFile};
use crate::snapshot::{LoadedFiles, Rings, Snapshot};
use crate::sticky::cookie::KeyRing;
use crate::store::Access;
use crate::tls::Termination;

pub(super) use crate::regular_file::{FileIdentity, identity};

/// Errors for a file that is not there, or is in a folder that is not there.
const IS_MISSING: [ErrorKind; 2] = [ErrorKind::NotFound, ErrorKind::NotADirectory];

/// A configuration without problems, with every file that it names.
pub(super) struct ReadConfig {
    pub(super) config: Config,
    pub(super) loaded: LoadedFiles,
    /// How to reach the shared store; `None`: the configuration has none.
    pub(super) access: Option<Access>,
    /// What is allowed but looks wrong, each with its file.
    pub(super) warnings: Vec<String>,
}

/// Reads and checks a file and those that it names. `in_force`: keys and certificates that did not change are taken
/// from this snapshot.
pub(super) fn read(path: &Path, in_force: Option<&Snapshot>) -> Result<ReadConfig, Vec<String>> {
    let file = path.display().to_string();
    let whole = regular_file::read(path, CONFIGURATION_MAX).map_err(|error| vec![format!("{file}: {error}")])?;
    let text = whole.placed_text().map_err(|bad| vec![format!("{file}:{bad}")])?;
    check_text(&file, &text, in_force)
}

/// Checks a text and reads the files that it names. `file` is what problems call the text.
pub(super) fn check_text(file: &str, text: &str, in_force: Option<&Snapshot>) -> Result<ReadConfig, Vec<String>> {
    check_named(text, in_force, |problem| format!("{file}:{problem}"))
}

/// Checks a text and reads the files that it names. `named`: a problem with its place, as operators read it.
pub(super) fn check_named(
    text: &str,
    in_force: Option<&Snapshot>,
    named: impl Fn(&Problem) -> String,
) -> Result<ReadConfig, Vec<String>> {
    let with_place = |problems: Vec<Problem>| problems.iter().map(&named).collect();
    let (CheckedConfig { config, warnings }, loaded, access) = examine_for(text, in_force, true).map_err(with_place)?;
    Ok(ReadConfig { config, loaded, access, warnings: with_place(warnings) })
}

/// Checks a text and every file that it names, as a start would do. Returns the warnings, or all problems.
pub fn examine(text: &str) -> Result<Vec<Problem>, Vec<Problem>> {
    examine_for(text, None, true).map(|(checked, ..)| checked.warnings)
}

/// Like [`examine`], for a text that another user or another machine may serve: folders are not judged in which that
/// process writes.
pub fn examine_for_another(text: &str) -> Result<Vec<Problem>, Vec<Problem>> {
    examine_for(text, None, false).map(|(checked, ..)| checked.warnings)
}

fn examine_for(
    text: &str,
    in_force: Option<&Snapshot>,
    writes: bool,
) -> Result<(CheckedConfig, LoadedFiles, Option<Access>), Vec<Problem>> {
    let mut draft = config::draft(text, &crate::socket::resolve);
    for problem in discovery::fill(&mut draft.config, in_force.map(|snapshot| &*snapshot.config), None) {
        match problem {
            SourceProblem::Error(problem) => draft.refuse(problem),
            SourceProblem::Warning(problem) => draft.warn(problem),
        }
    }
    let read = read_files(&draft.config, in_force);
    if writes {
        let unwritable = own_files::problems(&draft.config, in_force.map(|snapshot| &*snapshot.config));
        unwritable.into_iter().for_each(|problem| draft.refuse(problem));
    }
    match read {
        Ok((loaded, access)) => {
            let of_files = loaded.tls.warnings(clock::unix_s()).into_iter().chain(loaded.rings.warnings());
            of_files.chain(access.iter().flat_map(Access::warnings)).for_each(|warning| draft.warn(warning));
            draft.finish().map(|checked| (checked, loaded, access))
        }
        Err(problems) => {
            problems.into_iter().for_each(|problem| draft.refuse(problem));
            // A problem of a file is in the list, or hidden by one of the text.
            Err(draft.finish().err().unwrap_or_default())
        }
    }
}

/// Reads every file that a configuration names: certificates and keys, and the files of the shared store.
fn read_files(config: &Config, in_force: Option<&Snapshot>) -> Result<(LoadedFiles, Option<Access>), Vec<FileProblem>> {
    all_or_problems(certificates_and_keys(config, in_force), config.store.as_ref().map(Access::read).transpose())
}

/// Reads what listeners and pools need: certificates, keys and authorities of TLS, the keys of cookies, and the contents of
/// answers.
pub fn certificates_and_keys(config: &Config, in_force: Option<&Snapshot>) -> Result<LoadedFiles, Vec<FileProblem>> {
    let tls = Termination::load(config, in_force.map(|snapshot| &*snapshot.tls), clock::now_ms);
    let rings = cookie_keys_after(config, in_force.map(|snapshot| &*snapshot.config));
    let (tls, (rings, texts)) = all_or_problems(tls, all_or_problems(rings, texts(config)))?;
    Ok(LoadedFiles { tls: Arc::new(tls), rings, texts, secret: None })
}

/// Reads the contents of answers and the pages for errors, each file once.
fn texts(config: &Config) -> Result<Texts, Vec<FileProblem>> {
    let (mut texts, mut problems) = (Texts::default(), Vec::new());
    let mut read = |table: String, key: &'static str, path: &Path| {
        if texts.of(path).is_some() {
            return;
        }
        match regular_file::read(path, answers::TEXT_MAX) {
            Ok(file) => texts.add(path.to_owned(), file.bytes),
            Err(error) => problems.push(FileProblem::new(table, key, format!("\"{}\": {error}", path.display()))),
        }
    };
    for listener in &config.listeners {
        for (number, route) in (1..).zip(&listener.routes) {
            if let RouteGoal::Respond(Respond { body: RespondBody::File(path), .. }) = &route.goal {
                read(format!("listener \"{}\": route #{number}: respond", listener.name), "body_file", path);
            }
        }
        for page in &listener.error_pages {
            read(format!("listener \"{}\": error_page", listener.name), page.key, &page.file);
        }
    }
    if problems.is_empty() { Ok(texts) } else { Err(problems) }
}

/// Reads the key files of cookies, each once.
pub fn cookie_keys(config: &Config) -> Result<Rings, Vec<FileProblem>> {
    cookie_keys_after(config, None)
}

/// Like [`cookie_keys`], where `in_force` has the keys of a file that is still to be made.
pub(super) fn cookie_keys_after(config: &Config, in_force: Option<&Config>) -> Result<Rings, Vec<FileProblem>> {
    let (mut rings, mut problems) = (Rings::default(), Vec::new());
    for (object, cookie) in config.cookies() {
        let CookieMode::Insert(insert) = &cookie.mode else { continue };
        if rings.of(&insert.keys).is_some() {
            continue;
        }
        let table = format!("{object}: cookie");
        let about = |what: String| FileProblem::new(&table, "keys", format!("\"{}\": {what}", insert.keys.display()));
        let read = match read_secret(&insert.keys) {
            // `cookie_key_file` makes it when the configuration is put in force.
            Err(missing) if insert.makes_keys && IS_MISSING.contains(&missing.kind()) => {
                keys_to_make(&insert.keys, in_force).map(|key| (key, false))
            }
            read => read,
        };
        match read {
            Err(unreadable) => problems.push(about(unreadable.to_string())),
            Ok((text, exposed)) => match KeyRing::parse(&text) {
                Ok(ring) => {
                    let warning = exposed.then(|| FileProblem::exposed(&table, "keys", &insert.keys, "a key"));
                    rings.add(insert.keys.clone(), Arc::new(ring), warning);
                }
                Err(wrong) => problems.extend(wrong.iter().map(|problem| about(problem.to_string()))),
            },
        }
    }
    if problems.is_empty() { Ok(rings) } else { Err(problems) }
}

/// The object and the path of the key file that a configuration makes; `None`: it names its files, or needs none.
pub(super) fn made_key_file(config: &Config) -> Option<(String, &Path)> {
    config.cookies().find_map(|(object, cookie)| Some((object, cookie.made_keys()?)))
}

/// The text of a key file that is to be made at this path: that of the configuration in force, if its file has another
/// path, because clients have cookies of these keys; a new key otherwise.
pub(super) fn keys_to_make(path: &Path, in_force: Option<&Config>) -> std::io::Result<String> {
    match in_force.and_then(made_key_file).filter(|(_, before)| *before != path) {
        None => random_key(),
        Some((_, before)) => regular_file::read(before, SECRET_MAX).and_then(WholeFile::text).map_err(|error| {
            let why = format!("the keys in use cannot be copied from \"{}\": {error}", before.display());
            std::io::Error::new(error.kind(), why)
        }),
    }
}

/// The text of a key file: one random key.
pub fn random_key() -> std::io::Result<String> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| std::io::Error::other("no random bytes"))?;
    Ok(HEXLOWER.encode(&key) + "\n")
}

/// The text of a file with secrets, and whether every user of this machine can read it.
fn read_secret(path: &Path) -> std::io::Result<(String, bool)> {
    let file = regular_file::read(path, SECRET_MAX)?;
    let exposed = is_open_to_all(file.mode);
    Ok((file.text()?, exposed))
}

/// Both results, or the problems of both.
fn all_or_problems<A, B, E>(a: Result<A, Vec<E>>, b: Result<B, Vec<E>>) -> Result<(A, B), Vec<E>> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err([a.err(), b.err()].into_iter().flatten().flatten().collect()),
    }
}
