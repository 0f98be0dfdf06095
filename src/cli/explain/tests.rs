//! `sessile explain` over a small file: routes, what is down, cookies, input and mistakes.

use super::*;

const FILE: &str = r#"
[[listener]]
name = "front"
bind = "127.0.0.1:4433"
tls = "passthrough"
pool = "web"
[[listener.route]]
sni = "api.example.org"
pool = "api"
[[listener.route]]
alpn = "special"
source = "192.0.2.0/24"
pool = "api"
[[listener]]
name = "bare"
bind = "127.0.0.1:4434"
tls = "passthrough"
[[listener.route]]
sni = "api.example.org"
pool = "api"
[[pool]]
name = "web"
backend = [
    { name = "a", address = "127.0.0.1:1" },
    { name = "b", address = "127.0.0.1:2" },
    { name = "c", address = "127.0.0.1:3" },
]
[[pool]]
name = "api"
key = "sni"
all_down = "refuse"
backend = [{ name = "a", address = "127.0.0.1:1" }]
[[listener]]
name = "shop"
bind = "127.0.0.1:4435"
pool = "shop"
[[pool]]
name = "shop"
http = true
cookie = { mode = "route", name = "SID" }
backend = [{ name = "a", address = "127.0.0.1:1" }, { name = "b", address = "127.0.0.1:2" }]
"#;

/// What the command prints for these arguments and this input.
fn explain(arguments: &str, input: &str) -> Result<String, CommandError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessile.toml");
    std::fs::write(&file, FILE).unwrap();
    let line = format!("sessile explain --config {} {arguments}", file.display());
    let crate::cli::Command::Explain(asked) = crate::cli::tests::parse(&line).unwrap() else {
        panic!("{line}");
    };
    let config = load::load(&file)?.config;
    let explainer = Explainer::new(&asked.question(), &config)?;
    let mut out = Vec::new();
    if asked.client.is_empty() {
        asked.explain_lines(Answers::OfFile(&explainer), input.as_bytes(), &mut out)?;
    } else {
        asked.run(&mut out)?;
    }
    Ok(String::from_utf8(out).unwrap())
}

fn json(arguments: &str) -> serde_json::Value {
    serde_json::from_str(&explain(&format!("--json {arguments}"), "").unwrap()).unwrap()
}

fn refusal(arguments: &str, input: &str) -> String {
    explain(arguments, input).unwrap_err().to_string()
}

#[test]
fn routes_are_followed_as_by_connections() {
    let pool = |arguments: &str| json(&format!("--listener front {arguments}"))["pool"].clone();
    assert_eq!(pool("--client 192.0.2.1"), "web");
    assert_eq!(pool("--client 192.0.2.1 --sni API.example.org"), "api");
    assert_eq!(pool("--client 192.0.2.1 --alpn other --alpn special"), "api");
    assert_eq!(pool("--client 198.51.100.1 --alpn special"), "web");
    let none = json("--listener bare --client 192.0.2.1");
    assert_eq!((&none["refused"], none.get("pool")), (&"no_route".into(), None));
}

#[test]
fn what_is_down_is_passed_over_in_its_pool_only() {
    let choice = |down: &str| json(&format!("--listener front --client 192.0.2.7 {down}"))["choice"].clone();
    let (first, next) = (choice(""), json("--listener front --client 192.0.2.7")["next"].clone());
    let name = first.as_str().unwrap();
    assert_eq!(choice(&format!("--down {name}")), next);
    assert_eq!(choice(&format!("--down web/{name}")), next);
    assert_eq!(choice("--down api/a"), first);
    let refused = json("--listener front --client 192.0.2.7 --sni api.example.org --down api/a");
    assert_eq!(refused["refused"], "no_backend");
}

#[test]
fn a_cookie_is_obeyed_while_its_backend_is_up() {
    let asked = |more: &str| json(&format!("--listener shop --client 192.0.2.7 {more}"));
    for name in ["a", "b"] {
        for how in [format!("--cookie x=y --cookie SID=1234.{name}"), format!("--header Cookie:SID=1234.{name}")] {
            let answer = asked(&how);
            assert_eq!((&answer["choice"], &answer["reason"]), (&name.into(), &"cookie".into()), "{how}");
            let moved = asked(&format!("{how} --down {name}"));
            assert_ne!(moved["choice"], name, "{how}");
            assert_eq!(moved["reason"], "placement", "{how}");
        }
    }
    let gone = asked("--cookie SID=1234.gone");
    assert_eq!((&gone["cookie"], &gone["choice"]), (&"unknown".into(), &asked("")["choice"]));
    assert!(refusal("--listener shop --client 192.0.2.7 --header nonsense", "").contains("not like"));
}

#[test]
fn mapped_addresses_and_ports_make_no_difference() {
    let plain = json("--listener front --client 192.0.2.9");
    assert_eq!(json("--listener front --client ::ffff:192.0.2.9"), plain);
    assert_eq!(json("--listener front --client 192.0.2.9:4711"), plain);
    assert_eq!(json("--listener front --client [::ffff:192.0.2.9]:4711"), plain);
}

#[test]
fn twenty_thousand_clients_are_answered_line_by_line() {
    let clients: Vec<_> = (0..20_000u32).map(|n| std::net::Ipv4Addr::from(n * 977).to_string()).collect();
    let answers = explain("--listener front --json", &clients.join("\n")).unwrap();
    let answered: Vec<_> = answers
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["client"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(answered, clients);
}

#[test]
fn a_line_may_name_the_server() {
    let answers = explain("--listener front --json", "192.0.2.1\n\n192.0.2.1 api.example.org\n").unwrap();
    let pools: Vec<_> =
        answers.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["pool"].clone()).collect();
    assert_eq!(pools, ["web", "api"]);
}

#[test]
fn people_read_sentences() {
    let text = explain("--listener front --client 192.0.2.1 --client 192.0.2.2", "").unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "offline: from the file alone; health, stick table and drains are not known");
    assert_eq!(lines[1], "client 192.0.2.1 at listener front: pool web, hash", "{text}");
    assert!(lines[2].starts_with("  key source 192.0.2.1/32 (hash "), "{text}");
    assert_eq!(text.matches("offline: ").count(), 1, "{text}");
    let text = explain("--listener bare --client 192.0.2.1", "").unwrap();
    let nowhere = "client 192.0.2.1 at listener bare: no route takes it, and no default pool\n";
    assert!(text.ends_with(nowhere), "{text}");
    assert_eq!(json("--listener front --client 192.0.2.1")["live"], false);
}

#[test]
fn what_is_not_understood_is_named() {
    assert_eq!(refusal("--client 192.0.2.1", ""), "--listener is needed; there are: front, bare, shop");
    let front = |arguments: &str| refusal(&format!("--listener front {arguments}"), "192.0.2.1\nnobody\n");
    assert_eq!(front(""), "line 2: client \"nobody\" is not an address");
    assert_eq!(front("--client 192.0.2.300"), "client \"192.0.2.300\" is not an address");
    assert_eq!(front("--client ::1 --sni a..b"), "server name \"a..b\" is not a host name");
    assert_eq!(front("--client ::1 --down web/z"), "--down web/z: no pool has such a backend");
    assert_eq!(front("--client ::1 --tlv E0=x"), "--tlv \"E0=x\" is not like 0xE0=value");
    let line = "sessile explain --client ::1 --socket /s";
    let crate::cli::Command::Explain(asked) = crate::cli::tests::parse(line).unwrap() else { panic!("{line}") };
    let refused = asked.run(&mut Vec::new()).unwrap_err().to_string();
    assert_eq!(refused, "explain without --live reads a file: --socket names none");
}
