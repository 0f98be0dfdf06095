//! [`TlsRefusal`]: why a connection gets no TLS handshake, and the [`Alert`] that its client is sent.
//!
//! Sends nothing; `terminate/refuse.rs` does. Where TLS does not end here no alert is sent, because the handshake is
//! the backend's. Invariant: this is the one table from refusals to alerts; alerts inside a handshake are those of
//! rustls.

use crate::outcome::Ended;

/// A fatal alert (RFC 8446 §6.2), by its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// A record or a message that does not belong here.
    UnexpectedMessage = 10,
    /// A record longer than 2^14 bytes.
    RecordOverflow = 22,
    /// A field that is well formed, and has a value that it must not have.
    IllegalParameter = 47,
    /// A message that cannot be decoded: a length is wrong, or bytes are missing or left over.
    DecodeError = 50,
    /// A record of a protocol version that is not TLS.
    ProtocolVersion = 70,
    /// A server name that is not served here (RFC 6066 §3).
    UnrecognizedName = 112,
}

impl Alert {
    /// Returns the alert as a plaintext record. Its version is that of TLS 1.2, as in later versions too.
    pub fn record(self) -> [u8; 7] {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        [ALERT, 3, 3, 0, 2, FATAL, self as u8]
    }
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
            pub fn alert(self) -> Alert {
                match self { $(Self::$name => Alert::$alert,)+ }
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
    /// No route has the server name, and the listener has no default pool.
    NoRoute = NoRoute, UnrecognizedName;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_one_fatal_plaintext_record() {
        assert_eq!(TlsRefusal::RecordTooLong.alert().record(), [21, 3, 3, 0, 2, 2, 22]);
        assert_eq!(TlsRefusal::NoRoute.alert().record(), [21, 3, 3, 0, 2, 2, 112]);
    }
}
