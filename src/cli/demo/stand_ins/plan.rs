//! [`StandInPlan`]: the backends that configurations name, each with its address, its names and its cookies.
//!
//! Opens nothing. Invariant: an address occurs once, and it belongs to this machine alone: loopback or a path.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use crate::config::{Address, Backend, Carrier, Config, Cookie, CookieMode, KeyPart, Pool};

/// The backends to start, and the complaints about all others.
#[derive(Debug, Default)]
pub(super) struct StandInPlan {
    pub(super) stand_ins: Vec<StandIn>,
    pub(super) refused: Vec<String>,
    places: HashMap<Address, usize>,
}

/// One backend to start in the place of a real one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StandIn {
    pub(super) address: Address,
    /// Name in answers, of the pool that names the address first.
    pub(super) name: String,
    /// Pools and names by which configurations know it: `web/a`.
    pub(super) known_as: Vec<String>,
    /// Cookies that it sets.
    pub(super) cookies: Vec<AppCookie>,
}

/// A cookie that an application sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppCookie {
    pub(super) name: String,
    /// True: the value ends with the name of the backend, as with Tomcat's `jvmRoute`.
    pub(super) is_routed: bool,
}

impl StandInPlan {
    /// The backends of these configurations.
    pub(super) fn of<'c>(configs: impl IntoIterator<Item = &'c Config>) -> Self {
        let mut plan = Self::default();
        for pool in configs.into_iter().flat_map(|config| &config.pools) {
            for backend in &pool.backends {
                addresses(pool, backend).for_each(|address| plan.add(address, pool, backend));
            }
        }
        plan
    }

    fn add(&mut self, address: Address, pool: &Pool, backend: &Backend) {
        let refused = match &address {
            Address::Tcp(tcp) if !tcp.ip().is_loopback() => Some("is not a loopback address"),
            Address::Name(_) => Some("is a name, and the demo asks no name server"),
            Address::Tcp(_) | Address::Unix(_) => None,
        };
        if let Some(why) = refused {
            let (pool, name) = (&pool.name, &backend.name);
            self.refused.push(format!("pool \"{pool}\": backend \"{name}\": {address} {why}"));
            return;
        }
        let index = *self.places.entry(address.clone()).or_insert(self.stand_ins.len());
        if index == self.stand_ins.len() {
            let name = backend.name.clone();
            self.stand_ins.push(StandIn { address, name, known_as: Vec::new(), cookies: Vec::new() });
        }
        let stand_in = &mut self.stand_ins[index];
        add_new(&mut stand_in.known_as, format!("{}/{}", pool.name, backend.name));
        cookies(pool).for_each(|cookie| add_new(&mut stand_in.cookies, cookie));
    }
}

/// Resolves what names this machine: `localhost`, and `*` of a listener. No name server learns of other names.
pub(super) fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    let ip = match name.split_once(':') {
        Some(("localhost", _)) => Some(Ipv4Addr::LOCALHOST),
        Some(("*", _)) => Some(Ipv4Addr::UNSPECIFIED),
        _ => None,
    };
    let port = name.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let address = ip.zip(port).map(|address| vec![SocketAddr::from(address)]);
    address.ok_or_else(|| io::Error::other("the demo starts backends on this machine alone, and asks no name server"))
}

/// The address of a backend, and that of its checks if they have a port of their own.
fn addresses(pool: &Pool, backend: &Backend) -> impl Iterator<Item = Address> {
    let port = pool.check.as_ref().and_then(|check| check.port);
    let checked = match (&backend.address, port) {
        (Address::Tcp(address), Some(port)) => Some(Address::Tcp(SocketAddr::new(address.ip(), port))),
        _ => None,
    };
    std::iter::once(backend.address.clone()).chain(checked)
}

/// Cookies of the application: all that the pool needs, but for the balancer's own.
fn cookies(pool: &Pool) -> impl Iterator<Item = AppCookie> {
    let is_set_by_application =
        |cookie: &&Cookie| !matches!(cookie.mode, CookieMode::Insert(_)) && cookie.carrier() == Carrier::Cookie;
    let own = pool.cookie.as_ref().filter(is_set_by_application);
    let own = own
        .map(|cookie| AppCookie { name: cookie.name.clone(), is_routed: matches!(cookie.mode, CookieMode::Route(_)) });
    let keys = pool.key.iter().flat_map(KeyPart::alternatives).filter_map(|part| match part {
        KeyPart::Cookie(name) => Some(AppCookie { name: name.to_string(), is_routed: false }),
        _ => None,
    });
    own.into_iter().chain(keys)
}

