//! What packages are made of: `--version`, the configuration that is installed, bills of materials and licence texts.
//!
//! Packages themselves are built and tried by `.ci/package`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::program::free_address;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually, has, http};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_version_is_one_line_with_commit_and_features() {
    let said = text(&run(&["--version"]));
    let rest =
        said.strip_prefix(concat!("sessile ", env!("CARGO_PKG_VERSION"), " (commit ")).expect("name and version");
    let (commit, features) =
        rest.strip_suffix(")\n").and_then(|rest| rest.split_once(", features ")).expect("one line");
    assert!(commit.chars().all(|c| c.is_ascii_alphanumeric()), "{said}");
    assert!(features.starts_with(std::env::consts::ARCH), "{said}");
    let has = |name: &str| features.split(' ').any(|feature| feature == name);
    assert_eq!((has("debug"), has("top")), (cfg!(debug_assertions), cfg!(feature = "top")), "{said}");
}

/// What the build script says in a folder, with these variables; by line.
fn build_script(program: &Path, folder: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = Command::new(program);
    command.current_dir(folder).env_remove("SESSILE_COMMIT").envs([
        ("CARGO_PKG_VERSION", "1.2.3"),
        ("TARGET", "some-target"),
        ("PROFILE", "release"),
        ("CARGO_CFG_TARGET_FEATURE", "fxsr"),
    ]);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    text(&output).lines().map(str::to_owned).collect()
}

#[test]
fn the_version_knows_the_commit_of_an_optimized_build_and_does_without_git() {
    let test = "the_version_knows_the_commit_of_an_optimized_build_and_does_without_git";
    if !has(test, "rustc") || !has(test, "git") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("build-script");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-o"]).arg(&program).arg(repository().join("build.rs"));
    text(&rustc.output().unwrap());
    let says = |lines: &[String], version: &str| {
        let line = format!("cargo::rustc-env=SESSILE_VERSION={version}");
        assert!(lines.contains(&line), "{line}\n{lines:#?}");
    };

    // An archive of the sources.
    let archive = scratch.path().join("archive");
    fs::create_dir(&archive).unwrap();
    says(&build_script(&program, &archive, &[]), "1.2.3 (commit unknown, features some-target)");
    let given = [("SESSILE_COMMIT", "abc"), ("CARGO_CFG_TARGET_FEATURE", "fxsr,crt-static")];
    says(&build_script(&program, &archive, &given), "1.2.3 (commit abc, features some-target static)");

    // A clone.
    let git = |arguments: &[&str]| {
        let name = ["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"];
        text(&Command::new("git").args(name).args(arguments).current_dir(&archive).output().unwrap())
    };
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "--message", "first"]);
    let first = git(&["rev-parse", "--short", "HEAD"]);
    let lines = build_script(&program, &archive, &[]);
    says(&lines, &format!("1.2.3 (commit {}, features some-target)", first.trim()));
    let watched: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).collect();
    let watched: Vec<_> = watched.iter().filter(|path| **path != "build.rs").map(|path| archive.join(path)).collect();
    assert!(!watched.is_empty() && watched.iter().all(|path| path.exists()), "a missing file: {watched:?}");
    let seen = || watched.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = seen();
    git(&["commit", "--quiet", "--allow-empty", "--message", "second"]);
    assert_ne!(seen(), before, "a commit changes nothing that is watched");

    // A debug build is not built anew with every commit.
    let lines = build_script(&program, &archive, &[("PROFILE", "debug")]);
    says(&lines, "1.2.3 (commit unknown, features some-target debug)");
    assert!(!lines.iter().any(|line| line.contains(".git")), "{lines:?}");
}

/// The configuration that is installed, with other servers and a free port.
fn installed(servers: [SocketAddr; 2]) -> String {
    let mut config = fs::read_to_string(repository().join("packaging/sessile.toml")).unwrap();
    for (written, here) in [
        ("\"localhost:8080\"", "\"127.0.0.1:0\"".to_owned()),
        ("127.0.0.1:9000", servers[0].to_string()),
        ("127.0.0.1:9001", servers[1].to_string()),
    ] {
        assert!(config.contains(written), "{written}");
        config = config.replace(written, &here);
    }
    let lines: Vec<_> = config.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join("\n")
}

/// A server that answers one request per connection with its name.
fn server(name: &'static str) -> Backend {
    Backend::serving(move |mut stream| {
        let _ = stream.read(&mut [0; 4096])?;
        let length = name.len();
        stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{name}").as_bytes())
    })
}

