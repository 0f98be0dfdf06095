//! Placement: which backend a key belongs to. A pure function and a versioned wire format.
//!
//! Reads no clock, no health, no address; keeps no state. Invariant: the answer depends on the method, the seed, the
//! members (names, weights, locations, backup), the draw, the usable set and, for two methods, the leases; never on
//! the order of members, the machine or the build. Two instances with equal [`Placement::digest`] place alike.
//!
//! # The wire format, version 1
//!
//! Everything below is normative: another implementation of it places as this module does. A change of any of it that
//! can change a choice changes [`VERSION`]. `tests/placement_reference.py` is a second implementation, written from
//! this page alone; its answers are committed in `tests/golden/`.
//!
//! ## Conventions
//!
//! - All arithmetic is on unsigned integers; there are no floats. `x / y` is the quotient rounded down, `x mod y` the
//!   remainder, `x >> n` and `x << n` shifts, `&` bitwise and. Nothing wraps unless it says "mod 2^64".
//! - Integers inside hashed bytes are **big-endian**: `u8`, `u16`, `u32`, `u64` take 1, 2, 4, 8 bytes. Text is UTF-8.
//!   `a ‖ b` is concatenation; two bare hexadecimal digits, `01`, are one byte.
//! - `H(bytes)` is standard XXH3-64 with the pool's `hash_seed` as its seed (a `u64`, default 0), as a 64-bit number.
//! - `P(a, b) = H(u64 a ‖ u64 b)`: the hash of exactly 16 bytes.
//! - `scale(h, n) = (h × n) >> 64`, the product taken in 128 bits: maps a 64-bit `h` evenly onto `0 .. n-1`.
//!
//! ## Key
//!
//! A key is a sequence of parts, each encoded as below, concatenated in configured order; a single part is a sequence
//! of one. The draw of a keyed method is `H(key bytes)` ([`Placement::key_hash`]).
//!
//! | part | bytes |
//! |---|---|
//! | absent (no SNI, no such TLV, no such value of a request) | `00` |
//! | source, IPv4 | `01` ‖ address, 4 bytes, bits after the prefix cleared |
//! | source, IPv6 | `02` ‖ address, 16 bytes, bits after the prefix cleared |
//! | SNI | `03` ‖ `u16` length ‖ the name in lower case |
//! | TLV | `04` ‖ `u16` length ‖ the value |
//! | source inside a range that is one key | `05` ‖ `u16` length ‖ the range's name |
//! | value of a request | `06` to `0b`, see [`sticky::key`](crate::sticky::key) ‖ `u16` length ‖ the value |
//!
//! The prefix length itself is not encoded. An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is the IPv4 address and is
//! cut by the IPv4 prefix. Examples: `192.0.2.77` with prefix 24 is `01 c0 00 02 00`; `["source", "sni"]` for
//! `2001:db8:1:2:3::4` with prefix 64 and `a.example` is
//! `02 20010db8000100020000000000000000 03 0009 612e6578616d706c65`.
//!
//! ## Levels: the tree
//!
//! Members of weight 0 are never placed and are left out of everything below (the digest still covers them). The rest
//! form two trees by the same rules: the **primary** tree of members without `backup` and the **backup** tree of those
//! with it. A choice is made in the primary tree; only when that holds no usable member, in the backup tree, from the
//! same draw.
//!
//! A location is a list of level names, outermost first. The root is a group; a member with the location `[g1, …, gn]`
//! is a leaf in the group `gn` in … in `g1` in the root; with an empty location it is a leaf in the root. A group's
//! children are groups and leaves mixed. `least_connections` and `two_choices` ignore locations: all their leaves are
//! in the root.
//!
//! - **Child hash**: of a leaf `H(01 ‖ name)`, of a group `H(02 ‖ its own level name)`. No path, no length.
//! - **Child weight**: of a leaf its weight, of a group the sum of the weights of all leaves below it, usable or not.
//! - **Child order** in a group: by the bytes of the name (a leaf's name, a group's own level name); a leaf before a
//!   group of the same name. A child's index in this order, from 0, is its **rank**.
//! - A leaf is **usable** as the caller says; a group is usable if any leaf below it is.
//!
//! Placing starts at the root with the given draw. The method chooses one usable child of the group; if that is a leaf,
//! it is the answer, if it is a group, the same is done inside it with the draw
//!
//! - `round_robin`: the subticket (below),
//! - all other methods: `H(03 ‖ u64 draw ‖ u64 child hash of that group)`, 17 bytes, `draw` being the one that chose
//!   it.
//!
//! A group with a single child needs no choice: the child is chosen if usable. (All methods agree with this by
//! themselves; for `round_robin` the subticket is then the ticket.)
//!
//! ## Logarithm
//!
//! `L(h)` is −log2 of `h / 2^64` in units of 2^-57, for a 64-bit `h`:
//!
//! 1. `x = h` with the lowest bit set. `e` = number of leading zero bits of `x` (64-bit), `m = x << e`, so
//!    `2^63 ≤ m < 2^64`.
//! 2. `j = m >> 55` (256 ..= 511), `z = m & (2^55 − 1)`.
//! 3. `r = ((z << 9) × (2^64 / j)) >> 64`: the part of `m` above `j`, relative to `j`, in units of 2^-64. Note that
//!    `2^64 / j` is itself rounded down first.
//! 4. `y = hi(r, C1 − hi(r, C2 − hi(r, C3 − hi(r, C4))))` with `hi(a, b) = (a × b) >> 64` and `Ck` = 2^63 × log2(e) / k
//!    rounded down: `C1 = 0xb8aa3b295c17f0bb`, `C2 = 0x5c551d94ae0bf85d`, `C3 = 0x3d8e13b87407fae9`,
//!    `C4 = 0x2e2a8eca5705fc2e`.
//! 5. `L = ((e + 1) << 57) − ((T[j] + y) >> 6)` with the table `T[j]` = 2^63 × log2(j / 256) rounded down,
//!    `T[256] = 0`. The table is committed in `hash.rs`; a test computes it anew from integers.
//!
//! `L` never rises when `h` rises, is at least 1, at most 2^63, and within 2^-40 of the true value.
//!
//! ## `hash`: weighted rendezvous
//!
//! With `h = P(draw, child hash)`, the score of a child is `L(h) / weight`; the smallest wins. Scores are compared
//! exactly, by cross-multiplication: `a` before `b` if `La × weight_b < Lb × weight_a` (128 bits). Of equal scores the
//! greater `h` wins, of equal `h` the lower rank; so among equal weights the greatest `h` wins and no logarithm is
//! needed. The candidate order of a group is by rising score.
//!
//! ## `ring`: consistent ring
//!
//! In each group, child number `rank` with weight `w` owns the points `i = 0 .. points × w − 1`, each at position
//! `P(child hash, i) >> 24` (40 bits). Points are sorted by position, then by rank. The draw's position is
//! `draw >> 24`. Starting with the first point at or after that position, clockwise, round once through position 0: the
//! first point with a usable owner decides.
//!
//! ## `maglev`: prime table
//!
//! In each group, with the table size `M` (a prime): child `c` has `offset = scale(P(c, 0), M)` and
//! `skip = 1 + scale(P(c, 1), M − 1)` (`c` its child hash), and visits the entries `offset, offset + skip,
//! offset + 2 skip, …` mod M. The table is filled in rounds. In a round, each child in rank order adds its weight to
//! its credit (0 before the first round); if the credit has then reached the largest weight in the group, that weight
//! is taken off it and the child takes a turn: it goes on along its visits, from where its last turn stopped, to the
//! first entry that is still free, and owns it. When all M entries are owned, filling ends at once.
//!
//! The draw's entry is `scale(draw, M)`. If its owner is usable, it is chosen; else the usable child that `hash` would
//! choose from the same draw.
//!
//! Evenness: the entries of equal weights differ by one at most; the published advice, M above 100 N, keeps that below
//! 1 %.
//!
//! Movement: while members do not change nothing moves, since a table is built from the configuration and not from
//! health. When one of N equal members is added or removed, its own share of the keys has to move; the table also moves
//! some that need not, the fewer the larger M / N. With M = 65537 the tests find 0.1 % of all keys for N = 3, 0.3 % for
//! 10 and 0.6 % for 100, and hold it below 2 %.
//!
//! ## `round_robin`
//!
//! The draw is a **ticket**, a counter. Over the usable children of the group: `g` = greatest common divisor of their
//! weights, `v = weight / g` for each, `W` = sum of the `v`, `n` = their number. The step is 1 if `W = n`; else the
//! smallest `s ≥ max(1, scale(0x9e3779b97f4a7c15, W))` with gcd(s, W) = 1. `slot = ((ticket mod W) × step) mod W`. In
//! rank order the usable children own consecutive intervals of length `v` of `0 .. W − 1`; the owner of the slot is
//! chosen. For a group, the **subticket** is `(ticket / W) × v + (slot − start of its interval)`, mod 2^64.
//!
//! So in `W` successive tickets each child is chosen exactly `v` times, equal weights alternate strictly in name order,
//! and a group sees each subticket once.
//!
//! ## `random`
//!
//! The draw is a random number. Over the usable children of the group, in rank order, with `W` = sum of their weights
//! and consecutive intervals of length weight: the owner of `scale(draw, W)` is chosen. This is `weighted(draw)` below.
//!
//! ## `two_choices`
//!
//! The draw is a random number. `first = weighted(P(draw, 0))` over the usable leaves,
//! `second = weighted(P(draw, 1))` over the usable leaves without `first`. `second` is chosen if it exists and
//! `(leases + 1) / weight` is strictly smaller for it (by cross-multiplication), else `first`. With known keys (below),
//! `second` is chosen of equals, too, if `(known + 1) / weight` is strictly smaller for it.
//!
//! ## `least_connections`
//!
//! The draw is a ticket. Starting with the leaf of rank `ticket mod n`, `n` = number of leaves in the tree, usable or
//! not, and going once round in rank order: the usable leaf with the smallest `(leases + 1) / weight` (by
//! cross-multiplication), of equals the one met first. With known keys, of the first [`COMPARED`] equals the one with the
//! smallest `(known + 1) / weight`, of equals again the one met first.
//!
//! ## Known keys
//!
//! A pool that places a key once and remembers it may say for each member how many keys it remembers there, `known`. Only
//! the two methods by leases ask for that, and only between members that leases do not tell apart.
//!
//! ## Candidate order
//!
//! For every method the candidate order is what repeated placing yields when each answer is made unusable for the next:
//! the primary members, then the backups.
//!
//! ## Digest
//!
//! Standard XXH3-64 with seed **0** of
//!
//! - `u32 VERSION ‖ u8 method ‖ u32 parameter ‖ u64 hash_seed ‖ u32 number of members`,
//! - then for each member, those of weight 0 too, in the order of their names' bytes:
//!   `u32 length ‖ name ‖ u16 weight ‖ u8 backup (0 or 1) ‖ u32 number of levels`,
//!   and for each of its levels, outermost first: `u32 length ‖ level name`.
//!
//! Methods: 1 `hash`, 2 `ring` (parameter: points), 3 `maglev` (parameter: table size), 4 `round_robin`,
//! 5 `least_connections`, 6 `two_choices`, 7 `random`; parameter 0 where none is named. Lengths are in bytes. Shown as
//! 16 hexadecimal digits.

