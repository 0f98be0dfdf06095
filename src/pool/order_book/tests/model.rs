//! Instances with links that fail, and a store with a hash and a stream that loses everything at times.
//!
//! The model has the steps of a session (`store::fleet::session::orders`): the hash is written before the stream, each
//! at a time of its own; a session begins with all that the hash has. Invariant: whatever happens in between, once all
//! have their link and have read, every book is that of one observer who has seen each order when it was given.

use super::*;
use crate::random::Random;

const BACKENDS: [&str; 3] = ["a", "b", "c"];

#[derive(Default)]
struct Store {
    hash: BTreeMap<OrderKey, ToldOrder>,
    stream: Vec<(u64, ToldOrder)>,
}

struct Instance {
    number: u64,
    book: OrderBook,
    /// What the store's clock is ahead of its own.
    ahead_ms: i64,
    is_linked: bool,
    read: usize,
    /// Orders that stand in the hash, and not yet in the stream.
    half_told: Vec<ToldOrder>,
}

impl Instance {
    fn new(number: u64, rng: &mut Random) -> Self {
        let book = OrderBook::default();
        book.open(number, "host");
        let ahead_ms = rng.below(120_000) as i64 - 60_000;
        Self { number, book, ahead_ms, is_linked: false, read: 0, half_told: Vec::new() }
    }

    fn link(&mut self, store: &mut Store) {
        self.book.date(Some(self.ahead_ms));
        self.book.doubt();
        store.hash.values().for_each(|told| _ = self.book.take(told.clone()));
        // A stream that was lost begins anew.
        self.read = self.read.min(store.stream.len());
        self.is_linked = true;
        self.read(store, usize::MAX);
    }

    fn unlink(&mut self) {
        self.book.date(None);
        self.half_told.clear();
        self.is_linked = false;
    }

    /// Another process of the instance, with what the first one has kept.
    fn restart(&mut self, number: u64) {
        let kept = self.book.all();
        self.unlink();
        (self.number, self.book, self.read) = (number, OrderBook::default(), 0);
        self.book.resume(kept);
        self.book.open(number, "host");
    }

    /// Writes the hash, or what stands in it to the stream.
    fn tell(&mut self, store: &mut Store) {
        if !self.half_told.is_empty() {
            let told = std::mem::take(&mut self.half_told);
            self.book.told(&told);
            return store.stream.extend(told.into_iter().map(|told| (self.number, told)));
        }
        self.half_told = self.book.waiting();
        let all = self.half_told.iter().map(|told| (OrderKey::of(&told.order), told.clone()));
        store.hash.extend(all);
    }

    fn read(&mut self, store: &Store, most: usize) {
        let end = self.read.saturating_add(most).min(store.stream.len());
        for (teller, told) in &store.stream[self.read..end] {
            if *teller != self.number {
                self.book.take(told.clone());
            }
        }
        self.read = end;
    }

    fn apply(&mut self) {
        self.book.due().iter().for_each(|due| self.book.settle(due, OrderOutcome::Applied));
    }

    /// What the book comes to: the orders, with their times.
    fn stands(&self) -> Vec<(BackendOrder, Option<u64>, u64)> {
        let all = self.book.all().into_iter();
        all.map(|known| (known.order, known.at_ms, known.instance)).collect()
    }
}

fn any_kind(rng: &mut Random) -> OrderKind {
    match rng.below(8) {
        0 => OrderKind::Add(NewBackend::at("127.0.0.1:1")),
        1 => OrderKind::Remove { now: rng.one_in(2) },
        2 => OrderKind::Weight { weight: rng.one_of(&[None, Some(1), Some(2)]) },
        3 => OrderKind::Address { address: None },
        4 | 5 => OrderKind::Drain,
        6 => OrderKind::Close,
        _ => OrderKind::Ready,
    }
}

fn run(seed: u64) {
    let mut rng = Random::new(seed);
    let (mut store, mut expected) = (Store::default(), BTreeMap::<OrderKey, BackendOrder>::new());
    let mut instances: Vec<_> = (1..=3).map(|number| Instance::new(number, &mut rng)).collect();
    // Times on the store's clock; two orders are never of one time.
    let mut now_ms = 1_000_000_i64;
    for step in 0..200 {
        now_ms += 1 + rng.below(50) as i64;
        let (index, mut is_lost) = (rng.below(instances.len()), false);
        let instance = &mut instances[index];
        match rng.below(12) {
            0..=2 => {
                let order = order(rng.one_of(&BACKENDS), any_kind(&mut rng));
                instance.book.give(&order, now_ms - instance.ahead_ms);
                let key = OrderKey::of(&order);
                if key.matter == OrderMatter::Presence {
                    expected.retain(|other, _| other.backend != key.backend);
                }
                expected.insert(key, order);
            }
            3 => instance.unlink(),
            4 if rng.one_in(4) => instance.restart(10 + step),
            5 if rng.one_in(4) => is_lost = true,
            _ if !instance.is_linked => instance.link(&mut store),
            6 | 7 => instance.read(&store, 1 + rng.below(3)),
            8 => instance.apply(),
            _ => instance.tell(&mut store),
        }
        if is_lost {
            // The links end with it, or the loss is seen a moment later.
            store = Store::default();
            instances.iter_mut().for_each(Instance::unlink);
        }
    }
    instances.push(Instance::new(4, &mut rng));
    for _ in 0..4 {
        for instance in &mut instances {
            instance.link(&mut store);
            (0..4).for_each(|_| instance.tell(&mut store));
            instance.read(&store, usize::MAX);
            instance.apply();
        }
    }
    let stands = instances[0].stands();
    for instance in &instances {
        assert_eq!(instance.stands(), stands, "seed {seed}: instance {} differs", instance.number);
        assert!(instance.book.waiting().is_empty() && instance.book.due().is_empty(), "seed {seed}");
    }
    let orders: Vec<_> = stands.into_iter().map(|(order, ..)| order).collect();
    assert_eq!(orders, expected.into_values().collect::<Vec<_>>(), "seed {seed}: the last order about each matter");
}

#[test]
fn three_instances_and_one_that_starts_late_come_to_the_last_order_about_each_matter() {
    (0..2_000).for_each(run);
}
