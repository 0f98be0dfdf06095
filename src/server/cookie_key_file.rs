//! The file of cookie keys that is made where a configuration names none: [`make`], when the configuration is put in
//! force.
//!
//! Changes no key: a file that exists is left as it is, and one in another folder is copied. Invariants: a configuration is
//! put in force with the keys that the file has, so that cookies stay valid over a restart, and over a reload too; a file
//! that was made stays, even if its configuration is refused then, because another process may have read it meanwhile.

use std::io;
use std::path::Path;

use super::files::{cookie_keys_after, keys_to_make, made_key_file};
use super::made::Made;
use super::own_files;
use crate::config::{Config, FileProblem};
use crate::regular_file;
use crate::snapshot::Rings;
use crate::waiting;

/// Makes the file if a pool needs it and it is missing. Returns the keys of all files then; `None`: nothing was made.
/// `in_force`: the configuration in force and its keys. Where the file had one of these, its loss is an error: with a new
/// key every client would lose its backend. Where another folder has them, because `stick_table_file` was another one,
/// they are copied. `made` gets the folders, which go again if the configuration is refused and no file is in them.
pub(super) fn make(
    config: &Config,
    in_force: Option<(&Config, &Rings)>,
    made: &mut Made,
) -> Result<Option<Rings>, Vec<String>> {
    let Some((object, path)) = made_key_file(config).filter(|(_, path)| !path.exists()) else { return Ok(None) };
    let failed = |why: String| vec![format!("{object}: cookie: keys \"{}\": {why}", path.display())];
    if in_force.is_some_and(|(_, rings)| rings.of(path).is_some()) {
        return Err(failed(
            "the file of the key in use is gone; put it back, or restart to begin with a new key".into(),
        ));
    }
    let in_force = in_force.map(|(config, _)| config);
    let text = keys_to_make(path, in_force);
    let mut write = |text: &str| waiting::on(|| format!("making \"{}\"", path.display()), || write(path, text, made));
    let is_made = text.and_then(|text| write(&text));
    if is_made.map_err(|error| failed(error.to_string()))? {
        let path = path.display();
        match in_force.and_then(made_key_file) {
            None => tracing::info!("{object}: \"{path}\" was made with a new key for cookies"),
            Some((_, before)) => tracing::info!(
                "{object}: \"{path}\" was made with the keys for cookies of \"{}\", which is used no more",
                before.display()
            ),
        }
    }
    let in_words = |problems: Vec<FileProblem>| problems.iter().map(ToString::to_string).collect();
    cookie_keys_after(config, in_force).map(Some).map_err(in_words)
}

/// Writes the file; false: another process has made it meanwhile.
fn write(path: &Path, text: &str, made: &mut Made) -> io::Result<bool> {
    made.folder_of(path, own_files::PRIVATE)?;
    regular_file::make_once(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Makes the file for a configuration that is put in force.
    fn make(config: &Config, in_force: Option<(&Config, &Rings)>) -> Result<Option<Rings>, Vec<String>> {
        let mut made = Made::default();
        let rings = super::make(config, in_force, &mut made);
        made.keep();
        rings
    }

    #[test]
    fn the_file_of_a_configuration_that_is_refused_stays_for_a_process_that_uses_it_already() {
        let dir = tempfile::tempdir().unwrap();
        let (config, path) = (config(&dir.path().join("new")), dir.path().join("new/cookie.keys"));
        let mut made = Made::default();
        let rings = super::make(&config, None, &mut made).unwrap().unwrap();
        drop(made);
        assert!(cookie_keys_after(&config, None).unwrap().of(&path) == rings.of(&path) && path.exists());
        // A folder without the file goes again.
        let mut made = Made::default();
        let long = dir.path().join("other").join("x".repeat(300));
        assert!(write(&long, "", &mut made).is_err());
        drop(made);
        assert!(!dir.path().join("other").exists());
    }

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
        let before = cookie_keys_after(&config, None).unwrap();
        assert!(before.of(&path).is_some() && !path.exists(), "checked, and not made");
        let made = make(&config, None).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.of(&path), cookie_keys_after(&config, None).unwrap().of(&path));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(make(&config, Some((&config, &made))).unwrap().is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it stays");
        std::fs::remove_file(&path).unwrap();
        let lost = make(&config, Some((&config, &made))).unwrap_err();
        assert!(lost[0].contains("the file of the key in use is gone") && !path.exists(), "{lost:?}");
    }

    #[test]
    fn the_keys_in_use_are_copied_to_another_folder_and_never_replaced_by_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| dir.path().join(name);
        let (old, new) = (config(&folder("old")), config(&folder("new")));
        let in_force = make(&old, None).unwrap().unwrap();
        let checked = cookie_keys_after(&new, Some(&old)).unwrap();
        assert!(
            checked.of(&folder("new/cookie.keys")) == in_force.of(&folder("old/cookie.keys")),
            "checked, and not made"
        );
        let moved = make(&new, Some((&old, &in_force))).unwrap().unwrap();
        let text = |name: &str| std::fs::read_to_string(folder(name).join("cookie.keys")).unwrap();
        assert_eq!(text("new"), text("old"));
        let (old_keys, new_keys) = (folder("old/cookie.keys"), folder("new/cookie.keys"));
        assert!(moved.of(&new_keys).is_some() && moved.of(&new_keys) == in_force.of(&old_keys));
        assert_eq!(std::fs::metadata(&new_keys).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&old_keys).unwrap();
        let lost = make(&config(&folder("third")), Some((&old, &in_force))).unwrap_err();
        assert!(lost[0].contains("the keys in use cannot be copied from") && !folder("third").exists(), "{lost:?}");
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error_with_its_pool() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let refused = make(&config(&dir.path().join("file")), None).unwrap_err();
        assert!(refused[0].starts_with("pool \"p\": cookie: keys "), "{refused:?}");
    }
}
