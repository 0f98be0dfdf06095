//! Reads one `[[listener.route]]`: its conditions, and the pool, the split or the answer that it leads to.
//!
//! Which of two routes is more precise is for `tie.rs`, whether requests can come to one for `reach.rs`. Invariant: a
//! route without errors has a condition and one goal; only a route about connections has keys about TLS.

use super::{Bad, tls};
use crate::config::file::Section;
use crate::config::{
    ErrorPage, Redirect, RequestConditions, Respond, RespondBody, Route, RouteGoal, Template, TemplatePart, Tls, keys,
    value,
};

/// Keys of conditions on connections.
const OF_CONNECTIONS: [&str; 3] = ["sni", "alpn", "source"];
/// Keys of conditions on requests.
const OF_REQUESTS: [&str; 4] = ["host", "path", "method", "header"];
/// Keys by which a route may lead somewhere.
const GOALS: [&str; 4] = ["pool", "split", "redirect", "respond"];
/// Statuses of answers without content (RFC 9110 §15.3.5, §15.3.6 and §15.4.5).
const WITHOUT_CONTENT: [u16; 3] = [204, 205, 304];

/// Reads a route without `client_certificate`, which the caller adds; `listener` and `http2` are the listener's words.
pub(super) fn route(section: &Section<'_>, listener: Tls, http2: bool) -> Route {
    let is_written = |key: &&'static str| if *key == "header" { section.has(key) } else { section.count(key) > 0 };
    if !OF_CONNECTIONS.iter().chain(&OF_REQUESTS).any(is_written) {
        let hint = "write its pool as the listener's pool";
        section.error_at(section.start, Bad::new("has no condition").hint(hint));
    }
    let request = RequestConditions {
        host: section.values("host", value::name_pattern),
        path: section.values("path", value::path_pattern),
        method: section.values("method", value::method),
        header: header(section),
    };
    let of_requests = OF_REQUESTS.iter().find(|key| is_written(key));
    let tls = section.read("tls", value::word(&tls::WORDS)).unwrap_or(listener);
    if let Some(condition) = of_requests {
        for key in ["sni", "alpn", "tls", "client_certificate", "http2"].into_iter().filter(|key| section.has(key)) {
            let bad = Bad::new(format!("{key} decides about connections, and {condition} about their requests"));
            section.error(
                key,
                bad.hint(match key {
                    "sni" => "write host here; TLS is that of the route with this sni, or of the listener",
                    _ => "write a route with sni for it",
                }),
            );
        }
    } else if tls == Tls::Off && listener != Tls::Off {
        let bad =
            Bad::new("tls \"off\" is not possible on this route: the ClientHello is read before a route is chosen");
        section.error("tls", bad.hint("\"passthrough\" forwards it unchanged"));
    }
    let goal = goal(section);
    if let RouteGoal::Redirect(redirect) = &goal
        && is_https(&redirect.to)
        && listener != Tls::Off
    {
        let bad = Bad::new("redirect leads back here: every client that gets it has come by HTTPS");
        section.warn("redirect", bad.hint("a listener with tls = \"off\" sends clients to HTTPS"));
    }
    if tls == Tls::Passthrough
        && of_requests.is_none()
        && let RouteGoal::Redirect(_) | RouteGoal::Respond(_) = goal
    {
        let key = if matches!(goal, RouteGoal::Redirect(_)) { "redirect" } else { "respond" };
        let bad = Bad::new(format!("{key} answers requests, and those inside passthrough TLS cannot be read"));
        section.error(key, bad.hint("write tls = \"terminate\" here"));
    }
    Route {
        sni: section.values("sni", value::name_pattern),
        alpn: section.values("alpn", value::alpn),
        source: section.values("source", value::network),
        // Requests are read where TLS ends.
        tls: if of_requests.is_some() && listener == Tls::Passthrough { Tls::Terminate } else { tls },
        request,
        client_certificate: None,
        http2: section.read("http2", value::boolean).unwrap_or(http2),
        goal,
    }
}

