//! Address and credentials of the store: what `[store]` configures, and the contents of the files that it names.
//!
//! Opens no connection. Invariant: neither the password nor the secret of the hashes is ever printed.

use std::io;
use std::path::Path;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use data_encoding::BASE64URL_NOPAD;

use crate::config::{self, FileProblem, Hidden, is_open_to_all};
use crate::regular_file::{self, SECRET_MAX, WholeFile};
use crate::sticky::table::Secret;
use crate::tls::ServerTrust;

/// Bytes of the hash in a key: 128 bits.
const HASH: usize = 16;
/// Least length of the secret, in bytes.
const SECRET_LEAST: usize = 16;
/// Key of the hashes without `secret_file`: a reader of the store can then verify guesses of values.
const NO_SECRET: &[u8] = b"sessile: learned cookies";
/// What is hashed for the secret of stick tables, and for the key that signs what instances tell each other. No pool has a
/// name that begins so, so no key of a cookie's value is either of them.
const OF_TABLES: &[u8] = b"\0sessile stick tables 1";
const OF_FLEET: &[u8] = b"\0sessile fleet 1";

/// Settings needed to connect and to make keys.
#[derive(Clone)]
pub struct Access {
    /// The `[store]` section as checked.
    pub config: config::StoreConfig,
    /// The password, from `password` or `password_file`.
    pub password: Option<Hidden>,
    /// Trusted authorities for TLS; `None` = the connection is in the clear.
    pub tls: Option<ServerTrust>,
    /// The key of trial entries, which no cookie has.
    pub(super) probe: Box<str>,
    /// The server is a node of a cluster: no command may name two keys.
    pub(super) is_node: bool,
    secret: Vec<u8>,
    hasher: hmac::Key,
    /// Keys that name a file which every user of this machine can read.
    exposed: Vec<&'static str>,
}

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        (&self.config, &self.password, &self.tls, &self.secret)
            == (&other.config, &other.password, &other.tls, &other.secret)
    }
}

impl Access {
    /// Reads the files. An error names every problem of every file.
    pub fn read(config: &config::StoreConfig) -> Result<Self, Vec<FileProblem>> {
        let (mut problems, mut exposed) = (Vec::new(), Vec::new());
        let mut text = |key: &'static str, path: Option<&Path>| {
            let path = path?;
            let (line, mode) = first_line(path).map_err(|what| problems.push(problem(key, path, &what))).ok()?;
            exposed.extend(is_open_to_all(mode).then_some(key));
            Some(line)
        };
        let password = text("password_file", config.password_file.as_deref());
        let secret = text("secret_file", config.secret_file.as_deref());
        if let (Some(path), Some(secret)) = (&config.secret_file, &secret)
            && secret.len() < SECRET_LEAST
        {
            problems.push(problem("secret_file", path, &format!("it is shorter than {SECRET_LEAST} bytes")));
        }
        let tls = config.ca.as_deref().map(ServerTrust::load).transpose();
        let tls = tls.unwrap_or_else(|what| {
            problems.push(FileProblem::new("store", "ca", what));
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let secret = secret.map_or_else(|| NO_SECRET.to_vec(), String::into_bytes);
        Ok(Self {
            password: password.map(Hidden).or_else(|| config.password.clone()),
            hasher: hmac::Key::new(HMAC_SHA256, &secret),
            probe: format!("{}probe", config.prefix).into(),
            is_node: false,
            config: config.clone(),
            secret,
            exposed,
            tls,
        })
    }

    /// The settings for one node of this cluster. `probe`: a key that the node has.
    pub(super) fn of_node(&self, node: &config::StoreAddress, probe: Box<str>) -> Self {
        let config = config::StoreConfig { place: config::StorePlace::One(node.clone()), ..self.config.clone() };
        Self { config, probe, is_node: true, ..self.clone() }
    }

    /// One warning for each secret file that every user of this machine can read.
    pub fn warnings(&self) -> Vec<FileProblem> {
        let files = [("password_file", &self.config.password_file), ("secret_file", &self.config.secret_file)];
        let files = files.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)));
        files
            .filter(|(key, _)| self.exposed.contains(key))
            .map(|(key, path)| FileProblem::exposed("store", key, path, "a secret"))
            .collect()
    }

    /// Key of a cookie's value in the store: prefix, pool, and HMAC-SHA-256 (RFC 2104) of pool and value, cut to 128
    /// bits.
    pub fn key(&self, pool: &str, value: &[u8]) -> Box<str> {
        let mut context = hmac::Context::with_key(&self.hasher);
        context.update(pool.as_bytes());
        context.update(&[0]);
        context.update(value);
        let hash = BASE64URL_NOPAD.encode(&context.sign().as_ref()[..HASH]);
        format!("{}{pool}:{hash}", self.config.prefix).into()
    }

    /// The secret by which stick tables hash keys, equal on all instances; `None`: their entries are not shared.
    pub fn table_secret(&self) -> Option<Secret> {
        let hash = hmac::sign(&self.hasher, OF_TABLES);
        let bytes = hash.as_ref().first_chunk::<16>().filter(|_| self.config.share.displaced)?;
        Some(Secret::new(*bytes))
    }

    /// The key that signs what instances tell each other.
    pub(super) fn fleet_key(&self) -> hmac::Key {
        hmac::Key::new(HMAC_SHA256, hmac::sign(&self.hasher, OF_FLEET).as_ref())
    }

    /// Whether both make the same key of a value, in the same store.
    pub fn same_keys(&self, other: &Self) -> bool {
        (&self.config.prefix, &self.secret, &self.config.place, self.config.database)
            == (&other.config.prefix, &other.secret, &other.config.place, other.config.database)
    }
}

