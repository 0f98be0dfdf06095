//! grpc-go as client and server. It measures its way by a PING behind data that come, as often as the answer to the last
//! one is there, and opens its windows by that.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::site::{H2, Site};
use crate::support::go::GoProgram;
use crate::support::program::{Program, free_address, output};

#[test]
fn calls_of_grpc_go_pass_in_every_kind() {
    let source: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/it/grpc/scripts/calls.go"].iter().collect();
    let test = "calls_of_grpc_go_pass_in_every_kind";
    let Some(program) = GoProgram::build(test, &source, Some("google.golang.org/grpc")) else { return };
    let address = free_address();
    let mut command = program.command();
    command.args(["server", &address.to_string()]);
    let _server = Program::start(tempfile::tempdir().unwrap(), command, address);
    for site in Site::both(H2, &[address]) {
        let mut command = program.command();
        command.arg("client").arg(site.sessile.address("l").to_string()).arg(&site.authorities);
        let text = output(&mut command);
        let seen: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let given = json!(["one", "two"]);
        assert_eq!(
            seen,
            json!({
                "unary": ["hello"], "code": "OK", "head": given, "behind": given, "bytes": "00ff",
                "failed": [], "failure": "NotFound", "trailers": given, "late": "DeadlineExceeded",
                "counted": 100_000, "last": "0000099999", "chatted": 3_001, "collected": ["100000 1000000"],
                "after": ["after"],
            })
        );
        let lines: Vec<_> = site.sessile.lines().into_iter().filter(|line| line["kind"] == "request").collect();
        assert!(lines.iter().all(|line| line["id"] == lines[0]["id"]), "one connection: {lines:?}");
    }
}
