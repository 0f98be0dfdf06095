//! The keys that come most often, and their share of all picks.
//!
//! Estimates from a sample; counts nothing exactly and forgets with time. Invariant: at most [`KEYS`] keys a stripe,
//! whatever clients send; a pick outside the sample costs one thread-local decrement, and no pick ever waits.
//!
//! The sketch is *space-saving* (Metwally, Agrawal, El Abbadi 2005): a new key takes the place of the rarest one
//! together with its count, which bounds its error. Every key with more than 1 in [`KEYS`] of the sample is in the
//! sketch. Counts are halved every [`HALF_LIFE_MIN`] minutes, so a share covers about the last twenty minutes.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::{KeyHash, Minute};

/// Number of keys in one sketch.
pub const KEYS: usize = 64;
/// On average one pick in this many enters the sample.
pub const EVERY: u32 = 64;
/// Minutes after which a pick counts half.
pub const HALF_LIFE_MIN: u32 = 10;
/// Bytes of a key that are kept for display.
pub const LABEL_BYTES: usize = 64;

/// Number of sketches; threads are spread over them.
const STRIPES: usize = 16;

/// Sketches of the keys that come most often.
#[derive(Debug)]
pub struct TopKeys {
    stripes: Box<[Mutex<Sketch>]>,
}

/// A key that comes often, for display.
#[derive(Debug, Clone, PartialEq)]
pub struct Hot {
    /// Hash of the key in the stick table.
    pub key: KeyHash,
    /// Text of the key when it first entered the sketch.
    pub label: Label,
    /// Share of all picks that were for this key, 0 to 1.
    pub share: f64,
    /// Amount by which `share` may be too high.
    pub error: f64,
}

/// First bytes of a key, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    bytes: [u8; LABEL_BYTES],
    length: usize,
}

#[derive(Debug, Default)]
struct Sketch {
    keys: Vec<SketchRow>,
    total: u64,
    halved: Option<Minute>,
}

#[derive(Debug, Clone)]
struct SketchRow {
    key: KeyHash,
    count: u64,
    error: u64,
    label: Label,
}

/// A thread's position in its sample.
struct Turn {
    left: Cell<u32>,
    random: Cell<u32>,
    stripe: Cell<usize>,
}

thread_local! {
    static TURN: Turn = const { Turn { left: Cell::new(1), random: Cell::new(0), stripe: Cell::new(0) } };
}

impl Default for TopKeys {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }
}

impl TopKeys {
    /// Counts a pick for a key, if it is in the sample; `label` is only called then.
    #[inline]
    pub fn observe(&self, key: KeyHash, now: Minute, label: impl FnOnce() -> Label) {
        let sampled = TURN.with(|turn| {
            let left = turn.left.get() - 1;
            turn.left.set(left);
            if left == 0 { Some(turn.next()) } else { None }
        });
        if let Some(stripe) = sampled {
            self.sample(stripe, key, label(), now);
        }
    }

    /// The keys with the greatest shares, greatest first, at most `count`.
    pub fn top(&self, count: usize, now: Minute) -> Vec<Hot> {
        let (mut keys, mut total) = (Vec::<SketchRow>::new(), 0);
        for stripe in &self.stripes {
            let mut sketch = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            sketch.age(now);
            total += sketch.total;
            keys.extend_from_slice(&sketch.keys);
        }
        keys.sort_unstable_by_key(|row| row.key);
        keys.dedup_by(|again, row| {
            let same = again.key == row.key;
            if same {
                row.count += again.count;
                row.error += again.error;
            }
            same
        });
        keys.sort_unstable_by_key(|row| std::cmp::Reverse((row.count, row.key)));
        let share = |count: u64| count as f64 / total.max(1) as f64;
        let hot =
            |row: SketchRow| Hot { key: row.key, label: row.label, share: share(row.count), error: share(row.error) };
        keys.into_iter().take(count).map(hot).collect()
    }

    #[cold]
    fn sample(&self, stripe: usize, key: KeyHash, label: Label, now: Minute) {
        if let Some(mut sketch) = try_lock(&self.stripes[stripe]) {
            sketch.count(key, label, now);
        }
    }
}

impl Label {
    /// The first [`LABEL_BYTES`] of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut label = Self { length: bytes.len().min(LABEL_BYTES), ..Self::default() };
        label.bytes[..label.length].copy_from_slice(&bytes[..label.length]);
        label
    }

    /// The bytes that were kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Default for Label {
    fn default() -> Self {
        Self { bytes: [0; LABEL_BYTES], length: 0 }
    }
}

