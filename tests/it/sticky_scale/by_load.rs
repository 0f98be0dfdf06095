//! New clients placed by load while a few clients send most of the requests: they spread evenly, and no known one
//! moves when a backend is added, comes back, when the file is reloaded or the process restarts.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::spawn_local;

use crate::support::backend::pool;
use crate::support::load_support::alone;
use crate::support::program::free_local_address;
use crate::support::rng::Rng;
use crate::support::{Sessile, eventually, size};
use crate::terminate::load::{self, Line, run, within};

/// Users, each known by a header; with `SESSILE_TEST_USERS` as many as that says.
const USERS: usize = 4_000;
const USERS_VARIABLE: &str = "SESSILE_TEST_USERS";
/// Users of a small site.
const FEW_USERS: usize = 640;
/// Connections, each with one request at a time.
const CONNECTIONS: usize = 48;
/// Most new users at one backend, by their mean.
const UNEVEN_MOST: f64 = 1.1;
/// Exponent of the popularity of users.
const ZIPF: f64 = 1.1;
const CHECK: &str =
    "kind = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"2s\"\nrise = 1\nfall = 2\nflap_damping = \"off\"\n";

/// Users by popularity: the n-th sends its requests with a weight of n to the power of -1.1.
struct Popularity(Vec<f64>);

impl Popularity {
    fn of(users: usize) -> Self {
        let mut sum = 0.0;
        let weights = (1..=users).map(|rank| {
            sum += (rank as f64).powf(-ZIPF);
            sum
        });
        Self(weights.collect())
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.0.last().expect("users");
        let at = (rng.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1)
    }
}

/// Backends at addresses that stay; each answers with its number after a moment, and may be ended and started again.
struct Served {
    backends: Vec<Option<tokio::sync::oneshot::Sender<()>>>,
    addresses: Vec<SocketAddr>,
}

impl Served {
    fn start(count: usize) -> Self {
        let addresses: Vec<_> = (0..count).map(|_| free_local_address()).collect();
        let mut served = Self { backends: addresses.iter().map(|_| None).collect(), addresses };
        (0..count).for_each(|number| served.revive(number));
        served
    }

    fn revive(&mut self, number: usize) {
        let address = self.addresses[number];
        let listener = eventually("an address to be free", || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
            socket.set_reuse_address(true).ok()?;
            socket.bind(&address.into()).ok()?;
            socket.listen(4_096).ok()?;
            Some(std::net::TcpListener::from(socket))
        });
        listener.set_nonblocking(true).expect("a socket");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            run(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
                let serving = async {
                    loop {
                        let Ok((stream, _)) = listener.accept().await else { continue };
                        spawn_local(serve(number, Line::new(stream)));
                    }
                };
                tokio::select! { () = serving => {}, _ = stopped => {} }
            });
        });
        self.backends[number] = Some(stop);
    }

    fn kill(&mut self, number: usize) {
        self.backends[number] = None;
    }
}

async fn serve(number: usize, mut line: Line<tokio::net::TcpStream>) {
    let _ = line.stream.set_nodelay(true);
    loop {
        let Ok(()) = line.stream.readable().await else { return };
        let Ok(_) = line.head().await else { return };
        tokio::time::sleep(Duration::from_millis(1)).await;
        if line.send(format!("HTTP/1.1 200 OK\r\nX-Backend: {number}\r\nContent-Length: 0\r\n\r\n")).await.is_err() {
            return;
        }
    }
}

/// A balancer, and where each user was served last.
struct Site {
    sessile: Sessile,
    front: SocketAddr,
    served: Served,
    options: String,
    popularity: Popularity,
    connections: usize,
    homes: HashMap<usize, usize>,
    round: u64,
}

/// What a round of requests has shown.
struct Round {
    /// New users at each backend.
    new: BTreeMap<usize, usize>,
    /// Users that were served by another backend than before: the one before and the one after.
    moved: Vec<(usize, usize)>,
}

impl Site {
    fn start(balance: &str, users: usize) -> Self {
        let (served, front) = (Served::start(5), free_local_address());
        let options = format!("http = true\nbalance = \"{balance}\"\nkey = \"header:X-User\"\n");
        let popularity = Popularity::of(users);
        let text = text(front, &options, &served.addresses[..4]);
        let site = Self {
            sessile: Sessile::start(&text),
            front,
            served,
            options,
            popularity,
            connections: CONNECTIONS,
            homes: HashMap::new(),
            round: 0,
        };
        site.wait_for(4, &[]);
        site
    }

    /// Waits until so many backends are there, and these are down.
    fn wait_for(&self, count: usize, down: &[usize]) {
        eventually("checks to have seen all backends", || {
            let status = self.sessile.status();
            let backends = status["pools"][0]["backends"].as_array()?;
            let seen = backends
                .iter()
                .enumerate()
                .all(|(number, backend)| (backend["state"] == "down") == down.contains(&number));
            (backends.len() == count && seen).then_some(())
        });
    }

    fn reload(&self, count: usize, more: &str) {
        let text = text(self.front, &format!("{}{more}", self.options), &self.served.addresses[..count]);
        let verdict = self.sessile.reload(&text);
        assert_eq!(verdict["accepted"], true, "{verdict}");
    }

