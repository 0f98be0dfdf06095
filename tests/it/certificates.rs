//! Files that the configuration names: made by `certs dev`, read at start, at every reload and by `check`.

use std::path::Path;

use serde_json::Value;

use crate::reload::accepted;
use crate::support::Sessile;
use crate::support::sessile::run;

const SITE: &str = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntls = \"terminate\"\npool = \"p\"\n\
    certificate = [{ cert = \"$DIR/certs/dev.pem\", key = \"$DIR/certs/dev-key.pem\" }]\n\
    [[pool]]\nname = \"p\"\nbackend = [{ name = \"a\", address = \"127.0.0.1:1\" }]\ncheck = \"off\"\n";

fn make(folder: &Path) {
    let made = run(&["certs", "dev", "--dir", folder.join("certs").to_str().unwrap(), "--json"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Running, with certificates beside its configuration.
fn running() -> Sessile {
    let sessile = Sessile::spawn(SITE, |command| {
        let config = command.get_args().last().unwrap().to_owned();
        make(Path::new(&config).parent().unwrap());
    });
    sessile.ready();
    sessile
}

fn texts(verdict: &Value, key: &str) -> Vec<String> {
    verdict[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_pair_that_does_not_fit_is_refused_and_the_old_one_kept() {
    let sessile = running();
    let certs = sessile.dir.path().join("certs");
    std::fs::copy(certs.join("dev-client-key.pem"), certs.join("dev-key.pem")).unwrap();
    let verdict = sessile.reload(SITE);
    assert_eq!((verdict["accepted"].as_bool(), verdict["generation"].as_u64()), (Some(false), Some(1)), "{verdict}");
    let problems = texts(&verdict, "problems");
    assert!(problems[0].contains("sessile.toml: listener \"l\": certificate: "), "{problems:?}");
    assert!(problems[0].ends_with("dev-key.pem\" is not this certificate's"), "{problems:?}");
    assert_eq!(sessile.metric("sessile_reloads_total{verdict=\"refused\"}"), 1.0);

    make(sessile.dir.path());
    let verdict = sessile.reload(SITE);
    let changes = texts(accepted(&verdict), "changes");
    let expected = ["dev-key.pem", "dev.pem"].map(|file| format!("file \"{}\" changed", certs.join(file).display()));
    assert_eq!(changes, expected);
    assert!(texts(accepted(&sessile.reload(SITE)), "changes").is_empty());
}

#[test]
fn a_key_that_every_user_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let sessile = running();
    let key = sessile.dir.path().join("certs/dev-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = texts(accepted(&sessile.reload(SITE)), "warnings").join("\n");
    assert!(warnings.contains("holds a key, and every user can read it"), "{warnings}");
}

#[test]
fn neither_start_nor_check_passes_over_a_file_that_is_not_there() {
    let mut sessile = Sessile::spawn(SITE, |_| {});
    assert_eq!(sessile.wait().code(), Some(64));
    assert!(sessile.said().contains("certs/dev.pem\": No such file or directory"), "{}", sessile.said());
    let checked = run(&["check", sessile.file().to_str().unwrap(), "--json"]);
    assert_eq!(checked.status.code(), Some(64));
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let problem = &report["problems"][0];
    assert_eq!((&report["accepted"], &problem["line"]), (&Value::Bool(false), &Value::Null), "{report}");
    make(sessile.dir.path());
    assert!(run(&["check", sessile.file().to_str().unwrap()]).status.success());
}
