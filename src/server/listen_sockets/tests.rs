//! Addresses that are kept, opened, closed and given over, with the sockets that the workers would own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use rustix::net::sockopt;

use super::*;
use crate::admission::Admission;
use crate::socket::{self, listening_at};
use crate::{config, snapshot};

/// A configuration with one listener on these addresses, with more keys of it, and what stands at the top.
fn with(bind: &str, listener: &str, top: &str) -> Config {
    let text = format!(
        "{top}\n[[listener]]\nname = \"l\"\nbind = {bind}\npool = \"p\"\n{listener}\n\
         [[pool]]\nname = \"p\"\nbalance = \"random\"\n\
         backend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n"
    );
    config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_or_else(|e| panic!("{e:?}")).config
}

fn config(bind: &str) -> Config {
    with(bind, "", "")
}

/// Puts a configuration in force; what each worker adopts.
fn adopted(sockets: &mut ListenSockets, mut plan: BindPlan, config: Config) -> Vec<Adoption> {
    ListenSockets::listen(&mut plan, &config).unwrap();
    let admission = Arc::new(Admission::new(1));
    let snapshot = Snapshot::build(config, snapshot::LoadedFiles::default(), None, 1, &admission);
    sockets.commit(plan, &snapshot)
}

/// Puts a configuration in force; the sockets that the workers would own.
fn commit(sockets: &mut ListenSockets, plan: BindPlan, config: Config) -> Vec<Arc<OwnedFd>> {
    adopted(sockets, plan, config)
        .into_iter()
        .flat_map(|adoption| adoption.open)
        .map(|(_, socket, ..)| socket)
        .collect()
}

fn accepted(socket: &OwnedFd) -> usize {
    std::iter::from_fn(|| rustix::net::accept(socket).ok()).count()
}

#[test]
fn new_clients_pass_by_a_process_that_stops_and_are_spread_once_it_has_closed() {
    let (mut old, none) = (ListenSockets::new(1, PassedSockets::default(), vec![], vec![]), PassedSockets::default);
    let first = config("\"127.0.0.1:0\"");
    let plan = old.plan(&first).unwrap();
    let of_the_old = commit(&mut old, plan, first);
    let held = old.held();
    let address: SocketAddr = held[0].parse().unwrap();
    let second = config(&format!("\"{address}\""));
    let refused = ListenSockets::new(3, none(), vec![], vec![]).plan(&second).err().unwrap();
    assert!(refused[0].message.contains("listens there"), "{refused:?}");
    let mut new = ListenSockets::new(3, none(), vec![], vec![Bind::Tcp(address)]);
    let plan = new.plan(&second).unwrap();
    let of_the_new = commit(&mut new, plan, second);
    let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(accepted(&of_the_old[0]), 0);
    drop(of_the_old);
    assert!(old.held().is_empty());
    new.share_no_more();
    clients.extend((0..120).map(|_| TcpStream::connect(address).unwrap()));
    let accepted: Vec<_> = of_the_new.iter().map(|socket| accepted(socket)).collect();
    assert_eq!(accepted.iter().sum::<usize>(), 140);
    assert!(accepted.iter().all(|count| *count > 10), "not spread: {accepted:?}");
}

#[test]
fn the_path_of_a_process_that_stops_is_taken_once_the_new_socket_listens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("u.sock");
    let bind = format!("\"unix:{}\"", path.display());
    let mut old = ListenSockets::new(1, PassedSockets::default(), vec![], vec![]);
    let plan = old.plan(&config(&bind)).unwrap();
    let of_the_old = commit(&mut old, plan, config(&bind));
    assert_eq!(old.held(), [format!("unix:{}", path.display())]);
    let mut new = ListenSockets::new(1, PassedSockets::default(), vec![], vec![Bind::Unix(path.clone())]);
    drop(new.plan(&config(&bind)).unwrap());
    let to_the_old = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let plan = new.plan(&config(&bind)).unwrap();
    let of_the_new = commit(&mut new, plan, config(&bind));
    let to_the_new = std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!((accepted(&of_the_old[0]), accepted(&of_the_new[0])), (1, 1));
    assert!(old.held().is_empty(), "its path leads to another process");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    drop((to_the_old, to_the_new));
}

