//! What routes compare with requests, and what they answer: paths, methods, fields, statuses and templates of a Location.
//!
//! Reads no request. Invariants: a name is a token and a value has no control character, so that neither can begin a line;
//! a template has a whole authority, or none, before the first part that a client chooses.

use toml::de::DeValue;

use super::name::is_token;
use super::{ValueResult, integer, text};
use crate::config::problem::Bad;
use crate::config::{PathPattern, Template, TemplatePart};
use crate::server_name::ServerName;

/// Longest path of a route in bytes.
const PATH_MAX: usize = 1024;
/// Longest name or value of a field in bytes.
const FIELD_MAX: usize = 4096;
/// Longest template in bytes.
const TEMPLATE_MAX: usize = 2048;
/// What a template may hold in braces.
const PLACES: [(&str, TemplatePart); 4] = [
    ("scheme", TemplatePart::Scheme),
    ("host", TemplatePart::Host),
    ("path", TemplatePart::Path),
    ("query", TemplatePart::Query),
];
/// Fields that say how a message is framed or what its connection does, or that this process writes itself.
const OWN_FIELDS: [&str; 13] = [
    "Connection",
    "Content-Length",
    "Date",
    "HTTP2-Settings",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "X-Request-Id",
    "Proxy-Authenticate",
    "Proxy-Authentication-Info",
];

/// Reads a path: `/api` with every path below it, `=/api` alone.
pub(in crate::config) fn path_pattern(value: &DeValue<'_>) -> ValueResult<PathPattern> {
    let bad = || Bad::new("is not a path").hint("\"/api\" for it and every path below it, \"=/api\" for it alone");
    let written = text(value).map_err(|_| bad())?;
    let (path, is_exact) = written.strip_prefix('=').map_or((written, false), |path| (path, true));
    if path.contains(['?', '#']) {
        return Err(Bad::new("has a query, and paths are compared without it"));
    }
    let good = path.starts_with('/') && path.len() <= PATH_MAX && path.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| PathPattern { path: path.to_owned(), is_exact }).ok_or_else(bad)
}

/// Reads a method.
pub(in crate::config) fn method(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    if !is_token(written) {
        return Err(Bad::new("is not a method"));
    }
    let upper = written.to_ascii_uppercase();
    match ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"].contains(&upper.as_str()) {
        true if upper != written => {
            Err(Bad::new("is not a method: they are compared with case").hint(format!("write \"{upper}\"")))
        }
        _ => Ok(written.to_owned()),
    }
}

/// Checks the name of a field that a route compares.
pub(in crate::config) fn compared_field(name: &str) -> ValueResult<()> {
    match name {
        _ if !is_token(name) || name.len() > FIELD_MAX => Err(Bad::new("is not the name of a header field")),
        _ if name.eq_ignore_ascii_case("host") => {
            Err(Bad::new("has a condition of its own").hint("write host = \"www.example.org\""))
        }
        _ => Ok(()),
    }
}

/// Checks the name of a field that an answer has.
pub(in crate::config) fn answered_field(name: &str) -> ValueResult<()> {
    match OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        true => Err(Bad::new("is a header field that sessile writes itself")),
        false if is_token(name) && name.len() <= FIELD_MAX => Ok(()),
        false => Err(Bad::new("is not the name of a header field")),
    }
}

/// Reads the value of a field: visible characters, with single spaces or tabs only between them.
pub(in crate::config) fn field_value(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let good = written.len() <= FIELD_MAX
        && written.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t')
        && written.trim_ascii() == written;
    good.then(|| written.to_owned())
        .ok_or_else(|| Bad::new("is not the value of a header field: visible ASCII, without spaces around it"))
}

/// Reads the status of a redirect.
pub(in crate::config) fn redirect_status(value: &DeValue<'_>) -> ValueResult<u16> {
    let bad = || Bad::new("is not 301, 302, 303, 307 or 308");
    let status = integer::<u16>(300..=399)(value).map_err(|_| bad())?;
    [301, 302, 303, 307, 308].contains(&status).then_some(status).ok_or_else(bad)
}

/// Reads where a redirect leads: `"https"`, or a template.
pub(in crate::config) fn template(value: &DeValue<'_>) -> ValueResult<Template> {
    let written = match text(value)? {
        "https" => "https://{host}{path}{query}",
        written => written,
    };
    if written.len() > TEMPLATE_MAX || !written.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err(Bad::new("is not a Location: visible ASCII without spaces and backslashes"));
    }
    let parts = parts(written)?;
    has_whole_authority(written)?;
    if written.contains("?{query}") {
        return Err(Bad::new("has a \"?\" before {query}, which brings its own"));
    }
    Ok(Template(parts))
}

