//! Pools that share their memory, and what they take along.

use super::memory_tests::{CLIENTS, after, moved, remembering, rules, visit, visit_all};
use super::*;

/// Two pools of the same backends, by another name and port each.
fn twins(names: &[&str], group: Option<&str>) -> [config::Pool; 2] {
    ["http", "https"].map(|name| config::Pool {
        name: name.to_owned(),
        stick_group: group.map(str::to_owned),
        ..remembering(names, rules())
    })
}

#[test]
fn pools_of_a_group_find_a_client_where_it_settled_in_another() {
    let names = ["a", "b", "c"];
    let old = after(&twins(&names, Some("web")).each_ref(), &[]);
    let homes = visit_all(&old[0], 0);
    assert!(old[0].memory().unwrap().is_same(old[1].memory().unwrap()));
    // Now placement says otherwise, and the other pool knows by memory alone.
    let grown = after(&twins(&["a", "b", "c", "d", "e"], Some("web")).each_ref(), &[&old[0], &old[1]]);
    for (low, home) in homes.iter().enumerate() {
        let pick = visit(&grown[1], low as u32, 0);
        assert_eq!((pick.backend.name(), pick.reason, pick.broke), (home.as_str(), Reason::Memory, None));
    }
    assert_eq!(grown[1].census(0).unwrap().known, u64::from(CLIENTS));
}

#[test]
fn who_was_known_is_known_when_a_pool_joins_a_group_leaves_it_or_the_group_has_another_size() {
    let (names, grown) = (["a", "b", "c"], ["a", "b", "c", "d"]);
    let larger = |configs: [config::Pool; 2]| {
        configs.map(|config| config::Pool { memory: Some(config::Memory { bytes: 2 << 20, ..rules() }), ..config })
    };
    let apart = after(&twins(&names, None).each_ref(), &[]);
    assert!(!apart[0].memory().unwrap().is_same(apart[1].memory().unwrap()));
    let homes = visit_all(&apart[0], 0);
    let mut pools = apart;
    for step in [
        twins(&grown, None),
        twins(&grown, Some("web")),
        larger(twins(&grown, Some("web"))),
        larger(twins(&grown, Some("other"))),
        twins(&grown, None),
    ] {
        let before: Vec<_> = pools.iter().collect();
        pools = after(&step.each_ref(), &before);
        assert_eq!(moved(&homes, &visit_all(&pools[0], 0)), 0, "{step:?}");
    }
    assert_eq!(moved(&homes, &visit_all(&pools[1], 0)), 0, "it was in the group");
}
