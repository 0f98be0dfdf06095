//! [`TlsRefusal`]: why a connection gets no TLS handshake, and the alert that its client is sent (RFC 8446 §6.2).
//!
//! Sends nothing; `terminate/refuse.rs` does. Where TLS does not end here no alert is sent, because the handshake is
//! the backend's. Invariant: this is the one table from refusals to alerts; alerts inside a handshake are those of
//! rustls.

use rustls::AlertDescription;

use crate::outcome::Ended;

/// The plaintext record of a fatal alert. Its version is that of TLS 1.2, as in later versions too.
pub fn record(alert: AlertDescription) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, alert.into()]
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident = $ended:ident, $alert:ident;)+) => {
        /// Why a connection gets no TLS handshake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum TlsRefusal { $($(#[doc = $doc])+ $name,)+ }

        impl TlsRefusal {
            /// Returns the outcome of such a connection.
            pub fn ended(self) -> Ended {
                match self { $(Self::$name => Ended::$ended,)+ }
            }

            /// Returns the alert for the client of such a connection.
            pub fn alert(self) -> AlertDescription {
                match self { $(Self::$name => AlertDescription::$alert,)+ }
            }
        }
    };
}

refusals! {
    /// The first record is not a handshake record, or the bytes are no record at all.
    NotTls = NotTls, UnexpectedMessage;
    /// The first record is of another major version than TLS has.
    NotTlsVersion = NotTls, ProtocolVersion;
    /// A record of another type stands inside the hello (RFC 8446 §5.1).
    RecordType = HelloMalformed, UnexpectedMessage;
    /// A later record is of another major version than TLS has.
    RecordVersion = HelloMalformed, ProtocolVersion;
    /// A handshake record is empty (RFC 8446 §5.1).
    RecordEmpty = HelloMalformed, UnexpectedMessage;
    /// A record is longer than 2^14 bytes (RFC 8446 §5.1).
    RecordTooLong = HelloMalformed, RecordOverflow;
    /// The first handshake message is not a ClientHello.
    OtherMessage = HelloMalformed, UnexpectedMessage;
    /// The message is longer than any hello that is read.
    TooLong = HelloTooLong, DecodeError;
    /// A length inside the message is wrong, or a list is empty that must not be.
    Malformed = HelloMalformed, DecodeError;
    /// An extension stands in the hello twice (RFC 8446 §4.2).
    ExtensionTwice = HelloMalformed, IllegalParameter;
    /// The hello has two host names (RFC 6066 §3).
    NameTwice = HelloMalformed, IllegalParameter;
    /// No route has the server name, and the listener has no default pool, or none for this name.
    NoRoute = NoRoute, UnrecognisedName;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_one_fatal_plaintext_record() {
        assert_eq!(record(TlsRefusal::RecordTooLong.alert()), [21, 3, 3, 0, 2, 2, 22]);
        assert_eq!(record(TlsRefusal::NoRoute.alert()), [21, 3, 3, 0, 2, 2, 112]);
    }
}
