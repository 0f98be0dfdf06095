//! Levels: members sorted into a tree of locations, and the walk from the root to one of them.
//!
//! The methods choose the child of a group. Invariant: weights, ranks and tables come from the configuration alone;
//! health matters only while walking, so the keys of an unusable member go to its siblings and to no other group.

use std::collections::BTreeMap;

use super::child::{Child, NONE};
use super::lineup::{Kept, KeptGroup};
use super::maglev::Maglev;
use super::ring::Ring;
use super::spread::{Known, Looked, UsableChildren};
use super::{Member, hash, rendezvous, spread};
use crate::config::Balance;

/// State of the members, by index, as the caller provides it.
pub(super) struct Use<'a, U, L> {
    pub(super) usable: &'a U,
    pub(super) leases: &'a L,
    pub(super) known: Known<'a>,
}

#[derive(Debug)]
struct LevelGroup {
    name: Box<str>,
    /// Children in the order of their ranks.
    children: Box<[Child]>,
    rule: LevelRule,
}

/// Method of a group, with its table.
#[derive(Debug)]
enum LevelRule {
    Rendezvous {
        /// True if all children have one weight.
        even: bool,
    },
    Ring(Ring),
    Maglev(Maglev),
    RoundRobin,
    LeastConnections,
    TwoChoices,
    Random,
}

/// Tree of the members with a weight above 0; the root is the last group.
#[derive(Debug)]
pub(super) struct Tree {
    groups: Box<[LevelGroup]>,
    /// Indexes of members; the leaves below any child are adjacent.
    leaves: Box<[u32]>,
}

impl Tree {
    /// Builds the tree of the primary members or of the backups.
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

    /// The first member in candidate order, usable or not. `None` for methods without a key.
    #[inline(always)]
    pub(super) fn home(&self, seed: u64, draw: u64) -> Option<usize> {
        self.walk(seed, draw, |_, group, draw| Some((Self::home_in(seed, draw, group)?, None)))
    }

