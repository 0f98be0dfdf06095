//! What workers do before the first adoption.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::config::{self, LogFormat};
use crate::pool::Lease;
use crate::splicer::pair::{Arrival, PairFacts};
use crate::threads::Threads;

/// A test that takes longer never ends.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket of which the other side has closed.
fn closed() -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    drop(listener.accept().unwrap());
    OwnedFd::from(near).into()
}

/// A pair of another process, of which both sides have closed; `local`: a balancer in front has opened it for itself.
fn ended_pair(shared: &WorkerShared, local: bool) -> Flow<Linux> {
    let snapshot = shared.current.load();
    let permit = snapshot.listeners[0].state.admit().unwrap();
    let lease = Lease::new(&snapshot.pools[0].backends()[0]);
    let facts = PairFacts { id: if local { 2 } else { 1 }, local, ..PairFacts::default() };
    let arrival = Arrival { client: closed(), backend: closed(), facts, up: vec![], down: vec![], permit, lease };
    Flow::arrived(arrival, clock::now())
}

/// Numbers of the connections that are logged, of a client's and one that a balancer has opened for itself.
fn logged(log: &str) -> Vec<String> {
    let text = format!(
        "[log]\n{log}\n[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n\
         check = \"off\"\nbackend = [{{ name = \"b\", address = \"127.0.0.1:2\" }}]\n"
    );
    let config = config::check(&text, &|_| Err(io::ErrorKind::NotFound.into())).unwrap().config;
    let shared = Arc::new(WorkerShared::alone(config, 8));
    let output = Output::default();
    let access_log = AccessLog::start(LogFormat::Text, output.clone()).unwrap();
    let (workers, threads) = Workers::start(1, &shared, &access_log, None, Vec::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        workers.take_in(0, vec![ended_pair(&shared, false), ended_pair(&shared, true)]).await;
        let until = Instant::now() + PATIENCE;
        while workers.open() > 0 {
            assert!(Instant::now() < until, "the pairs do not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Threads::new(threads).stop().await;
    });
    assert_eq!(access_log.finish(PATIENCE), 0);
    let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
    let id = |line: &str| line.split_once("id=").unwrap().1.split(' ').next().unwrap().to_owned();
    text.lines().map(id).collect()
}

#[test]
fn pairs_that_arrive_and_end_before_the_first_adoption_are_logged_as_the_configuration_says() {
    assert_eq!(logged("connections = false"), [""; 0]);
    assert_eq!(logged("level = \"info\""), ["1"]);
    assert_eq!(logged("level = \"debug\""), ["1", "2"]);
}