fn alone(workers: usize) -> ListenSockets {
    ListenSockets::new(workers, PassedSockets::default(), vec![], vec![])
}

fn put(sockets: &mut ListenSockets, config: Config) -> Vec<Arc<OwnedFd>> {
    let plan = sockets.plan(&config).unwrap();
    commit(sockets, plan, config)
}

/// What another process makes of the sockets of this one.
fn hand_over(old: &ListenSockets, workers: usize) -> ListenSockets {
    let copies = |sockets: Vec<Arc<OwnedFd>>| sockets.iter().map(|socket| socket.try_clone().unwrap()).collect();
    let inventory = old.inventory(usize::MAX).into_iter();
    let inherited = inventory.map(|(facts, sockets)| Inherited { facts, sockets: copies(sockets) }).collect();
    ListenSockets::new(workers, PassedSockets::default(), inherited, vec![])
}

/// The same process at a reload, or the next one at an upgrade.
fn next(old: ListenSockets, by_upgrade: bool) -> ListenSockets {
    if by_upgrade { hand_over(&old, old.workers) } else { old }
}

fn first_address(sockets: &ListenSockets) -> SocketAddr {
    sockets.held()[0].parse().unwrap()
}

fn each_accepted(sockets: &[Arc<OwnedFd>]) -> Vec<usize> {
    sockets.iter().map(|socket| accepted(socket)).collect()
}

fn clients(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[test]
fn sockets_that_stay_get_keepalive_and_backlog_of_a_configuration_once_it_is_in_force() {
    let limits = |on: &str| with("\"127.0.0.1:0\"", "backlog = 1", &format!("[limits]\n{on}"));
    let options = |socket: &Arc<OwnedFd>| {
        let idle = sockopt::tcp_keepidle(socket).unwrap().as_secs();
        (sockopt::socket_keepalive(socket).unwrap(), idle, sockopt::tcp_user_timeout(socket).unwrap())
    };
    for by_upgrade in [false, true] {
        let mut old = alone(2);
        let sockets = put(&mut old, limits("keepalive = \"40s\"\nuser_timeout = \"50s\""));
        let address = first_address(&old);
        let (mut new, mut of_new) = (next(old, by_upgrade), Vec::new());
        for (on, expected) in [
            ("keepalive = \"30s\"\nuser_timeout = \"20s\"", (true, 30, 20_000)),
            ("keepalive = \"off\"\nuser_timeout = \"off\"", (false, 30, 0)),
        ] {
            let before = options(&sockets[0]);
            let mut plan = new.plan(&limits(on)).unwrap();
            ListenSockets::listen(&mut plan, &limits(on)).unwrap();
            drop(plan);
            assert_eq!(options(&sockets[1]), before, "a refused configuration changes nothing");
            of_new.extend(put(&mut new, limits(on)));
            assert!(sockets.iter().all(|socket| options(socket) == expected), "{by_upgrade} {on}");
        }
        put(&mut new, with("\"127.0.0.1:0\"", "backlog = 64", ""));
        let patience = std::time::Duration::from_millis(500);
        // Two queues of length 1 take four clients.
        let _clients: Vec<_> =
            (0..20).map(|_| TcpStream::connect_timeout(&address, patience).expect("room in the queue")).collect();
        assert_eq!(each_accepted(&sockets).iter().sum::<usize>(), 20);
    }
}

#[test]
fn sockets_that_stay_and_new_ones_leave_silent_clients_to_the_kernel_as_a_configuration_says() {
    let deferring = |bind: &str, time: &str| with(bind, &format!("defer_accept = \"{time}\""), "");
    let seconds = |socket: &Arc<OwnedFd>| nix::sys::socket::getsockopt(&**socket, socket::DeferAccept).unwrap();
    for by_upgrade in [false, true] {
        let mut old = alone(2);
        let sockets = put(&mut old, config("\"127.0.0.1:0\""));
        assert!(sockets.iter().all(|socket| seconds(socket) == 0), "off by default");
        let (mut new, mut of_new) = (next(old, by_upgrade), Vec::new());
        for (time, expected) in [("7s", 7), ("60s", 63), ("off", 0)] {
            of_new.extend(put(&mut new, deferring("\"127.0.0.1:0\"", time)));
            assert!(sockets.iter().all(|socket| seconds(socket) == expected), "{by_upgrade} {time}");
        }
        let fresh = put(&mut alone(2), deferring("\"127.0.0.1:0\"", "3s"));
        assert!(fresh.iter().all(|socket| seconds(socket) == 3));
    }
}

#[test]
fn the_file_of_a_unix_socket_gets_the_mode_of_a_configuration_and_loses_it_if_that_is_refused() {
    for by_upgrade in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("u.sock");
        let access = |mode: &str| with(&format!("\"unix:{}\"", path.display()), &format!("mode = \"{mode}\""), "");
        let mode = || path.metadata().unwrap().permissions().mode() & 0o777;
        let mut old = alone(1);
        let _sockets = put(&mut old, access("0622"));
        let files = old.files();
        let mut new = next(old, by_upgrade);
        let plan = new.plan(&access("0666")).unwrap();
        assert_eq!(mode(), 0o666);
        drop(plan);
        assert_eq!(mode(), 0o622);
        let plan = new.plan(&access("0666")).unwrap();
        // As if the process were killed now.
        std::mem::forget(plan);
        files.iter().for_each(|(file, access)| file.restore(*access));
        assert_eq!(mode(), 0o622);
        put(&mut new, access("0666"));
        assert_eq!(mode(), 0o666);
    }
}