fn problem(key: &'static str, path: &Path, what: &str) -> FileProblem {
    FileProblem::new("store", key, format!("\"{}\": {what}", path.display()))
}

/// The first line of a file, and the mode of the file.
fn first_line(path: &Path) -> Result<(String, u32), String> {
    let failed = |error: io::Error| error.to_string();
    let file = regular_file::read(path, SECRET_MAX).map_err(failed)?;
    let (mode, text) = (file.mode, WholeFile::text(file).map_err(failed)?);
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() { Err("its first line is empty".to_owned()) } else { Ok((line.to_owned(), mode)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{StoreAddress, StorePlace};

    fn config() -> config::StoreConfig {
        config::StoreConfig {
            place: StorePlace::One(StoreAddress::Tcp("127.0.0.1".into(), 6379)),
            ca: None,
            user: None,
            password: None,
            password_file: None,
            database: 0,
            budget: Duration::from_millis(2),
            prefix: "p:".into(),
            secret_file: None,
            share: config::Share::default(),
        }
    }

    #[test]
    fn a_key_shows_its_pool_and_nothing_of_the_value() {
        let access = Access::read(&config()).unwrap();
        let key = access.key("shop", b"a session");
        assert_eq!(key.strip_prefix("p:shop:").map(str::len), Some(22), "{key}");
        assert_eq!(key, access.key("shop", b"a session"));
        assert_ne!(key, access.key("shop", b"another"));
        let hash = |key: &str| key.rsplit(':').next().unwrap().to_owned();
        assert_ne!(hash(&key), hash(&access.key("forum", b"a session")));
    }

    #[test]
    fn instances_with_the_same_secret_make_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let with = |text: &str| {
            let file = dir.path().join("secret");
            std::fs::write(&file, text).unwrap();
            Access::read(&config::StoreConfig { secret_file: Some(file), ..config() })
        };
        let (one, other) = (with("0123456789abcdef\n").unwrap(), with("fedcba9876543210\n").unwrap());
        assert_eq!(one.key("p", b"v"), with("0123456789abcdef").unwrap().key("p", b"v"));
        assert_ne!(one.key("p", b"v"), other.key("p", b"v"));
        assert!(!one.same_keys(&other));
        assert!(one.table_secret().is_none(), "stick tables are not shared");
        let secret = |access: Access| {
            let share = config::Share { displaced: true, ..config::Share::default() };
            let config = config::StoreConfig { share, ..access.config.clone() };
            Access { config, ..access }.table_secret().unwrap().bytes()
        };
        assert_eq!(secret(one), secret(with("0123456789abcdef").unwrap()));
        assert_ne!(secret(other), secret(with("0123456789abcdef").unwrap()));
        let problems = with("short\n").err().unwrap();
        assert!(problems[0].message.ends_with("it is shorter than 16 bytes"), "{problems:?}");
    }

    #[test]
    fn everything_wrong_with_its_files_comes_out_at_once() {
        let nowhere = |name: &str| Some(std::path::PathBuf::from(format!("/nowhere/{name}")));
        let config = config::StoreConfig {
            password_file: nowhere("password"),
            secret_file: nowhere("secret"),
            ca: nowhere("ca"),
            ..config()
        };
        let problems = Access::read(&config).err().unwrap();
        let keys: Vec<_> = problems.iter().map(|problem| (&*problem.object, problem.key)).collect();
        assert_eq!(keys, [("store", "password_file"), ("store", "secret_file"), ("store", "ca")]);
        assert!(problems.iter().all(|problem| problem.message.contains("/nowhere/")), "{problems:?}");
    }
}
