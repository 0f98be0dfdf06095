//! [`TlsAlert`]: the alert with which a TLS connection failed (RFC 8446 §6), for the access log.
//!
//! Sends no alert: rustls does. It returns an error without the alert that it has sent for it, so the alert is derived
//! here by the same rules. Invariant: a received alert is exactly the one of the peer; an error for which rustls sends
//! no alert, or an unknown one, has none here.

use std::fmt;

use rustls::{AlertDescription, Error, PeerIncompatible, PeerMisbehaved};

/// The alert that ended a TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsAlert {
    /// True if the peer has sent the alert, false if this process has.
    pub received: bool,
    /// Reason in the alert.
    pub description: AlertDescription,
}

impl TlsAlert {
    /// The alert that goes with an error of a connection.
    pub fn of(error: &Error) -> Option<Self> {
        if let Error::AlertReceived(description) = error {
            return Some(Self { received: true, description: *description });
        }
        Some(Self { received: false, description: sent_for(error)? })
    }
}

impl fmt::Display for TlsAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.received { "received:" } else { "sent:" })?;
        if let AlertDescription::Unknown(number) = self.description {
            return write!(f, "{number}");
        }
        // The names of rustls are those of RFC 8446 in another form: `UnknownCA` for `unknown_ca`.
        let name = format!("{:?}", self.description).replace("Unrecognised", "Unrecognized");
        let name: Vec<char> = name.chars().collect();
        for (index, letter) in name.iter().enumerate() {
            let after_small = index > 0 && name[index - 1].is_ascii_lowercase();
            let before_small = index > 0 && name.get(index + 1).is_some_and(char::is_ascii_lowercase);
            if letter.is_ascii_uppercase() && (after_small || before_small) {
                f.write_str("_")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

/// The alert that rustls sends for an error; `None`: it sends none.
fn sent_for(error: &Error) -> Option<AlertDescription> {
    use AlertDescription as Alert;
    Some(match error {
        Error::InvalidCertificate(error) => Alert::from(error.clone()),
        Error::InvalidMessage(error) => Alert::from(*error),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => Alert::UnexpectedMessage,
        Error::PeerSentOversizedRecord => Alert::RecordOverflow,
        Error::DecryptError => Alert::BadRecordMac,
        Error::NoApplicationProtocol => Alert::NoApplicationProtocol,
        Error::NoCertificatesPresented => Alert::CertificateRequired,
        Error::PeerIncompatible(why) => match why {
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => Alert::ProtocolVersion,
            _ => Alert::HandshakeFailure,
        },
        Error::PeerMisbehaved(why) => match why {
            PeerMisbehaved::IncorrectBinder => Alert::DecryptError,
            PeerMisbehaved::MissingKeyShare
            | PeerMisbehaved::MissingPskModesExtension
            | PeerMisbehaved::MissingPskExtensionInSecondClientHello => Alert::MissingExtension,
            PeerMisbehaved::IllegalMiddleboxChangeCipherSpec
            | PeerMisbehaved::KeyEpochWithPendingFragment
            | PeerMisbehaved::TooMuchEarlyDataReceived => Alert::UnexpectedMessage,
            PeerMisbehaved::SelectedUnofferedCipherSuite => Alert::HandshakeFailure,
            _ => Alert::IllegalParameter,
        },
        // No certificate for the client: the resolver has returned none.
        Error::General(_) => Alert::AccessDenied,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    #[test]
    fn alerts_have_the_names_of_the_rfc() {
        for (description, name) in [
            (AlertDescription::HandshakeFailure, "sent:handshake_failure"),
            (AlertDescription::UnknownCA, "sent:unknown_ca"),
            (AlertDescription::UnknownPSKIdentity, "sent:unknown_psk_identity"),
            (AlertDescription::UnrecognisedName, "sent:unrecognized_name"),
            (AlertDescription::NoApplicationProtocol, "sent:no_application_protocol"),
            (AlertDescription::Unknown(201), "sent:201"),
        ] {
            assert_eq!(TlsAlert { received: false, description }.to_string(), name);
        }
    }

    struct Identity {
        key: KeyPair,
        certificate: rcgen::Certificate,
    }

    fn identity() -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        Identity { key, certificate }
    }

    /// Runs a handshake to its end; the alerts that server and client see.
    fn alerts(
        server: impl FnOnce(&Identity) -> ServerConfig,
        client: impl FnOnce(RootCertStore) -> ClientConfig,
    ) -> [Option<String>; 2] {
        let identity = identity();
        let mut roots = RootCertStore::empty();
        roots.add(identity.certificate.der().clone()).unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let server = ServerConnection::new(Arc::new(server(&identity))).unwrap();
        let client = ClientConnection::new(Arc::new(client(roots)), name).unwrap();
        let mut sides = [Connection::Server(server), Connection::Client(client)];
        let mut seen = [None, None];
        for _ in 0..10 {
            for from in [1, 0] {
                let mut bytes = Vec::new();
                while sides[from].wants_write() {
                    sides[from].write_tls(&mut bytes).unwrap();
                }
                let to = 1 - from;
                let mut rest = &bytes[..];
                while !rest.is_empty() && seen[to].is_none() {
                    sides[to].read_tls(&mut rest).unwrap();
                    let failed = sides[to].process_new_packets().err();
                    seen[to] = failed.and_then(|error| TlsAlert::of(&error)).map(|alert| alert.to_string());
                }
            }
        }
        seen
    }

    fn server(identity: &Identity, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
        let key = PrivatePkcs8KeyDer::from(identity.key.serialize_der());
        let chain = vec![identity.certificate.der().clone()];
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
        builder.with_single_cert(chain, key.into()).unwrap()
    }

    fn client(roots: RootCertStore, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth()
    }

    /// The alert that one side has sent is the one that the other has received.
    fn assert_sent(seen: &[Option<String>; 2], by: usize, alert: &str) {
        let [sender, receiver] = if by == 0 { [&seen[0], &seen[1]] } else { [&seen[1], &seen[0]] };
        assert_eq!(sender.as_deref(), Some(&*format!("sent:{alert}")), "{seen:?}");
        assert_eq!(receiver.as_deref(), Some(&*format!("received:{alert}")), "{seen:?}");
    }

    #[test]
    fn what_is_derived_as_sent_is_what_the_peer_receives() {
        use rustls::ALL_VERSIONS;
        use rustls::version::{TLS12, TLS13};
        let seen = alerts(|own| server(own, ALL_VERSIONS), |_| client(RootCertStore::empty(), ALL_VERSIONS));
        assert_sent(&seen, 1, "unknown_ca");
        let seen = alerts(|own| server(own, &[&TLS13]), |roots| client(roots, &[&TLS12]));
        assert_sent(&seen, 0, "protocol_version");
        let server_of_a = |own: &Identity| {
            let mut config = server(own, ALL_VERSIONS);
            config.alpn_protocols = vec![b"a".to_vec()];
            config
        };
        let seen = alerts(server_of_a, |roots| {
            let mut config = client(roots, ALL_VERSIONS);
            config.alpn_protocols = vec![b"b".to_vec()];
            config
        });
        assert_sent(&seen, 0, "no_application_protocol");
        for version in [&TLS12, &TLS13] {
            let wants_certificate = |own: &Identity| {
                let mut roots = RootCertStore::empty();
                roots.add(own.certificate.der().clone()).unwrap();
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
                let key = PrivatePkcs8KeyDer::from(own.key.serialize_der());
                let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
                builder.with_single_cert(vec![own.certificate.der().clone()], key.into()).unwrap()
            };
            assert_sent(&alerts(wants_certificate, |roots| client(roots, &[version])), 0, "certificate_required");
        }
    }
}
