//! Rules for pools with a source of backends.

use super::{check, config_of, resolve, shown, warnings};
use crate::config::{Discover, DiscoverSource, OnEmpty, Vanish};

fn site(pool: &str) -> String {
    format!("[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:80\"\npool = \"app\"\n[[pool]]\nname = \"app\"\n{pool}\n")
}

const FILE: &str = "[pool.discover]\nkind = \"file\"\npath = \"/run/app\"\n";

#[test]
fn a_source_alone_is_enough_and_backends_of_the_file_stand_beside_it() {
    let config = config_of(&site(FILE));
    let whole = Discover {
        source: DiscoverSource::File("/run/app".into()),
        vanish: Vanish::Drain,
        empty: OnEmpty::Keep,
        max_backends: 1_024,
    };
    assert_eq!((config.pools[0].discover.as_ref(), config.pools[0].backends.len()), (Some(&whole), 0));
    let beside = site(&format!(
        "backend = {{ name = \"a\", address = \"10.0.0.1:80\", weight = 0, state = \"drain\" }}\n{FILE}"
    ));
    assert_eq!((config_of(&beside).pools[0].backends.len(), warnings(&beside)), (1, String::new()));
    let all = config_of(&site(&format!("{FILE}vanish = \"down\"\nempty = \"apply\"\nmax_backends = 3\n")));
    let all = all.pools[0].discover.clone().unwrap();
    assert_eq!((all.vanish, all.empty, all.max_backends), (Vanish::Down, OnEmpty::Apply, 3));
}

#[test]
fn a_range_may_be_pinned_to_what_a_source_names() {
    let pinned = site(&format!("range = {{ name = \"r\", cidr = \"10.0.0.0/8\", pin = [\"x\"] }}\n{FILE}"));
    assert_eq!(warnings(&pinned), "");
}

#[test]
fn each_mistake_is_named_at_its_place() {
    for (pool, problem) in [
        ("[pool.discover]\npath = \"/run/app\"", "7:1: pool \"app\": discover: has no kind"),
        ("[pool.discover]\nkind = \"file\"", "7:1: pool \"app\": discover: has no path"),
        (
            "[pool.discover]\nkind = \"fiel\"\npath = \"x\"",
            "8:8: pool \"app\": discover: kind \"fiel\" is not one of \"file\"",
        ),
        ("discover = \"file\"", "7:12: pool \"app\": discover \"file\" is not a table (hint: write [pool.discover])"),
        (
            &format!("{FILE}max_backends = 0"),
            "10:16: pool \"app\": discover: max_backends 0 is not between 1 and 16384",
        ),
        (&format!("{FILE}vanish = \"drop\""), "10:10: pool \"app\": discover: vanish \"drop\" is not one of"),
        (&format!("stick_group = \"g\"\n{FILE}"), "7:15: pool \"app\": stick_group needs pools with the same backends"),
        ("", "pool \"app\": has no backend"),
    ] {
        let found = shown(&check(&site(pool), &resolve).unwrap_err());
        assert!(found.contains(problem), "{pool}: {found}");
    }
}
