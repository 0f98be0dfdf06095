//! [`DnsReply`]: what a name server says to one question; [`Chain`]: the aliases (CNAME) that lead from the name that is
//! asked for to the name that has the records.
//!
//! Asks nothing. Invariants: a record counts only if its owner is the name that is asked for or one that the chain has
//! led to, so records of other owners change nothing; a chain that does not end is an error.

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::remote_text;

/// Most aliases between a name and its records; resolvers give up at about as many.
const ALIASES_MAX: usize = 16;

/// What a name server says to one question.
#[derive(Debug, Default)]
pub(super) struct DnsReply {
    /// True for NXDOMAIN: the last name of the chain does not exist.
    pub(super) no_such_name: bool,
    /// Records of the answer section.
    pub(super) answers: Vec<Record>,
    /// Records of the additional section, such as addresses of SRV targets.
    pub(super) beside: Vec<Record>,
    /// Seconds for which it may be believed that there is nothing (RFC 2308).
    pub(super) negative_ttl: Option<u32>,
}

/// What a reply means for a chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NameStep {
    /// The records that were asked for are here.
    Found(Vec<RData>),
    /// The name of the chain is another one now, and is to be asked for.
    Ahead,
    /// There are no such records.
    Nothing,
}

/// The way from a name to its records.
#[derive(Debug)]
pub(super) struct Chain {
    /// The name of which the records count now.
    pub(super) name: Name,
    /// Seconds for which all that was read so far stays true.
    pub(super) ttl: u32,
    kind: RecordType,
    aliases: usize,
}

impl Chain {
    /// Begins at a name.
    pub(super) fn new(name: Name, kind: RecordType) -> Self {
        Self { name, ttl: u32::MAX, kind, aliases: 0 }
    }

    /// Reads the reply to a question for the present name.
    pub(super) fn read(&mut self, reply: &DnsReply) -> Result<NameStep, String> {
        let began = self.aliases;
        loop {
            let own: Vec<_> = reply.answers.iter().filter(|record| record.name == self.name).collect();
            let (found, ttl) = data(own.iter().copied(), self.kind);
            if !found.is_empty() {
                self.ttl = self.ttl.min(ttl);
                return Ok(NameStep::Found(found));
            }
            let alias = own.iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
                _ => None,
            });
            let Some((target, ttl)) = alias else { break };
            self.follow(target, ttl)?;
        }
        if !reply.no_such_name {
            if self.aliases > began {
                return Ok(NameStep::Ahead);
            }
            if !reply.answers.is_empty() && reply.answers.iter().all(|record| record.name != self.name) {
                return Err(format!("the answer has records of other names than \"{}\"", words(&self.name)));
            }
        }
        self.ttl = self.ttl.min(reply.negative_ttl.unwrap_or(u32::MAX));
        Ok(NameStep::Nothing)
    }

    fn follow(&mut self, target: Name, ttl: u32) -> Result<(), String> {
        self.aliases += 1;
        if self.aliases > ALIASES_MAX {
            return Err(format!("more than {ALIASES_MAX} aliases follow one another up to \"{}\"", words(&target)));
        }
        self.ttl = self.ttl.min(ttl);
        self.name = target;
        Ok(())
    }
}

/// The data of the records of a type, with the shortest time for which they are valid.
pub(super) fn data<'r>(records: impl Iterator<Item = &'r Record>, kind: RecordType) -> (Vec<RData>, u32) {
    let mut ttl = u32::MAX;
    let mut found = Vec::new();
    for record in records.filter(|record| record.record_type() == kind) {
        ttl = ttl.min(record.ttl);
        found.push(record.data.clone());
    }
    (found, ttl)
}

/// A name as messages show it: without its last dot.
pub(super) fn words(name: &Name) -> String {
    let text = name.to_ascii();
    remote_text::shown(text.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(format!("{text}.")).unwrap()
    }

    fn address(owner: &str, last: u8, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(10, 0, 0, last))))
    }

    fn alias(owner: &str, target: &str, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn reply(answers: Vec<Record>) -> DnsReply {
        DnsReply { answers, ..DnsReply::default() }
    }

    fn chain() -> Chain {
        Chain::new(name("web.example"), RecordType::A)
    }

    #[test]
    fn records_of_other_owners_are_not_counted() {
        let found = chain().read(&reply(vec![
            address("web.example", 1, 30),
            address("evil.example", 66, 1),
            alias("evil.example", "web.example", 1),
        ]));
        assert_eq!(found, Ok(NameStep::Found(vec![RData::A(A(Ipv4Addr::new(10, 0, 0, 1)))])));
        let why = chain().read(&reply(vec![address("evil.example", 66, 1)])).unwrap_err();
        assert_eq!(why, "the answer has records of other names than \"web.example\"");
    }

    #[test]
    fn a_chain_has_the_shortest_life_of_its_links_in_any_order() {
        let mut chain = chain();
        let links =
            vec![address("c.example", 1, 60), alias("b.example", "C.example", 7), alias("WEB.example", "b.example", 9)];
        assert!(matches!(chain.read(&reply(links)), Ok(NameStep::Found(found)) if found.len() == 1));
        assert_eq!(chain.ttl, 7);
    }

    #[test]
    fn a_chain_without_its_end_goes_on_at_the_last_name() {
        let mut chain = chain();
        assert_eq!(chain.read(&reply(vec![alias("web.example", "b.example", 9)])), Ok(NameStep::Ahead));
        assert_eq!(chain.name, name("b.example"));
        let end = DnsReply { no_such_name: true, negative_ttl: Some(3), ..DnsReply::default() };
        assert_eq!(chain.read(&end), Ok(NameStep::Nothing));
        assert_eq!(chain.ttl, 3);
    }

    #[test]
    fn a_name_that_does_not_exist_behind_an_alias_is_nothing() {
        let answers = vec![alias("web.example", "b.example", 9)];
        let gone = DnsReply { no_such_name: true, answers, ..DnsReply::default() };
        assert_eq!(chain().read(&gone), Ok(NameStep::Nothing));
    }

    #[test]
    fn a_circle_of_aliases_is_an_error() {
        let circle = vec![alias("web.example", "b.example", 9), alias("b.example", "web.example", 9)];
        let why = chain().read(&reply(circle)).unwrap_err();
        assert!(why.starts_with("more than 16 aliases follow one another up to "), "{why}");
    }
}
