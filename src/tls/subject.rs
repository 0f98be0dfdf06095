//! Writes the subject of a certificate as text (RFC 4514).
//!
//! Compares no names. Invariant: the text is printable ASCII without line breaks, whatever the certificate holds; a
//! value cannot pass for another attribute.

use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{AttributeTypeAndValue, X509Name};

/// Attribute types with a short name (RFC 4514 §3, and two that certificates of persons have).
const NAMES: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.5", "serialNumber"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The whole distinguished name, most significant part last.
pub(super) fn text(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// The text of a subject of which only the common name is known.
pub fn of_common_name(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => format!("CN={}", escaped(text)),
        Err(_) => format!("CN=#{}", hex(value)),
    }
}

/// The value of an attribute, not escaped. `None`: the value is not text.
pub(super) fn value(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let any = attribute.attr_value();
    match any.tag() {
        Tag::BmpString => {
            let units = any.data.chunks(2).map(|pair| match pair {
                [high, low] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            });
            String::from_utf16(&units.collect::<Option<Vec<_>>>()?).ok()
        }
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(any.data).ok().map(str::to_owned)
        }
        _ => None,
    }
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type().to_id_string();
    let name = NAMES.iter().find(|(id, _)| *id == kind).map_or(kind.as_str(), |(_, name)| name);
    match value(attribute) {
        Some(value) => format!("{name}={}", escaped(&value)),
        // §2.4: a value that is not text is written as its bytes.
        None => format!("{name}=#{}", hex(attribute.attr_value().data)),
    }
}

/// §2.4: separators behind a backslash; everything else that is not printable ASCII as the bytes of its UTF-8.
fn escaped(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => out.extend(['\\', char::from(byte)]),
            b' ' if index == 0 || index == last => out.push_str("\\ "),
            b'#' if index == 0 => out.push_str("\\#"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out += &format!("\\{byte:02X}"),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn subject_of(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        text(parsed.subject())
    }

    #[test]
    fn the_most_significant_part_comes_last() {
        let parts = [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Example"), (DnType::CommonName, "ann")];
        assert_eq!(subject_of(&parts), "CN=ann,O=Example,C=DE");
        assert_eq!(subject_of(&[]), "");
    }

    #[test]
    fn nothing_in_a_value_can_pass_for_a_separator_or_a_line() {
        for (value, expected) in [
            ("a,O=Other", "CN=a\\,O\\=Other"),
            ("a\r\nX-Admin: 1", "CN=a\\0D\\0AX-Admin: 1"),
            (" #a ", "CN=\\ #a\\ "),
            ("#a", "CN=\\#a"),
            ("J\u{fc}rgen", "CN=J\\C3\\BCrgen"),
            ("a\"\\;<>+", "CN=a\\\"\\\\\\;\\<\\>\\+"),
            ("\0", "CN=\\00"),
        ] {
            assert_eq!(subject_of(&[(DnType::CommonName, value)]), expected);
        }
    }

    #[test]
    fn a_common_name_alone_cannot_pass_for_more() {
        assert_eq!(of_common_name(b"ann"), "CN=ann");
        assert_eq!(of_common_name(b"ann,O=Other"), "CN=ann\\,O\\=Other");
        assert_eq!(of_common_name(b"a\r\nb"), "CN=a\\0D\\0Ab");
        assert_eq!(of_common_name(b"\xff,"), "CN=#ff2c");
    }

    #[test]
    fn a_type_without_a_name_is_its_number() {
        let kind = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]);
        assert_eq!(subject_of(&[(kind, "x")]), "1.3.6.1.4.1.99999.1=x");
    }
}
