//! [`RevocationLists`]: what the authorities of clients have taken back before its time (CRLs, RFC 5280 §5).
//!
//! Fetches nothing: the lists are in a file, in PEM or DER, and a reload reads it again. Whether a certificate is revoked
//! is judged by rustls in a full handshake; a ticket is bound to the lists, so a session is resumed only under those that
//! held when it began.
//!
//! Invariant: every list is signed by an authority that the route accepts, and no authority has two: of two, only the
//! first would count.

use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::error::X509Error;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::certs::CertificateTrouble;
use super::pem::{Files, about};
use super::subject;

/// A list that expires within this time causes a warning: one day, or a quarter of its life if that is shorter.
const SOON_S: i64 = 86_400;

/// The revocation lists of a file, checked.
#[derive(Debug, Default)]
pub(super) struct RevocationLists {
    /// The path of the file, as the configuration has it.
    file: String,
    lists: Vec<ListFacts>,
    /// Authorities without a list, in words that follow the file.
    remarks: Vec<String>,
}

/// What is known of one list without looking into it.
#[derive(Debug)]
struct ListFacts {
    /// The name of its authority, in DER.
    issuer: Box<[u8]>,
    /// The same in words.
    authority: String,
    /// The first second of its life, in seconds since 1970.
    from_s: i64,
    /// The second from which it says nothing any more, in seconds since 1970.
    until_s: i64,
}

impl RevocationLists {
    /// Reads a file and checks its lists against the authorities, which are those of `ca`. The lists themselves come
    /// beside what is known of them.
    pub(super) fn load(
        path: &Path,
        (ca, authorities): (&Path, &[CertificateDer<'_>]),
        files: &mut Files,
    ) -> Result<(Self, Vec<CertificateRevocationListDer<'static>>), String> {
        let wrong = |what: String| about(path, &what);
        let lists = files.revocation_lists(path)?;
        let authorities: Vec<_> =
            authorities.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
        let mut loaded = Self { file: path.display().to_string(), ..Self::default() };
        for (index, der) in lists.iter().enumerate() {
            let facts = ListFacts::read(der, ca, &authorities);
            let facts = facts.map_err(|what| wrong(format!("list #{} in it {what}", index + 1)))?;
            if let Some(first) = loaded.lists.iter().position(|list| list.issuer == facts.issuer) {
                let why = format!("list #{} in it is of {}, as #{} is", index + 1, facts.authority, first + 1);
                return Err(wrong(format!("{why}: only one list of an authority counts")));
            }
            loaded.lists.push(facts);
        }
        for authority in authorities {
            if loaded.of(authority.subject().as_raw()).is_none() {
                let name = subject::text(authority.subject());
                loaded.remarks.push(format!(
                    "there is no list of {name} in it, an authority in \"{}\": every certificate that it has signed is \
                     refused",
                    ca.display()
                ));
            }
        }
        Ok((loaded, lists))
    }

    /// True if the authority of this name, in DER, has a list that has expired.
    pub(super) fn has_expired(&self, issuer: &[u8], now_s: i64) -> bool {
        self.of(issuer).is_some_and(|list| list.until_s <= now_s)
    }

    /// Lists because of which certificates are refused, now or soon: the list, trouble, and words that follow the list.
    /// `now_s` is in seconds since 1970.
    pub(super) fn troubles(&self, now_s: i64) -> impl Iterator<Item = (String, CertificateTrouble, String)> {
        self.lists.iter().filter_map(move |list| {
            let (trouble, words) = list.trouble(now_s)?;
            Some((format!("revocation list of {} in \"{}\"", list.authority, self.file), trouble, words))
        })
    }

    /// What is wrong or will be soon, in words that follow the key. `now_s` is in seconds since 1970.
    pub(super) fn warnings(&self, now_s: i64) -> Vec<String> {
        let of_time = self.lists.iter().filter_map(|list| {
            let (_, words) = list.trouble(now_s)?;
            Some(format!("the list of {}{words}", list.authority))
        });
        of_time.chain(self.remarks.iter().cloned()).map(|what| format!("\"{}\": {what}", self.file)).collect()
    }

    fn of(&self, issuer: &[u8]) -> Option<&ListFacts> {
        self.lists.iter().find(|list| *list.issuer == *issuer)
    }
}

impl ListFacts {
    /// Reads a list and checks its signature. An error is in words that follow the list.
    fn read(der: &[u8], ca: &Path, authorities: &[X509Certificate<'_>]) -> Result<Self, String> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err("is malformed".to_owned());
        };
        let (issuer, authority) = (list.issuer().as_raw(), subject::text(list.issuer()));
        let mut of_name = authorities.iter().filter(|one| one.subject().as_raw() == issuer).peekable();
        if of_name.peek().is_none() {
            return Err(format!("is of {authority}, which is no authority in \"{}\"", ca.display()));
        }
        let is_signed = of_name.any(|one| {
            let verified = list.verify_signature(one.public_key());
            // An algorithm that is not known here may be known to rustls.
            matches!(verified, Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm))
        });
        if !is_signed {
            return Err(format!("is not signed by {authority}, the authority of its name"));
        }
        let until = list.next_update().ok_or("has no nextUpdate: nothing says until when it is good")?;
        let (from_s, until_s) = (list.last_update().timestamp(), until.timestamp());
        Ok(Self { issuer: issuer.into(), authority, from_s, until_s })
    }

    fn trouble(&self, now_s: i64) -> Option<(CertificateTrouble, String)> {
        let refused = "every certificate of this authority is refused";
        match self.until_s - now_s {
            left_s if left_s <= 0 => Some((CertificateTrouble::Expired, format!(" has expired: {refused}"))),
            left_s if left_s < SOON_S.min((self.until_s - self.from_s) / 4) => {
                let words = format!(" expires in less than {} hours: then {refused}", left_s / 3600 + 1);
                Some((CertificateTrouble::Hours, words))
            }
            _ => None,
        }
    }
}