impl Turn {
    /// Draws the number of picks until the next in the sample: between 1 and twice the mean, because a fixed step could
    /// miss a pattern in the traffic. Returns the thread's stripe.
    fn next(&self) -> usize {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        if self.random.get() == 0 {
            let thread = THREADS.fetch_add(1, Relaxed);
            self.stripe.set(thread % STRIPES);
            self.random.set((thread as u32).wrapping_mul(0x9e37_79b9) | 1);
        }
        // xorshift32 (Marsaglia 2003)
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random.set(x);
        self.left.set(1 + x % (2 * EVERY - 1));
        self.stripe.get()
    }
}

impl Sketch {
    fn count(&mut self, key: KeyHash, label: Label, now: Minute) {
        self.keys.reserve_exact(KEYS - self.keys.len());
        self.age(now);
        self.total += 1;
        if let Some(row) = self.keys.iter_mut().find(|row| row.key == key) {
            row.count += 1;
        } else if self.keys.len() < KEYS {
            self.keys.push(SketchRow { key, count: 1, error: 0, label });
        } else if let Some(rarest) = self.keys.iter_mut().min_by_key(|row| row.count) {
            *rarest = SketchRow { key, count: rarest.count + 1, error: rarest.count, label };
        }
    }

    fn age(&mut self, now: Minute) {
        let since = *self.halved.get_or_insert(now);
        let halvings = now.age_min(since) / HALF_LIFE_MIN;
        if halvings == 0 {
            return;
        }
        self.halved = Some(now);
        let by = halvings.min(63);
        self.total >>= by;
        self.keys.retain_mut(|row| {
            row.count >>= by;
            row.error >>= by;
            row.count > 0
        });
    }
}

/// Locks a stripe unless another thread has it: a lost sample does not matter.
fn try_lock(stripe: &Mutex<Sketch>) -> Option<MutexGuard<'_, Sketch>> {
    match stripe.try_lock() {
        Ok(sketch) => Some(sketch),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Minute = Minute::START;

    fn key(n: u64) -> KeyHash {
        KeyHash(n)
    }

    #[test]
    fn a_key_with_sixty_percent_is_seen_to_have_them() {
        let hottest = TopKeys::default();
        for n in 0..400_000u64 {
            let (key, label) = if n % 10 < 6 { (key(1), &b"campus"[..]) } else { (key(1000 + n), &b"one of many"[..]) };
            hottest.observe(key, NOW, || Label::of(label));
        }
        let top = hottest.top(3, NOW);
        assert_eq!((top.len(), top[0].key, top[0].label.bytes()), (3, key(1), &b"campus"[..]));
        assert!((top[0].share - 0.6).abs() < 0.04, "{top:?}");
        assert!(top[1].share - top[1].error < 0.01, "nobody else is hot: {top:?}");
    }

    #[test]
    fn a_pattern_in_step_with_the_sample_does_not_hide() {
        let hottest = TopKeys::default();
        for n in 0..400_000u64 {
            hottest.observe(key(n % u64::from(EVERY)), NOW, Label::default);
        }
        let top = hottest.top(KEYS, NOW);
        assert_eq!(top.len(), KEYS);
        assert!(top.iter().all(|hot| (hot.share - 1.0 / 64.0).abs() < 0.008), "{top:?}");
    }

    #[test]
    fn threads_are_added_up_and_keys_stay_bounded() {
        let hottest = TopKeys::default();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let hottest = &hottest;
                scope.spawn(move || {
                    for n in 0..100_000u64 {
                        let key = key(if n % 2 == 0 { 7 } else { n << 8 | thread });
                        hottest.observe(key, NOW, || Label::of(&[b'x'; 500]));
                    }
                });
            }
        });
        let all = hottest.top(usize::MAX, NOW);
        assert!(all.len() <= STRIPES * KEYS);
        assert_eq!(all[0].key, key(7));
        assert!((all[0].share - 0.5).abs() < 0.04, "{:?}", all[0]);
        assert_eq!(all[0].label.bytes().len(), LABEL_BYTES);
    }

    #[test]
    fn what_was_hot_cools() {
        let mut sketch = Sketch::default();
        let at = |minute: u64| Minute::of_ms(minute * 60_000);
        for _ in 0..1_000 {
            sketch.count(key(1), Label::of(b"old"), at(0));
        }
        for _ in 0..1_000 {
            sketch.count(key(2), Label::of(b"new"), at(20));
        }
        let count = |n| sketch.keys.iter().find(|row| row.key == key(n)).map(|row| row.count);
        assert_eq!((count(1), count(2), sketch.total), (Some(250), Some(1_000), 1_250));
        sketch.count(key(3), Label::default(), at(100_000));
        assert_eq!((sketch.keys.len(), sketch.total), (1, 1));
    }
}
