//! Reads the kind of a health check, and the keys that only some kinds have.
//!
//! Runs no check. Invariant: a status range, path, text or name is used only by the kind of check that needs it, and one
//! that is written for another kind is warned of.

use toml::de::DeValue;

use super::Bad;
use crate::config::file::Section;
use crate::config::value::{self, ValueResult};
use crate::config::{CheckKind, HttpCheck};

/// Every kind, as it is written.
const KINDS: [&str; 11] = ["off", "tcp", "tls", "http", "https", "grpc", "grpcs", "redis", "mysql", "postgres", "smtp"];
/// Keys that only these kinds have.
const KEYS_OF_KINDS: [(&[&str], &[&str]); 7] = [
    (&["method", "path", "headers", "status"], &["http", "https"]),
    (&["host"], &["http", "https", "grpc", "grpcs"]),
    (&["service"], &["grpc", "grpcs"]),
    (&["send"], &["tcp", "tls"]),
    (&["expect"], &["tcp", "tls", "http", "https"]),
    (&["role"], &["redis"]),
    (&["user"], &["mysql", "postgres"]),
];
/// Methods of a request without a body.
const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "POST"];
/// Kinds with TLS.
const WITH_TLS: [&str; 3] = ["tls", "https", "grpcs"];
/// Kinds that connect as the pool does, with TLS if it has that.
const AS_THE_POOL: [&str; 5] = ["grpc", "redis", "mysql", "postgres", "smtp"];
/// User of a check in a database, unless another is named.
const MYSQL_USER: &str = "sessile";
const POSTGRES_USER: &str = "postgres";
/// Most bytes in the name of a user.
const USER_MAX: usize = 63;

/// Reads the kind of a check and its keys; `None`: off. `pool_has_tls`: connections to the pool's backends have TLS.
pub(super) fn kind(check: &Section<'_>, pool_has_tls: bool) -> Option<CheckKind> {
    let kind = check.read("kind", value::word(&KINDS.map(|kind| (kind, kind)))).unwrap_or("tcp");
    let of_this_kind = format!("on a check of kind \"{kind}\"");
    for (keys, _) in KEYS_OF_KINDS.iter().filter(|(_, kinds)| !kinds.contains(&kind)) {
        check.idle_keys(keys, &of_this_kind);
    }
    let has_tls = WITH_TLS.contains(&kind) || pool_has_tls && AS_THE_POOL.contains(&kind);
    if !has_tls {
        check.idle_keys(&["sni"], &of_this_kind);
    }
    let expect = check.read("expect", value::payload);
    let host = check.read("host", value::host);
    let http = http(check, kind, host.clone(), expect.clone());
    let grpc = grpc(check, kind, host, has_tls);
    let talk = talk(check, kind, expect);
    let plain = match kind {
        "http" => Some("https"),
        "tcp" if talk.is_some() => Some("tls"),
        _ => None,
    };
    let primary = check.read("role", value::word(&[("any", false), ("primary", true)])).unwrap_or(false);
    let user = check.read("user", user);
    if let Some(secure) = plain.filter(|_| pool_has_tls) {
        let bad = Bad::new(format!("kind \"{kind}\" checks without TLS, but the pool has [pool.tls]"));
        check.warn("kind", bad.hint(format!("write \"{secure}\" to check as the pool connects")));
    }
    let user_or = |default: &str| user.clone().unwrap_or_else(|| default.to_owned());
    match kind {
        "off" => None,
        "tcp" => Some(talk.unwrap_or(CheckKind::Tcp)),
        "tls" => Some(talk.unwrap_or(CheckKind::Tls)),
        "redis" => Some(CheckKind::Redis { primary }),
        "mysql" => Some(CheckKind::Mysql { user: user_or(MYSQL_USER) }),
        "postgres" => Some(CheckKind::Postgres { user: user_or(POSTGRES_USER) }),
        "smtp" => Some(CheckKind::Smtp),
        "grpc" | "grpcs" => Some(grpc),
        _ => Some(CheckKind::Http(http)),
    }
}

fn grpc(check: &Section<'_>, kind: &str, host: Option<String>, tls: bool) -> CheckKind {
    let is_bad = |host: &&str| matches!(kind, "grpc" | "grpcs") && !value::is_authority(host);
    if let Some(host) = host.as_deref().filter(is_bad) {
        check.error("host", Bad::new(format!("host \"{host}\" cannot be the authority of a call")));
    }
    CheckKind::Grpc { tls, host, service: check.read("service", value::grpc_service).unwrap_or_default() }
}

/// Reads the name of a user of a database.
fn user(value: &DeValue<'_>) -> ValueResult<String> {
    let written = value::text(value)?;
    let good = (1..=USER_MAX).contains(&written.len()) && !written.chars().any(char::is_control);
    good.then(|| written.to_owned())
        .ok_or_else(|| Bad::new(format!("is not the name of a user: 1 to {USER_MAX} bytes")))
}

fn http(check: &Section<'_>, kind: &str, host: Option<String>, expect: Option<Vec<u8>>) -> HttpCheck {
    let (status_min, status_max) = check.read("status", value::status).unwrap_or((200, 399));
    let method = check.read("method", value::word(&METHODS.map(|method| (method, method)))).unwrap_or("GET");
    if method == "HEAD" && check.has("expect") && matches!(kind, "http" | "https") {
        let bad = Bad::new("expect looks into the body, and the response to method \"HEAD\" has none");
        check.error("expect", bad.hint("method = \"GET\""));
    }
    HttpCheck {
        tls: kind == "https",
        method,
        path: check.read("path", value::path).unwrap_or_else(|| "/".to_owned()),
        host,
        headers: check.values("headers", value::header_line),
        status_min,
        status_max,
        expect: expect.unwrap_or_default(),
    }
}

/// The check of `send` and `expect`; `None`: neither is written.
fn talk(check: &Section<'_>, kind: &str, expect: Option<Vec<u8>>) -> Option<CheckKind> {
    let send = check.read("send", value::payload);
    if check.has("send") && !check.has("expect") && matches!(kind, "tcp" | "tls") {
        let bad = Bad::new("send needs expect: a check that waits for no answer learns nothing from it");
        check.error("send", bad.hint("expect = \"+PONG\" is part of the answer of Redis to send = \"PING\\r\\n\""));
    }
    Some(CheckKind::Talk { tls: kind == "tls", send: send.unwrap_or_default(), expect: expect? })
}