    /// So many requests of users by their popularity, over many connections at once.
    fn round(&mut self, requests: usize) -> Round {
        self.round += 1;
        let (popularity, front, left) =
            (Rc::new(Popularity(self.popularity.0.clone())), self.front, AtomicUsize::new(requests));
        let left = Rc::new(left);
        let seed = self.round * 1_000;
        let answers = run(async {
            let connections: Vec<_> = (0..self.connections as u64)
                .map(|number| {
                    let (popularity, left, mut rng) = (Rc::clone(&popularity), Rc::clone(&left), Rng(seed + number));
                    spawn_local(async move {
                        let (mut line, mut answers) = (load::connect(front).await, Vec::new());
                        while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                            let user = popularity.draw(&mut rng);
                            answers.push((user, ask(&mut line, user).await));
                        }
                        answers
                    })
                })
                .collect();
            let mut all = Vec::new();
            for connection in connections {
                all.extend(connection.await.expect("users that are served"));
            }
            all
        });
        let mut round = Round { new: BTreeMap::new(), moved: Vec::new() };
        for (user, backend) in answers {
            match self.homes.insert(user, backend) {
                None => *round.new.entry(backend).or_default() += 1,
                Some(before) if before != backend => round.moved.push((before, backend)),
                Some(_) => {}
            }
        }
        round
    }

    fn breaks(&self) -> f64 {
        self.sessile.sum("sessile_sticky_breaks_total", &["pool=\"p\""])
    }
}

async fn ask(line: &mut Line<tokio::net::TcpStream>, user: usize) -> usize {
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-User: user-{user}\r\n\r\n");
    let answer = async {
        line.send(request).await?;
        line.head().await
    };
    let head = within(answer).await.expect("an answer");
    assert_eq!(head.status(), 200, "{head:?}");
    head.field("x-backend").expect("a backend").parse().expect("a number")
}

fn text(front: SocketAddr, options: &str, backends: &[SocketAddr]) -> String {
    let pool = pool("p", options, backends).replace("kind = \"off\"\n", CHECK);
    format!(
        "stick_table_file = \"$DIR/stick-table\"\n[log]\nformat = \"json\"\nconnections = false\n\
         [[listener]]\nname = \"l\"\nbind = \"{front}\"\npool = \"p\"\n{pool}"
    )
}

/// Requires that no backend has got many more of the new users than the others, and that none has moved.
fn is_even(what: &str, round: &Round) {
    let (users, most) = (round.new.values().sum::<usize>(), *round.new.values().max().unwrap());
    let uneven = (most * round.new.len()) as f64 / users as f64;
    println!("{what}: {users} users, most at one backend {uneven:.3} times the mean: {:?}", round.new);
    assert_eq!((round.new.len(), round.moved.len()), (4, 0));
    assert!(uneven <= UNEVEN_MOST, "{what}: {uneven}");
}

#[test]
fn few_new_users_are_even_at_a_site_at_rest_and_at_a_busy_one() {
    let _alone = alone();
    for balance in ["least_connections", "two_choices", "round_robin"] {
        for connections in [1, CONNECTIONS] {
            let mut site = Site { connections, ..Site::start(balance, FEW_USERS) };
            is_even(&format!("{balance}, {connections} connections"), &site.round(6 * FEW_USERS));
        }
    }
}

#[test]
fn new_users_are_even_under_skewed_popularity_and_no_known_one_moves() {
    let _alone = alone();
    for balance in ["least_connections", "two_choices", "round_robin"] {
        let mut site = Site::start(balance, size(USERS_VARIABLE, USERS));
        let requests = 6 * site.popularity.0.len();
        is_even(balance, &site.round(requests));

        site.reload(4, "connect_timeout = \"3s\"\n");
        assert_eq!(site.round(requests / 3).moved, [], "{balance}: a reload");
        site.reload(5, "");
        site.wait_for(5, &[]);
        let added = site.round(requests / 2);
        assert_eq!(added.moved, [], "{balance}: a backend was added");
        assert!(added.new.contains_key(&4), "{balance}: {:?}", added.new);

        // A backend that was away without a request of its users is as if it had never been.
        site.served.kill(1);
        site.wait_for(5, &[1]);
        site.served.revive(1);
        site.wait_for(5, &[]);
        assert_eq!(site.round(requests / 3).moved, [], "{balance}: a backend that came back unnoticed");
        assert_eq!(site.breaks(), 0.0);

        // Of one that was missed its users move, and stay where they are when it is back.
        site.served.kill(2);
        site.wait_for(5, &[2]);
        let away = site.round(requests / 3);
        assert!(
            !away.moved.is_empty() && away.moved.iter().all(|(before, _)| *before == 2),
            "{balance}: {:?}",
            away.moved
        );
        assert_eq!(site.breaks(), away.moved.len() as f64);
        site.served.revive(2);
        site.wait_for(5, &[]);
        // Those that have not come meanwhile are still known there.
        assert_eq!(site.round(requests / 3).moved, [], "{balance}: a backend is back");

        site.sessile.signal(Signal::TERM);
        assert!(site.sessile.wait().success());
        site.sessile.restart();
        site.wait_for(5, &[]);
        assert_eq!(site.round(requests / 3).moved, [], "{balance}: a restart");
        assert_eq!(site.breaks(), 0.0);
    }
}