/// Splits a template at its braces.
fn parts(mut rest: &str) -> ValueResult<Vec<TemplatePart>> {
    let mut parts = Vec::new();
    while let Some((before, behind)) = rest.split_once('{') {
        let (word, behind) = behind.split_once('}').ok_or_else(|| Bad::new("has a brace that is not closed"))?;
        let place = PLACES.iter().find(|(name, _)| *name == word);
        let unknown = || {
            let bad = Bad::new(format!("has {{{}}}, which is no part of a request", word.escape_debug()));
            bad.hint("{scheme}, {host}, {path} and {query} are")
        };
        if !before.is_empty() {
            parts.push(TemplatePart::Text(before.to_owned()));
        }
        parts.push(place.ok_or_else(unknown)?.1.clone());
        rest = behind;
    }
    if rest.contains('}') {
        return Err(Bad::new("has a brace that is not opened"));
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Refuses a template in which a path of a client could become the name of a site.
fn has_whole_authority(written: &str) -> ValueResult<()> {
    let bad = || {
        Bad::new("does not begin with a site or a path").hint(
            "\"https\", \"https://www.example.org{path}{query}\", \"{scheme}://{host}/new{path}\", or \"/new{path}\"",
        )
    };
    if let Some(path) = written.strip_prefix('/') {
        // Browsers read what follows two slashes as a site.
        return if path.starts_with(['/', '{']) { Err(bad()) } else { Ok(()) };
    }
    let site = ["https://", "http://", "{scheme}://"].iter().find_map(|scheme| written.strip_prefix(scheme));
    let site = site.ok_or_else(bad)?;
    let end = ["/", "?", "#", "{path}", "{query}"].iter().filter_map(|end| site.find(end)).min();
    let site = site[..end.unwrap_or(site.len())].replace("{host}", "host");
    let (name, port) = site.split_once(':').map_or((&*site, None), |(name, port)| (name, Some(port)));
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    let good_port =
        port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit()));
    ((is_address || ServerName::parse(name).is_some()) && good_port).then_some(()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(read: impl Fn(&DeValue<'_>) -> ValueResult<T>, written: &str) -> Result<T, String> {
        read(&DeValue::String(written.into())).map_err(|bad| bad.message)
    }

    #[test]
    fn paths_are_prefixes_or_exact() {
        let path = |written: &str| read(path_pattern, written).map(|path| (path.path, path.is_exact));
        assert_eq!(path("/"), Ok(("/".into(), false)));
        assert_eq!(path("=/a/b"), Ok(("/a/b".into(), true)));
        for bad in ["", "a", "=", "=a", "/a b", "/\u{e4}", "/a?b", "/a#b", "==/a"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        assert!(path(&format!("/{}", "a".repeat(PATH_MAX))).is_err());
    }

    #[test]
    fn methods_and_fields_are_tokens_and_values_cannot_begin_a_line() {
        assert_eq!(read(method, "GET"), Ok("GET".into()));
        assert_eq!(read(method, "MKCOL"), Ok("MKCOL".into()));
        assert!(read(method, "get").is_err() && read(method, "A B").is_err() && read(method, "").is_err());
        for (name, compared, answered) in
            [("X-Tenant", true, true), ("Host", false, true), ("content-length", true, false), ("a b", false, false)]
        {
            assert_eq!((compared_field(name).is_ok(), answered_field(name).is_ok()), (compared, answered), "{name}");
        }
        assert_eq!(read(field_value, "a b"), Ok("a b".into()));
        for bad in ["a\r\nb", "a\0", " a", "a ", "\u{e4}"] {
            assert!(read(field_value, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_template_is_read_as_it_is_written() {
        for (written, shown) in [
            ("https", "https://{host}{path}{query}"),
            ("https://www.example.org{path}{query}", "https://www.example.org{path}{query}"),
            ("{scheme}://www.{host}:8443/a{path}", "{scheme}://www.{host}:8443/a{path}"),
            ("http://10.0.0.1/", "http://10.0.0.1/"),
            ("https://example.org", "https://example.org"),
            ("/new{path}?from={host}", "/new{path}?from={host}"),
            ("/", "/"),
        ] {
            assert_eq!(read(template, written).map(|template| template.to_string()), Ok(shown.into()), "{written}");
        }
    }

    #[test]
    fn a_template_in_which_a_client_could_name_the_site_is_refused() {
        for written in [
            "{path}",
            "/{path}",
            "//evil.test{path}",
            "/\\evil.test",
            "https:/{path}",
            "https://{path}",
            "https://{host}.{path}",
            "https://{host}@{path}",
            "https://user@example.org/",
            "https://example.org:{path}",
            "https://example.org:{query}",
            "https://example.org:+1/",
            "javascript:{path}",
            "ftp://example.org/",
            "{host}{path}",
            "https://{query}",
            "https://{host}/a b",
            "https://{host}/\r\nX: y",
            "https://{host}{port}/",
            "https://{host/",
            "https://host}/",
            "https://{host}{path}?{query}",
            "",
        ] {
            assert!(read(template, written).is_err(), "{written:?}");
        }
    }
}
