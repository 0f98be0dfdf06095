//! `plan --live` without a file: what happens if a backend is removed, added or gets another weight, against what then
//! happens.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::support::Sessile;
use crate::support::backend::Backend;
use crate::support::load_support::Client;
use crate::support::sessile::run;

const CLIENTS: u8 = 200;

struct Scene {
    sessile: Sessile,
    backends: Vec<Backend>,
}

impl Scene {
    fn new() -> Self {
        let backends: Vec<_> = (0..4).map(|index| Backend::named(&format!("b{index}"))).collect();
        let sessile = Sessile::start(&config(&backends, &[0, 1, 2]));
        Self { sessile, backends }
    }

    /// Backend of every client.
    fn visit(&self) -> BTreeMap<IpAddr, String> {
        let front = self.sessile.address("l");
        let one = |n: u8| {
            let source = IpAddr::from([127, 3, 0, n]);
            let answer = Client::connect_from(source, front).ask("x");
            (source, answer.split(' ').next().unwrap().to_owned())
        };
        (1..=CLIENTS).map(one).collect()
    }

    /// Exit code and output of a plan, and what it said on standard error.
    fn plan(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let socket = self.sessile.admin();
        let output = run(&[&["plan", "--live", "--socket", socket.to_str().unwrap()], arguments].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, text, said) = self.plan(&[arguments, &["--json"]].concat());
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&text).unwrap()
    }
}

fn config(backends: &[Backend], wanted: &[usize]) -> String {
    let backend = |index: &usize| {
        let address: SocketAddr = backends[*index].address;
        format!("{{ name = \"b{index}\", address = \"{address}\" }}")
    };
    let list: Vec<_> = wanted.iter().map(backend).collect();
    let listener = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n";
    format!("{listener}[[pool]]\nname = \"web\"\ncheck = \"off\"\nbackend = [{}]\n", list.join(", "))
}

fn count_at(homes: &BTreeMap<IpAddr, String>, backend: &str) -> usize {
    homes.values().filter(|home| *home == backend).count()
}

#[test]
fn what_happens_without_a_backend_is_one_command_and_then_happens() {
    let scene = Scene::new();
    let before = scene.visit();
    let leave = count_at(&before, "b1");
    assert!(leave > 20, "{leave} clients at b1");

    let (code, text, _) = scene.plan(&["--without", "web/b1"]);
    assert_eq!(code, Some(0));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], format!("of {CLIENTS} known clients {leave} move"), "{text}");
    assert!(lines[1].contains("\"web/b1\" removed"), "{text}");
    assert!(text.contains(&format!("pool \"web\": of {CLIENTS} known clients {leave} move; ")), "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");

    let list = scene.sessile.dir.path().join("clients");
    std::fs::write(&list, before.keys().map(|source| format!("{source}\n")).collect::<String>()).unwrap();
    let plan = scene.json(&["--without", "web/b1", "--clients", list.to_str().unwrap()]);
    let headline = &plan["headline"];
    assert_eq!((&headline["known"], &headline["known_move"]), (&CLIENTS.into(), &leave.into()), "{headline}");
    assert_eq!(headline["about"], false, "{headline}");
    assert_eq!(plan["pools"][0]["live"]["known"]["leave"], leave);

    // No more than is allowed, or a code that says so.
    let share = 100 * leave / usize::from(CLIENTS);
    assert_eq!(scene.plan(&["--without", "web/b1", "--max-move", "5%"]).0, Some(1));
    assert_eq!(scene.plan(&["--without", "web/b1", "--max-move", &format!("{}%", share + 1)]).0, Some(0));
    assert_eq!(scene.sessile.status()["generation"], 1, "a plan changes nothing");
    assert_eq!(scene.visit(), before, "and moves nobody");

    assert_eq!(scene.sessile.reload(&config(&scene.backends, &[0, 2]))["accepted"], true);
    let after = scene.visit();
    assert_eq!(before.iter().filter(|(client, home)| after[*client] != **home).count(), leave);
    for client in plan["pools"][0]["listed"]["each"].as_array().unwrap() {
        let source: IpAddr = client["source"].as_str().unwrap().parse().unwrap();
        assert_eq!(
            (&client["from"], &client["to"]),
            (&before[&source].as_str().into(), &after[&source].as_str().into())
        );
    }
}

#[test]
fn weights_and_new_backends_are_planned_together_and_leave_known_clients_where_they_are() {
    let scene = Scene::new();
    let before = scene.visit();
    let address = scene.backends[3].address;
    let new = format!("web/b3={address}");
    let (code, text, _) = scene.plan(&["--weight", "web/b0=5", "--add", &new, "--max-move", "0%"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with(&format!("of {CLIENTS} known clients 0 move\n")), "{text}");
    let plan = scene.json(&["--weight", "web/b0=5", "--add", &new]);
    let changes = plan["changes"].to_string();
    assert!(changes.contains("web/b0") && changes.contains("web/b3"), "{changes}");
    assert!(plan["pools"][0]["new_keys"].as_f64().unwrap() > 0.2, "{plan}");

    // One goes and one comes: the clients of the first move, and no other.
    let plan = scene.json(&["--without", "web/b0", "--add", &new]);
    assert_eq!(plan["headline"]["known_move"], count_at(&before, "b0"), "{plan}");
    assert_eq!(scene.sessile.status()["generation"], 1);
}

#[test]
fn a_change_that_would_be_refused_says_why() {
    let scene = Scene::new();
    for (arguments, why) in [
        (&["--without", "shop/b0"][..], "there is no pool \"shop\""),
        (&["--without", "web/b9"], "pool \"web\" has no backend \"b9\""),
        (&["--add", "web/b0=127.0.0.1:1"], "pool \"web\" has a backend \"b0\" already"),
        (&["--add", "web/b9=nonsense"], "address \"nonsense\""),
        (&["--weight", "web/b0=257"], "weight"),
        (&["--without", "web/b0", "--without", "web/b1", "--without", "web/b2"], "backend"),
    ] {
        let (code, text, said) = scene.plan(arguments);
        assert_eq!((code, text.as_str()), (Some(64), ""), "{arguments:?}: {said}");
        assert!(said.contains("would refuse the change") && said.contains(why), "{arguments:?}: {said}");
    }
}
