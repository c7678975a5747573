//! Tests of the window.

use proptest::prelude::*;

use super::*;

fn key(key: u8) -> Bytes {
    Bytes::from(vec![key])
}

fn window(keys: &[u8], in_flight_max: usize) -> Window {
    let mut window = Window::new(0, in_flight_max);
    for (offset, of) in (0..).zip(keys) {
        assert!(window.admit(offset, Some(&key(*of))));
    }
    window
}

fn begun(window: &mut Window) -> Vec<i64> {
    std::iter::from_fn(|| window.begin()).collect()
}

#[test]
fn of_one_key_one_at_a_time_and_of_others_as_many_as_may() {
    let mut window = window(&[1, 1, 2, 3, 2], 10);
    assert_eq!(begun(&mut window), [0, 2, 3]);
    window.done(2);
    assert_eq!(begun(&mut window), [4]);
    window.done(0);
    assert_eq!(begun(&mut window), [1]);
}

#[test]
fn everything_before_what_is_committed_is_done() {
    let mut window = window(&[1, 2, 3, 4], 10);
    assert_eq!(begun(&mut window), [0, 1, 2, 3]);
    for offset in [3, 1] {
        window.done(offset);
        assert_eq!(window.to_commit(), None);
    }
    window.done(0);
    assert_eq!(window.to_commit(), Some(2));
    window.done(2);
    assert_eq!(window.to_commit(), Some(4));
    window.moves_to(9);
    assert_eq!(window.to_commit(), Some(9), "markers behind them");
    window.committed(9);
    assert_eq!(window.to_commit(), None);
}

#[test]
fn no_more_would_come_again_after_a_crash_than_may_be_in_flight() {
    let mut window = window(&[1, 2, 3, 4, 5], 2);
    assert_eq!(begun(&mut window), [0, 1]);
    window.done(1);
    assert_eq!(begun(&mut window), [] as [i64; 0], "1 is done, and would come again");
    window.done(0);
    assert_eq!(begun(&mut window), [] as [i64; 0], "done, and not committed");
    window.committed(2);
    assert_eq!(begun(&mut window), [2, 3]);
}

#[test]
fn what_was_begun_can_be_put_back_and_keeps_its_place() {
    let mut window = window(&[1, 1, 2], 10);
    assert_eq!(begun(&mut window), [0, 2]);
    window.put_back(0);
    assert_eq!(begun(&mut window), [0]);
    window.done(0);
    window.put_back(0);
    assert_eq!(begun(&mut window), [1], "what is done is not put back");
}

#[test]
fn what_is_done_without_a_call_is_never_begun_and_holds_up_nobody() {
    let mut window = window(&[1, 1, 1], 10);
    window.done(1);
    window.done(0);
    assert_eq!(begun(&mut window), [2]);
    window.done(2);
    assert_eq!(window.to_commit(), Some(3));
}

#[test]
fn what_was_admitted_before_is_not_taken_twice_and_what_has_no_key_waits_for_nobody() {
    let mut window = window(&[1], 10);
    assert!(!window.admit(0, Some(&key(1))));
    assert!(window.admit(7, None) && window.admit(9, None));
    assert_eq!((begun(&mut window), window.next()), (vec![0, 7, 9], 10));
}

proptest! {
    /// However calls end and commits come: of a key in order and one at a time, bounded, nothing is committed that is not
    /// done, and in the end all is done and committed.
    #[test]
    fn in_order_bounded_and_complete(
        keys in prop::collection::vec(prop::option::weighted(0.9, 0_u8..6), 1..120),
        in_flight_max in 1_usize..20,
        choices in prop::collection::vec((0_u8..4, any::<prop::sample::Index>()), 0..600),
    ) {
        let mut window = Window::new(0, in_flight_max);
        let (mut admitted, mut under_way, mut done) = (0, Vec::new(), BTreeSet::new());
        let mut crashed_from = 0;
        let mut ever_begun = BTreeSet::new();
        let all = i64::try_from(keys.len()).expect("few");
        let rest = std::iter::repeat_n((9, None), 4 * keys.len() + 4);
        for (choice, which) in choices.into_iter().map(|(choice, which)| (choice, Some(which))).chain(rest) {
            if (choice == 0 || choice == 9) && admitted < keys.len() {
                let key = keys[admitted].map(key);
                window.admit(i64::try_from(admitted).expect("few"), key.as_ref());
                admitted += 1;
            }
            if (choice == 1 || choice == 9) && let Some(offset) = window.begin() {
                    let key = keys[usize::try_from(offset).expect("positive")];
                    let older = (0..offset).filter(|other| {
                        key.is_some() && keys[usize::try_from(*other).expect("positive")] == key
                    });
                    prop_assert!(older.into_iter().all(|other| done.contains(&other)), "{offset} came too early");
                    under_way.push(offset);
                    ever_begun.insert(offset);
                }
            if (choice == 2 || choice == 9) && !under_way.is_empty() {
                let offset = under_way.swap_remove(which.map_or(0, |which| which.index(under_way.len())));
                window.done(offset);
                done.insert(offset);
            }
            if (choice == 3 || choice == 9) && let Some(offset) = window.to_commit() {
                prop_assert!((0..offset).all(|before| done.contains(&before)), "{offset} is not all done");
                window.committed(offset);
                crashed_from = offset;
            }
            let again = ever_begun.range(crashed_from..).count();
            prop_assert!(again <= in_flight_max, "{again} would come again");
        }
        prop_assert_eq!((window.low_water(), window.open_len(), crashed_from), (all, 0, all));
    }
}
