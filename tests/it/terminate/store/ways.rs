//! Ways to a store: Sentinel, TLS and ACL, a unix socket, another store by reload.

use super::redis::{Redis, sentinel};
use super::{AMPLE, Visitor, application, nobody_was_refused, seen, stands, store, text};
use crate::support::authority::Authority;
use crate::support::program::free_address;
use crate::support::{Sessile, eventually};

#[test]
fn a_failover_by_sentinel_is_followed() {
    let test = "a_failover_by_sentinel_is_followed";
    let (Some(primary), Some(mut replica)) = (Redis::start(test), Redis::start(test)) else { return };
    let of = primary.address;
    replica.stop();
    let (ip, port) = (of.ip().to_string(), of.port().to_string());
    replica.run(&["--replicaof", &ip, &port, "--replica-announce-ip", &replica.address.ip().to_string()]);
    eventually("the replica to follow", || {
        replica.cli(&["info", "replication"]).contains("master_link_status:up").then_some(())
    });
    let Some((watcher, watches)) = sentinel(test, &primary) else { return };
    let known = format!("slave{}:ip={}", 0, replica.address.ip());
    eventually("the primary to know its replica", || {
        primary.cli(&["info", "replication"]).contains(&known).then_some(())
    });
    let cli = |words: &[&str]| {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["-h", &watches.ip().to_string(), "-p", &watches.port().to_string(), "--raw"]).args(words);
        crate::support::program::output(&mut command)
    };
    let port = replica.address.port().to_string();
    eventually("the sentinel to know the replica", || {
        cli(&["sentinel", "replicas", "main"]).contains(&port).then_some(())
    });

    let application = application();
    let store = format!(
        "[store]\nkind = \"redis\"\nsentinels = [\"redis://{}\", \"redis://{watches}\"]\nmaster = \"main\"\nbudget = \"{AMPLE}\"\n",
        free_address()
    );
    let text = text(&store, &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    instances.iter().for_each(|instance| stands(instance, "working"));
    let before: Vec<_> = (0..20).map(|_| one.login()).collect();
    other.finds(&before[..10]);
    eventually("the replica to have it all", || (replica.dump().len() == 20).then_some(()));

    drop(primary);
    eventually("the primary to be missed", || (seen(&instances[0])["opened"] != 0).then_some(()));
    let meanwhile: Vec<_> = (0..20).map(|_| one.login()).collect();
    one.finds(&meanwhile);
    eventually("the replica to be the primary", || {
        replica.cli(&["info", "replication"]).contains("role:master").then_some(())
    });
    instances.iter().for_each(|instance| stands(instance, "working"));
    other.finds(&before);
    other.finds(&meanwhile);
    instances.iter().for_each(nobody_was_refused);
    drop(watcher);
}

