//! The file of cookie keys that is made where a configuration names none: [`make`], when the configuration is put in
//! force.
//!
//! Reads no key (`files` does) and changes none: a file that exists is left as it is. Invariant: a configuration is put
//! in force with the keys that the file has, so that cookies stay valid over a restart.

use std::io;
use std::path::Path;

use super::files::{cookie_keys, random_key};
use super::own_files;
use crate::config::{Config, FileProblem, Pool};
use crate::regular_file;
use crate::snapshot::Rings;
use crate::waiting;

/// Makes the file if a pool needs it and it is missing. Returns the keys of all files then; `None`: nothing was made.
/// `in_force`: keys of the configuration in force. Where the file had one of these, its loss is an error: with a new key
/// every client would lose its backend.
pub(super) fn make(config: &Config, in_force: Option<&Rings>) -> Result<Option<Rings>, Vec<String>> {
    let makes = |pool: &Pool| Some((pool.name.clone(), pool.cookie.as_ref()?.made_keys()?.to_owned()));
    let Some((pool, path)) = config.pools.iter().find_map(makes).filter(|(_, path)| !path.exists()) else {
        return Ok(None);
    };
    let failed = |why: String| vec![format!("pool \"{pool}\": cookie: keys \"{}\": {why}", path.display())];
    if in_force.is_some_and(|rings| rings.of(&path).is_some()) {
        return Err(failed(
            "the file of the key in use is gone; put it back, or restart to begin with a new key".into(),
        ));
    }
    let made = waiting::on(|| format!("making \"{}\"", path.display()), || write(&path));
    if made.map_err(|error| failed(error.to_string()))? {
        tracing::info!("pool \"{pool}\": \"{}\" was made with a new key for cookies", path.display());
    }
    let in_words = |problems: Vec<FileProblem>| problems.iter().map(ToString::to_string).collect();
    cookie_keys(config).map(Some).map_err(in_words)
}

/// Writes one random key; false: another process has made the file meanwhile.
fn write(path: &Path) -> io::Result<bool> {
    own_files::make_folder(path, own_files::PRIVATE)?;
    regular_file::make_once(path, random_key()?.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(folder: &Path) -> Config {
        let text = format!(
            "stick_table_file = '{}/table'\n[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\npool = 'p'\n\
             [[pool]]\nname = 'p'\nhttp = true\ncookie = 'insert'\nbackend = ['127.0.0.1:1']\n",
            folder.display()
        );
        crate::config::check(&text, &|_| Err(io::Error::other("no names"))).unwrap().config
    }

    #[test]
    fn a_missing_file_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (config, path) = (config(&dir.path().join("new")), dir.path().join("new/cookie.keys"));
        let before = cookie_keys(&config).unwrap();
        assert!(before.of(&path).is_some() && !path.exists(), "checked, and not made");
        let made = make(&config, None).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.of(&path), cookie_keys(&config).unwrap().of(&path));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(make(&config, Some(&made)).unwrap().is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it stays");
        std::fs::remove_file(&path).unwrap();
        let lost = make(&config, Some(&made)).unwrap_err();
        assert!(lost[0].contains("the file of the key in use is gone") && !path.exists(), "{lost:?}");
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error_with_its_pool() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let refused = make(&config(&dir.path().join("file")), None).unwrap_err();
        assert!(refused[0].starts_with("pool \"p\": cookie: keys "), "{refused:?}");
    }
}
