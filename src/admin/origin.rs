//! [`HostNames`]: requests that a browser sends on behalf of a foreign site are refused.
//!
//! A name of an attacker may lead to this address (DNS rebinding), and the browser then gives that site every reply; it
//! sends the name in Host. A page of any site may send requests here; the browser names the site in Origin, or says in
//! Sec-Fetch-Site that it is another one. Serves no request. Invariant: a request with a Host is served only under an
//! address, `localhost` or a configured name, and one with an Origin or a Sec-Fetch-Site only if that is the site of its own
//! Host, or a user.

use std::net::Ipv4Addr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};

use crate::http::target::Host;
use crate::server_name::ServerName;

/// Where the browser says which site has made it send a request: `none` is the user.
const SEC_FETCH_SITE: &str = "sec-fetch-site";
/// Reply to a request under another name.
const MISDIRECTED: &str = "Host is not an address, not localhost, and not listed in admin.names\n";
/// Reply to a request that a page of another site has sent.
const FOREIGN: &str = "requests of other sites are refused\n";

/// Names under which the HTTP port is reached, beside addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub(super) struct HostNames(pub(super) Vec<ServerName>);

impl HostNames {
    /// Refuses a request under a name that is not known. HTTP/1.0 without a Host is served: no browser sends it.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        target: Option<&Authority>,
    ) -> Result<(), (StatusCode, &'static str)> {
        let mut hosts = headers.get_all(header::HOST).iter().map(|host| host.as_bytes());
        let is_known = hosts.all(|host| self.knows(host)) && target.is_none_or(|to| self.knows(to.as_str().as_bytes()));
        if is_known { Ok(()) } else { Err((StatusCode::MISDIRECTED_REQUEST, MISDIRECTED)) }
    }

    fn knows(&self, host: &[u8]) -> bool {
        let Some(name) = Host::read(host).ok().and_then(|host| std::str::from_utf8(host.name).ok()) else {
            return false;
        };
        let listed = |known: &ServerName| known.as_str().eq_ignore_ascii_case(name.strip_suffix('.').unwrap_or(name));
        // An IPv6 address has brackets, and `Host::read` has parsed it.
        name.starts_with('[')
            || name.parse::<Ipv4Addr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(listed)
    }
}

/// Refuses a request that a page of another site has sent.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_own = |origin: &str| {
        let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        site.zip(host).is_some_and(|(site, host)| site.eq_ignore_ascii_case(host))
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    let are_own = origins.all(|origin| origin.to_str().is_ok_and(is_own))
        && sites.all(|site| ["same-origin", "none"].iter().any(|own| site == own));
    if are_own { Ok(()) } else { Err((StatusCode::FORBIDDEN, FOREIGN)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::HOST, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_host_is_an_address_or_localhost_or_a_listed_name() {
        let names = HostNames(vec![ServerName::parse("metrics.example.org").unwrap()]);
        let serves = |host: &str| names.check(&hosts(&[host]), None).is_ok();
        for good in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "[::1]:9900",
            "192.0.2.7:80",
            "localhost",
            "LocalHost:9900",
            "metrics.example.org:9900",
            "Metrics.Example.Org.",
        ] {
            assert!(serves(good), "{good}");
        }
        for bad in [
            "",
            "attacker.test",
            "localhost.attacker.test",
            "127.0.0.1.attacker.test",
            "a.metrics.example.org",
            "notlocalhost",
            "localhost..",
            "127.0.0.1:9900:80",
            "[::1].attacker.test",
            "[attacker.test]",
            "a b",
        ] {
            assert!(!serves(bad), "{bad}");
        }
        assert!(names.check(&HeaderMap::new(), None).is_ok(), "HTTP/1.0 without a Host");
        assert!(names.check(&hosts(&["127.0.0.1", "attacker.test"]), None).is_err(), "every Host counts");
        let target = Authority::from_static("attacker.test:9900");
        assert!(names.check(&hosts(&["127.0.0.1"]), Some(&target)).is_err(), "and the authority of the target");
    }

    #[test]
    fn an_origin_is_that_of_the_host() {
        let serves = |origin: &str| {
            let mut headers = hosts(&["127.0.0.1:9900"]);
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            check_origin(&headers).is_ok()
        };
        assert!(serves("http://127.0.0.1:9900") && serves("https://127.0.0.1:9900"));
        for foreign in
            ["null", "", "http://attacker.test", "http://127.0.0.1:8000", "http://127.0.0.1", "127.0.0.1:9900"]
        {
            assert!(!serves(foreign), "{foreign}");
        }
        assert!(check_origin(&hosts(&["127.0.0.1:9900"])).is_ok());
        let site = |site: &str| {
            let mut headers = hosts(&["127.0.0.1:9900"]);
            headers.insert(SEC_FETCH_SITE, site.parse().unwrap());
            check_origin(&headers).is_ok()
        };
        assert!(site("same-origin") && site("none"));
        assert!(!["cross-site", "same-site", "", "Same-Origin"].iter().any(|other| site(other)));
        let without_host: HeaderMap = [(header::ORIGIN, "http://a".parse().unwrap())].into_iter().collect();
        assert!(check_origin(&without_host).is_err());
    }
}
