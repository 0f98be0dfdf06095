//! `sessile certs dev`: an authority for one machine, and certificates and keys to try things with.
//!
//! Not for public service: strangers trust other authorities. Prompts for nothing and installs nothing. Invariants: a
//! file that this command did not make is never replaced; an authority of an earlier run is used again, so that clients
//! need to be configured once; keys are readable by their owner only.

pub(super) mod authority;
mod files;

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde::Serialize;

use self::authority::{Authority, may_be_replaced};
use self::files::cannot;
use super::CommandError;
use crate::server_name::NamePattern;

pub(super) use self::files::keep_or_make_key;

/// Files of one key each: for cookies, for session tickets, for hashes in a shared store, and the store's password.
const SECRETS: [&str; 4] = ["dev-cookie.keys", "dev-ticket.keys", "dev-store.secret", "dev-store.password"];
/// Folder of the files, unless the command line names another one.
pub(super) const DEV_FOLDER: &str = "certs";
/// Name of the authority's files.
const CA: &str = "dev-ca";

/// Arguments of `sessile certs`.
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
    /// The folder to write to.
    #[arg(long, value_name = "FOLDER", default_value = DEV_FOLDER)]
    dir: PathBuf,
    /// A host name or address for the server's certificate; may be given several times.
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Files of a certificate and its key, and the names in it.
#[derive(Debug, Serialize)]
struct Made {
    cert: PathBuf,
    key: PathBuf,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

/// Everything that one run made or kept; the JSON output.
#[derive(Serialize)]
struct CertificateReport {
    authority: Made,
    /// True if the authority is from an earlier run.
    kept: bool,
    server: Made,
    server_rsa: Made,
    client: Made,
    cookie_keys: PathBuf,
    ticket_keys: PathBuf,
    store_secret: PathBuf,
    store_password: PathBuf,
}

impl Made {
    /// The files of this name in a folder.
    fn of(folder: &Path, name: &str) -> Self {
        let file = |end: &str| folder.join(format!("{name}{end}"));
        Self { cert: file(".pem"), key: file("-key.pem"), names: Vec::new() }
    }
}

/// The authority that an earlier `certs dev` has made in this folder; `None`: there is none, or it ends soon.
pub(super) fn dev_authority(folder: &Path) -> Result<Option<Authority>, CommandError> {
    Authority::find(&Made::of(folder, CA))
}

impl Certs {
    /// Makes the files and prints a report; the exit code is 0.
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
        let [authority, server, server_rsa, client] =
            [CA, "dev", "dev-rsa", "dev-client"].map(|name| Made::of(&self.dir, name));
        let found = Authority::find(&authority)?;
        // All existing files are checked before the first one is written.
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
        secrets.iter().try_for_each(|path| keep_or_make_key(path))?;
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

fn is_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || NamePattern::parse(name).is_some()
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
    use std::io;
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
        let printed = dev(&made, &["--name", "a.example", "--name", "*.a.example", "--name", "::1"]).unwrap();
        assert!(printed.contains("for a.example, *.a.example, ::1\n"), "{printed}");
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
        let termination = crate::tls::Termination::load(&checked.config, None, crate::clock::now_ms).unwrap();
        assert!(termination.warnings(crate::clock::unix_s()).is_empty());
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