#[test]
fn the_installed_configuration_answers_at_once_and_keeps_a_client_once_its_servers_are_there() {
    let file = repository().join("packaging/sessile.toml");
    let checked = text(&run(&["check", file.to_str().unwrap()]));
    assert!(checked.ends_with(": good\n") && checked.lines().count() == 1, "{checked}");

    let sessile = Sessile::start(&installed([free_address(), free_address()]));
    let address = sessile.address("http");
    let ask = || http::exchange(TcpStream::connect(address).unwrap(), "GET", "/").expect("a response");
    assert_eq!(ask().0, 503);

    let servers = [server("a"), server("b")];
    let verdict = sessile.reload(&installed([servers[0].address, servers[1].address]));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    let (_, first) = eventually("a server", || Some(ask()).filter(|(status, _)| *status == 200));
    for _ in 0..10 {
        assert_eq!(ask(), (200, first.clone()));
    }
}

/// Runs a program of Python with `packaging/materials.py` as the module `materials`.
fn python(program: &str) -> Output {
    let whole = format!("import sys\nsys.path.insert(0, 'packaging')\nimport materials\n{program}");
    Command::new("/usr/bin/python3").args(["-I", "-B", "-c", &whole]).current_dir(repository()).output().unwrap()
}

#[test]
fn a_licence_that_is_not_known_is_refused() {
    if !has("a_licence_that_is_not_known_is_refused", "python3") {
        return;
    }
    for (expression, accepted) in [
        ("MIT", true),
        ("Foo", false),
        ("", false),
        ("Foo OR MIT", true),
        ("Foo AND MIT", false),
        ("(MIT OR Foo) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND Foo", false),
        ("Apache-2.0 WITH LLVM-exception OR Foo", true),
        ("Apache-2.0 WITH Foo-exception", false),
        ("MIT MIT", false),
        ("(MIT", false),
        ("MIT)", false),
    ] {
        let said = text(&python(&format!("print(materials.accepted({expression:?}))")));
        assert_eq!(said, if accepted { "True\n" } else { "False\n" }, "{expression}");
    }
    // One crate with a licence that is not known, and one without a text, end the whole.
    let crates = "
class Crates:
    linked = set()
    def by_name(self, ids):
        strange = {'name': 'strange', 'version': '1.0.0', 'license': 'Foo', 'manifest_path': '/nowhere/Cargo.toml'}
        return [strange, strange | {'name': 'silent', 'license': 'MIT'}]
print(materials.notices(Crates(), []))";
    let refused = python(crates);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    assert!(said.contains("strange 1.0.0: the licence \"Foo\" is not known here"), "{said}");
    assert!(said.contains("silent 1.0.0: the sources have no licence text"), "{said}");
}

#[test]
fn a_bill_of_materials_names_every_crate_with_checksum_and_licence() {
    let test = "a_bill_of_materials_names_every_crate_with_checksum_and_licence";
    if !has(test, "python3") || !has(test, "cargo") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let [sbom, notices] = ["sbom", "notices"].map(|kind| scratch.path().join(format!("{name}.{kind}")));
        let mut command = Command::new(repository().join("packaging/materials.py"));
        command.args(["--target", &host(), "--sbom"]).arg(&sbom).arg("--notices").arg(&notices);
        text(&command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap());
        (fs::read_to_string(sbom).unwrap(), fs::read_to_string(notices).unwrap())
    };
    let (sbom, notices) = made("first");
    assert_eq!(made("second"), (sbom.clone(), notices.clone()), "the same input gives the same files");

    let bill: Value = serde_json::from_str(&sbom).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    let components = bill["components"].as_array().unwrap();
    let find = |name: &str| components.iter().find(|component| component["name"] == name);
    for component in components {
        assert!(component["licenses"][0]["expression"].as_str().is_some_and(|it| !it.is_empty()), "{component}");
        let crates = component["purl"].as_str().unwrap().starts_with("pkg:cargo/");
        assert_eq!(component["hashes"][0]["content"].as_str().map_or(0, str::len), if crates { 64 } else { 0 });
    }
    let scope = |name: &str| find(name).map(|component| component["scope"].clone());
    assert_eq!(scope("rustls"), Some("required".into()));
    assert_eq!(scope("cc"), Some("excluded".into()), "what only builds");
    assert_eq!(scope("proptest"), None, "what only tests");
    let root = &bill["metadata"]["component"]["bom-ref"];
    let edges = bill["dependencies"].as_array().unwrap();
    let of_root = edges.iter().find(|edge| edge["ref"] == *root).expect("the application");
    assert!(of_root["dependsOn"].as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains("/rustls@")));

    for component in components.iter().filter(|component| component["scope"] == "required") {
        let line = format!("\n{} {} (", component["name"].as_str().unwrap(), component["version"].as_str().unwrap());
        assert!(notices.contains(&line), "{line} has no licence text");
    }
}

/// The target of this machine.
fn host() -> String {
    let said = text(&Command::new("rustc").arg("-vV").output().unwrap());
    said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}
