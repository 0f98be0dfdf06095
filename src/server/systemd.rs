//! [`PassedSockets`]: the listening sockets that systemd has passed (sd_listen_fds(3)), to this process or to one before,
//! and what a process before this one has left in its store.
//!
//! Listens on none. Invariant: every descriptor that was passed is served by a listener or named in a warning, but for
//! what comes from the store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType};

use crate::config::{Bind, Config};
use crate::socket;

/// Name under which a process leaves its connections in the store of the service manager, for the next one.
pub const STORED: &str = "sessile-upgrade";

/// The sockets by `FileDescriptorName`.
#[derive(Debug, Default)]
pub struct PassedSockets {
    by_name: BTreeMap<String, Vec<Arc<OwnedFd>>>,
    /// Names of descriptors that are no listening stream sockets.
    unusable: Vec<String>,
    /// What processes before this one have left in the store; `None`: the store has nothing under their name.
    stored: Option<Vec<OwnedFd>>,
}

impl PassedSockets {
    /// Takes the sockets that the environment names; none if they are for another process.
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = listenfd::ListenFd::from_env();
        let mut sockets = Self::default();
        for index in 0..passed.len() {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
            if name == STORED {
                let (family, kind) = (AddressFamily::UNIX.as_raw().into(), SocketType::SEQPACKET.as_raw() as i32);
                sockets
                    .stored
                    .get_or_insert_default()
                    .extend(passed.take_custom(index, family, kind, "a SEQPACKET socket").ok().flatten());
                continue;
            }
            let tcp = passed.take_tcp_listener(index).ok().flatten().map(OwnedFd::from);
            match tcp.or_else(|| passed.take_unix_listener(index).ok().flatten().map(OwnedFd::from)) {
                Some(socket) => {
                    let _ = rustix::io::ioctl_fionbio(&socket, true);
                    sockets.by_name.entry(name).or_default().push(Arc::new(socket));
                }
                None => sockets.unusable.push(name),
            }
        }
        sockets
    }

    /// Adds a socket that systemd has passed to the process before, unless it is here by another descriptor.
    pub fn add(&mut self, name: &str, passed: OwnedFd) {
        let of_name = self.by_name.entry(name.to_owned()).or_default();
        if !of_name.iter().any(|known| is_same(known, &passed)) {
            of_name.push(Arc::new(passed));
        }
    }

    /// The TCP socket of an address, with its name.
    pub fn at(&self, address: SocketAddr) -> Option<(&str, &Arc<OwnedFd>)> {
        self.all().find(|(_, socket)| socket::local_address(socket) == Some(address))
    }

    /// The sockets that are none of these, with their names.
    pub fn others(&self, served: &[Arc<OwnedFd>]) -> impl Iterator<Item = (&str, &Arc<OwnedFd>)> {
        self.all().filter(move |(_, socket)| !served.iter().any(|other| is_same(socket, other)))
    }

    fn all(&self) -> impl Iterator<Item = (&str, &Arc<OwnedFd>)> {
        self.by_name.iter().flat_map(|(name, sockets)| sockets.iter().map(move |socket| (name.as_str(), socket)))
    }

    /// Takes what processes before this one have left in the store of the service manager, if it can be read; `None`: the
    /// store has nothing under their name.
    pub fn take_stored(&mut self) -> Option<Vec<OwnedFd>> {
        self.stored.take()
    }

    /// The sockets of a name, or why there are none, with the names that came.
    pub fn named(&self, name: &str) -> Result<&[Arc<OwnedFd>], String> {
        if let Some(sockets) = self.by_name.get(name) {
            return Ok(sockets);
        }
        if self.unusable.iter().any(|unusable| unusable == name) {
            return Err("the descriptor that systemd has passed is not a listening stream socket".to_owned());
        }
        let came = self.by_name.keys().chain(&self.unusable).map(|name| quoted(name)).collect::<Vec<_>>();
        let came = if came.is_empty() { "none to this process".to_owned() } else { came.join(", ") };
        Err(format!("systemd has passed no descriptor of this name; it has passed {came}"))
    }

    /// A warning for each name that no listener has: its clients connect and are never accepted.
    pub fn unnamed(&self, config: &Config) -> Vec<String> {
        let is_named = |name: &str, sockets: &[Arc<OwnedFd>]| {
            let mut binds = config.listeners.iter().flat_map(|listener| &listener.bind);
            binds.any(|bind| match bind {
                Bind::Systemd(wanted) => wanted == name,
                Bind::Tcp(address) => sockets.iter().any(|socket| socket::local_address(socket) == Some(*address)),
                Bind::Unix(_) => false,
            })
        };
        let waiting = self.by_name.iter().filter(|(name, sockets)| !is_named(name, sockets)).map(|(name, _)| {
            let name = quoted(name);
            format!(
                "systemd has passed the socket {name}, and no listener has bind = \"systemd:…\" with this name: its \
                 clients wait and are not served"
            )
        });
        let unusable = self.unusable.iter().map(|name| {
            format!("systemd has passed {}, which is not a listening stream socket: it is not used", quoted(name))
        });
        waiting.chain(unusable).collect()
    }
}

