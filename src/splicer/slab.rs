//! [`Slab`]: the rows of a worker in a few large chunks, lowest free row first, empty chunks given back.
//!
//! Does not depend on what a row is. Invariant: a [`Token`] finds the row it was made for or nothing, and a row that is
//! freed during a batch of events is not used again before [`Slab::settle`].

/// Number of rows of the first chunk, and of any other.
const FIRST_ROWS: usize = 512;
const ROWS: usize = 16_384;

/// Smallest allocation that is mapped by itself: the largest threshold of the GNU C library (mallopt(3),
/// `M_MMAP_THRESHOLD`).
const MAPPED_BYTES: usize = 33 << 20;

/// Capacity of the list of freed rows that is kept after a batch.
const FREED_KEPT: usize = 512;

/// The side of a connection that an event is about, or another source of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// Socket towards the client of a connection.
    Client = 0,
    /// Socket towards the backend of a connection.
    Backend = 1,
    /// A listening socket; the slot is its number.
    Listener = 2,
    /// The eventfd of the worker's inbox.
    Inbox = 3,
}

/// Names a socket in epoll events: slot 32 bits, generation 30, side 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// Makes a token for a source of events that is not a connection.
    pub fn special(side: Side, number: u32) -> Self {
        Self(u64::from(number) << 32 | side as u64)
    }

    /// Returns the number of the row.
    pub fn slot(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the side, or the other source of events.
    pub fn side(self) -> Side {
        match self.0 & 3 {
            0 => Side::Client,
            1 => Side::Backend,
            2 => Side::Listener,
            _ => Side::Inbox,
        }
    }

    /// Returns the token of a side of the same connection.
    pub fn with_side(self, side: Side) -> Self {
        Self(self.0 & !3 | side as u64)
    }

    /// Encodes the token for epoll_ctl(2).
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Decodes a token that epoll_wait(2) returned.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn generation(self) -> u32 {
        (self.0 as u32) >> 2
    }

    fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(slot) << 32 | u64::from(generation << 2))
    }
}

/// A fixed number of rows, taken lowest first.
struct Chunk<T> {
    /// Rows that were ever used; later ones are reserved.
    rows: Vec<Option<(u32, T)>>,
    most: usize,
    /// A set bit is a free row below `rows.len()`.
    free: Vec<u64>,
    free_count: usize,
    /// No word of `free` below this one has a set bit.
    lowest: usize,
}

impl<T> Chunk<T> {
    /// The first chunk stays for good, so that a quiet worker allocates nothing. Any other chunk reserves more than an
    /// allocator serves from its heap, where a small block behind it would keep it from the system for ever. A chunk
    /// that is mapped by itself costs only the pages that are touched, and is unmapped when it is dropped.
    fn new(index: usize) -> Self {
        let most = if index == 0 { FIRST_ROWS } else { ROWS };
        let reserved = if index == 0 { FIRST_ROWS } else { ROWS.max(MAPPED_BYTES / size_of::<Option<(u32, T)>>()) };
        Self { rows: Vec::with_capacity(reserved), most, free: Vec::new(), free_count: 0, lowest: 0 }
    }

    fn is_full(&self) -> bool {
        self.free_count == 0 && self.rows.len() == self.most
    }

    fn is_empty(&self) -> bool {
        self.free_count == self.rows.len()
    }

    /// Takes the lowest free row of a chunk that is not full.
    fn take(&mut self) -> usize {
        if self.free_count == 0 {
            self.rows.push(None);
            if self.free.len() * 64 < self.rows.len() {
                self.free.push(0);
            }
            return self.rows.len() - 1;
        }
        while self.free[self.lowest] == 0 {
            self.lowest += 1;
        }
        let bit = self.free[self.lowest].trailing_zeros();
        self.free[self.lowest] &= !(1 << bit);
        self.free_count -= 1;
        self.lowest * 64 + bit as usize
    }

    fn give(&mut self, row: usize) {
        self.free[row / 64] |= 1 << (row % 64);
        self.free_count += 1;
        self.lowest = self.lowest.min(row / 64);
    }
}

/// The rows of one worker, in chunks.
pub struct Slab<T> {
    chunks: Vec<Option<Chunk<T>>>,
    /// No chunk below this one has a free row.
    lowest: usize,
    /// Slots of the rows freed since the last `settle`.
    freed: Vec<u32>,
    generation: u32,
    live: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: vec![Some(Chunk::new(0))], lowest: 0, freed: Vec::new(), generation: 0, live: 0 }
    }
}

impl<T> Slab<T> {
    /// Number of rows in use.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Puts a row into the lowest free place; `make` gets its token.
    pub fn insert_with(&mut self, make: impl FnOnce(Token) -> T) -> Token {
        while self.chunks.get(self.lowest).is_some_and(|chunk| chunk.as_ref().is_some_and(Chunk::is_full)) {
            self.lowest += 1;
        }
        if self.lowest == self.chunks.len() {
            self.chunks.push(None);
        }
        self.generation = (self.generation + 1) & 0x3fff_ffff;
        let chunk = self.chunks[self.lowest].get_or_insert_with(|| Chunk::new(self.lowest));
        let row = chunk.take();
        let token = Token::new((self.lowest * ROWS + row) as u32, self.generation);
        chunk.rows[row] = Some((self.generation, make(token)));
        self.live += 1;
        token
    }