#[test]
fn a_store_behind_tls_and_acl_is_used_and_its_password_shown_to_nobody() {
    let test = "a_store_behind_tls_and_acl_is_used_and_its_password_shown_to_nobody";
    let Some(mut redis) = Redis::start(test) else { return };
    redis.stop();
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.mint("localhost").write(dir.path(), "store");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = file("ca.pem", &authority.pem());
    let user = "sessile on >hunter2hunter2 ~sessile:* +get +mget +set +del +pexpire +eval +ping +select +role";
    let host = redis.address.ip().to_string();
    let port = free_address().port().to_string();
    let options = [
        "--bind",
        &host,
        "127.0.0.1",
        "--tls-port",
        &port,
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        certificate.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-ca-cert-file",
        &ca,
        "--user",
    ];
    redis.run(&options.into_iter().chain(user.split(' ')).collect::<Vec<_>>());
    let (password, secret) = (file("password", "hunter2hunter2\n"), file("secret", "of this fleet alone\n"));
    let written = format!(
        "[store]\nkind = \"redis\"\nurl = \"rediss://localhost:{port}\"\nca = \"{ca}\"\nuser = \"sessile\"\n\
         password_file = \"{password}\"\nsecret_file = \"{secret}\"\nbudget = \"{AMPLE}\"\ndatabase = 3\n"
    );
    let application = application();
    let text = text(&written, &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    instances.iter().for_each(|instance| stands(instance, "working"));
    let users: Vec<_> = (0..20).map(|_| one.login()).collect();
    other.finds(&users);
    // Values that are renewed and values that end need no further rights.
    other.get("/logout", &users[0].cookie);
    eventually("it to be forgotten", || (redis.cli(&["-n", "3", "dbsize"]).trim() == "19").then_some(()));

    // Another password, another authority: no client gets an error.
    std::fs::write(&password, "wrong\n").unwrap();
    assert_eq!(instances[0].reload(&text)["accepted"], true);
    stands(&instances[0], "open");
    one.finds(&users[1..]);
    let stranger = Authority::new();
    std::fs::write(&password, "hunter2hunter2\n").unwrap();
    std::fs::write(&ca, stranger.pem()).unwrap();
    assert_eq!(instances[0].reload(&text)["accepted"], true);
    assert_eq!(seen(&instances[0])["state"], "open");
    std::fs::write(&ca, authority.pem()).unwrap();
    assert_eq!(instances[0].reload(&text)["accepted"], true);
    stands(&instances[0], "working");
    one.finds(&users[1..]);

    for instance in &instances {
        let shown = instance.status().to_string() + &instance.metrics() + &instance.said();
        assert!(!shown.contains("hunter2") && !shown.contains("fleet alone"));
        nobody_was_refused(instance);
    }
    let file = instances[0].file();
    let checked = crate::support::sessile::run(&["check", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.contains("holds a secret, and every user can read it"), "{said}");
    assert!(!said.contains("hunter2"));
}

#[test]
fn a_reload_changes_the_store_and_drops_no_client() {
    let test = "a_reload_changes_the_store_and_drops_no_client";
    let (Some(first), Some(mut second)) = (Redis::start(test), Redis::start(test)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock");
    second.stop();
    second.run(&["--unixsocket", socket.to_str().unwrap()]);
    let application = application();
    let with = |url: &str| text(&store(url, AMPLE), &application.addresses);
    let instance = Sessile::start(&text("", &application.addresses));
    assert!(seen(&instance).is_null());
    let mut visitor = Visitor::to(&instance);
    visitor.login();

    let verdict = instance.reload(&with(&first.url()));
    assert!(verdict["accepted"] == true && verdict["changes"].to_string().contains("store added"), "{verdict}");
    assert_eq!(seen(&instance)["state"], "working");
    let users: Vec<_> = (0..10).map(|_| visitor.login()).collect();
    assert_eq!(first.dump().len(), 10);

    let url = format!("unix:{}", socket.display());
    assert!(instance.reload(&with(&url))["changes"].to_string().contains("store.url changed"));
    assert_eq!((seen(&instance)["state"].as_str(), seen(&instance)["place"].as_str()), (Some("working"), Some(&*url)));
    visitor.finds(&users);
    let more: Vec<_> = (0..10).map(|_| visitor.login()).collect();
    // Values in use before the reload are written to the new store too.
    eventually("the second store to know", || (second.dump().len() == 20).then_some(()));
    assert_eq!(first.dump().len(), 10);

    // A store that is unusable does not fail the reload; a file that is unreadable does.
    let refused = instance.reload(&with(&url).replace("[store]", "[store]\npassword_file = \"/nowhere\""));
    assert!(refused["accepted"] == false && refused["problems"].to_string().contains("/nowhere"), "{refused}");
    assert_eq!(seen(&instance)["state"], "working");
    assert_eq!(instance.reload(&with(&format!("redis://{}", free_address())))["accepted"], true);
    assert_eq!(seen(&instance)["state"], "open");
    visitor.finds(&more);
    assert!(instance.reload(&text("", &application.addresses))["changes"].to_string().contains("store removed"));
    assert!(seen(&instance).is_null());
    // All queries use one connection.
    visitor.finds(&users);
    nobody_was_refused(&instance);
}
