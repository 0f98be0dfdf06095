//! A store that is a Redis Cluster: slots that move, nodes that freeze, die, come back, or are followed by their replica.

use rustix::process::Signal;
use serde_json::Value;

use super::redis_cluster::RedisCluster;
use super::{AMPLE, User, Visitor, application, count, nobody_was_refused, seen, stands, text};
use crate::support::authority::Authority;
use crate::support::load_support::Client;
use crate::support::sessile::run;
use crate::support::{Sessile, backend, eventually};

/// A cluster whose nodes miss each other late: longer than a busy machine stops one.
const PATIENT: &[&str] = &["--cluster-node-timeout", "60000"];
/// Failures in a row that open the breaker of a node.
const FAILURES: u64 = 5;

fn logins(visitor: &mut Visitor, count: usize) -> Vec<User> {
    (0..count).map(|_| visitor.login()).collect()
}

/// The nodes as `status` of an instance shows them, by address.
fn nodes(instance: &Sessile) -> Vec<Value> {
    seen(instance)["nodes"].as_array().cloned().unwrap_or_default()
}

/// Waits until an instance reaches so many nodes, and knows no other.
fn reaches(instance: &Sessile, count: usize) {
    eventually(&format!("{count} nodes to be reached"), || {
        let nodes = nodes(instance);
        (nodes.len() == count && nodes.iter().all(|node| node["state"] == "working")).then_some(())
    });
}

/// Waits until a node of the cluster has this state at an instance.
fn node_stands(instance: &Sessile, node: std::net::SocketAddr, state: &str) {
    eventually(&format!("node {node} to be {state}"), || {
        let is_it = |seen: &Value| seen["address"] == node.to_string() && seen["state"] == state;
        nodes(instance).iter().any(is_it).then_some(())
    });
}

/// Waits until nothing waits to be written, and no node is complained of.
fn is_well(instance: &Sessile) {
    eventually("all to be written", || {
        let seen = seen(instance);
        (seen["pending"] == 0 && seen["complaint"].is_null()).then_some(())
    });
}

