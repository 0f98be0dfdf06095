//! [`SetHeaders`]: the header fields that a pool sets, and the one with the id of a request, with their values for one
//! request; [`given_id`]: the id that a trusted proxy has given it.
//!
//! Writes no head: `request_cookie.rs` does. Invariant: a field with a fact that is not known is set to nothing, so that
//! what the other side has sent under its name does not pass either.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;

use crate::config::{HeaderRules, HeaderValue, RequestFact};
use crate::http::edit::SetField;
use crate::http::field::Fields;
use crate::http::head::Request;

/// Longest id that is taken from a proxy, in bytes.
const ID_MAX: usize = 128;

/// The id in this field of a request, if it is one: of a single line, visible, and not too long for a log.
pub fn given_id(fields: Fields<'_>, name: &str) -> Option<String> {
    let mut values = fields.named(name);
    let id = values.next().filter(|_| values.next().is_none())?;
    let is_one = (1..=ID_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(id).ok().filter(|_| is_one).map(str::to_owned)
}

/// What rules may tell of a request.
pub struct RequestFacts<'r> {
    /// The client's address; `None`: a unix socket, or a connection of a proxy itself.
    pub client: Option<IpAddr>,
    pub is_secure: bool,
    pub request: &'r Request<'r>,
    /// Id of the request.
    pub id: &'r dyn Display,
}

impl RequestFacts<'_> {
    fn tell(&self, fact: RequestFact) -> Option<String> {
        match fact {
            RequestFact::ClientIp => self.client.map(|client| client.to_canonical().to_string()),
            RequestFact::Scheme => Some(if self.is_secure { "https" } else { "http" }.to_owned()),
            RequestFact::Host => self.request.host().map(|host| String::from_utf8_lossy(host.bytes).into_owned()),
            RequestFact::RequestId => Some(self.id.to_string()),
        }
    }
}

/// The fields that rules set.
pub struct SetHeaders<'p>(Vec<(&'p str, Option<Cow<'p, str>>)>);

impl<'p> SetHeaders<'p> {
    /// The fields of these rules for a request. `id_field`: the name of the field with its id, for which a rule may be,
    /// too.
    pub fn of(rules: &'p HeaderRules, id_field: Option<&'p str>, facts: &RequestFacts<'_>) -> Self {
        let id = id_field.filter(|name| !rules.has_rule_for(name));
        let id = id.map(|name| (name, facts.tell(RequestFact::RequestId).map(Cow::Owned)));
        let field = |(name, value): &'p (String, HeaderValue)| (&**name, value.render(|fact| facts.tell(fact)));
        Self(id.into_iter().chain(rules.set.iter().map(field)).collect())
    }

    /// True if no field is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields for an edit.
    pub fn fields(&self) -> Vec<SetField<'_>> {
        self.0.iter().map(|(name, value)| (*name, value.as_deref())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Progress;
    use crate::http::head::RequestReader;

    #[test]
    fn an_id_is_taken_if_it_is_one() {
        let long = "a".repeat(ID_MAX + 1);
        for (lines, wanted) in [
            ("x-request-id: 7f3a-B/2=\r\n", Some("7f3a-B/2=")),
            ("X-Request-ID: a\r\nX-Request-ID: b\r\n", None),
            ("X-Request-ID: a b\r\n", None),
            ("X-Request-ID: \u{e9}\r\n", None),
            ("X-Request-ID:\r\n", None),
            (&format!("X-Request-ID: {long}\r\n"), None),
            ("X_Request_ID: a\r\n", None),
            ("", None),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let mut reader = RequestReader::new();
            assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)));
            let id = given_id(reader.request(head.as_bytes()).fields, "X-Request-ID");
            assert_eq!(id.as_deref(), wanted, "{lines}");
        }
    }
}
