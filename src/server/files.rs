//! Reads a configuration file and every file that it names: [`read`] for a path, [`check_text`] for a text, [`examine`]
//! for `sessile check`.
//!
//! Builds no snapshot and binds nothing. Invariant: a result holds either every problem of the text and of the files
//! that it names, each with the place of the key in the text, or everything that a snapshot is built from.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use data_encoding::HEXLOWER;

use super::discovery::{self, Before, SourceProblem};
use super::names::{NamesToAsk, ResolvedName};
use super::own_files;
use crate::answers::{self, Texts};
use crate::clock;
use crate::config::{
    self, CheckedConfig, Config, CookieMode, Draft, FileProblem, Problem, Respond, RespondBody, RouteGoal,
    is_open_to_all,
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
    /// Backends that were asked for by their names.
    pub(super) names: Vec<ResolvedName>,
}

/// What there is to say of an accepted text and of the files and names in it.
pub struct Examination {
    /// What is allowed but looks wrong.
    pub warnings: Vec<Problem>,
    /// Backends that are written with a name, each with all that was found of it.
    pub names: Vec<ResolvedName>,
}

/// A checked text with all that belongs to it.
struct Examined {
    checked: CheckedConfig,
    loaded: LoadedFiles,
    access: Option<Access>,
    names: Vec<ResolvedName>,
}

/// Reads and checks a file and those that it names. Keys and certificates that did not change are taken from the snapshot
/// in force.
pub(super) fn read(path: &Path, before: Before<'_>) -> Result<ReadConfig, Vec<String>> {
    let file = path.display().to_string();
    let whole = regular_file::read(path, CONFIGURATION_MAX).map_err(|error| vec![format!("{file}: {error}")])?;
    let text = whole.placed_text().map_err(|bad| vec![format!("{file}:{bad}")])?;
    check_text(&file, &text, before)
}

/// Checks a text and reads the files that it names. `file` is what problems call the text.
pub(super) fn check_text(file: &str, text: &str, before: Before<'_>) -> Result<ReadConfig, Vec<String>> {
    check_named(text, before, |problem| format!("{file}:{problem}"))
}

/// Checks a text and reads the files that it names. `named`: a problem with its place, as operators read it.
pub(super) fn check_named(
    text: &str,
    before: Before<'_>,
    named: impl Fn(&Problem) -> String,
) -> Result<ReadConfig, Vec<String>> {
    let with_place = |problems: Vec<Problem>| problems.iter().map(&named).collect();
    let Examined { checked, loaded, access, names } = examine_for(text, before, true).map_err(with_place)?;
    let CheckedConfig { config, warnings } = checked;
    Ok(ReadConfig { config, loaded, access, warnings: with_place(warnings), names })
}

/// Checks a text, every file that it names and the names of its backends, as a start would do. The error is all problems.
pub fn examine(text: &str) -> Result<Examination, Vec<Problem>> {
    let examined = examine_for(text, Before::Nothing, true)?;
    Ok(Examination { warnings: examined.checked.warnings, names: examined.names })
}

/// Like [`examine`], for a text that another user or another machine may serve: folders are not judged in which that
/// process writes. Returns the warnings.
pub fn examine_for_another(text: &str) -> Result<Vec<Problem>, Vec<Problem>> {
    examine_for(text, Before::Nothing, false).map(|examined| examined.checked.warnings)
}

fn examine_for(text: &str, before: Before<'_>, writes: bool) -> Result<Examined, Vec<Problem>> {
    let in_force = before.snapshot();
    let mut draft = config::draft(text, &crate::socket::resolve);
    let names = find_addresses(&mut draft, before);
    let read = read_files(&draft.config, in_force);
    if writes {
        let unwritable = own_files::problems(&draft.config, in_force.map(|snapshot| &*snapshot.config));
        unwritable.into_iter().for_each(|problem| draft.refuse(problem));
    }
    match read {
        Ok((loaded, access)) => {
            let of_files = loaded.tls.warnings(clock::unix_s()).into_iter().chain(loaded.rings.warnings());
            of_files.chain(access.iter().flat_map(Access::warnings)).for_each(|warning| draft.warn(warning));
            draft.finish().map(|checked| Examined { checked, loaded, access, names })
        }
        Err(problems) => {
            problems.into_iter().for_each(|problem| draft.refuse(problem));
            // A problem of a file is in the list, or hidden by one of the text.
            Err(draft.finish().err().unwrap_or_default())
        }
    }
}

/// Gives pools the backends that their sources name, and backends the addresses of their names, asked for at the same time.
/// Returns the names that were asked for.
fn find_addresses(draft: &mut Draft<'_>, before: Before<'_>) -> Vec<ResolvedName> {
    let names = NamesToAsk::of(&mut draft.config, before);
    let (problems, readings) = thread::scope(|scope| {
        let asked = thread::Builder::new().name("names".to_owned()).spawn_scoped(scope, || names.ask());
        let problems = discovery::fill(&mut draft.config, before);
        (problems, asked.ok().and_then(|asked| asked.join().ok()).unwrap_or_default())
    });
    for problem in problems {
        match problem {
            SourceProblem::Error(problem) => draft.refuse(problem),
            SourceProblem::Warning(problem) => draft.warn(problem),
        }
    }
    let (warnings, names) = names.answered(&readings, &mut draft.config);
    warnings.into_iter().for_each(|warning| draft.warn(warning));
    names
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
