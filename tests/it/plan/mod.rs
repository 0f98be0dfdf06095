//! A plan is what then happens: for random edits of configuration files, in one process and through a running one.

mod edits;
mod living;
mod plan_split;
mod routes;
mod without;

use sessile::config::{self, Config};

/// A text that is good.
fn checked(text: &str) -> Option<Config> {
    config::check(text, &|_| Err(std::io::ErrorKind::NotFound.into())).ok().map(|checked| checked.config)
}

/// A file and what an edit made of it, both good.
fn pair(
    rng: &mut crate::support::rng::Rng,
    kind: edits::Kind,
    text: impl Fn(&edits::File) -> String,
) -> ((edits::File, String), (edits::File, String)) {
    loop {
        let old = edits::File::new(rng, kind);
        let mut new = old.clone();
        new.edit(rng);
        let (before, after) = (text(&old), text(&new));
        if checked(&before).is_some() && checked(&after).is_some() {
            return ((old, before), (new, after));
        }
    }
}