#[test]
fn a_unix_socket_that_no_client_reaches_does_not_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("u.sock");
    let unix = || config(&format!("\"unix:{}\"", path.display()));
    let mut old = alone(1);
    let of_old = put(&mut old, unix());
    std::fs::remove_file(&path).unwrap();
    let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let refused = hand_over(&old, 1).plan(&unix()).err().unwrap();
    assert!(refused[0].message.contains("another program listens there"), "{refused:?}");
    assert_eq!((refused[0].line, refused[0].column), (4, 8), "{refused:?}");
    drop(theirs);
    let mut new = hand_over(&old, 1);
    let of_new = put(&mut new, unix());
    assert_eq!(new.kept_on(), [0_u32; 0], "the old socket is to be closed");
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!((each_accepted(&of_old), each_accepted(&of_new)), (vec![0], vec![1]));
}

#[test]
fn an_address_that_a_wider_one_covers_goes_over_and_comes_back() {
    for (narrow, wide) in [("127.0.0.1", "0.0.0.0"), ("[::1]", "[::]")] {
        // A port that is free at every address.
        let port = TcpListener::bind(format!("{wide}:0")).unwrap().local_addr().unwrap().port();
        let (wider, narrower) = (format!("{wide}:{port}"), format!("\"{narrow}:{port}\""));
        let mut old = alone(2);
        let of_old = put(&mut old, config(&narrower));
        let address = first_address(&old);
        let mut new = hand_over(&old, 2);
        let wide_config = || config(&format!("\"{wider}\""));
        let mut plan = new.plan(&wide_config()).unwrap();
        ListenSockets::listen(&mut plan, &wide_config()).unwrap();
        assert_eq!(new.kept_on(), [0]);
        if address.is_ipv4() {
            let elsewhere = TcpStream::connect(("127.0.0.2", address.port()));
            assert!(elsewhere.is_err(), "the new process serves nothing yet");
        }
        let of_new = commit(&mut new, plan, wide_config());
        drop((of_old, old));
        let _clients = clients(address, 20);
        assert_eq!(each_accepted(&of_new).iter().sum::<usize>(), 20);
        assert_eq!(new.addresses("l"), [wider.as_str()], "what it covers is not named");
        let mut third = hand_over(&new, 2);
        let of_third = put(&mut third, config(&narrower));
        assert_eq!(third.addresses("l"), [address.to_string()]);
        drop((of_new, new));
        let _clients = clients(address, 20);
        assert_eq!(each_accepted(&of_third).iter().sum::<usize>(), 20);
        let closed = TcpStream::connect(("127.0.0.2", address.port()));
        assert!(closed.is_err() || !address.is_ipv4(), "the wider one is closed");
    }
}

