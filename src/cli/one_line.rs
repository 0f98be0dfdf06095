//! [`OneLine`]: the arguments of `sessile run` that stand for a configuration file, and the text of that file.
//!
//! Checks no value: the text goes through the same check as a file, and problems in it are shown with the argument.
//! Invariant: [`OneLine::text`] is the only place that knows what the arguments stand for.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf, absolute};

use clap::ValueEnum;
use toml::Value;

use super::certs::keep_or_make_key;
use super::{CommandError, own_places};
use crate::config::backend_name;
use crate::server::{ArgumentText, KeptPlaces};

/// Arguments that stand for a configuration file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = OneLine::HEADING)]
pub(super) struct OneLine {
    /// Address to accept clients on: 8080 (every address of this machine), 127.0.0.1:8080, localhost:8080 or unix:/PATH;
    /// may be repeated.
    #[arg(long, value_name = "ADDRESS", requires = "backend", conflicts_with = "config")]
    listen: Vec<String>,
    /// Address of a backend: 10.0.0.1:80, HOST:80 or unix:/PATH; may be repeated.
    #[arg(long, value_name = "ADDRESS", requires = "listen", conflicts_with = "config")]
    backend: Vec<String>,
    /// What keeps a client at its backend: its address, or a cookie of sessile [default: source].
    #[arg(long, value_name = "BY", requires = "listen")]
    sticky: Option<Sticky>,
    /// Read HTTP requests and place each of them; --sticky cookie implies this.
    #[arg(long, requires = "listen")]
    http: bool,
    /// PEM file with a certificate and its chain: TLS of clients ends here.
    #[arg(long, value_name = "FILE", requires = "listen")]
    tls_cert: Option<String>,
    /// PEM file with the key of the certificate [default: the file of --tls-cert].
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,
    /// File with the keys of --sticky cookie, the same for all instances [default: a file that is made once].
    #[arg(long, value_name = "FILE", requires = "listen")]
    cookie_keys: Option<String>,
    /// Path of the admin socket, or "off" [default: in $XDG_RUNTIME_DIR or /run/sessile, else off].
    #[arg(long, value_name = "PATH", requires = "listen")]
    socket: Option<String>,
}

/// What keeps a client at its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sticky {
    /// The client's address, remembered in a stick table.
    Source,
    /// A cookie that sessile adds to responses.
    Cookie,
}

/// What no argument says and the machine decides.
struct ChosenPlaces {
    /// Path of the admin socket; `None`: there is no place for one.
    socket: Option<PathBuf>,
    /// The file with the keys of the cookie; `None`: the pool has no cookie of sessile.
    cookie_keys: Option<PathBuf>,
}

impl OneLine {
    /// Heading of the arguments in the help text.
    pub(super) const HEADING: &str = "Without a file";

    /// True if the arguments stand for a file.
    pub(super) fn is_used(&self) -> bool {
        !self.listen.is_empty()
    }

    /// The text that the arguments stand for on this machine. A file for the keys of the cookie is made if it is missing.
    /// A process that an upgrade has started keeps the places of the one before.
    pub(super) fn compose(&self) -> Result<ArgumentText, CommandError> {
        let (socket, kept_keys) = match KeptPlaces::of_environment() {
            Some(kept) => (kept.socket, kept.cookie_keys),
            None => (own_places::new_admin_socket(), None),
        };
        Ok(self.text(&ChosenPlaces { socket, cookie_keys: self.keys_of_cookie(kept_keys)? }))
    }

    fn text(&self, chosen: &ChosenPlaces) -> ArgumentText {
        let mut text = ArgumentText::default();
        text.push("run", "# What the arguments of `sessile run` stand for. `sessile run -c FILE` serves the same.\n");
        self.push_admin(chosen, &mut text);
        self.push_listener(&mut text);
        self.push_pool(chosen, &mut text);
        text
    }

