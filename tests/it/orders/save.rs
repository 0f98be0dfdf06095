//! `sessile save`: the printed file has the orders, and a reload of it ends them without a move.

use std::fs;

use serde_json::Value;

use super::{digest, done, homes, set, three};
use crate::support::Sessile;
use crate::support::http::unix_post;
use crate::support::sessile::run;

/// What `sessile save` prints for the file of the process.
fn save(sessile: &Sessile) -> String {
    let file = sessile.file();
    let output = run(&["save", file.to_str().unwrap(), "--socket", sessile.admin().to_str().unwrap()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_printed_file_has_the_orders_and_a_reload_of_it_moves_no_client() {
    let (backends, config) = three("# of the shop");
    let sessile = Sessile::start(&config);
    assert_eq!(save(&sessile), fs::read_to_string(sessile.file()).unwrap(), "without an order nothing differs");
    done(&sessile, &format!("add p/b2 {} --weight 2 --location dc1/h2", backends[2].address));
    done(&sessile, &format!("address p/b0 {}", backends[2].address));
    done(&sessile, "weight p/b0 3");
    done(&sessile, "remove p/b1 --now");
    let before = (digest(&sessile), homes(&sessile, 1..=60));
    let text = save(&sessile);
    assert!(text.contains("# of the shop") && !text.contains("b1"), "{text}");
    fs::write(sessile.file(), text).unwrap();
    let (_, body) = unix_post(&sessile.admin(), "/reload?max_move=0").unwrap();
    let verdict: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(verdict["accepted"], true, "{verdict}");
    assert_eq!((digest(&sessile), homes(&sessile, 1..=60)), before);
    assert_eq!(sessile.json("/orders"), serde_json::json!([]));
    assert!(set(&sessile).iter().all(|(.., orders)| orders.is_empty()), "{:?}", set(&sessile));
    assert_eq!(sessile.status()["pools"][0]["breaks"]["moved"], 0);
    assert_eq!(save(&sessile), fs::read_to_string(sessile.file()).unwrap());
}

#[test]
fn a_backend_that_still_drains_goes_on_draining_when_the_file_has_lost_it() {
    let (_backends, config) = three("");
    let sessile = Sessile::start(&config);
    let before = homes(&sessile, 1..=40);
    done(&sessile, "remove p/b1");
    let drained = digest(&sessile);
    fs::write(sessile.file(), save(&sessile)).unwrap();
    let (_, body) = unix_post(&sessile.admin(), "/reload").unwrap();
    assert!(body.contains("\"accepted\":true"), "{body}");
    assert_eq!(digest(&sessile), drained);
    assert_eq!(homes(&sessile, 1..=40), before, "known clients stay until the deadline");
    done(&sessile, "remove p/b1 --now");
    assert_eq!(super::names(&sessile), ["b0"]);
    assert_eq!(sessile.json("/orders"), serde_json::json!([]));
}

#[test]
fn a_file_that_the_orders_do_not_fit_is_refused() {
    let (backends, config) = three("");
    let sessile = Sessile::start(&config);
    done(&sessile, &format!("add p/b2 {}", backends[2].address));
    let file = sessile.dir.path().join("other.toml");
    let admin = sessile.admin();
    let save = || run(&["save", file.to_str().unwrap(), "--socket", admin.to_str().unwrap()]);
    for text in ["", "not toml", "[[pool]]\nname = \"p\"\n"] {
        fs::write(&file, text).unwrap();
        assert_eq!(save().status.code(), Some(64), "{text:?}");
    }
    let other = fs::read_to_string(sessile.file()).unwrap().replace("\"p\"", "\"q\"");
    fs::write(&file, &other).unwrap();
    let output = save();
    assert_eq!(String::from_utf8_lossy(&output.stdout), other);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not in the file: add p/b2: there is no pool \"p\""), "{said}");
}
