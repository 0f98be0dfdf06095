//! Pools that share their stick table, and what they take along.

use super::stick_table::{CLIENTS, after, moved, remembering, rules, visit, visit_all};
use crate::outcome::PickReason;
use crate::pool::*;
use crate::sticky::table::{EntryKind, Secret, TableLookup};

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
    assert!(old[0].table().unwrap().stick_table().is_same(old[1].table().unwrap().stick_table()));
    // Now placement says otherwise, and the other pool knows by stick table alone.
    let grown = after(&twins(&["a", "b", "c", "d", "e"], Some("web")).each_ref(), &[&old[0], &old[1]]);
    for (low, home) in homes.iter().enumerate() {
        let pick = visit(&grown[1], low as u32, 0);
        assert_eq!((pick.backend.name(), pick.reason, pick.cause()), (home.as_str(), PickReason::StickTable, None));
    }
    assert_eq!(grown[1].table().unwrap().stats(0).known, u64::from(CLIENTS));
}

#[test]
fn who_was_known_is_known_when_a_pool_joins_a_group_leaves_it_or_the_group_has_another_size() {
    let (names, grown) = (["a", "b", "c"], ["a", "b", "c", "d"]);
    let larger = |configs: [config::Pool; 2]| {
        configs.map(|config| config::Pool {
            stick_table: Some(config::StickTableRules { bytes: 2 << 20, ..rules() }),
            ..config
        })
    };
    let apart = after(&twins(&names, None).each_ref(), &[]);
    assert!(!apart[0].table().unwrap().stick_table().is_same(apart[1].table().unwrap().stick_table()));
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

#[test]
fn values_last_used_before_keys_are_over_survive_another_size_and_another_group() {
    const NOW_MS: u64 = 4 * 3_600_000;
    let learning = |group: &str, bytes: u64| {
        let mode =
            config::CookieMode::Learn { remember: Duration::from_secs(24 * 3_600), carrier: config::Carrier::Cookie };
        config::Pool {
            stick_group: Some(group.to_owned()),
            cookie: Some(config::Cookie { name: "SID".to_owned(), mode }),
            ..remembering(&["a", "b"], config::StickTableRules { bytes, ..rules() })
        }
    };
    let secret = Secret::new([7; 16]);
    let give = |config: &config::Pool, before: Option<&Pool>| {
        StickTables::new(before, &secret, NOW_MS).give(Pool::new(config, before, 1))
    };
    let mut pool = give(&learning("web", 1 << 20), None);
    visit(&pool, 1, 0);
    pool.table().unwrap().learn(b"set", &pool.backends()[1], 0);
    pool.table().unwrap().settle(pool.table().unwrap().remember_value(b"brought").unwrap(), &pool.backends()[1], 0);
    for next in [learning("web", 2 << 20), learning("other", 2 << 20)] {
        let next = give(&next, Some(&pool));
        assert!(!next.table().unwrap().stick_table().is_same(pool.table().unwrap().stick_table()));
        next.take_over(&pool, NOW_MS);
        let stats = next.table().unwrap().stats(NOW_MS);
        assert_eq!((stats.known, stats.learned), (2, 2), "the key was over");
        for (value, kind) in [(&b"set"[..], EntryKind::Learned), (b"brought", EntryKind::Brought)] {
            assert_eq!(next.table().unwrap().lookup_value(value, NOW_MS), TableLookup::At(1, kind));
        }
        pool = next;
    }
}