    fn push_admin(&self, chosen: &ChosenPlaces, text: &mut ArgumentText) {
        const OFF: &str = "no admin socket: $XDG_RUNTIME_DIR names no folder of this user and /run/sessile cannot be \
                           written; --socket PATH makes one for `sessile status` and other commands";
        text.push("--socket", "[admin]");
        match (&self.socket, &chosen.socket) {
            (Some(socket), _) if socket == "off" => text.push("--socket", key("socket", "off")),
            (Some(socket), _) => text.push("--socket", key("socket", &from_root(socket))),
            (None, Some(socket)) => text.push("--socket", key("socket", &socket.to_string_lossy())),
            (None, None) => {
                text.warn(OFF);
                text.push("--socket", format_args!("# There is {OFF}.\n{}", key("socket", "off")));
            }
        }
    }

    fn push_listener(&self, text: &mut ArgumentText) {
        text.push("--listen", "\n[[listener]]\nname = \"front\"\nbind = [");
        for (number, address) in (1..).zip(&self.listen) {
            text.push(&format!("--listen {number}"), format_args!("  {},", quoted(address)));
        }
        text.push("--listen", "]\npool = \"app\"");
        let Some(cert) = &self.tls_cert else { return };
        let argument = if self.tls_key.is_some() { "--tls-cert" } else { "--tls-cert (no --tls-key)" };
        text.push(argument, "tls = \"terminate\"\n\n[[listener.certificate]]");
        text.push(argument, key("cert", &from_root(cert)));
        match &self.tls_key {
            Some(file) => text.push("--tls-key", key("key", &from_root(file))),
            None => text.push(argument, "# The file holds the key, too."),
        }
    }

    fn push_pool(&self, chosen: &ChosenPlaces, text: &mut ArgumentText) {
        text.push("--backend", "\n[[pool]]\nname = \"app\"");
        if self.http || self.sticky == Some(Sticky::Cookie) {
            text.push("--http", "http = true");
        }
        match &chosen.cookie_keys {
            Some(keys) => {
                let balance = "# A client without a cookie gets the next backend.\nbalance = \"round_robin\"";
                text.push("--sticky cookie", format_args!("{balance}\n\n[pool.cookie]\nmode = \"insert\""));
                let argument = if self.cookie_keys.is_some() { "--cookie-keys" } else { "--sticky cookie" };
                if self.cookie_keys.is_none() {
                    text.push(argument, OWN_KEYS);
                }
                text.push(argument, key("keys", &keys.to_string_lossy()));
            }
            None => {
                let default = if self.sticky.is_none() { ". This is the default" } else { "" };
                let comment = format!("# The address of a client keeps it at its backend, by a stick table{default}.");
                text.push("--sticky source", format_args!("{comment}\nkey = \"source\""));
            }
        }
        for (number, address) in (1..).zip(&self.backend) {
            let (name, address) = (key("name", &backend_name(address)), key("address", address));
            text.push(&format!("--backend {number}"), format_args!("\n[[pool.backend]]\n{name}\n{address}"));
        }
    }

    /// The file with the keys of the cookie: the one that an argument names, or that the process before has, or one that is
    /// made on first use. `None`: no cookie is wanted.
    fn keys_of_cookie(&self, kept: Option<PathBuf>) -> Result<Option<PathBuf>, CommandError> {
        match (self.sticky, &self.cookie_keys) {
            (Some(Sticky::Cookie), Some(file)) => Ok(Some(from_root(file).into())),
            (Some(Sticky::Cookie), None) => kept.map_or_else(made_keys, Ok).map(Some),
            (_, Some(_)) => Err(CommandError::Usage("--cookie-keys: needs --sticky cookie".into())),
            (_, None) => Ok(None),
        }
    }
}

/// Stands above the file with the keys of the cookie if no argument names it.
const OWN_KEYS: &str = "# Only the user that this was made for can read the file. For a service of another user delete the line:\n\
                        # its first start makes a file of its own, and each client gets a new cookie once.";

