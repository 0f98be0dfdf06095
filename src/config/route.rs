//! [`Route`]: conditions on connections or on requests, and where those go for which they hold.
//!
//! A route with a condition of [`RequestConditions`] decides about requests; every other one about connections, with their
//! TLS, and with that about requests, too: its server names are the hosts. Which of several routes is the most precise is
//! for `route.rs`. Invariant: a template of a redirect begins with a scheme and a whole authority, or with one `/`, so that
//! no path of a client can name another site.

use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{ClientCertificate, Tls};
use crate::server_name::NamePattern;

/// One `[[listener.route]]`: conditions that must all hold, and where such connections or requests go.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Server names; empty: any name, or none.
    pub sni: Vec<NamePattern>,
    /// ALPN protocols of which the client must offer one; empty: no condition.
    pub alpn: Vec<String>,
    /// Networks of which one must contain the client's address; empty: no condition.
    pub source: Vec<IpNet>,
    /// Conditions on requests; empty: the route decides about connections.
    pub request: RequestConditions,
    /// TLS mode; the listener's where the route has none of its own.
    pub tls: Tls,
    /// Request for a client certificate, the listener's by default; `None` unless TLS ends here.
    pub client_certificate: Option<ClientCertificate>,
    /// True if clients may speak HTTP/2 where HTTP is read; the listener's word where the route has none of its own.
    pub http2: bool,
    /// Where these connections or requests go.
    pub goal: RouteGoal,
}

impl Route {
    /// Name of the pool; `None`: the route leads to a split, or answers.
    pub fn pool(&self) -> Option<&str> {
        match &self.goal {
            RouteGoal::Pool(name) => Some(name),
            RouteGoal::Split(_) | RouteGoal::Redirect(_) | RouteGoal::Respond(_) => None,
        }
    }

    /// Name of the split; `None`: the route leads to a pool, or answers.
    pub fn split(&self) -> Option<&str> {
        match &self.goal {
            RouteGoal::Split(name) => Some(name),
            RouteGoal::Pool(_) | RouteGoal::Redirect(_) | RouteGoal::Respond(_) => None,
        }
    }

    /// True if the route itself answers.
    pub fn answers(&self) -> bool {
        matches!(self.goal, RouteGoal::Redirect(_) | RouteGoal::Respond(_))
    }

    /// True if the route decides about requests alone.
    pub fn is_of_requests(&self) -> bool {
        !self.request.is_empty()
    }

    /// True if TLS ends here for connections of this route.
    pub fn terminates(&self) -> bool {
        self.tls == Tls::Terminate && !self.is_of_requests()
    }

    /// The hosts of its requests: of a route about connections, its server names. Empty: any host.
    pub fn hosts(&self) -> &[NamePattern] {
        if self.is_of_requests() { &self.request.host } else { &self.sni }
    }

    /// Number of its conditions besides host and path, by which one of two routes is more precise.
    pub fn conditions(&self) -> usize {
        let lists = [self.alpn.is_empty(), self.source.is_empty(), self.request.method.is_empty()];
        lists.iter().filter(|is_empty| !**is_empty).count() + self.request.header.len()
    }
}

/// The conditions of a route on requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestConditions {
    /// Hosts; empty: any host, or none.
    pub host: Vec<NamePattern>,
    /// Paths; empty: any path.
    pub path: Vec<PathPattern>,
    /// Methods; empty: any method.
    pub method: Vec<String>,
    /// Fields, each of which must be there once, with this value; names differ, compared without case.
    pub header: Vec<(String, String)>,
}

impl RequestConditions {
    /// True if every request fulfils them.
    pub fn is_empty(&self) -> bool {
        self.host.is_empty() && self.path.is_empty() && self.method.is_empty() && self.header.is_empty()
    }
}

/// A path of a route, compared byte for byte as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// The path; begins with `/`.
    pub path: String,
    /// True: this path alone; false: also every path below it.
    pub is_exact: bool,
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_exact { "=" } else { "" }, self.path)
    }
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteGoal {
    /// The pool of this name.
    Pool(String),
    /// One of the pools of the split of this name.
    Split(String),
    /// An answer that sends the client elsewhere.
    Redirect(Redirect),
    /// An answer that is written in the configuration.
    Respond(Respond),
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// What the Location is made of.
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A Location with places for parts of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<TemplatePart>);

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// Text that stands as it is.
    Text(String),
    /// `http` or `https`, as the client came.
    Scheme,
    /// Host of the request, without its port.
    Host,
    /// Path of the request, as it was sent.
    Path,
    /// `?` and the query; nothing where there is none.
    Query,
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            TemplatePart::Text(text) => f.write_str(text),
            TemplatePart::Scheme => f.write_str("{scheme}"),
            TemplatePart::Host => f.write_str("{host}"),
            TemplatePart::Path => f.write_str("{path}"),
            TemplatePart::Query => f.write_str("{query}"),
        })
    }
}

/// An answer that is written in the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Respond {
    /// Status of the answer, from 200 to 599.
    pub status: u16,
    /// Content of the answer.
    pub body: RespondBody,
    /// Fields besides those that every answer has.
    pub headers: Vec<(String, String)>,
}

/// The content of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RespondBody {
    /// No content.
    Empty,
    /// This text.
    Text(String),
    /// What is in this file when the configuration is loaded.
    File(PathBuf),
}

/// A page for the replies of this process with one status, on one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// The status of the replies.
    pub status: u16,
    /// The key that names the file.
    pub key: &'static str,
    /// File with the page.
    pub file: PathBuf,
}
