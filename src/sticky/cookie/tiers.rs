//! A cookie of several tiers: the values of balancers behind this one, carried in its own cookie.
//!
//! A tier of sessile behind this one may set a cookie of the same name. A browser keeps only one of the two, so this
//! tier removes the line of its backend and carries the value behind its own: `OWN.INNER`, outermost tier first. A
//! request for the backend has `INNER` under the name again. Opens no value: each tier judges its own. Invariant: every
//! part has the form of a sealed value and there are at most `TIERS_MAX`, so no cookie of an application is carried.

use super::seal::{self, VALUE_LENGTH};

/// Most tiers in a row, this one included: with more, a value is near the size at which browsers drop a cookie.
const TIERS_MAX: usize = 8;
/// Byte between the values of two tiers; base64 has no such byte.
const SEPARATOR: u8 = b'.';

/// Splits a value into that of this tier and those of the tiers behind it. A value of another form is this tier's own
/// as a whole, and no seal.
pub(super) fn split(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    match value.split_at_checked(VALUE_LENGTH) {
        Some((own, [SEPARATOR, inner @ ..])) if is_inner(inner) => (own, Some(inner)),
        _ => (value, None),
    }
}

/// True for the value of a tier behind this one, with those behind that.
pub fn is_inner(value: &[u8]) -> bool {
    let fits = value.len() < (TIERS_MAX - 1) * (VALUE_LENGTH + 1);
    fits && value.split(|byte| *byte == SEPARATOR).all(seal::is_value)
}

/// Appends the values of the tiers behind this one to its own.
pub(super) fn append(out: &mut Vec<u8>, inner: Option<&[u8]>) {
    if let Some(inner) = inner {
        out.push(SEPARATOR);
        out.extend_from_slice(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text with the form of a sealed value: version 1 and zeros.
    fn value(last: char) -> String {
        format!("AQ{}{last}", "A".repeat(VALUE_LENGTH - 3))
    }

    #[test]
    fn a_value_is_split_into_this_tier_and_those_behind_it() {
        let [one, two, three] = ['A', 'B', 'C'].map(value);
        let inner = format!("{two}.{three}");
        let whole = format!("{one}.{inner}");
        assert_eq!(split(one.as_bytes()), (one.as_bytes(), None));
        assert_eq!(split(whole.as_bytes()), (one.as_bytes(), Some(inner.as_bytes())));
        assert_eq!(split(inner.as_bytes()), (two.as_bytes(), Some(three.as_bytes())));
        let mut again = one.into_bytes();
        append(&mut again, Some(inner.as_bytes()));
        assert_eq!(again, whole.as_bytes());
    }

    #[test]
    fn only_what_looks_sealed_is_carried_and_only_so_much() {
        let one = value('A');
        for other in
            ["", ".", "x", "evil", &"A".repeat(VALUE_LENGTH), &format!("{one}."), &format!("{one}x"), &one[1..]]
        {
            assert!(!is_inner(other.as_bytes()), "{other}");
            let whole = format!("{one}.{other}");
            assert_eq!(split(whole.as_bytes()), (whole.as_bytes(), None), "it is no value of ours then");
        }
        let tiers = |count| vec![one.as_str(); count].join(".");
        assert!(is_inner(tiers(TIERS_MAX - 1).as_bytes()));
        assert!(!is_inner(tiers(TIERS_MAX).as_bytes()));
    }
}
