//! [`check`]: turns the text of a file into a [`Config`], with every default, bound and rule; [`draft`] leaves room for
//! the problems of files that the text names.
//!
//! Reads no file and resolves no name itself. The tables are read one by one (`process`, `listener`, `pool`, `health`,
//! `tls`, `cookie`, `headers`, `store`, `split`). A value that cannot be read is replaced by its default, so that the rules between tables
//! (`whole`, `group`, `reach`, `browser`, `tie`) see every object and one run reports all problems.
//!
//! Invariant: [`check`] returns a `Config` only if it found no error.

mod browser;
mod check_kind;
mod cookie;
mod discover;
mod dns;
mod group;
mod headers;
mod health;
mod listener;
mod many;
mod pool;
mod process;
mod queue;
mod reach;
mod request_limits;
mod route;
mod split;
mod stick_table;
mod store;
mod tie;
mod timeouts;
mod tls;
mod whole;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::file::Document;
use super::keys;
use super::problem::{Bad, Problems};
use super::{Config, FileProblem, Problem, Written};

/// A configuration without errors, and its warnings.
#[derive(Debug)]
pub struct CheckedConfig {
    /// The configuration, with defaults filled in.
    pub config: Config,
    /// Settings that are allowed but probably a mistake.
    pub warnings: Vec<Problem>,
}

/// Checks the text of a file; `resolve` resolves `localhost:port` and `*:port`. Returns the configuration, or all errors
/// in it.
///
/// ```
/// let no_names = |_: &str| Err(std::io::Error::other("not here"));
/// let text = "
/// [[listener]]
/// name = 'web'
/// bind = '0.0.0.0:80'
/// pool = 'app'
/// [[pool]]
/// name = 'app'
/// backend = [{ name = 'a', address = '10.0.0.300:80' }]
/// ";
/// let problems = sessile::config::check(text, &no_names).unwrap_err();
/// assert!(problems[0].to_string().starts_with(
///     "8:36: pool \"app\": backend \"a\": address \"10.0.0.300:80\" is not an address"
/// ));
/// assert!(sessile::config::check(&text.replace("300", "30"), &no_names).is_ok());
/// ```
pub fn check(text: &str, resolve: &dyn Fn(&str) -> io::Result<Vec<SocketAddr>>) -> Result<CheckedConfig, Vec<Problem>> {
    draft(text, resolve).finish()
}

/// A configuration that is read and not accepted yet: files that it names may have problems, too.
pub struct Draft<'a> {
    /// The configuration. Where the text has errors, defaults stand in for what cannot be read.
    pub config: Config,
    problems: Problems<'a>,
    /// True if the text has no syntax error.
    whole: bool,
}

/// Reads the text of a file like [`check`], and accepts or refuses nothing.
pub fn draft<'a>(text: &'a str, resolve: &dyn Fn(&str) -> io::Result<Vec<SocketAddr>>) -> Draft<'a> {
    let problems = Problems::new(text);
    let is_empty = text.trim().is_empty();
    if is_empty {
        problems.error(0, "", Bad::new("the file is empty").hint("a file has a [[listener]] and a [[pool]] at least"));
    } else if !text.ends_with('\n') {
        problems.error(
            text.len(),
            "",
            Bad::new("the file does not end with a newline: it may be cut short")
                .hint("look for what is missing, and end the last line"),
        );
    }
    let mut document = Document::parse(text, &problems);
    document.whole &= !is_empty;
    let (config, whole) = (convert(&document, resolve, &problems), document.whole);
    Draft { config: Config { written: Written::of(text), ..config }, problems, whole }
}

impl Draft<'_> {
    /// Adds an error of a file that the text names.
    pub fn refuse(&self, problem: FileProblem) {
        self.problems.file_error(problem, self.whole);
    }

    /// Adds a warning about a file that the text names.
    pub fn warn(&self, problem: FileProblem) {
        self.problems.file_warning(problem);
    }

    /// The configuration with all warnings, or all errors, in the order of the text.
    pub fn finish(self) -> Result<CheckedConfig, Vec<Problem>> {
        let Self { config, problems, .. } = self;
        problems.finish().map(|warnings| CheckedConfig { config, warnings })
    }
}

fn convert(
    document: &Document<'_>,
    resolve: &dyn Fn(&str) -> io::Result<Vec<SocketAddr>>,
    problems: &Problems<'_>,
) -> Config {
    let top = document.top(problems);
    let process = process::process(&top);
    let tls = tls::rules(&top);
    let limits = process::limits(&top);
    let store = store::store(&top);
    let mut splits: Vec<_> = top.children("split", &keys::SPLIT).into_iter().map(split::split).collect();
    let named: Rc<[_]> = splits.iter().map(|split| split.config.clone()).collect();
    let listeners: Vec<_> = top
        .children("listener", &keys::LISTENER)
        .into_iter()
        .map(|section| listener::listener(section, resolve, &named))
        .collect();
    let mut pools: Vec<_> =
        top.children("pool", &keys::POOL).into_iter().map(|section| pool::pool(section, resolve)).collect();
    split::share_keys(&mut splits, &pools);
    let of_splits = splits.iter_mut().filter_map(|split| split.config.cookie_mut());
    let cookies = pools.iter_mut().filter_map(|pool| pool.config.cookie.as_mut()).chain(of_splits);
    cookie::name_key_file(cookies, process.stick_table_file.as_deref());
    if document.whole {
        whole::check(&top, &process, &listeners, &pools);
        reach::check(&top, &listeners, &pools);
        split::check(&splits, &pools, &listeners);
        browser::check(&listeners, &pools, &splits);
        store::check_use(&top, store.as_ref(), pools.iter().map(|pool| &pool.config));
    }
    Config {
        process,
        tls,
        limits,
        store,
        listeners: listeners.into_iter().map(|listener| listener.config).collect(),
        pools: pools.into_iter().map(|pool| pool.config).collect(),
        splits: splits.into_iter().map(|split| split.config).collect(),
        written: Written::default(),
    }
}