#[test]
fn a_narrower_address_gets_no_client_before_its_process_serves() {
    let mut old = alone(1);
    let of_old = put(&mut old, config("\"0.0.0.0:0\""));
    let address = SocketAddr::from(([127, 0, 0, 1], first_address(&old).port()));
    let mut new = hand_over(&old, 1);
    let narrow = || config(&format!("\"{address}\""));
    let mut plan = new.plan(&narrow()).unwrap();
    ListenSockets::listen(&mut plan, &narrow()).unwrap();
    let _before = clients(address, 1);
    assert_eq!(each_accepted(&of_old), [1]);
    let of_new = commit(&mut new, plan, narrow());
    assert_eq!(new.kept_on(), [0_u32; 0]);
    let _after = clients(address, 1);
    assert_eq!((each_accepted(&of_old), each_accepted(&of_new)), (vec![0], vec![1]));
}

#[test]
fn sockets_that_the_process_before_has_steered_get_clients_by_hash() {
    let mut old = alone(2);
    let of_old = put(&mut old, config("\"127.0.0.1:0\""));
    let address = first_address(&old);
    socket::steer(&of_old[0], 1).unwrap();
    let mut new = hand_over(&old, 2);
    let of_new = put(&mut new, config("\"127.0.0.1:0\""));
    drop((of_old, old));
    let mut all = clients(address, 10);
    assert_eq!(each_accepted(&of_new), [0, 10], "another process may still share the address");
    new.share_no_more();
    all.extend(clients(address, 120));
    let spread = each_accepted(&of_new);
    assert!(spread.iter().all(|count| *count > 10), "not spread: {spread:?}");
}

#[test]
fn each_worker_has_a_socket_after_an_upgrade_to_more_or_fewer() {
    let any = || config("\"127.0.0.1:0\"");
    let mut old = alone(1);
    let of_old = put(&mut old, any());
    let address = first_address(&old);
    let mut three = hand_over(&old, 3);
    let mut plan = three.plan(&any()).unwrap();
    ListenSockets::listen(&mut plan, &any()).unwrap();
    let mut all = clients(address, 20);
    assert_eq!(each_accepted(&of_old), [20], "the new process serves nothing yet");
    let of_three = commit(&mut three, plan, any());
    drop((of_old, old));
    all.extend(clients(address, 120));
    let spread = each_accepted(&of_three);
    assert!(spread.len() == 3 && spread.iter().all(|count| *count > 10), "not spread: {spread:?}");

    let mut two = hand_over(&three, 2);
    let of_two = put(&mut two, any());
    assert_eq!(two.addresses("l"), [address.to_string()]);
    drop((of_three, three));
    all.extend(clients(address, 120));
    assert_eq!((of_two.len(), each_accepted(&of_two).iter().sum::<usize>()), (3, 120));

    let mut again = hand_over(&two, 3);
    let plan = again.plan(&any()).unwrap();
    assert_eq!(again.kept_on().len(), 2, "both groups of the process with two workers");
    let of_each: Vec<_> = adopted(&mut again, plan, any()).into_iter().map(|adoption| adoption.open.len()).collect();
    assert_eq!(of_each, [1, 1, 1]);
}

#[test]
fn an_address_with_more_sockets_than_fit_into_a_message_travels_in_parts() {
    let mut old = alone(5);
    let _sockets = put(&mut old, config("\"127.0.0.1:0\""));
    let parts: Vec<_> = old.inventory(2).into_iter().map(|(facts, own)| (facts.number, facts.sockets, own)).collect();
    let counts: Vec<_> = parts.iter().map(|(number, count, own)| (*number, *count, own.len())).collect();
    let number = counts[0].0;
    assert_eq!(counts, [(number, 2, 2), (number, 2, 2), (number, 1, 1)]);
    let whole: Vec<_> = old.inventory(5).into_iter().flat_map(|(_, own)| own).collect();
    let together = parts.into_iter().flat_map(|(.., own)| own);
    assert!(together.zip(&whole).all(|(part, whole)| Arc::ptr_eq(&part, whole)), "in the order of workers");
}

