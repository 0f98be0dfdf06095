//! Many worlds, each from its seed.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::handover::{MOVED, Moves};
use super::world::{BULK, ClientGreeting, ConnectScript, Scenario, World};
use crate::config::{self, ProxyOut, ProxyVersion};
use crate::outcome::Ended;
use crate::random::Random;

/// Steps of connections that a run of the test suite takes at least; `SESSILE_SIM_STEPS` says otherwise.
const STEPS: u64 = 3_000_000;

/// Worlds of one test are numbered from here, so that a seed tells its world.
const CALM: u64 = 0;
const HOSTILE: u64 = 1 << 32;

/// A world has failed: the others need not be lived to their end.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Endings that hostile worlds bring about.
const BROUGHT_ABOUT: &[Ended] = &[
    Ended::Done,
    Ended::Probe,
    Ended::ClientLeft,
    Ended::ClientReset,
    Ended::ClientGone,
    Ended::ProxyTruncated,
    Ended::Silent,
    Ended::HelloTimeout,
    Ended::HelloTruncated,
    Ended::SourceConnections,
    Ended::ConnectRefused,
    Ended::ConnectTimeout,
    Ended::ConnectUnreachable,
    Ended::BackendReset,
    Ended::BackendGone,
    Ended::IdleTimeout,
    Ended::HalfCloseTimeout,
    Ended::Lifetime,
    Ended::Stopped,
    Ended::NoPort,
    Ended::NoDescriptor,
    Ended::NoMemory,
    Ended::LocalError,
    Ended::Panicked,
];

#[test]
fn every_connection_completes_in_a_calm_world() {
    let (_, moves) = live(CALM, steps() / 2);
    all_moved(&moves);
}

#[test]
fn nothing_is_lost_mixed_up_or_left_over_in_a_hostile_world() {
    let (endings, moves) = live(HOSTILE, steps() / 2);
    all_moved(&moves);
    // What no world brings about proves nothing.
    let unseen: Vec<_> = BROUGHT_ABOUT.iter().filter(|ended| endings[**ended as usize] == 0).collect();
    assert!(unseen.is_empty() || steps() < STEPS || FAILED.load(Relaxed), "no world came to {unseen:?}");
}

/// Runs one world again, with all that it prints:
/// `SESSILE_SIM_SEED=<seed> cargo test --lib sim::tests::replay -- --ignored --nocapture`.
#[test]
#[ignore = "needs SESSILE_SIM_SEED, the number of a world"]
fn replay() {
    let seed = std::env::var("SESSILE_SIM_SEED").expect("SESSILE_SIM_SEED is set");
    let seed: u64 = seed.parse().expect("SESSILE_SIM_SEED is a number");
    let (steps, ..) = World::new(seed, scenario(seed)).run().unwrap();
    println!("world {seed}: {steps} steps");
}

fn steps() -> u64 {
    let wanted = std::env::var("SESSILE_SIM_STEPS");
    wanted.map_or(STEPS, |steps| steps.parse().expect("SESSILE_SIM_STEPS is a number"))
}

/// What no world hands over proves nothing.
fn all_moved(moves: &Moves) {
    let unseen: Vec<_> = MOVED.iter().filter(|what| !moves.contains_key(*what)).collect();
    assert!(unseen.is_empty() || steps() < STEPS || FAILED.load(Relaxed), "no world handed over {unseen:?}");
}

/// Lives worlds until so many steps were taken, or one has failed. Answers how connections ended and what was handed
/// over.
fn live(first: u64, steps: u64) -> (Vec<u64>, Moves) {
    // Injected panics are part of a hostile world; their messages are not news.
    silence_injected_panics();
    let (mut seed, mut done) = (first, 0);
    let (mut endings, mut moves) = (vec![0; Ended::COUNT], Moves::new());
    while done < steps && !FAILED.load(Relaxed) {
        match World::new(seed, scenario(seed)).run() {
            Ok((steps, ended, moved)) => {
                moved.into_iter().for_each(|(what, count)| *moves.entry(what).or_default() += count);
                done += steps;
                endings.iter_mut().zip(ended).for_each(|(sum, ended)| *sum += ended);
            }
            Err(what) => {
                FAILED.store(true, Relaxed);
                panic!(
                    "world {seed}: {what}\n\
                     replay: SESSILE_SIM_SEED={seed} cargo test --lib sim::tests::replay -- --ignored --nocapture"
                );
            }
        }
        seed += 1;
    }
    let seen: Vec<_> = Ended::ALL.iter().zip(&endings).filter(|(_, count)| **count > 0).collect();
    println!("{} worlds, {done} steps, {seen:?}, {moves:?}", seed - first);
    (endings, moves)
}

fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(!seed);
    let hostile = seed >= HOSTILE;
    let backends = match random.below(if hostile { 14 } else { 12 }) {
        0..3 => vec![ConnectScript::Accept; 3],
        3..6 => vec![ConnectScript::Refuse, ConnectScript::Accept, ConnectScript::Accept],
        6..9 => vec![ConnectScript::Unreachable, ConnectScript::Accept],
        9..12 => vec![ConnectScript::Accept, ConnectScript::Never, ConnectScript::Refuse],
        12 => vec![ConnectScript::Never; 5],
        _ => vec![random.one_of(&[ConnectScript::Refuse, ConnectScript::Unreachable]); 2],
    };
    let (listener, greeting) = match random.below(4) {
        0 => (
            "trust = [\"10.0.0.0/8\"]",
            ClientGreeting::Proxy(b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n".to_vec()),
        ),
        1 => (
            "tls = \"passthrough\"\n[[listener.route]]\nsni = \"*.example\"\npool = \"p\"",
            ClientGreeting::Hello(hello()),
        ),
        _ => ("", ClientGreeting::None),
    };
    let balance = random.one_of(&["hash", "ring", "round_robin", "least_connections"]);
    let backend = |n: usize| format!("[[pool.backend]]\nname = \"b{n}\"\naddress = \"192.0.2.{n}:1\"\n");
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n{listener}\n\
         [[pool]]\nname = \"p\"\nbalance = \"{balance}\"\n{}[pool.check]\nkind = \"off\"\n",
        (0..backends.len()).map(backend).collect::<String>()
    );
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let mut config = checked.unwrap_or_else(|problems| panic!("{problems:?}\n{text}")).config;
    // In a calm world no peer is so slow that a limit ends its connection, though all may be quiet for long.
    config.limits.idle_timeout = hostile.then(|| Duration::from_secs(30));
    config.limits.half_close_timeout = (!hostile || !random.one_in(4)).then(|| Duration::from_secs(10));
    config.limits.lifetime = (hostile && random.one_in(4)).then(|| Duration::from_secs(20));
    if greeting == ClientGreeting::None && random.one_in(4) {
        config.pools[0].proxy = Some(ProxyOut { version: ProxyVersion::V1, tlvs: Vec::new() });
    }
    let bulky = random.one_in(8);
    let clients = 1 + random.below(if bulky { 4 } else { 20 });
    let connections_max = if random.one_in(4) { 1 + random.below(4) } else { usize::MAX };
    let per_source = (hostile && random.one_in(4)).then_some(3);
    let (removes_listener, pipes_max) = (random.one_in(4), random.one_of(&[1, 3, 64]));
    let large_pipes = (random.one_of(&[0, 1, 2, 64]), random.one_of(&[256 << 10, 1 << 20]));
    // Some take all there is, others have to be waited for with a large pipe full.
    let room = if bulky { random.one_of(&[BULK, 700_000]) } else { 1 };
    Scenario {
        config,
        backends,
        clients,
        connections_max,
        per_source,
        pipes_max,
        large_pipes,
        greeting,
        removes_listener,
        bulky,
        room,
        hands_over: random.one_in(2) || bulky,
        hostile,
    }
}

/// A ClientHello for `a.example`, cut into two records.
fn hello() -> Vec<u8> {
    let name = b"a.example";
    let entry = [&[0, 0, name.len() as u8][..], name].concat();
    let list = [&(entry.len() as u16).to_be_bytes()[..], &entry].concat();
    let extension = [&[0, 0][..], &(list.len() as u16).to_be_bytes(), &list].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &(extension.len() as u16).to_be_bytes(), &extension]
        .concat();
    let message = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
    let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    [record(&message[..30]), record(&message[30..])].concat()
}

fn silence_injected_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"injected") {
                usual(info);
            }
        }));
    });
}
