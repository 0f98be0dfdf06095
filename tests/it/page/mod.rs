//! The page of the admin interface in a real browser: what it shows while things happen, how it looks, and what it does
//! not do.
//!
//! Rates and limits of the stream are tested in `src/admin/page`. Invariant: a page is looked at as it is after real
//! events of a real process, never filled by the test.

mod looks;
mod shows;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::support::Sessile;
use crate::support::backend::{Backend, listener, pool};
use crate::support::browser::{Browser, BrowserPage};
use crate::support::http::unix_post;
use crate::support::load_support::Client;
use crate::support::program::free_local_address;

/// A process with two checked backends, its page in a browser, and both backends, which a test may end.
struct Scene {
    sessile: Sessile,
    port: SocketAddr,
    backends: [Option<Backend>; 2],
    browser: Browser,
    page: BrowserPage,
}

impl Scene {
    /// `None`: there is no browser, and the test is skipped. `admin`: more keys of the admin interface.
    fn start(test: &str, admin: &str) -> Option<Self> {
        let browser = Browser::start(test)?;
        let backends = ["b0", "b1"].map(|name| Some(Backend::named(name)));
        let port = free_local_address();
        let addresses = backends.each_ref().map(|backend| backend.as_ref().unwrap().address);
        let sessile = Sessile::start(&configuration(port, admin, &addresses));
        let page = browser.page();
        let scene = Self { sessile, port, backends, browser, page };
        scene.page.open(&format!("http://{port}/"));
        scene.page.until("the first sample", "document.querySelector('#link').dataset.state === 'live'");
        Some(scene)
    }

    /// Gives a command to a backend.
    fn order(&self, backend: &str, order: &str) {
        let path = format!("/backends/p/{backend}/{order}");
        assert_eq!(unix_post(&self.sessile.admin(), &path).unwrap().0, 200, "{path}");
    }

    /// The backend that answers a line of a client.
    fn home(&self, number: u8) -> String {
        let answer = Client::connect_from(client(number), self.sessile.address("l")).ask("x");
        answer.split(' ').next().unwrap().to_owned()
    }

    /// A client of the backend of this name.
    fn client_at(&self, backend: &str) -> u8 {
        (1..=250).find(|number| self.home(*number) == backend).expect("a client of each backend")
    }
}

fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 11, number).into()
}

fn configuration(port: SocketAddr, admin: &str, backends: &[SocketAddr]) -> String {
    let check = "[pool.check]\nkind = \"tcp\"\ninterval = \"50ms\"\nrise = 1\nfall = 2\n";
    let pool = pool("p", "", backends).replace("[pool.check]\nkind = \"off\"\n", check);
    let admin = format!("[admin]\nsocket = \"$DIR/admin.sock\"\nhttp = \"{port}\"\n{admin}");
    format!("{}{admin}{pool}", listener("p", ""))
}

/// An expression for the cell of a backend's row in the table of its pool.
fn cell(backend: &str, column: usize) -> String {
    format!(
        "([...document.querySelectorAll('#pool-list tbody tr')].find(row => row.dataset.key === '{backend}')\
         ?.children[{column}].textContent ?? '')"
    )
}

/// An expression that is true once the text of an element has all of these words.
fn has(selector: &str, words: &[&str]) -> String {
    let words = serde_json::json!(words);
    format!("{words}.every(word => (document.querySelector('{selector}')?.textContent ?? '').includes(word))")
}
