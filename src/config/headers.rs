//! [`HeaderRules`]: the header fields that a pool sets and removes.
//!
//! Changes no message. Invariant: no rule is for a field that frames a message or belongs to one connection, and no value
//! can begin a line.

use std::borrow::Cow;

/// One `[pool.request_headers]` or `[pool.response_headers]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Fields that take the place of all lines of their names, in the order of these.
    pub set: Vec<(String, HeaderValue)>,
    /// Names of fields that are removed.
    pub remove: Vec<String>,
}

/// Value of a field, with places for what is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue(pub Vec<ValuePart>);

/// A part of a [`HeaderValue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePart {
    /// Text that stands as it is.
    Text(String),
    /// What is known of the request.
    Fact(RequestFact),
}

/// What a header can tell of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFact {
    /// Address of the client, announced or seen.
    ClientIp,
    /// `http` or `https`, as the client came.
    Scheme,
    /// Host of the request, with its port.
    Host,
    /// Id of the request in the log.
    RequestId,
}

impl RequestFact {
    /// Every fact, with its word in braces.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("client_ip", Self::ClientIp),
        ("scheme", Self::Scheme),
        ("host", Self::Host),
        ("request_id", Self::RequestId),
    ];
}

impl HeaderRules {
    /// True if a rule is for the field of this name, in any case.
    pub fn has_rule_for(&self, name: &str) -> bool {
        let set = self.set.iter().map(|(known, _)| known);
        set.chain(&self.remove).any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl HeaderValue {
    /// The value for a request with these facts; `None`: one that it tells is not known, and the field is left out.
    pub fn render(&self, fact: impl Fn(RequestFact) -> Option<String>) -> Option<Cow<'_, str>> {
        if let [ValuePart::Text(text)] = &self.0[..] {
            return Some(Cow::Borrowed(text));
        }
        let part = |part: &ValuePart| match part {
            ValuePart::Text(text) => Some(text.clone()),
            ValuePart::Fact(known) => fact(*known),
        };
        self.0.iter().map(part).collect::<Option<String>>().map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_what_is_known_or_is_left_out() {
        let text = |text: &str| ValuePart::Text(text.into());
        let fact = |fact: RequestFact| (fact == RequestFact::Host).then(|| "a.test".to_owned());
        let host = HeaderValue(vec![text("for "), ValuePart::Fact(RequestFact::Host), text("!")]);
        assert_eq!(host.render(fact).as_deref(), Some("for a.test!"));
        assert_eq!(HeaderValue(vec![ValuePart::Fact(RequestFact::ClientIp)]).render(fact), None);
        let alone = HeaderValue(vec![text("max-age=1")]);
        assert!(matches!(alone.render(fact), Some(Cow::Borrowed("max-age=1"))));
    }
}
