use proptest::prelude::*;

use super::*;

fn tcp(host: &str, port: u16) -> StoreAddress {
    StoreAddress::Tcp(host.to_owned(), port)
}

fn asked() -> StoreAddress {
    tcp("seed.example", 6379)
}

/// A reply in the protocol of Redis.
fn reply(text: &str) -> Value {
    redis::parse_redis_value(text.as_bytes()).unwrap()
}

/// One range of slots, with a replica behind the primary.
fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
    let node = |host, port| Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
    let replica = node(Value::BulkString(b"10.9.9.9".to_vec()), 1);
    Value::Array(vec![Value::Int(first), Value::Int(last), node(host, port), replica])
}

fn named(host: &str) -> Value {
    Value::BulkString(host.as_bytes().to_vec())
}

#[test]
fn the_slot_of_a_key_is_that_of_the_specification() {
    // Appendix A of the Redis Cluster specification: the checksum of "123456789" is 0x31C3.
    assert_eq!(CRC16.checksum(b"123456789"), 0x31C3);
    assert_eq!(slot_of("123456789"), 0x31C3);
    // What `CLUSTER KEYSLOT` of redis-server 7.0 answers.
    for (key, slot) in [("foo", 12_182), ("somekey", 11_058), ("foo{hash_tag}", 2_515), ("", 0)] {
        assert_eq!(slot_of(key), slot, "{key:?}");
    }
}

#[test]
fn the_part_in_the_first_braces_decides_unless_it_is_empty() {
    let same = [("{user1000}.following", "user1000"), ("foo{bar}{zap}", "bar"), ("foo{{bar}}zap", "{bar")];
    assert!(same.iter().all(|(key, part)| slot_of(key) == slot_of(part)));
    for key in ["foo{}{bar}", "foo{bar", "foo}bar{"] {
        assert_eq!(slot_of(key), usize::from(CRC16.checksum(key.as_bytes())) % SLOTS, "{key}");
    }
    assert_eq!(slot_of("{sessile}:a:b"), slot_of("{sessile}:fleet"));
}

#[test]
fn the_reply_to_cluster_slots_names_the_primary_of_each_range() {
    let text = "*2\r\n\
        *4\r\n:0\r\n:8191\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n*0\r\n*3\r\n$9\r\n127.0.0.1\r\n:7004\r\n$2\r\nid\r\n\
        *3\r\n:8192\r\n:16383\r\n*4\r\n$3\r\n::1\r\n:7002\r\n$2\r\nid\r\n*2\r\n$8\r\nhostname\r\n$1\r\nx\r\n";
    let map = SlotMap::read(reply(text), &asked()).unwrap();
    assert_eq!(**map.node("foo").unwrap(), tcp("::1", 7002));
    assert_eq!(**map.node("foo{hash_tag}").unwrap(), tcp("127.0.0.1", 7001));
    let nodes: Vec<_> = map.nodes().map(|(node, count)| (node.to_string(), count)).collect();
    assert_eq!(nodes, [("127.0.0.1:7001".to_owned(), 8_192), ("[::1]:7002".to_owned(), 8_192)]);
    assert!(map.is_whole());
}

#[test]
fn a_host_that_is_not_named_is_that_of_the_server_and_one_that_is_not_known_has_no_address() {
    let ranges = [range(0, 9, Value::Nil, 1), range(10, 19, named(""), 2), range(20, 29, named("?"), 3)];
    let map = SlotMap::read(Value::Array(ranges.to_vec()), &asked()).unwrap();
    let at = |slot: usize| map.by_slot[slot];
    assert_eq!((*map.nodes[0]).clone(), tcp("seed.example", 1));
    assert_eq!((at(9), at(10), at(20), at(16_383)), (0, 1, NONE, NONE));
    assert!(!map.is_whole() && map.node("foo").is_none());
}

#[test]
fn nonsense_is_no_map() {
    let bad = [
        Value::Nil,
        Value::Int(3),
        Value::Array(vec![]),
        Value::Array(vec![Value::Int(3)]),
        Value::Array(vec![range(5, 4, named("h"), 1)]),
        Value::Array(vec![range(0, 16_384, named("h"), 1)]),
        Value::Array(vec![range(-1, 3, named("h"), 1)]),
        Value::Array(vec![range(0, 16_383, named("h"), 1), range(0, 0, named("h"), 1)]),
        Value::Array(vec![range(0, 3, named("?"), 1)]),
        Value::Array(vec![range(0, 3, named("h\r\nx"), 1)]),
        Value::Array(vec![range(0, 3, named("h"), 0)]),
        Value::Array(vec![range(0, 3, named("h"), 70_000)]),
    ];
    for value in bad {
        let shown = format!("{value:?}");
        assert!(SlotMap::read(value, &asked()).is_err(), "{shown}");
    }
}

#[test]
fn more_nodes_than_connections_are_refused() {
    let ranges = |count: i64| Value::Array((0..count).map(|n| range(n, n, named("h"), n + 1)).collect());
    assert!(SlotMap::read(ranges(NODES_MAX as i64), &asked()).is_ok());
    let why = SlotMap::read(ranges(NODES_MAX as i64 + 1), &asked()).unwrap_err();
    assert_eq!(why, "it has more than 256 nodes with slots");
}

#[test]
fn a_slot_that_has_moved_is_at_its_new_node() {
    let mut map = SlotMap::read(Value::Array(vec![range(0, 16_383, named("a"), 1)]), &asked()).unwrap();
    let moved = SlotRedirect::read("MOVED 12182 10.0.0.2:7002").unwrap();
    let to = moved.address(&asked()).unwrap();
    assert!(moved.is_moved);
    map.moved(moved.slot, &to);
    assert_eq!((map.node("foo").unwrap().to_string(), map.nodes().count()), ("10.0.0.2:7002".to_owned(), 2));
    assert_eq!(map.nodes().map(|(_, count)| count).sum::<usize>(), SLOTS);
}

#[test]
fn a_redirect_names_slot_and_node() {
    let read = |text: &str| SlotRedirect::read(text).map(|to| (to.is_moved, to.slot, to.address(&asked())));
    assert_eq!(read("ASK 3999 127.0.0.1:6381"), Some((false, 3_999, Some(tcp("127.0.0.1", 6381)))));
    assert_eq!(read("MOVED 0 2001:db8::1:6381"), Some((true, 0, Some(tcp("2001:db8::1", 6381)))));
    assert_eq!(read("MOVED 5 :6381"), Some((true, 5, Some(tcp("seed.example", 6381)))));
    assert_eq!(read("MOVED 5 ?:6381"), Some((true, 5, None)));
    let others =
        ["", "MOVED", "MOVED 5", "MOVED 16384 h:1", "MOVED x h:1", "MOVED 5 h", "MOVED 5 h:0", "TRYAGAIN 5 h:1"];
    assert!(others.iter().all(|text| SlotRedirect::read(text).is_none()));
    assert!(SlotRedirect::read("MOVED 5 h/../x:1").is_none());
}

proptest! {
    #[test]
    fn no_text_breaks_a_redirect_or_a_slot(text in ".{0,80}") {
        prop_assert!(slot_of(&text) < SLOTS);
        if let Some(to) = SlotRedirect::read(&text) {
            prop_assert!(to.slot < SLOTS);
        }
    }
}
