//! Errors of rustls as a person reads them.
//!
//! Decides nothing. Invariant: no text holds the name of a Rust type.

use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error};

/// The meaning of an error, in plain words. The texts of rustls hold names of its types for most of them.
pub fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => {
            format!("the other side sent the alert {}", words_of(&format!("{alert:?}"), "_"))
        }
        Error::PeerIncompatible(why) => {
            format!("the other side is not compatible: {}", words_of(&format!("{why:?}"), " "))
        }
        Error::PeerMisbehaved(why) => {
            format!("the other side broke the protocol: {}", words_of(&format!("{why:?}"), " "))
        }
        Error::InvalidCertRevocationList(why) => {
            format!("a revocation list in it cannot be used: {}", words_of(&format!("{why:?}"), " "))
        }
        Error::InvalidMessage(why) => format!("a message is malformed: {}", words_of(&format!("{why:?}"), " ")),
        other => other.to_string(),
    }
}

/// The same for an error of a connection; an error of another kind has its own text.
pub fn io_in_words(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    tls.map_or_else(|| error.to_string(), in_words)
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as E;
    let what = match error {
        E::BadEncoding => "is malformed",
        E::Expired | E::ExpiredContext { .. } => "has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "is not valid yet",
        E::Revoked => "is revoked",
        E::UnknownRevocationStatus => "is of an authority that has no revocation list",
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "is of an authority with a revocation list that has expired"
        }
        E::UnknownIssuer => "is not signed by an accepted authority",
        E::BadSignature => "has a wrong signature",
        E::NotValidForName => "is for another name",
        E::NotValidForNameContext { expected, .. } => return format!("the certificate is not for {}", shown(expected)),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "is not made for this purpose",
        E::UnhandledCriticalExtension => "has a critical extension that is not supported",
        E::ApplicationVerificationFailure => "has a public key that is not pinned",
        other => {
            let text = format!("{other:?}");
            return match text.contains("UnsupportedCertVersion") {
                true => "the certificate is of X.509 version 1".to_owned(),
                false => format!("the certificate is refused: {}", words_of(innermost(&text), " ")),
            };
        }
    };
    format!("the certificate {what}")
}

fn shown(name: &ServerName<'_>) -> String {
    name.to_str().escape_debug().to_string()
}

/// The last name in `Other(OtherError(UnsupportedNameType))`.
fn innermost(text: &str) -> &str {
    text.trim_end_matches(')').rsplit(['(', ' ']).next().unwrap_or(text)
}

/// `HandshakeFailure` → `handshake failure`, with this between the words. What follows the first name is left out.
fn words_of(name: &str, between: &str) -> String {
    let name = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let mut words = String::new();
    let mut before_is_upper = true;
    for c in name.chars() {
        if c.is_ascii_uppercase() && !before_is_upper {
            words += between;
        }
        before_is_upper = c.is_ascii_uppercase();
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{AlertDescription, PeerIncompatible};

    use super::*;

    #[test]
    fn errors_have_no_names_of_types() {
        let other = |text: &'static str| {
            #[derive(Debug)]
            struct Inner(&'static str);
            impl std::fmt::Display for Inner {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(self.0)
                }
            }
            impl std::error::Error for Inner {}
            Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(std::sync::Arc::new(Inner(text)))))
        };
        for (error, expected) in [
            (Error::InvalidCertificate(CertificateError::BadEncoding), "the certificate is malformed"),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "the certificate is not signed by an accepted authority",
            ),
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "the other side sent the alert handshake_failure",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "the other side is not compatible: no cipher suites in common",
            ),
            (other("UnsupportedCertVersion"), "the certificate is of X.509 version 1"),
            (Error::DecryptError, "cannot decrypt peer's message"),
        ] {
            assert_eq!(in_words(&error), expected);
            assert_eq!(io_in_words(&io::Error::new(io::ErrorKind::InvalidData, error)), expected);
        }
        assert_eq!(io_in_words(&io::Error::from_raw_os_error(2)), "No such file or directory (os error 2)");
    }
}
