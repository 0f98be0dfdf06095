//! The parts of a placement key.
//!
//! Whether a part can be known of a client is checked in `check`. Invariant: a chain has two parts or more, all different,
//! and none behind one that every client has.

use toml::de::DeValue;

use super::{ValueResult, application_cookie, field_name, parameter_name, text};
use crate::config::KeyPart;
use crate::config::problem::Bad;

/// Stands between the parts of a chain. No name of a part has a space.
const OR: &str = " or ";
/// Most parts of a chain.
const CHAIN_MAX: usize = 8;
/// Most segments of a path.
const SEGMENTS_MAX: u8 = 16;
const HINT: &str = "\"source\", \"sni\", \"tlv:0xNN\", \"cookie:NAME\", \"header:NAME\", \"query:NAME\", \"path:N\", \
                    \"path_parameter:NAME\", \"client_certificate\", \"A or B\", \"none\", or a list";

/// Reads one part of a placement key, or a chain of several: `"header:X or source"`; `None`: the word `"none"`.
pub(in crate::config) fn key_part(value: &DeValue<'_>) -> ValueResult<Option<KeyPart>> {
    let written = text(value).map_err(|_| malformed())?;
    match written {
        "none" => Ok(None),
        _ if written.contains(OR) => chain(written).map(Some),
        _ => single(written).map(Some),
    }
}

fn malformed() -> Bad {
    Bad::new("is not a key").hint(HINT)
}

fn chain(written: &str) -> ValueResult<KeyPart> {
    let mut parts = Vec::new();
    for word in written.split(OR) {
        let part = single(word.trim())?;
        if parts.contains(&part) {
            return Err(Bad::new(format!("names \"{word}\" twice")));
        }
        if parts.contains(&KeyPart::Source) {
            let why = format!("has \"{word}\" behind \"source\", which every client has");
            return Err(Bad::new(why).hint("write \"source\" last"));
        }
        parts.push(part);
    }
    let fits = parts.len() <= CHAIN_MAX;
    fits.then(|| KeyPart::FirstOf(parts.into())).ok_or_else(|| Bad::new(format!("has more than {CHAIN_MAX} parts")))
}

fn single(written: &str) -> ValueResult<KeyPart> {
    let Some((kind, name)) = written.split_once(':') else {
        return match written {
            "source" => Ok(KeyPart::Source),
            "sni" => Ok(KeyPart::Sni),
            "client_certificate" => Ok(KeyPart::ClientCertificate),
            _ => Err(malformed()),
        };
    };
    match kind {
        "cookie" => Ok(KeyPart::Cookie(application_cookie(name)?.into())),
        "header" => Ok(KeyPart::Header(field_name(name)?.into())),
        "query" => Ok(KeyPart::Query(parameter_name(name)?.into())),
        "path" => segments(name),
        "path_parameter" => Ok(KeyPart::PathParameter(parameter_name(name)?.into())),
        "tlv" => tlv(name),
        _ => Err(malformed()),
    }
}

fn segments(written: &str) -> ValueResult<KeyPart> {
    let count = written.parse().ok().filter(|count| (1..=SEGMENTS_MAX).contains(count));
    count.map(KeyPart::Path).ok_or_else(|| {
        Bad::new(format!("is not a number of segments of the path, 1 to {SEGMENTS_MAX}")).hint("\"path:1\"")
    })
}

fn tlv(written: &str) -> ValueResult<KeyPart> {
    // PP2_TYPE_CRC32C and PP2_TYPE_NOOP have the same meaning for every client.
    const NOT_OF_A_CLIENT: [u8; 2] = [0x03, 0x04];
    let digits = written.strip_prefix("0x").filter(|digits| digits.len() == 2).ok_or_else(malformed)?;
    match u8::from_str_radix(digits, 16).map_err(|_| malformed())? {
        kind if NOT_OF_A_CLIENT.contains(&kind) => Err(Bad::new("is a TLV that says nothing about the client")),
        kind => Ok(KeyPart::Tlv(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &str) -> Result<Option<KeyPart>, String> {
        key_part(&DeValue::String(written.into())).map_err(|bad| bad.message)
    }

    #[test]
    fn every_part_is_read_and_names_keep_their_case_where_it_counts() {
        for (written, part) in [
            ("header:X-User", KeyPart::Header("x-user".into())),
            ("query:userId", KeyPart::Query("userId".into())),
            ("query:%C3%BC", KeyPart::Query("%C3%BC".into())),
            ("path:16", KeyPart::Path(16)),
            ("path_parameter:jsessionid", KeyPart::PathParameter("jsessionid".into())),
            ("client_certificate", KeyPart::ClientCertificate),
            ("tlv:0xe0", KeyPart::Tlv(0xe0)),
            (
                "header:A or cookie:or or source",
                KeyPart::FirstOf([KeyPart::Header("a".into()), KeyPart::Cookie("or".into()), KeyPart::Source].into()),
            ),
        ] {
            assert_eq!(read(written), Ok(Some(part)), "{written}");
        }
        assert_eq!(read("none"), Ok(None));
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for written in [
            "",
            "Source",
            "header",
            "header:",
            "header:a b",
            "header:Cookie",
            "query:",
            "query:a=b",
            "query:a b",
            "path:0",
            "path:17",
            "path:-1",
            "path:",
            "path_parameter:a;b",
            "client_certificate:x",
            "tlv:e0",
            "tlv:0x1",
            "tlv:0x03",
            "source or",
            "source or none",
            "source or sni",
            "sni or sni",
            "header:A or header:a",
        ] {
            assert!(read(written).is_err(), "{written:?}");
        }
        let many = (0..9).map(|n| format!("query:q{n}")).collect::<Vec<_>>().join(" or ");
        assert_eq!(read(&many), Err("has more than 8 parts".to_owned()));
    }
}
