//! What has to be known about a run to read its figures: machine, kernel, versions, scale, time.
//!
//! Invariant: names no person, host or path.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cli::Settings;
use crate::stage::{Shelf, Stage};

/// The host and the programs behind the figures, as a file shows them.
const METHOD: &str = "One thread each, the proxy on a core of its own, clients and two backends on another. In every \
round each contestant has one turn; every order is followed by its reverse. CPU time is the scheduler's account of all \
threads of the proxy. A ratio is between two samples of one round. 'null' is a second process of the same sessile.";

/// Everything, for the file.
pub fn about(settings: &Settings, stage: &Stage) -> Value {
    let cores = stage.cores;
    let system = rustix::system::uname();
    let versions: serde_json::Map<_, _> =
        settings.contestants.iter().map(|who| (who.name.to_owned(), who.version.clone().into())).collect();
    let tuned: serde_json::Map<_, _> = settings
        .contestants
        .iter()
        .filter(|who| who.is_tuned())
        .map(|who| (who.name.to_owned(), who.tuned_by().into()))
        .collect();
    json!({
        "method": METHOD,
        "log_metrics_and_checks": if stage.off { "off" } else { "on" },
        "tuned": tuned,
        "h2load": settings.h2load,
        "files": stage.shelf.as_ref().map(served),
        "began": said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "commit": said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
        "kernel": system.release().to_string_lossy(),
        "processor": processor(),
        "cores": cores.usable,
        "core_of_proxy": cores.proxy,
        "core_of_clients_and_backends": cores.others,
        "load_before": fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next(),
        "versions": versions,
        "rounds": settings.scale.rounds,
        "seconds": settings.scale.window.as_secs_f64(),
    })
}

/// The host and the programs in a few lines of text.
pub fn heading(about: &Value) -> String {
    let text = |name: &str| about[name].as_str().unwrap_or("?").to_owned();
    let versions = about["versions"].as_object().into_iter().flatten();
    let versions: Vec<_> =
        versions.map(|(who, version)| format!("{who}: {}", version.as_str().unwrap_or("?"))).collect();
    let mut notes = Vec::new();
    for (who, settings) in about["tuned"].as_object().into_iter().flatten() {
        notes.push(format!("{who} has:"));
        notes
            .extend(settings.as_array().into_iter().flatten().filter_map(|each| Some(format!("  {}", each.as_str()?))));
    }
    notes.extend(about["h2load"].as_str().map(|version| format!("client of S11a and S11o: {version}")));
    notes.extend(about["files"].as_str().map(|files| format!("files: {files}")));
    format!(
        "{}, commit {}: {}, kernel {}, load {}; proxy on core {}, clients and backends on core {}; {} rounds of {} s; \
         log, metrics and checks {}\n{}\n{}",
        text("began"),
        text("commit"),
        text("processor"),
        text("kernel"),
        text("load_before"),
        about["core_of_proxy"],
        about["core_of_clients_and_backends"],
        about["rounds"],
        about["seconds"],
        text("log_metrics_and_checks"),
        versions.join("\n"),
        notes.join("\n")
    )
}

/// The server of files, and the file system that they lie on.
fn served(shelf: &Shelf) -> String {
    let file = shelf.file();
    let version = Command::new(&shelf.nginx).arg("-v").stdin(Stdio::null()).output();
    let version = version.map_or(String::new(), |output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
    let system = said("stat", &["-f", "-c", "%T", &file.display().to_string()]);
    format!("{version}, sendfile from {system}")
}

/// What a program says; nothing where it is not there.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    name.map_or("?".to_owned(), |name| name.trim_start_matches([' ', '\t', ':']).to_owned())
}
