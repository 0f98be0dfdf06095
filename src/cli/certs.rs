//! `sessile certs dev`: an authority for one machine, and certificates to try things with.
//!
//! Not for serving strangers: use certificates that they trust already. Asks for nothing and installs nothing.
//! Invariants: a file that this command did not make is never written over; an authority that it did make is used
//! again, so that who trusts it need not do so twice; keys can be read by their owner only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
};
use serde::Serialize;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

use super::CommandError;
use crate::server_name::NamePattern;

/// What tells our authority from others.
const AUTHORITY: &str = "sessile development authority";
/// Ten years: whoever trusts it does so by hand.
const AUTHORITY_DAYS: i64 = 3650;
/// What browsers accept at most.
const CERTIFICATE_DAYS: i64 = 397;
/// An authority with less to live is made anew.
const AUTHORITY_DAYS_LEFT: i64 = CERTIFICATE_DAYS + 1;
/// Clocks of clients may be behind.
const EARLY_DAYS: i64 = 1;
const DAY_S: i64 = 86_400;
/// Files of one key each: of cookies, of tickets, of a shared store, and its password.
const SECRETS: [&str; 4] = ["dev-cookie.keys", "dev-ticket.keys", "dev-store.secret", "dev-store.password"];

/// The command.
#[derive(Debug, clap::Args)]
pub(super) struct Certs {
    #[command(subcommand)]
    kind: CertificateKind,
}

#[derive(Debug, clap::Subcommand)]
enum CertificateKind {
    /// Make an authority for this machine, certificates for a server (ECDSA and RSA) and one for a client.
    Dev(Dev),
}

#[derive(Debug, clap::Args)]
struct Dev {
    /// Where they are written.
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
    /// A name or address of the server, once or more often.
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A certificate and its key, as files.
#[derive(Debug, Serialize)]
struct Made {
    cert: PathBuf,
    key: PathBuf,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

#[derive(Serialize)]
struct CertificateReport {
    authority: Made,
    /// The authority was there already.
    kept: bool,
    server: Made,
    server_rsa: Made,
    client: Made,
    /// Keys that seal cookies and tickets, and secrets of a shared store; those that were there are kept.
    cookie_keys: PathBuf,
    ticket_keys: PathBuf,
    store_secret: PathBuf,
    store_password: PathBuf,
}

impl Certs {
    /// Makes and prints.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let CertificateKind::Dev(dev) = &self.kind;
        let report = dev.make()?;
        if dev.json {
            super::print_json(out, &report)?;
        } else {
            print(out, &report)?;
        }
        Ok(0)
    }
}

impl Dev {
    fn make(&self) -> Result<CertificateReport, CommandError> {
        if let Some(name) = self.names.iter().find(|name| !is_name(name)) {
            return Err(CommandError::Usage(format!("--name {name}: neither a host name nor an address")));
        }
        fs::create_dir_all(&self.dir).map_err(|error| cannot(&self.dir, &error))?;
        let [authority, server, server_rsa, client] = ["dev-ca", "dev", "dev-rsa", "dev-client"].map(|name| Made {
            cert: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}-key.pem")),
            names: Vec::new(),
        });
        let found = Authority::find(&authority)?;
        // Nothing is written before everything that is there has been looked at.
        for made in [&server, &server_rsa, &client] {
            may_be_replaced(made)?;
        }
        let kept = found.is_some();
        let issuer = match found {
            Some(found) => found,
            None => Authority::make(&authority)?,
        };
        let [server, server_rsa] = [server, server_rsa].map(|made| Made { names: self.names.clone(), ..made });
        issuer.issue(&server, "dev", ExtendedKeyUsagePurpose::ServerAuth, &PKCS_ECDSA_P256_SHA256)?;
        issuer.issue(&server_rsa, "dev", ExtendedKeyUsagePurpose::ServerAuth, &PKCS_RSA_SHA256)?;
        issuer.issue(&client, "dev client", ExtendedKeyUsagePurpose::ClientAuth, &PKCS_ECDSA_P256_SHA256)?;
        let secrets = SECRETS.map(|name| self.dir.join(name));
        secrets.iter().try_for_each(|path| keep_or_make_keys(path))?;
        let [cookie_keys, ticket_keys, store_secret, store_password] = secrets;
        Ok(CertificateReport {
            authority,
            kept,
            server,
            server_rsa,
            client,
            cookie_keys,
            ticket_keys,
            store_secret,
            store_password,
        })
    }
}

