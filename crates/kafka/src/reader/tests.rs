use super::*;

fn open(ranges: &[(i32, i64, Option<i64>)]) -> Open {
    let rest =
        |&(partition, next, to): &_| (partition, Rest { next, to, short_since: None, looked_again: false });
    Open { ranges: ranges.iter().map(rest).collect(), finished: Vec::new() }
}

#[test]
fn a_range_ends_after_its_last_record() {
    let mut open = open(&[(0, 5, Some(7))]);
    assert!(!open.wants(0, 4) && !open.wants(1, 5), "before the range, and another partition");
    assert!(open.wants(0, 5) && open.wants(0, 6));
    assert!(open.ranges.is_empty());
    assert!(!open.wants(0, 7));
    assert_eq!(open.finished, [0]);
}

#[test]
fn a_range_whose_last_offsets_hold_no_records_ends_at_the_next_record_or_the_end_of_the_log() {
    let mut first = open(&[(0, 5, Some(7))]);
    assert!(first.wants(0, 5) && !first.wants(0, 8));
    assert!(first.ranges.is_empty());
    let mut second = open(&[(0, 5, Some(7)), (1, 0, None)]);
    assert_eq!(second.saw_end(0, Some(7)), Ended::Finished, "a transaction marker lay there");
    assert_eq!(second.saw_end(1, Some(9)), Ended::Follows);
    assert_eq!(second.ranges.keys().collect::<Vec<_>>(), [&1], "what follows the log has no end");
}

#[test]
fn an_end_of_the_log_before_that_of_the_range_ends_nothing() {
    let mut open = open(&[(0, 5, Some(7))]);
    assert!(matches!(open.saw_end(0, None), Ended::Short(rest) if rest.next == 5));
    assert!(matches!(open.saw_end(0, Some(6)), Ended::Short(rest) if rest.next == 6));
    let looked_again = |open: &mut Open| open.ranges.values_mut().for_each(|rest| rest.looked_again = true);
    looked_again(&mut open);
    assert!(open.wants(0, 6), "the record came after all");
    assert!(open.ranges.is_empty());
    let mut nothing_there = self::open(&[(0, 5, Some(7))]);
    looked_again(&mut nothing_there);
    assert_eq!(nothing_there.saw_end(0, None), Ended::Finished, "the cluster said that the log goes as far");
}
