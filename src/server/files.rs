//! Reads a configuration file and every file that it names: [`read`] for a path, [`check_text`] for a text.
//!
//! Builds no snapshot and binds nothing. Invariant: a result holds either every problem, each with its place, or
//! everything that a snapshot is built from.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::clock;
use crate::config::{self, CheckedConfig, Config, CookieMode};
use crate::snapshot::{LoadedFiles, Rings, Snapshot};
use crate::sticky::cookie::KeyRing;
use crate::store::Access;
use crate::tls::Termination;

/// Device, inode and time of creation, if the file system has it: the inode of a file that was replaced is reused at
/// once.
pub(super) type FileIdentity = (u64, u64, Option<SystemTime>);

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
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{file}: {error}")])?;
    check_text(&file, &text, in_force)
}

/// Checks a text and reads the files that it names. `file` is what problems call the text.
pub(super) fn check_text(file: &str, text: &str, in_force: Option<&Snapshot>) -> Result<ReadConfig, Vec<String>> {
    let with_place = |problem: &config::Problem| format!("{file}:{problem}");
    let CheckedConfig { config, warnings } = config::check(text, &crate::socket::resolve)
        .map_err(|problems| problems.iter().map(with_place).collect::<Vec<_>>())?;
    let without_place = |problem: String| format!("{file}: {problem}");
    let (loaded, access) = read_files(&config, in_force)
        .map_err(|problems| problems.into_iter().map(without_place).collect::<Vec<_>>())?;
    let of_files = loaded.tls.warnings(clock::unix_s()).into_iter();
    let of_files = of_files.chain(loaded.rings.warnings()).chain(access.iter().flat_map(Access::warnings));
    let of_files = of_files.map(without_place);
    let warnings = warnings.iter().map(with_place).chain(of_files).collect();
    Ok(ReadConfig { config, loaded, access, warnings })
}

/// Reads every file that a configuration names: certificates and keys, and the files of the shared store.
pub fn read_files(config: &Config, in_force: Option<&Snapshot>) -> Result<(LoadedFiles, Option<Access>), Vec<String>> {
    all_or_problems(certificates_and_keys(config, in_force), config.store.as_ref().map(Access::read).transpose())
}

/// Reads what listeners and pools need: certificates, keys and authorities of TLS, and the keys of cookies.
pub fn certificates_and_keys(config: &Config, in_force: Option<&Snapshot>) -> Result<LoadedFiles, Vec<String>> {
    let tls = Termination::load(config, in_force.map(|snapshot| &*snapshot.tls));
    let (tls, rings) = all_or_problems(tls, cookie_keys(config))?;
    Ok(LoadedFiles { tls, rings, secret: None })
}

/// Reads the key files of cookies, each once.
pub fn cookie_keys(config: &Config) -> Result<Rings, Vec<String>> {
    let (mut rings, mut problems) = (Rings::default(), Vec::new());
    for pool in &config.pools {
        let Some(CookieMode::Insert(insert)) = pool.cookie.as_ref().map(|cookie| &cookie.mode) else { continue };
        if rings.of(&insert.keys).is_some() {
            continue;
        }
        let about = |what: String| format!("pool \"{}\": cookie: {}: {what}", pool.name, insert.keys.display());
        match read_secret(&insert.keys) {
            Err(unreadable) => problems.push(about(unreadable.to_string())),
            Ok((text, exposed)) => match KeyRing::parse(&text) {
                Ok(ring) => rings.add(insert.keys.clone(), Arc::new(ring), exposed),
                Err(wrong) => problems.extend(wrong.iter().map(|problem| about(problem.to_string()))),
            },
        }
    }
    if problems.is_empty() { Ok(rings) } else { Err(problems) }
}

/// The text of a file with secrets, and whether every user of this machine can read it.
fn read_secret(path: &Path) -> std::io::Result<(String, bool)> {
    const OTHERS: u32 = 0o007;
    let mut file = std::fs::File::open(path)?;
    let exposed = file.metadata()?.mode() & OTHERS != 0;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, exposed))
}

/// Tells a file from another that has taken its place; a file that is only written anew keeps its identity. `None`: it
/// cannot be found.
pub(super) fn identity(path: &Path) -> Option<FileIdentity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

/// Both results, or the problems of both.
fn all_or_problems<A, B>(a: Result<A, Vec<String>>, b: Result<B, Vec<String>>) -> Result<(A, B), Vec<String>> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err([a.err(), b.err()].into_iter().flatten().flatten().collect()),
    }
}