    /// Returns the row of a token; `None` = the row is gone.
    pub fn find(&mut self, token: Token) -> Option<&mut T> {
        match self.row(token.slot())? {
            Some((generation, value)) if *generation == token.generation() => Some(value),
            _ => None,
        }
    }

    /// Returns the row at a slot, if one is there.
    pub fn at(&mut self, slot: u32) -> Option<&mut T> {
        self.row(slot)?.as_mut().map(|(_, value)| value)
    }

    /// Returns the token of the row at a slot.
    pub fn token(&mut self, slot: u32) -> Option<Token> {
        self.row(slot)?.as_ref().map(|(generation, _)| Token::new(slot, *generation))
    }

    /// Takes the row at a slot out; the slot is free after `settle`.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let (_, value) = self.row(slot)?.take()?;
        self.live -= 1;
        self.freed.push(slot);
        Some(value)
    }

    /// Makes the slots freed since the last call available again, and drops empty chunks.
    pub fn settle(&mut self) {
        while let Some(slot) = self.freed.pop() {
            let (index, row) = (slot as usize / ROWS, slot as usize % ROWS);
            let Some(chunk) = self.chunks[index].as_mut() else { continue };
            chunk.give(row);
            self.lowest = self.lowest.min(index);
            if chunk.is_empty() && index > 0 {
                self.chunks[index] = None;
            }
        }
        while matches!(self.chunks.last(), Some(None)) {
            self.chunks.pop();
        }
        if self.freed.capacity() > FREED_KEPT {
            self.freed = Vec::new();
        }
    }

    /// Returns every slot in use, in ascending order.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let chunks = self.chunks.iter().enumerate().filter_map(|(index, chunk)| Some((index, chunk.as_ref()?)));
        chunks.flat_map(|(index, chunk)| {
            let used = chunk.rows.iter().enumerate().filter(|(_, row)| row.is_some());
            used.map(move |(row, _)| (index * ROWS + row) as u32)
        })
    }

    fn row(&mut self, slot: u32) -> Option<&mut Option<(u32, T)>> {
        self.chunks.get_mut(slot as usize / ROWS)?.as_mut()?.rows.get_mut(slot as usize % ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_token_finds_only_the_row_it_was_made_for() {
        let mut slab = Slab::default();
        let first = slab.insert_with(|_| "first");
        assert_eq!(slab.find(first.with_side(Side::Backend)), Some(&mut "first"));
        slab.remove(first.slot());
        slab.settle();
        let second = slab.insert_with(|_| "second");
        assert_eq!(second.slot(), first.slot());
        assert_eq!(slab.find(first), None);
        assert_eq!(slab.find(second), Some(&mut "second"));
    }

    #[test]
    fn a_freed_row_waits_for_the_end_of_the_batch() {
        let mut slab = Slab::default();
        let first = slab.insert_with(|_| 1);
        slab.remove(first.slot());
        assert_ne!(slab.insert_with(|_| 2).slot(), first.slot());
        slab.settle();
        assert_eq!(slab.insert_with(|_| 3).slot(), first.slot());
    }

    #[test]
    fn the_lowest_row_is_taken_first_and_empty_chunks_are_given_back() {
        let mut slab = Slab::default();
        let count = FIRST_ROWS + ROWS + 3;
        let tokens: Vec<_> = (0..count).map(|n| slab.insert_with(|_| n)).collect();
        assert_eq!(slab.chunks.len(), 3);
        let kept = FIRST_ROWS / 2;
        for token in &tokens[kept..] {
            slab.remove(token.slot());
        }
        slab.settle();
        assert_eq!((slab.chunks.len(), slab.len()), (1, kept));
        assert_eq!(slab.insert_with(|_| 0).slot() as usize, kept);
        assert_eq!(slab.slots().count(), kept + 1);
    }

    #[test]
    fn rows_are_taken_and_given_as_from_a_sorted_set() {
        let (mut slab, mut random) = (Slab::default(), Random::new(7));
        let (mut used, mut free) = (Vec::new(), std::collections::BTreeSet::new());
        let places = |index: usize| (index - FIRST_ROWS.min(index)) / ROWS;
        for step in 0..60_000 {
            if random.below(60_000) >= step || used.is_empty() {
                let slot = slab.insert_with(|token| token.slot()).slot();
                let fresh = used.len() + free.len();
                let fresh =
                    if fresh < FIRST_ROWS { fresh } else { ROWS * (1 + places(fresh)) + (fresh - FIRST_ROWS) % ROWS };
                assert_eq!(slot, free.pop_first().unwrap_or(fresh as u32));
                used.push(slot);
            } else {
                let at = random.below(used.len());
                let slot = used.swap_remove(at);
                assert_eq!(slab.remove(slot), Some(slot));
                slab.settle();
                free.insert(slot);
            }
            assert_eq!(slab.len(), used.len());
        }
    }
}
