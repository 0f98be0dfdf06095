//! [`Forwarding`]: how the client is announced to a backend, in X-Forwarded-For, -Proto and -Host and in RFC 7239
//! Forwarded.
//!
//! Does not decide which clients are trusted: the caller passes per request whether the client's own fields are kept.
//! Invariant: with [`Forwarding::Replace`] and [`Forwarding::Remove`] none of the client's own fields reaches the
//! backend, nor any other field in which proxies describe their client, not even under a name with underscores or dots,
//! which CGI and its successors read as the same name.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;

use super::field::{FieldRef, Fields, KnownField, folds_to, folds_to_start};
use super::target::Host;

/// All names with this beginning describe the client of a proxy.
const FAMILY: &str = "X-Forwarded-";

/// Other names under which proxies describe their client, or what it has asked for.
const DESCRIPTIONS: [&str; 12] = [
    "Forwarded-For",
    "Front-End-Https",
    "True-Client-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Forwarded",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "X-Original-URL",
    "X-Real-IP",
    "X-Rewrite-URL",
    "X-Url-Scheme",
];

/// The treatment of one of the two families of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Forwarding {
    /// For trusted proxies as clients: the client's address is added to their list; their X-Forwarded-Proto and -Host,
    /// which describe the first client, are kept if present.
    Append,
    /// The client's own fields are dropped, with all in which proxies describe their client, and new ones are written.
    #[default]
    Replace,
    /// The client's own fields are dropped, and none are written.
    Remove,
    /// The client's own fields are passed on like any other field.
    Off,
}

/// The facts about the client that the fields announce.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForwardedFacts<'a> {
    pub client: Option<IpAddr>,
    pub secure: bool,
    pub host: Option<Host<'a>>,
}

impl ForwardedFacts<'_> {
    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// True if the client's line is dropped: the client is not trusted, or the new line repeats its value.
pub(super) fn drops(field: FieldRef<'_>, x_forwarded: Forwarding, forwarded: Forwarding) -> bool {
    match field.known {
        KnownField::XForwardedFor => x_forwarded != Forwarding::Off,
        KnownField::XForwardedProto | KnownField::XForwardedHost => is_dropped(x_forwarded),
        KnownField::Forwarded => forwarded != Forwarding::Off,
        KnownField::Other => is_dropped(x_forwarded) && describes_client(field.name),
        _ => false,
    }
}

/// True for the names of fields in which proxies describe their client, in any spelling that CGI folds into them.
pub(super) fn describes_client(name: &[u8]) -> bool {
    folds_to_start(name, FAMILY) || DESCRIPTIONS.iter().any(|known| folds_to(name, known))
}

fn is_dropped(forwarding: Forwarding) -> bool {
    matches!(forwarding, Forwarding::Replace | Forwarding::Remove)
}

/// Appends new lines of the X-Forwarded family.
pub(super) fn write_x_forwarded(
    out: &mut Vec<u8>,
    fields: Fields<'_>,
    forwarding: Forwarding,
    facts: &ForwardedFacts<'_>,
) {
    let appends = forwarding == Forwarding::Append;
    if !appends && forwarding != Forwarding::Replace {
        return;
    }
    let (known, old) = (KnownField::XForwardedFor, appends.then_some(fields));
    match facts.client.map(|client| client.to_canonical()) {
        Some(address) => write_list(out, known, old, Some(format_args!("{address}"))),
        None => write_list(out, known, old, None),
    }
    if !(appends && fields.has(KnownField::XForwardedProto)) {
        push(out, &["X-Forwarded-Proto: ", facts.scheme(), "\r\n"]);
    }
    if let Some(host) = facts.host
        && !(appends && fields.has(KnownField::XForwardedHost))
    {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(host.bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a new Forwarded line (RFC 7239 §4). A client without an address is `unknown` (§6.2).
pub(super) fn write_forwarded(
    out: &mut Vec<u8>,
    fields: Fields<'_>,
    forwarding: Forwarding,
    facts: &ForwardedFacts<'_>,
) {
    let appends = forwarding == Forwarding::Append;
    if !appends && forwarding != Forwarding::Replace {
        return;
    }
    let node = match facts.client.map(|client| client.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".into(),
    };
    let mut element = format!("for={node};proto={}", facts.scheme());
    if let Some(host) = facts.host.and_then(|host| std::str::from_utf8(host.bytes).ok()) {
        // A colon or a bracket is no token byte (RFC 7239 §4), and nothing in a host needs a backslash.
        let quote = if host.contains([':', '[']) { "\"" } else { "" };
        element.extend([";host=", quote, host, quote]);
    }
    write_list(out, KnownField::Forwarded, appends.then_some(fields), Some(format_args!("{element}")));
}

/// Writes one line: the elements of the old lines, if they count, and the new element behind them.
fn write_list(out: &mut Vec<u8>, known: KnownField, old: Option<Fields<'_>>, new: Option<fmt::Arguments<'_>>) {
    let (mut before, mut separator) = (known.name(), ": ");
    let old = old.into_iter().flat_map(|fields| fields.all(known)).filter(|value| !value.is_empty());
    for value in old {
        push(out, &[before, separator]);
        out.extend_from_slice(value);
        (before, separator) = ("", ", ");
    }
    if let Some(new) = new {
        push(out, &[before, separator]);
        out.write_fmt(new).expect("memory takes everything");
        before = "";
    }
    if before.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
}

fn push(out: &mut Vec<u8>, texts: &[&str]) {
    texts.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
}