#[test]
fn a_login_on_one_instance_is_known_on_the_other_through_a_cluster() {
    let test = "a_login_on_one_instance_is_known_on_the_other_through_a_cluster";
    let Some(cluster) = RedisCluster::start(test, 3, 0, PATIENT) else { return };
    let application = application();
    let text = text(&cluster.store(AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    instances.iter().for_each(|instance| reaches(instance, 3));
    let mut visitors = instances.each_ref().map(Visitor::to);
    let mut users = Vec::new();
    for n in 0..200 {
        let user = visitors[n % 2].login();
        assert_eq!(visitors[(n + 1) % 2].ask(&user), user.home, "login {n}");
        users.push(user);
    }
    for (instance, visitor) in instances.iter().zip(&mut visitors) {
        visitor.finds(&users);
        assert_eq!((count(instance, "learn", "stored"), count(instance, "find", "known")), (100, 100));
        assert_eq!((seen(instance)["opened"].as_u64(), instance.metric("sessile_store_up")), (Some(0), 1.0));
        let slots: u64 = nodes(instance).iter().filter_map(|node| node["slots"].as_u64()).sum();
        assert_eq!(slots, 16_384);
        let shown = run(&["status", "--socket", instance.admin().to_str().unwrap()]);
        let flat = String::from_utf8_lossy(&shown.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("3 of 3 nodes reached"), "{flat}");
        assert!(!seen(instance).to_string().contains("hunter2"));
        nobody_was_refused(instance);
    }
    let keys = cluster.keys();
    assert_eq!(keys.len(), users.len());
    assert!((0..3).all(|node| keys.iter().any(|(at, _)| *at == node)), "each node has some");
    // An ended value is deleted at its node.
    visitors[0].get("/logout", &users[0].cookie);
    eventually("it to be forgotten", || (cluster.keys().len() == users.len() - 1).then_some(()));
}

#[test]
fn a_slot_that_moves_is_followed_while_it_moves_and_when_it_has_moved() {
    let test = "a_slot_that_moves_is_followed_while_it_moves_and_when_it_has_moved";
    let Some(cluster) = RedisCluster::start(test, 3, 0, PATIENT) else { return };
    let application = application();
    // All keys have one slot.
    let store = cluster.store(AMPLE) + "prefix = \"{sessile}:\"\n";
    let text = text(&store, &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text), Sessile::start(&text)];
    instances.iter().for_each(|instance| reaches(instance, 3));
    let [mut one, mut other, mut third] = instances.each_ref().map(Visitor::to);
    let before = logins(&mut one, 10);
    let (from, key) = cluster.keys().pop().expect("a user's key");
    let to = (from + 1) % 3;
    let slots = |instance: &Sessile| {
        let is_it = |node: &&Value| node["address"] == cluster.nodes[to].address().to_string();
        nodes(instance).iter().find(is_it).and_then(|node| node["slots"].as_u64())
    };
    let had = slots(&instances[2]).expect("a number");
    // One key is at the other node already, and a new one begins there: it serves those that are told to ask it.
    cluster.begin_to_move(&key, from, to);
    let meanwhile = logins(&mut one, 10);
    assert!(cluster.keys().iter().filter(|(at, _)| *at == to).count() == 11);
    other.finds(&before);
    other.finds(&meanwhile);
    other.get("/logout", &meanwhile[9].cookie);
    eventually("it to be forgotten", || (cluster.keys().len() == 19).then_some(()));
    cluster.end_move(&key, from, to);
    third.finds(&before);
    third.finds(&meanwhile[..9]);
    let after = logins(&mut one, 10);
    other.finds(&after);
    instances.iter().for_each(|instance| {
        eventually("the move to be seen", || (slots(instance) == Some(had + 1)).then_some(()));
    });
    assert_eq!(cluster.keys().len(), 29);
    for instance in &instances {
        assert_eq!((seen(instance)["opened"].as_u64(), seen(instance)["pending"].as_u64()), (Some(0), Some(0)));
        nobody_was_refused(instance);
    }
}

#[test]
fn a_replica_that_takes_over_is_found() {
    let test = "a_replica_that_takes_over_is_found";
    let Some(mut cluster) = RedisCluster::start(test, 3, 1, &["--cluster-node-timeout", "2000"]) else { return };
    let application = application();
    let text = text(&cluster.store(AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    instances.iter().for_each(|instance| reaches(instance, 3));
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    let before = logins(&mut one, 30);
    other.finds(&before[..10]);
    let of_first = || cluster.nodes[0].cli(&["dbsize"]);
    let copied = || (cluster.nodes[3].cli(&["dbsize"]) == of_first()).then_some(());
    eventually("the replica to have it all", copied);
    let (lost, follows) = (cluster.nodes[0].address(), cluster.nodes[3].address());
    cluster.nodes[0].stop();
    instances.iter().for_each(|instance| node_stands(instance, lost, "open"));
    assert_eq!(seen(&instances[0])["state"], "working");
    let meanwhile = logins(&mut one, 30);
    one.finds(&meanwhile);
    instances.iter().for_each(|instance| node_stands(instance, follows, "working"));
    instances.iter().for_each(|instance| reaches(instance, 3));
    instances.iter().for_each(is_well);
    eventually("all to be in the cluster", || (cluster.keys().len() == 60).then_some(()));
    other.finds(&before);
    other.finds(&meanwhile);
    instances.iter().for_each(nobody_was_refused);
}

#[test]
fn a_node_that_is_down_costs_the_keys_of_the_others_nothing() {
    let test = "a_node_that_is_down_costs_the_keys_of_the_others_nothing";
    let Some(mut cluster) = RedisCluster::start(test, 3, 0, PATIENT) else { return };
    let application = application();
    let text = text(&cluster.store(AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    instances.iter().for_each(|instance| reaches(instance, 3));
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    let down = cluster.nodes[1].address();
    cluster.nodes[1].stop();
    instances.iter().for_each(|instance| node_stands(instance, down, "open"));
    instances[0].says("no request is sent to it until it answers");
    let users = logins(&mut one, 60);
    one.finds(&users);
    eventually("those of the others to be written", || {
        let (stored, waits) = (count(&instances[0], "learn", "stored"), seen(&instances[0])["pending"].as_u64());
        (stored as usize == cluster.keys().len() && Some(60 - stored) == waits && stored > 0).then_some(())
    });
    let stored = cluster.keys().len() as u64;
    assert!(stored < 60, "some keys are of the node that is down");
    users.iter().for_each(|user| drop(other.ask(user)));
    assert_eq!((count(&instances[1], "find", "known"), count(&instances[1], "find", "late")), (stored, 0));
    let seen_now = seen(&instances[1]);
    let complaint = seen_now["complaint"].as_str().unwrap_or_else(|| panic!("{seen_now}"));
    assert!(complaint.starts_with(&format!("node {down}: ")), "{complaint}");
    assert_eq!((&seen_now["state"], &seen_now["opened"]), (&"working".into(), &1.into()));

    cluster.nodes[1].run();
    instances.iter().for_each(|instance| node_stands(instance, down, "working"));
    instances.iter().for_each(is_well);
    eventually("all to be in the cluster", || (cluster.keys().len() >= 60).then_some(()));
    // Values learned while the node was down; one that the other instance has placed meanwhile is where the last one was.
    let more = logins(&mut one, 60);
    other.finds(&more);
    instances.iter().for_each(nobody_was_refused);
    // With all nodes down the store is away as a whole, and comes back as one.
    cluster.nodes.iter_mut().for_each(|node| node.stop());
    instances.iter().for_each(|instance| stands(instance, "open"));
    let meanwhile = logins(&mut one, 20);
    cluster.nodes.iter_mut().for_each(|node| node.run());
    instances.iter().for_each(|instance| reaches(instance, 3));
    is_well(&instances[0]);
    other.finds(&meanwhile);
}

#[test]
fn a_frozen_node_costs_five_budgets_and_then_nothing() {
    let test = "a_frozen_node_costs_five_budgets_and_then_nothing";
    let Some(cluster) = RedisCluster::start(test, 3, 0, PATIENT) else { return };
    let application = application();
    let instance = Sessile::start(&text(&cluster.store("50ms"), &application.addresses));
    reaches(&instance, 3);
    let mut visitor = Visitor::to(&instance);
    let frozen = &cluster.nodes[2];
    frozen.program().signal(Signal::STOP);
    let strangers = |visitor: &mut Visitor, what: &str| {
        (0..60).for_each(|n| drop(visitor.get("/", &format!("SID={what}-{n}"))));
    };
    strangers(&mut visitor, "frozen");
    node_stands(&instance, frozen.address(), "open");
    let late = count(&instance, "find", "late");
    assert!((1..=FAILURES + 1).contains(&late), "{late}");
    strangers(&mut visitor, "again");
    let users = logins(&mut visitor, 30);
    visitor.finds(&users);
    assert_eq!((count(&instance, "find", "late"), count(&instance, "learn", "late")), (late, 0));
    assert!(count(&instance, "learn", "stored") > 0 && seen(&instance)["state"] == "working");
    frozen.program().signal(Signal::CONT);
    reaches(&instance, 3);
    is_well(&instance);
    nobody_was_refused(&instance);
}

#[test]
fn a_cluster_behind_tls_is_used_by_the_names_of_its_nodes() {
    let test = "a_cluster_behind_tls_is_used_by_the_names_of_its_nodes";
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.mint("localhost").write(dir.path(), "store");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let [certificate, key, ca] = [&certificate, &key, &ca].map(|path| path.to_str().unwrap());
    let files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca];
    let Some(cluster) = RedisCluster::start_with_tls(test, 3, &[PATIENT, &files].concat()) else { return };
    let application = application();
    let store = cluster.store(AMPLE) + &format!("ca = \"{ca}\"\n");
    let text = text(&store, &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    instances.iter().for_each(|instance| reaches(instance, 3));
    assert!(nodes(&instances[0]).iter().all(|node| node["address"].as_str().unwrap().starts_with("localhost:")));
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    other.finds(&logins(&mut one, 40));
    assert_eq!(count(&instances[1], "find", "known"), 40);
    // Another authority: the cluster is away, and no client gets an error.
    std::fs::write(ca, Authority::new().pem()).unwrap();
    assert_eq!(instances[0].reload(&text)["accepted"], true);
    stands(&instances[0], "open");
    let users = logins(&mut one, 10);
    std::fs::write(ca, authority.pem()).unwrap();
    assert_eq!(instances[0].reload(&text)["accepted"], true);
    reaches(&instances[0], 3);
    is_well(&instances[0]);
    other.finds(&users);
    instances.iter().for_each(nobody_was_refused);
}

#[test]
fn a_node_of_a_cluster_that_is_named_as_the_whole_store_is_told_from_one() {
    let test = "a_node_of_a_cluster_that_is_named_as_the_whole_store_is_told_from_one";
    let Some(cluster) = RedisCluster::start(test, 2, 0, PATIENT) else { return };
    let application = application();
    let url = |node: usize| super::store(&format!("redis://{}", cluster.nodes[node].address()), AMPLE);
    // The key of trials is at one of the two.
    let complaints = [0, 1].map(|node| {
        let instance = Sessile::start(&text(&url(node), &application.addresses));
        let mut visitor = Visitor::to(&instance);
        eventually("a complaint", || {
            logins(&mut visitor, 8);
            seen(&instance)["complaint"].as_str().map(str::to_owned)
        })
    });
    for complaint in complaints {
        assert!(complaint.starts_with("it is a node of a cluster, which [store] names with cluster"), "{complaint}");
    }
    // The other way round, and back by a reload.
    let redis = super::redis::Redis::start(test).expect("it is installed");
    let alone = format!("[store]\nkind = \"redis\"\ncluster = \"redis://{}\"\nbudget = \"{AMPLE}\"\n", redis.address);
    let instance = Sessile::start(&text(&alone, &application.addresses));
    let complaint = seen(&instance)["complaint"].as_str().map(str::to_owned).expect("a complaint");
    assert!(complaint.contains("cluster support disabled"), "{complaint}");
    let mut visitor = Visitor::to(&instance);
    let users = logins(&mut visitor, 20);
    for store in [cluster.store(AMPLE), super::store(&redis.url(), AMPLE), cluster.store(AMPLE)] {
        assert_eq!(instance.reload(&text(&store, &application.addresses))["accepted"], true);
        stands(&instance, "working");
        visitor.finds(&users);
    }
    reaches(&instance, 2);
    assert_eq!(instance.reload(&text("", &application.addresses))["accepted"], true);
    assert!(seen(&instance).is_null());
    visitor.finds(&users);
    nobody_was_refused(&instance);
}

/// Backend that serves a client of this number through an instance.
fn served(instance: &Sessile, client: u8) -> String {
    let source = [127, 2, client, 9].into();
    Client::connect_from(source, instance.address("l")).ask("x").split(' ').next().unwrap().to_owned()
}

#[test]
fn what_a_fleet_tells_goes_through_the_node_that_has_its_stream() {
    let test = "what_a_fleet_tells_goes_through_the_node_that_has_its_stream";
    let Some(cluster) = RedisCluster::start(test, 3, 0, PATIENT) else { return };
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let backends = ["b0", "b1", "b2"].map(backend::Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let options = "balance = \"least_connections\"\nkey = \"source\"\n";
    let shared = format!("secret_file = \"{}\"\nshare = [\"displaced\"]\n", secret.display());
    let config =
        cluster.store(AMPLE) + &shared + &backend::listener("p", "") + &backend::pool("p", options, &addresses);
    let instances = [Sessile::start(&config), Sessile::start(&config)];
    let stands = |state: &str| {
        for instance in &instances {
            eventually(&format!("the fleet to be {state}"), || {
                (instance.status()["fleet"]["state"] == state).then_some(())
            });
        }
    };
    stands("working");
    let agree = |clients: std::ops::Range<u8>| {
        let homes: Vec<_> = clients.map(|client| (client, served(&instances[0], client))).collect();
        eventually("the entries to be told", || {
            homes.iter().all(|(client, home)| served(&instances[1], *client) == *home).then_some(())
        });
    };
    agree(0..20);
    let (from, key) = cluster.keys().into_iter().find(|(_, key)| key == "sessile:fleet").expect("the stream");
    let to = (from + 1) % 3;
    cluster.begin_to_move(&key, from, to);
    cluster.end_move(&key, from, to);
    // Its move is noticed by the next word, and costs no client anything.
    let taken = || instances[1].status()["fleet"]["received"]["taken"].as_u64();
    let before = taken();
    (20..40).for_each(|client| drop(served(&instances[0], client)));
    eventually("the entries to be told at the other node", || (taken() > before).then_some(()));
    stands("working");
    agree(40..60);
    assert!(cluster.keys().contains(&(to, key)));
}
