//! Many worlds, each from its seed.

use super::random::Random;
use super::world::{Answer, Greeting, Nature, World};
use crate::config::{self, ProxyOut, ProxyVersion};

/// Steps of connections that a run of the test suite takes at least; `SESSILE_SIM_STEPS` says otherwise.
const STEPS: u64 = 2_000_000;

/// Worlds of one test are numbered from here, so that a seed tells its world.
const CALM: u64 = 0;
const HOSTILE: u64 = 1 << 32;

#[test]
fn every_connection_completes_in_a_calm_world() {
    live(CALM, steps() / 2);
}

#[test]
fn nothing_is_lost_mixed_up_or_left_over_in_a_hostile_world() {
    live(HOSTILE, steps() / 2);
}

/// Lives the one world of `SESSILE_SIM_SEED`.
#[test]
fn replay() {
    let Ok(seed) = std::env::var("SESSILE_SIM_SEED") else { return };
    let seed: u64 = seed.parse().expect("SESSILE_SIM_SEED is a number");
    let steps = World::new(seed, nature(seed)).run().unwrap();
    println!("world {seed}: {steps} steps");
}

fn steps() -> u64 {
    let wanted = std::env::var("SESSILE_SIM_STEPS");
    wanted.map_or(STEPS, |steps| steps.parse().expect("SESSILE_SIM_STEPS is a number"))
}

fn live(first: u64, steps: u64) {
    // Injected panics are part of a hostile world; their messages are not news.
    silence_injected_panics();
    let (mut seed, mut done) = (first, 0);
    while done < steps {
        match World::new(seed, nature(seed)).run() {
            Ok(steps) => done += steps,
            Err(what) => panic!(
                "world {seed}: {what}\nreplay: SESSILE_SIM_SEED={seed} cargo test --lib sim::tests::replay -- --nocapture"
            ),
        }
        seed += 1;
    }
    println!("{} worlds, {done} steps", seed - first);
}

fn nature(seed: u64) -> Nature {
    let mut random = Random::new(!seed);
    let hostile = seed >= HOSTILE;
    let backends = match random.below(3) {
        0 => vec![Answer::Accept; 3],
        1 => vec![Answer::Refuse, Answer::Accept, Answer::Accept],
        _ => vec![Answer::Accept, Answer::Never, Answer::Refuse],
    };
    let (listener, greeting) = match random.below(4) {
        0 => ("trust = [\"10.0.0.0/8\"]", Greeting::Proxy(b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n".to_vec())),
        1 => ("tls = \"passthrough\"\n[[listener.route]]\nsni = \"*.example\"\npool = \"p\"", Greeting::Hello(hello())),
        _ => ("", Greeting::None),
    };
    let balance = ["hash", "ring", "round_robin", "least_connections"][random.below(4)];
    let backend = |n: usize| format!("[[pool.backend]]\nname = \"b{n}\"\naddress = \"192.0.2.{n}:1\"\n");
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n{listener}\n\
         [[pool]]\nname = \"p\"\nbalance = \"{balance}\"\n{}[pool.check]\nkind = \"off\"\n",
        (0..backends.len()).map(backend).collect::<String>()
    );
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let mut config = checked.unwrap_or_else(|problems| panic!("{problems:?}\n{text}")).config;
    // In a calm world nobody is so slow that a limit should end his connection, though all may be quiet for long.
    config.limits.idle_timeout = hostile.then(|| std::time::Duration::from_secs(60));
    config.limits.half_close_timeout = Some(std::time::Duration::from_secs(10));
    if greeting == Greeting::None && random.one_in(4) {
        config.pools[0].proxy = Some(ProxyOut { version: ProxyVersion::V1, tlvs: Vec::new() });
    }
    Nature { config, backends, clients: 1 + random.below(20), greeting, hostile }
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
