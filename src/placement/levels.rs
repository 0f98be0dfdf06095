//! Levels: members sorted into a tree of locations, and the walk from the root to one of them.
//!
//! Which child a group chooses is the methods' affair. Invariant: weights, ranks and tables come from the configuration
//! alone; who is usable matters only while walking, so a dead member hands its keys to its siblings and to nobody else.

use std::collections::BTreeMap;

use super::maglev::Maglev;
use super::ring::Ring;
use super::{Member, hash, rendezvous, spread};
use crate::config::Balance;

/// What the caller says about members, by index.
pub(super) struct Use<'a, U, L> {
    pub(super) usable: &'a U,
    pub(super) leases: &'a L,
}

/// A leaf or a group inside a group.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) hash: u64,
    pub(super) weight: u64,
    /// The leaves below, in [`Tree::leaves`]; of a leaf, itself.
    first: u32,
    end: u32,
    /// The group, [`NONE`] for a leaf.
    group: u32,
}

const NONE: u32 = u32::MAX;

impl Child {
    /// The leaf that stands at `first`.
    pub(super) fn leaf(hash: u64, weight: u64, first: u32) -> Self {
        Self { hash, weight, first, end: first + 1, group: NONE }
    }
}

#[derive(Debug)]
struct LevelGroup {
    name: Box<str>,
    /// In the order of their ranks.
    children: Box<[Child]>,
    rule: LevelRule,
}

/// How a group chooses, with its table.
#[derive(Debug)]
enum LevelRule {
    Rendezvous {
        /// All its children weigh the same.
        even: bool,
    },
    Ring(Ring),
    Maglev(Maglev),
    RoundRobin,
    LeastConnections,
    TwoChoices,
    Random,
}

/// Members of weight > 0; the root is the last group.
#[derive(Debug)]
pub(super) struct Tree {
    groups: Box<[LevelGroup]>,
    /// Indexes of members; those below any child stand together.
    leaves: Box<[u32]>,
}

