//! Tests of `check` as a whole: the files in `config/` and `tests/broken/`, every known key, damaged files.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::{CheckedConfig, check, draft};
use crate::config::{Certificate, ClientCertificate, Config, FileProblem, Tls, keys};

mod check_kinds;
mod defer_accept;
mod discover;
mod foreign_words;
mod grpc;
mod headers;
mod http2;
mod queue;
mod request_limits;
mod routes;
mod shorthands;
mod splits;
mod timeouts;
mod unknown_names;

const REFERENCE: &str = include_str!("../../../config/reference.toml");

fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    let port = name.rsplit_once(':').map_or("", |(_, port)| port);
    Ok(vec![format!("192.0.2.1:{port}").parse().map_err(io::Error::other)?])
}

fn checked(text: &str) -> CheckedConfig {
    check(text, &resolve).unwrap_or_else(|problems| panic!("{}", shown(&problems)))
}

fn config_of(text: &str) -> Config {
    checked(text).config
}

fn shown(problems: &[super::Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn warnings(text: &str) -> String {
    shown(&checked(text).warnings)
}

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn examples_load_without_problem_or_warning() {
    let examples: Vec<_> = ["config", "config/migrate"].into_iter().flat_map(files).collect();
    assert!(examples.len() >= 18);
    for (path, text) in examples {
        let CheckedConfig { warnings, .. } =
            check(&text, &resolve).unwrap_or_else(|e| panic!("{path:?}\n{}", shown(&e)));
        assert!(warnings.is_empty(), "{path:?}\n{}", shown(&warnings));
    }
}

/// Each file starts with one line per problem, in order: `# expect: ` and the start of the message.
#[test]
fn broken_files_are_refused_with_exactly_the_expected_problems() {
    let broken = files("tests/broken");
    assert_eq!(broken.len(), 67);
    let mut wrong = String::new();
    for (path, text) in broken {
        let expected: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        let problems = check(&text, &resolve).expect_err(&path.display().to_string());
        let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let agree = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(found, expected)| found.starts_with(expected));
        if !agree || expected.is_empty() {
            wrong += &format!("{path:?}\nexpected:\n{}\nfound:\n{}\n\n", expected.join("\n"), found.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Problems that are those of the file as a whole, and have no place in it.
const OF_THE_WHOLE: [&str; 1] = ["the file has no [[listener]]"];

#[test]
fn every_problem_of_a_broken_file_stands_at_what_is_wrong() {
    for (path, text) in files("tests/broken") {
        let lines: Vec<_> = text.split('\n').collect();
        for problem in check(&text, &resolve).expect_err(&path.display().to_string()) {
            let about_all = OF_THE_WHOLE.iter().any(|message| problem.message.starts_with(message));
            let place = (problem.line, problem.column);
            assert_eq!(place == (1, 1), about_all, "{path:?}: {problem}");
            let Some(line) = lines.get(problem.line - 1).filter(|_| !about_all) else { continue };
            // Behind the last line, a missing end of the line is reported.
            let rest: String = line.chars().skip(problem.column - 1).collect();
            let is_code = !line.starts_with('#') && !rest.starts_with(char::is_whitespace);
            let is_end = rest.is_empty() && problem.column == line.chars().count() + 1;
            assert!(is_code && (!rest.is_empty() || is_end), "{path:?}: {problem}");
        }
    }
}

/// True for a line of the reference that holds a default.
fn is_default(line: &str) -> bool {
    let assignment = !line.starts_with(['#', '[', ' ']) && line.contains(" = ");
    assignment && !line.contains(" # required") && !line.contains(" # not the default")
}

#[test]
fn every_default_in_the_reference_is_the_default_of_the_code() {
    let whole = config_of(REFERENCE);
    let without = |gone: &dyn Fn(usize, &str) -> bool| {
        let kept = REFERENCE.lines().enumerate().filter(|(index, line)| !gone(*index, line));
        config_of(&kept.map(|(_, line)| format!("{line}\n")).collect::<String>())
    };
    assert_eq!(without(&|_, line| is_default(line)), whole);
    for (number, line) in REFERENCE.lines().enumerate().filter(|(_, line)| is_default(line)) {
        assert_eq!(without(&|index, _| index == number), whole, "{}: {line}", number + 1);
    }
}

#[test]
fn the_reference_shows_every_known_key_and_says_what_it_means() {
    for keys in keys::ALL {
        let path: Vec<_> = keys.table.trim_matches(['[', ']']).split('.').filter(|name| !name.is_empty()).collect();
        let table = DeTable::parse(REFERENCE).unwrap().into_inner();
        let shown = keys_at(&DeValue::Table(table), &path);
        for key in keys.keys {
            // Of two keys that exclude each other, one stands in a comment.
            let commented = REFERENCE.contains(&format!("\n# {key} = "));
            assert!(shown.contains(&(*key).to_owned()) || commented, "{} {key}", keys.table);
        }
    }
    let mut explained = false;
    for line in REFERENCE.lines() {
        assert!(explained || !is_default(line), "no comment above: {line}");
        explained = line.starts_with('#') || explained && !line.is_empty();
    }
}

/// Keys of all tables at this path; lists are followed.
fn keys_at(value: &DeValue<'_>, path: &[&str]) -> Vec<String> {
    match (value, path) {
        (DeValue::Array(elements), _) => elements.iter().flat_map(|one| keys_at(one.get_ref(), path)).collect(),
        (DeValue::Table(table), []) => table.keys().map(|key| key.get_ref().to_string()).collect(),
        (DeValue::Table(table), [first, rest @ ..]) => {
            table.get(*first).map_or_else(Vec::new, |value| keys_at(value.get_ref(), rest))
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_known_key_is_read_and_its_type_checked() {
    for keys in keys::ALL {
        for key in keys.keys {
            // No key takes a date.
            let above = match keys.table.trim_matches(['[', ']']).split('.').collect::<Vec<_>>()[..] {
                ["listener", "route", _] => "[[listener]]\n[[listener.route]]\n",
                ["listener", _] => "[[listener]]\n",
                ["pool", _] => "[[pool]]\n",
                ["split", _] => "[[split]]\n",
                _ => "",
            };
            let text = format!("{above}{}\n{key} = 1979-05-27\n", keys.table);
            let found = shown(&check(&text, &resolve).unwrap_err());
            let shown = if keys::SECRET.contains(key) { "(not shown)" } else { "1979-05-27" };
            assert!(found.contains(&format!("{key} {shown} is not ")), "{} {key}:\n{found}", keys.table);
            assert!(!found.contains("unknown key"), "{} {key}:\n{found}", keys.table);
        }
    }
}

const SMALL: &str = r#"
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
pool = "app"

[[pool]]
name = "app"
backend = [{ name = "a", address = "10.0.0.1:80" }]
"#;

#[test]
fn a_small_file_is_enough() {
    let config = config_of(SMALL);
    assert_eq!((config.listeners.len(), config.pools[0].backends.len()), (1, 1));
    assert_eq!(warnings(SMALL), "");
}

#[test]
fn a_list_of_one_table_needs_no_brackets() {
    let single = SMALL.replace("[{", "{").replace("}]", "}");
    assert_ne!(single, SMALL);
    assert_eq!((config_of(&single), warnings(&single)), (config_of(SMALL), String::new()));
    let all = SMALL.replace("[[listener]]", "[listener]").replace("[[pool]]", "[pool]");
    assert_eq!(config_of(&all), config_of(SMALL));
    for (from, to) in [
        (
            "certificate = [{ cert = \"a.pem\" }, { cert = \"b.pem\", key = \"b-key.pem\" }]",
            "certificate = { cert = \"a.pem\" }",
        ),
        (
            "backend = [{ name = \"a\", address = \"10.0.0.1:443\" }]",
            "backend = { name = \"a\", address = \"10.0.0.1:443\" }",
        ),
    ] {
        assert_eq!(warnings(&SITE.replace(from, to)), "", "{to}");
        assert_ne!(SITE.replace(from, to), SITE, "{from}");
    }
    let wrong = shown(&check(&single.replace("10.0.0.1:80", "nothing"), &resolve).unwrap_err());
    assert!(wrong.starts_with("9:35: pool \"app\": backend \"a\": address \"nothing\" "), "{wrong}");
}

/// Problems of files, added to what the text shows itself.
fn with_files(text: &str, problems: &[FileProblem]) -> String {
    let draft = draft(text, &resolve);
    problems.iter().for_each(|problem| draft.refuse(problem.clone()));
    shown(&draft.finish().err().unwrap_or_default())
}

#[test]
fn problems_of_files_stand_at_their_keys_among_those_of_the_text() {
    let text = SITE
        .replace("cert = \"b.pem\", ", "")
        .replace("\"127.0.0.1:8443\"", "[\"127.0.0.1:8443\", \"127.0.0.1:8444\"]");
    let inherited =
        |route| FileProblem::new(format!("listener \"site\": route #{route}: client_certificate"), "ca", "is bad");
    let found = with_files(
        &text,
        &[
            inherited(2),
            inherited(3),
            FileProblem::new("listener \"site\": certificate #2", "cert", "follows from the missing cert"),
            FileProblem::new("listener \"site\": certificate #2", "key", "\"b-key.pem\": is gone"),
            FileProblem {
                element: Some("127.0.0.1:8444".into()),
                ..FileProblem::new("listener \"site\"", "bind", "is in use")
            },
            FileProblem::new("admin", "socket", "has no folder"),
        ],
    );
    assert_eq!(
        found,
        "1:1: admin: socket has no folder\n\
         4:27: listener \"site\": bind is in use\n\
         7:36: listener \"site\": certificate #2: has no cert\n\
         7:44: listener \"site\": certificate #2: key \"b-key.pem\": is gone\n\
         8:29: listener \"site\": client_certificate: ca is bad\n"
    );
}

#[test]
fn after_a_syntax_error_only_files_that_are_named_count() {
    let text = format!("[admin]\nsocket = \"/a/b\"\n[log]\nlevel =\n{SMALL}");
    let found = with_files(
        &text,
        &[
            FileProblem::new("admin", "socket", "has no folder"),
            FileProblem::new("store", "ca", "may be written there"),
        ],
    );
    assert!(found.contains("2:10: admin: socket has no folder\n") && !found.contains("may be written"), "{found}");
}

#[test]
fn what_looks_wrong_is_warned_of_and_allowed() {
    for (from, to, expected) in [
        ("\"a\",", "\"a\", weight = 0,", None),
        (
            "10.0.0.1:80\" }",
            "10.0.0.1:80\" }, { name = \"z\", address = \"10.0.0.2:80\", weight = 0 }",
            Some(
                "9:101: pool \"app\": backend \"z\": weight 0 takes no new clients \
                 (hint: write state = \"drain\" instead)\n",
            ),
        ),
        (
            "10.0.0.1:80",
            "127.0.0.1:8080",
            Some(
                "9:36: pool \"app\": backend \"a\": address \"127.0.0.1:8080\" is listener \"web\" \
                 of this process: connections would loop\n",
            ),
        ),
        (
            "\n[[pool]]",
            "tls = \"passthrough\"\nsilent = \"app\"\n[[pool]]",
            Some(
                "7:10: listener \"web\": silent has no effect because no route has sni or alpn and no pool \
                 has sni in its key, so the ClientHello is not read\n",
            ),
        ),
        (
            "name = \"app\"",
            "name = \"app\"\nring_points = 7",
            Some("9:15: pool \"app\": ring_points has no effect with balance = \"hash\"\n"),
        ),
        (
            "name = \"app\"",
            "name = \"app\"\ncheck = { path = \"/up\" }",
            Some("9:18: pool \"app\": check: path has no effect on a check of kind \"tcp\"\n"),
        ),
        (
            "\n[[listener]]",
            "[limits]\nhello_timeout = \"2m\"\n[[listener]]",
            Some("2:17: limits: hello_timeout \"2m\" lets clients that send nothing hold a connection for that long\n"),
        ),
        (
            "\n[[listener]]",
            "pool = [{ name = \"b\", backend = [{ name = \"b\", address = \"10.0.0.2:80\" }] }]\n[[listener]]",
            None,
        ),
    ] {
        let text = SMALL.replacen(from, to, 1);
        assert_ne!(text, SMALL, "{from}");
        match expected {
            Some(expected) => assert_eq!(warnings(&text), expected),
            None => assert!(check(&text, &resolve).is_err(), "{text}"),
        }
    }
    let unnamed = format!("{SMALL}[[pool]]\nname = \"b\"\nbackend = [{{ name = \"b\", address = \"10.0.0.2:80\" }}]\n");
    assert_eq!(warnings(&unnamed), "11:8: pool \"b\": no listener names this pool\n");
}

/// A listener that terminates TLS, with two routes that differ from it.
const SITE: &str = r#"
[[listener]]
name = "site"
bind = "127.0.0.1:8443"
tls = "terminate"
pool = "site"
certificate = [{ cert = "a.pem" }, { cert = "b.pem", key = "b-key.pem" }]
client_certificate = { ca = "ca.pem", required = false }
[[listener.route]]
sni = "raw.example"
tls = "passthrough"
pool = "raw"
[[listener.route]]
sni = "open.example"
client_certificate = "off"
pool = "site"
[[listener.route]]
sni = "inner.example"
pool = "site"
[[pool]]
name = "site"
http = true
backend = [{ name = "a", address = "10.0.0.1:80" }]
[[pool]]
name = "raw"
backend = [{ name = "a", address = "10.0.0.1:443" }]
"#;

#[test]
fn routes_say_otherwise_or_do_as_their_listener_does() {
    let config = config_of(SITE);
    let listener = &config.listeners[0];
    let asked = Some(ClientCertificate { ca: "ca.pem".into(), crl: None, required: false });
    let modes = listener.routes.iter().map(|route| (route.tls, route.client_certificate.clone())).collect::<Vec<_>>();
    let expected = [(Tls::Passthrough, None), (Tls::Terminate, None), (Tls::Terminate, asked.clone())];
    assert_eq!(modes, expected);
    assert_eq!((listener.client_certificate.clone(), listener.terminates()), (asked, true));
    assert_eq!(warnings(SITE), "");
}

#[test]
fn one_certificate_is_the_default_and_a_key_may_stand_beside_it() {
    let certificate = |cert: &str, key: &str, default| Certificate { cert: cert.into(), key: key.into(), default };
    let first = [certificate("a.pem", "a.pem", true), certificate("b.pem", "b-key.pem", false)];
    assert_eq!(config_of(SITE).listeners[0].certificates, first);
    let second = SITE.replace("\"b-key.pem\"", "\"b-key.pem\", default = true");
    let defaults: Vec<_> = config_of(&second).listeners[0].certificates.iter().map(|one| one.default).collect();
    assert_eq!(defaults, [false, true]);
}

#[test]
fn checks_ask_as_the_pool_does() {
    let pin = "ab".repeat(32);
    let tls = format!("http = true\ncheck.kind = \"https\"\ntls = {{ pin = \"sha256:{pin}\", sni = \"in.example\" }}");
    let text = SITE.replace("http = true", &tls);
    let pool = &config_of(&text).pools[0];
    assert_eq!(pool.tls.as_ref().unwrap().pins, [[0xab; 32]]);
    assert_eq!(pool.check.as_ref().unwrap().sni.as_ref().unwrap().as_str(), "in.example");
    let warned = warnings(&text.replace("\"https\"", "\"http\""));
    assert!(warned.contains("check: kind \"http\" checks without TLS, but the pool has [pool.tls]"), "{warned}");
}

#[test]
fn what_is_said_of_tls_to_no_effect_is_warned_of() {
    for (from, to, expected) in [
        ("pool = \"app\"", "pool = \"app\"\nforwarded = \"off\"", "6:13: listener \"web\": forwarded has no effect"),
        ("pool = \"app\"", "pool = \"app\"\nclient_tls = true", "6:14: listener \"web\": client_tls has no effect"),
        (
            "pool = \"app\"",
            "pool = \"app\"\ncertificate = [{ cert = \"a\" }]",
            "6:15: listener \"web\": certificate has",
        ),
        ("name = \"app\"", "name = \"app\"\nalpn = \"mqtt\"", "9:8: pool \"app\": alpn has no effect because no route"),
        ("\n[[listener]]", "tls.ticket_keys = \"k\"\n[[listener]]", "1:19: tls: ticket_keys has no effect because"),
    ] {
        let text = SMALL.replacen(from, to, 1);
        let found = warnings(&text);
        assert!(found.starts_with(expected) && found.lines().count() == 1, "{text}\n{found}");
    }
    let seen = SITE.replace("tls = \"terminate\"", "tls = \"terminate\"\nclient_tls = false");
    assert!(warnings(&seen).contains("client_tls has no effect because tls is not"));
}

#[test]
fn port_zero_is_another_port_each_time() {
    let text = SMALL.replace("\"127.0.0.1:8080\"", "[\"127.0.0.1:0\"]");
    let again =
        text.replace("\n[[pool]]", "[[listener]]\nname = \"two\"\nbind = \"127.0.0.1:0\"\npool = \"app\"\n[[pool]]");
    assert_eq!(config_of(&again).listeners.len(), 2);
}

#[test]
fn checks_and_ejection_can_be_switched_off() {
    let off = SMALL.replace("name = \"app\"", "name = \"app\"\ncheck.kind = \"off\"\neject = \"off\"");
    let also_off = off.replace("check.kind", "check");
    let pools = [config_of(SMALL), config_of(&off), config_of(&also_off)].map(|config| config.pools[0].clone());
    assert_eq!(
        pools.map(|pool| (pool.check.is_some(), pool.eject.is_some())),
        [(true, true), (false, false), (false, false)]
    );
}

#[test]
fn a_unix_listener_with_trust_may_be_keyed_by_source() {
    let unix = SMALL.replace("127.0.0.1:8080\"", "unix:/run/web.sock\"\ntrust = \"unix\"");
    let proxy = config_of(&unix).listeners[0].proxy.clone().unwrap();
    assert!(proxy.trust.is_empty());
}

#[test]
fn ten_thousand_ranges_are_checked_in_one_pass() {
    let ranges: String = (0..10_000)
        .map(|i| format!("[[pool.range]]\nname = \"r{i}\"\ncidr = \"10.{}.{}.0/24\"\none = true\n", i / 256, i % 256))
        .collect();
    assert_eq!(config_of(&format!("{SMALL}{ranges}")).pools[0].ranges.len(), 10_000);
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let text = format!("workers = {}{}\n", open.repeat(100_000), close.repeat(100_000));
        assert!(check(&text, &resolve).is_err());
    }
    let dotted = format!("{}b = 1\n", "a.".repeat(100_000));
    assert!(check(&dotted, &resolve).is_err());
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        which in 0usize..100,
        cut in any::<prop::sample::Index>(),
        length in 0usize..40,
        put in prop_oneof!["[\\[\\]{}\"'=.,#\n0-9a-z\u{e4}-]{0,8}", "\\PC{0,8}"],
    ) {
        let examples = files("config");
        let text = &examples[which % examples.len()].1;
        let from = text.floor_char_boundary(cut.index(text.len()));
        let to = text.floor_char_boundary((from + length).min(text.len())).max(from);
        let damaged = format!("{}{put}{}", &text[..from], &text[to..]);
        if let Err(problems) = check(&damaged, &resolve) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                let line = damaged.split('\n').nth(problem.line - 1).expect("a line of the file");
                prop_assert!((1..=line.chars().count() + 1).contains(&problem.column), "{}", problem);
            }
        }
    }
}
