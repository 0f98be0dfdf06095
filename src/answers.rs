//! [`Answers`]: what a listener answers without a backend: redirects and contents of routes, and pages for errors.
//!
//! Reads no file: [`Texts`] brings what is in those that the configuration names. Chooses no route. Invariant: a Location
//! names the site that its template names; what a request adds to it is a host that the reader of HTTP/1 has accepted, or
//! a path and a query behind a whole authority, of visible ASCII.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Redirect, Respond, RespondBody, RouteGoal, TemplatePart};
use crate::http::answer::{self, Answer};
use crate::http::target::{Host, Target};
use crate::route::requests::path_and_query;

/// Longest content of an answer, and longest page, in bytes.
pub const TEXT_MAX: u64 = 64 << 10;

/// Content types by the extension of a file; the first is that of every other one.
const TYPES: [(&str, &str); 12] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("txt", TEXT),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("gif", "image/gif"),
    ("ico", "image/x-icon"),
];
/// Content type of a text in the configuration.
const TEXT: &str = "text/plain; charset=utf-8";

/// The contents of files that answers are made of, each once.
#[derive(Debug, Clone, Default)]
pub struct Texts(BTreeMap<PathBuf, Arc<[u8]>>);

impl Texts {
    /// Adds the content of a file.
    pub fn add(&mut self, path: PathBuf, text: Vec<u8>) {
        self.0.insert(path, text.into());
    }

    /// The content of a file; `None`: it was not added.
    pub fn of(&self, path: &Path) -> Option<&Arc<[u8]>> {
        self.0.get(path)
    }

    /// One line for each file with another content than in `previous`.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        let differs = |(path, text): &(&PathBuf, &Arc<[u8]>)| previous.of(path).is_some_and(|before| before != *text);
        self.0.iter().filter(differs).map(|(path, _)| format!("file \"{}\" changed", path.display())).collect()
    }
}

/// What a listener answers without a backend.
#[derive(Debug, Default)]
pub struct Answers {
    /// By the index of the route.
    routes: Box<[Option<RouteAnswer>]>,
    pages: Box<[(u16, Page)]>,
}

/// A page for an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Content type of the page.
    pub content_type: &'static str,
    /// What clients get.
    pub content: Arc<[u8]>,
}

/// The answer of a route.
#[derive(Debug)]
pub enum RouteAnswer {
    /// Sends the client to another place.
    Redirect(Redirect),
    /// Gives the client a content.
    Respond {
        /// Status, and fields besides those that every answer has.
        rule: Respond,
        /// What the client gets.
        page: Page,
    },
}

/// The request that is answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// True if the client used TLS.
    pub secure: bool,
    /// Host of the request; `None`: it has none.
    pub host: Option<Host<'a>>,
    /// Server name of its connection, which stands for a host that is missing.
    pub sni: Option<&'a str>,
    /// Target of the request.
    pub target: Target<'a>,
    /// The field with the id of the request, and the id.
    pub id: (&'a str, &'a str),
    /// True if it was HEAD.
    pub to_head: bool,
    /// True if the connection ends with the answer.
    pub close: bool,
}

impl Answers {
    /// The answers of a listener. Files that `texts` lacks count as empty: a checked configuration has them all.
    pub fn new(listener: &config::Listener, texts: &Texts) -> Self {
        let page =
            |file: &Path| Page { content_type: type_of(file), content: texts.of(file).cloned().unwrap_or_default() };
        let answer = |goal: &RouteGoal| match goal {
            RouteGoal::Pool(_) | RouteGoal::Split(_) => None,
            RouteGoal::Redirect(redirect) => Some(RouteAnswer::Redirect(redirect.clone())),
            RouteGoal::Respond(rule) => {
                let page = match &rule.body {
                    RespondBody::Empty => Page { content_type: TEXT, content: Arc::default() },
                    RespondBody::Text(text) => Page { content_type: TEXT, content: text.as_bytes().into() },
                    RespondBody::File(file) => page(file),
                };
                Some(RouteAnswer::Respond { rule: rule.clone(), page })
            }
        };
        let answers = listener.routes.iter().any(config::Route::answers);
        let routes = listener.routes.iter().filter(|_| answers).map(|route| answer(&route.goal));
        let pages = listener.error_pages.iter().map(|error| (error.status, page(&error.file)));
        Self { routes: routes.collect(), pages: pages.collect() }
    }

    /// The answer of a route; `None`: it leads to a pool or a split.
    pub fn of_route(&self, route: usize) -> Option<&RouteAnswer> {
        self.routes.get(route)?.as_ref()
    }

    /// The page for replies of this process with this status; `None`: they have their own text.
    pub fn page(&self, status: u16) -> Option<&Page> {
        self.pages.iter().find(|(of, _)| *of == status).map(|(_, page)| page)
    }
}

