//! Two balancers with one address, which keepalived moves by `config/keepalived.conf`: a crash, and a stop.
//!
//! Three namespaces on one bridge: clients and backends in the first, a balancer with its keepalived in each of the others.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::faults::namespace::{self, Namespace};
use crate::support::backend::{Backend, echo, pool};
use crate::support::load_support::Client;
use crate::support::program::Program;
use crate::support::{Sessile, eventually, has};

const TEST: &str = "clients_keep_their_backends_when_the_address_moves";

/// The address that moves, and that of the clients' side.
const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Host parts of the clients' addresses.
const CLIENTS: std::ops::Range<u8> = 101..141;

/// A namespace that lives as long as this process of it.
struct Holder(Child, Namespace);

impl Holder {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo; exec sleep 600"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("unshare runs");
        let mut said = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut said).expect("a word");
        let namespace = namespace::of(child.id());
        Self(child, namespace)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().expect("sh runs");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A balancer with an address of its own on the bridge, and its keepalived.
struct Balancer {
    sessile: Sessile,
    keepalived: Program,
    namespace: Namespace,
}

impl Balancer {
    fn start(number: u8, outside: &Holder, config: &str) -> Self {
        let (sessile, namespace) = namespace::start("", config);
        let pid = sessile.pid();
        outside.1.inside(|| {
            shell(&format!(
                "ip link add port{number} type veth peer name eth0 netns {pid}; ip link set port{number} master lan up"
            ));
        });
        let keepalived = namespace.inside(|| {
            shell(&format!("ip link set eth0 up; ip address add 192.0.2.{number}/24 dev eth0"));
            keepalived(&sessile, 100 - number)
        });
        Self { sessile, keepalived, namespace }
    }

    fn has_the_address(&self) -> bool {
        let output = self.namespace.inside(|| Command::new("ip").args(["-brief", "address", "show", "eth0"]).output());
        String::from_utf8_lossy(&output.expect("ip runs").stdout).contains(&format!(" {SHARED}/"))
    }
}

/// Starts it with the example, in the namespace that this thread is in.
fn keepalived(sessile: &Sessile, priority: u8) -> Program {
    let example = include_str!("../../config/keepalived.conf");
    let config = example
        .replace("/run/sessile/admin.sock", sessile.admin().to_str().unwrap())
        .replace("priority 100", &format!("priority {priority}"));
    assert_ne!(config, example);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("keepalived.conf"), config).unwrap();
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--log-detail"]);
    command.arg("--use-file").arg(at("keepalived.conf"));
    command.arg("--pid").arg(at("main.pid")).arg("--vrrp_pid").arg(at("vrrp.pid"));
    let vrrp = at("vrrp.pid");
    Program::start_until(dir, command, "its namespace", move |_| vrrp.exists()).stopped_by(Signal::TERM)
}

/// Where each client gets by a new connection to an address.
fn homes(outside: &Holder, address: Ipv4Addr) -> Vec<String> {
    let to = SocketAddr::from((address, 8080));
    let home = |host| {
        let mut client = Client::connect_from(Ipv4Addr::new(192, 0, 2, host).into(), to);
        client.ask("who").split(' ').next().unwrap_or_default().to_owned()
    };
    outside.1.inside(|| CLIENTS.map(home).collect())
}

fn moves_to(balancer: &Balancer, from: &Balancer) {
    eventually("the address to move", || (balancer.has_the_address() && !from.has_the_address()).then_some(()));
}

#[test]
fn clients_keep_their_backends_when_the_address_moves() {
    if !namespace::possible(TEST) || !["curl", "keepalived"].iter().all(|program| has(TEST, program)) {
        return;
    }
    let outside = Holder::start();
    let backends = outside.1.inside(|| {
        shell("ip link set lo up; ip link add lan type bridge; ip link set lan up");
        for host in std::iter::once(1).chain(CLIENTS) {
            shell(&format!("ip address add 192.0.2.{host}/24 dev lan"));
        }
        let named = |name: &'static str| Backend::on((OUTSIDE, 0).into(), move |stream| echo(name, &stream));
        ["b0", "b1", "b2"].map(named)
    });
    let addresses = backends.each_ref().map(|backend| backend.address);
    let config = "stop_grace = \"60s\"\n".to_owned()
        + &pool("app", "", &addresses)
        + "[[listener]]\nname = \"l\"\nbind = \"0.0.0.0:8080\"\npool = \"app\"\n";
    let [mut first, mut second] = [1, 2].map(|number| Balancer::start(10 + number, &outside, &config));
    eventually("one of them to have the address", || first.has_the_address().then_some(()));
    let before = homes(&outside, SHARED);
    assert!(["b0", "b1", "b2"].iter().all(|name| before.iter().any(|home| home == name)), "{before:?}");

    // A crash.
    first.sessile.signal(Signal::KILL);
    first.sessile.wait();
    moves_to(&second, &first);
    assert_eq!(homes(&outside, SHARED), before);
    // The other is back, and the address stays.
    first.namespace.inside(|| first.sessile.restart());
    let checked = || first.keepalived.said().contains("VRRP_Script(sessile) succeeded").then_some(());
    eventually("keepalived to see that it is back", checked);
    assert!(second.has_the_address() && !first.has_the_address());

    // A stop: the address has moved before the listeners are closed, so that no new client is refused.
    second.sessile.signal(Signal::TERM);
    moves_to(&first, &second);
    assert_eq!(homes(&outside, SHARED), before);
    assert_eq!(homes(&outside, Ipv4Addr::new(192, 0, 2, 12)), before, "it still serves");
    second.sessile.signal(Signal::TERM);
    second.sessile.wait();
    outside.1.inside(|| drop(backends));
}
