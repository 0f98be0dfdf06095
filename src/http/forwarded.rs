//! [`Forwarding`]: how the client is announced to a backend, in X-Forwarded-For, -Proto, -Host and -Port and in RFC 7239
//! Forwarded; [`told_secure`]: what a trusted proxy tells of its client.
//!
//! Does not decide which clients are trusted: the caller passes per request whether the client's own fields are kept.
//! Invariant: with [`Forwarding::Replace`] and [`Forwarding::Remove`] none of the client's own fields reaches the
//! backend, nor any other field in which proxies describe their client, not even under a name with underscores or dots,
//! which CGI and its successors read as the same name.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;

use super::cookie::unquote;
use super::field::{FieldRef, Fields, KnownField, folds_to, folds_to_start, split_at_byte, trim};
use super::target::Host;

/// All names with this beginning describe the client of a proxy.
const FAMILY: &str = "X-Forwarded-";

/// Other names under which proxies, content networks and application servers describe a client, or what it has asked for:
/// its address, scheme, host, port, prefix or path.
const DESCRIPTIONS: [&str; 61] = [
    "CDN-Real-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "CF-Visitor",
    "Client-IP",
    "CloudFront-Forwarded-Proto",
    "CloudFront-Viewer-Address",
    "DO-Connecting-IP",
    "Fastly-Client-IP",
    "Fastly-SSL",
    "Fly-Client-IP",
    "Fly-Forwarded-Port",
    "Fly-Forwarded-Proto",
    "Fly-Forwarded-SSL",
    "Forwarded-For",
    "Forwarded-Host",
    "Forwarded-Port",
    "Forwarded-Proto",
    "Forwarded-Server",
    "Front-End-Https",
    "Incap-Client-IP",
    "Path-Info",
    "Proxy-Client-IP",
    "Remote-Addr",
    "Script-Name",
    "True-Client-IP",
    "WL-Proxy-Client-IP",
    "WL-Proxy-SSL",
    "X-Azure-ClientIP",
    "X-Azure-SocketIP",
    "X-Client-IP",
    "X-Client-Proto",
    "X-Cluster-Client-IP",
    "X-Envoy-External-Address",
    "X-Envoy-Original-Host",
    "X-Envoy-Original-Path",
    "X-Forward-For",
    "X-Forward-Proto",
    "X-Forwarded",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-HTTPS",
    "X-Nf-Client-Connection-IP",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "X-Original-Proto",
    "X-Original-Scheme",
    "X-Original-URI",
    "X-Original-URL",
    "X-Originating-IP",
    "X-Proto",
    "X-ProxyUser-IP",
    "X-Real-IP",
    "X-Real-Port",
    "X-Real-Proto",
    "X-Remote-Addr",
    "X-Remote-IP",
    "X-Rewrite-URL",
    "X-Scheme",
    "X-Script-Name",
    "X-Url-Scheme",
];

/// Length of the longest of all these names.
pub(super) const LONGEST: usize = {
    let (mut longest, mut index) = (0, 0);
    while index < DESCRIPTIONS.len() {
        longest = if DESCRIPTIONS[index].len() > longest { DESCRIPTIONS[index].len() } else { longest };
        index += 1;
    }
    longest
};

/// The treatment of one of the two families of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Forwarding {
    /// For trusted proxies as clients: the client's address is added to their list; their X-Forwarded-Proto, -Host and
    /// -Port, which describe the first client, are kept if present.
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
#[derive(Clone, Copy)]
pub(super) struct ForwardedFacts<'a> {
    pub client: Option<IpAddr>,
    /// The port that the client has connected to; `None`: it is not known.
    pub port: Option<u16>,
    pub secure: bool,
    pub host: Option<Host<'a>>,
    /// True for a field that a rule of the pool sets or removes: none is written here.
    pub is_replaced: &'a dyn Fn(KnownField) -> bool,
}

/// The scheme of the first client, as a trusted proxy tells it in X-Forwarded-Proto or, without that, in Forwarded: true
/// for `https`. `None`: it tells none that is known.
pub fn told_secure(fields: Fields<'_>) -> Option<bool> {
    let told = match fields.tokens(KnownField::XForwardedProto).next() {
        Some(told) => told,
        None => first_proto(fields.all(KnownField::Forwarded).next()?)?,
    };
    let is = |schemes: [&str; 2]| schemes.iter().any(|scheme| told.eq_ignore_ascii_case(scheme.as_bytes()));
    // Some proxies name the schemes of WebSockets.
    if is(["https", "wss"]) { Some(true) } else { is(["http", "ws"]).then_some(false) }
}

/// `proto` of the first element of a Forwarded line (RFC 7239 §4).
fn first_proto(value: &[u8]) -> Option<&[u8]> {
    let element = split_unquoted(value, b',').next()?;
    split_unquoted(element, b';').find_map(|pair| {
        let (name, told) = split_at_byte(trim(pair), b'=');
        told.filter(|_| trim(name).eq_ignore_ascii_case(b"proto")).map(|told| unquote(trim(told)))
    })
}

/// The parts between separators that do not stand in quotes.
fn split_unquoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    value.split(move |byte| {
        is_quoted ^= *byte == b'"';
        !is_quoted && *byte == separator
    })
}

fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

/// True if the client's line is dropped: the client is not trusted, or the new line repeats its value.
pub(super) fn drops(field: FieldRef<'_>, x_forwarded: Forwarding, forwarded: Forwarding) -> bool {
    match field.known {
        KnownField::XForwardedFor => x_forwarded != Forwarding::Off,
        KnownField::XForwardedProto | KnownField::XForwardedHost | KnownField::XForwardedPort => {
            is_dropped(x_forwarded)
        }
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
    let stays = |known| (facts.is_replaced)(known) || appends && fields.has(known);
    let (known, old) = (KnownField::XForwardedFor, appends.then_some(fields));
    match facts.client.map(|client| client.to_canonical()) {
        _ if (facts.is_replaced)(known) => {}
        Some(address) => write_list(out, known, old, Some(format_args!("{address}"))),
        None => write_list(out, known, old, None),
    }
    let told = if appends { told_secure(fields) } else { None };
    if !stays(KnownField::XForwardedProto) {
        push(out, &["X-Forwarded-Proto: ", scheme(told.unwrap_or(facts.secure)), "\r\n"]);
    }
    if let Some(host) = facts.host
        && !stays(KnownField::XForwardedHost)
    {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(host.bytes);
        out.extend_from_slice(b"\r\n");
    }
    // Our port beside the scheme that the first client has used elsewhere would be wrong.
    if let Some(port) = facts.port
        && told.is_none()
        && ![KnownField::XForwardedProto, KnownField::XForwardedPort].into_iter().any(stays)
    {
        write_list(out, KnownField::XForwardedPort, None, Some(format_args!("{port}")));
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
    if !appends && forwarding != Forwarding::Replace || (facts.is_replaced)(KnownField::Forwarded) {
        return;
    }
    let node = match facts.client.map(|client| client.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".into(),
    };
    let mut element = format!("for={node};proto={}", scheme(facts.secure));
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
