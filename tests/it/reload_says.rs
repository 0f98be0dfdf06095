//! What a reload, a plan and a check say of a change: every key, when it takes effect, and whose cookies are lost.

use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::http::unix_post;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

const OLD: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210\n";
const NEW: &str = "1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c\n";

fn lines(verdict: &Value, what: &str) -> Vec<String> {
    assert_eq!(verdict["accepted"], true, "{verdict}");
    verdict[what].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_reload_names_every_key_that_changed_and_when_it_takes_effect() {
    let backend = Backend::named("a");
    let with = |top: &str, log: &str, more: &str| {
        let admin = "[admin]\nsocket = \"$DIR/admin.sock\"\n";
        format!("{top}\n{admin}[log]\nformat = \"json\"\n{log}\n{more}{}", listener("p", ""))
            + &pool("p", "", &[backend.address])
    };
    let sessile = Sessile::start(&with("", "level = \"debug\"", ""));
    let top = "watch = true\nstop_grace = \"1s\"\nstop_deadline = \"3s\"\nstick_table_file = \"$DIR/table\"\n\
               stick_table_interval = \"1s\"";
    let log = "level = \"info\"\nconnections = false";
    let changed = with(top, log, "[limits]\nidle_timeout = \"9m\"\n");
    let verdict = sessile.reload(&changed);
    let now = [
        "limits.idle_timeout",
        "log.connections",
        "stick_table_file",
        "stick_table_interval",
        "stop_deadline",
        "stop_grace",
        "watch",
    ];
    let mut expected = now.map(|key| format!("{key} changed, takes effect at once")).to_vec();
    expected.insert(2, "log.level changed, takes effect at the next start".to_owned());
    assert_eq!(lines(&verdict, "changes"), expected);
    let pending = ["log.level: changed in the file; takes effect at the next start"];
    assert_eq!(lines(&verdict, "warnings"), pending);
    // The next reload changes nothing, and what waits for a start still waits.
    let verdict = sessile.reload(&changed);
    assert_eq!((lines(&verdict, "changes"), lines(&verdict, "warnings")), (vec![], pending.map(str::to_owned).into()));
    // What is said to be in force is.
    eventually("the stick-table file to be written at its new interval", || {
        sessile.dir.path().join("table").exists().then_some(())
    });
}

/// A pool with the balancer's own cookie.
fn shop(cookie: &str, backend: &Backend) -> String {
    listener("p", "") + &pool("p", &format!("http = true\nbalance = \"round_robin\"\n{cookie}\n"), &[backend.address])
}

#[test]
fn a_change_that_takes_the_cookies_from_their_holders_is_a_move_of_all_of_them() {
    let backend = Backend::named("a");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (keys, same, other) =
        (file("cookie.keys", OLD), file("same.keys", &format!("{NEW}{OLD}")), file("other.keys", NEW));
    let insert = |keys: &str, more: &str| format!("cookie = {{ mode = \"insert\", keys = \"{keys}\"{more} }}");
    let first = shop(&insert(&keys, ", name = \"STICKY\""), &backend);
    let sessile = Sessile::start(&first);
    let holders = "all holders of cookie \"STICKY\"";
    for (change, cookie) in [
        ("the key that sealed it is not in", insert(&other, ", name = \"STICKY\"")),
        ("its name becomes \"OTHER\"", insert(&keys, ", name = \"OTHER\"")),
        ("its path changes", insert(&keys, ", name = \"STICKY\", path = \"/shop\"")),
        ("its domain changes", insert(&keys, ", name = \"STICKY\", domain = \"example.org\"")),
        ("its mode \"insert\" becomes \"route\"", "cookie = { mode = \"route\", name = \"STICKY\" }".to_owned()),
        ("the pool has no cookie any more", String::new()),
        ("the pool changes its stick_group", insert(&keys, ", name = \"STICKY\"") + "\nstick_group = \"all\""),
    ] {
        let text = shop(&cookie, &backend);
        sessile.rewrite(&text);
        let (code, said) = unix_post(&sessile.admin(), "/reload?max_move=0.05").unwrap();
        assert!(code == 409 && said.contains(&holders.replace('"', "\\\"")), "{change}: {code} {said}");
        assert!(said.contains(&change.replace('"', "\\\"")), "{change}: {said}");
        // A plan of the running process, a check against it, and a plan of two files agree.
        let paths = [file("old.toml", &first), file("new.toml", &text)];
        let socket = sessile.admin().display().to_string();
        for arguments in [
            &["plan", "--live", "--socket", &socket, "--max-move", "5%", &paths[1]][..],
            &["plan", "--max-move", "5%", &paths[0], &paths[1]],
        ] {
            let output = run(arguments);
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(1), "{change}: {said}");
            assert!(said.contains(&format!("too much: pool \"p\": {holders} would move")), "{change}: {said}");
        }
        let output = run(&["check", "--live", "--socket", &socket, &paths[1]]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("warning: pool \"p\": {holders} lose it")), "{change}: {said}");
        assert!(said.contains(change), "{said}");
    }
    // Another file with the old key, though not first, moves no client.
    let verdict = {
        sessile.rewrite(&shop(&insert(&same, ", name = \"STICKY\""), &backend));
        let (code, said) = unix_post(&sessile.admin(), "/reload?max_move=0").unwrap();
        assert_eq!(code, 200, "{said}");
        serde_json::from_str::<Value>(&said).unwrap()
    };
    assert_eq!(lines(&verdict, "changes"), ["pool \"p\": cookie.keys changed, takes effect at once"]);
    assert!(!lines(&verdict, "warnings").iter().any(|line| line.contains("holders")), "{verdict}");
}