/// A file with a key for cookies, made if it is missing.
fn made_keys() -> Result<PathBuf, CommandError> {
    let file = own_places::cookie_keys().ok_or_else(|| {
        CommandError::Usage(
            "--sticky cookie: no folder for the file with the keys of the cookie can be written ($XDG_STATE_HOME, \
             $HOME/.local/state, $XDG_RUNTIME_DIR); name a file with --cookie-keys FILE, made by: \
             openssl rand -hex 32 > FILE"
                .into(),
        )
    })?;
    make_folder_of(&file)
        .map_err(|error| CommandError::Usage(format!("--sticky cookie: {}: {error}", file.display())))?;
    keep_or_make_key(&file)?;
    Ok(file)
}

fn make_folder_of(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| DirBuilder::new().recursive(true).mode(0o700).create(folder))
}

/// A path that does not depend on the working directory.
fn from_root(path: &str) -> String {
    absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn key(name: &str, value: &str) -> String {
    format!("{name} = {}", quoted(value))
}

fn quoted(value: &str) -> Value {
    Value::from(value)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Command, tests::parse};
    use super::*;
    use crate::config::{self, Address, Balance, Bind, CheckedConfig, Config, CookieMode, KeyPart, PoolHttp, Tls};

    fn chosen(cookie_keys: Option<&str>) -> ChosenPlaces {
        ChosenPlaces { socket: Some("/run/user/7/sessile/admin.sock".into()), cookie_keys: cookie_keys.map(Into::into) }
    }

    fn text_of(arguments: &str, chosen: &ChosenPlaces) -> ArgumentText {
        let Command::Run(run) = parse(&format!("sessile run {arguments}")).unwrap() else { panic!("{arguments}") };
        run.one_line().text(chosen)
    }

    fn machine(name: &str) -> io::Result<Vec<SocketAddr>> {
        match name.split_once(':').unwrap() {
            ("*", port) => Ok(["0.0.0.0", "[::]"].map(|ip| format!("{ip}:{port}").parse().unwrap()).to_vec()),
            (host, _) => Err(io::Error::other(format!("{host} is not known"))),
        }
    }

    fn config_of(text: &ArgumentText) -> Config {
        let CheckedConfig { config, warnings } = config::check(text.text(), &machine).unwrap();
        assert_eq!(warnings, []);
        config
    }

    fn problems_of(arguments: &str, chosen: &ChosenPlaces) -> Vec<String> {
        let text = text_of(arguments, chosen);
        let problems = config::check(text.text(), &machine).unwrap_err();
        problems.iter().map(|problem| text.at_argument(problem)).collect()
    }

    #[test]
    fn the_text_has_every_address_and_the_admin_socket() {
        let text =
            text_of("--listen 8080 --listen [::1]:81 --backend 10.0.0.1:80 --backend unix:/run/b", &chosen(None));
        let config = config_of(&text);
        assert_eq!(config.process.admin.socket, chosen(None).socket);
        let [listener] = &config.listeners[..] else { panic!("{}", text.text()) };
        let binds = ["0.0.0.0:8080", "[::]:8080", "[::1]:81"].map(|address| Bind::Tcp(address.parse().unwrap()));
        assert_eq!((&listener.bind[..], listener.tls), (&binds[..], Tls::Off));
        let [pool] = &config.pools[..] else { panic!("{}", text.text()) };
        assert_eq!(listener.pool.as_deref(), Some(&*pool.name));
        let backends: Vec<_> = pool.backends.iter().map(|one| (&*one.name, one.address.clone())).collect();
        let tcp = Address::Tcp("10.0.0.1:80".parse().unwrap());
        assert_eq!(backends, [("10.0.0.1-80", tcp), ("unix-run-b", Address::Unix("/run/b".into()))]);
    }

    #[test]
    fn a_client_stays_by_its_address_and_the_text_says_when_that_is_the_default() {
        let bare = text_of("--listen :80 --backend 10.0.0.1:80", &chosen(None));
        let source = text_of("--listen :80 --backend 10.0.0.1:80 --sticky source", &chosen(None));
        for text in [&bare, &source] {
            let pool = &config_of(text).pools[0];
            assert_eq!((&pool.key[..], pool.http, &pool.cookie), (&[KeyPart::Source][..], PoolHttp::Off, &None));
            assert!(pool.stick_table.is_some());
        }
        assert_eq!(config_of(&bare), config_of(&source));
        assert!(bare.text().contains("default") && !source.text().contains("default"), "{}", bare.text());
        assert!(
            config_of(&text_of("--listen :80 --backend 10.0.0.1:80 --http", &chosen(None))).pools[0].http.is_read()
        );
    }

    #[test]
    fn a_cookie_implies_http_and_new_clients_take_turns() {
        let keys = chosen(Some("/var/lib/sessile/cookie.keys"));
        let config = config_of(&text_of("--listen :80 --backend 10.0.0.1:80 --sticky cookie", &keys));
        let pool = &config.pools[0];
        assert_eq!((pool.http, pool.balance), (PoolHttp::Http1, Balance::RoundRobin));
        let cookie = pool.cookie.as_ref().unwrap();
        assert_eq!(cookie.name, "SESSILE-app");
        let CookieMode::Insert(rules) = &cookie.mode else { panic!("{cookie:?}") };
        assert_eq!(Some(&rules.keys), keys.cookie_keys.as_ref());
        let says_whose = |line: &str| text_of(line, &keys).text().contains("can read the file");
        assert!(says_whose("--listen :80 --backend 10.0.0.1:80 --sticky cookie"));
        assert!(!says_whose("--listen :80 --backend 10.0.0.1:80 --sticky cookie --cookie-keys /k"));
    }

    #[test]
    fn files_are_named_from_the_root_whatever_signs_their_names_have() {
        let line = "--listen :443 --backend 10.0.0.1:80 --tls-cert cert\"\\'.pem --socket a.sock";
        let config = config_of(&text_of(line, &chosen(None)));
        let here = std::env::current_dir().unwrap();
        let [certificate] = &config.listeners[0].certificates[..] else { panic!("{config:?}") };
        assert_eq!(config.listeners[0].tls, Tls::Terminate);
        assert_eq!(certificate.cert, here.join("cert\"\\'.pem"));
        assert_eq!(certificate.key, certificate.cert, "one file has both");
        assert_eq!(config.process.admin.socket, Some(here.join("a.sock")));
        let config = config_of(&text_of(&line.replace("--socket a.sock", "--socket off --tls-key /k"), &chosen(None)));
        assert_eq!(config.listeners[0].certificates[0].key, Path::new("/k"));
        assert_eq!(config.process.admin.socket, None);
    }

    #[test]
    fn a_machine_without_a_place_for_the_admin_socket_is_told_so_in_one_line() {
        let nowhere = ChosenPlaces { socket: None, cookie_keys: None };
        let text = text_of("--listen :80 --backend 10.0.0.1:80", &nowhere);
        assert_eq!(config_of(&text).process.admin.socket, None);
        let comments: Vec<_> = text.text().lines().filter(|line| line.contains("--socket PATH")).collect();
        assert!(matches!(comments[..], [line] if line.starts_with("# ")), "{comments:?}");
    }

    #[test]
    fn every_problem_names_its_argument() {
        let line = "--listen nowhere --listen :80 --backend 10.0.0.300:80 --backend 10.0.0.1:80 --backend app \
                    --backend 10.0.0.1:80 --sticky cookie";
        let problems = problems_of(line, &chosen(Some("")));
        for (argument, what) in [
            ("--listen 1: bind \"nowhere\" is not an address to listen on (hint: ", "\":443\" for both"),
            ("--backend 1: address \"10.0.0.300:80\" is not an address", "hint"),
            ("--backend 3: address \"app\" has no port", "hint"),
            ("--backend 4: name \"10.0.0.1-80\" is taken", ""),
            ("--sticky cookie: keys \"\" is not the path of a file", ""),
        ] {
            let is_it = |problem: &&String| problem.starts_with(argument) && problem.contains(what);
            assert_eq!(problems.iter().filter(is_it).count(), 1, "{argument}\n{problems:#?}");
        }
        assert_eq!(problems.len(), 5, "{problems:#?}");
        let unix = problems_of("--listen unix:/run/front --backend 10.0.0.1:80", &chosen(None));
        assert!(unix[0].starts_with("--listen 1: bind \"unix:/run/front\""), "{unix:?}");
    }
}