/// What signs.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// One that an earlier run has made, and that will outlive what it signs now.
    fn find(files: &Made) -> Result<Option<Self>, CommandError> {
        let Some(pem) = read(&files.cert)? else {
            return match files.key.exists() {
                true => Err(refused(&files.key, "a key without its certificate: move it away")),
                false => Ok(None),
            };
        };
        let Some(until_s) = with_certificate(&pem, |certificate| {
            let ours = certificate.subject().iter_common_name().any(|name| name.as_str() == Ok(AUTHORITY));
            ours.then(|| certificate.validity().not_after.timestamp())
        }) else {
            return Err(refused(&files.cert, "an authority that this command did not make"));
        };
        if until_s < now_s() + AUTHORITY_DAYS_LEFT * DAY_S {
            return Ok(None);
        }
        let key = read(&files.key)?.and_then(|key| KeyPair::from_pem(&key).ok());
        let key = key.ok_or_else(|| refused(&files.key, "the authority's key is not there, or not a key"))?;
        let is_its_key = |certificate: &X509Certificate<'_>| {
            (certificate.public_key().raw == key.subject_public_key_info()).then_some(())
        };
        if with_certificate(&pem, is_its_key).is_none() {
            return Err(refused(&files.key, "it is not the key of the authority beside it"));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| internal(&error))?;
        Ok(Some(Self(issuer)))
    }

    fn make(files: &Made) -> Result<Self, CommandError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lasts(&mut params, AUTHORITY_DAYS);
        let key = KeyPair::generate().map_err(|error| internal(&error))?;
        let certificate = params.self_signed(&key).map_err(|error| internal(&error))?;
        write(files, &certificate.pem(), &key)?;
        Ok(Self(Issuer::new(params, key)))
    }

    fn issue(
        &self,
        files: &Made,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        algorithm: &'static SignatureAlgorithm,
    ) -> Result<(), CommandError> {
        let mut params = CertificateParams::new(files.names.clone()).map_err(|error| internal(&error))?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.insert_extended_key_usage(usage);
        params.use_authority_key_identifier_extension = true;
        lasts(&mut params, CERTIFICATE_DAYS);
        let key = KeyPair::generate_for(algorithm).map_err(|error| internal(&error))?;
        let certificate = params.signed_by(&key, &self.0).map_err(|error| internal(&error))?;
        write(files, &certificate.pem(), &key)
    }
}

/// What is there was signed by our authority, or nothing is there.
fn may_be_replaced(files: &Made) -> Result<(), CommandError> {
    let ours = |certificate: &X509Certificate<'_>| {
        certificate.issuer().iter_common_name().any(|name| name.as_str() == Ok(AUTHORITY)).then_some(())
    };
    match read(&files.cert)? {
        Some(pem) if with_certificate(&pem, ours).is_none() => {
            Err(refused(&files.cert, "a certificate that this command did not make"))
        }
        None if files.key.exists() => Err(refused(&files.key, "a key without its certificate: move it away")),
        _ => Ok(()),
    }
}

/// A file of one key. What is there stays: cookies, tickets and hashes out there were made with it.
fn keep_or_make_keys(path: &Path) -> Result<(), CommandError> {
    if path.exists() {
        return Ok(());
    }
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| CommandError::Internal("no random bytes".to_owned()))?;
    let line: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    replace(path, 0o600, &(line + "\n"))
}

fn with_certificate<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
    let (_, section) = parse_x509_pem(pem.as_bytes()).ok()?;
    look(&section.parse_x509().ok()?)
}