#[test]
fn key_files_of_cookies_are_compared_by_content_and_must_not_be_readable_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let backend = Backend::named("a");
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("cookie.keys");
    let write = |text: &str, mode: u32| {
        std::fs::write(&keys, text).unwrap();
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let cookie = format!("cookie = {{ mode = \"insert\", name = \"STICKY\", keys = \"{}\" }}", keys.display());
    let text = shop(&cookie, &backend);
    write(OLD, 0o600);
    let sessile = Sessile::start(&text);
    let changed = [format!("file \"{}\" changed", keys.display())];
    let exposed = format!("cookie: keys \"{}\": it holds a key, and every user can read it", keys.display());
    let reload = |max_move: &str| {
        let (_, said) = unix_post(&sessile.admin(), &format!("/reload{max_move}")).unwrap();
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let warned = |verdict: &Value, words: &str| lines(verdict, "warnings").iter().any(|line| line.contains(words));
    // A comment is no change; a second key is one, and moves no client.
    write(&format!("# of May\n{OLD}"), 0o644);
    let verdict = reload("?max_move=0");
    assert_eq!(lines(&verdict, "changes"), Vec::<String>::new());
    assert!(warned(&verdict, &exposed), "{verdict}");
    write(&format!("{OLD}{NEW}"), 0o600);
    let verdict = reload("?max_move=0");
    assert_eq!(lines(&verdict, "changes"), changed);
    assert!(!warned(&verdict, "cookie"), "{verdict}");
    write(&format!("{NEW}{OLD}"), 0o600);
    assert_eq!(lines(&reload("?max_move=0"), "changes"), changed);
    // The last step of a change of keys: the old one goes, which is said and not refused.
    write(NEW, 0o600);
    let verdict = reload("?max_move=0");
    assert_eq!(lines(&verdict, "changes"), changed);
    assert!(warned(&verdict, "a key is dropped"), "{verdict}");
    // Keys that replace all others are refused, and without a limit said.
    write(OLD, 0o600);
    let verdict = reload("?max_move=0.5");
    assert_eq!(verdict["accepted"], false, "{verdict}");
    assert!(verdict["problems"][0].as_str().unwrap().contains("all holders of cookie \"STICKY\" would move"));
    assert!(warned(&reload(""), "all holders of cookie \"STICKY\" lose it and are placed anew"));
    // The command that checks a file says it, too.
    for (mode, said) in [(0o600, false), (0o640, false), (0o604, true), (0o644, true)] {
        write(OLD, mode);
        let output = run(&["check", sessile.file().to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(&exposed) == said, "{mode:o}: {text}");
    }
}

#[test]
fn a_stick_table_file_in_another_folder_takes_the_keys_of_cookies_there() {
    let backend = Backend::named("a");
    let with =
        |folder: &str| format!("stick_table_file = \"$DIR/{folder}/table\"\n{}", shop("cookie = \"insert\"", &backend));
    let sessile = Sessile::start(&with("old"));
    let keys = |folder: &str| std::fs::read_to_string(sessile.dir.path().join(folder).join("cookie.keys")).unwrap();
    let made = keys("old");
    sessile.rewrite(&with("new"));
    let (code, said) = unix_post(&sessile.admin(), "/reload?max_move=0").unwrap();
    assert_eq!(code, 200, "{said}");
    let verdict = serde_json::from_str::<Value>(&said).unwrap();
    assert!(!lines(&verdict, "warnings").iter().any(|line| line.contains("lose it")), "{verdict}");
    assert_eq!((keys("new"), keys("old")), (made.clone(), made));
}