#[test]
fn two_listeners_swap_their_addresses() {
    let port = TcpListener::bind("127.77.1.1:0").unwrap().local_addr().unwrap().port();
    let [one, two] = ["127.77.1.1", "127.77.1.2"].map(|ip| format!("{ip}:{port}"));
    let both = |first: &str, second: &str| {
        let text = format!(
            "[[listener]]\nname = \"a\"\nbind = \"{first}\"\npool = \"p\"\n\
             [[listener]]\nname = \"b\"\nbind = \"{second}\"\npool = \"p\"\n\
             [[pool]]\nname = \"p\"\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n"
        );
        config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap().config
    };
    for by_upgrade in [false, true] {
        let mut old = alone(1);
        let _sockets = put(&mut old, both(&one, &two));
        let mut new = next(old, by_upgrade);
        let _inherited = put(&mut new, both(&two, &one));
        assert_eq!((new.addresses("a"), new.addresses("b")), (vec![two.clone()], vec![one.clone()]));
        assert_eq!(listening_at(one.parse().unwrap()), 1, "no socket was added");
    }
}

/// Sockets as systemd passes them, with their addresses.
fn passed<const N: usize>(names: [&str; N]) -> (PassedSockets, [SocketAddr; N]) {
    let mut passed = PassedSockets::default();
    let addresses = names.map(|name| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        passed.add(name, socket.into());
        address
    });
    (passed, addresses)
}

#[test]
fn sockets_of_systemd_go_over_by_name_whether_a_listener_has_them_or_not() {
    let (sockets, [web, admin]) = passed(["web", "admin"]);
    let mut old = ListenSockets::new(2, sockets, vec![], vec![]);
    let of_old = put(&mut old, config("\"systemd:web\""));
    let mut new = hand_over(&old, 2);
    drop((of_old, old));
    let warned = new.unnamed(&config("\"systemd:admin\""));
    assert!(warned.len() == 1 && warned[0].contains("\"web\""), "{warned:?}");
    let _admin = put(&mut new, config("\"systemd:admin\""));
    assert_eq!(new.addresses("l"), [admin.to_string()]);
    assert!(new.kept_on().contains(&0), "no client of the other one is lost");
    let _waits = clients(web, 1);
    let mut third = hand_over(&new, 2);
    assert_eq!(third.inventory(usize::MAX).len(), 2, "each travels once");
    let of_third = put(&mut third, config("[\"systemd:web\", \"systemd:admin\"]"));
    assert_eq!(third.addresses("l"), [web.to_string(), admin.to_string()]);
    assert_eq!(each_accepted(&of_third).iter().sum::<usize>(), 1, "a client that has waited");
    put(&mut third, config("\"127.0.0.1:0\""));
    put(&mut third, config("\"systemd:web\""));
    assert_eq!(third.addresses("l"), [web.to_string()], "removed and added again");
}

#[test]
fn a_socket_of_systemd_is_the_same_by_its_name_and_by_its_address() {
    for by_upgrade in [false, true] {
        let (sockets, [web]) = passed(["web"]);
        let (by_name, by_address) = (|| config("\"systemd:web\""), || config(&format!("\"{web}\"")));
        let mut old = ListenSockets::new(2, sockets, vec![], vec![]);
        let of_old = put(&mut old, by_address());
        assert_eq!(old.unnamed(&by_address()), [""; 0]);
        let mut second = next(old, by_upgrade);
        let of_second = put(&mut second, by_name());
        assert_eq!(second.addresses("l"), [web.to_string()]);
        let mut third = next(second, by_upgrade);
        let of_third = put(&mut third, by_address());
        assert_eq!(third.addresses("l"), [web.to_string()]);
        assert_eq!(listening_at(web), 1, "one socket all the time");
        let _client = clients(web, 1);
        let all: Vec<_> = [of_old, of_second, of_third].concat();
        assert_eq!(each_accepted(&all).iter().sum::<usize>(), 1);
    }
}

#[test]
fn a_socket_of_systemd_is_not_served_by_its_name_and_by_its_address_at_once() {
    let (sockets, [web]) = passed(["web"]);
    let mut sockets = ListenSockets::new(2, sockets, vec![], vec![]);
    let mut is_refused = |binds: &str| {
        let problems = sockets.plan(&config(binds)).err().unwrap();
        assert!(problems.len() == 1 && problems[0].message.contains("listens there already"), "{problems:?}");
        put(&mut sockets, config("\"systemd:web\""))
    };
    let _sockets = is_refused(&format!("[\"systemd:web\", \"{web}\"]"));
    is_refused(&format!("[\"{web}\", \"systemd:web\"]"));
    is_refused(&format!("[\"systemd:web\", \"{web}\"]"));
}
