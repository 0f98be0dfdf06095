//! [`Child`]: a leaf or a group, as the method of the group above sees it.
//!
//! Chooses nothing. Invariant: a child has leaves, and those of two children of one group do not overlap.

/// A leaf or a group inside a group.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) hash: u64,
    pub(super) weight: u64,
    /// Range of the leaves below, in `Tree::leaves`; of a leaf, only itself.
    pub(super) first: u32,
    pub(super) end: u32,
    /// Index of the group, [`NONE`] for a leaf.
    pub(super) group: u32,
}

/// Group index of a leaf.
pub(super) const NONE: u32 = u32::MAX;

impl Child {
    /// A leaf at this position in `Tree::leaves`.
    pub(super) fn leaf(hash: u64, weight: u64, first: u32) -> Self {
        Self { hash, weight, first, end: first + 1, group: NONE }
    }
}
