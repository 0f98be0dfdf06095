//! Attacks: more frames, heads, resets or streams than any client needs, and streams that nothing moves.
//!
//! Each attack comes over a few connections at once, and is bounded in frames and in time. Invariant: each of its
//! connections ends in its word of the access log, a bystander on the same worker is served meanwhile, the memory of
//! the process grows by at most 2 MiB a connection, and every gauge is 0 afterwards.

mod chaos;
mod floods;
mod heads;
mod resets;
mod slow;
mod stalls;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::site::{Bystander, Site};
use super::wire::*;
use crate::support::PATIENCE;

/// Memory that the connections of an attack may take together, in KiB.
const GROWTH_KIB: usize = CONNECTIONS * 2 * 1_024;

/// How long a bystander may wait for one response on a machine that runs other tests.
const WAIT: Duration = Duration::from_secs(3);

/// Connections of an attack.
const CONNECTIONS: usize = 4;

/// One kind of attack.
struct Attack {
    /// Words for the endings of its connections, of which one fits each.
    ended: &'static [&'static str],
    /// Codes of the last GOAWAY that are allowed; a connection that is closed without one is always.
    codes: &'static [u32],
    /// Sends what it sends; the connection is read to its end afterwards.
    play: fn(&mut Client),
}

impl Attack {
    /// An attack that ends by GOAWAY with ENHANCE_YOUR_CALM.
    const fn calmed(ended: &'static [&'static str], play: fn(&mut Client)) -> Self {
        Self { ended, codes: &[ENHANCE_YOUR_CALM], play }
    }

    /// The same attack, also if it ends by another code.
    const fn or_code(self, codes: &'static [u32]) -> Self {
        Self { codes, ..self }
    }

    /// Runs it; what is left of the site is for further questions.
    fn run(&self) -> Site {
        let site = Site::start("");
        let wrong = self.run_at(&site);
        assert!(wrong.is_empty(), "\n{wrong}");
        site
    }

    /// Runs it against a site; what was wrong.
    fn run_at(&self, site: &Site) -> String {
        let ((ends, before), felt) = beside(site, || {
            let (before, began) = (site.lines("connection").len(), Instant::now());
            let ends: Vec<_> = thread::scope(|scope| {
                let play = || {
                    let mut client = site.client();
                    (self.play)(&mut client);
                    client.end(PATIENCE)
                };
                let attackers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(play)).collect();
                attackers.into_iter().map(|attacker| attacker.join().expect("an attacker")).collect()
            });
            println!("ended {ends:?} after {:?}", began.elapsed());
            (ends, before)
        });
        let mut wrong = felt.verdict(GROWTH_KIB);
        for (code, is_closed) in &ends {
            if !is_closed || code.is_some_and(|code| !self.codes.contains(&code)) {
                wrong += &format!("a connection ended by GOAWAY {code:?}, closed: {is_closed}\n");
            }
        }
        let words = site.endings("connection", before + ends.len()).split_off(before);
        if !words.iter().all(|word| self.ended.contains(&word.as_str())) {
            wrong += &format!("the log says {words:?}\n");
        }
        let counted: u64 = words.iter().collect::<BTreeSet<_>>().into_iter().map(|word| site.counted(word)).sum();
        if counted < words.len() as u64 {
            wrong += &format!("{counted} of {words:?} are counted\n");
        }
        site.is_at_rest();
        wrong
    }
}

