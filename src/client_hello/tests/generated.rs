//! Hellos of random contents, cut into random pieces and damaged.

use proptest::prelude::*;

use super::*;

/// A valid hello: some name, some protocols, some padding, cut into records of random sizes.
fn valid() -> impl Strategy<Value = (Option<String>, Vec<u8>)> {
    let name = proptest::option::of("[a-z0-9]{1,12}(\\.[a-z0-9]{1,12}){0,3}\\.org");
    let names = proptest::collection::vec(prop_oneof![Just("h2"), Just("http/1.1"), Just("smtp")], 0..3);
    let cuts = proptest::collection::vec(1usize..400, 1..8);
    (name, names, 0usize..3000, cuts).prop_map(|(name, names, padding, cuts)| {
        let mut hello = Hand::new().extension(21, &vec![0; padding]);
        if let Some(name) = &name {
            hello = hello.name(name);
        }
        if !names.is_empty() {
            hello = hello.alpn(&names);
        }
        let (mut wire, message) = (Vec::new(), hello.message());
        let mut rest = message.as_slice();
        for size in cuts.iter().cycle() {
            let (payload, after) = rest.split_at(rest.len().min(*size));
            wire.extend(record(payload));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        (name, wire)
    })
}

/// `wire` in pieces that end where `stops` say, through one scan.
fn in_pieces(wire: &[u8], stops: &[usize]) -> Progress<ClientHello, Ended> {
    let mut stops: Vec<_> = stops.iter().map(|stop| stop % (wire.len() + 1)).collect();
    stops.sort_unstable();
    let mut scan = Scan::default();
    for stop in stops {
        let answer = with_outcome(scan.resume(&wire[..stop]));
        if answer != Progress::More {
            return answer;
        }
    }
    with_outcome(scan.resume(wire))
}

proptest! {
    #[test]
    fn valid_hellos_are_read_however_they_are_cut((name, wire) in valid(), stops in proptest::collection::vec(any::<usize>(), 0..9)) {
        prop_assert_eq!(name_of(&wire), name);
        prop_assert_eq!(in_pieces(&wire, &stops), parse(&wire));
        for stop in stops {
            prop_assert_eq!(parse(&wire[..stop % wire.len()]), Progress::More);
        }
    }

    #[test]
    fn damaged_hellos_get_a_final_answer(
        (_, mut wire) in valid(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        stops in proptest::collection::vec(any::<usize>(), 0..9),
    ) {
        for (at, byte) in hits {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        let answer = parse(&wire);
        prop_assert_eq!(&in_pieces(&wire, &stops), &answer);
        wire.resize(WIRE_MAX, 0);
        let later = parse(&wire);
        prop_assert_ne!(&later, &Progress::More);
        prop_assert!(answer == Progress::More || answer == later, "{answer:?} became {later:?}");
    }

    #[test]
    fn any_bytes_inside_a_record_get_an_answer(kind in prop_oneof![9 => Just(1u8), 1 => any::<u8>()], body in proptest::collection::vec(any::<u8>(), 0..600), size in 1usize..700) {
        let answer = parse(&records(&message(kind, &body), size));
        prop_assert!(matches!(answer, Progress::Done(_) | Progress::No(Ended::HelloMalformed)), "{answer:?}");
    }
}
