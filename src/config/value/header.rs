//! Names and values of the header fields that a pool sets and removes.
//!
//! Which names go together is checked in `check`. Invariant: a name is a token that no reader of the head has a rule of
//! framing for, and a value is visible ASCII, so that neither can begin a line or end a message.

use toml::de::DeValue;

use super::name::is_token;
use super::{ValueResult, text};
use crate::config::problem::Bad;
use crate::config::{HeaderValue, RequestFact, ValuePart};

/// Longest name in bytes.
const NAME_MAX: usize = 128;
/// Longest value in bytes.
const VALUE_MAX: usize = 4096;

/// Fields that say how a message is framed, or what one connection does: they are written for each connection anew.
const OF_CONNECTIONS: [&str; 16] = [
    "Connection",
    "Content-Length",
    "Expect",
    "HTTP2-Settings",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authentication-Info",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// Checks the name of a header field that a rule may change.
pub(in crate::config) fn header_name(written: &str) -> ValueResult<()> {
    if !is_token(written) || written.len() > NAME_MAX {
        return Err(Bad::new("is not the name of a header field: letters, digits and '-'"));
    }
    match OF_CONNECTIONS.iter().any(|name| is_like(name, written)) {
        true => Err(Bad::new("belongs to one connection or frames the message: sessile writes it itself")),
        false => Ok(()),
    }
}

/// Reads the name of a header field that is removed.
pub(in crate::config) fn removed_header(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    header_name(written).map(|()| written.to_owned())
}

/// Reads the name of the header field that carries the id of a request.
pub(in crate::config) fn id_header(value: &DeValue<'_>) -> ValueResult<String> {
    const OTHERS: [&str; 5] = ["Authorization", "Cookie", "Date", "Host", "Set-Cookie"];
    let written = removed_header(value)?;
    match OTHERS.iter().any(|other| is_like(other, &written)) {
        true => Err(Bad::new("says something else than an id").hint("\"X-Request-ID\" is usual")),
        false => Ok(written),
    }
}

/// True if two names are one to an application that folds case and signs, as CGI does.
pub(in crate::config) fn is_like(one: &str, other: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    one.len() == other.len() && one.bytes().map(fold).eq(other.bytes().map(fold))
}

/// Reads the value of a header field. Braces around a word are places for facts; any others are text, as JSON has them.
pub(in crate::config) fn header_value(value: &DeValue<'_>) -> ValueResult<HeaderValue> {
    let written = text(value)?;
    if written.is_empty() {
        return Err(Bad::new("is empty").hint("remove = [\"NAME\"] removes a field"));
    }
    let is_visible = written.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !is_visible || written.trim_ascii() != written || written.len() > VALUE_MAX {
        let rule =
            "is not the value of a header field: at most 4096 bytes of visible ASCII, without spaces around them";
        return Err(Bad::new(rule));
    }
    let (mut parts, mut rest, mut looked) = (Vec::new(), written, 0);
    while let Some(open) = rest[looked..].find('{').map(|at| looked + at) {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let word = &rest[open + 1..];
        let word = &word[..word.bytes().take_while(|byte| is_word(*byte)).count()];
        let behind = open + 1 + word.len();
        if word.is_empty() || !rest[behind..].starts_with('}') {
            looked = behind;
            continue;
        }
        let known = RequestFact::WORDS.iter().find(|(known, _)| *known == word);
        let fact = known.ok_or_else(|| unknown_fact(word))?.1;
        if open > 0 {
            parts.push(ValuePart::Text(rest[..open].to_owned()));
        }
        parts.push(ValuePart::Fact(fact));
        (rest, looked) = (&rest[behind + 1..], 0);
    }
    if !rest.is_empty() {
        parts.push(ValuePart::Text(rest.to_owned()));
    }
    Ok(HeaderValue(parts))
}

fn unknown_fact(word: &str) -> Bad {
    let words: Vec<_> = RequestFact::WORDS.iter().map(|(word, _)| format!("{{{word}}}")).collect();
    let bad = Bad::new(format!("has {{{word}}}, which is not one of {}", words.join(", ")));
    bad.hint("braces with anything else in them stand as they are")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::field::KnownField;

    #[test]
    fn no_rule_changes_what_frames_a_message_or_belongs_to_one_connection() {
        for known in KnownField::ALL.iter().filter(|known| known.is_hop_by_hop()) {
            assert!(header_name(known.name()).is_err(), "{known:?}");
        }
        for name in ["content_length", "TRANSFER.ENCODING", "Trailer", "a b", "", "X:", "X-\u{e4}"] {
            assert!(header_name(name).is_err(), "{name}");
        }
        for name in ["X-Real-IP", "Host", "Server", "Set-Cookie", "X_Y"] {
            assert_eq!(header_name(name).map_err(|bad| bad.message), Ok(()), "{name}");
        }
    }

    #[test]
    fn an_id_has_a_field_of_its_own() {
        let read = |written: &str| id_header(&DeValue::String(written.into()));
        assert_eq!(read("X-Request-ID"), Ok("X-Request-ID".into()));
        for bad in ["host", "Set_Cookie", "Content-Length", "a b", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_in_braces_are_facts_and_other_braces_are_text() {
        let read = |written: &str| header_value(&DeValue::String(written.into())).map_err(|bad| bad.message);
        let text = |text: &str| ValuePart::Text(text.into());
        let fact = ValuePart::Fact;
        for (written, parts) in [
            ("nosniff", vec![text("nosniff")]),
            ("{client_ip}", vec![fact(RequestFact::ClientIp)]),
            ("{scheme}://{host}/", vec![fact(RequestFact::Scheme), text("://"), fact(RequestFact::Host), text("/")]),
            ("id={request_id}", vec![text("id="), fact(RequestFact::RequestId)]),
            ("{\"a\":{}} {", vec![text("{\"a\":{}} {")]),
            ("{a b}{{host}}", vec![text("{a b}{"), fact(RequestFact::Host), text("}")]),
        ] {
            assert_eq!(read(written), Ok(HeaderValue(parts)), "{written}");
        }
        for bad in ["", " a", "a\r\nX: b", "\u{e4}", "{clientip}", "{path}", &"a".repeat(VALUE_MAX + 1)] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