mod child;
mod hash;
mod levels;
mod lineup;
mod maglev;
mod rendezvous;
mod ring;
mod spread;
mod tally;

#[cfg(test)]
mod tests;

pub use self::lineup::Lineup;
pub use self::spread::{COMPARED, Known};

use crate::config::Balance;
use levels::{Tree, Use};

/// Version of the wire format, which enters every digest.
pub const VERSION: u32 = 1;

/// A backend as placement uses it.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Name of the backend, unique in the pool.
    pub name: &'a str,
    /// Weight of the backend; 0 is never placed.
    pub weight: u16,
    /// Level names of its location, outermost first.
    pub location: &'a [String],
    /// True: placed only when no primary member is usable.
    pub backup: bool,
}

/// The placement of one pool, built once per snapshot.
#[derive(Debug)]
pub struct Placement {
    seed: u64,
    digest: u64,
    primary: Tree,
    backup: Tree,
}

/// One member in the candidate order, with its score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Index into the members given to [`Placement::new`].
    pub index: usize,
    /// Numbers that the method compared, for display; one word per level.
    pub score: String,
}

impl Placement {
    /// Builds the tables. Results are indexes into `members`; nothing else depends on their order.
    pub fn new(balance: Balance, seed: u64, members: &[Member<'_>]) -> Self {
        let tree = |backup| Tree::new(balance, seed, members, backup);
        Self { seed, digest: digest(balance, seed, members), primary: tree(false), backup: tree(true) }
    }

    /// Digest of everything that a choice depends on: version, method, parameters, seed, names, weights, locations and
    /// backup; not addresses, not the order of members. Instances with equal digests place alike.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The draw of a key for the keyed methods.
    #[inline]
    pub fn key_hash(&self, key: &[u8]) -> u64 {
        hash::bytes(self.seed, key)
    }

    /// The first member in a key's candidate order, usable or not. `None` without members, and for methods without a
    /// key.
    #[inline(always)]
    pub fn home(&self, draw: u64) -> Option<usize> {
        self.primary.home(self.seed, draw).or_else(|| self.backup.home(self.seed, draw))
    }

    /// The first usable member in candidate order; `None` when no member is usable.
    ///
    /// `draw` is the key hash for keyed methods, a counter for `round_robin` and `least_connections`, a random number
    /// for `random` and `two_choices`. `leases` is called by `least_connections` and `two_choices` only. Allocates
    /// nothing, takes no lock. `usable` may change during the call: the result is then a member that was usable a
    /// moment ago.
    #[inline]
    pub fn place(&self, draw: u64, usable: impl Fn(usize) -> bool, leases: impl Fn(usize) -> u64) -> Option<usize> {
        self.place_evenly(draw, usable, leases, None)
    }

    /// The same for a new key that is going to be remembered, where `known` returns how many keys a member has.
    #[inline]
    pub fn place_evenly(
        &self,
        draw: u64,
        usable: impl Fn(usize) -> bool,
        leases: impl Fn(usize) -> u64,
        known: Known<'_>,
    ) -> Option<usize> {
        let ask = Use { usable: &usable, leases: &leases, known };
        self.primary.place(self.seed, draw, &ask).or_else(|| self.backup.place(self.seed, draw, &ask))
    }

    /// A lineup in which no member is usable yet, to be kept up to date by the caller; `None` for methods with a key.
    pub fn lineup(&self) -> Option<Lineup> {
        let members = self.primary.members_end().max(self.backup.members_end());
        Some(Lineup { primary: self.primary.kept(members)?, backup: self.backup.kept(members)? })
    }

    /// What [`Placement::place_evenly`] returns for the members that the lineup has as usable, in a time that does not
    /// grow with their number (a step for each doubling). `leases` is called by `two_choices` only. While another thread
    /// writes the lineup, the result may be a member that is not usable, or `None`.
    #[inline]
    pub fn place_in(
        &self,
        lineup: &Lineup,
        draw: u64,
        leases: impl Fn(usize) -> u64,
        known: Known<'_>,
    ) -> Option<usize> {
        let Lineup { primary, backup } = lineup;
        let first = self.primary.place_kept(self.seed, draw, primary, &leases, known);
        // A primary may be missed that another thread changes now: that is no reason for a backup.
        if first.is_some() || primary.has_usable() {
            return first;
        }
        self.backup.place_kept(self.seed, draw, backup, &leases, known)
    }

    /// The whole candidate order of the usable members with scores: repeated [`Placement::place_evenly`] with the earlier
    /// results made unusable. For `explain`, not for the data plane: it allocates and takes quadratic time.
    pub fn order(
        &self,
        draw: u64,
        usable: impl Fn(usize) -> bool,
        leases: impl Fn(usize) -> u64,
        known: Known<'_>,
    ) -> Vec<Candidate> {
        let mut order: Vec<Candidate> = Vec::new();
        for tree in [&self.primary, &self.backup] {
            let mut taken = vec![false; tree.members_end()];
            let next = |taken: &[bool]| {
                let free = |index: usize| !taken[index] && usable(index);
                tree.explain(self.seed, draw, &Use { usable: &free, leases: &leases, known })
            };
            while let Some((index, score)) = next(&taken) {
                taken[index] = true;
                order.push(Candidate { index, score });
            }
        }
        order
    }
}

/// The digest; its bytes are specified under "Digest" above.
fn digest(balance: Balance, seed: u64, members: &[Member<'_>]) -> u64 {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    let (method, parameter) = match balance {
        Balance::Hash => (1, 0),
        Balance::Ring { points } => (2, points),
        Balance::Maglev { table_size } => (3, table_size),
        Balance::RoundRobin => (4, 0),
        Balance::LeastConnections => (5, 0),
        Balance::TwoChoices => (6, 0),
        Balance::Random => (7, 0),
    };
    let mut sorted: Vec<&Member<'_>> = members.iter().collect();
    sorted.sort_by_key(|member| member.name);
    let mut bytes = Vec::with_capacity(32 * (members.len() + 1));
    bytes.extend(VERSION.to_be_bytes());
    bytes.push(method);
    bytes.extend(u32::to_be_bytes(parameter));
    bytes.extend(seed.to_be_bytes());
    bytes.extend((members.len() as u32).to_be_bytes());
    for member in sorted {
        text(&mut bytes, member.name);
        bytes.extend(member.weight.to_be_bytes());
        bytes.push(u8::from(member.backup));
        bytes.extend((member.location.len() as u32).to_be_bytes());
        member.location.iter().for_each(|level| text(&mut bytes, level));
    }
    hash::bytes(0, &bytes)
}