fn is_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || NamePattern::parse(name).is_some()
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn lasts(params: &mut CertificateParams, days: i64) {
    let at = |days: i64| ASN1Time::from_timestamp(now_s() + days * DAY_S).map(|time| time.to_datetime());
    if let (Ok(from), Ok(until)) = (at(-EARLY_DAYS), at(days)) {
        (params.not_before, params.not_after) = (from, until);
    }
}

fn read(path: &Path) -> Result<Option<String>, CommandError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot(path, &error)),
    }
}

/// The key first, so that no certificate stands without it.
fn write(files: &Made, certificate: &str, key: &KeyPair) -> Result<(), CommandError> {
    replace(&files.key, 0o600, &key.serialize_pem())?;
    replace(&files.cert, 0o644, certificate)
}

/// Whole or not at all, and never readable by more than `mode` says.
fn replace(path: &Path, mode: u32, content: &str) -> Result<(), CommandError> {
    let unfinished = path.with_extension("new");
    let written = (|| {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&unfinished, path)
    })();
    written.map_err(|error| cannot(path, &error))
}

fn refused(path: &Path, what: &str) -> CommandError {
    CommandError::Usage(format!("{}: {what}; nothing was written", path.display()))
}

fn cannot(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Usage(format!("{}: {error}", path.display()))
}

fn internal(error: &rcgen::Error) -> CommandError {
    CommandError::Internal(format!("minting failed: {error}"))
}