fn add_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};
    use std::path::Path;

    use super::super::examples::EXAMPLES;
    use super::*;
    use crate::config::{self, Bind};

    fn parsed(text: &str) -> Config {
        config::check(text, &resolve).unwrap_or_else(|problems| panic!("{problems:?}\n{text}")).config
    }

    /// A configuration with these pools, each with its own listener.
    fn with_pools(pools: &[&str]) -> Config {
        let mut text = String::new();
        for (index, pool) in pools.iter().enumerate() {
            text += &format!("[[listener]]\nname = 'l{index}'\nbind = '127.0.0.1:0'\npool = 'p{index}'\n");
            text += &format!("[[pool]]\nname = 'p{index}'\n{pool}\n");
        }
        parsed(&text)
    }

    #[test]
    fn addresses_of_other_machines_are_refused_by_name() {
        let config = with_pools(&["backend = [{ name = 'a', address = '127.8.0.1:1' }, \
             { name = 'b', address = '10.0.0.1:1' }, { name = 'c', address = '[::1]:1' }, \
             { name = 'd', address = 'unix:/tmp/d.sock' }, { name = 'e', address = 'localhost:2' }, \
             { name = 'f', address = 'app.example:3' }]"]);
        let plan = StandInPlan::of([&config]);
        assert_eq!(
            plan.refused,
            [
                "pool \"p0\": backend \"b\": 10.0.0.1:1 is not a loopback address",
                "pool \"p0\": backend \"f\": app.example:3 is a name, and the demo asks no name server",
            ]
        );
        let names: Vec<_> = plan.stand_ins.iter().map(|one| (&*one.name, one.address.to_string())).collect();
        let expected = [("a", "127.8.0.1:1"), ("c", "[::1]:1"), ("d", "unix:/tmp/d.sock"), ("e", "127.0.0.1:2")];
        assert_eq!(names, expected.map(|(name, address)| (name, address.to_owned())));
        assert!(resolve("app.example:80").unwrap_err().to_string().contains("asks no name server"));
    }

    #[test]
    fn an_address_of_two_pools_has_one_backend_with_the_cookies_of_both() {
        let backend = "http = true\nbackend = { name = 'a', address = '127.0.0.1:1' }";
        let config = with_pools(&[
            &format!("{backend}\ncookie = {{ mode = 'route', name = 'J' }}"),
            &format!("{backend}\ncookie = {{ mode = 'learn', name = 'P' }}\ncheck = {{ kind = 'http', port = 2 }}"),
            &format!("{backend}\nkey = 'cookie:K'"),
        ]);
        let plan = StandInPlan::of([&config, &config]);
        let cookie = |name: &str, is_routed| AppCookie { name: name.to_owned(), is_routed };
        let [served, checked] = &plan.stand_ins[..] else { panic!("{plan:?}") };
        assert_eq!(served.known_as, ["p0/a", "p1/a", "p2/a"]);
        assert_eq!(served.cookies, [cookie("J", true), cookie("P", false), cookie("K", false)]);
        assert_eq!((checked.address.to_string(), &*checked.name), ("127.0.0.1:2".to_owned(), "a"));
    }

    #[test]
    fn one_process_has_the_backends_of_every_example() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<_> = files.filter(|name| name.ends_with(".toml") && name != "reference.toml").collect();
        assert_eq!(files, EXAMPLES.iter().map(|(name, _)| (*name).to_owned()).collect());

        let configs: Vec<_> = EXAMPLES.iter().map(|(_, text)| parsed(text)).collect();
        let plan = StandInPlan::of(&configs);
        assert!(plan.refused.is_empty(), "{:?}", plan.refused);
        let binds = configs.iter().flat_map(|config| &config.listeners).flat_map(|listener| &listener.bind);
        let binds = binds.filter_map(|bind| if let Bind::Tcp(address) = bind { Some(address.port()) } else { None });
        let binds: HashSet<_> = binds.collect();
        assert!(binds.iter().all(|port| *port >= 1024), "an ordinary user can bind them: {binds:?}");
        for ((name, _), config) in EXAMPLES.iter().zip(&configs).filter(|((name, _), _)| *name != "unix-systemd.toml") {
            let admin = config.process.admin.socket.as_deref();
            assert_eq!(admin, Some(Path::new("/tmp/sessile/admin.sock")), "{name}: an ordinary user can make it");
        }
        for stand_in in &plan.stand_ins {
            let names: HashSet<_> = stand_in.known_as.iter().map(|known| known.rsplit('/').next()).collect();
            assert_eq!(names.len(), 1, "{stand_in:?}");
            let taken = matches!(&stand_in.address, Address::Tcp(address) if binds.contains(&address.port()));
            assert!(!taken, "an example listens at the port of {stand_in:?}");
        }
    }
}