/// The allocator keeps some of what an attack has needed. The same attack needs no more the next time.
#[test]
fn what_attacks_leave_does_not_add_up() {
    /// Memory that each connection may leave, in KiB.
    const LEFT_KIB: usize = 64;
    let site = Site::start("");
    let attacks = [
        Attack::calmed(resets::RESETS, |client| {
            flood(client, 2_000, |at| [get(2 * at + 1, "/never"), resets::rst(2 * at + 1)].concat());
        }),
        Attack::calmed(floods::FLOOD, |client| {
            for stream in 0..50 {
                client.send(post(2 * stream + 1, "/stalled"));
            }
            flood(client, floods::FRAMES, |at| frame(DATA, 0, 2 * (at % 50) + 1, b"x"));
        })
        .or_code(&[ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR]),
    ];
    let round = || {
        let wrong: String = attacks.iter().map(|attack| attack.run_at(&site)).collect();
        assert!(wrong.is_empty(), "\n{wrong}");
        site.sessile.anonymous_kib()
    };
    let left: Vec<_> = (0..4).map(|_| round()).collect();
    println!("{left:?} KiB");
    let grown = left[2].min(left[3]).saturating_sub(left[0].max(left[1]));
    assert!(grown <= 2 * attacks.len() * CONNECTIONS * LEFT_KIB, "{left:?} KiB after each round");
}

/// Starts the bystander, and has the process allocate what its first connections need.
fn warmed_up(site: &Site) -> Bystander {
    let before = site.lines("connection").len();
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| site.client()).collect();
    for client in &mut clients {
        client.get(1, &[]);
        client.response(1);
    }
    drop(clients);
    site.is_at_rest();
    site.endings("connection", before + CONNECTIONS);
    Bystander::start(site)
}

/// The process's own memory, before and at most.
struct Memory {
    before: usize,
    most: AtomicUsize,
}

impl Memory {
    fn watch(site: &Site) -> Self {
        let before = site.sessile.anonymous_kib();
        Self { before, most: AtomicUsize::new(before) }
    }

    fn grown(&self) -> usize {
        self.most.load(Relaxed).saturating_sub(self.before)
    }
}

/// What a bystander and the process have felt of something.
struct Felt {
    /// Responses of the bystander, and the longest time of one.
    served: u32,
    longest: Duration,
    /// The process's own memory before, and what it has grown by, in KiB.
    before: usize,
    grown: usize,
}

impl Felt {
    /// What is wrong with it, where the memory may grow by so many KiB.
    fn verdict(&self, most: usize) -> String {
        let Self { served, longest, before, grown } = self;
        let mut wrong = String::new();
        if *grown > most {
            wrong += &format!("{grown} KiB more than {before}, of at most {most}\n");
        }
        if *served == 0 || *longest > WAIT {
            wrong += &format!("the bystander got {served} responses, one after {longest:?}\n");
        }
        wrong
    }

    fn is_within(&self, most: usize) {
        let wrong = self.verdict(most);
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

/// Runs something beside a bystander, and watches both it and the memory of the process meanwhile.
fn beside<T>(site: &Site, run: impl FnOnce() -> T) -> (T, Felt) {
    let bystander = warmed_up(site);
    let memory = Memory::watch(site);
    let result = during(&memory, site, run);
    let (served, longest) = bystander.stop();
    let (before, grown) = (memory.before, memory.grown());
    println!("{served} served meanwhile, {longest:?} at most; {grown} KiB more than {before}");
    (result, Felt { served, longest, before, grown })
}

/// Measures the memory while something runs.
fn during<T>(memory: &Memory, site: &Site, run: impl FnOnce() -> T) -> T {
    /// Ends the watcher, also where what runs panics.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                memory.most.fetch_max(site.sessile.anonymous_kib(), Relaxed);
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        let _over = Over(&is_over);
        run()
    })
}

/// Sends so many pieces, and reads what comes in between; stops when the connection ends. True: it has ended.
fn flood(client: &mut Client, pieces: u32, piece: impl Fn(u32) -> Vec<u8>) -> bool {
    /// Pieces between two looks at what has come.
    const TOGETHER: u32 = 50;
    let mut at = 0;
    while at < pieces {
        let together: Vec<u8> = (at..pieces.min(at + TOGETHER)).flat_map(&piece).collect();
        client.send(together);
        at += TOGETHER;
        loop {
            match client.next(Duration::ZERO) {
                Some(Event::End | Event::GoAway { .. }) => return true,
                Some(_) => {}
                None => break,
            }
        }
    }
    false
}
