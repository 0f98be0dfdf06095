//! [`address`]: where a backend is that is written with a name, after the name was asked for.
//!
//! Pure: the address in force and the answer are arguments. Invariants: the address in force stays while it is among
//! those of an answer, whatever their order; an answer that cannot be taken as a whole is refused as a whole.

use std::net::SocketAddr;

use super::dns::HostReading;
use super::reconcile::refusal;

/// The address after this reading; an error says why the one in force stays, or why there is none. `in_force`: the
/// address of now; `None`: there is none. `is_own`: whether an address is one of this process.
pub fn address(
    in_force: Option<SocketAddr>,
    port: u16,
    reading: &HostReading,
    is_own: &dyn Fn(SocketAddr) -> bool,
) -> Result<SocketAddr, String> {
    let answer = reading.as_ref().map_err(Clone::clone)?;
    let all = answer.ips.iter().map(|ip| SocketAddr::new(*ip, port));
    if let Some(why) = all.clone().find_map(|address| refusal(address, is_own)) {
        return Err(why);
    }
    let stays = in_force.filter(|in_force| all.clone().any(|address| address == *in_force));
    if let Some(stays) = stays {
        return Ok(stays);
    }
    match (&answer.doubt, in_force) {
        // With all servers at hand, the name may be the one of the address in force.
        (Some(why), Some(_)) => Err(why.clone()),
        _ => all.min().ok_or_else(|| "it has no address".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::discovery::dns::HostAnswer;
    use crate::random::Random;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    fn reading(ips: &[&str]) -> HostReading {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Ok(HostAnswer { ips, valid_for: Duration::from_secs(1), doubt: None })
    }

    fn of(in_force: Option<&str>, reading: &HostReading) -> Result<String, String> {
        let is_own = |address: SocketAddr| address == at("10.9.9.9:80");
        address(in_force.map(at), 80, reading, &is_own).map(|address| address.to_string())
    }

    #[test]
    fn the_address_in_force_stays_while_it_is_among_the_answers_and_the_lowest_follows() {
        let answer = reading(&["10.0.0.3", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(of(None, &answer).unwrap(), "10.0.0.1:80");
        for stays in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"] {
            assert_eq!(of(Some(stays), &answer).unwrap(), stays);
        }
        assert_eq!(of(Some("10.0.0.4:80"), &answer).unwrap(), "10.0.0.1:80");
        assert_eq!(of(Some("10.0.0.2:81"), &answer).unwrap(), "10.0.0.1:80", "another port is another address");
        assert_eq!(of(None, &reading(&["2001:db8::1"])).unwrap(), "[2001:db8::1]:80");
    }

    #[test]
    fn a_thousand_shuffled_answers_are_one_address() {
        let mut random = Random::new(1);
        let mut ips: Vec<String> = (1..=20).map(|last| format!("10.0.0.{last}")).collect();
        for _ in 0..1_000 {
            random.shuffle(&mut ips);
            let answer = reading(&ips.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(of(Some("10.0.0.7:80"), &answer).unwrap(), "10.0.0.7:80");
            assert_eq!(of(None, &answer).unwrap(), "10.0.0.1:80");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_taken_keeps_the_address() {
        let in_force = Some("10.0.0.1:80");
        assert_eq!(of(in_force, &Err("SERVFAIL".to_owned())).unwrap_err(), "SERVFAIL");
        assert_eq!(of(in_force, &reading(&[])).unwrap_err(), "it has no address");
        for poison in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::"] {
            let why = of(in_force, &reading(&["10.0.0.1", poison])).unwrap_err();
            assert!(why.ends_with("is not an address that can be connected to"), "{why}");
        }
        let why = of(in_force, &reading(&["10.0.0.5", "10.9.9.9"])).unwrap_err();
        assert_eq!(why, "10.9.9.9:80 is an address of this process: connections would loop");
    }

    #[test]
    fn an_answer_of_a_later_domain_counts_only_where_it_changes_nothing() {
        let ips = vec!["10.0.0.5".parse::<IpAddr>().unwrap()];
        let doubtful = Ok(HostAnswer { ips, valid_for: Duration::from_secs(1), doubt: Some("SERVFAIL".to_owned()) });
        assert_eq!(of(Some("10.0.0.1:80"), &doubtful).unwrap_err(), "SERVFAIL");
        assert_eq!(of(Some("10.0.0.5:80"), &doubtful).unwrap(), "10.0.0.5:80");
        assert_eq!(of(None, &doubtful).unwrap(), "10.0.0.5:80");
    }
}