    /// The first usable member in candidate order.
    #[inline]
    pub(super) fn place<U, L>(&self, seed: u64, draw: u64, ask: &Use<'_, U, L>) -> Option<usize>
    where
        U: Fn(usize) -> bool,
        L: Fn(usize) -> u64,
    {
        // The walk finds no member if the last usable one of a group went down meanwhile; then any usable member
        // serves.
        self.walk(seed, draw, |_, group, draw| self.choose(seed, draw, group, ask))
            .or_else(|| self.leaves.iter().map(|index| *index as usize).find(|index| (ask.usable)(*index)))
    }

    /// The first usable member with its score, one word per level.
    pub(super) fn explain<U, L>(&self, seed: u64, draw: u64, ask: &Use<'_, U, L>) -> Option<(usize, String)>
    where
        U: Fn(usize) -> bool,
        L: Fn(usize) -> u64,
    {
        let mut score = String::new();
        let index = self.walk(seed, draw, |_, group, draw| {
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

    /// What is kept of the usable members between picks; `None` for methods with a key.
    pub(super) fn kept(&self, members: usize) -> Option<Kept> {
        let group = |group: &LevelGroup| {
            let weights = || group.children.iter().map(|child| child.weight);
            Some(match group.rule {
                LevelRule::RoundRobin => KeptGroup::by_turns(weights()),
                LevelRule::LeastConnections => KeptGroup::by_leases(weights()),
                LevelRule::TwoChoices | LevelRule::Random => KeptGroup::by_weight(weights()),
                LevelRule::Rendezvous { .. } | LevelRule::Ring(_) | LevelRule::Maglev(_) => return None,
            })
        };
        let mut kept = Kept::new(self.groups.iter().map(group).collect::<Option<_>>()?, members);
        for (number, group) in self.groups.iter().enumerate() {
            for (rank, child) in group.children.iter().enumerate() {
                match child.group {
                    NONE => kept.seat_member(self.leaves[child.first as usize] as usize, number, rank),
                    below => kept.seat_group(below as usize, number, rank),
                }
            }
        }
        Some(kept)
    }

    /// A member that is usable by what is kept, chosen as [`Self::place`] chooses among all that are usable.
    #[inline]
    pub(super) fn place_kept(
        &self,
        seed: u64,
        draw: u64,
        kept: &Kept,
        leases: impl Fn(usize) -> u64,
        known: Known<'_>,
    ) -> Option<usize> {
        self.walk(seed, draw, |number, group, draw| {
            let leases = |rank: usize| leases(self.leaf(&group.children[rank]));
            let known = known.map(|known| |rank: usize| known(self.leaf(&group.children[rank])));
            let known = known.as_ref().map(|known| known as &dyn Fn(usize) -> u64);
            Self::spread(seed, draw, &group.rule, kept.group(number), leases, known)
        })
    }

    /// Walks from the root to a leaf. `choose` gets a group and its number, and returns the rank in the group and, for
    /// `round_robin`, the subticket.
    #[inline(always)]
    fn walk(
        &self,
        seed: u64,
        mut draw: u64,
        mut choose: impl FnMut(usize, &LevelGroup, u64) -> Option<(usize, Option<u64>)>,
    ) -> Option<usize> {
        let mut number = self.groups.len().checked_sub(1)?;
        loop {
            let group = &self.groups[number];
            let (rank, ticket) = choose(number, group, draw)?;
            let child = &group.children[rank];
            if child.group == NONE {
                return Some(self.leaves[child.first as usize] as usize);
            }
            // The subticket of `round_robin` counts the turns inside the group; other methods need a new draw there.
            draw = ticket.unwrap_or_else(|| hash::deeper(seed, draw, child.hash));
            number = child.group as usize;
        }
    }

    /// The rank of a draw by a keyed rule, usable or not; `None` for the other rules.
    #[inline(always)]
    fn home_in(seed: u64, draw: u64, group: &LevelGroup) -> Option<usize> {
        match &group.rule {
            LevelRule::Rendezvous { even } => rendezvous::home(seed, draw, &group.children, *even),
            LevelRule::Ring(ring) => ring.home(draw),
            LevelRule::Maglev(maglev) => Some(maglev.home(draw)),
            LevelRule::RoundRobin | LevelRule::LeastConnections | LevelRule::TwoChoices | LevelRule::Random => None,
        }
    }

    /// The rank that the group's rule chooses among usable children and, for `round_robin`, the subticket.
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
        // Nearly always the first child in candidate order is usable, and no other needs to be looked at.
        if let Some(home) = Self::home_in(seed, draw, group)
            && usable(home)
        {
            return Some((home, None));
        }
        let rank = match &group.rule {
            LevelRule::Rendezvous { .. } | LevelRule::Maglev(_) => rendezvous::choose(seed, draw, children, usable),
            LevelRule::Ring(ring) => ring.choose(draw, children.len(), usable),
            rule => {
                let leases = |rank: usize| (ask.leases)(self.leaf(&children[rank]));
                let known = ask.known.map(|known| |rank: usize| known(self.leaf(&children[rank])));
                let known = known.as_ref().map(|known| known as &dyn Fn(usize) -> u64);
                return Self::spread(seed, draw, rule, &Looked { children, usable, leases }, leases, known);
            }
        };
        rank.map(|rank| (rank, None))
    }

    /// The rank that a rule without a key chooses and, for `round_robin`, the subticket.
    #[inline]
    fn spread(
        seed: u64,
        draw: u64,
        rule: &LevelRule,
        children: &impl UsableChildren,
        leases: impl Fn(usize) -> u64,
        known: Known<'_>,
    ) -> Option<(usize, Option<u64>)> {
        let rank = match rule {
            LevelRule::RoundRobin => {
                return spread::round_robin(draw, children).map(|(rank, ticket)| (rank, Some(ticket)));
            }
            LevelRule::LeastConnections => spread::least_connections(draw, children, known),
            LevelRule::TwoChoices => spread::two_choices(seed, draw, children, leases, known),
            LevelRule::Random => spread::weighted(draw, children).map(|share| share.rank),
            LevelRule::Rendezvous { .. } | LevelRule::Ring(_) | LevelRule::Maglev(_) => None,
        };
        rank.map(|rank| (rank, None))
    }

    /// Numbers that the group's rule compared, for display.
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
                let leaf = self.leaf(child);
                let known = ask.known.map_or_else(String::new, |known| format!(",known:{}", known(leaf)));
                format!("leases:{},weight:{}{known}", (ask.leases)(leaf), child.weight)
            }
            LevelRule::Random => format!("weight:{}", child.weight),
        }
    }

    /// The member of a leaf; the methods by leases ignore locations, so every child is a leaf.
    #[inline]
    fn leaf(&self, child: &Child) -> usize {
        self.leaves[child.first as usize] as usize
    }
}

struct Builder<'a> {
    balance: Balance,
    seed: u64,
    members: &'a [Member<'a>],
    /// Whether locations make levels; not for the methods by leases.
    level: bool,
    groups: Vec<LevelGroup>,
    leaves: Vec<u32>,
}

impl Builder<'_> {
    /// Adds the group of these members, which share their first `depth` levels, after the groups inside it.
    fn group(&mut self, name: &str, depth: usize, indexes: &[usize]) -> u32 {
        let members = self.members;
        // In the order of ranks: by name, a leaf (false) before a group of the same name.
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
