//! Reads `[pool.check]`, `[pool.eject]` and the PROXY header sent to backends by connections and checks.
//!
//! Runs no check; `check_kind` reads what one kind alone has. Invariant: no time is longer than another that it has to fit
//! into without a word about it.

use super::{Bad, check_kind};
use crate::config::file::Section;
use crate::config::value::{self, DAY, HOUR, MILLISECOND, MINUTE, SECOND};
use crate::config::{Check, Eject, PoolTls, ProxyOut, ProxyTlv, ProxyVersion, keys};

/// Default of `flap_damping`.
const FLAP_DAMPING: u32 = 8;

/// Reads `[pool.check]`; `None`: off. In a pool with `[pool.tls]` a TLS check sends and verifies the pool's server
/// name.
pub(super) fn check(pool: &Section<'_>, tls: Option<&PoolTls>) -> Option<Check> {
    let section = pool.child_unless_off("check", &keys::CHECK)?;
    let check = Check {
        kind: check_kind::kind(&section, tls.is_some())?,
        interval: section.read("interval", value::duration(10 * MILLISECOND, DAY)).unwrap_or(2 * SECOND),
        timeout: section.read("timeout", value::duration(10 * MILLISECOND, HOUR)).unwrap_or(SECOND),
        rise: section.read("rise", value::integer(1..=1000)).unwrap_or(2),
        fall: section.read("fall", value::integer(1..=1000)).unwrap_or(3),
        flap_damping: flap_damping(&section),
        port: section.read("port", value::integer(1..=65_535)),
        agent: section.read("agent", value::integer(1..=65_535)),
        sni: section.read("sni", value::server_name).or_else(|| tls?.sni.clone()),
    };
    if check.timeout > check.interval {
        let (timeout, interval) = (value::show_duration(check.timeout), value::show_duration(check.interval));
        let why = format!(
            "timeout \"{timeout}\" is longer than interval \"{interval}\": a slow backend delays its own checks"
        );
        section.warn("timeout", Bad::new(why));
    }
    Some(check)
}

/// Greatest factor of `rise`; the word "off" is 1.
fn flap_damping(section: &Section<'_>) -> u32 {
    let factor = section.read("flap_damping", value::unless("off", value::integer(2..=1000)));
    factor.map_or(FLAP_DAMPING, |factor| factor.unwrap_or(1))
}

/// Reads `[pool.eject]`; `None`: off. `http`: the pool reads HTTP, where a backend always has an answer to give.
pub(super) fn eject(pool: &Section<'_>, http: bool) -> Option<Eject> {
    let section = pool.child_unless_off("eject", &keys::EJECT)?;
    let time = value::duration(10 * MILLISECOND, DAY);
    let base = section.read("base", &time).unwrap_or(10 * SECOND);
    let max = section.read("max", &time).unwrap_or(5 * MINUTE);
    if base > max {
        let (base, max) = (value::show_duration(base), value::show_duration(max));
        section.error("base", Bad::new(format!("base \"{base}\" is longer than max \"{max}\"")));
    }
    let failures = section.read("failures", value::integer(1..=1000)).unwrap_or(3);
    let early_close = section.read("early_close", value::boolean).unwrap_or(http);
    Some(Eject { failures, base, max, early_close })
}

/// Reads `send_proxy` and `send_proxy_tlvs`; `None`: off.
pub(super) fn proxy(pool: &Section<'_>) -> Option<ProxyOut> {
    let versions = value::word(&[("off", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))]);
    let kinds = value::word(&[
        ("alpn", ProxyTlv::Alpn),
        ("authority", ProxyTlv::Authority),
        ("unique_id", ProxyTlv::UniqueId),
        ("ssl", ProxyTlv::Ssl),
        ("crc32c", ProxyTlv::Crc32c),
    ]);
    let parsed = pool.read("send_proxy", versions);
    let tlvs = pool.values("send_proxy_tlvs", kinds);
    let version = parsed.flatten();
    let is_known = parsed.is_some() || !pool.has("send_proxy");
    if is_known && version != Some(ProxyVersion::V2) && !tlvs.is_empty() {
        pool.error("send_proxy_tlvs", Bad::new("send_proxy_tlvs needs send_proxy = \"v2\""));
    }
    version.map(|version| ProxyOut { version, tlvs })
}