impl Tree {
    /// The tree of the primary members or of the backups.
    pub(super) fn new(balance: Balance, seed: u64, members: &[Member<'_>], backup: bool) -> Self {
        let level = !matches!(balance, Balance::LeastConnections | Balance::TwoChoices);
        let mut builder = Builder { balance, seed, members, level, groups: Vec::new(), leaves: Vec::new() };
        let placed = |index: &usize| members[*index].backup == backup && members[*index].weight > 0;
        builder.group("", 0, &(0..members.len()).filter(placed).collect::<Vec<_>>());
        Self { groups: builder.groups.into(), leaves: builder.leaves.into() }
    }

    /// One more than the greatest index in this tree.
    pub(super) fn members_end(&self) -> usize {
        self.leaves.iter().max().map_or(0, |index| *index as usize + 1)
    }

    /// Where a draw belongs, whoever is usable: the first member in candidate order. `None` for methods without a key.
    #[inline(always)]
    pub(super) fn home(&self, seed: u64, draw: u64) -> Option<usize> {
        self.walk(seed, draw, |group, draw| Some((Self::home_in(seed, draw, group)?, None)))
    }

    /// The first usable member in candidate order.
    #[inline]
    pub(super) fn place<U, L>(&self, seed: u64, draw: u64, ask: &Use<'_, U, L>) -> Option<usize>
    where
        U: Fn(usize) -> bool,
        L: Fn(usize) -> u64,
    {
        // The search afterwards finds somebody only if a member came or went during the walk.
        self.walk(seed, draw, |group, draw| self.choose(seed, draw, group, ask))
            .or_else(|| self.leaves.iter().map(|index| *index as usize).find(|index| (ask.usable)(*index)))
    }

    /// The same with its score.
    pub(super) fn explain<U, L>(&self, seed: u64, draw: u64, ask: &Use<'_, U, L>) -> Option<(usize, String)>
    where
        U: Fn(usize) -> bool,
        L: Fn(usize) -> u64,
    {
        let mut score = String::new();
        let index = self.walk(seed, draw, |group, draw| {
            let (rank, ticket) = self.choose(seed, draw, group, ask)?;
            let child = &group.children[rank];
            if !score.is_empty() {
                score.push(' ');
            }
            if let Some(below) = self.groups.get(child.group as usize) {
                score.push_str(&below.name);
                score.push('=');
            }
            score.push_str(&self.score(seed, draw, group, rank, ask));
            Some((rank, ticket))
        })?;
        Some((index, score))
    }

    /// From the root to a leaf. `choose` tells a rank in a group and, when turns are taken, the ticket below.
    #[inline(always)]
    fn walk(
        &self,
        seed: u64,
        mut draw: u64,
        mut choose: impl FnMut(&LevelGroup, u64) -> Option<(usize, Option<u64>)>,
    ) -> Option<usize> {
        let mut group = self.groups.last()?;
        loop {
            let (rank, ticket) = choose(group, draw)?;
            let child = &group.children[rank];
            if child.group == NONE {
                return Some(self.leaves[child.first as usize] as usize);
            }
            draw = ticket.unwrap_or_else(|| hash::deeper(seed, draw, child.hash));
            group = &self.groups[child.group as usize];
        }
    }

    /// The rank that a draw belongs to by the group's rule, if that knows keys.
    #[inline(always)]
    fn home_in(seed: u64, draw: u64, group: &LevelGroup) -> Option<usize> {
        match &group.rule {
            LevelRule::Rendezvous { even } => rendezvous::home(seed, draw, &group.children, *even),
            LevelRule::Ring(ring) => ring.home(draw),
            LevelRule::Maglev(maglev) => Some(maglev.home(draw)),
            LevelRule::RoundRobin | LevelRule::LeastConnections | LevelRule::TwoChoices | LevelRule::Random => None,
        }
    }

    /// The rank the group's rule chooses and, when turns are taken, the ticket below.
    #[inline]
    fn choose<U, L>(
        &self,
        seed: u64,
        draw: u64,
        group: &LevelGroup,
        ask: &Use<'_, U, L>,
    ) -> Option<(usize, Option<u64>)>
    where
        U: Fn(usize) -> bool,
        L: Fn(usize) -> u64,
    {
        let children = &group.children;
        let usable = |rank: usize| {
            let child = &children[rank];
            self.leaves[child.first as usize..child.end as usize].iter().any(|index| (ask.usable)(*index as usize))
        };
        if let Some(home) = Self::home_in(seed, draw, group)
            && usable(home)
        {
            return Some((home, None));
        }
        let leases = |rank: usize| self.leases(&children[rank], ask);
        let rank = match &group.rule {
            LevelRule::Rendezvous { .. } | LevelRule::Maglev(_) => rendezvous::choose(seed, draw, children, usable),
            LevelRule::Ring(ring) => ring.choose(draw, children.len(), usable),
            LevelRule::RoundRobin => {
                return spread::round_robin(draw, children, usable).map(|(rank, ticket)| (rank, Some(ticket)));
            }
            LevelRule::LeastConnections => spread::least_connections(draw, children, usable, leases),
            LevelRule::TwoChoices => spread::two_choices(seed, draw, children, usable, leases),
            LevelRule::Random => spread::weighted(draw, children, usable),
        };
        rank.map(|rank| (rank, None))
    }

    /// What the group's rule compared, for people.
    fn score<U, L>(&self, seed: u64, draw: u64, group: &LevelGroup, rank: usize, ask: &Use<'_, U, L>) -> String
    where
        L: Fn(usize) -> u64,
    {
        let children = &group.children;
        let child = &children[rank];
        match &group.rule {
            LevelRule::Rendezvous { .. } => rendezvous::score(seed, draw, child),
            LevelRule::Ring(ring) => ring.score(draw, rank),
            LevelRule::Maglev(maglev) => maglev.score(seed, draw, children, rank),
            LevelRule::RoundRobin => format!("ticket:{draw},weight:{}", child.weight),
            LevelRule::LeastConnections | LevelRule::TwoChoices => {
                format!("leases:{},weight:{}", self.leases(child, ask), child.weight)
            }
            LevelRule::Random => format!("weight:{}", child.weight),
        }
    }

    /// Only ever asked of leaves: the methods by leases ignore locations.
    fn leases<U, L: Fn(usize) -> u64>(&self, child: &Child, ask: &Use<'_, U, L>) -> u64 {
        (ask.leases)(self.leaves[child.first as usize] as usize)
    }
}

struct Builder<'a> {
    balance: Balance,
    seed: u64,
    members: &'a [Member<'a>],
    /// Whether locations count.
    level: bool,
    groups: Vec<LevelGroup>,
    leaves: Vec<u32>,
}

impl Builder<'_> {
    /// Adds the group of these members, whose outer `depth` levels are behind us, after the groups inside it.
    fn group(&mut self, name: &str, depth: usize, indexes: &[usize]) -> u32 {
        let members = self.members;
        // Sorted as ranks are: by name, a leaf (false) before a group of the same name.
        let mut sorted: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
        for &index in indexes {
            let member = &members[index];
            let name = match member.location.get(depth).filter(|_| self.level) {
                Some(level) => (level.as_str(), true),
                None => (member.name, false),
            };
            sorted.entry(name).or_default().push(index);
        }
        let mut children = Vec::with_capacity(sorted.len());
        for ((name, below), indexes) in sorted {
            if below {
                children.push(self.child_group(name, depth + 1, &indexes));
            } else {
                children.extend(indexes.iter().map(|index| self.child_leaf(*index)));
            }
        }
        let rule = self.rule(&children);
        self.groups.push(LevelGroup { name: name.into(), children: children.into(), rule });
        self.groups.len() as u32 - 1
    }

    fn child_group(&mut self, name: &str, depth: usize, indexes: &[usize]) -> Child {
        let weight = indexes.iter().map(|index| u64::from(self.members[*index].weight)).sum();
        let first = self.leaves.len() as u32;
        let group = self.group(name, depth, indexes);
        Child { hash: hash::group(self.seed, name), weight, first, end: self.leaves.len() as u32, group }
    }

    fn child_leaf(&mut self, index: usize) -> Child {
        let member = &self.members[index];
        self.leaves.push(index as u32);
        Child::leaf(hash::leaf(self.seed, member.name), u64::from(member.weight), self.leaves.len() as u32 - 1)
    }

    fn rule(&self, children: &[Child]) -> LevelRule {
        let even = children.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        match self.balance {
            // A single child needs no table.
            Balance::Ring { .. } | Balance::Maglev { .. } if children.len() < 2 => LevelRule::Rendezvous { even },
            Balance::Hash => LevelRule::Rendezvous { even },
            Balance::Ring { points } => LevelRule::Ring(Ring::new(self.seed, children, points)),
            Balance::Maglev { table_size } => LevelRule::Maglev(Maglev::new(self.seed, children, table_size)),
            Balance::RoundRobin => LevelRule::RoundRobin,
            Balance::LeastConnections => LevelRule::LeastConnections,
            Balance::TwoChoices => LevelRule::TwoChoices,
            Balance::Random => LevelRule::Random,
        }
    }
}
