//! Reads `[pool.discover]`: the source of a pool's backends, and the rules for what it names.
//!
//! Looks at no source. Invariant: a pool without a source has a backend in the file.

use super::{Bad, dns};
use crate::config::discover::BACKENDS_MAX;
use crate::config::file::Section;
use crate::config::{Discover, DiscoverSource, OnEmpty, Vanish, keys, value};

/// Most backends that a source may be allowed to name.
const MOST: u64 = 16_384;

/// Reads the table; `None`: the pool has the backends of the file alone.
pub(super) fn discover(pool: &Section<'_>) -> Option<Discover> {
    if !pool.has("discover") {
        return None;
    }
    let section = pool.child("discover", &keys::DISCOVER);
    let is_dns =
        section.required("kind", value::word(&[("file", false), ("dns", true)])).unwrap_or(section.has("name"));
    let vanish = value::word(&[("drain", Vanish::Drain), ("down", Vanish::Down), ("remove", Vanish::Remove)]);
    let empty = value::word(&[("keep", OnEmpty::Keep), ("apply", OnEmpty::Apply)]);
    if pool.has("stick_group") {
        let why = "stick_group needs pools with the same backends, and a source can name others for each";
        pool.error("stick_group", Bad::new(why).hint("write the backends in the file, or leave out stick_group"));
    }
    Some(Discover {
        source: source(&section, is_dns),
        vanish: section.read("vanish", vanish).unwrap_or(Vanish::Drain),
        empty: section.read("empty", empty).unwrap_or(OnEmpty::Keep),
        max_backends: section.read("max_backends", value::integer(1..=MOST)).unwrap_or(BACKENDS_MAX),
        max_connections: section
            .read("max_connections", value::unless("off", value::integer(1..=u64::from(u32::MAX))))
            .unwrap_or(None),
    })
}

fn source(section: &Section<'_>, is_dns: bool) -> DiscoverSource {
    // Keys of the other kind have no effect, but must have values that can be read.
    let name = dns::dns_name(section, is_dns);
    if is_dns {
        section.read("path", value::file);
        section.idle_keys(&["path"], "with kind = \"dns\"");
        return DiscoverSource::Dns(name);
    }
    section.idle_keys(&["name", "port", "identity"], "with kind = \"file\"");
    DiscoverSource::File(section.required("path", value::file).unwrap_or_default())
}
