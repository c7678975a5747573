//! Counting by (group, origin), states, and figures.

use fleetlog_event::TimestampMs;
use proptest::prelude::*;

use super::letter;
use crate::{Distinct, State, Stats};

#[test]
fn a_letter_that_lies_twice_counts_once_and_the_newest_stands_for_it() {
    let mut distinct = Distinct::default();
    for letter in [
        letter(1, 1_000, "g", 7, "wrong_key"),
        letter(5, 3_000, "g", 7, "unknown_task"),
        letter(2, 2_000, "g", 7, "wrong_key"),
        letter(3, 2_000, "other", 7, "wrong_key"),
        letter(4, 2_000, "g", 8, "wrong_key"),
    ] {
        distinct.add(&letter, (letter.id().group, letter.id().origin, letter.reason.clone()));
    }
    assert_eq!(distinct.seen(), 5);
    let mut newest: Vec<_> = distinct.into_newest().collect();
    newest.sort();
    let expected = [
        ("g", "x-robot/3/7", "unknown_task"),
        ("g", "x-robot/3/8", "wrong_key"),
        ("other", "x-robot/3/7", "wrong_key"),
    ];
    assert_eq!(newest, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
}

proptest! {
    #[test]
    fn the_order_in_which_letters_come_does_not_matter(
        letters in prop::collection::vec((0..4_i64, 0..5_i64), 1..12).prop_shuffle(),
        turned in any::<bool>(),
    ) {
        let newest = |reverse: bool| {
            let mut all: Vec<_> = letters.iter().enumerate().map(|(n, (origin, at))| {
                letter(n as i64, *at, "g", *origin, "r")
            }).collect();
            if reverse { all.reverse(); }
            let mut distinct = Distinct::default();
            all.iter().for_each(|letter| distinct.add(letter, letter.place.offset));
            let mut offsets: Vec<_> = distinct.into_newest().collect();
            offsets.sort_unstable();
            offsets
        };
        let origins: std::collections::BTreeSet<_> = letters.iter().map(|(origin, _)| origin).collect();
        prop_assert_eq!(newest(turned).len(), origins.len());
        prop_assert_eq!(newest(turned), newest(!turned));
    }
}

#[test]
fn figures_are_by_what_one_asks_first() {
    const HOUR_MS: i64 = 3_600_000;
    let mut stats = Stats::default();
    for (offset, at_ms, reason) in
        [(1, HOUR_MS - 1, "wrong_key"), (2, HOUR_MS, "wrong_key"), (3, HOUR_MS + 1, "unknown_task")]
    {
        stats.add(&letter(offset, at_ms, "g", offset, reason), &State::Open);
    }
    let of = |counts: &std::collections::BTreeMap<String, u64>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>()
    };
    assert_eq!(of(&stats.reasons), ["unknown_task 1", "wrong_key 2"]);
    assert_eq!(of(&stats.classes), ["reject 3"]);
    assert_eq!(of(&stats.types), ["unknown 3"]);
    assert_eq!(of(&stats.hours), ["1970-01-01T00:00:00.000Z 1", "1970-01-01T01:00:00.000Z 2"]);
    assert_eq!((stats.letters, stats.oldest_ms, stats.newest_ms), (3, Some(HOUR_MS - 1), Some(HOUR_MS + 1)));
}

#[test]
fn times_that_no_calendar_holds_are_counted_too() {
    let mut stats = Stats::default();
    for (offset, TimestampMs(at_ms)) in [(1, TimestampMs(i64::MIN)), (2, TimestampMs(i64::MAX))] {
        stats.add(&letter(offset, at_ms, "g", offset, "r"), &State::Open);
    }
    assert_eq!((stats.letters, stats.hours.len()), (2, 2));
}
