//! Where a worker keeps its connections: rows in chunks of 128, lowest free row first, empty chunks given back.
//!
//! Knows nothing of what a row is. Invariant: a token finds the row it was made for or nothing, and a row freed
//! during a batch of events is not used again before `settle`.

/// Rows a chunk.
const ROWS: usize = 128;

/// Which side of a connection an event concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// The client's socket.
    Client = 0,
    /// The backend's socket.
    Backend = 1,
    /// Not a connection: a listener, by number.
    Listener = 2,
    /// Not a connection: the inbox.
    Inbox = 3,
}

/// Names a socket of a connection to the kernel: slot 32 bits, generation 30, side 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// A token for something that is not a connection.
    pub fn special(side: Side, number: u32) -> Self {
        Self(u64::from(number) << 32 | side as u64)
    }

    /// The row.
    pub fn slot(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The side.
    pub fn side(self) -> Side {
        match self.0 & 3 {
            0 => Side::Client,
            1 => Side::Backend,
            2 => Side::Listener,
            _ => Side::Inbox,
        }
    }

    /// The same connection's other or same side.
    pub fn with_side(self, side: Side) -> Self {
        Self(self.0 & !3 | side as u64)
    }

    /// As the kernel keeps it.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// As the kernel gave it.
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

struct Chunk<T> {
    /// A set bit is a row that may be taken.
    free: u128,
    rows: Vec<Option<(u32, T)>>,
}

/// Rows in chunks.
pub struct Slab<T> {
    chunks: Vec<Option<Box<Chunk<T>>>>,
    /// No chunk below this one has a free row.
    lowest: usize,
    /// Rows freed since `settle`.
    freed: Vec<u32>,
    generation: u32,
    live: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), lowest: 0, freed: Vec::new(), generation: 0, live: 0 }
    }
}

impl<T> Slab<T> {
    /// Rows in use.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Puts a row, made with the token it will have, into the lowest free place.
    pub fn insert_with(&mut self, make: impl FnOnce(Token) -> T) -> Token {
        while let Some(Some(chunk)) = self.chunks.get(self.lowest)
            && chunk.free == 0
        {
            self.lowest += 1;
        }
        if self.lowest == self.chunks.len() {
            self.chunks.push(None);
        }
        self.generation = (self.generation + 1) & 0x3fff_ffff;
        let chunk = self.chunks[self.lowest]
            .get_or_insert_with(|| Box::new(Chunk { free: u128::MAX, rows: (0..ROWS).map(|_| None).collect() }));
        let row = chunk.free.trailing_zeros() as usize;
        let token = Token::new((self.lowest * ROWS + row) as u32, self.generation);
        chunk.rows[row] = Some((self.generation, make(token)));
        chunk.free &= !(1 << row);
        self.live += 1;
        token
    }

    /// The row of a token, unless it is gone.
    pub fn find(&mut self, token: Token) -> Option<&mut T> {
        match self.row(token.slot())? {
            Some((generation, value)) if *generation == token.generation() => Some(value),
            _ => None,
        }
    }

    /// The row at a slot.
    pub fn at(&mut self, slot: u32) -> Option<&mut T> {
        self.row(slot)?.as_mut().map(|(_, value)| value)
    }

    /// The token of the row at a slot.
    pub fn token(&mut self, slot: u32) -> Option<Token> {
        self.row(slot)?.as_ref().map(|(generation, _)| Token::new(slot, *generation))
    }

    /// Takes the row at a slot out.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let (_, value) = self.row(slot)?.take()?;
        self.live -= 1;
        self.freed.push(slot);
        Some(value)
    }

    /// Makes the rows freed since the last call available again, and gives empty chunks back.
    pub fn settle(&mut self) {
        while let Some(slot) = self.freed.pop() {
            let (chunk_index, row) = (slot as usize / ROWS, slot as usize % ROWS);
            let Some(chunk) = self.chunks[chunk_index].as_mut() else { continue };
            chunk.free |= 1 << row;
            self.lowest = self.lowest.min(chunk_index);
            // The first chunk stays, so that a quiet worker does not allocate at every connection.
            if chunk.free == u128::MAX && chunk_index > 0 {
                self.chunks[chunk_index] = None;
            }
        }
        while self.chunks.len() > 1 && matches!(self.chunks.last(), Some(None)) {
            self.chunks.pop();
        }
        if self.freed.capacity() > 4 * ROWS {
            self.freed = Vec::new();
        }
    }

    /// Every slot in use, in order.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.iter().enumerate().filter_map(|(index, chunk)| Some((index, chunk.as_ref()?))).flat_map(
            |(index, chunk)| {
                chunk
                    .rows
                    .iter()
                    .enumerate()
                    .filter(|(_, row)| row.is_some())
                    .map(move |(row, _)| (index * ROWS + row) as u32)
            },
        )
    }

    fn row(&mut self, slot: u32) -> Option<&mut Option<(u32, T)>> {
        self.chunks.get_mut(slot as usize / ROWS)?.as_mut().map(|chunk| &mut chunk.rows[slot as usize % ROWS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let tokens: Vec<_> = (0..ROWS * 3).map(|n| slab.insert_with(|_| n)).collect();
        assert_eq!(slab.chunks.len(), 3);
        for token in &tokens[ROWS / 2..] {
            slab.remove(token.slot());
        }
        slab.settle();
        assert_eq!((slab.chunks.len(), slab.len()), (1, ROWS / 2));
        assert_eq!(slab.insert_with(|_| 0).slot() as usize, ROWS / 2);
        assert_eq!(slab.slots().count(), ROWS / 2 + 1);
    }
}