/// True if two descriptors lead to one socket.
fn is_same(one: &impl AsFd, two: &impl AsFd) -> bool {
    let inode = |socket: &dyn AsFd| rustix::fs::fstat(socket.as_fd()).map(|there| there.st_ino).ok();
    inode(one).is_some_and(|own| inode(two) == Some(own))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.escape_debug())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config;

    fn passed(names: &[&str], unusable: &[&str]) -> PassedSockets {
        let socket = || Arc::new(OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap()));
        let by_name = names.iter().map(|name| ((*name).to_owned(), vec![socket()])).collect();
        let unusable = unusable.iter().map(|name| (*name).to_owned()).collect();
        PassedSockets { by_name, unusable, stored: None }
    }

    fn listening_on(name: &str) -> Config {
        let text = format!(
            "[[listener]]\nname = 'l'\nbind = 'systemd:{name}'\npool = 'p'\n\
             [[pool]]\nname = 'p'\nbackend = {{ name = 'a', address = '127.0.0.1:1' }}\n"
        );
        config::check(&text, &|_| Err(std::io::Error::other("no names"))).unwrap().config
    }

    #[test]
    fn a_name_that_did_not_come_is_refused_with_those_that_did() {
        let sockets = passed(&["web", "admin"], &["log"]);
        assert_eq!(sockets.named("web").unwrap().len(), 1);
        let refused = sockets.named("https").unwrap_err();
        assert!(refused.ends_with("of this name; it has passed \"admin\", \"web\", \"log\""), "{refused}");
        assert!(sockets.named("log").unwrap_err().ends_with("is not a listening stream socket"));
        let none = passed(&[], &[]).named("https").unwrap_err();
        assert!(none.ends_with("it has passed none to this process"), "{none}");
    }

    #[test]
    fn a_socket_is_known_by_itself_whatever_its_descriptor() {
        let mut sockets = passed(&["web"], &[]);
        let copy = || sockets.by_name["web"][0].try_clone().unwrap();
        let (again, address) = (copy(), socket::local_address(&copy()).unwrap());
        assert_eq!(sockets.others(&[Arc::new(copy())]).count(), 0);
        sockets.add("web", again);
        assert_eq!(sockets.named("web").unwrap().len(), 1, "it is there already");
        sockets.add("web", TcpListener::bind("127.0.0.1:0").unwrap().into());
        assert_eq!(sockets.named("web").unwrap().len(), 2);
        assert_eq!(sockets.at(address).map(|(name, _)| name), Some("web"));
        let mut by_address = listening_on("other");
        by_address.listeners[0].bind = vec![Bind::Tcp(address)];
        assert!(sockets.unnamed(&by_address).is_empty(), "a listener has its address");
    }

    #[test]
    fn what_no_listener_names_is_warned_of() {
        let warnings = passed(&["web", "other"], &["log"]).unnamed(&listening_on("web"));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("systemd has passed the socket \"other\", and no listener"), "{warnings:?}");
        assert!(warnings[1].starts_with("systemd has passed \"log\", which is not"), "{warnings:?}");
        assert!(passed(&["web"], &[]).unnamed(&listening_on("web")).is_empty());
    }
}
