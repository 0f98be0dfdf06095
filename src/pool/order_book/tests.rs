//! One book by itself, and three instances that give orders about the same backends while their links fail.

mod model;

use super::*;
use crate::order::NewBackend;

fn order(backend: &str, kind: OrderKind) -> BackendOrder {
    BackendOrder { pool: "web".into(), backend: backend.into(), kind }
}

fn told(backend: &str, kind: OrderKind, at_ms: u64, instance: u64) -> ToldOrder {
    ToldOrder { order: order(backend, kind), stamp: OrderStamp { at_ms, instance }, host: "other".into() }
}

/// An open book, whose store's clock is an hour ahead of the process's.
fn book() -> OrderBook {
    let book = OrderBook::default();
    book.open(1, "here");
    book.date(Some(HOUR));
    book
}

const HOUR: i64 = 3_600_000;

/// The orders that stand for a backend of a book.
fn kinds(book: &OrderBook, backend: &str) -> Vec<OrderKind> {
    book.all().into_iter().filter(|known| &*known.order.backend == backend).map(|known| known.order.kind).collect()
}

#[test]
fn the_later_of_two_orders_counts_whichever_comes_first() {
    let orders = [told("a", OrderKind::Drain, 5_000, 2), told("a", OrderKind::Ready, 6_000, 3)];
    for (first, second, results) in
        [(0, 1, [TakenOrder::New, TakenOrder::New]), (1, 0, [TakenOrder::New, TakenOrder::Older])]
    {
        let book = book();
        assert_eq!([first, second].map(|index| book.take(orders[index].clone())), results);
        assert_eq!(book.take(orders[0].clone()), TakenOrder::Older);
        assert_eq!(book.take(orders[1].clone()), TakenOrder::Known);
        assert_eq!(kinds(&book, "a"), [OrderKind::Ready]);
    }
    // Of two of the same time, that of the instance with the greater number.
    let book = book();
    assert_eq!(book.take(told("a", OrderKind::Drain, 5_000, 3)), TakenOrder::New);
    assert_eq!(book.take(told("a", OrderKind::Ready, 5_000, 2)), TakenOrder::Older);
    assert_eq!(kinds(&book, "a"), [OrderKind::Drain]);
}

#[test]
fn an_order_has_the_time_of_the_stores_clock_and_is_later_than_all_that_were_known() {
    let book = book();
    book.give(&order("a", OrderKind::Drain), 1_000);
    let at_ms = |backend| {
        let waiting = book.waiting().into_iter().find(|told| &*told.order.backend == backend);
        waiting.map(|told| told.stamp.at_ms)
    };
    assert_eq!(at_ms("a"), Some(3_601_000));
    // By the clock of another instance this one was given in five minutes.
    assert_eq!(book.take(told("a", OrderKind::Ready, 3_901_000, 2)), TakenOrder::New);
    book.give(&order("a", OrderKind::Close), 1_001);
    assert_eq!(at_ms("a"), Some(3_901_001));
    assert_eq!(kinds(&book, "a"), [OrderKind::Close]);
}

#[test]
fn an_order_that_is_given_while_the_store_is_away_has_the_time_at_which_it_was_given() {
    let book = book();
    book.date(None);
    book.give(&order("a", OrderKind::Drain), 10_000);
    book.give(&order("b", OrderKind::Drain), 20_000);
    assert!(book.waiting().is_empty(), "its time is not known yet");
    // The store comes back with a clock that is two hours ahead, and with what others have ordered meanwhile.
    book.date(Some(2 * HOUR));
    assert_eq!(book.take(told("a", OrderKind::Ready, 7_200_000 + 15_000, 2)), TakenOrder::New);
    assert_eq!(book.take(told("b", OrderKind::Ready, 7_200_000 + 15_000, 2)), TakenOrder::Older);
    assert_eq!((kinds(&book, "a"), kinds(&book, "b")), (vec![OrderKind::Ready], vec![OrderKind::Drain]));
    let waiting = book.waiting();
    assert_eq!(waiting, [ToldOrder { host: "here".into(), ..told("b", OrderKind::Drain, 7_220_000, 1) }]);
    book.told(&waiting);
    assert!(book.waiting().is_empty());
    book.doubt();
    assert_eq!(book.waiting().len(), 2, "also the orders of others, for a store that has lost all");
    assert_eq!(book.take(told("b", OrderKind::Ready, 7_215_000, 2)), TakenOrder::Older);
    assert_eq!(book.waiting().len(), 2, "what stands in the store is older");
}

#[test]
fn an_order_that_was_replaced_while_it_was_told_waits() {
    let book = book();
    book.give(&order("a", OrderKind::Drain), 1);
    let waiting = book.waiting();
    book.give(&order("a", OrderKind::Ready), 2);
    book.told(&waiting);
    assert_eq!(book.waiting().len(), 1);
    assert_eq!(book.told_count(), 0);
}