impl RouteAnswer {
    /// Status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Redirect(redirect) => redirect.status,
            Self::Respond { rule, .. } => rule.status,
        }
    }

    /// Appends the answer to a request; false: its Location has the host of the request, which has none.
    pub fn write(&self, out: &mut Vec<u8>, to: &Answered<'_>, now_unix_s: u64) -> bool {
        let Answered { id, to_head, close, .. } = *to;
        let answer = Answer { status: self.status(), id: Some(id), to_head, close, ..Answer::default() };
        match self {
            Self::Redirect(redirect) => {
                let Some(location) = location(redirect, to) else { return false };
                let phrase = answer::phrase(redirect.status);
                let body = format!("{} {phrase}\n", redirect.status);
                let (fields, body) = (&[("Location", location.as_str())], body.as_bytes());
                answer::write_answer(out, &Answer { content_type: Some(TEXT), fields, body, ..answer }, now_unix_s);
            }
            Self::Respond { rule, page } => {
                let fields: Vec<_> = rule.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
                let has_type = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("Content-Type"));
                let content_type = (!page.content.is_empty() && !has_type).then_some(page.content_type);
                let answer = Answer { content_type, fields: &fields, body: &page.content, ..answer };
                answer::write_answer(out, &answer, now_unix_s);
            }
        }
        true
    }
}

/// Where a redirect leads; `None`: it needs a host, and there is none.
pub fn location(redirect: &Redirect, to: &Answered<'_>) -> Option<String> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let (path, query) = path_and_query(to.target);
    let mut location = String::new();
    for part in &redirect.to.0 {
        location += match part {
            TemplatePart::Text(text) => text.as_str(),
            TemplatePart::Scheme if to.secure => "https",
            TemplatePart::Scheme => "http",
            TemplatePart::Host => to.host.map_or(to.sni, |host| text(host.name))?,
            TemplatePart::Path => text(path)?,
            TemplatePart::Query => text(query)?,
        };
    }
    Some(location)
}

fn type_of(file: &Path) -> &'static str {
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let known = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension));
    known.unwrap_or(&TYPES[0]).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Template;

    fn to<'a>(host: Option<&'a str>, target: Target<'a>) -> Answered<'a> {
        let host = host.map(|host| Host::read(host.as_bytes()).unwrap());
        Answered { secure: false, host, sni: None, target, id: ("X-Request-Id", "7f3a"), to_head: false, close: false }
    }

    fn redirect(parts: &[TemplatePart]) -> Redirect {
        Redirect { to: Template(parts.to_vec()), status: 308 }
    }

    #[test]
    fn a_location_has_the_parts_of_the_request_and_no_port() {
        let text = |text: &str| TemplatePart::Text(text.into());
        let https = redirect(&[text("https://"), TemplatePart::Host, TemplatePart::Path, TemplatePart::Query]);
        let of = |host, target| location(&https, &to(host, target));
        let absolute = |path| Target::Absolute { scheme: b"http", authority: b"a.test", path };
        for (host, target, wanted) in [
            ("a.test:8080", Target::Origin(b"/x?y=1&z"), "https://a.test/x?y=1&z"),
            ("a.test", Target::Origin(b"//evil.test/"), "https://a.test//evil.test/"),
            ("[2001:db8::1]:80", Target::Origin(b"/"), "https://[2001:db8::1]/"),
            ("a.test", absolute(b""), "https://a.test/"),
            ("a.test", absolute(b"?q"), "https://a.test/?q"),
            ("a.test", Target::Asterisk, "https://a.test/"),
        ] {
            assert_eq!(of(Some(host), target).as_deref(), Some(wanted));
        }
        assert_eq!(of(None, Target::Origin(b"/")), None);
        let by_name = Answered { sni: Some("b.test"), secure: true, ..to(None, Target::Origin(b"/")) };
        assert_eq!(location(&https, &by_name).as_deref(), Some("https://b.test/"));
        let moved = redirect(&[TemplatePart::Scheme, text("://new.test"), TemplatePart::Path]);
        assert_eq!(location(&moved, &by_name).as_deref(), Some("https://new.test/"));
    }

    #[test]
    fn every_reply_of_this_process_can_have_a_page() {
        let keys: Vec<_> = config::keys::ERROR_PAGE.keys.iter().map(|key| key.parse::<u16>().unwrap()).collect();
        let statuses: Vec<_> = answer::StatusCode::ALL.iter().map(|status| status.code()).collect();
        assert_eq!(keys, statuses);
    }

    #[test]
    fn a_content_has_the_type_of_its_file() {
        for (file, wanted) in [
            ("/x/a.JSON", "application/json"),
            ("/x/503.html", "text/html; charset=utf-8"),
            ("/x/503", "text/html; charset=utf-8"),
            ("/x/a.txt", TEXT),
        ] {
            assert_eq!(type_of(Path::new(file)), wanted, "{file}");
        }
    }
}
