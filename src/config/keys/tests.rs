//! Advice about keys that are not known.

use super::*;

#[test]
fn advice_names_the_nearest_key_or_the_right_table() {
    assert_eq!(advice(&BACKEND, "wieght", &[]), "did you mean \"weight\"?");
    assert_eq!(advice(&POOL, "weight", &[]), "it belongs in [[pool.backend]]");
    assert_eq!(advice(&POOL, "workers", &[]), "it belongs at the top of the file, before the first table");
    assert_eq!(advice(&POOL, "nothing_like_it", &[]), EVERY_KEY);
    assert_eq!(advice(&TOP, "name", &[]), EVERY_KEY, "several tables have it");
}

#[test]
fn advice_translates_words_of_others_unless_they_are_ours() {
    assert_eq!(advice(&TOP, "upstream", &["app"]), "\"upstream\" of nginx is [[pool]]");
    let client = "\"timeout client\" of HAProxy is idle_timeout = \"1h\" in [listener.limits]";
    assert_eq!(advice(&LISTENER, "timeout", &["client"]), client);
    assert_eq!(advice(&POOL, "timeout", &["connexion"]), "it belongs in [pool.check]");
    assert_eq!(advice(&LISTENER, "backup", &[]), "it belongs in [[pool.backend]]");
    assert_eq!(advice(&TOP, "http", &["routers", "x"]), "\"routers\" of Traefik is [[listener.route]]");
}
