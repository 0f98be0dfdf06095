//! [`Carrier`]: many sessions that share connections to several instances, and hop between these at random.
//!
//! A connection that an instance has ended is made anew, as a client would. Invariant: a session is judged by the backend
//! of its first response.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::Tally;
use crate::support::rng::Rng;
use crate::terminate::load::{Head, Line, run, within};

/// Tasks of a load, and sessions that one task has at a time.
const CARRIERS: usize = 32;
const LIVING: usize = 32;
/// Requests of a session after the one that begins it: one more with each of so many draws.
const HOPS: usize = 4;

/// How sessions of one kind begin and go on; a request is its head without the line end that closes it.
#[derive(Clone, Copy)]
pub struct Way {
    /// The request that begins a session; `number` is unlike that of all others.
    pub begin: fn(number: usize) -> String,
    /// What is kept of the response: how the session names itself from then on.
    pub id: fn(&Head) -> Option<String>,
    /// The next request of a session.
    pub go_on: fn(id: &str, hop: usize) -> String,
    /// True: the backend that begins a session has it. False: the first one that gets its id has it.
    pub begins_at_home: bool,
}

/// A session: its id, and its backend once that is known.
#[derive(Default)]
struct Session {
    id: Option<String>,
    home: Option<String>,
    hops: usize,
}

struct Carrier {
    way: Way,
    instances: Rc<Vec<SocketAddr>>,
    lines: Vec<Option<Line<TcpStream>>>,
    living: Vec<Session>,
    rng: Rng,
    tally: Arc<Tally>,
    sessions: usize,
}

/// Starts a load of so many sessions in a thread of its own.
pub fn start(way: Way, instances: Vec<SocketAddr>, sessions: usize, tally: &Arc<Tally>) -> JoinHandle<()> {
    let tally = Arc::clone(tally);
    std::thread::spawn(move || {
        run(async {
            let instances = Rc::new(instances);
            let carrier = |number: usize| Carrier {
                way,
                instances: Rc::clone(&instances),
                lines: instances.iter().map(|_| None).collect(),
                living: (0..LIVING).map(|_| Session::default()).collect(),
                rng: Rng(number as u64),
                tally: Arc::clone(&tally),
                sessions,
            };
            let carriers: Vec<_> = (0..CARRIERS).map(|number| spawn_local(carrier(number).run())).collect();
            for carrier in carriers {
                carrier.await.expect("sessions that are served");
            }
        });
    })
}

impl Carrier {
    async fn run(mut self) {
        while self.tally.begun() < self.sessions {
            let which = self.rng.below(LIVING);
            self.hop(which).await;
        }
        // Sessions that have begun are seen once more by every instance.
        for which in 0..LIVING {
            for instance in 0..self.instances.len() {
                if self.living[which].id.is_some() {
                    self.ask(which, instance).await;
                }
            }
        }
    }

    /// The next request of a session, or its end and the begin of another one.
    async fn hop(&mut self, which: usize) {
        if self.living[which].hops > 1 && self.rng.below(HOPS) == 0 {
            self.living[which] = Session::default();
        }
        let instance = self.rng.below(self.instances.len());
        self.ask(which, instance).await;
    }

    async fn ask(&mut self, which: usize, instance: usize) {
        let session = &self.living[which];
        let request = match &session.id {
            None => (self.way.begin)(self.tally.begun.fetch_add(1, Relaxed)),
            Some(id) => (self.way.go_on)(id, session.hops),
        };
        let head = self.exchange(instance, &format!("{request}\r\n")).await;
        self.tally.requests.fetch_add(1, Relaxed);
        assert_eq!(head.status(), 200, "{request}: {head:?}");
        let session = &mut self.living[which];
        let backend = head.field("x-backend").expect("a backend").to_owned();
        if session.id.is_none() {
            session.id = Some((self.way.id)(&head).unwrap_or_else(|| panic!("no id: {head:?}")));
            session.home = self.way.begins_at_home.then_some(backend);
            return;
        }
        session.hops += 1;
        let home = session.home.get_or_insert_with(|| backend.clone());
        if *home != backend {
            self.tally.broken.fetch_add(1, Relaxed);
            println!("{request}: {backend} instead of {home} at instance {instance}, hop {}", session.hops);
        }
    }

    /// Sends a request and reads its response; on another connection if this one has ended.
    async fn exchange(&mut self, instance: usize, request: &str) -> Head {
        let trying = async {
            loop {
                if self.lines[instance].is_none() {
                    let Ok(stream) = TcpStream::connect(self.instances[instance]).await else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    stream.set_nodelay(true).expect("a socket");
                    self.lines[instance] = Some(Line::new(stream));
                }
                let line = self.lines[instance].as_mut().expect("a connection");
                let answered = async {
                    line.send(request).await?;
                    let head = line.head().await?;
                    line.body(&head).await.map(|_| head)
                };
                let answered: std::io::Result<Head> = answered.await;
                if !matches!(&answered, Ok(head) if !head.closes()) {
                    self.lines[instance] = None;
                }
                if let Ok(head) = answered {
                    return Ok(head);
                }
            }
        };
        within(trying).await.expect("a response")
    }
}
