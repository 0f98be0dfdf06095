//! Reads the results of an independent implementation from `tests/golden/` and places every line anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::placement::*;

/// A version and the hash of its vectors. New vectors of a sealed version, or other answers, need a new version; a line
/// here is replaced only by the line of the next version.
const SEAL: (u32, u64) = (1, 0x443c_fe53_a726_0a98);

#[derive(Deserialize)]
struct Cases {
    version: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    method: String,
    parameter: u32,
    seed: String,
    prefix_v4: u32,
    prefix_v6: u32,
    members: Vec<CaseMember>,
    down: Vec<String>,
    digest: String,
}

#[derive(Deserialize)]
struct CaseMember {
    name: String,
    weight: u16,
    location: Vec<String>,
    backup: bool,
}

fn read(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect();
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; tests/placement_reference.py makes it", path.display()))
}

fn cases() -> Vec<Case> {
    let Cases { version, cases } = serde_json::from_str(&read("cases.json")).expect("cases.json is as README.md says");
    assert_eq!(version, VERSION, "the vectors are of another version; tests/placement_reference.py makes new ones");
    cases
}

fn number(hexadecimal: &str) -> u64 {
    u64::from_str_radix(hexadecimal, 16).unwrap_or_else(|_| panic!("{hexadecimal:?} is not a hexadecimal number"))
}

impl Case {
    fn balance(&self) -> Balance {
        let (points, table_size) = (self.parameter, self.parameter);
        let all = [
            Balance::Hash,
            Balance::Ring { points },
            Balance::Maglev { table_size },
            Balance::RoundRobin,
            Balance::LeastConnections,
            Balance::TwoChoices,
            Balance::Random,
        ];
        all.into_iter().find(|balance| balance.word() == self.method).expect("a known method")
    }

    fn placement(&self) -> Placement {
        let members: Vec<Member<'_>> = self
            .members
            .iter()
            .map(|m| Member { name: &m.name, weight: m.weight, location: &m.location, backup: m.backup })
            .collect();
        Placement::new(self.balance(), number(&self.seed), &members)
    }

    fn draw(&self, placement: &Placement, input: &str) -> u64 {
        if let Some(draw) = input.strip_prefix('#') {
            return number(draw);
        }
        let key = match input.strip_prefix('x') {
            Some(digits) => {
                digits.as_bytes().chunks(2).map(|two| number(std::str::from_utf8(two).unwrap()) as u8).collect()
            }
            None => self.source(input.parse().expect("an address")),
        };
        placement.key_hash(&key)
    }

    /// The source part of a key.
    fn source(&self, address: IpAddr) -> Vec<u8> {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix_v4).unwrap_or(0);
                [&[1][..], &(v4.to_bits() & mask).to_be_bytes()].concat()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix_v6).unwrap_or(0);
                [&[2][..], &(v6.to_bits() & mask).to_be_bytes()].concat()
            }
        }
    }

    /// The first names of the candidate order, as many as the vector has, joined by `>`.
    fn choice(&self, placement: &Placement, draw: u64, leases: &[u64], length: usize) -> String {
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < length {
            let usable = |index: usize| !chosen.contains(&index) && !self.down.contains(&self.members[index].name);
            let Some(index) = placement.place(draw, usable, |index| leases[index]) else { break };
            chosen.push(index);
        }
        let names: Vec<&str> = chosen.iter().map(|index| self.members[*index].name.as_str()).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(">") }
    }

    /// Places every line; returns the number of lines.
    fn check(&self) -> usize {
        let placement = self.placement();
        assert_eq!(placement.digest(), number(&self.digest), "{}: digest", self.name);
        let vectors = read(&format!("{}.txt", self.name));
        for (line, text) in vectors.lines().enumerate() {
            let fields: Vec<&str> = text.split(' ').collect();
            let (input, leases, wanted) = match fields[..] {
                [input, wanted] => (input, vec![0; self.members.len()], wanted),
                [input, leases, wanted] => {
                    (input, leases.split(',').map(|n| n.parse().expect("leases")).collect(), wanted)
                }
                _ => panic!("{}.txt:{}: two or three fields, not {text:?}", self.name, line + 1),
            };
            let draw = self.draw(&placement, input);
            let found = self.choice(&placement, draw, &leases, wanted.split('>').count());
            assert_eq!(
                found,
                wanted,
                "{}.txt:{}: {text:?}: placement {VERSION} answers differently; a new answer needs a new VERSION",
                self.name,
                line + 1
            );
        }
        vectors.lines().count()
    }
}

#[test]
fn an_independent_implementation_places_alike() {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for case in cases() {
        *lines.entry(case.method.clone()).or_default() += case.check();
    }
    assert_eq!(lines.len(), 7, "methods without a case: only {:?}", lines.keys());
    assert!(lines.values().all(|count| *count >= 10_000), "fewer than 10,000 placements of a method: {lines:?}");
}

#[test]
fn the_cases_cover_what_placement_depends_on() {
    let mut of_method: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in cases() {
        of_method.entry(case.method.clone()).or_default().push(case);
    }
    for (method, cases) in &of_method {
        let covered =
            |what: &str, holds: &dyn Fn(&Case) -> bool| assert!(cases.iter().any(holds), "{method}: no {what}");
        covered("unequal weights", &|case| case.members.iter().any(|m| m.weight != case.members[0].weight));
        covered("seed", &|case| number(&case.seed) != 0);
        covered("levels", &|case| case.members.iter().any(|m| m.location.len() >= 2));
        covered("member down", &|case| !case.down.is_empty());
        if cases[0].balance().keyed() {
            let starts = |case: &Case, with: fn(&str) -> bool| read(&format!("{}.txt", case.name)).lines().any(with);
            covered("IPv4 source", &|case| starts(case, |line| line.split(' ').next().unwrap().contains('.')));
            covered("IPv6 source", &|case| starts(case, |line| line.contains(':')));
        }
    }
}

#[test]
fn the_vectors_change_only_with_the_version() {
    let mut all = read("cases.json");
    cases().iter().for_each(|case| all.push_str(&read(&format!("{}.txt", case.name))));
    let found = (VERSION, hash::bytes(0, all.as_bytes()));
    assert!(
        found == SEAL,
        "tests/golden/ is not what version {} was sealed with; if placement has changed, raise VERSION, make new \
         vectors and seal them: SEAL = ({}, 0x{:016x})",
        SEAL.0,
        found.0,
        found.1
    );
}