#[test]
fn orders_about_several_matters_stand_beside_each_other_until_the_backend_goes() {
    let book = book();
    for (at_ms, kind) in [
        (1, OrderKind::Add(NewBackend::at("127.0.0.1:1"))),
        (2, OrderKind::Weight { weight: Some(3) }),
        (3, OrderKind::Address { address: Some("127.0.0.1:2".into()) }),
        (4, OrderKind::Drain),
    ] {
        assert_eq!(book.take(told("a", kind, at_ms, 2)), TakenOrder::New);
    }
    assert_eq!(book.take(told("b", OrderKind::Drain, 4, 2)), TakenOrder::New);
    let due: Vec<_> = book.due().iter().map(|due| (due.order.backend.clone(), due.order.kind.word())).collect();
    let expected = [("a", "add"), ("a", "weight"), ("a", "address"), ("a", "drain"), ("b", "drain")];
    assert_eq!(due, expected.map(|(backend, word)| (backend.into(), word)), "in the sequence of their times");
    assert_eq!(book.take(told("a", OrderKind::Remove { now: false }, 5, 3)), TakenOrder::New);
    assert_eq!(kinds(&book, "a"), [OrderKind::Remove { now: false }]);
    assert_eq!(book.take(told("a", OrderKind::Drain, 4, 2)), TakenOrder::Older, "about the backend that has gone");
    assert_eq!(book.take(told("a", OrderKind::Ready, 6, 2)), TakenOrder::New, "ends the removal");
    assert_eq!(kinds(&book, "b"), [OrderKind::Drain]);
}

#[test]
fn an_order_is_applied_once_and_again_when_its_backend_comes_back() {
    let book = book();
    assert!(is_pending(&book));
    book.take(told("a", OrderKind::Drain, HOUR as u64 + 5, 2));
    let due = book.due().remove(0);
    assert_eq!((due.given_ms, &*due.host, due.instance, is_pending(&book)), (5, "other", 2, false));
    book.settle(&due, OrderOutcome::NotHere);
    book.follow(|_| false);
    assert!(is_pending(&book));
    book.follow(|_| true);
    assert!(!is_pending(&book), "a reload has brought its backend");
    book.settle(&due, OrderOutcome::Applied);
    book.follow(|_| true);
    assert!(is_pending(&book));
    book.follow(|_| false);
    book.follow(|_| true);
    assert!(!is_pending(&book), "and another one has taken it away and brought it again");
    // What is settled is the order that was due, and no other one.
    book.take(told("a", OrderKind::Close, HOUR as u64 + 6, 2));
    book.settle(&due, OrderOutcome::Applied);
    assert!(!is_pending(&book));
    let close = book.due().remove(0);
    book.give(&order("a", OrderKind::Drain), 7);
    assert!(is_pending(&book), "a command came in between");
    book.settle(&close, OrderOutcome::Applied);
    assert!(!is_pending(&book), "and is carried out again, because the earlier order has come over it");
    book.settle(&book.due().remove(0), OrderOutcome::Refused("no".into()));
    assert!(is_pending(&book));
    book.follow(|_| true);
    assert!(!is_pending(&book), "what was refused is tried again");
    // An order that only ends another one has nothing to do where the backend is new.
    book.take(told("a", OrderKind::Ready, HOUR as u64 + 8, 2));
    book.settle(&book.due().remove(0), OrderOutcome::NotHere);
    book.follow(|_| true);
    assert!(is_pending(&book));
}

fn is_pending(book: &OrderBook) -> bool {
    book.poll_due(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn a_book_keeps_the_orders_that_stand_and_the_latest() {
    let book = book();
    for at_ms in 0..ORDERS_MAX as u64 - 1 {
        assert_eq!(book.take(told(&format!("b{at_ms}"), OrderKind::Drain, at_ms, 2)), TakenOrder::New);
    }
    assert_eq!(book.take(told("c", OrderKind::Ready, 9_000, 2)), TakenOrder::New);
    assert_eq!(book.take(told("d", OrderKind::Drain, 9_001, 2)), TakenOrder::New);
    assert_eq!((book.all().len(), kinds(&book, "c").len(), book.lost()), (ORDERS_MAX, 0, 1), "it ends what has gone");
    assert_eq!(book.take(told("e", OrderKind::Drain, 9_002, 2)), TakenOrder::New);
    assert_eq!((book.all().len(), kinds(&book, "b0").len(), book.lost()), (ORDERS_MAX, 0, 2));
    assert_eq!(book.take(told("b0", OrderKind::Drain, 0, 2)), TakenOrder::NoRoom);
}

#[test]
fn a_closed_book_takes_and_keeps_nothing() {
    let book = book();
    book.give(&order("a", OrderKind::Drain), 1);
    book.close();
    assert!(book.all().is_empty() && !book.is_open());
    book.give(&order("a", OrderKind::Drain), 1);
    assert_eq!(book.take(told("a", OrderKind::Drain, 5, 2)), TakenOrder::Closed);
    assert!(book.all().is_empty());
}
