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

/// Line and column of the value of a key in the configuration, as messages write them.
fn place(sessile: &Sessile, key: &str) -> String {
    let text = std::fs::read_to_string(sessile.file()).unwrap();
    let key = format!("{key} = ");
    let find = |(number, line): (usize, &str)| Some(format!("{}:{}", number + 1, line.find(&key)? + key.len() + 1));
    text.lines().enumerate().find_map(find).unwrap()
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
    let at =
        format!("{}:{}: listener \"l\": certificate #1: cert \"", sessile.file().display(), place(&sessile, "cert"));
    assert!(problems[0].starts_with(&at), "{problems:?}");
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
    sessile.says("certs/dev.pem\": No such file or directory");
    let checked = run(&["check", sessile.file().to_str().unwrap(), "--json"]);
    assert_eq!(checked.status.code(), Some(64));
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let places = report["problems"].as_array().unwrap().iter().map(|one| format!("{}:{}", one["line"], one["column"]));
    let expected = ["cert", "key"].map(|key| place(&sessile, key));
    assert_eq!((&report["accepted"], places.collect::<Vec<_>>()), (&Value::Bool(false), expected.to_vec()), "{report}");
    make(sessile.dir.path());
    assert!(run(&["check", sessile.file().to_str().unwrap()]).status.success());
}

/// A text with errors, which names files with problems: certificates, keys, authorities, secrets, sockets.
const MUCH: &str = "bogus = 1
stick_table_file = \"$DIR/file/stick-table\"
[tls]
ticket_keys = \"$DIR/ticket\"
[store]
kind = \"redis\"
url = \"rediss://127.0.0.1:1\"
ca = \"$DIR/store-ca\"
password_file = \"$DIR/password\"
secret_file = \"$DIR/secret\"
[[listener]]
name = \"l\"
bind = [\"127.0.0.1:0\", \"unix:$DIR/file/l.sock\"]
group = \"no-such-group\"
tls = \"terminate\"
pool = \"p\"
client_certificate = { ca = \"$DIR/client-ca\" }
[[listener.certificate]]
cert = \"$DIR/cert\"
key = \"$DIR/key\"
[[listener.route]]
sni = \"a.example\"
pool = \"p\"
[[listener.route]]
sni = \"b.example\"
client_certificate = { ca = \"$DIR/route-ca\" }
pool = \"p\"
[[pool]]
name = \"p\"
http = true
key = \"none\"
balance = \"random\"
weight = 1
cookie = { mode = \"insert\", keys = \"$DIR/cookie\" }
tls = { ca = \"$DIR/pool-ca\" }
backend = { name = \"a\", address = \"127.0.0.1:1\" }
";

/// What `check`, `run` and a reload say of [`MUCH`]: every problem once, in the order of the text, at its value.
fn much(text: &str) -> Vec<String> {
    let expected = [
        ("bogus", "unknown key \"bogus\""),
        ("stick_table_file", "stick_table_file"),
        ("ticket_keys", "tls: ticket_keys"),
        ("ca = \"", "store: ca"),
        ("password_file", "store: password_file"),
        ("secret_file", "store: secret_file"),
        ("bind", "listener \"l\": bind"),
        ("group", "listener \"l\": group \"no-such-group\" is not a group of this machine"),
        ("client_certificate", "listener \"l\": client_certificate: ca"),
        ("cert = ", "listener \"l\": certificate #1: cert"),
        ("key = \"", "listener \"l\": certificate #1: key"),
        ("route-ca", "listener \"l\": route #2: client_certificate: ca"),
        ("weight", "pool \"p\": unknown key \"weight\""),
        ("cookie = ", "pool \"p\": cookie: keys"),
        ("pool-ca", "pool \"p\": tls: ca"),
    ];
    let mut lines = text.lines().enumerate();
    let place = |(mark, what): &(&str, &str)| {
        let (index, line) = lines.find(|(_, line)| line.contains(mark)).unwrap();
        let is_key = what.contains("unknown key");
        let file = line.rfind("\"/").or(line.rfind("\"unix:")).or(line.find('"')).unwrap_or_default();
        format!("{}:{}: {what}", index + 1, if is_key { 0 } else { file } + 1)
    };
    expected.iter().map(place).collect()
}

#[test]
fn every_problem_of_text_and_files_is_told_at_once_with_its_place() {
    let good = SITE.replace("tls = \"terminate\"\n", "").replace("certificate = ", "# certificate = ");
    let sessile = Sessile::start(&good);
    std::fs::write(sessile.dir.path().join("file"), "not a folder").unwrap();
    let text = |sessile: &Sessile| std::fs::read_to_string(sessile.file()).unwrap();
    let assert_found = |how: &str, found: &[String]| {
        let expected = much(&text(&sessile));
        let agree = found.iter().zip(&expected).all(|(found, expected)| found.starts_with(expected.as_str()));
        assert!(agree && found.len() == expected.len(), "{how}\nexpected {expected:#?}\nfound {found:#?}");
    };
    let verdict = sessile.reload(MUCH);
    let file = sessile.file().display().to_string();
    let after = |line: &str| line.split_once(&format!("{file}:")).map(|(_, problem)| problem.to_owned());
    let found: Vec<_> = texts(&verdict, "problems").iter().filter_map(|line| after(line)).collect();
    assert_found("reload", &found);
    let checked = run(&["check", &file]);
    assert_eq!(checked.status.code(), Some(64));
    let found: Vec<_> = String::from_utf8(checked.stdout).unwrap().lines().filter_map(after).collect();
    assert_found("check", &found[..found.len() - 1]);
    let started = run(&["run", "--config", &file]);
    assert_eq!(started.status.code(), Some(64));
    let found: Vec<_> = String::from_utf8(started.stderr).unwrap().lines().filter_map(after).collect();
    assert_found("run", &found);
}

#[test]
fn warnings_about_files_have_their_place() {
    use std::os::unix::fs::PermissionsExt;
    let sessile = running();
    let key = sessile.dir.path().join("certs/dev-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let checked = run(&["check", sessile.file().to_str().unwrap()]);
    assert!(checked.status.success());
    let found = String::from_utf8(checked.stdout).unwrap();
    let expected = format!("sessile.toml:{}: warning: listener \"l\": certificate #1: key \"", place(&sessile, "key"));
    assert!(found.contains(&expected), "{found}");
}
