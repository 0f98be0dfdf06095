//! The table under every interleaving that matters: loom runs small programs over model words, with the memory orders
//! that the table uses, and tries every schedule with up to [`PREEMPTIONS`] forced switches.
//!
//! The programs use two buckets, so that every key has the same two buckets and all threads meet there.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::sticky::table::buckets::{Buckets, Word};
use crate::sticky::table::entry::{Data, Minute, PlacementId};
use crate::sticky::table::secret::KeyHash;
use crate::sticky::table::{BackendId, EntryKind, EntryValue};

const PREEMPTIONS: usize = 2;
const A: u16 = 1;
const B: u16 = 2;

/// A word of the model. Loom skips schedules that it considers equal, and forgets then a read of one thread if another
/// one reads the same word before it writes it. So each step first writes a word common to all threads, without
/// ordering anything: no two schedules are equal then.
struct Modelled {
    turn: Arc<AtomicU64>,
    word: AtomicU64,
}

impl Modelled {
    fn turn(&self) -> &AtomicU64 {
        self.turn.fetch_add(1, Ordering::Relaxed);
        &self.word
    }
}

impl Word for Modelled {
    const TRIES: usize = 2;
    const LOOKS: usize = 3;

    fn load(&self) -> u64 {
        self.turn().load(Ordering::Acquire)
    }

    fn store(&self, value: u64) {
        // Loom would let a plain store slip between a compare-exchange and the value that it read, which the memory
        // model forbids.
        self.turn().swap(value, Ordering::Release);
    }

    fn swap(&self, value: u64) -> u64 {
        self.turn().swap(value, Ordering::AcqRel)
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        self.turn().compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn clear(&self, bits: u64) {
        self.turn().fetch_and(!bits, Ordering::Release);
    }

    fn pause() {
        thread::yield_now();
    }
}

type Model = Buckets<Modelled>;

/// A key with buckets 0 and 1, by the halves of its hash.
fn key(n: u64) -> KeyHash {
    KeyHash(n << 32 | 0xffff_ff00 | n)
}

fn entry(id: u16, minute: u64) -> Data {
    let place = EntryValue { id: BackendId { id, generation: 0 }, kind: EntryKind::Displaced };
    Data::new(place, PlacementId::at(0), Minute::of_ms(minute * 60_000))
}

/// Runs a program under every schedule.
fn explore(program: impl Fn(Arc<Model>) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.max_branches = 20_000;
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = runs.clone();
    model.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let turn = Arc::new(AtomicU64::new(0));
        let words = (0..2 * 8).map(|_| Modelled { turn: turn.clone(), word: AtomicU64::new(0) }).collect();
        program(Arc::new(Buckets::over(words, 2)));
    });
    let runs = runs.load(std::sync::atomic::Ordering::Relaxed);
    assert!(runs > 200, "{runs} ways are too few to be all");
}

/// Stores an entry as `StickTable` does, without its policy: at the key's place, or else at this one.
fn put(buckets: &Model, key: KeyHash, place: usize, data: Data) -> bool {
    let Some(held) = buckets.hold(key) else { return false };
    held.put(held.place_of(key).unwrap_or(place), key, data);
    true
}

fn find(buckets: &Model, key: KeyHash) -> Option<(u16, Minute)> {
    buckets.find(key).map(|found| (found.data.id().id, found.data.seen()))
}

/// Asserts that every key stands once and no lock bit is set.
fn assert_whole(buckets: &Model) {
    let mut keys: Vec<_> = (0..2).flat_map(|bucket| buckets.entries(bucket)).collect();
    assert!(keys.iter().all(|(_, data)| !data.is_locked()));
    keys.sort_by_key(|(key, _)| *key);
    assert!(keys.windows(2).all(|pair| pair[0].0 != pair[1].0), "{keys:?}");
}

#[test]
fn a_key_that_moves_is_never_missed_and_never_elsewhere() {
    explore(|buckets| {
        assert!(put(&buckets, key(1), 1, entry(A, 1)));
        let mover = {
            let buckets = buckets.clone();
            thread::spawn(move || assert!(put(&buckets, key(1), 1, entry(B, 2))))
        };
        let first = find(&buckets, key(1)).map(|(id, _)| id);
        let second = find(&buckets, key(1)).map(|(id, _)| id);
        assert!(matches!((first, second), (Some(A), Some(A | B)) | (Some(B), Some(B))), "{first:?}, then {second:?}");
        mover.join().unwrap();
        assert_eq!(find(&buckets, key(1)).map(|(id, _)| id), Some(B));
    });
}

/// Looks a key up while key 2 takes the place of key 1.
fn evict_while_asking_for(asked: u64, allowed: Option<u16>) {
    explore(move |buckets| {
        assert!(put(&buckets, key(1), 0, entry(A, 1)));
        let evictor = {
            let buckets = buckets.clone();
            thread::spawn(move || assert!(put(&buckets, key(2), 0, entry(B, 2))))
        };
        let answer = find(&buckets, key(asked)).map(|(id, _)| id);
        assert!(answer.is_none() || answer == allowed, "{answer:?}");
        evictor.join().unwrap();
        assert_eq!(find(&buckets, key(1)), None);
        assert!(find(&buckets, key(2)).is_some());
    });
}