fn print(out: &mut impl Write, report: &CertificateReport) -> Result<(), CommandError> {
    let CertificateReport {
        authority,
        kept,
        server,
        server_rsa,
        client,
        cookie_keys,
        ticket_keys,
        store_secret,
        store_password,
    } = report;
    let (ca, cert, key) = (authority.cert.display(), server.cert.display(), server.key.display());
    let was = if *kept { "kept" } else { "made" };
    writeln!(out, "{was} {ca}, an authority for this machine")?;
    writeln!(out, "made {cert} and {key}, for {}", server.names.join(", "))?;
    writeln!(out, "made {} and {}, the same with RSA", server_rsa.cert.display(), server_rsa.key.display())?;
    writeln!(out, "made {} and {}, for a client", client.cert.display(), client.key.display())?;
    writeln!(out, "keys that seal: {} for cookies, {} for tickets", cookie_keys.display(), ticket_keys.display())?;
    writeln!(out, "for a shared store: {} and {}", store_secret.display(), store_password.display())?;
    writeln!(out)?;
    writeln!(out, "In the configuration:")?;
    writeln!(out, "  [[listener.certificate]]")?;
    writeln!(out, "  cert = \"{cert}\"")?;
    writeln!(out, "  key = \"{key}\"")?;
    writeln!(out)?;
    writeln!(out, "Clients must trust {ca}, and nothing else of this folder:")?;
    writeln!(out, "  curl --cacert {ca} ...")?;
    writeln!(out, "  a browser: its settings, certificates, authorities, import")?;
    writeln!(out, "Its key, {}, can make a certificate for any name: keep it here.", authority.key.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CertificateLine {
        #[command(flatten)]
        certs: Certs,
    }

    fn dev(folder: &Path, more: &[&str]) -> Result<String, CommandError> {
        let line = ["certs", "dev", "--dir", folder.to_str().unwrap()].into_iter().chain(more.iter().copied());
        let mut out = Vec::new();
        CertificateLine::try_parse_from(line).unwrap().certs.run(&mut out).map(|_| String::from_utf8(out).unwrap())
    }

    fn contents(folder: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn what_is_made_is_whole_private_and_usable() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("new/certs");
        let told = dev(&made, &["--name", "a.example", "--name", "*.a.example", "--name", "::1"]).unwrap();
        assert!(told.contains("for a.example, *.a.example, ::1\n"), "{told}");
        let names: Vec<_> = contents(&made).into_iter().map(|(name, _)| name).collect();
        let kinds = ["dev-ca", "dev-client", "dev", "dev-rsa"];
        let mut expected = kinds.map(|kind| [format!("{kind}-key.pem"), format!("{kind}.pem")]).concat();
        expected.extend(SECRETS.map(String::from));
        expected.sort();
        assert_eq!(names, expected);
        for name in names {
            let mode = fs::metadata(made.join(&name)).unwrap().permissions().mode() & 0o777;
            let private = name.contains("key") || SECRETS.contains(&name.as_str());
            assert_eq!(mode & 0o077 == 0, private, "{name} {mode:o}");
        }
        let text = format!(
            "tls.ticket_keys = '{0}/dev-ticket.keys'\n[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\ntls = 'terminate'\npool = 'p'\n\
             certificate = [{{ cert = '{0}/dev.pem', key = '{0}/dev-key.pem' }}, \
             {{ cert = '{0}/dev-rsa.pem', key = '{0}/dev-rsa-key.pem' }}]\n\
             client_certificate.ca = '{0}/dev-ca.pem'\n\
             [[pool]]\nname = 'p'\nbackend = [{{ name = 'a', address = '127.0.0.1:1' }}]\n",
            made.display()
        );
        let checked = crate::config::check(&text, &|_| Err(io::Error::other("no names"))).unwrap();
        let termination = crate::tls::Termination::load(&checked.config, None).unwrap();
        assert!(termination.warnings(now_s() as u64).is_empty());
        assert_eq!(termination.certificates()[0].names.len(), 2);
        let ring = fs::read_to_string(made.join("dev-cookie.keys")).unwrap();
        assert!(crate::sticky::cookie::KeyRing::parse(&ring).is_ok());
    }

    #[test]
    fn an_authority_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(dev(folder.path(), &[]).unwrap().starts_with("made "));
        let before = contents(folder.path());
        let again = dev(folder.path(), &["--json"]).unwrap();
        let report: serde_json::Value = serde_json::from_str(&again).unwrap();
        assert_eq!(report["kept"], true);
        assert_eq!(report["server"]["names"], serde_json::json!(["localhost", "127.0.0.1", "::1"]));
        for (old, new) in before.iter().zip(contents(folder.path())) {
            let kept = old.0.starts_with("dev-ca") || SECRETS.contains(&old.0.as_str());
            assert_eq!(*old == new, kept, "{}", old.0);
        }
    }

    #[test]
    fn nothing_of_others_is_written_over() {
        let stranger = rcgen::generate_simple_self_signed(vec!["x.example".to_owned()]).unwrap();
        for (name, content, expected) in [
            ("dev-ca.pem", stranger.cert.pem(), "an authority that this command did not make"),
            ("dev-ca.pem", "notes\n".to_owned(), "an authority that this command did not make"),
            ("dev-ca-key.pem", stranger.signing_key.serialize_pem(), "a key without its certificate"),
            ("dev.pem", stranger.cert.pem(), "a certificate that this command did not make"),
            ("dev-client-key.pem", stranger.signing_key.serialize_pem(), "a key without its certificate"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), &content).unwrap();
            let refused = dev(folder.path(), &[]).unwrap_err().to_string();
            assert!(refused.contains(expected) && refused.contains(name), "{refused}");
            assert_eq!(contents(folder.path()), [(name.to_owned(), content)]);
        }
        let folder = tempfile::tempdir().unwrap();
        dev(folder.path(), &[]).unwrap();
        fs::write(folder.path().join("dev-ca-key.pem"), stranger.signing_key.serialize_pem()).unwrap();
        let before = contents(folder.path());
        let refused = dev(folder.path(), &[]).unwrap_err().to_string();
        assert!(refused.contains("it is not the key of the authority beside it"), "{refused}");
        assert_eq!(contents(folder.path()), before);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = dev(folder.path(), &["--name", "a b"]).unwrap_err().to_string();
        assert_eq!(refused, "--name a b: neither a host name nor an address");
    }
}