/// Reads the fields that requests must have, by name.
fn header(section: &Section<'_>) -> Vec<(String, String)> {
    let mut header: Vec<(String, String)> = Vec::new();
    for (at, name, value) in section.entries("header", value::compared_field, value::field_value) {
        if header.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            section.error_at(at, Bad::new(format!("header \"{name}\" stands twice: case makes no difference")));
        }
        header.push((name.to_ascii_lowercase(), value));
    }
    if section.has("header") && header.is_empty() {
        section.error("header", Bad::new("header has no field").hint("write header = { NAME = \"VALUE\" }"));
    }
    header.sort();
    header
}

fn goal(section: &Section<'_>) -> RouteGoal {
    let mut written = GOALS.into_iter().filter(|key| section.has(key));
    if let (Some(first), Some(second)) = (written.next(), written.next()) {
        section.error(second, Bad::new(format!("{second} is another goal than {first}: a route has one")));
    }
    match GOALS.into_iter().find(|key| section.has(key)) {
        Some("split") => RouteGoal::Split(section.read("split", value::name).unwrap_or_default()),
        Some("redirect") => RouteGoal::Redirect(redirect(section)),
        Some("respond") => RouteGoal::Respond(respond(section)),
        goal => {
            if goal.is_none() {
                section.missing("has no pool");
            }
            RouteGoal::Pool(section.read("pool", value::name).unwrap_or_default())
        }
    }
}

fn redirect(route: &Section<'_>) -> Redirect {
    let section = route.child("redirect", &keys::REDIRECT);
    let to = section.required("to", value::template).unwrap_or(Template(Vec::new()));
    // Nothing but the scheme changes: the same request, for ever. Another place may be a mistake, which no browser keeps.
    let default = if is_https(&to) { 308 } else { 302 };
    Redirect { status: section.read("status", value::redirect_status).unwrap_or(default), to }
}

/// True for the template of `"https"`.
fn is_https(template: &Template) -> bool {
    let [TemplatePart::Text(scheme), rest @ ..] = &template.0[..] else { return false };
    scheme == "https://" && *rest == [TemplatePart::Host, TemplatePart::Path, TemplatePart::Query]
}

fn respond(route: &Section<'_>) -> Respond {
    let section = route.child("respond", &keys::RESPOND);
    let status = section.required("status", value::integer(200..=599)).unwrap_or(200);
    let text = section.read("body", |value| value::text(value).map(str::to_owned));
    let file = section.read("body_file", value::file);
    let has = |key| section.has(key);
    if has("body") && has("body_file") {
        section.error("body_file", Bad::new("body_file and body are two contents of one answer"));
    }
    let body = if has("body_file") { "body_file" } else { "body" };
    if WITHOUT_CONTENT.contains(&status) && has(body) {
        section.error(body, Bad::new(format!("{body} cannot be sent: an answer with status {status} has no content")));
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (at, name, value) in section.entries("headers", value::answered_field, value::field_value) {
        if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            section.error_at(at, Bad::new(format!("headers \"{name}\" stands twice: case makes no difference")));
        }
        headers.push((name, value));
    }
    let body = match (text, file) {
        (_, Some(file)) => RespondBody::File(file),
        (Some(text), None) if !text.is_empty() => RespondBody::Text(text),
        (_, None) => RespondBody::Empty,
    };
    Respond { status, body, headers }
}

/// Reads `[listener.error_page]`.
pub(super) fn error_pages(listener: &Section<'_>) -> Vec<ErrorPage> {
    let section = listener.child("error_page", &keys::ERROR_PAGE);
    let page = |key: &&'static str| {
        let (key, status) = (*key, key.parse().ok()?);
        section.read(key, value::file).map(|file| ErrorPage { status, key, file })
    };
    keys::ERROR_PAGE.keys.iter().filter_map(page).collect()
}
