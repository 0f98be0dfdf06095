//! What would happen if a backend were removed, asked while an incident goes on.
//!
//! Each answer is read as text and as JSON. Invariant: the question changes nothing, so the incident goes on as before.

use serde_json::Value;

use super::ask;
use crate::support::{Sessile, eventually};

/// What the process says would happen without the backend `POOL/NAME`: the JSON, after the text was compared with it.
/// Waits until so many connections are open, because one that a client has just closed may still count.
pub(super) fn without(sessile: &Sessile, name: &str, open: u64) -> Value {
    let words = ["plan", "--live", "--without", name];
    let generation = sessile.status()["generation"].clone();
    let plan = eventually(&format!("{open} connections to be open"), || {
        let output = ask(sessile, &[&words[..], &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let plan: Value = serde_json::from_slice(&output.stdout).expect("a plan");
        (plan["headline"]["open"] == open).then_some(plan)
    });
    let output = ask(sessile, &words);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let removed = format!("backend \"{name}\" removed");
    assert_eq!(plan["changes"], Value::from(vec![removed.clone()]), "{plan}");
    assert!(flat.starts_with(&format!("{} {removed}", sentence(&plan["headline"]))), "{text}\n{plan}");
    for warning in plan["warnings"].as_array().expect("warnings") {
        let warning = warning.as_str().expect("a sentence");
        assert!(flat.contains(&format!("warning: {warning}")), "{text}\n{plan}");
    }
    assert_eq!(sessile.status()["generation"], generation, "the question changes nothing");
    plan
}

/// The first line of the text that belongs to these numbers.
fn sentence(headline: &Value) -> String {
    let number = |name: &str| headline[name].as_u64().expect("a number");
    let about = if headline["about"] == true { "about " } else { "" };
    match (number("known"), number("open")) {
        (0, 0) => "no client is known and no connection is open".to_owned(),
        (0, open) => {
            format!("of {open} open connections {about}{} go elsewhere with their client's next", number("open_move"))
        }
        (known, _) => format!("of {known} known clients {about}{} move", number("known_move")),
    }
}

/// Known clients, how many of them move, and how many clients of open connections move.
pub(super) fn moves(plan: &Value) -> (u64, u64, u64) {
    let number = |name: &str| plan["headline"][name].as_u64().expect("a number");
    (number("known"), number("known_move"), number("open_move"))
}

/// True if the plan warns so.
pub(super) fn warns(plan: &Value, words: &str) -> bool {
    plan["warnings"].as_array().expect("warnings").iter().any(|it| it.as_str().expect("a sentence").contains(words))
}

/// A configuration without one of its backends.
pub(super) fn lacking(config: &str, name: &str, address: std::net::SocketAddr) -> String {
    let backend = format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    assert!(config.contains(&backend), "{config}");
    config.replace(&backend, "")
}
