//! The keys that come most often, and their share of all picks.
//!
//! Counts every pick while there are few, a sample of them while there are many, and forgets with time. Invariant: at
//! most [`KEYS`] keys a stripe, whatever clients send; a pick outside the sample costs one load and one store on a cache
//! line of the thread, and no pick ever waits; a share is wrong by no more than its error says.
//!
//! The sketch is *space-saving* (Metwally, Agrawal, El Abbadi 2005): a new key takes the place of the rarest one
//! together with its count, which bounds its error. Every key with more than 1 in [`KEYS`] of the picks is in the
//! sketch. Counts are halved every [`HALF_LIFE_MIN`] minutes, so a share covers about the last twenty minutes.
//!
//! # The error of a share
//!
//! Of the first [`EXACT`] picks of a thread each is counted; with more, the interval of the sample doubles as the picks
//! do, up to [`EVERY`], and a pick of the sample counts as often as its interval. Such a pick of weight `w` adds
//! `w (w - 1)` to the variance of its key and of the total. The error of a share is the sum of what the sketch may have
//! confused, two standard deviations of the sample, and three intervals: a key with fewer picks may have none in the
//! sample. So it is 0 where all picks were counted and the keys fit into the sketch, and holds in 95 of 100 cases
//! elsewhere.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::stripes::Stripes;
use super::{KeyHash, Minute};

/// Number of keys in one sketch.
pub const KEYS: usize = 64;
/// Longest interval of the sample: on average one pick in this many is counted.
pub const EVERY: u32 = 64;
/// Number of picks up to which each is counted, by thread.
pub const EXACT: u64 = 4_096;
/// Minutes after which a pick counts half.
pub const HALF_LIFE_MIN: u32 = 10;
/// Bytes of a key that are kept for display.
pub const LABEL_BYTES: usize = 64;

/// Sketches of the keys that come most often, one for each thread that has picked.
#[derive(Debug, Default)]
pub struct TopKeys {
    stripes: Stripes<Stripe>,
}

/// The most frequent keys, and how they were counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hottest {
    /// The keys, greatest share first.
    pub keys: Vec<Hot>,
    /// True if shares come from a sample; false: every pick was counted.
    pub sampled: bool,
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
    /// The most by which `share` may be wrong, up or down.
    pub error: f64,
}

/// First bytes of a key, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    bytes: [u8; LABEL_BYTES],
    length: usize,
}

/// The sketch of some threads, mostly of one.
#[derive(Debug, Default)]
struct Stripe {
    /// Picks until the next one in the sample; with 0 and 1, the next pick is.
    left: AtomicU32,
    sketch: Mutex<Sketch>,
}

#[derive(Debug)]
struct Sketch {
    keys: Vec<SketchRow>,
    /// Picks, those between two of the sample included.
    total: u64,
    /// Variance of the total, from sampling.
    variance: u64,
    /// Interval of the sample, from which its next pick was drawn.
    every: u32,
    random: u32,
    halved: Option<Minute>,
}

#[derive(Debug, Clone)]
struct SketchRow {
    key: KeyHash,
    count: u64,
    /// The most by which `count` is too high, because the key took the place of another one.
    error: u64,
    /// Variance of the count, from sampling.
    variance: u64,
    label: Label,
}

impl TopKeys {
    /// Counts a pick for a key, if it is in the sample; `label` is only called for a key that enters the sketch.
    #[inline]
    pub fn observe(&self, key: KeyHash, now: Minute, label: impl FnOnce() -> Label) {
        let stripe = self.stripes.own();
        let left = stripe.left.load(Relaxed);
        if left > 1 {
            stripe.left.store(left - 1, Relaxed);
        } else {
            stripe.sample(key, label, now);
        }
    }

    /// The keys with the greatest shares, greatest first, at most `count`.
    pub fn top(&self, count: usize, now: Minute) -> Hottest {
        let (mut rows, mut total, mut variance, mut rarest) = (Vec::<SketchRow>::new(), 0, 0, 0);
        for stripe in self.stripes.all() {
            let mut sketch = stripe.sketch.lock().unwrap_or_else(PoisonError::into_inner);
            sketch.age(now);
            stripe.shorten(&mut sketch);
            total += sketch.total;
            variance += sketch.variance;
            rarest += sketch.rarest();
            rows.extend_from_slice(&sketch.keys);
        }
        rows.sort_unstable_by_key(|row| row.key);
        rows.dedup_by(|again, row| {
            let same = again.key == row.key;
            if same {
                row.count += again.count;
                row.error += again.error;
                row.variance += again.variance;
            }
            same
        });
        // What a key has for certain decides: the rest of its count may be that of others.
        rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.count - row.error, row.count, row.key)));
        let whole = Whole { total: total.max(1) as f64, variance: variance as f64, rarest: rarest as f64 };
        Hottest { keys: rows.iter().take(count).map(|row| whole.hot(row)).collect(), sampled: variance > 0 }
    }
}

