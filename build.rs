//! Writes the text of `sessile --version`: the version, the commit, and what differs from build to build.
//!
//! Does not look at the sources: changes since the commit are not shown. Invariant: it runs again only when the commit or
//! `SESSILE_COMMIT` changes, so that a build without a change builds nothing; a tree without git builds as well.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SESSILE_COMMIT");
    let version = variable("CARGO_PKG_VERSION");
    println!("cargo::rustc-env=SESSILE_VERSION={version} (commit {}, features {})", commit(), features());
}

/// The commit in `SESSILE_COMMIT`, or the one that git knows. A debug build does not ask git: with every commit all tests
/// would be built anew.
fn commit() -> String {
    let given = variable("SESSILE_COMMIT");
    if !given.is_empty() {
        return given;
    }
    // Above an unpacked archive another repository may begin.
    if variable("PROFILE") == "debug" || !Path::new(".git").exists() {
        return "unknown".to_owned();
    }
    // What git moves with every commit and every checkout. A path that is missing would count as changed in every build.
    for moved in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", moved]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

/// The target, in what this build differs from a dynamic, optimized one, and the features that it has.
fn features() -> String {
    let mut features = vec![variable("TARGET")];
    if variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static") {
        features.push("static".to_owned());
    }
    if !variable("CARGO_FEATURE_TOP").is_empty() {
        features.push("top".to_owned());
    }
    if variable("PROFILE") == "debug" {
        features.push("debug".to_owned());
    }
    features.join(" ")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// What git prints; `None`: there is no git, or it refuses.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