#[test]
fn a_key_that_gives_way_is_itself_or_missed() {
    evict_while_asking_for(1, Some(A));
}

#[test]
fn a_newcomer_is_itself_or_missed() {
    evict_while_asking_for(2, Some(B));
}

#[test]
fn halves_of_two_name_nobody() {
    evict_while_asking_for(3, None);
}

#[test]
fn two_that_settle_one_key_make_one_entry() {
    explore(|buckets| {
        let other = {
            let buckets = buckets.clone();
            thread::spawn(move || put(&buckets, key(1), 5, entry(B, 1)))
        };
        let mine = put(&buckets, key(1), 1, entry(A, 1));
        let theirs = other.join().unwrap();
        assert_whole(&buckets);
        let found = find(&buckets, key(1)).map(|(id, _)| id);
        match (mine, theirs) {
            (true, true) => assert!(found.is_some()),
            (true, false) => assert_eq!(found, Some(A)),
            (false, true) => assert_eq!(found, Some(B)),
            (false, false) => panic!("one of two gets through"),
        }
    });
}

#[test]
fn a_touch_brings_nobody_back_and_dates_nobody_else() {
    explore(|buckets| {
        assert!(put(&buckets, key(1), 0, entry(A, 1)));
        let evictor = {
            let buckets = buckets.clone();
            thread::spawn(move || assert!(put(&buckets, key(2), 0, entry(B, 2))))
        };
        if let Some(found) = buckets.find(key(1)) {
            Model::touch(&found, Minute::of_ms(9 * 60_000));
        }
        evictor.join().unwrap();
        assert_whole(&buckets);
        assert_eq!(find(&buckets, key(1)), None);
        assert_eq!(find(&buckets, key(2)), Some((B, Minute::of_ms(2 * 60_000))));
    });
}

#[test]
fn a_change_tells_what_it_replaced_also_where_a_touch_came_between() {
    explore(|buckets| {
        assert!(put(&buckets, key(1), 1, entry(A, 1)));
        let toucher = {
            let buckets = buckets.clone();
            thread::spawn(move || {
                buckets.first_look(key(1)).is_some_and(|found| Model::touch(&found, Minute::of_ms(9 * 60_000)))
            })
        };
        let before = buckets.hold(key(2)).map(|held| held.put(1, key(2), entry(B, 2))).expect("nothing else holds it");
        let minute = if toucher.join().unwrap() { 9 } else { 1 };
        assert_eq!(before, entry(A, minute), "every date is counted once");
    });
}

#[test]
fn touches_neither_break_the_bit_nor_each_other() {
    explore(|buckets| {
        assert!(put(&buckets, key(1), 0, entry(A, 1)));
        let touch = |buckets: &Model| {
            if let Some(found) = buckets.find(key(1)) {
                Model::touch(&found, Minute::of_ms(5 * 60_000));
            }
        };
        let toucher = {
            let buckets = buckets.clone();
            thread::spawn(move || touch(&buckets))
        };
        // The touched word holds the lock bit of the bucket in which another key is put.
        let added = put(&buckets, key(2), 1, entry(B, 2));
        toucher.join().unwrap();
        assert_whole(&buckets);
        let (id, seen) = find(&buckets, key(1)).expect("it stays");
        assert_eq!(id, A);
        assert!([1, 5].map(|minute| Minute::of_ms(minute * 60_000)).contains(&seen));
        assert_eq!(find(&buckets, key(2)).is_some(), added);
    });
}

#[test]
fn a_forgotten_key_is_gone_and_its_neighbour_is_not() {
    explore(|buckets| {
        assert!(put(&buckets, key(1), 0, entry(A, 1)));
        assert!(put(&buckets, key(2), 1, entry(B, 1)));
        let forgetter = {
            let buckets = buckets.clone();
            thread::spawn(move || {
                let held = buckets.hold(key(1)).expect("nobody else holds it");
                held.place_of(key(1)).map(|place| held.empty(place)).expect("it is there");
            })
        };
        assert!(matches!(find(&buckets, key(1)).map(|(id, _)| id), None | Some(A)));
        assert_eq!(find(&buckets, key(2)).map(|(id, _)| id), Some(B));
        let exported: Vec<_> = buckets.entries(0).map(|(key, _)| key).collect();
        // No entry, where the bucket was locked all the time.
        assert!(
            matches!(exported.as_slice(), [] | [_] | [_, _]) && exported.iter().all(|k| [key(1), key(2)].contains(k))
        );
        forgetter.join().unwrap();
        assert_eq!(find(&buckets, key(1)), None);
    });
}

#[test]
fn loom_finds_the_mistake_that_it_is_here_for() {
    // A look-up that believes its first look misses a key that moves: this shows that the programs above can fail.
    let found = std::panic::catch_unwind(|| {
        explore(|buckets| {
            assert!(put(&buckets, key(1), 1, entry(A, 1)));
            let mover = {
                let buckets = buckets.clone();
                thread::spawn(move || assert!(put(&buckets, key(1), 1, entry(B, 2))))
            };
            let missed = buckets.first_look(key(1)).is_none();
            mover.join().unwrap();
            assert!(!missed, "a miss on the first look");
        });
    });
    assert!(found.is_err());
}