impl Stripe {
    #[cold]
    fn sample(&self, key: KeyHash, label: impl FnOnce() -> Label, now: Minute) {
        if let Some(mut sketch) = try_lock(&self.sketch) {
            sketch.count(key, label, now);
            self.left.store(sketch.draw(), Relaxed);
        }
    }

    /// Draws the next pick of the sample again if the interval is shorter now: after a rush the next pick of a calm time
    /// must not stand for many.
    fn shorten(&self, sketch: &mut Sketch) {
        if sketch.interval() < sketch.every {
            self.left.store(sketch.draw(), Relaxed);
        }
    }
}

/// All sketches together.
struct Whole {
    total: f64,
    variance: f64,
    /// The most picks that a key may have which is in no sketch.
    rarest: f64,
}

impl Whole {
    /// A key with its share, and the bound of the share's error.
    fn hot(&self, row: &SketchRow) -> Hot {
        let Self { total, variance, rarest } = *self;
        let (count, confused) = ((row.count - row.error) as f64, (row.error as f64).max(rarest));
        let (share, own) = (count / total, row.variance as f64);
        let others = (variance - own).max(0.0);
        let deviation = ((1.0 - share).powi(2) * own + share.powi(2) * others).sqrt() / total;
        let interval = variance / total;
        let error = confused / total + 2.0 * deviation + 3.0 * interval / total;
        Hot { key: row.key, label: row.label, share, error: error.min(1.0) }
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

impl Default for Sketch {
    fn default() -> Self {
        Self { keys: Vec::new(), total: 0, variance: 0, every: 1, random: 1, halved: None }
    }
}

impl Sketch {
    /// Counts a pick of the sample, which stands for as many picks as the interval was long.
    fn count(&mut self, key: KeyHash, label: impl FnOnce() -> Label, now: Minute) {
        self.keys.reserve_exact(KEYS - self.keys.len());
        self.age(now);
        let weight = u64::from(self.every);
        let of_sample = weight * (weight - 1);
        self.total += weight;
        self.variance += of_sample;
        if let Some(row) = self.keys.iter_mut().find(|row| row.key == key) {
            row.count += weight;
            row.variance += of_sample;
        } else if self.keys.len() < KEYS {
            self.keys.push(SketchRow { key, count: weight, error: 0, variance: of_sample, label: label() });
        } else if let Some(rarest) = self.keys.iter_mut().min_by_key(|row| row.count) {
            let (error, label) = (rarest.count, label());
            *rarest = SketchRow { key, count: error + weight, error, variance: of_sample, label };
        }
    }

    /// The interval of the sample that fits the number of picks: 1 up to [`EXACT`], and no more than [`EVERY`].
    fn interval(&self) -> u32 {
        let times = u32::try_from(self.total / EXACT).unwrap_or(EVERY);
        times.min(EVERY).next_power_of_two()
    }

    /// Draws the number of picks until the next in the sample: between 1 and twice the interval, because a fixed step
    /// could miss a pattern in the traffic.
    fn draw(&mut self) -> u32 {
        self.every = self.interval();
        // xorshift32 (Marsaglia 2003)
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        1 + self.random % (2 * self.every - 1)
    }

    /// The most picks that a key may have which is not in this sketch.
    fn rarest(&self) -> u64 {
        if self.keys.len() < KEYS { 0 } else { self.keys.iter().map(|row| row.count).min().unwrap_or(0) }
    }

    fn age(&mut self, now: Minute) {
        let since = *self.halved.get_or_insert(now);
        let halvings = now.age_min(since) / HALF_LIFE_MIN;
        if halvings == 0 {
            return;
        }
        self.halved = Some(now);
        let by = halvings.min(31);
        self.total >>= by;
        // Half of a count has a quarter of its variance.
        self.variance >>= 2 * by;
        self.keys.retain_mut(|row| {
            row.count >>= by;
            row.error >>= by;
            row.variance >>= 2 * by;
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
    use crate::sticky::table::stripes::STRIPES;

    const NOW: Minute = Minute::START;

    fn key(n: u64) -> KeyHash {
        KeyHash(n)
    }

    /// Picks of a new sketch: `picks` times the key that `of` returns for its number.
    fn seen(picks: u64, of: impl Fn(u64) -> u64) -> Hottest {
        let hottest = TopKeys::default();
        (0..picks).for_each(|n| hottest.observe(key(of(n)), NOW, || Label::of(&of(n).to_be_bytes())));
        hottest.top(usize::MAX, NOW)
    }

    #[test]
    fn few_picks_are_counted_one_by_one() {
        let Hottest { keys, sampled } = seen(120, |n| n % 60);
        assert_eq!((keys.len(), sampled), (60, false));
        for Hot { label, share, error, key } in keys {
            assert_eq!((share, error), (1.0 / 60.0, 0.0), "{key:?}");
            assert_eq!(label.bytes(), key.0.to_be_bytes());
        }
        let Hottest { keys, sampled } = seen(EXACT, |n| n.min(5));
        assert_eq!((keys[0].key, keys[0].error, sampled), (key(5), 0.0, false));
        assert_eq!(keys[0].share, (EXACT - 5) as f64 / EXACT as f64);
        assert_eq!(keys[1].share, 1.0 / EXACT as f64);
    }

    #[test]
    fn more_keys_than_a_sketch_has_make_an_error_that_holds() {
        for clients in [65, 100, 1_000, 4_000] {
            let keys = seen(EXACT, |n| n % clients).keys;
            let share = 1.0 / clients as f64;
            assert_eq!(keys.len(), KEYS);
            for hot in keys {
                assert!((hot.share - share).abs() <= hot.error + 1.0 / EXACT as f64, "{clients}: {hot:?}");
                assert!(hot.share <= share + 1.0 / EXACT as f64, "no more than what is certain: {hot:?}");
            }
        }
    }

    #[test]
    fn a_share_of_a_sample_is_within_its_error_and_says_that_it_is_one() {
        let mut outside = 0;
        for (seed, picks) in [6_000, 10_000, 30_000, 100_000, 400_000, 2_000_000].into_iter().enumerate() {
            let random = |n: u64| {
                let mut z = (n + ((seed as u64) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (z ^ (z >> 27)) % 1_000
            };
            // 60 %, 20 %, and many others.
            let of = |n: u64| match random(n) {
                0..600 => 1,
                600..800 => 2,
                other => other,
            };
            let share = |wanted: u64| (0..picks).filter(|n| of(*n) == wanted).count() as f64 / picks as f64;
            let Hottest { keys, sampled } = seen(picks, of);
            assert_eq!(sampled, picks > 2 * EXACT, "{picks}");
            for (hot, wanted) in keys.iter().zip([1, 2]) {
                assert_eq!(hot.key, key(wanted), "{picks}");
                assert!(!sampled || hot.error > 0.0 && hot.error < 0.05, "{picks}: {hot:?}");
                outside += u32::from((hot.share - share(wanted)).abs() > hot.error);
            }
        }
        assert!(outside <= 1, "{outside} of 12");
    }

    #[test]
    fn a_single_pick_after_a_rush_is_not_believed_to_be_all_there_is() {
        let at = |minute: u64| Minute::of_ms(minute * 60_000);
        let hottest = TopKeys::default();
        (0..1_000_000).for_each(|n| hottest.observe(key(n % 50), at(0), Label::default));
        // No scrape in between: the first pick of the sample stands for as many as in the rush.
        let morning = at(10_000);
        (0..200).for_each(|n| hottest.observe(key(1_000 + n % 40), morning, Label::default));
        for hot in hottest.top(KEYS, morning).keys {
            assert!((hot.share - 1.0 / 40.0).abs() <= hot.error, "{hot:?}");
        }
        // With a scrape in the calm, every pick of the morning counts.
        let hottest = TopKeys::default();
        (0..1_000_000).for_each(|n| hottest.observe(key(n % 50), at(0), Label::default));
        assert!(hottest.top(1, morning).keys.is_empty());
        (0..120).for_each(|n| hottest.observe(key(n % 60), morning, Label::default));
        let Hottest { keys, sampled } = hottest.top(KEYS, morning);
        assert!(!sampled && keys.len() == 60, "{keys:?}");
        assert!(keys.iter().all(|hot| (hot.share, hot.error) == (1.0 / 60.0, 0.0)), "{keys:?}");
    }

    #[test]
    fn a_key_with_sixty_percent_is_seen_to_have_them() {
        let of = |n: u64| if n % 10 < 6 { 1 } else { 1000 + n };
        let top = seen(400_000, of).keys;
        assert_eq!((top[0].key, top[0].label.bytes()), (key(1), &1_u64.to_be_bytes()[..]));
        assert!((top[0].share - 0.6).abs() < 0.04, "{:?}", top[0]);
        assert!(top[1].share < 0.01, "nobody else is hot: {:?}", top[1]);
    }

    #[test]
    fn a_pattern_in_step_with_the_sample_does_not_hide() {
        let top = seen(400_000, |n| n % u64::from(EVERY)).keys;
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
        let all = hottest.top(usize::MAX, NOW).keys;
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
            sketch.count(key(1), || Label::of(b"old"), at(0));
        }
        for _ in 0..1_000 {
            sketch.count(key(2), || Label::of(b"new"), at(20));
        }
        let count = |n| sketch.keys.iter().find(|row| row.key == key(n)).map(|row| row.count);
        assert_eq!((count(1), count(2), sketch.total), (Some(250), Some(1_000), 1_250));
        sketch.count(key(3), Label::default, at(100_000));
        assert_eq!((sketch.keys.len(), sketch.total), (1, 1));
    }
}
