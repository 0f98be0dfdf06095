//! Orders of a document: what comes back of one, and what is named as left out.

use super::*;

/// A state with one order about backend `a` of pool `web`.
fn state(fields: &str) -> RuntimeState {
    let order = format!("{{\"name\":\"a\",{fields}}}");
    let text = format!("{{\"version\":1,\"pools\":[{{\"name\":\"web\",\"orders\":[{order}]}}]}}");
    RuntimeState::from_json(&text).unwrap()
}

#[test]
fn a_removal_of_a_backend_without_an_address_is_kept() {
    let kept = state("\"removal\":{\"backend\":{\"address\":\"app.example:80\"}}");
    assert_eq!(kept.left_out(), None);
    let orders = kept.orders("web", 1, 1);
    let removal = orders[0].1.removal.as_ref().unwrap();
    assert_eq!((removal.backend.address.to_string().as_str(), removal.drain), ("app.example:80", None));
    assert!(matches!(removal.backend.address, Address::Name(_)));
}

#[test]
fn a_part_that_cannot_be_read_costs_no_other_part_of_an_order() {
    let removal = "\"removal\":{\"backend\":{\"address\":\"10.0.0.1:1\"}}";
    for (part, named) in [
        ("\"by\":\"of the future\"", "the origin of the order"),
        ("\"weight\":{\"ordered\":257,\"of\":1}", "the ordered weight"),
        ("\"weight\":\"heavy\"", "the ordered weight"),
        ("\"address\":{\"ordered\":\"0.0.0.0:0\",\"of\":\"10.0.0.1:1\"}", "the ordered address"),
        ("\"added\":{\"address\":\"app.example:80\"}", "the addition"),
    ] {
        let state = state(&format!("{part},{removal}"));
        let said = state.left_out().unwrap();
        assert!(said.ends_with(&format!("left out: {named} of backend \"web/a\"")), "{said}");
        let (_, order) = state.orders("web", 1, 1).remove(0);
        assert_eq!((order.removal.is_some(), order.words()), (true, vec!["removed".to_owned()]), "{part}");
        assert_eq!(order.by, OrderOrigin::Command);
    }
    let unread = state("\"removal\":{\"backend\":{\"address\":\"nowhere\"}}");
    assert!(unread.left_out().unwrap().ends_with("left out: the removal of backend \"web/a\""));
}
